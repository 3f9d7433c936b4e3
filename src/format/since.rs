//! What a save set holds that was made since an earlier one: which set it continues, and for each range that is still as that
//! set left it a mark in the place of content.
//!
//! **Base**, before all else in the beginning of such a set (see [`super::set`])
//!
//! | size | field |
//! |---|---|
//! | 16 | `set`: the earlier set |
//! | 24 | its end position: epoch, seq, chain |
//! | 8 | when it ended (ms since 1970) |
//! | 32 | its digest, as in its trailer |
//!
//! **Same**, a block where a chunk would stand; between node and command also what the earlier set is known to hold
//!
//! | size | field |
//! |---|---|
//! | 32 | blake3 of the content of the range, as a compare hashes it (see [`super::compare`]); zeros if it is not known |
//! | .. | a [`Chunk`] without items or blocks: the range |
//!
//! Golden file: `tests/data/set-v2.hbs`.

use super::chunk::{Chunk, Content, Next};
use super::compare::digest;
use super::set::SetId;
use super::{DecodeError, Reader, Writer};
use crate::base::{Chain, Epoch, Position, Seq};
use bytes::Bytes;

/// Bytes of a base.
pub(super) const BASE: usize = 80;
/// The hash of what is not known.
pub const UNKNOWN: [u8; 32] = [0; 32];

/// The set that another one continues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetBase {
    /// Its number.
    pub set: SetId,
    /// The state that it holds.
    pub end: Position,
    /// When it ended (ms since 1970).
    pub wall_ms: u64,
    /// The digest in its trailer.
    pub digest: [u8; 32],
}

impl SetBase {
    pub(super) fn put(&self, w: &mut Writer) {
        w.put(&self.set.0).u64(self.end.epoch.0).u64(self.end.seq.0).u64(self.end.chain.0);
        w.u64(self.wall_ms).put(&self.digest);
    }

    pub(super) fn take(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let set = SetId(r.array()?);
        let epoch = Epoch(r.number("epoch of the earlier set")?);
        let end = Position { epoch, seq: Seq(r.number("end of the earlier set")?), chain: Chain(r.u64()?) };
        Ok(Self { set, end, wall_ms: r.u64()?, digest: r.array()? })
    }
}

/// A range that holds what the earlier set holds there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Same {
    /// Of its content; [`UNKNOWN`] if that is not known.
    pub hash: [u8; 32],
    /// The range, in the place of its content.
    pub range: Chunk,
}

impl Same {
    /// What a chunk says of its range, without its content.
    #[must_use]
    pub fn of(chunk: &Chunk) -> Self {
        let hash = digest(&chunk.content, None).hash;
        // Ids of their own, so that the content is not held by them.
        let copied = |id: &Bytes| Bytes::copy_from_slice(id);
        let content = match &chunk.content {
            Content::Gone | Content::Equal | Content::Differs => Content::Gone,
            Content::Items { after, through, .. } => {
                Content::Items { after: copied(after), through: copied(through), items: Vec::new() }
            }
            Content::Blocks { offset, len, .. } => {
                Content::Blocks { offset: *offset, len: *len, runs: Vec::new() }
            }
        };
        Self { hash, range: Chunk { content, ..chunk.clone() } }
    }

    /// Whether it is the same range of the same file, with the same content, which is known.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        let alike = self.range.file == other.range.file && self.range.ends == other.range.ends;
        alike && self.range.content == other.range.content && self.hash == other.hash && self.hash != UNKNOWN
    }

    /// Where the range begins, in the order of a set.
    #[must_use]
    pub fn begin(&self) -> Next {
        match &self.range.content {
            Content::Gone | Content::Equal | Content::Differs => Next::Nothing,
            Content::Items { after, .. } => Next::Items(self.range.file, after.clone()),
            Content::Blocks { offset, .. } => Next::Blocks(self.range.file, *offset),
        }
    }

    /// The payload's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let range = self.range.encode();
        let mut w = Writer::with_capacity(32 + range.len());
        w.put(&self.hash).put(&range);
        w.into_bytes()
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics. A range with content is refused.
    pub fn decode(payload: &Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new("range of an earlier set", payload);
        let hash = r.array()?;
        let range = Chunk::decode(&payload.slice_ref(r.rest()))?;
        let empty = match &range.content {
            Content::Gone | Content::Equal | Content::Differs => false,
            Content::Items { items, .. } => items.is_empty(),
            Content::Blocks { runs, .. } => runs.is_empty(),
        };
        r.expect("content in a range of an earlier set", 0, u64::from(!empty))?;
        Ok(Self { hash, range })
    }
}

/// Decodes any bytes as a range of an earlier set.
pub fn fuzz_same(bytes: &[u8]) {
    if let Ok(same) = Same::decode(&Bytes::copy_from_slice(bytes)) {
        assert_eq!(Same::decode(&same.encode().into()), Ok(same));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::FileId;

    fn items() -> Chunk {
        let items = vec![(Bytes::from("b"), Bytes::from("2"))];
        let content = Content::Items { after: Bytes::from("a"), through: Bytes::from("d"), items };
        Chunk { id: 3, file: FileId(4), at: Seq(80), until: Seq(80), content, ends: false }
    }

    fn blocks() -> Chunk {
        let runs = vec![(4096, Bytes::from_static(&[7; 4096]))];
        Chunk { content: Content::Blocks { offset: 4096, len: 65536, runs }, ends: true, ..items() }
    }

    #[test]
    fn a_range_reads_back_without_its_content_and_no_cut_or_change_of_it_panics() {
        for chunk in [items(), blocks()] {
            let same = Same::of(&chunk);
            assert_eq!(same.hash, digest(&chunk.content, None).hash);
            assert_eq!(same.range.content.bytes(), 0);
            let bytes = same.encode();
            assert_eq!(Same::decode(&bytes.clone().into()), Ok(same));
            for bit in 0..bytes.len() * 8 {
                let mut other = bytes.clone();
                other[bit / 8] ^= 1 << (bit % 8);
                fuzz_same(&other);
                fuzz_same(&bytes[..bit / 8]);
            }
            let full = [&[1; 32][..], &chunk.encode()].concat();
            let error = Same::decode(&full.into()).unwrap_err().to_string();
            assert!(error.contains("content in a range"), "{error}");
        }
    }

    #[test]
    fn only_the_same_range_with_the_same_content_is_the_same() {
        let same = Same::of(&items());
        assert!(same.is(&Same { range: Chunk { at: Seq(99), id: 7, ..same.range.clone() }, ..same.clone() }));
        assert!(!Same { hash: UNKNOWN, ..same.clone() }.is(&Same { hash: UNKNOWN, ..same.clone() }));
        assert!(!same.is(&Same { hash: [1; 32], ..same.clone() }));
        assert!(!same.is(&Same::of(&Chunk { ends: true, ..items() })));
        assert!(!same.is(&Same::of(&Chunk { file: FileId(5), ..items() })));
        assert!(!same.is(&Same::of(&blocks())));
        assert_eq!(same.begin(), Next::Items(FileId(4), Bytes::from("a")));
        assert_eq!(Same::of(&blocks()).begin(), Next::Blocks(FileId(4), 4096));
    }
}
