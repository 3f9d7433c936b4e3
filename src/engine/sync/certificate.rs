//! A compare from its beginning to its certificate: what is looked at next, how fast, what is told of it and kept.

mod kept;
mod query;

use super::compare::{Flight, Purpose};
use super::findings::{Findings, Stretch, findings, span_words, words};
use super::sparse::Sparse;
use crate::base::limits::{
    BLOCK_U64, COMPARE_ASKS_MAX, COMPARE_CLOSER_MAX, COMPARE_NAMED_MAX, COMPARE_TELL_MS,
};
use crate::base::{FileId, Mono, Seq};
use crate::engine::core::Core;
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
use kept::what_is_ordered;
use query::query_of;
use std::collections::VecDeque;
use std::ops::Range;

/// Ranges of one file that are looked at for the first time at once.
const WALKS_MAX: usize = COMPARE_ASKS_MAX / 2;

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
    /// Where the volume that is walked has holes on this node.
    pub(super) sparse: Sparse,
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
    /// An operator wants a compare. Answered at once; what comes of it [`Self::compare_result`] tells.
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
                    let view = self.compare_result(false);
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
        let (began_ms, what) = (self.now.wall_ms, what_is_ordered(&order.name));
        let certificate = Certificate { began_ms, what, ..Certificate::default() };
        self.compares.ordered(Report { running: true, certificate, ..Report::default() });
        self.send_order(&order);
        let view = self.compare_result(false);
        self.reply_value(token, view);
    }

    /// An operator wants the compare to end.
    pub(in crate::engine) fn stop_compare(&mut self, token: u64) {
        if self.compares.run.is_some() {
            self.stop_run();
        } else if self.remote_runs() {
            self.send_order(&Order { stop: true, ..order_of(String::new()) });
        } else {
            let message = "stopping the compare: none is under way";
            return self.reply_no(token, message, "begin one: hot-backup compare");
        }
        self.dirty = true;
        let view = self.compare_result(false);
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
        self.compares.lists() || self.compares.remote.as_ref().is_some_and(|report| report.running)
    }

    /// The primary's operator wants a compare, or its end.
    pub(super) fn ordered(&mut self, order: Order) {
        let able = self.can_compare();
        match &self.compares.run {
            Some(_) if order.stop => return self.stop_run(),
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

    fn begin_compare(&mut self, order: &Order) -> Result<(), String> {
        let query = query_of(&order.name);
        let todo = if query.is_some() { VecDeque::new() } else { self.files_to_compare(&order.name)? };
        let blocks = |walk: &Walk| match walk {
            Walk::Blocks { end, .. } => *end,
            Walk::Items { .. } => 0,
        };
        let certificate = Certificate {
            repair: order.repair && !order.dry_run,
            began_ms: self.now.wall_ms,
            what: what_is_ordered(&order.name),
            ..Certificate::default()
        };
        self.certificate_begins(&certificate);
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
            sparse: Sparse::default(),
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
            let Some(Errand { file, span, what, purpose }) = run.next(walking, range) else {
                self.look_for_holes();
                break;
            };
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
                if *purpose == Purpose::Walk && run.splits(&flight, self.config.compare_range) {
                    return;
                }
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
            self.sparse.begins();
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
                let left = end.saturating_sub(*at);
                let len = u64::from(range).next_multiple_of(BLOCK_U64).min(left);
                let len = self.sparse.span(*at, len, left)?;
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
        if let Span::Blocks { offset, len } = flight.span {
            self.sparse.walked(own.count == 0 && theirs.count == 0);
            // One of them may have seen less of a hole than the other.
            let end = |digest: &Digest| digest.end().unwrap_or(offset + len);
            let until = end(own).min(end(theirs));
            if until < offset + len {
                let rest = Span::Blocks { offset: until, len: offset + len - until };
                self.errand(flight.file, rest, Purpose::Walk);
            }
            if own.hash != theirs.hash {
                let span = Span::Blocks { offset, len: until - offset };
                return self.errand(flight.file, span.clone(), Purpose::Closer(span, false));
            }
        }
        if own.hash == theirs.hash && (own == theirs || matches!(flight.span, Span::Blocks { .. })) {
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

    /// What one node cannot read may be a small part of a long hole of the other's: it is looked at apart from the rest.
    fn splits(&mut self, flight: &Flight, range: u32) -> bool {
        let first = u64::from(range).next_multiple_of(BLOCK_U64);
        let Span::Blocks { offset, len } = flight.span else { return false };
        if len <= first || flight.theirs == Some(Found::Gone) || flight.own == Some(Found::Gone) {
            return false;
        }
        for span in
            [Span::Blocks { offset, len: first }, Span::Blocks { offset: offset + first, len: len - first }]
        {
            self.errand(flight.file, span, Purpose::Walk);
        }
        true
    }

    /// The volume that is walked, from where on it was not asked for, and its end.
    pub(super) fn walks_blocks(&self) -> Option<(FileId, u64, u64)> {
        match &self.now {
            Some(Walk::Blocks { file, at, end }) => Some((*file, *at, *end)),
            _ => None,
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
