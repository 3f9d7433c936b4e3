//! A moment of volumes stays what it was, whatever is written, punched, emptied or deleted afterwards; and one that has no
//! room any more ends, and tells nothing.

use super::*;
use crate::base::Prng;
use crate::base::limits::BLOCK_U64;

const FILE: FileId = FileId(4);

fn kept(room: u64) -> (Arc<Kept>, Arc<Room>) {
    let room = Arc::new(Room::new(room));
    (Arc::new(Kept::new(tempfile::tempfile().unwrap(), Arc::clone(&room), |_| {})), room)
}

#[test]
fn a_map_of_blocks_knows_of_each_block_what_was_said_last() {
    for seed in 0..200 {
        let (mut prng, mut map, mut truth) = (Prng::new(seed), BlockMap::default(), [None; 60]);
        for _ in 0..40 {
            let first = prng.below(59);
            let blocks = 1 + prng.below((60 - first).min(12));
            let held = match prng.below(4) {
                0 => Held::Zeros,
                1 => Held::Damaged,
                _ => Held::At(prng.below(50) * BLOCK_U64),
            };
            map.set(FILE, first, blocks, held);
            for n in 0..blocks {
                truth[usize::try_from(first + n).unwrap()] = Some(match held {
                    Held::At(at) => Held::At(at + n * BLOCK_U64),
                    other => other,
                });
            }
            let (from, to) = (prng.below(30), 30 + prng.below(31));
            let mut at = from;
            for (first, blocks, held) in map.within(FILE, from, to) {
                assert_eq!(first, at, "seed {seed}");
                for n in 0..blocks {
                    let expected = held.map(|held| match held {
                        Held::At(at) => Held::At(at + n * BLOCK_U64),
                        other => other,
                    });
                    assert_eq!(truth[usize::try_from(first + n).unwrap()], expected, "seed {seed}");
                }
                at += blocks;
            }
            assert_eq!(at, to);
        }
        assert_eq!(map.within(FileId(9), 3, 5), [(3, 2, None)]);
    }
}

#[test]
fn keeping_ends_once_its_room_is_used_up_and_whoever_writes_does_not_hear_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = VolumeFiles::open(dir.path()).unwrap();
    let write = |files: &mut VolumeFiles, block: u64, fill: u8| {
        let runs = [(block * BLOCK_U64, Bytes::from(vec![fill; 4096]))];
        files.apply(&Plan::of_range(FILE, block * BLOCK_U64, BLOCK_U64, &runs), |_| false).unwrap();
    };
    (0..4).for_each(|block| write(&mut files, block, 7));
    let room = Arc::new(Room::new(2 * BLOCK_U64));
    let (told, ends) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let kept = Kept::new(tempfile::tempfile().unwrap(), Arc::clone(&room), move |why| {
        told.lock().unwrap().send(why).unwrap();
    });
    let kept = Arc::new(kept);
    files.keep_for(Arc::clone(&kept));
    write(&mut files, 0, 8);
    write(&mut files, 0, 9);
    write(&mut files, 1, 8);
    assert_eq!((room.used(), kept.end()), (2 * BLOCK_U64, None));
    let live = |_, _| Ok(None);
    assert_eq!(kept.read_blocks(FILE, (0, 2), live).unwrap(), vec![7; 8192]);
    write(&mut files, 2, 8);
    write(&mut files, 3, 8);
    assert_eq!(kept.end(), Some(KeepEnd::Room));
    assert_eq!(ends.try_iter().collect::<Vec<_>>(), [KeepEnd::Room], "told once");
    assert_eq!(kept.read_blocks(FILE, (0, 2), live), Err(Fault::Errno(5)));
    assert_eq!(files.read(FILE, 3 * BLOCK_U64, 4096, false).unwrap().unwrap(), vec![8; 4096]);
}

#[test]
fn a_block_that_was_damaged_already_is_no_answer_and_its_neighbours_are() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = VolumeFiles::open(dir.path()).unwrap();
    let bytes = Bytes::from(vec![7; 3 * 4096]);
    files.apply(&Plan::of_range(FILE, 0, 3 * BLOCK_U64, &[(0, bytes)]), |_| false).unwrap();
    let data = std::fs::OpenOptions::new().write(true).open(part_path(dir.path(), FILE, 0)).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&data, b"rot", 4096).unwrap();
    let (kept, _) = kept(1 << 20);
    files.keep_for(Arc::clone(&kept));
    files.apply(&Plan::of_emptied([FILE]), |_| false).unwrap();
    let live = |_, _| Ok(None);
    assert_eq!(kept.read_blocks(FILE, (0, 1), live).unwrap(), vec![7; 4096]);
    assert_eq!(kept.read_blocks(FILE, (2, 3), live).unwrap(), vec![7; 4096]);
    assert_eq!(kept.read_blocks(FILE, (0, 3), live), Err(Fault::UNCLEAN));
}
