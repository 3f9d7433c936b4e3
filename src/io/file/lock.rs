//! One daemon per directory.

use super::options;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

/// A locked directory. The kernel gives the lock up when this is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct DirLock {
    _file: Flock<File>,
}

/// Locks `dir` through its file `lock`, which then holds this process's id.
///
/// # Errors
/// `ResourceBusy`, naming the holder's process id, when another holds it; else those of open(2) and flock(2).
pub fn lock_dir(dir: &Path) -> io::Result<DirLock> {
    let path = dir.join("lock");
    let file = options().write(true).create(true).truncate(false).open(&path)?;
    let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(file) => file,
        Err((file, Errno::EWOULDBLOCK)) => return Err(busy(dir, file)),
        Err((_, errno)) => return Err(errno.into()),
    };
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())?;
    Ok(DirLock { _file: file })
}

fn busy(dir: &Path, file: File) -> io::Error {
    let mut holder = String::new();
    // The holder may be about to write its id; then it is not known.
    let _ = file.take(32).read_to_string(&mut holder);
    let holder = match holder.trim() {
        "" => "another process".to_owned(),
        id => format!("process {id}"),
    };
    let text = format!("locking directory {}: {holder} holds it", dir.display());
    io::Error::new(io::ErrorKind::ResourceBusy, text)
}
