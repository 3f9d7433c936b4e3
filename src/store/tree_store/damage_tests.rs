//! Damage of every kind to every file of the store: it is refused by name, or does no harm; what is read is what was
//! written, and nothing is cut.

use super::tests::{put, with_orders};
use super::*;
use crate::base::Prng;
use crate::store::testkit::History;
use crate::store::{StoreRead, StoreSnapshot, Tried};
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
    fill_with(dir, ITEMS)
}

fn fill_with(dir: &Path, items: u32) -> (FileId, [Seq; 2]) {
    let mut opened = TreeStore::open(dir, &dir.join("volumes"), A).unwrap();
    let (mut history, file): (History, FileId) = with_orders(&mut opened);
    for part in 0..3 {
        let ids = (0..items).filter(|n| n % 3 == part);
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

/// Reads as the page cache does that holds everything.
fn cached(file: &File, buffer: &mut Vec<u8>, most: usize, at: u64) -> std::io::Result<usize> {
    let mut part = vec![0; most];
    let got = std::os::unix::fs::FileExt::read_at(file, &mut part, at)?;
    buffer.extend_from_slice(&part[..got]);
    Ok(got)
}

/// Opens and reads everything, by scan and one by one, in each way that there is; returns what was refused, with its
/// words.
fn read_all(dir: &Path, file: FileId, applied: [Seq; 2]) -> Vec<String> {
    read_items(dir, file, applied, ITEMS)
}

fn read_items(dir: &Path, file: FileId, applied: [Seq; 2], items: u32) -> Vec<String> {
    // The first of these finds nothing in the cache of blocks.
    let both = [true, false].map(|first| {
        let opened =
            TreeStore::open(dir, &dir.join("volumes"), A).map_err(|error| vec![error.to_string()])?;
        assert_eq!(opened.applied, applied, "nothing is cut");
        let snapshot = opened.reader.clone().with_cached_reads(cached).snapshot();
        Ok(if first { read_cached(&snapshot, file, items) } else { read_waiting(&snapshot, file, items) })
    });
    let [cached, waiting] = both.map(|refused: Result<_, Vec<String>>| refused.unwrap_or_else(|words| words));
    assert_eq!(cached.is_empty(), waiting.is_empty(), "{cached:?} {waiting:?}");
    [cached, waiting].concat()
}

fn check_all(found: &[(Bytes, Bytes)], items: u32) {
    assert_eq!(found.len(), usize::try_from(items).unwrap());
    for ((id, value), n) in found.iter().zip(0..) {
        assert_eq!((&id[..], &value[..]), (&u32::to_be_bytes(n)[..], value_of(n).as_slice()));
    }
}

fn read_cached(snapshot: &Snapshot, file: FileId, items: u32) -> Vec<String> {
    let mut refused = Vec::new();
    for n in 0..items {
        match snapshot.try_get(file, 0, &n.to_be_bytes()) {
            Ok(found) => assert_eq!(found, Tried::Done(Some(value_of(n).into())), "item {n}"),
            Err(error) => refused.push(error.to_string()),
        }
    }
    match snapshot.try_scan(file, 0, None, usize::MAX, true) {
        Ok(Tried::Done(found)) => check_all(&found, items),
        Ok(Tried::Cold) => panic!("everything is in the page cache"),
        Err(error) => refused.push(error.to_string()),
    }
    refused
}

fn read_waiting(snapshot: &Snapshot, file: FileId, items: u32) -> Vec<String> {
    let mut refused = Vec::new();
    match snapshot.scan(file, 0, None, usize::MAX, true) {
        Ok(found) => check_all(&found, items),
        Err(error) => refused.push(error.to_string()),
    }
    for n in 0..items {
        match snapshot.get(file, 0, &n.to_be_bytes()) {
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

/// The whole content of a directory.
type Content = std::collections::BTreeMap<PathBuf, Vec<u8>>;

fn content(dir: &Path) -> Content {
    files(dir).into_iter().map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect()
}

/// Makes a directory hold what it held.
fn restore(dir: &Path, before: &Content) {
    let now = content(dir);
    now.keys()
        .filter(|path| !before.contains_key(*path))
        .for_each(|path| std::fs::remove_file(path).unwrap());
    for (path, bytes) in before.iter().filter(|(path, bytes)| now.get(*path) != Some(bytes)) {
        std::fs::write(path, bytes).unwrap();
    }
}

/// Reads everything of a store that was damaged: no panic, and every refusal has a name. Whether it was refused.
fn refuses(dir: &Path, (file, applied): (FileId, [Seq; 2]), items: u32, what: &str) -> bool {
    let read = catch_unwind(AssertUnwindSafe(|| read_items(dir, file, applied, items)));
    let refused = read.unwrap_or_else(|_| panic!("{what}: a panic"));
    let named = |text: &String| text.contains("damaged") || text.contains("store");
    assert!(refused.iter().all(named), "{what}: {refused:?}");
    !refused.is_empty()
}

/// Items of a store of which every byte is damaged, one after the other.
const FEW: u32 = 9;

/// Each of them takes a while: every so-manieth byte is tried, all of them where there is time.
fn stride() -> usize {
    if std::env::var_os("HB_TIER").is_some_and(|tier| tier == "ci") { 1 } else { STRIDE }
}
const STRIDE: usize = 7;

#[test]
fn a_flip_of_any_byte_and_a_cut_at_any_byte_of_any_table_or_manifest_serves_nothing_wrong_and_cuts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let stored = fill_with(dir.path(), FEW);
    let before = content(dir.path());
    assert!(!refuses(dir.path(), stored, FEW, "undamaged"));
    let (mut tables, mut harmless) = (0, 0);
    let of_tree = |path: &Path| path.strip_prefix(dir.path()).unwrap().starts_with("tree");
    for (path, whole) in before.iter().filter(|(path, _)| of_tree(path)) {
        let name = path.strip_prefix(dir.path()).unwrap().display().to_string();
        tables += usize::from(name.contains("tables"));
        for at in (tables % stride()..whole.len()).step_by(stride()) {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            std::fs::write(path, &flipped).unwrap();
            harmless += usize::from(!refuses(dir.path(), stored, FEW, &format!("{name} byte {at}")));
            restore(dir.path(), &before);
            std::fs::write(path, &whole[..at]).unwrap();
            assert!(refuses(dir.path(), stored, FEW, &format!("{name} cut at {at}")), "{name} cut at {at}");
            restore(dir.path(), &before);
        }
    }
    assert!(tables >= 3, "{tables} tables");
    let bytes: usize = before.iter().filter(|(path, _)| of_tree(path)).map(|(_, whole)| whole.len()).sum();
    assert!(harmless < bytes / 4 / stride(), "{harmless} flips of {bytes} bytes were harmless");
}

#[test]
fn a_table_in_the_place_of_another_and_files_that_do_not_belong_there_serve_nothing_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let stored = fill_with(dir.path(), FEW);
    let before = content(dir.path());
    let tables: Vec<&PathBuf> =
        before.keys().filter(|path| path.parent().is_some_and(|dir| dir.ends_with("tables"))).collect();
    for one in &tables {
        for other in tables.iter().filter(|other| *other != one) {
            std::fs::write(one, &before[*other]).unwrap();
            let what = format!("{} has what was {}", one.display(), other.display());
            assert!(refuses(dir.path(), stored, FEW, &what), "{what}");
            restore(dir.path(), &before);
        }
    }
    let tree = dir.path().join("tree");
    for stray in ["tables/4711", "tables/word", "v4711", ".tmpabc", "word"] {
        for bytes in [&b""[..], b"some bytes", &before[tables[0]]] {
            std::fs::write(tree.join(stray), bytes).unwrap();
            // It is in order, or refused by name.
            refuses(dir.path(), stored, FEW, stray);
            restore(dir.path(), &before);
        }
    }
    assert!(!refuses(dir.path(), stored, FEW, "restored"));
}
