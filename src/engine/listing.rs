//! `log show`: the entries that wait for the peer, read back from the journal.

use super::admin::LogEntryView;
use super::core::{Core, ReadFor};
use crate::base::{Fault, JournalKind};
use crate::format::batch::Batch;
use crate::journal::Cursor;
use crate::store::StoreRead;
use bytes::Bytes;

/// Entries in one answer at most.
const LIMIT_MAX: usize = 10_000;

/// A listing under way.
#[derive(Debug)]
pub(super) struct Listing {
    token: u64,
    cursor: Cursor,
    /// The read that the cursor waits for.
    reading: Option<u64>,
    limit: usize,
    out: Vec<LogEntryView>,
}

impl<S: StoreRead> Core<S> {
    pub(super) fn start_listing(&mut self, token: u64, limit: usize) {
        if self.listing.is_some() {
            return self.reply_no(token, "another listing is under way", "try again in a moment");
        }
        let pace = self.replicated().pace();
        if self.link.retained >= pace.durable {
            return self.reply_value(token, Vec::<LogEntryView>::new());
        }
        match self
            .replicated()
            .cursor(self.link.retained.max(crate::base::Seq(self.replicated().oldest().0 - 1)))
        {
            Ok(cursor) => {
                let limit = limit.clamp(1, LIMIT_MAX);
                self.listing = Some(Listing { token, cursor, reading: None, limit, out: Vec::new() });
                self.dirty = true;
            }
            Err(error) => self.reply_no(token, format!("listing the journal: {error}"), ""),
        }
    }

    pub(super) fn pump_listing(&mut self) {
        let Some(mut listing) = self.listing.take() else { return };
        if listing.reading.is_some() {
            self.listing = Some(listing);
            return;
        }
        loop {
            match self.journals[0].advance(&mut listing.cursor) {
                Ok((Some(batch), _)) => {
                    self.list_batch(&mut listing, &batch);
                    if listing.out.len() >= listing.limit {
                        break;
                    }
                }
                Ok((None, Some(request))) => {
                    let read = self.read_segment(ReadFor::Listing, JournalKind::Replicated, request);
                    listing.reading = Some(read);
                    self.listing = Some(listing);
                    return;
                }
                Ok((None, None)) => break,
                Err(error) => {
                    return self.reply_no(listing.token, format!("listing the journal: {error}"), "");
                }
            }
        }
        self.reply_value(listing.token, listing.out);
    }

    fn list_batch(&self, listing: &mut Listing, batch: &Batch) {
        let waiting = batch.entries().filter(|(seq, _)| *seq > self.link.retained);
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
    }

    pub(super) fn listing_read(&mut self, read: u64, result: Result<Bytes, Fault>) {
        let Some(listing) = &mut self.listing else { return };
        if listing.reading.take_if(|waits| *waits == read).is_none() {
            return;
        }
        self.dirty = true;
        match result {
            Ok(bytes) => listing.cursor.feed(bytes),
            Err(fault) => {
                let token = listing.token;
                self.listing = None;
                self.reply_no(token, format!("reading the journal: {fault}"), "");
            }
        }
    }
}
