//! Every crash point of small runs: at every event, with every subset of the sectors of the write under way, and a
//! second crash during what follows. Where random runs sample, this walks.

use super::checker::Violation;
use super::client::{Ending, File, Kind, Op};
use super::disk::{Death, Exact};
use super::handover::Harm;
use super::options::{Options, Streams};
use super::world::World;
use crate::base::{AckLevel, JournalKind};
use crate::engine::{FullSync, OnDiverged, PeerLoss};

/// Subsets of one write that are all tried; of more, so many are drawn.
const SUBSETS_MAX: u64 = 1 << 10;
/// A small run takes no more steps than this.
pub(super) const STEPS_MAX: u64 = 200_000;
/// Steps walked after the last update was told ok: checkpoint, mark, the next segment.
pub(super) const STEPS_AFTER: u64 = 12;

/// What a walk found.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    /// Crash points.
    pub points: u64,
    /// Crashes: a point, and what was left of what was under way.
    pub crashes: u64,
    /// Whether a journal had two writes under way at one of them.
    pub two_writes: bool,
    /// The first broken rule, and at which crash.
    pub violation: Option<(String, Violation)>,
}

impl Walk {
    pub(super) fn fail(&mut self, place: String, world: &World) {
        if self.violation.is_none()
            && let Some(violation) = &world.check.violation
        {
            self.violation = Some((place, violation.clone()));
        }
    }
}

fn options(solo: bool) -> Options {
    Options {
        troubles: Vec::new(),
        volumes: false,
        clients: 1,
        ops: 0,
        ack_level: if solo { AckLevel::Local } else { AckLevel::Durable },
        on_peer_loss: PeerLoss::Degrade { after_ms: 300 },
        heartbeat_ms: 200,
        peer_timeout_ms: 600,
        checkpoint_ms: 5,
        checkpoint_bytes: 1 << 20,
        serve_alone: solo,
        disk_us: 100,
        disk_tail_percent: 0,
        store_lag_us: 0,
        quota_segments: None,
        net_us: 100,
        corrupt_one_in: 0,
        value_max: 600,
        solo,
        ..Options::from_seed(16)
    }
}

/// The `number`-th update: a transaction of two items of its own.
fn update(number: usize) -> Op {
    Op {
        kind: if number.is_multiple_of(2) { Kind::Transaction } else { Kind::Set },
        file: File::Main,
        items: vec![format!("a{number}").into_bytes(), format!("b{number}").into_bytes()],
        node: 0,
        at: 0,
        done_at: 0,
        ending: Ending::Open,
        found: false,
    }
}

/// A small run: set up, then `updates` updates, all at once or one after another.
pub(super) struct Small {
    /// The pair.
    pub(super) world: World,
    updates: usize,
    at_once: bool,
    sent: usize,
}

impl Small {
    /// A new pair, set up; with `solo`, node 0 only.
    pub(super) fn new(solo: bool, updates: usize, at_once: bool) -> Self {
        Self::of(options(solo), updates, at_once)
    }

    /// A new pair, set up, whose operator does not think that all is over when the updates have ended.
    pub(super) fn in_trouble(updates: usize) -> Self {
        Self::of(
            Options { ops: usize::MAX, think_us: 1 << 50, full_sync: FullSync::Ask, ..options(false) },
            updates,
            false,
        )
    }

    /// As [`Self::in_trouble`]; a node that has diverged is rewound.
    pub(super) fn rewinding(updates: usize) -> Self {
        let options = Options { on_diverged: OnDiverged::Rewind, ..options(false) };
        let options = Options { ops: usize::MAX, think_us: 1 << 50, full_sync: FullSync::Ask, ..options };
        Self::of(options, updates, false)
    }

    /// A new pair, set up, whose nodes speak so often, and give up a silent link after so long (milliseconds).
    pub(super) fn beating(updates: usize, heartbeat_ms: u64, peer_timeout_ms: u64) -> Self {
        Self::of(Options { heartbeat_ms, peer_timeout_ms, ..options(false) }, updates, false)
    }

    /// A new pair with a volume, set up; no updates.
    pub(super) fn with_volume() -> Self {
        Self::of(Options { volumes: true, ..options(false) }, 0, false)
    }

    fn of(options: Options, updates: usize, at_once: bool) -> Self {
        let mut world = World::new(options, 0);
        world.begin();
        let mut steps = 0;
        while !world.operator.ready() && world.check.violation.is_none() && steps < STEPS_MAX {
            world.step();
            steps += 1;
        }
        Self { world, updates, at_once, sent: 0 }
    }

    /// So many more updates, one after another.
    pub(super) fn again(world: World, updates: usize) -> Self {
        let sent = world.ops.len();
        Self { world, updates: sent + updates, at_once: false, sent }
    }

    /// Goes on until every update has ended, one way or the other.
    pub(super) fn run(&mut self) {
        let mut steps = 0;
        while !self.finished() && steps < STEPS_MAX && self.world.check.violation.is_none() {
            self.step();
            steps += 1;
        }
    }

    /// As [`Self::run`]; gives the world.
    pub(super) fn finish(mut self) -> World {
        self.run();
        self.world
    }

    fn send(&mut self) {
        if self.world.clients[0].conn.is_none() && !self.world.client_connects(0) {
            return;
        }
        // On a slow disk one a step, so that some come while a write is under way.
        let until = if self.world.options.disk_us > 1000 { self.sent + 1 } else { self.updates };
        while self.sent < self.updates.min(until) && (self.at_once || self.world.clients[0].idle()) {
            let Some(at) = self.world.clients[0].conn else { return };
            let op = update(self.sent);
            self.sent += 1;
            self.world.client_sends_op(0, at, op, &[200, 300]);
        }
    }

    /// Sends what is due and lets one thing happen.
    pub(super) fn step(&mut self) {
        self.send();
        self.world.step();
    }

    fn finished(&self) -> bool {
        self.sent == self.updates && self.world.ops.iter().all(|op| op.ending != Ending::Open)
    }

    /// How many steps until all is done and a little more.
    fn length(mut self) -> u64 {
        let mut steps = 0;
        while !self.finished() && steps < STEPS_MAX && self.world.check.violation.is_none() {
            self.step();
            steps += 1;
        }
        steps + STEPS_AFTER
    }

    fn advance(mut self, steps: u64) -> Self {
        for _ in 0..steps {
            self.step();
        }
        self
    }
}

/// Lets a world heal and holds it against every rule.
pub(super) fn settle(world: &mut World) {
    if !world.operator.healing() {
        world.heal();
    }
    let mut steps = 0;
    while world.check.violation.is_none() && !world.operator.done() && steps < STEPS_MAX {
        if !world.step() {
            world.check.fail("I-50", "nothing will ever happen again".to_owned());
        }
        steps += 1;
    }
    if !world.operator.done() {
        world.check.fail("I-50", "a small run does not end".to_owned());
    }
    nothing_half(world);
}

/// Every update is wholly there or not at all, and wholly if it was told ok (I-05, I-01).
fn nothing_half(world: &mut World) {
    let Some(node) = (0..2).find(|&n| world.is_primary(n)) else { return };
    // What was acknowledged at level local before a takeover may be gone; the account of it is checked elsewhere.
    let lost = world.check.lost.clone();
    let store = &world.nodes[node].store;
    let Some(id) = store.namespace().resolve(File::Main.name().as_bytes()) else { return };
    let items = store.items(id);
    let mut why = None;
    let updates = |op: &Op| op.file == File::Main && matches!(op.kind, Kind::Set | Kind::Transaction);
    for (number, op) in world.ops.iter().enumerate().filter(|(_, op)| updates(op)) {
        let there = op.items.iter().filter(|item| items.iter().any(|(id, _)| id == item.as_slice())).count();
        if op.file == File::Main && there != 0 && there != op.items.len() {
            why = Some(("I-05", format!("update {number} is there by half")));
        }
        if there == 0 && !op.items.is_empty() && op.ending == Ending::Ok && !lost.contains(&number) {
            why = Some(("I-01", format!("update {number} was told ok and is gone: {op:?}")));
        }
    }
    if let Some((invariant, text)) = why {
        world.check.fail(invariant, text);
    }
}

/// Every way in which a power loss may leave what is under way on node 0.
fn leavings(world: &World, streams: &mut Streams) -> Vec<Exact> {
    let disk = &world.nodes[0].disk;
    let sectors =
        JournalKind::ALL.map(|j| disk.flights(j).iter().map(super::disk::Flight::sectors).sum::<usize>());
    let all = u32::try_from(sectors[0] + sectors[1]).unwrap_or(u32::MAX);
    let masks: Vec<u64> = match 1_u64.checked_shl(all) {
        Some(count) if count <= SUBSETS_MAX => (0..count).collect(),
        _ => (0..SUBSETS_MAX).map(|_| streams.disk.next_u64()).chain([0, u64::MAX]).collect(),
    };
    let (control, making) = disk.under_way();
    let mut out = Vec::new();
    for mask in masks {
        for control in if control { vec![false, true] } else { vec![false] } {
            for made in if making { vec![false, true] } else { vec![false] } {
                let sectors = [mask, mask >> (sectors[0] % 64)];
                out.push(Exact { sectors, garbage: None, control, made });
            }
        }
    }
    let most = sectors[0].max(sectors[1]);
    out.extend((0..most).map(|at| Exact {
        sectors: [u64::MAX; 2],
        garbage: Some(at),
        control: true,
        made: true,
    }));
    out
}

/// One node on a disk of that latency (microseconds), `updates` updates: a power loss at every event, with every admissible remainder of what was under
/// way, and every few of them again soon after the restart.
#[must_use]
pub fn walk_one_node(updates: usize, at_once: bool, disk_us: u64) -> Walk {
    let small = || Small::of(Options { disk_us, ..options(true) }, updates, at_once);
    let mut walk = Walk::default();
    let length = small().length();
    let mut streams = Streams::new(updates as u64);
    for point in 0..=length {
        walk.points += 1;
        let mut living = small().advance(point).world;
        walk.two_writes |= living.nodes[0].disk.flights(JournalKind::Local).len() > 1
            || living.nodes[0].disk.flights(JournalKind::Replicated).len() > 1;
        walk.fail(format!("before any crash, step {point}"), &living);
        let leavings = leavings(&living, &mut streams);
        // The dead are all copies of one; a living engine cannot be copied.
        living.stand_still(0);
        for (i, exact) in leavings.iter().enumerate() {
            let mut dead = living.dead_copy(i);
            dead.die_exactly(0, exact);
            walk.crashes += 1;
            if i % 8 == 3 {
                again(&mut dead, &mut streams);
            }
            settle(&mut dead);
            walk.fail(format!("{updates} updates, at once {at_once}, step {point}, {exact:?}"), &dead);
            if walk.violation.is_some() {
                return walk;
            }
        }
    }
    walk
}

/// The node starts and dies again after a few steps.
fn again(world: &mut World, streams: &mut Streams) {
    world.boot(0);
    for _ in 0..streams.operator.below(40) {
        world.step();
    }
    world.die(0, Death::Power);
}

/// Who dies in [`walk_pair`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The primary loses its power and returns.
    Primary,
    /// The standby.
    Standby,
    /// Both at once.
    Both,
    /// The primary dies and the standby takes over.
    Takeover,
}

/// The pair at level `durable`, `updates` updates: `victim` dies at every event.
#[must_use]
pub fn walk_pair(updates: usize, victim: Victim) -> Walk {
    let mut walk = Walk::default();
    let length = Small::new(false, updates, true).length();
    for point in 0..=length {
        walk.points += 1;
        walk.crashes += 1;
        let mut world = Small::new(false, updates, true).advance(point).world;
        match victim {
            Victim::Primary => world.die(0, Death::Power),
            Victim::Standby => world.die(1, Death::Power),
            Victim::Both => {
                world.die(0, Death::Power);
                world.die(1, Death::Power);
            }
            Victim::Takeover => {
                world.take_over_now();
                pursue(&mut world);
            }
        }
        settle(&mut world);
        walk.fail(format!("{updates} updates, {victim:?} dies at step {point}"), &world);
        if walk.violation.is_some() {
            break;
        }
    }
    walk
}

/// A takeover, and the node that takes over loses its power at every event of it (I-26).
#[must_use]
pub fn walk_takeover() -> Walk {
    let mut walk = Walk::default();
    let length = Small::new(false, 2, true).length();
    for point in 0..STEPS_MAX {
        let mut world = Small::new(false, 2, true).advance(length).world;
        world.take_over_now();
        let mut steps = 0;
        while steps < point && world.takeover_pending() && world.check.violation.is_none() {
            world.step();
            steps += 1;
        }
        let over = !world.takeover_pending();
        walk.points += 1;
        walk.crashes += 1;
        world.die(1, Death::Power);
        pursue(&mut world);
        settle(&mut world);
        walk.fail(format!("the new primary dies at step {point} of its takeover"), &world);
        if over || walk.violation.is_some() {
            break;
        }
    }
    walk
}

/// A switchover of a pair at level `durable` while a client works, asked for on node `asked`: that harm comes at every event of
/// it (I-25, I-26).
#[must_use]
pub fn walk_switchover(asked: usize, harm: Harm) -> Walk {
    let mut walk = Walk::default();
    let mut after = 0;
    for point in 0..STEPS_MAX {
        let mut small = Small::in_trouble(8);
        while small.world.check.acked.len() < 3 {
            small.step();
        }
        small.world.switch_over_now(asked);
        let mut steps = 0;
        while steps < point && small.world.check.violation.is_none() {
            small.step();
            steps += 1;
        }
        let over = !small.world.operator_waits() && small.world.is_primary(1) && !small.world.is_primary(0);
        after += u64::from(over);
        walk.points += 1;
        walk.crashes += 1;
        small.world.harm(harm, 0);
        // For long enough that a silent link is given up.
        let until = small.world.trace.now + 2_000_000;
        while small.world.trace.now < until && small.world.check.violation.is_none() {
            small.step();
        }
        let mut world = small.world;
        world.unblock();
        settle(&mut world);
        walk.fail(format!("{harm:?} at step {point} of a switchover asked for on node {asked}"), &world);
        if after > STEPS_AFTER || walk.violation.is_some() {
            break;
        }
    }
    walk
}

/// A change that moves a file from one journal to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// A file with content becomes replicated.
    Replicate,
    /// Logging is paused.
    Pause,
    /// Logging is paused, and resumed.
    Resume,
}

/// The parts of a run in which the same item is set before, between and after changes that move its file.
struct Moving {
    world: World,
    todo: Vec<Todo>,
    /// How many updates were sent.
    sent: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Todo {
    Set(File),
    Replicate,
    Pause,
    Resume,
}

impl Moving {
    fn new(kind: Move) -> Self {
        // Nothing but the change itself makes a checkpoint.
        let Small { world, .. } = Small::of(Options { checkpoint_ms: 60_000, ..options(true) }, 0, false);
        let mut todo = match kind {
            Move::Replicate => vec![Todo::Set(File::Mixed), Todo::Replicate, Todo::Set(File::Mixed)],
            Move::Pause => vec![Todo::Set(File::Main), Todo::Pause, Todo::Set(File::Main)],
            Move::Resume => {
                let set = Todo::Set(File::Main);
                vec![set, Todo::Pause, set, Todo::Resume, set]
            }
        };
        todo.reverse();
        Self { world, todo, sent: 0 }
    }

    /// Does what comes next if what came before is done, and lets one thing happen.
    fn step(&mut self) {
        let idle = self.world.ops.iter().all(|op| op.ending != Ending::Open) && !self.world.operator_waits();
        if idle {
            match self.todo.last().copied() {
                Some(Todo::Set(file)) if self.set(file) => drop(self.todo.pop()),
                Some(Todo::Set(_)) | None => {}
                Some(other) => {
                    self.todo.pop();
                    match other {
                        Todo::Replicate => self.world.replicate_mixed(),
                        Todo::Pause => self.world.pause_logging(),
                        _ => self.world.resume_logging(),
                    }
                }
            }
        }
        self.world.step();
    }

    /// Sets the one item, to a value of its own; false if no client is connected yet.
    fn set(&mut self, file: File) -> bool {
        if self.world.clients[0].conn.is_none() && !self.world.client_connects(0) {
            return false;
        }
        let Some(at) = self.world.clients[0].conn else { return false };
        let items = vec![b"x".to_vec()];
        let op = Op { kind: Kind::Set, file, items, ..update(self.sent) };
        self.sent += 1;
        self.world.client_sends_op(0, at, op, &[20]);
        true
    }

    fn finished(&self) -> bool {
        self.todo.is_empty()
            && self.world.ops.iter().all(|op| op.ending != Ending::Open)
            && !self.world.operator_waits()
    }
}

/// One node, and a change that moves a file from one journal to the other, with updates of one item before and after it:
/// a power loss at every event, after which the store has fallen back to each state that it may have.
#[must_use]
pub fn walk_move(kind: Move) -> Walk {
    let mut walk = Walk::default();
    let mut after = 0;
    for point in 0..STEPS_MAX {
        let mut moving = Moving::new(kind);
        for _ in 0..point {
            moving.step();
        }
        after += u64::from(moving.finished());
        let mut living = moving.world;
        if living.operator.healing() {
            // From here on the run is over.
            return walk;
        }
        walk.points += 1;
        walk.fail(format!("before any crash, step {point}"), &living);
        let states = living.nodes[0].store.boundaries().len();
        living.stand_still(0);
        for which in 0..states {
            let mut dead = living.dead_copy(which);
            dead.die_exactly(0, &Exact { sectors: [0; 2], garbage: None, control: false, made: false });
            walk.crashes += 1;
            settle(&mut dead);
            walk.fail(format!("{kind:?}, step {point}, {which} batches are gone from the store"), &dead);
        }
        if walk.violation.is_some() || after > 4 * STEPS_AFTER {
            return walk;
        }
    }
    walk
}

/// Lets a takeover come to its end.
pub(super) fn pursue(world: &mut World) {
    let mut steps = 0;
    while world.takeover_pending() && world.check.violation.is_none() && steps < STEPS_MAX {
        world.step();
        steps += 1;
    }
}
