//! A node that holds nothing yet joins the pair of the one that it is told to trust.

use super::config::Config;
use super::config_file::{ConfigErrors, quoted, replace_value};
use super::identity::Identity;
use super::layout::{Layout, OwnName};
use super::segment_source::{self, DiskSegments};
use super::setup::{SetupError, distrusted, io_error, lock, read_control, replace};
use super::starting::Starting;
use crate::base::limits::{BLOCK, BLOCK_U64, CONFIG_FILE_MAX, RECOVERY_READ};
use crate::base::{Epoch, JournalKind, SegmentIndex, Seq, read_at_most};
use crate::format::control::Role;
use crate::format::segment::SegmentHeader;
use crate::journal::recover;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

/// Makes the node whose directory this is the standby of `peer`: of its pair, and with the number that `peer` has not.
///
/// # Durability
/// When it returns, the change is synced. Interrupted, it can be done again.
///
/// # Errors
/// [`SetupError::OtherPair`] if the node holds entries of its own; nothing was changed then.
pub(super) fn join(layout: &Layout, own: &Identity, peer: &Identity) -> Result<(), SetupError> {
    let _lock = lock(layout)?;
    let mut control = read_control(layout)?;
    let prepared = match (control.epoch, control.table.is_empty()) {
        (Epoch(0), true) => empty_segments(layout, own)?,
        _ => None,
    };
    let Some(prepared) = prepared else {
        let (own, theirs) = (own.pair, peer.pair);
        return Err(SetupError::OtherPair { peer: peer.name.clone(), own, theirs });
    };
    // Files that a node makes in advance when it serves: without an entry, but they may name the old pair.
    for (journal, index) in prepared {
        let segment = layout.own(OwnName::Segment(journal, index));
        segment.remove().map_err(io_error("removing", segment.path()))?;
    }
    control.pair = peer.pair;
    control.role = Role::Standby;
    replace(layout, OwnName::Control, &control.encode())?;
    let path = layout.config();
    let text = layout.read_text(&path, false, CONFIG_FILE_MAX).map_err(distrusted(&path))?;
    let place = [
        ("pair_id", quoted(&peer.pair.to_string())),
        ("ordinal", peer.ordinal.other().0.to_string()),
        ("initial_role", quoted(Role::Standby.name())),
    ];
    let text = place.iter().try_fold(text, |text, (key, literal)| {
        replace_value(&text, key, literal)
            .ok_or_else(|| ConfigErrors::whole(&path, format!("`{key}` could not be replaced")))
    })?;
    Config::parse(&path, &text)?;
    replace(layout, OwnName::Config, text.as_bytes())
}

/// The segments of both journals if there is no entry in any of them, else nothing.
pub(super) fn empty_segments(
    layout: &Layout,
    own: &Identity,
) -> Result<Option<Vec<(JournalKind, SegmentIndex)>>, SetupError> {
    let mut all = Vec::new();
    for journal in JournalKind::ALL {
        let dir = layout.journal(journal);
        let segments = segment_source::list(layout, journal).map_err(io_error("listing", &dir))?;
        let unseen = Arc::new(Starting::new());
        let mut source =
            DiskSegments::new(layout, journal, &segments, &unseen).map_err(io_error("reading", &dir))?;
        // What cannot be understood is not nothing.
        let is_empty = recover(journal, own.pair, own.ordinal, &segments, &mut source)
            .is_ok_and(|recovered| recovered.end.seq == Seq(0));
        if !is_empty {
            return Ok(None);
        }
        for (index, _) in segments {
            let path = layout.segment(journal, index);
            if !is_blank(&path).map_err(io_error("reading", &path))? {
                return Ok(None);
            }
            all.push((journal, index));
        }
    }
    Ok(Some(all))
}

/// Whether a segment holds nothing but zeros, behind its header if it has one: the walk at a start passes over a damaged
/// one, which may have held something.
fn is_blank(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let mut chunk = vec![0; RECOVERY_READ];
    let head = read_at_most((&mut file).take(BLOCK_U64), BLOCK)?;
    let zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    if !zero(&head) && SegmentHeader::decode(&head).is_err() {
        return Ok(false);
    }
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(true),
            n if chunk.get(..n).is_some_and(zero) => {}
            _ => return Ok(false),
        }
    }
}
