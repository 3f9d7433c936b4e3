//! Makes a set of what a node sends.

use super::target::Output;
use super::{Digest, SetError, Target};
use crate::base::{Position, crc32c};
use crate::engine::{SetWalk, WalkError};
use crate::format::PairId;
use crate::format::alone::Alone;
use crate::format::batch::Batch;
use crate::format::chunk::Chunk;
use crate::format::set::{
    BLOCK_HEADER, BlockHeader, BlockKind, Packing, PartHeader, SetBegin, SetId, Trailer, footer,
};
use crate::format::since::Same;
use crate::node::tape::About;
use bytes::Bytes;

/// How payloads are packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pack {
    /// Not at all.
    #[default]
    None,
    /// LZ4, where that makes them shorter.
    Lz4,
}

/// Writes a set; without [`Self::finish`] it is removed again, as far as it can be.
pub struct SetWriter {
    output: Output,
    pack: Pack,
    header: PartHeader,
    digest: Digest,
    walk: SetWalk,
    /// The next block.
    number: u64,
    /// Bytes of the part.
    offset: u64,
    written: u64,
}

impl std::fmt::Debug for SetWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SetWriter(block {}, {} bytes)", self.number, self.written)
    }
}

/// What a set is begun with.
#[derive(Clone, Debug)]
pub struct Head {
    /// The set.
    pub set: SetId,
    /// The pair.
    pub pair: PairId,
    /// Now (ms since 1970).
    pub wall_ms: u64,
    /// Whether what the node has alone comes at the end.
    pub alone: bool,
}

fn misplaced(error: &WalkError) -> SetError {
    // The node checks what it sends by the same rule.
    SetError::NoSet { what: "what the node sent".to_owned(), why: error.to_string() }
}

impl SetWriter {
    /// Begins a set.
    ///
    /// # Errors
    /// Any [`SetError`] but those of reading.
    pub fn begin(target: Target, pack: Pack, head: &Head, begin: &SetBegin) -> Result<Self, SetError> {
        let unfit = |why: String| SetError::NoSet { what: "what the node sent".to_owned(), why };
        let payload = begin.encode().map_err(|error| unfit(error.to_string()))?;
        let walk = SetWalk::begin(head.pair, &begin.copy, &begin.account).map_err(|e| misplaced(&e))?;
        let Head { set, pair, wall_ms, alone } = *head;
        let Position { epoch, seq, .. } = begin.copy.origin;
        let about = About { spool: None, save: set, pair, epoch, seq, node: begin.node.clone() };
        let mut this = Self {
            output: Output::open(target, &about)?,
            pack,
            header: PartHeader {
                since: begin.base.is_some(),
                alone,
                part: 0,
                set,
                pair,
                wall_ms,
                first_block: 0,
            },
            digest: Digest::new(),
            walk,
            number: 0,
            offset: 0,
            written: 0,
        };
        this.next_part()?;
        this.block(BlockKind::Begin, 0, payload.into())?;
        Ok(this)
    }

    /// Takes a batch as it came.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn batch(&mut self, batch: &Batch) -> Result<(), SetError> {
        self.walk.batch(batch).map_err(|error| misplaced(&error))?;
        self.room()?;
        self.block(BlockKind::Batch, batch.header().last_seq().0, batch.wire())
    }

    /// Takes what the node has alone, with its bytes as they came; chunks of that follow, and no batch.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn alone(&mut self, alone: &Alone, payload: &Bytes) -> Result<(), SetError> {
        if !self.header.alone || self.walk.is_alone() || !self.walk.is_whole() {
            let why = "what the node has alone is not in its place".to_owned();
            return Err(SetError::NoSet { what: "what the node sent".to_owned(), why });
        }
        self.walk.alone(alone).map_err(|error| misplaced(&error))?;
        self.room()?;
        self.block(BlockKind::Alone, 0, payload.clone())
    }

    /// Takes a chunk with its bytes as they came.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn chunk(&mut self, chunk: &Chunk, payload: &Bytes) -> Result<(), SetError> {
        self.walk.chunk(chunk).map_err(|error| misplaced(&error))?;
        self.room()?;
        self.block(BlockKind::Chunk, chunk.file.0, payload.clone())
    }

    /// Takes a range that is as the earlier set left it, with its bytes as they came.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn same(&mut self, same: &Same, payload: &Bytes) -> Result<(), SetError> {
        self.walk.chunk(&same.range).map_err(|error| misplaced(&error))?;
        self.room()?;
        self.block(BlockKind::Same, same.range.file.0, payload.clone())
    }

    /// How far it is.
    #[must_use]
    pub fn walk(&self) -> &SetWalk {
        &self.walk
    }

    /// Bytes written.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Makes all of it durable, then the trailer: now it is a save.
    ///
    /// # Errors
    /// As [`Self::begin`]; also when something is missing.
    ///
    /// # Durability
    /// When it returns, the set and its name are synced. On a pipe the bytes were handed over.
    pub fn finish(mut self, wall_ms: u64) -> Result<Trailer, SetError> {
        if !self.walk.is_whole() || self.walk.is_alone() != self.header.alone {
            let why = format!("it ends before {}", self.walk.place(self.walk.next()));
            return Err(SetError::NoSet { what: "what the node sent".to_owned(), why });
        }
        self.output.sync()?;
        let trailer = Trailer {
            end: self.walk.end(),
            wall_ms,
            counts: self.walk.counts(),
            digest: self.digest.value(),
            files: self.walk.files(),
            alone: self.walk.alone_files(),
        };
        let at = self.offset;
        self.block(BlockKind::Trailer, 0, trailer.encode().into())?;
        self.write(Bytes::copy_from_slice(&footer(at)))?;
        self.output.finish()?;
        Ok(trailer)
    }

    /// Goes on in another file if this one is large enough.
    fn room(&mut self) -> Result<(), SetError> {
        if self.output.is_full(self.offset) {
            self.block(BlockKind::PartEnd, 0, Bytes::new())?;
            self.output.sync()?;
            self.next_part()?;
        }
        Ok(())
    }

    fn next_part(&mut self) -> Result<(), SetError> {
        let part = self.header.part + 1;
        self.header = PartHeader { part, first_block: self.number, ..self.header };
        self.output.begin(part)?;
        self.offset = 0;
        self.write(Bytes::copy_from_slice(&self.header.encode()))
    }

    fn block(&mut self, kind: BlockKind, about: u64, payload: Bytes) -> Result<(), SetError> {
        let packed = match self.pack {
            Pack::Lz4 if matches!(kind, BlockKind::Batch | BlockKind::Chunk) => {
                Some(lz4_flex::block::compress(&payload)).filter(|packed| packed.len() < payload.len())
            }
            _ => None,
        };
        let (raw, packing) = (payload.len(), if packed.is_some() { Packing::Lz4 } else { Packing::Plain });
        let stored = packed.map_or(payload, Bytes::from);
        let long = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        let header = BlockHeader {
            number: self.number,
            kind,
            packing,
            stored: long(stored.len()),
            raw: long(raw),
            about,
            crc: crc32c(&stored),
        };
        let head: [u8; BLOCK_HEADER] = header.encode(self.header.set);
        self.write(Bytes::copy_from_slice(&head))?;
        self.write(stored)?;
        self.number += 1;
        Ok(())
    }

    fn write(&mut self, bytes: Bytes) -> Result<(), SetError> {
        self.digest.update(bytes.clone());
        self.output.write(&bytes)?;
        self.offset += bytes.len() as u64;
        self.written += bytes.len() as u64;
        Ok(())
    }
}
