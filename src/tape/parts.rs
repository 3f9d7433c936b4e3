//! Parts of a spool on reels: a session's stream is one part behind the other, each as its file would be.

use crate::base::{Chain, Epoch, Ordinal, Position, SegmentIndex, Seq};
use crate::format::PairId;
use crate::format::spool::PartHeader;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What the name of a reel begins with that holds a spool; the node's ordinal follows.
pub const SPOOL_NAME: &str = "spool-";

/// A part on reels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartHeld {
    /// The part.
    #[serde(serialize_with = "put_header", deserialize_with = "take_header")]
    pub header: PartHeader,
    /// Where it begins in the session's stream.
    pub offset: u64,
    /// Whether nobody needs it any more.
    #[serde(default)]
    pub let_go: bool,
}

impl PartHeld {
    /// Behind its last byte in the session's stream.
    #[must_use]
    pub fn end_offset(&self) -> u64 {
        self.offset.saturating_add(self.header.file_bytes())
    }
}

/// As it stands in the catalogue: pair, ordinal, segment, before, after, bytes, time.
type Fields = (String, u8, u64, [u64; 3], [u64; 3], u64, u64);

fn put_header<S: Serializer>(header: &PartHeader, to: S) -> Result<S::Ok, S::Error> {
    let at = |position: Position| [position.epoch.0, position.seq.0, position.chain.0];
    let PartHeader { pair, ordinal, index, base, end, bytes, wall_ms } = *header;
    let fields: Fields = (pair.to_string(), ordinal.0, index.0, at(base), at(end), bytes, wall_ms);
    fields.serialize(to)
}

fn take_header<'de, D: Deserializer<'de>>(from: D) -> Result<PartHeader, D::Error> {
    let (pair, ordinal, index, base, end, bytes, wall_ms) = Fields::deserialize(from)?;
    let at =
        |[epoch, seq, chain]: [u64; 3]| Position { epoch: Epoch(epoch), seq: Seq(seq), chain: Chain(chain) };
    let header = PartHeader {
        pair: pair_of(&pair).ok_or_else(|| serde::de::Error::custom("no pair"))?,
        ordinal: Ordinal(ordinal),
        index: SegmentIndex(index),
        base: at(base),
        end: at(end),
        bytes,
        wall_ms,
    };
    // What stands in a header has bounds; what stands in a catalogue has the same.
    PartHeader::decode(&header.encode()).map_err(serde::de::Error::custom)
}

/// The pair with this number (hexadecimal).
fn pair_of(text: &str) -> Option<PairId> {
    let number = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32)?;
    Some(PairId(number.to_be_bytes()))
}

/// Finds the parts in a session's stream as its bytes come.
#[derive(Clone, Debug, Default)]
pub struct PartIndex {
    /// Bytes of the header that is coming.
    head: Vec<u8>,
    /// The part that is coming, and how much of it is still to come.
    open: Option<(PartHeld, u64)>,
    offset: u64,
    parts: Vec<PartHeld>,
    /// Something came that is no part: nothing more is understood.
    broken: bool,
}

impl PartIndex {
    /// Takes the next bytes of the stream.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.broken {
            let wanted = match &self.open {
                Some((_, left)) => usize::try_from(*left).unwrap_or(usize::MAX),
                None => crate::base::limits::BLOCK - self.head.len(),
            };
            let (now, rest) = bytes.split_at(wanted.min(bytes.len()));
            bytes = rest;
            self.offset += now.len() as u64;
            let Some((held, left)) = &mut self.open else {
                self.head.extend_from_slice(now);
                self.begin();
                continue;
            };
            *left -= now.len() as u64;
            if *left == 0 {
                self.parts.push(*held);
                self.open = None;
            }
        }
    }

    fn begin(&mut self) {
        let block = crate::base::limits::BLOCK;
        if self.head.len() < block {
            return;
        }
        match PartHeader::decode(&self.head) {
            Ok(header) => {
                let held = PartHeld { header, offset: self.offset - block as u64, let_go: false };
                self.open = Some((held, header.file_bytes() - block as u64));
            }
            Err(_) => self.broken = true,
        }
        self.head.clear();
    }

    /// Whether what came is parts and nothing else, each of them whole.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.broken && self.open.is_none() && self.head.is_empty() && !self.parts.is_empty()
    }

    /// The parts of which all came.
    #[must_use]
    pub fn parts(&self) -> &[PartHeld] {
        &self.parts
    }
}

/// Takes any bytes as a session of parts, in pieces of any length.
///
/// # Panics
/// If pieces make others than the whole.
pub fn fuzz_parts(bytes: &[u8]) {
    let mut whole = PartIndex::default();
    whole.feed(bytes);
    let mut pieces = PartIndex::default();
    let step = usize::from(bytes.first().copied().unwrap_or_default()) + 1;
    bytes.chunks(step).for_each(|piece| pieces.feed(piece));
    assert_eq!((whole.offset, &whole.parts, whole.broken), (pieces.offset, &pieces.parts, pieces.broken));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &PartHeader) -> Vec<u8> {
        let mut bytes = header.encode();
        bytes.resize(usize::try_from(header.file_bytes()).unwrap(), 7);
        bytes
    }

    #[test]
    fn parts_are_found_in_a_stream_however_it_is_cut_and_only_when_all_of_one_came() {
        let all = [(1, 3), (2, 1), (3, 5)].map(|(index, blocks)| PartHeader::sample(index, blocks));
        let stream: Vec<u8> = all.iter().flat_map(file).collect();
        let ends: Vec<usize> = [0, 1, 2]
            .map(|at| all[..=at].iter().map(|part| usize::try_from(part.file_bytes()).unwrap()).sum())
            .to_vec();
        for cut in (0..stream.len()).step_by(997).chain([stream.len()]) {
            let mut index = PartIndex::default();
            index.feed(&stream[..cut]);
            let whole = ends.iter().filter(|end| **end <= cut).count();
            assert_eq!(index.is_whole(), ends.contains(&cut), "{cut}");
            assert_eq!(
                index.parts().iter().map(|held| held.header).collect::<Vec<_>>(),
                all[..whole],
                "{cut}"
            );
            fuzz_parts(&stream[..cut]);
        }
        let mut index = PartIndex::default();
        index.feed(&stream);
        assert!(index.is_whole() && !PartIndex::default().is_whole());
        assert_eq!(index.parts()[2].offset, ends[1] as u64);
        assert_eq!(index.parts()[2].end_offset(), stream.len() as u64);
        // Behind something that is no part nothing is understood.
        let mut bad = stream.clone();
        bad[ends[0] + 20] ^= 1;
        let mut index = PartIndex::default();
        index.feed(&bad);
        assert_eq!(index.parts().len(), 1);
    }
}
