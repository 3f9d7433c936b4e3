//! The payload of a write, on its way into the backend in pieces.

use super::BlockBackend;
use super::pending::size;
use super::refusal::Fail;
use super::session::{Io, NbdStep};
use crate::base::limits::{BLOCK, BLOCK_OWN_BATCH_MIN, BLOCK_PAYLOAD_MAX};
use crate::base::{AlignedBuf, FileId, Wait};
use crate::doors::{PAYLOAD_HEADROOM, Payload};
use crate::format::nbd::{CMD_FLAG_FUA, ENOSPC, EPERM, Request};

/// A write whose payload has not come to its end.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) cookie: u64,
    /// The reply waits until the write is safe.
    pub(super) fua: bool,
    offset: u64,
    len: u32,
    left: usize,
    /// Of the last piece that was accepted.
    pub(super) wait: Option<Wait>,
    /// What is left of the payload is thrown away.
    pub(super) failed: Option<Fail>,
    /// A piece that is being collected.
    piece: Option<AlignedBuf>,
    /// The volume was looked at since others could change it.
    looked: bool,
}

impl Incoming {
    /// A write that was checked, or that fails.
    pub(super) fn new(request: &Request, checked: Result<(), Fail>) -> Self {
        Self {
            cookie: request.cookie,
            fua: request.flags & CMD_FLAG_FUA != 0,
            offset: request.offset,
            len: request.len,
            left: size(request.len),
            wait: None,
            failed: checked.err(),
            piece: None,
            looked: true,
        }
    }

    /// The whole payload (bytes).
    pub(super) fn bytes(&self) -> u64 {
        u64::from(self.len)
    }

    pub(super) fn filled(&mut self, mut buffer: AlignedBuf) {
        buffer.truncate(PAYLOAD_HEADROOM + self.left.min(BLOCK_PAYLOAD_MAX));
        self.piece = Some(buffer);
    }

    /// Takes what came. `None` when the payload is at its end.
    pub(super) fn step(
        &mut self,
        file: FileId,
        io: &mut Io,
        backend: &mut impl BlockBackend,
    ) -> Option<NbdStep> {
        let step = loop {
            if self.left == 0 {
                return None;
            }
            let part = self.left.min(BLOCK_PAYLOAD_MAX);
            let step = match part {
                _ if self.failed.is_some() => self.drain(io),
                large if large >= BLOCK_OWN_BATCH_MIN => self.large(large, file, io, backend),
                small => self.small(small, file, io, backend),
            };
            match step {
                NbdStep::Again => {}
                other => break other,
            }
        };
        // Whoever is heard before the next step may change the volume.
        self.looked = false;
        Some(step)
    }

    fn drain(&mut self, io: &mut Io) -> NbdStep {
        let part = self.left.min(io.unread().len());
        io.consume(part);
        self.left -= part;
        if self.left == 0 { NbdStep::Again } else { NbdStep::Input }
    }

    /// A piece in a buffer of its own.
    fn large(&mut self, part: usize, file: FileId, io: &mut Io, backend: &mut impl BlockBackend) -> NbdStep {
        let until = PAYLOAD_HEADROOM + part;
        let mut buffer = self.piece.take().unwrap_or_else(|| {
            let mut buffer = AlignedBuf::with_capacity(until.next_multiple_of(BLOCK));
            buffer.extend_from_slice(&[0; PAYLOAD_HEADROOM]);
            buffer
        });
        let here = io.unread().len().min(until.saturating_sub(buffer.len()));
        buffer.extend_from_slice(io.unread().get(..here).unwrap_or_default());
        io.consume(here);
        if buffer.len() < until {
            return NbdStep::Fill(buffer, until);
        }
        if backend.blocks_congested() {
            self.piece = Some(buffer);
            return NbdStep::Blocked;
        }
        self.accept(part, file, Payload::Owned(buffer), backend);
        NbdStep::Again
    }

    /// A piece that is copied from where it came.
    fn small(&mut self, part: usize, file: FileId, io: &mut Io, backend: &mut impl BlockBackend) -> NbdStep {
        let Some(bytes) = io.unread().get(..part) else { return NbdStep::Input };
        if backend.blocks_congested() {
            return NbdStep::Blocked;
        }
        self.accept(part, file, Payload::Borrowed(bytes), backend);
        io.consume(part);
        NbdStep::Again
    }

    fn accept(&mut self, part: usize, file: FileId, payload: Payload<'_>, backend: &mut impl BlockBackend) {
        let bytes = u64::try_from(part).unwrap_or(u64::MAX);
        let accepted = self
            .look(file, bytes, backend)
            .and_then(|()| backend.write_blocks(file, self.offset, payload).map_err(Fail::from));
        match accepted {
            Ok(wait) => self.wait = Some(wait),
            Err(fail) => self.failed = Some(fail),
        }
        self.left -= part;
        self.offset = self.offset.saturating_add(bytes);
    }

    /// Whether the next piece still fits the volume.
    fn look(&mut self, file: FileId, bytes: u64, backend: &impl BlockBackend) -> Result<(), Fail> {
        if self.looked {
            return Ok(());
        }
        self.looked = true;
        let volume = backend.volume(file)?;
        if !volume.writable {
            return Err(Fail::new(EPERM, "the volume is read-only"));
        }
        match self.offset.checked_add(bytes) {
            Some(end) if end <= volume.bytes => Ok(()),
            _ => Err(Fail::new(ENOSPC, "beyond the end of the volume")),
        }
    }
}
