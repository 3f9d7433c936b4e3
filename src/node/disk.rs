//! The threads that may wait for the disk: one makes segments, which takes long, the other does all the rest in
//! order, so that no read can meet a removal that was asked for later.

use super::inbox::{CoreEnded, Inbox, Message};
use super::layout::{Layout, OwnName};
use super::retired::Retired;
use crate::base::{Fault, JournalKind, SegmentIndex};
use crate::engine::{FileEffect, FileEvent, JournalEvent, PrepareSegment, ReadSegment, RemoveSegment};
use crate::io::{self as disk, JournalFile, MappedSegment, Own};
use bytes::Bytes;
use nix::errno::Errno;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;

/// Work on files.
#[derive(Debug)]
pub(crate) enum FileJob {
    /// Read of a segment.
    Read {
        /// What the engine asks for.
        read: ReadSegment,
        /// Whether nothing is written to the segment any more, so that it may be mapped.
        sealed: bool,
    },
    /// Let a segment go.
    Remove(RemoveSegment),
    /// Write a file of the node.
    File(FileEffect),
}

/// Makes segments until the core is gone or `stop` is set.
pub(crate) fn run_bulk(layout: &Layout, work: &Receiver<PrepareSegment>, inbox: &Inbox, stop: &AtomicBool) {
    let retired = Retired::new(layout);
    while let Ok(PrepareSegment { journal, index, bytes }) = work.recv() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let segment = layout.own(OwnName::Segment(journal, index));
        let path = segment.path();
        let renewed = retired.renew(journal, index, bytes).unwrap_or_else(|error| {
            tracing::warn!("using an old segment again as {}: {error}", path.display());
            false
        });
        let message = match make_segment(&segment, bytes, renewed) {
            Ok(file) => Message::SegmentReady { journal, index, file: Arc::new(file) },
            Err(error) => {
                tracing::warn!("making {}: {error}", path.display());
                let fault = Fault::from_io(&error);
                Message::Event(JournalEvent::SegmentFailed { journal, index, fault }.into())
            }
        };
        if inbox.send(message).is_err() {
            return;
        }
    }
}

fn make_segment(segment: &Own, bytes: u64, renewed: bool) -> io::Result<JournalFile> {
    let path = segment.path();
    if !renewed {
        disk::zero_file(path, bytes)?;
    }
    disk::open_journal(path, false).inspect_err(|_| {
        // It was made just now and holds nothing. If even that fails, the next start finds it unused.
        let _ = segment.remove();
    })
}

/// Works on files until the core is gone or `stop` is set.
pub(crate) fn run_files(
    layout: Layout,
    retired_max: u64,
    work: &Receiver<FileJob>,
    inbox: &Inbox,
    stop: &AtomicBool,
) {
    let mut desk = FileWorker::new(layout, retired_max);
    while let Ok(job) = work.recv() {
        if stop.load(Ordering::Relaxed) || desk.work(job, inbox).is_err() {
            return;
        }
    }
}

struct FileWorker {
    layout: Layout,
    retired: Retired,
    /// As many bytes of each journal may wait to be used again.
    retired_max: u64,
    /// The last segment read of each journal, since catch-up reads one from its start to its end, and those before it
    /// of which ranges are in use.
    maps: Vec<(JournalKind, SegmentIndex, MappedSegment)>,
    /// What has to go of each journal, oldest first: more than one only after a failure.
    leaving: [VecDeque<(SegmentIndex, bool)>; 2],
    /// The file of diverged entries that was begun last.
    diverged: Option<(String, File)>,
}

impl FileWorker {
    fn new(layout: Layout, retired_max: u64) -> Self {
        let retired = Retired::new(&layout);
        Self { layout, retired, retired_max, maps: Vec::new(), leaving: Default::default(), diverged: None }
    }

    fn work(&mut self, job: FileJob, inbox: &Inbox) -> Result<(), CoreEnded> {
        match job {
            FileJob::Read { read: ReadSegment { read, journal, segment, offset, len }, sealed } => {
                let result = self.read(journal, segment, offset, len, sealed);
                let result = result.map_err(|error| {
                    let path = self.layout.segment(journal, segment);
                    tracing::warn!("reading {len} bytes at {offset} of {}: {error}", path.display());
                    Fault::from_io(&error)
                });
                inbox.event(JournalEvent::Read { read, result })
            }
            FileJob::Remove(RemoveSegment { journal, index, reuse }) => {
                if let Some(leaving) = self.leaving.get_mut(journal.index()) {
                    leaving.push_back((index, reuse));
                }
                self.remove(journal);
                Ok(())
            }
            FileJob::File(FileEffect::WriteControl { write, bytes }) => {
                let control = self.layout.own(OwnName::Control);
                let path = control.path();
                inbox.event(match control.replace(&bytes) {
                    Ok(()) => FileEvent::ControlWritten { write },
                    Err(error) => {
                        tracing::error!("replacing {}: {error}", path.display());
                        FileEvent::ControlFailed { write, fault: Fault::from_io(&error) }
                    }
                })
            }
            FileJob::File(FileEffect::SaveDiverged { save, file, first, bytes }) => {
                inbox.event(match self.save_diverged(&file, first, &bytes) {
                    Ok(()) => FileEvent::DivergedSaved { save },
                    Err(error) => {
                        self.diverged = None;
                        let path = self.layout.diverged().join(&file);
                        tracing::error!("appending {} bytes to {}: {error}", bytes.len(), path.display());
                        FileEvent::DivergedFailed { save, fault: Fault::from_io(&error) }
                    }
                })
            }
        }
    }

    /// Removes what has to go, in order. What cannot be removed keeps the ones behind it from going, until the next is
    /// asked for, or until a start asks for all of them again: a gap between segments would look like a loss.
    fn remove(&mut self, journal: JournalKind) {
        while let Some(&(index, reuse)) = self.leaving.get(journal.index()).and_then(VecDeque::front) {
            let this = |(kind, mapped, _): &&(_, _, MappedSegment)| *kind == journal && *mapped == index;
            // What somebody still reads must not be written to.
            let in_use = self.maps.iter().find(this).is_some_and(|(.., map)| map.is_in_use());
            self.maps.retain(|map| !this(&map));
            let most = if reuse && !in_use { self.retired_max } else { 0 };
            if let Err(error) = self.retired.keep(journal, index, most) {
                let path = self.layout.segment(journal, index);
                return tracing::warn!("removing {}: {error}", path.display());
            }
            if let Some(leaving) = self.leaving.get_mut(journal.index()) {
                leaving.pop_front();
            }
        }
    }

    fn read(
        &mut self,
        journal: JournalKind,
        segment: SegmentIndex,
        offset: u64,
        len: usize,
        sealed: bool,
    ) -> io::Result<Bytes> {
        let path = self.layout.segment(journal, segment);
        if !sealed {
            return disk::read_direct(&path, offset, len);
        }
        let this = |(kind, mapped, _): &(_, _, MappedSegment)| *kind == journal && *mapped == segment;
        // The others of this journal are of use only while somebody reads in them.
        self.maps.retain(|map| map.0 != journal || this(map) || map.2.is_in_use());
        let at = match self.maps.iter().position(this) {
            Some(at) => at,
            None => {
                let map = disk::map_segment(&path)?;
                self.maps.push((journal, segment, map));
                self.maps.len() - 1
            }
        };
        let (.., map) = self.maps.get(at).ok_or(io::ErrorKind::NotFound)?;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(map.len());
        map.range(offset, len.min(map.len() - offset))
    }

    /// Appends durably. The first append of a file that is there already, as an attempt that was cut short leaves
    /// it, begins it anew.
    fn save_diverged(&mut self, name: &str, first: bool, bytes: &[u8]) -> io::Result<()> {
        if name.is_empty() || name.starts_with('.') || name.contains('/') {
            return Err(io::Error::from(Errno::EINVAL));
        }
        if first {
            let file = self.layout.own(OwnName::Diverged(name.to_owned())).begin()?;
            self.diverged = Some((name.to_owned(), file));
        }
        let Some((_, file)) = self.diverged.as_mut().filter(|(begun, _)| begun == name) else {
            return Err(io::Error::from(Errno::ENOENT));
        };
        disk::append_durably(file, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::JournalKind::Replicated;
    use crate::base::limits::SEGMENT_MIN;
    use std::path::Path;

    fn desk(dir: &Path) -> FileWorker {
        let layout = Layout::new(dir);
        for journal in JournalKind::ALL {
            std::fs::create_dir_all(layout.journal(journal)).unwrap();
        }
        FileWorker::new(layout, 4 * SEGMENT_MIN)
    }

    fn make(desk: &FileWorker, index: u64) {
        disk::zero_file(&desk.layout.segment(Replicated, SegmentIndex(index)), SEGMENT_MIN).unwrap();
    }

    fn remove(desk: &mut FileWorker, index: u64, reuse: bool) {
        desk.leaving[0].push_back((SegmentIndex(index), reuse));
        desk.remove(Replicated);
    }

    fn names(desk: &FileWorker) -> Vec<String> {
        let dir = std::fs::read_dir(desk.layout.journal(Replicated)).unwrap();
        let mut names: Vec<_> =
            dir.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_segment_that_cannot_be_removed_keeps_the_ones_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut desk = desk(dir.path());
        let first = desk.layout.segment(Replicated, SegmentIndex(1));
        std::fs::create_dir(&first).unwrap();
        make(&desk, 2);
        make(&desk, 3);
        remove(&mut desk, 1, false);
        remove(&mut desk, 2, true);
        let kept = ["0000000000000001.seg", "0000000000000002.seg", "0000000000000003.seg"];
        assert_eq!(names(&desk), kept, "a gap would look like a loss");
        std::fs::remove_dir(&first).unwrap();
        remove(&mut desk, 3, false);
        assert_eq!(names(&desk), ["0000000000000002.old"]);
    }

    #[test]
    fn every_sync_of_diverged_entries_is_made_and_told_when_it_fails() {
        let empty = |dir: &Path| drop(desk(dir));
        crate::io::calls::assert_syncs(4, empty, |dir| {
            let mut desk = desk(dir);
            desk.save_diverged("e1", true, b"one")?;
            desk.save_diverged("e1", false, b"two")
        });
    }

    #[test]
    fn a_segment_that_is_still_read_is_not_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut desk = desk(dir.path());
        make(&desk, 1);
        make(&desk, 2);
        let range = desk.read(Replicated, SegmentIndex(1), 0, 4096, true).unwrap();
        // Another one is read meanwhile.
        drop(desk.read(Replicated, SegmentIndex(2), 0, 4096, true).unwrap());
        remove(&mut desk, 1, true);
        remove(&mut desk, 2, true);
        assert_eq!(names(&desk), ["0000000000000002.old"]);
        assert!(range.iter().all(|&byte| byte == 0));
    }

    #[test]
    fn diverged_entries_are_written_to_a_new_file_whatever_has_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut desk = desk(dir.path());
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        std::fs::create_dir(desk.layout.diverged()).unwrap();
        let saved = desk.layout.diverged().join("epoch-1.jsonl");
        std::os::unix::fs::symlink(&victim, &saved).unwrap();
        desk.save_diverged("epoch-1.jsonl", true, b"new").unwrap();
        assert_eq!(std::fs::read(victim).unwrap(), b"precious");
        assert_eq!(std::fs::read(saved).unwrap(), b"new");
    }
}
