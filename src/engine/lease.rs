//! The lease under which a primary accepts updates, where something outside decides which node that is.
//!
//! A node whose config says `decider = "lease"` accepts updates only until a deadline on its own clock, which the holder
//! of the lease moves on from time to time. Nobody need tell it that the time is over: it looks at the clock before each
//! update and before each answer, so it stops although the holder hangs, dies, or is cut off, and although the node itself
//! stood still. What waits for an answer at that moment is told that none will come.
//!
//! A grant counts from a moment that **this node** told before the lease was renewed ([`LeaseView::clock`]). So a grant that
//! comes late, also one that waited in the socket of a node which was frozen, gives no more time than is left of it. It
//! names the life of the node in which that was told, as each life has a clock of its own. Of two grants the one counts
//! that counts from later, also if it is shorter.
//!
//! Who decides also has to know whether the standby has all that was acknowledged. So the promised level is lowered only
//! once a grant says that this is written down ([`Grant::alone`]): until then updates wait.

use super::admin::{Grant, LeaseView};
use super::core::Core;
use super::effect::Severity;
use super::incidents::Matter;
use super::roles::Stage;
use super::status::seconds;
use crate::base::limits::{LEASE_LACK_MS, LEASE_MS_MAX};
use crate::base::{Mono, Seq};
use crate::doors::Refusal;
use crate::store::StoreRead;
use std::cmp::Ordering;

/// What this node was granted.
#[derive(Debug, Default)]
pub(super) struct Lease {
    /// Updates are accepted before this.
    until: Option<Mono>,
    /// The latest moment from which a grant counts that was taken.
    from: Option<Mono>,
    /// Grants that count from this or earlier are void: one that came later was given back.
    void: Option<Mono>,
    /// It is written down where the lease is that the standby may lack what is acknowledged from now on.
    alone: bool,
    /// Since when this node serves without a lease.
    lacks: Option<Mono>,
}

impl Lease {
    fn holds(&self, now: Mono) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Takes a grant, or says why not.
    fn take(&mut self, grant: &Grant, run: u64, now: Mono) -> Result<(), &'static str> {
        let from = Mono(grant.from);
        if grant.run != run {
            return Err("it counts from a moment of another life of this node");
        }
        if from > now {
            return Err("it counts from a moment that is still to come");
        }
        if grant.ms > LEASE_MS_MAX {
            return Err("it lasts for more than an hour");
        }
        if grant.ms == 0 {
            (self.until, self.void) = (self.until.map(|until| until.min(now)), Some(now));
            return Ok(());
        }
        if self.void.is_some_and(|void| from <= void) {
            return Err("the lease was given back after that moment");
        }
        let end = Some(from.plus_ms(grant.ms));
        match Some(from).cmp(&self.from) {
            // Of one that comes late nothing counts: what was asked for later was granted since.
            Ordering::Less => return Ok(()),
            Ordering::Equal => self.until = self.until.max(end),
            // A shorter one ends a longer one, which a person gave for the time of maintenance.
            Ordering::Greater => self.until = end,
        }
        (self.from, self.alone) = (Some(from), grant.alone);
        Ok(())
    }
}

impl<S: StoreRead> Core<S> {
    /// Whether this node serves, and is not kept from accepting updates by a lease that is over.
    pub(super) fn may_update(&self) -> bool {
        self.serving() && self.has_lease()
    }

    /// Whether no lease is asked for, or one holds.
    pub(super) fn has_lease(&self) -> bool {
        !self.config.under_lease || self.lease.holds(self.now.mono)
    }

    /// Whether the promised level may be lowered, as far as leases go.
    pub(super) fn may_lower(&self) -> bool {
        !self.config.under_lease || self.lease.alone
    }

    /// A holder of the lease asks how things are, and may grant time.
    pub(super) fn lease(&mut self, token: u64, grant: Option<Grant>) {
        if !self.config.under_lease {
            return self.reply_no(
                token,
                format!(
                    "the config of {} does not say that a lease decides who is primary",
                    self.config.name
                ),
                "put decider = \"lease\" into config.toml of both nodes, and start them again",
            );
        }
        if let Some(grant) = grant {
            if let Err(why) = self.lease.take(&grant, self.config.seed, self.now.mono) {
                return self.reply_no(
                    token,
                    format!("this grant of a lease is void: {why}"),
                    "ask anew, then grant",
                );
            }
            self.look_at_lease();
            self.dirty = true;
        }
        let view = self.lease_view();
        self.reply_value(token, view);
    }

    /// Tells who waits when the time is over. Called before anything else of a round, so that nothing is answered after it.
    ///
    /// Returns whether clients have to be told at once.
    pub(super) fn look_at_lease(&mut self) -> bool {
        if self.roles.stage() != Stage::Serving || self.has_lease() {
            if self.lease.lacks.take().is_some() {
                let text = match self.roles.stage() {
                    Stage::Serving => "this primary may accept updates again",
                    _ => "this node needs no lease: it does not serve",
                };
                self.incident_over(Matter::LeaseOver, "lease-back", text.to_owned());
            }
            return false;
        }
        let now = self.now.mono;
        let ended = self.lease.until.take().is_some();
        let since = *self.lease.lacks.get_or_insert(now);
        if ended {
            let why = "its lease is over";
            self.refuse_pending(why);
            self.disk.abandon_all(Refusal::NotServing(why.to_owned()));
            self.roles.part_from_blocks();
            self.dirty = true;
            self.tell_lease("its lease is over");
        } else if now >= since.plus_ms(LEASE_LACK_MS) {
            self.tell_lease("no lease was granted to it");
        }
        ended
    }

    fn tell_lease(&mut self, why: &str) {
        let text = format!("this primary accepts no updates: {why}; another node may take over");
        self.incident_once(Severity::Critical, Matter::LeaseOver, text);
    }

    /// When a lease ends, or its lack is told.
    pub(super) fn lease_deadline(&self) -> Option<Mono> {
        if !self.config.under_lease || self.roles.stage() != Stage::Serving {
            return None;
        }
        let lack = self.lease.lacks.map(|since| since.plus_ms(LEASE_LACK_MS));
        [self.lease.until, lack].into_iter().flatten().filter(|at| *at > self.now.mono).min()
    }

    /// What a holder of the lease has to know of this node.
    fn lease_view(&self) -> LeaseView {
        let now = self.now.mono;
        LeaseView {
            run: self.config.seed,
            clock: now.0,
            name: self.config.name.clone(),
            ordinal: self.config.ordinal.0,
            pair: self.config.pair.to_string(),
            role: self.control.role().name().to_owned(),
            stage: self.roles.word().to_owned(),
            reason: self.reason(),
            epoch: self.control.epoch().0,
            holds: self.has_lease(),
            seconds_left: self.lease.until.map_or(0.0, |until| seconds(until.since(now))),
            alone: self.lease.alone,
            lowered: self.ack_promise.is_lowered(),
            waits_to_lower: self.ack_promise.waits_to_lower(),
            promises: self.ack_promise.promises(),
            whole: self.peer_is_whole(),
            hears_primary: self.link.hears_primary(),
            silence_seconds: seconds(self.peer.silence(now)),
        }
    }

    /// The same for `status`; nothing where no lease is asked for.
    pub(super) fn lease_in_status(&self) -> Option<LeaseView> {
        self.config.under_lease.then(|| self.lease_view())
    }

    /// Whether the standby follows, and its disk has all that was there when this epoch began. What came after that was
    /// acknowledged as promised, or the promise is lowered now.
    fn peer_is_whole(&self) -> bool {
        let first = self.control.table().last().map_or(Seq(0), |epoch| epoch.first_seq);
        self.link.is_streaming() && !self.peer.is_incomplete() && self.peer.confirmed().durable >= first
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
