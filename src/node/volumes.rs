//! Reads of volumes for the core: at once what is in the page cache, by a thread what is not.
//!
//! Files are only read here; the apply thread writes them. What is read while it writes may be old or new: the engine
//! knows what was not applied when it asked, and puts that over it.

use super::core::RoundContext;
use super::inbox::Inbox;
use super::layout::Layout;
use crate::base::limits::{VOLUME_FILES_MAX, VOLUME_READERS};
use crate::base::{Fault, FileId};
use crate::engine::{Allocation, Event, VolumeEffect, VolumeEvent};
use crate::io::{read_at, read_cached};
use crate::store::volumes::{PART_BYTES, allocation_of, part_path};
use bytes::Bytes;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

/// A part of a volume.
type Part = (FileId, u64);

/// The core's side.
#[derive(Debug)]
pub(crate) struct VolumeReads {
    dir: PathBuf,
    /// Open parts, the least recently used first.
    open: VecDeque<(Part, Arc<File>)>,
    work: Sender<Job>,
}

/// What a thread does.
#[derive(Debug)]
enum Job {
    Read { read: u64, rest: Rest },
    Allocation { read: u64, file: FileId, offset: u64, len: u64 },
}

/// What is left of a part to read: its file, or none where nothing was ever written; offset in it; length.
type Left = (Option<Arc<File>>, u64, usize);

/// A read that is not done.
#[derive(Debug)]
struct Rest {
    buffer: Vec<u8>,
    /// What is left, in order.
    ranges: VecDeque<Left>,
}

impl Rest {
    /// Reads on with `read`, which tells how much it read, 0 at the end of the file; stops where it would block.
    fn go_on(
        &mut self,
        read: impl Fn(&File, &mut Vec<u8>, usize, u64) -> io::Result<usize>,
    ) -> io::Result<ControlFlow<()>> {
        while let Some((file, offset, len)) = self.ranges.front_mut() {
            let got = match file {
                None => 0,
                Some(file) => match read(file, &mut self.buffer, *len, *offset) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return Ok(ControlFlow::Break(()));
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    result => result?,
                },
            };
            if got == 0 {
                // What was never written reads as zeros.
                let filled = self.buffer.len() + *len;
                self.buffer.resize(filled, 0);
                self.ranges.pop_front();
                continue;
            }
            *offset += u64::try_from(got).unwrap_or(u64::MAX);
            *len -= got;
            if *len == 0 {
                self.ranges.pop_front();
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Reads a range of a volume in `dir`, waiting for the disk.
pub(crate) fn read_slowly(dir: PathBuf, file: FileId, offset: u64, len: usize) -> Result<Bytes, Fault> {
    // Nothing tells a file that is open for longer that its volume was emptied.
    let mut reads = VolumeReads { dir, open: VecDeque::new(), work: channel().0 };
    let ranges = reads.ranges(file, offset, len).map_err(|error| Fault::from_io(&error))?;
    slow_read(Rest { buffer: Vec::with_capacity(len), ranges })
}

impl VolumeReads {
    /// Of the node in `layout`; also gives the work of the threads, to be run by [`run`].
    pub(crate) fn new(layout: &Layout) -> (Self, Readers) {
        let (work, jobs) = channel();
        let readers = Readers { dir: layout.volumes(), jobs: Arc::new(Mutex::new(jobs)) };
        (Self { dir: layout.volumes(), open: VecDeque::new(), work }, readers)
    }

    /// Does what the engine asks for; gives back what the apply thread has to do, between its batches.
    pub(crate) fn perform(&mut self, turn: &mut RoundContext, effect: VolumeEffect) -> Option<VolumeEffect> {
        match effect {
            VolumeEffect::Read { ordered: true, .. } | VolumeEffect::Allocation { ordered: true, .. } => {
                return Some(effect);
            }
            VolumeEffect::Read { read, file, offset, len, .. } => self.read(turn, read, file, offset, len),
            VolumeEffect::Allocation { read, file, offset, len, .. } => {
                let _ = self.work.send(Job::Allocation { read, file, offset, len });
            }
            // Closes its files.
            VolumeEffect::Forget { file } => self.open.retain(|((other, _), _)| *other != file),
        }
        None
    }

    fn read(&mut self, turn: &mut RoundContext, read: u64, file: FileId, offset: u64, len: usize) {
        let result = self.ranges(file, offset, len).and_then(|ranges| {
            let mut rest = Rest { buffer: Vec::with_capacity(len), ranges };
            Ok((rest.go_on(|file, buffer, len, at| read_cached(file.as_fd(), buffer, len, at))?, rest))
        });
        match result {
            Ok((ControlFlow::Continue(()), rest)) => {
                turn.events
                    .push(Event::Volume(VolumeEvent::Read { read, result: Ok(Bytes::from(rest.buffer)) }));
            }
            Ok((ControlFlow::Break(()), rest)) => {
                let _ = self.work.send(Job::Read { read, rest });
            }
            Err(error) => {
                tracing::warn!("reading volume {file} at {offset}: {error}");
                turn.events
                    .push(Event::Volume(VolumeEvent::Read { read, result: Err(Fault::from_io(&error)) }));
            }
        }
    }

    fn ranges(&mut self, file: FileId, offset: u64, len: usize) -> io::Result<VecDeque<Left>> {
        let mut ranges = VecDeque::new();
        let (mut at, mut left) = (offset, len);
        while left > 0 {
            let (part, within) = (at / PART_BYTES, at % PART_BYTES);
            let some = usize::try_from(PART_BYTES - within).unwrap_or(usize::MAX).min(left);
            ranges.push_back((self.part((file, part))?, within, some));
            at += u64::try_from(some).unwrap_or(u64::MAX);
            left -= some;
        }
        Ok(ranges)
    }

    fn part(&mut self, part: Part) -> io::Result<Option<Arc<File>>> {
        if let Some(at) = self.open.iter().position(|(open, _)| *open == part) {
            let found = self.open.remove(at);
            let file = found.as_ref().map(|(_, file)| Arc::clone(file));
            self.open.extend(found);
            return Ok(file);
        }
        let file = match File::open(part_path(&self.dir, part.0, part.1)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => Arc::new(result?),
        };
        if self.open.len() >= VOLUME_FILES_MAX {
            self.open.pop_front();
        }
        self.open.push_back((part, Arc::clone(&file)));
        Ok(Some(file))
    }
}

/// The threads' side: each runs [`Readers::run`].
#[derive(Clone, Debug)]
pub(crate) struct Readers {
    dir: PathBuf,
    jobs: Arc<Mutex<Receiver<Job>>>,
}

impl Readers {
    /// How many threads there should be.
    pub(crate) const THREADS: usize = VOLUME_READERS;

    /// Reads until the core is gone.
    pub(crate) fn run(&self, inbox: &Inbox) {
        loop {
            let job = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(job) = job else { return };
            let event = match job {
                Job::Read { read, rest } => {
                    Event::Volume(VolumeEvent::Read { read, result: slow_read(rest) })
                }
                Job::Allocation { read, file, offset, len } => {
                    let result = allocation_of(&self.dir, file, offset, len).map_err(|error| {
                        tracing::warn!("looking at volume {file} from {offset}: {error}");
                        Fault::from_io(&error)
                    });
                    Event::Volume(VolumeEvent::Allocation { read, result: result.map(parts) })
                }
            };
            if inbox.event(event).is_err() {
                return;
            }
        }
    }
}

fn slow_read(mut rest: Rest) -> Result<Bytes, Fault> {
    match rest.go_on(|file, buffer, len, at| read_at(file.as_fd(), buffer, len, at)) {
        Ok(_) => Ok(Bytes::from(rest.buffer)),
        Err(error) => {
            tracing::warn!("reading a volume: {error}");
            Err(Fault::from_io(&error))
        }
    }
}

/// As the engine wants it told.
pub(crate) fn parts(found: Vec<(u64, bool)>) -> Vec<Allocation> {
    found.into_iter().map(|(len, hole)| Allocation { len, hole }).collect()
}
