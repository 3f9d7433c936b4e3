//! What a store answers when a range is wanted: as much as was asked for, whichever store it is.

use super::StoreError;
use crate::base::limits::{BLOCK, BLOCK_U64, COPY_LOOK, COPY_LOOK_MAX};
use crate::format::chunk::{Chunk, Content};
use bytes::Bytes;

/// Items that are looked up together.
const STEP: usize = 256;

/// A chunk of the items behind `after`, through `until` if there is such an end, of at most `most` bytes, but of one item at
/// least. `scan` gives items in order behind an id, up to a number of them; it may end where they have so many bytes
/// together, so that large ones are not held.
pub(super) fn of_items(
    chunk: Chunk,
    (after, until): (&Bytes, Option<&Bytes>),
    most: u32,
    scan: impl Fn(&[u8], usize, usize) -> Result<Vec<(Bytes, Bytes)>, StoreError>,
) -> Result<Chunk, StoreError> {
    let (mut items, mut bytes) = (Vec::new(), 0);
    let mut through = after.clone();
    // Most ranges that end somewhere hold an item or two.
    let mut step = if until.is_some() { 2 } else { STEP };
    loop {
        let room = (most as usize).saturating_sub(bytes).max(1);
        let found = scan(&through, step, room)?;
        let size: usize = found.iter().map(|(id, value)| id.len() + value.len()).sum();
        let last = found.len() < step && size < room;
        let reached = until.filter(|until| found.last().is_some_and(|(id, _)| id >= *until));
        step = (step * 4).min(STEP);
        for (id, value) in found {
            if until.is_some_and(|until| id > *until) {
                break;
            }
            let len = id.len() + value.len();
            if bytes > 0 && bytes + len > most as usize {
                let content = Content::Items { after: after.clone(), through, items };
                return Ok(Chunk { content, ends: false, ..chunk });
            }
            bytes += len;
            through = id.clone();
            items.push((id, value));
        }
        if let Some(until) = reached {
            let content = Content::Items { after: after.clone(), through: until.clone(), items };
            return Ok(Chunk { content, ends: false, ..chunk });
        }
        if last {
            let content = Content::Items { after: after.clone(), through: Bytes::new(), items };
            return Ok(Chunk { content, ends: true, ..chunk });
        }
    }
}

/// How much of a volume of so many blocks a chunk holds that begins at `offset`, and ends at `until` at most (bytes).
pub(super) fn blocks_of((offset, until): (u64, Option<u64>), most: u32, blocks: u64) -> u64 {
    let most = u64::from(most).next_multiple_of(BLOCK_U64);
    let end = until.map_or(u64::MAX, |until| until.next_multiple_of(BLOCK_U64)).min(blocks * BLOCK_U64);
    end.saturating_sub(offset).min(most)
}

/// How far nothing takes space from `offset` on, and up to `until` at most: at least `most` bytes of a volume of so many
/// blocks, or as many as there are; else none.
/// `allocation` tells what takes space in a range: how long, and whether it is a hole. It is asked for more and more, but for
/// [`COPY_LOOK_MAX`] together at most.
pub(super) fn hole_from<E>(
    (offset, until): (u64, Option<u64>),
    most: u32,
    blocks: u64,
    allocation: impl Fn(u64, u64) -> Result<Vec<(u64, bool)>, E>,
) -> Result<Option<u64>, E> {
    let least = blocks_of((offset, until), most, blocks);
    let end = until.map_or(u64::MAX, |until| until.next_multiple_of(BLOCK_U64)).min(blocks * BLOCK_U64);
    let end = end.min(offset.saturating_add(COPY_LOOK_MAX));
    let (mut at, mut step) = (offset, least);
    while at < end {
        let len = step.min(end - at);
        let found = allocation(at, len)?;
        let hole = found.first().filter(|(_, hole)| *hole).map_or(0, |(len, _)| *len);
        at += hole;
        if hole < len {
            break;
        }
        step = step.saturating_mul(2).min(COPY_LOOK);
    }
    // Data begins with a whole block.
    let len = if at < end { (at - offset) / BLOCK_U64 * BLOCK_U64 } else { at - offset };
    Ok((len > 0 && len >= least).then_some(len))
}

/// A chunk of a volume of so many blocks, of a range in which nothing takes space.
pub(super) fn of_hole(chunk: Chunk, offset: u64, len: u64, blocks: u64) -> Chunk {
    let ends = offset + len >= blocks * BLOCK_U64;
    Chunk { content: Content::Blocks { offset, len, runs: Vec::new() }, ends, ..chunk }
}

/// A chunk of one block that is rotten here.
pub(super) fn of_lost(chunk: Chunk, offset: u64, blocks: u64) -> Chunk {
    let (len, ends) = (BLOCK_U64, offset + BLOCK_U64 >= blocks * BLOCK_U64);
    Chunk { content: Content::Blocks { offset, len, runs: vec![(offset, Bytes::new())] }, ends, ..chunk }
}

/// A chunk of these bytes of a volume of so many blocks. Blocks of zeros are left out.
pub(super) fn of_blocks(chunk: Chunk, offset: u64, bytes: Bytes, blocks: u64) -> Chunk {
    let len = bytes.len() as u64;
    let mut runs: Vec<(u64, Bytes)> = Vec::new();
    let mut begun: Option<usize> = None;
    let mut at = 0;
    let mut push = |from: usize, until: usize| runs.push((offset + from as u64, bytes.slice(from..until)));
    while at < bytes.len() {
        let until = (at + BLOCK).min(bytes.len());
        let zeros = bytes.get(at..until).is_some_and(|block| block.iter().all(|byte| *byte == 0));
        match (begun, zeros) {
            (None, false) => begun = Some(at),
            (Some(from), true) => {
                push(from, at);
                begun = None;
            }
            _ => {}
        }
        at = until;
    }
    if let Some(from) = begun {
        push(from, bytes.len());
    }
    let ends = offset + len >= blocks * BLOCK_U64;
    Chunk { content: Content::Blocks { offset, len, runs }, ends, ..chunk }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{FileId, Seq};

    fn empty() -> Chunk {
        Chunk { id: 1, file: FileId(4), at: Seq(9), until: Seq(9), content: Content::Gone, ends: true }
    }

    #[test]
    fn chunks_of_items_follow_each_other_to_the_end_whatever_their_sizes() {
        let all: Vec<(Bytes, Bytes)> =
            (0..700).map(|n| (Bytes::from(format!("{n:04}")), Bytes::from(vec![7; n * 13 % 301]))).collect();
        for most in [1, 100, 5000, 1 << 20] {
            let (mut found, mut after, mut count) = (Vec::new(), Bytes::new(), 0);
            loop {
                let scan = |after: &[u8], limit: usize, room: usize| {
                    let mut size = 0;
                    let behind = all.iter().filter(|(id, _)| id > after).take(limit);
                    let fits = |(id, value): &&(Bytes, Bytes)| {
                        let fits = size < room;
                        size += id.len() + value.len();
                        fits
                    };
                    Ok(behind.take_while(fits).cloned().collect())
                };
                let chunk = of_items(empty(), (&after, None), most, scan).unwrap();
                assert_eq!(Chunk::decode(&chunk.encode().into()).as_ref(), Ok(&chunk));
                let Content::Items { through, items, .. } = chunk.content else { panic!("no items") };
                let bytes: usize = items.iter().map(|(id, value)| id.len() + value.len()).sum();
                assert!(bytes <= most as usize || items.len() == 1);
                found.extend(items);
                count += 1;
                if chunk.ends {
                    break;
                }
                after = through;
            }
            assert_eq!(found, all, "{most}: {count} chunks");
        }
    }

    #[test]
    fn chunks_of_blocks_leave_zeros_out_and_end_where_the_volume_does() {
        let mut bytes = vec![0; 5 * BLOCK];
        bytes[BLOCK] = 1;
        bytes[2 * BLOCK + 5] = 2;
        bytes[4 * BLOCK + 9] = 3;
        let chunk = of_blocks(empty(), 4096, bytes.clone().into(), 6);
        assert_eq!(Chunk::decode(&chunk.encode().into()).as_ref(), Ok(&chunk));
        let Content::Blocks { offset, len, runs } = &chunk.content else { panic!("no blocks") };
        assert_eq!((*offset, *len, chunk.ends), (4096, 5 * 4096, true));
        let places: Vec<_> = runs.iter().map(|(at, bytes)| (*at, bytes.len())).collect();
        assert_eq!(places, [(2 * 4096, 2 * BLOCK), (5 * 4096, BLOCK)]);
        assert!(!of_blocks(empty(), 0, bytes.into(), 6).ends);
        let of = |offset, most| blocks_of((offset, None), most, 6);
        assert_eq!([of(0, 4096), of(4096 * 5, 1 << 20), of(0, 1)], [4096; 3]);
        let to = |from, to| blocks_of((from, Some(to)), 1 << 20, 6);
        assert_eq!([to(0, 8192), to(4096 * 5, 1 << 30), to(8192, 4096)], [8192, 4096, 0]);
    }

    #[test]
    fn a_hole_is_told_as_far_as_it_reaches_and_only_where_it_is_as_long_as_a_chunk() {
        const MIB: u64 = 1 << 20;
        let blocks = (3 << 40) / BLOCK_U64;
        // Data of 8 KiB at 5 MiB, and the last block of two TiB.
        let data = [(5 * MIB, 8192), ((2 << 40) - 4096, 4096)];
        let asked = std::cell::Cell::new(0);
        let looked = |offset: u64, len: u64| {
            asked.set(asked.get() + 1);
            let (mut found, mut at, end) = (Vec::new(), offset, offset + len);
            for (from, some) in data {
                let (from, until) = (from.clamp(at, end), (from + some).clamp(at, end));
                found.extend([(from - at, true), (until - from, false)]);
                at = until;
            }
            found.push((end - at, true));
            found.retain(|(len, _)| *len > 0);
            Ok::<_, StoreError>(found)
        };
        let hole = |offset, most| hole_from((offset, None), most, blocks, looked).unwrap();
        assert_eq!(hole(0, 1 << 20), Some(5 * MIB));
        assert_eq!(hole(MIB, 1 << 20), Some(4 * MIB));
        // Shorter than a chunk, and none at all.
        assert_eq!((hole(4 * MIB + 4096, 1 << 20), hole(5 * MIB, 1 << 20)), (None, None));
        assert_eq!(hole(4 * MIB + 4096, 4096), Some(MIB - 4096));
        // No further than it may look, and to the end.
        asked.set(0);
        assert_eq!(hole(6 * MIB, 1 << 20), Some(1 << 40));
        assert!(asked.get() < 1100, "{}", asked.get());
        let behind = (1 << 40) + 6 * MIB;
        assert_eq!(hole(behind, 1 << 20), Some((2 << 40) - 4096 - behind));
        assert_eq!(hole((3 << 40) - 4096, 1 << 20), Some(4096));
        assert_eq!(hole(3 << 40, 1 << 20), None);
    }
}
