//! Whether the disk has room for what the config allows the journal to take.

use super::layout::Layout;
use crate::base::JournalKind;
use crate::base::limits::RETIRED_SHARE;
use nix::sys::statvfs::statvfs;
use std::io;
use std::path::Path;

/// What a node's disk has, and what is asked of it (bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// What the replicated journal may take, without the files that wait to be used again.
    pub quota: u64,
    /// What it takes already, those files included.
    pub journal: u64,
    /// What store and volumes take already.
    pub store: u64,
    /// What nobody takes.
    pub free: u64,
}

impl Room {
    /// Of the node in `layout`, whose journal may take `quota`.
    ///
    /// # Errors
    /// Those of reading directories and of statvfs(2).
    pub fn of(layout: &Layout, quota: u64) -> io::Result<Self> {
        let disk = statvfs(layout.dir())?;
        Ok(Self {
            quota,
            journal: taken(&layout.journal(JournalKind::Replicated))?,
            store: taken(&layout.store())? + taken(&layout.volumes())?,
            free: disk.blocks_available().saturating_mul(disk.fragment_size()),
        })
    }

    /// What a person should know of it, if anything.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let beside = self.quota / RETIRED_SHARE;
        // The store writes its tables anew when it merges them: for a while it takes twice what it holds.
        let has = (self.free + self.journal).saturating_sub(self.store);
        let needs = self.quota + beside;
        (has < needs).then(|| {
            let mib = |bytes: u64| bytes >> 20;
            format!(
                "journal_quota_bytes allows the journal {} MiB and {} MiB of files to be used again, the disk has {} MiB \
                 for it beside the store: with the peer away for long the disk is full before the quota is reached, and \
                 the peer then loses its claim on the oldest entries; lower journal_quota_bytes to {} MiB, or give the \
                 node a larger disk",
                mib(self.quota),
                mib(beside),
                mib(has),
                mib(has / (RETIRED_SHARE + 1) * RETIRED_SHARE)
            )
        })
    }
}

/// What the files in a directory and those below take of the disk; 0 if it is not there.
fn taken(dir: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut sum = 0;
    for entry in entries {
        let entry = entry?;
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => sum += taken(&entry.path())?,
            Ok(meta) => sum += meta.blocks() * 512,
            // Somebody removed it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_quota_that_the_disk_has_no_room_for_is_warned_of_and_one_that_fits_is_not() {
        let fits = Room { quota: 8 * GIB, journal: 2 * GIB, store: GIB, free: 8 * GIB };
        assert_eq!(fits.warning(), None, "what the journal has already counts");
        for lacks in [
            Room { free: 8 * GIB - (1 << 20), ..fits },
            Room { journal: 0, ..fits },
            Room { store: 2 * GIB, ..fits },
            Room { quota: 9 * GIB, ..fits },
        ] {
            assert!(lacks.warning().is_some(), "{lacks:?}");
        }
        let none = Room { quota: 8 * GIB, journal: 0, store: 5 * GIB, free: GIB };
        assert!(none.warning().is_some_and(|text| text.contains("the disk has 0 MiB")), "{none:?}");
    }

    #[test]
    fn what_is_advised_fits() {
        let room = Room { quota: 8 * GIB, journal: 0, store: 0, free: 9 * (GIB / 2) };
        let text = room.warning().unwrap();
        assert!(text.contains("lower journal_quota_bytes to 4096 MiB"), "{text}");
        assert_eq!(Room { quota: 4 * GIB, ..room }.warning(), None);
    }

    #[test]
    fn holes_take_nothing_and_what_is_below_counts() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("below")).unwrap();
        std::fs::write(dir.path().join("below/data"), vec![1; 64 << 10]).unwrap();
        std::fs::File::create(dir.path().join("hole")).unwrap().set_len(1 << 30).unwrap();
        let sum = taken(dir.path()).unwrap();
        assert!((64 << 10..1 << 20).contains(&sum), "{sum}");
        assert_eq!(taken(&dir.path().join("nothing")).unwrap(), 0);
    }
}
