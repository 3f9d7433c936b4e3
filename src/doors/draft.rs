//! An update of very many items, put together in steps. Nothing of it is there before the backend has taken it as a
//! whole, and taking it is quick however many items there are.

use super::index::Index;
use super::{ItemHash, Update};
use crate::base::limits::BATCH_MAX;
use crate::base::{FileId, Seq};
use crate::format::batch::{BATCH_HEADER, BatchBuilder};
use crate::format::entry::{ENTRY_HEADER, Entry, EntryKind};
use bytes::Bytes;
use smallvec::SmallVec;

/// Entries whose checksum is taken together.
const SUMMED_TOGETHER: usize = 64;
/// An entry of more is summed by itself (bytes).
const SUMMED_AT_ONCE: usize = 4096;
/// Items that are put in order together.
const RUN: usize = 512;

/// What becomes of one item.
#[derive(Debug)]
pub struct Drafted {
    /// Its file.
    pub file: FileId,
    /// Its id; most of them in place.
    pub id: SmallVec<[u8; 24]>,
    /// Its content; none if it is deleted.
    pub value: Option<Bytes>,
    /// Something newer stands elsewhere.
    superseded: bool,
}

/// Each item's last state, in the order in which items were first touched.
#[derive(Debug, Default)]
pub struct Draft {
    items: Vec<Drafted>,
    index: Index,
    files: Vec<FileId>,
    value_bytes: usize,
    id_bytes: usize,
    /// The entries so far, and of how many items.
    body: Option<BatchBuilder>,
    encoded: usize,
    /// The places of those that are encoded: each run in the order of files and ids.
    runs: Vec<Vec<u32>>,
    /// How many of them stand in a run.
    ordered: usize,
}

fn len(value: Option<&Bytes>) -> usize {
    value.map_or(0, Bytes::len)
}

impl Drafted {
    /// Whether nothing newer is known of the item.
    #[must_use]
    pub fn is_newest(&self) -> bool {
        !self.superseded
    }
}

impl Draft {
    /// How many items it changes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Makes room for so many items at once, so that none of them has to move all others.
    pub fn reserve(&mut self, items: usize) {
        self.items.reserve(items);
        self.index.reserve(items);
    }

    /// Gives up to so many items back to the allocator, the last first; whether any are left. It is of no further use.
    pub fn shed(&mut self, items: usize) -> bool {
        self.items.truncate(self.items.len().saturating_sub(items));
        !self.items.is_empty()
    }

    /// What it says of each item.
    #[must_use]
    pub fn items(&self) -> &[Drafted] {
        &self.items
    }

    /// The files whose items it changes.
    #[must_use]
    pub fn files(&self) -> &[FileId] {
        &self.files
    }

    /// Ids and values (bytes).
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.value_bytes + self.id_bytes
    }

    /// Memory held (bytes).
    #[must_use]
    pub fn held(&self) -> usize {
        let body = self.body.as_ref().map_or(0, |_| self.batch_len());
        let each = size_of::<Drafted>() + size_of::<u32>();
        self.value_bytes + self.items.capacity() * each + self.index.bytes() + body
    }

    /// How long its batch is (bytes).
    #[must_use]
    pub fn batch_len(&self) -> usize {
        BATCH_HEADER + self.items.len() * ENTRY_HEADER + self.bytes()
    }

    /// Whether it fits one batch, with what may be added to that.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.batch_len() + 4096 <= BATCH_MAX
    }

    fn place(&self, item: ItemHash, file: FileId, id: &[u8]) -> Option<usize> {
        let is = |place: &usize| {
            self.items.get(*place).is_some_and(|drafted| drafted.file == file && drafted.id.as_slice() == id)
        };
        self.index.places(item).map(|place| place as usize).find(is)
    }

    /// What it says of an item, if it does.
    #[must_use]
    pub fn find(&self, item: ItemHash, file: FileId, id: &[u8]) -> Option<&Drafted> {
        self.items.get(self.place(item, file, id)?).filter(|drafted| !drafted.superseded)
    }

    /// Notes an update.
    pub fn put(&mut self, item: ItemHash, update: &Update<'_>) {
        let (file, id, value) = match update {
            Update::Put { file, id, value } => (*file, *id, Some(Bytes::copy_from_slice(value))),
            Update::Delete { file, id } => (*file, *id, None),
        };
        self.set(item, file, id, value);
    }

    /// Sets what becomes of an item.
    ///
    /// # Panics
    /// If the item was encoded with another content.
    pub fn set(&mut self, item: ItemHash, file: FileId, id: &[u8], value: Option<Bytes>) {
        self.value_bytes += len(value.as_ref());
        let place = self.place(item, file, id);
        match place.and_then(|at| self.items.get_mut(at)) {
            Some(drafted) => {
                assert!(place >= Some(self.encoded) || drafted.value == value, "what is encoded stays");
                self.value_bytes -= len(drafted.value.as_ref());
                drafted.value = value;
            }
            None => {
                self.id_bytes += id.len();
                self.index.push(item);
                if !self.files.contains(&file) {
                    self.files.push(file);
                }
                self.items.push(Drafted { file, id: SmallVec::from_slice(id), value, superseded: false });
            }
        }
    }

    /// Takes an item's content out, to be set again.
    pub fn take(&mut self, item: ItemHash, file: FileId, id: &[u8]) -> Option<Bytes> {
        let at = self.place(item, file, id)?;
        let value = self.items.get_mut(at)?.value.take();
        self.value_bytes -= len(value.as_ref());
        value
    }

    /// Something newer is known of the item.
    pub fn supersede(&mut self, item: ItemHash, file: FileId, id: &[u8]) {
        if let Some(drafted) = self.place(item, file, id).and_then(|at| self.items.get_mut(at)) {
            drafted.superseded = true;
        }
    }

    /// The same for all items of a file.
    pub fn supersede_file(&mut self, file: FileId) {
        if self.files.contains(&file) {
            self.items.iter_mut().filter(|drafted| drafted.file == file).for_each(|d| d.superseded = true);
        }
    }

    /// Encodes one item more; returns its bytes, none when all are.
    pub fn encode_one(&mut self) -> Option<usize> {
        let capacity = self.batch_len();
        let body = self.body.get_or_insert_with(|| BatchBuilder::new(Seq(1), capacity));
        let Some(Drafted { file, id, value, .. }) = self.items.get(self.encoded) else {
            self.order();
            return None;
        };
        self.encoded += 1;
        let kind = if value.is_some() { EntryKind::Put } else { EntryKind::Delete };
        let entry = Entry { kind, file: *file, id, value: value.as_deref().unwrap_or_default() };
        body.push(&entry);
        // So that sealing a large batch has little left to sum.
        if self.encoded.is_multiple_of(SUMMED_TOGETHER) || entry.value.len() > SUMMED_AT_ONCE {
            body.sum();
        }
        let len = entry.encoded_len();
        if self.encoded - self.ordered >= RUN {
            self.order();
        }
        Some(len)
    }

    /// Puts those that are encoded and stand in no run yet into one.
    fn order(&mut self) {
        let places = |place: usize| u32::try_from(place).expect("a batch holds far fewer");
        let mut run: Vec<u32> = (self.ordered..self.encoded).map(places).collect();
        self.ordered = self.encoded;
        if !run.is_empty() {
            run.sort_unstable_by_key(|place| self.rank(*place));
            self.runs.push(run);
        }
    }

    fn rank(&self, place: u32) -> (FileId, &[u8]) {
        self.items.get(place as usize).map_or((FileId(0), &[]), |item| (item.file, item.id.as_slice()))
    }

    /// The items of a file with an id after `after`, once all are encoded: runs, each in order. To find where they begin
    /// takes few steps, however many there are.
    pub fn runs<'d>(
        &'d self,
        file: FileId,
        after: Option<&[u8]>,
    ) -> impl Iterator<Item = impl Iterator<Item = &'d Drafted>> {
        self.runs.iter().map(move |run| {
            let begin = run.partition_point(|place| {
                let (of, id) = self.rank(*place);
                of < file || of == file && after.is_some_and(|after| id <= after)
            });
            let behind = run.get(begin..).unwrap_or_default().iter();
            behind
                .filter_map(|place| self.items.get(*place as usize))
                .take_while(move |drafted| drafted.file == file)
        })
    }

    /// The entries of all items, encoded.
    pub fn take_body(&mut self) -> Option<BatchBuilder> {
        while self.encode_one().is_some() {}
        self.body.take()
    }

    /// The updates, for a backend that wants them one by one.
    pub fn updates(&self) -> impl Iterator<Item = Update<'_>> {
        self.items.iter().map(|Drafted { file, id, value, .. }| match value {
            Some(value) => Update::Put { file: *file, id, value },
            None => Update::Delete { file: *file, id },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_has_its_last_state_and_stands_where_it_was_first_touched() {
        let mut draft = Draft::default();
        // Two items of one number are not mixed up.
        let (file, item) = (FileId(4), ItemHash(7));
        for (id, value) in [(b"a", &b"1"[..]), (b"b", b"22"), (b"a", b"333")] {
            draft.put(item, &Update::Put { file, id, value });
        }
        draft.put(item, &Update::Delete { file, id: b"c" });
        let text: Vec<String> = draft.updates().map(|update| format!("{update:?}")).collect();
        assert_eq!((draft.len(), draft.bytes(), text.len()), (3, 8, 3));
        assert!(text[0].contains("[51, 51, 51]") && text[2].starts_with("Delete"), "{text:?}");
        assert_eq!(draft.take(item, file, b"b").as_deref(), Some(&b"22"[..]));
        draft.set(item, file, b"b", Some(Bytes::from_static(b"4444")));
        assert_eq!(draft.find(item, file, b"b").and_then(|found| found.value.as_deref()), Some(&b"4444"[..]));
        draft.supersede(item, file, b"b");
        assert!(draft.find(item, file, b"b").is_none() && draft.find(item, file, b"a").is_some());
        let len = draft.batch_len();
        let body = draft.take_body().unwrap();
        assert_eq!((body.count(), body.len()), (3, len));
    }

    #[test]
    fn the_items_of_a_file_are_found_in_ordered_runs_behind_any_id() {
        let (mut draft, mut wanted) = (Draft::default(), Vec::new());
        for n in 0..3 * RUN as u64 {
            let (file, id) = (FileId(4 + n % 2), n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
            draft.put(ItemHash(n), &Update::Put { file, id: &id, value: b"v" });
            wanted.push((file, id));
            // All are encoded here, and more come.
            if n == RUN as u64 + 7 {
                while draft.encode_one().is_some() {}
            }
        }
        drop(draft.take_body());
        wanted.sort_unstable();
        for file in [FileId(3), FileId(4), FileId(5)] {
            for after in [None, Some([0; 8]), Some(wanted[40].1), Some(wanted[2 * RUN].1), Some([255; 8])] {
                let mut found = Vec::new();
                for run in draft.runs(file, after.as_ref().map(<[u8; 8]>::as_slice)) {
                    let run: Vec<&[u8]> = run.map(|drafted| drafted.id.as_slice()).collect();
                    assert!(run.is_sorted() && run.len() <= RUN);
                    found.extend(run);
                }
                found.sort_unstable();
                let fits =
                    |(of, id): &&(FileId, [u8; 8])| *of == file && after.is_none_or(|after| *id > after);
                let expected: Vec<&[u8]> = wanted.iter().filter(fits).map(|(_, id)| id.as_slice()).collect();
                assert!(found == expected, "{file:?} after {after:?}");
            }
        }
    }

    #[test]
    fn a_draft_is_given_up_in_steps() {
        let mut draft = Draft::default();
        draft.reserve(10);
        for n in 0..10_u8 {
            draft.put(ItemHash(u64::from(n)), &Update::Put { file: FileId(4), id: &[n], value: b"v" });
        }
        assert!(draft.shed(4) && draft.len() == 6);
        assert!(draft.shed(5) && draft.len() == 1);
        assert!(!draft.shed(5) && draft.len() == 0);
    }
}
