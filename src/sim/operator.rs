//! The operator, and everything that goes wrong around the pair.

mod nurse;

use super::blocks::{BLOCKERS, Blocker, VOLUME};
use super::disk::{Death, Decay};
use super::options::{Mutation, Trouble};
use super::world::{Ev, World, WorldEv};
use crate::base::{AckLevel, JournalKind, Prng};
use crate::engine::Event;
use crate::engine::admin::{AdminAnswer, AdminReply, AdminRequest, Status};
use crate::format::control::Role;
use crate::format::dptr::{DptrKind, LoggingMode};
use std::collections::BTreeMap;

/// Trouble goes on for at most this long (microseconds).
const TROUBLE_MAX: u64 = 20_000_000;
/// The operator looks this often (microseconds).
const LOOK: u64 = 100_000;

/// The end of a trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undo {
    /// The wire works again.
    Wire,
    /// There is room again on a node.
    Room(usize),
    /// A node's spool is there, with room.
    Spool(usize),
    /// Logging is resumed.
    Resume,
}

/// What a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Setup,
    Takeover,
    Alone,
    Dptr,
    Pause,
    Resume,
    Churn(u64),
    Scrub,
    Switchover { dry_run: bool },
    Compare,
    Status,
    View,
    Watch(super::lease::Asked),
}

/// Where the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Setup(usize),
    Trouble { since: u64 },
    Heal { since: u64, probe: Option<usize> },
    Done,
}

/// A takeover under way.
#[derive(Clone, Copy, Debug)]
struct Plan {
    node: usize,
    tries: u32,
    next: u64,
    over: bool,
    old_returns: bool,
}

/// The operator's notes.
#[derive(Clone, Debug)]
pub(super) struct Operator {
    phase: Phase,
    requests: BTreeMap<u64, (usize, AdminRequest)>,
    waiting: BTreeMap<u64, Purpose>,
    next_token: u64,
    asked_at: u64,
    plan: Option<Plan>,
    alone: Option<usize>,
    /// What each node last said of itself.
    pub(super) status: [Option<Status>; 2],
    status_asked: [u64; 2],
    mixed: bool,
    churn: bool,
    /// Logging was paused at some time.
    pub(super) paused_ever: bool,
    paused: bool,
    full: [bool; 2],
    nested: bool,
    decayed: bool,
    takeovers: u32,
    /// Entries that are known and not there may be given up on a node.
    accept_loss: [bool; 2],
}

impl Operator {
    /// Before the first request.
    pub(super) fn new(prng: &mut Prng) -> Self {
        Self {
            phase: Phase::Setup(0),
            requests: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next_token: 1,
            asked_at: 0,
            plan: None,
            alone: None,
            status: [None, None],
            status_asked: [0; 2],
            mixed: false,
            churn: false,
            paused_ever: false,
            paused: false,
            full: [false; 2],
            nested: prng.percent(40),
            decayed: false,
            takeovers: 0,
            accept_loss: [false; 2],
        }
    }

    /// Whether the pair is set up.
    pub(super) fn ready(&self) -> bool {
        !matches!(self.phase, Phase::Setup(_))
    }

    /// Whether troubles are over for good.
    pub(super) fn healing(&self) -> bool {
        matches!(self.phase, Phase::Heal { .. } | Phase::Done)
    }

    /// Whether the run is over.
    pub(super) fn done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// Whether nodes may die during their recovery.
    pub(super) fn nested_deaths(&self) -> bool {
        self.nested && matches!(self.phase, Phase::Trouble { .. })
    }

    /// Whether the file of that name is replicated.
    pub(super) fn mixed_is_replicated(&self) -> bool {
        self.mixed
    }

    /// Whether clients may use the file that comes and goes.
    pub(super) fn churn_exists(&self) -> bool {
        self.churn
    }

    /// A client was refused for lack of space.
    pub(super) fn saw_full(&mut self, n: usize) {
        self.full[n] = true;
    }

    /// Whether one ever was.
    pub(super) fn was_full(&self, n: usize) -> bool {
        self.full[n]
    }
}

/// What is set up before trouble begins: node, request.
fn setup() -> Vec<(usize, AdminRequest)> {
    let account =
        |name: &str, flags: &str| AdminRequest::AccountCreate { name: name.into(), flags: flags.into() };
    let file = |name: &str, ack| AdminRequest::FileCreate {
        name: name.into(),
        kind: DptrKind::Records,
        flags: None,
        bytes: None,
        ack,
    };
    let volume = |name: &str| AdminRequest::FileCreate {
        name: name.into(),
        kind: DptrKind::Blocks,
        flags: None,
        bytes: Some(VOLUME),
        ack: None,
    };
    vec![
        (0, account("app", "L")),
        (0, file("app,main", None)),
        (0, file("app,safe", Some(AckLevel::Durable))),
        (0, volume("app,vol")),
        (0, account("owna", "")),
        (0, file("owna,f", None)),
        (0, account("mixed", "")),
        (0, file("mixed,f", None)),
        (1, account("ownb", "")),
        (1, file("ownb,f", None)),
    ]
}

impl World {
    /// Begins a run.
    pub(super) fn begin(&mut self) {
        self.node_after(0, 0, Ev::Boot);
        if self.options.solo {
            self.nodes[1].halted = Some("there is no second node".to_owned());
        }
        self.node_after(1_000, 1, Ev::Boot);
        self.after(LOOK, WorldEv::Operator);
        self.watches_begin();
    }

    pub(super) fn ask(&mut self, n: usize, request: AdminRequest, purpose: Purpose) {
        let token = self.operator.next_token;
        self.operator.next_token += 1;
        if !matches!(purpose, Purpose::Status | Purpose::Watch(super::lease::Asked::View)) {
            self.trace.event("ask", token, n as u64, || format!("node {n}: #{token} {request:?}"));
        }
        self.operator.requests.insert(token, (n, request));
        self.operator.waiting.insert(token, purpose);
        let us = 1 + self.streams.operator.below(2_000);
        self.node_after(us, n, Ev::Admin(token));
    }

    /// A request arrives.
    pub(super) fn admin_arrives(&mut self, n: usize, token: u64) {
        let Some((_, request)) = self.operator.requests.remove(&token) else { return };
        if let AdminRequest::Takeover { dry_run: false, accept_loss, .. } = request {
            self.check.nodes[n].taking_over = true;
            self.check.nodes[n].loss_accepted = accept_loss;
            if !self.check.fully_applied(n) {
                self.trace.sometimes("a takeover with an unapplied tail");
            }
        }
        if matches!(request, AdminRequest::StartAlone | AdminRequest::StartAloneAcceptLoss) {
            // From here on the operator's word counts.
            self.check.nodes[n].given = None;
        }
        self.input(n, Event::Admin { token, request });
    }

    /// An answer.
    pub(super) fn admin_answer(&mut self, n: usize, token: u64, reply: AdminReply) {
        let Some(purpose) = self.operator.waiting.remove(&token) else {
            return self
                .check
                .fail("driver", format!("node {n} answers request {token}, which was not asked"));
        };
        let ok = matches!(reply, AdminReply::Ok { .. });
        if !matches!(purpose, Purpose::Status | Purpose::View | Purpose::Watch(_)) {
            // What was said before the change says nothing of what came of it.
            self.operator.status = [None, None];
        }
        match purpose {
            Purpose::Setup => self.setup_answer(ok, &reply),
            Purpose::Status => {
                if let AdminReply::Ok { value: AdminAnswer::Status(status) } = reply {
                    self.operator.status[n] = Some(*status);
                }
                if let Some(status) = &self.operator.status[n]
                    && status.serves()
                {
                    // A new primary may never have been told of the pause.
                    self.operator.paused = status.logging == "paused";
                    self.operator.paused_ever |= self.operator.paused;
                }
            }
            Purpose::Watch(asked) => self.watch_is_told(n, asked, reply),
            Purpose::Takeover => self.takeover_answer(n, reply),
            Purpose::Switchover { dry_run } => self.switchover_answer(dry_run, &reply),
            Purpose::View => self.view_answer(n, reply),
            Purpose::Alone | Purpose::Scrub | Purpose::Compare => {}
            Purpose::Dptr => self.operator.mixed |= ok,
            Purpose::Pause => {
                self.operator.paused |= ok;
                self.operator.paused_ever |= ok;
            }
            Purpose::Resume if ok => {
                self.operator.paused = false;
                self.trace.sometimes("logging was paused and resumed");
            }
            Purpose::Resume => {}
            Purpose::Churn(step) if ok => self.churned(step),
            Purpose::Churn(_) => {}
        }
    }

    fn setup_answer(&mut self, ok: bool, reply: &AdminReply) {
        let Phase::Setup(step) = self.operator.phase else { return };
        let there = matches!(reply, AdminReply::No { message, .. } if message.contains("exist"));
        self.operator.asked_at = 0;
        if ok || there {
            self.operator.phase = Phase::Setup(step + 1);
        }
    }

    fn churned(&mut self, step: u64) {
        match step {
            0 => self.operator.churn = true,
            1 => self.trace.sometimes("a file was cleared"),
            _ => {
                self.operator.churn = false;
                self.trace.sometimes("a file was deleted");
            }
        }
    }

    /// The operator looks at the pair and does what is due.
    pub(super) fn operator_looks(&mut self) {
        let now = self.trace.now;
        if self.operator.ready() {
            self.views_go_on();
        }
        match self.operator.phase {
            Phase::Setup(step) => self.set_up(step),
            Phase::Trouble { since } => {
                self.pursue_plan();
                self.pursue_alone();
                self.compare_sometimes();
                self.check_stops();
                self.save_sometimes();
                let served = self.ops.len() >= self.options.ops
                    && self.clients.iter().all(super::client::Client::idle)
                    && self.blockers.iter().all(Blocker::idle);
                if served || now - since > TROUBLE_MAX {
                    self.heal();
                }
            }
            Phase::Heal { since, probe } => self.nurse(since, probe),
            Phase::Done => return,
        }
        self.after(LOOK, WorldEv::Operator);
    }

    fn set_up(&mut self, step: usize) {
        let now = self.trace.now;
        let solo = self.options.solo;
        let volumes = self.options.volumes;
        let wanted = |(n, request): &(usize, AdminRequest)| {
            let volume = matches!(request, AdminRequest::FileCreate { kind: DptrKind::Blocks, .. });
            (*n == 0 || !solo) && (volumes || !volume)
        };
        let Some((n, request)) = setup().into_iter().filter(wanted).nth(step) else {
            self.operator.phase = Phase::Trouble { since: now };
            self.net.corrupt_one_in = self.options.corrupt_one_in;
            self.after(self.options.trouble_every_us, WorldEv::Trouble);
            for c in 0..self.options.clients {
                let us = self.streams.client.below(self.options.think_us);
                self.after(us, WorldEv::Client(c));
            }
            for b in 0..BLOCKERS {
                let us = self.streams.client.below(self.options.think_us);
                self.after(us, WorldEv::Blocker(b));
            }
            return;
        };
        if now > 60_000_000 {
            self.check
                .fail("I-50", format!("a new pair is not set up within a minute: step {step} {request:?}"));
        }
        if self.operator.asked_at == 0 || now > self.operator.asked_at + 2_000_000 {
            self.operator.asked_at = now;
            self.ask(n, request, Purpose::Setup);
        }
    }

    /// Trouble comes.
    pub(super) fn trouble(&mut self) {
        if self.operator.healing() || self.options.troubles.is_empty() {
            return;
        }
        let every = self.options.trouble_every_us;
        let us = every / 2 + self.streams.operator.below(every);
        self.after(us, WorldEv::Trouble);
        let at = self.streams.operator.below(self.options.troubles.len() as u64);
        let kind = self.options.troubles[usize::try_from(at).unwrap_or(0)];
        let n = usize::try_from(self.streams.operator.below(2)).unwrap_or(0);
        let long = [5_000, 100_000, 1_000_000, 3_000_000]
            [usize::try_from(self.streams.operator.below(4)).unwrap_or(0)];
        self.trace.event("trouble", kind as u64, n as u64, || format!("{kind:?} node {n} for {long} us"));
        self.nodes[n].ills.last = self.trace.now + long;
        if self.options.copies {
            self.copy_calls();
        }
        self.strike(kind, n, long);
    }

    /// Trouble of that kind comes to a node.
    pub(super) fn strike(&mut self, kind: Trouble, n: usize, long: u64) {
        match kind {
            Trouble::Kill => self.die_and_return(n, Death::Kill),
            Trouble::Power => self.die_and_return(n, Death::Power),
            Trouble::PowerBoth => {
                self.die_and_return(0, Death::Power);
                self.die_and_return(1, Death::Power);
            }
            Trouble::Stop => self.stop(n),
            Trouble::Reset => self.reset_all(),
            Trouble::Silence => self.block([true, true], long),
            Trouble::HalfOpen => {
                self.trace.sometimes("half-open link");
                self.block([n == 0, n == 1], long);
            }
            Trouble::Refusing => {
                self.net.refusing = true;
                self.reset_all();
                self.after(long, WorldEv::TroubleOver(Undo::Wire));
            }
            Trouble::Full => {
                self.nodes[n].disk.full = true;
                self.after(long, WorldEv::TroubleOver(Undo::Room(n)));
            }
            Trouble::WallJump => {
                let years = 10 * 365 * 86_400_000;
                let by = i64::try_from(self.streams.operator.below(2 * years)).unwrap_or(0);
                self.nodes[n].wall_offset_ms = by - i64::try_from(years).unwrap_or(0);
                self.trace.sometimes("the wall clock jumped");
            }
            other => self.more_trouble(other, n, long),
        }
    }

    fn more_trouble(&mut self, kind: Trouble, n: usize, long: u64) {
        let until = self.trace.now + long;
        match kind {
            Trouble::WriteError => {
                let some = self.streams.operator.below(5);
                self.nodes[n].ills.write_errors = if some == 0 { 3 } else { 1 };
            }
            Trouble::StoreError => self.nodes[n].ills.store_errors = 1,
            Trouble::ControlError => self.nodes[n].ills.control_until = until,
            Trouble::ReadError => self.nodes[n].ills.read_until = until,
            Trouble::SlowDisk => self.nodes[n].ills.slow_until = until,
            Trouble::Suspend if self.nodes[n].engine.is_none() => {}
            Trouble::Suspend => {
                self.nodes[n].ills.suspended_until = until;
                self.trace.sometimes("a process was suspended");
            }
            Trouble::Takeover => self.plan_takeover(false),
            Trouble::SplitBrain => self.plan_takeover(true),
            Trouble::StartAlone => self.start_alone(),
            Trouble::SetDptr => {
                let names = vec!["mixed,f".to_owned()];
                let (set, clear) = ("L".to_owned(), String::new());
                let request = AdminRequest::SetDptr { set, clear, accounts: false, names, ack: None };
                self.ask(0, request, Purpose::Dptr);
            }
            Trouble::Pause => self.pause(n, long),
            Trouble::Churn => self.churn(),
            Trouble::Decay => self.decay(n),
            Trouble::SpoolFull | Trouble::SpoolAway => {
                self.nodes[n].spool.full |= kind == Trouble::SpoolFull;
                self.nodes[n].spool.away |= kind == Trouble::SpoolAway;
                self.after(long, WorldEv::TroubleOver(Undo::Spool(n)));
            }
            Trouble::Rot => self.rots(n),
            Trouble::RotItems => self.items_rot(n),
            Trouble::Switchover => self.switch_over(n),
            _ => {}
        }
    }

    /// A trouble ends.
    pub(super) fn trouble_over(&mut self, undo: Undo) {
        self.trace.event("trouble-over", 0, 0, || format!("{undo:?}"));
        match undo {
            // The wire works already.
            Undo::Wire if self.operator.healing() => {}
            Undo::Wire => self.unblock(),
            Undo::Room(n) => {
                self.nodes[n].disk.full = false;
                self.nodes[n].ills.last = self.trace.now;
            }
            Undo::Spool(n) => (self.nodes[n].spool.full, self.nodes[n].spool.away) = (false, false),
            Undo::Resume => {
                for n in 0..2 {
                    if self.is_primary(n) {
                        self.ask(n, AdminRequest::LoggingResume, Purpose::Resume);
                    }
                }
            }
        }
    }

    /// Whether there is room on a node now.
    pub(super) fn room_again(&self, n: usize) -> bool {
        !self.nodes[n].disk.full
    }

    fn die_and_return(&mut self, n: usize, death: Death) {
        self.die(n, death);
        let us = [100, 10_000, 500_000][usize::try_from(self.streams.operator.below(3)).unwrap_or(0)];
        let us = self.streams.operator.below(us) + 10;
        self.node_after(us, n, Ev::Boot);
    }

    fn stop(&mut self, n: usize) {
        if self.nodes[n].engine.is_none() || self.nodes[n].stopping.is_some() {
            return;
        }
        self.nodes[n].stopping = Some(self.trace.now);
        self.input(n, Event::Stop);
    }

    /// A stop ends within a bound, whatever the peer does (I-54).
    fn check_stops(&mut self) {
        for n in 0..2 {
            let node = &self.nodes[n];
            let Some(since) = node.stopping else { continue };
            let (waits, ills) = (self.trace.now.saturating_sub(since), node.ills.last);
            if waits < 12_000_000 {
                continue;
            }
            let slow = self.options.disk_tail_percent > 0;
            if node.engine.is_some()
                && ills + 10_000_000 < self.trace.now
                && !slow
                && !self.nodes[n].disk.full
            {
                self.check.fail("I-54", format!("node {n} does not stop within {waits} us"));
            }
            self.die_and_return(n, Death::Kill);
        }
    }

    fn block(&mut self, which: [bool; 2], long: u64) {
        for (n, blocked) in which.into_iter().enumerate() {
            self.net.blocked[n] |= blocked;
            self.nodes[n].ills.last = self.trace.now + long;
        }
        self.after(long, WorldEv::TroubleOver(Undo::Wire));
    }

    fn pause(&mut self, n: usize, long: u64) {
        if self.operator.paused || !self.is_primary(n) {
            return;
        }
        self.ask(n, AdminRequest::Logging { mode: LoggingMode::Paused }, Purpose::Pause);
        self.after(long.min(500_000), WorldEv::TroubleOver(Undo::Resume));
    }

    fn churn(&mut self) {
        let Some(n) = (0..2).find(|&n| self.is_primary(n) && self.nodes[n].engine.is_some()) else { return };
        let name = "app,churn".to_owned();
        let step = if self.operator.churn { 1 + self.streams.operator.below(2) } else { 0 };
        let request = match step {
            0 => {
                let kind = DptrKind::Records;
                AdminRequest::FileCreate { name, kind, flags: None, bytes: None, ack: None }
            }
            1 => AdminRequest::FileClear { name, dry_run: false },
            _ => AdminRequest::FileDelete { name, dry_run: false },
        };
        self.ask(n, request, Purpose::Churn(step));
    }

    /// Damages a dead disk, once, where another copy or a later write tells of it.
    fn decay(&mut self, n: usize) {
        if self.operator.decayed || self.nodes[n].halted.is_some() || self.operator.plan.is_some() {
            return;
        }
        let Some(_) = &self.nodes[n].engine else { return };
        let roles = self.check.nodes.each_ref().map(|node| node.control.role);
        if roles != [Role::Primary, Role::Standby] || self.operator.takeovers > 0 {
            // A damaged disk beside one that has diverged is the end of any pair.
            return;
        }
        self.die(n, Death::Kill);
        let journal = JournalKind::ALL[usize::try_from(self.streams.operator.below(2)).unwrap_or(0)];
        let kind = [Decay::Rot, Decay::Lost, Decay::Misdirected]
            [usize::try_from(self.streams.operator.below(3)).unwrap_or(0)];
        if self.nodes[n].disk.decay(journal, kind, &mut self.streams.disk) {
            self.operator.decayed = true;
            self.check.nodes[n].decayed = Some(kind);
            self.trace
                .event("decay", n as u64, 0, || format!("node {n}: {kind:?} of the {}", journal.name()));
        }
        self.node_after(1_000, n, Ev::Boot);
    }

    fn plan_takeover(&mut self, split: bool) {
        let standing = |n: usize| self.nodes[n].engine.is_some();
        let Some(node) = (0..2).find(|&n| {
            standing(n) && self.check.nodes[n].control.role == Role::Standby && self.is_primary(1 - n)
        }) else {
            return;
        };
        let busy = self.operator.plan.is_some() || self.operator.alone.is_some();
        if busy || self.operator.decayed || self.operator.takeovers >= 3 {
            return;
        }
        self.operator.takeovers += 1;
        if split {
            if !standing(1 - node) {
                return;
            }
            self.net.blocked = [true; 2];
            self.trace.sometimes("a takeover while the old primary served");
        } else {
            let death = if self.streams.operator.percent(50) { Death::Power } else { Death::Kill };
            self.die(1 - node, death);
        }
        let next = self.trace.now + self.streams.operator.below(200_000);
        self.operator.plan = Some(Plan { node, tries: 0, next, over: false, old_returns: !split });
    }

    /// The primary dies and the standby takes over; used where the moment is chosen exactly.
    pub(super) fn take_over_now(&mut self) {
        self.plan_takeover(false);
        if let Some(plan) = &mut self.operator.plan {
            plan.next = self.trace.now;
        }
        self.pursue_plan();
    }

    /// The standby takes over beside a primary that is cut off; used where the moment is chosen exactly.
    pub(super) fn take_over_beside(&mut self) {
        self.plan_takeover(true);
        self.pursue_plan();
    }

    /// The operator makes a file replicated that has content already.
    pub(super) fn replicate_mixed(&mut self) {
        self.more_trouble(Trouble::SetDptr, 0, 0);
    }

    /// The operator pauses logging for half a second; used where the moment is chosen exactly.
    pub(super) fn pause_logging(&mut self) {
        self.pause(0, 500_000);
    }

    /// Whether something that the operator asked for, other than how things are, was not answered yet.
    pub(super) fn operator_waits(&self) -> bool {
        self.operator.waiting.values().any(|purpose| *purpose != Purpose::Status)
    }

    /// Whether logging is paused, as far as the operator was told.
    pub(super) fn is_paused(&self) -> bool {
        self.operator.paused
    }

    /// The operator resumes logging at once.
    pub(super) fn resume_logging(&mut self) {
        self.trouble_over(Undo::Resume);
    }

    /// A node starts a little later.
    pub(super) fn node_boots(&mut self, n: usize) {
        self.node_after(100, n, Ev::Boot);
    }

    /// Whether a disk was damaged.
    pub(super) fn disk_was_damaged(&self) -> bool {
        self.operator.decayed
    }

    /// Whether a takeover is under way.
    pub(super) fn takeover_pending(&self) -> bool {
        self.operator.plan.is_some()
    }

    /// Asks for the takeover until it is done or has no sense any more.
    fn pursue_plan(&mut self) {
        let Some(mut plan) = self.operator.plan else { return };
        let (now, node) = (self.trace.now, plan.node);
        if plan.over || plan.tries > 30 || self.nodes[node].halted.is_some() {
            self.operator.plan = None;
            let us = self.streams.operator.below(2_000_000);
            if plan.old_returns {
                self.node_after(us, 1 - node, Ev::Boot);
            } else {
                self.after(us, WorldEv::TroubleOver(Undo::Wire));
            }
            return;
        }
        if self.nodes[node].engine.is_none() {
            self.node_after(10_000, node, Ev::Boot);
        } else if now >= plan.next {
            plan.tries += 1;
            plan.next = now + 400_000;
            plan.over = self.is_primary(node);
            if !plan.over {
                self.ask_takeover(node);
            }
        }
        self.operator.plan = Some(plan);
    }

    /// Asks for a takeover; with the word that known entries may be given up only after it was asked for.
    fn ask_takeover(&mut self, n: usize) {
        let accept_loss = self.operator.accept_loss[n];
        let now = self.streams.operator.percent(20);
        let (peer_is_down, dry_run, incomplete, epoch) = (true, false, false, None);
        let request = AdminRequest::Takeover { peer_is_down, dry_run, accept_loss, now, incomplete, epoch };
        self.ask(n, request, Purpose::Takeover);
    }

    fn takeover_answer(&mut self, n: usize, reply: AdminReply) {
        if let AdminReply::No { next, .. } = &reply
            && next.contains("--accept-loss")
        {
            self.trace.sometimes("a takeover asked whether known entries may be given up");
            self.operator.accept_loss[n] = true;
        }
        let account = match reply {
            AdminReply::Ok { value: AdminAnswer::Takeover(account) } => *account,
            AdminReply::Ok { value } => {
                return self.check.fail("I-22", format!("node {n} answers a takeover with {value:?}"));
            }
            _ => return,
        };
        self.trace.event("taken-over", n as u64, account.epoch, || format!("node {n}: {account:?}"));
        self.trace.sometimes("a takeover");
        let mut account = account;
        if self.options.mutation == Some(Mutation::UnderstateLoss) {
            self.mutated = true;
            account.kept_up_to += 1000;
            account.durable_level_lost = 0;
        }
        self.operator.accept_loss[n] = false;
        self.check.on_takeover(n, &account);
        if let Some(plan) = &mut self.operator.plan {
            plan.over = true;
        }
    }

    /// The primary dies and is told to start although its peer cannot be asked, for a while.
    pub(super) fn start_alone(&mut self) {
        let Some(node) = (0..2).find(|&n| self.is_primary(n) && !self.is_primary(1 - n)) else { return };
        if self.operator.plan.is_some() || self.operator.alone.is_some() || self.nodes[node].halted.is_some()
        {
            return;
        }
        self.operator.alone = Some(node);
        self.net.blocked = [true; 2];
        self.die(node, Death::Kill);
        self.node_after(1_000, node, Ev::Boot);
        self.after(3_000_000, WorldEv::TroubleOver(Undo::Wire));
    }

    fn pursue_alone(&mut self) {
        let Some(node) = self.operator.alone else { return };
        if self.net.blocked == [false; 2] || self.is_primary(1 - node) {
            self.operator.alone = None;
        } else if self.nodes[node].engine.is_some() {
            self.ask(node, AdminRequest::StartAlone, Purpose::Alone);
        }
    }

    /// A node died: what it was asked will not be answered.
    pub(super) fn operator_of_the_dead(&mut self, n: usize) {
        self.operator.status[n] = None;
        self.operator.status_asked[n] = 0;
        if let Phase::Setup(_) = self.operator.phase {
            self.operator.asked_at = 0;
        }
    }

    /// Every trouble ends; now the pair has to find together again.
    pub(super) fn heal(&mut self) {
        let now = self.trace.now;
        self.trace.event("heal", 0, 0, String::new);
        self.net.corrupt_one_in = 0;
        self.unblock();
        for node in &mut self.nodes {
            node.disk.full = false;
            (node.spool.full, node.spool.away) = (false, false);
            let (write_errors, store_errors) = (0, 0);
            // What a node was told before it may still act upon.
            let no_room_at = node.ills.no_room_at;
            node.ills = super::world::Ills {
                write_errors,
                store_errors,
                no_room_at,
                last: now,
                ..Default::default()
            };
        }
        (0..2).for_each(|n| self.mend_all_rot(n));
        (0..2).for_each(|n| self.nodes[n].store.end_rot(false));
        self.options.disk_tail_percent = 0;
        self.options.store_lag_us = 0;
        self.operator.plan = None;
        self.operator.alone = None;
        self.operator.phase = Phase::Heal { since: now, probe: None };
        self.check.calm();
        for n in 0..2 {
            self.node_after(1_000, n, Ev::Boot);
        }
    }
}
