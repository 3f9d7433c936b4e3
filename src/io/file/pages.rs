//! Whether what was written and not synced is still there: as long as the machine was not started again and the file
//! system stayed mounted, the page cache holds all of it, whatever became of the process.

use crate::base::limits::SYSTEM_FILE_MAX;
use crate::base::read_at_most;
use crate::sys::mount_of;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A word that two processes read alike only if the second one sees every write of the first one to files of this
/// directory; none if that cannot be told.
///
/// # Errors
/// Those of opening the directory or the kernel's file.
pub fn page_life(dir: &Path) -> io::Result<Option<String>> {
    let dir = File::open(dir)?;
    let Some(mount) = mount_of(dir.as_fd()) else { return Ok(None) };
    let boot = read_at_most(File::open("/proc/sys/kernel/random/boot_id")?, SYSTEM_FILE_MAX)?;
    let boot = String::from_utf8_lossy(&boot).trim().to_owned();
    if boot.is_empty() {
        return Ok(None);
    }
    let found = dir.metadata()?;
    Ok(Some(format!("{boot} {mount} {} {}", found.dev(), found.ino())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_directories_have_different_words_and_one_has_the_same_twice() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let word = |dir: &Path| page_life(dir).unwrap();
        let Some(first) = word(a.path()) else { return };
        assert_eq!(word(a.path()), Some(first.clone()));
        assert_ne!(word(b.path()), Some(first));
        page_life(&a.path().join("missing")).unwrap_err();
    }
}
