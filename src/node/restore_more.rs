//! Gives a node that a restore made, and nobody started since, more of what came after its save: so what is carried to it in
//! rounds makes it newer and newer, until a link does the rest.
//!
//! - Invariant: as in [`super::restore`]: the note that a restore is under way stands in the directory from before the first
//!   change until everything is durable. Interrupted, the same is given again, from the entry on that the control file
//!   still says; what the store has already changes nothing in it.

use super::adopt::empty_segments;
use super::layout::{Layout, OwnName};
use super::past::{self, Found, PastError, PastSource};
use super::restore::{Held, Progress, RestoreError, failed};
use super::setup::{self, replace};
use crate::base::limits::KEY_FILE_MAX;
use crate::base::{JournalKind, Position, Seq};
use crate::engine::Until;
use crate::format::control::{Control, EpochMark, Origin, Role};
use crate::store::tree_store::TreeStore;
use crate::store::{StoreError, StoreWrite};
use std::path::Path;

/// What the note begins with; after another restore was interrupted that one has to be begun again.
const NOTE: &str = "more: ";

/// What was taken.
#[derive(Debug)]
pub struct More {
    /// Where the node stood before.
    pub from: Position,
    /// What came after that.
    pub past: Found,
}

/// Why it stopped, within the walk.
enum Stop {
    Past(PastError),
    Store(StoreError),
}

impl From<PastError> for Stop {
    fn from(error: PastError) -> Self {
        Self::Past(error)
    }
}

/// Gives the node in `dir` what these sources hold behind its last entry; with `dry_run` only looks.
///
/// # Durability
/// When it returns, all of it is synced.
///
/// # Errors
/// Any [`RestoreError`]. After an error that came when it was under way the node does not start until it was given again.
pub fn restore_more(
    dir: &Path,
    (sources, until): (&[PastSource], Until),
    dry_run: bool,
    progress: Progress<'_>,
) -> Result<More, RestoreError> {
    let held = Held::of(dir)?;
    let Held { layout, config, control, .. } = &held;
    check(layout, control)?;
    let from = control.origin.at;
    let past = past::find(sources, (control.pair, from), until)?;
    if dry_run || past.batches == 0 {
        return Ok(More { from, past });
    }
    let names: Vec<String> = sources.iter().map(PastSource::name).collect();
    replace(layout, OwnName::Restoring, format!("{NOTE}{}\n", names.join(" ")).as_bytes())?;
    let table = take(layout, control, &past, config.engine.ordinal, progress)?;
    let epoch = control.epoch.max(past.end.epoch);
    let origin = Origin { at: past.end, ..control.origin };
    held.ends(&Control { epoch, table, origin, ..*control })?;
    Ok(More { from, past })
}

/// Only what a restore made and nobody started holds nothing but what it was given.
fn check(layout: &Layout, control: &Control) -> Result<(), RestoreError> {
    let not_restored = |why| RestoreError::NotRestored { dir: layout.dir().to_owned(), why };
    let whole = control.role == Role::Standby && control.peer.restored && control.origin.at.seq > Seq(0);
    if !whole {
        return Err(not_restored("no save was restored to it, or it was joined to its pair since"));
    }
    let path = layout.restoring();
    if path.exists() {
        let text = layout.read_text(&path, false, KEY_FILE_MAX).map_err(setup::distrusted(&path))?;
        if !text.starts_with(NOTE) {
            return Err(not_restored("the restore of its save is not finished"));
        }
    }
    let own = setup::identity(layout.dir())?;
    match empty_segments(layout, &own)? {
        Some(none) if none.is_empty() => Ok(()),
        _ => Err(not_restored("it was started since")),
    }
}

/// Brings the store to the end of the history. Gives where its epochs begin then.
fn take(
    layout: &Layout,
    control: &Control,
    past: &Found,
    ordinal: crate::base::Ordinal,
    progress: Progress<'_>,
) -> Result<Vec<EpochMark>, RestoreError> {
    let store_failed = failed(layout.dir());
    let opened = TreeStore::open(&layout.store(), &layout.volumes(), ordinal).map_err(&store_failed)?;
    let (mut writer, applied) = (opened.writer, opened.applied[JournalKind::Replicated.index()]);
    writer.take_every_copy();
    let mut table = control.table.clone();
    let (mut at, mut read, mut replayed) = (control.origin.at, 0, false);
    let walked = past.walk(|batch| {
        let header = batch.header();
        // What an interrupted attempt left is given again before anything new.
        if !replayed && header.last_seq() > applied {
            replayed = true;
            writer.replayed();
        }
        if table.last().is_none_or(|mark| mark.epoch < header.epoch) {
            let (epoch, first_seq) = (header.epoch, header.first_seq);
            table.push(EpochMark { epoch, first_seq, prev_chain: at.chain });
        }
        writer.apply(JournalKind::Replicated, std::slice::from_ref(batch)).map_err(Stop::Store)?;
        at = batch.end();
        read += u64::from(header.len);
        progress(read);
        Ok::<_, Stop>(())
    });
    walked.map_err(|stop| match stop {
        Stop::Past(error) => RestoreError::Past(error),
        Stop::Store(error) => store_failed(error),
    })?;
    if !replayed {
        writer.replayed();
    }
    writer.checkpoint().map_err(&store_failed)?;
    Ok(table)
}
