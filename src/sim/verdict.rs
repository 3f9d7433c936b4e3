//! What must be true at the end of a run, when everything works again.

use super::blocks::VOLUME;
use super::checker::{Items, model};
use super::client::{Ending, File, Kind};
use super::truth::value_tag;
use super::world::World;
use crate::base::JournalKind;
use crate::format::control::Role;
use crate::format::dptr::{DptrKind, FileState};
use std::collections::BTreeMap;

impl World {
    /// The last checks of a run whose survivor is `serving`.
    pub(super) fn last_checks(&mut self, serving: usize) {
        let other = 1 - serving;
        for n in 0..2 {
            if self.nodes[n].engine.is_some() {
                self.check_store(n);
            }
        }
        self.check_left();
        let lost = self.check.check_survival(serving);
        if lost > 0 {
            self.trace.sometimes("acknowledged updates were lost by a takeover and accounted");
        }
        if self.nodes[other].engine.is_some() {
            match self.check.nodes[other].control.role {
                Role::Diverged => {
                    self.trace.sometimes("the old primary returned and served nobody");
                    self.check.saved[other] =
                        self.nodes[other].disk.diverged.values().flatten().copied().collect();
                    self.check.check_diverged(other);
                }
                Role::Standby => {
                    if self.check.openings.iter().any(|(n, _)| *n == other) {
                        self.trace.sometimes("the old primary returned and became standby");
                    }
                    self.check_equal(serving);
                }
                Role::Incomplete => {
                    self.check.fail("I-50", format!("node {other} is incomplete at the end"));
                }
                Role::Primary => self.check.fail("I-20", "both nodes are primary at the end".to_owned()),
            }
        }
        self.check_items(serving);
        if self.options.troubles.is_empty() {
            self.trace.sometimes("a fault-free run");
        }
    }

    /// A store holds exactly what the batches say that it was given.
    fn check_store(&mut self, n: usize) {
        let files = model(n, self.nodes[n].log.iter().map(|(_, batch)| batch));
        let ns = self.nodes[n].store.namespace();
        let empty = Items::new();
        for (id, info) in ns.files() {
            let stored: Items =
                self.nodes[n].store.items(id).into_iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
            let wanted = files.get(&id.0).unwrap_or(&empty);
            if stored != *wanted {
                let differs = stored.iter().find(|(k, v)| wanted.get(*k) != Some(*v)).map(|(k, _)| k.clone());
                let differs = differs.or_else(|| wanted.keys().find(|k| !stored.contains_key(*k)).cloned());
                let item = String::from_utf8_lossy(&differs.unwrap_or_default()).into_owned();
                let text = format!("node {n}'s store differs from its journal in {} item {item}", info.key);
                return self.check.fail("I-10", text);
            }
            if info.dptr.kind == DptrKind::Blocks {
                // Compared with the node's history.
                let _ = self.store_reads(n, id, 0, usize::try_from(VOLUME).unwrap_or(0));
            }
        }
    }

    /// What is replicated is equal on both nodes.
    fn check_equal(&mut self, serving: usize) {
        let content = |n: usize| {
            let ns = self.nodes[n].store.namespace();
            let mut all = BTreeMap::new();
            for (id, info) in ns.files().filter(|(_, info)| info.replicated) {
                all.insert(id, (info.dptr.name.clone(), info.dptr.state, self.nodes[n].store.items(id)));
            }
            all
        };
        let (here, mut there) = (content(serving), content(1 - serving));
        // A file that became replicated here, on a primary that was fenced before its copy began: its own, and it
        // says itself that it is not whole.
        there.retain(|id, (_, state, _)| here.contains_key(id) || *state == FileState::Whole);
        if here.len() != there.len() {
            return self
                .check
                .fail("I-10", format!("{} replicated files here, {} there", here.len(), there.len()));
        }
        for (id, (name, state, items)) in &here {
            let Some((_, other_state, other)) = there.get(id) else {
                return self.check.fail("I-10", format!("file {name} is not on the standby"));
            };
            if *other_state == FileState::Stale && self.operator.paused_ever {
                // It was primary while logging was paused, and says itself that this file lacks what came since.
                self.trace.sometimes("a standby with a stale file");
                continue;
            }
            if *state != FileState::Whole || *other_state != FileState::Whole {
                let text = format!(
                    "file {name} is {state:?} on the primary, {other_state:?} on the standby at the end"
                );
                return self.check.fail("I-50", text);
            }
            if items != other {
                let (a, b) = (items.len(), other.len());
                return self.check.fail("I-10", format!("file {name} differs: {a} items here, {b} there"));
            }
            let blocks =
                |n: usize| self.nodes[n].store.volume_bytes(*id, 0, usize::try_from(VOLUME).unwrap_or(0));
            let (here, there) = (blocks(serving), blocks(1 - serving));
            if let Some(at) = here.iter().zip(&there).position(|(a, b)| a != b) {
                return self.check.fail("I-10", format!("volume {name} differs at byte {at}"));
            }
            if here.iter().any(|byte| *byte != 0) {
                self.trace.sometimes("both nodes hold the same bytes of a volume");
            }
            if name == "f" {
                self.trace.sometimes("a copy of a file reached the standby");
            }
        }
    }

    /// No item shows an update that another one, begun after it was told ok, should have replaced.
    fn check_items(&mut self, serving: usize) {
        let ns = self.nodes[serving].store.namespace();
        let own = if serving == 0 { File::OwnA } else { File::OwnB };
        for file in [File::Main, File::Safe, File::Mixed, own] {
            let Some(id) = ns.resolve(file.name().as_bytes()) else { continue };
            for (item, value) in self.nodes[serving].store.items(id) {
                let Some((op, _)) = value_tag(&value) else { continue };
                if let Some(newer) = self.replaced(serving, file, &item, op) {
                    let name = String::from_utf8_lossy(&item).into_owned();
                    let text =
                        format!("{} item {name} shows command {op}, but {newer} replaced it", file.name());
                    return self.check.fail("I-01", text);
                }
            }
        }
    }

    /// A write of the item that was told ok, survived, and began after `op` was told ok.
    fn replaced(&self, serving: usize, file: File, item: &[u8], op: usize) -> Option<usize> {
        let shown = self.ops.get(op)?;
        if shown.ending != Ending::Ok {
            return None;
        }
        let ns = self.nodes[serving].store.namespace();
        let info = ns.resolve(file.name().as_bytes()).and_then(|id| ns.file(id));
        let left = self.nodes[serving].left_local.filter(|_| info.is_some_and(|info| info.replicated));
        let survives = |number: usize| {
            self.check.acked.iter().any(|a| {
                let journal = if a.place.space == 0 { JournalKind::Replicated } else { JournalKind::Local };
                // What was done to such a file while logging was paused goes with the history that a node leaves.
                let own = a.place.space == serving + 1 && left.is_none_or(|left| a.place.seq > left.0);
                let here = a.place.space == 0 || own;
                a.op == number
                    && here
                    && self.check.nodes[serving].journals[journal.index()].holds(a.place.chain)
            })
        };
        self.ops.iter().enumerate().position(|(number, later)| {
            later.file == file
                && later.ending == Ending::Ok
                && matches!(later.kind, Kind::Set | Kind::Transaction)
                && later.items.iter().any(|i| i == item)
                && later.at > shown.done_at
                && survives(number)
        })
    }
}
