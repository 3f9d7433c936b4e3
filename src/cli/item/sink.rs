//! Where an export is written: a new file gets its name only when it is complete; what is there already and is no
//! plain file is written through, never replaced.

use super::super::failure::Failure;
use super::super::glue;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A file that is being written.
pub(super) enum Target {
    /// A plain file, or none yet: it gets its name when it is complete.
    Beside {
        /// Its name.
        path: PathBuf,
        /// What it is called until then.
        part: PathBuf,
    },
    /// A device, a pipe, or what a link leads to: written as it is.
    Through {
        /// Its name.
        path: PathBuf,
        /// Whether it can be made durable.
        plain: bool,
    },
}

/// Whether `path` is the very file that stdout is, as `/dev/stdout` is.
pub(super) fn is_stdout(path: &Path) -> bool {
    let stdout = io::stdout().as_fd().try_clone_to_owned().and_then(|fd| File::from(fd).metadata());
    match (std::fs::metadata(path), stdout) {
        (Ok(named), Ok(stdout)) => same(&named, &stdout),
        _ => false,
    }
}

fn same(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

impl Target {
    /// Opens it.
    pub(super) fn create(path: PathBuf) -> Result<(Self, File), Failure> {
        let failed = |e: &io::Error| Failure::io(format_args!("writing {}", path.display()), e);
        match std::fs::symlink_metadata(&path) {
            Ok(found) if !found.is_file() => {
                let file = open_through(&path, found.is_symlink()).map_err(|e| failed(&e))?;
                let plain = file.metadata().is_ok_and(|found| found.is_file());
                Ok((Self::Through { path, plain }, file))
            }
            Ok(found) => Self::beside(path, Some(&found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::beside(path, None),
            Err(error) => Err(failed(&error)),
        }
    }

    fn beside(path: PathBuf, before: Option<&Metadata>) -> Result<(Self, File), Failure> {
        let mut part = path.clone().into_os_string();
        part.push(format!(".part-{}", std::process::id()));
        let part = PathBuf::from(part);
        let failed = |e: &io::Error| Failure::io(format_args!("writing {}", part.display()), e);
        let file = File::create_new(&part).map_err(|e| failed(&e))?;
        // From here on it is ours, and goes if this fails.
        let this = Self::Beside { path, part: part.clone() };
        if let Some(before) = before {
            // Who could not read it before cannot read it now.
            file.set_permissions(before.permissions()).map_err(|e| failed(&e))?;
        }
        Ok((this, file))
    }

    /// Makes it durable and gives it its name.
    pub(super) fn finish(self) -> Result<(), Failure> {
        let done = match &self {
            Self::Beside { path, part } => glue::put_in_place(part, path),
            Self::Through { path, plain: true } => File::open(path).and_then(|file| file.sync_all()),
            Self::Through { plain: false, .. } => Ok(()),
        };
        let (Self::Beside { path, .. } | Self::Through { path, .. }) = &self;
        done.map_err(|e| Failure::io(format_args!("writing {}", path.display()), &e))
    }
}

/// Opens what is there for writing. A plain file at the end of a link is emptied, or made if the link leads nowhere.
fn open_through(path: &Path, link: bool) -> io::Result<File> {
    let target = std::fs::metadata(path);
    let missing = target.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    let socket = target.as_ref().is_ok_and(|found| found.file_type().is_socket());
    if socket {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a socket"));
    }
    let plain = target.is_ok_and(|found| found.is_file());
    OpenOptions::new().write(true).truncate(plain).create(link && missing).open(path)
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Self::Beside { part, .. } = self {
            // After the rename there is nothing of that name; before it, half an export is of no use.
            let _ = std::fs::remove_file(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn write(path: &Path, text: &[u8]) {
        let (target, mut file) = Target::create(path.to_owned()).unwrap();
        file.write_all(text).unwrap();
        drop(file);
        target.finish().unwrap();
    }

    #[test]
    fn an_export_that_breaks_off_leaves_no_file() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("x.csv");
        drop(Target::create(path.clone()).unwrap());
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
        write(&path, b"id,value\n");
        assert_eq!(std::fs::read(path).unwrap(), b"id,value\n");
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_is_written_through_and_stays_a_link() {
        let temp = tempfile::tempdir().unwrap();
        let (link, target) = (temp.path().join("link"), temp.path().join("target"));
        symlink(&target, &link).unwrap();
        for text in [&b"made, as the link led nowhere"[..], b"shorter"] {
            write(&link, text);
            assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
            assert_eq!(std::fs::read(&target).unwrap(), text);
        }
    }

    #[test]
    fn a_device_and_a_pipe_are_written_to_and_stay_what_they_are() {
        let temp = tempfile::tempdir().unwrap();
        let null = temp.path().join("null");
        symlink("/dev/null", &null).unwrap();
        write(&null, b"gone");
        assert!(std::fs::metadata(&null).unwrap().file_type().is_char_device());
        let pipe = temp.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || {
                let mut text = String::new();
                File::open(pipe).unwrap().read_to_string(&mut text).unwrap();
                text
            }
        });
        write(&pipe, b"through");
        assert_eq!(reader.join().unwrap(), "through");
        assert!(std::fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
        assert!(Target::create(temp.path().to_owned()).is_err(), "a directory is no file");
    }

    #[test]
    fn a_file_that_is_replaced_keeps_its_permissions() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("x");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        write(&path, b"new");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!is_stdout(&path));
    }
}
