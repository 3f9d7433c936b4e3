//! Save sets as files: [`SetWriter`] makes one, [`SetReader`] reads one block by block, [`verify`] all of one.
//!
//! - Invariant: a set gets its trailer after all before it is durable; without it nothing here takes a set for a save (I-31).
//! - Invariant: what is read is given only if every checksum of it fits and it stands in its place (`SetWalk`).
//! - Boundary: a set names files of a database, and never a path. Where it is read from and written to is the caller's word.

mod digest;
mod error;
pub(in crate::node) mod from_node;
mod reader;
mod target;
mod verify;
mod writer;

use digest::Digest;
pub use error::SetError;
pub use from_node::{SaveError, SaveOrder, SaveTold, Saved, save};
pub use reader::{Block, SetReader};
pub use target::{Source, Target};
pub use verify::{Contents, Damage, Verified, check_chain, contents, verify, verify_chain};
pub use writer::{Head, Pack, SetWriter};

use crate::format::alone::AloneFiles;
use crate::format::set::{BlockHeader, Packing, SetBegin, Trailer};
use crate::store::namespace::Namespace;
use bytes::Bytes;

/// What a set holds of what its node has alone, as far as its definitions are at hand. Of a set before version 3 that is no
/// content.
#[must_use]
pub fn alone_files(begin: &SetBegin, trailer: &Trailer) -> AloneFiles {
    if let Some(alone) = &trailer.alone {
        return alone.clone();
    }
    let all = Namespace::of(&begin.copy.namespace).unwrap_or_default();
    let names = all.defined_alone().map(|(_, info)| info.key.clone());
    let defined = names.filter(|name| !begin.left_out.contains(name)).collect();
    AloneFiles { files: Vec::new(), defined, left_out: begin.left_out.clone() }
}

/// A payload as it was before it was packed.
fn unpacked(header: &BlockHeader, payload: Bytes) -> Result<Bytes, String> {
    match header.packing {
        Packing::Plain => Ok(payload),
        Packing::Lz4 => {
            let raw = header.raw as usize;
            let unpacked = lz4_flex::block::decompress(&payload, raw).map_err(|error| error.to_string())?;
            if unpacked.len() == raw {
                Ok(unpacked.into())
            } else {
                Err(format!("{} bytes where {raw} were packed", unpacked.len()))
            }
        }
    }
}

/// Reads any bytes as a set, to its end and past what is damaged.
pub fn fuzz_reader(bytes: &[u8]) {
    let source = Source::Bytes(Bytes::copy_from_slice(bytes));
    let found = contents(&source).is_ok();
    let whole = verify(source, |_| {}).is_ok_and(|found| found.trailer.is_some() && found.damages.is_empty());
    assert!(found || !whole, "what is whole says what it holds");
}

#[cfg(test)]
pub(in crate::node) mod tests;
