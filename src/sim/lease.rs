//! A lease as etcd holds it, and the two watches that ask for it, in lives in which a lease decides who is primary.
//!
//! What the watches decide is decided by the very code that the real ones use. The place of the lease keeps true time; the
//! nodes' clocks run at rates of their own. Watches are cut off for a while, and what they say comes late, also to nodes
//! that stood still meanwhile.

use super::operator::Purpose;
use super::options::Mutation;
use super::world::{World, WorldEv};
use crate::engine::admin::{AdminAnswer, AdminReply, AdminRequest, Grant, LeaseView};
use crate::engine::decider::{Absent, Held, Record, Seen, Step, decide, granted_ms};

/// The lease lasts so long (milliseconds).
const TTL_MS: u64 = 1000;
/// A watch looks so often (microseconds).
const BEAT: u64 = 150_000;

/// What a watch asks its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// How it is.
    View,
    /// To take time, or to start alone: nothing depends on the answer.
    Grant,
    /// To end what it was granted.
    Back,
    /// What a takeover would come to.
    Plan,
    /// To take over.
    Takeover,
}

/// The place of the lease.
#[derive(Clone, Debug, Default)]
pub(super) struct Arbiter {
    /// Who holds it, and until when if nothing is renewed.
    holder: Option<(usize, u64)>,
    /// Since when nobody does.
    free_since: u64,
    record: Option<Record>,
    /// A watch does not reach it until then.
    away_until: [u64; 2],
    /// Since when a node asks its peer, its watch holding the lease.
    asking: [Option<u64>; 2],
}

impl Arbiter {
    fn run_out(&mut self, now: u64) {
        if let Some((_, until)) = self.holder
            && now >= until
        {
            (self.holder, self.free_since) = (None, until);
        }
    }

    fn held(&mut self, n: usize, now: u64) -> Held {
        self.run_out(now);
        match self.holder {
            None => Held::Free((now - self.free_since) / 1000),
            Some((holder, _)) if holder == n => Held::Mine,
            Some((holder, _)) => Held::Theirs(format!("node {holder}")),
        }
    }

    fn is_held_by(&mut self, n: usize, now: u64) -> bool {
        self.held(n, now) == Held::Mine
    }
}

impl World {
    /// Both watches begin.
    pub(super) fn watches_begin(&mut self) {
        if self.options.leased {
            self.after(1_000, WorldEv::Watch(0));
            self.after(2_000, WorldEv::Watch(1));
        }
    }

    /// A watch looks at its node.
    pub(super) fn watch_looks(&mut self, n: usize) {
        let us = BEAT / 2 + self.streams.lease.below(BEAT);
        self.after(us, WorldEv::Watch(n));
        if !self.operator.healing() && self.operator.ready() && self.streams.lease.percent(3) {
            let long =
                [300_000, 1_200_000, 4_000_000][usize::try_from(self.streams.lease.below(3)).unwrap_or(0)];
            self.arbiter.away_until[n] = self.trace.now + long;
            self.trace.sometimes("a watch was cut off from its lease");
        }
        if self.nodes[n].engine.is_some() {
            return self.ask(n, AdminRequest::Lease { grant: None }, Purpose::Watch(Asked::View));
        }
        self.watch_decides(n, Err(Absent::Gone(TTL_MS)));
    }

    /// A node answers its watch.
    pub(super) fn watch_is_told(&mut self, n: usize, asked: Asked, reply: AdminReply) {
        let now = self.trace.now;
        match (asked, reply) {
            (Asked::View, AdminReply::Ok { value: AdminAnswer::Lease(view) }) => {
                self.watch_decides(n, Ok(view))
            }
            (Asked::Back, AdminReply::Ok { .. }) => self.let_go(n),
            (Asked::Plan, AdminReply::Ok { value: AdminAnswer::Takeover(account) }) => {
                if account.needs_accept_loss || !self.arbiter.is_held_by(n, now) {
                    return self.let_go(n);
                }
                self.arbiter.record = Some(Record {
                    pair: String::new(),
                    name: account.name.clone(),
                    ordinal: u8::try_from(n).unwrap_or(0),
                    epoch: account.epoch,
                    alone: true,
                });
                let request = AdminRequest::Takeover {
                    peer_is_down: true,
                    dry_run: false,
                    accept_loss: false,
                    now: true,
                };
                self.ask(n, request, Purpose::Watch(Asked::Takeover));
            }
            (Asked::Takeover, AdminReply::Ok { .. }) => {
                self.trace.sometimes("a watch took over");
                self.after(1, WorldEv::Watch(n));
            }
            (Asked::Plan | Asked::Takeover, _) => self.let_go(n),
            _ => {}
        }
    }

    /// The lease is given back.
    fn let_go(&mut self, n: usize) {
        if self.arbiter.is_held_by(n, self.trace.now) {
            (self.arbiter.holder, self.arbiter.free_since) = (None, self.trace.now);
        }
    }

    fn watch_decides(&mut self, n: usize, node: Result<LeaseView, Absent>) {
        let now = self.trace.now;
        if self.arbiter.away_until[n] > now {
            return;
        }
        let held = self.arbiter.held(n, now);
        let asks = held == Held::Mine && node.as_ref().is_ok_and(|view| view.stage == "asking-peer");
        let since = self.arbiter.asking[n].filter(|_| asks);
        self.arbiter.asking[n] = asks.then(|| since.unwrap_or(now));
        let record = self.arbiter.record.clone();
        let step = decide(&Seen {
            node: node.as_ref().map_err(|absent| *absent),
            asking_ms: self.arbiter.asking[n].map_or(0, |since| (now - since) / 1000),
            held,
            record: record.as_ref(),
            ttl_ms: TTL_MS,
            release_after_ms: 0,
            allow_loss: false,
        });
        self.watch_acts(n, step, node.ok());
    }

    fn watch_acts(&mut self, n: usize, step: Step, view: Option<LeaseView>) {
        let now = self.trace.now;
        let until = now + TTL_MS * 1000;
        match step {
            Step::Wait(why) => {
                if why.contains("may lack updates") {
                    self.trace.sometimes("a standby that may lack something was not let take over");
                }
            }
            Step::Lapse(_) => {}
            Step::Acquire => {
                self.arbiter.holder = Some((n, until));
                self.after(1, WorldEv::Watch(n));
            }
            Step::TakeOver { .. } => {
                self.arbiter.holder = Some((n, until));
                let request = AdminRequest::Takeover {
                    peer_is_down: true,
                    dry_run: true,
                    accept_loss: false,
                    now: true,
                };
                self.ask(n, request, Purpose::Watch(Asked::Plan));
            }
            Step::Renew { record, alone } => {
                if record.is_some() {
                    self.arbiter.record = record;
                }
                self.arbiter.holder = Some((n, until));
                self.grant(n, view, granted_ms(TTL_MS), alone, Asked::Grant);
            }
            Step::Hold => self.arbiter.holder = Some((n, until)),
            Step::StartAlone => {
                self.arbiter.holder = Some((n, until));
                self.ask(n, AdminRequest::StartAlone, Purpose::Watch(Asked::Grant));
            }
            Step::Release(_) if view.is_none() => self.let_go(n),
            Step::Release(_) => self.grant(n, view, 0, false, Asked::Back),
        }
    }

    fn grant(&mut self, n: usize, view: Option<LeaseView>, ms: u64, alone: bool, asked: Asked) {
        let Some(view) = view else { return };
        let ms = if ms > 0 && self.mutate(Mutation::OutliveLease) { 20 * TTL_MS } else { ms };
        let grant = Some(Grant { run: view.run, from: view.clock, ms, alone });
        self.ask(n, AdminRequest::Lease { grant }, Purpose::Watch(asked));
    }

    /// An update of a replicated file is acknowledged by node `n`: while it holds the lease (I-27).
    pub(super) fn check_lease(&mut self, n: usize, number: usize) {
        if !self.options.leased {
            return;
        }
        let now = self.trace.now;
        if !self.arbiter.is_held_by(n, now) {
            let holder = self.arbiter.holder;
            let text = format!(
                "node {n} acknowledges command {number} and does not hold the lease; who does, until when: {holder:?}"
            );
            self.check.fail("I-27", text);
        }
    }
}
