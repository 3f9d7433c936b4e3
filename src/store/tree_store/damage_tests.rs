//! Damage of every kind to every file of the store: it is refused by name, or does no harm; what is read is what was
//! written, and nothing is cut.

use super::tests::{put, with_orders};
use super::*;
use crate::base::Prng;
use crate::store::testkit::History;
use crate::store::{StoreRead, StoreSnapshot};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

const A: Ordinal = Ordinal(0);
const R: JournalKind = JournalKind::Replicated;
/// Items of the store that is damaged.
const ITEMS: u32 = 600;

fn value_of(n: u32) -> Vec<u8> {
    let len = if n == 77 { 9000 } else { 40 + usize::try_from(n % 50).unwrap() };
    n.to_le_bytes().iter().copied().cycle().take(len).collect()
}

/// A store with several tables; returns its file and the last entry applied.
fn fill(dir: &Path) -> (FileId, [Seq; 2]) {
    let mut opened = TreeStore::open(dir, &dir.join("volumes"), A).unwrap();
    let (mut history, file): (History, FileId) = with_orders(&mut opened);
    for part in 0..3 {
        let ids = (0..ITEMS).filter(|n| n % 3 == part);
        let puts: Vec<_> = ids.map(|n| put(file, &n.to_be_bytes(), &value_of(n))).collect();
        opened.writer.apply(R, &[history.seal(R, &puts)]).unwrap();
        opened.writer.checkpoint().unwrap();
    }
    let applied = opened.writer.applied();
    // The next start removes what only the last one needed.
    drop(opened);
    drop(TreeStore::open(dir, &dir.join("volumes"), A).unwrap());
    (file, applied)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for found in std::fs::read_dir(dir).unwrap() {
        let path = found.unwrap().path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all.sort();
    all
}

/// Opens and reads everything, by scan and one by one; returns what was refused, with its words.
fn read_all(dir: &Path, file: FileId, applied: [Seq; 2]) -> Vec<String> {
    let opened = match TreeStore::open(dir, &dir.join("volumes"), A) {
        Ok(opened) => opened,
        Err(error) => return vec![error.to_string()],
    };
    let mut refused = Vec::new();
    assert_eq!(opened.applied, applied, "nothing is cut");
    match opened.reader.snapshot().scan(file, 0, None, usize::MAX, true) {
        Ok(found) => {
            assert_eq!(found.len(), usize::try_from(ITEMS).unwrap());
            for ((id, value), n) in found.iter().zip(0..) {
                assert_eq!((&id[..], &value[..]), (&u32::to_be_bytes(n)[..], value_of(n).as_slice()));
            }
        }
        Err(error) => refused.push(error.to_string()),
    }
    for n in 0..ITEMS {
        match opened.reader.snapshot().get(file, 0, &n.to_be_bytes()) {
            Ok(found) => assert_eq!(found.as_deref(), Some(value_of(n).as_slice()), "item {n}"),
            Err(error) => refused.push(error.to_string()),
        }
    }
    refused
}

fn copy(from: &Path, to: &Path) {
    for path in files(from) {
        let target = to.join(path.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(&path, target).unwrap();
    }
}

#[test]
fn rot_in_any_file_is_refused_by_name_or_does_no_harm_and_nothing_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (file, applied) = fill(dir.path());
    assert!(read_all(dir.path(), file, applied).is_empty());
    let (mut prng, mut refusals) = (Prng::new(9), 0);
    for path in files(dir.path()) {
        let name = path.strip_prefix(dir.path()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let len = whole.len() as u64;
        for round in 0..30 {
            let damaged = tempfile::tempdir().unwrap();
            copy(dir.path(), damaged.path());
            let mut bytes = whole.clone();
            match round % 3 {
                _ if len == 0 => bytes.push(1),
                0 => bytes[usize::try_from(prng.below(len)).unwrap()] ^= 1 << prng.below(8),
                1 => bytes.truncate(usize::try_from(prng.below(len)).unwrap()),
                _ => {
                    let at = usize::try_from(prng.below(len)).unwrap();
                    let end = (at + 512).min(bytes.len());
                    bytes[at..end].fill(0);
                }
            }
            let harmless = bytes == whole;
            std::fs::write(damaged.path().join(name), &bytes).unwrap();
            let what = format!("{} round {round}", name.display());
            let read = catch_unwind(AssertUnwindSafe(|| read_all(damaged.path(), file, applied)));
            let refused = read.unwrap_or_else(|_| panic!("{what}: a panic"));
            refusals += usize::from(!refused.is_empty());
            let named = |text: &String| text.contains("damaged") || text.contains("store");
            assert!(refused.iter().all(named), "{what}: {refused:?}");
            assert!(!harmless || refused.is_empty(), "{what}: {refused:?}");
            if name.ends_with("current") || name.parent().is_some_and(|dir| dir.ends_with("tree")) {
                assert!(harmless || !refused.is_empty(), "{what}: believed");
            }
        }
    }
    assert!(refusals > 50, "{refusals} refusals");
}

#[test]
fn a_file_that_is_missing_is_refused_by_name_and_no_other_is_removed_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (file, applied) = fill(dir.path());
    for path in files(dir.path()) {
        let name = path.strip_prefix(dir.path()).unwrap();
        let of_tree = name.starts_with("tree");
        let damaged = tempfile::tempdir().unwrap();
        copy(dir.path(), damaged.path());
        std::fs::remove_file(damaged.path().join(name)).unwrap();
        let before = files(damaged.path());
        let refused = read_all(damaged.path(), file, applied);
        assert_eq!(!refused.is_empty(), of_tree, "{}: {refused:?}", name.display());
        if of_tree {
            assert!(refused[0].contains("damaged"), "{}: {refused:?}", name.display());
            assert_eq!(files(damaged.path()), before, "{}", name.display());
        }
    }
    std::fs::remove_dir_all(dir.path().join("tree")).unwrap();
    let refused = read_all(dir.path(), file, applied);
    assert!(refused[0].contains("the directory `tree` is missing"), "{refused:?}");
}
