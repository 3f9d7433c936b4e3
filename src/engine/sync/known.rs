//! What an earlier save set holds at its end, range by range, by hash: so that a later one says "the same" in place of content.
//!
//! - Invariant: a hash is kept only while no entry of the set changes anything in its range after the range was read; so it
//!   is that of the state at the set's end.
//!
//! About 250 bytes of memory are taken for each range, which is 1 MiB of content or a hole.

use crate::base::FileId;
use crate::format::batch::Batch;
use crate::format::chunk::{Chunk, Content, Next, Want, WantFrom};
use crate::format::entry::{Entry, EntryKind};
use crate::format::since::{Same, UNKNOWN};
use std::collections::BTreeMap;

/// The ranges of a set, by file; items and blocks apart.
#[derive(Debug, Default)]
pub struct Known {
    items: BTreeMap<FileId, Vec<Same>>,
    blocks: BTreeMap<FileId, Vec<Same>>,
    /// What the set holds of what its node has alone, once that has begun.
    alone: Option<Box<Self>>,
}

impl Known {
    /// Takes the next chunk of the set.
    pub fn chunk(&mut self, chunk: &Chunk) {
        self.same(Same::of(chunk));
    }

    /// What the node has alone comes next: no entry of the set changes anything of that.
    pub fn begin_alone(&mut self) {
        self.alone = Some(Box::default());
    }

    /// What the set holds of what its node has alone.
    #[must_use]
    pub fn alone(&self) -> Option<&Self> {
        self.alone.as_deref()
    }

    /// Takes the next range that is as an earlier set left it.
    pub fn same(&mut self, same: Same) {
        if let Some(alone) = &mut self.alone {
            return alone.same(same);
        }
        let files = match same.range.content {
            Content::Gone | Content::Equal | Content::Differs => return,
            Content::Items { .. } => &mut self.items,
            Content::Blocks { .. } => &mut self.blocks,
        };
        files.entry(same.range.file).or_default().push(same);
    }

    /// Takes the next batch of the set.
    pub fn batch(&mut self, batch: &Batch) {
        for (_, entry) in batch.entries() {
            self.entry(&entry);
        }
    }

    fn entry(&mut self, entry: &Entry<'_>) {
        match entry.kind {
            EntryKind::Put | EntryKind::Delete => {
                let ranges = self.items.get_mut(&entry.file).map(Vec::as_mut_slice).unwrap_or_default();
                // The last one that begins before the item; behind its end is what was not read yet.
                let at = ranges.partition_point(|same| first_item(same) < entry.id);
                if let Some(same) = at.checked_sub(1).and_then(|at| ranges.get_mut(at)) {
                    same.hash = UNKNOWN;
                }
            }
            _ => match entry.block_change() {
                Some(change) => {
                    let ranges = self.blocks.get_mut(&entry.file).map(Vec::as_mut_slice).unwrap_or_default();
                    let (from, to) = (change.offset, change.end());
                    let at = ranges.partition_point(|same| blocks_of(same).1 <= from);
                    let touched = ranges.iter_mut().skip(at).take_while(|same| blocks_of(same).0 < to);
                    touched.for_each(|same| same.hash = UNKNOWN);
                }
                None => self.forget(entry),
            },
        }
    }

    /// What concerns a file as a whole.
    fn forget(&mut self, entry: &Entry<'_>) {
        let of = |files: &mut BTreeMap<FileId, Vec<Same>>| {
            let ranges = files.get_mut(&entry.file).into_iter().flatten();
            ranges.for_each(|same| same.hash = UNKNOWN);
        };
        of(&mut self.items);
        of(&mut self.blocks);
    }

    /// All ranges in the order of a set, but of what its node has alone: items of all files, then blocks.
    pub fn ranges(&self) -> impl Iterator<Item = &Same> {
        self.items.values().chain(self.blocks.values()).flatten()
    }

    /// Whether the set holds exactly this.
    #[must_use]
    pub fn holds(&self, same: &Same) -> bool {
        let files = match same.range.content {
            Content::Items { .. } => &self.items,
            _ => &self.blocks,
        };
        let begin = same.begin();
        let ranges = files.get(&same.range.file).map(Vec::as_slice).unwrap_or_default();
        let at = ranges.partition_point(|other| is_before(&other.begin(), &begin));
        ranges.get(at).is_some_and(|other| other.is(same))
    }
}

fn first_item(same: &Same) -> &[u8] {
    match &same.range.content {
        Content::Items { after, .. } => after,
        _ => &[],
    }
}

/// From one byte to another, which is not included.
fn blocks_of(same: &Same) -> (u64, u64) {
    match same.range.content {
        Content::Blocks { offset, len, .. } => (offset, offset.saturating_add(len)),
        _ => (0, 0),
    }
}

/// The order of a set.
fn is_before(one: &Next, other: &Next) -> bool {
    let rank = |next: &Next| match next {
        Next::Items(file, after) => (0, *file, after.clone(), 0),
        Next::Blocks(file, offset) => (1, *file, bytes::Bytes::new(), *offset),
        Next::Nothing => (2, FileId(0), bytes::Bytes::new(), 0),
    };
    rank(one) < rank(other)
}

/// Whether a range ends before a place, or with it: it is of no use from there on.
#[must_use]
pub fn is_over(same: &Same, at: &Next) -> bool {
    match (&same.range.content, at) {
        (Content::Items { through, .. }, Next::Items(file, after)) if same.range.file == *file => {
            !same.range.ends && through <= after
        }
        (Content::Blocks { .. }, Next::Blocks(file, offset)) if same.range.file == *file => {
            blocks_of(same).1 <= *offset
        }
        _ => is_before(&same.begin(), at),
    }
}

/// A want that ends where the range ends in which it begins, so that both can be held against each other.
#[must_use]
pub fn within(want: Want, same: Option<&Same>) -> Want {
    let Some(same) = same.filter(|same| same.range.file == want.file && !same.range.ends) else {
        return want;
    };
    let from = match (&want.from, &same.range.content) {
        (WantFrom::Items(from), Content::Items { after, through, .. }) if after <= from && from < through => {
            WantFrom::ItemsTo(from.clone(), through.clone())
        }
        (WantFrom::Blocks(from), Content::Blocks { .. })
            if (blocks_of(same).0..blocks_of(same).1).contains(from) =>
        {
            WantFrom::BlocksTo(*from, blocks_of(same).1)
        }
        _ => return want,
    };
    Want { from, ..want }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Chain, Epoch, JournalKind, Seq};
    use crate::format::PairId;
    use crate::format::batch::{BatchBuilder, Seal};
    use bytes::Bytes;

    const ORDERS: FileId = FileId(3);
    const DISK: FileId = FileId(4);

    fn items(after: &'static str, through: &'static str, ends: bool) -> Chunk {
        let item = (Bytes::from(format!("{after}x")), Bytes::from("value"));
        let content =
            Content::Items { after: Bytes::from(after), through: Bytes::from(through), items: vec![item] };
        Chunk { id: 1, file: ORDERS, at: Seq(9), until: Seq(9), content, ends }
    }

    fn blocks(offset: u64, len: u64) -> Chunk {
        let runs = vec![(offset, Bytes::from(vec![7; 4096]))];
        Chunk { file: DISK, content: Content::Blocks { offset, len, runs }, ..items("", "", true) }
    }

    fn known() -> Known {
        let mut known = Known::default();
        for chunk in [
            items("", "f", false),
            items("f", "m", false),
            items("m", "", true),
            blocks(0, 8192),
            blocks(8192, 4096),
        ] {
            known.chunk(&chunk);
        }
        known.chunk(&Chunk { content: Content::Gone, ..items("", "", true) });
        known
    }

    /// Which ranges are known after these entries.
    fn after(entries: &[Entry<'_>]) -> Vec<bool> {
        let mut builder = BatchBuilder::new(Seq(10), 0);
        for entry in entries {
            builder.push(entry);
        }
        let (durable, journal) = (Seq(9), JournalKind::Replicated);
        let seal = Seal {
            epoch: Epoch(1),
            prev_chain: Chain(0),
            durable,
            wall_ms: 0,
            pair: PairId([1; 16]),
            journal,
        };
        let mut known = known();
        known.batch(&builder.seal(&seal));
        known.ranges().map(|same| same.hash != UNKNOWN).collect()
    }

    fn entry<'a>(kind: EntryKind, file: FileId, id: &'a [u8], value: &'a [u8]) -> Entry<'a> {
        Entry { kind, file, id, value }
    }

    #[test]
    fn a_range_is_known_until_an_entry_changes_something_in_it() {
        let put = |id: &'static [u8]| [entry(EntryKind::Put, ORDERS, id, b"v")];
        assert_eq!(after(&put(b"c")), [false, true, true, true, true]);
        assert_eq!(after(&put(b"f")), [false, true, true, true, true], "the last id is within it");
        assert_eq!(after(&put(b"fa")), [true, false, true, true, true]);
        assert_eq!(after(&[entry(EntryKind::Delete, ORDERS, b"zz", b"")]), [true, true, false, true, true]);
        assert_eq!(after(&[entry(EntryKind::Put, FileId(77), b"c", b"v")]), [true; 5]);
        let write = |offset: u64, value: &'static [u8]| {
            let id = offset.to_le_bytes();
            after(&[entry(EntryKind::BlockWrite, DISK, &id, value)])
        };
        assert_eq!(write(8191, b"x"), [true, true, true, false, true]);
        assert_eq!(write(8191, b"xy"), [true, true, true, false, false]);
        assert_eq!(write(8192, b"x"), [true, true, true, true, false]);
        assert_eq!(write(99_999, b"x"), [true; 5]);
        assert_eq!(
            after(&[entry(EntryKind::FileDelete, ORDERS, b"", b"")]),
            [false, false, false, true, true]
        );
    }

    #[test]
    fn what_a_set_holds_is_told_from_what_it_does_not_hold() {
        let known = known();
        assert_eq!(known.ranges().count(), 5);
        for chunk in [items("f", "m", false), blocks(8192, 4096)] {
            assert!(known.holds(&Same::of(&chunk)));
            assert!(!known.holds(&Same { hash: [5; 32], ..Same::of(&chunk) }));
            assert!(!known.holds(&Same::of(&Chunk { file: FileId(9), ..chunk })));
        }
        assert!(!known.holds(&Same::of(&items("f", "n", false))));
        assert!(!known.holds(&Same::of(&blocks(4096, 4096))));
    }

    #[test]
    fn a_want_ends_where_the_known_range_does_in_which_it_begins() {
        let want = |file, from| Want { id: 0, file, from, most: 9, unless: None };
        let from = |id: &'static str| WantFrom::Items(Bytes::from(id));
        let range = Same::of(&items("f", "m", false));
        let to = |id: &'static str| WantFrom::ItemsTo(Bytes::from(id), Bytes::from("m"));
        assert_eq!(within(want(ORDERS, from("f")), Some(&range)).from, to("f"));
        assert_eq!(within(want(ORDERS, from("g")), Some(&range)).from, to("g"));
        for (file, at) in [(ORDERS, "m"), (ORDERS, "a"), (FileId(9), "f")] {
            assert_eq!(within(want(file, from(at)), Some(&range)).from, from(at), "{at}");
        }
        let last = Same::of(&items("m", "", true));
        assert_eq!(within(want(ORDERS, from("m")), Some(&last)).from, from("m"));
        let place = Same::of(&Chunk { ends: false, ..blocks(0, 8192) });
        let blocks_from = WantFrom::Blocks(4096);
        assert_eq!(within(want(DISK, blocks_from), Some(&place)).from, WantFrom::BlocksTo(4096, 8192));
        assert_eq!(within(want(DISK, WantFrom::Blocks(8192)), Some(&place)).from, WantFrom::Blocks(8192));
    }

    #[test]
    fn a_range_is_over_behind_its_end_and_in_every_later_file() {
        let range = Same::of(&items("f", "m", false));
        let at = |file, id: &'static str| Next::Items(file, Bytes::from(id));
        for (place, over) in [
            (at(ORDERS, ""), false),
            (at(ORDERS, "f"), false),
            (at(ORDERS, "g"), false),
            (at(ORDERS, "m"), true),
            (at(FileId(2), "z"), false),
            (at(FileId(9), ""), true),
            (Next::Blocks(FileId(1), 0), true),
            (Next::Nothing, true),
        ] {
            assert_eq!(is_over(&range, &place), over, "{place:?}");
        }
        assert!(!is_over(&Same::of(&items("m", "", true)), &at(ORDERS, "zzz")), "it has no end");
        assert!(is_over(&Same::of(&blocks(0, 8192)), &Next::Blocks(DISK, 8192)));
        assert!(!is_over(&Same::of(&blocks(0, 8192)), &Next::Blocks(DISK, 4096)));
    }
}
