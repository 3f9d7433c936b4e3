//! Entries that one of the two nodes lacks and that the other may have answered for: told, shown, and told when they are back.

use crate::base::Seq;
use crate::engine::admin::GapView;
use crate::engine::core::Core;
use crate::engine::effect::Severity;
use crate::engine::incidents::Matter;
use crate::pair::record;
use crate::store::StoreRead;

impl<S: StoreRead> Core<S> {
    /// Tells of entries that one of the two lacks and that the other may have answered for.
    pub(in crate::engine) fn tell_gap(&mut self) {
        let end = self.replicated().sealed();
        let peer = self.peer.record;
        if self.is_primary() {
            if let Some(range) = record::peer_set_back(&peer) {
                let text = format!(
                    "the peer had acknowledged entries {range} as durable and does not have them any more: its directory \
                     was replaced by an older copy or a new one; until it has caught up they are on this node alone"
                );
                self.peer.keeping.gap_reported = true;
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
        self.peer.keeping.gap_reported = true;
        self.incident_once(Severity::Critical, Matter::EntriesMissing, text);
    }

    pub(super) fn end_gap(&mut self) {
        if !self.peer.keeping.gap_reported {
            return;
        }
        let peer = self.peer.record;
        if self.is_primary() {
            if record::peer_set_back(&peer).is_none() {
                self.peer.keeping.gap_reported = false;
                let text = format!(
                    "the peer has everything again that it had acknowledged, up to entry {}",
                    peer.on_disk
                );
                self.incident_over(Matter::PeerSetBack, "peer-whole", text);
            }
        } else if self.replicated().is_written()
            && record::missing(&peer, self.replicated().sealed()).is_none()
        {
            self.peer.keeping.gap_reported = false;
            let text = format!(
                "this node has everything again of which its peer has told, up to entry {}",
                peer.offered.max(peer.known_here)
            );
            self.incident_over(Matter::EntriesMissing, "entries-back", text);
        }
    }

    /// Entries that one of the two nodes lacks, for `status`.
    pub(in crate::engine) fn gap(&self) -> Option<GapView> {
        let peer = &self.peer.record;
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
