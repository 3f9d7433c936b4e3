//! What the peer told of both journals: noted from hellos and frames, kept in the control file, said in `status`.
//!
//! Written to disk: at once what a hello taught; what grows with each acknowledgement or announcement at the end of a
//! connection, at a clean stop, before a tail is cut, and before the journal lets go of what the peer has.

use super::admin::GapView;
use super::core::Core;
use super::effect::Severity;
use super::incidents::Matter;
use crate::base::{Mono, Seq};
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
    pub(super) saved: PeerRecord,
    pub(super) writing: PeerRecord,
    /// What grew with acknowledgements or announcements is to be written too.
    pub(super) due: bool,
    retry_at: Option<Mono>,
    /// The last entry that clients may have been answered for in an earlier life that did not end well.
    relied_on: Seq,
    /// A gap may be new: an incident tells of it once it is on disk, or cannot be put there.
    gap_due: bool,
    /// An incident told of entries that one of the two lacks.
    gap_told: bool,
}

/// What a start finds in the control file, held against the journal, which ends at `end` and tells `announced`.
pub(super) fn found(
    peer: &mut PeerRecord,
    role: Role,
    (end, announced): (Seq, Seq),
    saved: PeerRecord,
) -> Keeping {
    let mut relied_on = Seq(0);
    if role == Role::Primary {
        // What this node lost with its last breath, nobody was answered for.
        peer.on_disk = peer.on_disk.min(end);
        relied_on = if peer.open { end } else { peer.on_disk };
    } else {
        peer.on_disk = peer.on_disk.max(announced);
    }
    Keeping { saved, relied_on, ..Keeping::default() }
}

impl<S: StoreRead> Core<S> {
    /// What this node's hello says of the peer's journal: known for certain, and relied on at most.
    pub(super) fn known_of_peer(&self) -> (Seq, Seq) {
        let on_disk = self.control.peer.on_disk;
        if !self.is_primary() {
            return (on_disk, Seq(0));
        }
        // A standby may be ahead of this disk: what is not on it was answered to nobody.
        let known = on_disk.min(self.replicated().pace().durable);
        (known, known.max(self.keeping.relied_on))
    }

    /// Learns from a hello of a peer that is not refused.
    pub(super) fn hear_hello(&mut self, hello: &Hello, header: &FrameHeader) {
        let own = self.own();
        record::note_hello(&mut self.control.peer, &own, hello, header.epoch, header.durable);
        self.keeping.gap_due = true;
        self.dirty = true;
    }

    /// Learns from a refusal.
    pub(super) fn hear_refusal(&mut self, refuse: &Refuse, header: &FrameHeader) {
        if !self.control.epoch.can_meet(header.epoch) {
            return;
        }
        self.control.peer.epoch = self.control.peer.epoch.max(header.epoch);
        if refuse.code == RefuseCode::History as u16 {
            self.set_apart();
        }
        self.dirty = true;
    }

    /// The two journals cannot be joined: one of the nodes needs a full copy.
    pub(super) fn set_apart(&mut self) {
        self.control.peer.apart = true;
        self.keeping.gap_due = true;
        self.dirty = true;
    }

    /// A stream has begun: the journals are joined.
    pub(super) fn set_joined(&mut self) {
        self.control.peer.apart = false;
        self.dirty = true;
    }

    /// A primary told how far its disk is.
    pub(super) fn hear_announced(&mut self, durable: Seq) {
        self.control.peer.on_disk = self.control.peer.on_disk.max(durable);
    }

    /// A standby told what is on its disk.
    pub(super) fn hear_acknowledged(&mut self, durable: Seq) {
        let peer = &mut self.control.peer;
        peer.holds = durable;
        peer.on_disk = peer.on_disk.max(durable);
    }

    /// A connection is over: what it told is kept.
    pub(super) fn keep_peer(&mut self) {
        let (now, saved) = (&self.control.peer, &self.keeping.saved);
        self.keeping.due |= now.on_disk != saved.on_disk || now.holds != saved.holds;
    }

    /// Up to where the control file on disk tells what the peer has on its disk; none if it tells all that is known.
    pub(super) fn peer_recorded(&self) -> Option<Seq> {
        let (known, recorded) = (self.control.peer.on_disk, self.keeping.saved.on_disk);
        (recorded < known).then_some(recorded)
    }

    fn peer_to_write(&self) -> bool {
        let (now, saved) = (self.control.peer, self.keeping.saved);
        // Both grow all the time.
        let level = PeerRecord { on_disk: now.on_disk, holds: now.holds, ..saved };
        let set_back = |peer: &PeerRecord| record::peer_set_back(peer).is_some();
        let gap = self.is_primary() && set_back(&now) != set_back(&saved);
        now != saved && (self.keeping.due || gap || now != level)
    }

    /// Writes what is new about the peer, unless a control file is being written.
    pub(super) fn pump_peer(&mut self) {
        self.end_gap();
        let waits = self.keeping.retry_at.is_some_and(|at| self.now.mono < at);
        if self.control_write.is_some() || waits {
            return;
        }
        if !self.peer_to_write() {
            // What people were told is not forgotten by a crash.
            if std::mem::take(&mut self.keeping.gap_due) {
                self.tell_gap();
            }
            return;
        }
        self.keeping.retry_at = None;
        self.write_control();
    }

    /// Whether no write of the control file has failed a moment ago.
    pub(super) fn peer_may_be_written(&self) -> bool {
        self.peer_deadline().is_none()
    }

    /// When a failed write is tried again.
    pub(super) fn peer_deadline(&self) -> Option<Mono> {
        self.keeping.retry_at.filter(|at| self.now.mono < *at)
    }

    /// The control file is on disk.
    pub(super) fn peer_written(&mut self) {
        self.keeping.saved = self.keeping.writing;
        let (now, saved) = (&self.control.peer, &self.keeping.saved);
        self.keeping.due &= now.on_disk != saved.on_disk || now.holds != saved.holds;
    }

    /// It is not.
    pub(super) fn peer_not_written(&mut self) {
        self.keeping.retry_at = Some(self.now.mono.plus_ms(RETRY_MS));
        if std::mem::take(&mut self.keeping.gap_due) {
            self.tell_gap();
        }
    }

    /// At a clean stop: whether all that is known of the peer is on disk, or cannot be put there.
    pub(super) fn peer_settled(&mut self) -> bool {
        if self.keeping.retry_at.is_some() {
            return true;
        }
        // All answers are out, and what they relied on is known exactly, if the peer has confirmed what an earlier life
        // that ended badly may have relied on.
        let peer = &mut self.control.peer;
        peer.open &= self.keeping.relied_on > peer.on_disk;
        self.keep_peer();
        !self.peer_to_write()
    }

    /// Why this node, a primary, must not serve without its peer.
    pub(super) fn peer_is_ahead(&self) -> Option<String> {
        let (peer, end) = (&self.control.peer, self.replicated().sealed());
        if let Some(range) = record::missing(peer, end) {
            return Some(format!(
                "entries {range}, of which the peer has told, are not in this node's journal: its state was set back, or \
                 a takeover of the peer was interrupted"
            ));
        }
        (peer.epoch > self.control.epoch).then(|| {
            format!(
                "the peer was heard in epoch {}, this node knows none above {}: it was replaced, or its state was set back",
                peer.epoch, self.control.epoch
            )
        })
    }

    /// Tells of entries that one of the two lacks and that the other may have answered for.
    pub(super) fn tell_gap(&mut self) {
        let end = self.replicated().sealed();
        let peer = self.control.peer;
        if self.is_primary() {
            if let Some(range) = record::peer_set_back(&peer) {
                let text = format!(
                    "the peer had acknowledged entries {range} as durable and does not have them any more: its directory \
                     was replaced by an older copy or a new one; until it has caught up they are on this node alone"
                );
                self.keeping.gap_told = true;
                self.incident_once(Severity::Critical, Matter::PeerSetBack, text);
            }
            return;
        }
        let (set_back, missing) = (record::set_back(&peer, end), record::missing(&peer, end));
        let text = match (set_back, missing) {
            (Some(range), _) => format!(
                "this node had acknowledged entries {range} as durable and does not have them any more: its directory was \
                 replaced by an older copy or a new one; a takeover would lose them"
            ),
            (None, Some(range)) if peer.apart => format!(
                "entries {range}, which the primary has, are not here, and its journal does not reach back to them: this \
                 node needs a full copy; a takeover would lose them"
            ),
            _ => return,
        };
        self.keeping.gap_told = true;
        self.incident_once(Severity::Critical, Matter::EntriesMissing, text);
    }

    fn end_gap(&mut self) {
        if !self.keeping.gap_told {
            return;
        }
        let peer = self.control.peer;
        if self.is_primary() {
            if record::peer_set_back(&peer).is_none() {
                self.keeping.gap_told = false;
                let text = format!(
                    "the peer has everything again that it had acknowledged, up to entry {}",
                    peer.on_disk
                );
                self.incident_over(Matter::PeerSetBack, "peer-whole", text);
            }
        } else if self.replicated().is_written()
            && record::missing(&peer, self.replicated().sealed()).is_none()
        {
            self.keeping.gap_told = false;
            let text = format!(
                "this node has everything again of which its peer has told, up to entry {}",
                peer.offered.max(peer.known_here)
            );
            self.incident_over(Matter::EntriesMissing, "entries-back", text);
        }
    }

    /// Entries that one of the two nodes lacks, for `status`.
    pub(super) fn gap(&self) -> Option<GapView> {
        let peer = &self.control.peer;
        if !self.is_primary() {
            let end = self.replicated().sealed();
            let range = record::missing(peer, end)?;
            let text = if record::set_back(peer, end).is_some() {
                format!(
                    "entries {range} are not here; this node had acknowledged some of them and was set back"
                )
            } else if peer.apart {
                format!(
                    "entries {range} are not here, and the primary's journal does not reach back: full copy needed"
                )
            } else {
                format!("entries {range}, which the primary has, are still to come")
            };
            let (from, to, full_copy) = (range.from.0, range.to.0, peer.apart);
            return Some(GapView { here: true, from, to, full_copy, text });
        }
        let oldest = self.replicated().oldest();
        let (text, to) = match record::peer_set_back(peer) {
            Some(range) => (format!("the peer had acknowledged entries {range} and was set back"), range.to),
            None if peer.apart && peer.holds.next() < oldest => {
                let to = Seq(oldest.0 - 1);
                (format!("entries {} to {to} are gone here and not at the peer", peer.holds.next()), to)
            }
            None if peer.apart => ("the peer's history cannot be joined to this one".to_owned(), peer.holds),
            None => return None,
        };
        let copy = if peer.apart { ": it needs a full copy" } else { "" };
        let (from, text) = (peer.holds.next().0, format!("{text}{copy}"));
        Some(GapView { here: false, from, to: to.0, full_copy: peer.apart, text })
    }
}
