//! Reads that the backend has not answered yet, and how many bytes they may be.

use crate::base::ConnId;
use crate::base::limits::NBD_READS_ALL_MAX;
use std::collections::{BTreeMap, VecDeque};

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
pub(super) struct Flight {
    pub(super) conn: ConnId,
    pub(super) cookie: u64,
    pub(super) offset: u64,
    pub(super) len: u32,
    pub(super) asked: Asked,
}

impl Flight {
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
pub(super) struct Flights {
    last: u64,
    by_token: BTreeMap<u64, Flight>,
    /// What is read for all of them (bytes).
    bytes: usize,
    /// Clients whose next read found no room, in order.
    queue: VecDeque<ConnId>,
}

impl Flights {
    /// Whether a client may read so much now. If not, nobody else may before it.
    pub(super) fn room(&mut self, conn: ConnId, bytes: usize) -> bool {
        let first = self.queue.front().is_none_or(|first| *first == conn);
        let room = first && self.bytes + bytes <= NBD_READS_ALL_MAX;
        if room {
            self.step_back(conn);
        } else if !self.queue.contains(&conn) {
            self.queue.push_back(conn);
        }
        room
    }

    /// The client wants no room now.
    pub(super) fn step_back(&mut self, conn: ConnId) {
        self.queue.retain(|other| *other != conn);
    }

    /// The token of a request that begins.
    pub(super) fn begin(&mut self, flight: Flight) -> u64 {
        self.last += 1;
        self.bytes += flight.bytes();
        self.by_token.insert(self.last, flight);
        self.last
    }

    /// The request under `token`, which is over.
    pub(super) fn take(&mut self, token: u64) -> Option<Flight> {
        let flight = self.by_token.remove(&token)?;
        self.bytes -= flight.bytes();
        Some(flight)
    }

    /// The client is gone.
    pub(super) fn leave(&mut self, conn: ConnId) {
        self.step_back(conn);
        let bytes = &mut self.bytes;
        self.by_token.retain(|_, flight| {
            let stays = flight.conn != conn;
            *bytes -= if stays { 0 } else { flight.bytes() };
            stays
        });
    }

    /// What is read for all clients (bytes).
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
