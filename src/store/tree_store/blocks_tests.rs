//! Reads that do not wait for the disk against those that do, on stores of every shape, however little is in memory.

use super::super::{StoreRead, StoreSnapshot, Tried};
use super::tests::{put, with_orders};
use super::*;
use crate::base::Prng;
use crate::store::testkit::History;
use std::cell::{Cell, RefCell};
use std::io;
use std::os::unix::fs::FileExt;

const A: Ordinal = Ordinal(0);
const R: JournalKind = JournalKind::Replicated;

thread_local! {
    /// So many of 100 reads of a block would have to wait.
    static COLD: Cell<u64> = const { Cell::new(0) };
    static CHANCE: RefCell<Prng> = RefCell::new(Prng::new(1));
}

/// Reads as the page cache does that holds some of what is asked for, at times only its beginning.
fn cached(file: &File, buffer: &mut Vec<u8>, most: usize, at: u64) -> io::Result<usize> {
    CHANCE.with_borrow_mut(|chance| {
        if chance.percent(COLD.get()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let most = if chance.percent(20) { most.div_ceil(2) } else { most };
        let mut part = vec![0; most];
        let got = file.read_at(&mut part, at)?;
        buffer.extend_from_slice(&part[..got]);
        Ok(got)
    })
}

fn at_random(prng: &mut Prng, below: u64) -> usize {
    usize::try_from(prng.below(below)).unwrap()
}

/// Reads everything both ways; returns how often it was cold.
fn compare(reader: &StoreReader, namespace: &Namespace, prng: &mut Prng) -> usize {
    let snapshot = reader.snapshot();
    let mut cold = 0;
    for (file, info) in namespace.files() {
        let generation = info.dptr.generation;
        let mut ids: Vec<Bytes> = (0..40).map(|n| format!("{n:02}").into_bytes().into()).collect();
        for with_values in [true, false] {
            let after = prng.percent(70).then(|| ids[at_random(prng, 40)].clone());
            let limit = usize::try_from(1 + prng.below(40)).unwrap();
            let limit = if prng.percent(30) { usize::MAX } else { limit };
            let tried = snapshot.try_scan(file, generation, after.as_deref(), limit, with_values).unwrap();
            let expected = snapshot.scan(file, generation, after.as_deref(), limit, with_values).unwrap();
            match tried {
                Tried::Done(found) => assert!(found == expected, "{file} after {after:?} limit {limit}"),
                Tried::Cold => cold += 1,
            }
        }
        ids.rotate_left(at_random(prng, 40));
        for id in ids {
            let tried = snapshot.try_get(file, generation, &id).unwrap();
            let expected = snapshot.get(file, generation, &id).unwrap();
            match tried {
                Tried::Done(found) => assert_eq!(found, expected, "{file} {id:?}"),
                Tried::Cold => cold += 1,
            }
        }
    }
    cold
}

#[test]
fn what_is_in_memory_is_read_as_the_tree_reads_it_whatever_was_flushed_merged_or_deleted() {
    let mut cold = 0;
    for seed in 0..12 {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = TreeStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
        let (mut history, mut prng) = (History::new(A, seed), Prng::new(seed));
        CHANCE.set(Prng::new(seed));
        for _ in 0..150 {
            let (journal, batch) = history.random(5);
            opened.writer.apply(journal, &[batch]).unwrap();
            if prng.percent(25) {
                opened.writer.checkpoint().unwrap();
            }
            if prng.percent(10) {
                COLD.set(prng.below(3) * 30);
                let reader = opened.reader.clone().with_cached_reads(cached);
                cold += compare(&reader, &opened.writer.state.namespace, &mut prng);
            }
            if prng.percent(2) {
                opened.reader.shared().merged();
            }
            if prng.percent(3) {
                opened.writer.checkpoint().unwrap();
                drop(opened);
                // With an empty cache of blocks.
                opened = TreeStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
            }
        }
    }
    assert!(cold > 100, "{cold} reads were cold");
}

#[test]
fn what_was_fetched_is_hot_and_so_is_what_the_page_cache_holds() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = TreeStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
    let (mut history, file) = with_orders(&mut opened);
    let value = |n: u32| n.to_be_bytes().repeat(if n % 100 == 7 { 3000 } else { 20 });
    for part in 0..3 {
        let ids = (0..3000_u32).filter(|n| n % 3 == part);
        let puts: Vec<_> = ids.map(|n| put(file, &n.to_be_bytes(), &value(n))).collect();
        opened.writer.apply(R, &[history.seal(R, &puts)]).unwrap();
        opened.writer.checkpoint().unwrap();
    }
    drop(opened);
    let opened = TreeStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
    let snapshot = opened.reader.clone().with_cached_reads(cached).snapshot();
    COLD.set(100);
    for n in (0..3000).step_by(500) {
        let id = u32::to_be_bytes(n);
        assert_eq!(snapshot.try_get(file, 0, &id).unwrap(), Tried::Cold, "item {n}");
        assert_eq!(snapshot.get(file, 0, &id).unwrap().as_deref(), Some(value(n).as_slice()));
        assert_eq!(snapshot.try_get(file, 0, &id).unwrap(), Tried::Done(Some(value(n).into())));
    }
    let after = 1000_u32.to_be_bytes();
    assert_eq!(snapshot.try_scan(file, 0, Some(&after), 300, true).unwrap(), Tried::Cold);
    let fetched = snapshot.scan(file, 0, Some(&after), 300, true).unwrap();
    assert_eq!(snapshot.try_scan(file, 0, Some(&after), 300, true).unwrap(), Tried::Done(fetched));
    COLD.set(0);
    for n in 0..3000 {
        let found = snapshot.try_get(file, 0, &u32::to_be_bytes(n)).unwrap();
        assert_eq!(found, Tried::Done(Some(value(n).into())), "item {n}");
    }
    assert_eq!(snapshot.try_get(file, 0, b"none").unwrap(), Tried::Done(None));
}
