//! Journal files as the core writes them: opened ahead of time by the bulk thread, closed when done with.

use super::core::{RoundContext, Target, Workers};
use super::disk::FileJob;
use super::layout::Layout;
use crate::base::{Fault, JournalKind, SegmentIndex};
use crate::engine::{Event, JournalEffect, JournalEvent};
use crate::io::{JournalFile, Op, open_journal};
use bytes::Bytes;
use std::io;
use std::sync::Arc;

/// The open segments of both journals, and the writes under way.
#[derive(Debug)]
pub(crate) struct Segments {
    layout: Layout,
    open: [Vec<(SegmentIndex, Arc<JournalFile>)>; 2],
    /// The newest segment written to, by [`JournalKind::index`].
    current: [Option<SegmentIndex>; 2],
    /// The engine's numbers of the writes under way.
    writes: Vec<Option<u64>>,
}

impl Segments {
    /// None open yet.
    pub(crate) fn new(layout: Layout) -> Self {
        Self { layout, open: Default::default(), current: [None; 2], writes: Vec::new() }
    }

    /// Keeps a segment's file for the writes to come.
    pub(crate) fn keep(&mut self, journal: JournalKind, index: SegmentIndex, file: Arc<JournalFile>) {
        let open = self.of(journal);
        open.retain(|(other, _)| *other != index);
        open.push((index, file));
    }

    /// Does what the engine asks for, or has it done. A worker whose end is gone has panicked: its sends may fail unseen.
    pub(crate) fn perform(&mut self, turn: &mut RoundContext, effect: JournalEffect, workers: &Workers) {
        match effect {
            JournalEffect::Write { write, journal, segment, offset, parts } => {
                self.write(turn, write, (journal, segment), offset, parts);
            }
            JournalEffect::Prepare(prepare) => {
                let _ = workers.bulk.send(prepare);
            }
            JournalEffect::Remove(remove) => {
                self.of(remove.journal).retain(|(other, _)| *other != remove.index);
                let _ = workers.files.send(FileJob::Remove(remove));
            }
            JournalEffect::Read(read) => {
                let sealed = self.is_sealed(read.journal, read.segment);
                let _ = workers.files.send(FileJob::Read { read, sealed });
            }
        }
    }

    /// Whether nothing will be written to the segment any more, as far as can be told here: only then may it be
    /// mapped. A journal's segments are written in order.
    fn is_sealed(&self, journal: JournalKind, index: SegmentIndex) -> bool {
        let [replicated, local] = self.current;
        let current = if journal == JournalKind::Replicated { replicated } else { local };
        current.is_some_and(|current| index < current)
    }

    /// Starts a durable write.
    fn write(
        &mut self,
        turn: &mut RoundContext,
        write: u64,
        (journal, segment): (JournalKind, SegmentIndex),
        offset: u64,
        parts: Vec<Bytes>,
    ) {
        let file = match self.file(journal, segment) {
            Ok(file) => file,
            Err(error) => {
                let fault = Fault::from_io(&error);
                return turn.events.push(Event::Journal(JournalEvent::WriteFailed { write, fault }));
            }
        };
        let slot = self.writes.iter().position(Option::is_none).unwrap_or(self.writes.len());
        if slot == self.writes.len() {
            self.writes.push(Some(write));
        } else if let Some(place) = self.writes.get_mut(slot) {
            *place = Some(write);
        }
        turn.driver.submit(Target::Write(slot).token(), Op::WriteDurable(file, parts, offset));
    }

    /// A write ended.
    pub(crate) fn written(&mut self, turn: &mut RoundContext, slot: usize, result: io::Result<()>) {
        let Some(write) = self.writes.get_mut(slot).and_then(Option::take) else { return };
        turn.events.push(match result {
            Ok(()) => Event::Journal(JournalEvent::Written { write }),
            Err(error) => Event::Journal(JournalEvent::WriteFailed { write, fault: Fault::from_io(&error) }),
        });
    }

    fn file(&mut self, journal: JournalKind, segment: SegmentIndex) -> io::Result<Arc<JournalFile>> {
        let path = self.layout.segment(journal, segment);
        let [replicated, local] = &mut self.current;
        let current = if journal == JournalKind::Replicated { replicated } else { local };
        let newer = current.is_none_or(|current| segment > current);
        if newer {
            *current = Some(segment);
            // What lies before it is never written again.
            self.of(journal).retain(|(other, _)| *other >= segment);
        }
        let open = self.of(journal);
        if let Some((_, file)) = open.iter().find(|(other, _)| *other == segment) {
            return Ok(Arc::clone(file));
        }
        // Only a segment of an earlier run was not opened when it was made.
        let file = Arc::new(open_journal(&path, false)?);
        open.push((segment, Arc::clone(&file)));
        Ok(file)
    }

    fn of(&mut self, journal: JournalKind) -> &mut Vec<(SegmentIndex, Arc<JournalFile>)> {
        let [replicated, local] = &mut self.open;
        if journal == JournalKind::Replicated { replicated } else { local }
    }
}
