//! What the peer told of both journals: noted from hellos and frames, kept in the control file, said in `status`.
//!
//! Written to disk: at once what a hello taught; what grows with each acknowledgement or announcement at the end of a
//! connection, at a clean stop, before a tail is cut, and before the journal lets go of what the peer has.

use super::Peer;
use crate::base::{Mono, Seq};
use crate::engine::core::Core;
use crate::format::control::{PeerRecord, Role};
use crate::format::frame::{FrameHeader, Hello, Refuse, RefuseCode};
use crate::pair::record;
use crate::store::StoreRead;

/// A failed control file is written again after this (milliseconds).
const RETRY_MS: u64 = 500;

/// How what is kept of the peer stands to what is on disk.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// In the control file on disk, and in the one being written.
    saved: PeerRecord,
    writing: PeerRecord,
    /// What grew with acknowledgements or announcements is to be written too.
    due: bool,
    retry_at: Option<Mono>,
    /// The last entry that clients may have been answered for in an earlier life that did not end well.
    relied_on: Seq,
    /// A gap may be new: an incident tells of it once it is on disk, or cannot be put there.
    gap_due: bool,
    /// An incident told of entries that one of the two lacks.
    pub(super) gap_reported: bool,
}

impl Keeping {
    #[cfg(test)]
    pub(super) fn saved(&self) -> &PeerRecord {
        &self.saved
    }
}

impl Peer {
    /// What a start finds in the control file, held against the journal, which ends at `end` and tells `announced`.
    pub(in crate::engine) fn found(saved: PeerRecord, role: Role, end: Seq, announced: Seq) -> Self {
        let mut now = saved;
        let mut relied_on = Seq(0);
        if role == Role::Primary {
            // What this node lost with its last breath, nobody was answered for.
            now.on_disk = now.on_disk.min(end);
            relied_on = if now.open { end } else { now.on_disk };
        } else {
            now.on_disk = now.on_disk.max(announced);
        }
        Self::new(now, Keeping { saved, relied_on, ..Keeping::default() })
    }

    /// What it told of both journals.
    pub(in crate::engine) fn record(&self) -> &PeerRecord {
        &self.record
    }

    /// This node opens an epoch of its own after `end`: from here on its history is the pair's.
    pub(in crate::engine) fn own_epoch_opens(&mut self, was_primary: bool, end: Seq) {
        self.record = record::at_opening(&self.record, was_primary, end);
    }

    /// This node, a primary, steps down; `common` is the last entry that both have.
    pub(in crate::engine) fn takes_over(&mut self, common: Seq) {
        self.record = record::at_stepping_down(&self.record, common);
    }

    /// This node, a primary, gives its role to the peer, or does not after all.
    pub(in crate::engine) fn promise_role(&mut self, promised: bool) {
        self.record.promised = promised;
    }

    /// Whether it is on disk that this node gives its role away.
    pub(in crate::engine) fn has_promised(&self) -> bool {
        self.record.promised && self.keeping.saved.promised
    }

    /// The two journals cannot be joined: one of the nodes needs a full copy.
    pub(in crate::engine) fn set_apart(&mut self) {
        self.record.apart = true;
        self.keeping.gap_due = true;
    }

    /// A stream has begun: the journals are joined.
    pub(in crate::engine) fn set_joined(&mut self) {
        self.record.apart = false;
        self.record.restored = false;
        // After a crash nobody else would be asked whether it may be made what is here.
        self.keeping.gap_due |= self.record.partial || self.record.spared;
        self.is_whole_again();
    }

    /// This node takes over with a part of a copy.
    pub(in crate::engine) fn takes_over_partial(&mut self) {
        self.record.partial = true;
    }

    /// The peer took over with a part of a copy, and this node keeps what it has.
    pub(in crate::engine) fn spares(&mut self) {
        self.record.spared = true;
    }

    /// Neither node holds a part of a copy beside what the other one has, or this one leaves what it has.
    pub(in crate::engine) fn is_whole_again(&mut self) {
        (self.record.partial, self.record.spared) = (false, false);
    }

    /// A primary told how far its disk is.
    pub(in crate::engine) fn hear_announced(&mut self, durable: Seq) {
        self.record.on_disk = self.record.on_disk.max(durable);
    }

    /// A standby told what is on its disk.
    pub(super) fn hear_acknowledged(&mut self, durable: Seq) {
        self.record.holds = durable;
        self.record.on_disk = self.record.on_disk.max(durable);
    }

    /// A connection is over: what it told is kept.
    pub(in crate::engine) fn keep(&mut self) {
        self.keeping.due |= self.has_grown();
    }

    /// The control file is written for another reason: what has grown is not lost sight of.
    pub(in crate::engine) fn keep_when(&mut self, wanted: bool) {
        self.keeping.due |= wanted;
    }

    /// Whether what grows all the time has grown since it was written.
    fn has_grown(&self) -> bool {
        let (now, saved) = (&self.record, &self.keeping.saved);
        now.on_disk != saved.on_disk || now.holds != saved.holds
    }

    /// Up to where the control file on disk tells what the peer has on its disk; none if it tells all that is known.
    pub(in crate::engine) fn recorded(&self) -> Option<Seq> {
        let (known, recorded) = (self.record.on_disk, self.keeping.saved.on_disk);
        (recorded < known).then_some(recorded)
    }

    /// A write of the control file begins; gives what it holds of the peer.
    pub(in crate::engine) fn begin_write(&mut self) -> PeerRecord {
        self.keeping.writing = self.record;
        self.record
    }

    /// The control file is on disk.
    pub(in crate::engine) fn written(&mut self) {
        self.keeping.saved = self.keeping.writing;
        self.keeping.due &= self.has_grown();
    }

    /// Whether no write of the control file has failed a moment ago.
    pub(in crate::engine) fn may_be_written(&self, now: Mono) -> bool {
        self.write_deadline(now).is_none()
    }

    /// When a failed write is tried again.
    pub(in crate::engine) fn write_deadline(&self, now: Mono) -> Option<Mono> {
        self.keeping.retry_at.filter(|at| now < *at)
    }

    fn is_to_be_written(&self, primary: bool) -> bool {
        let (now, saved) = (self.record, self.keeping.saved);
        // Both grow all the time.
        let level = PeerRecord { on_disk: now.on_disk, holds: now.holds, ..saved };
        let set_back = |peer: &PeerRecord| record::peer_set_back(peer).is_some();
        let gap = primary && set_back(&now) != set_back(&saved);
        now != saved && (self.keeping.due || gap || now != level)
    }
}

impl<S: StoreRead> Core<S> {
    /// What this node's hello says of the peer's journal: known for certain, and relied on at most.
    pub(in crate::engine) fn known_of_peer(&self) -> (Seq, Seq) {
        let on_disk = self.peer.record.on_disk;
        if !self.is_primary() {
            return (on_disk, Seq(0));
        }
        // A standby may be ahead of this disk: what is not on it was answered to nobody.
        let known = on_disk.min(self.replicated().pace().durable);
        (known, known.max(self.peer.keeping.relied_on))
    }

    /// Learns from a hello of a peer that is not refused.
    pub(in crate::engine) fn hear_hello(&mut self, hello: &Hello, header: &FrameHeader) {
        let own = self.own();
        record::note_hello(&mut self.peer.record, &own, hello, header.epoch, header.durable);
        self.peer.keeping.gap_due = true;
        self.dirty = true;
    }

    /// Learns from a refusal.
    pub(in crate::engine) fn hear_refusal(&mut self, refuse: &Refuse, header: &FrameHeader) {
        if !self.control.epoch().can_meet(header.epoch) {
            return;
        }
        self.peer.record.epoch = self.peer.record.epoch.max(header.epoch);
        if refuse.code == RefuseCode::History as u16 {
            self.peer.set_apart();
        }
        self.dirty = true;
    }

    /// Writes what is new about the peer, unless a control file is being written.
    pub(in crate::engine) fn pump_peer_record(&mut self) {
        self.end_gap();
        let waits = self.peer.keeping.retry_at.is_some_and(|at| self.now.mono < at);
        if self.control.is_being_written() || waits {
            return;
        }
        if !self.peer.is_to_be_written(self.is_primary()) {
            // What people were told is not forgotten by a crash.
            if std::mem::take(&mut self.peer.keeping.gap_due) {
                self.tell_gap();
            }
            return;
        }
        self.peer.keeping.retry_at = None;
        self.write_control();
    }

    /// The control file could not be written.
    pub(in crate::engine) fn peer_not_written(&mut self) {
        self.peer.keeping.retry_at = Some(self.now.mono.plus_ms(RETRY_MS));
        if std::mem::take(&mut self.peer.keeping.gap_due) {
            self.tell_gap();
        }
    }

    /// At a clean stop: whether all that is known of the peer is on disk, or cannot be put there.
    pub(in crate::engine) fn peer_settled(&mut self) -> bool {
        let primary = self.is_primary();
        let peer = &mut self.peer;
        if peer.keeping.retry_at.is_some() {
            return true;
        }
        // All answers are out, and what they relied on is known exactly, if the peer has confirmed what an earlier life
        // that ended badly may have relied on.
        peer.record.open &= peer.keeping.relied_on > peer.record.on_disk;
        peer.keep();
        !peer.is_to_be_written(primary)
    }

    /// Why this node, a primary, must not serve without its peer.
    pub(in crate::engine) fn peer_is_ahead(&self) -> Option<String> {
        let (peer, end) = (&self.peer.record, self.replicated().sealed());
        if let Some(range) = record::missing(peer, end) {
            return Some(format!(
                "entries {range}, of which the peer has told, are not in this node's journal: its state was set back, or \
                 a takeover of the peer was interrupted"
            ));
        }
        let own = self.control.epoch();
        (peer.epoch > own).then(|| {
            format!(
                "the peer was heard in epoch {}, this node knows none above {own}: it was replaced, or its state was set back",
                peer.epoch
            )
        })
    }
}
