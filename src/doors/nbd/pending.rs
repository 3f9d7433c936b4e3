//! Reads that the backend has not answered yet, and how many bytes they may be.

use crate::base::ConnId;
use crate::base::limits::NBD_READS_ALL_MAX;
use std::collections::BTreeMap;

/// What was asked of the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Content, in one chunk or as it comes.
    Read {
        /// One chunk.
        whole: bool,
    },
    /// Allocations, all or the first.
    Status {
        /// The first.
        one: bool,
    },
}

/// A request that the backend will answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingRequest {
    pub(super) conn: ConnId,
    pub(super) cookie: u64,
    pub(super) offset: u64,
    pub(super) len: u32,
    pub(super) asked: Asked,
    /// What was reserved for the reply (bytes).
    pub(super) reserved: usize,
}

impl PendingRequest {
    /// What the answer will take in memory (bytes).
    pub(super) fn bytes(&self) -> usize {
        match self.asked {
            Asked::Read { .. } => size(self.len),
            Asked::Status { .. } => 0,
        }
    }
}

/// A length of the wire as one in memory.
pub(super) fn size(len: u32) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

/// Requests of all clients that the backend will answer.
#[derive(Debug, Default)]
pub(super) struct PendingRequests {
    last: u64,
    by_token: BTreeMap<u64, PendingRequest>,
    /// What is read for all of them (bytes).
    bytes: usize,
}

impl PendingRequests {
    /// Whether so much may be read now, besides the rest.
    pub(super) fn room(&self, bytes: usize) -> bool {
        self.bytes + bytes <= NBD_READS_ALL_MAX
    }

    /// The token of a request that begins.
    pub(super) fn begin(&mut self, flight: PendingRequest) -> u64 {
        self.last += 1;
        self.bytes += flight.bytes();
        self.by_token.insert(self.last, flight);
        self.last
    }

    /// The request under `token`, which is over.
    pub(super) fn take(&mut self, token: u64) -> Option<PendingRequest> {
        let flight = self.by_token.remove(&token)?;
        self.bytes -= flight.bytes();
        Some(flight)
    }

    /// What is reserved for the requests of a client (bytes).
    pub(super) fn reserved(&self, conn: ConnId) -> usize {
        self.by_token.values().filter(|flight| flight.conn == conn).map(|flight| flight.reserved).sum()
    }

    /// What is read for all clients (bytes).
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
