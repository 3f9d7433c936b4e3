//! One client: what it sent, what it is to be told, and when it is read further.

use super::clients::Listing;
use super::fetching::Fetching;
use super::gather::Gather;
use super::line::Place;
use super::outbox::{Outbox, Waits};
use super::pile::Pile;
use super::refusal::{NO_MEMORY, unknown_text};
use super::transaction::{Exec, Queue};
use super::turn::Turn;
use super::walk::Walk;
use super::{DoorOutput, RespShared};
use crate::base::limits::{
    AUTHENTICATE_MS, CLIENT_AHEAD_MAX, CLIENT_HOLDS_MAX, CLIENT_OUT_MAX, CLIENTS_MEMORY_MAX, RECEIVE_MAX,
    RECEIVE_MIN,
};
use crate::base::{ConnId, JournalKind, Mono, Now, Seq};
use crate::doors::{Backend, CommitWatermarks, Refusal};
use crate::format::resp::{RequestLimits, RequestParser, Version, attribute, error, integer, simple};

/// What CLIENT LIST shows of a client whose last command was none.
pub(super) const NO_COMMAND: &str = "NULL";

/// What commands see and change of a client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) conn: ConnId,
    pub(super) version: Version,
    /// Came over a way in that needs no password.
    pub(super) trusted: bool,
    pub(super) authenticated: bool,
    /// Wrong passwords so far.
    pub(super) guesses: u8,
    /// Until when it has to give the password.
    locked_until: Option<Mono>,
    /// Its place in the roster.
    pub(super) card: usize,
    pub(super) out: Outbox,
    pub(super) queue: Option<Box<Queue>>,
    /// The last update in each journal, by index.
    pub(super) last: [Seq; 2],
    /// The epoch of the last update in the replicated one.
    pub(super) last_epoch: u64,
    /// The replies of updates name epoch and number.
    pub(super) receipts: bool,
    pub(super) blocked: Option<Blocked>,
    /// What the reply of the blocked command waits for so far.
    pub(super) blocked_waits: Waits,
    /// What the blocked command waits for besides its turn.
    pub(super) fetching: Fetching,
    /// Nothing more is read; the connection ends once all replies are sent.
    pub(super) closing: bool,
    pub(super) opened: Mono,
    pub(super) active: Mono,
    pub(super) last_command: &'static str,
}

impl Client {
    /// Puts epoch and number of the last update before the reply that begins at `start`, as a RESP3 attribute.
    pub(super) fn attach_receipt(&mut self, start: usize) {
        let mut told = Vec::with_capacity(64);
        attribute(&mut told, 1);
        simple(&mut told, "receipt");
        let seq = self.last[JournalKind::Replicated.index()];
        super::clients::receipt(&mut told, self.last_epoch, seq);
        self.out.bytes.splice(start..start, told);
    }
}

/// Why a client's next command is not looked at yet.
#[derive(Debug)]
pub(super) enum Blocked {
    /// WAIT or WAITAOF.
    Ack(AckWait),
    /// KEYS, DBSIZE, SCAN: its turn was over before it was done, as with those that follow.
    Walk(Box<Walk>),
    /// A command of many keys.
    Gather(Box<Gather>),
    /// EXEC.
    Exec(Box<Exec>),
    /// WATCH, at this argument.
    Watch(usize),
    /// CLIENT LIST.
    Listing(Box<Listing>),
    /// What it reads is fetched; then it is carried out from its beginning.
    Again {
        /// Whether it may make updates.
        may_change: bool,
    },
}

impl Blocked {
    /// Memory held (bytes).
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Ack(_) | Self::Watch(_) | Self::Again { .. } => 0,
            Self::Listing(listing) => listing.bytes(),
            Self::Walk(walk) => walk.bytes(),
            Self::Gather(gather) => gather.bytes(),
            Self::Exec(exec) => exec.bytes(),
        }
    }

    /// It is given up: what it holds is freed little by little.
    pub(super) fn leave(self, pile: &mut Pile) {
        match self {
            Self::Ack(_) | Self::Watch(_) | Self::Listing(_) | Self::Walk(_) | Self::Again { .. } => {}
            Self::Gather(gather) => gather.leave(pile),
            Self::Exec(exec) => exec.leave(pile),
        }
    }

    /// Whether it may make updates when it is done. Until then it has made none.
    fn may_change(&self) -> bool {
        match self {
            Self::Ack(_) | Self::Walk(_) | Self::Watch(_) | Self::Listing(_) => false,
            Self::Again { may_change } => *may_change,
            Self::Gather(gather) => gather.may_change(),
            Self::Exec(_) => true,
        }
    }

    /// Whether it has to know what others change.
    fn tracks(&self) -> bool {
        match self {
            Self::Ack(_) | Self::Walk(_) | Self::Watch(_) | Self::Listing(_) | Self::Again { .. } => false,
            Self::Gather(gather) => gather.tracks(),
            Self::Exec(exec) => exec.tracks(),
        }
    }
}

/// A WAIT or WAITAOF under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct AckWait {
    /// Entries that must be on this node's disk, by journal.
    pub(super) here: [Seq; 2],
    /// The entry that must be on the peer's disk.
    pub(super) there: Seq,
    /// How many local disks must have them; `None` for WAIT, whose reply does not tell.
    pub(super) local: Option<u64>,
    /// How many replicas must have them.
    pub(super) replicas: u64,
    /// Until when.
    pub(super) deadline: Option<Mono>,
}

impl AckWait {
    /// How many local disks and replicas have the target now.
    pub(super) fn counts<B: Backend>(&self, backend: &B, marks: &CommitWatermarks) -> (u64, u64) {
        let local = marks.durable[0] >= self.here[0] && marks.durable[1] >= self.here[1];
        let [_, on_disk, _] = backend.peer_acked();
        // Nothing was ever written: even a peer that is away has acknowledged that much, but it must not count.
        let replica = on_disk >= self.there && (self.there > Seq(0) || backend.view().peer_connected);
        (u64::from(local), u64::from(replica))
    }

    /// Whether the counts are enough.
    pub(super) fn enough(&self, (local, replicas): (u64, u64)) -> bool {
        local >= self.local.unwrap_or(0) && replicas >= self.replicas
    }

    /// Writes the reply.
    pub(super) fn reply(&self, out: &mut Vec<u8>, (local, replicas): (u64, u64)) {
        if self.local.is_some() {
            crate::format::resp::array(out, 2);
            integer(out, i64::try_from(local).unwrap_or(i64::MAX));
        }
        integer(out, i64::try_from(replicas).unwrap_or(i64::MAX));
    }
}

impl Client {
    /// From now on it has to give the password, and has a time for it; a time that runs already goes on.
    pub(super) fn lock(&mut self, now: Now, shared: &mut RespShared) {
        self.authenticated = false;
        if self.locked_until.is_none() {
            let until = now.mono.plus_ms(AUTHENTICATE_MS);
            self.locked_until = Some(until);
            shared.locked.insert((until, self.conn));
        }
    }

    /// It has given the password, or is gone.
    pub(super) fn unlock(&mut self, shared: &mut RespShared) {
        self.authenticated = true;
        if let Some(until) = self.locked_until.take() {
            shared.locked.remove(&(until, self.conn));
        }
    }

    /// Whether it waits for its turn in the middle of a command.
    fn is_in_the_middle(&self) -> bool {
        self.blocked.as_ref().is_some_and(|blocked| !matches!(blocked, Blocked::Ack(_)))
    }

    fn may_run(&self, shared: &RespShared) -> bool {
        if self.fetching.is_under_way() {
            return false;
        }
        if self.is_in_the_middle() {
            return !self.closing;
        }
        // With little memory left only those go on who have taken their replies.
        let short = !shared.has_room(self.out.held(), 0) && self.out.held() > RECEIVE_MIN;
        !self.closing
            && !short
            && self.blocked.is_none()
            && self.out.holds() < CLIENT_HOLDS_MAX
            && self.out.pending() < CLIENT_OUT_MAX
    }
}

/// Why parsing stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// Nothing is left but perhaps a part of a command.
    Hungry,
    /// The backend's queues are full.
    Congested,
    /// The client has to take or to wait for replies first.
    Full,
    /// Its turn is over.
    Over,
    /// What it reads is being fetched.
    Fetching,
}

/// What is known of the end of what a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// It may send more.
    Open,
    /// It sends no more, but something may be left to receive.
    Seen,
    /// Nothing is left.
    Drained,
}

/// One client.
#[derive(Debug)]
pub(super) struct RespSession {
    pub(super) client: Client,
    input: Vec<u8>,
    /// Where in `input` the first command stands that was not carried out.
    start: usize,
    /// How long that one is, when it is being carried out.
    current: usize,
    parser: RequestParser,
    spare: Vec<u8>,
    /// The capacity of the buffer that is being received into; 0 when none is.
    receiving: usize,
    receive_size: usize,
    small_receives: u8,
    /// Neither reading nor closing: somebody has to go on with this client.
    stopped: bool,
    pub(super) in_waiting: bool,
    /// Places among those that can go on, and among those that can when the backend is not congested.
    pub(super) in_ready: Option<Place>,
    pub(super) in_congested: Option<Place>,
    charged: usize,
    end: End,
    /// After the end of what it sends a command had to wait for the disk: nothing is begun behind that.
    is_last: bool,
}

impl RespSession {
    /// A client that has just connected.
    pub(super) fn new(conn: ConnId, now: Now, trusted: bool) -> Self {
        let client = Client {
            conn,
            version: Version::V2,
            trusted,
            authenticated: true,
            guesses: 0,
            locked_until: None,
            card: 0,
            out: Outbox::default(),
            queue: None,
            last: [Seq(0); 2],
            last_epoch: 0,
            receipts: false,
            blocked: None,
            blocked_waits: Waits::default(),
            fetching: Fetching::default(),
            closing: false,
            opened: now.mono,
            active: now.mono,
            last_command: NO_COMMAND,
        };
        Self {
            client,
            input: Vec::new(),
            start: 0,
            current: 0,
            parser: RequestParser::default(),
            spare: Vec::new(),
            receiving: 0,
            receive_size: RECEIVE_MIN,
            small_receives: 0,
            stopped: false,
            in_waiting: false,
            in_ready: None,
            in_congested: None,
            charged: 0,
            end: End::Open,
            is_last: false,
        }
    }

    /// The client sends no more.
    pub(super) fn ended(&mut self, drained: bool) {
        self.end = self.end.max(if drained { End::Drained } else { End::Seen });
    }

    /// Whether the client is over where parsing stopped. A client that ended its stream may be gone, and another may have
    /// taken over its work: nothing of it may be carried out later than at once.
    fn is_over(&self, stop: Stop) -> bool {
        match self.end {
            End::Open => false,
            End::Seen => matches!(stop, Stop::Full | Stop::Congested),
            End::Drained => matches!(stop, Stop::Full | Stop::Congested | Stop::Hungry),
        }
    }

    /// Whether it ended its stream in a WAIT, which costs nothing and is answered.
    fn is_still_told(&self) -> bool {
        self.end > End::Open && matches!(self.client.blocked, Some(Blocked::Ack(_)))
    }

    /// What the parser holds (bytes).
    #[cfg(test)]
    pub(super) fn parser_bytes(&self) -> usize {
        self.parser.bytes()
    }

    /// It goes on when its turn comes.
    pub(super) fn wait_for_turn(&mut self, shared: &mut RespShared) {
        shared.ready.join(self.client.conn, &mut self.in_ready);
    }

    /// It goes on, behind all others, when the backend is not congested any more.
    pub(super) fn wait_for_room(&mut self, shared: &mut RespShared) {
        shared.congested.leave(&mut self.in_congested);
        shared.congested.join(self.client.conn, &mut self.in_congested);
    }

    /// Whether it was left where it stood and could go on now.
    pub(super) fn could_go_on(&self, shared: &RespShared) -> bool {
        self.stopped && self.client.may_run(shared)
    }

    /// Takes what was received.
    pub(super) fn received(&mut self, bytes: Vec<u8>) {
        self.receiving = 0;
        self.adapt(bytes.len());
        if self.start == self.input.len() {
            self.spare = std::mem::replace(&mut self.input, bytes);
        } else {
            // What is left is one partial command, or more in front of a client that was stopped: it moves once.
            self.input.drain(..self.start);
            self.input.extend_from_slice(&bytes);
            self.spare = bytes;
        }
        self.start = 0;
    }

    /// Larger buffers for those who fill them, small ones for all others.
    fn adapt(&mut self, received: usize) {
        const PATIENCE: u8 = 32;
        if received >= self.receive_size {
            self.receive_size = (self.receive_size * 4).min(RECEIVE_MAX);
            self.small_receives = 0;
        } else if received < self.receive_size / 8 && self.receive_size > RECEIVE_MIN {
            self.small_receives += 1;
            if self.small_receives >= PATIENCE {
                (self.receive_size, self.small_receives) = (RECEIVE_MIN, 0);
            }
        } else {
            self.small_receives = 0;
        }
    }

    /// Carries out what can be, sends what may be sent, reads on if there is room. True when the client is done with.
    pub(super) fn advance<B: Backend>(&mut self, now: Now, shared: &mut RespShared, backend: &mut B) -> bool {
        let stop = self.run(now, shared, backend);
        self.charge(shared);
        if stop == Stop::Hungry && self.over_memory(shared) {
            error(&mut self.client.out.bytes, NO_MEMORY);
            self.client.closing = true;
        }
        let late = self.end > End::Open && self.client.blocked.as_ref().is_some_and(Blocked::may_change);
        if self.is_over(stop) || late {
            self.client.closing = true;
        }
        if self.client.closing {
            // Nothing of it will be looked at, and the last replies may have to wait for long.
            if !self.is_still_told() {
                self.forget_blocked(shared);
            }
            (self.input, self.spare, self.start, self.current) = (Vec::new(), Vec::new(), 0, 0);
        }
        if self.send(shared) {
            return true;
        }
        self.read_on(stop, shared);
        self.charge(shared);
        self.enlist(shared, stop);
        false
    }

    fn run<B: Backend>(&mut self, now: Now, shared: &mut RespShared, backend: &mut B) -> Stop {
        let stop = loop {
            if self.client.fetching.is_under_way() {
                self.is_last |= self.end > End::Open;
                break Stop::Fetching;
            }
            if self.is_last && self.client.blocked.is_none() {
                self.client.closing = true;
            }
            if !self.client.may_run(shared) {
                break Stop::Full;
            }
            if shared.work.slice_is_over() {
                break Stop::Over;
            }
            if backend.congested() {
                break Stop::Congested;
            }
            if self.client.is_in_the_middle() {
                self.go_on(now, shared, backend);
                continue;
            }
            let input = self.input.get(self.start..).unwrap_or_default();
            if input.is_empty() {
                break Stop::Hungry;
            }
            let open = self.client.authenticated;
            let limits = if open { RequestLimits::OPEN } else { RequestLimits::LOCKED };
            match self.parser.parse(input, limits) {
                Ok(None) => break Stop::Hungry,
                Ok(Some(taken)) => {
                    let args = self.parser.args(input);
                    shared.work.spend(taken / 4);
                    self.current = taken;
                    let left = match args.is_empty() {
                        true => None,
                        false => Turn::new(now, shared, &mut self.client, backend).command(args),
                    };
                    self.note_left(left);
                }
                Err(why) => {
                    shared.stats.protocol_errors += 1;
                    error(&mut self.client.out.bytes, &format!("ERR {why}"));
                    self.client.closing = true;
                }
            }
        };
        if self.start == self.input.len() {
            self.input.clear();
            self.start = 0;
            self.parser.shrink();
        }
        stop
    }

    /// Goes on with the command that is being carried out.
    fn go_on<B: Backend>(&mut self, now: Now, shared: &mut RespShared, backend: &mut B) {
        let Some(blocked) = self.client.blocked.take() else { return };
        let tracked = blocked.tracks();
        let input = self.input.get(self.start..).unwrap_or_default();
        let args = self.parser.args(input);
        let left = Turn::new(now, shared, &mut self.client, backend).go_on(blocked, args);
        if tracked && !left.as_ref().is_some_and(Blocked::tracks) {
            shared.changes.end();
        }
        self.note_left(left);
    }

    /// A command is done, or what is left of it is kept.
    fn note_left(&mut self, left: Option<Blocked>) {
        match left {
            Some(left) => self.client.blocked = Some(left),
            None => {
                self.client.fetching.progress();
                self.start += std::mem::take(&mut self.current);
            }
        }
    }

    /// Tells the shared account how much memory this client holds.
    fn charge(&mut self, shared: &mut RespShared) {
        let blocked = self.client.blocked.as_ref().map_or(0, Blocked::bytes);
        let queued = self.client.queue.as_ref().map_or(0, |queue| queue.bytes());
        let input = self.input.capacity() + self.spare.capacity() + self.parser.bytes();
        let held = input + self.receiving + self.client.out.held() + queued + blocked;
        shared.memory = shared.memory + held - self.charged;
        self.charged = held;
        let unread = self.input.len() - self.start;
        shared.roster.note(&self.client, unread, self.receiving, held);
    }

    /// The client is gone: nothing that is shared knows of it any more, but for lists that are gone through anyway.
    pub(super) fn leave(mut self, shared: &mut RespShared) {
        shared.memory -= self.charged;
        shared.watches.end(self.client.conn);
        shared.roster.remove(self.client.card);
        self.client.unlock(shared);
        self.forget_blocked(shared);
        shared.ready.leave(&mut self.in_ready);
        shared.congested.leave(&mut self.in_congested);
    }

    fn over_memory(&self, shared: &RespShared) -> bool {
        !shared.has_room(self.charged, 0) && self.input.len() - self.start > RECEIVE_MIN
    }

    /// A send is over: what it held is free.
    pub(super) fn sent(&mut self, shared: &mut RespShared) {
        self.client.out.sent();
        self.charge(shared);
    }

    /// Hands out what may be sent. True when that was all there will ever be.
    pub(super) fn send(&mut self, shared: &mut RespShared) -> bool {
        let conn = self.client.conn;
        if let Some(bytes) = self.client.out.take(&mut shared.arena) {
            shared.stats.output_bytes += bytes.len() as u64;
            shared.outputs.push_back(DoorOutput::Send { conn, bytes });
        }
        let done = self.client.closing && self.client.out.is_empty() && self.client.blocked.is_none();
        if done {
            shared.outputs.push_back(DoorOutput::Close { conn });
        }
        done
    }

    /// Asks for the first bytes.
    pub(super) fn begin(&mut self, shared: &mut RespShared) {
        self.client.card = shared.roster.add(self.client.conn, &self.client);
        self.read_on(Stop::Hungry, shared);
        self.charge(shared);
    }

    fn read_on(&mut self, stop: Stop, shared: &mut RespShared) {
        let ahead = self.input.len() - self.start - self.current < CLIENT_AHEAD_MAX;
        let waits = self.client.blocked.is_some() && ahead && self.client.out.pending() < CLIENT_OUT_MAX;
        let wanted = !self.client.closing && (stop == Stop::Hungry || waits);
        self.stopped = !self.client.closing && stop != Stop::Hungry;
        if !wanted || self.receiving > 0 {
            return;
        }
        let mut buffer = std::mem::take(&mut self.spare);
        if self.input.is_empty() && self.input.capacity() > 0 {
            buffer = std::mem::take(&mut self.input);
        }
        // A large value is on its way: fewer and larger reads.
        let missing = self.parser.missing(self.input.len() - self.start);
        let size = match shared.memory > CLIENTS_MEMORY_MAX / 2 {
            true => RECEIVE_MIN,
            false if missing > self.receive_size => RECEIVE_MAX,
            false => self.receive_size,
        };
        buffer.clear();
        if buffer.capacity() < size || buffer.capacity() > size * 8 {
            buffer = Vec::with_capacity(size);
        }
        self.receiving = buffer.capacity();
        shared.outputs.push_back(DoorOutput::Receive { conn: self.client.conn, buffer });
    }

    /// Notes where this client waits.
    fn enlist(&mut self, shared: &mut RespShared, stop: Stop) {
        let conn = self.client.conn;
        let waits = self.client.out.holds() > 0 || matches!(self.client.blocked, Some(Blocked::Ack(_)));
        if waits && !self.in_waiting {
            self.in_waiting = true;
            shared.waiting.push(conn);
        }
        match stop {
            Stop::Congested => shared.congested.join(conn, &mut self.in_congested),
            Stop::Over => shared.ready.join(conn, &mut self.in_ready),
            Stop::Hungry | Stop::Full | Stop::Fetching => {}
        }
    }

    /// The watermarks moved: lets replies go and ends a WAIT that is over.
    pub(super) fn release<B: Backend>(
        &mut self,
        marks: &CommitWatermarks,
        shared: &mut RespShared,
        backend: &B,
    ) {
        self.client.out.release(marks);
        if let Some(Blocked::Ack(wait)) = self.client.blocked {
            let counts = wait.counts(backend, marks);
            if wait.enough(counts) {
                self.end_wait(wait, counts, shared);
            }
        }
    }

    /// No answer that waits for an entry after `beyond` will come, or none that waits at all: the first such request is
    /// told `why`, and nothing more is done for the client. False if it has none.
    pub(super) fn abandon(
        &mut self,
        why: &Refusal,
        beyond: Option<[Seq; 2]>,
        shared: &mut RespShared,
    ) -> bool {
        let late = |journal: JournalKind, seq| beyond.is_none_or(|beyond| seq > beyond[journal.index()]);
        let text = unknown_text(why);
        if !self.client.out.abandon(&text, |wait| late(wait.journal, wait.seq)) {
            let Some(Blocked::Ack(wait)) = self.client.blocked else { return false };
            let [replicated, local] = wait.here;
            if !late(JournalKind::Replicated, wait.there.max(replicated)) && !late(JournalKind::Local, local)
            {
                return false;
            }
            error(&mut self.client.out.bytes, &text);
        }
        self.forget_blocked(shared);
        self.client.closing = true;
        (self.input, self.spare, self.start, self.current) = (Vec::new(), Vec::new(), 0, 0);
        self.charge(shared);
        true
    }

    /// A wait's time is over.
    pub(super) fn expire<B: Backend>(&mut self, shared: &mut RespShared, backend: &B) {
        if let Some(Blocked::Ack(wait)) = self.client.blocked {
            let counts = wait.counts(backend, &backend.watermarks());
            self.end_wait(wait, counts, shared);
        }
    }

    fn end_wait(&mut self, wait: AckWait, counts: (u64, u64), shared: &mut RespShared) {
        wait.reply(&mut self.client.out.bytes, counts);
        self.forget_wait(shared);
    }

    fn forget_wait(&mut self, shared: &mut RespShared) {
        if let Some(Blocked::Ack(wait)) =
            self.client.blocked.take_if(|blocked| matches!(blocked, Blocked::Ack(_)))
        {
            shared.blocked -= 1;
            if let Some(deadline) = wait.deadline {
                shared.deadlines.remove(&(deadline, self.client.conn));
            }
        }
    }

    /// Whatever it is in the middle of is given up.
    fn forget_blocked(&mut self, shared: &mut RespShared) {
        self.forget_wait(shared);
        self.client.fetching.forget(&mut shared.fetches);
        if let Some(blocked) = self.client.blocked.take() {
            if blocked.tracks() {
                shared.changes.end();
            }
            blocked.leave(&mut shared.pile);
        }
    }

    /// Whether it still belongs to the list of those that [`Self::release`] is for.
    pub(super) fn still_waits(&mut self) -> bool {
        let blocked = matches!(self.client.blocked, Some(Blocked::Ack(_)));
        self.in_waiting = self.client.out.holds() > 0 || blocked;
        self.in_waiting
    }
}
