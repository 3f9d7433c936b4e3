//! `log show`: the entries that wait for the peer, read back from the journal.

use super::admin::LogEntryView;
use super::core::Core;
use super::read_back::ReadFor;
use crate::base::{Fault, Seq};
use crate::format::batch::Batch;
use crate::journal::{JournalReader, ReadStep};
use crate::store::StoreRead;

/// Entries in one answer at most.
const LIMIT_MAX: usize = 10_000;

/// A listing under way.
#[derive(Debug)]
pub(super) struct Listing {
    token: u64,
    pub(super) reader: JournalReader,
    limit: usize,
    out: Vec<LogEntryView>,
}

impl<S: StoreRead> Core<S> {
    pub(super) fn start_listing(&mut self, token: u64, limit: usize) {
        if self.listing.is_some() {
            return self.reply_no(token, "another listing is under way", "try again in a moment");
        }
        let pace = self.replicated().pace();
        if self.peer.retained() >= pace.durable {
            return self.reply_value(token, Vec::<LogEntryView>::new());
        }
        let reader = JournalReader::after(self.peer.retained().max(Seq(self.replicated().oldest().0 - 1)));
        let limit = limit.clamp(1, LIMIT_MAX);
        self.listing = Some(Listing { token, reader, limit, out: Vec::new() });
        self.dirty = true;
    }

    pub(super) fn pump_listing(&mut self) {
        while self.listing.is_some() {
            match self.read_on(ReadFor::Listing) {
                Ok(ReadStep::Batch(batch)) => {
                    if !self.list_batch(&batch) {
                        return self.end_listing();
                    }
                }
                Ok(ReadStep::Wait(_)) => return,
                Ok(ReadStep::End) => return self.end_listing(),
                Err(error) => return self.listing_failed(format!("listing the journal: {error}")),
            }
        }
    }

    fn end_listing(&mut self) {
        if let Some(Listing { token, out, .. }) = self.listing.take() {
            self.reply_value(token, out);
        }
    }

    /// Bytes of it could not be read.
    pub(super) fn listing_unread(&mut self, fault: Fault) {
        self.listing_failed(format!("reading the journal: {fault}"));
    }

    fn listing_failed(&mut self, text: String) {
        if let Some(Listing { token, .. }) = self.listing.take() {
            self.reply_no(token, text, "");
        }
    }

    /// Whether there is room for more.
    fn list_batch(&mut self, batch: &Batch) -> bool {
        let Some(listing) = &mut self.listing else { return false };
        let waiting = batch.entries().filter(|(seq, _)| *seq > self.peer.retained());
        for (seq, entry) in waiting.take(listing.limit - listing.out.len()) {
            let file = match self.namespace.file(entry.file) {
                Some(info) => info.key.clone(),
                None => entry.file.to_string(),
            };
            listing.out.push(LogEntryView {
                seq: seq.0,
                epoch: batch.header().epoch.0,
                kind: entry.kind.name().to_owned(),
                file,
                item: String::from_utf8_lossy(entry.id).escape_debug().to_string(),
                bytes: entry.value.len() as u64,
            });
        }
        listing.out.len() < listing.limit
    }
}

#[cfg(test)]
#[path = "listing_tests.rs"]
mod tests;
