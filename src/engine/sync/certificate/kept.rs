//! What becomes of a compare: what is kept and told of it, and when the next one begins by itself. A listing is none: of what
//! is kept, shown in the status and due by the schedule, it changes nothing.

use super::super::compare::Compares;
use super::{Run, query};
use crate::base::Mono;
use crate::base::limits::{COMPARE_ASKS_MAX, COMPARE_TELL_MS, SCRUB_FIRST_MS};
use crate::base::shown::{Grouped, counted};
use crate::engine::admin::{CompareView, DifferenceView};
use crate::engine::core::Core;
use crate::engine::effect::{CompareEffect, Severity};
use crate::engine::incidents::Matter;
use crate::engine::roles::Stage;
use crate::engine::status::seconds;
use crate::format::compare::{Certificate, Difference, Kind, Report};
use crate::format::compared::{Compared, what_of};
use crate::format::frame::FrameKind;
use crate::store::StoreRead;

const DAY_MS: u64 = 86_400_000;

/// What a certificate of an order is of.
pub(super) fn what_is_ordered(name: &str) -> String {
    query::query_of(name).map_or_else(|| what_of(name), crate::format::compared::what_is_listed)
}

/// What is kept of compares, and of listings until the next thing begins.
impl<S: StoreRead> Core<S> {
    /// What was kept of the last compare was read.
    pub(in crate::engine::sync) fn compares_known(&mut self, kept: Compared) {
        let compares = &mut self.compares;
        if compares.kept.last.began_ms == 0 {
            compares.kept = kept;
        } else {
            compares.kept.everything_ms = compares.kept.everything_ms.max(kept.everything_ms);
        }
        compares.known = true;
        self.dirty = true;
    }

    /// The standby tells of a compare, or of a listing.
    pub(in crate::engine::sync) fn compare_reported(&mut self, report: Report) {
        let certificate = &report.certificate;
        // What could not begin bears no name.
        let nameless = certificate.what.is_empty();
        if certificate.is_of_listing() || (nameless && self.compares.lists()) {
            self.compares.listing = Some(report);
            return;
        }
        if !report.running && !nameless {
            self.compares.kept.take(certificate.clone());
            self.keep_certificate();
        }
        self.compares.remote = Some(report);
    }

    /// This node, which is the standby, begins what it has a certificate of.
    pub(super) fn certificate_begins(&mut self, certificate: &Certificate) {
        self.compares.number += 1;
        self.compares.listing = None;
        if !certificate.is_of_listing() {
            // What is kept of it if this process ends before it does.
            let why = "the standby was stopped".to_owned();
            self.compares.kept.take(Certificate { why, ..certificate.clone() });
            self.keep_certificate();
        }
    }

    fn keep_certificate(&mut self) {
        let bytes = self.compares.kept.encode();
        self.compares.keeping += 1;
        self.effect(CompareEffect::Keep { bytes });
    }

    /// Tells the primary how far a compare is.
    pub(super) fn report(&mut self) {
        let now = self.now.mono;
        let report = match &mut self.compares.run {
            Some(run) => {
                run.told = now;
                let certificate = Certificate { named: Vec::new(), ..run.certificate.clone() };
                Report { running: true, done: run.done, total: run.total, certificate }
            }
            None => ended(&self.compares.kept.last),
        };
        self.say(FrameKind::Report, report.encode());
    }

    pub(super) fn end_compare(&mut self) {
        let (now, forced) = (self.now, self.compares.run.as_ref().is_some_and(|run| run.checkpoint));
        let Some(run) = &mut self.compares.run else { return };
        if run.certificate.repaired > 0 && !run.ends {
            if !forced {
                run.checkpoint = true;
                self.checkpoint.force();
                self.dirty = true;
                return;
            }
            if !self.checkpoint.has_covered() {
                return;
            }
        }
        let Some(run) = self.compares.run.take() else { return };
        let mut certificate = run.certificate;
        (certificate.whole, certificate.ended_ms) = (!run.ends, now.wall_ms);
        certificate.repair &= !run.dry_run;
        self.compares.drop_walk();
        if certificate.is_of_listing() {
            self.tell_listing(&certificate);
            let report = ended(&certificate);
            self.say(FrameKind::Report, report.encode());
            self.compares.listing = Some(report);
        } else {
            self.compares.kept.take(certificate);
            self.keep_certificate();
            self.tell_compare();
            self.report();
        }
        self.dirty = true;
    }

    /// A command may list what a node has alone, or by chance: so a line that differs is no proof that the nodes do.
    fn tell_listing(&mut self, found: &Certificate) {
        let (what, at) = (&found.what, found.to);
        let text = match (found.whole, found.differing) {
            (false, _) => format!("{what} did not come to its end: {}", found.why),
            (_, 0) => format!("{what} is equal on both nodes at entry {at}"),
            (_, n) => format!(
                "{what} differs in {} at entry {at}; `hot-backup compare` tells whether what is replicated does",
                counted(n, "line", "lines")
            ),
        };
        self.incident(Severity::Notice, Matter::Compared, text);
    }

    fn tell_compare(&mut self) {
        let found = &self.compares.kept.last;
        let wrong = found.differing + found.unread + found.passed;
        let range = format!("between entries {} and {}", found.from, found.to);
        let first: Vec<String> =
            found.named.iter().take(3).map(|d| format!("{} {}", d.file, d.part)).collect();
        let first = first.join("; ");
        let what = &found.what;
        let everything = found.is_of_everything();
        if !found.whole {
            let text = format!("a compare of {what} ended before its end: {}", found.why);
            return self.incident(Severity::Notice, Matter::Compared, text);
        }
        let counts = format!("{} items and blocks of {what}", Grouped(found.items));
        if wrong == 0 {
            let text = format!("a compare found {counts} equal on both nodes, {range}");
            if everything {
                return self.all_well(Matter::NodesDiffer, "nodes-agree", text);
            }
            return self.incident(Severity::Notice, Matter::Compared, text);
        }
        let text = format!(
            "a compare of {what} found {} parts in which the nodes differ, {} ranges that had differed, and {} that \
             could not be read, {range}; first: {first}",
            Grouped(found.differing),
            Grouped(found.passed),
            Grouped(found.unread)
        );
        if found.repaired == found.differing && found.unread == 0 {
            let text = format!("{text}; the standby has the primary's content again in all of them");
            self.incident(Severity::Critical, Matter::NodesDiffer, text.clone());
            if everything {
                self.settled(&[Matter::NodesDiffer]);
            }
            return self.incident(Severity::Notice, Matter::Repaired, text);
        }
        self.incident_once(Severity::Critical, Matter::NodesDiffer, text);
    }
}

fn ended(certificate: &Certificate) -> Report {
    Report { certificate: certificate.clone(), ..Report::default() }
}

/// The schedule, which is of compares of everything alone.
impl<S: StoreRead> Core<S> {
    /// The one under way ends by an operator's word. One of everything does not begin by itself again at once.
    pub(super) fn stop_run(&mut self) {
        let Some(run) = &mut self.compares.run else { return };
        run.fails("it was stopped");
        if run.certificate.is_of_everything() {
            self.rest_of_schedule();
        }
    }

    fn rest_of_schedule(&mut self) {
        self.compares.not_before = self.now.mono.plus_ms(self.config.compare_every_days * DAY_MS);
    }

    /// When the next compare is due by the schedule.
    fn scheduled_compare(&self) -> Option<Mono> {
        let every = self.config.compare_every_days * DAY_MS;
        let compares = &self.compares;
        let stands_by = self.roles.stage() == Stage::Standby && !self.stopping;
        if every == 0 || compares.run.is_some() || !compares.known || !stands_by || !self.can_compare() {
            return None;
        }
        let first = Mono(SCRUB_FIRST_MS * 1000).max(compares.not_before);
        let last = compares.kept.everything_ms;
        if last == 0 {
            return Some(first);
        }
        let due = last.saturating_add(every).saturating_sub(self.now.wall_ms).min(every);
        Some(first.max(self.now.mono.plus_ms(due)))
    }

    pub(in crate::engine::sync) fn begin_scheduled_compare(&mut self) {
        if self.scheduled_compare().is_some_and(|at| at <= self.now.mono) {
            self.rest_of_schedule();
            let _ = self.begin_compare(&super::order_of(String::new()));
        }
    }

    pub(in crate::engine) fn compare_deadline(&self) -> Option<Mono> {
        let room = self.compares.under_way() < COMPARE_ASKS_MAX;
        let run = self.compares.run.as_ref().filter(|run| !run.checkpoint && !run.ends);
        let next = run.filter(|run| room && run.rate > 0 && run.due() > self.now.mono).map(Run::due);
        let tell = run.map(|run| run.told.plus_ms(COMPARE_TELL_MS));
        [next, tell, self.compares.hold_deadline(), self.scheduled_compare()].into_iter().flatten().min()
    }
}

/// A compare or a listing, as far as it is known.
struct Known<'a> {
    certificate: &'a Certificate,
    running: bool,
    done: u64,
    total: u64,
}

impl<'a> Known<'a> {
    fn run(run: &'a Run) -> Self {
        Self { certificate: &run.certificate, running: true, done: run.done, total: run.total }
    }

    fn report(report: &'a Report) -> Self {
        let Report { running, done, total, certificate } = report;
        Self { certificate, running: *running, done: *done, total: *total }
    }

    fn ended(certificate: &'a Certificate) -> Self {
        Self { certificate, running: false, done: 0, total: 0 }
    }
}

/// What operators see.
impl<S: StoreRead> Core<S> {
    /// The compare under way, or the last one that began.
    pub(in crate::engine) fn compare_view(&self) -> CompareView {
        let run = self.compares.run.as_ref().filter(|run| !run.certificate.is_of_listing());
        // One that was refused did not begin.
        let remote = self.remote().filter(|report| !report.certificate.what.is_empty());
        let last = || Known::ended(&self.compares.kept.last);
        let known = run.map(Known::run).or(remote.map(Known::report)).unwrap_or_else(last);
        self.view_of(&known, false)
    }

    /// What was asked for last, a compare or a listing, with the differences if they are `listed`.
    pub(in crate::engine) fn compare_result(&self, listed: bool) -> CompareView {
        let Compares { run, listing, kept, .. } = &self.compares;
        let report = listing.as_ref().or(self.remote()).map(Known::report);
        let known = run.as_ref().map(Known::run).or(report).unwrap_or_else(|| Known::ended(&kept.last));
        self.view_of(&known, listed)
    }

    /// What the standby tells of a compare, on a primary.
    fn remote(&self) -> Option<&Report> {
        self.compares.remote.as_ref().filter(|_| self.serving())
    }

    fn view_of(&self, known: &Known<'_>, listed: bool) -> CompareView {
        let Known { certificate: found, running, done, total } = *known;
        // Nobody hears of an end that a crash would take back.
        let running = running || (self.compares.keeping > 0 && !found.is_of_listing());
        let took = if running { self.now.wall_ms } else { found.ended_ms }.saturating_sub(found.began_ms);
        let view = |difference: &Difference| DifferenceView {
            file: difference.file.clone(),
            part: difference.part.clone(),
            how: how(difference.kind).to_owned(),
            at: difference.at.0,
            repaired: difference.repaired,
        };
        CompareView {
            number: self.compares.number,
            running,
            what: found.what.clone(),
            whole: found.whole && !running,
            why: found.why.clone(),
            repair: found.repair,
            began_ms: found.began_ms,
            ended_ms: found.ended_ms,
            seconds: seconds(took.saturating_mul(1000)),
            from: found.from.0,
            to: found.to.0,
            ranges: found.ranges,
            items: found.items,
            bytes: found.bytes,
            done,
            total,
            differing: found.differing,
            repaired: found.repaired,
            passed: found.passed,
            unread: found.unread,
            digest: found.digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            differences: if listed { found.named.iter().map(view).collect() } else { Vec::new() },
        }
    }
}

fn how(kind: Kind) -> &'static str {
    match kind {
        Kind::Changed => "changed",
        Kind::StandbyOnly => "standby-only",
        Kind::PrimaryOnly => "primary-only",
        Kind::Passed => "had-differed",
        Kind::StandbyUnread => "unreadable-on-standby",
        Kind::PrimaryUnread => "unreadable-on-primary",
    }
}
