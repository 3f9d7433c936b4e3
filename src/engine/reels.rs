//! Reels behind the spool's directory: when that is at its high mark, its oldest parts go on to reels. What is on reels is always
//! the oldest of what the spool has, so the peer gets reels, directory, journal, in that order.
//!
//! A part leaves the directory only when the drive said at a flush that it is on a reel (I-38). A reel that is missing stops
//! nothing but this: what cannot go there stays where it is, up to the end of the ladder.

use super::core::Core;
use super::effect::{Severity, SpoolEffect};
use super::incidents::Matter;
use super::spool::{Access, Trouble};
use super::status::seconds;
use crate::base::limits::{SPOOL_AHEAD, SPOOL_REEL_MS, SPOOL_RETRY_MS, SPOOL_TAPE_HANGS_MS};
use crate::base::shown;
use crate::base::{Fault, Mono};
use crate::format::spool::PartHeader;
use crate::format::tape_health::{Alert, AlertLevel};
use crate::store::StoreRead;
use std::collections::VecDeque;

/// A part on its way from the directory to reels.
#[derive(Clone, Copy, Debug)]
struct Moving {
    round: u64,
    part: PartHeader,
    /// What was before it failed, or it is not needed any more: it does not count, whatever is said of it.
    void: bool,
}

/// What this node knows of reels.
#[derive(Debug, Default)]
pub(super) struct Reels {
    /// So many of the spool's parts, the oldest, are on reels.
    pub(super) parts: usize,
    moving: VecDeque<Moving>,
    /// Since when the first of those is under way.
    since: Mono,
    /// From the directory's high mark until its low one is reached.
    draining: bool,
    trouble: Option<Trouble>,
    retry_at: Mono,
    /// The reel that is waited for.
    wanted: Option<String>,
}

impl Reels {
    /// Whether they take nothing.
    pub(super) fn is_stuck(&self) -> bool {
        self.trouble.is_some()
    }

    pub(super) fn wanted(&self) -> Option<&str> {
        self.wanted.as_deref()
    }

    pub(super) fn is_moving(&self) -> bool {
        self.moving.iter().any(|moving| !moving.void)
    }

    /// The oldest part is let go; whether it is on reels.
    pub(super) fn oldest_goes(&mut self, part: &PartHeader) -> bool {
        self.moving.iter_mut().filter(|moving| moving.part == *part).for_each(|moving| moving.void = true);
        let reel = self.parts > 0;
        self.parts -= usize::from(reel);
        reel
    }

    /// When something is due.
    pub(super) fn deadline(&self, now: Mono) -> Option<Mono> {
        let hangs = self.is_moving().then(|| self.since.plus_ms(SPOOL_TAPE_HANGS_MS));
        let hangs = hangs.filter(|_| self.trouble.is_none());
        let retry = self.trouble.filter(|_| self.moving.is_empty()).map(|_| self.retry_at);
        hangs.into_iter().chain(retry.filter(|at| *at > now)).min()
    }
}

impl<S: StoreRead> Core<S> {
    /// Whether reels behind the directory take what it has no room for.
    pub(super) fn reels_work(&self) -> bool {
        self.spool.settings.second().is_some() && !self.spool.reels.is_stuck()
    }

    /// Bytes in the directory.
    pub(super) fn spool_disk_bytes(&self) -> u64 {
        self.spool.disk_parts().map(PartHeader::file_bytes).sum()
    }

    /// Parts that the directory has no room for go on to reels.
    pub(super) fn pump_reels(&mut self) {
        if self.spool.settings.second().is_none() || self.spool.access != Access::Open {
            return;
        }
        let (now, reels) = (self.now.mono, &self.spool.reels);
        if reels.is_moving() && reels.since.plus_ms(SPOOL_TAPE_HANGS_MS) <= now && reels.trouble.is_none() {
            return self.reel_trouble(Trouble::Hangs);
        }
        let low = self.look_at_marks();
        let moving = &self.spool.reels.moving;
        let mut ahead: u64 = moving.iter().map(|moving| moving.part.file_bytes()).sum();
        while self.spool.reels.draining && ahead < SPOOL_AHEAD && !self.stopping {
            // What is on its way leaves the directory. One part more goes where there is no room at all.
            let left = self.spool_disk_bytes().saturating_sub(ahead);
            if left <= low && !(ahead == 0 && self.has_no_room()) {
                return;
            }
            let reels = &self.spool.reels;
            let voids = reels.moving.iter().any(|moving| moving.void);
            let waits = reels.trouble.is_some() && (reels.retry_at > now || !reels.moving.is_empty());
            let at = reels.parts + reels.moving.len();
            let Some(part) = self.spool.parts.get(at).copied().filter(|_| !voids && !waits) else { return };
            let round = self.fresh_id();
            let reels = &mut self.spool.reels;
            if reels.moving.is_empty() {
                reels.since = now;
            }
            reels.moving.push_back(Moving { round, part, void: false });
            ahead += part.file_bytes();
            self.effect(SpoolEffect::Move { round, part });
        }
    }

    /// Whether the directory took nothing more.
    fn has_no_room(&self) -> bool {
        self.spool.trouble.is_some_and(Trouble::is_full) || self.spool.wants_room
    }

    /// What the directory may hold is its limit, or what its disk has beside it. Gives the low mark (bytes).
    fn look_at_marks(&mut self) -> u64 {
        let (settings, disk) = (&self.spool.settings, self.spool_disk_bytes());
        let room = match settings.limit_bytes {
            0 => self.spool.free.unwrap_or(0) + disk,
            limit => limit,
        };
        let (high, low) = (room / 100 * settings.tape_high_percent, room / 100 * settings.tape_low_percent);
        let mark = if self.spool.reels.draining { low } else { high };
        self.spool.reels.draining = disk > 0 && (disk > mark || self.has_no_room());
        low
    }

    /// A part is on reels, by the drive's word; or not.
    pub(super) fn spool_moved(&mut self, round: u64, result: Result<(), Fault>) {
        let reels = &mut self.spool.reels;
        let Some(at) = reels.moving.iter().position(|moving| moving.round == round) else { return };
        let Some(moved) = reels.moving.remove(at) else { return };
        reels.since = self.now.mono;
        match result {
            // I-38: now, and not before, it may leave the directory.
            Ok(()) if !moved.void && self.spool.parts.get(reels.parts) == Some(&moved.part) => {
                reels.parts += 1;
                self.spool.wants_room = false;
                self.spool.free = self.spool.free.map(|free| free + moved.part.file_bytes());
                self.effect(SpoolEffect::Remove { part: moved.part, reel: false });
                self.end_reel_trouble();
                self.spool_has_room();
            }
            // It was let go meanwhile, or is written again: on the reels nobody needs it.
            Ok(()) => {
                if !self.spool.parts.contains(&moved.part) {
                    self.effect(SpoolEffect::Remove { part: moved.part, reel: true });
                }
            }
            Err(fault) => {
                reels.moving.iter_mut().for_each(|moving| moving.void = true);
                if !moved.void {
                    let trouble = if fault == Fault::NO_REEL { Trouble::Reel } else { Trouble::Disk(fault) };
                    self.reel_trouble(trouble);
                }
            }
        }
    }

    fn reel_trouble(&mut self, trouble: Trouble) {
        let wait = if trouble == Trouble::Reel { SPOOL_REEL_MS } else { SPOOL_RETRY_MS };
        self.spool.reels.trouble = Some(trouble);
        self.spool.reels.retry_at = self.now.mono.plus_ms(wait);
        if self.spool.wants_room {
            // There will be none for the time being, which is found at once.
            self.spool_has_room();
        }
        self.dirty = true;
        let tape = &self.spool.settings.tape;
        let why = match trouble {
            // The reel is told of by itself.
            Trouble::Reel => return,
            Trouble::Hangs => "its drive does not answer".to_owned(),
            Trouble::Disk(fault) => format!("{fault}"),
            Trouble::Limit => "it is full".to_owned(),
        };
        let first = self.spool.disk_parts().next().map_or(0, |part| part.first().0);
        let text = format!(
            "{tape} takes nothing of the spool ({why}): entries from {first} on stay on its disk until that is full"
        );
        self.incident_once(Severity::Critical, Matter::TapeFailed, text);
    }

    fn end_reel_trouble(&mut self) {
        if self.spool.reels.trouble.take().is_some() {
            self.dirty = true;
            let text = format!("{} takes parts of the spool again", self.spool.settings.tape);
            self.incident_over(Matter::TapeFailed, "tape-back", text);
        }
    }

    /// A reel is waited for: people are told which, why, and for how long there is room without it.
    pub(super) fn reel_wanted(&mut self, wanted: Option<String>) {
        self.dirty = true;
        match &wanted {
            None => {
                let text = "the reel that was wanted is there".to_owned();
                self.incident_over(Matter::ReelWanted, "reel-there", text);
            }
            // What is told of it once is told again only when it is another one, or another reason.
            Some(text) if self.spool.reels.wanted != wanted => {
                let view = self.spool_view();
                let left = match view.seconds_left {
                    Some(left) => format!(", which lasts for about {} minutes", (left / 60.0).round()),
                    None => String::new(),
                };
                let text =
                    format!("{text}; without it there is room for {}{left}", shown::bytes(view.room_bytes));
                if self.spool.reels.wanted.is_some() {
                    self.incident(Severity::Critical, Matter::ReelWanted, text);
                } else {
                    self.incident_once(Severity::Critical, Matter::ReelWanted, text);
                }
            }
            Some(_) => {}
        }
        self.spool.reels.wanted = wanted;
    }

    /// A part on reels cannot be read: neither it nor what is before it is sent.
    pub(super) fn reel_damaged(&mut self, part: &PartHeader, why: &str) {
        let text = format!(
            "part {} of the spool, entries {} to {}, cannot be read from its reel ({why}): it is not sent, and the peer will \
             need a full copy",
            part.file_name(),
            part.first(),
            part.end.seq
        );
        self.replicated_mut().unspool(part.index);
        self.incident(Severity::Critical, Matter::SpoolDamaged, text);
    }

    /// A drive set flags: told by the worst of them, with all.
    pub(super) fn tape_alerts(&mut self, drive: &str, flags: &[u8]) {
        let alerts: Vec<Alert> = flags.iter().map(|flag| Alert::of(*flag)).collect();
        let has = |level| alerts.iter().any(|alert| alert.level == level);
        let (severity, matter) = if has(AlertLevel::Critical) {
            (Severity::Critical, Matter::TapeAlert)
        } else if has(AlertLevel::Warning) {
            (Severity::Warning, Matter::TapeWarning)
        } else {
            (Severity::Notice, Matter::TapeNote)
        };
        let all: Vec<String> = alerts.iter().map(ToString::to_string).collect();
        self.incident(severity, matter, format!("{drive}: {}", all.join("; ")));
    }

    /// Seconds, as the view tells them.
    pub(super) fn lasts(&self, room: u64, rate: u64) -> Option<f64> {
        let lacks = self.is_primary() && !self.link.is_streaming();
        room.saturating_mul(1_000_000).checked_div(rate).filter(|_| lacks).map(seconds)
    }
}

#[cfg(test)]
#[path = "reels_tests.rs"]
mod tests;
