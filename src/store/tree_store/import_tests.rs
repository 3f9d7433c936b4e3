//! Stores of version 0.1, written by its engine as that version wrote them, and starts that were interrupted.

use super::import::{mark, open_old};
use super::*;
use crate::store::memory::MemoryStore;
use crate::store::testkit::History;
use crate::store::{StoreRead, StoreSnapshot};
use std::path::PathBuf;

const A: Ordinal = Ordinal(0);

/// A store of version 0.1 in `dir`, and the same in memory.
fn old_store(dir: &Path, seed: u64) -> MemoryStore {
    let (mut memory, mut history) = (MemoryStore::new(A), History::new(A, seed));
    for _ in 0..60 {
        let (journal, batch) = history.random(20);
        memory.apply(journal, &[batch]).unwrap();
    }
    let (database, items) = open_old(dir).unwrap();
    let mut batch = database.batch();
    let namespace = memory.namespace();
    let mut records = first_records(A);
    records.insert(keys::APPLIED.to_vec(), keys::applied_value(memory.applied()));
    records.insert(keys::NAMESPACE.to_vec(), namespace.meta());
    let ids = namespace.accounts().map(|(id, _)| id).chain(namespace.files().map(|(id, _)| id));
    records.extend(ids.map(|id| (keys::dptr(id), namespace.record(id).unwrap())));
    for (key, value) in records {
        batch.insert(&items, key, value);
    }
    let mut key = Vec::new();
    for (file, info) in namespace.files() {
        for (id, value) in memory.items(file) {
            keys::item(&mut key, file, info.dptr.generation, &id);
            batch.insert(&items, key.as_slice(), &value[..]);
        }
    }
    batch.commit().unwrap();
    database.persist(fjall::PersistMode::SyncAll).unwrap();
    memory
}

fn open(dir: &Path) -> Opened {
    TreeStore::open(dir, &dir.join("volumes"), A).unwrap()
}

fn assert_same(opened: &Opened, memory: &MemoryStore) {
    assert_eq!(opened.applied, memory.applied());
    assert_eq!(opened.namespace, *memory.namespace());
    for (file, info) in opened.namespace.files() {
        let found =
            opened.reader.snapshot().scan(file, info.dptr.generation, None, usize::MAX, true).unwrap();
        assert_eq!(found, memory.items(file));
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|found| found.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_store_of_version_0_1_is_converted_once_and_nothing_of_it_is_left() {
    for seed in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let memory = old_store(dir.path(), seed);
        assert!(names(dir.path()).contains(&"keyspaces".to_owned()));
        for _ in 0..2 {
            assert_same(&open(dir.path()), &memory);
            assert_eq!(names(dir.path()), ["tree", "tree.lock", "version"]);
        }
    }
}

#[test]
fn a_conversion_that_was_interrupted_anywhere_begins_anew_or_ends_with_all_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let memory = old_store(dir.path(), 5);
    // In the middle of the copy.
    std::fs::create_dir_all(dir.path().join("tree.tmp/tables")).unwrap();
    std::fs::write(dir.path().join("tree.tmp/tables/0"), b"half").unwrap();
    assert_same(&open(dir.path()), &memory);
    // Behind the name of the new tree, before what is old was removed.
    let other = tempfile::tempdir().unwrap();
    old_store(other.path(), 6);
    for name in names(other.path()) {
        let target: PathBuf = dir.path().join(&name);
        let _ = std::fs::remove_file(&target);
        std::fs::rename(other.path().join(&name), target).unwrap();
    }
    assert_same(&open(dir.path()), &memory);
    assert_eq!(names(dir.path()), ["tree", "tree.lock", "version"]);
}

#[test]
fn a_store_of_version_0_1_whose_journal_a_power_loss_tore_is_converted_up_to_there() {
    let dir = tempfile::tempdir().unwrap();
    let memory = old_store(dir.path(), 7);
    let journal = crate::store::torn_tail::newest_journal(dir.path()).unwrap().unwrap();
    let bytes = std::fs::read(&journal).unwrap();
    let good = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    // One more batch, whole in shape and wrong in content: a later page was kept and an earlier one lost.
    let batch = &bytes[..good];
    let mut torn = batch.to_vec();
    let middle = torn.len() / 2;
    torn[middle] ^= 0xFF;
    std::fs::write(&journal, [batch, &torn].concat()).unwrap();
    assert_same(&open(dir.path()), &memory);
    assert_eq!(names(dir.path()), ["tree", "tree.lock", "version"]);
}

#[test]
fn an_interrupted_creation_is_begun_again_but_a_version_that_is_missing_or_unknown_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    // What version 0.1 leaves when it is killed before it stored anything.
    std::fs::write(dir.path().join("lock"), b"").unwrap();
    std::fs::write(dir.path().join("0.jnl"), b"").unwrap();
    std::fs::create_dir(dir.path().join("keyspaces")).unwrap();
    std::fs::create_dir(dir.path().join("tree.tmp")).unwrap();
    drop(open(dir.path()));
    assert_eq!(names(dir.path()), ["tree", "tree.lock", "version"]);
    let dir = tempfile::tempdir().unwrap();
    old_store(dir.path(), 1);
    for (version, text) in
        [(Some(&b"FJL\x09"[..]), "not one that is known"), (None, "version file is missing")]
    {
        match version {
            Some(version) => std::fs::write(dir.path().join("version"), version).unwrap(),
            None => std::fs::remove_file(dir.path().join("version")).unwrap(),
        }
        let refused = TreeStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap_err();
        assert!(refused.to_string().contains(text), "{refused}");
        assert!(names(dir.path()).contains(&"keyspaces".to_owned()), "nothing is removed");
    }
}

#[test]
fn version_0_1_refuses_a_directory_that_was_converted_or_made_since() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    assert!(open_old(dir.path()).is_err());
    mark(dir.path()).unwrap();
}
