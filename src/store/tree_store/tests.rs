//! The store on disk against the one in memory: the same histories, reopened, killed, purged, short of room.

use super::super::{StoreRead, StoreSnapshot};
use super::*;
use crate::base::Prng;
use crate::format::dptr::Flags;
use crate::store::memory::MemoryStore;
use crate::store::testkit::{History, Owned, new_file};
use proptest::prelude::*;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;

const A: Ordinal = Ordinal(0);
const R: JournalKind = JournalKind::Replicated;

pub(super) type Dump = Vec<(FileId, u32, Vec<(Bytes, Bytes)>)>;

fn dump(namespace: &Namespace, reader: &StoreReader) -> Dump {
    let one = |(id, info): (FileId, &crate::store::namespace::FileInfo)| {
        let generation = info.dptr.generation;
        (id, generation, reader.snapshot().scan(id, generation, None, usize::MAX, true).unwrap())
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
pub(super) fn with_orders(opened: &mut Opened) -> (History, FileId) {
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

pub(super) fn put(file: FileId, id: &[u8], value: &[u8]) -> Owned {
    (EntryKind::Put, file, id.to_vec(), value.to_vec())
}

#[test]
fn a_scan_for_a_copy_holds_few_large_items_wherever_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = TreeStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
    let (mut history, id) = with_orders(&mut opened);
    let value = vec![7; 300_000];
    for n in 0..20 {
        if n == 10 {
            opened.writer.checkpoint().unwrap();
        }
        let entry = put(id, format!("{n:02}").as_bytes(), &value);
        opened.writer.apply(R, &[history.seal(R, &[entry])]).unwrap();
    }
    let snapshot = opened.reader.snapshot();
    for (after, found) in [("", 4), ("07", 4), ("15", 4), ("17", 2), ("19", 0)] {
        let limit = super::read::Limit { items: 256, bytes: 1 << 20 };
        let items = snapshot.scan_bytes((id, 0), after.as_bytes(), limit).unwrap();
        assert_eq!(items.len(), found, "behind {after:?}");
    }
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
        let mut opened = TreeStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
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
            if prng.percent(10) {
                opened.writer.freeze();
            }
            if prng.percent(5) {
                let (namespace, reader) = (&opened.writer.state.namespace, &opened.reader);
                assert_eq!(dump(namespace, reader), dump_memory(&memory));
            }
            if prng.percent(reopen_percent) {
                opened.writer.checkpoint().unwrap();
                drop(opened);
                opened = TreeStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
                assert_same(&opened, &memory);
            }
        }
        while opened.writer.purge_step(7).unwrap() {}
        opened.writer.checkpoint().unwrap();
        drop(opened);
        let opened = TreeStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
        assert_same(&opened, &memory);
        let stored: usize = dump(&opened.namespace, &opened.reader).iter().map(|(_, _, items)| items.len()).sum();
        let tables = &opened.reader.shared().tables;
        let everything = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
        let items = tables.range(everything, tables.newest()).count();
        let records = opened.namespace.accounts().count() + opened.namespace.files().count() + 4;
        assert_eq!(items, stored + records, "nothing is left of what was dropped");
    }
}

#[test]
fn changes_of_one_item_in_one_call_count_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = TreeStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
    let (mut history, file) = with_orders(&mut opened);
    let gone = |id: &[u8]| (EntryKind::Delete, file, id.to_vec(), Vec::new());
    let first = history.seal(R, &[put(file, b"a", b"1"), gone(b"a"), put(file, b"b", b"1")]);
    let second = history.seal(R, &[gone(b"b"), put(file, b"b", b"2"), put(file, b"c", b"1"), gone(b"c")]);
    opened.writer.apply(R, &[first, second]).unwrap();
    let check = |reader: &StoreReader| {
        let found = reader.snapshot().scan(file, 0, None, 9, true).unwrap();
        assert_eq!(found, [(Bytes::from_static(b"b"), Bytes::from_static(b"2"))]);
        assert_eq!(reader.snapshot().get(file, 0, b"a").unwrap(), None);
        assert_eq!(reader.snapshot().get(file, 0, b"c").unwrap(), None);
    };
    check(&opened.reader);
    // The same once it is in a table, and after a restart.
    opened.writer.checkpoint().unwrap();
    check(&opened.reader);
    drop(opened);
    let opened = TreeStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
    check(&opened.reader);
}

#[test]
fn duplicates_change_nothing_and_gaps_are_refused_without_harm() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = TreeStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
    let (mut history, file) = with_orders(&mut opened);
    let first = history.seal(R, &[put(file, b"a", b"1")]);
    let second = history.seal(R, &[put(file, b"a", b"2")]);
    let gap = opened.writer.apply(R, std::slice::from_ref(&second));
    assert!(matches!(gap, Err(StoreError::OutOfOrder { .. })), "{gap:?}");
    opened.writer.apply(R, &[first.clone(), second]).unwrap();
    opened.writer.apply(R, &[first]).unwrap();
    assert_eq!(opened.reader.snapshot().get(file, 0, b"a").unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(opened.writer.applied(), [Seq(4), Seq(0)]);
}

#[test]
fn a_snapshot_shows_the_state_of_its_numbers_whatever_is_written_to_tables() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = TreeStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
    let (mut history, file) = with_orders(&mut opened);
    let mut set_both = |writer: &mut StoreWriter, value: &[u8]| {
        let batch = history.seal(R, &[put(file, b"x", value), put(file, b"y", value)]);
        writer.apply(R, &[batch]).unwrap();
    };
    set_both(&mut opened.writer, b"1");
    let snapshot = opened.reader.snapshot();
    let applied = opened.writer.applied();
    assert_eq!(snapshot.applied(), applied);
    let read = |id: &[u8]| snapshot.get(file, 0, id).unwrap();
    assert_eq!(read(b"x").as_deref(), Some(&b"1"[..]));
    set_both(&mut opened.writer, b"2");
    assert_eq!(read(b"y").as_deref(), Some(&b"1"[..]));
    assert_eq!(snapshot.scan(file, 0, None, 9, true).unwrap()[1].1[..], b"1"[..]);
    assert_eq!(opened.reader.snapshot().get(file, 0, b"y").unwrap().as_deref(), Some(&b"2"[..]));
    // Through flushes, and through merges that drop what it still sees.
    for _ in 0..2 * crate::base::limits::STORE_MERGE_RUNS {
        set_both(&mut opened.writer, b"2");
        opened.writer.checkpoint().unwrap();
        assert_eq!(opened.reader.snapshot().applied(), opened.writer.applied());
    }
    opened.reader.shared().merged();
    assert_eq!(read(b"x").as_deref(), Some(&b"1"[..]));
    assert_eq!(snapshot.scan(file, 0, None, 9, true).unwrap()[1].1[..], b"1"[..]);
    assert_eq!(snapshot.applied(), applied);
    drop(opened);
    // A store that was just opened has numbers, too.
    let opened = TreeStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
    assert_eq!(opened.reader.snapshot().applied(), opened.applied);
}

#[test]
fn a_batch_that_cannot_be_applied_leaves_what_was_and_the_store_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = TreeStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
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
    assert_eq!(opened.reader.snapshot().get(file, 0, b"a").unwrap(), None);
    opened.writer.apply(R, &[good]).unwrap();
    assert_eq!(opened.reader.snapshot().get(file, 0, b"a").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(opened.writer.applied(), [Seq(3), Seq(0)]);
}

#[test]
fn large_values_and_odd_ids_come_back_whole_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = TreeStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
    let (mut history, file) = with_orders(&mut opened);
    let big = vec![0xab; crate::base::limits::ITEM_VALUE_MAX];
    let ids: [&[u8]; 4] = [b"\0", b"a", &[b'z'; 255], &[255; 255]];
    for id in ids {
        opened.writer.apply(R, &[history.seal(R, &[put(file, id, &big)])]).unwrap();
    }
    let found = opened.reader.snapshot().scan(file, 0, None, 9, false).unwrap();
    assert_eq!(found.iter().map(|(id, _)| &id[..]).collect::<Vec<_>>(), ids);
    assert!(
        opened.reader.snapshot().get(file, 0, &[255; 255]).unwrap().is_some_and(|value| value[..] == big)
    );
    let found = opened.reader.snapshot().scan(file, 0, Some(b"a"), 1, false).unwrap();
    assert_eq!(&found[0].0[..], ids[2]);
}

#[test]
fn a_store_is_refused_to_the_other_node_and_to_a_second_process() {
    let dir = tempfile::tempdir().unwrap();
    let opened = TreeStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
    let second = TreeStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap_err();
    assert!(matches!(second, StoreError::Disk { fault: Fault::Errno(16), .. }), "{second}");
    drop(opened);
    let other = TreeStore::open(dir.path(), &dir.path().join("volumes"), Ordinal(1)).unwrap_err();
    assert!(matches!(other, StoreError::Damaged { .. }), "{other}");
    assert!(TreeStore::open(dir.path(), &dir.path().join("volumes"), A).is_ok());
}

#[test]
fn a_reader_never_sees_half_a_batch() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = TreeStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
    let (mut history, file) = with_orders(&mut opened);
    let reader = opened.reader.clone();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut last = 0;
            while !done.load(std::sync::atomic::Ordering::Acquire) {
                let found = reader.snapshot().scan(file, 0, None, 99, true).unwrap();
                assert!(found.is_empty() || found.len() == 20);
                assert!(found.iter().all(|(_, value)| value == &found[0].1), "{found:?}");
                // Single reads in a row never go back.
                for id in 0..20_u8 {
                    let value = reader.snapshot().get(file, 0, &[id]).unwrap();
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
pub(super) type States = HashMap<[Seq; 2], (Namespace, Dump)>;

pub(super) fn state_of(memory: &MemoryStore) -> (Namespace, Dump) {
    ((*memory.namespace()).clone(), dump_memory(memory))
}

/// Opens a store that was cut off somehow; it must be in a state that was, not older than `at_least`.
pub(super) fn assert_some_state(dir: &Path, states: &States, at_least: [Seq; 2], what: &str) -> [Seq; 2] {
    let opened =
        TreeStore::open(dir, &dir.join("volumes"), A).unwrap_or_else(|error| panic!("{what}: {error}"));
    let at = opened.applied;
    assert!(at[0] >= at_least[0] && at[1] >= at_least[1], "{what}: {at:?} is older than {at_least:?}");
    let (namespace, items) = states.get(&at).unwrap_or_else(|| panic!("{what}: {at:?} never was"));
    assert_eq!(&opened.namespace, namespace, "{what}");
    assert_eq!(&dump(namespace, &opened.reader), items, "{what}");
    at
}

#[test]
fn a_store_copied_while_it_is_written_gives_an_exact_state_not_older_than_its_last_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = TreeStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
    let (mut memory, mut history) = (MemoryStore::new(A), History::new(A, 77));
    let (mut states, mut prng) = (States::new(), Prng::new(77));
    states.insert(memory.applied(), state_of(&memory));
    let copies = tempfile::tempdir().unwrap();
    let (mut taken, mut durable) = (Vec::new(), [Seq(0); 2]);
    for step in 0..300 {
        let (journal, batch) = history.random(10);
        opened.writer.apply(journal, std::slice::from_ref(&batch)).unwrap();
        memory.apply(journal, &[batch]).unwrap();
        states.insert(memory.applied(), state_of(&memory));
        if prng.percent(20) {
            // Some of these copies are taken while the threads write and merge.
            opened.writer.freeze();
        }
        if prng.percent(5) {
            durable = opened.writer.checkpoint().unwrap();
        }
        if prng.percent(10) {
            // What a kill at this moment leaves: everything given to the operating system.
            let copy = copies.path().join(step.to_string());
            copy_dir(dir.path(), &copy);
            taken.push((copy, durable));
        }
    }
    assert!(taken.len() > 10);
    for (copy, at) in taken {
        assert_some_state(&copy, &states, at, &format!("copy at {at:?}"));
    }
}

/// Makes flushes fail, and the look at the disk that follows: how many flushes there were, and both errnos.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<(u32, i32, i32)>);

impl Faults {
    /// Flushes fail with this errno from now on; none do if it is 0.
    fn set(&self, errno: i32) {
        self.set_both(errno, 0);
    }

    fn set_both(&self, errno: i32, look: i32) {
        let mut state = self.0.lock().unwrap();
        (state.1, state.2) = (errno, look);
    }

    fn flushes(&self) -> u32 {
        self.0.lock().unwrap().0
    }

    pub(super) fn before_flush(&self) -> Result<(), StoreError> {
        let mut state = self.0.lock().unwrap();
        state.0 += 1;
        Self::result(state.1)
    }

    pub(super) fn before_look(&self) -> std::io::Result<()> {
        match self.0.lock().unwrap().2 {
            0 => Ok(()),
            errno => Err(std::io::Error::from_raw_os_error(errno)),
        }
    }

    fn result(errno: i32) -> Result<(), StoreError> {
        match errno {
            0 => Ok(()),
            errno => Err(StoreError::Disk { doing: "testing", fault: Fault::from_errno(errno) }),
        }
    }
}

#[test]
fn what_finds_no_room_is_written_when_there_is_some_and_what_fails_otherwise_is_not_tried_again() {
    let faults = [(5, 0, false), (30, 0, false), (28, 0, true), (122, 0, true), (24, 0, true)];
    // The look at what is stored needs a descriptor too. What it does not find out by itself is never known.
    for (errno, look, passes) in faults.into_iter().chain([(24, 24, true), (28, 23, true), (24, 5, false)]) {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = TreeStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
        let (mut history, file) = with_orders(&mut opened);
        let faults = &Arc::clone(opened.reader.shared()).faults;
        faults.set_both(errno, look);
        opened.writer.checkpoint().unwrap_err();
        assert_eq!(opened.writer.failed.is_none(), passes, "errno {errno}, then {look}");
        // It is read as before.
        assert!(opened.reader.snapshot().scan(file, 0, None, 9, true).unwrap().is_empty());
        faults.set(0);
        let before = faults.flushes();
        let batch = history.seal(R, &[put(file, b"a", b"1")]);
        assert_eq!(opened.writer.apply(R, &[batch]).is_ok(), passes);
        let applied = opened.writer.applied();
        assert_eq!(opened.writer.checkpoint().ok(), passes.then_some(applied));
        assert_eq!(faults.flushes() > before, passes, "a sync that failed is not tried again");
        drop(opened);
        let opened = TreeStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
        assert_eq!(opened.applied, if passes { applied } else { [Seq(0); 2] });
    }
}

#[test]
fn a_list_of_tables_that_was_named_when_descriptors_ran_out_is_taken_back_and_after_another_fault_is_not() {
    for (errno, look, passes) in [(24, 0, true), (24, 24, true), (28, 0, false), (5, 0, false)] {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = TreeStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
        let (mut history, file) = with_orders(&mut opened);
        opened.writer.checkpoint().unwrap();
        let batch = history.seal(R, &[put(file, b"a", b"1")]);
        opened.writer.apply(R, &[batch]).unwrap();
        // The next list stands on disk and is named; then the file `current` cannot be opened.
        let tree = dir.path().join("tree");
        let current = tree.join("current");
        let known = std::fs::read(&current).unwrap();
        let number = u64::from_le_bytes(known[..8].try_into().unwrap());
        std::fs::copy(tree.join(format!("v{number}")), tree.join(format!("v{}", number + 1))).unwrap();
        std::fs::write(&current, [&(number + 1).to_le_bytes()[..], &known[8..]].concat()).unwrap();
        let faults = &Arc::clone(opened.reader.shared()).faults;
        faults.set_both(errno, look);
        opened.writer.checkpoint().unwrap_err();
        assert_eq!(opened.writer.failed.is_none(), passes, "errno {errno}, then {look}");
        assert_eq!(std::fs::read(&current).unwrap() == known, passes && look == 0);
        faults.set(0);
        let applied = opened.writer.applied();
        assert_eq!(opened.writer.checkpoint().ok(), passes.then_some(applied));
        drop(opened);
        if passes {
            let opened = TreeStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
            assert_eq!(opened.applied, applied);
            assert_eq!(opened.reader.snapshot().scan(file, 0, None, 9, true).unwrap().len(), 1);
        }
    }
}

#[test]
fn while_nothing_can_be_written_little_is_taken_and_the_fault_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = TreeStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
    let (mut history, file) = with_orders(&mut opened);
    let faults = &Arc::clone(opened.reader.shared()).faults;
    faults.set(28);
    let value = vec![7; 1 << 20];
    let mut taken = 0;
    let told = (0..u8::MAX).find_map(|n| {
        let batch = history.clone().seal(R, &[put(file, &[n], &value)]);
        let told = opened.writer.apply(R, std::slice::from_ref(&batch)).err();
        if told.is_none() {
            history.seal(R, &[put(file, &[n], &value)]);
            taken += 1;
        }
        told
    });
    assert!(matches!(told, Some(StoreError::Disk { fault: Fault::NoSpace, .. })), "{told:?}");
    assert!((STORE_MEMTABLE >> 20..=STORE_MEMTABLE >> 18).contains(&taken), "{taken} MiB were taken");
    faults.set(0);
    opened.writer.apply(R, &[history.seal(R, &[put(file, b"a", b"1")])]).unwrap();
    let applied = opened.writer.applied();
    assert_eq!(opened.writer.checkpoint().unwrap(), applied);
    assert_eq!(opened.reader.snapshot().scan(file, 0, None, usize::MAX, false).unwrap().len(), taken + 1);
}

#[test]
fn a_walk_over_several_memtables_leaves_nothing_out_wherever_the_part_of_each_ends() {
    let dir = tempfile::tempdir().unwrap();
    let tables = tables::Tables::open(dir.path()).unwrap();
    let (file, generation) = (FileId(4), 1);
    let mut expected: std::collections::BTreeSet<_> =
        (0..1200_u32).step_by(5).map(|n| format!("{n:05}")).collect();
    tables
        .ingest(|give| {
            let mut key = Vec::new();
            expected.iter().try_for_each(|id| {
                keys::item(&mut key, file, generation, id.as_bytes());
                give(&key, Some(b"v"))
            })
        })
        .unwrap();
    // Nothing writes memtables to tables here: they stay as they are.
    let shared = Shared::new(tables, Memtable::new(1, 5, [Seq(0); 2])).unwrap();
    for (number, (range, step)) in (2..).zip([(0..1200_u32, 7), (200..900, 3), (0..300, 1)]) {
        let ids: Vec<String> = range.step_by(step).map(|n| format!("{n:05}")).collect();
        let update = |id| Update { file, generation, id, value: Some(b"v") };
        shared.view().active.commit(ids.iter().map(|id| update(id.as_bytes())), [Seq(number); 2]);
        expected.extend(ids);
        if number < 4 {
            shared.freeze([Seq(number); 2], Memtable::new(number, 5, [Seq(number); 2]));
        }
    }
    for limit in [1, 63, 64, 65, 100, 1000, 5000] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let snapshot = Snapshot::newest(&shared);
            let part = snapshot.scan(file, generation, after.as_deref(), limit, false).unwrap();
            after = part.last().map(|(id, _)| id.clone());
            found.extend(part.iter().map(|(id, _)| String::from_utf8(id.to_vec()).unwrap()));
            if part.len() < limit {
                break;
            }
        }
        assert!(found.iter().eq(&expected), "{limit} at a time: {} of {}", found.len(), expected.len());
    }
}

#[test]
fn what_a_failure_left_of_tables_is_removed_at_once_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let shared =
        Shared::new(tables::Tables::open(dir.path()).unwrap(), Memtable::new(1, 5, [Seq(0); 2])).unwrap();
    let files = || std::fs::read_dir(dir.path().join("tables")).unwrap().count();
    let large = vec![7; 1 << 20];
    let write = |last: Result<(), StoreError>| {
        shared.written(|| {
            shared.tables.ingest(|give| {
                (0..4_u8).try_for_each(|n| give(&[9, n], Some(&large)))?;
                last
            })
        })
    };
    write(Ok(())).unwrap();
    let before = files();
    let full = || StoreError::Disk { doing: "testing", fault: Fault::from_errno(28) };
    for _ in 0..3 {
        assert!(write(Err(full())).is_err());
        assert_eq!(files(), before, "of a table that was not finished nothing is left");
    }
    assert_eq!(shared.tables.get(&[9, 3], shared.tables.newest()).unwrap().unwrap().len(), large.len());
}
