use super::*;
use crate::base::{Chain, Epoch, JournalKind, Seq};
use crate::format::PairId;
use crate::format::batch::{BatchBuilder, Seal};
use crate::format::entry::Entry;

fn batch(entries: &[Entry<'_>]) -> Batch {
    let mut builder = BatchBuilder::new(Seq(1), 4096);
    for entry in entries {
        let _ = builder.push(entry);
    }
    builder.seal(&Seal {
        pair: PairId([1; 16]),
        journal: JournalKind::Replicated,
        epoch: Epoch(2),
        durable: Seq(0),
        prev_chain: Chain(0),
        wall_ms: 0,
    })
}

fn entry(kind: EntryKind, file: u64) -> Entry<'static> {
    Entry { kind, file: FileId(file), id: b"ab", value: b"cde" }
}

#[test]
fn entries_are_counted_by_kind_and_by_file() {
    let mut stats = Stats::default();
    let all = [(EntryKind::Put, 1), (EntryKind::Put, 1), (EntryKind::Delete, 2), (EntryKind::Put, 1)];
    let all: Vec<Entry<'_>> = all.into_iter().map(|(kind, file)| entry(kind, file)).collect();
    stats.batch(&batch(&all), true);
    stats.batch(&batch(&all[2..3]), false);
    let one = FileCount { puts: 3, bytes: 15, ..FileCount::default() };
    let two = FileCount { deletes: 2, bytes: 10, ..FileCount::default() };
    assert_eq!(stats.files.values().collect::<Vec<_>>(), [&one, &two]);
    let put = stats.kinds[EntryKind::Put as usize];
    assert_eq!((put.name, put.entries, put.bytes), ("put", 3, 15));
    // What does not go to the peer is no part of what goes in and out of its queue.
    assert_eq!((stats.batches, stats.sums.entries), (2, 4));
}

#[test]
fn files_beyond_the_limit_are_counted_together() {
    let mut stats = Stats::default();
    let last = STATS_FILES_MAX as u64 + 3;
    for file in 1..=last {
        stats.add(FileId(file), &FileCount { puts: 1, ..FileCount::default() });
    }
    stats.add(FileId(1), &FileCount { puts: 1, ..FileCount::default() });
    assert_eq!((stats.files.len(), stats.rest.puts, stats.files[&FileId(1)].puts), (STATS_FILES_MAX, 3, 2));
}

#[test]
fn a_queue_that_gets_shorter_or_is_a_moments_work_has_an_end_and_one_that_grows_has_none() {
    let rates = |comes, goes| RatesView {
        bytes_per_second: comes,
        confirmed_bytes_per_second: goes,
        ..RatesView::default()
    };
    assert_eq!(seconds_left((0, 0), &rates(5, 0)), Some(0.0));
    assert_eq!(seconds_left((9, 4000), &rates(1000, 3000)), Some(2.0));
    assert_eq!(seconds_left((9, 500), &rates(1000, 1000)), Some(0.5), "it keeps up");
    assert_eq!(seconds_left((9, 4000), &rates(1000, 1000)), None);
    assert_eq!(seconds_left((9, 4000), &rates(0, 0)), None);
}

#[test]
fn what_defines_accounts_is_counted_by_kind_and_of_no_file() {
    let mut stats = Stats::default();
    stats.batch(&batch(&[entry(EntryKind::Put, 1), entry(EntryKind::Logging, 1)]), true);
    assert_eq!(stats.files[&FileId(1)].entries(), 1);
    assert_eq!(stats.kinds[EntryKind::Logging as usize].entries, 1);
}
