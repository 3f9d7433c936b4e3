//! The spool: sealed segments that an absent peer lacks go to another disk when the journal is at its high mark, and are read
//! back from there when the peer returns.
//!
//! The peer's claim on the journal ends where the spool holds copies, durably (see [`super::retention`]). The copies go when
//! the peer has confirmed them. With mode `always` every sealed segment goes there, and copies that no peer needs stay until
//! they are too old or take too much. Which copies can be read, [`Journal`](crate::journal::Journal) knows: those that lead up
//! to it without a gap, by epoch, number and chain. So nothing of a history that was left is ever sent.

use super::config::{SpoolConfig, SpoolFull, SpoolMode};
use super::core::Core;
use super::effect::{Severity, SpoolEffect};
use super::event::{SpoolEvent, SpoolFound};
use super::incidents::Matter;
use super::reels::Reels;
use super::spool_age::Saves;
use super::throttle::Throttle;
use crate::base::limits::{
    BLOCK_U64, SPOOL_AHEAD, SPOOL_HANGS_MS, SPOOL_PATIENCE_MS, SPOOL_REEL_MS, SPOOL_RETRY_MS,
    SPOOL_TAPE_HANGS_MS, SPOOL_UNKNOWN_MS, SPOOL_WAIT_MS,
};
use crate::base::shown::{self, Grouped};
use crate::base::{Fault, JournalKind, Mono, Seq};
use crate::format::spool::PartHeader;
use crate::journal::{CursorError, SegmentInfo};
use crate::store::StoreRead;
use std::collections::{BTreeSet, VecDeque};

/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;
/// The rate of updates is measured over so long (microseconds).
const RATE_OVER: u64 = 10_000_000;

/// Whether the spool's directory was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// There is none, or it is off.
    Off,
    /// It has to be read before anything is known of it; not before this time.
    Wanted(Mono),
    /// It is being read, in this round.
    Opening(u64),
    /// It was.
    Open,
}

/// Why nothing more goes to the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It takes as much as `spool_limit` allows.
    Limit,
    /// Its disk did not.
    Disk(Fault),
    /// It has not answered for [`SPOOL_HANGS_MS`].
    Hangs,
    /// A reel is waited for.
    Reel,
}

impl Trouble {
    /// Whether there is no room, or the disk does not answer: another try changes nothing.
    pub(super) const fn is_full(self) -> bool {
        matches!(self, Self::Limit | Self::Hangs | Self::Reel | Self::Disk(Fault::NoSpace))
    }
}

/// A copy that is being made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copying {
    round: u64,
    info: SegmentInfo,
    part: PartHeader,
    since: Mono,
    /// What was before it failed: it is copied again, whatever is said of it.
    void: bool,
}

/// What this node knows of its spool.
#[derive(Debug)]
pub(super) struct Spool {
    pub(super) settings: SpoolConfig,
    pub(super) access: Access,
    /// Parts that are durable there, in order; of this node's history as far as is known.
    pub(super) parts: Vec<PartHeader>,
    /// Which of those are on reels.
    pub(super) reels: Reels,
    /// Parts of other histories: never read, never removed.
    pub(super) strays: Vec<PartHeader>,
    /// In order: one, or to reels so much that a drive has enough.
    pub(super) copying: VecDeque<Copying>,
    /// The directory has no room for the next part, and reels behind it make some.
    pub(super) wants_room: bool,
    pub(super) trouble: Option<Trouble>,
    troubled_since: Mono,
    /// After a trouble it is tried again then.
    retry_at: Mono,
    /// Bytes that its disk has left, as it was told last.
    pub(super) free: Option<u64>,
    /// From the high mark until the low one is reached.
    draining: bool,
    pub(super) rate: Rate,
    /// Users wait for half of the time at most while the journal is above its quota and the spool works.
    throttle: Throttle,
    /// Operators who are answered when what they chose is kept.
    pub(super) asked: VecDeque<u64>,
    /// Which saves are kept.
    pub(super) saves: Saves,
    /// When this process first looked at it.
    pub(super) since: Option<Mono>,
}

/// How much is journalled in a second.
#[derive(Debug, Default)]
pub(super) struct Rate {
    since: Mono,
    bytes: u64,
    /// Of the window before (bytes in a second).
    last: u64,
}

impl Rate {
    fn add(&mut self, now: Mono, bytes: u64) {
        let over = now.since(self.since);
        if over >= RATE_OVER {
            self.last = self.bytes.saturating_mul(1_000_000) / over.max(1);
            (self.since, self.bytes) = (now, 0);
        }
        self.bytes += bytes;
    }

    pub(super) fn per_second(&self, now: Mono) -> u64 {
        let over = now.since(self.since);
        // A window that is young tells little.
        if over < RATE_OVER / 4 { self.last } else { self.bytes.saturating_mul(1_000_000) / over }
    }
}

/// What becomes of the peer's claim when the journal is at its quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stance {
    /// There is no spool.
    Unused,
    /// Segments are on their way there: nothing is dropped that it can take, and the journal may be larger meanwhile.
    Works,
    /// It takes nothing: the config says what then.
    Stuck(SpoolFull),
}

/// The segment of which a part is a copy, as a reader sees it.
fn info_of(part: &PartHeader) -> SegmentInfo {
    let PartHeader { index, base, end, bytes, .. } = *part;
    SegmentInfo { index, bytes, base, end, used: bytes, reusable: false }
}

/// The size that the part of a segment will have (bytes).
fn part_bytes(info: &SegmentInfo) -> u64 {
    info.used + 2 * BLOCK_U64
}

impl Spool {
    /// The same with other settings, as if it was used for the first time. Operators who wait for an answer go on waiting.
    pub(super) fn begin_anew(&mut self, settings: SpoolConfig, since: Option<Mono>) {
        let (asked, saves) = (std::mem::take(&mut self.asked), self.saves);
        *self = Self { since, asked, saves, ..Self::new(settings) };
    }

    pub(super) fn new(settings: SpoolConfig) -> Self {
        let access = if settings.is_on() { Access::Wanted(Mono(0)) } else { Access::Off };
        Self {
            settings,
            access,
            parts: Vec::new(),
            strays: Vec::new(),
            reels: Reels::default(),
            copying: VecDeque::new(),
            wants_room: false,
            trouble: None,
            troubled_since: Mono(0),
            throttle: Throttle::default(),
            retry_at: Mono(0),
            free: None,
            draining: false,
            rate: Rate::default(),
            asked: VecDeque::new(),
            saves: Saves::default(),
            since: None,
        }
    }

    /// Updates were sealed.
    pub(super) fn sealed(&mut self, now: Mono, bytes: u64) {
        self.rate.add(now, bytes);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.parts.iter().chain(&self.strays).map(PartHeader::file_bytes).sum()
    }

    /// Those that are in the directory.
    pub(super) fn disk_parts(&self) -> impl Iterator<Item = &PartHeader> {
        self.parts.iter().skip(self.reels.parts)
    }

    /// What `spool_limit` is about (bytes).
    pub(super) fn limited_bytes(&self) -> u64 {
        let parts = if self.settings.second().is_some() { self.reels.parts } else { 0 };
        self.parts.iter().skip(parts).chain(&self.strays).map(PartHeader::file_bytes).sum()
    }

    /// Whether one more segment may be on its way.
    fn takes_more(&self) -> bool {
        let ahead: u64 = self.copying.iter().map(|copying| copying.info.used).sum();
        let voids = self.copying.iter().any(|copying| copying.void);
        self.copying.is_empty() || (self.settings.is_tape() && ahead < SPOOL_AHEAD && !voids)
    }

    fn hangs_ms(&self) -> u64 {
        let slow = self.settings.is_tape() || self.settings.is_far();
        if slow { SPOOL_TAPE_HANGS_MS } else { SPOOL_HANGS_MS }
    }

    /// Until when it may soon be known what it holds; none if that is known, or cannot be had now.
    pub(super) fn awaited_until(&self, now: Mono) -> Option<Mono> {
        let asks = matches!(self.access, Access::Wanted(_) | Access::Opening(_)) && self.trouble.is_none();
        self.waits_until(SPOOL_WAIT_MS).filter(|until| asks && now < *until)
    }

    /// Whether it may hold what the journal does not, and that is not known although the process has begun long ago.
    pub(super) fn is_unknown(&self, now: Mono) -> bool {
        let unread = !matches!(self.access, Access::Off | Access::Open);
        unread && self.waits_until(SPOOL_UNKNOWN_MS).is_some_and(|until| now < until)
    }

    fn waits_until(&self, ms: u64) -> Option<Mono> {
        Some(self.since.unwrap_or_default().plus_ms(ms)).filter(|_| self.access != Access::Off)
    }

    /// What is being copied: its files have to stay.
    pub(super) fn copying(&self) -> impl Iterator<Item = SegmentInfo> {
        self.copying.iter().map(|copying| copying.info)
    }

    pub(super) fn is_always(&self) -> bool {
        self.settings.is_on() && self.settings.mode == SpoolMode::Always
    }

    fn stance(&self, now: Mono) -> Stance {
        match self.trouble {
            _ if self.access == Access::Off => Stance::Unused,
            // What is in the directory goes on to reels, and makes room.
            Some(trouble) if trouble.is_full() && self.reels_take() => Stance::Works,
            // What failed once may succeed when it is tried again.
            Some(trouble) if trouble.is_full() || self.troubled_since.plus_ms(SPOOL_PATIENCE_MS) <= now => {
                Stance::Stuck(self.settings.full)
            }
            _ => Stance::Works,
        }
    }

    /// Whether reels behind the directory take what it has no room for.
    pub(super) fn reels_take(&self) -> bool {
        self.settings.second().is_some() && !self.reels.is_stuck()
    }

    /// Whether users wait a little, so that the spool comes along.
    pub(super) fn holds_users(&self) -> bool {
        self.throttle.holds()
    }
}

impl<S: StoreRead> Core<S> {
    /// What the spool means for the peer's claim.
    pub(super) fn spool_stance(&self) -> Stance {
        if self.is_primary() { self.spool.stance(self.now.mono) } else { Stance::Unused }
    }

    /// Up to where the journal may let go although the peer lacks it: the spool has it, and the journal is above its mark.
    /// One segment at a time, so that it ends at the low mark.
    pub(super) fn spool_covers(&self) -> Seq {
        self.replicated().oldest_spooled().filter(|_| self.spool.draining).unwrap_or_default()
    }

    /// What the spool still needs of the journal: what is being copied, and with mode `always` all that was not.
    pub(super) fn spool_needs(&self) -> Option<Seq> {
        let next = if self.spool.is_always() { self.replicated().next_to_spool(Seq(0)) } else { None };
        next.into_iter().chain(self.spool.copying()).map(|info| info.base.seq).min()
    }

    /// Whether updates of replicated files are refused because the spool is full.
    pub(super) fn spool_blocks(&self) -> bool {
        self.spool_stance() == Stance::Stuck(SpoolFull::Block)
            && self.has_claim()
            && self.replicated().disk_use().0 >= self.quota()
    }

    pub(super) fn marks(&self) -> (u64, u64) {
        let SpoolConfig { high_percent, low_percent, .. } = self.spool.settings;
        let of = |percent: u64| self.quota() / 100 * percent;
        (of(high_percent), of(low_percent.min(high_percent)))
    }

    /// Copies what is to be copied, lets go of what nobody needs.
    pub(super) fn pump_spool(&mut self) {
        if self.spool.access == Access::Off {
            return;
        }
        self.open_spool();
        self.hold_users();
        if self.spool.access != Access::Open {
            return;
        }
        self.look_at_copying();
        self.release_parts();
        self.pump_reels();
        while !self.stopping && self.copy_next() {}
    }

    /// Users wait a little while the journal is above its quota and the spool works.
    fn hold_users(&mut self) {
        let above = self.replicated().disk_use().0 > self.quota();
        let busy = !self.spool.copying.is_empty() || self.spool.reels.is_moving();
        let works = busy && self.spool_stance() == Stance::Works;
        self.spool.throttle.look(self.now.mono, above && works && !self.stopping);
    }

    fn open_spool(&mut self) {
        self.spool.since.get_or_insert(self.now.mono);
        if let Access::Wanted(at) = self.spool.access
            && at <= self.now.mono
            && !self.stopping
        {
            let round = self.fresh_id();
            self.spool.access = Access::Opening(round);
            let place = self.spool.settings.place.clone();
            let tape = self.spool.settings.second().unwrap_or_default().to_owned();
            self.effect(SpoolEffect::Open { round, place, tape });
        }
    }

    /// A disk that does not answer is no better than one that is full.
    fn look_at_copying(&mut self) {
        let (now, ms) = (self.now.mono, self.spool.hangs_ms());
        let hangs = |copying: &Copying| copying.since.plus_ms(ms) <= now;
        if self.spool.copying.front().is_some_and(hangs) && self.spool.trouble.is_none() {
            self.spool_trouble(Trouble::Hangs);
        }
    }

    /// The next segment goes to the spool, if one has to; whether one does.
    fn copy_next(&mut self) -> bool {
        let fine = self.spool.trouble.is_none() && !self.spool.wants_room;
        let retry = fine || self.spool.retry_at <= self.now.mono;
        // After a trouble it is tried with one.
        let one = self.spool.trouble.is_some() && !self.spool.copying.is_empty();
        if !self.spool.takes_more() || !retry || one {
            return false;
        }
        let after = match self.spool.settings.mode {
            SpoolMode::Always => Seq(0),
            SpoolMode::Auto if self.spool.draining && self.is_primary() && !self.peer.record().apart => {
                self.peer.retained()
            }
            SpoolMode::Auto | SpoolMode::Off => return false,
        };
        let after = self.spool.copying.back().map_or(after, |last| after.max(last.info.end.seq));
        let limit = self.apply_limit(JournalKind::Replicated);
        let Some(info) = self.replicated().next_to_spool(after).filter(|info| info.end.seq <= limit) else {
            return false;
        };
        if !self.make_spool_room(part_bytes(&info)) {
            self.spool_is_full(Trouble::Limit);
            return false;
        }
        let begins = self.spool.parts.is_empty() && self.spool.copying.is_empty();
        if begins && self.spool.trouble.is_none() && !self.spool.is_always() {
            let (used, quota) = (self.replicated().disk_use().0, self.quota());
            let text = format!(
                "the journal takes {} of {}: entries from {} on, which the peer lacks, go to the spool {}",
                shown::bytes(used),
                shown::bytes(quota),
                info.base.seq.next(),
                self.spool.settings.place
            );
            self.incident(Severity::Warning, Matter::Spooling, text);
        }
        let (round, part, since) = (self.fresh_id(), self.part_of(&info), self.now.mono);
        self.spool.copying.push_back(Copying { round, info, part, since, void: false });
        self.effect(SpoolEffect::Copy { round, part });
        true
    }

    /// There is no room for a part. If reels make some, that is no trouble.
    fn spool_is_full(&mut self, trouble: Trouble) {
        if self.reels_work() && self.spool.disk_parts().next().is_some() {
            self.spool.wants_room = true;
            self.spool.retry_at = self.now.mono.plus_ms(SPOOL_RETRY_MS);
            self.pump_reels();
        } else {
            self.spool_trouble(trouble);
        }
    }

    /// There is room in the directory again.
    pub(super) fn spool_has_room(&mut self) {
        self.spool.retry_at = self.now.mono;
    }

    fn part_of(&self, info: &SegmentInfo) -> PartHeader {
        PartHeader {
            pair: self.config.pair,
            ordinal: self.config.ordinal,
            index: info.index,
            base: info.base,
            end: info.end,
            bytes: info.used,
            wall_ms: self.now.wall_ms,
        }
    }

    /// Whether the config lets the spool take so much more. Parts that nobody needs go first.
    fn make_spool_room(&mut self, bytes: u64) -> bool {
        let limit = self.spool.settings.limit_bytes;
        while limit > 0 && self.spool.limited_bytes() + bytes > limit {
            // What reels take is not given up for room.
            if self.reels_work() || !self.remove_oldest_part() {
                return false;
            }
        }
        true
    }

    /// Lets the journal go of what the spool has, from the high mark down to the low one.
    ///
    /// It is looked at in every round, as the quota is.
    pub(super) fn drain_journal(&mut self) {
        while self.spool.access != Access::Off {
            let (high, low) = self.marks();
            let used = self.replicated().disk_use().0;
            self.spool.draining = used > if self.spool.draining { low } else { high };
            let before = self.replicated().second_base();
            let Some(base) = before.filter(|base| *base <= self.spool_covers()) else { return };
            if base > self.checkpoint.covered(JournalKind::Replicated) {
                if !self.checkpoint.is_running() {
                    self.checkpoint.want();
                }
                return;
            }
            self.release_journals();
            if self.replicated().second_base() == before {
                return;
            }
        }
    }

    /// Removes parts that the peer has confirmed; with mode `always` only those that are too old.
    fn release_parts(&mut self) {
        let (from, mut to) = (self.spool.parts.first().map(PartHeader::first), Seq(0));
        while let Some(oldest) = self.spool.parts.first().copied() {
            let age = self.now.wall_ms.saturating_sub(oldest.wall_ms);
            let keep = self.spool.settings.keep_days;
            let old = (keep > 0 && age > keep * DAY_MS) || self.spool.is_before_saves(&oldest);
            if (self.spool.is_always() && !old) || !self.remove_oldest_part() {
                break;
            }
            to = oldest.end.seq;
        }
        if let Some(from) = from.filter(|_| to > Seq(0) && self.spool.parts.is_empty())
            && !self.spool.is_always()
        {
            let text = format!(
                "the peer has what was on the spool, or needs it no more: entries {from} to {to} are gone from {}",
                self.spool.settings.place
            );
            self.incident(Severity::Notice, Matter::Unspooled, text);
        }
    }

    /// Removes the oldest part, unless somebody needs it.
    fn remove_oldest_part(&mut self) -> bool {
        let Some(oldest) = self.spool.parts.first().copied() else { return false };
        if self.spool.save_needs(&oldest) || !self.may_unspool(oldest.end.seq) {
            return false;
        }
        self.spool.parts.remove(0);
        let reel = self.spool.reels.oldest_goes(&oldest);
        if self.replicated().spool_numbers().is_some_and(|(first, _)| first == oldest.index) {
            self.replicated_mut().unspool(oldest.index);
        }
        self.effect(SpoolEffect::Remove { part: oldest, reel });
        // On reels that makes no room.
        if !reel {
            self.end_spool_trouble();
        }
        true
    }

    /// The peer lost its claim: what the spool has for it is of no use any more.
    pub(super) fn spool_for_nobody(&mut self) {
        if self.spool.is_always() {
            return;
        }
        for part in std::mem::take(&mut self.spool.parts) {
            self.replicated_mut().unspool(part.index);
            let reel = self.spool.reels.oldest_goes(&part);
            self.effect(SpoolEffect::Remove { part, reel });
        }
    }

    pub(super) fn spool_event(&mut self, event: SpoolEvent) {
        match event {
            SpoolEvent::Opened { round, result } if self.spool.access == Access::Opening(round) => {
                match result {
                    Ok(found) => self.spool_opened(found),
                    Err(fault) => {
                        self.spool.access = Access::Wanted(self.now.mono.plus_ms(SPOOL_RETRY_MS));
                        self.spool_trouble(Trouble::Disk(fault));
                    }
                }
            }
            SpoolEvent::Copied { round, result } => self.spool_copied(round, result),
            SpoolEvent::Moved { round, result } => self.spool_moved(round, result),
            SpoolEvent::Reel { wanted } => self.reel_wanted(wanted),
            SpoolEvent::Damaged { part, why } => self.reel_damaged(&part, &why),
            SpoolEvent::Kept { result } => self.spool_kept(result),
            SpoolEvent::Alerts { drive, flags } => self.tape_alerts(&drive, &flags),
            SpoolEvent::Saves { oldest } => self.spool.saves = Saves::told(oldest),
            SpoolEvent::Opened { .. } => {}
        }
        self.dirty = true;
    }

    fn spool_copied(&mut self, round: u64, result: Result<u64, Fault>) {
        let at = self.spool.copying.iter().position(|copying| copying.round == round);
        let Some(copied) = at.and_then(|at| self.spool.copying.remove(at)) else { return };
        if let Some(next) = self.spool.copying.front_mut() {
            next.since = self.now.mono;
        }
        match result {
            // What was before it is not there: it comes again.
            _ if copied.void => {}
            Ok(free) => self.copied_to_spool(&copied, free),
            Err(fault) => {
                self.spool.copying.iter_mut().for_each(|copying| copying.void = true);
                match fault {
                    // The journal has let go of it meanwhile.
                    Fault::STALE => {}
                    Fault::NO_REEL => self.spool_trouble(Trouble::Reel),
                    Fault::NoSpace => self.spool_is_full(Trouble::Disk(fault)),
                    fault => self.spool_trouble(Trouble::Disk(fault)),
                }
            }
        }
    }

    fn copied_to_spool(&mut self, copied: &Copying, free: u64) {
        self.spool.free = Some(free);
        let part = copied.part;
        let at = self
            .spool
            .parts
            .partition_point(|other| (other.base.seq, other.index) < (part.base.seq, part.index));
        self.spool.parts.insert(at, part);
        self.spool.reels.parts += usize::from(self.spool.settings.is_tape());
        if self.replicated_mut().spooled(info_of(&part)) {
            self.end_spool_trouble();
        }
    }

    fn spool_opened(&mut self, found: SpoolFound) {
        let SpoolFound { mut parts, mut reels, free, damaged } = found;
        self.spool.access = Access::Open;
        self.spool.free = Some(free);
        // What is on reels is not needed in the directory: a crash came between.
        let names: BTreeSet<String> = reels.iter().map(PartHeader::file_name).collect();
        parts.retain(|part| {
            let twice = names.contains(&part.file_name());
            if twice {
                self.effect(SpoolEffect::Remove { part: *part, reel: false });
            }
            !twice
        });
        let on_reels = names.len();
        reels.append(&mut parts);
        let (own, strays): (Vec<_>, Vec<_>) =
            reels.into_iter().partition(|part| self.is_of_this_history(part));
        let knew = self.replicated().spool_reach();
        self.spool.parts = own;
        self.spool.parts.sort_unstable_by_key(|part| (part.base.seq, part.index));
        let is_on_reel = |part: &&PartHeader| on_reels > 0 && names.contains(&part.file_name());
        self.spool.reels.parts = self.spool.parts.iter().take_while(is_on_reel).count();
        let copies: Vec<SegmentInfo> = self.spool.parts.iter().map(info_of).collect();
        self.replicated_mut().adopt_spooled(&copies);
        let reaches = self.replicated().spool_reach().map(|(from, _)| from.seq);
        if let Some((from, end)) = knew
            && reaches.is_none_or(|reaches| reaches > from.seq)
        {
            let to = reaches.unwrap_or(end.seq);
            let text = format!("entries {} to {to} are not on the spool any more", from.seq.next());
            self.incident(Severity::Critical, Matter::SpoolDamaged, text);
        }
        for (name, why) in damaged {
            let text = format!("part {name} of the spool is damaged and is not used: {why}");
            self.incident(Severity::Critical, Matter::SpoolDamaged, text);
        }
        let range = strays.first().zip(strays.last());
        if let Some((first, last)) = range {
            let text = format!(
                "{} holds {} parts of another history, entries {} to {}: they are neither used nor removed",
                self.spool.settings.place,
                Grouped(strays.len()),
                first.first(),
                last.end.seq
            );
            self.incident(Severity::Warning, Matter::SpoolStray, text);
        }
        self.spool.strays = strays;
        self.end_spool_trouble();
    }

    /// Whether what a part holds is this node's history, by number and epoch.
    fn is_of_this_history(&self, part: &PartHeader) -> bool {
        let end = part.end;
        let mark = self.control.table().iter().rev().find(|mark| mark.first_seq <= end.seq);
        let known = mark.is_none_or(|mark| mark.epoch == end.epoch);
        let told = self.replicated().end_at(end.seq).is_none_or(|known| known == end);
        part.pair == self.config.pair
            && part.ordinal == self.config.ordinal
            && end.seq <= self.replicated().sealed().seq
            && known
            && told
    }

    /// The spool takes nothing: told before anything follows from it (I-39).
    fn spool_trouble(&mut self, trouble: Trouble) {
        // I-39: with the entries that it is about, and with what comes next.
        if self.spool.trouble.replace(trouble).is_none() {
            self.spool.troubled_since = self.now.mono;
        }
        let wait = if trouble == Trouble::Reel { SPOOL_REEL_MS } else { SPOOL_RETRY_MS };
        self.spool.retry_at = self.now.mono.plus_ms(wait);
        self.dirty = true;
        let place = &self.spool.settings.place;
        let from = match self.replicated().spool_reach() {
            Some((_, end)) => end.seq.next(),
            None => self
                .replicated()
                .next_to_spool(self.peer.retained())
                .map_or(Seq(0), |info| info.base.seq.next()),
        };
        let then = match self.spool.settings.full {
            SpoolFull::Block => "then updates of replicated files are refused",
            SpoolFull::Alarm => "then it grows beyond that until its disk is full",
            SpoolFull::DropPeer => "then the peer loses its claim and will need a full copy",
        };
        let (quota, rest) =
            (shown::bytes(self.quota()), format!("entries from {from} on stay in the journal"));
        let (matter, what) = match trouble {
            Trouble::Limit => {
                let stays =
                    if self.spool.is_held_by_saves() { ", and the saves that are kept need it" } else { "" };
                (Matter::SpoolFull, format!("the spool {place} takes all that spool_limit allows{stays}"))
            }
            Trouble::Disk(Fault::NoSpace) => {
                (Matter::SpoolFull, format!("the disk of the spool {place} is full"))
            }
            Trouble::Disk(fault) => {
                (Matter::SpoolFailed, format!("the spool {place} cannot be used ({fault})"))
            }
            // Which one, and why, is told by itself.
            Trouble::Reel => return,
            Trouble::Hangs => (Matter::SpoolFailed, format!("the disk of the spool {place} does not answer")),
        };
        self.incident_once(
            Severity::Critical,
            matter,
            format!("{what}: {rest} up to its quota of {quota}, {then}"),
        );
        // What the disk still holds has to be looked at again.
        // That a catalogue of reels can be read says nothing of the drive.
        if !trouble.is_full() && !self.spool.settings.is_tape() {
            self.spool.access = Access::Wanted(self.spool.retry_at);
        }
    }

    fn end_spool_trouble(&mut self) {
        if self.spool.trouble.take().is_none() {
            return;
        }
        self.dirty = true;
        let text = format!("the spool {} takes segments again", self.spool.settings.place);
        self.incident_over(Matter::SpoolFull, "spool-room", text.clone());
        self.incident_over(Matter::SpoolFailed, "spool-back", text);
    }

    /// A reader of the journal came to something that is damaged: if it stands on the spool, that part and those before it are
    /// not read any more.
    pub(super) fn note_damaged_part(&mut self, error: &CursorError) {
        let CursorError::Damaged { segment, offset, error } = error else { return };
        let Some(part) = self.part_read(*segment) else { return };
        let text = format!(
            "part {} of the spool, entries {} to {}, is damaged at byte {offset} of its segment ({error}): it is not sent, and \
             the peer will need a full copy",
            part.file_name(),
            part.first(),
            part.end.seq
        );
        self.replicated_mut().unspool(*segment);
        self.incident(Severity::Critical, Matter::SpoolDamaged, text);
    }

    /// The part that is read where the journal does not hold a segment any more.
    pub(super) fn part_read(&self, segment: crate::base::SegmentIndex) -> Option<PartHeader> {
        let copy = self.replicated().copy_of(segment)?;
        self.spool.parts.iter().find(|part| part.index == segment && part.base == copy.base).copied()
    }

    pub(super) fn spool_deadline(&self) -> Option<Mono> {
        let holds = self.spool.throttle.deadline();
        if self.spool.access == Access::Off || self.stopping {
            return holds;
        }
        let wanted = match self.spool.access {
            Access::Wanted(at) => Some(at),
            _ => None,
        };
        let now = self.now.mono;
        let copying = self.spool.copying.front().filter(|_| self.spool.trouble.is_none());
        let hangs = copying.map(|copying| copying.since.plus_ms(self.spool.hangs_ms()));
        let tries = self.spool.trouble.is_some() || self.spool.wants_room;
        let retry = (tries && self.spool.copying.is_empty()).then_some(self.spool.retry_at);
        let patience = self.spool.trouble.map(|_| self.spool.troubled_since.plus_ms(SPOOL_PATIENCE_MS));
        let later = retry.into_iter().chain(patience).filter(|at| *at > now);
        let reels = self.spool.reels.deadline(now);
        let others = [wanted, self.spool.awaited_until(now), hangs, holds, reels];
        others.into_iter().flatten().chain(later).min()
    }
}

#[cfg(test)]
#[path = "spool_tests.rs"]
mod tests;
