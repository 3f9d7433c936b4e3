//! How a store comes to be: made, or converted from what version 0.1 wrote (the engine `fjall`).
//!
//! The tree stands in a directory of its own, `tree`, which is made beside what is there and renamed when all of it is
//! durable. So an interrupted start finds what was before, and begins anew. The file `version` keeps version 0.1 from
//! taking the directory for an empty one.

use super::super::StoreError;
use super::super::torn_tail;
use super::tables::Tables;
use super::{damaged, disk, first_records};
use crate::base::shown::Grouped;
use crate::base::{Fault, Ordinal, read_at_most};
use fjall::config::CompressionPolicy;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, Readable};
use nix::fcntl::OFlag;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What `version` says once there is a tree.
const MARK: &[u8] = b"HBS\x02";
/// What it says in a store of version 0.1.
const OLD_MARK: &[u8] = b"FJL\x03";
/// Longest version file (bytes).
const MARK_MAX: usize = 4096;
/// Blocks that the old engine keeps in memory while it is read (bytes).
const OLD_CACHE: u64 = 8 << 20;
/// Table files that it keeps open.
const OLD_FILES: usize = 64;

/// Opens the tables of the store in `dir`; makes or converts them first if need be. Gives the lock on the directory too.
pub(super) fn open(dir: &Path, node: Ordinal) -> Result<(Tables, File), StoreError> {
    std::fs::create_dir_all(dir).map_err(disk("making the directory of the store"))?;
    let lock = lock(dir)?;
    let tree = dir.join("tree");
    if !tree.try_exists().map_err(disk("looking for the store"))? {
        make(dir, &tree, node)?;
    }
    mark(dir).map_err(disk("marking the directory of the store"))?;
    remove_old(dir).map_err(disk("removing what was converted of the store"))?;
    Ok((Tables::open(&tree)?, lock))
}

fn lock(dir: &Path) -> Result<File, StoreError> {
    const DOING: &str = "locking the store";
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
    let file = options.open(dir.join("tree.lock")).map_err(disk(DOING))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        // EBUSY: another process has it.
        Err(TryLockError::WouldBlock) => Err(StoreError::Disk { doing: DOING, fault: Fault::Errno(16) }),
        Err(TryLockError::Error(error)) => Err(disk(DOING)(error)),
    }
}

fn make(dir: &Path, tree: &Path, node: Ordinal) -> Result<(), StoreError> {
    let version = match File::open(dir.join("version")) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        file => {
            let read = file.and_then(|file| read_at_most(file, MARK_MAX));
            Some(read.map_err(disk("reading the version of the store"))?)
        }
    };
    let new = dir.join("tree.tmp");
    match std::fs::remove_dir_all(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(disk("removing what is left of an unfinished store")(error));
        }
        _ => {}
    }
    match version.as_deref() {
        None => {
            if !is_unfinished(dir).map_err(disk("looking for the store"))? {
                return Err(damaged("its engine's files", "the version file is missing"));
            }
            fill(&new, node)?;
        }
        Some(OLD_MARK) => convert(dir, &new, node)?,
        Some(MARK) => return Err(damaged("its engine's files", "the directory `tree` is missing")),
        Some(_) => return Err(damaged("its engine's files", "the version file is not one that is known")),
    }
    let name = || -> io::Result<()> {
        File::open(&new)?.sync_all()?;
        std::fs::rename(&new, tree)?;
        File::open(dir)?.sync_all()
    };
    name().map_err(disk("naming the new store"))
}

/// Makes a store in which nothing is.
fn fill(dir: &Path, node: Ordinal) -> Result<(), StoreError> {
    Tables::open(dir)?
        .ingest(|put| first_records(node).iter().try_for_each(|(key, value)| put(key, Some(value))))
}

/// Whether version 0.1 had not come to store anything.
fn is_unfinished(dir: &Path) -> io::Result<bool> {
    match std::fs::read_dir(dir.join("keyspaces")) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        entries => Ok(entries?.next().is_none()),
    }
}

/// Copies everything that version 0.1 has stored.
fn convert(dir: &Path, new: &Path, node: Ordinal) -> Result<(), StoreError> {
    tracing::info!("converting the store in {} from version 0.1", dir.display());
    let cut = torn_tail::cut(dir).map_err(disk("cutting the torn end of the old store's journal"))?;
    if cut > 0 {
        tracing::info!("{} bytes of the old store were torn and are taken from the journal", Grouped(cut));
    }
    let (database, items) = open_old(dir).map_err(old_error)?;
    if items.is_empty().map_err(old_error)? {
        return fill(new, node);
    }
    let mut count = 0_u64;
    Tables::open(new)?.ingest(|put| {
        for found in database.snapshot().range::<&[u8], _>(&items, ..) {
            let (key, value) = found.into_inner().map_err(old_error)?;
            put(&key, Some(&value))?;
            count += 1;
        }
        Ok(())
    })?;
    tracing::info!("{} items and records of the store were converted", Grouped(count));
    Ok(())
}

pub(super) fn open_old(dir: &Path) -> fjall::Result<(Database, Keyspace)> {
    let database = Database::builder(dir)
        .cache_size(OLD_CACHE)
        .journal_compression(CompressionType::None)
        .worker_threads(1)
        .max_cached_files(Some(OLD_FILES))
        .open()?;
    let compression = CompressionPolicy::all(CompressionType::None);
    let options = || KeyspaceCreateOptions::default().data_block_compression_policy(compression);
    let items = database.keyspace("items", options)?;
    Ok((database, items))
}

fn old_error(error: fjall::Error) -> StoreError {
    const DOING: &str = "reading the store of version 0.1";
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => disk(DOING)(error),
        // EBUSY: another process has it.
        fjall::Error::Locked => StoreError::Disk { doing: DOING, fault: Fault::Errno(16) },
        other => damaged("its engine's files", &format!("{DOING}: {other:?}")),
    }
}

/// Says in `version` that there is a tree.
pub(super) fn mark(dir: &Path) -> io::Result<()> {
    let path = dir.join("version");
    match File::open(&path).and_then(|file| read_at_most(file, MARK_MAX)) {
        Ok(found) if found == MARK => return Ok(()),
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let new = dir.join("version.tmp");
    remove_if_there(&new)?;
    let mut file = File::create_new(&new)?;
    io::Write::write_all(&mut file, MARK)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    File::open(dir)?.sync_all()
}

/// Removes what the engine of version 0.1 had there.
fn remove_old(dir: &Path) -> io::Result<()> {
    while let Some(journal) = torn_tail::newest_journal(dir)? {
        std::fs::remove_file(&journal)?;
    }
    remove_if_there(&dir.join("lock"))?;
    match std::fs::remove_dir_all(dir.join("keyspaces")) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
