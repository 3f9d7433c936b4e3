//! One moment of everything that is stored, for as long as somebody reads it.

use super::super::namespace::Namespace;
use super::super::volumes::{Kept, allocation_of};
use super::super::{StoreError, chunk};
use super::StoreWriter;
use super::read::{Limit, Snapshot};
use crate::base::limits::BLOCK_U64;
use crate::base::{Fault, FileId, JournalKind, Seq};
use crate::format::chunk::{Chunk, Content, Want};
use crate::format::dptr::DptrKind;
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;

/// The definitions and the items between two batches. What volumes held then is kept by a [`Kept`].
#[derive(Debug)]
pub struct Moment {
    /// The last entry of each journal that it shows.
    pub applied: [Seq; 2],
    /// The definitions.
    pub namespace: Namespace,
    /// The items. Tables and memory that hold them stay until this is dropped, and nothing else does.
    pub items: Snapshot,
}

/// Reads whole blocks of a volume in a directory as they are on disk now; none if they do not match their checksums, which they do
/// not while they are written.
pub type ReadOnce = fn(&Path, FileId, u64, usize) -> Result<Option<Bytes>, Fault>;

impl Moment {
    /// What a range held, of items here and of the volumes in a directory, of which `kept` has what they lost since. The chunk
    /// stands behind the last replicated entry that the moment shows.
    ///
    /// # Errors
    /// [`StoreError::Disk`] or [`StoreError::Damaged`].
    pub fn range(
        &self,
        want: &Want,
        kept: &Kept,
        (volumes, read): (&Path, ReadOnce),
    ) -> Result<Chunk, StoreError> {
        let at = self.applied[JournalKind::Replicated.index()];
        let empty = Chunk { id: want.id, file: want.file, at, until: at, content: Content::Gone, ends: true };
        let Some(info) = self.namespace.file(want.file) else { return Ok(empty) };
        let failed = |fault| StoreError::Disk { doing: "reading a volume of a moment", fault };
        match (want.from.items(), want.from.blocks(), info.dptr.kind) {
            (Some(range), _, DptrKind::Records) => {
                let table = (want.file, info.dptr.generation);
                let scan =
                    |after: &[u8], items, bytes| self.items.scan_bytes(table, after, Limit { items, bytes });
                chunk::of_items(empty, range, want.most, scan)
            }
            (_, Some(range), DptrKind::Blocks) => {
                let blocks = |offset: u64, len: u64| (offset / BLOCK_U64, (offset + len).div_ceil(BLOCK_U64));
                let looked = |offset, len| {
                    let now = || {
                        allocation_of(volumes, want.file, offset, len).map_err(|error| Fault::from_io(&error))
                    };
                    kept.allocation(want.file, blocks(offset, len), now)
                };
                let hole = chunk::hole_from(range, want.most, info.dptr.blocks, looked).map_err(failed)?;
                if let Some(len) = hole {
                    return Ok(chunk::of_hole(empty, range.0, len, info.dptr.blocks));
                }
                let (offset, len) = (range.0, chunk::blocks_of(range, want.most, info.dptr.blocks));
                let now = |offset, len| {
                    read(volumes, want.file, offset, usize::try_from(len).unwrap_or(usize::MAX))
                };
                let bytes = kept.read_blocks(want.file, blocks(offset, len), now).map_err(failed)?;
                Ok(chunk::of_blocks(empty, offset, bytes, info.dptr.blocks))
            }
            _ => Ok(empty),
        }
    }
}

/// A store of which a moment can be held, by the one who writes.
pub trait MomentSource {
    /// The last entry of each journal that a moment would show now.
    fn shows(&self) -> [Seq; 2];

    /// The moment as it is now, without its volumes; none of a store that has no such thing.
    fn items(&self) -> Option<Moment>;

    /// The moment as it is now; from here on what volumes lose is kept.
    ///
    /// # Errors
    /// [`StoreError::Disk`] with [`Fault::STALE`] as long as the store is no state between two batches: during a replay or a
    /// copy, and after a failure.
    fn moment(&mut self, kept: &Arc<Kept>) -> Result<Moment, StoreError>;
}

impl MomentSource for StoreWriter {
    fn shows(&self) -> [Seq; 2] {
        self.state.applied
    }

    fn moment(&mut self, kept: &Arc<Kept>) -> Result<Moment, StoreError> {
        self.ready()?;
        if !self.volumes.keep_for(kept, self.state.applied) {
            let doing =
                "opening a view of a store that is not whole now: a replay, a copy or a failure is not over";
            return Err(StoreError::Disk { doing, fault: Fault::STALE });
        }
        Ok(self.held())
    }

    fn items(&self) -> Option<Moment> {
        Some(self.held())
    }
}

impl StoreWriter {
    fn held(&self) -> Moment {
        let (applied, namespace) = (self.state.applied, self.state.namespace.clone());
        Moment { applied, namespace, items: Snapshot::pinned(&self.shared) }
    }
}
