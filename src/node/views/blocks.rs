//! Volumes as a view shows them: what was written to it, over what was kept, over the volumes' own files.

use super::super::volumes::read_once;
use crate::base::limits::{BLOCK, BLOCK_U64, VIEW_RUNS_MAX};
use crate::base::{Fault, FileId};
use crate::engine::view::ViewBlocks;
use crate::store::volumes::{BlockMap, Held, Kept, Room, allocation_of};
use bytes::Bytes;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

/// What was written to a view, in a file that goes with it.
#[derive(Debug)]
struct Layer {
    file: File,
    map: BlockMap,
    used: u64,
    room: Arc<Room>,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct ViewFiles {
    volumes: PathBuf,
    kept: Arc<Kept>,
    layer: Option<Layer>,
}

fn io(error: std::io::Error) -> Fault {
    Fault::from_io(&error)
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// The blocks that a range touches: the first, and the one behind the last.
fn blocks_of(offset: u64, len: u64) -> (u64, u64) {
    (offset / BLOCK_U64, (offset + len).div_ceil(BLOCK_U64))
}

impl Layer {
    /// Makes blocks hold these bytes.
    fn put(&mut self, file: FileId, first: u64, bytes: &[u8]) -> Result<(), Fault> {
        let blocks = (bytes.len() / BLOCK) as u64;
        for (start, count, held) in self.map.within(file, first, first + blocks) {
            let from = size((start - first) * BLOCK_U64);
            let part = bytes.get(from..from + size(count * BLOCK_U64)).unwrap_or_default();
            if let Some(Held::At(place)) = held {
                self.file.write_all_at(part, place).map_err(io)?;
                continue;
            }
            if self.map.runs() >= VIEW_RUNS_MAX || !self.room.take(part.len() as u64) {
                return Err(Fault::NoSpace);
            }
            self.file.write_all_at(part, self.used).map_err(io)?;
            self.map.set(file, start, count, Held::At(self.used));
            self.used += part.len() as u64;
        }
        Ok(())
    }
}

impl ViewFiles {
    /// Of volumes in a directory; written to in a file, as long as there is room, if there is one.
    pub(super) fn new(volumes: PathBuf, kept: Arc<Kept>, written: Option<(File, Arc<Room>)>) -> Self {
        let layer = written.map(|(file, room)| Layer { file, map: BlockMap::default(), used: 0, room });
        Self { volumes, kept, layer }
    }

    fn layer(&mut self) -> Result<&mut Layer, Fault> {
        // EROFS: the door does not let it come to this.
        self.layer.as_mut().ok_or(Fault::Errno(30))
    }

    /// Blocks as the moment had them.
    fn of_moment(&self, file: FileId, first: u64, end: u64) -> Result<Bytes, Fault> {
        let live = |offset, len| read_once(&self.volumes, file, offset, size(len));
        self.kept.read_blocks(file, (first, end), live)
    }

    fn blocks(&self, file: FileId, first: u64, end: u64) -> Result<Bytes, Fault> {
        let Some(layer) = &self.layer else { return self.of_moment(file, first, end) };
        let mut all = Vec::with_capacity(size((end - first) * BLOCK_U64));
        for (start, count, held) in layer.map.within(file, first, end) {
            let (from, len) = (all.len(), size(count * BLOCK_U64));
            match held {
                None => all.extend_from_slice(&self.of_moment(file, start, start + count)?),
                Some(Held::At(place)) => {
                    all.resize(from + len, 0);
                    layer.file.read_exact_at(all.get_mut(from..).unwrap_or_default(), place).map_err(io)?;
                }
                Some(Held::Zeros | Held::Damaged) => all.resize(from + len, 0),
            }
        }
        Ok(Bytes::from(all))
    }

    /// The blocks that are touched, with this written over them. Those that are written whole are not read.
    fn changed(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(u64, Vec<u8>), Fault> {
        let (first, end) = blocks_of(offset, bytes.len() as u64);
        let (skip, behind) = (size(offset % BLOCK_U64), offset + bytes.len() as u64);
        let mut all = vec![0; size((end - first) * BLOCK_U64)];
        let edge = |block: u64, all: &mut Vec<u8>| -> Result<(), Fault> {
            let at = size((block - first) * BLOCK_U64);
            let found = self.blocks(file, block, block + 1)?;
            all.get_mut(at..at + BLOCK).unwrap_or_default().copy_from_slice(&found);
            Ok(())
        };
        if skip > 0 {
            edge(first, &mut all)?;
        }
        if behind % BLOCK_U64 > 0 && (end - 1 > first || skip == 0) {
            edge(end - 1, &mut all)?;
        }
        all.get_mut(skip..skip + bytes.len()).unwrap_or_default().copy_from_slice(bytes);
        Ok((first, all))
    }
}

impl ViewBlocks for ViewFiles {
    fn read(&mut self, file: FileId, offset: u64, len: usize) -> Result<Bytes, Fault> {
        let (first, end) = blocks_of(offset, len as u64);
        let skip = size(offset % BLOCK_U64);
        Ok(self.blocks(file, first, end)?.slice(skip..skip + len))
    }

    fn write(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        let (first, blocks) = self.changed(file, offset, bytes)?;
        self.layer()?.put(file, first, &blocks)
    }

    fn zero(&mut self, file: FileId, offset: u64, len: u64) -> Result<(), Fault> {
        let end = offset + len;
        let (from, until) = (offset.next_multiple_of(BLOCK_U64), end / BLOCK_U64 * BLOCK_U64);
        if from >= until {
            // Within a block, or over the edge of two.
            return self.write(file, offset, &vec![0; size(len)]);
        }
        for (start, end) in [(offset, from), (until, end)] {
            if start < end {
                self.write(file, start, &vec![0; size(end - start)])?;
            }
        }
        let (first, blocks) = (from / BLOCK_U64, (until - from) / BLOCK_U64);
        let layer = self.layer()?;
        if layer.map.runs() >= VIEW_RUNS_MAX {
            return Err(Fault::NoSpace);
        }
        layer.map.set(file, first, blocks, Held::Zeros);
        Ok(())
    }

    fn allocation(&mut self, file: FileId, offset: u64, len: u64) -> Result<Vec<(u64, bool)>, Fault> {
        let (first, end) = blocks_of(offset, len);
        let live = |first: u64, blocks: u64| {
            allocation_of(&self.volumes, file, first * BLOCK_U64, blocks * BLOCK_U64).map_err(io)
        };
        let mut parts = Vec::new();
        let written = self.layer.as_ref().map(|layer| layer.map.within(file, first, end));
        for (start, blocks, held) in written.unwrap_or_else(|| vec![(first, end - first, None)]) {
            match held {
                Some(held) => parts.push((blocks * BLOCK_U64, held == Held::Zeros)),
                None => {
                    parts.extend(self.kept.allocation(file, (start, start + blocks), || live(start, blocks))?)
                }
            }
        }
        // Of whole blocks what was asked for.
        let (mut skip, mut left, mut found) = (offset % BLOCK_U64, len, Vec::<(u64, bool)>::new());
        for (len, hole) in parts {
            let here = (len - skip.min(len)).min(left);
            skip -= skip.min(len);
            left -= here;
            match found.last_mut() {
                Some(last) if last.1 == hole => last.0 += here,
                _ if here > 0 => found.push((here, hole)),
                _ => {}
            }
        }
        Ok(found)
    }
}
