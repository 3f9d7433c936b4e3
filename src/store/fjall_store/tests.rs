//! The store on disk against the one in memory: the same histories, reopened, killed, torn, purged.

use super::*;
use crate::base::Prng;
use crate::format::dptr::Flags;
use crate::store::memory::MemoryStore;
use crate::store::testkit::{History, Owned, new_file};
use proptest::prelude::*;
use std::collections::HashMap;

const A: Ordinal = Ordinal(0);
const R: JournalKind = JournalKind::Replicated;

type Dump = Vec<(FileId, u32, Vec<(Bytes, Bytes)>)>;

fn dump(namespace: &Namespace, reader: &StoreReader) -> Dump {
    let one = |(id, info): (FileId, &crate::store::namespace::FileInfo)| {
        let generation = info.dptr.generation;
        (id, generation, reader.scan(id, generation, None, usize::MAX, true).unwrap())
    };
    namespace.files().map(one).collect()
}

fn dump_memory(store: &MemoryStore) -> Dump {
    let namespace = store.namespace();
    namespace.files().map(|(id, info)| (id, info.dptr.generation, store.items(id))).collect()
}

fn assert_same(opened: &Opened, memory: &MemoryStore) {
    assert_eq!(opened.applied, memory.applied());
    assert_eq!(opened.namespace, *memory.namespace());
    assert_eq!(dump(&opened.namespace, &opened.reader), dump_memory(memory));
}

/// `app,orders` (L), made in two batches.
fn with_orders(opened: &mut Opened) -> (History, FileId) {
    let mut history = History::new(A, 1);
    for (journal, batch) in [
        history.change(|ns| ns.create_account("app", Flags::L, A)),
        history.change(|ns| ns.create_file(&new_file("app", "orders", Flags::L), A)),
    ] {
        opened.writer.apply(journal, &[batch]).unwrap();
    }
    let id = history.ahead.resolve(b"app,orders").unwrap();
    (history, id)
}

fn put(file: FileId, id: &[u8], value: &[u8]) -> Owned {
    (EntryKind::Put, file, id.to_vec(), value.to_vec())
}

/// Every file below, with its size and the time of its last change.
fn listing(dir: &Path) -> std::io::Result<Vec<(std::path::PathBuf, u64, std::time::SystemTime)>> {
    let mut all = Vec::new();
    for found in std::fs::read_dir(dir)? {
        let path = found?.path();
        let data = path.metadata()?;
        if data.is_dir() {
            all.extend(listing(&path)?);
        }
        all.push((path, data.len(), data.modified()?));
    }
    all.sort();
    Ok(all)
}

fn copy_once(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for found in std::fs::read_dir(from)? {
        let path = found?.path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_once(&path, &target)?;
        } else {
            std::fs::copy(&path, &target)?;
        }
    }
    Ok(())
}

/// What was there at one moment: the store's own threads make and remove files at any time, and a copy during which
/// they did shows what no kill leaves.
fn copy_dir(from: &Path, to: &Path) {
    for _ in 0..1000 {
        let before = listing(from);
        if copy_once(from, to).is_ok()
            && let (Ok(before), Ok(after)) = (before, listing(from))
            && before == after
        {
            return;
        }
        std::fs::remove_dir_all(to).unwrap();
    }
    panic!("{} is never at rest", from.display());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_gives_the_same_as_in_memory_also_across_reopening_and_purging(
        seed in any::<u64>(),
        reopen_percent in 0..15_u64,
        merge in 1..6_usize,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = FjallStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
        let mut memory = MemoryStore::new(A);
        let (mut history, mut prng) = (History::new(A, seed), Prng::new(seed));
        for _ in 0..40 {
            let mut batches = [Vec::new(), Vec::new()];
            let first = history.random(40);
            let journal = first.0;
            batches[journal.index()].push(first.1);
            // Several batches of one journal in one call, as far as the next ones are of the same journal.
            for _ in 1..merge {
                let mut next = history.clone();
                let (other, batch) = next.random(20);
                if other != journal {
                    break;
                }
                batches[journal.index()].push(batch);
                history = next;
            }
            let batches = &batches[journal.index()];
            opened.writer.apply(journal, batches).unwrap();
            memory.apply(journal, batches).unwrap();
            if prng.percent(20) {
                opened.writer.purge_step(5).unwrap();
            }
            if prng.percent(10) {
                assert_eq!(opened.writer.checkpoint().unwrap(), memory.applied());
            }
            if prng.percent(reopen_percent) {
                drop(opened);
                opened = FjallStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
                assert_same(&opened, &memory);
            }
        }
        while opened.writer.purge_step(7).unwrap() {}
        drop(opened);
        let opened = FjallStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
        assert_same(&opened, &memory);
        let stored: usize = dump(&opened.namespace, &opened.reader).iter().map(|(_, _, items)| items.len()).sum();
        let guard = opened.reader.handle.read().unwrap();
        let items = guard.as_ref().unwrap().items.iter().filter(|_| true).count();
        let records = opened.namespace.accounts().count() + opened.namespace.files().count() + 3;
        assert_eq!(items, stored + records, "nothing is left of what was dropped");
    }
}

#[test]
fn changes_of_one_item_in_one_call_count_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = FjallStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
    let (mut history, file) = with_orders(&mut opened);
    let gone = |id: &[u8]| (EntryKind::Delete, file, id.to_vec(), Vec::new());
    let first = history.seal(R, &[put(file, b"a", b"1"), gone(b"a"), put(file, b"b", b"1")]);
    let second = history.seal(R, &[gone(b"b"), put(file, b"b", b"2"), put(file, b"c", b"1"), gone(b"c")]);
    opened.writer.apply(R, &[first, second]).unwrap();
    let check = |reader: &StoreReader| {
        let found = reader.scan(file, 0, None, 9, true).unwrap();
        assert_eq!(found, [(Bytes::from_static(b"b"), Bytes::from_static(b"2"))]);
        assert_eq!(reader.get(file, 0, b"a").unwrap(), None);
        assert_eq!(reader.get(file, 0, b"c").unwrap(), None);
    };
    check(&opened.reader);
    drop(opened);
    let opened = FjallStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
    check(&opened.reader);
    // The same once the engine has written it to a table.
    opened.reader.handle.read().unwrap().as_ref().unwrap().items.rotate_memtable_and_wait().unwrap();
    check(&opened.reader);
}

#[test]
fn duplicates_change_nothing_and_gaps_are_refused_without_harm() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = FjallStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
    let (mut history, file) = with_orders(&mut opened);
    let first = history.seal(R, &[put(file, b"a", b"1")]);
    let second = history.seal(R, &[put(file, b"a", b"2")]);
    let gap = opened.writer.apply(R, std::slice::from_ref(&second));
    assert!(matches!(gap, Err(StoreError::OutOfOrder { .. })), "{gap:?}");
    opened.writer.apply(R, &[first.clone(), second]).unwrap();
    opened.writer.apply(R, &[first]).unwrap();
    assert_eq!(opened.reader.get(file, 0, b"a").unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(opened.writer.applied(), [Seq(4), Seq(0)]);
}

#[test]
fn pinned_reads_see_one_state_until_they_are_unpinned_or_the_engine_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = FjallStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
    let (mut history, file) = with_orders(&mut opened);
    let mut set_both = |value: &[u8]| {
        let batch = history.seal(R, &[put(file, b"x", value), put(file, b"y", value)]);
        opened.writer.apply(R, &[batch]).unwrap();
    };
    let read = |id: &[u8]| opened.reader.get(file, 0, id).unwrap();
    set_both(b"1");
    opened.reader.pin();
    assert_eq!(read(b"x").as_deref(), Some(&b"1"[..]));
    set_both(b"2");
    assert_eq!(read(b"y").as_deref(), Some(&b"1"[..]));
    assert_eq!(opened.reader.scan(file, 0, None, 9, true).unwrap()[1].1[..], b"1"[..]);
    assert_eq!(opened.reader.clone().get(file, 0, b"y").unwrap().as_deref(), Some(&b"2"[..]));
    opened.writer.failed = Some(Failure::Reopen);
    opened.writer.ready().unwrap();
    assert_eq!(opened.reader.get(file, 0, b"y").unwrap().as_deref(), Some(&b"2"[..]));
    opened.reader.unpin();
    let batch = history.seal(R, &[put(file, b"y", b"3")]);
    opened.writer.apply(R, &[batch]).unwrap();
    assert_eq!(opened.reader.get(file, 0, b"y").unwrap().as_deref(), Some(&b"3"[..]));
}

#[test]
fn a_batch_that_cannot_be_applied_leaves_what_was_and_the_store_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = FjallStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
    let (mut history, file) = with_orders(&mut opened);
    let good = history.seal(R, &[put(file, b"a", b"1")]);
    let next = history.heads[0].next();
    let mut builder = crate::format::batch::BatchBuilder::new(next, 0);
    builder.push(&Entry { kind: EntryKind::FileDelete, file, id: &[], value: &[] });
    builder.push(&Entry { kind: EntryKind::FileCreate, file: FileId(8), id: &[], value: &[9] });
    let bad = builder.seal(&crate::format::batch::Seal {
        epoch: crate::base::Epoch(2),
        prev_chain: crate::base::Chain(1),
        durable: Seq(0),
        wall_ms: 0,
        pair: crate::format::PairId([7; 16]),
        journal: R,
    });
    let refused = opened.writer.apply(R, &[good.clone(), bad]);
    assert!(matches!(refused, Err(StoreError::Damaged { .. })), "{refused:?}");
    assert_eq!(opened.reader.get(file, 0, b"a").unwrap(), None);
    opened.writer.apply(R, &[good]).unwrap();
    assert_eq!(opened.reader.get(file, 0, b"a").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(opened.writer.applied(), [Seq(3), Seq(0)]);
}

#[test]
fn large_values_and_odd_ids_come_back_whole_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = FjallStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
    let (mut history, file) = with_orders(&mut opened);
    let big = vec![0xab; crate::base::limits::ITEM_VALUE_MAX];
    let ids: [&[u8]; 4] = [b"\0", b"a", &[b'z'; 255], &[255; 255]];
    for id in ids {
        opened.writer.apply(R, &[history.seal(R, &[put(file, id, &big)])]).unwrap();
    }
    let found = opened.reader.scan(file, 0, None, 9, false).unwrap();
    assert_eq!(found.iter().map(|(id, _)| &id[..]).collect::<Vec<_>>(), ids);
    assert!(opened.reader.get(file, 0, &[255; 255]).unwrap().is_some_and(|value| value[..] == big));
    let found = opened.reader.scan(file, 0, Some(b"a"), 1, false).unwrap();
    assert_eq!(&found[0].0[..], ids[2]);
}

#[test]
fn a_store_is_refused_to_the_other_node_and_to_a_second_process() {
    let dir = tempfile::tempdir().unwrap();
    let opened = FjallStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
    let second = FjallStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap_err();
    assert!(matches!(second, StoreError::Disk { fault: Fault::Errno(16), .. }), "{second}");
    drop(opened);
    let other = FjallStore::open(dir.path(), &dir.path().join("volumes"), Ordinal(1)).unwrap_err();
    assert!(matches!(other, StoreError::Damaged { .. }), "{other}");
    assert!(FjallStore::open(dir.path(), &dir.path().join("volumes"), A).is_ok());
}

#[test]
fn an_interrupted_creation_is_begun_again_but_a_missing_version_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("lock"), b"").unwrap();
    std::fs::write(dir.path().join("0.jnl"), b"").unwrap();
    std::fs::create_dir(dir.path().join("keyspaces")).unwrap();
    drop(FjallStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap());
    std::fs::remove_file(dir.path().join("version")).unwrap();
    let refused = FjallStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap_err();
    assert!(refused.to_string().contains("version file"), "{refused}");
}

#[test]
fn a_reader_never_sees_half_a_batch() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = FjallStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
    let (mut history, file) = with_orders(&mut opened);
    let reader = opened.reader.clone();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut last = 0;
            while !done.load(std::sync::atomic::Ordering::Acquire) {
                let found = reader.scan(file, 0, None, 99, true).unwrap();
                assert!(found.is_empty() || found.len() == 20);
                assert!(found.iter().all(|(_, value)| value == &found[0].1), "{found:?}");
                // Single reads in a row never go back.
                for id in 0..20_u8 {
                    let value = reader.get(file, 0, &[id]).unwrap();
                    let number = value.map_or(0, |v| u32::from_le_bytes(v[..].try_into().unwrap()));
                    assert!(number >= last, "{number} after {last}");
                    last = number;
                }
            }
        });
        for round in 1..300_u32 {
            let puts: Vec<_> = (0..20_u8).map(|id| put(file, &[id], &round.to_le_bytes())).collect();
            opened.writer.apply(R, &[history.seal(R, &puts)]).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Release);
    });
}

/// Every state that the model was in, by the last entries applied.
type States = HashMap<[Seq; 2], (Namespace, Dump)>;

/// Opens a store that was cut off somehow; it must be in a state that was, not older than `at_least`.
fn assert_some_state(dir: &Path, states: &States, at_least: [Seq; 2], what: &str) -> [Seq; 2] {
    let opened =
        FjallStore::open(dir, &dir.join("volumes"), A).unwrap_or_else(|error| panic!("{what}: {error}"));
    let at = opened.applied;
    assert!(at[0] >= at_least[0] && at[1] >= at_least[1], "{what}: {at:?} is older than {at_least:?}");
    let (namespace, items) = states.get(&at).unwrap_or_else(|| panic!("{what}: {at:?} never was"));
    assert_eq!(&opened.namespace, namespace, "{what}");
    assert_eq!(&dump(namespace, &opened.reader), items, "{what}");
    at
}

fn used_bytes(journal: &Path) -> usize {
    let bytes = std::fs::read(journal).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// A store in `dir` with a random history and a checkpoint on the way: its states, the marks and the journal's length
/// at the checkpoint.
fn cut_off(dir: &Path, seed: u64) -> (States, [Seq; 2], usize) {
    let mut opened = FjallStore::open(dir, &dir.join("volumes"), A).unwrap();
    let (mut memory, mut history) = (MemoryStore::new(A), History::new(A, seed));
    let mut states = States::new();
    let (mut durable, mut synced) = ([Seq(0); 2], 0);
    for step in 0..60 {
        let (journal, batch) = history.random(30);
        opened.writer.apply(journal, std::slice::from_ref(&batch)).unwrap();
        memory.apply(journal, &[batch]).unwrap();
        states.insert(memory.applied(), ((*memory.namespace()).clone(), dump_memory(&memory)));
        if step == 20 {
            durable = opened.writer.checkpoint().unwrap();
            synced = used_bytes(&torn_tail::newest_journal(dir).unwrap().unwrap());
        }
    }
    drop(opened);
    // The engine writes far ahead with zeros; a little of that is enough.
    let journal = torn_tail::newest_journal(dir).unwrap().unwrap();
    let some = used_bytes(&journal) as u64 + 10_000;
    std::fs::OpenOptions::new().write(true).open(journal).unwrap().set_len(some).unwrap();
    (states, durable, synced)
}

#[test]
fn a_journal_cut_anywhere_gives_an_exact_earlier_state() {
    for seed in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let (states, durable, synced) = cut_off(dir.path(), seed);
        let journal = torn_tail::newest_journal(dir.path()).unwrap().unwrap();
        let mut prng = Prng::new(seed);
        let used = used_bytes(&journal);
        for _ in 0..12 {
            let copy = tempfile::tempdir().unwrap();
            copy_dir(dir.path(), copy.path());
            let at = synced as u64 + prng.below((used - synced) as u64 + 1);
            let path = copy.path().join(journal.file_name().unwrap());
            std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(at).unwrap();
            assert_some_state(copy.path(), &states, durable, &format!("seed {seed} cut at {at}"));
        }
    }
}

#[test]
fn a_journal_that_lost_pages_in_a_power_loss_gives_an_exact_earlier_state() {
    let mut cut_by_us = 0;
    for seed in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        let (states, durable, synced) = cut_off(dir.path(), seed);
        let journal = torn_tail::newest_journal(dir.path()).unwrap().unwrap();
        let mut prng = Prng::new(seed);
        let whole = std::fs::read(&journal).unwrap();
        let used = used_bytes(&journal);
        for round in 0..12 {
            let copy = tempfile::tempdir().unwrap();
            copy_dir(dir.path(), copy.path());
            let mut torn = whole.clone();
            // Sectors after the last sync that never reached the disk read as zeros.
            for at in (0..used).step_by(512) {
                if at + 512 > synced && prng.percent(if round % 2 == 0 { 5 } else { 40 }) {
                    let end = (at + 512).min(torn.len());
                    torn[at.max(synced)..end].fill(0);
                }
            }
            std::fs::write(copy.path().join(journal.file_name().unwrap()), &torn).unwrap();
            let what = format!("seed {seed} round {round}");
            cut_by_us += torn_tail::cut(copy.path()).unwrap();
            assert_some_state(copy.path(), &states, durable, &what);
        }
    }
    assert!(cut_by_us > 0);
}

#[test]
fn a_store_copied_while_it_is_written_gives_an_exact_state() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = FjallStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
    let (mut memory, mut history) = (MemoryStore::new(A), History::new(A, 77));
    let (mut states, mut prng) = (States::new(), Prng::new(77));
    let copies = tempfile::tempdir().unwrap();
    let mut taken = Vec::new();
    for step in 0..200 {
        let (journal, batch) = history.random(10);
        opened.writer.apply(journal, std::slice::from_ref(&batch)).unwrap();
        memory.apply(journal, &[batch]).unwrap();
        states.insert(memory.applied(), ((*memory.namespace()).clone(), dump_memory(&memory)));
        if prng.percent(5) {
            // What a kill at this moment leaves: everything given to the operating system.
            let copy = copies.path().join(step.to_string());
            copy_dir(dir.path(), &copy);
            taken.push((copy, memory.applied()));
        }
        if prng.percent(3) {
            opened.reader.handle.read().unwrap().as_ref().unwrap().items.rotate_memtable().unwrap();
        }
    }
    assert!(taken.len() > 3);
    for (copy, at) in taken {
        let found = assert_some_state(&copy, &states, at, &format!("copy at {at:?}"));
        assert_eq!(found, at, "a kill loses nothing");
    }
}

/// The engine's own threads fail, for a reason that it does not tell; gives the way back.
fn threads_fail(opened: &Opened, dir: &Path) -> impl Fn() + use<> {
    let tables = std::fs::read_dir(dir.join("keyspaces")).unwrap().map(|entry| entry.unwrap().path());
    let pairs: Vec<_> = tables.map(|path| (path.join("tables"), path.join("aside"))).collect();
    let pairs: Vec<_> = pairs.into_iter().filter(|(tables, _)| tables.is_dir()).collect();
    pairs.iter().for_each(|(tables, aside)| std::fs::rename(tables, aside).unwrap());
    let guard = opened.reader.handle.read().unwrap();
    let handle = guard.as_ref().unwrap();
    handle.items.rotate_memtable().unwrap();
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while handle.db.persist(PersistMode::Buffer).is_ok() {
        assert!(std::time::Instant::now() < until, "the threads do not fail");
        std::thread::sleep(WAIT);
    }
    move || pairs.iter().for_each(|(tables, aside)| std::fs::rename(aside, tables).unwrap())
}

#[test]
fn a_store_whose_engine_fails_without_a_failed_sync_goes_on_by_itself_when_the_reason_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = FjallStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
    let (mut history, file) = with_orders(&mut opened);
    let mut put = |opened: &mut Opened, id: &[u8]| {
        let batch = history.seal(JournalKind::Replicated, &[put(file, id, b"value")]);
        opened.writer.apply(JournalKind::Replicated, &[batch])
    };
    put(&mut opened, b"before").unwrap();
    let back = threads_fail(&opened, dir.path());
    opened.writer.checkpoint().unwrap_err();
    assert_eq!(opened.writer.failed, Some(Failure::Reopen));
    back();
    put(&mut opened, b"after").unwrap();
    let applied = opened.writer.applied();
    assert_eq!(opened.writer.checkpoint().unwrap(), applied);
    assert_eq!(opened.reader.get(file, 0, b"before").unwrap().as_deref(), Some(&b"value"[..]));
    // The journal that the engine had then may never have reached the disk: nothing of it is needed any more.
    drop(opened);
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(0).unwrap();
        }
    }
    let opened = FjallStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
    assert_eq!(opened.applied, applied);
    assert_eq!(opened.reader.get(file, 0, b"after").unwrap().as_deref(), Some(&b"value"[..]));
}

#[test]
fn an_engine_that_fails_again_and_again_without_a_reason_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = FjallStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
    let _ = with_orders(&mut opened);
    for _ in 0..REOPENS_MAX {
        let failed: fjall::Result<()> = Err(fjall::Error::Poisoned);
        opened.writer.outcome("testing", failed).unwrap_err();
        assert_eq!(opened.writer.failed, Some(Failure::Reopen));
        opened.writer.ready().unwrap();
    }
    opened.writer.outcome::<()>("testing", Err(fjall::Error::Poisoned)).unwrap_err();
    assert_eq!(opened.writer.failed, Some(Failure::Final(EIO)));
}

#[test]
fn a_sync_that_fails_is_final_and_one_that_finds_no_room_has_all_written_afresh() {
    use super::super::volumes::testing;
    for (errno, next) in [
        (5, Failure::Final(Fault::Errno(5))),
        (30, Failure::Final(Fault::Errno(30))),
        (28, Failure::Reopen),
        (122, Failure::Reopen),
        (24, Failure::Reopen),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = FjallStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
        testing::fail_engine(errno);
        opened.writer.checkpoint().unwrap_err();
        assert_eq!(opened.writer.failed, Some(next), "errno {errno}");
        let before = testing::engine_syncs();
        assert_eq!(opened.writer.checkpoint().is_ok(), next == Failure::Reopen);
        assert_eq!(opened.writer.failed.is_none(), next == Failure::Reopen);
        assert!(!opened.writer.rewrite);
        let again = testing::engine_syncs() - before;
        assert_eq!(again, u32::from(next == Failure::Reopen), "a sync that failed is not tried again");
    }
}
