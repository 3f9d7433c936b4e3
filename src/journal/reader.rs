//! The one way to read a journal back: whoever wants its entries has a [`JournalReader`].
//!
//! A reader does no I/O. It says which bytes it needs, is handed them, and gives batches in order. After a fault it goes on
//! behind the last batch that it gave.

use super::cursor::{Cursor, CursorError, ReadRequest, WalkStep};
use super::writer::Journal;
use crate::base::{Fault, Seq};
use crate::format::batch::Batch;
use bytes::Bytes;

/// Reads a journal's durable batches in order.
#[derive(Debug, Default)]
pub struct JournalReader {
    /// The last entry given.
    after: Seq,
    cursor: Option<Cursor>,
    /// The round of the read that it waits for.
    waits: Option<u64>,
}

/// What a reader gives.
#[derive(Debug)]
pub enum ReadStep {
    /// The next batch.
    Batch(Batch),
    /// It needs bytes first: these, or those that it asked for already.
    Wait(Option<ReadRequest>),
    /// Nothing more is durable.
    End,
}

impl JournalReader {
    /// Its first batch is the one that holds the entry after `after`.
    #[must_use]
    pub fn after(after: Seq) -> Self {
        Self { after, cursor: None, waits: None }
    }

    /// Goes on with the batch that holds the entry after `after`. Bytes that it waited for elsewhere are of no use then.
    pub fn seek(&mut self, after: Seq) {
        if self.after != after {
            *self = Self::after(after);
        }
    }

    /// Whether it waits for bytes.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.waits.is_some()
    }

    /// The next batch, or what has to be read for it. Whoever reads that says so by [`Self::asked`].
    ///
    /// # Errors
    /// Any [`CursorError`]. The reader may be asked again.
    pub fn next(&mut self, journal: &Journal) -> Result<ReadStep, CursorError> {
        if self.is_waiting() {
            return Ok(ReadStep::Wait(None));
        }
        let mut cursor = match self.cursor.take() {
            Some(cursor) => cursor,
            None => Cursor::new(journal.segments(), self.after)?,
        };
        let step = match cursor.step(journal.segments())? {
            WalkStep::Batch(batch) => {
                self.after = batch.header().last_seq();
                ReadStep::Batch(batch)
            }
            WalkStep::Read(request) => ReadStep::Wait(Some(request)),
            WalkStep::End => ReadStep::End,
        };
        self.cursor = Some(cursor);
        Ok(step)
    }

    /// The bytes of the last request are being read in this round, which no read before had.
    pub fn asked(&mut self, round: u64) {
        self.waits = Some(round);
    }

    /// Takes the bytes of a round, or why there are none. `None` if it does not wait for them: it was sent elsewhere, or it
    /// is another reader than the one that asked.
    pub fn take(&mut self, round: u64, result: Result<Bytes, Fault>) -> Option<Result<(), Fault>> {
        self.waits.take_if(|waits| *waits == round)?;
        Some(match (result, &mut self.cursor) {
            (Ok(bytes), Some(cursor)) => {
                cursor.feed(bytes);
                Ok(())
            }
            (Ok(_), None) => Ok(()),
            (Err(fault), _) => {
                self.cursor = None;
                Err(fault)
            }
        })
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
