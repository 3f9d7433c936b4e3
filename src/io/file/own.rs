//! Files of the node's own. Nothing else is ever replaced, renamed or removed: these calls take an [`Own`], and only
//! the node's list of names makes one.

use super::{calls, make_dir, options, parent_of, rename_new, sync_dir};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A file that this program makes under a name of its own, in a directory of the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Own {
    path: PathBuf,
}

impl Own {
    /// The file `name` of `dir`. The name must be one that only this program uses there.
    ///
    /// # Panics
    /// If the name is no plain one: that would be a file elsewhere.
    #[must_use]
    pub fn new(dir: &Path, name: &str) -> Self {
        let plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
        assert!(plain, "a file of the node's own has a plain name, not {name:?}");
        Self { path: dir.join(name) }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it is written as before it gets its name: a name that nobody else gives to a file.
    #[must_use]
    pub fn temporary(&self) -> Self {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        Self { path: self.path.with_file_name(format!(".{name}.hot-backup-tmp")) }
    }

    /// Replaces the file, or makes it: afterwards it holds exactly `bytes`; after a crash it holds these or what it held
    /// before.
    ///
    /// # Durability
    /// File and name are synced.
    ///
    /// # Errors
    /// `InvalidInput` if the name is one of a link, a device or a pipe; else those of the file system. The old file is
    /// untouched if its name still shows it.
    pub fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        match std::fs::symlink_metadata(&self.path) {
            Ok(found) if !found.is_file() => return Err(not_a_file()),
            _ => {}
        }
        let temporary = self.temporary();
        temporary.remove()?;
        let made = temporary.make().and_then(|mut file| {
            calls::write_all(&mut file, bytes)?;
            calls::sync_all(file.as_fd())
        });
        let renamed = made.and_then(|()| temporary.rename(self));
        if renamed.is_err() {
            // The error that is being returned says more.
            let _ = temporary.remove();
        }
        renamed?;
        sync_dir(parent_of(&self.path))
    }

    /// Makes the file (mode 0600), which must not be there, for writing.
    ///
    /// # Errors
    /// `AlreadyExists`, also for a link that leads nowhere; else those of open(2).
    pub fn make(&self) -> io::Result<File> {
        options().write(true).create_new(true).open(&self.path)
    }

    /// Makes the file anew (mode 0600), with its directory, to be appended to: what had its name is gone.
    ///
    /// # Durability
    /// The names of file and directory are synced.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn begin(&self) -> io::Result<File> {
        let dir = parent_of(&self.path);
        make_dir(dir)?;
        self.remove()?;
        let file = self.make()?;
        calls::made(&self.path);
        sync_dir(dir)?;
        // Whoever made it may have ended before this.
        sync_dir(parent_of(dir))?;
        Ok(file)
    }

    /// Opens the file for writing behind its end, or makes it (mode 0600).
    ///
    /// # Errors
    /// `InvalidInput` if it is no regular file; else those of open(2).
    pub fn append(&self) -> io::Result<File> {
        let file = options().append(true).create(true).custom_flags(FLAGS).open(&self.path);
        regular(file?)
    }

    /// Opens the file for reading and writing, or makes it (mode 0600). What it holds stays.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn open(&self) -> io::Result<File> {
        let file = options().write(true).create(true).truncate(false).custom_flags(FLAGS).open(&self.path);
        regular(file?)
    }

    /// Gives it the name of another file of the node's own, in place of what had that.
    ///
    /// # Durability
    /// None: the directory is not synced.
    ///
    /// # Errors
    /// Those of rename(2).
    pub fn rename(&self, to: &Self) -> io::Result<()> {
        std::fs::rename(&self.path, &to.path)?;
        calls::renamed(&self.path, &to.path);
        Ok(())
    }

    /// Gives it a name that nothing may have.
    ///
    /// # Durability
    /// The directory is synced; the file is the caller's.
    ///
    /// # Errors
    /// `AlreadyExists`; else those of rename(2) and fsync(2).
    pub fn become_new(&self, to: &Path) -> io::Result<()> {
        rename_new(&self.path, to)
    }

    /// Removes the file; false if there is none. A link is removed, not what it leads to.
    ///
    /// # Durability
    /// None: the directory is not synced.
    ///
    /// # Errors
    /// Those of unlink(2).
    pub fn remove(&self) -> io::Result<bool> {
        match std::fs::remove_file(&self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes a socket of that name; false if there is none.
    ///
    /// # Errors
    /// `AlreadyExists` if something else has the name; else those of the system calls.
    pub fn remove_socket(&self) -> io::Result<bool> {
        match std::fs::symlink_metadata(&self.path) {
            Ok(found) if found.file_type().is_socket() => self.remove(),
            Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "it exists and is no socket")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A pipe in the file's place must not make the opening wait.
const FLAGS: i32 = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_a_file()) }
}

fn not_a_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file; remove what has this name")
}
