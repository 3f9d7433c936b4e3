//! Random histories for the tests of this room.

use super::namespace::{Change, Namespace, NamespaceError, NewFile};
use crate::base::{Chain, Epoch, FileId, JournalKind, Ordinal, Prng, Seq};
use crate::format::PairId;
use crate::format::batch::{Batch, BatchBuilder, Seal};
use crate::format::dptr::{DptrKind, Flags, LoggingMode};
use crate::format::entry::{Entry, EntryKind};

/// An entry that owns its bytes.
pub(super) type Owned = (EntryKind, FileId, Vec<u8>, Vec<u8>);

pub(super) fn new_file<'a>(account: &'a str, name: &'a str, flags: Flags) -> NewFile<'a> {
    NewFile { account, name, kind: DptrKind::Records, flags: Some(flags), blocks: 0, ack: None }
}

/// A random operator on one node; what is asked for may be refused.
pub(super) fn random_change(
    ns: &Namespace,
    prng: &mut Prng,
    node: Ordinal,
) -> Result<Change, NamespaceError> {
    let names = ["a", "b", "c", "dm"];
    let mut pick = |n: usize| usize::try_from(prng.below(n as u64)).unwrap();
    let (name, other) = (names[pick(4)], names[pick(3)]);
    let files: Vec<FileId> = ns.files().map(|(id, _)| id).collect();
    let file = if files.is_empty() { FileId(9) } else { files[pick(files.len())] };
    let flags = [Flags::NONE, Flags::L, Flags::X, Flags::T];
    let (set, clear) = (flags[pick(4)], flags[pick(4)]);
    match pick(15) {
        0 | 1 => ns.create_account(name, set, node),
        2..=4 => ns.create_file(&new_file(name, other, set), node),
        5 => ns.delete_account(name),
        6 => ns.rename_account(name, other),
        7 => ns.change_account_flags(name, set, clear),
        8 => ns.delete_file(file),
        9 => ns.clear_file(file),
        10 => ns.rename_file(file, other),
        11 => ns.change_file_flags(file, set, clear),
        12 => ns.begin_copy(file, Ordinal(u8::from(pick(2) == 1))),
        13 => ns.set_logging([LoggingMode::All, LoggingMode::DlOnly, LoggingMode::Paused][pick(3)]),
        _ => ns.resume_logging(),
    }
}

/// Both journals of a node that applies everything it is given.
#[derive(Clone)]
pub(super) struct History {
    pub(super) ahead: Namespace,
    pub(super) node: Ordinal,
    pub(super) heads: [Seq; 2],
    prng: Prng,
}

impl History {
    pub(super) fn new(node: Ordinal, seed: u64) -> Self {
        Self { ahead: Namespace::new(), node, heads: [Seq(0); 2], prng: Prng::new(seed) }
    }

    /// The next batch of a journal.
    pub(super) fn seal(&mut self, journal: JournalKind, entries: &[Owned]) -> Batch {
        let head = &mut self.heads[journal.index()];
        let mut builder = BatchBuilder::new(head.next(), 0);
        for (kind, file, id, value) in entries {
            let entry = Entry { kind: *kind, file: *file, id, value };
            builder.push(&entry);
            self.ahead.apply(self.node, journal, &entry).unwrap();
        }
        *head = Seq(head.0 + entries.len() as u64);
        let pair = PairId([7; 16]);
        let (epoch, prev_chain, durable) = (Epoch(2), Chain(1), Seq(0));
        builder.seal(&Seal { epoch, prev_chain, durable, wall_ms: 0, pair, journal })
    }

    /// The batch of a change, if it was not refused.
    pub(super) fn change(
        &mut self,
        make: impl FnOnce(&Namespace) -> Result<Change, NamespaceError>,
    ) -> (JournalKind, Batch) {
        let change = make(&self.ahead).unwrap();
        let owned = |e: crate::store::namespace::NewEntry| (e.kind, e.file, Vec::new(), e.value);
        let entries: Vec<Owned> = change.entries.into_iter().map(owned).collect();
        (change.journal, self.seal(change.journal, &entries))
    }

    /// A random batch: items of a random file, or a random definition change among such items.
    pub(super) fn random(&mut self, definition_percent: u64) -> (JournalKind, Batch) {
        loop {
            let mut entries: Vec<Owned> = Vec::new();
            let mut journal = None;
            if self.prng.percent(definition_percent) {
                let ns = self.ahead.clone();
                let Ok(change) = random_change(&ns, &mut self.prng, self.node) else { continue };
                journal = Some(change.journal);
                entries.extend(change.entries.into_iter().map(|e| (e.kind, e.file, Vec::new(), e.value)));
            }
            let files: Vec<_> = self.ahead.files().map(|(id, info)| (id, info.journal)).collect();
            if let Some((file, its)) = files.get(self.below(files.len()))
                && journal.is_none_or(|journal| journal == *its)
            {
                journal = Some(*its);
                for _ in 0..self.below(12) {
                    entries.push(self.item(*file));
                }
            }
            if let (Some(journal), false) = (journal, entries.is_empty()) {
                return (journal, self.seal(journal, &entries));
            }
        }
    }

    fn item(&mut self, file: FileId) -> Owned {
        let id = format!("{:02}", self.below(30)).into_bytes();
        if self.prng.percent(25) {
            return (EntryKind::Delete, file, id, Vec::new());
        }
        let len = if self.prng.percent(5) { 3000 } else { self.below(40) };
        (EntryKind::Put, file, id, vec![u8::try_from(self.below(256)).unwrap(); len])
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.prng.below(n as u64)).unwrap()
    }
}
