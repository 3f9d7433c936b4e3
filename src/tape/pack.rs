//! A stream of bytes into blocks.

use super::cipher::SessionKey;
use crate::base::limits::REEL_LABEL;
use crate::base::{AlignedBuf, Chain, crc32c};
use crate::format::reel::{REEL_HEADER, ReelBlock, ReelEnd, ReelKind, ReelLabel, SessionEnd, TAG};
use crate::format::set::SetId;

/// A block that is ready for a reel.
#[derive(Debug)]
pub struct Block {
    /// Its head; the reel may change until it is written.
    pub header: ReelBlock,
    bytes: AlignedBuf,
}

impl Block {
    fn new(header: ReelBlock, payload: &[u8], padded: usize) -> Self {
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let header = ReelBlock { len, crc: crc32c(payload), ..header };
        let mut bytes = AlignedBuf::with_capacity(padded.max(REEL_HEADER + payload.len()));
        bytes.extend_from_slice(&header.encode());
        bytes.extend_from_slice(payload);
        if bytes.len() < padded {
            bytes.extend_from_slice(&vec![0; padded - bytes.len()]);
        }
        Self { header, bytes }
    }

    /// The bytes as they stand on that reel; they begin at a page boundary.
    pub fn on_reel(&mut self, reel: u32) -> &[u8] {
        if self.header.reel != reel {
            self.header.reel = reel;
            let head = self.header.encode();
            self.bytes.as_mut_slice().iter_mut().zip(head).for_each(|(byte, new)| *byte = new);
        }
        self.bytes.as_ref()
    }

    /// Bytes on the reel.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// False: every block has a header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The label of a reel of this set.
    #[must_use]
    pub fn label(set: SetId, reel: u32, (sequence, chain): (u64, Chain), label: &ReelLabel) -> Self {
        let head = head(ReelKind::Label, set, SetId::default(), sequence, chain);
        Self::new(ReelBlock { reel, ..head }, &label.encode(), REEL_LABEL)
    }

    /// What a full reel ends with.
    #[must_use]
    pub fn reel_end(
        (set, session): (SetId, SetId),
        reel: u32,
        (sequence, chain): (u64, Chain),
        first: u64,
    ) -> Self {
        let head = head(ReelKind::ReelEnd, set, session, sequence, chain);
        Self::new(ReelBlock { reel, ..head }, &ReelEnd { next: reel + 1, first }.encode(), 0)
    }
}

/// The label of a reel that is prepared for any set.
#[must_use]
pub fn prepared(label: &ReelLabel) -> Block {
    Block::label(SetId::default(), 0, (0, Chain(0)), label)
}

fn head(kind: ReelKind, set: SetId, session: SetId, sequence: u64, chain: Chain) -> ReelBlock {
    ReelBlock {
        kind,
        sealed: false,
        len: 0,
        crc: 0,
        reel: 0,
        set,
        session,
        sequence,
        chain,
        start: 0,
        first: 0,
        last: 0,
    }
}

/// Packs one session.
#[derive(Debug)]
pub struct Packer {
    set: SetId,
    session: SetId,
    key: Option<SessionKey>,
    /// Bytes of a full block, with its header.
    block_size: usize,
    start: u64,
    sequence: u64,
    chain: Chain,
    /// Bytes of the stream in blocks that were given.
    offset: u64,
    /// The block in the making, with room for its header.
    open: AlignedBuf,
}

impl Packer {
    /// Of a session that begins with this sequence and chain.
    #[must_use]
    pub fn new(
        (set, session): (SetId, SetId),
        (sequence, chain): (u64, Chain),
        block_size: u32,
        key: Option<SessionKey>,
    ) -> Self {
        let block_size = block_size as usize;
        let open = fresh(block_size);
        Self { set, session, key, block_size, start: sequence, sequence, chain, offset: 0, open }
    }

    /// Goes on with a session of which so many bytes are in blocks already, from its first block on.
    #[must_use]
    pub fn resumed(mut self, start: u64, offset: u64) -> Self {
        (self.start, self.offset) = (start, offset);
        self
    }

    /// Bytes of the stream in a full block.
    #[must_use]
    pub fn payload(&self) -> u64 {
        (self.block_size - REEL_HEADER - self.tag()) as u64
    }

    fn tag(&self) -> usize {
        if self.key.is_some() { TAG } else { 0 }
    }

    /// Takes bytes from the front of `bytes`; gives a block when one is full. Nothing is left of `bytes` when none is given.
    pub fn push(&mut self, bytes: &mut &[u8]) -> Option<Block> {
        let room = self.block_size - self.tag() - self.open.len();
        let (now, later) = bytes.split_at(room.min(bytes.len()));
        self.open.extend_from_slice(now);
        *bytes = later;
        (now.len() == room).then(|| self.close())
    }

    /// The last blocks of the session: what is left of the stream, and its end.
    pub fn finish(&mut self) -> (Option<Block>, Block) {
        let last = (self.open.len() > REEL_HEADER).then(|| self.close());
        let (bytes, blocks) = (self.offset, self.sequence - self.start);
        let end = head(ReelKind::SessionEnd, self.set, self.session, self.sequence, self.chain);
        let end = ReelBlock { start: self.start, first: bytes, last: bytes, ..end };
        let end = Block::new(end, &SessionEnd { bytes, blocks }.encode(), 0);
        (self.sequence, self.chain) = (end.header.sequence_behind(), end.header.chain_behind());
        (last, end)
    }

    fn close(&mut self) -> Block {
        let mut bytes = std::mem::replace(&mut self.open, fresh(self.block_size));
        let content = (bytes.len() - REEL_HEADER) as u64;
        let len = u32::try_from(bytes.len() - REEL_HEADER + self.tag()).unwrap_or(u32::MAX);
        let (first, last) = (self.offset, self.offset + content);
        let head = head(ReelKind::Data, self.set, self.session, self.sequence, self.chain);
        let mut header = ReelBlock { start: self.start, first, last, len, ..head };
        if let Some(key) = &self.key {
            header.sealed = true;
            let (_, payload) = bytes.as_mut_slice().split_at_mut(REEL_HEADER);
            let tag = key.seal(&header, payload);
            bytes.extend_from_slice(&tag);
        }
        let (place, payload) = bytes.as_mut_slice().split_at_mut(REEL_HEADER);
        header.crc = crc32c(payload);
        place.copy_from_slice(&header.encode());
        self.offset = last;
        (self.sequence, self.chain) = (header.sequence_behind(), header.chain_behind());
        Block { header, bytes }
    }
}

fn fresh(block_size: usize) -> AlignedBuf {
    let mut open = AlignedBuf::with_capacity(block_size);
    open.extend_from_slice(&[0; REEL_HEADER]);
    open
}
