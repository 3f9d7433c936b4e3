//! A journal whose disk does nothing: who waits for it is told within a bound, and nobody else is let in to wait.

use super::admin::AdminReply;
use super::core::Core;
use super::effect::Severity;
use super::incidents::Matter;
use super::journals::Journals;
use crate::base::limits::{UNWRITTEN_MS, WRITE_HANGS_MS};
use crate::base::{Fault, JournalKind, Mono, Seq};
use crate::doors::Refusal;
use crate::journal::JournalState;
use crate::store::StoreRead;

/// What clients are told that wait for an answer which will not come.
#[derive(Debug)]
pub(super) struct Abandon {
    pub(super) why: Refusal,
    /// Those that wait for an entry after these, by journal; without it all that wait.
    pub(super) beyond: Option<[Seq; 2]>,
}

/// What the disk of the journals refuses or does not end.
#[derive(Debug, Default)]
pub(super) struct DiskTrouble {
    /// Since when each journal waits for a disk that does nothing for it, and what it had done until then.
    since: [Option<(u64, Mono)>; 2],
    /// Why the last write that failed did so.
    write_fault: Option<Fault>,
    /// Why the last segment could not be made, while one waits.
    unmade: Option<Fault>,
    /// Clients to be told at the end of the round that no answer will come.
    abandoned: Option<Abandon>,
}

impl DiskTrouble {
    /// Notes which journals stand still.
    fn look(&mut self, journals: &Journals, now: Mono) {
        for (journal, since) in journals.iter().zip(&mut self.since) {
            let moves = journal.moves();
            *since = match *since {
                _ if !journal.waits_for_disk() => None,
                Some((before, since)) if before == moves => Some((moves, since)),
                _ => Some((moves, now)),
            };
        }
    }

    pub(super) fn write_failed(&mut self, fault: Fault) {
        self.write_fault = Some(fault);
    }

    /// Why the last write that failed did so.
    pub(super) fn write_fault(&self) -> Option<Fault> {
        self.write_fault
    }

    /// The last segment could not be made, or one was made again.
    pub(super) fn set_unmade(&mut self, fault: Option<Fault>) {
        self.unmade = fault;
    }

    /// Why the last segment could not be made, while one waits.
    pub(super) fn unmade(&self) -> Option<Fault> {
        self.unmade
    }

    /// All clients that wait are told so.
    pub(super) fn abandon_all(&mut self, why: Refusal) {
        self.abandoned = Some(Abandon { why, beyond: None });
    }

    /// Clients are told so that wait for what comes after these entries, by journal.
    fn abandon(&mut self, why: &Refusal, beyond: [Seq; 2]) {
        match &mut self.abandoned {
            // Both journals.
            Some(Abandon { beyond: Some(other), .. }) => {
                for (other, beyond) in other.iter_mut().zip(beyond) {
                    *other = (*other).min(beyond);
                }
            }
            Some(Abandon { beyond: None, .. }) => {}
            none => *none = Some(Abandon { why: why.clone(), beyond: Some(beyond) }),
        }
    }

    pub(super) fn take_abandoned(&mut self) -> Option<Abandon> {
        self.abandoned.take()
    }
}

impl<S: StoreRead> Core<S> {
    /// Notes which journals stand still. What was accepted is kept, and may become durable later; who waits for its
    /// answer is told that this is not known.
    pub(super) fn pump_standstill(&mut self) {
        self.disk.look(&self.journals, self.now.mono);
        for kind in JournalKind::ALL {
            let journal = &self.journals[kind.index()];
            match journal.waits_for_segment() {
                Some(fault) if !journal.is_written() && self.stands_since(kind, UNWRITTEN_MS).is_some() => {
                    let full = fault.is_shortage();
                    self.abandon([kind], &if full { Refusal::NoSpace } else { Refusal::DiskFailed });
                }
                None if self.hangs(kind) => self.abandon([kind], &Refusal::DiskHangs),
                _ => {}
            }
        }
        self.tell_standstill();
    }

    fn tell_standstill(&mut self) {
        let Some(kind) = JournalKind::ALL.into_iter().find(|kind| self.hangs(*kind)) else {
            let text = "the disk of the journal answers again".to_owned();
            return self.incident_over(Matter::JournalHangs, "journal-moves", text);
        };
        let text = format!(
            "the disk of the {} journal has ended no write for {} s: updates are refused until it does",
            kind.name(),
            WRITE_HANGS_MS / 1000
        );
        self.incident_once(Severity::Critical, Matter::JournalHangs, text);
    }

    /// Since when a journal stands still, if that is `ms` or more.
    fn stands_since(&self, kind: JournalKind, ms: u64) -> Option<Mono> {
        let (moves, since) = self.disk.since[kind.index()]?;
        // It may have moved since it was looked at.
        let stands = moves == self.journals[kind.index()].moves() && self.now.mono >= since.plus_ms(ms);
        stands.then_some(since)
    }

    /// Whether the disk of a journal ends nothing that it began.
    pub(super) fn hangs(&self, kind: JournalKind) -> bool {
        let journal = &self.journals[kind.index()];
        // Where no segment can be made, that is the reason, and is told as such.
        journal.waits_for_segment().is_none() && self.stands_since(kind, WRITE_HANGS_MS).is_some()
    }

    /// Whether what waits to become durable in a journal may hope for that.
    pub(super) fn check_moves(&self, kind: JournalKind) -> Result<(), Refusal> {
        match kind {
            _ if self.journals[kind.index()].has_failed() => Err(Refusal::DiskFailed),
            _ if self.hangs(kind) => Err(Refusal::DiskHangs),
            _ => Ok(()),
        }
    }

    /// Whether a journal takes nothing now, so that nobody need wait for its queue.
    fn refuses(&self, kind: JournalKind) -> bool {
        self.journal_takes(kind, 0) != JournalState::Open || self.hangs(kind)
    }

    /// What is queued in the journals that take updates (bytes), and whether one of them is short of room.
    pub(super) fn queues(&self) -> (usize, bool) {
        let takes = JournalKind::ALL.into_iter().filter(|kind| !self.refuses(*kind));
        takes.map(|kind| &self.journals[kind.index()]).fold((0, false), |(queued, short), journal| {
            (queued + journal.queued_bytes(), short || journal.is_short())
        })
    }

    /// Whether clients wait for a barrier that gets on, or for a switchover.
    pub(super) fn is_barred(&self) -> bool {
        self.roles.holds_doors() || self.operators.has_barrier() && self.check_barrier().is_ok()
    }

    /// Nothing may be journalled while there is a barrier. One that waits for a journal or a store which takes nothing may
    /// last, so its clients are refused.
    pub(super) fn check_barrier(&self) -> Result<(), Refusal> {
        if !self.operators.has_barrier() {
            return Ok(());
        }
        if let Some(kind) = JournalKind::ALL.into_iter().find(|kind| self.refuses(*kind)) {
            return match self.journal_takes(kind, 0) {
                JournalState::NoSpace => Err(Refusal::NoSpace),
                _ => self.check_moves(kind).and(Err(Refusal::DiskFailed)),
            };
        }
        match self.store_fault().or(self.barrier_fault()) {
            None => Ok(()),
            Some(Fault::NoSpace) => Err(Refusal::NoSpace),
            Some(_) => Err(Refusal::DiskFailed),
        }
    }

    /// Why the store could not be made durable the last time, while a barrier waits for that.
    pub(super) fn barrier_fault(&self) -> Option<Fault> {
        self.checkpoint.failed().filter(|_| self.operators.has_barrier())
    }

    /// Tells those who wait for what is not durable in these journals that no answer will come.
    pub(super) fn abandon<const N: usize>(&mut self, kinds: [JournalKind; N], why: &Refusal) {
        let mut beyond = [Seq(u64::MAX); 2];
        for kind in kinds {
            beyond[kind.index()] = self.journals[kind.index()].pace().durable;
        }
        for token in self.operators.give_up_beyond(beyond) {
            let message = format!("it is not known whether this is kept: {why}");
            let next = "see `hot-backup status`, and look whether it was done when the disk is well again"
                .to_owned();
            self.reply(token, AdminReply::Error { message, next });
        }
        self.disk.abandon(why, beyond);
    }

    /// When a journal that stands still is given up, if nothing moves.
    pub(super) fn standstill_deadline(&self) -> Option<Mono> {
        let each = JournalKind::ALL.into_iter().filter_map(|kind| {
            let (_, since) = self.disk.since[kind.index()]?;
            let lacks = self.journals[kind.index()].waits_for_segment().is_some();
            Some(since.plus_ms(if lacks { UNWRITTEN_MS } else { WRITE_HANGS_MS }))
        });
        each.filter(|at| *at > self.now.mono).min()
    }
}
