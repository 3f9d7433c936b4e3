//! What an update would be answered now, and why, and what to do: the state that this node tells of itself.

use super::config::PeerLoss;
use super::core::Core;
use super::incidents::Matter;
use super::peer::PeerState;
use super::roles::Stage;
use crate::base::limits::WRITE_HANGS_MS;
use crate::base::{AckLevel, Fault, JournalKind};
use crate::journal::JournalState;
use crate::store::StoreRead;

/// An update like this tells whether the journal takes any (bytes).
const USUAL: usize = 4096;

const EMFILE: i32 = 24;
const ENFILE: i32 = 23;
const EROFS: i32 = 30;

/// What keeps a node from its work although its role allows it; of several the first counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hindrance {
    /// Two writes of a journal in a row failed.
    JournalFailed(JournalKind, Fault),
    /// A journal is full and no segment can be made.
    JournalFull(JournalKind, Fault),
    /// The disk of a journal ends no write.
    JournalHangs(JournalKind),
    /// The store cannot apply.
    Store(Fault),
    /// The store cannot be made durable, and a barrier waits for that.
    Checkpoint(Fault),
    /// The journal is at its quota, the spool takes nothing, and the config says that updates stop then.
    SpoolFull,
    /// Updates at this level wait for a peer that takes nothing.
    PeerStuck(AckLevel),
    /// Updates at this level wait for a peer that is away.
    PeerAway(AckLevel),
}

/// A state in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// A fixed word for programs.
    pub(super) word: &'static str,
    /// Why, if it is not as it should be.
    pub(super) reason: String,
    /// What people can do then.
    pub(super) next: &'static str,
}

/// The word for a node whose disk refuses, and what to do; `other` is for faults that have none of their own.
fn refusal(fault: Fault, other: (&'static str, Matter)) -> (&'static str, &'static str) {
    match fault {
        Fault::NoSpace => ("no-space", "make room on that disk; updates go on by themselves"),
        Fault::Errno(EROFS) => (
            "read-only",
            "see why the file system is read-only (`dmesg`), then make it writable; updates go on by themselves",
        ),
        Fault::Errno(EMFILE | ENFILE) => {
            ("no-descriptors", "let the process open more files (LimitNOFILE, `ulimit -n`) and restart it")
        }
        Fault::Unsynced(_) => (
            other.0,
            "make room on that disk, check it (`dmesg`, `df`), then restart the node: what it lacks is replayed",
        ),
        _ => (other.0, other.1.row().advice),
    }
}

impl Hindrance {
    pub(super) fn describe(self) -> Condition {
        let (reason, (word, next)) = match self {
            Self::JournalFailed(journal, fault) => (
                format!(
                    "writing the {} journal failed twice ({fault}): updates are refused until a restart",
                    journal.name()
                ),
                ("read-only", Matter::JournalFailed.row().advice),
            ),
            Self::JournalFull(journal, fault) => (
                format!(
                    "the {} journal is full and its next segment cannot be made ({fault}): updates are refused",
                    journal.name()
                ),
                refusal(fault, ("journal-failed", Matter::JournalUnmade)),
            ),
            Self::JournalHangs(journal) => (
                format!(
                    "the disk of the {} journal has ended no write for {} s: updates are refused until it does",
                    journal.name(),
                    WRITE_HANGS_MS / 1000
                ),
                ("disk-hangs", Matter::JournalHangs.row().advice),
            ),
            Self::Store(fault) => (
                match fault {
                    Fault::Unsynced(_) => format!(
                        "the store takes nothing until this node is restarted ({fault}): updates are refused"
                    ),
                    _ => format!(
                        "the store cannot apply what the journal holds ({fault}): updates are refused"
                    ),
                },
                refusal(fault, ("store-failed", Matter::StoreFailed)),
            ),
            Self::Checkpoint(fault) => (
                format!(
                    "the store cannot be made durable ({fault}), and a change of files waits for that: updates are \
                     refused"
                ),
                refusal(fault, ("store-failed", Matter::CheckpointFailed)),
            ),
            Self::SpoolFull => (
                "the journal is at its quota, the spool takes nothing more, and spool_full is \"block\": updates of \
                 replicated files are refused"
                    .to_owned(),
                ("no-space", Matter::SpoolFull.row().advice),
            ),
            Self::PeerStuck(level) => (
                format!(
                    "the peer is connected and takes nothing: updates at level {} wait for it",
                    level.name()
                ),
                ("peer-stuck", Matter::PeerStuck.row().advice),
            ),
            Self::PeerAway(level) => (
                format!(
                    "the peer is away and on_peer_loss is \"block\": updates at level {} wait for it",
                    level.name()
                ),
                ("peer-away", Matter::PeerLost.row().advice),
            ),
        };
        Condition { word, reason, next }
    }
}

impl<S: StoreRead> Core<S> {
    /// Whether both journals take an update of the usual size.
    pub(super) fn takes_updates(&self) -> bool {
        JournalKind::ALL.iter().all(|kind| self.journal_takes(*kind, USUAL) == JournalState::Open)
    }

    /// What keeps this node from its work now.
    pub(super) fn hindrance(&self) -> Option<Hindrance> {
        let unknown = Fault::Errno(5);
        for journal in JournalKind::ALL {
            if self.journals[journal.index()].has_failed() {
                return Some(Hindrance::JournalFailed(journal, self.disk.write_fault().unwrap_or(unknown)));
            }
            if journal == JournalKind::Replicated && self.spool_blocks() {
                return Some(Hindrance::SpoolFull);
            }
            if self.journal_takes(journal, USUAL) != JournalState::Open {
                return Some(Hindrance::JournalFull(journal, self.disk.unmade().unwrap_or(unknown)));
            }
        }
        if let Some(journal) = JournalKind::ALL.into_iter().find(|kind| self.hangs(*kind)) {
            return Some(Hindrance::JournalHangs(journal));
        }
        if let Some(fault) = self.store_fault() {
            return Some(Hindrance::Store(fault));
        }
        if let Some(fault) = self.barrier_fault() {
            return Some(Hindrance::Checkpoint(fault));
        }
        let level = self.config.ack_level;
        if !self.serving() || level == AckLevel::Local || self.ack_promise.is_lowered() {
            return None;
        }
        match self.peer_state() {
            PeerState::Stuck => Some(Hindrance::PeerStuck(level)),
            PeerState::Away | PeerState::Connected if self.config.on_peer_loss == PeerLoss::Block => {
                Some(Hindrance::PeerAway(level))
            }
            _ => None,
        }
    }

    /// What an update would be answered now.
    pub(super) fn condition(&self) -> Condition {
        let (word, reason) = (self.roles.word(), self.reason());
        let next = match self.roles.stage() {
            Stage::Asking => Matter::WaitingForPeer.row().advice,
            Stage::Diverged => Matter::Diverged.row().advice,
            _ => "",
        };
        if self.stopping {
            return Condition { word: "stopping", reason: "it is shutting down".to_owned(), next: "" };
        }
        let Some(hindrance) = self.hindrance() else {
            if self.serving() && !self.has_lease() {
                let reason = "no lease holds that lets this primary accept updates".to_owned();
                return Condition { word: "no-lease", reason, next: Matter::LeaseOver.row().advice };
            }
            return Condition { word, reason, next };
        };
        // Only a restart helps, whatever it was about to do.
        let for_good = matches!(hindrance, Hindrance::JournalFailed(..));
        let hindrance = hindrance.describe();
        if for_good || matches!(self.roles.stage(), Stage::Serving | Stage::Standby) {
            return hindrance;
        }
        // It will not get any further before that is mended.
        let reason = format!("{reason}; {}", hindrance.reason);
        Condition { word, reason, next: hindrance.next }
    }
}

#[cfg(test)]
#[path = "condition_tests.rs"]
mod tests;

#[cfg(test)]
mod words {
    use super::*;

    #[test]
    fn each_cause_has_its_word_its_reason_and_its_next_step() {
        use Hindrance::{Checkpoint, JournalFailed, JournalFull, JournalHangs, PeerAway, PeerStuck, Store};
        let (replicated, durable) = (JournalKind::Replicated, AckLevel::Durable);
        for (hindrance, word, reason, next) in [
            (
                JournalFailed(replicated, Fault::Errno(5)),
                "read-only",
                "failed twice (Input/output error",
                "restart",
            ),
            (JournalFull(replicated, Fault::NoSpace), "no-space", "no space left on the device", "make room"),
            (JournalFull(replicated, Fault::Errno(EROFS)), "read-only", "Read-only file system", "writable"),
            (
                JournalFull(JournalKind::Local, Fault::Errno(EMFILE)),
                "no-descriptors",
                "the local journal",
                "LimitNOFILE",
            ),
            (JournalFull(replicated, Fault::Errno(13)), "journal-failed", "Permission denied", "permissions"),
            (JournalHangs(replicated), "disk-hangs", "ended no write for 10 s", "take over on the peer"),
            (Store(Fault::NoSpace), "no-space", "the store cannot apply", "make room"),
            (
                Store(Fault::NoSpace.at_sync()),
                "store-failed",
                "until this node is restarted",
                "restart the node",
            ),
            (Store(Fault::NoSpace.at_sync()), "store-failed", "no space left on device", "make room"),
            (Store(Fault::Errno(ENFILE)), "no-descriptors", "Too many open files in system", "ulimit"),
            (Store(Fault::Errno(EROFS)), "read-only", "Read-only file system", "dmesg"),
            (Store(Fault::Errno(5)), "store-failed", "Input/output error", "check the disk of the store"),
            (Checkpoint(Fault::NoSpace), "no-space", "a change of files waits", "make room"),
            (
                Checkpoint(Fault::Errno(EMFILE)),
                "no-descriptors",
                "made durable (Too many open",
                "LimitNOFILE",
            ),
            (Checkpoint(Fault::Errno(5)), "store-failed", "cannot be made durable", "check the disk"),
            (PeerStuck(durable), "peer-stuck", "updates at level durable wait", "look at the peer's disk"),
            (PeerAway(durable), "peer-away", "on_peer_loss is \"block\"", "look at the peer"),
        ] {
            let told = hindrance.describe();
            assert_eq!(told.word, word, "{hindrance:?}");
            assert!(told.reason.contains(reason) && told.next.contains(next), "{hindrance:?}: {told:?}");
        }
    }
}
