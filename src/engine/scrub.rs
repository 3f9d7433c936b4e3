//! Scrubs: everything that is stored is read and held to its checksums, at an operator's word or by a schedule.
//!
//! Here is decided what is read next, how fast, and what is told of it. A thread of its own reads; what it finds is
//! confirmed by whoever applies, between two batches. One part is under way at a time. Where it is, is kept durably now
//! and then, so that a scheduled scrub that was interrupted goes on there.

use super::admin::{ScrubEnd, ScrubView};
use super::core::Core;
use super::effect::{ScrubEffect, ScrubPart, Severity};
use super::event::ScrubEvent;
use super::incidents::Matter;
use super::roles::Stage;
use super::status::seconds;
use crate::base::limits::{BLOCK_U64, SCRUB_FIRST_MS, SCRUB_KEEP_MS};
use crate::base::{Fault, FileId, Mono};
use crate::doors::Refusal;
use crate::format::dptr::DptrKind;
use crate::format::scrub::ScrubRecord;
use crate::store::StoreRead;
use std::collections::VecDeque;

const DAY_MS: u64 = 86_400_000;

/// What a scrub is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Only this file, `account,file`.
    pub(super) name: Option<String>,
    /// Bytes a second; 0 is no limit.
    pub(super) rate: Option<u64>,
    /// Make damaged checksums anew from the content as it is.
    pub(super) renew: bool,
}

/// A scrub under way.
#[derive(Debug)]
struct Run {
    what: String,
    /// Everything is read, so it counts for the schedule.
    full: bool,
    scheduled: bool,
    renew: bool,
    rate: u64,
    began: Mono,
    began_ms: u64,
    todo: VecDeque<ScrubPart>,
    /// The part that is read now, under the number by which the thread knows it.
    now: Option<(u64, ScrubPart)>,
    /// How far that is, and how much of it there is (bytes).
    at: (u64, u64),
    /// Of the parts before it (bytes).
    done: u64,
    /// Of those behind it (bytes).
    left: u64,
    /// Skipped at the beginning, as an interrupted scrub had read it (bytes).
    skipped: u64,
    read: u64,
    /// Of that, read before it was interrupted (bytes).
    read_before: u64,
    wrong: u64,
    unread: Option<Fault>,
    stopped: bool,
}

/// The scrubs of a node.
#[derive(Debug, Default)]
pub(super) struct Scrubs {
    /// What is kept of them.
    record: ScrubRecord,
    /// What is kept was read.
    known: bool,
    kept_at: Mono,
    run: Option<Run>,
    /// An operator has stopped one: none begins by itself before.
    not_before: Mono,
    /// How many began since the start.
    count: u64,
    /// How the last one since the start ended.
    end: Option<ScrubEnd>,
    /// How often something was to be kept and is not yet: nobody hears of an end that a crash would take back.
    keeping: u32,
}

impl<S: StoreRead> Core<S> {
    /// What the thread that reads tells.
    pub(super) fn scrub_event(&mut self, event: ScrubEvent) {
        match event {
            ScrubEvent::Found { record } => {
                self.scrubs.record = record;
                self.scrubs.known = true;
            }
            ScrubEvent::Progress { job, at, of, read } => {
                let Some(run) = self.scrubs.run_of(job) else { return };
                run.read += read;
                run.at = (at, of);
                self.keep_scrub(false);
            }
            ScrubEvent::ItemsWrong { job, why } => {
                if let Some(run) = self.scrubs.run_of(job) {
                    run.wrong += 1;
                }
                let text = format!("items of the store are damaged: {why}; the peer's copy may be whole");
                self.incident(Severity::Critical, Matter::ItemDamaged, text);
            }
            ScrubEvent::Done { job, read, result } => self.scrub_part_done(job, read, result),
            ScrubEvent::Kept => self.scrubs.keeping = self.scrubs.keeping.saturating_sub(1),
        }
    }

    fn scrub_part_done(&mut self, job: u64, read: u64, result: Result<bool, Fault>) {
        let Some(run) = self.scrubs.run_of(job) else { return };
        run.read += read;
        if let Err(fault) = result {
            run.unread.get_or_insert(fault);
        }
        let whole = !matches!(result, Ok(false));
        if !whole {
            run.stopped = true;
            run.todo.clear();
            self.keep_scrub(true);
        }
        if let Some(run) = &mut self.scrubs.run {
            run.now = None;
            run.done += run.at.1;
            run.at = (0, 0);
        }
    }

    /// Places of volumes that were found wrong while a scrub reads are found by it.
    pub(super) fn note_scrubbed(&mut self, wrong: u64) {
        if let Some(run) = &mut self.scrubs.run {
            run.wrong += wrong;
        }
    }

    /// An operator wants a scrub. Answered at once; how far it is, the status tells.
    pub(super) fn scrub(&mut self, token: u64, wanted: &Wanted) {
        if !self.may_scrub() {
            let message = format!("beginning a scrub: {}", self.reason());
            return self.reply_no(token, message, "try again when it serves or stands by");
        }
        if let Some(run) = &self.scrubs.run {
            let message = format!("beginning a scrub: one of {} is under way", run.what);
            let next =
                "wait for its end, which `hot-backup status` shows, or stop it: hot-backup scrub --stop";
            return self.reply_no(token, message, next);
        }
        match self.parts_to_scrub(wanted.name.as_deref()) {
            Ok(parts) => {
                self.begin_scrub(parts, wanted, false);
                let view = self.scrub_view();
                self.reply_value(token, view);
            }
            Err(refusal) => {
                let next = "see: hot-backup file list";
                self.reply_no(token, format!("beginning a scrub: {}", refusal_text(&refusal)), next);
            }
        }
    }

    /// An operator wants the scrub to end where it is.
    pub(super) fn stop_scrub(&mut self, token: u64) {
        if self.scrubs.run.is_none() {
            return self.reply_no(
                token,
                "stopping the scrub: none is under way",
                "begin one: hot-backup scrub",
            );
        }
        self.scrubs.not_before = self.now.mono.plus_ms(self.config.scrub_every_days * DAY_MS);
        self.effect(ScrubEffect::Stop);
        if let Some(run) = &mut self.scrubs.run {
            run.todo.clear();
            run.stopped = true;
        }
        let view = self.scrub_view();
        self.reply_value(token, view);
    }

    fn may_scrub(&self) -> bool {
        !self.stopping
            && self.scrubs.known
            && !matches!(self.roles.stage(), Stage::Replaying | Stage::Stopped)
    }

    /// Volumes in the order of their ids, then the items.
    fn parts_to_scrub(&self, name: Option<&str>) -> Result<Vec<ScrubPart>, Refusal> {
        let volume =
            |file: FileId, blocks: u64| ScrubPart::Volume { file, bytes: blocks * BLOCK_U64, from: 0 };
        let Some(name) = name else {
            let files = self.namespace.files().filter(|(_, info)| info.dptr.kind == DptrKind::Blocks);
            let mut all: Vec<ScrubPart> = files.map(|(file, info)| volume(file, info.dptr.blocks)).collect();
            all.sort_by_key(|part| part.place().0);
            all.push(ScrubPart::Items);
            return Ok(all);
        };
        let unknown = || Refusal::NoSuchFile(name.to_owned());
        let file = self.namespace.resolve(name.as_bytes()).ok_or_else(unknown)?;
        let info = self.namespace.file(file).ok_or_else(unknown)?;
        Ok(vec![match info.dptr.kind {
            DptrKind::Blocks => volume(file, info.dptr.blocks),
            // Items of all files share their tables.
            DptrKind::Records | DptrKind::Account => ScrubPart::Items,
        }])
    }

    fn begin_scrub(&mut self, parts: Vec<ScrubPart>, wanted: &Wanted, scheduled: bool) {
        let mut todo: VecDeque<ScrubPart> = parts.into();
        let (full, mut skipped) = (wanted.name.is_none(), 0);
        let (mut read, mut wrong) = (0, 0);
        let goes_on = scheduled && self.scrubs.record.file != FileId(0);
        if goes_on {
            let (file, offset) = (self.scrubs.record.file, self.scrubs.record.offset);
            (read, wrong) = (self.scrubs.record.read, self.scrubs.record.wrong);
            while let Some(part) = todo.front().filter(|part| part.place().0 < file) {
                skipped += part.bytes();
                todo.pop_front();
            }
            if let Some(ScrubPart::Volume { file: first, from, bytes }) = todo.front_mut()
                && *first == file
            {
                *from = offset.min(*bytes);
                skipped += *from;
            }
        }
        let now = self.now;
        if full && !goes_on {
            self.scrubs.record = ScrubRecord { began_ms: now.wall_ms, ..self.scrubs.record };
        }
        self.scrubs.count += 1;
        self.scrubs.run = Some(Run {
            what: wanted.name.clone().unwrap_or_else(|| "everything".to_owned()),
            full,
            scheduled,
            renew: wanted.renew,
            rate: wanted.rate.unwrap_or(self.config.scrub_rate),
            began: now.mono,
            began_ms: now.wall_ms,
            left: todo.iter().map(ScrubPart::bytes).sum(),
            todo,
            now: None,
            at: (0, 0),
            done: skipped,
            skipped,
            read,
            read_before: read,
            wrong,
            unread: None,
            stopped: false,
        });
        self.dirty = true;
    }

    /// Begins what is due, goes on to the next part, or ends.
    pub(super) fn pump_scrub(&mut self) {
        if self.scrub_deadline().is_some_and(|at| at <= self.now.mono)
            && let Ok(parts) = self.parts_to_scrub(None)
        {
            self.begin_scrub(parts, &Wanted::default(), true);
        }
        let stopping = self.stopping;
        let Some(run) = &mut self.scrubs.run else { return };
        if stopping && !run.stopped {
            (run.stopped, run.todo) = (true, VecDeque::new());
            self.effect(ScrubEffect::Stop);
        }
        let Some(run) = self.scrubs.run.as_mut().filter(|run| run.now.is_none()) else { return };
        match run.todo.pop_front() {
            Some(part) => {
                run.left = run.left.saturating_sub(part.bytes());
                run.at = match part {
                    ScrubPart::Volume { from, bytes, .. } => (from, bytes),
                    ScrubPart::Items => (0, 0),
                };
                let (rate, renew) = (run.rate, run.renew);
                let job = self.fresh_id();
                if let Some(run) = &mut self.scrubs.run {
                    run.now = Some((job, part));
                }
                self.effect(ScrubEffect::Begin { job, part, rate, renew });
            }
            None => self.end_scrub(),
        }
    }

    fn end_scrub(&mut self) {
        let Some(run) = self.scrubs.run.take() else { return };
        let end = ScrubEnd {
            what: run.what.clone(),
            began_ms: run.began_ms,
            ended_ms: self.now.wall_ms,
            seconds: seconds(self.now.mono.since(run.began)),
            read: run.read,
            wrong: run.wrong,
            stopped: run.stopped,
            unread: run.unread.map(|fault| fault.to_string()).unwrap_or_default(),
        };
        if run.full && !run.stopped {
            let began_ms = self.scrubs.record.began_ms;
            let (read, wrong) = (run.read, run.wrong);
            let ended_ms = self.now.wall_ms;
            self.scrubs.record = ScrubRecord { began_ms, ended_ms, read, wrong, ..ScrubRecord::default() };
            self.save_scrub();
        }
        if !run.stopped {
            self.tell_scrub(&end);
        }
        if run.full && !run.stopped && end.wrong == 0 && end.unread.is_empty() {
            self.volumes_whole();
        }
        self.scrubs.end = Some(end);
    }

    fn tell_scrub(&mut self, end: &ScrubEnd) {
        let found = match end.wrong {
            0 => "nothing is wrong".to_owned(),
            1 => "1 place is wrong".to_owned(),
            n => format!("{n} places are wrong"),
        };
        let unread = match end.unread.as_str() {
            "" => String::new(),
            why => format!("; some could not be read: {why}"),
        };
        let text = format!("a scrub has read {}, {} bytes: {found}{unread}", end.what, end.read);
        self.incident(Severity::Notice, Matter::Scrubbed, text);
    }

    /// Keeps how far a scrub of everything is: now and then, or at once.
    fn keep_scrub(&mut self, at_once: bool) {
        let due = self.now.mono.since(self.scrubs.kept_at) >= SCRUB_KEEP_MS * 1000;
        let Some(run) = self.scrubs.run.as_ref().filter(|run| run.full && (due || at_once)) else { return };
        let Some((_, part)) = run.now else { return };
        let (file, offset) = match part {
            ScrubPart::Volume { file, .. } => (file, run.at.0),
            // Items are read anew.
            ScrubPart::Items => part.place(),
        };
        let (read, wrong) = (run.read, run.wrong);
        self.scrubs.record = ScrubRecord { read, wrong, file, offset, ..self.scrubs.record };
        self.save_scrub();
    }

    fn save_scrub(&mut self) {
        self.scrubs.kept_at = self.now.mono;
        self.scrubs.keeping += 1;
        let bytes = self.scrubs.record.encode();
        self.effect(ScrubEffect::Keep { bytes });
    }

    /// When the next scrub is due.
    pub(super) fn scrub_deadline(&self) -> Option<Mono> {
        if self.config.scrub_every_days == 0 || self.scrubs.run.is_some() || !self.may_scrub() {
            return None;
        }
        let first = Mono(SCRUB_FIRST_MS * 1000).max(self.scrubs.not_before);
        let record = &self.scrubs.record;
        if record.file != FileId(0) || record.ended_ms == 0 {
            return Some(first);
        }
        let due_ms = record.ended_ms.saturating_add(self.config.scrub_every_days * DAY_MS);
        let wait_ms = due_ms.saturating_sub(self.now.wall_ms).min(self.config.scrub_every_days * DAY_MS);
        Some(first.max(self.now.mono.plus_ms(wait_ms)))
    }

    /// What the status tells of scrubs.
    pub(super) fn scrub_view(&self) -> ScrubView {
        let record = &self.scrubs.record;
        let mut view = ScrubView {
            number: self.scrubs.count,
            last_ended_ms: record.ended_ms,
            last_wrong: record.wrong,
            end: self.scrubs.end.clone(),
            ..ScrubView::default()
        };
        view.running = self.scrubs.run.is_some() || self.scrubs.keeping > 0;
        let Some(run) = &self.scrubs.run else { return view };
        view.what.clone_from(&run.what);
        view.scheduled = run.scheduled;
        view.began_ms = run.began_ms;
        view.done = run.done + run.at.0;
        view.total = run.done + run.at.1 + run.left;
        view.read = run.read;
        view.wrong = run.wrong;
        view.rate_limit = run.rate;
        let micros = self.now.mono.since(run.began);
        view.seconds = seconds(micros);
        let pace = u128::from(run.read - run.read_before) * 1_000_000 / u128::from(micros.max(1));
        view.bytes_per_second = u64::try_from(pace).unwrap_or(u64::MAX);
        let fresh = view.done.saturating_sub(run.skipped);
        if fresh > 0 {
            view.seconds_left = Some(view.seconds * share(view.total.saturating_sub(view.done), fresh));
        }
        view
    }
}

/// A quotient of byte counts.
fn share(a: u64, b: u64) -> f64 {
    let thousandths = u128::from(a) * 1000 / u128::from(b.max(1));
    f64::from(u32::try_from(thousandths).unwrap_or(u32::MAX)) / 1000.0
}

fn refusal_text(refusal: &Refusal) -> String {
    match refusal {
        Refusal::NoSuchFile(name) => format!("there is no file {name}"),
        other => format!("{other:?}"),
    }
}

impl Scrubs {
    /// The scrub under way, if this is the part that it waits for.
    fn run_of(&mut self, job: u64) -> Option<&mut Run> {
        self.run.as_mut().filter(|run| run.now.is_some_and(|(now, _)| now == job))
    }
}

#[cfg(test)]
#[path = "scrub_tests.rs"]
mod tests;
