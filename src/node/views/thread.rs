//! The thread of a view: its sockets, a driver, and the machine that answers.

use super::super::clients::Clients;
use super::super::config::IoChoice;
use super::super::core::{Clock, Door, DoorKeys, Patience, RoundContext, Target, tune};
use super::super::listen::Listeners;
use super::super::serve::open_driver;
use super::Shared;
use super::blocks::ViewFiles;
use crate::base::limits::{ACCEPT_PAUSE_MS, VIEW_CLIENTS_MAX};
use crate::base::{Mono, Now};
use crate::engine::view::View;
use crate::engine::{ClientDoor, Event};
use crate::io::{Completion, Driver, Op, Outcome, Wake};
use crate::store::tree_store::Snapshot;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

/// What it answers from.
pub(super) type Start = Box<View<Snapshot, ViewFiles>>;

/// What it begins with.
pub(super) struct ViewThread {
    pub(super) shared: Arc<Shared>,
    pub(super) keys: DoorKeys,
    pub(super) listeners: Listeners,
}

impl ViewThread {
    /// Opens the driver, tells how to wake it, waits for what it is to show, and serves that until it is to end.
    pub(super) fn run(self, io: IoChoice, waker: &SyncSender<Arc<dyn Wake>>, start: &Receiver<Start>) {
        let driver = match open_driver(io) {
            Ok(driver) => driver,
            Err(error) => return tracing::warn!("opening the I/O driver of a view: {error}"),
        };
        if waker.send(driver.waker()).is_err() {
            return;
        }
        let Ok(view) = start.recv() else { return };
        let shared = Arc::clone(&self.shared);
        if let Err(error) = Serving::new(self, driver, view).run() {
            tracing::error!("a view ends, its driver is broken: {error}");
            shared.ends(&format!("its I/O driver is broken: {error}"));
        }
        shared.clients.store(0, Ordering::Relaxed);
    }
}

struct Serving {
    view: Start,
    shared: Arc<Shared>,
    turn: RoundContext,
    clock: Clock,
    clients: Clients,
    keys: DoorKeys,
    listeners: Listeners,
    /// Doors at which nobody can be accepted before a time.
    paused: Vec<usize>,
    paused_until: Option<Mono>,
}

impl Serving {
    fn new(begun: ViewThread, driver: Box<dyn Driver>, view: Start) -> Self {
        let clock = Clock::start();
        let (now, wall_ms) = clock.read();
        let patience = Patience::default();
        Self {
            view,
            shared: begun.shared,
            turn: RoundContext { driver, events: Vec::new(), incidents: Vec::new(), now, wall_ms, patience },
            clock,
            clients: Clients::new(VIEW_CLIENTS_MAX),
            keys: begun.keys,
            listeners: begun.listeners,
            paused: Vec::new(),
            paused_until: None,
        }
    }

    fn run(mut self) -> io::Result<()> {
        (0..self.listeners.all.len()).for_each(|door| self.accept(door));
        let mut completions = Vec::new();
        loop {
            self.go_on();
            if self.shared.over.load(Ordering::Acquire) {
                self.clients.cut_all(&mut self.turn);
                for listener in &self.listeners.all {
                    self.turn.driver.cancel(listener.socket.as_raw_fd());
                }
                return Ok(());
            }
            let timeout = self.timeout();
            self.turn.driver.wait(timeout, &mut completions)?;
            (self.turn.now, self.turn.wall_ms) = self.clock.read();
            for completion in completions.drain(..) {
                self.completed(completion);
            }
            self.clients.expire(&mut self.turn);
            if self.paused_until.is_some_and(|until| until <= self.turn.now) {
                self.paused_until = None;
                std::mem::take(&mut self.paused).into_iter().for_each(|door| self.accept(door));
            }
        }
    }

    /// Feeds what came, and does what comes of it.
    fn go_on(&mut self) {
        let now = Now { mono: self.turn.now, wall_ms: self.turn.wall_ms };
        for event in self.turn.events.drain(..) {
            if let Event::Client(event) = event {
                self.view.input(now, event);
            }
        }
        self.view.pump(now);
        while let Some(effect) = self.view.output() {
            self.clients.perform(&mut self.turn, effect, &self.keys);
        }
        for incident in self.turn.incidents.drain(..) {
            tracing::info!("at a door of a view: {}", incident.text);
        }
        self.shared.clients.store(self.view.clients() as u64, Ordering::Relaxed);
        self.shared.items.store(self.view.written() as u64, Ordering::Relaxed);
    }

    fn completed(&mut self, Completion { token, outcome }: Completion) {
        let turn = &mut self.turn;
        match (Target::of(token), outcome) {
            (Some(Target::ClientReceive(slot)), Outcome::Received(result)) => {
                self.clients.received(turn, slot, result);
            }
            (Some(Target::ClientFill(slot)), Outcome::Filled(result)) => {
                self.clients.filled(turn, slot, result)
            }
            (Some(Target::ClientSend(slot)), Outcome::Sent(result)) => self.clients.sent(turn, slot, &result),
            (Some(Target::ClientEnd(slot)), Outcome::Ended) => self.clients.ended(turn, slot),
            (Some(Target::Accept(door)), Outcome::Accepted(result)) => self.accepted(door, result),
            (target, outcome) => unreachable!("{target:?} was completed by {outcome:?}"),
        }
    }

    fn accept(&mut self, door: usize) {
        if let Some(listener) = self.listeners.all.get(door) {
            let op = Op::Accept(Arc::clone(&listener.socket));
            self.turn.driver.submit(Target::Accept(door).token(), op);
        }
    }

    fn accepted(&mut self, door: usize, result: io::Result<OwnedFd>) {
        match (result, self.listeners.all.get(door).map(|listener| listener.door)) {
            (Ok(socket), Some(Door::Resp { trusted, rank })) => {
                tune(&socket);
                // Dropped if there are too many.
                let _ = self.clients.open(&mut self.turn, socket, ClientDoor::Items { trusted }, rank);
            }
            (Ok(socket), Some(Door::Nbd { tls, rank })) => {
                tune(&socket);
                let _ = self.clients.open(&mut self.turn, socket, ClientDoor::Blocks { tls }, rank);
            }
            (Ok(_), _) => {}
            (Err(error), _) => {
                tracing::warn!("accepting a connection to a view: {error}");
                self.paused.push(door);
                self.paused_until = Some(self.turn.now.plus_ms(ACCEPT_PAUSE_MS));
                return;
            }
        }
        self.accept(door);
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.turn.events.is_empty() {
            return Some(Duration::ZERO);
        }
        let deadlines = [self.view.deadline(), self.clients.deadline(), self.paused_until];
        let first = deadlines.into_iter().flatten().min()?;
        Some(Duration::from_micros(first.since(self.turn.now)))
    }
}
