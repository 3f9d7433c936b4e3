//! A switchover: primary and standby change roles on an operator's word, nothing is lost, nobody restarts.
//!
//! ```text
//!   primary                                             standby
//!     | 1 promise: durable in the control file             |
//!     | 2 the doors close: updates wait                    |
//!     |   until the standby has applied all                |
//!     | 3 Give: the end of the history                     |
//!     |--------------------------------------------------->| 4 opens an epoch, as a takeover does:
//!     |                                                    |   durable in the control file,
//!     |                    Taken: the new epoch            | 5 then its first entry, then the doors
//!     |<---------------------------------------------------|
//!     | 6 standby, durable in the control file             |
//!     |   the doors open: -READONLY                        |
//!     |<------------------------ dials, hello, stream -----|
//! ```
//!
//! What each node has on disk, who may serve if the other dies or the wire is cut then, and how it goes on. "Asks" is what
//! every restarted primary does ([`super::asking`]): a standby that answers it does not serve, and has forgotten what it was
//! given, so the primary serves again; a primary of the higher epoch makes it the standby.
//!
//! | step | primary's disk | standby's disk | primary dies or is cut off | standby dies or is cut off |
//! |---|---|---|---|---|
//! | before 1 | primary | standby | nobody serves until it is back, or a takeover | the primary goes on |
//! | 1, 2 | primary, promised | standby | the same; it asks even where the config lets it serve unasked | the doors open again, the promise is taken back |
//! | 3, `Give` under way | primary, promised | standby | the standby takes the role if `Give` reaches it, and else stays | the primary asks |
//! | 4 | primary, promised | standby | the standby goes on alone and serves | before its control file is durable a standby, which has forgotten it: the primary serves again; after that a primary that asks |
//! | 5, `Taken` under way | primary, promised | primary of the new epoch | the new primary serves; the old one asks, and is its standby | the old primary asks, and waits for it or for an operator |
//! | 6 | standby of the new epoch | primary of the new epoch | as any pair | as any pair |
//!
//! - The primary accepts nothing from 3 on, and has answered everything before: both have all of it. So whoever serves next,
//!   nothing is lost.
//! - A standby takes a role once, from the stream that it follows, and answers no call from then until it serves. A call that
//!   it answered as a standby took the place of that stream, and what is still on its way there is read by nobody (I-14). So
//!   never do both believe that they may serve: whoever heard "I do not serve" from it knows that it will not.
//! - `Refuse` instead of `Taken` is the standby's last word on a stream: it has not taken the role, and the primary goes on.
//! - Where the standby is gone for good after 3, the operator's word decides, as after any restart: `start --alone` here, or
//!   `takeover` there.

use super::stage::StageData;
use super::{Roles, Stage};
use crate::base::limits::{HANDOVER_ASK_MS, HANDOVER_HOLD_MS, HANDOVER_LAG_MAX, HANDOVER_LEVEL_MS};
use crate::base::shown::{Grouped, counted};
use crate::base::{Epoch, JournalKind, Mono, Position};
use crate::engine::admin::{AdminReply, ConditionView, SwitchoverView};
use crate::engine::core::Core;
use crate::engine::effect::Severity;
use crate::engine::incidents::Matter;
use crate::engine::peer::PeerState;
use crate::engine::status::seconds;
use crate::format::dptr::LoggingMode;
use crate::format::frame::{FEATURE_HANDOVER, FrameHeader, FrameKind};
use crate::format::handover::{Condition, Handover, Report};
use crate::store::StoreRead;

/// The promise has to be on disk within this (milliseconds).
const PROMISE_MS: u64 = 5_000;
/// What a pause takes beside the writes that it waits for, at least (microseconds).
const PAUSE_LEAST_US: u64 = 5_000;
/// What the peer lacks is younger than this when a switchover begins (microseconds).
const LAG_AGE_MAX: u64 = 1_000_000;

/// What a node keeps of switchovers, whatever its stage.
#[derive(Debug, Default)]
pub(in crate::engine) struct Switchover {
    /// This node, a primary, is giving its role away.
    giving: Option<Giving>,
    /// An operator asked here for one, and the primary was asked in turn.
    asked: Option<Asked>,
    hold: Option<Hold>,
    /// The last one of this life.
    last: Option<SwitchoverView>,
    /// Clients of volumes that take no changes any more have to go.
    parts_from_blocks: bool,
}

#[derive(Debug)]
struct Giving {
    /// The operator who asked here; none if the peer asked.
    token: Option<u64>,
    began: Mono,
    /// When it is given up; never once the role was given away.
    until: Option<Mono>,
    /// Its pause as measured here, and by the peer (microseconds).
    paused: Option<(u64, Option<u64>)>,
}

#[derive(Debug)]
struct Asked {
    token: u64,
    dry_run: bool,
    until: Mono,
}

/// The doors are closed: what comes waits.
#[derive(Clone, Copy, Debug)]
struct Hold {
    since: Mono,
    until: Mono,
}

/// What a node keeps while it does not know what became of the role that it gave away.
#[derive(Debug)]
pub(super) struct HandingOver {
    /// The end of the history, which both have.
    at: Position,
}

impl HandingOver {
    pub(super) fn at(at: Position) -> Self {
        Self { at }
    }
}

/// The role that a standby was given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handed {
    at: Position,
    /// For how long the old primary's doors had been closed (microseconds).
    paused_us: u64,
    heard: Mono,
}

impl Switchover {
    pub(super) fn deadline(&self) -> Option<Mono> {
        let giving = self.giving.as_ref().and_then(|giving| giving.until);
        let asked = self.asked.as_ref().map(|asked| asked.until);
        [giving, asked, self.hold.map(|hold| hold.until)].into_iter().flatten().min()
    }

    /// Opens the doors again.
    pub(super) fn open_doors(&mut self) {
        self.hold = None;
    }
}

impl Roles {
    /// Whether clients wait for a switchover.
    pub(in crate::engine) fn holds_doors(&self) -> bool {
        self.switchover.hold.is_some()
    }

    /// Clients of volumes that take no changes any more have to go.
    pub(in crate::engine) fn part_from_blocks(&mut self) {
        self.switchover.parts_from_blocks = true;
    }

    /// Whether clients of volumes that take no changes any more have to go; tells it once.
    pub(in crate::engine) fn parts_from_blocks(&mut self) -> bool {
        std::mem::take(&mut self.switchover.parts_from_blocks)
    }

    /// The last switchover of this life.
    pub(in crate::engine) fn last_switchover(&self) -> Option<SwitchoverView> {
        self.switchover.last.clone()
    }

    fn given_at(&self) -> Option<Position> {
        match &self.at {
            StageData::HandingOver(given) => Some(given.at),
            _ => None,
        }
    }
}

fn condition(holds: bool, yes: String, no: String, next: &str) -> (Condition, String) {
    (Condition { holds, text: if holds { yes } else { no } }, next.to_owned())
}

impl<S: StoreRead> Core<S> {
    /// `switchover`.
    pub(in crate::engine) fn switchover(&mut self, token: u64, dry_run: bool) {
        match self.roles.stage() {
            Stage::Serving if !self.stopping => {
                let report = self.switchover_report();
                if dry_run {
                    let view = self.reported(report, true);
                    return self.reply_value(token, view);
                }
                match refusal(&report) {
                    Some(why) => self.reply_no(token, format!("no switchover: {why}"), report.next),
                    None => self.begin_to_give(Some(token)),
                }
            }
            Stage::Standby if !self.stopping => self.ask_primary(token, dry_run),
            _ => {
                let (name, word) = (self.config.name.clone(), self.condition().word);
                self.reply_no(
                    token,
                    format!("no switchover: {name} is {word}, and neither serves nor follows"),
                    "see `hot-backup status` on both nodes",
                );
            }
        }
    }

    fn peer_shown(&self) -> String {
        match self.peer.name() {
            "" => "the peer".to_owned(),
            name => name.to_owned(),
        }
    }

    /// Whether this node, which serves, can give its role away now.
    fn switchover_report(&self) -> Report {
        let told = self.conditions();
        let next = told.iter().find(|(condition, _)| !condition.holds);
        let next = next.map(|(_, next)| next.clone()).unwrap_or_default();
        // The peer writes its control file and its first entry, this node its control file.
        let expected_us =
            self.peer.lag_age(self.now.mono) + 2 * self.control.write_took_us() + PAUSE_LEAST_US;
        Report { conditions: told.into_iter().map(|(condition, _)| condition).collect(), expected_us, next }
    }

    fn conditions(&self) -> Vec<(Condition, String)> {
        let (me, peer) = (self.config.name.clone(), self.peer_shown());
        let hindrance = self.hindrance().map(super::super::condition::Hindrance::describe);
        let (why, next) = hindrance.map_or((String::new(), ""), |told| (told.reason, told.next));
        let mut all = vec![condition(why.is_empty(), format!("{me} serves"), format!("{me}: {why}"), next)];
        let wait = "try again when it has ended";
        let free = self.roles.switchover.giving.is_none();
        let (yes, no) =
            ("no other switchover is under way".to_owned(), "another one is under way".to_owned());
        all.push(condition(free, yes, no, wait));
        let follows = self.link.is_streaming();
        let trouble = match self.link.trouble.as_str() {
            "" => String::new(),
            trouble => format!(" ({trouble})"),
        };
        let no = format!("{peer} is not connected{trouble}");
        all.push(condition(follows, format!("{peer} follows"), no, Matter::PeerLost.row().advice));
        if follows {
            all.extend(self.conditions_of_peer(&peer));
        }
        let paused = self.namespace.mode() == LoggingMode::Paused;
        let (yes, no) = ("logging is not paused".to_owned(), "logging is paused".to_owned());
        all.push(condition(!paused, yes, no, "say `hot-backup log resume`, and wait until all is copied"));
        let copies = self.copies.are_under_way() || self.namespace.copies_due().next().is_some();
        let (yes, no) = ("no file is being copied".to_owned(), "a file is being copied".to_owned());
        all.push(condition(!copies, yes, no, wait));
        let busy = self.operators.are_busy();
        let (yes, no) =
            ("no definition is being changed".to_owned(), "definitions are being changed".to_owned());
        all.push(condition(!busy, yes, no, wait));
        let written = !self.incidents.lasts(Matter::ControlFailed);
        let (yes, no) =
            ("the control file can be written".to_owned(), "the control file cannot be written".to_owned());
        all.push(condition(written, yes, no, Matter::ControlFailed.row().advice));
        all
    }

    fn conditions_of_peer(&self, peer: &str) -> Vec<(Condition, String)> {
        let knows = self.peer.features() & FEATURE_HANDOVER != 0;
        let mut all = vec![condition(
            knows,
            format!("the program of {peer} knows switchovers"),
            format!("the program of {peer} is older and knows no switchover"),
            "install this version there",
        )];
        let whole = !self.peer.is_incomplete();
        let no = format!("{peer} is given a copy that is not whole yet");
        all.push(condition(whole, format!("{peer} is whole"), no, "wait until it is a standby"));
        let (entries, bytes) = (self.peer_lacks(), self.peer.lag_bytes());
        let age = self.peer.lag_age(self.now.mono);
        let near = self.link.caught_up()
            && bytes <= HANDOVER_LAG_MAX
            && age <= LAG_AGE_MAX
            && matches!(self.peer_state(), PeerState::Idle | PeerState::Busy);
        let lacks = format!(
            "{peer} lacks {} ({} bytes, the oldest for {:.3} s)",
            counted(entries, "entry", "entries"),
            Grouped(bytes),
            seconds(age)
        );
        let yes = format!("{lacks}, which is little");
        let next = "wait until it has caught up; `hot-backup status` shows what it lacks";
        all.push(condition(near, yes, format!("{lacks}, which is too much"), next));
        all
    }

    /// Entries that the peer does not have on its disk.
    fn peer_lacks(&self) -> u64 {
        self.replicated().pace().appended.0.saturating_sub(self.peer.retained().0)
    }

    /// What is told of a switchover that did not happen; `from_here` if this node serves.
    fn reported(&self, report: Report, from_here: bool) -> SwitchoverView {
        let (me, peer) = (self.config.name.clone(), self.peer_shown());
        let (from, to) = if from_here { (me, peer) } else { (peer, me) };
        let possible = report.is_possible();
        let view = |condition: Condition| ConditionView { holds: condition.holds, text: condition.text };
        SwitchoverView {
            from,
            to,
            dry_run: true,
            possible,
            conditions: report.conditions.into_iter().map(view).collect(),
            expected_pause_seconds: seconds(report.expected_us),
            next: report.next,
            ..SwitchoverView::default()
        }
    }

    /// The first step: that the role may be given away is made durable, while users work.
    fn begin_to_give(&mut self, token: Option<u64>) {
        let began = self.now.mono;
        self.peer.promise_role(true);
        let until = Some(began.plus_ms(PROMISE_MS));
        self.roles.switchover.giving = Some(Giving { token, began, until, paused: None });
        self.dirty = true;
    }

    /// Carries switchovers on.
    pub(super) fn pump_switchover(&mut self) {
        let now = self.now.mono;
        let over = |hold: &mut Hold| now >= hold.until;
        match self.roles.stage() {
            Stage::Serving if self.roles.switchover.giving.is_some() => self.pump_to_give(),
            Stage::HandingOver if !self.link.is_streaming() => self.unanswered(),
            _ => {}
        }
        if self.roles.switchover.hold.take_if(over).is_some() {
            self.dirty = true;
        }
        self.pump_asked();
    }

    fn pump_to_give(&mut self) {
        let now = self.now.mono;
        let until = self.roles.switchover.giving.as_ref().and_then(|giving| giving.until);
        let late = until.is_some_and(|until| now >= until);
        let peer = self.peer_shown();
        if self.stopping {
            return self.give_up(&format!("{} is stopping", self.config.name));
        }
        if !self.link.is_streaming() || self.peer.is_incomplete() {
            return self.give_up(&format!("{peer} does not follow any more"));
        }
        let Some(hold) = self.roles.switchover.hold else {
            if self.peer.has_promised() {
                let (since, until) = (now, now.plus_ms(HANDOVER_LEVEL_MS));
                self.roles.switchover.hold = Some(Hold { since, until });
                if let Some(giving) = &mut self.roles.switchover.giving {
                    giving.until = Some(until);
                }
                self.dirty = true;
            } else if late {
                self.give_up("the control file could not be written in time");
            }
            return;
        };
        if self.is_level() {
            return self.give(hold);
        }
        if late {
            let lacks = counted(self.peer_lacks(), "entry", "entries");
            self.give_up(&format!(
                "{peer} did not get level within {HANDOVER_LEVEL_MS} ms: it lacked {lacks}"
            ));
        }
    }

    /// Whether both nodes have everything on disk and in their stores.
    fn is_level(&self) -> bool {
        let (end, acked) = (self.replicated().pace().appended, self.peer.confirmed());
        self.replicated().is_quiet()
            && self.all_applied(JournalKind::Replicated)
            && acked.durable >= end
            && acked.applied >= end
    }

    /// The role is the peer's, if it takes it.
    fn give(&mut self, hold: Hold) {
        let at = self.replicated().sealed();
        let paused_us = self.now.mono.since(hold.since);
        self.send_to_standby(&Handover::Give { at, paused_us });
        self.roles.switchover.hold = Some(Hold { until: hold.since.plus_ms(HANDOVER_HOLD_MS), ..hold });
        if let Some(giving) = &mut self.roles.switchover.giving {
            giving.until = None;
        }
        self.copies.stop();
        self.roles.enter(StageData::HandingOver(HandingOver::at(at)));
        self.dirty = true;
    }

    /// The role was not given away, or came back: this node goes on as if nothing was.
    pub(super) fn give_up(&mut self, why: &str) {
        let Some(giving) = self.roles.switchover.giving.take() else { return };
        self.peer.promise_role(false);
        self.roles.switchover.open_doors();
        self.dirty = true;
        let text = format!("the switchover was given up, and nothing has changed: {why}");
        self.incident(Severity::Warning, Matter::SwitchoverGivenUp, text.clone());
        let next = "see `hot-backup switchover --dry-run`, then try again";
        match giving.token {
            Some(token) => self.reply_no(token, text, next),
            None => {
                let condition = Condition { holds: false, text };
                let (conditions, next) = (vec![condition], next.to_owned());
                let report = Report { conditions, next, ..Report::default() };
                self.send_to_standby(&Handover::Told(report));
            }
        }
    }

    /// The connection ended, and it is not known what became of the role.
    fn unanswered(&mut self) {
        let why = self.link.trouble.clone();
        let text = format!(
            "the role of the primary was given to {}, and the connection ended before it said that it serves ({why}): this \
             node asks it, and serves again by itself only if {} does not",
            self.peer_shown(),
            self.peer_shown()
        );
        self.incident(Severity::Warning, Matter::HandoverUnanswered, text.clone());
        if let Some(token) = self.roles.switchover.giving.take().and_then(|giving| giving.token) {
            let next = Matter::HandoverUnanswered.row().advice.to_owned();
            self.reply(token, AdminReply::Error { message: text, next });
        }
        self.roles.enter(StageData::Asking(super::asking::Asking::since(self.now.mono)));
        self.link.dial_now(self.now.mono);
        self.dirty = true;
    }

    /// The peer ended the connection by its word: it has not taken a role that was given to it. True if one was.
    pub(in crate::engine) fn role_is_refused(&mut self, why: &str) -> bool {
        if self.roles.stage() != Stage::HandingOver {
            return false;
        }
        self.roles.enter(StageData::Serving);
        let why = format!("{} did not take the role: {why}", self.peer_shown());
        self.give_up(&why);
        true
    }

    /// A word of the standby on the stream to it.
    pub(in crate::engine) fn hear_standby(&mut self, step: &Handover, header: &FrameHeader) {
        match step {
            Handover::Ask { dry_run } => {
                let mut report = self.switchover_report();
                if self.roles.stage() != Stage::Serving || self.stopping {
                    let text = format!("{} is {}", self.config.name, self.condition().word);
                    report.conditions.insert(0, Condition { holds: false, text });
                }
                if *dry_run || !report.is_possible() {
                    return self.send_to_standby(&Handover::Told(report));
                }
                self.begin_to_give(None);
            }
            Handover::Taken { paused_us } => match self.roles.given_at() {
                Some(at) if self.may_be_taken_in(header.epoch) => {
                    self.note_pause(Some(*paused_us));
                    self.step_down(at, header.epoch);
                }
                _ => self.outbound_fault("it took a role that it was not given"),
            },
            Handover::Told(_) | Handover::Give { .. } => {
                self.outbound_fault("a step of a switchover came that has no place in an answer");
            }
        }
    }

    fn may_be_taken_in(&self, epoch: Epoch) -> bool {
        let own = self.control.epoch();
        epoch > own && own.can_meet(epoch) && epoch.opener() != self.ordinal()
    }

    /// Notes for how long nobody was answered, once somebody is.
    fn note_pause(&mut self, by_peer: Option<u64>) {
        let Some(hold) = self.roles.switchover.hold else { return };
        let here = self.now.mono.since(hold.since);
        if let Some(giving) = &mut self.roles.switchover.giving {
            giving.paused.get_or_insert((here, by_peer));
        }
    }

    /// This node steps down for whom it gave its role, by whatever it heard of that.
    pub(super) fn is_taken(&mut self) {
        self.note_pause(None);
    }

    /// This node is the standby of whom it gave its role.
    pub(super) fn handed_over(&mut self) {
        self.roles.switchover.open_doors();
        self.roles.switchover.parts_from_blocks = true;
        let Some(giving) = self.roles.switchover.giving.take() else { return };
        let (paused, by_peer) = giving.paused.unwrap_or_default();
        let view = SwitchoverView {
            from: self.config.name.clone(),
            to: self.peer_shown(),
            pause_seconds: seconds(paused),
            peer_pause_seconds: by_peer.map(seconds),
            seconds: seconds(self.now.mono.since(giving.began)),
            ..self.switched(self.replicated().sealed())
        };
        self.tell_switched(view, giving.token);
    }

    fn switched(&self, at: Position) -> SwitchoverView {
        let (epoch, entry, wall_ms) = (self.control.epoch().0, at.seq.0, self.now.wall_ms);
        SwitchoverView { possible: true, epoch, entry, wall_ms, ..SwitchoverView::default() }
    }

    fn tell_switched(&mut self, view: SwitchoverView, token: Option<u64>) {
        let text = format!(
            "{} handed over to {} at entry {}, in epoch {}: nobody was answered for {:.3} s, as measured here",
            view.from, view.to, view.entry, view.epoch, view.pause_seconds
        );
        self.incident(Severity::Notice, Matter::Switchover, text);
        self.roles.switchover.last = Some(view.clone());
        if let Some(token) = token {
            self.reply_value(token, view);
        }
    }

    fn send_to_standby(&mut self, step: &Handover) {
        let (head, now) = (self.head(), self.now);
        if let Some((session, _)) = self.link.stream() {
            session.send(now, FrameKind::Handover, head, step.encode().into());
        }
        self.dirty = true;
    }
}

/// Why a switchover is not possible, if so.
fn refusal(report: &Report) -> Option<String> {
    report.conditions.iter().find(|condition| !condition.holds).map(|condition| condition.text.clone())
}

/// The standby's side.
impl<S: StoreRead> Core<S> {
    /// An operator asked this standby: its primary decides.
    fn ask_primary(&mut self, token: u64, dry_run: bool) {
        let (me, peer) = (self.config.name.clone(), self.peer_shown());
        if self.roles.switchover.asked.is_some() {
            let next = "try again when it has ended";
            return self.reply_no(token, "no switchover: another one was asked for here", next);
        }
        if !self.link.follows_stream() {
            let next = "see `hot-backup status`; if the primary is gone: hot-backup takeover --peer-is-down";
            return self.reply_no(token, format!("no switchover: {me} follows no primary now"), next);
        }
        if self.peer.features() & FEATURE_HANDOVER == 0 {
            let text = format!("no switchover: the program of {peer} is older and knows no switchover");
            return self.reply_no(token, text, "install this version there");
        }
        let until = self.now.mono.plus_ms(HANDOVER_ASK_MS);
        self.roles.switchover.asked = Some(Asked { token, dry_run, until });
        self.link.say_to_primary(self.now, self.head(), &Handover::Ask { dry_run });
        self.dirty = true;
    }

    fn pump_asked(&mut self) {
        let Some(asked) = &self.roles.switchover.asked else { return };
        let late = self.now.mono >= asked.until;
        let cut = self.roles.stage() == Stage::Standby && !self.link.follows_stream();
        if !late && !cut {
            return;
        }
        let token = asked.token;
        self.roles.switchover.asked = None;
        let what = if cut { "the connection to the primary ended" } else { "the primary gave no answer" };
        let message = format!("{what}: it is not known whether there will be a switchover");
        let next = "see `hot-backup status` on both nodes".to_owned();
        self.reply(token, AdminReply::Error { message, next });
    }

    /// A word of the primary on the stream from it.
    pub(in crate::engine) fn hear_primary(&mut self, step: Handover, header: &FrameHeader) {
        match step {
            Handover::Told(report) => {
                let Some(Asked { token, dry_run, .. }) = self.roles.switchover.asked.take() else { return };
                if dry_run {
                    let view = self.reported(report, false);
                    return self.reply_value(token, view);
                }
                let why = refusal(&report).unwrap_or_default();
                self.reply_no(token, format!("no switchover: {why}"), report.next);
            }
            Handover::Give { at, paused_us } => match self.cannot_take(at, header) {
                Some(why) => {
                    if let Some(Asked { token, .. }) = self.roles.switchover.asked.take() {
                        let next = "see `hot-backup status` on both nodes";
                        self.reply_no(token, format!("no switchover: {why}"), next);
                    }
                    self.refuse_role(why);
                }
                None => self.take_role(at, paused_us),
            },
            Handover::Ask { .. } | Handover::Taken { .. } => {
                self.inbound_fault("a step of a switchover came that has no place in a stream");
            }
        }
    }

    /// Why this node must not take the role that it is given.
    fn cannot_take(&self, at: Position, header: &FrameHeader) -> Option<String> {
        let (end, pace) = (self.replicated().sealed(), self.replicated().pace());
        let me = &self.config.name;
        if self.roles.stage() != Stage::Standby || self.stopping {
            return Some(format!("{me} is {}", self.condition().word));
        }
        if at != end || header.durable < at.seq {
            return Some(format!("{me} ends at entry {}, and was given the role at {}", end.seq, at.seq));
        }
        // A mark may still be on its way to the disk: the opening waits for that.
        if pace.durable < at.seq || !self.all_applied(JournalKind::Replicated) {
            return Some(format!("{me} has not applied all up to entry {}", at.seq));
        }
        self.hindrance().map(|hindrance| format!("{me}: {}", hindrance.describe().reason))
    }

    fn take_role(&mut self, at: Position, paused_us: u64) {
        let heard = self.now.mono;
        self.refuse_pending("the primary hands over to this node");
        self.peer.hear_announced(at.seq);
        self.replicated_mut().set_announced(at.seq);
        self.link.takes_role(self.control.epoch());
        self.open_epoch(super::opening::Cause::Handover(Handed { at, paused_us, heard }));
    }

    /// This node serves by the role that it was given.
    pub(super) fn took_over(&mut self, handed: Handed) {
        let paused_us = handed.paused_us + self.now.mono.since(handed.heard);
        self.link.say_to_primary(self.now, self.head(), &Handover::Taken { paused_us });
        self.flush_inbound();
        self.end_inbound("this node serves now");
        let asked = self.roles.switchover.asked.take();
        let view = SwitchoverView {
            from: self.peer_shown(),
            to: self.config.name.clone(),
            pause_seconds: seconds(paused_us),
            seconds: seconds(paused_us),
            ..self.switched(handed.at)
        };
        self.tell_switched(view, asked.map(|asked| asked.token));
    }
}

#[cfg(test)]
#[path = "switchover_tests.rs"]
mod tests;
