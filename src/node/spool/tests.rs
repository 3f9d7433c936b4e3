use super::*;
use crate::base::limits::BLOCK;
use crate::base::{Chain, Epoch, FileId, Position, SegmentIndex, Seq};
use crate::format::batch::{BatchBuilder, Seal};
use crate::format::entry::{Entry, EntryKind};
use crate::format::segment::SegmentHeader;
use crate::format::spool::PART_TRAILER;
use std::path::PathBuf;

pub(in crate::node) const PAIR: PairId = PairId([7; 16]);

/// A segment with batches of two entries each, and the part that it becomes.
pub(in crate::node) fn segment(index: u64, base: Position, batches: u64) -> (PartHeader, Vec<u8>) {
    let header = SegmentHeader {
        journal: JournalKind::Replicated,
        index: SegmentIndex(index),
        base,
        pair: PAIR,
        wall_ms: 0,
    };
    let mut bytes = header.encode().to_vec();
    let mut end = base;
    for _ in 0..batches {
        let mut builder = BatchBuilder::new(end.seq.next(), 0);
        for id in [b"one", b"two"] {
            builder.push(&Entry {
                kind: EntryKind::Put,
                file: FileId(10),
                id,
                value: &[index.to_le_bytes()[0]; 3000],
            });
        }
        let (epoch, journal) = (Epoch(2), JournalKind::Replicated);
        let seal = Seal { epoch, prev_chain: end.chain, durable: Seq(0), wall_ms: 0, pair: PAIR, journal };
        let batch = builder.seal(&seal);
        bytes.extend_from_slice(batch.disk());
        end = batch.end();
    }
    let bytes_len = bytes.len() as u64;
    let (ordinal, index) = (Ordinal(0), SegmentIndex(index));
    (PartHeader { pair: PAIR, ordinal, index, base, end, bytes: bytes_len, wall_ms: 5 }, bytes)
}

pub(in crate::node) fn start() -> Position {
    Position { epoch: Epoch(2), seq: Seq(40), chain: Chain(9) }
}

fn spool(dir: &Path) -> SpoolDir {
    let dir = SpoolDir::of(&format!("file:{}", dir.display()), PAIR, Ordinal(0)).unwrap();
    dir.make().unwrap();
    dir
}

fn write(dir: &SpoolDir, part: &PartHeader, bytes: &[u8]) -> Result<(), WriteError> {
    dir.write(part, |offset, len| {
        let at = usize::try_from(offset).unwrap();
        Ok(bytes::Bytes::copy_from_slice(&bytes[at..bytes.len().min(at + len)]))
    })
}

/// Three parts that follow each other.
fn three(dir: &SpoolDir) -> Vec<PartHeader> {
    let mut base = start();
    (1..4)
        .map(|index| {
            let (part, bytes) = segment(index, base, 400);
            write(dir, &part, &bytes).unwrap();
            base = part.end;
            part
        })
        .collect()
}

fn path(dir: &SpoolDir, part: &PartHeader) -> PathBuf {
    dir.path().join(part.file_name())
}

#[test]
fn parts_are_found_again_by_the_index_or_without_it_and_read_as_they_were() {
    let temp = tempfile::tempdir().unwrap();
    let dir = spool(temp.path());
    let parts = three(&dir);
    assert_eq!(dir.list().unwrap().parts, parts);
    let index = dir.path().join("index");
    for damage in
        [&b""[..], b"garbage that is longer than one record of the index would be, so that it is looked at"]
    {
        std::fs::write(&index, damage).unwrap();
        let found = dir.list().unwrap();
        assert_eq!((found.parts, found.damaged), (parts.clone(), Vec::new()));
    }
    std::fs::remove_file(&index).unwrap();
    assert_eq!(dir.list().unwrap().parts, parts);
    dir.write_index(&parts).unwrap();
    assert_eq!(dir.list().unwrap().parts, parts);
    let (_, bytes) = segment(1, start(), 400);
    assert_eq!(dir.read(&parts[0], 4096, 8192).unwrap(), bytes[4096..12_288]);
    assert_eq!(
        dir.read(&parts[0], parts[0].bytes - 4096, 1 << 20).unwrap().len(),
        4096,
        "not into the trailer"
    );
    let mut entries = 0;
    assert_eq!(
        dir.walk(&parts[1].file_name(), |_, batch| {
            entries += batch.header().count;
            Ok(())
        }),
        Ok(parts[1])
    );
    assert_eq!(entries, 800);
}

#[test]
fn a_part_has_its_name_only_when_all_of_it_is_durable_and_every_failed_sync_is_told() {
    let (part, bytes) = segment(1, start(), 20);
    crate::io::calls::assert_syncs(
        2,
        |dir| drop(spool(dir)),
        |dir| match write(&spool(dir), &part, &bytes) {
            Ok(()) => Ok(()),
            Err(WriteError::Spool(error)) => Err(error),
            Err(other) => panic!("{other:?}"),
        },
    );
}

#[test]
fn a_segment_that_is_not_what_it_was_becomes_no_part() {
    let temp = tempfile::tempdir().unwrap();
    let dir = spool(temp.path());
    let (part, bytes) = segment(1, start(), 50);
    let mut end = part;
    end.end.seq = Seq(part.end.seq.0 + 1);
    let mut base = part;
    base.base.chain = Chain(1);
    assert!(write(&dir, &end, &bytes).is_err(), "it ends before its last entry");
    assert!(write(&dir, &base, &bytes).is_err(), "it is of another history");
    for at in [100, BLOCK + 20, BLOCK + 2000, bytes.len() - 3000] {
        let mut bad = bytes.clone();
        bad[at] ^= 4;
        // What pads a batch to its block says nothing, and is kept as it is.
        let harmless = write(&dir, &part, &bad).is_ok();
        assert!(!harmless || dir.walk(&part.file_name(), |_, _| Ok(())).is_ok(), "byte {at}");
        assert!(at > BLOCK + 2000 || !harmless, "byte {at}");
    }
    let left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("tmp")), "{left:?}");
}

#[test]
fn every_byte_of_a_part_is_covered_and_damage_is_told_with_the_last_entry_before_it() {
    let temp = tempfile::tempdir().unwrap();
    let dir = spool(temp.path());
    let (part, bytes) = segment(1, start(), 4);
    write(&dir, &part, &bytes).unwrap();
    let whole = std::fs::read(path(&dir, &part)).unwrap();
    assert_eq!(whole.len() as u64, part.file_bytes());
    for at in (0..whole.len()).step_by(37).chain(whole.len() - PART_TRAILER..whole.len()) {
        let mut bad = whole.clone();
        bad[at] ^= 1;
        std::fs::write(path(&dir, &part), &bad).unwrap();
        let told = dir.walk(&part.file_name(), |_, _| Ok(())).unwrap_err();
        let in_batches = (2 * BLOCK..whole.len() - PART_TRAILER).contains(&at);
        if in_batches && let Some(good) = told.good_to {
            let batch = (at - 2 * BLOCK) / (2 * BLOCK);
            assert_eq!(good, 40 + 2 * batch as u64, "byte {at}: {told:?}");
        }
    }
    std::fs::write(path(&dir, &part), &whole[..whole.len() - 1]).unwrap();
    let found = dir.list().unwrap();
    assert!(found.parts.is_empty() && found.damaged.len() == 1, "a part that is cut is none: {found:?}");
}

#[test]
fn what_was_left_unfinished_goes_and_what_is_not_ours_stays() {
    let temp = tempfile::tempdir().unwrap();
    let dir = spool(temp.path());
    three(&dir);
    let unfinished = dir.path().join(".00000000000000000041-0000000001-0000000000000000.hbp.hot-backup-tmp");
    std::fs::write(&unfinished, b"half").unwrap();
    std::fs::write(dir.path().join("stranger"), b"x").unwrap();
    dir.tidy().unwrap();
    assert!(!unfinished.exists() && dir.path().join("stranger").exists());
    assert_eq!(dir.list().unwrap().parts.len(), 3);
}

#[test]
fn a_place_that_is_not_mounted_is_not_made() {
    let temp = tempfile::tempdir().unwrap();
    let place = format!("file:{}/mnt", temp.path().display());
    let dir = SpoolDir::of(&place, PAIR, Ordinal(1)).unwrap();
    assert_eq!(dir.make().unwrap_err().kind(), io::ErrorKind::NotFound);
    assert!(!temp.path().join("mnt").exists());
    for bad in ["", "/mnt", "file:mnt", "tape:/dev/nst0"] {
        assert!(SpoolDir::of(bad, PAIR, Ordinal(0)).is_err(), "{bad}");
    }
}

#[test]
fn a_history_is_in_order_without_gaps_and_of_one_branch() {
    let temp = tempfile::tempdir().unwrap();
    let dir = spool(temp.path());
    let parts = three(&dir);
    let seqs = |from, until| {
        let mut seqs = Vec::new();
        let mut store = PartStore::from(dir.clone());
        History::of(&store, from, until)?.walk(&mut store, |batch| {
            seqs.extend(batch.entries().map(|(seq, _)| seq.0));
            Ok(())
        })?;
        Ok::<_, HistoryError>(seqs)
    };
    assert_eq!(seqs(41, u64::MAX).unwrap(), (41..=2440).collect::<Vec<_>>());
    assert_eq!(seqs(900, 1000).unwrap().first(), Some(&841), "only parts that hold something of it");
    assert!(matches!(seqs(30, u64::MAX), Err(HistoryError::Gap { from: 30, to: 40 })));
    // The second one is cut by a later segment of another branch that begins within it.
    let mut ends = Vec::new();
    dir.walk(&parts[1].file_name(), |_, batch| {
        ends.push(batch.end());
        Ok(())
    })
    .unwrap();
    std::fs::remove_file(path(&dir, &parts[2])).unwrap();
    let (branch, bytes) = segment(5, ends[10], 30);
    write(&dir, &branch, &bytes).unwrap();
    let found = seqs(41, u64::MAX).unwrap();
    assert_eq!(found, (41..=branch.end.seq.0).collect::<Vec<_>>(), "each number once");
    // One that only has the same numbers is not taken for it.
    std::fs::remove_file(path(&dir, &branch)).unwrap();
    let (other, bytes) = segment(6, Position { chain: Chain(3), ..ends[10] }, 30);
    write(&dir, &other, &bytes).unwrap();
    assert!(matches!(seqs(41, u64::MAX), Err(HistoryError::Other { .. })));
    std::fs::remove_file(path(&dir, &other)).unwrap();
    std::fs::remove_file(path(&dir, &parts[0])).unwrap();
    assert!(matches!(seqs(41, u64::MAX), Err(HistoryError::Gap { from: 41, to: 840 })));
}
