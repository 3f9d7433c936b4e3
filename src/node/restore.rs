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
use super::past::{self, Found, PastError, PastSource};
use super::set::{Block, Contents, SetError, SetReader, Source, check_chain, contents};
use super::setup::{self, SetupError, io_error, lock, replace};
use crate::base::limits::KEY_FILE_MAX;
use crate::base::{Epoch, FileId, JournalKind, Ordinal, Position, SegmentIndex, Seq, shown};
use crate::engine::{SetWalk, Until};
use crate::format::PairId;
use crate::format::chunk::{Chunk, Content};
use crate::format::control::{Control, Origin, PeerRecord, Role};
use crate::format::rewind::Ranges;
use crate::format::set::{SetBegin, Trailer};
use crate::io::DirLock;
use crate::store::namespace::{FileInfo, Namespace, SYSTEM_ACCOUNT, has_content};
use crate::store::tree_store::{Opened, StoreReader, StoreWriter, TreeStore};
use crate::store::{CopyTarget, StoreError, StoreRead, StoreSnapshot, StoreWrite};
use bytes::Bytes;
use nix::sys::statvfs::statvfs;
use std::collections::BTreeMap;
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
    /// What came after the set cannot be had. If the restore was under way, it has to be begun again.
    #[error("restoring what came after the save: {0}")]
    Past(#[from] PastError),
    /// The set ends behind the moment that was asked for. Nothing was changed.
    #[error("restoring up to {until}: {set} holds the state at entry {end}, of {}", shown::utc(*ended))]
    TooEarly {
        /// What was asked for.
        until: String,
        /// The set.
        set: String,
        /// Its last entry.
        end: Seq,
        /// When the save ended (ms since 1970).
        ended: u64,
    },
    /// There is no set.
    #[error("restoring: no save is named")]
    Nothing,
    /// The sources cannot be looked at before anything is changed.
    #[error("restoring from {what}: it is read once, from its beginning, and has to be looked at first")]
    Piped {
        /// The source.
        what: String,
    },
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
    /// Only a node that a restore made, and nobody started since, takes what came after a save by itself. Nothing was changed.
    #[error("restoring to {}: none of the sources is a save, and {why}", dir.display())]
    NotRestored {
        /// The node's directory.
        dir: PathBuf,
        /// How it was seen.
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
            Self::Past(error) => error.next(),
            Self::TooEarly { .. } => "give a save that ended before that".to_owned(),
            Self::Nothing => "name one with --from".to_owned(),
            Self::Piped { .. } => "save it to a file first".to_owned(),
            Self::Store { .. } => "look at that disk, then begin the restore again with the same command".to_owned(),
            Self::NotEmpty { .. } => {
                "make a new directory with `hot-backup init` and restore into that; chosen accounts, files or items go \
                 into a running primary with --only"
                    .to_owned()
            }
            Self::NotRestored { .. } => {
                "name the save first, then what came after it; a node that was started gets the rest from its peer".to_owned()
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

/// What a restore is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// The saves: one that holds everything, then those that each were made since the one before.
    pub sets: Vec<Source>,
    /// What has the history behind it.
    pub past: Vec<PastSource>,
    /// Where that ends.
    pub until: Until,
    /// What the saved node had alone comes back, too.
    pub alone: bool,
}

impl Sources {
    /// A save alone.
    #[must_use]
    pub fn of(set: Source) -> Self {
        Self { sets: vec![set], past: Vec::new(), until: Until::End, alone: true }
    }

    /// What is known of them before anything is changed; nothing of what comes from a pipe.
    fn look(&self) -> Result<Option<Looked>, RestoreError> {
        if let Some(piped) = self.sets.iter().find(|set| **set == Source::Stdin) {
            let alone = self.sets.len() == 1 && self.past.is_empty() && self.until == Until::End;
            return if alone { Ok(None) } else { Err(RestoreError::Piped { what: piped.name() }) };
        }
        let sets = self.sets.iter().map(contents).collect::<Result<Vec<_>, _>>()?;
        let named: Vec<_> = self.sets.iter().map(Source::name).zip(&sets).collect();
        check_chain(&named)?;
        let Some((set, last)) = named.last() else { return Err(RestoreError::Nothing) };
        let (end, ended) = (last.trailer.end, last.trailer.wall_ms);
        let until = match self.until {
            Until::Entry(last) if last < end.seq => Some(format!("entry {last}")),
            Until::Time(last) if last < ended => Some(shown::utc(last)),
            _ => None,
        };
        if let Some(until) = until {
            return Err(RestoreError::TooEarly { until, set: set.clone(), end: end.seq, ended });
        }
        let past = past::find(&self.past, (last.header.pair, end), self.until)?;
        Ok(Some(Looked { sets, past }))
    }

    /// The same, where nobody can do without.
    fn looked(&self) -> Result<Looked, RestoreError> {
        self.look()?.ok_or_else(|| RestoreError::Piped { what: Source::Stdin.name() })
    }

    /// Their names.
    fn name(&self) -> String {
        self.sets.iter().map(Source::name).collect::<Vec<_>>().join(" ")
    }
}

struct Looked {
    sets: Vec<Contents>,
    past: Found,
}

/// What a restore did.
#[derive(Debug)]
pub struct Restored {
    /// The end of the set.
    pub trailer: Trailer,
    /// What came after it.
    pub past: Option<Found>,
    /// The last entry.
    pub end: Position,
    /// Accounts and files.
    pub namespace: Namespace,
}

/// Hears how many bytes of the set were read.
pub type Progress<'a> = &'a mut dyn FnMut(u64);

/// A node that does not run, for one who restores.
pub(super) struct Held {
    pub(super) layout: Layout,
    pub(super) config: Config,
    pub(super) control: Control,
    _lock: DirLock,
}

impl Held {
    /// Takes the node in `dir`, of which nobody else may have anything.
    pub(super) fn of(dir: &Path) -> Result<Self, RestoreError> {
        let layout = Layout::new(dir);
        check_owner(&layout, "restore --from ..")?;
        setup::check_own(&layout)?;
        let config = Config::load(dir).map_err(SetupError::from)?;
        let lock = lock(&layout)?;
        let control = setup::load_control(&layout, &config)?;
        Ok(Self { layout, config, control, _lock: lock })
    }

    /// All that was restored is durable: the node is what this says, and may be started.
    pub(super) fn ends(&self, control: &Control) -> Result<(), RestoreError> {
        replace(&self.layout, OwnName::Control, &control.encode())?;
        let (note, dir) = (self.layout.own(OwnName::Restoring), self.layout.dir());
        note.remove().map_err(io_error("removing", note.path()))?;
        crate::io::sync_dir(dir).map_err(io_error("syncing", dir))?;
        Ok(())
    }
}

/// Restores a set into the node in `dir`, which must be empty or hold a restore that was interrupted. Files that a save holds
/// the definition of alone are there, and empty.
///
/// # Durability
/// When it returns, all of it is synced, and the node may be started.
///
/// # Errors
/// Any [`RestoreError`]. After an error that came when the restore was under way the node does not start.
pub fn restore(dir: &Path, sources: &Sources, progress: Progress<'_>) -> Result<Restored, RestoreError> {
    let held = Held::of(dir)?;
    let Held { layout, config, control, .. } = &held;
    let looked = sources.look()?;
    if let Some(looked) = &looked {
        check_set(layout, control, looked)?;
    }
    let readers = open_sets(sources, None)?;
    if let Some(other) = readers.iter().map(|reader| reader.header().pair).find(|pair| *pair != control.pair)
    {
        let (dir, set, node) = (dir.to_owned(), other, control.pair);
        return Err(RestoreError::OtherPair { dir, set, node });
    }
    let again = layout.restoring().exists();
    let prepared = check_empty(layout, control, again)?;
    let mut writer = open(layout, control, again, config.engine.ordinal)?;
    replace(layout, OwnName::Restoring, format!("{}\n", sources.name()).as_bytes())?;
    for (journal, index) in prepared {
        let segment = layout.own(OwnName::Segment(journal, index));
        segment.remove().map_err(io_error("removing", segment.path()))?;
    }
    let past = looked.map(|looked| looked.past);
    if again {
        // An interrupted attempt may have had files that the node was to have alone.
        let nothing = Namespace::new().shared();
        writer.adopt_alone(&nothing, &mut BTreeMap::new()).map_err(failed(layout.dir()))?;
    }
    let wanted = Wanted { dir: layout.dir(), only: None, partial: false, alone: sources.alone };
    let (trailer, walk) = take_all(readers, &mut writer, wanted, past.as_ref(), progress)?;
    let defined = writer.define_alone(walk.namespace()).and_then(|()| writer.checkpoint());
    defined.map_err(failed(layout.dir()))?;
    drop(writer);
    held.ends(&restored(&walk, control.pair))?;
    Ok(Restored { trailer, past, end: walk.end(), namespace: walk.namespace().clone() })
}

/// Whether [`restore()`] would begin, as far as that is known without changing anything.
///
/// # Errors
/// Any [`RestoreError`].
pub fn check(dir: &Path, sources: &Sources) -> Result<(), RestoreError> {
    let held = Held::of(dir)?;
    let Held { layout, control, .. } = &held;
    let looked = sources.looked()?;
    check_set(layout, control, &looked)?;
    check_empty(layout, control, layout.restoring().exists()).map(|_| ())
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

fn check_set(layout: &Layout, control: &Control, looked: &Looked) -> Result<(), RestoreError> {
    for found in &looked.sets {
        let dir = layout.dir().to_owned();
        if found.header.pair != control.pair {
            return Err(RestoreError::OtherPair { dir, set: found.header.pair, node: control.pair });
        }
        if !found.begin.account.is_empty() {
            return Err(RestoreError::Partial { dir, account: found.begin.account.clone() });
        }
    }
    check_room(layout.dir(), &looked.sets)
}

fn open_sets(sources: &Sources, only: Option<FileId>) -> Result<Vec<SetReader>, SetError> {
    sources.sets.iter().map(|set| SetReader::open(set.only(only))).collect()
}

/// Says beforehand that there is too little room, where that can be known.
fn check_room(dir: &Path, sets: &[Contents]) -> Result<(), RestoreError> {
    let Ok(disk) = statvfs(dir) else { return Ok(()) };
    let needs = sets.iter().map(|set| set.trailer.counts.bytes).max().unwrap_or_default();
    let (needs, has) = (needs, disk.blocks_available().saturating_mul(disk.fragment_size()));
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

pub(super) fn failed(dir: &Path) -> impl Fn(StoreError) -> RestoreError {
    let dir = dir.to_owned();
    move |source| RestoreError::Store { dir: dir.clone(), source }
}

/// What is taken of sets.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    /// Where the store is.
    dir: &'a Path,
    /// Content of this file alone, if there is one.
    only: Option<FileId>,
    /// They may be of one account.
    partial: bool,
    /// What the saved node had alone, too.
    alone: bool,
}

/// Gives a store all of the sets, then what comes after them, and makes that durable.
fn take_all(
    readers: Vec<SetReader>,
    writer: &mut StoreWriter,
    wanted: Wanted<'_>,
    past: Option<&Found>,
    progress: Progress<'_>,
) -> Result<(Trailer, SetWalk), RestoreError> {
    writer.replayed();
    writer.take_every_copy();
    let (mut read, mut last, mut known, mut ids) = (0, None, None, BTreeMap::new());
    let (count, dir) = (readers.len(), wanted.dir);
    for (at, mut reader) in readers.into_iter().enumerate() {
        reader.of_chain(known.take(), at + 1 < count);
        let before = last.as_ref().map(|(_, walk): &(Trailer, SetWalk)| walk.namespace());
        let trailer =
            take_set(&mut reader, (writer, &mut ids), before, wanted, &mut |bytes| progress(read + bytes))?;
        // What is of this set is on the disk before the next one begins.
        writer.checkpoint().map_err(failed(dir))?;
        read += reader.bytes();
        known = reader.learned();
        last = reader.into_walk().map(|walk| (trailer, walk));
    }
    let Some((trailer, mut walk)) = last else { return Err(RestoreError::Nothing) };
    if let Some(past) = past.filter(|past| past.batches > 0) {
        past.walk(|batch| {
            // What continues the set may still say what a set cannot.
            let unfit = |why| SetError::NoSet { what: "what came after the save".to_owned(), why };
            walk.batch(batch).map_err(|error| unfit(error.to_string()))?;
            writer.apply(JournalKind::Replicated, std::slice::from_ref(batch)).map_err(failed(dir))?;
            read += u64::from(batch.header().len);
            progress(read);
            Ok::<_, RestoreError>(())
        })?;
        writer.checkpoint().map_err(failed(dir))?;
    }
    Ok((trailer, walk))
}

/// One set, behind one that had these definitions at its end if there is one. `ids` tells under which numbers those files are
/// here that the saved node had alone.
fn take_set(
    reader: &mut SetReader,
    (writer, ids): (&mut StoreWriter, &mut BTreeMap<FileId, FileId>),
    before: Option<&Namespace>,
    Wanted { dir, only, partial, alone }: Wanted<'_>,
    progress: Progress<'_>,
) -> Result<Trailer, RestoreError> {
    let store_failed = failed(dir);
    let mut trailer = None;
    while let Some(block) = reader.next_block()? {
        match block {
            Block::Begin(begin) if !begin.account.is_empty() && !partial => {
                return Err(RestoreError::Partial { dir: dir.to_owned(), account: begin.account });
            }
            Block::Begin(begin) => {
                let ranges = what_goes(reader, &begin, before)?;
                writer.begin_copy(&begin.copy, ranges.as_ref()).map_err(&store_failed)?;
            }
            Block::Batch(batch) => writer.apply(JournalKind::Replicated, &[batch]).map_err(&store_failed)?,
            Block::Alone(own) if alone => {
                writer.adopt_alone(&own.copy.namespace, ids).map_err(&store_failed)?;
            }
            Block::Alone(_) => {}
            Block::Chunk(chunk) if reader.walk().is_some_and(SetWalk::is_alone) => {
                let here = ids.get(&chunk.file).filter(|_| only.is_none_or(|file| file == chunk.file));
                if let Some(file) = here.copied() {
                    writer.take_alone(&Chunk { file, ..chunk }).map_err(&store_failed)?;
                }
            }
            Block::Same(_) if reader.walk().is_some_and(SetWalk::is_alone) => {}
            Block::Chunk(chunk) => {
                let wanted = only.is_none_or(|file| file == chunk.file);
                let chunk = if wanted { chunk } else { Chunk { content: Content::Gone, ..chunk } };
                take_chunk(reader, writer, &chunk).map_err(&store_failed)?;
            }
            Block::Same(same) => {
                let chunk = Chunk { content: Content::Gone, ..same.range };
                take_chunk(reader, writer, &chunk).map_err(&store_failed)?;
            }
            Block::Trailer(end) => trailer = Some(*end),
        }
        progress(reader.bytes());
    }
    Ok(trailer.unwrap_or_else(|| unreachable!("the reader ends with a trailer")))
}

fn take_chunk(reader: &SetReader, writer: &mut StoreWriter, chunk: &Chunk) -> Result<(), StoreError> {
    reader.walk().map_or(Ok(()), |walk| writer.take_chunk(chunk, &walk.progress()))
}

/// Of what was there everything goes when a set holds everything: none. One that continues another leaves what files have,
/// but for those that are different ones now.
fn what_goes(
    reader: &SetReader,
    begin: &SetBegin,
    before: Option<&Namespace>,
) -> Result<Option<Ranges>, RestoreError> {
    let chain = |why: &str| SetError::Chain { what: reader.name().to_owned(), why: why.to_owned() };
    match (begin.base, before) {
        (None, None) => Ok(None),
        (Some(_), None) => {
            Err(chain("it holds only what changed since another set, which is not named").into())
        }
        (None, Some(_)) => Err(chain("it holds everything, and continues no other set").into()),
        (Some(_), Some(before)) => Ok(reader.walk().map(|walk| walk.goes(before))),
    }
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
    /// The set holds what its node had alone.
    alone: bool,
    /// Closed before the directory goes.
    writer: Option<StoreWriter>,
    dir: PathBuf,
    past: Found,
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

/// Lays out a set and what comes after it below `dir`, with the content of one file only if `only` names its id.
///
/// # Errors
/// Any [`RestoreError`]; what was laid out is removed.
pub fn unpack(
    sources: &Sources,
    dir: &Path,
    only: Option<FileId>,
    progress: Progress<'_>,
) -> Result<Unpacked, RestoreError> {
    let looked = sources.looked()?;
    check_room(dir, &looked.sets)?;
    let readers = open_sets(sources, only)?;
    let dir = dir.join(format!("hot-backup-restore-{}", std::process::id()));
    let made = std::fs::DirBuilder::new().create(&dir);
    made.map_err(io_error("creating", &dir))?;
    let wanted = Wanted { dir: &dir, only, partial: true, alone: sources.alone };
    let laid_out = lay_out(readers, wanted, looked.past, progress);
    if laid_out.is_err() {
        let _ = std::fs::remove_dir_all(&dir);
    }
    laid_out
}

fn lay_out(
    readers: Vec<SetReader>,
    wanted: Wanted<'_>,
    past: Found,
    progress: Progress<'_>,
) -> Result<Unpacked, RestoreError> {
    let dir = wanted.dir;
    let opened =
        TreeStore::open(&dir.join("store"), &dir.join("volumes"), Ordinal(0)).map_err(failed(dir))?;
    let mut writer = opened.writer;
    let (_, walk) = take_all(readers, &mut writer, wanted, Some(&past), progress)?;
    let alone = walk.is_alone() && wanted.alone;
    let namespace = if alone { writer.namespace().clone() } else { walk.namespace().clone() };
    Ok(Unpacked { reader: opened.reader, namespace, alone, writer: Some(writer), dir: dir.to_owned(), past })
}

impl Unpacked {
    /// What came after the set, and where it ends.
    #[must_use]
    pub fn past(&self) -> &Found {
        &self.past
    }

    /// Accounts and files.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Whether the set holds the content of a file, and not its definition alone.
    #[must_use]
    pub fn has_content(&self, info: &FileInfo) -> bool {
        info.replicated || (self.alone && has_content(info))
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

    /// A range of a volume.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn blocks(&mut self, file: FileId, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.writer.as_mut().map_or(Ok(Bytes::new()), |writer| writer.read_volume(file, offset, len))
    }

    fn generation(&self, file: FileId) -> u32 {
        self.writer.as_ref().and_then(|writer| writer.generation(file)).unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "restore_tests.rs"]
mod tests;
