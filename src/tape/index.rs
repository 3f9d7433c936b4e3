//! What stands where in the stream of a save set: read from the stream itself, by who writes it and by who scans a reel.

use crate::base::limits::{FRAME_PAYLOAD_MAX, TAPE_RANGES_MAX};
use crate::format::set::{BLOCK_HEADER, BlockHeader, BlockKind, PART_HEADER, PartHeader, SetBegin, Trailer};
use serde::{Deserialize, Serialize};

/// A range of the stream, from here to the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Where it begins in the stream (bytes): at a block of the set.
    pub offset: u64,
    /// The file whose content it is; 0 where it holds more than that, and has to be read in any case.
    pub file: u64,
}

/// Ranges shorter than this are taken together with their neighbours (bytes).
const GRAIN: u64 = 4 << 20;

/// Reads a stream as it passes by.
#[derive(Debug, Default)]
pub struct StreamIndex {
    /// Bytes seen.
    offset: u64,
    /// The head, or the payload that is wanted, so far.
    part: Vec<u8>,
    /// What `part` becomes.
    stage: Stage,
    header: Option<PartHeader>,
    begin: Option<SetBegin>,
    trailer: Option<Trailer>,
    ranges: Vec<Range>,
    grain: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Head,
    Block,
    Skip(u64),
    Payload(BlockHeader),
    /// The end, or something that is no set.
    Over,
}

impl StreamIndex {
    /// Takes the next bytes.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let wanted = match self.stage {
                Stage::Head => PART_HEADER,
                Stage::Block => BLOCK_HEADER,
                Stage::Payload(header) => header.stored as usize,
                Stage::Skip(left) => {
                    let now = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    bytes = bytes.get(now..).unwrap_or_default();
                    self.offset += now as u64;
                    let left = left - now as u64;
                    self.stage = if left == 0 { Stage::Block } else { Stage::Skip(left) };
                    continue;
                }
                Stage::Over => {
                    self.offset += bytes.len() as u64;
                    return;
                }
            };
            let now = (wanted - self.part.len()).min(bytes.len());
            let (head, rest) = bytes.split_at(now);
            self.part.extend_from_slice(head);
            self.offset += now as u64;
            bytes = rest;
            if self.part.len() == wanted {
                self.take();
            }
        }
    }

    fn take(&mut self) {
        let part = std::mem::take(&mut self.part);
        let next = match self.stage {
            Stage::Head => PartHeader::decode(&part).ok().map(|header| {
                self.header = Some(header);
                self.grain = GRAIN;
                Stage::Block
            }),
            Stage::Block => self.block(&part),
            Stage::Payload(header) if header.kind == BlockKind::Begin => {
                self.begin = SetBegin::decode(&part.into(), false).ok();
                Some(Stage::Block)
            }
            Stage::Payload(_) => {
                self.trailer = Trailer::decode(&part).ok();
                None
            }
            Stage::Skip(_) | Stage::Over => None,
        };
        self.stage = next.unwrap_or(Stage::Over);
    }

    fn block(&mut self, head: &[u8]) -> Option<Stage> {
        let set = self.header?.set;
        let header = BlockHeader::decode(head, set).ok()?;
        let file = if header.kind == BlockKind::Chunk { header.about } else { 0 };
        self.note(Range { offset: self.offset - BLOCK_HEADER as u64, file });
        match header.kind {
            BlockKind::Begin | BlockKind::Trailer if header.stored as usize <= FRAME_PAYLOAD_MAX => {
                Some(Stage::Payload(header))
            }
            _ if header.stored == 0 => Some(Stage::Block),
            _ => Some(Stage::Skip(header.stored.into())),
        }
    }

    fn note(&mut self, next: Range) {
        let Some(last) = self.ranges.last().copied() else {
            self.ranges.push(next);
            return;
        };
        if last.file == next.file {
            return;
        }
        if next.offset - last.offset < self.grain {
            // Too short to be worth going past: it becomes a part of what has to be read.
            if let Some(last) = self.ranges.last_mut() {
                last.file = 0;
            }
            self.join();
            if next.file == 0 {
                return;
            }
        }
        self.ranges.push(next);
        while self.ranges.len() > TAPE_RANGES_MAX {
            self.grain *= 2;
            self.coarsen();
        }
    }

    /// Takes the last two together if both have to be read.
    fn join(&mut self) {
        if let [.., before, last] = self.ranges.as_slice()
            && before.file == 0
            && last.file == 0
        {
            self.ranges.pop();
        }
    }

    fn coarsen(&mut self) {
        let (all, end) = (std::mem::take(&mut self.ranges), self.offset);
        let ends = all.iter().skip(1).map(|range| range.offset).chain([end]).collect::<Vec<_>>();
        for (mut range, end) in all.into_iter().zip(ends) {
            if end - range.offset < self.grain {
                range.file = 0;
            }
            if self.ranges.last().is_none_or(|last| last.file != range.file) {
                self.ranges.push(range);
            }
        }
    }

    /// Bytes seen.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.offset
    }

    /// The head of the set; none before it came.
    #[must_use]
    pub fn header(&self) -> Option<&PartHeader> {
        self.header.as_ref()
    }

    /// What the set begins with; none before it came.
    #[must_use]
    pub fn begin(&self) -> Option<&SetBegin> {
        self.begin.as_ref()
    }

    /// What the set ends with; none before it came.
    #[must_use]
    pub fn trailer(&self) -> Option<&Trailer> {
        self.trailer.as_ref()
    }

    /// What stands where.
    #[must_use]
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }
}

/// Takes any bytes as the stream of a save, in pieces of any length.
///
/// # Panics
/// If pieces make another index than the whole.
pub fn fuzz_index(bytes: &[u8]) {
    let mut whole = StreamIndex::default();
    whole.feed(bytes);
    let mut pieces = StreamIndex::default();
    let step = usize::from(bytes.first().copied().unwrap_or_default()) + 1;
    bytes.chunks(step).for_each(|piece| pieces.feed(piece));
    assert_eq!((whole.offset, &whole.ranges), (pieces.offset, &pieces.ranges));
    assert!(whole.ranges.windows(2).all(|pair| matches!(pair, [a, b] if a.offset < b.offset)));
    if let Some(content) = super::Content::of(&whole) {
        content.files.iter().for_each(|file| drop(content.needed(file.id)));
    }
}
