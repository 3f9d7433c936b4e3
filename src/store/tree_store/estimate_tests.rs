//! Estimates of the number of items against the truth, on stores of every shape.

use super::super::{StoreRead, StoreSnapshot};
use super::tests::{put, with_orders};
use super::*;
use crate::base::Prng;
use crate::format::dptr::Flags;
use crate::store::testkit::new_file;

const A: Ordinal = Ordinal(0);
const R: JournalKind = JournalKind::Replicated;

fn id_of(n: u64) -> Vec<u8> {
    // Some would be no short keys.
    if n.is_multiple_of(4) { format!("{n},x,y").into_bytes() } else { format!("{n:08}").into_bytes() }
}

/// Two files: many items come, change and go in the first one, some in the second.
fn fill(opened: &mut Opened, prng: &mut Prng) -> [FileId; 2] {
    let (mut history, first) = with_orders(opened);
    let (journal, batch) = history.change(|ns| ns.create_file(&new_file("app", "other", Flags::L), A));
    opened.writer.apply(journal, &[batch]).unwrap();
    let second = history.ahead.resolve(b"app,other").unwrap();
    for round in 0..12_u64 {
        let mut entries = Vec::new();
        for _ in 0..5000 {
            let id = id_of(prng.below(20_000));
            // In the end most of them are there; in some rounds many go.
            match prng.percent(if round % 4 == 3 { 60 } else { 10 }) {
                true => entries.push((EntryKind::Delete, first, id, Vec::new())),
                false => entries.push(put(first, &id, &[7; 60])),
            }
        }
        entries.extend((0..500).map(|n| put(second, &id_of(round * 300 + n), &[8; 60])));
        opened.writer.apply(R, &[history.seal(R, &entries)]).unwrap();
        if round < 11 {
            opened.writer.checkpoint().unwrap();
        }
        if round == 5 {
            opened.reader.shared().merged();
        }
    }
    [first, second]
}

#[test]
fn an_estimate_is_near_the_truth_whatever_was_overwritten_deleted_or_is_in_no_table_yet() {
    for seed in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = TreeStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
        let files = fill(&mut opened, &mut Prng::new(seed));
        for reopened in [false, true] {
            if reopened {
                opened.writer.checkpoint().unwrap();
                drop(opened);
                opened = TreeStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
            }
            let snapshot = opened.reader.snapshot();
            for file in files {
                let all = snapshot.scan(file, 0, None, usize::MAX, false).unwrap();
                let short = |id: &[u8]| id.iter().filter(|byte| **byte == b',').count() < 2;
                let expected = [all.len(), all.iter().filter(|(id, _)| short(id)).count()];
                let told = [
                    snapshot.estimate(file, 0, |_| true).unwrap(),
                    snapshot.estimate(file, 0, short).unwrap(),
                ];
                for (told, expected) in told.into_iter().zip(expected) {
                    let expected = expected as u64;
                    let off = told.abs_diff(expected);
                    // Tables hold both files, and which entries are whose is known up to some blocks of each.
                    assert!(
                        off * 100 <= expected * 12 + 120_000,
                        "seed {seed} file {file}: {told} for {expected}"
                    );
                }
                assert!(snapshot.items_at_most(file, 0) >= all.len() as u64);
            }
            assert_eq!(snapshot.estimate(FileId(77), 0, |_| true).unwrap(), 0);
        }
    }
}

#[test]
fn where_nothing_was_overwritten_an_estimate_of_one_file_is_exact() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = TreeStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
    let (mut history, file) = with_orders(&mut opened);
    let puts: Vec<_> = (0..50_000_u32).map(|n| put(file, &n.to_be_bytes(), &[1; 50])).collect();
    opened.writer.apply(R, &[history.seal(R, &puts)]).unwrap();
    opened.writer.checkpoint().unwrap();
    let told = opened.reader.snapshot().estimate(file, 0, |_| true).unwrap();
    // The store's own records stand in the same table.
    assert!(told.abs_diff(50_000) < 50, "{told}");
}
