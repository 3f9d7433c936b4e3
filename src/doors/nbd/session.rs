//! One client: its bytes, where it stands, what it waits for.

use super::flight::Flight;
use super::handshake::Haggling;
use super::outbox::Outbox;
use super::transmission::Serving;
use super::{Allocation, BlockBackend, NbdOutput, Piece, Refusal, Shared, Tls};
use crate::base::limits::{NBD_OUT_ALL_MAX, NBD_OUT_MAX, RECEIVE_MAX, RECEIVE_MIN};
use crate::base::{AlignedBuf, ConnId, Mono};
use crate::doors::Watermarks;
use crate::format::nbd;

/// What became of a client that was advanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It will be heard of again.
    Waits,
    /// It is to be tried again when things have changed.
    Blocked,
    /// It is to be closed.
    Ends,
}

/// What one step of a phase came to.
#[derive(Debug)]
pub(super) enum Step {
    /// Something was carried out.
    Again,
    /// More bytes are needed.
    Input,
    /// A buffer is to be filled.
    Fill(AlignedBuf, usize),
    /// It cannot go on now.
    Blocked,
    /// TLS begins.
    StartTls,
    /// An export was chosen.
    Serve(Box<Serving>),
    /// The end.
    End,
}

/// A client's bytes, both ways.
#[derive(Debug)]
pub(super) struct Io {
    pub(super) conn: ConnId,
    /// What came.
    held: Vec<u8>,
    /// How much of it is done with.
    at: usize,
    /// A buffer to receive into.
    spare: Vec<u8>,
    /// A Receive or Fill is under way.
    asked: bool,
    pub(super) out: Outbox,
}

impl Io {
    /// What came and is not done with.
    pub(super) fn unread(&self) -> &[u8] {
        self.held.get(self.at..).unwrap_or_default()
    }

    /// So much of it is done with.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes).min(self.held.len());
    }

    fn received(&mut self, bytes: Vec<u8>) {
        self.asked = false;
        if self.unread().is_empty() {
            self.spare = std::mem::replace(&mut self.held, bytes);
        } else {
            self.held.drain(..self.at);
            self.held.extend_from_slice(&bytes);
            self.spare = bytes;
        }
        self.at = 0;
    }

    fn receive(&mut self, capacity: usize, shared: &mut Shared) {
        if self.asked {
            return;
        }
        self.asked = true;
        let mut buffer = std::mem::take(&mut self.spare);
        buffer.clear();
        if buffer.capacity() < capacity {
            buffer = Vec::with_capacity(capacity);
        }
        shared.outputs.push_back(NbdOutput::Receive { conn: self.conn, buffer });
    }

    /// Whether it has taken enough of its replies to be carried on.
    pub(super) fn may_reply(&self, shared: &Shared) -> bool {
        let unsent = self.out.unsent();
        unsent == 0 || unsent < NBD_OUT_MAX && shared.unsent < NBD_OUT_ALL_MAX
    }
}

/// Where a client stands.
#[derive(Debug)]
enum Phase {
    Haggling(Haggling),
    /// Waits for TLS.
    Securing,
    Serving(Box<Serving>),
}

/// One client.
#[derive(Debug)]
pub(super) struct Session {
    io: Io,
    phase: Phase,
    /// What it told before TLS began.
    client_flags: u32,
    /// When it must have chosen an export.
    deadline: Mono,
}

impl Session {
    pub(super) fn new(conn: ConnId, tls: Tls, deadline: Mono) -> Self {
        let out = Outbox::new(conn);
        let io = Io { conn, held: Vec::new(), at: 0, spare: Vec::new(), asked: false, out };
        Self { io, phase: Phase::Haggling(Haggling::new(tls)), client_flags: 0, deadline }
    }

    /// Greets the client.
    pub(super) fn begin(&mut self, shared: &mut Shared) {
        nbd::greeting(self.io.out.small(shared));
        self.io.out.flush(shared);
        self.io.receive(RECEIVE_MIN, shared);
    }

    pub(super) fn received(&mut self, bytes: Vec<u8>) {
        self.io.received(bytes);
    }

    pub(super) fn filled(&mut self, buffer: AlignedBuf) {
        self.io.asked = false;
        if let Phase::Serving(serving) = &mut self.phase {
            serving.filled(buffer);
        }
    }

    pub(super) fn sent(&mut self, shared: &mut Shared) {
        self.io.out.sent(shared);
    }

    pub(super) fn flush(&mut self, shared: &mut Shared) {
        self.io.out.flush(shared);
    }

    /// Options begin anew, without a greeting.
    pub(super) fn secured(&mut self, shared: &mut Shared) {
        if matches!(self.phase, Phase::Securing) {
            self.phase = Phase::Haggling(Haggling::secured(self.client_flags));
            self.io.receive(RECEIVE_MIN, shared);
        }
    }

    pub(super) fn read_done(
        &mut self,
        flight: Flight,
        result: Result<Vec<Piece>, Refusal>,
        shared: &mut Shared,
    ) {
        if let Phase::Serving(serving) = &mut self.phase {
            serving.read_done(flight, result, &mut self.io, shared);
        }
    }

    pub(super) fn allocation_done(
        &mut self,
        flight: Flight,
        result: Result<Vec<Allocation>, Refusal>,
        shared: &mut Shared,
    ) {
        if let Phase::Serving(serving) = &mut self.phase {
            serving.allocation_done(flight, result, &mut self.io, shared);
        }
    }

    /// Replies to what is safe now.
    pub(super) fn release(&mut self, marks: &Watermarks, shared: &mut Shared) {
        if let Phase::Serving(serving) = &mut self.phase {
            serving.release(marks, &mut self.io, shared);
        }
    }

    /// Whether an answer is owed.
    pub(super) fn waits(&self) -> bool {
        matches!(&self.phase, Phase::Serving(serving) if serving.waits())
    }

    /// The client is gone.
    pub(super) fn leave(self, shared: &mut Shared) {
        self.io.out.leave(shared);
        shared.deadlines.remove(&(self.deadline, self.io.conn));
        if let Phase::Serving(serving) = self.phase {
            shared.flights.leave(self.io.conn);
            let traffic = shared.traffic(serving.file());
            traffic.clients = traffic.clients.saturating_sub(1);
        }
    }

    /// Carries out what came, as far as it can be; with whether it got on.
    pub(super) fn advance(&mut self, shared: &mut Shared, backend: &mut impl BlockBackend) -> (Fate, bool) {
        let mut got_on = false;
        if self.io.asked {
            return (Fate::Waits, got_on);
        }
        loop {
            let step = match &mut self.phase {
                Phase::Haggling(haggling) => haggling.step(&mut self.io, shared, backend),
                Phase::Securing => return (Fate::Waits, got_on),
                Phase::Serving(serving) => serving.step(&mut self.io, shared, backend),
            };
            match step {
                Step::Again => {}
                Step::Input => {
                    let serves = matches!(self.phase, Phase::Serving(_));
                    self.io.receive(if serves { RECEIVE_MAX } else { RECEIVE_MIN }, shared);
                    return (Fate::Waits, got_on);
                }
                Step::Fill(buffer, until) => {
                    self.io.asked = true;
                    shared.outputs.push_back(NbdOutput::Fill { conn: self.io.conn, buffer, until });
                    return (Fate::Waits, got_on);
                }
                Step::Blocked => return (Fate::Blocked, got_on),
                Step::End => return (Fate::Ends, got_on),
                Step::StartTls => self.start_tls(shared),
                Step::Serve(serving) => {
                    shared.deadlines.remove(&(self.deadline, self.io.conn));
                    shared.traffic(serving.file()).clients += 1;
                    self.phase = Phase::Serving(serving);
                }
            }
            got_on = true;
        }
    }

    fn start_tls(&mut self, shared: &mut Shared) {
        if let Phase::Haggling(haggling) = &self.phase {
            self.client_flags = haggling.client_flags();
        }
        self.io.out.flush(shared);
        shared.outputs.push_back(NbdOutput::StartTls { conn: self.io.conn });
        self.phase = Phase::Securing;
    }
}
