//! The memtable against a map of all its states.

use super::memtable::{Memtable, RECORDS, Update};
use crate::base::limits::STORE_WINDOW_ITEMS;
use crate::base::{FileId, Prng, Seq};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::convert::Infallible;

type Key = (FileId, u32, Vec<u8>);
type Model = BTreeMap<Key, Option<Vec<u8>>>;

fn random(prng: &mut Prng, ids: u64) -> (Key, Option<Vec<u8>>) {
    let file = FileId(1 + prng.below(2));
    let generation = u32::try_from(prng.below(2)).unwrap();
    let id = prng.below(ids).to_string().into_bytes();
    let len = if prng.percent(2) { 4000 + prng.below(300) } else { prng.below(60) };
    let byte = u8::try_from(prng.below(256)).unwrap();
    let value = (!prng.percent(25)).then(|| vec![byte; usize::try_from(len).unwrap()]);
    ((file, generation, id), value)
}

fn commit(table: &Memtable, updates: &[(Key, Option<Vec<u8>>)]) {
    let updates = updates.iter().map(|((file, generation, id), value)| Update {
        file: *file,
        generation: *generation,
        id,
        value: value.as_deref(),
    });
    table.commit(updates, [Seq(1); 2]);
}

fn walk(table: &Memtable, of: (FileId, u32), limit: usize, commit: u32) -> Vec<(Bytes, Option<Bytes>)> {
    let (mut all, mut after): (Vec<_>, Option<Bytes>) = (Vec::new(), None);
    loop {
        let part = table.scan(of, after.as_deref(), limit, commit, true);
        all.extend(part.items);
        match part.until {
            Some(until) => after = Some(until),
            None => return all,
        }
    }
}

fn of_model(model: &Model, of: (FileId, u32)) -> Vec<(Bytes, Option<Bytes>)> {
    let inside = model.iter().filter(|((file, generation, _), _)| (*file, *generation) == of);
    inside.map(|((_, _, id), value)| (Bytes::from(id.clone()), value.clone().map(Bytes::from))).collect()
}

#[test]
fn each_commit_is_seen_as_it_was_by_reads_and_walks_whatever_is_committed_later() {
    for seed in 0..20 {
        let mut prng = Prng::new(seed);
        let table = Memtable::new(1, seed, [Seq(0); 2]);
        let mut states = vec![Model::new()];
        for _ in 0..40 {
            let count = prng.below(60);
            let updates: Vec<_> = (0..=count).map(|_| random(&mut prng, 80)).collect();
            commit(&table, &updates);
            let mut next = states.last().unwrap().clone();
            next.extend(updates);
            states.push(next);
        }
        for (number, model) in (0..).zip(&states) {
            for ((file, generation, id), value) in
                states.last().unwrap().keys().map(|key| (key, model.get(key)))
            {
                let found = table.get((*file, *generation), id, number);
                let found = found.map(|value| value.map(|value| value.to_vec()));
                assert_eq!(found.as_ref(), value, "seed {seed} commit {number}");
            }
            for of in [(FileId(1), 0), (FileId(1), 1), (FileId(2), 0), (FileId(2), 1), (FileId(3), 0)] {
                let limit = usize::try_from(1 + prng.below(50)).unwrap();
                assert_eq!(
                    walk(&table, of, limit, number),
                    of_model(model, of),
                    "seed {seed} commit {number}"
                );
            }
        }
        let mut given = Vec::new();
        let each = |key: &[u8], value: Option<&[u8]>| {
            given.push((key.to_vec(), value.map(<[u8]>::to_vec)));
            Ok::<_, Infallible>(())
        };
        table.in_order(each).unwrap();
        assert!(given.is_sorted_by(|a, b| a.0 < b.0), "seed {seed}: keys in order, each once");
        assert_eq!(given.len(), states.last().unwrap().len());
        let again = table.rebuilt(2);
        assert!(again.dead_bytes() == 0 && table.dead_bytes() > 0);
        for of in [(FileId(1), 0), (FileId(2), 1)] {
            assert_eq!(walk(&again, of, 7, again.visible()), of_model(states.last().unwrap(), of));
        }
    }
}

#[test]
fn a_walk_over_many_items_sorts_a_part_at_a_time_and_sees_what_comes_meanwhile() {
    let table = Memtable::new(1, 3, [Seq(0); 2]);
    let count = STORE_WINDOW_ITEMS * 3 + 5;
    let key = |n: usize| (FileId(1), 0, (n * 2).to_string().into_bytes());
    let updates: Vec<_> = (0..count).map(|n| (key(n), Some(vec![1]))).collect();
    commit(&table, &updates);
    let mut model: Model = updates.into_iter().collect();
    let (mut all, mut after, mut prng): (Vec<_>, Option<Bytes>, _) = (Vec::new(), None, Prng::new(4));
    loop {
        let part = table.scan((FileId(1), 0), after.as_deref(), 500, table.visible(), true);
        all.extend(part.items);
        let Some(until) = part.until else { break };
        // Only behind the walk, so that the model knows what it finds.
        let new: Vec<_> = (0..40)
            .map(|_| ((FileId(1), 0, prng.below(100_000).to_string().into_bytes()), Some(vec![2])))
            .filter(|(key, _)| key.2[..] > until[..])
            .collect();
        commit(&table, &new);
        model.extend(new);
        after = Some(until);
    }
    assert_eq!(all, of_model(&model, (FileId(1), 0)));
}

#[test]
fn records_of_the_store_come_first_and_under_their_own_keys() {
    let table = Memtable::new(1, 1, [Seq(0); 2]);
    let record = Update { file: RECORDS.0, generation: RECORDS.1, id: &[0, 1, 1], value: Some(b"x") };
    let item = Update { file: FileId(1), generation: 0, id: b"a", value: None };
    table.commit([item, record], [Seq(1); 2]);
    let mut keys = Vec::new();
    let each = |key: &[u8], _: Option<&[u8]>| {
        keys.push(key.to_vec());
        Ok::<_, Infallible>(())
    };
    table.in_order(each).unwrap();
    assert_eq!(keys, [vec![0, 1, 1], vec![1, 1, 0, b'a']]);
}
