//! Locks: one daemon per directory, and one at a time where two must not change the same files.

use super::Own;
use crate::base::text_at_most;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::fs::MetadataExt;

/// Longest process id in a lock file (bytes).
const ID_MAX: usize = 32;

/// A locked directory. The kernel gives the lock up when this is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct DirLock {
    _file: Flock<File>,
}

/// A locked file. The kernel gives the lock up when this is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct FileLock {
    _file: Flock<File>,
}

/// Locks a file, and waits until whoever has it locked is done.
///
/// # Errors
/// Those of flock(2).
pub fn lock_file(file: File) -> io::Result<FileLock> {
    match Flock::lock(file, FlockArg::LockExclusive) {
        Ok(file) => Ok(FileLock { _file: file }),
        Err((_, errno)) => Err(errno.into()),
    }
}

/// Locks a file if nobody else has it locked.
///
/// # Errors
/// `WouldBlock` if somebody has; else those of flock(2).
pub fn try_lock_file(file: File) -> io::Result<FileLock> {
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(file) => Ok(FileLock { _file: file }),
        Err((_, errno)) => Err(errno.into()),
    }
}

/// Why a directory cannot be locked. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds the lock.
    #[error("another process holds it")]
    Held {
        /// Its id, if it told.
        holder: Option<u32>,
    },
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Locks a directory through its file `lock`, which then holds this process's id.
///
/// # Errors
/// [`LockError`]; a file of another user is not touched.
pub fn lock_dir(lock: &Own) -> Result<DirLock, LockError> {
    let file = lock.open()?;
    let (owner, user) = (file.metadata()?.uid(), geteuid().as_raw());
    if owner != user {
        let text = format!("it belongs to user {owner}, this command runs as user {user}");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text).into());
    }
    let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(file) => file,
        Err((file, Errno::EWOULDBLOCK)) => {
            // The holder may be about to write its id; then it is not known.
            let holder = text_at_most(file, ID_MAX).ok().and_then(|text| text.trim().parse().ok());
            return Err(LockError::Held { holder });
        }
        Err((_, errno)) => return Err(io::Error::from(errno).into()),
    };
    // Only for messages: the lock itself is what counts.
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())?;
    Ok(DirLock { _file: file })
}
