//! The tables on disk: a log-structured merge tree (`lsm-tree`) without the memtables and without the log that it
//! would come with.
//!
//! - Invariant: what [`Tables::ingest`] is given becomes visible, and durable, in one step: the tables are synced, then
//!   the manifest that names them, then the file `current` that names the manifest, then its directory.
//! - Invariant: nothing that a manifest names is ever changed; what no manifest names is removed when the tree is
//!   opened, after the manifest was checked.
//! - Boundary: `current`, the manifest and the ends of tables are checked here, as the tree believes what they say. Blocks of tables carry
//!   checksums that the tree checks at each read.

use super::super::StoreError;
use super::super::volumes::calls;
use super::archive;
use super::blocks::{Blocks, Found, Reading, Source, Sources, Stop};
use super::rot::{RottenTables, Suspects};
use super::scrub::TableFile;
use crate::base::limits::{
    STORE_ANEW_MAX, STORE_ANEW_PIECE, STORE_CACHE, STORE_MANIFEST_MAX, STORE_MERGE_BYTES, STORE_MERGE_RUNS,
    STORE_TABLE, STORE_TABLES_MAX,
};
use crate::base::{Fault, read_at_most};
use bytes::Bytes;
use lsm_tree::compaction::Leveled;
use lsm_tree::config::{CompressionPolicy, PinningPolicy};
use lsm_tree::{
    AbstractTree, AnyTree, Cache, CompressionType, Config, DescriptorTable, Guard, SeqNo,
    SequenceNumberCounter,
};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use xxhash_rust::xxh3::xxh3_128;

/// Number of the manifest, its checksum, and the kind of that.
const CURRENT: usize = 8 + 16 + 1;

/// Keys from here to there.
pub(super) type Range = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// Takes the next entry of a table: a key, and its value unless it is deleted.
type Give<'g> = dyn FnMut(&[u8], Option<&[u8]>) -> Result<(), StoreError> + 'g;

/// What is on disk.
pub(super) struct Tables {
    tree: AnyTree,
    pub(super) blocks: Blocks,
    visible: SequenceNumberCounter,
    dir: PathBuf,
    /// Held while tables are merged, and while one goes.
    alone: Mutex<()>,
    #[cfg(test)]
    pub(super) dies_before_drop: std::sync::atomic::AtomicBool,
}

impl Tables {
    /// Opens the tree in `dir`, or makes one where nothing is.
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        check(dir)?;
        remove_temporary(dir).map_err(|error| StoreError::Disk {
            doing: "removing what was left of a list of the store's tables",
            fault: Fault::from_io(&error),
        })?;
        let (next, visible) = (SequenceNumberCounter::default(), SequenceNumberCounter::default());
        let all = PinningPolicy::all;
        let blocks = Blocks {
            cache: Arc::new(Cache::with_capacity_bytes(STORE_CACHE)),
            files: Arc::new(DescriptorTable::new(STORE_TABLES_MAX)),
            suspects: Suspects::default(),
        };
        let tree = Config::new(dir, next.clone(), visible.clone())
            .use_cache(Arc::clone(&blocks.cache))
            .use_descriptor_table(Some(Arc::clone(&blocks.files)))
            .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
            .index_block_partitioning_policy(all(true))
            .filter_block_partitioning_policy(all(true))
            .index_block_pinning_policy(all(false))
            .filter_block_pinning_policy(all(false))
            .open()
            .map_err(|error| failed("opening the store's tables", error))?;
        let first = tree.get_highest_persisted_seqno().map_or(0, |seqno| seqno + 1);
        next.set(first);
        visible.set(first);
        Ok(Self {
            tree,
            blocks,
            visible,
            dir: dir.to_owned(),
            alone: Mutex::default(),
            #[cfg(test)]
            dies_before_drop: false.into(),
        })
    }

    /// What the tables take on disk (bytes).
    pub(super) fn disk_bytes(&self) -> u64 {
        self.tree.disk_space()
    }

    /// What is visible now, for [`Self::get`] and [`Self::range`].
    pub(super) fn newest(&self) -> SeqNo {
        self.visible.get()
    }

    pub(super) fn get(&self, key: &[u8], at: SeqNo) -> Result<Option<lsm_tree::UserValue>, StoreError> {
        self.tree.get(key, at).map_err(|error| failed("reading the store", error))
    }

    /// The tables as they are now, for reads that do not wait; what is known from `before` is not read again.
    pub(super) fn sources(&self, before: &Sources) -> Result<Sources, StoreError> {
        let version = self.tree.current_version();
        let runs = version.iter_levels().flat_map(|level| level.iter().map(|run| run.to_vec()));
        Sources::new(runs, self.tree.id(), before, &self.blocks)
            .map_err(|error| failed("reading the index of a table of the store", error))
    }

    /// As [`Self::get`], of the tables as they were then, unless it would have to wait for the disk.
    pub(super) fn try_get(
        &self,
        sources: &Sources,
        how: Reading,
        key: &[u8],
    ) -> Result<Option<lsm_tree::UserValue>, Stop> {
        sources.get(&self.blocks, how, key)
    }

    /// As [`Self::range`], of the tables as they were then, up to where it would have to wait for the disk.
    pub(super) fn try_range<'s>(
        &'s self,
        sources: &'s Sources,
        how: Reading,
        range: &'s Range,
        with_values: bool,
    ) -> impl Iterator<Item = Result<(Vec<u8>, Bytes), Stop>> + 's {
        sources.range(&self.blocks, how, range, with_values)
    }

    pub(super) fn range(
        &self,
        range: Range,
        at: SeqNo,
    ) -> impl Iterator<Item = Result<(lsm_tree::UserKey, lsm_tree::UserValue), StoreError>> + use<> {
        let found = self.tree.range(range, at, None);
        found.map(|item| item.into_inner().map_err(|error| failed("reading the store", error)))
    }

    /// Makes what `give` gives, in the order of keys, visible and durable in one step; it deletes where there is no
    /// value. After an error nothing of it is visible.
    pub(super) fn ingest(
        &self,
        give: impl FnOnce(&mut Give<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        const DOING: &str = "writing a table of the store";
        let failed = |error| failed(DOING, error);
        let mut into = self.tree.ingestion().map_err(failed)?;
        give(&mut |key, value| {
            let written = match value {
                Some(value) => into.write(key, value),
                None => into.write_tombstone(key),
            };
            written.map_err(failed)
        })?;
        into.finish().map_err(failed)
    }

    /// Whether there is something to merge: many runs that reads have to look into, or much that was written.
    pub(super) fn wants_merge(&self) -> bool {
        let version = self.tree.current_version();
        let runs = version.l0().run_count();
        runs >= STORE_MERGE_RUNS || (runs > 1 && version.l0().size() >= STORE_MERGE_BYTES)
    }

    /// Runs of tables that overlap each other.
    pub(super) fn runs(&self) -> usize {
        self.tree.l0_run_count()
    }

    /// Does one step of merging; returns whether there may be more. What is seen at `oldest` or later stays seen.
    pub(super) fn merge(&self, oldest: SeqNo) -> Result<bool, StoreError> {
        let _alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.tree.current_version().id();
        let strategy = Leveled::default().with_l0_threshold(4).with_table_target_size(STORE_TABLE);
        self.tree
            .compact(Arc::new(strategy), oldest)
            .map_err(|error| failed("merging the store's tables", error))?;
        Ok(self.tree.current_version().id() != before)
    }

    /// Notes each table that cannot be read everywhere.
    pub(super) fn note_rotten(&self, sources: &Sources) {
        for source in sources.runs.iter().flatten() {
            if let Ok(Some(_)) = source.examined() {
                self.blocks.suspects.note(source.table.id(), false);
            }
        }
    }

    /// Writes everything between the first key of a table and its last anew above all tables, but for what is not live, and
    /// has the table go then, with all others between these keys. `sources` are all tables as they are; what is in gaps of
    /// `covered` ones does not count. Nothing may be flushed meanwhile.
    pub(super) fn write_anew(
        &self,
        number: u64,
        sources: &Sources,
        covered: &RottenTables,
        is_live: impl Fn(&[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let _alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        let tables = || sources.runs.iter().flatten();
        let Some(source) = tables().find(|source| source.table.id() == number) else { return Ok(()) };
        let (first, last) = (source.min().to_vec(), source.max().to_vec());
        let overlap = tables().filter(|source| source.min() <= &last[..] && source.max() >= &first[..]);
        let size =
            |source: &Arc<Source>| std::fs::metadata(&**source.table.path).map_or(0, |found| found.len());
        if overlap.map(size).sum::<u64>() > STORE_ANEW_MAX {
            return Err(damaged_table("too much shares its keys to be written anew"));
        }
        let from = self.next_table();
        let range = (Bound::Included(first.clone()), Bound::Included(last.clone()));
        let mut rest = sources.range_beside(&self.blocks, covered, &range).peekable();
        while rest.peek().is_some() {
            self.ingest(|give| piece(give, (&first, &last), &mut rest, &is_live))?;
        }
        let between = |table: &lsm_tree::Table| {
            let keys = &table.metadata.key_range;
            first[..] <= keys.min()[..] && keys.max()[..] <= last[..]
        };
        // What was just written sticks out, so that it does not go with the rest.
        if self.tree.current_version().iter_tables().any(|table| table.id() >= from && between(table)) {
            return Err(damaged_table("what was written anew does not outlast it"));
        }
        #[cfg(test)]
        if self.dies_before_drop.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(StoreError::Disk { doing: "testing", fault: Fault::Errno(5) });
        }
        self.tree
            .drop_range(first.as_slice()..=last.as_slice())
            .map_err(|error| failed("removing a rotten table of the store", error))?;
        match self.tree.current_version().iter_tables().any(|table| table.id() == number) {
            true => Err(damaged_table("it does not go")),
            false => Ok(()),
        }
    }

    /// Lets go of tables that nobody sees at `oldest` or later.
    pub(super) fn release(&self, oldest: SeqNo) -> Result<(), StoreError> {
        self.tree
            .get_version_history_lock()
            .maintenance(&self.dir, oldest)
            .map_err(|error| failed("removing old tables of the store", error))
    }

    /// Whether the file `current` names what is known here: else a failure came after the new manifest was named.
    pub(super) fn is_as_stored(&self) -> io::Result<bool> {
        let current = read_at_most(File::open(self.dir.join("current"))?, CURRENT)?;
        Ok(current.starts_with(&self.tree.current_version().id().to_le_bytes()))
    }

    /// Names what is known here again, durably. The manifest that was named is left, and written anew by the next attempt.
    /// Nothing may be written meanwhile.
    pub(super) fn name_again(&self) -> io::Result<()> {
        let number = self.tree.current_version().id();
        let manifest = read_at_most(File::open(self.dir.join(format!("v{number}")))?, STORE_MANIFEST_MAX)?;
        let sum = xxh3_128(&manifest);
        // A start removes a file of such a name.
        let temporary = self.dir.join(".tmp-current");
        let file = File::create(&temporary)?;
        calls::write(&file, &[&number.to_le_bytes()[..], &sum.to_le_bytes(), &[0]].concat(), 0)?;
        calls::sync(&file)?;
        let dir = File::open(&self.dir)?;
        std::fs::rename(&temporary, self.dir.join("current"))?;
        calls::sync_names(&dir)
    }

    /// All of them, as files.
    pub(super) fn files(&self) -> Vec<TableFile> {
        let version = self.tree.current_version();
        let tables = version.iter_tables();
        tables
            .map(|table| TableFile {
                path: self.dir.join("tables").join(table.id().to_string()),
                number: table.id(),
                sum: table.checksum().into_u128(),
            })
            .collect()
    }

    /// See [`check`].
    pub(super) fn check_list(&self) -> Result<(), StoreError> {
        check(&self.dir)
    }

    /// The number of the next table.
    pub(super) fn next_table(&self) -> u64 {
        self.tree.next_table_id()
    }

    /// Removes tables from number `from` on that are not part of the tree: what failed while it was written. Nothing
    /// may be written meanwhile.
    pub(super) fn remove_unfinished(&self, from: u64) -> io::Result<()> {
        let version = self.tree.current_version();
        for found in std::fs::read_dir(self.dir.join("tables"))? {
            let found = found?;
            let number = found.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
            let unknown = |number: &u64| version.iter_tables().all(|table| table.id() != *number);
            if number.filter(|number| *number >= from).is_some_and(|number| unknown(&number)) {
                std::fs::remove_file(found.path())?;
            }
        }
        Ok(())
    }
}

/// Writes the next entries into a table that sticks out of `keys`, as it holds one more that deletes what is nowhere.
fn piece(
    give: &mut Give<'_>,
    (first, last): (&[u8], &[u8]),
    rest: &mut dyn Iterator<Item = Result<Found, Stop>>,
    is_live: &dyn Fn(&[u8]) -> bool,
) -> Result<(), StoreError> {
    let is_before = BEFORE_ALL < first;
    if is_before {
        give(BEFORE_ALL, None)?;
    }
    let mut bytes = 0;
    while bytes < STORE_ANEW_PIECE {
        let Some(found) = rest.next() else { break };
        let (key, value) = found.map_err(|stop| match stop {
            Stop::Failed(error) => error,
            Stop::Cold => unreachable!("a read that waits for the disk is never cold"),
        })?;
        let value = value.filter(|_| is_live(&key));
        bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
        give(&key, value.as_deref())?;
    }
    match last.first() {
        _ if is_before => Ok(()),
        Some(&u8::MAX) => give(&[last, BEHIND_ALL].concat(), None),
        _ => give(BEHIND_ALL, None),
    }
}

/// Keys that nothing has, before and behind all that anything has.
const BEFORE_ALL: &[u8] = &[0];
const BEHIND_ALL: &[u8] = &[u8::MAX];

fn damaged_table(why: &str) -> StoreError {
    StoreError::Damaged { what: "a table", why: why.to_owned() }
}

/// Checks the manifest, and that each name in the directory of tables is one that the tree knows to read. A directory
/// that is not there, or in which nothing is, is in order.
fn check(dir: &Path) -> Result<(), StoreError> {
    let disk = |error: io::Error| StoreError::Disk {
        doing: "reading the manifest of the store's tables",
        fault: Fault::from_io(&error),
    };
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(disk)?,
    };
    if entries.count() == 0 {
        return Ok(());
    }
    let current = match File::open(dir.join("current")) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(damaged("the file `current`, which names the manifest, is missing"));
        }
        file => read_at_most(file.map_err(disk)?, CURRENT + 1).map_err(disk)?,
    };
    let Ok([number @ .., 0]) = <[u8; CURRENT]>::try_from(current) else {
        return Err(damaged("the file `current`, which names the manifest, is not what was written"));
    };
    let (number, sum) = number.split_at(8);
    let number = u64::from_le_bytes(number.try_into().expect("8 bytes"));
    let sum = u128::from_le_bytes(sum.try_into().expect("16 bytes"));
    let name = format!("v{number}");
    let manifest = match File::open(dir.join(&name)) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(damaged(&format!("the manifest {name} is missing")));
        }
        file => read_at_most(file.map_err(disk)?, STORE_MANIFEST_MAX).map_err(disk)?,
    };
    if xxh3_128(&manifest) != sum {
        return Err(damaged(&format!("the checksum of the manifest {name} is wrong")));
    }
    let tables = archive::tables_of(&manifest)
        .map_err(|error| damaged(&format!("the manifest {name} cannot be read: {error}")))?;
    for number in tables {
        // One that is missing is told of by the tree.
        let file = match File::open(dir.join("tables").join(number.to_string())) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            file => file.map_err(disk)?,
        };
        let whole = archive::check_table(&file).map_err(disk)?;
        whole
            .map_err(|why| StoreError::Damaged { what: "a table", why: format!("table {number}: {why}") })?;
    }
    for found in std::fs::read_dir(dir.join("tables")).map_err(disk)? {
        let found = found.map_err(disk)?;
        let name = found.file_name();
        let number = name.to_str().is_some_and(|name| name.parse::<u64>().is_ok());
        if !number || !found.file_type().map_err(disk)?.is_file() {
            return Err(damaged(&format!("{} is no table", name.display())));
        }
    }
    Ok(())
}

/// Removes what a kill left of a file `current` in the making.
fn remove_temporary(dir: &Path) -> io::Result<()> {
    if !dir.try_exists()? {
        return Ok(());
    }
    for found in std::fs::read_dir(dir)? {
        let found = found?;
        if found.file_name().to_str().is_some_and(|name| name.starts_with(".tmp")) {
            std::fs::remove_file(found.path())?;
        }
    }
    Ok(())
}

fn damaged(why: &str) -> StoreError {
    StoreError::Damaged { what: "the list of its tables", why: why.to_owned() }
}

pub(super) fn failed(doing: &'static str, error: lsm_tree::Error) -> StoreError {
    match error {
        // A file that ends too early was cut, which no disk does by itself.
        lsm_tree::Error::Io(error)
            if !matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData) =>
        {
            StoreError::Disk { doing, fault: Fault::from_io(&error) }
        }
        other => StoreError::Damaged { what: "a table", why: format!("{doing}: {other:?}") },
    }
}
