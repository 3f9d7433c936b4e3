//! A view: the database as it was at one moment, with doors of its own, beside the node that goes on.
//!
//! It is a machine as the engine is one, and is driven by the same loop of connections; it has no journal and no peer. What
//! is written to a writable view stands in a layer of its own, and goes with it.
//!
//! - Invariant: nothing that a view is asked for reaches the store, the volumes or a journal of the node.
//! - Boundary: it reads the moment directly, and may wait for the disk: a thread of its own drives it.

mod backend;
mod listing;
mod terms;

#[cfg(test)]
mod tests;

use super::effect::{ClientDoor, ClientEffect};
use super::event::ClientEvent;
use crate::base::{ConnId, Fault, FileId, Mono, Now, Seq};
use crate::doors::nbd::{NbdConfig, NbdDoor};
pub use crate::doors::resp::RespConfig;
use crate::doors::resp::RespDoor;
use crate::store::StoreSnapshot;
use crate::store::namespace::Namespace;
use backend::{Answer, ViewBackend};
use bytes::Bytes;
pub use listing::listing_of;

/// Volumes as they were at the moment, with what was written to the view over them. Any call may wait for the disk.
pub trait ViewBlocks {
    /// Reads a range.
    ///
    /// # Errors
    /// What the files say; [`Fault::UNCLEAN`] for a block that was damaged.
    fn read(&mut self, file: FileId, offset: u64, len: usize) -> Result<Bytes, Fault>;

    /// Writes a range, to the view alone.
    ///
    /// # Errors
    /// [`Fault::NoSpace`] when the view's room is used up; else what the files say.
    fn write(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), Fault>;

    /// Makes a range zeros, in the view alone.
    ///
    /// # Errors
    /// As [`Self::write`].
    fn zero(&mut self, file: FileId, offset: u64, len: u64) -> Result<(), Fault>;

    /// What takes space in a range, in order: how long (bytes), and whether it is a hole.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn allocation(&mut self, file: FileId, offset: u64, len: u64) -> Result<Vec<(u64, bool)>, Fault>;
}

/// What a view shows.
#[derive(Debug)]
pub struct ViewOf<S, B> {
    /// The last entry of each journal.
    pub applied: [Seq; 2],
    /// The epoch in which it was opened.
    pub epoch: u64,
    /// The definitions.
    pub namespace: Namespace,
    /// The items.
    pub items: S,
    /// The volumes.
    pub blocks: B,
    /// Whether clients may change it.
    pub writable: bool,
}

/// One view. Call [`Self::input`] with each event of a client, then [`Self::pump`], then take [`Self::output`] until it is
/// empty.
#[derive(Debug)]
pub struct View<S, B> {
    backend: ViewBackend<S, B>,
    door: RespDoor,
    nbd: NbdDoor,
}

impl<S: StoreSnapshot, B: ViewBlocks> View<S, B> {
    /// A view without clients.
    #[must_use]
    pub fn new(of: ViewOf<S, B>, config: RespConfig) -> Self {
        let backend = ViewBackend::new(of, config.run);
        Self { backend, door: RespDoor::new(config), nbd: NbdDoor::new(NbdConfig::default()) }
    }

    /// Tells what happened to a client.
    pub fn input(&mut self, now: Now, event: ClientEvent) {
        let backend = &mut self.backend;
        let of_blocks = |nbd: &NbdDoor, conn: ConnId| nbd.knows(conn);
        match event {
            ClientEvent::Opened { conn, door: ClientDoor::Items { trusted } } => {
                self.door.open(now, conn, trusted)
            }
            ClientEvent::Opened { conn, door: ClientDoor::Blocks { tls } } => self.nbd.open(now, conn, tls),
            ClientEvent::Placed { conn, place } => self.door.placed(conn, *place),
            ClientEvent::Bytes { conn, bytes } if of_blocks(&self.nbd, conn) => {
                self.nbd.input(now, conn, bytes, backend);
            }
            ClientEvent::Bytes { conn, bytes } => self.door.input(now, conn, bytes, backend),
            ClientEvent::Filled { conn, buffer } => self.nbd.filled(now, conn, buffer, backend),
            ClientEvent::Secured { conn } => self.nbd.secured(conn),
            ClientEvent::Sent { conn } if of_blocks(&self.nbd, conn) => self.nbd.sent(now, conn),
            ClientEvent::Sent { conn } => drop(self.door.sent(conn)),
            ClientEvent::Ended { conn, .. } if of_blocks(&self.nbd, conn) => self.nbd.ended(conn),
            ClientEvent::Ended { conn, drained } => self.door.ended(now, conn, drained, backend),
            ClientEvent::Closed { conn } if of_blocks(&self.nbd, conn) => self.nbd.close(conn),
            ClientEvent::Closed { conn } => self.door.close(conn),
        }
    }

    /// Lets every client go on as far as it can.
    pub fn pump(&mut self, now: Now) {
        self.door.begin_round();
        loop {
            let answers = self.backend.take_answers();
            let idle = answers.is_empty();
            for answer in answers {
                match answer {
                    Answer::Read(token, result) => self.nbd.read_done(now, token, result),
                    Answer::Allocation(token, result) => self.nbd.allocation_done(now, token, result),
                }
            }
            self.nbd.tick(now, &mut self.backend);
            self.nbd.release(now, &mut self.backend);
            if idle {
                break;
            }
        }
        self.door.tick(now, &mut self.backend);
        self.door.release(now, &mut self.backend);
    }

    /// The next thing to do.
    pub fn output(&mut self) -> Option<ClientEffect> {
        self.door.output().map(Into::into).or_else(|| self.nbd.output().map(Into::into))
    }

    /// When [`Self::pump`] is due although nothing happened.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        self.door.deadline().into_iter().chain(self.nbd.deadline()).min()
    }

    /// Clients connected.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.door.clients() + self.nbd.clients()
    }

    /// What is held of items that were written (bytes).
    #[must_use]
    pub fn written(&self) -> usize {
        self.backend.written()
    }
}
