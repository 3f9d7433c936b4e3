//! What a crash and what rot leave of volumes and of their checksums: the first is made right by the replay, the second
//! is told and never served.

use super::super::namespace::NewFile;
use super::super::testkit::History;
use super::testing::Act;
use super::*;
use crate::base::Prng;
use crate::base::limits::{BLOCK, BLOCK_U64};
use crate::format::dptr::{DptrKind, Flags};
use crate::format::entry::{BlockId, EntryKind};
use crate::format::sums::{SUMS_BYTES, record_at};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

const A: Ordinal = Ordinal(0);
const R: JournalKind = JournalKind::Replicated;
const VOLUME: FileId = FileId(4);
/// Size of the volume (bytes).
const SIZE: u64 = 6 * BLOCK_U64;
/// As much of its checksums holds something.
const SUMS: u64 = BLOCK_U64 + 8 * 8;

/// A history in which the volume is, and the store of a node that has applied that.
fn begin(dir: &Path) -> (History, VolumeStore, Seq) {
    let mut history = History::new(A, 1);
    let mut store = open(dir, [None; 2], [Seq(0); 2]);
    store.replayed();
    let new = NewFile {
        account: "app",
        name: "disk",
        kind: DptrKind::Blocks,
        flags: Some(Flags::L),
        blocks: 64,
        ack: None,
    };
    let account = history.change(|ns| ns.create_account("app", Flags::L, A)).1;
    let file = history.change(|ns| ns.create_file(&new, A)).1;
    assert_eq!(history.ahead.resolve(b"app,disk"), Some(VOLUME));
    let last = file.header().last_seq();
    store.apply(R, &[account, file]).unwrap();
    (history, store, last)
}

fn open(dir: &Path, since: [Option<Seq>; 2], applied: [Seq; 2]) -> VolumeStore {
    VolumeStore::open(dir, A, since, applied).unwrap()
}

/// One change, or several of one batch: kind, offset, length.
type Step = (EntryKind, u64, usize);

fn batch(history: &mut History, steps: &[Step], fill: u8) -> Batch {
    if let [(EntryKind::FileClear, ..)] = steps {
        return history.change(|ns| ns.clear_file(VOLUME)).1;
    }
    let entries: Vec<_> = steps
        .iter()
        .map(|(kind, offset, len)| match kind {
            EntryKind::BlockWrite => {
                let value = vec![fill; *len];
                (*kind, VOLUME, BlockId::write(*offset).as_ref().to_vec(), value)
            }
            _ => (*kind, VOLUME, BlockId::range(*offset, *len as u64).as_ref().to_vec(), Vec::new()),
        })
        .collect();
    history.seal(R, &entries)
}

/// Everything, as a reader sees it; none if a block of it is not what was written.
fn content(store: &mut VolumeStore) -> Option<Vec<u8>> {
    store.read(VOLUME, 0, usize::try_from(SIZE).unwrap()).ok().map(|bytes| bytes.to_vec())
}

fn paths(dir: &Path) -> [PathBuf; 2] {
    [part_path(dir, VOLUME, 0), sums_path(dir, VOLUME, 0)]
}

/// The bytes of both files, as far as they hold something.
fn files(dir: &Path) -> [Vec<u8>; 2] {
    paths(dir).map(|path| {
        let file = File::open(path).unwrap();
        let len = file.metadata().unwrap().len().min(SIZE.max(SUMS));
        let mut bytes = vec![0; usize::try_from(len).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    })
}

/// Puts files there, for a new life to find.
fn put(dir: &Path, [data, sums]: &[Vec<u8>; 2]) {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("checksums"), b"").unwrap();
    let [data_path, sums_path] = paths(dir);
    std::fs::write(data_path, data).unwrap();
    std::fs::write(&sums_path, sums).unwrap();
    OpenOptions::new().write(true).open(&sums_path).unwrap().set_len(SUMS_BYTES).unwrap();
}

/// What was done to which file: cut into sectors if `torn`.
fn pieces(acts: &[Act], torn: bool) -> Vec<Act> {
    let mut all = Vec::new();
    for act in acts {
        match act {
            Act::Wrote(path, ..) if path.ends_with("round") => {}
            Act::Wrote(path, offset, bytes) if torn => {
                let (mut at, mut rest) = (*offset, bytes.as_slice());
                while !rest.is_empty() {
                    let room = usize::try_from(512 - at % 512).unwrap().min(rest.len());
                    all.push(Act::Wrote(path.clone(), at, rest[..room].to_vec()));
                    (at, rest) = (at + room as u64, &rest[room..]);
                }
            }
            Act::Synced(_) => {}
            other => all.push(other.clone()),
        }
    }
    all
}

/// Does to the bytes of both files what was done.
fn redo(files: &mut [Vec<u8>; 2], act: &Act) {
    let (Act::Wrote(path, ..) | Act::Zeroed(path, ..) | Act::Length(path, _) | Act::Synced(path)) = act;
    let sums = path.extension().is_some_and(|end| end == "sums");
    let file = &mut files[usize::from(sums)];
    let at = |offset: u64| usize::try_from(offset).unwrap();
    match act {
        Act::Wrote(_, offset, bytes) => {
            let end = at(*offset) + bytes.len();
            file.resize(file.len().max(end), 0);
            file[at(*offset)..end].copy_from_slice(bytes);
        }
        Act::Zeroed(_, offset, len) => {
            let end = at(offset + len).min(file.len());
            file[at(*offset).min(end)..end].fill(0);
        }
        // The file of checksums has one length.
        Act::Length(_, len) if !sums => file.resize(at(*len), 0),
        Act::Length(..) | Act::Synced(_) => {}
    }
}

/// A life: what both files were at its checkpoint, what was given after it, what was done to them for that, what came out.
struct Life {
    base: [Vec<u8>; 2],
    all: Vec<Batch>,
    covered: Seq,
    acts: Vec<Act>,
    expected: Vec<u8>,
}

fn live(before: &[&[Step]], after: &[&[Step]], together: bool) -> Life {
    let dir = tempfile::tempdir().unwrap();
    let (mut history, mut store, mut covered) = begin(dir.path());
    store.lives_in(LIFE).unwrap();
    for (n, steps) in before.iter().enumerate() {
        let batch = batch(&mut history, steps, 10 + u8::try_from(n).unwrap());
        covered = batch.header().last_seq();
        store.apply(R, &[batch]).unwrap();
    }
    store.begin_sync().unwrap()().unwrap();
    store.synced([covered, Seq(0)]).unwrap();
    let base = files(dir.path());
    let given: Vec<Batch> = after
        .iter()
        .enumerate()
        .map(|(n, steps)| batch(&mut history, steps, 100 + u8::try_from(n).unwrap()))
        .collect();
    testing::watch();
    if together {
        store.apply(R, &given).unwrap();
    } else {
        given.iter().for_each(|batch| store.apply(R, std::slice::from_ref(batch)).unwrap());
    }
    store.rests();
    let acts = testing::seen();
    let expected = content(&mut store).expect("it reads back in the life that wrote it");
    assert!(store.take_bad_places().is_empty());
    Life { base, all: given, covered, acts, expected }
}

/// A new life finds these files, and what was not covered is given again. What was done to them meanwhile comes back.
fn replay(life: &Life, found: &[Vec<u8>; 2], what: &str, together: bool) -> Vec<Act> {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), found);
    let mut store = open(dir.path(), [Some(life.covered), None], [life.covered, Seq(0)]);
    testing::watch();
    if together {
        store.apply(R, &life.all).unwrap();
    } else {
        life.all.iter().for_each(|batch| store.apply(R, std::slice::from_ref(batch)).unwrap());
    }
    let acts = testing::seen();
    store.replayed();
    assert!(content(&mut store).as_ref() == Some(&life.expected), "{what}: another content");
    store.check(VOLUME, 0, SIZE, Check::Scrub).unwrap();
    assert_eq!(store.take_bad_places(), [], "{what}: nothing is rotten");
    acts
}

const W: EntryKind = EntryKind::BlockWrite;
const P: EntryKind = EntryKind::BlockPunch;
const Z: EntryKind = EntryKind::BlockZero;
const C: EntryKind = EntryKind::FileClear;

/// The page cache of a test.
const LIFE: &str = "one";

/// Does to the files in `dir` what was done.
fn act_on(dir: &Path, act: &Act) {
    let (Act::Wrote(path, ..) | Act::Zeroed(path, ..) | Act::Length(path, _) | Act::Synced(path)) = act;
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).open(dir.join(path.file_name().unwrap()));
    let file = file.unwrap();
    match act {
        Act::Wrote(_, offset, bytes) => file.write_all_at(bytes, *offset).unwrap(),
        Act::Zeroed(_, offset, len) => {
            let end = (offset + len).min(file.metadata().unwrap().len()).min(SIZE.max(SUMS)).max(*offset);
            file.write_all_at(&vec![0; usize::try_from(end - offset).unwrap()], *offset).unwrap();
        }
        Act::Length(_, len) => file.set_len(*len).unwrap(),
        Act::Synced(_) => {}
    }
}

/// What a process leaves that is killed after so many calls of a life, and a new one that lives in the same page cache.
fn killed(life: &Life, acts: &[Act], spoil: impl FnOnce(&Path)) -> (tempfile::TempDir, VolumeStore) {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), &life.base);
    acts.iter().for_each(|act| act_on(dir.path(), act));
    spoil(dir.path());
    let mut store = open(dir.path(), [Some(life.covered), None], [life.covered, Seq(0)]);
    store.lives_in(LIFE).unwrap();
    (dir, store)
}

/// Lives with few enough changes that every subset of them can be tried.
fn lives() -> Vec<(&'static str, Life)> {
    let full: &[&[Step]] = &[&[(W, 0, 4 * BLOCK)]];
    let some: &[&[Step]] = &[&[(W, 100, 700)], &[(W, 3 * BLOCK_U64, BLOCK)]];
    let both = |what, before: &[&[Step]], after: &[&[Step]]| {
        [true, false].map(|together| (what, live(before, after, together)))
    };
    [
        both("whole blocks", full, &[&[(W, 0, BLOCK)], &[(W, BLOCK_U64, 2 * BLOCK)]]),
        both("parts of one block", full, &[&[(W, 10, 20)], &[(W, 600, 30)], &[(W, 4000, 96)]]),
        both("two parts of a block in one batch", some, &[&[(W, 10, 20), (W, 2000, 30)], &[(W, 15, 2000)]]),
        both("across blocks", full, &[&[(W, 4000, 5000)], &[(W, 8000, 300)], &[(W, 1, 4095)]]),
        both("a part, then all of it", some, &[&[(W, 700, 50)], &[(W, 0, BLOCK)], &[(W, 5, 5)]]),
        both("holes", full, &[&[(P, 0, 2 * BLOCK)], &[(W, 100, 10)], &[(P, 100, 5000)]]),
        both("parts that become zeros", full, &[&[(Z, 50, 100)], &[(P, 4090, 20)], &[(Z, 8192, BLOCK)]]),
        both("cleared", full, &[&[(W, 30, 30)], &[(C, 0, 0)], &[(W, 4090, 12)]]),
        both("cleared last", full, &[&[(W, 30, 3000)], &[(C, 0, 0)]]),
        both("what was never written", some, &[&[(W, 5 * BLOCK_U64 + 7, 9)], &[(W, 4 * BLOCK_U64, BLOCK)]]),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[test]
fn whatever_subset_of_data_and_checksums_a_crash_leaves_the_replay_makes_right_and_takes_nothing_for_rot() {
    for (what, life) in lives() {
        let pieces = pieces(&life.acts, false);
        assert!((2..=9).contains(&pieces.len()), "{what}: {} changes", pieces.len());
        for subset in 0..1_u32 << pieces.len() {
            let mut found = life.base.clone();
            for (n, act) in pieces.iter().enumerate() {
                if subset >> n & 1 == 1 {
                    redo(&mut found, act);
                }
            }
            replay(&life, &found, &format!("{what}, subset {subset:b}"), subset % 2 == 0);
        }
    }
}

#[test]
fn a_kill_between_any_two_calls_leaves_nothing_that_is_taken_for_rot() {
    for (what, life) in lives() {
        for count in 0..=life.acts.len() {
            let (_dir, mut store) = killed(&life, &life.acts[..count], |_| ());
            let half = count % (life.all.len() + 1);
            life.all[..half].iter().for_each(|batch| store.apply(R, std::slice::from_ref(batch)).unwrap());
            store.apply(R, &life.all[half..]).unwrap();
            store.replayed();
            assert!(
                content(&mut store).as_ref() == Some(&life.expected),
                "{what}, killed after {count} calls"
            );
            assert_eq!(store.take_bad_places(), [], "{what}, killed after {count} calls");
        }
    }
}

#[test]
fn rot_that_a_killed_process_leaves_beside_what_the_replay_writes_is_told_and_never_served() {
    let life =
        live(&[&[(W, 0, 2 * BLOCK)]], &[&[(W, 100, 50)], &[(W, BLOCK_U64, 10)], &[(W, 300, 9)]], false);
    // In the first block, where nothing is written again, and where something is.
    for at in [0, 4000, 120, 305] {
        let rot = |dir: &Path| {
            let file = OpenOptions::new().read(true).write(true).open(part_path(dir, VOLUME, 0)).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        };
        let (_dir, mut store) = killed(&life, &life.acts, rot);
        store.apply(R, &life.all).unwrap();
        store.replayed();
        assert_eq!(store.take_bad_places()[0].wrong, Wrong::Content, "byte {at}");
        store.read(VOLUME, 0, BLOCK).unwrap_err();
        let other = store.read(VOLUME, BLOCK_U64, BLOCK).unwrap();
        assert_eq!(other, life.expected[BLOCK..2 * BLOCK], "byte {at}");
    }
}

#[test]
fn whatever_sectors_a_power_loss_leaves_and_another_one_in_the_replay_all_is_made_right() {
    let mut prng = Prng::new(7);
    let some = |prng: &mut Prng, found: &mut [Vec<u8>; 2], acts: &[Act]| {
        let share = 10 + prng.below(81);
        pieces(acts, true).iter().filter(|_| prng.percent(share)).for_each(|act| redo(found, act));
    };
    for (what, life) in lives() {
        for round in 0..12 {
            let mut found = life.base.clone();
            some(&mut prng, &mut found, &life.acts);
            let acts = replay(&life, &found, &format!("{what}, round {round}"), prng.percent(50));
            some(&mut prng, &mut found, &acts);
            replay(&life, &found, &format!("{what}, round {round}, again"), prng.percent(50));
        }
    }
}

/// A volume of six blocks, of which the fifth is a hole, and its files.
fn sample() -> ([Vec<u8>; 2], Vec<u8>) {
    let life =
        live(&[&[(W, 0, BLOCK)], &[(W, BLOCK_U64, 3 * BLOCK - 5)], &[(W, 5 * BLOCK_U64, BLOCK)]], &[], true);
    (life.base, life.expected)
}

/// A life after a clean end finds these files.
fn found(dir: &Path, files: &[Vec<u8>; 2]) -> VolumeStore {
    put(dir, files);
    let mut store = open(dir, [None; 2], [Seq(9); 2]);
    store.replayed();
    store
}

#[test]
fn a_wrong_byte_anywhere_in_a_volume_is_told_with_its_block_and_never_served() {
    let (whole, expected) = sample();
    let dir = tempfile::tempdir().unwrap();
    for at in (0..expected.len()).step_by(37).chain([4095, 4096, expected.len() - 1]) {
        let mut files = whole.clone();
        files[0][at] ^= 0x10;
        let mut store = found(dir.path(), &files);
        let block = at as u64 / BLOCK_U64 * BLOCK_U64;
        let error = store.read(VOLUME, at as u64, 1).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "byte {at}: {error}");
        let hole = expected[at] == 0 && expected[usize::try_from(block).unwrap()] == 0;
        let wrong = if hole { Wrong::NoChecksum } else { Wrong::Content };
        let place = BadPlace { file: VOLUME, offset: block, len: BLOCK_U64, wrong };
        assert_eq!(store.take_bad_places(), [place], "byte {at}");
        store.check(VOLUME, 0, SIZE, Check::Scrub).unwrap();
        assert_eq!(store.take_bad_places(), [place], "the scrub finds it too");
        // The other blocks are read.
        let other = (block + BLOCK_U64) % SIZE;
        let bytes = store.read(VOLUME, other, BLOCK).unwrap();
        assert_eq!(bytes, expected[usize::try_from(other).unwrap()..][..BLOCK]);
    }
}

#[test]
fn a_volume_that_was_cut_anywhere_is_told_and_its_lost_blocks_are_no_holes() {
    let (whole, expected) = sample();
    for len in (0..expected.len()).step_by(411) {
        let dir = tempfile::tempdir().unwrap();
        let mut files = whole.clone();
        files[0].truncate(len);
        let mut store = found(dir.path(), &files);
        assert_eq!(content(&mut store), None, "cut to {len}");
        store.take_bad_places();
        let mut at = 0;
        for (some, hole) in store.allocation(VOLUME, 0, SIZE).unwrap() {
            assert!(
                !hole || at / BLOCK_U64 == 4 && (at + some - 1) / BLOCK_U64 == 4,
                "cut to {len}: a hole at {at}"
            );
            at += some;
        }
        // Without its file there is nothing but holes, all the more.
        std::fs::remove_file(part_path(dir.path(), VOLUME, 0)).unwrap();
        let mut store = open(dir.path(), [None; 2], [Seq(9); 2]);
        store.replayed();
        assert_eq!(content(&mut store), None);
        assert_eq!(store.allocation(VOLUME, 0, BLOCK_U64).unwrap(), [(BLOCK_U64, false)]);
    }
}

#[test]
fn a_wrong_byte_anywhere_in_the_checksums_makes_no_right_block_unreadable_and_is_mended() {
    let (whole, expected) = sample();
    let dir = tempfile::tempdir().unwrap();
    for at in 0..usize::try_from(SUMS).unwrap() {
        let records = at >= BLOCK;
        if !records && !at.is_multiple_of(61) && at % 2048 > 64 {
            continue;
        }
        let mut files = whole.clone();
        files[1].resize(usize::try_from(SUMS).unwrap(), 0);
        files[1][at] ^= 0x21;
        let mut store = found(dir.path(), &files);
        let read = content(&mut store);
        let block = (at.saturating_sub(BLOCK) / 8) as u64;
        if records && block == 4 {
            // A hole has no second copy to go by: it is told, and a word of the operator makes it good.
            assert_eq!(read, None, "byte {at}");
            assert_eq!(store.take_bad_places()[0].wrong, Wrong::Checksum);
            store.check(VOLUME, 0, SIZE, Check::Scrub).unwrap();
            assert_eq!(store.take_bad_places()[0].wrong, Wrong::Checksum);
            store.check(VOLUME, 0, SIZE, Check::Renew).unwrap();
            assert_eq!(store.take_bad_places()[0].wrong, Wrong::Renewed);
        } else {
            assert_eq!(read.as_ref(), Some(&expected), "byte {at}");
            let told = store.take_bad_places();
            assert_eq!(told.len(), usize::from(records && block < 6), "byte {at}: {told:?}");
            assert!(
                told.iter().all(|place| place.wrong == Wrong::Mended && place.offset == block * BLOCK_U64)
            );
        }
        assert_eq!(content(&mut store).as_ref(), Some(&expected), "byte {at}");
        assert_eq!(store.take_bad_places(), [], "byte {at}: once");
    }
}

#[test]
fn checksums_that_were_cut_or_removed_are_told_at_the_next_start_and_made_again_by_a_scrub() {
    let (whole, expected) = sample();
    for len in (0..SUMS).step_by(29).chain([SUMS, SUMS_BYTES - 1]).map(Some).chain([None]) {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), &whole);
        let path = sums_path(dir.path(), VOLUME, 0);
        match len {
            Some(len) => OpenOptions::new().write(true).open(&path).unwrap().set_len(len).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let mut store = open(dir.path(), [None; 2], [Seq(9); 2]);
        store.replayed();
        let lost = BadPlace { file: VOLUME, offset: 0, len: SIZE, wrong: Wrong::AllChecksums };
        assert_eq!(store.take_bad_places(), [lost], "{len:?}");
        assert_eq!(content(&mut store).as_ref(), Some(&expected), "{len:?}");
        store.check(VOLUME, 0, SIZE, Check::Scrub).unwrap();
        store.scrubbed(VOLUME).unwrap();
        // Of a record that was cut in the middle one copy is left.
        let told = store.take_bad_places();
        assert!(told.iter().all(|place| place.wrong == Wrong::Mended), "{len:?}: {told:?}");
        drop(store);
        // From then on they are checked again.
        let file = OpenOptions::new().write(true).open(part_path(dir.path(), VOLUME, 0)).unwrap();
        file.write_all_at(b"rot", 4 * BLOCK_U64).unwrap();
        let mut store = open(dir.path(), [None; 2], [Seq(9); 2]);
        store.replayed();
        assert_eq!((store.take_bad_places(), content(&mut store)), (Vec::new(), None), "{len:?}");
    }
}

#[test]
fn a_volume_without_checksums_is_read_as_before_until_its_first_scrub() {
    let (whole, expected) = sample();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(part_path(dir.path(), VOLUME, 0), &whole[0]).unwrap();
    let (mut history, mut store, _) = begin(dir.path());
    assert_eq!(content(&mut store).as_ref(), Some(&expected));
    // What is written has a checksum at once, and a hole none.
    let steps: [&[Step]; 3] = [&[(W, 10, 5)], &[(P, BLOCK_U64, BLOCK)], &[(Z, 3 * BLOCK_U64 + 1, 9)]];
    for steps in steps {
        store.apply(R, &[batch(&mut history, steps, 77)]).unwrap();
    }
    let written = content(&mut store).unwrap();
    assert_eq!((&written[10..15], &written[BLOCK..2 * BLOCK]), (&[77; 5][..], &[0; BLOCK][..]));
    assert_eq!(store.take_bad_places(), []);
    store.check(VOLUME, 0, SIZE, Check::Scrub).unwrap();
    store.scrubbed(VOLUME).unwrap();
    drop(store);
    for at in [0, BLOCK_U64 + 4, 2 * BLOCK_U64, 3 * BLOCK_U64, 4 * BLOCK_U64, 5 * BLOCK_U64] {
        let file = OpenOptions::new().read(true).write(true).open(part_path(dir.path(), VOLUME, 0)).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        let mut store = open(dir.path(), [None; 2], [Seq(9); 2]);
        store.replayed();
        assert_eq!(content(&mut store), None, "byte {at} is rotten");
        file.write_all_at(&byte, at).unwrap();
        assert_eq!(content(&mut store).as_ref(), Some(&written));
    }
}

#[test]
fn what_is_written_to_a_part_of_a_rotten_block_makes_it_no_whole_one_and_what_covers_it_does() {
    let (whole, expected) = sample();
    for step in [(W, 700, 10), (Z, 700, 10), (P, 4000, 200), (W, 4000, 200)] {
        let dir = tempfile::tempdir().unwrap();
        let mut files = whole.clone();
        files[0][50] ^= 1;
        put(dir.path(), &files);
        let (mut history, mut store, begun) = begin(dir.path());
        for again in [false, true] {
            testing::watch();
            store.apply(R, &[batch(&mut history, &[step], 5)]).unwrap();
            // That it is rotten has to outlive a power loss, whatever of the write does.
            let synced = testing::seen().contains(&Act::Synced(paths(dir.path())[1].clone()));
            assert!(synced || again, "{step:?}");
            assert_eq!(store.take_bad_places()[0].wrong, Wrong::Content, "{step:?}");
            store.read(VOLUME, 0, BLOCK).unwrap_err();
            store.take_bad_places();
        }
        // No crash makes it good: what the replay writes again is a part of it.
        store = open(dir.path(), [None; 2], [begun, Seq(0)]);
        history.heads[0] = begun;
        for _ in 0..2 {
            store.apply(R, &[batch(&mut history, &[step], 5)]).unwrap();
        }
        store.replayed();
        store.take_bad_places();
        store.read(VOLUME, 0, BLOCK).unwrap_err();
        store.take_bad_places();
        let block = 2 * BLOCK_U64;
        assert_eq!(store.read(VOLUME, block, BLOCK).unwrap(), expected[2 * BLOCK..3 * BLOCK]);
        store.apply(R, &[batch(&mut history, &[(W, 0, BLOCK)], 9)]).unwrap();
        assert_eq!(store.read(VOLUME, 0, BLOCK).unwrap(), [9; BLOCK].as_slice());
        assert_eq!(store.take_bad_places(), []);
    }
}

#[test]
fn many_small_writes_of_one_round_cost_few_writes_of_checksums() {
    let dir = tempfile::tempdir().unwrap();
    let (mut history, mut store, _) = begin(dir.path());
    let steps: Vec<Step> = (0..200).map(|n| (W, n * 5 * BLOCK_U64, BLOCK)).collect();
    let all = batch(&mut history, &steps, 3);
    testing::watch();
    store.apply(R, &[all]).unwrap();
    let sums = |act: &&Act| matches!(act, Act::Wrote(path, at, _) if path.extension().is_some() && *at >= record_at(0));
    let written =
        testing::seen().iter().filter(sums).filter(|act| format!("{act:?}").contains(".sums")).count();
    assert_eq!(written, 2, "of 996 records");
    for n in 0..200 {
        assert_eq!(store.read(VOLUME, n * 5 * BLOCK_U64, BLOCK).unwrap(), [3; BLOCK].as_slice());
        assert_eq!(store.read(VOLUME, (n * 5 + 1) * BLOCK_U64, BLOCK).unwrap(), [0; BLOCK].as_slice());
    }
}
