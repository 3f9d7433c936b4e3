//! What a takeover must account for, by the world's own knowledge: the highest durable head that reached a node, not the one
//! that the node remembers.

use super::checker::{Checker, NodeTruth};
use super::net::Heard;
use super::world::World;
use crate::base::{AckLevel, Seq};
use crate::engine::Engine;
use crate::engine::admin::TakeoverAccount;
use crate::format::control::{Control, Role};

/// What a node has heard must be on its disk so long after the connection ended on which it heard it (microseconds).
const KEPT_AFTER: u64 = 2_000_000;

/// Durable heads of its peer that reached a node.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeardHeads {
    /// In any frame that it took up, or on its disk.
    any: u64,
    /// In a hello.
    hello: u64,
    /// When it last stopped listening.
    unheard_at: u64,
    /// It has been told since its journal became shorter.
    told_short: bool,
}

impl World {
    /// What a node does with its promises at this moment.
    pub(super) fn note_lowered(&mut self, n: usize) {
        self.check.nodes[n].lowered = self.nodes[n].engine.as_ref().and_then(Engine::lowered);
    }
}

impl Checker {
    /// A node writes a mark that says what its journal counts as announced. One that takes over announces everything, also
    /// what no primary had on its disk: if it dies then, its next life is a standby that applies all of it.
    pub(super) fn note_mark(&mut self, node: usize, announced: Seq) {
        let truth = &mut self.nodes[node];
        if truth.taking_over {
            truth.taken_up_to = truth.taken_up_to.max(announced.0);
        }
    }

    /// A node has taken up what frames told it.
    pub(super) fn on_heard(&mut self, node: usize, all: Vec<Heard>) {
        if self.is_primary(node) {
            return;
        }
        let shortened = self.nodes[node].shortened;
        let heard = &mut self.nodes[node].heard;
        for Heard { durable, hello } in all {
            heard.any = heard.any.max(durable);
            if hello {
                heard.hello = heard.hello.max(durable);
                heard.told_short |= shortened;
            }
        }
    }

    /// Whether a node whose journal became shorter has met its peer since.
    pub(super) fn told_set_back(&self, node: usize) -> bool {
        self.nodes[node].heard.told_short
    }

    /// A node stopped listening to a stream.
    pub(super) fn on_unheard(&mut self, node: usize, now: u64) {
        self.nodes[node].heard.unheard_at = now;
    }

    /// A node gave up a stream that had spoken a moment ago.
    pub(super) fn on_left_living(&mut self, node: usize, connection: u64) {
        // A copy that is whole ends its connection, and so does who refused a role or took it: the next one is another
        // beginning.
        let NodeTruth { whole_at, ended_stream_at, .. } = self.nodes[node];
        if ![whole_at, ended_stream_at].contains(&Some(self.now)) {
            self.left_living = Some((node, connection, self.now));
        }
    }

    /// A node answers the hello of a call.
    pub(super) fn on_replaced(&mut self, node: usize, connection: u64) {
        if let Some((left_by, left, at)) = self.left_living
            && left_by == node
            && left != connection
            && at == self.now
        {
            self.fail("I-14", format!("node {node} gives up a living stream for another call"));
        }
    }

    /// A node died: what it has heard and had no time to write down is forgotten.
    pub(super) fn forget_heard(&mut self, node: usize, listens: bool, troubled: bool) {
        let heard = &mut self.nodes[node].heard;
        let kept = !listens && !troubled && self.now > heard.unheard_at + KEPT_AFTER;
        if !kept {
            (heard.any, heard.hello) = (0, 0);
        }
    }

    /// A node starts: what stands on its disk it knows.
    pub(super) fn heads_on_disk(&mut self, node: usize, control: &Control) {
        if self.is_primary(node) {
            return;
        }
        let tips = self.nodes[node].journals[0].path.iter();
        let told = tips.filter_map(|tip| self.history.batches.get(&(0, tip.chain)));
        let in_journal = told.map(|known| known.batch.header().durable.0).max().unwrap_or(0);
        let peer = &control.peer;
        let heard = &mut self.nodes[node].heard;
        heard.any = heard.any.max(in_journal).max(peer.on_disk.0).max(peer.offered.0);
        heard.hello = heard.hello.max(peer.offered.0);
    }

    /// Whether a node may answer an entry that its peer does not have: it lowered the promise, and said so.
    pub(super) fn excused(&self, node: usize, seq: u64) -> bool {
        let node = &self.nodes[node];
        match node.lowered {
            Some((_, None)) => node.degraded,
            // Once it has begun to restore the promise, what comes from then on waits again.
            Some((_, Some(until))) => node.degraded && seq <= until.0,
            None => false,
        }
    }

    /// A node tells that entries which it answered without its peer are on the peer's disk now.
    pub(super) fn on_restored(&mut self, node: usize, text: &str) {
        let alone = self.nodes[node].alone.take();
        // Thousands are separated.
        let text = text.replace(',', "");
        let numbers: Vec<u64> =
            text.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
        let (first, until) = match (&numbers[..], alone) {
            ([first, .., until], _) => (*first, *until),
            (_, None) => return,
            (_, Some((first, _))) => (u64::MAX, first.seq),
        };
        if let Some((lowest, _)) = alone
            && lowest.seq < first
        {
            let text =
                format!("node {node} answered entry {} without its peer, and says: {text}", lowest.seq);
            return self.fail("I-12", text);
        }
        let (own, peer) = (&self.nodes[node].journals[0], &self.nodes[1 - node]);
        // What it says may be less than what was answered.
        if let Some((_, place)) = alone
            && own.holds(place.chain)
            && !peer.journals[0].holds(place.chain)
            && !peer.shortened
        {
            let text = format!(
                "node {node} restores a promise, and entry {}, answered without its peer, is not there: {text}",
                place.seq
            );
            return self.fail("I-12", text);
        }
        let last = own.path.iter().find(|tip| tip.seq >= until);
        if last.is_some_and(|tip| !peer.journals[0].holds(tip.chain)) && !peer.shortened {
            self.fail("I-12", format!("node {node} says that its peer has entry {until} on disk: {text}"));
        }
    }

    /// A primary recovers its journal up to `end`: if its last life did not end well, it must take it that anybody may have
    /// been answered for all of that, as what its peer acknowledged is not written down each time.
    pub(super) fn note_relied(&mut self, node: usize, end: u64) {
        let truth = &mut self.nodes[node];
        if truth.control.role == Role::Primary && truth.control.peer.open {
            truth.relied_end = truth.relied_end.max(end);
        }
    }

    /// A standby has become primary and told its account.
    pub(super) fn on_takeover(&mut self, node: usize, account: &TakeoverAccount) {
        let lost = self.gone(node);
        let (deaths, shortened) = (self.nodes[node].deaths, self.nodes[node].shortened);
        let mut why = None;
        for a in &lost {
            let epoch = self.epoch_of(a);
            if a.place.seq <= account.kept_up_to && epoch <= account.old_epoch {
                why = Some(format!("it says that entry {} is kept, and it is not", a.place.seq));
            }
            let promised = a.level >= AckLevel::Durable
                || a.level == AckLevel::Received && a.peer_deaths == deaths && a.place.origin != node;
            if promised && !shortened {
                let level = a.level.name();
                why = Some(format!("command {} was acknowledged at level {level} and is lost", a.op));
            }
        }
        let mut below: Vec<u64> =
            lost.iter().map(|a| a.place.seq).filter(|seq| *seq <= account.announced).collect();
        below.dedup();
        if below.len() as u64 > account.lost_announced {
            let n = below.len();
            why = Some(format!(
                "{n} entries announced as durable are lost, it says {}",
                account.lost_announced
            ));
        }
        // A node that was never set back has all that it acknowledged. But it cannot know that it was not, and a primary
        // that was killed cannot know which of its entries had been acknowledged: those may be counted, and no others.
        let shared = account.announced.saturating_sub(account.lost_announced);
        let counted = shared + account.durable_level_lost;
        let may_be_counted = counted <= self.nodes[1 - node].relied_end;
        if account.durable_level_lost > 0 && !shortened && !may_be_counted {
            why = Some("it says that updates acknowledged at level durable are lost".to_owned());
        }
        why = why.or_else(|| self.loss_denied(node, account));
        if let Some(why) = why {
            self.fail("I-22", format!("the account of node {node}'s takeover: {why}: {account:?}"));
        }
        self.lost.extend(lost.iter().map(|a| a.op));
        self.takeovers.push(node);
    }

    /// What the account leaves out of what had reached the node.
    fn loss_denied(&self, node: usize, account: &TakeoverAccount) -> Option<String> {
        let truth = &self.nodes[node];
        let (heard, kept) = (truth.heard, account.kept_up_to);
        if heard.any > kept.max(account.announced) {
            return Some(format!("it had heard of entry {}, which it does not mention", heard.any));
        }
        if heard.any.saturating_sub(kept) > account.lost_announced {
            return Some(format!("it had heard of entry {} and counts too little as lost", heard.any));
        }
        if heard.hello > kept && !truth.loss_accepted {
            return Some(format!("nobody was asked whether entries up to {} may be lost", heard.hello));
        }
        let durable = self.gone(node).into_iter().filter(|a| a.level >= AckLevel::Durable);
        let last = durable.map(|a| a.place.seq).max().filter(|_| truth.shortened && heard.told_short)?;
        (last.saturating_sub(kept) > account.durable_level_lost)
            .then(|| format!("entry {last} was acknowledged at level durable, and it does not say so"))
    }
}
