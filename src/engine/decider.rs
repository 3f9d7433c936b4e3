//! What the holder of a lease does next: a pure function of what its node says and what stands where the lease is.
//!
//! One `watch` runs beside each node. Two things stand in the place that decides (etcd): the **lease**, a key that goes
//! away when it is not renewed, and names the node that may accept updates; and the **record**, which stays, and names the
//! last node that was let accept updates, its epoch, and whether it may have acknowledged what its standby lacks.
//!
//! The rules that make it safe:
//!
//! 1. A node is granted time only by who holds the lease, and for less than the lease lasts.
//! 2. It is granted time only once the record names it with the epoch in which it serves.
//! 3. It may lower its promise only once the record says that the other may lack something ([`Record::alone`]).
//! 4. Who is not named by the record takes over only if that word is not there, or loss is allowed.
//! 5. A primary of a lower epoch than the record's accepts nothing: somebody else was let.

use super::admin::LeaseView;
use serde::{Deserialize, Serialize};

/// A primary that holds the lease asks its peer for so long before it is told to go on alone (milliseconds).
pub const ASKING_MS: u64 = 1500;

/// What stays when the lease goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The pair.
    pub pair: String,
    /// The last node that was let accept updates ..
    pub name: String,
    /// .. which of the two it is,
    pub ordinal: u8,
    /// .. and its epoch.
    pub epoch: u64,
    /// Whether the other node may lack what was acknowledged at the promised level.
    pub alone: bool,
}

/// Who holds the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nobody, for so long as far as was seen (milliseconds).
    Free(u64),
    /// This node.
    Mine,
    /// The other node, by name.
    Theirs(String),
}

/// A node that does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// Its process has ended, so long ago (milliseconds).
    Gone(u64),
    /// It may live.
    Silent,
}

/// What is seen.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// The node.
    pub node: Result<&'a LeaseView, Absent>,
    /// For how long it has been asking its peer, this watch holding the lease (milliseconds).
    pub asking_ms: u64,
    /// The lease.
    pub held: Held,
    /// The record.
    pub record: Option<&'a Record>,
    /// How long the lease lasts (milliseconds).
    pub ttl_ms: u64,
    /// A node whose process has ended keeps the lease for so long (milliseconds).
    pub release_after_ms: u64,
    /// Loss was allowed.
    pub allow_loss: bool,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, and why.
    Wait(String),
    /// Try to get the lease.
    Acquire,
    /// The lease was got for a takeover: fence the other node, then take over, asking the primary first if it lives.
    TakeOver {
        /// It is connected and was heard a moment ago: it may give its role away, so that nothing is lost.
        ask_first: bool,
    },
    /// Renew the lease. First write this record, if there is one; then grant time.
    Renew {
        /// The record.
        record: Option<Record>,
        /// Whether the node may lower its promise.
        alone: bool,
    },
    /// Renew it, and grant nothing: the node does not serve yet.
    Hold,
    /// Renew it, and let a node serve that cannot ask its peer.
    StartAlone,
    /// Give the lease back: the node does not need it, or does not live.
    Release(String),
    /// Let it run out: the node may live, and its own time ends first.
    Lapse(String),
}

/// Decides.
#[must_use]
pub fn decide(seen: &Seen<'_>) -> Step {
    let mine = seen.held == Held::Mine;
    let idle = |why: String| if mine { Step::Release(why) } else { Step::Wait(why) };
    match seen.node {
        Err(Absent::Gone(ms)) if mine && ms >= seen.release_after_ms => {
            Step::Release("the node's process has ended".to_owned())
        }
        Err(Absent::Gone(_)) if mine => Step::Lapse("the node's process has ended".to_owned()),
        Err(Absent::Silent) if mine => Step::Lapse("the node does not answer".to_owned()),
        Err(_) => Step::Wait("the node does not answer".to_owned()),
        Ok(node) => match node.role.as_str() {
            "primary" => primary(seen, node).unwrap_or_else(idle),
            "standby" => standby(seen, node).unwrap_or_else(idle),
            role => idle(format!("{} is {role}, and can be no primary", node.name)),
        },
    }
}

fn named(record: &Record, node: &LeaseView) -> bool {
    record.ordinal == node.ordinal
}

fn primary(seen: &Seen<'_>, node: &LeaseView) -> Result<Step, String> {
    if let Some(record) = seen.record.filter(|record| record.epoch > node.epoch) {
        return Err(format!(
            "{} was let accept updates in epoch {}, which is above {}, the epoch of {}: it waits for that node",
            record.name, record.epoch, node.epoch, node.name
        ));
    }
    match &seen.held {
        Held::Theirs(name) => Err(format!("{name} holds the lease")),
        Held::Free(_) => Ok(Step::Acquire),
        Held::Mine if node.stage == "asking-peer" && seen.asking_ms >= ASKING_MS => Ok(Step::StartAlone),
        Held::Mine if node.stage == "serving" => Ok(renew(seen.record, node)),
        Held::Mine => Ok(Step::Hold),
    }
}

fn renew(record: Option<&Record>, node: &LeaseView) -> Step {
    // As long as nothing is written down, the other may lack anything.
    let noted = record.is_none_or(|record| record.alone || !named(record, node));
    let alone = if node.promises {
        node.lowered || node.waits_to_lower || (noted && !node.whole)
    } else {
        !node.whole
    };
    // The word is taken from the node before it is taken from the record.
    let keep = alone || (noted && node.alone);
    let write = Record {
        pair: node.pair.clone(),
        name: node.name.clone(),
        ordinal: node.ordinal,
        epoch: node.epoch,
        alone: keep,
    };
    Step::Renew { record: Some(write).filter(|write| Some(write) != record), alone }
}

fn standby(seen: &Seen<'_>, node: &LeaseView) -> Result<Step, String> {
    let hears = node.hears_primary && node.silence_seconds < 1.0;
    match &seen.held {
        Held::Theirs(name) => return Err(format!("{name} holds the lease")),
        // Its own watch had better hold it.
        Held::Free(ms) if hears && *ms < seen.ttl_ms => {
            return Err("nobody holds the lease, and the primary lives: it has a moment to get it".to_owned());
        }
        Held::Free(_) | Held::Mine => {}
    }
    if node.stage != "standby" {
        return Err(format!("{} is {}", node.name, node.stage));
    }
    let Some(record) = seen.record else {
        return Err("no node has ever been let accept updates: the primary begins".to_owned());
    };
    if record.alone && !named(record, node) && !seen.allow_loss {
        return Err(format!(
            "{} recorded that {} may lack updates that were acknowledged: start {}, or allow the loss with --allow-loss",
            record.name, node.name, record.name
        ));
    }
    Ok(if seen.held == Held::Mine { Step::TakeOver { ask_first: hears } } else { Step::Acquire })
}

/// How long a node may accept updates after the moment at which a lease was renewed for `ttl_ms` (milliseconds).
///
/// A twentieth is left, and 200 ms at least: so the node's time ends before the lease does, though the clocks of the two
/// machines run at rates that differ by some percent.
#[must_use]
pub fn granted_ms(ttl_ms: u64) -> u64 {
    ttl_ms.saturating_sub((ttl_ms / 20).max(200))
}

#[cfg(test)]
#[path = "decider_tests.rs"]
mod tests;
