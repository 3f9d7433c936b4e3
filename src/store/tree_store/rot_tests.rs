//! Tables that rot, anywhere: nothing wrong is served at any moment, and what the other node has makes all of it whole
//! again, whatever older tables hold below, and wherever a crash comes.

use super::super::super::chunk;
use super::super::super::testkit::{History, new_file};
use super::super::super::{CompareTarget, StoreRead, StoreSnapshot, StoreWrite};
use super::super::tests::{put, with_orders};
use super::super::{Opened, TreeStore};
use super::*;
use crate::base::{JournalKind, Ordinal, Prng};
use crate::format::chunk::Content;
use crate::format::dptr::Flags;
use crate::format::entry::EntryKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

const A: Ordinal = Ordinal(0);
const R: JournalKind = JournalKind::Replicated;

type Items = BTreeMap<Vec<u8>, Vec<u8>>;

/// A store whose tables hold items, newer values of some of them, and that some are gone.
struct Filled {
    dir: tempfile::TempDir,
    file: FileId,
    truth: Items,
}

fn open(dir: &Path) -> Opened {
    TreeStore::open(dir, &dir.join("volumes"), A).unwrap()
}

fn id(n: u32) -> Vec<u8> {
    format!("{n:05}").into_bytes()
}

/// Three tables over the same ids, each of some blocks.
fn fill() -> Filled {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    let (mut history, file) = with_orders(&mut opened);
    let mut truth = Items::new();
    for round in 0..3 {
        let mut entries = Vec::new();
        for n in (0..300).filter(|n| round == 0 || n % (round + 1) == 0) {
            if round > 0 && n % 5 == 0 {
                truth.remove(&id(n));
                entries.push((EntryKind::Delete, file, id(n), Vec::new()));
            } else {
                let value = format!("{n} in round {round} ").repeat(8).into_bytes();
                truth.insert(id(n), value.clone());
                entries.push(put(file, &id(n), &value));
            }
        }
        opened.writer.apply(R, &[history.seal(R, &entries)]).unwrap();
        opened.writer.checkpoint().unwrap();
    }
    drop(opened);
    Filled { dir, file, truth }
}

fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    copy_into(from, to.path());
    to
}

fn copy_into(from: &Path, to: &Path) {
    for found in std::fs::read_dir(from).unwrap() {
        let path = found.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_into(&path, &target);
        } else {
            std::fs::copy(&path, target).unwrap();
        }
    }
}

fn tables(dir: &Path) -> Vec<PathBuf> {
    let found = std::fs::read_dir(dir.join("tree/tables")).unwrap();
    let mut all: Vec<_> = found.map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1 << (at % 8);
    std::fs::write(path, bytes).unwrap();
}

/// Reads everything, one by one and by scans; whatever is not refused is right. How much was refused.
fn refused(opened: &Opened, file: FileId, truth: &Items) -> usize {
    let snapshot = opened.reader.snapshot();
    let mut refused = 0;
    for n in 0..302 {
        match snapshot.get(file, 0, &id(n)) {
            Ok(found) => assert_eq!(found.as_deref(), truth.get(&id(n)).map(|value| &value[..]), "item {n}"),
            Err(error) => {
                assert!(error.is_damage(), "{error}");
                refused += 1;
            }
        }
    }
    for after in (0..300).step_by(37) {
        let wanted: Vec<_> =
            truth.range(id(after)..).filter(|(key, _)| **key != id(after)).take(40).collect();
        match snapshot.scan(file, 0, Some(&id(after)), 40, true) {
            Ok(found) => {
                let found: Vec<_> = found.iter().map(|(id, value)| (id.to_vec(), value.to_vec())).collect();
                let wanted: Vec<_> = wanted.into_iter().map(|(id, v)| (id.clone(), v.clone())).collect();
                assert_eq!(found, wanted, "after {after}");
            }
            Err(_) => refused += 1,
        }
    }
    refused
}

/// What the other node has in a part, or in the beginning of it.
fn chunk_of(opened: &Opened, part: &RottenItems, truth: &Items, most: u32) -> Chunk {
    let at = opened.writer.applied()[0];
    let empty = Chunk { id: 0, file: part.file, at, until: at, content: Content::Gone, ends: true };
    let until = (!part.through.is_empty()).then_some(&part.through);
    let scan = |after: &[u8], items: usize, _: usize| {
        let behind = truth.iter().filter(|(id, _)| id.as_slice() > after).take(items);
        Ok(behind.map(|(id, value)| (Bytes::from(id.clone()), Bytes::from(value.clone()))).collect())
    };
    let found = chunk::of_items(empty, (&part.after, until), most, scan).unwrap();
    super::super::super::compare::up_to(found, &part.through)
}

/// Gives the store all that it wants of the other node; how many chunks that were.
fn heal(opened: &mut Opened, truth: &Items, most: u32) -> usize {
    let mut count = 0;
    loop {
        opened.writer.tell_rotten_again();
        let wanted = opened.writer.take_rotten_items();
        let Some(part) = wanted.first() else { return count };
        let chunk = chunk_of(opened, part, truth, most);
        opened.writer.repair(&chunk).unwrap();
        refused(opened, part.file, truth);
        count += 1;
        assert!(count < 2000, "it is never whole");
    }
}

/// Whether a scrub finds nothing.
fn scrubbed(opened: &Opened) -> bool {
    opened.reader.table_files().iter().all(|table| {
        let mut sum = super::super::TableSum::default();
        sum.push(&std::fs::read(table.path()).unwrap());
        let right = table.is(&sum);
        if !right {
            opened.reader.suspect(table);
        }
        right
    })
}

/// Every so-manieth byte rots; all of them where there is time.
fn stride() -> usize {
    if std::env::var_os("HB_TIER").is_some_and(|tier| tier == "ci") { 23 } else { 701 }
}

#[test]
fn rot_of_any_byte_of_any_table_is_never_served_and_comes_again_from_the_other_node() {
    let filled = fill();
    let whole = open(filled.dir.path());
    assert_eq!(refused(&whole, filled.file, &filled.truth), 0);
    assert!(scrubbed(&whole));
    drop(whole);
    let (mut healed, mut seen) = (0, 0);
    for table in tables(filled.dir.path()) {
        let name = table.strip_prefix(filled.dir.path()).unwrap();
        let len = usize::try_from(std::fs::metadata(&table).unwrap().len()).unwrap();
        for at in (healed % 97..len).step_by(stride()) {
            let dir = copy(filled.dir.path());
            // A node that lives, and one that finds it at a start.
            let lives = at % 2 == 0;
            let before = lives.then(|| open(dir.path()));
            flip(&dir.path().join(name), at);
            let opened =
                before.map_or_else(|| TreeStore::open(dir.path(), &dir.path().join("volumes"), A), Ok);
            // Where a table ends, a start refuses it.
            let Ok(mut opened) = opened else { continue };
            seen += usize::from(refused(&opened, filled.file, &filled.truth) > 0);
            let what = format!("{} byte {at}", name.display());
            assert!(!scrubbed(&opened), "{what}");
            heal(&mut opened, &filled.truth, 700);
            assert_eq!(refused(&opened, filled.file, &filled.truth), 0, "{what}");
            assert!(scrubbed(&opened), "{what}");
            let records = opened.reader.shared().clone();
            let applied = Snapshot::newest(&records).applied();
            drop(records);
            drop(opened);
            let again = open(dir.path());
            assert_eq!((again.applied, refused(&again, filled.file, &filled.truth)), (applied, 0), "{what}");
            assert!(scrubbed(&again), "{what}");
            healed += 1;
        }
    }
    assert!(healed > 20 && seen > healed / 3, "{healed} healed, {seen} of them met by a read");
}

/// A store of which a block in the midst of its second table is rotten, as a read has found.
fn rotten(filled: &Filled) -> (tempfile::TempDir, Opened) {
    let dir = copy(filled.dir.path());
    let opened = open(dir.path());
    let all = tables(dir.path());
    let second = all.iter().max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap();
    flip(second, 12_000);
    assert!(refused(&opened, filled.file, &filled.truth) > 0);
    (dir, opened)
}

/// Goes on where a store stands.
fn history_of(opened: &Opened) -> History {
    let mut history = History::new(A, 1);
    history.heads = opened.writer.applied();
    history.ahead = opened.namespace.clone();
    history
}

#[test]
fn a_crash_at_any_step_leaves_what_is_not_covered_refused_and_healing_goes_on_after_it() {
    let filled = fill();
    for step in 0..4 {
        let (dir, mut opened) = rotten(&filled);
        let wanted = opened.writer.take_rotten_items();
        assert!(!wanted.is_empty());
        let part = &wanted[0];
        let chunk = chunk_of(&opened, part, &filled.truth, 300);
        match step {
            // Only a part of it is covered, in memory or in tables.
            0 => opened.writer.repair(&chunk).unwrap(),
            1 => {
                opened.writer.repair(&chunk).unwrap();
                opened.writer.checkpoint().unwrap();
            }
            // All of it is, and what lies beside it was written anew, but the table is still there.
            2 => {
                opened.reader.shared().tables.dies_before_drop.store(true, Ordering::Relaxed);
                let chunk = chunk_of(&opened, part, &filled.truth, u32::MAX);
                assert!(opened.writer.repair(&chunk).is_err());
            }
            _ => assert!(heal(&mut opened, &filled.truth, u32::MAX) > 0),
        }
        refused(&opened, filled.file, &filled.truth);
        // As a kill leaves it.
        let dead = copy(dir.path());
        drop(opened);
        let mut again = open(dead.path());
        let refusals = refused(&again, filled.file, &filled.truth);
        assert_eq!(refusals == 0, step == 3, "step {step}: {refusals} refused");
        assert_eq!(scrubbed(&again), step == 3, "step {step}");
        heal(&mut again, &filled.truth, 300);
        assert_eq!(refused(&again, filled.file, &filled.truth), 0, "step {step}");
        assert!(scrubbed(&again), "step {step}");
    }
}

#[test]
fn updates_that_come_between_two_chunks_stay() {
    let filled = fill();
    let (_dir, mut opened) = rotten(&filled);
    let mut truth = filled.truth.clone();
    let mut history = history_of(&opened);
    let mut prng = Prng::new(4);
    for _ in 0..1000 {
        let wanted = {
            opened.writer.tell_rotten_again();
            opened.writer.take_rotten_items()
        };
        let Some(part) = wanted.first() else { break };
        let chunk = chunk_of(&opened, part, &truth, 200);
        opened.writer.repair(&chunk).unwrap();
        let n = u32::try_from(prng.below(300)).unwrap();
        truth.insert(id(n), b"new".to_vec());
        let entry = put(filled.file, &id(n), b"new");
        opened.writer.apply(R, &[history.seal(R, &[entry])]).unwrap();
        if prng.percent(20) {
            opened.writer.checkpoint().unwrap();
        }
        refused(&opened, filled.file, &truth);
    }
    assert_eq!(refused(&opened, filled.file, &truth), 0);
    assert!(scrubbed(&opened));
}

#[test]
fn a_merge_that_meets_rot_stops_nothing_and_goes_on_when_it_is_healed() {
    let filled = fill();
    let (_dir, mut opened) = rotten(&filled);
    let mut truth = filled.truth.clone();
    let mut history = history_of(&opened);
    let merges = |opened: &Opened| opened.reader.shared().tables.runs();
    for n in 0..16 {
        let value = vec![b'm'; 100];
        truth.insert(id(n), value.clone());
        opened.writer.apply(R, &[history.seal(R, &[put(filled.file, &id(n), &value)])]).unwrap();
        opened.writer.checkpoint().unwrap();
    }
    assert!(merges(&opened) >= 16, "{} runs", merges(&opened));
    assert!(heal(&mut opened, &truth, 700) > 0);
    opened.reader.shared().merged();
    assert!(merges(&opened) < 12, "{} runs", merges(&opened));
    assert_eq!(refused(&opened, filled.file, &truth), 0);
    assert!(scrubbed(&opened));
}

#[test]
fn items_of_this_node_alone_stay_refused_and_what_else_was_in_the_table_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    let (mut history, _) = with_orders(&mut opened);
    let (journal, batch) = history.change(|ns| ns.create_file(&new_file("app", "own", Flags::NONE), A));
    opened.writer.apply(journal, &[batch]).unwrap();
    let own = history.ahead.resolve(b"app,own").unwrap();
    let local = JournalKind::Local;
    let mut truth = Items::new();
    let puts: Vec<_> = (0..300)
        .map(|n| {
            truth.insert(id(n), vec![b'o'; 60]);
            put(own, &id(n), &[b'o'; 60])
        })
        .collect();
    opened.writer.apply(local, &[history.seal(local, &puts)]).unwrap();
    opened.writer.checkpoint().unwrap();
    let largest = tables(dir.path()).into_iter().max_by_key(|path| std::fs::metadata(path).unwrap().len());
    flip(&largest.unwrap(), 9000);
    let before = refused(&opened, own, &truth);
    assert!(before > 0);
    let told = opened.writer.take_rotten_items();
    assert!(!told.is_empty() && told.iter().all(|items| items.file == own), "{told:?}");
    let chunk = chunk_of(&opened, &told[0], &truth, u32::MAX);
    assert!(opened.writer.repair(&chunk).is_err(), "the other node has none of it");
    assert_eq!(refused(&opened, own, &truth), before);
}
