//! What a client is to be sent: small replies gather, what was read goes as it is.

use super::{NbdOutput, NbdShared};
use crate::base::limits::{NBD_SEND_MAX, NBD_STUCK_MS};
use crate::base::{ConnId, Mono};
use bytes::Bytes;
use std::collections::VecDeque;

/// A buffer of zeros that all clients share.
pub(super) fn zeros() -> Bytes {
    Bytes::from(vec![0; NBD_SEND_MAX])
}

/// Replies of one client.
#[derive(Debug)]
pub(super) struct ReplyQueue {
    conn: ConnId,
    /// Gathered, not yet given out.
    small: Vec<u8>,
    /// Sizes of what was given out and is not yet taken, in order.
    under_way: VecDeque<usize>,
    /// Their sum.
    bytes: usize,
    /// What requests that were begun may add (bytes).
    reserved: usize,
    /// What the budget was told of all this (bytes).
    charged: usize,
    /// When the client last took something, or something began to wait for it.
    since: Mono,
    /// When that is looked at, while something waits for it.
    watched: Option<Mono>,
}

impl ReplyQueue {
    pub(super) fn new(conn: ConnId) -> Self {
        Self {
            conn,
            small: Vec::new(),
            under_way: VecDeque::new(),
            bytes: 0,
            reserved: 0,
            charged: 0,
            since: Mono::default(),
            watched: None,
        }
    }

    /// Where small replies are appended.
    pub(super) fn small(&mut self, shared: &mut NbdShared) -> &mut Vec<u8> {
        if self.small.is_empty() {
            shared.dirty.push(self.conn);
        }
        &mut self.small
    }

    /// Sends bytes as they are, behind what was gathered.
    pub(super) fn data(&mut self, mut bytes: Bytes, shared: &mut NbdShared) {
        self.flush(shared);
        while !bytes.is_empty() {
            self.give(bytes.split_to(bytes.len().min(NBD_SEND_MAX)), shared);
        }
    }

    /// Sends so many zeros.
    pub(super) fn zeros(&mut self, len: usize, shared: &mut NbdShared) {
        let mut left = len;
        while left > 0 {
            let part = left.min(shared.zeros.len());
            self.data(shared.zeros.slice(..part), shared);
            left -= part;
        }
    }

    /// Sends what was gathered.
    pub(super) fn flush(&mut self, shared: &mut NbdShared) {
        let mut bytes = Bytes::from(std::mem::take(&mut self.small));
        while !bytes.is_empty() {
            self.give(bytes.split_to(bytes.len().min(NBD_SEND_MAX)), shared);
        }
    }

    fn give(&mut self, bytes: Bytes, shared: &mut NbdShared) {
        if self.under_way.is_empty() {
            self.since = shared.now;
            self.watch(shared);
        }
        self.under_way.push_back(bytes.len());
        self.bytes += bytes.len();
        shared.outputs.push_back(NbdOutput::Send { conn: self.conn, bytes });
    }

    /// The oldest of what was given out was taken.
    pub(super) fn sent(&mut self, shared: &mut NbdShared) {
        self.bytes -= self.under_way.pop_front().unwrap_or(0);
        self.since = shared.now;
        if self.under_way.is_empty() {
            self.unwatch(shared);
        }
    }

    fn watch(&mut self, shared: &mut NbdShared) {
        let at = self.since.plus_ms(NBD_STUCK_MS);
        self.watched = Some(at);
        shared.watches.insert((at, self.conn));
    }

    fn unwatch(&mut self, shared: &mut NbdShared) {
        if let Some(at) = self.watched.take() {
            shared.watches.remove(&(at, self.conn));
        }
    }

    /// The time to look at it has come: whether the client took nothing of what waited for it all the time.
    pub(super) fn is_stuck(&mut self, shared: &mut NbdShared) -> bool {
        self.watched = None;
        let stuck = self.since.plus_ms(NBD_STUCK_MS) <= shared.now;
        if !stuck {
            self.watch(shared);
        }
        stuck
    }

    /// A request is begun whose reply will be so long at most.
    pub(super) fn reserve(&mut self, bytes: usize) {
        self.reserved += bytes;
    }

    /// The reply for which so much was reserved is given, or there will be none.
    pub(super) fn release(&mut self, bytes: usize) {
        self.reserved -= bytes;
    }

    /// Tells the budget what the client holds now. Due after everything that changes it.
    pub(super) fn settle(&mut self, shared: &mut NbdShared) {
        self.charged = shared.budget.settle(self.charged, self.held());
    }

    /// The client asks for nothing more; of what was reserved only so much is still due.
    pub(super) fn only(&mut self, reserved: usize, shared: &mut NbdShared) {
        self.reserved = reserved;
        shared.budget.step_back(self.conn);
    }

    /// The client is gone, and with it what it did not take.
    pub(super) fn forget(&mut self, shared: &mut NbdShared) {
        self.small = Vec::new();
        self.under_way = VecDeque::new();
        self.bytes = 0;
        self.unwatch(shared);
    }

    /// What the client has not taken (bytes).
    pub(super) fn unsent(&self) -> usize {
        self.bytes + self.small.len()
    }

    /// The same, and what begun requests may add (bytes).
    pub(super) fn held(&self) -> usize {
        self.unsent() + self.reserved
    }
}
