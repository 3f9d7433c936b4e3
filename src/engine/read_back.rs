//! Reads of the journal for those who want entries back. All have a [`JournalReader`]; here is where it is found, and what is
//! done with a fault.

use super::core::Core;
use super::effect::{JournalEffect, ReadSegment, SpoolEffect};
use super::save::Saving;
use crate::base::{Fault, JournalKind};
use crate::journal::{CursorError, JournalReader, ReadRequest, ReadStep};
use crate::store::StoreRead;
use bytes::Bytes;

/// Who reads a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadFor {
    /// Replay into the store.
    Apply(JournalKind),
    /// Catch-up of the peer.
    Stream,
    /// `log show`.
    Listing,
    /// The entries that the pair never kept.
    Diverged,
    /// The batches of a save.
    Save,
    /// What was touched since the histories parted.
    Rewind,
}

impl ReadFor {
    /// The journal that it reads.
    const fn journal(self) -> JournalKind {
        match self {
            Self::Apply(journal) => journal,
            Self::Stream | Self::Listing | Self::Diverged | Self::Save | Self::Rewind => {
                JournalKind::Replicated
            }
        }
    }
}

impl<S: StoreRead> Core<S> {
    /// Where its reader is, if it reads now.
    fn reader(&mut self, who: ReadFor) -> Option<&mut JournalReader> {
        match who {
            ReadFor::Apply(journal) => Some(self.appliers.of_mut(journal).reader()),
            ReadFor::Stream => self.link.stream().map(|(_, stream)| &mut stream.reader),
            ReadFor::Listing => self.listing.as_mut().map(|listing| &mut listing.reader),
            ReadFor::Diverged => self.roles.export_reader(),
            ReadFor::Save => self.saving.as_mut().map(Saving::reader),
            ReadFor::Rewind => self.link.gathering().map(|gathering| &mut gathering.reader),
        }
    }

    /// The next batch. Bytes that are missing for it are asked for.
    pub(super) fn read_on(&mut self, who: ReadFor) -> Result<ReadStep, CursorError> {
        let Some(reader) = self.reader(who) else { return Ok(ReadStep::End) };
        let mut reader = std::mem::take(reader);
        let journal = who.journal();
        let mut step = reader.next(&self.journals[journal.index()]);
        if let Ok(ReadStep::Wait(wanted)) = &mut step
            && let Some(ReadRequest { segment, offset, len }) = wanted.take()
        {
            let read = self.fresh_id();
            self.journals.read_begins(read, who);
            let part = if journal == JournalKind::Replicated { self.part_read(segment) } else { None };
            let request = ReadSegment { read, journal, segment, offset, len };
            match part {
                Some(part) => self.effect(SpoolEffect::Read { read: request, part }),
                None => self.effect(JournalEffect::Read(request)),
            }
            reader.asked(read);
        }
        if let Err(error) = &step {
            self.note_damaged_part(error);
        }
        if let Some(place) = self.reader(who) {
            *place = reader;
        }
        step
    }

    /// A read ended.
    pub(super) fn read_done(&mut self, read: u64, result: Result<Bytes, Fault>) {
        let Some(who) = self.journals.read_ends(read) else { return };
        let Some(Some(done)) = self.reader(who).map(|reader| reader.take(read, result)) else { return };
        self.dirty = true;
        let Err(fault) = done else { return };
        match who {
            ReadFor::Apply(journal) => self.apply_unread(journal, fault),
            ReadFor::Stream => self.stream_unread(fault),
            ReadFor::Listing => self.listing_unread(fault),
            ReadFor::Diverged => self.diverged_unread(),
            ReadFor::Save => self.save_unread(fault),
            ReadFor::Rewind => self.rewind_unread(fault),
        }
    }
}

#[cfg(test)]
#[path = "read_back_tests.rs"]
mod tests;
