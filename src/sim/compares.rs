//! Compares, as the simulator's stores carry them out: in ordinary lives, beside everything else that happens to a pair. What
//! a look shows is held to the node's history, and a compare may find nothing on nodes that nothing was done to (I-45).

use super::blocks::volume_model;
use super::checker::{Items, model};
use super::effects::whole_items;
use super::operator::Purpose;
use super::options::{Mutation, Trouble};
use super::world::{Ev, Given, World};
use crate::base::limits::BLOCK_U64;
use crate::base::{Fault, FileId};
use crate::engine::admin::AdminRequest;
use crate::engine::{CompareEffect, CompareEvent};
use crate::format::chunk::{Chunk, Content};
use crate::format::compare::{Certificate, DEFINITIONS, Found, Span, What};
use crate::format::compared::Compared;
use crate::store::CompareTarget as _;
use bytes::Bytes;

/// A look that waits for its place in the store.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    look: u64,
    file: FileId,
    span: Span,
    what: What,
    most: u32,
}

impl World {
    /// The operator has what both nodes hold compared now and then, on either of them.
    pub(super) fn compare_sometimes(&mut self) {
        if !self.options.compares || !self.streams.compare.percent(15) {
            return;
        }
        let n = usize::try_from(self.streams.compare.below(2)).unwrap_or(0);
        let rate = Some([0, 0, 20_000][usize::try_from(self.streams.compare.below(3)).unwrap_or(0)]);
        let repair = self.streams.compare.percent(50);
        let request = AdminRequest::Compare { name: None, repair, dry_run: false, rate };
        self.ask(n, request, Purpose::Compare);
    }

    /// A node asks for what a compare needs.
    pub(super) fn compare_effect(&mut self, n: usize, effect: CompareEffect) {
        match effect {
            CompareEffect::Look { look, round, file, span, what, most } => {
                self.give(n, round, Given::Look(Wanted { look, file, span, what, most }));
            }
            CompareEffect::Repair { look, round, chunk } => self.give(n, round, Given::Repair(look, chunk)),
            CompareEffect::Keep { bytes } => match Compared::decode(&bytes) {
                Ok(kept) => {
                    self.check_certificate(n, &kept.last);
                    let us = self.disk_latency(n);
                    self.node_after(us, n, Ev::Compared(CompareEvent::Kept));
                }
                Err(error) => self.check.fail("driver", format!("node {n} keeps a bad certificate: {error}")),
            },
        }
    }

    /// A compare finds nothing where nothing is.
    fn check_certificate(&mut self, n: usize, certificate: &Certificate) {
        if certificate.ended_ms == 0 {
            return;
        }
        let unreadable = [Trouble::Rot, Trouble::RotItems, Trouble::StoreError]
            .iter()
            .any(|trouble| self.options.has(*trouble));
        let unread = if unreadable { 0 } else { certificate.unread };
        let found = certificate.differing + certificate.passed + unread;
        if found > 0 {
            let text = format!("node {n} finds differences between nodes that are equal: {certificate:?}");
            return self.check.fail("I-45", text);
        }
        if certificate.whole && certificate.items > 0 {
            self.trace.sometimes("a compare found both nodes equal");
        }
        if !certificate.whole {
            self.trace.sometimes("a compare was cut off");
        }
    }

    /// The store of a node looks at a range, in its place among the batches.
    pub(super) fn look(&mut self, n: usize, wanted: Wanted) {
        let Wanted { look, file, span, what, most } = wanted;
        self.plant(n);
        let late = what == What::Digest && !self.is_primary(n) && self.mutate(Mutation::LookLate);
        let at = self.nodes[n].store.shown();
        if late && !self.apply_next(n) {
            self.mutated = false;
        }
        let found = match self.nodes[n].store.look(file, &span, most).map(|look| (look.read)()) {
            Ok(Ok(chunk)) => {
                // What an incomplete node holds is no history before the end of its copy.
                let copies = self.nodes[n].store.copied().is_some_and(|progress| progress.is_under_way());
                if !late && !copies {
                    self.check_look(n, &chunk);
                }
                Found::of(chunk, &span, what)
            }
            _ => {
                self.wrong_places(n);
                Found::Unread
            }
        };
        let us = self.disk_latency(n);
        self.node_after(us, n, Ev::Compared(CompareEvent::Looked { look, at, found }));
    }

    /// The store cannot look.
    pub(super) fn look_fails(&mut self, n: usize, wanted: &Wanted) {
        let (look, at) = (wanted.look, self.nodes[n].store.shown());
        let us = self.disk_latency(n);
        self.node_after(us, n, Ev::Compared(CompareEvent::Looked { look, at, found: Found::Unread }));
    }

    /// The store cannot become what the other one has.
    pub(super) fn repair_fails(&mut self, n: usize, look: u64, fault: Fault) {
        let us = self.disk_latency(n);
        self.node_after(us, n, Ev::Compared(CompareEvent::Repaired { look, result: Err(fault) }));
    }

    /// A look shows exactly what the node's history makes of its range (I-45).
    fn check_look(&mut self, n: usize, chunk: &Chunk) {
        match &chunk.content {
            Content::Items { after, through, items } if chunk.file != DEFINITIONS => {
                let mut files = model(n, self.nodes[n].log.iter().map(|(_, batch)| batch));
                let wanted = files.remove(&chunk.file.0).unwrap_or_default();
                let wanted = whole_items(wanted, after, through, chunk.ends);
                let found: Items = items.iter().map(|(id, value)| (id.to_vec(), value.to_vec())).collect();
                if found != wanted && self.nodes[n].planted.is_none() {
                    let text =
                        format!("node {n} looks at file {}, and sees what its history is not", chunk.file);
                    self.check.fail("I-45", text);
                }
            }
            _ => {}
        }
    }

    /// Something is changed in the store of a standby behind its back.
    fn plant(&mut self, n: usize) {
        if self.is_primary(n) || self.nodes[n].planted.is_some() {
            return;
        }
        let store = &self.nodes[n].store;
        let namespace = store.namespace();
        let main = namespace.files().find(|(_, info)| info.key == "app,main");
        let Some((file, item)) = main.and_then(|(file, _)| Some((file, store.items(file).pop()?))) else {
            return;
        };
        if !self.mutate(Mutation::PlantItem) {
            return;
        }
        let (id, at) = (item.0, self.nodes[n].store.shown());
        let content = Content::Items {
            after: less(&id),
            through: id.clone(),
            items: vec![(id, Bytes::from("planted"))],
        };
        let chunk = Chunk { id: 0, file, at, until: at, content, ends: false };
        self.nodes[n].planted = self.nodes[n].store.repair(&chunk).ok();
    }

    /// A node's store is made what the other one has.
    pub(super) fn store_repaired(&mut self, n: usize, look: u64, chunk: &Chunk) {
        let rotten = self.nodes[n].store.has_rotten_items();
        if self.nodes[n].store.repair(chunk).is_err() {
            return self.repair_fails(n, look, Fault::STALE);
        }
        if rotten && !self.nodes[n].store.has_rotten_items() {
            self.trace.sometimes("rotten items were healed by the peer");
        }
        if let Content::Blocks { offset, len, .. } = chunk.content {
            self.trace.sometimes("rot was healed by the peer");
            for block in offset / BLOCK_U64..(offset + len) / BLOCK_U64 {
                self.nodes[n].healed.insert((chunk.file, block));
                let log = self.nodes[n].log.iter().map(|(_, batch)| batch);
                let (at, len) = (block * BLOCK_U64, crate::base::limits::BLOCK);
                let wanted = volume_model(n, chunk.file, (at, len), log);
                let found = self.nodes[n].store.volume_bytes(chunk.file, at, len);
                if let Some(byte) = found.iter().zip(&wanted).position(|(found, wanted)| found != wanted) {
                    let text = format!(
                        "node {n}: block {block} of volume {} is healed wrongly at byte {byte}: {} for {}",
                        chunk.file, found[byte], wanted[byte]
                    );
                    self.check.fail("I-46", text);
                }
            }
        }
        let us = self.disk_latency(n);
        self.node_after(us, n, Ev::Compared(CompareEvent::Repaired { look, result: Ok(()) }));
    }
}

/// The id before all others that are not less than this one, but for those that begin with it.
fn less(id: &Bytes) -> Bytes {
    let mut less = id.to_vec();
    match less.pop() {
        Some(last) if last > 0 => less.extend([last - 1, 255]),
        _ => {}
    }
    less.into()
}
