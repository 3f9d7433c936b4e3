//! Makes a node of a save set, without a running node: [`restore()`] fills the directory that `init` made.
//!
//! - Invariant: from before the first change until everything is durable the directory holds a note that a restore is under
//!   way, and `serve` refuses it (I-32). Interrupted, the restore is begun again; nothing of the first attempt counts.
//! - Invariant: a restored node is a standby, whatever it was made as. Its peer decides whether the history that it was given
//!   is still the pair's; it serves only after an operator's takeover, which says what the set does not hold.
//! - Boundary: a set says what is in a database, and never where anything is written.

use super::adopt::empty_segments;
use super::config::Config;
use super::layout::{Layout, OwnName};
use super::owner::check_owner;
use super::set::{Block, Contents, SetError, SetReader, Source, contents};
use super::setup::{self, SetupError, io_error, lock, replace};
use crate::base::limits::KEY_FILE_MAX;
use crate::base::{Epoch, FileId, JournalKind, Ordinal, SegmentIndex, Seq, shown};
use crate::engine::SetWalk;
use crate::format::PairId;
use crate::format::chunk::{Chunk, Content};
use crate::format::control::{Control, Origin, PeerRecord, Role};
use crate::format::set::Trailer;
use crate::store::namespace::{Namespace, SYSTEM_ACCOUNT};
use crate::store::tree_store::{Opened, StoreReader, StoreWriter, TreeStore};
use crate::store::{CopyTarget, StoreError, StoreRead, StoreSnapshot, StoreWrite};
use bytes::Bytes;
use nix::sys::statvfs::statvfs;
use std::path::{Path, PathBuf};

/// Why a set was not restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The directory cannot be used. Nothing was changed.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The set is no save, or damaged. If something was changed, the restore has to be begun again.
    #[error(transparent)]
    Set(#[from] SetError),
    /// The store failed. The restore has to be begun again.
    #[error("restoring to {}: {source}", dir.display())]
    Store {
        /// Where.
        dir: PathBuf,
        /// Why.
        source: StoreError,
    },
    /// The node has content. Nothing was changed.
    #[error("restoring to {}: it is not empty: {why}", dir.display())]
    NotEmpty {
        /// The node's directory.
        dir: PathBuf,
        /// What it has.
        why: &'static str,
    },
    /// The set is of another pair. Nothing was changed.
    #[error("restoring to {}: the set is of pair {set}, the node of pair {node}", dir.display())]
    OtherPair {
        /// The node's directory.
        dir: PathBuf,
        /// Of the set.
        set: PairId,
        /// Of the node.
        node: PairId,
    },
    /// The set does not hold everything. Nothing was changed.
    #[error("restoring to {}: the set holds account {account} only", dir.display())]
    Partial {
        /// The node's directory.
        dir: PathBuf,
        /// What the set holds.
        account: String,
    },
    /// The disk is too small. Nothing was changed.
    #[error("restoring to {}: the set holds {}, the disk has room for {}", dir.display(), shown::bytes(*needs), shown::bytes(*has))]
    NoRoom {
        /// Where.
        dir: PathBuf,
        /// Content (bytes).
        needs: u64,
        /// Free (bytes).
        has: u64,
    },
}

impl RestoreError {
    /// What to do next, for people.
    #[must_use]
    pub fn next(&self) -> String {
        match self {
            Self::Setup(SetupError::Locked { .. }) => {
                "a running node takes back chosen accounts, files or items: add --only ACCOUNT[,FILE[,ID]]; to replace \
                 a whole node, make a new directory with `hot-backup init` and restore into that"
                    .to_owned()
            }
            Self::Setup(error) => error.next(),
            Self::Set(error) => error.next(),
            Self::Store { .. } => "look at that disk, then begin the restore again with the same command".to_owned(),
            Self::NotEmpty { .. } => {
                "make a new directory with `hot-backup init` and restore into that; chosen accounts, files or items go \
                 into a running primary with --only"
                    .to_owned()
            }
            Self::OtherPair { set, .. } => format!(
                "give a set of this pair; to go on with the pair of the set, make the directory anew: hot-backup init .. \
                 --pair-id {set}"
            ),
            Self::Partial { account, .. } => {
                format!("take it into a running primary: hot-backup restore --from .. --only {account}")
            }
            Self::NoRoom { .. } => "make room on that disk, or restore to a larger one".to_owned(),
        }
    }
}

/// What a restore did.
#[derive(Debug)]
pub struct Restored {
    /// The end of the set.
    pub trailer: Trailer,
    /// Accounts and files.
    pub namespace: Namespace,
}

/// Hears how many bytes of the set were read.
pub type Progress<'a> = &'a mut dyn FnMut(u64);

/// Restores a set into the node in `dir`, which must be empty or hold a restore that was interrupted.
///
/// # Durability
/// When it returns, all of it is synced, and the node may be started.
///
/// # Errors
/// Any [`RestoreError`]. After an error that came when the restore was under way the node does not start.
pub fn restore(dir: &Path, source: &Source, progress: Progress<'_>) -> Result<Restored, RestoreError> {
    let layout = Layout::new(dir);
    check_owner(&layout, "restore --from ..")?;
    setup::check_own(&layout)?;
    let config = Config::load(dir).map_err(SetupError::from)?;
    let _lock = lock(&layout)?;
    let control = setup::load_control(&layout, &config)?;
    if *source != Source::Stdin {
        check_set(&layout, &control, &contents(source)?)?;
    }
    let mut reader = SetReader::open(source.clone())?;
    if reader.header().pair != control.pair {
        let (dir, set, node) = (dir.to_owned(), reader.header().pair, control.pair);
        return Err(RestoreError::OtherPair { dir, set, node });
    }
    let again = layout.restoring().exists();
    let prepared = check_empty(&layout, &control, again)?;
    let mut writer = open(&layout, &control, again, config.engine.ordinal)?;
    replace(&layout, OwnName::Restoring, format!("{}\n", source.name()).as_bytes())?;
    for (journal, index) in prepared {
        let segment = layout.own(OwnName::Segment(journal, index));
        segment.remove().map_err(io_error("removing", segment.path()))?;
    }
    let trailer = take_all(&mut reader, &mut writer, (layout.dir(), None, false), progress)?;
    drop(writer);
    let Some(walk) = reader.walk() else { unreachable!("a set that was read has a beginning") };
    replace(&layout, OwnName::Control, &restored(walk, control.pair).encode())?;
    let note = layout.own(OwnName::Restoring);
    note.remove().map_err(io_error("removing", note.path()))?;
    crate::io::sync_dir(dir).map_err(io_error("syncing", dir))?;
    Ok(Restored { trailer, namespace: walk.namespace().clone() })
}

/// Whether [`restore()`] would begin, as far as that is known without changing anything.
///
/// # Errors
/// Any [`RestoreError`].
pub fn check(dir: &Path, source: &Source) -> Result<(), RestoreError> {
    let layout = Layout::new(dir);
    check_owner(&layout, "restore --from ..")?;
    setup::check_own(&layout)?;
    let config = Config::load(dir).map_err(SetupError::from)?;
    let _lock = lock(&layout)?;
    let control = setup::load_control(&layout, &config)?;
    check_set(&layout, &control, &contents(source)?)?;
    check_empty(&layout, &control, layout.restoring().exists()).map(|_| ())
}

/// The control file of a node that was given what `walk` made.
fn restored(walk: &SetWalk, pair: PairId) -> Control {
    let at = walk.end();
    let last = walk.table().last().map_or(at.epoch, |mark| mark.epoch);
    Control {
        role: Role::Standby,
        pair,
        epoch: at.epoch.max(last),
        table: walk.table().to_vec(),
        peer: PeerRecord { restored: true, ..PeerRecord::default() },
        origin: Origin { at, first_segment: SegmentIndex(1) },
    }
}

fn check_set(layout: &Layout, control: &Control, found: &Contents) -> Result<(), RestoreError> {
    let dir = layout.dir().to_owned();
    if found.header.pair != control.pair {
        return Err(RestoreError::OtherPair { dir, set: found.header.pair, node: control.pair });
    }
    if !found.begin.account.is_empty() {
        return Err(RestoreError::Partial { dir, account: found.begin.account.clone() });
    }
    check_room(layout.dir(), &found.trailer)
}

/// Says beforehand that there is too little room, where that can be known.
fn check_room(dir: &Path, trailer: &Trailer) -> Result<(), RestoreError> {
    let Ok(disk) = statvfs(dir) else { return Ok(()) };
    let (needs, has) = (trailer.counts.bytes, disk.blocks_available().saturating_mul(disk.fragment_size()));
    if needs > has {
        return Err(RestoreError::NoRoom { dir: dir.to_owned(), needs, has });
    }
    Ok(())
}

/// The segments that the node made in advance, if it has no history.
fn check_empty(
    layout: &Layout,
    control: &Control,
    again: bool,
) -> Result<Vec<(JournalKind, SegmentIndex)>, RestoreError> {
    let not_empty = |why| RestoreError::NotEmpty { dir: layout.dir().to_owned(), why };
    // A restore that ended between its last two steps has the control file already.
    if !again
        && (control.epoch != Epoch(0) || !control.table.is_empty() || control.origin != Origin::default())
    {
        return Err(not_empty("it has been part of a pair"));
    }
    let own = setup::identity(layout.dir())?;
    empty_segments(layout, &own)?.ok_or_else(|| not_empty("its journal holds entries"))
}

fn open(
    layout: &Layout,
    control: &Control,
    again: bool,
    ordinal: Ordinal,
) -> Result<StoreWriter, RestoreError> {
    let volumes = layout.volumes();
    crate::io::make_dir(&volumes).map_err(io_error("creating", &volumes))?;
    let Opened { writer, namespace, applied, .. } =
        TreeStore::open(&layout.store(), &volumes, ordinal).map_err(failed(layout.dir()))?;
    let blank =
        namespace.files().next().is_none() && namespace.accounts().all(|(id, _)| id == SYSTEM_ACCOUNT);
    if !again && (applied != [Seq(0); 2] || !blank) {
        let why = if control.role == Role::Primary { "it has accounts" } else { "it has files of its own" };
        return Err(RestoreError::NotEmpty { dir: layout.dir().to_owned(), why });
    }
    Ok(writer)
}

fn failed(dir: &Path) -> impl Fn(StoreError) -> RestoreError {
    let dir = dir.to_owned();
    move |source| RestoreError::Store { dir: dir.clone(), source }
}

/// Gives a store all of a set, the content of one file only if `only` says so, and makes it durable. A set of one account is
/// taken only if it may be `partial`.
fn take_all(
    reader: &mut SetReader,
    writer: &mut StoreWriter,
    (dir, only, partial): (&Path, Option<FileId>, bool),
    progress: Progress<'_>,
) -> Result<Trailer, RestoreError> {
    let store_failed = failed(dir);
    writer.replayed();
    writer.take_every_copy();
    let mut trailer = None;
    while let Some(block) = reader.next_block()? {
        match block {
            Block::Begin(begin) if !begin.account.is_empty() && !partial => {
                return Err(RestoreError::Partial { dir: dir.to_owned(), account: begin.account });
            }
            Block::Begin(begin) => writer.begin_copy(&begin.copy, None).map_err(&store_failed)?,
            Block::Batch(batch) => writer.apply(JournalKind::Replicated, &[batch]).map_err(&store_failed)?,
            Block::Chunk(chunk) => {
                let wanted = only.is_none_or(|file| file == chunk.file);
                let chunk = if wanted { chunk } else { Chunk { content: Content::Gone, ..chunk } };
                let progress = reader.walk().map(SetWalk::progress);
                if let Some(progress) = progress {
                    writer.take_chunk(&chunk, &progress).map_err(&store_failed)?;
                }
            }
            Block::Trailer(end) => trailer = Some(*end),
        }
        progress(reader.bytes());
    }
    writer.checkpoint().map_err(&store_failed)?;
    Ok(trailer.unwrap_or_else(|| unreachable!("the reader ends with a trailer")))
}

/// Refuses a node into which a restore has not ended: it does not serve (I-32).
///
/// # Errors
/// [`SetupError::Restoring`], or why the note cannot be read.
pub(super) fn check_finished(layout: &Layout) -> Result<(), SetupError> {
    let path = layout.restoring();
    if !path.exists() {
        return Ok(());
    }
    let text = layout.read_text(&path, false, KEY_FILE_MAX).map_err(setup::distrusted(&path))?;
    let (dir, from) = (layout.dir().to_owned(), text.trim().to_owned());
    Err(SetupError::Restoring { dir, from })
}

/// What a set holds, laid out in a directory of its own to look items up in; the directory goes with it.
pub struct Unpacked {
    reader: StoreReader,
    namespace: Namespace,
    /// Closed before the directory goes.
    writer: Option<StoreWriter>,
    dir: PathBuf,
}

impl std::fmt::Debug for Unpacked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Unpacked({})", self.dir.display())
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        self.writer = None;
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Lays out a set below `dir`, with the content of one file only if `only` names its id.
///
/// # Errors
/// Any [`RestoreError`]; what was laid out is removed.
pub fn unpack(
    source: &Source,
    dir: &Path,
    only: Option<FileId>,
    progress: Progress<'_>,
) -> Result<Unpacked, RestoreError> {
    check_room(dir, &contents(source)?.trailer)?;
    let mut reader = SetReader::open(source.only(only))?;
    let dir = dir.join(format!("hot-backup-restore-{}", std::process::id()));
    let made = std::fs::DirBuilder::new().create(&dir);
    made.map_err(io_error("creating", &dir))?;
    let laid_out = lay_out(&mut reader, &dir, only, progress);
    if laid_out.is_err() {
        let _ = std::fs::remove_dir_all(&dir);
    }
    laid_out
}

fn lay_out(
    reader: &mut SetReader,
    dir: &Path,
    only: Option<FileId>,
    progress: Progress<'_>,
) -> Result<Unpacked, RestoreError> {
    let opened =
        TreeStore::open(&dir.join("store"), &dir.join("volumes"), Ordinal(0)).map_err(failed(dir))?;
    let mut writer = opened.writer;
    take_all(reader, &mut writer, (dir, only, true), progress)?;
    let Some(walk) = reader.walk() else { unreachable!("a set that was read has a beginning") };
    let namespace = walk.namespace().clone();
    Ok(Unpacked { reader: opened.reader, namespace, writer: Some(writer), dir: dir.to_owned() })
}

impl Unpacked {
    /// Accounts and files.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// An item; none if there is none of that id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn item(&self, file: FileId, id: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.reader.snapshot().get(file, self.generation(file), id)
    }

    /// Items of a file behind an id, in order, with their values.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn items(&self, file: FileId, after: &[u8], most: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.reader.snapshot().scan(file, self.generation(file), Some(after), most, true)
    }

    fn generation(&self, file: FileId) -> u32 {
        self.writer.as_ref().and_then(|writer| writer.generation(file)).unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "restore_tests.rs"]
mod tests;
