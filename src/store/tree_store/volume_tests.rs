//! Volumes of the store on disk, against those in memory: whatever is given again, regrouped, or left of a crash, the
//! content ends the same.

use super::super::StoreSnapshot;
use super::super::memory::MemoryStore;
use super::super::namespace::NewFile;
use super::super::testkit::History;
use super::super::volumes::{Kept, PART_BYTES, Room, part_path, testing};
use super::*;
use crate::base::limits::{VOLUME_FILES_MANY, VOLUME_FILES_MAX};
use crate::base::{Prng, Seq};
use crate::format::chunk::{Chunk, Content};
use crate::format::dptr::Flags;
use crate::format::entry::BlockId;
use proptest::prelude::*;
use std::path::PathBuf;

const A: Ordinal = Ordinal(0);
const R: JournalKind = JournalKind::Replicated;
const SIZE: u64 = 40_000;

fn open(dir: &Path) -> Opened {
    TreeStore::open(&dir.join("store"), &dir.join("volumes"), A).unwrap()
}

/// An account with a volume and a record file, as the first batches of a history.
fn begin(seed: u64) -> (History, Vec<Batch>, FileId, FileId) {
    let mut history = History::new(A, seed);
    let mut batches = vec![history.change(|ns| ns.create_account("app", Flags::L, A)).1];
    let mut file = |history: &mut History, name: &str, kind, blocks| {
        let new = NewFile { account: "app", name, kind, flags: Some(Flags::L), blocks, ack: None };
        batches.push(history.change(|ns| ns.create_file(&new, A)).1);
        history.ahead.resolve(format!("app,{name}").as_bytes()).unwrap()
    };
    let volume = file(&mut history, "disk", DptrKind::Blocks, 10);
    let items = file(&mut history, "items", DptrKind::Records, 0);
    (history, batches, volume, items)
}

fn random(history: &mut History, prng: &mut Prng, volume: FileId, items: FileId) -> Batch {
    let mut entries = Vec::new();
    for _ in 0..=prng.below(5) {
        let offset = prng.below(SIZE - 1);
        let len = 1 + prng.below((SIZE - offset).min(6000));
        entries.push(match prng.below(12) {
            0 | 1 => {
                let kind = if prng.percent(50) { EntryKind::BlockPunch } else { EntryKind::BlockZero };
                (kind, volume, BlockId::range(offset, len).as_ref().to_vec(), Vec::new())
            }
            2..=4 => (EntryKind::Put, items, vec![u8::try_from(prng.below(9)).unwrap()], vec![7; 20]),
            _ => {
                let value = vec![u8::try_from(1 + prng.below(255)).unwrap(); usize::try_from(len).unwrap()];
                (EntryKind::BlockWrite, volume, BlockId::write(offset).as_ref().to_vec(), value)
            }
        });
    }
    if prng.percent(4) {
        return history.change(|ns| ns.clear_file(volume)).1;
    }
    history.seal(R, &entries)
}

/// To be called when everything was given again.
fn assert_same(opened: &mut Opened, memory: &mut MemoryStore, volume: FileId, what: &str) {
    opened.writer.replayed();
    let len = usize::try_from(SIZE).unwrap();
    let (found, expected) =
        (opened.writer.read_volume(volume, 0, len).unwrap(), memory.volume_bytes(volume, 0, len));
    let wrong = found.iter().zip(&expected).position(|(a, b)| a != b);
    assert_eq!(wrong, None, "{what}: the first byte that differs");
    let parts = opened.writer.allocation(volume, 0, SIZE).unwrap();
    assert_eq!(parts.iter().map(|(len, _)| len).sum::<u64>(), SIZE);
    opened.writer.check_volume(volume, 0, SIZE, Check::Scrub).unwrap();
    assert_eq!(opened.writer.take_bad_places(), [], "{what}");
    let mut at = 0;
    for (len, hole) in parts {
        let range = usize::try_from(at).unwrap()..usize::try_from(at + len).unwrap();
        assert!(
            !hole || expected[range].iter().all(|&byte| byte == 0),
            "{what}: a hole with something in it"
        );
        at += len;
    }
}

/// Gives every batch after `from`, some in one call.
fn give(opened: &mut Opened, all: &[Batch], from: Seq, prng: &mut Prng) {
    let mut rest = &all[all.iter().take_while(|batch| batch.header().last_seq() <= from).count()..];
    while !rest.is_empty() {
        let some = usize::try_from(1 + prng.below(5)).unwrap().min(rest.len());
        opened.writer.apply(R, &rest[..some]).unwrap();
        rest = &rest[some..];
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn volumes_are_the_same_as_in_memory_however_the_journal_is_given_again(seed in any::<u64>()) {
        let dir = tempfile::tempdir().unwrap();
        let mut prng = Prng::new(seed);
        let (mut history, mut all, volume, items) = begin(seed);
        let mut opened = open(dir.path());
        let mut memory = MemoryStore::new(A);
        opened.writer.apply(R, &all).unwrap();
        memory.apply(R, &all).unwrap();
        for round in 0..60 {
            let batch = random(&mut history, &mut prng, volume, items);
            all.push(batch.clone());
            opened.writer.apply(R, std::slice::from_ref(&batch)).unwrap();
            memory.apply(R, &[batch]).unwrap();
            if prng.percent(15) {
                let sync = opened.writer.begin_checkpoint();
                // Applied while the sync is under way: not covered.
                let batch = random(&mut history, &mut prng, volume, items);
                all.push(batch.clone());
                opened.writer.apply(R, std::slice::from_ref(&batch)).unwrap();
                memory.apply(R, &[batch]).unwrap();
                sync.map_or(Ok(()), |sync| sync()).unwrap();
                opened.writer.checkpoint().unwrap();
            }
            if prng.percent(15) {
                drop(opened);
                opened = open(dir.path());
                assert!(opened.replay_from[0] <= opened.applied[0]);
                let from = opened.replay_from[0];
                give(&mut opened, &all, from, &mut prng);
            }
            assert_same(&mut opened, &mut memory, volume, &format!("seed {seed} round {round}"));
        }
    }
}

#[test]
fn what_a_power_loss_left_of_a_volume_is_made_right_by_the_replay() {
    for seed in 0..12 {
        let dir = tempfile::tempdir().unwrap();
        let mut prng = Prng::new(seed);
        let (mut history, mut all, volume, items) = begin(seed);
        let mut opened = open(dir.path());
        let mut memory = MemoryStore::new(A);
        for _ in 0..20 {
            all.push(random(&mut history, &mut prng, volume, items));
        }
        opened.writer.apply(R, &all).unwrap();
        let covered = opened.writer.checkpoint().unwrap();
        assert_eq!(covered[0], all.last().unwrap().header().last_seq());
        let path = part_path(&dir.path().join("volumes"), volume, 0);
        let old = std::fs::read(&path).unwrap_or_default();
        for _ in 0..20 {
            all.push(random(&mut history, &mut prng, volume, items));
        }
        memory.apply(R, &all).unwrap();
        give(&mut opened, &all, covered[0], &mut prng);
        drop(opened);
        // Of each sector the old content or the new.
        if let Ok(mut now) = std::fs::read(&path) {
            for (n, sector) in now.chunks_mut(512).enumerate() {
                if prng.percent(50) {
                    let old = old.get((n * 512).min(old.len())..(n * 512 + sector.len()).min(old.len()));
                    let old = old.unwrap_or_default();
                    sector.fill(0);
                    sector[..old.len()].copy_from_slice(old);
                }
            }
            std::fs::write(&path, now).unwrap();
        }
        let mut opened = open(dir.path());
        assert_eq!(opened.replay_from[0], covered[0], "seed {seed}: since the checkpoint");
        let from = opened.replay_from[0];
        give(&mut opened, &all, from, &mut prng);
        assert_same(&mut opened, &mut memory, volume, &format!("seed {seed}"));
    }
}

#[test]
fn blocks_that_are_overwritten_while_they_wait_are_written_once() {
    let dir = tempfile::tempdir().unwrap();
    let (mut history, mut all, volume, _) = begin(1);
    let mut opened = open(dir.path());
    for n in 0..100_u8 {
        for block in 0..2 {
            let id = BlockId::write(block * 4096).as_ref().to_vec();
            all.push(history.seal(R, &[(EntryKind::BlockWrite, volume, id, vec![n; 4096])]));
        }
    }
    opened.writer.apply(R, &all).unwrap();
    assert_eq!(opened.writer.volumes.writes(), 1, "two neighbours in one call");
    assert!(opened.writer.read_volume(volume, 0, 8192).unwrap().iter().all(|&byte| byte == 99));
}

#[test]
fn a_deleted_volume_leaves_no_files_and_a_huge_one_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut history, mut all, volume, _) = begin(2);
    let mut opened = open(dir.path());
    // Across the border of two parts, 63 TiB away.
    let id = BlockId::write(63 * PART_BYTES - 5).as_ref().to_vec();
    all.push(history.seal(R, &[(EntryKind::BlockWrite, volume, id, b"0123456789".to_vec())]));
    opened.writer.apply(R, &all).unwrap();
    let there = || std::fs::read_dir(dir.path().join("volumes")).unwrap().count();
    assert_eq!(there(), 5, "two parts, their checksums, and the word that there are some");
    let read = opened.writer.read_volume(volume, 63 * PART_BYTES - 6, 12).unwrap();
    assert_eq!(read.as_ref(), b"\x000123456789\x00");
    let parts = opened.writer.allocation(volume, 0, 64 * PART_BYTES).unwrap();
    assert_eq!(parts.iter().map(|(len, _)| len).sum::<u64>(), 64 * PART_BYTES);
    assert_eq!(parts.iter().map(|(_, hole)| *hole).collect::<Vec<_>>(), [true, false, true]);
    let gone = history.change(|ns| ns.delete_account("app")).1;
    opened.writer.apply(R, &[gone]).unwrap();
    opened.writer.checkpoint().unwrap();
    assert_eq!(there(), 1);
}

/// An account with so many volumes, as the first batches of a history.
fn volumes(count: usize) -> (History, Vec<Batch>, Vec<FileId>) {
    let mut history = History::new(A, 1);
    let mut all = vec![history.change(|ns| ns.create_account("app", Flags::L, A)).1];
    let mut files = Vec::new();
    for n in 0..count {
        let (name, flags) = (format!("v{n}"), Some(Flags::L));
        let new =
            NewFile { account: "app", name: &name, kind: DptrKind::Blocks, flags, blocks: 10, ack: None };
        all.push(history.change(|ns| ns.create_file(&new, A)).1);
        files.push(history.ahead.resolve(format!("app,{name}").as_bytes()).unwrap());
    }
    (history, all, files)
}

/// A write of one byte value to the start of a volume.
fn stamp(history: &mut History, file: FileId, byte: u8) -> Batch {
    let id = BlockId::write(0).as_ref().to_vec();
    history.seal(R, &[(EntryKind::BlockWrite, file, id, vec![byte; 600])])
}

#[test]
fn however_many_volumes_are_written_few_are_open_and_what_is_closed_was_synced_before() {
    let dir = tempfile::tempdir().unwrap();
    let count = 3 * VOLUME_FILES_MAX;
    let (mut history, first, files) = volumes(count);
    let mut opened = open(dir.path());
    opened.writer.apply(R, &first).unwrap();
    // Each file, its checksums, and their name when they are made.
    let (before, made) = (testing::syncs(), 2 * u32::try_from(count).unwrap());
    for (n, file) in files.iter().enumerate() {
        let batch = stamp(&mut history, *file, u8::try_from(n % 250).unwrap() + 1);
        opened.writer.apply(R, &[batch]).unwrap();
        assert!(opened.writer.volumes.open_files() <= VOLUME_FILES_MAX);
    }
    let closed = u32::try_from(count - VOLUME_FILES_MAX).unwrap();
    assert_eq!(testing::syncs() - before, made + 2 * closed, "each file that was closed");
    opened.writer.begin_checkpoint().unwrap()().unwrap();
    let all = u32::try_from(count).unwrap();
    assert_eq!(
        testing::syncs() - before,
        made + 2 * all + 2,
        "the others, their directory, and the one that it is in"
    );
    let before = opened.reader.shared().flushed();
    opened.writer.checkpoint().unwrap();
    assert_eq!(opened.reader.shared().flushed() - before, 1);
    for (n, file) in files.iter().enumerate() {
        let byte = u8::try_from(n % 250).unwrap() + 1;
        assert!(opened.writer.read_volume(*file, 0, 600).unwrap().iter().all(|found| *found == byte));
    }
    // What is written to again stays open, what is not makes room.
    let hot = files[count - VOLUME_FILES_MAX];
    for file in &files[..2 * VOLUME_FILES_MAX] {
        let batch = stamp(&mut history, *file, 7);
        opened.writer.apply(R, &[batch]).unwrap();
        let before = testing::syncs();
        let batch = stamp(&mut history, hot, 8);
        opened.writer.apply(R, &[batch]).unwrap();
        assert_eq!(testing::syncs(), before, "it was open");
    }
}

#[test]
fn where_the_process_may_open_many_files_as_many_volumes_as_have_clients_are_written_without_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let (mut history, first, files) = volumes(VOLUME_FILES_MANY + 1);
    let mut opened = open(dir.path());
    opened.writer.keep_volumes_open(VOLUME_FILES_MANY);
    opened.writer.apply(R, &first).unwrap();
    let mut before = 0;
    for round in 0..3 {
        if round == 1 {
            before = testing::syncs();
        }
        for file in &files[..VOLUME_FILES_MANY] {
            let batch = stamp(&mut history, *file, round);
            opened.writer.apply(R, &[batch]).unwrap();
        }
    }
    assert_eq!(testing::syncs(), before);
    let batch = stamp(&mut history, files[VOLUME_FILES_MANY], 1);
    opened.writer.apply(R, &[batch]).unwrap();
    assert_eq!((testing::syncs() - before, opened.writer.volumes.open_files()), (4, VOLUME_FILES_MANY));
}

#[test]
fn a_file_whose_sync_fails_before_it_is_closed_ends_the_store_as_any_failed_sync() {
    let dir = tempfile::tempdir().unwrap();
    let (mut history, first, files) = volumes(VOLUME_FILES_MAX + 1);
    let mut opened = open(dir.path());
    opened.writer.apply(R, &first).unwrap();
    for file in &files[..VOLUME_FILES_MAX] {
        let batch = stamp(&mut history, *file, 1);
        opened.writer.apply(R, &[batch]).unwrap();
    }
    testing::fail(0);
    let batch = stamp(&mut history, files[VOLUME_FILES_MAX], 1);
    opened.writer.apply(R, std::slice::from_ref(&batch)).unwrap_err();
    assert_eq!(opened.writer.failed, Some(EIO));
    let syncs = testing::syncs();
    opened.writer.apply(R, &[batch]).unwrap_err();
    opened.writer.checkpoint().unwrap_err();
    assert_eq!(testing::syncs(), syncs, "no sync is tried again");
    // The next life is told from where on everything has to be given again.
    drop(opened);
    assert!(open(dir.path()).replay_from[0] <= first.last().unwrap().header().last_seq());
}

#[test]
fn a_failed_sync_of_any_file_at_a_checkpoint_is_told_and_covers_nothing() {
    // Three files and their checksums, their directory, and the one that it is in.
    for nth in 0..8 {
        let dir = tempfile::tempdir().unwrap();
        let (mut history, first, files) = volumes(3);
        let mut opened = open(dir.path());
        opened.writer.apply(R, &first).unwrap();
        opened.writer.checkpoint().unwrap();
        let covered = opened.writer.applied()[0];
        for file in &files {
            let batch = stamp(&mut history, *file, 1);
            opened.writer.apply(R, &[batch]).unwrap();
        }
        testing::fail(nth);
        let sync = opened.writer.begin_checkpoint().unwrap();
        let error = sync().unwrap_err();
        opened.writer.checkpoint_failed(Fault::from_io(&error));
        opened.writer.checkpoint().unwrap_err();
        drop(opened);
        assert_eq!(open(dir.path()).replay_from[0], covered, "sync {nth}");
    }
}

#[test]
fn what_is_written_while_a_checkpoint_syncs_is_not_covered_by_it() {
    for seed in 0..12 {
        let dir = tempfile::tempdir().unwrap();
        let mut prng = Prng::new(seed);
        let (mut history, mut all, volume, items) = begin(seed);
        let mut opened = open(dir.path());
        let mut memory = MemoryStore::new(A);
        for _ in 0..15 {
            all.push(random(&mut history, &mut prng, volume, items));
        }
        opened.writer.apply(R, &all).unwrap();
        let begun = opened.writer.applied()[0];
        let sync = opened.writer.begin_checkpoint().unwrap();
        let path = part_path(&dir.path().join("volumes"), volume, 0);
        sync().unwrap();
        let synced = std::fs::read(&path).unwrap_or_default();
        // Applied between the sync and the end of the checkpoint: the items will be durable, the blocks are not.
        let mut blocks = false;
        for _ in 0..10 {
            let batch = random(&mut history, &mut prng, volume, items);
            blocks |= batch.changes_volumes();
            all.push(batch);
        }
        give(&mut opened, &all, begun, &mut prng);
        let covered = opened.writer.checkpoint().unwrap()[0];
        assert!(blocks && covered == begun, "seed {seed}: {covered} is covered, the sync began at {begun}");
        drop(opened);
        std::fs::write(&path, &synced).unwrap();
        let mut opened = open(dir.path());
        assert_eq!(opened.replay_from[0], begun, "seed {seed}");
        assert_eq!(opened.applied[0], all.last().unwrap().header().last_seq(), "seed {seed}");
        give(&mut opened, &all, begun, &mut prng);
        memory.apply(R, &all).unwrap();
        assert_same(&mut opened, &mut memory, volume, &format!("seed {seed}"));
        // Nothing came in between this time.
        opened.writer.begin_checkpoint().map_or(Ok(()), |sync| sync()).unwrap();
        assert_eq!(opened.writer.checkpoint().unwrap()[0], opened.writer.applied()[0]);
        drop(opened);
        let opened = open(dir.path());
        assert_eq!(opened.replay_from, opened.applied, "seed {seed}");
    }
}

/// The files that were changed and not synced since.
fn unsynced(acts: &[testing::Act]) -> std::collections::BTreeSet<PathBuf> {
    let mut files = std::collections::BTreeSet::new();
    for act in acts {
        match act {
            testing::Act::Wrote(path, ..)
            | testing::Act::Zeroed(path, ..)
            | testing::Act::Length(path, _) => {
                files.insert(path.clone());
            }
            testing::Act::Synced(path) => {
                files.remove(path);
            }
        }
    }
    files
}

#[test]
fn what_a_checkpoint_covers_was_synced_after_it_was_written_however_often_a_volume_was_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut prng = Prng::new(5);
    let (mut history, first, files) = volumes(VOLUME_FILES_MAX + 2);
    let mut opened = open(dir.path());
    opened.writer.apply(R, &first).unwrap();
    testing::watch();
    let mut acts = Vec::new();
    for round in 1..40 {
        // Mostly the same few, which stay open; now and then one whose file has to be opened.
        for _ in 0..prng.below(4) {
            let many = if prng.percent(20) { files.len() as u64 } else { 3 };
            let file = files[usize::try_from(prng.below(many)).unwrap()];
            let batch = stamp(&mut history, file, round);
            opened.writer.apply(R, &[batch]).unwrap();
        }
        opened.writer.begin_checkpoint().map_or(Ok(()), |sync| sync()).unwrap();
        acts.extend(testing::seen());
        testing::watch();
        assert_eq!(unsynced(&acts), Default::default(), "round {round}");
        assert_eq!(opened.writer.checkpoint().unwrap()[0], opened.writer.applied()[0], "round {round}");
    }
    let wrote = acts.iter().filter(|act| matches!(act, testing::Act::Wrote(..))).count();
    assert!(wrote > 40, "{wrote} writes were looked at");
}

/// What a view of this moment reads of the volume, beside the one who writes.
fn of_moment(kept: &Arc<Kept>, dir: &Path, volume: FileId) -> Vec<u8> {
    let volumes = dir.join("volumes");
    let live = |offset: u64, len: u64| {
        let mut bytes = vec![0; usize::try_from(len).unwrap()];
        if let Ok(file) = File::open(part_path(&volumes, volume, 0)) {
            let mut at = 0;
            while let Ok(more @ 1..) =
                std::os::unix::fs::FileExt::read_at(&file, &mut bytes[at..], offset + at as u64)
            {
                at += more;
            }
        }
        Ok(Some(bytes.into()))
    };
    let mut bytes = kept.read_blocks(volume, (0, SIZE.div_ceil(4096)), live).unwrap().to_vec();
    bytes.truncate(usize::try_from(SIZE).unwrap());
    bytes
}

#[test]
fn a_moment_stays_what_it_was_whatever_is_written_punched_cleared_deleted_flushed_or_merged_afterwards() {
    for seed in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        let mut prng = Prng::new(seed);
        let (mut history, all, volume, items) = begin(seed);
        let mut opened = open(dir.path());
        opened.writer.replayed();
        opened.writer.apply(R, &all).unwrap();
        let len = usize::try_from(SIZE).unwrap();
        let mut moments = Vec::new();
        for step in 0..80 {
            if step % 20 == 10 {
                let room = Arc::new(Room::new(1 << 20));
                let kept = Arc::new(Kept::new(tempfile::tempfile().unwrap(), room, |why| panic!("{why:?}")));
                let moment = opened.writer.moment(&kept).unwrap();
                let bytes = opened.writer.read_volume(volume, 0, len).unwrap();
                let generation = moment.namespace.file(items).unwrap().dptr.generation;
                let list = moment.items.scan(items, generation, None, 100, true).unwrap();
                moments.push((kept, moment, bytes, generation, list));
            }
            let batch = match step {
                70 => history.change(|ns| ns.clear_file(items)).1,
                75 => history.change(|ns| ns.delete_file(volume)).1,
                76.. => history.seal(R, &[(EntryKind::Put, items, vec![1], vec![step; 9])]),
                _ => random(&mut history, &mut prng, volume, items),
            };
            opened.writer.apply(R, &[batch]).unwrap();
            if prng.percent(20) {
                opened.writer.checkpoint().unwrap();
                opened.writer.shared.merged();
                while opened.writer.purge_step(10).unwrap() {}
            }
            for (kept, moment, bytes, generation, list) in &moments {
                let found = of_moment(kept, dir.path(), volume);
                let wrong = found.iter().zip(bytes).position(|(a, b)| a != b);
                assert_eq!(wrong, None, "seed {seed}, step {step}: the first byte that differs");
                let now = moment.items.scan(items, *generation, None, 100, true).unwrap();
                assert_eq!(now, *list, "seed {seed}, step {step}");
                for (id, value) in list {
                    assert_eq!(moment.items.get(items, *generation, id).unwrap().as_ref(), Some(value));
                }
                let parts = kept.allocation(volume, (0, 10), || {
                    Ok(crate::store::volumes::allocation_of(&dir.path().join("volumes"), volume, 0, 40_960)
                        .unwrap())
                });
                let mut at = 0;
                for (len, hole) in parts.unwrap() {
                    let range = at..(at + usize::try_from(len).unwrap()).min(bytes.len());
                    assert!(!hole || bytes[range].iter().all(|byte| *byte == 0), "seed {seed}, step {step}");
                    at += usize::try_from(len).unwrap();
                }
                assert_eq!(at, 40_960);
            }
        }
        assert!(moments.iter().all(|(kept, ..)| kept.end().is_none()));
    }
}

#[test]
fn no_moment_is_held_of_a_store_that_is_being_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    let room = Arc::new(Room::new(1 << 20));
    let kept = Arc::new(Kept::new(tempfile::tempfile().unwrap(), room, |_| {}));
    let refused = opened.writer.moment(&kept).unwrap_err();
    assert!(matches!(refused, StoreError::Disk { fault: Fault::STALE, .. }), "{refused}");
    opened.writer.replayed();
    opened.writer.moment(&kept).unwrap();
}

fn read_checked(dir: &Path, file: FileId, offset: u64, len: usize) -> Result<Bytes, Fault> {
    let mut volumes = VolumeStore::open(dir, A, [None; 2], [Seq(0); 2]).unwrap();
    volumes.replayed();
    volumes.read(file, offset, len).map_err(|_| Fault::UNCLEAN)
}

#[test]
fn a_copy_of_a_volume_with_rotten_blocks_ends_and_those_are_given_out_on_neither_node() {
    use super::super::{CopySource as _, CopyTarget as _};
    use crate::format::chunk::{Want, WantFrom};
    let [here, there] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (mut history, all, volume, _) = begin(1);
    let [mut a, mut b] = [&here, &there].map(|dir| open(dir.path()));
    for opened in [&mut a, &mut b] {
        opened.writer.replayed();
        opened.writer.apply(R, &all).unwrap();
    }
    let write = |history: &mut History, block: u64, fill: u8| {
        let id = BlockId::write(block * 4096).as_ref().to_vec();
        history.seal(R, &[(EntryKind::BlockWrite, volume, id, vec![fill; 4096])])
    };
    let batches: Vec<_> = (0..10).map(|block| write(&mut history, block, 7)).collect();
    a.writer.apply(R, &batches).unwrap();
    b.writer.apply(R, &batches).unwrap();
    let data = std::fs::OpenOptions::new()
        .write(true)
        .open(part_path(&here.path().join("volumes"), volume, 0))
        .unwrap();
    for block in [3_u64, 9] {
        std::os::unix::fs::FileExt::write_all_at(&data, b"rot", block * 4096).unwrap();
    }
    let volumes = here.path().join("volumes");
    let want =
        |offset| Want { id: 1, file: volume, from: WantFrom::Blocks(offset), most: 1 << 20, unless: None };
    let strict = a.reader.for_copies(A, &volumes, read_checked);
    assert!(matches!(strict.range(&want(0)), Err(StoreError::Disk { fault: Fault::UNCLEAN, .. })));
    let source = strict.naming_lost();
    let progress = Progress::of(&crate::format::chunk::CopyBegin::default());
    let (mut offset, mut lost) = (0, Vec::new());
    loop {
        let chunk = source.range(&want(offset)).unwrap();
        assert_eq!(Chunk::decode(&chunk.encode().into()).as_ref(), Ok(&chunk));
        let Content::Blocks { offset: at, len, .. } = &chunk.content else { panic!("{chunk:?}") };
        assert_eq!(*at, offset);
        offset += len;
        lost.extend(chunk.content.is_lost().then_some(*at / 4096));
        b.writer.take_chunk(&chunk, &progress).unwrap();
        if chunk.ends {
            break;
        }
    }
    assert_eq!((lost.as_slice(), offset), (&[3, 9][..], 40_960));
    assert_eq!(b.writer.take_bad_places().len(), 2, "people hear of it there too");
    for block in 0..10 {
        let whole = b.writer.read_volume(volume, block * 4096, 4096);
        assert_eq!(whole.is_ok(), block != 3 && block != 9, "block {block}");
    }
    // A part of it that is written mends nothing, a whole one does.
    let id = BlockId::write(3 * 4096 + 5).as_ref().to_vec();
    let part = history.seal(R, &[(EntryKind::BlockWrite, volume, id, vec![1; 20])]);
    let whole = write(&mut history, 9, 8);
    b.writer.apply(R, &[part, whole]).unwrap();
    assert!(b.writer.read_volume(volume, 3 * 4096, 4096).is_err());
    assert_eq!(b.writer.read_volume(volume, 9 * 4096, 4096).unwrap(), vec![8; 4096]);
}
