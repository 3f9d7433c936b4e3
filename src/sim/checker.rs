//! The rules, held against what the nodes do, at every step. Each violation names its invariant.

mod survival;

use super::disk::Decay;
use super::net::{Body, Pipe, Seen};
use super::truth::{History, JournalTruth, Move, Pending, Place, Tip, parse, space};
use crate::base::{AckLevel, JournalKind, SegmentIndex, Seq};
use crate::format::PairId;
use crate::format::batch::Batch;
use crate::format::control::{Control, Role};
use crate::format::entry::EntryKind;
use crate::journal::Recovered;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant, such as `I-10`.
    pub invariant: &'static str,
    /// What was seen.
    pub text: String,
}

/// An update that a client was told is done.
#[derive(Clone, Debug)]
pub(super) struct Acked {
    /// The command.
    pub(super) op: usize,
    /// Where it stands.
    pub(super) place: Place,
    /// What was promised, and held when it was promised.
    pub(super) level: AckLevel,
    /// How often the peer had died then.
    pub(super) peer_deaths: u64,
}

/// What a node said in an ack.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said {
    epoch: u64,
    pub(super) deaths: u64,
    received: u64,
    applied_up_to: u64,
    applied: bool,
}

/// What a node has been, as far as rules depend on it.
#[derive(Clone, Debug)]
pub(super) struct NodeTruth {
    /// Both journals.
    pub(super) journals: [JournalTruth; 2],
    /// The control file that is certainly on disk.
    pub(super) control: Control,
    /// A takeover was asked for in this life.
    pub(super) taking_over: bool,
    /// A takeover has applied, or announced in its own journal, up to here, whatever its primary announced.
    pub(super) taken_up_to: u64,
    /// Durable bytes of it went bad.
    pub(super) decayed: Option<Decay>,
    /// It was reported degraded since.
    pub(super) degraded: bool,
    /// What it said in its acks, the last of each life and epoch.
    pub(super) said: Vec<Said>,
    /// It died at least once since it received something (an ack level of `received` promises no more).
    pub(super) deaths: u64,
    /// It may have lost acknowledged entries to decay, with a copy elsewhere.
    pub(super) shortened: bool,
    /// The end of its journal where it, a primary, last found at a start that the life before had not ended well.
    pub(super) relied_end: u64,
    /// What the peer told it.
    pub(super) heard: super::account::HeardHeads,
    /// The operator's last word for a takeover: known entries may be given up.
    pub(super) loss_accepted: bool,
    /// The entries that it answers at level `local` whatever was promised.
    pub(super) lowered: Option<(Seq, Option<Seq>)>,
    /// The first and the last entry that it answered without its peer, at a promise that is lowered.
    pub(super) alone: Option<(Place, Place)>,
    /// Its peer has told that it dropped entries which this node lacks.
    pub(super) dropped: bool,
    /// The last copy that it gave its peer began at this entry: what is before it, the peer needs no more.
    pub(super) gave_copy_at: u64,
    /// When the copy that it was given became whole.
    pub(super) whole_at: Option<u64>,
    /// When it last ended the stream that it follows by its own word, not for another call.
    pub(super) ended_stream_at: Option<u64>,
    /// It gave the role of the primary away in this epoch, and nothing has settled yet what became of that.
    pub(super) given: Option<super::handover::Given>,
}

/// All rules.
#[derive(Clone, Debug)]
pub(super) struct Checker {
    /// The first broken rule.
    pub(super) violation: Option<Violation>,
    /// Everything sequenced.
    pub(super) history: History,
    /// Per node.
    pub(super) nodes: [NodeTruth; 2],
    /// What clients were told.
    pub(super) acked: Vec<Acked>,
    /// Who has taken over.
    pub(super) takeovers: Vec<usize>,
    /// Epochs opened: by whom, which.
    pub(super) openings: Vec<(usize, u64)>,
    /// Commands that were acknowledged and then lost by a takeover.
    pub(super) lost: BTreeSet<usize>,
    /// Bytes saved to `diverged/`, by node.
    pub(super) saved: [Vec<u8>; 2],
    /// Batch frames sent.
    pub(super) batch_frames: u64,
    /// Batches sequenced.
    pub(super) batches: u64,
    batches_at_calm: u64,
    pair: PairId,
    pub(super) now: u64,
    /// A living stream that a node has just given up: node, connection, when.
    pub(super) left_living: Option<(usize, u64, u64)>,
}

impl Checker {
    /// Nothing has happened yet.
    pub(super) fn new(pair: PairId, controls: [Control; 2]) -> Self {
        let node = |control| NodeTruth {
            journals: [JournalTruth::default(), JournalTruth::default()],
            control,
            taking_over: false,
            taken_up_to: 0,
            decayed: None,
            degraded: false,
            said: Vec::new(),
            deaths: 0,
            shortened: false,
            relied_end: 0,
            heard: super::account::HeardHeads::default(),
            loss_accepted: false,
            lowered: None,
            alone: None,
            dropped: false,
            gave_copy_at: 0,
            whole_at: None,
            ended_stream_at: None,
            given: None,
        };
        Self {
            violation: None,
            history: History::default(),
            nodes: controls.map(node),
            acked: Vec::new(),
            takeovers: Vec::new(),
            openings: Vec::new(),
            lost: BTreeSet::new(),
            saved: [Vec::new(), Vec::new()],
            batch_frames: 0,
            batches: 0,
            batches_at_calm: 0,
            pair,
            now: 0,
            left_living: None,
        }
    }

    /// The time, for what follows.
    pub(super) fn at(&mut self, now: u64) {
        self.now = now;
    }

    /// Notes a broken rule; the first one counts.
    pub(super) fn fail(&mut self, invariant: &'static str, text: String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { invariant, text });
        }
    }

    fn journal(&mut self, node: usize, journal: JournalKind) -> &mut JournalTruth {
        &mut self.nodes[node].journals[journal.index()]
    }

    /// A batch seen for the first time was sequenced by this node.
    fn sequenced(&mut self, node: usize, journal: JournalKind, batch: &Batch) {
        self.batches += 1;
        let h = *batch.header();
        if journal == JournalKind::Replicated {
            self.on_appended(node, h.epoch);
        }
        if h.pair != self.pair || h.journal != journal {
            self.fail("I-40", format!("node {node} sequenced {batch:?} for another pair or journal"));
        }
        if journal == JournalKind::Replicated {
            let control = &self.nodes[node].control;
            let (role, epoch) = (control.role, control.epoch.0);
            let client = batch
                .entries()
                .any(|(_, e)| matches!(e.kind, EntryKind::Put | EntryKind::Delete | EntryKind::BlockWrite));
            if usize::try_from(h.epoch.0 & 1) != Ok(node) {
                self.fail("I-20", format!("node {node} sequenced {batch:?} in an epoch of the other node"));
            }
            if h.epoch.0 < epoch {
                self.fail("I-21", format!("node {node} sequenced {batch:?} although it knows epoch {epoch}"));
            }
            if client && (role != Role::Primary || epoch != h.epoch.0) {
                let text =
                    format!("node {node} sequenced {batch:?} as {} of epoch {epoch} on disk", role.name());
                self.fail("I-20", text);
            }
        }
        if let Err(other) = self.history.register(node, journal, batch, self.now) {
            let text = format!("node {node} sequenced {batch:?}, but {other:#x} has the same number");
            self.fail("I-11", text);
        }
        self.check_parts(batch, space(node, journal));
    }

    /// A command's parts stand in one batch (unless a file was copied, which repeats them).
    fn check_parts(&mut self, batch: &Batch, space: usize) {
        let chain = batch.end().chain.0;
        for (_, entry) in batch.entries() {
            let Some((op, part)) = super::truth::value_tag(entry.value) else { continue };
            let first = self.history.values.get(&(op, 0)).and_then(|p| p.first()).copied();
            let here = self.history.values.get(&(op, part)).and_then(|p| p.first()).copied();
            let (Some(first), Some(here)) = (first, here) else {
                self.fail("I-04", format!("part {part} of command {op} stands without its first part"));
                continue;
            };
            if here.chain == chain && here.space == space && first.chain != chain {
                self.fail("I-04", format!("command {op} is split over two batches"));
            }
        }
    }

    /// A node hands bytes to its disk.
    pub(super) fn on_write(
        &mut self,
        node: usize,
        (write, journal): (u64, JournalKind),
        segment: SegmentIndex,
        offset: u64,
        bytes: &Bytes,
    ) {
        let parsed = match parse(offset, bytes) {
            Ok(parsed) => parsed,
            Err(error) => return self.fail("I-40", format!("node {node} writes to its journal: {error}")),
        };
        let mut moves = Vec::new();
        let mut tip = self.journal(node, journal).ahead();
        if let Some(header) = parsed.header {
            if header.pair != self.pair || header.journal != journal || header.index != segment {
                self.fail("I-40", format!("node {node} writes a foreign header to segment {segment}"));
            }
            let base = Tip::of(header.base);
            self.check_cut(node, journal, base);
            tip = base;
            moves.push(Move::Header(base));
        }
        for batch in parsed.batches {
            let h = *batch.header();
            if h.prev_chain.0 != tip.chain || h.first_seq.0 != tip.seq + 1 {
                let text = format!("node {node} writes {batch:?} after entry {} (a hole)", tip.seq);
                self.fail("I-04", text);
            }
            if h.mark {
                self.note_mark(node, h.durable);
                continue;
            }
            if !self.history.batches.contains_key(&(space(node, journal), batch.end().chain.0)) {
                self.sequenced(node, journal, &batch);
            }
            tip = Tip::of(batch.end());
            moves.push(Move::Batch(tip));
        }
        self.journal(node, journal).pending.push(Pending { write, segment: segment.0, moves, ended: None });
    }

    /// A header that begins before the end of what is durable cuts the rest off.
    fn check_cut(&mut self, node: usize, journal: JournalKind, base: Tip) {
        let truth = self.journal(node, journal);
        let Some(at) = truth.path.iter().rposition(|tip| tip.chain == base.chain && tip.seq == base.seq)
        else {
            let text =
                format!("node {node} opens a segment after entry {}, which is not its history", base.seq);
            return self.fail("I-04", text);
        };
        let cut: Vec<Tip> = truth.path[at + 1..].to_vec();
        let applied = truth.applied;
        if let Some(tip) = cut.iter().find(|tip| tip.seq <= applied) {
            self.fail("I-10", format!("node {node} cuts entry {} although it is applied", tip.seq));
        }
        if let Some(acked) = self.acked_among(node, journal, &cut) {
            self.fail("I-08", format!("node {node} cuts command {acked}, which was acknowledged"));
        }
    }

    fn acked_among(&self, node: usize, journal: JournalKind, tips: &[Tip]) -> Option<usize> {
        let space = space(node, journal);
        let hit = |a: &&Acked| a.place.space == space && tips.iter().any(|tip| tip.chain == a.place.chain);
        self.acked.iter().find(hit).map(|a| a.op)
    }

    /// A write under way is durable.
    pub(super) fn on_written(&mut self, node: usize, journal: JournalKind, write: u64) {
        self.journal(node, journal).ended(write, true);
        self.note_origin(node, journal);
    }

    fn note_origin(&mut self, node: usize, journal: JournalKind) {
        let space = space(node, journal);
        let tips: Vec<u64> =
            self.nodes[node].journals[journal.index()].path.iter().rev().take(8).map(|t| t.chain).collect();
        for chain in tips {
            if let Some(known) = self.history.batches.get_mut(&(space, chain))
                && known.origin == node
            {
                known.durable_at_origin = true;
            }
        }
    }

    /// A write under way failed.
    pub(super) fn on_write_failed(&mut self, node: usize, journal: JournalKind, write: u64) {
        self.journal(node, journal).ended(write, false);
    }

    /// A node removes a segment.
    pub(super) fn on_remove(
        &mut self,
        node: usize,
        journal: JournalKind,
        index: SegmentIndex,
        claimed: bool,
        spooled: impl Fn(&Tip) -> bool,
    ) {
        let truth = &self.nodes[node].journals[journal.index()];
        let Some(chains) = truth.segments.get(&index.0) else { return };
        let peer = &self.nodes[1 - node].journals[0];
        let lost = chains.iter().filter_map(|chain| truth.path.iter().find(|tip| tip.chain == *chain));
        let mut why = None;
        for tip in lost {
            if tip.seq > truth.checkpointed {
                why = Some(format!("entry {} is not in a checkpoint ({})", tip.seq, truth.checkpointed));
            } else if journal == JournalKind::Replicated
                && claimed
                && tip.seq > self.nodes[node].gave_copy_at
                && !peer.holds(tip.chain)
                && !spooled(tip)
                && !self.nodes[1 - node].shortened
            {
                why = Some(format!("neither the peer nor the spool has entry {} on disk", tip.seq));
            }
        }
        if let Some(why) = why {
            let name = journal.name();
            self.fail("I-06", format!("node {node} removes segment {index} of its {name} journal: {why}"));
        }
        self.journal(node, journal).segments.remove(&index.0);
    }

    /// A node lets go of a part of its spool with these batches: its peer has all that are still history, or it is not the
    /// node that would have to send them (I-36).
    pub(super) fn on_unspool(&mut self, rule: &'static str, node: usize, tips: &[Tip]) {
        if self.nodes[node].control.role != Role::Primary || self.nodes[1 - node].shortened {
            return;
        }
        let (truth, peer) = (&self.nodes[node].journals[0], &self.nodes[1 - node].journals[0]);
        let here = |tip: &&Tip| truth.path.iter().any(|other| other.chain == tip.chain);
        let given = self.nodes[node].gave_copy_at;
        let lost = tips.iter().filter(here).find(|tip| tip.seq > given && !peer.holds(tip.chain));
        if let Some(tip) = lost {
            let text = format!("node {node} lets go of entry {} on its spool, which its peer lacks", tip.seq);
            self.fail(rule, text);
        }
    }

    /// Whether all of a node's oldest segment is durable in its store.
    pub(super) fn oldest_is_settled(&self, node: usize) -> bool {
        let truth = &self.nodes[node].journals[0];
        let Some(chains) = truth.segments.values().next() else { return false };
        let last =
            chains.iter().filter_map(|chain| truth.path.iter().find(|tip| tip.chain == *chain)).next_back();
        last.is_none_or(|tip| tip.seq <= truth.checkpointed)
    }

    /// Whether a node's peer lost its claim on the journal, and lacks what is gone: only a full copy would bring it back.
    pub(super) fn cannot_be_followed(&self, node: usize) -> bool {
        let (truth, peer) = (&self.nodes[node].journals[0], &self.nodes[1 - node]);
        let oldest = truth.segments.values().flatten().next();
        let known = oldest.and_then(|chain| self.history.batches.get(&(0, *chain)));
        let first = known.map_or(0, |known| known.batch.header().first_seq.0);
        peer.dropped && peer.journals[0].tip().seq + 1 < first
    }

    /// A node keeps a segment's file to use it again, which holds batches and marks up to `highest`.
    pub(super) fn on_reuse(&mut self, node: usize, journal: JournalKind, index: SegmentIndex, highest: Seq) {
        let settled = self.nodes[node].journals[journal.index()].checkpointed;
        if highest.0 > settled {
            let name = journal.name();
            self.fail(
                "I-06",
                format!(
                    "node {node} uses segment {index} of its {name} journal again, which holds entry {highest}: \
                     after {settled} numbers may be given again"
                ),
            );
        }
    }

    /// A node hands a batch to its store.
    pub(super) fn on_apply(&mut self, node: usize, journal: JournalKind, batch: &Batch) {
        let (space, end) = (space(node, journal), Tip::of(batch.end()));
        let truth = self.journal(node, journal);
        let offered = truth.offered;
        let durable = truth.holds(end.chain);
        truth.offered = end;
        let h = *batch.header();
        if end.seq <= offered.seq {
            self.fail("I-11", format!("node {node} applies {batch:?} again after entry {}", offered.seq));
        }
        if h.first_seq.0 != offered.seq + 1 || h.prev_chain.0 != offered.chain {
            self.fail("I-10", format!("node {node} applies {batch:?} after entry {}", offered.seq));
        }
        if !durable {
            self.fail("I-10", format!("node {node} applies {batch:?}, which its own journal may lose"));
        }
        let Some(known) = self.history.batches.get(&(space, end.chain)) else {
            return self.fail("I-40", format!("node {node} applies {batch:?}, which nobody sequenced"));
        };
        let (same, origin, there) =
            (known.batch.wire() == batch.wire(), known.origin, known.durable_at_origin);
        if !same {
            self.fail("I-40", format!("node {node} applies {batch:?} with other bytes than were sequenced"));
        }
        let taking_over = self.nodes[node].taking_over;
        if taking_over {
            self.nodes[node].taken_up_to = self.nodes[node].taken_up_to.max(end.seq);
        }
        // What a takeover that was interrupted had applied or announced is applied by its next life.
        let again = end.seq <= self.nodes[node].taken_up_to;
        let control = &self.nodes[node].control;
        if origin != node && !there && !taking_over && !again && control.role != Role::Primary {
            let text = format!("node {node} applies {batch:?}, which is not durable where it was sequenced");
            self.fail("I-10", text);
        }
    }

    /// Whether a node is primary by its control file.
    pub(super) fn is_primary(&self, node: usize) -> bool {
        self.nodes[node].control.role == Role::Primary
    }

    /// Whether a node's store shows all that its replicated journal holds: what it still reads there is for the peer.
    pub(super) fn fully_applied(&self, node: usize) -> bool {
        let journal = &self.nodes[node].journals[0];
        journal.applied == journal.tip().seq
    }

    /// A node's store holds everything up to `seq`.
    pub(super) fn on_applied(&mut self, node: usize, journal: JournalKind, seq: Seq) {
        let truth = self.journal(node, journal);
        truth.applied = seq.0;
        truth.applied_most = truth.applied_most.max(seq.0);
    }

    /// A node's store holds that durably.
    pub(super) fn on_checkpointed(&mut self, node: usize, applied: [Seq; 2]) {
        for journal in JournalKind::ALL {
            self.journal(node, journal).checkpointed = applied[journal.index()].0;
        }
    }

    /// A node's control file is on disk.
    pub(super) fn on_control(&mut self, node: usize, control: Control) {
        if control.role == Role::Primary && control.epoch > self.nodes[node].control.epoch {
            if self.openings.iter().any(|(_, opened)| *opened == control.epoch.0) {
                self.fail("I-20", format!("epoch {} is opened a second time, by node {node}", control.epoch));
            }
            self.openings.push((node, control.epoch.0));
            let was = self.nodes[node].control.role;
            self.on_opening(node, was);
            self.nodes[node].heard = super::account::HeardHeads::default();
        }
        if control.epoch < self.nodes[node].control.epoch {
            let (old, new) = (self.nodes[node].control.epoch, control.epoch);
            self.fail("I-20", format!("node {node} goes back from epoch {old} to {new}"));
        }
        let old = std::mem::replace(&mut self.nodes[node].control, control);
        if !self.is_primary(node) {
            self.nodes[node].given = None;
        }
        if self.nodes[node].control.origin != old.origin {
            if old.role == Role::Diverged {
                self.check_diverged(node);
                self.know_listed(node);
            }
            self.on_origin(node);
        }
        if old.role == Role::Incomplete && self.nodes[node].control.role == Role::Primary {
            self.fail("I-35", format!("node {node} became primary with a copy that is not whole"));
        }
    }

    /// What a node that has diverged leaves is listed in the set that it saved, so it is known to be lost. A replaced primary
    /// can have answered it at level local alone.
    fn know_listed(&mut self, node: usize) {
        let [own, peer] = [node, 1 - node].map(|node| &self.nodes[node].journals[0]);
        let listed = |a: &&Acked| {
            let here = a.place.space == 0 && own.holds(a.place.chain) && !peer.holds(a.place.chain);
            here && a.level == AckLevel::Local
        };
        let listed: Vec<usize> = self.acked.iter().filter(listed).map(|a| a.op).collect();
        self.lost.extend(listed);
    }

    /// A node left its history for one that begins with a copy. From now on its journal stands for all before the origin:
    /// until the copy is whole, its role says that it is not.
    fn on_origin(&mut self, node: usize) {
        let origin = Tip::of(self.nodes[node].control.origin.at);
        self.nodes[1 - node].gave_copy_at = origin.seq;
        let there = &self.nodes[1 - node].journals[0];
        let Some(at) = there.path.iter().position(|tip| *tip == origin) else {
            let text = format!(
                "node {node} begins a copy at entry {}, which its peer does not have on disk",
                origin.seq
            );
            return self.fail("I-43", text);
        };
        let path = there.path[..=at].to_vec();
        let truth = self.journal(node, JournalKind::Replicated);
        truth.path = path;
        truth.others.clear();
        truth.pending.clear();
        truth.segments.clear();
    }

    /// A node starts with this control file: the last one that was reported durable, or the one that was under way.
    pub(super) fn restarted(&mut self, node: usize, control: &Control) {
        self.on_control(node, control.clone());
        self.nodes[node].taking_over = false;
        self.nodes[node].degraded = false;
        self.nodes[node].alone = None;
        self.heads_on_disk(node, control);
    }

    /// A node has died, or ended.
    pub(super) fn died(&mut self, node: usize) {
        let truth = &mut self.nodes[node];
        truth.deaths += 1;
        if truth.taking_over && truth.control.role == Role::Primary {
            // It may have taken over without telling its account; what is not there then is lost.
            let gone: Vec<usize> = self.gone(node).iter().map(|a| a.op).collect();
            self.lost.extend(gone);
        }
    }

    /// The last trouble is over: from here on work must be bounded.
    pub(super) fn calm(&mut self) {
        self.batch_frames = 0;
        self.batches_at_calm = self.batches;
    }

    /// Acknowledged updates of the replicated journal that are not on a node and not yet known to be lost.
    pub(super) fn gone(&self, node: usize) -> Vec<Acked> {
        let truth = &self.nodes[node].journals[0];
        let gone =
            |a: &&Acked| a.place.space == 0 && !truth.holds(a.place.chain) && !self.lost.contains(&a.op);
        self.acked.iter().filter(gone).cloned().collect()
    }

    /// Recovery found this; a wrong answer loses or invents entries.
    pub(super) fn on_recovered(&mut self, node: usize, journal: JournalKind, found: &Recovered) {
        let truth = &self.nodes[node].journals[journal.index()];
        let end = Tip::of(found.end);
        let fits =
            |path: &Vec<Tip>| path.last().is_some_and(|tip| tip.chain == end.chain && tip.seq == end.seq);
        let (last, tip) = (truth.admissible().into_iter().find(fits), truth.tip());
        match last {
            Some(path) => self.journal(node, journal).path = path,
            None => self.recovered_otherwise(node, journal, end, tip),
        }
        if journal == JournalKind::Replicated {
            self.note_relied(node, end.seq);
        }
        let truth = self.journal(node, journal);
        truth.others.clear();
        truth.pending.clear();
        self.note_origin(node, journal);
    }

    /// With damage within the budget, a copy may have become shorter by what it was sent and did not sequence itself, if the
    /// other node has that on its disk, or never had: an update is answered at no level before it is on the disk of the node
    /// that sequenced it, so nobody counts on what only reached the other's. What a node sequenced itself, it must miss: a
    /// later write of its own tells that it was durable, so recovery refuses, unless the other node holds it.
    fn recovered_otherwise(&mut self, node: usize, journal: JournalKind, end: Tip, tip: Tip) {
        let truth = &self.nodes[node].journals[journal.index()];
        let at = truth.path.iter().rposition(|t| t.chain == end.chain && t.seq == end.seq);
        let peer = &self.nodes[1 - node].journals[0];
        let cut = at.map(|at| truth.path[at + 1..].to_vec()).unwrap_or_default();
        let unanswered = |chain: u64| {
            let known = self.history.batches.get(&(0, chain));
            known.is_some_and(|known| known.origin != node && !known.durable_at_origin)
        };
        let covered = journal == JournalKind::Replicated
            && cut.iter().all(|tip| peer.holds(tip.chain) || unanswered(tip.chain));
        if let Some(at) = at
            && self.nodes[node].decayed.is_some()
            && covered
        {
            self.nodes[node].shortened = true;
            self.journal(node, journal).path.truncate(at + 1);
            return;
        }
        let name = journal.name();
        let text = format!(
            "node {node} recovers its {name} journal up to entry {} of epoch {}, but entry {} was durable",
            end.seq, end.epoch, tip.seq
        );
        self.fail("I-08", text);
    }

    /// A frame leaves a node.
    pub(super) fn on_frame(&mut self, node: usize, seen: &Seen, pipe: &mut Pipe) {
        let header = seen.header;
        if header.number != pipe.last_number + 1 {
            let text = format!("node {node} sends frame {} after {}", header.number, pipe.last_number);
            self.fail("I-14", text);
        }
        if header.epoch < pipe.last_epoch {
            self.fail("I-20", format!("node {node} goes back to epoch {} on a connection", header.epoch));
        }
        let durable = self.nodes[node].journals[0].tip().seq;
        if header.durable.0 > durable {
            let text = format!("node {node} announces {} as durable, {durable} is", header.durable);
            self.fail("I-12", text);
        }
        pipe.last_number = header.number;
        pipe.last_epoch = header.epoch;
        pipe.last_durable = header.durable;
        match &seen.body {
            Body::Batch(batch) => self.on_sent_batch(node, batch, pipe),
            Body::Ack(ack) => {
                let before = std::mem::replace(&mut pipe.last_ack, *ack);
                let applied = self.nodes[node].journals[0].applied;
                if ack.durable.0 > durable || ack.applied.0 > applied || ack.received < ack.durable {
                    let text =
                        format!("node {node} says {ack:?}; it has {durable} on disk, {applied} applied");
                    self.fail("I-12", text);
                }
                let deaths = self.nodes[node].deaths;
                let said = Said {
                    epoch: header.epoch.0,
                    deaths,
                    received: ack.received.0,
                    applied_up_to: ack.applied.0,
                    applied: false,
                };
                let all = &mut self.nodes[node].said;
                match all.last_mut() {
                    Some(last) if last.epoch == said.epoch && last.deaths == deaths => *last = said,
                    _ => all.push(said),
                }
                if ack.received < before.received
                    || ack.durable < before.durable
                    || ack.applied < before.applied
                {
                    self.fail("I-12", format!("node {node} says {ack:?} after {before:?}"));
                }
            }
            Body::Begin(begin) => pipe.sent = begin.common.seq.0,
            Body::Rewind(by_ranges) => pipe.rewinds = *by_ranges,
            Body::CopyBegin(begin) => {
                // What is not copied comes of what both had: until the peer has left its own history, it may ask again.
                if !std::mem::take(&mut pipe.rewinds) {
                    self.nodes[node].gave_copy_at = begin.origin.seq.0;
                }
                (pipe.sent, pipe.last_batch) = (begin.origin.seq.0, Some(begin.origin.chain.0));
            }
            Body::Chunk(chunk) => {
                let sent = pipe.sent;
                if chunk.at.0 != sent {
                    let text = format!("node {node} sends a chunk of entry {} behind entry {sent}", chunk.at);
                    self.fail("I-43", text);
                }
            }
            Body::Handover(step) => self.on_handover(node, seen, Some(step)),
            Body::Refuse => self.on_handover(node, seen, None),
            Body::Hello(_) | Body::Other => {}
        }
    }

    fn on_sent_batch(&mut self, node: usize, batch: &Batch, pipe: &mut Pipe) {
        self.batch_frames += 1;
        let (end, h) = (Tip::of(batch.end()), *batch.header());
        if !self.history.batches.contains_key(&(0, end.chain)) {
            self.sequenced(node, JournalKind::Replicated, batch);
        }
        if let Some(known) = self.history.batches.get(&(0, end.chain))
            && known.batch.wire() != batch.wire()
        {
            self.fail("I-40", format!("node {node} sends {batch:?} with other bytes than were sequenced"));
        }
        if pipe.last_batch.is_some_and(|last| last != h.prev_chain.0) {
            self.fail("I-10", format!("node {node} sends {batch:?} out of order"));
        }
        (pipe.last_batch, pipe.sent) = (Some(end.chain), end.seq);
        let truth = &self.nodes[node].journals[0];
        let own = truth.holds(end.chain)
            || truth.moves().iter().any(|m| matches!(m, Move::Batch(tip) if tip.chain == end.chain))
            || truth.others.iter().flatten().any(|tip| tip.chain == end.chain)
            || self.history.batches.get(&(0, end.chain)).is_some_and(|known| known.origin == node);
        if !own {
            self.fail("I-10", format!("node {node} sends {batch:?}, which is not in its journal"));
        }
    }

    /// In quiet times each batch is sent a few times at most (I-51).
    fn check_work(&mut self) {
        let new = self.batches - self.batches_at_calm;
        let all = self.batches;
        if self.batch_frames > 4 * all + 8 * new + 16 {
            let text = format!(
                "{} batch frames after the last trouble, for {all} batches in all",
                self.batch_frames
            );
            self.fail("I-51", text);
        }
    }
}

/// A file's items.
pub(super) type Items = BTreeMap<Vec<u8>, Vec<u8>>;

/// Plays batches into files of items: the small model that a store is compared with.
pub(super) fn model<'a>(node: usize, log: impl Iterator<Item = &'a Batch>) -> BTreeMap<u64, Items> {
    let mut files: BTreeMap<u64, Items> = BTreeMap::new();
    for batch in log {
        for (_, entry) in batch.entries() {
            let items = files.entry(entry.file.0);
            match entry.kind {
                EntryKind::Put => drop(items.or_default().insert(entry.id.to_vec(), entry.value.to_vec())),
                EntryKind::Delete => drop(items.or_default().remove(entry.id)),
                EntryKind::FileClear | EntryKind::FileDelete => items.or_default().clear(),
                EntryKind::CopyBegin if entry.value.first().map(|&o| usize::from(o)) != Some(node) => {
                    items.or_default().clear();
                }
                _ => {}
            }
        }
    }
    files
}
