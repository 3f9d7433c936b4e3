//! What was acknowledged is kept: where it has to be when it is told, and what of it is there at the end.

use super::{Acked, Checker, Said};
use crate::base::{AckLevel, JournalKind};
use crate::format::control::Role;
use crate::format::entry::EntryKind;
use crate::sim::truth::{Place, Tip};

impl Checker {
    /// What a node said of an entry, in whichever of its lives.
    fn said(&self, node: usize, place: Place) -> Option<Said> {
        let epoch = self.history.batches.get(&(0, place.chain))?.batch.header().epoch.0;
        let all = self.nodes[node].said.iter().rev();
        let received = all.clone().find(|s| s.epoch >= epoch && s.received >= place.seq)?;
        let applied = all.clone().any(|s| s.epoch >= epoch && s.applied_up_to >= place.seq);
        Some(Said { applied, ..*received })
    }

    /// Whether the journals on a node's disk have the entry.
    pub(in crate::sim) fn has(&self, node: usize, place: &Place) -> bool {
        let journals = &self.nodes[node].journals;
        if place.space == 0 {
            journals[0].holds(place.chain)
        } else {
            place.origin == node && journals[1].holds(place.chain)
        }
    }

    /// A client was told that its update is done.
    pub(in crate::sim) fn on_ok(&mut self, node: usize, op: usize, place: Place, level: AckLevel) {
        let journal = if place.space == 0 { JournalKind::Replicated } else { JournalKind::Local };
        if !self.nodes[node].journals[journal.index()].holds(place.chain) {
            let text =
                format!("command {op} was told ok, but entry {} is not on node {node}'s disk", place.seq);
            self.fail("I-03", text);
        }
        let mut held = AckLevel::Local;
        if place.space == 0 && level > AckLevel::Local {
            let incomplete = self.nodes[1 - node].control.role == Role::Incomplete;
            let peer = &self.nodes[1 - node].journals[0];
            let reached = match level {
                AckLevel::Local => true,
                // Its entries are of no use without the copy.
                _ if incomplete => false,
                // What is in the peer's memory cannot be seen from outside, but what it said of it.
                AckLevel::Received => peer.holds(place.chain) || self.said(1 - node, place).is_some(),
                AckLevel::Durable => peer.holds(place.chain),
                AckLevel::Applied => {
                    peer.holds(place.chain)
                        && (peer.applied >= place.seq
                            || self.said(1 - node, place).is_some_and(|s| s.applied))
                }
            };
            if reached {
                // What was visible at a peer that died since is still on its disk.
                let shown = level != AckLevel::Applied || peer.applied >= place.seq;
                held = if shown { level } else { AckLevel::Durable };
            } else if incomplete && self.said(1 - node, place).is_some() {
                // The peer had it, and left it for the copy that it is given: that was told when the copy began.
            } else if self.excused(node, place.seq) {
                let (first, last) = self.nodes[node].alone.unwrap_or((place, place));
                let (first, last) = (
                    if place.seq < first.seq { place } else { first },
                    if place.seq > last.seq { place } else { last },
                );
                self.nodes[node].alone = Some((first, last));
            } else if !self.nodes[1 - node].shortened {
                let text = format!(
                    "command {op} was told ok at level {}, but the peer is not that far with entry {}",
                    level.name(),
                    place.seq
                );
                self.fail("I-03", text);
            }
        }
        let now = self.nodes[1 - node].deaths;
        let peer_deaths = match held {
            AckLevel::Received => self.said(1 - node, place).map_or(now, |said| said.deaths),
            _ => now,
        };
        self.acked.push(Acked { op, place, level: held, peer_deaths });
    }

    /// Whether the other node has opened a higher epoch: what this one answers from then on, at a promise that is lowered,
    /// is not the pair's.
    pub(in crate::sim) fn is_replaced(&self, node: usize) -> bool {
        let epoch = self.nodes[node].control.epoch.0;
        self.openings.iter().any(|(other, opened)| *other != node && *opened > epoch)
    }

    /// The epoch in which an update of the replicated journal was sequenced.
    pub(in crate::sim) fn epoch_of(&self, acked: &Acked) -> u64 {
        self.history.batches.get(&(0, acked.place.chain)).map_or(0, |known| known.batch.header().epoch.0)
    }

    /// At the end: every acknowledged update is on the survivor, or was lost by a takeover that said so.
    pub(in crate::sim) fn check_survival(&mut self, survivor: usize) -> usize {
        let mut lost = Vec::new();
        for a in &self.acked {
            if a.place.space == 0 {
                if !self.nodes[survivor].journals[0].holds(a.place.chain) {
                    lost.push(a.clone());
                }
            } else if !self.nodes[a.place.space - 1].journals[1].holds(a.place.chain) {
                let text = format!("command {} on a local file is gone", a.op);
                return self.fail_one("I-01", text);
            }
        }
        for a in &lost {
            let epoch = self.epoch_of(a);
            // Only another node that became primary may leave updates behind.
            let replaced =
                self.openings.iter().any(|(node, opened)| *node != a.place.origin && *opened > epoch);
            if !replaced {
                let text = format!("command {} (entry {}) was acknowledged and is gone", a.op, a.place.seq);
                return self.fail_one("I-01", text);
            }
            if a.level >= AckLevel::Durable && !self.nodes.iter().any(|n| n.shortened) {
                let text = format!("command {} was acknowledged at level durable and is gone", a.op);
                return self.fail_one("I-01", text);
            }
        }
        self.check_work();
        lost.len()
    }

    fn fail_one(&mut self, invariant: &'static str, text: String) -> usize {
        self.fail(invariant, text);
        0
    }

    /// Puts of a node's own entries that the survivor does not have must be in its `diverged/` files.
    pub(in crate::sim) fn check_diverged(&mut self, node: usize) {
        let other = &self.nodes[1 - node].journals[0];
        let own = &self.nodes[node].journals[0];
        let mut missing = None;
        // A journal lets go of what the peer has, and of what it lacks where its claim is dropped: that is missing when the peer
        // was set back, or took over without it.
        let let_go = self.nodes[1 - node].shortened || self.nodes[1 - node].dropped;
        let there = |tip: &&Tip| !let_go || own.segments.values().flatten().any(|chain| *chain == tip.chain);
        for tip in own.path.iter().filter(|tip| !other.holds(tip.chain)).filter(there) {
            let Some(known) = self.history.batches.get(&(0, tip.chain)) else { continue };
            for (seq, entry) in known.batch.entries() {
                let value = entry.value;
                let there = value.is_empty() || contains(&self.saved[node], value);
                if entry.kind == EntryKind::Put && !there {
                    missing = Some(seq);
                }
            }
        }
        if let Some(seq) = missing {
            self.fail("I-24", format!("entry {seq} of node {node} diverged and is not in its saved files"));
        }
    }
}

fn contains(hay: &[u8], needle: &[u8]) -> bool {
    let Some(&first) = needle.first() else { return true };
    let mut at = 0;
    while let Some(skip) = hay[at..].iter().position(|&b| b == first) {
        at += skip;
        if hay[at..].starts_with(needle) {
            return true;
        }
        at += 1;
    }
    false
}
