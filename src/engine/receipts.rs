//! What has become of an update, by its epoch and number: also after a takeover, as histories are told apart by epochs.

use super::core::Core;
use super::stats::ReceiptView;
use crate::base::{Epoch, JournalKind, Seq};
use crate::format::control::{EpochMark, Role};
use crate::store::StoreRead;

/// What a history says of an epoch and a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It has that entry.
    Kept(Epoch),
    /// The number belongs to a later epoch, or that epoch ended before it: the entry will never be in it.
    Lost,
    /// It may come yet.
    Waiting,
    /// There was never such an entry, as far as is known here.
    Unknown,
}

/// `table` has where each epoch begins, oldest first; the history ends at `end` in `newest`.
fn judge(table: &[EpochMark], (newest, end): (Epoch, Seq), seq: Seq, epoch: Option<Epoch>) -> Verdict {
    let holds = table.iter().rev().find(|mark| mark.first_seq <= seq).map(|mark| mark.epoch);
    let is_over = |epoch: Epoch| table.iter().any(|mark| mark.epoch > epoch && mark.first_seq <= seq);
    match (holds, epoch) {
        _ if seq == Seq(0) => Verdict::Unknown,
        (Some(here), None) if seq <= end => Verdict::Kept(here),
        (_, None) if seq > end => Verdict::Waiting,
        (Some(here), Some(asked)) if seq <= end && here == asked => Verdict::Kept(here),
        (_, Some(asked)) if is_over(asked) => Verdict::Lost,
        (_, Some(asked)) if seq > end && asked >= newest => Verdict::Waiting,
        _ => Verdict::Unknown,
    }
}

impl<S: StoreRead> Core<S> {
    pub(super) fn receipt(&self, seq: Seq, epoch: Option<Epoch>) -> ReceiptView {
        let pace = self.replicated().pace();
        let newest = self.control.table().last().map_or(Epoch(0), |mark| mark.epoch);
        let verdict = judge(self.control.table(), (newest, pace.appended), seq, epoch);
        let mut view =
            ReceiptView { seq: seq.0, epoch: epoch.map_or(0, |epoch| epoch.0), ..ReceiptView::default() };
        let kept = match verdict {
            Verdict::Kept(here) => {
                view.epoch = here.0;
                true
            }
            _ => false,
        };
        view.durable_here = kept && seq <= pace.durable;
        let at_peer = if self.is_primary() { self.peer.retained() } else { self.announced() };
        view.durable_both = view.durable_here && seq <= at_peer;
        view.applied_here = kept && seq <= self.applied_seq(JournalKind::Replicated);
        view.applied_both = view.applied_here && self.is_primary() && seq <= self.peer.acked().applied;
        (view.state, view.text) = self.told(verdict, &view);
        view
    }

    fn told(&self, verdict: Verdict, view: &ReceiptView) -> (String, String) {
        let ReceiptView { seq, epoch, .. } = view;
        let diverged = self.control.role() == Role::Diverged;
        let (state, text) = match verdict {
            Verdict::Kept(_) if diverged => (
                "unknown",
                format!(
                    "entry {seq} of epoch {epoch} is in the journal of this node, which has parted from the pair: ask the \
                     other node"
                ),
            ),
            Verdict::Kept(_) => {
                let durable = match (view.durable_here, view.durable_both) {
                    (_, true) => "durable on both nodes",
                    (true, false) => "durable on this node's disk, and not known to be on the other's",
                    (false, false) => "not on this node's disk yet",
                };
                let applied = match (view.applied_here, view.applied_both) {
                    (_, true) => "applied on both",
                    (true, false) => "applied here",
                    (false, false) => "not applied here yet",
                };
                ("kept", format!("entry {seq} of epoch {epoch} is {durable}; {applied}"))
            }
            Verdict::Lost => (
                "lost",
                format!(
                    "entry {seq} of epoch {epoch} is lost: the pair went on without it in a later epoch; the node that had \
                     it keeps it in `diverged/`"
                ),
            ),
            Verdict::Waiting => (
                "waiting",
                format!("entry {seq} is not here: it was not made yet, or has not come from the primary"),
            ),
            Verdict::Unknown => {
                ("unknown", format!("nothing is known here of an entry {seq} of epoch {epoch}"))
            }
        };
        (state.to_owned(), text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Chain;

    #[test]
    fn a_receipt_tells_kept_lost_and_not_yet_apart_by_epoch_and_number() {
        let mark =
            |epoch, first| EpochMark { epoch: Epoch(epoch), first_seq: Seq(first), prev_chain: Chain(0) };
        // Epoch 2 had 1 to 9; the other node took over with 1 to 6 of them and went on to 20.
        let table = [mark(2, 1), mark(1_000_001, 7)];
        let of = |seq, epoch: u64| {
            let asked = (epoch > 0).then_some(Epoch(epoch));
            judge(&table, (Epoch(1_000_001), Seq(20)), Seq(seq), asked)
        };
        assert_eq!([of(6, 2), of(6, 0)], [Verdict::Kept(Epoch(2)); 2]);
        assert_eq!([of(7, 2), of(9, 2), of(500, 2)], [Verdict::Lost; 3]);
        assert_eq!([of(7, 0), of(20, 1_000_001)], [Verdict::Kept(Epoch(1_000_001)); 2]);
        assert_eq!([of(21, 1_000_001), of(21, 0), of(30, 1_000_002)], [Verdict::Waiting; 3]);
        assert_eq!([of(0, 2), of(3, 1_000_001), of(20, 1_000_003)], [Verdict::Unknown; 3]);
        assert_eq!(judge(&[], (Epoch(0), Seq(0)), Seq(1), None), Verdict::Waiting);
    }
}
