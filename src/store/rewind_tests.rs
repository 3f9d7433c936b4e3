//! The rule of a rewind against random histories: whatever two nodes did after they parted, what either touched is enough.

use super::memory::MemoryStore;
use super::testkit::History;
use super::{CopySource as _, CopyTarget as _, StoreWrite as _};
use crate::base::{Chain, Epoch, FileId, JournalKind, Ordinal, Position};
use crate::format::batch::Batch;
use crate::format::chunk::{Content, CopyBegin, Next, Progress, Want, WantFrom};
use crate::format::dptr::{DptrKind, LoggingMode};
use crate::format::rewind::Ranges;
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;

const R: JournalKind = JournalKind::Replicated;

/// A node with its store.
struct Node {
    history: History,
    store: MemoryStore,
    touched: Ranges,
}

impl Node {
    fn new(node: u8, seed: u64) -> Self {
        let (node, touched) = (Ordinal(node), Ranges::default());
        Self { history: History::new(node, seed), store: MemoryStore::new(node), touched }
    }

    /// Something happens on it as primary; what of it is replicated.
    fn acts(&mut self) -> Vec<Batch> {
        let mut made = vec![self.history.random(25)];
        // What changes while logging is paused is marked, which is not this test's matter.
        if self.history.ahead.mode() == LoggingMode::Paused {
            made.push(self.history.change(|ns| ns.resume_logging()));
        }
        for (journal, batch) in &made {
            self.store.apply(*journal, std::slice::from_ref(batch)).unwrap();
            if *journal == R {
                batch.entries().for_each(|(_, entry)| self.touched.note(&entry));
            }
        }
        made.into_iter().filter(|(journal, _)| *journal == R).map(|(_, batch)| batch).collect()
    }

    /// As standby.
    fn follows(&mut self, batch: &Batch) {
        self.store.apply(R, std::slice::from_ref(batch)).unwrap();
        for (_, entry) in batch.entries() {
            self.history.ahead.apply(self.history.node, R, &entry).unwrap();
        }
        self.history.heads[0] = batch.header().last_seq();
    }

    fn content(&self) -> BTreeMap<FileId, Vec<(Bytes, Bytes)>> {
        let names = self.store.namespace();
        let replicated = names.files().filter(|(_, info)| info.replicated);
        replicated.map(|(id, _)| (id, self.store.items(id))).collect()
    }
}

/// Takes everything that is wanted of a file's items.
fn take(here: &mut Node, there: &Node, ranges: &Ranges, file: FileId, most: u32) {
    let mut at = Next::Items(file, Bytes::new());
    while let Some((Next::Items(_, after), end)) = ranges.next(&at) {
        let from = match end {
            Some(Next::Items(_, through)) => WantFrom::ItemsTo(after, through),
            _ => WantFrom::Items(after),
        };
        let chunk = there.store.range(&Want { id: 1, file, from, most, unless: None }).unwrap();
        here.store.take_chunk(&chunk, &Progress::at(Position::default())).unwrap();
        match chunk.content {
            Content::Items { through, .. } if !chunk.ends => at = Next::Items(file, through),
            _ => return,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn what_either_node_touched_since_they_parted_is_all_that_a_rewind_has_to_bring(
        seed in any::<u64>(), shared in 0..40_usize, own in 0..15_usize, theirs in 0..15_usize, most in 1..400_u32,
    ) {
        let (mut here, mut there) = (Node::new(0, seed), Node::new(1, !seed));
        for _ in 0..shared {
            here.acts().iter().for_each(|batch| there.follows(batch));
        }
        here.touched = Ranges::default();
        (0..own).for_each(|_| drop(here.acts()));
        (0..theirs).for_each(|_| drop(there.acts()));

        let ([seq, _], namespace) = there.store.definitions().unwrap();
        let mut ranges = there.touched.clone();
        ranges.add(&here.touched);
        for file in here.store.namespace().apart(&namespace).unwrap() {
            ranges.whole(file);
        }
        let ranges = ranges.bounded().unwrap();
        let was_local: Vec<FileId> = {
            let names = here.store.namespace();
            names.files().filter(|(_, info)| !info.replicated).map(|(id, _)| id).collect()
        };
        let was_local: Vec<FileId> =
            was_local.into_iter().filter(|file| !there.content().contains_key(file)).collect();
        let origin = Position { epoch: Epoch(2), seq, chain: Chain(1) };
        let begin = CopyBegin { origin, size: 0, table: Vec::new(), namespace };
        here.store.begin_copy(&begin, Some(&ranges)).unwrap();
        let files: Vec<FileId> = ranges.files_from(FileId(0)).collect();
        for file in files {
            let kind = here.store.namespace().file(file).filter(|info| info.replicated).map(|info| info.dptr.kind);
            if kind == Some(DptrKind::Records) {
                take(&mut here, &there, &ranges, file, most);
            }
        }
        let mut found = here.content();
        // A local file may be replicated once the flags of its account are those of the other node.
        found.retain(|file, _| !was_local.contains(file));
        prop_assert_eq!(found, there.content());
    }
}
