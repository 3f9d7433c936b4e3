//! The order of a save set, for who makes one and for who takes one: after the definitions, batches without a gap, and for
//! every range of every replicated file a chunk at its place.
//!
//! Then what the node has alone, if the set holds that: its definitions, and a chunk for every range, all of one moment, which is
//! that of the end.
//!
//! It is the order of a full copy (`taker.rs`), without a link: so a set that a [`SetWalk`] took to its end is whole, whatever
//! was lost or moved in it would have been noticed, and what it makes is the state at [`SetWalk::end`].

use super::taker::{answers, behind, settle, settle_among};
use crate::base::limits::{BLOCK_U64, CHUNK_BYTES};
use crate::base::{FileId, JournalKind, Ordinal, Position, Seq};
use crate::format::PairId;
use crate::format::alone::{Alone, AloneFiles};
use crate::format::batch::Batch;
use crate::format::chunk::{Chunk, Content, CopyBegin, Next, Progress, Want, WantFrom};
use crate::format::control::EpochMark;
use crate::format::rewind::Ranges;
use crate::format::set::{Counts, SetFile};
use crate::store::namespace::{FileInfo, Namespace, NamespaceError, has_content};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Why something has no place in a set here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalkError {
    /// A batch of something else.
    #[error("a batch of another {what}")]
    Foreign {
        /// Pair or journal.
        what: &'static str,
    },
    /// It does not follow what was before it.
    #[error("entries {first}..={last} do not follow entry {end}")]
    Gap {
        /// The first entry of the batch.
        first: Seq,
        /// Its last.
        last: Seq,
        /// The end of what was before it.
        end: Seq,
    },
    /// It belongs elsewhere.
    #[error("content that belongs behind entry {at} stands behind entry {end}")]
    Place {
        /// Where it belongs.
        at: Seq,
        /// Where it stands.
        end: Seq,
    },
    /// It is not the range that comes next.
    #[error("content of file {found} where {wanted} was to come")]
    Order {
        /// The file whose content it is.
        found: FileId,
        /// What was to come.
        wanted: String,
    },
    /// It changes a volume where there is none of it.
    #[error("blocks of file {file} up to byte {end}, which has {bytes} bytes")]
    Beyond {
        /// The volume.
        file: FileId,
        /// Where the blocks end.
        end: u64,
        /// Its size.
        bytes: u64,
    },
    /// Definitions that cannot be.
    #[error("definitions: {0}")]
    Definitions(#[from] NamespaceError),
}

/// How far a set is that is made or taken.
#[derive(Debug)]
pub struct SetWalk {
    pair: PairId,
    namespace: Namespace,
    /// The one account whose files have content in it; none for all.
    account: Option<FileId>,
    origin: Position,
    end: Position,
    table: Vec<EpochMark>,
    next: Next,
    until: Seq,
    id: u64,
    counts: Counts,
    files: BTreeMap<FileId, (u64, u64)>,
    /// What the node has alone, once it is there.
    alone: Option<OfNode>,
}

/// What a node has alone.
#[derive(Debug)]
struct OfNode {
    namespace: Namespace,
    left_out: Vec<String>,
    files: BTreeMap<FileId, (u64, u64)>,
}

fn row(files: &BTreeMap<FileId, (u64, u64)>, (id, info): (FileId, &FileInfo)) -> SetFile {
    let (items, bytes) = files.get(&id).copied().unwrap_or_default();
    let blocks = info.dptr.kind == crate::format::dptr::DptrKind::Blocks;
    SetFile { id, blocks, items, bytes, name: info.key.clone() }
}

impl SetWalk {
    /// Of a set of this pair that begins so; with content of one account only, if it has that name.
    ///
    /// # Errors
    /// [`WalkError::Definitions`].
    pub fn begin(pair: PairId, begin: &CopyBegin, account: &str) -> Result<Self, WalkError> {
        let namespace = Namespace::of(&begin.namespace)?;
        let account = match account {
            "" => None,
            // One that is not there has no files.
            name => Some(namespace.account_id(name).unwrap_or(FileId(0))),
        };
        let mut this = Self {
            pair,
            namespace,
            account,
            origin: begin.origin,
            end: begin.origin,
            table: begin.table.clone(),
            next: Progress::at(begin.origin).next,
            until: begin.origin.seq,
            id: 0,
            counts: Counts::default(),
            files: BTreeMap::new(),
            alone: None,
        };
        this.settle();
        Ok(this)
    }

    /// Takes what the node has alone; its content comes next. Nothing of the history follows.
    ///
    /// # Errors
    /// [`WalkError::Definitions`]; [`WalkError::Place`] where it is of another moment than the end of the history.
    pub fn alone(&mut self, alone: &Alone) -> Result<(), WalkError> {
        let namespace = Namespace::of(&alone.copy.namespace)?;
        if alone.copy.origin != self.end {
            return Err(WalkError::Place { at: alone.copy.origin.seq, end: self.end.seq });
        }
        let left_out = alone.left_out.clone();
        self.alone = Some(OfNode { namespace, left_out, files: BTreeMap::new() });
        self.next = Progress::at(self.end).next;
        self.settle();
        Ok(())
    }

    /// Whether what the node has alone has begun.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.alone.is_some()
    }

    /// What has come of what the node has alone, in order of ids; none of a set without that.
    #[must_use]
    pub fn alone_files(&self) -> Option<AloneFiles> {
        let OfNode { namespace, left_out, files } = self.alone.as_ref()?;
        let own = || namespace.files().filter(|(_, info)| !info.replicated);
        let (held, defined): (Vec<_>, Vec<_>) = own().partition(|(_, info)| has_content(info));
        Some(AloneFiles {
            files: held.into_iter().map(|file| row(files, file)).collect(),
            defined: defined.into_iter().map(|(_, info)| info.key.clone()).collect(),
            left_out: left_out.clone(),
        })
    }

    /// Accounts and files of which content comes now.
    fn names(&self) -> &Namespace {
        self.alone.as_ref().map_or(&self.namespace, |alone| &alone.namespace)
    }

    /// Goes on to the next range that has content in the set.
    fn settle(&mut self) {
        if let Some(alone) = &self.alone {
            self.next = settle_among(self.next.clone(), &alone.namespace, has_content);
            return;
        }
        loop {
            self.next = settle(self.next.clone(), &self.namespace, None);
            let file = match &self.next {
                Next::Items(file, _) | Next::Blocks(file, _) => *file,
                Next::Nothing => return,
            };
            let account = self.namespace.file(file).map(|info| info.dptr.account);
            if self.account.is_none() || self.account == account {
                return;
            }
            let behind = FileId(file.0 + 1);
            self.next = match self.next {
                Next::Items(..) => Next::Items(behind, Bytes::new()),
                _ => Next::Blocks(behind, 0),
            };
        }
    }

    /// The range whose content comes next; none when all have come.
    #[must_use]
    pub fn want(&self) -> Option<Want> {
        let (file, from) = match &self.next {
            Next::Items(file, after) => (*file, WantFrom::Items(after.clone())),
            Next::Blocks(file, offset) => (*file, WantFrom::Blocks(*offset)),
            Next::Nothing => return None,
        };
        Some(Want { id: self.id, file, from, most: CHUNK_BYTES, unless: None })
    }

    /// Takes the next batch.
    ///
    /// # Errors
    /// Any [`WalkError`] but [`WalkError::Place`] and [`WalkError::Order`].
    pub fn batch(&mut self, batch: &Batch) -> Result<(), WalkError> {
        let header = batch.header();
        if header.pair != self.pair {
            return Err(WalkError::Foreign { what: "pair" });
        }
        if header.journal != JournalKind::Replicated || header.mark {
            return Err(WalkError::Foreign { what: "journal" });
        }
        let follows = header.first_seq == self.end.seq.next() && header.prev_chain == self.end.chain;
        if !follows || header.epoch < self.end.epoch {
            let (first, last) = (header.first_seq, header.last_seq());
            return Err(WalkError::Gap { first, last, end: self.end.seq });
        }
        if self.table.last().is_none_or(|mark| mark.epoch < header.epoch) {
            let (epoch, first_seq) = (header.epoch, header.first_seq);
            self.table.push(EpochMark { epoch, first_seq, prev_chain: self.end.chain });
        }
        for (_, entry) in batch.entries() {
            if let Some(change) = entry.block_change() {
                check_range(&self.namespace, entry.file, (change.offset, change.len))?;
            }
            // Whose copy of a file begins is of no matter here: the content comes with the batches.
            self.namespace.apply(Ordinal(0), JournalKind::Replicated, &entry)?;
        }
        self.end = batch.end();
        self.counts.batches += 1;
        Ok(())
    }

    /// Takes the next chunk.
    ///
    /// # Errors
    /// [`WalkError::Place`], [`WalkError::Order`], [`WalkError::Beyond`].
    pub fn chunk(&mut self, chunk: &Chunk) -> Result<(), WalkError> {
        if !answers(chunk, &self.next) {
            let wanted = self.place(&self.next);
            return Err(WalkError::Order { found: chunk.file, wanted });
        }
        if chunk.at != self.end.seq {
            return Err(WalkError::Place { at: chunk.at, end: self.end.seq });
        }
        if let Content::Blocks { offset, len, .. } = &chunk.content {
            check_range(self.names(), chunk.file, (*offset, *len))?;
        }
        self.count(chunk);
        self.until = self.until.max(chunk.until);
        self.next = behind(chunk, &self.next);
        self.id += 1;
        self.settle();
        Ok(())
    }

    fn count(&mut self, chunk: &Chunk) {
        let items = match &chunk.content {
            Content::Items { items, .. } => items.len() as u64,
            _ => 0,
        };
        let bytes = chunk.content.bytes();
        self.counts.chunks += 1;
        self.counts.items += items;
        self.counts.bytes += bytes;
        let files = self.alone.as_mut().map_or(&mut self.files, |alone| &mut alone.files);
        let file = files.entry(chunk.file).or_default();
        *file = (file.0 + items, file.1 + bytes);
    }

    /// Goes on behind content that is lost: with this chunk.
    pub fn skip_to(&mut self, chunk: &Chunk) {
        self.next = match &chunk.content {
            Content::Items { after, .. } => Next::Items(chunk.file, after.clone()),
            Content::Blocks { offset, .. } => Next::Blocks(chunk.file, *offset),
            Content::Gone | Content::Equal | Content::Differs => return,
        };
        self.end.seq = chunk.at;
    }

    /// Goes on behind batches that are lost: with this one.
    pub fn skip_before(&mut self, batch: &Batch) {
        let header = batch.header();
        let seq = Seq(header.first_seq.0.saturating_sub(1));
        self.end = Position { epoch: self.end.epoch.min(header.epoch), seq, chain: header.prev_chain };
    }

    /// Goes on behind anything that is lost: with what the node has alone.
    pub fn skip_to_alone(&mut self, alone: &Alone) {
        self.end = alone.copy.origin;
    }

    /// A place in the order of content, for people.
    #[must_use]
    pub fn place(&self, next: &Next) -> String {
        let name = |file: FileId| self.names().file(file).map_or_else(|| file.to_string(), |f| f.key.clone());
        match next {
            Next::Items(file, after) if after.is_empty() => format!("the items of {}", name(*file)),
            Next::Items(file, after) => {
                format!("the items of {} behind {}", name(*file), after.escape_ascii())
            }
            Next::Blocks(file, offset) => format!("the blocks of {} from byte {offset} on", name(*file)),
            Next::Nothing => "nothing more".to_owned(),
        }
    }

    /// What comes next.
    #[must_use]
    pub fn next(&self) -> &Next {
        &self.next
    }

    /// How far it is, in the form in which a store keeps it.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress {
            until: self.until,
            bytes: self.counts.bytes,
            next: self.next.clone(),
            ..Progress::at(self.origin)
        }
    }

    /// The end of the history that it holds.
    #[must_use]
    pub fn end(&self) -> Position {
        self.end
    }

    /// Where its epochs begin.
    #[must_use]
    pub fn table(&self) -> &[EpochMark] {
        &self.table
    }

    /// Accounts and files at the end.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Of what an earlier set left that had these definitions at its end, what goes when this one begins: the content of files
    /// that are of another kind now. Of all others each range comes, or is said to be the same.
    #[must_use]
    pub fn goes(&self, before: &Namespace) -> Ranges {
        let other = |(id, info): &(FileId, &FileInfo)| {
            self.namespace.file(*id).is_some_and(|now| now.dptr.kind != info.dptr.kind)
        };
        let mut ranges = Ranges::default();
        before.files().filter(other).for_each(|(id, _)| ranges.whole(id));
        ranges
    }

    /// What it needs to be whole: entries up to here.
    #[must_use]
    pub fn until(&self) -> Seq {
        self.until
    }

    /// Whether all content is there, with every entry that it needs.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.next == Next::Nothing && self.end.seq >= self.until
    }

    /// How much has come.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What has come of each file that is there at the end, in order of ids.
    #[must_use]
    pub fn files(&self) -> Vec<SetFile> {
        let all = self.namespace.files().filter(|(_, info)| info.replicated);
        let chosen = all.filter(|(_, info)| self.account.is_none_or(|account| account == info.dptr.account));
        chosen.map(|file| row(&self.files, file)).collect()
    }
}

/// A set takes no room beyond the volumes that it defines. Of one that is gone nothing is written.
fn check_range(names: &Namespace, file: FileId, (offset, len): (u64, u64)) -> Result<(), WalkError> {
    let bytes = names.file(file).map(|info| info.dptr.blocks.saturating_mul(BLOCK_U64));
    match (bytes, offset.saturating_add(len)) {
        (Some(bytes), end) if end > bytes => Err(WalkError::Beyond { file, end, bytes }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::dptr::{DptrKind, Flags};
    use crate::format::entry::Entry;
    use crate::store::namespace::NewFile;

    fn with(kind: DptrKind) -> Namespace {
        let mut ns = Namespace::new();
        let account = ns.create_account("app", Flags::L, Ordinal(0)).unwrap();
        let blocks = u64::from(kind == DptrKind::Blocks);
        let new = NewFile { account: "app", name: "orders", kind, flags: None, blocks, ack: None };
        let apply = |ns: &mut Namespace, change: crate::store::namespace::Change| {
            for entry in &change.entries {
                let applied = Entry { kind: entry.kind, file: entry.file, id: &[], value: &entry.value };
                ns.apply(Ordinal(0), change.journal, &applied).unwrap();
            }
        };
        apply(&mut ns, account);
        let file = ns.create_file(&new, Ordinal(0)).unwrap();
        apply(&mut ns, file);
        ns
    }

    #[test]
    fn of_what_an_earlier_set_left_only_files_of_another_kind_go() {
        let (records, blocks) = (with(DptrKind::Records), with(DptrKind::Blocks));
        let begin = CopyBegin { namespace: records.definitions(), ..CopyBegin::default() };
        let walk = SetWalk::begin(PairId([1; 16]), &begin, "").unwrap();
        assert!(walk.goes(&records).is_empty() && walk.goes(&Namespace::new()).is_empty());
        let file = blocks.resolve(b"app,orders").unwrap();
        assert_eq!(records.resolve(b"app,orders"), Some(file));
        assert!(walk.goes(&blocks).is_whole(file));
    }
}
