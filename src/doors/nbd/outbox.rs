//! What a client is to be sent: small replies gather, what was read goes as it is.

use super::{NbdOutput, Shared};
use crate::base::ConnId;
use bytes::Bytes;
use std::collections::VecDeque;

/// Zeros that are sent at once (bytes).
const ZEROS: usize = 256 << 10;

/// A buffer of zeros that all clients share.
pub(super) fn zeros() -> Bytes {
    Bytes::from(vec![0; ZEROS])
}

/// Replies of one client.
#[derive(Debug)]
pub(super) struct Outbox {
    conn: ConnId,
    /// Gathered, not yet given out.
    small: Vec<u8>,
    /// Sizes of what was given out and is not yet taken, in order.
    under_way: VecDeque<usize>,
    /// Their sum.
    bytes: usize,
}

impl Outbox {
    pub(super) fn new(conn: ConnId) -> Self {
        Self { conn, small: Vec::new(), under_way: VecDeque::new(), bytes: 0 }
    }

    /// Where small replies are appended.
    pub(super) fn small(&mut self, shared: &mut Shared) -> &mut Vec<u8> {
        if self.small.is_empty() {
            shared.dirty.push(self.conn);
        }
        &mut self.small
    }

    /// Sends bytes as they are, behind what was gathered.
    pub(super) fn data(&mut self, bytes: Bytes, shared: &mut Shared) {
        self.flush(shared);
        self.give(bytes, shared);
    }

    /// Sends so many zeros.
    pub(super) fn zeros(&mut self, len: usize, shared: &mut Shared) {
        let mut left = len;
        while left > 0 {
            let part = left.min(shared.zeros.len());
            self.data(shared.zeros.slice(..part), shared);
            left -= part;
        }
    }

    /// Sends what was gathered.
    pub(super) fn flush(&mut self, shared: &mut Shared) {
        if !self.small.is_empty() {
            let bytes = Bytes::from(std::mem::take(&mut self.small));
            self.give(bytes, shared);
        }
    }

    fn give(&mut self, bytes: Bytes, shared: &mut Shared) {
        if bytes.is_empty() {
            return;
        }
        self.under_way.push_back(bytes.len());
        self.bytes += bytes.len();
        shared.unsent += bytes.len();
        shared.outputs.push_back(NbdOutput::Send { conn: self.conn, bytes });
    }

    /// The oldest of what was given out was taken.
    pub(super) fn sent(&mut self, shared: &mut Shared) {
        let bytes = self.under_way.pop_front().unwrap_or(0);
        self.bytes -= bytes;
        shared.unsent -= bytes;
    }

    /// The client is gone.
    pub(super) fn leave(&self, shared: &mut Shared) {
        shared.unsent -= self.bytes;
    }

    /// What the client has not taken (bytes).
    pub(super) fn unsent(&self) -> usize {
        self.bytes + self.small.len()
    }
}
