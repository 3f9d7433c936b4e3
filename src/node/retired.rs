//! Files of released segments, kept to become segments again: to make one of zeros writes every byte of it to the
//! disk, where renewing one writes a block.
//!
//! They lie beside the segments under another name, so that no start takes them for history; it removes them. The
//! thread for files puts them there, the one that makes segments takes them.

use super::layout::{Layout, OwnName};
use crate::base::shown;
use crate::base::{JournalKind, SegmentIndex};
use crate::io::{self as disk, Own};
use std::cell::RefCell;
use std::collections::HashSet;
use std::io;

/// The files of a node that wait.
#[derive(Debug)]
pub(crate) struct Retired {
    layout: Layout,
    /// Files that are known to have left the journal for good: they waited already when its directory was synced.
    settled: RefCell<HashSet<Own>>,
}

impl Retired {
    pub(crate) fn new(layout: &Layout) -> Self {
        Self { layout: layout.clone(), settled: RefCell::default() }
    }

    /// What waits of a journal, oldest first: file and size.
    fn waiting(&self, journal: JournalKind) -> io::Result<Vec<(Own, u64)>> {
        let mut found = Vec::new();
        for file in self.layout.retired_files(journal)? {
            match std::fs::symlink_metadata(file.path()) {
                Ok(meta) => found.push((file, meta.len())),
                // The other thread took it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Takes a segment out of the journal. Its file waits, unless as much as `most` bytes do already, or removes it.
    ///
    /// # Durability
    /// As of renames and removals in a directory that nobody syncs: in the order in which they are made.
    ///
    /// # Errors
    /// Those of the file system; not that it is gone.
    pub(crate) fn keep(&self, journal: JournalKind, index: SegmentIndex, most: u64) -> io::Result<()> {
        let segment = self.layout.own(OwnName::Segment(journal, index));
        let done = match std::fs::symlink_metadata(segment.path()) {
            Ok(meta) => {
                let waits: u64 = self.waiting(journal)?.iter().map(|(_, bytes)| bytes).sum();
                if waits + meta.len() <= most {
                    segment.rename(&self.layout.own(OwnName::Retired(journal, index)))
                } else {
                    segment.remove().map(|_| ())
                }
            }
            Err(error) => Err(error),
        };
        match done {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// Makes a waiting file of exactly `bytes` a segment; false if there is none.
    ///
    /// # Durability
    /// See [`disk::renew_file`].
    ///
    /// # Errors
    /// Those of the file system. The file is gone then.
    pub(crate) fn renew(&self, journal: JournalKind, index: SegmentIndex, bytes: u64) -> io::Result<bool> {
        let waiting = self.waiting(journal)?;
        let Some((old, _)) = waiting.iter().find(|(_, size)| *size == bytes) else { return Ok(false) };
        let segment = self.layout.own(OwnName::Segment(journal, index));
        if !self.settled.borrow_mut().remove(old) {
            disk::sync_dir(&self.layout.journal(journal))?;
        }
        disk::renew_file(old.path(), segment.path()).inspect_err(|_| {
            // It has one of the two names. If even the removal fails, the next start finds it of no use.
            if matches!(old.remove(), Ok(false)) {
                let _ = segment.remove();
            }
        })?;
        // The new name was synced, and with it what became of the others before.
        let others = waiting.iter().map(|(other, _)| other).filter(|other| *other != old);
        *self.settled.borrow_mut() = others.cloned().collect();
        Ok(true)
    }

    /// Removes all that waits: the disk is full.
    pub(crate) fn give_up(&self) {
        for journal in JournalKind::ALL {
            for (file, bytes) in self.waiting(journal).unwrap_or_default() {
                let path = file.path();
                match file.remove() {
                    Ok(_) => tracing::info!(
                        "removed {} ({}): the disk is full",
                        path.display(),
                        shown::bytes(bytes)
                    ),
                    Err(error) => tracing::warn!("removing {}: {error}", path.display()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::JournalKind::Replicated;

    const SIZE: u64 = 64 << 10;

    fn node() -> (tempfile::TempDir, Layout, Retired) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        for journal in JournalKind::ALL {
            std::fs::create_dir_all(layout.journal(journal)).unwrap();
        }
        let retired = Retired::new(&layout);
        (dir, layout, retired)
    }

    fn segment(layout: &Layout, index: u64, byte: u8) {
        let path = layout.segment(Replicated, SegmentIndex(index));
        std::fs::write(path, vec![byte; usize::try_from(SIZE).unwrap()]).unwrap();
    }

    fn files(layout: &Layout) -> Vec<String> {
        let dir = std::fs::read_dir(layout.journal(Replicated)).unwrap();
        let mut names: Vec<_> =
            dir.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_released_segment_comes_back_under_a_new_number_behind_a_block_of_zeros() {
        let (_dir, layout, retired) = node();
        segment(&layout, 1, 7);
        retired.keep(Replicated, SegmentIndex(1), SIZE).unwrap();
        assert_eq!(files(&layout), ["0000000000000001.old"]);
        assert!(!retired.renew(Replicated, SegmentIndex(8), 2 * SIZE).unwrap(), "of another size");
        assert!(retired.renew(Replicated, SegmentIndex(9), SIZE).unwrap());
        assert_eq!(files(&layout), ["0000000000000009.seg"]);
        let content = std::fs::read(layout.segment(Replicated, SegmentIndex(9))).unwrap();
        assert!(content[..4096].iter().all(|&byte| byte == 0));
        assert!(content.len() == 65536 && content[4096..].iter().all(|&byte| byte == 7));
        assert!(!retired.renew(Replicated, SegmentIndex(10), SIZE).unwrap(), "nothing waits any more");
    }

    #[test]
    fn a_segment_has_left_the_journal_durably_before_its_file_is_written_to_again() {
        use crate::io::calls::{Act, record};
        let (_dir, layout, retired) = node();
        let at = layout.journal(Replicated).canonicalize().unwrap();
        for index in 1..=2 {
            segment(&layout, index, 7);
            let (done, acts) = record(None, || {
                retired.keep(Replicated, SegmentIndex(index), SIZE)?;
                retired.renew(Replicated, SegmentIndex(10 + index), SIZE)
            });
            assert!(done.unwrap());
            let left = acts.iter().position(|act| matches!(act, Act::Renamed(..))).unwrap();
            let settled = acts.iter().position(|act| *act == Act::Synced(at.clone())).unwrap();
            let written = acts.iter().position(|act| matches!(act, Act::Wrote(..))).unwrap();
            assert!(left < settled && settled < written, "{acts:?}");
            crate::io::calls::assert_durable(&acts);
        }
        // What could not be synced is not touched.
        segment(&layout, 3, 7);
        retired.keep(Replicated, SegmentIndex(3), SIZE).unwrap();
        let (done, acts) = record(Some(0), || retired.renew(Replicated, SegmentIndex(13), SIZE));
        assert!(done.is_err() && !acts.iter().any(|act| matches!(act, Act::Wrote(..))), "{acts:?}");
    }

    #[test]
    fn no_more_wait_than_is_allowed_and_the_oldest_is_taken_first() {
        let (_dir, layout, retired) = node();
        for index in 1..=3 {
            segment(&layout, index, 7);
            retired.keep(Replicated, SegmentIndex(index), 2 * SIZE).unwrap();
        }
        assert_eq!(files(&layout), ["0000000000000001.old", "0000000000000002.old"]);
        retired.keep(Replicated, SegmentIndex(4), 2 * SIZE).expect("what is gone is gone");
        assert!(retired.renew(Replicated, SegmentIndex(5), SIZE).unwrap());
        assert_eq!(files(&layout), ["0000000000000002.old", "0000000000000005.seg"]);
        retired.give_up();
        assert_eq!(files(&layout), ["0000000000000005.seg"]);
    }

    #[test]
    fn a_segment_that_is_there_is_never_replaced() {
        let (_dir, layout, retired) = node();
        segment(&layout, 1, 7);
        segment(&layout, 2, 8);
        retired.keep(Replicated, SegmentIndex(1), SIZE).unwrap();
        let _ = retired.renew(Replicated, SegmentIndex(2), SIZE).expect_err("the name is taken");
        assert_eq!(files(&layout), ["0000000000000002.seg"]);
        assert_eq!(std::fs::read(layout.segment(Replicated, SegmentIndex(2))).unwrap()[0], 8);
    }
}
