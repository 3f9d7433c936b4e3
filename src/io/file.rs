//! Files of the node: journals, small files that are replaced as a whole, sealed segments that are read.
//!
//! Errors come back as the kernel gave them, with their errno, because recovery decides by it; the caller knows
//! which file it was. Files have mode 0600, directories 0700; the last part of a path is never a symbolic link.

pub(super) mod calls;
mod lock;
mod map;
mod own;
mod pages;
mod trusted;

pub use lock::{DirLock, FileLock, LockError, lock_dir, lock_file, try_lock_file};
pub use map::{MappedSegment, map_segment};
pub use own::Own;
pub use pages::page_life;
pub use trusted::{
    Access, Demand, Distrust, check_dir, loose_parents, open_trusted, read_trusted, read_trusted_text,
};

use super::JournalFile;
use crate::base::AlignedBuf;
use crate::base::limits::{BLOCK, BLOCK_U64};
use crate::sys::{DirectAlignment, Parts, direct_alignment};
use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{
    AT_FDCWD, FallocateFlags, PosixFadviseAdvice, RenameFlags, fallocate, posix_fadvise, renameat2,
};
use nix::sys::uio::pread;
use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes of zeros written at once: what a journal write has to wait for at most when it comes in between.
const ZERO_PIECE: usize = 1 << 20;

/// Opens a journal file for reading and writing, with O_DIRECT where this file and its file system take it with
/// blocks of [`BLOCK`]. With `create` it is made if it is missing; the caller then syncs the directory.
///
/// Without O_DIRECT, durable writes to it go by a thread.
///
/// Whether O_DIRECT works is found out by opening and reading with it, never from the file system's name.
///
/// # Errors
/// Those of open(2).
pub fn open_journal(path: &Path, create: bool) -> io::Result<JournalFile> {
    if let Some(file) = open_direct(options().write(true).create(create), path)? {
        return Ok(JournalFile { fd: file.into(), direct: true, by_thread: false });
    }
    let file = options().write(true).create(create).open(path)?;
    Ok(JournalFile { fd: file.into(), direct: false, by_thread: true })
}

/// Makes a file of `bytes` zeros that are really on the disk, so that later writes into it change no metadata. It
/// appears under its name only when it is complete. What a crash leaves has the name with `.tmp` behind it.
///
/// # Durability
/// File and name are synced. Each piece is synced before the next, so that a journal write on the same device
/// never finds more than a piece of zeros in front of it.
///
/// # Errors
/// `InvalidInput` if `bytes` is not a multiple of a block; `AlreadyExists`; ENOSPC and all else from the file
/// system. Nothing is left behind then.
///
/// # Blocking
/// For as long as the device needs; not for a thread that serves.
pub fn zero_file(path: &Path, bytes: u64) -> io::Result<()> {
    if !bytes.is_multiple_of(BLOCK_U64) {
        return Err(Errno::EINVAL.into());
    }
    let making = Making::new(path);
    let file = making.journal()?;
    match fallocate(file.as_fd(), FallocateFlags::empty(), 0, i64::try_from(bytes).unwrap_or(i64::MAX)) {
        // Only a help against scattered blocks, and the earliest word of a full disk.
        Ok(()) | Err(Errno::EOPNOTSUPP) => {}
        Err(Errno::EINVAL) if bytes == 0 => {}
        Err(errno) => return Err(errno.into()),
    }
    write_zeros(&file, bytes)?;
    calls::sync_all(file.as_fd())?;
    drop(file);
    making.finish_new()
}

/// Zeros from the start of a file on, durable piece by piece.
fn write_zeros(file: &JournalFile, bytes: u64) -> io::Result<()> {
    let most = usize::try_from(bytes).unwrap_or(ZERO_PIECE).min(ZERO_PIECE);
    let zeros = Bytes::from_owner(zeros(most));
    let mut done = 0;
    while done < bytes {
        let piece = usize::try_from(bytes - done).unwrap_or(most).min(most);
        let part = Parts::new(vec![zeros.slice(..piece)]);
        let count = if file.direct {
            calls::write_durable(file.as_fd(), &part, done)?
        } else {
            let count = calls::write(file.as_fd(), &part, done)?;
            calls::sync_data(file.as_fd())?;
            count
        };
        let moved = super::write_progress(0, count, piece, file.direct)?;
        done += u64::try_from(moved).unwrap_or_default();
    }
    Ok(())
}

/// Says that a file is read from its beginning to its end, so that more of it is read ahead.
pub fn read_in_order(file: &File) {
    let _ = posix_fadvise(file.as_fd(), 0, 0, PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL);
}

/// Has the disk begin to read what is not in memory of a range. A wish: it may not come true.
pub fn read_ahead(file: &File, offset: u64, len: u64) {
    if let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) {
        let _ = posix_fadvise(file.as_fd(), offset, len, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
    }
}

/// Gives the file at `old` the name `path`, which nothing may have, with its first block zeroed and all else as it
/// is: its blocks are on the disk already, so that writes into it change no metadata.
///
/// # Durability
/// First the block of zeros, then the new name. That the file has the name `old` and no earlier one must be durable
/// already.
///
/// # Errors
/// `AlreadyExists`; all else from the file system. The file then has one of both names.
///
/// # Blocking
/// For as long as the device needs.
pub fn renew_file(old: &Path, path: &Path) -> io::Result<()> {
    let file = open_journal(old, false)?;
    write_zeros(&file, BLOCK_U64)?;
    // Pages of its earlier life, if it was read through a map. Only a help: writes with O_DIRECT drop them too.
    let _ = posix_fadvise(file.as_fd(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    drop(file);
    rename_new(old, path)
}

/// Writes all of the bytes where the file stands. See [`sync_file`].
///
/// # Errors
/// Those of write(2).
pub fn write_on(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    calls::write_all(file, bytes)
}

/// Makes what was written to a file durable, with its size.
///
/// # Errors
/// Those of fsync(2). How much of it is there then is unknown, and no second try tells.
pub fn sync_file(file: &File) -> io::Result<()> {
    calls::sync_all(file.as_fd())
}

/// Appends where the file stands.
///
/// # Durability
/// Of the bytes; the file's name is the caller's to sync, see [`Own::begin`].
///
/// # Errors
/// Those of write(2) and fdatasync(2). How much is there then is unknown.
pub fn append_durably(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    calls::write_all(file, bytes)?;
    calls::sync_data(file.as_fd())
}

/// Makes what was created, renamed or removed in a directory durable.
///
/// # Errors
/// Those of open(2) and fsync(2).
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    let dir = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(dir)?;
    calls::sync_all(dir.as_fd())
}

/// Gives a complete file of somebody else's directory its name, in place of what has it.
///
/// # Durability
/// File and name are synced.
///
/// # Errors
/// Those of open(2), fsync(2) and rename(2). What had the name is untouched if the name still shows it.
pub fn put_in_place(part: &Path, path: &Path) -> io::Result<()> {
    calls::sync_all(File::open(part)?.as_fd())?;
    std::fs::rename(part, path)?;
    calls::renamed(part, path);
    sync_dir(parent_of(path))
}

/// Makes a directory of mode 0700 with its missing parents, and its name durable. One that is there is left as it
/// is.
///
/// # Errors
/// Those of mkdir(2) and fsync(2).
pub fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = parent_of(dir);
    make_dir(parent)?;
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
        result => {
            result?;
            calls::made(dir);
        }
    }
    sync_dir(parent)
}

/// Reads from the disk itself, not from memory that a failed write may have left behind: `len` bytes from `offset`,
/// fewer only at the end of the file. Without O_DIRECT (see [`open_journal`]) it is an ordinary read.
///
/// # Errors
/// Those of open(2) and read(2).
pub fn read_direct(path: &Path, offset: u64, len: usize) -> io::Result<Bytes> {
    let file = match open_direct(&mut options(), path)? {
        Some(file) => file,
        None => options().open(path)?,
    };
    let start = offset / BLOCK_U64 * BLOCK_U64;
    let before = usize::try_from(offset - start).unwrap_or_default();
    let mut buffer = zeros((before + len).next_multiple_of(BLOCK));
    let got = read_blocks(file.as_fd(), buffer.as_mut_slice(), start)?;
    buffer.truncate(got.min(before + len));
    let from = before.min(buffer.len());
    Ok(Bytes::from_owner(buffer).slice(from..))
}

/// A file that is read past the page cache where that is possible, for those who read much of it.
#[derive(Debug)]
pub struct DirectFile(File);

impl DirectFile {
    /// Opens it.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = match open_direct(&mut options(), path)? {
            Some(file) => file,
            None => options().open(path)?,
        };
        Ok(Self(file))
    }

    /// Fills whole blocks of an aligned buffer from `start` on, a multiple of the block, as far as the file reaches. What
    /// lies behind that becomes zeros. Returns how much was read.
    ///
    /// # Errors
    /// Those of pread(2).
    pub fn read(&self, into: &mut [u8], start: u64) -> io::Result<usize> {
        let got = read_blocks(self.0.as_fd(), into, start)?;
        into.get_mut(got..).unwrap_or_default().fill(0);
        Ok(got)
    }
}

/// Reads until the buffer is full or the file ends. Returns the bytes read.
fn read_blocks(file: BorrowedFd<'_>, into: &mut [u8], start: u64) -> io::Result<usize> {
    let mut got = 0;
    while let Some(room) = into.get_mut(got..).filter(|room| !room.is_empty()) {
        let at = start.saturating_add(u64::try_from(got).unwrap_or(u64::MAX));
        let at = i64::try_from(at).map_err(|_| io::Error::from(Errno::EFBIG))?;
        match pread(file, room, at) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(0) => break,
            Ok(count) => {
                got += count;
                // open(2): O_DIRECT needs aligned offsets, and only the end of a file is not aligned.
                if count % BLOCK != 0 {
                    break;
                }
            }
        }
    }
    Ok(got)
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
    options
}

/// The file with O_DIRECT, or `None` if that does not work for it in blocks of [`BLOCK`].
fn open_direct(options: &mut OpenOptions, path: &Path) -> io::Result<Option<File>> {
    let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_DIRECT;
    let file = match options.custom_flags(flags).open(path) {
        Ok(file) => file,
        // open(2): "EINVAL The filesystem does not support the O_DIRECT flag."
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(None),
        Err(error) => return Err(error),
    };
    let fits = |bytes: u32| (1..=BLOCK).contains(&usize::try_from(bytes).unwrap_or(usize::MAX));
    if let Some(DirectAlignment { memory, offset }) = direct_alignment(file.as_fd())
        && !(fits(memory) && fits(offset))
    {
        return Ok(None);
    }
    // Some file systems take the flag and refuse the transfer. Any other error is not about O_DIRECT.
    let refused = pread(&file, zeros(BLOCK).as_mut_slice(), 0) == Err(Errno::EINVAL);
    Ok((!refused).then_some(file))
}

fn zeros(len: usize) -> AlignedBuf {
    let mut buffer = AlignedBuf::with_capacity(len);
    let block = [0; BLOCK];
    while let Some(more) = block.get(..BLOCK.min(len - buffer.len())).filter(|more| !more.is_empty()) {
        buffer.extend_from_slice(more);
    }
    buffer
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file being made under a temporary name, which is removed unless it was finished.
struct Making<'a> {
    path: &'a Path,
    temporary: PathBuf,
}

impl<'a> Making<'a> {
    fn new(path: &'a Path) -> Self {
        let mut temporary = OsString::from(path);
        temporary.push(".tmp");
        Self { path, temporary: temporary.into() }
    }

    /// Makes the temporary file anew: what a crash may have left under its name is no file that is written to.
    fn journal(&self) -> io::Result<JournalFile> {
        match std::fs::remove_file(&self.temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        drop(options().write(true).create_new(true).open(&self.temporary)?);
        open_journal(&self.temporary, false)
    }

    /// Gives it its name, which nothing may have.
    fn finish_new(self) -> io::Result<()> {
        rename_new(&self.temporary, self.path)
    }
}

/// Renames durably to a name that nothing may have.
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        // rename(2): "EINVAL ... The filesystem does not support one of the flags". The directory belongs to one
        // daemon, so looking first is as good.
        Err(Errno::EINVAL) if !to.try_exists()? => std::fs::rename(from, to)?,
        Err(Errno::EINVAL) => return Err(Errno::EEXIST.into()),
        result => result?,
    }
    calls::renamed(from, to);
    sync_dir(parent_of(to))
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        // After the rename there is nothing under this name; else the error that is being returned says more.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

#[cfg(test)]
mod tests;
