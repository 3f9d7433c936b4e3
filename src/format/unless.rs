//! A want with a condition: content of a range is wanted unless it is what the receiver holds there already. So a node with an
//! old copy is made whole by digests, and content goes over the link only where the two differ.
//!
//! ```text
//!   holds an old copy                                 primary
//!     | Want 7: items of file 4 up to `k`, unless 5f..  |
//!     |------------------------------------------------>|   reads that range of its newest state, at entry 130
//!     | batches .. 130                                  |
//!     |<------------------------------------------------|
//!     | Chunk 7 at 130: equal                           |   or: differs, ask for smaller parts; or the content
//!     |<------------------------------------------------|
//! ```
//!
//! | size | field, behind those of a want |
//! |---|---|
//! | 1 | 1 if smaller parts will be asked for where it differs, 0 if content is to come |
//! | 32 | `digest` of what the receiver holds, as in a compare ([`super::compare::digest`]) |
//!
//! **Why the receiver may digest at an earlier entry than the answer.** Say that what it held after entry *p* has the digest of
//! what the primary holds after entry *a*, and *p* is not behind *a*. It goes on with entries *p* + 1 to *a*. Each says what an
//! item or a block holds, not how it changes. So what they touch is as the last of them says, which is what the primary has
//! after *a*; and what they do not touch is equal already. Blocks that the primary read while later entries were applied are
//! equal in the same way once everything up to the chunk's `until` is applied.
//!
//! **Strength.** blake3 with all its 32 bytes: nobody is known to find two contents of one digest with less than 2^128 steps, by
//! chance it happens in none of 2^100 comparisons. A range that was called equal stays as it was; that is the same trust as in
//! the digests of a compare. A primary that lies about a digest could as well send wrong content: it is trusted by its key.

use super::chunk::{Chunk, Content, Want};
use super::compare::{Digest, digest};
use super::{DecodeError, Reader, Writer};
use crate::base::limits::{BLOCK_U64, DIGEST_PARTS};

/// What a receiver holds of a range that it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unless {
    /// Where it differs, smaller parts will be asked for.
    pub closer: bool,
    /// What it digests to.
    pub digest: [u8; 32],
}

impl Unless {
    pub(super) fn encode(&self, w: &mut Writer) {
        w.u8(u8::from(self.closer)).put(&self.digest);
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let closer = r.u8()?;
        if closer > 1 {
            let (expected, found) = (1, u64::from(closer));
            return Err(DecodeError::Field { what: "what follows a digest", expected, found });
        }
        Ok(Self { closer: closer == 1, digest: r.array()? })
    }
}

impl Digest {
    /// Of blocks: the byte before which was looked at, if that is not the end of the span.
    #[must_use]
    pub fn end(&self) -> Option<u64> {
        Some(u64::from_be_bytes(self.reached.as_deref()?.try_into().ok()?))
    }
}

/// The answer to a want, of a chunk that was read for it, and how much content was found equal (bytes).
#[must_use]
pub fn settled(chunk: Chunk, want: &Want) -> (Chunk, u64) {
    // What is rotten here is said by name, whatever the receiver holds.
    let Some(unless) = want.unless.filter(|_| !chunk.content.is_lost()) else { return (chunk, 0) };
    let held = chunk.content.bytes();
    if covers(&chunk, want) && digest(&chunk.content, None).hash == unless.digest {
        return (Chunk { content: Content::Equal, ..chunk }, held);
    }
    // To ask again costs more than little content.
    if unless.closer && held > u64::from(want.most / (2 * DIGEST_PARTS)) {
        return (Chunk { content: Content::Differs, ..chunk }, 0);
    }
    (chunk, 0)
}

/// Whether a chunk is of all that is wanted.
fn covers(chunk: &Chunk, want: &Want) -> bool {
    match (&chunk.content, want.from.items(), want.from.blocks()) {
        (Content::Items { through, .. }, Some((_, until)), _) => chunk.ends || Some(through) == until,
        (Content::Blocks { offset, len, .. }, _, Some((from, until))) => {
            let wanted = until.map(|until| until.next_multiple_of(BLOCK_U64));
            *offset == from && (chunk.ends || Some(offset + len) == wanted)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{FileId, Seq};
    use crate::format::chunk::{WantFrom, fuzz_chunk};
    use bytes::Bytes;

    fn b(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    /// Items `b` and `c`, the second of so many bytes, of what stands behind `a`.
    fn items(bytes: usize, through: &'static str, ends: bool) -> Chunk {
        let items = vec![(b("b"), b("1")), (b("c"), Bytes::from(vec![7; bytes]))];
        let content = Content::Items { after: b("a"), through: b(through), items };
        Chunk { id: 7, file: FileId(4), at: Seq(130), until: Seq(130), content, ends }
    }

    fn blocks(len: u64, ends: bool) -> Chunk {
        let content = Content::Blocks { offset: 4096, len, runs: vec![(8192, Bytes::from(vec![9; 4096]))] };
        Chunk { content, ..items(0, "", ends) }
    }

    fn want(from: WantFrom, holds: &Chunk, closer: bool) -> Want {
        let unless = Unless { closer, digest: digest(&holds.content, None).hash };
        Want { id: 7, file: FileId(4), from, most: 1 << 20, unless: Some(unless) }
    }

    #[test]
    fn content_that_the_receiver_holds_is_called_equal_and_nothing_else_is() {
        let (whole, up_to) = (items(10, "", true), items(10, "d", false));
        for (chunk, from, equal) in [
            (whole.clone(), WantFrom::Items(b("a")), true),
            (whole.clone(), WantFrom::ItemsTo(b("a"), b("d")), true),
            (up_to.clone(), WantFrom::ItemsTo(b("a"), b("d")), true),
            // The primary has more behind what was read.
            (up_to.clone(), WantFrom::Items(b("a")), false),
            (up_to, WantFrom::ItemsTo(b("a"), b("k")), false),
            (blocks(8192, false), WantFrom::BlocksTo(4096, 12288), true),
            (blocks(8192, true), WantFrom::Blocks(4096), true),
            (blocks(8192, false), WantFrom::BlocksTo(4096, 16384), false),
            (blocks(8192, false), WantFrom::Blocks(4096), false),
        ] {
            let (answer, held) = settled(chunk.clone(), &want(from.clone(), &chunk, true));
            assert_eq!(answer.content == Content::Equal, equal, "{from:?}");
            assert_eq!(held, if equal { chunk.content.bytes() } else { 0 });
            assert_eq!((answer.id, answer.at, answer.until), (chunk.id, chunk.at, chunk.until));
        }
        let other = want(WantFrom::Items(b("a")), &items(11, "", true), true);
        assert_eq!(settled(whole.clone(), &other), (whole.clone(), 0), "little content comes at once");
        let gone = Chunk { content: Content::Gone, ..whole.clone() };
        assert_eq!(settled(gone.clone(), &want(WantFrom::Items(b("a")), &gone, true)), (gone, 0));
        let without = Want { unless: None, ..other };
        assert_eq!(settled(whole.clone(), &without), (whole, 0));
    }

    #[test]
    fn what_differs_is_asked_for_in_smaller_parts_and_of_those_the_content_comes() {
        let (large, held) = (items(100_000, "", true), items(5, "", true));
        let of = |closer| settled(large.clone(), &want(WantFrom::Items(b("a")), &held, closer)).0;
        assert_eq!(of(true), Chunk { content: Content::Differs, ..large.clone() });
        assert_eq!(of(false), large);
    }

    fn all() -> Vec<Vec<u8>> {
        let wants = [
            want(WantFrom::ItemsTo(b("a"), b("k")), &items(10, "", true), true),
            want(WantFrom::Blocks(4096), &blocks(8192, true), false),
        ];
        let chunks =
            [Content::Equal, Content::Differs].map(|content| Chunk { content, ..items(1, "", true) });
        let wants = wants.iter().map(|want| [vec![1], want.encode()].concat());
        wants.chain(chunks.iter().map(|chunk| [vec![2], chunk.encode()].concat())).collect()
    }

    #[test]
    fn the_golden_digests_are_byte_for_byte_what_this_version_sends_and_no_change_of_them_panics() {
        let golden = include_bytes!("../../tests/data/digests-v1.bin");
        let lens = |bytes: &Vec<u8>| u32::try_from(bytes.len()).unwrap().to_le_bytes();
        let found: Vec<u8> = all().iter().flat_map(|bytes| [&lens(bytes)[..], bytes].concat()).collect();
        assert!(found == golden, "it differs");
        for bytes in all() {
            assert!(bytes.len() < 100);
            for cut in 0..bytes.len() {
                fuzz_chunk(&bytes[..cut]);
                for bit in 0..8 {
                    let mut other = bytes.clone();
                    other[cut] ^= 1 << bit;
                    fuzz_chunk(&other);
                }
            }
        }
        let mut bad = all()[0][1..].to_vec();
        let at = bad.len() - 33;
        bad[at] = 2;
        assert!(Want::decode(&bad.into()).unwrap_err().to_string().contains("what follows a digest"));
    }
}
