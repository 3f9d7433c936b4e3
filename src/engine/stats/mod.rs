//! What is counted of this node's work: entries by kind and file, batches, and how long entries take to each stage.
//!
//! All of it takes fixed memory, and what a batch costs here is small against its checksum: entries are counted when
//! their batch is sealed or received, and timed in groups, a group for each round in which entries were accepted.

mod histogram;
mod track;
mod view;

use super::core::Core;
use crate::base::limits::STATS_FILES_MAX;
use crate::base::{FileId, Mono};
use crate::format::batch::Batch;
use crate::format::entry::EntryKind;
use crate::store::StoreRead;
use std::collections::BTreeMap;
use track::Track;
pub use view::{
    FileCount, KindCount, QueueView, RatesView, ReceiptView, STATS_VERSION, StageView, StatsView,
};

/// Rates are of this time at least, and of twice as much at most, while anything happens (milliseconds).
const RATES_MS: u64 = 5000;
/// One more than the highest kind of an entry.
const KINDS: usize = EntryKind::Logging as usize + 1;

#[derive(Clone, Copy, Debug, Default)]
struct Kind {
    name: &'static str,
    entries: u64,
    bytes: u64,
}

/// Sums as they were at a time.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    at: Mono,
    entries: u64,
    bytes: u64,
    confirmed: u64,
    confirmed_bytes: u64,
}

/// The counts of one process.
#[derive(Debug)]
pub(super) struct Stats {
    kinds: [Kind; KINDS],
    files: BTreeMap<FileId, FileCount>,
    /// Of files for which there was no room.
    rest: FileCount,
    batches: u64,
    batch_bytes: u64,
    /// Of the replicated journal.
    sums: Sums,
    older: Sums,
    newer: Sums,
    pub(super) track: Track,
    write_retries: u64,
    apply_retries: u64,
    connects: u64,
    was_up: bool,
    began_ms: u64,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            kinds: [Kind::default(); KINDS],
            files: BTreeMap::new(),
            rest: FileCount::default(),
            batches: 0,
            batch_bytes: 0,
            sums: Sums::default(),
            older: Sums::default(),
            newer: Sums::default(),
            track: Track::default(),
            write_retries: 0,
            apply_retries: 0,
            connects: 0,
            was_up: false,
            began_ms: 0,
        }
    }
}

impl Stats {
    /// A batch was sealed here, or came from the peer.
    pub(super) fn batch(&mut self, batch: &Batch, replicated: bool) {
        let header = batch.header();
        self.batches += 1;
        self.batch_bytes += u64::from(header.len);
        if replicated {
            self.sums.entries += u64::from(header.count);
            self.sums.bytes += u64::from(header.len);
        }
        // Most often all entries of a batch are of one file.
        let mut run: Option<(FileId, FileCount)> = None;
        for (_, entry) in batch.entries() {
            let bytes = (entry.id.len() + entry.value.len()) as u64;
            if let Some(kind) = self.kinds.get_mut(entry.kind as usize) {
                kind.name = entry.kind.name();
                kind.entries += 1;
                kind.bytes += bytes;
            }
            if !is_of_file(entry.kind) {
                continue;
            }
            let counts = match &mut run {
                Some((file, counts)) if *file == entry.file => counts,
                other => {
                    if let Some((file, counts)) = other.take() {
                        self.add(file, &counts);
                    }
                    &mut other.insert((entry.file, FileCount::default())).1
                }
            };
            let count = match entry.kind {
                EntryKind::Put => &mut counts.puts,
                EntryKind::Delete => &mut counts.deletes,
                kind if kind.changes_blocks() => &mut counts.blocks,
                _ => &mut counts.others,
            };
            *count += 1;
            counts.bytes += bytes;
        }
        if let Some((file, counts)) = run {
            self.add(file, &counts);
        }
    }

    fn add(&mut self, file: FileId, counts: &FileCount) {
        let room = self.files.len() < STATS_FILES_MAX;
        let place = match self.files.get_mut(&file) {
            Some(place) => place,
            None if room => self.files.entry(file).or_default(),
            None => &mut self.rest,
        };
        place.add(counts);
    }

    /// A write of a journal failed.
    pub(super) fn write_failed(&mut self) {
        self.write_retries += 1;
    }

    /// The store refused a batch.
    pub(super) fn apply_failed(&mut self) {
        self.apply_retries += 1;
    }

    fn rates(&self, now: Mono) -> RatesView {
        let over_us = now.since(self.older.at).max(1);
        let per_second = |now: u64, then: u64| {
            let rate = u128::from(now.saturating_sub(then)) * 1_000_000 / u128::from(over_us);
            u64::try_from(rate).unwrap_or(u64::MAX)
        };
        let (now, then) = (&self.sums, &self.older);
        RatesView {
            over_ms: over_us / 1000,
            entries_per_second: per_second(now.entries, then.entries),
            bytes_per_second: per_second(now.bytes, then.bytes),
            confirmed_per_second: per_second(now.confirmed, then.confirmed),
            confirmed_bytes_per_second: per_second(now.confirmed_bytes, then.confirmed_bytes),
        }
    }
}

/// How long a queue takes to drain; none while it does not get shorter and is more than a second's work.
fn seconds_left((entries, bytes): (u64, u64), rates: &RatesView) -> Option<f64> {
    let (comes, goes) = (rates.bytes_per_second, rates.confirmed_bytes_per_second);
    let drains = match goes.saturating_sub(comes) {
        drains if drains > comes / 20 => drains,
        _ if bytes < goes => goes,
        _ => 0,
    };
    match (entries, drains) {
        (0, _) => Some(0.0),
        (_, 0) => None,
        _ => Some(super::status::seconds(bytes.saturating_mul(1_000_000) / drains)),
    }
}

/// Whether the id of an entry of this kind is that of a file; else it is an account's, or none.
fn is_of_file(kind: EntryKind) -> bool {
    !matches!(
        kind,
        EntryKind::AccountCreate
            | EntryKind::AccountDelete
            | EntryKind::AccountChange
            | EntryKind::EpochStart
            | EntryKind::Logging
    )
}

impl<S: StoreRead> Core<S> {
    /// Looks at how far entries are, at the end of a round.
    pub(super) fn pump_stats(&mut self) {
        let (now, primary) = (self.now.mono, self.is_primary());
        let up = self.link.is_up();
        let replicated = crate::base::JournalKind::Replicated;
        let (sealed, durable) = (self.replicated().sealed().seq, self.replicated().pace().durable);
        let (applied, at_peer) = (self.applied_seq(replicated), self.peer.confirmed().durable);
        let answered = self.committed(self.config.ack_level);
        let (retained, lag) = (self.peer.retained(), self.peer.lag_bytes());
        let stats = &mut self.stats;
        if stats.began_ms == 0 {
            stats.began_ms = self.now.wall_ms.max(1);
        }
        let came_up = up && !std::mem::replace(&mut stats.was_up, up);
        stats.connects += u64::from(came_up);
        let beside = primary.then_some([at_peer, answered]);
        stats.track.reached(now, [sealed, durable, applied], beside);
        stats.sums.at = now;
        stats.sums.confirmed = stats.sums.confirmed.max(retained.0);
        stats.sums.confirmed_bytes = stats.sums.confirmed_bytes.max(stats.sums.bytes.saturating_sub(lag));
        if now >= stats.newer.at.plus_ms(RATES_MS) {
            stats.older = std::mem::replace(&mut stats.newer, stats.sums);
        }
    }

    pub(super) fn stats_view(&self) -> StatsView {
        let stats = &self.stats;
        let kinds = stats.kinds.iter().filter(|kind| kind.entries > 0);
        let named = |(id, counts): (&FileId, &FileCount)| FileCount {
            id: id.0,
            name: self.namespace.file(*id).map_or_else(String::new, |info| info.key.clone()),
            ..counts.clone()
        };
        let mut files: Vec<FileCount> = stats.files.iter().map(named).collect();
        files.extend((stats.rest.entries() > 0).then(|| stats.rest.clone()));
        files.sort_by_key(|file| std::cmp::Reverse(file.entries()));
        StatsView {
            version: STATS_VERSION,
            since_ms: stats.began_ms,
            starts: 1,
            kinds: kinds
                .map(|kind| KindCount {
                    kind: kind.name.to_owned(),
                    entries: kind.entries,
                    bytes: kind.bytes,
                })
                .collect(),
            files,
            batches: stats.batches,
            batch_bytes: stats.batch_bytes,
            stages: stats.track.views(),
            write_retries: stats.write_retries,
            apply_retries: stats.apply_retries,
            connects: stats.connects,
            rates: stats.rates(self.now.mono),
        }
    }

    pub(super) fn queue_view(&self) -> QueueView {
        let (peer, connected) = (self.peer_state().name().to_owned(), self.link.is_up());
        let rates = self.stats.rates(self.now.mono);
        if !self.is_primary() {
            let note = "a standby queues nothing: what its primary queues for it is told there".to_owned();
            return QueueView { connected, peer, rates, note, ..QueueView::default() };
        }
        let (retained, end) = (self.peer.retained().0, self.replicated().pace().appended.0);
        let entries = end.saturating_sub(retained);
        let bytes = self.peer.lag_bytes();
        let left = seconds_left((entries, bytes), &rates);
        QueueView {
            first: if entries > 0 { retained + 1 } else { 0 },
            last: end,
            entries,
            bytes,
            oldest_seconds: super::status::seconds(self.peer.lag_age(self.now.mono)),
            rates,
            seconds_left: left,
            connected,
            peer,
            note: String::new(),
        }
    }
}

#[cfg(test)]
#[path = "stats_tests.rs"]
mod tests;
