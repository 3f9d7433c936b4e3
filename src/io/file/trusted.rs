//! Files and directories that are believed: only if nobody but their owner, this process's user or root can have
//! written them.

use crate::base::{plainly, read_at_most};
use nix::unistd::geteuid;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Write permission of the group and of everybody.
const OTHERS_WRITE: u32 = 0o022;
/// Every permission of the group and of everybody.
const OTHERS_ANY: u32 = 0o077;
/// Only in a directory with this bit may nobody touch the files of others.
const STICKY: u32 = 0o1000;

/// What a file must be to be believed.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// Longest content (bytes).
    pub most: usize,
    /// Nobody else may even read it.
    pub secret: bool,
    /// It may be reached by a symbolic link.
    pub linked: bool,
}

/// Why a file or directory is not believed.
#[derive(Debug, thiserror::Error)]
pub enum Distrust {
    /// It cannot be read.
    #[error("{}", plainly(.0))]
    Io(#[from] io::Error),
    /// It is a symbolic link.
    #[error("it is a symbolic link, which is not followed here; put the file itself in its place")]
    Link,
    /// It is a directory, a device or a pipe.
    #[error("it is no regular file")]
    NotAFile,
    /// It is somebody else's.
    #[error("it belongs to user {owner}, this command runs as user {user}; {next}")]
    Owner {
        /// Whose it is.
        owner: u32,
        /// Who asks.
        user: u32,
        /// What to do.
        next: String,
    },
    /// Others could have written it.
    #[error("others may write to it (mode {mode:04o}); `chmod go-w {}` first", path.display())]
    Writable {
        /// Its mode.
        mode: u32,
        /// What.
        path: PathBuf,
    },
    /// Others can read a secret.
    #[error("others may read it (mode {mode:04o}); `chmod 600 {}` first", path.display())]
    Readable {
        /// Its mode.
        mode: u32,
        /// What.
        path: PathBuf,
    },
}

impl Distrust {
    /// What the system said, if it said something.
    #[must_use]
    pub fn kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io(error) => Some(error.kind()),
            _ => None,
        }
    }
}

impl From<Distrust> for io::Error {
    fn from(distrust: Distrust) -> Self {
        match distrust {
            Distrust::Io(error) => error,
            other => Self::new(io::ErrorKind::PermissionDenied, other.to_string()),
        }
    }
}

/// Reads a file that is believed. Owner and mode are those of the very file that is read.
///
/// # Errors
/// [`Distrust`]; `FileTooLarge` within it.
pub fn read_trusted(path: &Path, demand: Demand) -> Result<Vec<u8>, Distrust> {
    let file = open_trusted(path, demand)?;
    Ok(read_at_most(file, demand.most)?)
}

/// The same as text.
///
/// # Errors
/// As [`read_trusted`], and `InvalidData` for what is not UTF-8.
pub fn read_trusted_text(path: &Path, demand: Demand) -> Result<String, Distrust> {
    let bytes = read_trusted(path, demand)?;
    String::from_utf8(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text").into())
}

/// Opens a file that is believed, for reading.
///
/// # Errors
/// [`Distrust`].
pub fn open_trusted(path: &Path, demand: Demand) -> Result<File, Distrust> {
    let mut options = OpenOptions::new();
    let follow = if demand.linked { 0 } else { libc::O_NOFOLLOW };
    // A pipe in the file's place must not make the opening wait.
    options.read(true).custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK | follow);
    let file = options.open(path).map_err(|error| match error.raw_os_error() {
        // open(2): "ELOOP ... pathname was a symbolic link, and flags specified O_NOFOLLOW".
        Some(libc::ELOOP) if !demand.linked => Distrust::Link,
        _ => Distrust::Io(error),
    })?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(Distrust::NotAFile);
    }
    let user = geteuid().as_raw();
    let beside = path.parent().filter(|_| !demand.linked).and_then(|dir| std::fs::metadata(dir).ok());
    if !owners(user, beside.map(|dir| dir.uid())).contains(&found.uid()) {
        return Err(foreign(found.uid(), user, path));
    }
    let mode = found.mode() & 0o7777;
    // Of root's file, the user of a node can read nothing but what its group may.
    let lent = found.uid() == 0 && user != 0;
    let forbidden = if lent { OTHERS_ANY & !0o040 } else { OTHERS_ANY };
    if demand.secret && mode & forbidden != 0 {
        return Err(Distrust::Readable { mode, path: path.to_owned() });
    }
    if mode & OTHERS_WRITE != 0 {
        return Err(Distrust::Writable { mode, path: path.to_owned() });
    }
    Ok(file)
}

/// Whose files `user` believes: the own ones and root's; root also those of the owner of the directory they lie in.
fn owners(user: u32, dir_owner: Option<u32>) -> [u32; 3] {
    [user, 0, if user == 0 { dir_owner.unwrap_or(0) } else { user }]
}

/// What is done with a node's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It is read only; root may read that of another user.
    Read,
    /// It is changed, which only its owner does: files of root in it would be in the owner's way, and files of the owner
    /// must not lead root astray.
    Change,
}

/// Checks that a directory is one whose content can be believed.
///
/// # Errors
/// [`Distrust`]; not of what is missing or no directory, which the next step tells better.
pub fn check_dir(dir: &Path, access: Access) -> Result<(), Distrust> {
    let Ok(found) = std::fs::metadata(dir) else { return Ok(()) };
    if !found.is_dir() {
        return Ok(());
    }
    let user = geteuid().as_raw();
    let fits = match access {
        Access::Change => found.uid() == user,
        Access::Read => user == 0 || [user, 0].contains(&found.uid()),
    };
    if !fits {
        return Err(foreign(found.uid(), user, dir));
    }
    let mode = found.mode() & 0o7777;
    if mode & OTHERS_WRITE != 0 {
        return Err(Distrust::Writable { mode, path: dir.to_owned() });
    }
    Ok(())
}

/// What others could do to a directory by way of those above it, one sentence each: whoever may write to one of these
/// can put another directory in its place.
#[must_use]
pub fn loose_parents(dir: &Path) -> Vec<String> {
    let Ok(whole) = dir.canonicalize() else { return Vec::new() };
    let user = geteuid().as_raw();
    let warn = |above: &Path, found: &Metadata| {
        let mode = found.mode() & 0o7777;
        let (shown, dir) = (above.display(), dir.display());
        if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
            Some(format!(
                "others may write to {shown} (mode {mode:04o}), and so put something else in the place of {dir}: \
                 `chmod go-w {shown}`"
            ))
        } else if ![user, 0].contains(&found.uid()) {
            let owner = found.uid();
            Some(format!("{shown} belongs to user {owner}, who can put something else in the place of {dir}"))
        } else {
            None
        }
    };
    let above = whole.ancestors().skip(1);
    above.filter_map(|above| warn(above, &std::fs::metadata(above).ok()?)).collect()
}

fn foreign(owner: u32, user: u32, path: &Path) -> Distrust {
    let next = format!("run it as user {owner}, or `chown {user} {}` first", path.display());
    Distrust::Owner { owner, user, next }
}
