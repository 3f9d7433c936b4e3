//! The watches: each looks at one thing that a person should know before it stops updates, and tells when it begins and when
//! it is over. They look once a second, whenever the node does something: nobody is woken for them. Nothing decides by what they see.

use super::admin::HealthView;
use super::core::Core;
use super::effect::Severity;
use super::incidents::Matter;
use super::link::{FEATURES_ALWAYS, FEATURES_KNOWN};
use super::peer::PeerState;
use super::roles::Stage;
use super::status::seconds;
use crate::base::shown::bytes;
use crate::base::{JournalKind, Mono, Seq};
use crate::format::frame::PROTOCOL_VERSION;
use crate::store::StoreRead;
use std::collections::VecDeque;

/// So often the watches look (milliseconds).
const LOOK_MS: u64 = 1000;
/// A node that lacks something for longer lags (microseconds).
const LAGGING_AFTER: u64 = 1_000_000;
/// One that does nothing of what it has to do for longer is stuck (microseconds).
const STUCK_AFTER: u64 = 5_000_000;
/// Clocks differ once so many looks in a row have seen it: a frame that was held up looks like a clock that is behind.
const CLOCK_LOOKS: u32 = 10;
/// The growth of the journal is measured over so many looks.
const GROWTH_LOOKS: usize = 60;
/// A watch that told ends when what it saw is so much below its threshold (percent of it): else it would come and go.
const EASED: u64 = 90;

/// Free space of the file system of the node's directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSpace {
    /// What this node may still take (bytes).
    pub free: u64,
    /// Its size (bytes).
    pub total: u64,
}

impl DiskSpace {
    /// What is free (percent, rounded down).
    #[must_use]
    pub fn percent_free(self) -> u64 {
        percent(self.free, self.total)
    }
}

fn percent(part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(part) * 100 / u128::from(whole.max(1))).unwrap_or(u64::MAX)
}

/// Something that is behind, how far it is, and since when it has not moved.
#[derive(Clone, Copy, Debug, Default)]
struct Waits {
    at: Seq,
    since: Option<Mono>,
    /// Since when there is something to do.
    behind: Option<Mono>,
}

impl Waits {
    fn look(&mut self, now: Mono, at: Seq, end: Seq) {
        if at >= end {
            *self = Self { at, since: None, behind: None };
        } else {
            self.behind.get_or_insert(now);
            if self.since.is_none() || at != self.at {
                (self.at, self.since) = (at, Some(now));
            }
        }
    }

    /// For how long it has not moved although it is behind (microseconds).
    fn stands(self, now: Mono) -> u64 {
        self.since.map_or(0, |since| now.since(since))
    }
}

/// What the watches remember.
#[derive(Debug, Default)]
pub(super) struct Health {
    next: Mono,
    apply: [Waits; 2],
    announce: Waits,
    /// The peer's clock less this one's (milliseconds), as the last frame told it, and how many looks saw too much of it.
    clock: Option<i64>,
    clock_looks: u32,
    /// Bytes of the replicated journal at the last looks, oldest first.
    journal: VecDeque<(Mono, u64)>,
    disk: Option<DiskSpace>,
}

impl Health {
    /// A frame of the peer was sent when its clock showed `theirs` (milliseconds since 1970).
    pub(super) fn hears_clock(&mut self, ours: u64, theirs: u64) {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        self.clock = Some(signed(theirs).saturating_sub(signed(ours)));
    }

    pub(super) fn disk_measured(&mut self, disk: DiskSpace) {
        self.disk = Some(disk);
    }

    /// In how many seconds the journal is at `quota` if it goes on to grow as it did.
    fn full_in(&self, quota: u64) -> Option<u64> {
        let ((first, less), (last, more)) = (*self.journal.front()?, *self.journal.back()?);
        let (grown, micros) = (more.checked_sub(less)?, last.since(first));
        let left = u128::from(quota.saturating_sub(more)) * u128::from(micros);
        (grown > 0 && micros > 0)
            .then(|| u64::try_from(left / u128::from(grown) / 1_000_000).unwrap_or(u64::MAX))
    }
}

/// A time from now on, as people say it.
fn in_words(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

impl<S: StoreRead> Core<S> {
    pub(super) fn pump_health(&mut self) {
        let now = self.now.mono;
        if now < self.health.next {
            return;
        }
        self.health.next = now.plus_ms(LOOK_MS);
        self.watch_apply();
        self.watch_link();
        self.watch_clock();
        self.watch_version();
        self.watch_journal();
        self.watch_disk();
    }

    /// Tells a matter while `text` is there, and that it is over once it is gone; with `eased` false it goes on.
    fn watch(
        &mut self,
        matter: Matter,
        text: Option<String>,
        eased: bool,
        (over, how): (&'static str, &str),
    ) {
        match text {
            // What is told goes on, whatever its figures are by now.
            Some(_) if self.incidents.lasts(matter) => {}
            Some(text) => self.incident_once(Severity::Warning, matter, text),
            None if eased => self.incident_over(matter, over, how.to_owned()),
            None => {}
        }
    }

    fn watch_apply(&mut self) {
        let now = self.now.mono;
        let mut text = None;
        for journal in JournalKind::ALL {
            let (at, end) = (self.appliers.of(journal).visible(), self.apply_limit(journal));
            let waits = &mut self.health.apply[journal.index()];
            waits.look(now, at, end);
            let limit = self.config.apply_stall_ms.saturating_mul(1000);
            // A store that failed is told of as such, and one that replays is on its way.
            if limit > 0
                && waits.stands(now) > limit
                && self.store_fault().is_none()
                && self.roles.stage() != Stage::Replaying
            {
                text = Some(format!(
                    "the store has applied nothing of the {} journal for {} s, and entries {} to {} wait for it: its disk or \
                     the apply thread does not go on",
                    journal.name(),
                    limit / 1_000_000,
                    at.next(),
                    end
                ));
            }
        }
        self.watch(Matter::ApplyStalled, text, true, ("apply-moves", "the store applies again"));
    }

    fn watch_link(&mut self) {
        let now = self.now.mono;
        let up = self.link.is_up();
        let quiet = self.config.link_quiet_ms;
        let heard = self.link.stream_heard().or(self.link.primary_heard());
        let silent = heard.filter(|heard| quiet > 0 && now >= heard.plus_ms(quiet));
        let text = silent.map(|_| {
            format!(
                "the peer is connected and has said nothing for {quiet} ms: at {} ms the link is closed",
                self.config.peer_timeout_ms
            )
        });
        self.watch(
            Matter::LinkQuiet,
            text,
            true,
            ("link-speaks", "the peer is heard again, or the link is down"),
        );
        // A stream moves, and what has to come with it does not.
        let (announced, durable) = (self.appliers.replicated().announced(), self.replicated().pace().durable);
        let follows = self.link.hears_primary();
        self.health.announce.look(now, announced, if follows { durable } else { announced });
        let stands = self.health.announce.stands(now);
        let text = (stands > STUCK_AFTER).then(|| format!(
            "entries {} to {durable} are on this node's disk, and the primary, which is heard, has not told for {} s that they are \
             on its own: they are not applied here",
            announced.next(),
            STUCK_AFTER / 1_000_000
        ));
        self.watch(
            Matter::NotAnnounced,
            text,
            true,
            ("announced", "the primary tells how far its disk is again"),
        );
        let limit = self.config.lag_warn_seconds;
        let age = if self.is_primary() && up && !self.peer.is_incomplete() {
            self.peer.lag_age(now) / 1_000_000
        } else {
            0
        };
        let text = (limit > 0 && age >= limit).then(|| {
            format!(
                "the peer is connected and {age} s behind: {} of batches are not on its disk",
                bytes(self.peer.lag_bytes())
            )
        });
        self.watch(Matter::PeerLags, text, age * 2 <= limit, ("peer-keeps-up", "the peer keeps up again"));
    }

    fn watch_clock(&mut self) {
        let limit = self.config.clock_distance_ms;
        let distance = self.health.clock.filter(|_| self.link.is_up() && limit > 0);
        let far = distance.filter(|distance| distance.unsigned_abs() > limit);
        self.health.clock_looks = if far.is_some() { self.health.clock_looks.saturating_add(1) } else { 0 };
        let text = far.filter(|_| self.health.clock_looks >= CLOCK_LOOKS).map(|distance| {
            let way = if distance > 0 { "ahead of" } else { "behind" };
            format!(
                "the peer's clock is {:.1} s {way} this node's",
                seconds(distance.unsigned_abs().saturating_mul(1000))
            )
        });
        let eased = distance.is_none_or(|distance| distance.unsigned_abs() <= limit / 100 * EASED);
        self.watch(
            Matter::ClocksDiffer,
            text,
            eased,
            ("clocks-agree", "the clocks of the two nodes agree again"),
        );
    }

    fn watch_version(&mut self) {
        let (version, features) = self.peer.speaks_version();
        let other = version != PROTOCOL_VERSION
            || features & FEATURES_ALWAYS != FEATURES_ALWAYS
            || features & !FEATURES_KNOWN != 0;
        let known = self.link.is_up() && version > 0;
        let text = (known && other).then(|| {
            format!(
                "the two nodes run different versions: the peer speaks protocol {version} with features {features:#x}, this node \
                 {PROTOCOL_VERSION} with {FEATURES_ALWAYS:#x}"
            )
        });
        self.watch(
            Matter::VersionsDiffer,
            text,
            known,
            ("versions-agree", "both nodes run the same version"),
        );
    }

    fn watch_journal(&mut self) {
        let (now, quota, limit) = (self.now.mono, self.config.quota_bytes, self.config.journal_warn_percent);
        let (used, _) = self.replicated().disk_use();
        self.health.journal.push_back((now, used));
        if self.health.journal.len() > GROWTH_LOOKS {
            self.health.journal.pop_front();
        }
        let filled = percent(used, quota);
        let text = (limit > 0 && filled >= limit).then(|| {
            let full = self.health.full_in(quota);
            let when = full.map_or_else(
                || "it does not grow now".to_owned(),
                |left| format!("at this rate it is full in {}", in_words(left)),
            );
            format!("the journal holds {} of {}, {filled} % of its quota: {when}", bytes(used), bytes(quota))
        });
        let eased = filled < limit * EASED / 100;
        self.watch(
            Matter::JournalFilling,
            text,
            eased,
            ("journal-drained", "the journal is well below its quota again"),
        );
    }

    fn watch_disk(&mut self) {
        let limit = self.config.disk_warn_percent;
        let Some(disk) = self.health.disk else { return };
        let free = disk.percent_free();
        let text = (limit > 0 && free < limit).then(|| {
            format!(
                "the file system of the node's directory has {} free of {}, {free} %",
                bytes(disk.free),
                bytes(disk.total)
            )
        });
        self.watch(
            Matter::DiskFilling,
            text,
            free > limit,
            ("disk-roomy", "there is room on the file system of the node again"),
        );
    }

    /// What this node is at with what it has to do: idle, busy, lagging or stuck.
    pub(super) fn work(&self) -> PeerState {
        let now = self.now.mono;
        let behind = |waits: &Waits| waits.behind.map_or(0, |since| now.since(since));
        let apply = self.health.apply.iter();
        let stuck = apply.clone().any(|waits| waits.stands(now) > STUCK_AFTER)
            || self.health.announce.stands(now) > STUCK_AFTER
            || JournalKind::ALL.into_iter().any(|kind| self.hangs(kind));
        let late = apply.map(behind).max().unwrap_or(0);
        let busy = !JournalKind::ALL
            .into_iter()
            .all(|kind| self.applied_to_limit(kind) && self.journals[kind.index()].is_quiet());
        match late {
            _ if stuck => PeerState::Stuck,
            LAGGING_AFTER.. => PeerState::Lagging,
            _ if busy => PeerState::Busy,
            _ => PeerState::Idle,
        }
    }

    pub(super) fn health_view(&self) -> HealthView {
        let quota = self.config.quota_bytes;
        let disk = self.health.disk.unwrap_or_default();
        HealthView {
            work: self.work().name().to_owned(),
            canary: self.canary_view(),
            clock_distance_ms: self.health.clock.filter(|_| self.link.is_up()),
            journal_percent: percent(self.replicated().disk_use().0, quota),
            journal_full_seconds: self.health.full_in(quota),
            disk_free_bytes: disk.free,
            disk_bytes: disk.total,
            unapplied: JournalKind::ALL.into_iter().fold(0, |sum, kind| {
                sum + self.apply_limit(kind).0.saturating_sub(self.appliers.of(kind).visible().0)
            }),
        }
    }
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
