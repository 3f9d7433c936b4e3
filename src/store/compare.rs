//! What a look at a range has in common, whichever store it is of.

use super::StoreError;
use crate::base::{Fault, FileId, JournalKind, Seq};
use crate::format::chunk::{Chunk, Content};
use crate::format::dptr::{FileState, LoggingMode};
use crate::format::{Writer, compare::DEFINITIONS};
use crate::store::namespace::{FileInfo, Namespace};
use bytes::Bytes;

/// Whether both nodes have the content of a file at each entry of the replicated journal.
pub(super) fn is_common(info: &FileInfo) -> bool {
    info.replicated && info.journal == JournalKind::Replicated && info.dptr.state == FileState::Whole
}

/// Why a file is not made what the other node has: it is not common any more, or not yet.
pub(super) fn not_common() -> StoreError {
    StoreError::Disk { doing: "giving a file what the peer has", fault: Fault::STALE }
}

/// A chunk of nothing.
pub(super) fn nothing(file: FileId, at: Seq) -> Chunk {
    Chunk { id: 0, file, at, until: at, content: Content::Gone, ends: true }
}

/// The definitions that both nodes have, as items.
pub(super) fn definitions(namespace: &Namespace, at: Seq, after: &Bytes) -> Chunk {
    let item = |(id, info): (FileId, &FileInfo)| {
        let mut w = Writer::with_capacity(64);
        w.u8(info.dptr.kind as u8).u64(info.dptr.blocks).text(&info.key).text(&info.dptr.flags.to_string());
        // Of one that is not whole on this node the other may know another thing, or nothing yet.
        let value = if is_common(info) { Bytes::from(w.into_bytes()) } else { Bytes::new() };
        (Bytes::copy_from_slice(&id.0.to_be_bytes()), value)
    };
    if namespace.mode() == LoggingMode::Paused {
        // What is replicated is decided by the other node then.
        return nothing(DEFINITIONS, at);
    }
    let common = namespace.files().filter(|(_, info)| info.replicated).map(item);
    let mut items: Vec<_> = common.filter(|(id, _)| id > after).collect();
    items.sort();
    let content = Content::Items { after: after.clone(), through: Bytes::new(), items };
    Chunk { content, ..nothing(DEFINITIONS, at) }
}

/// The chunk without what is behind `through`, and with all up to it if it came so far.
pub(super) fn up_to(mut chunk: Chunk, bound: &Bytes) -> Chunk {
    if bound.is_empty() {
        return chunk;
    }
    if let Content::Items { through, items, .. } = &mut chunk.content
        && (chunk.ends || *through >= *bound)
    {
        items.retain(|(id, _)| id <= bound);
        through.clone_from(bound);
        chunk.ends = false;
    }
    chunk
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_cut_at_its_bound_and_says_that_it_came_so_far() {
        let b = |text: &'static str| Bytes::from_static(text.as_bytes());
        let chunk = |through, ends| {
            let items = vec![(b("b"), b("1")), (b("d"), b("2"))];
            let content = Content::Items { after: b("a"), through: b(through), items };
            Chunk { content, ends, ..nothing(FileId(4), Seq(9)) }
        };
        let cut = |chunk, bound| match up_to(chunk, &b(bound)) {
            Chunk { content: Content::Items { through, items, .. }, ends, .. } => {
                (through, items.len(), ends)
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(cut(chunk("", true), ""), (b(""), 2, true));
        assert_eq!(cut(chunk("", true), "c"), (b("c"), 1, false));
        assert_eq!(cut(chunk("", true), "x"), (b("x"), 2, false));
        assert_eq!(cut(chunk("d", false), "d"), (b("d"), 2, false));
        assert_eq!(cut(chunk("d", false), "c"), (b("c"), 1, false));
        assert_eq!(cut(chunk("d", false), "x"), (b("d"), 2, false), "it did not come so far");
    }
}
