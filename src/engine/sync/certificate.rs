//! A compare from its beginning to its certificate: what is looked at next, how fast, what is told of it and kept.

mod query;

use super::compare::{Flight, Purpose};
use super::findings::{Findings, Stretch, findings, span_words, words};
use crate::base::limits::{
    BLOCK_U64, COMPARE_ASKS_MAX, COMPARE_CLOSER_MAX, COMPARE_NAMED_MAX, COMPARE_TELL_MS, SCRUB_FIRST_MS,
};
use crate::base::shown::Grouped;
use crate::base::{FileId, Mono, Seq};
use crate::engine::admin::{CompareView, DifferenceView};
use crate::engine::core::Core;
use crate::engine::effect::{CompareEffect, Severity};
use crate::engine::incidents::Matter;
use crate::engine::roles::Stage;
use crate::engine::status::seconds;
use crate::format::chunk::{Chunk, Content};
use crate::format::compare::{
    Certificate, DEFINITIONS, Difference, Digest, Found, Kind, Order, Report, Span, What, chained,
    settle_definitions,
};
use crate::format::dptr::{DptrKind, FileState};
use crate::format::frame::{FEATURE_COMPARE, FrameKind};
use crate::store::StoreRead;
use crate::store::namespace::FileInfo;
use bytes::Bytes;
use query::query_of;
use std::collections::VecDeque;
use std::ops::Range;

const DAY_MS: u64 = 86_400_000;
/// Ranges of one file that are looked at for the first time at once.
const WALKS_MAX: usize = COMPARE_ASKS_MAX / 2;
const EVERYTHING: &str = "everything";

/// A file that is compared.
#[derive(Clone, Debug)]
enum Walk {
    /// Items, in order. `last`: the ask for the last range; `open`: the first one was looked at, and there is more.
    Items { file: FileId, last: Option<u64>, open: bool },
    /// Blocks from here to there.
    Blocks { file: FileId, at: u64, end: u64 },
}

/// A range in which something is to be done beside the walk.
#[derive(Debug)]
struct Errand {
    file: FileId,
    span: Span,
    what: What,
    purpose: Purpose,
}

/// A compare under way.
#[derive(Debug)]
pub(in crate::engine) struct Run {
    certificate: Certificate,
    dry_run: bool,
    rate: u64,
    began: Mono,
    /// What counts against the rate (bytes).
    spent: u64,
    todo: VecDeque<Walk>,
    now: Option<Walk>,
    errands: VecDeque<Errand>,
    /// Of volumes (bytes): all, and those looked at.
    total: u64,
    done: u64,
    /// Its end waits for a checkpoint that makes the repairs durable.
    checkpoint: bool,
    told: Mono,
    ends: bool,
}

impl Run {
    /// It cannot go on.
    pub(super) fn fails(&mut self, why: &str) {
        if self.certificate.why.is_empty() {
            why.clone_into(&mut self.certificate.why);
        }
        self.ends = true;
    }

    fn repairs(&self) -> bool {
        self.certificate.repair && !self.dry_run
    }

    /// When the next look may be asked for.
    fn due(&self) -> Mono {
        let wait = u128::from(self.spent) * 1_000_000 / u128::from(self.rate.max(1));
        let wait = if self.rate == 0 { 0 } else { u64::try_from(wait).unwrap_or(u64::MAX) };
        Mono(self.began.0.saturating_add(wait))
    }

    /// The nodes differ in a part.
    fn differs(&mut self, difference: Difference) {
        match difference.kind {
            Kind::Passed => self.certificate.passed += 1,
            Kind::StandbyUnread | Kind::PrimaryUnread => self.certificate.unread += 1,
            Kind::Changed | Kind::StandbyOnly | Kind::PrimaryOnly => self.certificate.differing += 1,
        }
        if self.certificate.named.len() < COMPARE_NAMED_MAX {
            self.certificate.named.push(difference);
        }
    }

    fn looked_at(&mut self, at: Option<Seq>) {
        let Some(at) = at else { return };
        let certificate = &mut self.certificate;
        if certificate.ranges == 0 {
            certificate.from = at;
        }
        certificate.to = certificate.to.max(at);
        certificate.ranges += 1;
    }

    /// Whether nothing is left to ask for.
    fn is_through(&self) -> bool {
        self.ends || (self.todo.is_empty() && self.now.is_none() && self.errands.is_empty())
    }
}

fn is_compared(info: &FileInfo) -> bool {
    info.replicated && info.dptr.state == FileState::Whole
}

/// What is told of a compare that a certificate is of.
impl<S: StoreRead> Core<S> {
    /// An operator wants a compare. Answered at once; what comes of it [`Self::compare_view`] tells.
    pub(in crate::engine) fn compare(&mut self, token: u64, order: Order) {
        let failed = |why: String| format!("comparing: {why}");
        let at_work = self.compares.run.is_some() || self.remote_runs();
        if at_work {
            let next =
                "wait for its end, which `hot-backup status` shows, or stop it: hot-backup compare --stop";
            return self.reply_no(token, failed("one is under way".to_owned()), next);
        }
        if self.peer.features() & FEATURE_COMPARE == 0 && self.link.is_up() {
            let why = "the peer's program is older and cannot compare".to_owned();
            return self.reply_no(token, failed(why), "install this version there");
        }
        if self.can_compare() {
            return match self.begin_compare(&order) {
                Ok(()) => {
                    let view = self.compare_view(false);
                    self.reply_value(token, view);
                }
                Err(why) => self.reply_no(token, failed(why), "see: hot-backup file list"),
            };
        }
        if !self.serving() || !self.link.is_streaming() || self.peer.is_incomplete() {
            let why = "the other node does not follow, or this one does not".to_owned();
            let next = "try again when `hot-backup status` shows that the standby follows";
            return self.reply_no(token, failed(why), next);
        }
        if query_of(&order.name).is_none()
            && let Err(why) = self.files_to_compare(&order.name)
        {
            return self.reply_no(token, failed(why), "see: hot-backup file list");
        }
        self.compares.number += 1;
        let certificate = Certificate { began_ms: self.now.wall_ms, ..Certificate::default() };
        self.compares.remote = Some(Report { running: true, certificate, ..Report::default() });
        self.send_order(&order);
        let view = self.compare_view(false);
        self.reply_value(token, view);
    }

    /// An operator wants the compare to end.
    pub(in crate::engine) fn stop_compare(&mut self, token: u64) {
        if let Some(run) = &mut self.compares.run {
            run.fails("it was stopped");
            self.rest_of_schedule();
        } else if self.remote_runs() {
            self.send_order(&Order { stop: true, ..order_of(String::new()) });
        } else {
            let message = "stopping the compare: none is under way";
            return self.reply_no(token, message, "begin one: hot-backup compare");
        }
        self.dirty = true;
        let view = self.compare_view(false);
        self.reply_value(token, view);
    }

    fn send_order(&mut self, order: &Order) {
        let (head, now) = (self.head(), self.now);
        if let Some((session, _)) = self.link.stream() {
            session.send(now, FrameKind::Order, head, order.encode().into());
        }
        self.dirty = true;
    }

    /// Whether the standby compares, as far as this primary knows.
    fn remote_runs(&self) -> bool {
        self.compares.remote.as_ref().is_some_and(|report| report.running)
    }

    /// The primary's operator wants a compare, or its end.
    pub(super) fn ordered(&mut self, order: Order) {
        let able = self.can_compare();
        match &mut self.compares.run {
            Some(run) if order.stop => return run.fails("it was stopped"),
            None if order.stop => return self.report(),
            _ => {}
        }
        let begun = match &self.compares.run {
            Some(_) => Err("one is under way".to_owned()),
            None if !able => Err("the standby is not whole".to_owned()),
            None => self.begin_compare(&order),
        };
        match begun {
            Ok(()) => self.report(),
            Err(why) => {
                let certificate = Certificate { why, began_ms: self.now.wall_ms, ..Certificate::default() };
                self.say(FrameKind::Report, Report { certificate, ..Report::default() }.encode());
            }
        }
    }

    /// The standby tells of a compare.
    pub(super) fn compare_reported(&mut self, report: Report) {
        let ends = !report.running;
        let ran = !report.certificate.what.is_empty();
        if ends && ran {
            self.compares.last = report.certificate.clone();
            self.keep_certificate();
        }
        self.compares.remote = Some(report);
    }

    fn keep_certificate(&mut self) {
        let bytes = self.compares.last.encode();
        self.compares.keeping += 1;
        self.effect(CompareEffect::Keep { bytes });
    }

    /// Tells the primary how far a compare is.
    fn report(&mut self) {
        let now = self.now.mono;
        let report = match &mut self.compares.run {
            Some(run) => {
                run.told = now;
                let certificate = Certificate { named: Vec::new(), ..run.certificate.clone() };
                Report { running: true, done: run.done, total: run.total, certificate }
            }
            None => Report { certificate: self.compares.last.clone(), ..Report::default() },
        };
        self.say(FrameKind::Report, report.encode());
    }

    fn begin_compare(&mut self, order: &Order) -> Result<(), String> {
        let query = query_of(&order.name);
        let todo = if query.is_some() { VecDeque::new() } else { self.files_to_compare(&order.name)? };
        let blocks = |walk: &Walk| match walk {
            Walk::Blocks { end, .. } => *end,
            Walk::Items { .. } => 0,
        };
        let listing = query.map(|query| format!("the listing {query}"));
        let named = if order.name.is_empty() { EVERYTHING } else { &order.name };
        let what = listing.as_deref().unwrap_or(named);
        self.compares.number += 1;
        let certificate = Certificate {
            repair: order.repair && !order.dry_run,
            began_ms: self.now.wall_ms,
            what: what.to_owned(),
            ..Certificate::default()
        };
        // What is kept of it if this process ends before it does.
        self.compares.last = Certificate { why: "the standby was stopped".to_owned(), ..certificate.clone() };
        self.keep_certificate();
        self.compares.run = Some(Run {
            certificate: Certificate { repair: order.repair, ..certificate },
            dry_run: order.dry_run,
            rate: order.rate.unwrap_or(self.config.compare_rate),
            began: self.now.mono,
            spent: 0,
            total: todo.iter().map(blocks).sum(),
            todo,
            now: None,
            errands: query.map(query::errand).into_iter().collect(),
            done: 0,
            checkpoint: false,
            told: self.now.mono,
            ends: false,
        });
        self.dirty = true;
        Ok(())
    }

    /// The definitions, then files of items, then volumes, in the order of ids.
    fn files_to_compare(&self, name: &str) -> Result<VecDeque<Walk>, String> {
        let account = format!("{name},");
        let named = |info: &FileInfo| name.is_empty() || info.key == name || info.key.starts_with(&account);
        let found: Vec<_> = self.namespace.files().filter(|(_, info)| named(info)).collect();
        if found.is_empty() && !name.is_empty() {
            return Err(format!("there is no account or file {name}"));
        }
        let mut walks = VecDeque::new();
        if name.is_empty() {
            walks.push_back(Walk::Items { file: DEFINITIONS, last: None, open: false });
        }
        let mut each: Vec<_> = found.iter().filter(|(_, info)| is_compared(info)).collect();
        if each.is_empty() && !name.is_empty() {
            return Err(format!(
                "{name} is not replicated, or not whole: the two nodes do not have it alike"
            ));
        }
        each.sort_by_key(|(file, info)| (info.dptr.kind == DptrKind::Blocks, *file));
        walks.extend(each.iter().map(|(file, info)| match info.dptr.kind {
            DptrKind::Blocks => Walk::Blocks { file: *file, at: 0, end: info.dptr.blocks * BLOCK_U64 },
            DptrKind::Records | DptrKind::Account => Walk::Items { file: *file, last: None, open: false },
        }));
        Ok(walks)
    }

    /// Asks for the next looks, and ends the compare when nothing is left.
    pub(super) fn go_on_comparing(&mut self) {
        let able = self.can_compare();
        let (now, stopping) = (self.now.mono, self.stopping);
        let Some(run) = &mut self.compares.run else { return };
        if stopping {
            run.fails("the standby was stopped");
        } else if !able {
            run.fails("the link to the primary was cut off");
        }
        while self.compares.under_way() < COMPARE_ASKS_MAX {
            let walking =
                self.compares.flights.iter().filter(|flight| flight.purpose == Purpose::Walk).count();
            let Some(run) = &mut self.compares.run else { return };
            if run.ends || run.due() > now {
                break;
            }
            let range = self.config.compare_range;
            let Some(Errand { file, span, what, purpose }) = run.next(walking, range) else { break };
            let walks = purpose == Purpose::Walk;
            let id = self.ask(file, span, what, purpose);
            if let Some(Run { now: Some(Walk::Items { last, .. }), .. }) = &mut self.compares.run
                && walks
            {
                *last = Some(id);
            }
        }
        let idle = self.compares.flights.iter().all(|flight| flight.purpose == Purpose::Heal);
        let Some(run) = &mut self.compares.run else { return };
        if (idle && run.is_through()) || run.ends {
            return self.end_compare();
        }
        if now >= run.told.plus_ms(COMPARE_TELL_MS) {
            self.report();
        }
    }

    /// A look came to its end on both nodes.
    pub(super) fn landed(&mut self, flight: Flight) {
        self.dirty = true;
        if flight.purpose == Purpose::Heal {
            return self.healed_here(&flight);
        }
        let file = self.file_words(flight.file);
        let blocks = self.namespace.file(flight.file).is_some_and(|info| info.dptr.kind == DptrKind::Blocks);
        let Some(run) = &mut self.compares.run else { return };
        let at = flight.at.unwrap_or_default();
        let part = |kind, part| Difference { kind, repaired: false, at, file: file.clone(), part };
        match (&flight.purpose, &flight.own, &flight.theirs) {
            (Purpose::Walk, Some(Found::Digest(own)), Some(Found::Digest(theirs))) => {
                run.walked(&flight, own, theirs);
            }
            (Purpose::Closer(whole, any), Some(Found::Details(own)), Some(Found::Details(theirs))) => {
                let (mut own, mut theirs) = (own.clone(), theirs.clone());
                if flight.file == DEFINITIONS {
                    settle_definitions(&mut own, &mut theirs);
                }
                let found = findings(&flight.span, &own, &theirs);
                let any = flight.file == DEFINITIONS || *any || !found.stretches.is_empty();
                if !any && found.rest.is_none() {
                    run.differs(part(Kind::Passed, span_words(whole)));
                }
                let closer = Purpose::Closer(whole.clone(), any);
                run.found(&flight, found, closer, |kind, name| part(kind, words(name, blocks)));
            }
            (Purpose::Query, Some(Found::Details(own)), Some(Found::Details(theirs))) => {
                run.queried(&flight, own, theirs);
            }
            (Purpose::Query, own, theirs) => run.unlisted(flight.at, own.as_ref(), theirs.as_ref()),
            (Purpose::Repair(count, named), _, Some(Found::Content(chunk))) => {
                run.repaired(&flight, chunk, (*count, named.clone()));
            }
            (Purpose::Verify(count, named), Some(Found::Digest(own)), Some(Found::Digest(theirs))) => {
                if own == theirs {
                    run.verified(*count, named);
                }
            }
            (purpose, own, theirs) => {
                if *purpose == Purpose::Walk {
                    let more = matches!(theirs, Some(Found::Digest(digest)) if digest.reached.is_some());
                    run.goes_on(flight.file, more);
                }
                run.unlike(own.as_ref(), theirs.as_ref(), |kind| part(kind, span_words(&flight.span)));
            }
        }
    }

    fn file_words(&self, file: FileId) -> String {
        match self.namespace.file(file) {
            _ if file == DEFINITIONS => "definitions".to_owned(),
            Some(info) => info.key.clone(),
            None => format!("file {file}"),
        }
    }

    fn end_compare(&mut self) {
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
        self.compares.last = certificate;
        self.keep_certificate();
        self.tell_compare();
        self.report();
        self.dirty = true;
    }

    fn tell_compare(&mut self) {
        let found = &self.compares.last;
        let wrong = found.differing + found.unread + found.passed;
        let range = format!("between entries {} and {}", found.from, found.to);
        let first: Vec<String> =
            found.named.iter().take(3).map(|d| format!("{} {}", d.file, d.part)).collect();
        let first = first.join("; ");
        let what = &found.what;
        let everything = what == EVERYTHING;
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
        let last = &compares.last;
        if !last.whole || last.what != EVERYTHING {
            return Some(first);
        }
        let due = last.ended_ms.saturating_add(every).saturating_sub(self.now.wall_ms).min(every);
        Some(first.max(self.now.mono.plus_ms(due)))
    }

    pub(super) fn begin_scheduled_compare(&mut self) {
        if self.scheduled_compare().is_some_and(|at| at <= self.now.mono) {
            self.rest_of_schedule();
            let _ = self.begin_compare(&order_of(String::new()));
        }
    }

    pub(in crate::engine) fn compare_deadline(&self) -> Option<Mono> {
        let room = self.compares.under_way() < COMPARE_ASKS_MAX;
        let run = self.compares.run.as_ref().filter(|run| !run.checkpoint && !run.ends);
        let next = run.filter(|run| room && run.rate > 0 && run.due() > self.now.mono).map(Run::due);
        let tell = run.map(|run| run.told.plus_ms(COMPARE_TELL_MS));
        [next, tell, self.compares.hold_deadline(), self.scheduled_compare()].into_iter().flatten().min()
    }

    /// What is known of compares; the differences too if they are `listed`.
    pub(in crate::engine) fn compare_view(&self, listed: bool) -> CompareView {
        let remote = self.compares.remote.as_ref().filter(|_| self.serving());
        let (found, running, done, total) = match (&self.compares.run, remote) {
            (Some(run), _) => (&run.certificate, true, run.done, run.total),
            (None, Some(report)) => (&report.certificate, report.running, report.done, report.total),
            (None, None) => (&self.compares.last, false, 0, 0),
        };
        let running = running || self.compares.keeping > 0;
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

fn order_of(name: String) -> Order {
    Order { stop: false, repair: false, dry_run: false, rate: None, name }
}

/// Many stretches of a span are repaired as one: what waits is bounded.
fn together(stretches: Vec<Stretch>, span: &Span) -> Vec<Stretch> {
    if stretches.len() <= COMPARE_CLOSER_MAX {
        return stretches;
    }
    let parts = stretches.into_iter().flat_map(|stretch| stretch.parts).collect();
    vec![Stretch { span: span.clone(), parts }]
}

/// The span up to where a look came.
fn up_to(span: &Span, reached: Option<&Bytes>) -> Span {
    match (span, reached) {
        (Span::Items { after, .. }, Some(reached)) => {
            Span::Items { after: after.clone(), through: reached.clone() }
        }
        _ => span.clone(),
    }
}

/// The span behind where a look came.
fn behind(span: &Span, reached: &Bytes) -> Span {
    match span {
        Span::Items { through, .. } => Span::Items { after: reached.clone(), through: through.clone() },
        other => other.clone(),
    }
}

impl Run {
    /// What is to be asked for next, while so many ranges are looked at for the first time.
    fn next(&mut self, walking: usize, range: u32) -> Option<Errand> {
        if let Some(errand) = self.errands.pop_front() {
            return Some(errand);
        }
        if walking >= WALKS_MAX {
            return None;
        }
        if self.now.is_none() {
            self.now = self.todo.pop_front();
        }
        let walk = |file, span| Errand { file, span, what: What::Digest, purpose: Purpose::Walk };
        match self.now.as_mut()? {
            Walk::Items { file, last, open } => {
                let span = match (*last, *open) {
                    (None, _) => Span::Items { after: Bytes::new(), through: Bytes::new() },
                    (Some(before), true) => Span::Behind(before),
                    (Some(_), false) => return None,
                };
                Some(walk(*file, span))
            }
            Walk::Blocks { file, at, end } => {
                let len = u64::from(range).next_multiple_of(BLOCK_U64).min(end.saturating_sub(*at));
                let errand = (len > 0).then(|| walk(*file, Span::Blocks { offset: *at, len }));
                *at += len;
                self.done += len;
                if *at >= *end {
                    self.now = None;
                }
                errand
            }
        }
    }

    /// A range was looked at for the first time. `more`: its file goes on behind it.
    fn goes_on(&mut self, walked: FileId, more: bool) {
        if let Some(Walk::Items { file, open, .. }) = &mut self.now
            && *file == walked
        {
            *open = more;
            if !more {
                self.now = None;
            }
        }
    }

    /// Both nodes looked at a range for the first time.
    fn walked(&mut self, flight: &Flight, own: &Digest, theirs: &Digest) {
        self.looked_at(flight.at);
        self.spent += theirs.bytes.max(own.bytes);
        self.goes_on(flight.file, theirs.reached.is_some());
        if own == theirs {
            self.certificate.items += u64::from(own.count);
            self.certificate.bytes += own.bytes;
            self.certificate.digest = chained(&self.certificate.digest, &own.hash);
        } else {
            let span = up_to(&flight.span, theirs.reached.as_ref());
            self.errand(flight.file, span.clone(), Purpose::Closer(span, false));
        }
    }

    /// Both nodes looked at the parts of a range.
    fn found(
        &mut self,
        flight: &Flight,
        found: Findings,
        closer: Purpose,
        part: impl Fn(Kind, &Bytes) -> Difference,
    ) {
        let limit = match &found.rest {
            Some(Span::Items { after, .. }) => Some(after),
            _ => None,
        };
        for stretch in together(found.stretches, &up_to(&flight.span, limit)) {
            self.name(flight, stretch, &part);
        }
        if let Some(rest) = found.rest {
            self.errand(flight.file, rest, closer);
        }
    }

    /// The standby was given content. What is left of the span is copied before it is looked at again.
    fn repaired(&mut self, flight: &Flight, chunk: &Chunk, (count, named): (u64, Range<usize>)) {
        let reached = match (&chunk.content, &flight.span) {
            (Content::Items { through, .. }, Span::Items { through: wanted, .. })
                if !chunk.ends && through != wanted =>
            {
                Some(through)
            }
            _ => None,
        };
        match reached {
            Some(reached) => {
                self.errand(flight.file, behind(&flight.span, reached), Purpose::Repair(count, named));
            }
            None => self.errand(flight.file, flight.span.clone(), Purpose::Verify(count, named)),
        }
    }

    /// What was repaired is equal on both nodes.
    fn verified(&mut self, count: u64, named: &Range<usize>) {
        self.certificate.repaired += count;
        let all = self.certificate.named.len();
        let named = self.certificate.named.get_mut(named.start.min(all)..named.end.min(all));
        named.into_iter().flatten().for_each(|difference| difference.repaired = true);
    }

    fn errand(&mut self, file: FileId, span: Span, purpose: Purpose) {
        let what = match purpose {
            Purpose::Closer(..) | Purpose::Query => What::Details,
            Purpose::Repair(..) | Purpose::Heal => What::Content,
            Purpose::Walk | Purpose::Verify(..) => What::Digest,
        };
        self.errands.push_back(Errand { file, span, what, purpose });
    }

    /// Counts and names what differs, and repairs it if it may.
    fn name(&mut self, flight: &Flight, stretch: Stretch, difference: &impl Fn(Kind, &Bytes) -> Difference) {
        let first = self.certificate.named.len();
        stretch.parts.iter().for_each(|(name, kind)| self.differs(difference(*kind, name)));
        let named: Range<usize> = first..self.certificate.named.len();
        if self.repairs() && flight.file != DEFINITIONS {
            self.errand(flight.file, stretch.span, Purpose::Repair(stretch.parts.len() as u64, named));
        }
    }

    /// A range that could not be held against the other's.
    fn unlike(
        &mut self,
        own: Option<&Found>,
        theirs: Option<&Found>,
        difference: impl Fn(Kind) -> Difference,
    ) {
        let kind = match (own, theirs) {
            (_, Some(Found::Over)) | (Some(Found::Gone), Some(Found::Gone)) => return,
            (Some(Found::Unread), _) => Kind::StandbyUnread,
            (_, Some(Found::Unread)) => Kind::PrimaryUnread,
            // Of a file that one node lacks the definitions tell.
            _ if self.certificate.differing > 0 => return,
            (Some(Found::Gone), _) => return self.fails("the standby does not replicate all files now"),
            _ => {
                return self
                    .fails("the primary does not replicate all files now: is logging paused, or was it?");
            }
        };
        self.differs(difference(kind));
    }
}
