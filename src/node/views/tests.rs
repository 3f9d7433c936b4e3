//! The blocks of a view against a plain copy: random reads, writes, zeros and looks at allocation, over a moment that the
//! volume has left.

use super::*;
use crate::base::limits::BLOCK_U64;
use crate::base::{FileId, Prng};
use crate::engine::view::ViewBlocks as _;

const FILE: FileId = FileId(5);
const SIZE: u64 = 20 * BLOCK_U64;

#[test]
fn what_is_written_to_a_view_is_read_there_and_nowhere_else() {
    for seed in 0..30 {
        let dir = tempfile::tempdir().unwrap();
        let mut prng = Prng::new(seed);
        let room = Arc::new(Room::new(1 << 20));
        let kept = Arc::new(Kept::new(tempfile::tempfile().unwrap(), Arc::clone(&room), |_| {}));
        let written = Some((tempfile::tempfile().unwrap(), Arc::clone(&room)));
        let mut view = ViewFiles::new(dir.path().join("volumes"), kept, written);
        let mut truth = vec![0; usize::try_from(SIZE).unwrap()];
        for step in 0..120 {
            let offset = prng.below(SIZE - 1);
            let len = 1 + prng.below((SIZE - offset).min(4 * BLOCK_U64));
            let range = usize::try_from(offset).unwrap()..usize::try_from(offset + len).unwrap();
            match prng.below(4) {
                0 => {
                    view.zero(FILE, offset, len).unwrap();
                    truth[range].fill(0);
                }
                1 | 2 => {
                    let fill = u8::try_from(1 + prng.below(255)).unwrap();
                    view.write(FILE, offset, &vec![fill; range.len()]).unwrap();
                    truth[range].fill(fill);
                }
                _ => {
                    let parts = view.allocation(FILE, offset, len).unwrap();
                    let mut at = range.start;
                    for (len, hole) in parts {
                        let until = at + usize::try_from(len).unwrap();
                        assert!(
                            !hole || truth[at..until].iter().all(|b| *b == 0),
                            "seed {seed}, step {step}"
                        );
                        at = until;
                    }
                    assert_eq!(at, range.end, "seed {seed}, step {step}");
                }
            }
            let found = view.read(FILE, offset, usize::try_from(len).unwrap()).unwrap();
            let range = usize::try_from(offset).unwrap()..usize::try_from(offset + len).unwrap();
            assert!(found == truth[range], "seed {seed}, step {step}");
        }
        let all = view.read(FILE, 0, truth.len()).unwrap();
        assert!(all == truth, "seed {seed}");
        assert!(room.used() > 0 && !dir.path().join("volumes").exists());
    }
}

#[test]
fn a_write_beyond_the_room_of_a_view_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let room = Arc::new(Room::new(2 * BLOCK_U64));
    let kept = Arc::new(Kept::new(tempfile::tempfile().unwrap(), Arc::clone(&room), |_| {}));
    let written = Some((tempfile::tempfile().unwrap(), Arc::clone(&room)));
    let mut view = ViewFiles::new(dir.path().to_owned(), kept, written);
    view.write(FILE, 0, &[1; 8192]).unwrap();
    assert_eq!(view.write(FILE, 8192, &[1; 4096]), Err(crate::base::Fault::NoSpace));
    assert_eq!(view.read(FILE, 8192, 4096).unwrap(), vec![0; 4096]);
    view.write(FILE, 100, &[2; 200]).unwrap();
    assert_eq!(room.used(), 2 * BLOCK_U64, "what stands there is written over in place");
}
