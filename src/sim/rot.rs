//! Rot of volumes, and scrubs: a bit of a block turns by itself while the node lives. Nothing of that block may be served
//! from then on, a scrub finds it, and no other block is ever taken for rotten. And rot of items: a block of a table, and
//! nobody knows which items were in it.

use super::blocks::{VOLUME, volume_model};
use super::checker::model;
use super::operator::Purpose;
use super::options::Mutation;
use super::world::{Ev, World};
use crate::base::limits::{BLOCK, BLOCK_U64};
use crate::base::{Fault, FileId};
use crate::engine::admin::AdminRequest;
use crate::engine::{ScrubEffect, ScrubEvent, ScrubPart, VolumeEvent};
use crate::format::control::Role;
use crate::format::dptr::DptrKind;
use crate::store::volumes::Check;
use crate::store::{StoreSnapshot, StoreWrite};

impl World {
    /// The volumes of a node, as its store knows them.
    fn volumes_of(&self, n: usize) -> Vec<FileId> {
        let namespace = self.nodes[n].store.namespace();
        let blocks = namespace.files().filter(|(_, info)| info.dptr.kind == DptrKind::Blocks);
        blocks.map(|(file, _)| file).collect()
    }

    /// A bit of a volume of a node turns, or several do; sometimes the operator scrubs it then.
    pub(super) fn rots(&mut self, n: usize) {
        if self.nodes[n].engine.is_none() || self.operator.healing() {
            return;
        }
        for file in self.volumes_of(n) {
            for _ in 0..3 {
                let at = self.streams.operator.below(VOLUME / 8);
                if !self.nodes[n].store.rot(file, at) {
                    continue;
                }
                self.trace.event("rot", n as u64, at, || format!("node {n}: volume {file} at byte {at}"));
                self.nodes[n].rotten.insert((file, at / BLOCK_U64));
            }
        }
        if self.streams.operator.percent(60) {
            let (name, rate) = (None, Some(0));
            self.ask(n, AdminRequest::Scrub { name, rate, renew: false }, Purpose::Scrub);
        }
    }

    /// A block of a table of replicated items rots, unless the other node has rotten ones; sometimes the operator scrubs then.
    pub(super) fn items_rot(&mut self, n: usize) {
        let both = self.nodes.iter().any(|node| node.store.has_rotten_items());
        if self.nodes[n].engine.is_none() || self.operator.healing() || both {
            return;
        }
        let namespace = self.nodes[n].store.namespace();
        let Some((file, _)) = namespace.files().find(|(_, info)| info.key == "app,main") else { return };
        let items = self.nodes[n].store.items(file);
        let mut edge = |some: bool| {
            let at = usize::try_from(self.streams.operator.below(items.len().max(1) as u64)).unwrap_or(0);
            items.get(at).filter(|_| some).map(|(id, _)| id.clone()).unwrap_or_default()
        };
        let (a, b) = (edge(true), edge(true));
        let (after, through) = if a < b { (a, b) } else { (b, edge(false)) };
        if self.nodes[n].store.rot_items(file, after, through) {
            self.trace.event("items-rot", n as u64, file.0, || format!("node {n}: file {file}"));
        }
        if self.streams.operator.percent(60) {
            let (name, rate) = (None, Some(0));
            self.ask(n, AdminRequest::Scrub { name, rate, renew: false }, Purpose::Scrub);
        }
    }

    /// A node wants to know which items are rotten.
    pub(super) fn find_rot(&mut self, n: usize) {
        self.nodes[n].store.tell_rotten_again();
        self.rotten_items(n);
    }

    /// Tells a node which items were found rotten, if any were.
    fn rotten_items(&mut self, n: usize) {
        let items = self.nodes[n].store.take_rotten_items();
        if items.is_empty() {
            return;
        }
        self.trace.sometimes("rotten items were found");
        if self.mutate(Mutation::DropRotten) {
            self.nodes[n].store.end_rot(true);
        }
        items.iter().for_each(|items| self.check_beside_rot(n, items.file));
        self.node_after(1, n, Ev::Rotten(items));
    }

    /// What is not refused is what the node's history makes of it (I-46).
    fn check_beside_rot(&mut self, n: usize, file: FileId) {
        let copies = self.nodes[n].store.copied().is_some_and(|progress| progress.is_under_way());
        let namespace = self.nodes[n].store.namespace();
        let Some(info) = namespace.file(file).filter(|_| !copies) else { return };
        let wanted = model(n, self.nodes[n].log.iter().map(|(_, batch)| batch)).remove(&file.0);
        for (id, value) in wanted.unwrap_or_default() {
            let found = self.nodes[n].store.get(file, info.dptr.generation, &id);
            if found.is_ok_and(|found| found.as_deref() != Some(&value[..])) {
                let text =
                    format!("node {n} serves another item {id:?} of file {file} beside rot than was written");
                return self.check.fail("I-46", text);
            }
        }
    }

    /// A node asks for what a scrub needs.
    pub(super) fn scrub_effect(&mut self, n: usize, effect: ScrubEffect) {
        match effect {
            ScrubEffect::Begin { job, part, .. } => {
                let us = self.disk_latency(n) * 4;
                self.node_after(us, n, Ev::Scrub(job, part));
            }
            // What was begun ends soon.
            ScrubEffect::Stop => {}
            ScrubEffect::Keep { .. } => {
                let us = self.disk_latency(n);
                self.node_after(us, n, Ev::ScrubKept);
            }
        }
    }

    /// A part was scrubbed.
    pub(super) fn scrubbed(&mut self, n: usize, job: u64, part: ScrubPart) {
        if let ScrubPart::Volume { file, bytes, from } = part {
            let known: Vec<_> = self.nodes[n].rotten.iter().filter(|(of, _)| *of == file).copied().collect();
            let len = bytes.min(VOLUME) - from.min(VOLUME);
            let checked = self.nodes[n].store.check_volume(file, from, len, Check::Scrub);
            if let Err(error) = checked {
                return self.check.fail("driver", format!("the model store fails: {error}"));
            }
            let found = self.wrong_places(n);
            // What a node that is given a copy had before is gone, and the rest has not come yet.
            let copied = self.check.nodes[n].control.role == Role::Incomplete;
            let missed = known
                .iter()
                .filter(|_| !copied)
                .find(|(_, block)| self.is_rotten(n, file, *block) && !found.contains(block));
            if let Some((_, block)) = missed {
                self.check.fail("I-42", format!("a scrub of node {n} misses block {block} of volume {file}"));
            }
            if !found.is_empty() {
                self.trace.sometimes("a scrub found rot");
            }
        } else if self.nodes[n].store.has_rotten_items() {
            let why = "a table".to_owned();
            self.input(n, ScrubEvent::ItemsWrong { job, why });
            self.find_rot(n);
        }
        self.input(n, ScrubEvent::Done { job, read: 0, result: Ok(true) });
    }

    /// Whether a block still is not what the node's history makes of it.
    fn is_rotten(&self, n: usize, file: FileId, block: u64) -> bool {
        let log = self.nodes[n].log.iter().map(|(_, batch)| batch);
        let model = volume_model(n, file, (block * BLOCK_U64, BLOCK), log);
        self.nodes[n].store.volume_bytes(file, block * BLOCK_U64, BLOCK).as_ref() != model
    }

    /// Tells a node what its store found wrong, and checks that it is; gives back the blocks.
    pub(super) fn wrong_places(&mut self, n: usize) -> Vec<u64> {
        let places = self.nodes[n].store.take_bad_places();
        let mut blocks = Vec::new();
        for place in &places {
            let block = place.offset / BLOCK_U64;
            if !self.nodes[n].rotten.contains(&(place.file, block)) {
                let text = format!("node {n} takes block {block} of volume {} for rotten", place.file);
                self.check.fail("I-42", text);
            }
            blocks.push(block);
        }
        if !places.is_empty() {
            self.input(n, VolumeEvent::Wrong { places });
        }
        blocks
    }

    /// A node's store reads a volume for the engine.
    pub(super) fn volume_read(&mut self, n: usize, read: u64, file: FileId, offset: u64, len: usize) {
        let result = match self.nodes[n].store.read_volume(file, offset, len) {
            // It was asked before the node left its history for a copy, and is told to nobody.
            Ok(bytes) if self.check.nodes[n].control.role == Role::Incomplete => Ok(bytes),
            Ok(_) => Ok(self.store_reads(n, file, offset, len)),
            Err(_) => {
                self.wrong_places(n);
                self.trace.sometimes("rot was refused");
                Err(Fault::UNCLEAN)
            }
        };
        self.input(n, VolumeEvent::Read { read, result });
    }

    /// Somebody writes back what should stand in each block that a node does not serve: one that was written back before may
    /// have been lost by a crash since.
    pub(super) fn mend_all_rot(&mut self, n: usize) {
        self.mend_rot(n);
        let namespace = self.nodes[n].store.namespace();
        let volumes = namespace.files().filter(|(_, info)| info.dptr.kind == DptrKind::Blocks);
        for file in volumes.map(|(file, _)| file) {
            for block in self.nodes[n].store.wrong_blocks(file, 0, VOLUME) {
                let log = self.nodes[n].log.iter().map(|(_, batch)| batch);
                let model = volume_model(n, file, (block * BLOCK_U64, BLOCK), log);
                self.nodes[n].store.heal(file, block, &model);
            }
        }
    }

    /// Somebody writes back what should stand in the rotten blocks of a node. Rot and a crash in one block cannot be told
    /// apart, so it comes before one.
    pub(super) fn mend_rot(&mut self, n: usize) {
        for (file, block) in std::mem::take(&mut self.nodes[n].rotten) {
            let log = self.nodes[n].log.iter().map(|(_, batch)| batch);
            let model = volume_model(n, file, (block * BLOCK_U64, BLOCK), log);
            let healed = self.nodes[n].healed.remove(&(file, block));
            if healed || !self.nodes[n].store.wrong_blocks(file, block * BLOCK_U64, BLOCK_U64).is_empty() {
                self.nodes[n].store.heal(file, block, &model);
            }
        }
    }
}
