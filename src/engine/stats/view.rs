//! What people are told of the counts. What an earlier process counted is added to it.

use super::histogram::{quantile, together};
use serde::{Deserialize, Serialize};

/// The version of [`StatsView`].
pub const STATS_VERSION: u32 = 1;

/// What a node has done, in this life and those before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatsView {
    /// [`STATS_VERSION`]: fields are added without a new one, and none is taken away.
    pub version: u32,
    /// When counting began (milliseconds since 1970).
    pub since_ms: u64,
    /// How often the node was started since then.
    pub starts: u64,
    /// Entries of both journals, by what they do.
    pub kinds: Vec<KindCount>,
    /// The same by file, those with most entries first.
    pub files: Vec<FileCount>,
    /// Batches that were sealed here or received.
    pub batches: u64,
    /// Their bytes.
    pub batch_bytes: u64,
    /// How long entries of the replicated journal took to each stage.
    pub stages: Vec<StageView>,
    /// Writes of a journal that failed and were made again.
    pub write_retries: u64,
    /// Batches that the store refused and was given again.
    pub apply_retries: u64,
    /// How often the link came up.
    pub connects: u64,
    /// Of the last seconds.
    #[serde(default)]
    pub rates: RatesView,
}

/// Entries of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindCount {
    /// put, delete, block-write ..
    pub kind: String,
    /// How many.
    pub entries: u64,
    /// Bytes of their ids and values.
    pub bytes: u64,
}

/// What was done to one file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCount {
    /// Its stable id; 0 for all that there was no room to tell apart.
    pub id: u64,
    /// `account,file`; empty if it is gone.
    pub name: String,
    /// Items that were put.
    pub puts: u64,
    /// Items that were deleted.
    pub deletes: u64,
    /// Ranges of a volume that were written, punched or zeroed.
    pub blocks: u64,
    /// Everything else: definitions, copies.
    pub others: u64,
    /// Bytes of ids and values.
    pub bytes: u64,
}

/// A count never wraps, whatever stood in a file.
fn more(count: &mut u64, by: u64) {
    *count = count.saturating_add(by);
}

impl FileCount {
    /// All entries.
    #[must_use]
    pub fn entries(&self) -> u64 {
        let counts = [self.puts, self.deletes, self.blocks, self.others];
        counts.into_iter().fold(0, u64::saturating_add)
    }

    pub(super) fn add(&mut self, other: &Self) {
        more(&mut self.puts, other.puts);
        more(&mut self.deletes, other.deletes);
        more(&mut self.blocks, other.blocks);
        more(&mut self.others, other.others);
        more(&mut self.bytes, other.bytes);
    }
}

/// How long entries took from when they were accepted to a stage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageView {
    /// append: the write of its batch begins; disk: it is on this disk; peer: it is on the peer's disk; apply: this
    /// node's store shows it; answer: it may be answered at the database's ack level.
    pub name: String,
    /// Entries that were timed.
    pub count: u64,
    /// How long these took together (microseconds).
    pub sum_us: u64,
    /// Entries that were not, as they waited for longer than could be remembered.
    pub untimed: u64,
    /// Within so many microseconds half of them were there, ..
    pub p50_us: u64,
    /// .. 99 of 100, ..
    pub p99_us: u64,
    /// .. and 999 of 1000.
    pub p999_us: u64,
    /// The longest time of a bucket (microseconds), and how many are in it; empty ones are left out.
    pub buckets: Vec<(u64, u64)>,
}

impl StageView {
    pub(super) fn told(mut self) -> Self {
        let of = |permille| quantile(&self.buckets, permille);
        (self.p50_us, self.p99_us, self.p999_us) = (of(500), of(990), of(999));
        self
    }
}

/// What happens in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RatesView {
    /// Over so long a time (milliseconds).
    pub over_ms: u64,
    /// Entries that were made or received.
    pub entries_per_second: u64,
    /// Bytes of their batches.
    pub bytes_per_second: u64,
    /// Entries that the peer confirmed to have on disk.
    pub confirmed_per_second: u64,
    /// Bytes of their batches.
    pub confirmed_bytes_per_second: u64,
}

impl StatsView {
    /// Adds what processes before this one counted.
    pub fn add(&mut self, before: &Self) {
        if before.since_ms > 0 {
            self.since_ms = self.since_ms.min(before.since_ms);
        }
        more(&mut self.starts, before.starts);
        for old in &before.kinds {
            match self.kinds.iter_mut().find(|kind| kind.kind == old.kind) {
                Some(kind) => {
                    more(&mut kind.entries, old.entries);
                    more(&mut kind.bytes, old.bytes);
                }
                None => self.kinds.push(old.clone()),
            }
        }
        for old in &before.files {
            match self.files.iter_mut().find(|file| file.id == old.id) {
                Some(file) => file.add(old),
                None => self.files.push(old.clone()),
            }
        }
        self.files.sort_by_key(|file| std::cmp::Reverse(file.entries()));
        for stage in &mut self.stages {
            let Some(old) = before.stages.iter().find(|old| old.name == stage.name) else { continue };
            more(&mut stage.count, old.count);
            more(&mut stage.sum_us, old.sum_us);
            more(&mut stage.untimed, old.untimed);
            stage.buckets = together(&stage.buckets, &old.buckets);
            *stage = std::mem::take(stage).told();
        }
        more(&mut self.batches, before.batches);
        more(&mut self.batch_bytes, before.batch_bytes);
        more(&mut self.write_retries, before.write_retries);
        more(&mut self.apply_retries, before.apply_retries);
        more(&mut self.connects, before.connects);
    }
}

/// What the peer has not confirmed to have on disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QueueView {
    /// The first entry of it; 0 if there is none.
    pub first: u64,
    /// The last entry.
    pub last: u64,
    /// How many.
    pub entries: u64,
    /// Bytes of their batches, as far as this process sealed them.
    pub bytes: u64,
    /// Age of the oldest (seconds).
    pub oldest_seconds: f64,
    /// What comes in, and what the peer confirms.
    pub rates: RatesView,
    /// How long it takes to drain at these rates (seconds); none while it does not get shorter.
    pub seconds_left: Option<f64>,
    /// Whether the peer is connected.
    pub connected: bool,
    /// Idle, busy, lagging, stuck or away.
    pub peer: String,
    /// Why nothing is queued here, if this node queues nothing.
    pub note: String,
}

/// What has become of an update.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptView {
    /// Its number.
    pub seq: u64,
    /// Its epoch; that of the entry that has the number now, if none was asked for.
    pub epoch: u64,
    /// kept: it is in this node's history; lost: it is not, and never will be; waiting: it is not here yet; unknown.
    pub state: String,
    /// It is on this node's disk.
    pub durable_here: bool,
    /// .. and on the peer's, as far as this node was told.
    pub durable_both: bool,
    /// This node's store shows it.
    pub applied_here: bool,
    /// So does the peer's.
    pub applied_both: bool,
    /// The same in words.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_earlier_processes_counted_is_added_name_by_name() {
        let kind = |entries| KindCount { kind: "put".into(), entries, bytes: entries * 10 };
        let file = |id, puts| FileCount { id, puts, ..FileCount::default() };
        let stage = |bucket, count| StageView {
            name: "disk".into(),
            count,
            buckets: vec![(bucket, count)],
            ..StageView::default()
        };
        let before = StatsView {
            since_ms: 5,
            starts: 2,
            kinds: vec![kind(7), KindCount { kind: "delete".into(), entries: 1, bytes: 2 }],
            files: vec![file(1, 7), file(2, 100)],
            stages: vec![stage(1023, 998)],
            batches: 4,
            connects: 1,
            ..StatsView::default()
        };
        let mut now = StatsView {
            since_ms: 50,
            starts: 1,
            kinds: vec![kind(3)],
            files: vec![file(1, 3)],
            stages: vec![stage(15, 2)],
            batches: 6,
            ..StatsView::default()
        };
        now.add(&before);
        assert_eq!((now.since_ms, now.starts, now.batches, now.connects), (5, 3, 10, 1));
        assert_eq!(now.kinds, [kind(10), before.kinds[1].clone()]);
        assert_eq!(now.files, [file(2, 100), file(1, 10)]);
        let told = &now.stages[0];
        assert_eq!((told.count, told.p50_us, told.buckets.len()), (1000, 1023, 2));
        // The first life has nothing before it.
        let mut first = StatsView { since_ms: 9, ..StatsView::default() };
        first.add(&StatsView::default());
        assert_eq!(first.since_ms, 9);
    }
}
