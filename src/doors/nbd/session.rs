//! One client: its bytes, where it stands, what it waits for.

use super::handshake::Negotiation;
use super::outbox::ReplyQueue;
use super::pending::PendingRequest;
use super::transmission::Serving;
use super::{Allocation, BlockBackend, NbdOutput, NbdShared, Piece, Refusal, Tls};
use crate::base::limits::{NBD_OUT_MAX, RECEIVE_MAX, RECEIVE_MIN};
use crate::base::{AlignedBuf, ConnId, FileId, Mono, Seq};
use crate::doors::CommitWatermarks;
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
pub(super) enum NbdStep {
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
    pub(super) out: ReplyQueue,
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

    fn receive(&mut self, capacity: usize, shared: &mut NbdShared) {
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
    pub(super) fn takes(&self) -> bool {
        self.out.unsent() < NBD_OUT_MAX
    }

    /// Whether what has a reply of up to `need` bytes may be begun now; `reads` of them the backend reads.
    pub(super) fn admits(&self, need: usize, reads: usize, shared: &mut NbdShared) -> bool {
        let room = shared.requests.room(reads);
        shared.budget.admit(self.conn, self.out.held(), need, room)
    }
}

/// Where a client stands.
#[derive(Debug)]
enum Phase {
    Negotiation(Negotiation),
    /// Waits for TLS.
    Securing,
    Serving(Box<Serving>),
    /// It is ended once it has taken its replies.
    Leaving,
    /// Its connection is over; what is read for it is still under way.
    Gone,
}

/// One client.
#[derive(Debug)]
pub(super) struct NbdSession {
    io: Io,
    phase: Phase,
    /// What it told before TLS began.
    client_flags: u32,
    /// When it must have chosen an export.
    deadline: Mono,
}

impl NbdSession {
    pub(super) fn new(conn: ConnId, tls: Tls, deadline: Mono) -> Self {
        let out = ReplyQueue::new(conn);
        let io = Io { conn, held: Vec::new(), at: 0, spare: Vec::new(), asked: false, out };
        Self { io, phase: Phase::Negotiation(Negotiation::new(tls)), client_flags: 0, deadline }
    }

    /// Greets the client.
    pub(super) fn begin(&mut self, shared: &mut NbdShared) {
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

    pub(super) fn sent(&mut self, shared: &mut NbdShared) {
        self.io.out.sent(shared);
        self.io.out.settle(shared);
    }

    pub(super) fn flush(&mut self, shared: &mut NbdShared) {
        self.io.out.flush(shared);
    }

    /// The time to look at it has come: whether it takes nothing.
    pub(super) fn is_stuck(&mut self, shared: &mut NbdShared) -> bool {
        self.io.out.is_stuck(shared)
    }

    /// Options begin anew, without a greeting.
    pub(super) fn secured(&mut self, shared: &mut NbdShared) {
        if matches!(self.phase, Phase::Securing) {
            self.phase = Phase::Negotiation(Negotiation::secured(self.client_flags));
            self.io.receive(RECEIVE_MIN, shared);
        }
    }

    pub(super) fn read_done(
        &mut self,
        flight: PendingRequest,
        result: Result<Vec<Piece>, Refusal>,
        shared: &mut NbdShared,
    ) {
        self.io.out.release(flight.reserved);
        if let Phase::Serving(serving) = &mut self.phase {
            serving.read_done(flight, result, &mut self.io, shared);
        }
        self.io.out.settle(shared);
    }

    pub(super) fn allocation_done(
        &mut self,
        flight: PendingRequest,
        result: Result<Vec<Allocation>, Refusal>,
        shared: &mut NbdShared,
    ) {
        self.io.out.release(flight.reserved);
        if let Phase::Serving(serving) = &mut self.phase {
            serving.allocation_done(flight, result, &mut self.io, shared);
        }
        self.io.out.settle(shared);
    }

    /// Replies to what is safe now.
    pub(super) fn release(&mut self, marks: &CommitWatermarks, shared: &mut NbdShared) {
        if let Phase::Serving(serving) = &mut self.phase {
            serving.release(marks, &mut self.io, shared);
            self.io.out.settle(shared);
        }
    }

    /// Fails what waits for an entry after `beyond`, or all that waits.
    pub(super) fn abandon(&mut self, why: &Refusal, beyond: Option<[Seq; 2]>, shared: &mut NbdShared) {
        if let Phase::Serving(serving) = &mut self.phase {
            serving.abandon(why, beyond, &mut self.io, shared);
            self.io.out.settle(shared);
        }
    }

    /// Whether an answer is owed.
    pub(super) fn waits(&self) -> bool {
        matches!(&self.phase, Phase::Serving(serving) if serving.waits())
    }

    /// The volume that it uses.
    pub(super) fn volume(&self) -> Option<FileId> {
        match &self.phase {
            Phase::Serving(serving) => Some(serving.file()),
            _ => None,
        }
    }

    /// Nothing more is carried out; it stays until it has taken its replies.
    pub(super) fn end(&mut self, shared: &mut NbdShared) {
        if matches!(self.phase, Phase::Leaving | Phase::Gone) {
            return;
        }
        self.io.out.flush(shared);
        shared.deadlines.remove(&(self.deadline, self.io.conn));
        if let Phase::Serving(serving) = std::mem::replace(&mut self.phase, Phase::Leaving) {
            let traffic = shared.traffic(serving.file());
            traffic.clients = traffic.clients.saturating_sub(1);
        }
        let reserved = shared.requests.reserved(self.io.conn);
        self.io.out.only(reserved, shared);
        self.io.out.settle(shared);
    }

    /// Whether it was ended and has nothing more to take.
    pub(super) fn has_taken_all(&self) -> bool {
        matches!(self.phase, Phase::Leaving) && self.io.out.unsent() == 0
    }

    /// Its connection is over.
    pub(super) fn leave(&mut self, shared: &mut NbdShared) {
        self.end(shared);
        self.phase = Phase::Gone;
        self.io.out.forget(shared);
        self.io.out.settle(shared);
    }

    /// Whether its connection is over.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self.phase, Phase::Gone)
    }

    /// Whether its connection is over and nothing is read for it any more.
    pub(super) fn is_over(&self) -> bool {
        self.is_gone() && self.io.out.held() == 0
    }

    /// What it has not taken, and what requests under way may add (bytes).
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.io.out.held()
    }

    /// Carries out what came, as far as it can be; with whether it got on.
    pub(super) fn advance(
        &mut self,
        shared: &mut NbdShared,
        backend: &mut impl BlockBackend,
    ) -> (Fate, bool) {
        let mut got_on = false;
        if self.io.asked {
            return (Fate::Waits, got_on);
        }
        loop {
            let step = match &mut self.phase {
                Phase::Negotiation(haggling) => haggling.step(&mut self.io, shared, backend),
                Phase::Securing | Phase::Leaving | Phase::Gone => return (Fate::Waits, got_on),
                Phase::Serving(serving) => serving.step(&mut self.io, shared, backend),
            };
            self.io.out.settle(shared);
            match step {
                NbdStep::Again => {}
                NbdStep::Input => {
                    let serves = matches!(self.phase, Phase::Serving(_));
                    self.io.receive(if serves { RECEIVE_MAX } else { RECEIVE_MIN }, shared);
                    return (Fate::Waits, got_on);
                }
                NbdStep::Fill(buffer, until) => {
                    self.io.asked = true;
                    shared.outputs.push_back(NbdOutput::Fill { conn: self.io.conn, buffer, until });
                    return (Fate::Waits, got_on);
                }
                NbdStep::Blocked => return (Fate::Blocked, got_on),
                NbdStep::End => return (Fate::Ends, got_on),
                NbdStep::StartTls => self.start_tls(shared),
                NbdStep::Serve(serving) => {
                    shared.deadlines.remove(&(self.deadline, self.io.conn));
                    shared.traffic(serving.file()).clients += 1;
                    shared.outputs.push_back(NbdOutput::Proven { conn: self.io.conn });
                    self.phase = Phase::Serving(serving);
                }
            }
            got_on = true;
        }
    }

    fn start_tls(&mut self, shared: &mut NbdShared) {
        if let Phase::Negotiation(haggling) = &self.phase {
            self.client_flags = haggling.client_flags();
        }
        self.io.out.flush(shared);
        shared.outputs.push_back(NbdOutput::StartTls { conn: self.io.conn });
        self.phase = Phase::Securing;
    }
}
