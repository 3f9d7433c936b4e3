//! Holds what was laid out of a save against a running node, while users work: what differs, although no update since the
//! save says so.
//!
//! The node sends what a save would be made of. What differs from the earlier save is noted, and then taken out again where
//! the entries in between (of the node's journal, and of spools) changed it. Without any difference no entry is read.

use super::admin::{AdminCallError, call_for_stream};
use super::past::{self, PastError, PastSource, Until};
use super::restore::Unpacked;
use super::save::FrameKind;
use super::set::SaveError;
use super::set::from_node::{beginning, broken, frame, unexpected};
use crate::base::limits::BLOCK;
use crate::base::{FileId, Seq};
use crate::engine::SetWalk;
use crate::engine::admin::{AdminReply, AdminRequest};
use crate::format::batch::Batch;
use crate::format::chunk::{Chunk, Content};
use crate::format::entry::{Entry, EntryKind};
use crate::format::set::SetBegin;
use crate::store::StoreError;
use crate::store::namespace::{FileInfo, Namespace};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Items that are read together.
const PAGE: usize = 256;
/// Of a volume so much is read at once (bytes).
const STEP: u64 = 1 << 20;
/// So much is noted before it is known what changed since, about 100 bytes each.
const NOTED_MAX: usize = 1 << 20;

/// Why it is not known whether they differ.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgainstError {
    /// The node cannot be asked, or does not send.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// What changed since is not known.
    #[error("telling what changed since the save: {0}")]
    Past(#[from] PastError),
    /// The save as it was laid out cannot be read.
    #[error("reading the save as laid out: {0}")]
    Store(#[from] StoreError),
    /// Too much differs.
    #[error("more than {NOTED_MAX} items and blocks differ, or changed since the save")]
    TooMany,
}

impl From<AdminCallError> for AgainstError {
    fn from(error: AdminCallError) -> Self {
        Self::Save(error.into())
    }
}

impl AgainstError {
    /// What to do next, for people.
    #[must_use]
    pub fn next(&self) -> String {
        match self {
            Self::Save(error) => error.next(),
            Self::Past(PastError::Gap { .. }) => {
                "the node's journal has let these entries go: name what has them with --spool, or take a newer save"
                    .to_owned()
            }
            Self::Past(error) => error.next(),
            Self::Store(_) => "look at the disk of --scratch".to_owned(),
            Self::TooMany => "take a newer save, which less has changed since".to_owned(),
        }
    }
}

/// How the two differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// The node does not have it.
    OnlyInSave,
    /// The save does not have it.
    OnlyOnNode,
    /// Both have it, and it is not alike.
    Other,
}

/// Something that differs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    /// The definition of the file.
    File,
    /// An item.
    Item(Bytes),
    /// A block of 4 KiB, by its number.
    Block(u64),
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Against {
    /// The state of the save.
    pub from: Seq,
    /// The state of the node.
    pub to: Seq,
    /// Content of the node that was looked at (bytes).
    pub bytes: u64,
    /// What differed and was changed since by updates.
    pub changed: u64,
    /// What differs though nobody changed it: file, thing, and how.
    pub differences: Vec<(String, Thing, How)>,
}

/// Holds a save against the node in `dir`. `history` is where entries are that the node's journal has let go.
///
/// # Errors
/// [`AgainstError`].
pub fn against(
    dir: &Path,
    save: &mut Unpacked,
    (account, rate): (&str, Option<u64>),
    history: &[PastSource],
    patience: Duration,
) -> Result<Against, AgainstError> {
    let named = (!account.is_empty()).then(|| account.to_owned());
    let (reply, mut stream, _) = call_for_stream(
        dir,
        &AdminRequest::Save { account: named, rate, since: false, alone: false },
        patience,
    )?;
    if let AdminReply::No { message, next } | AdminReply::Error { message, next } = reply {
        return Err(SaveError::Refused { message, next }.into());
    }
    let (pair, begin) = match frame(&mut stream)? {
        (FrameKind::Begin, payload) => beginning(&payload).map(|(pair, _, begin)| (pair, begin))?,
        other => return Err(unexpected(other).into()),
    };
    check_place(save, &begin)?;
    let told = |error: &dyn std::fmt::Display| AgainstError::Save(broken(error.to_string()));
    let mut walk = SetWalk::begin(pair, &begin.copy, account).map_err(|error| told(&error))?;
    let mut found = Noted::default();
    found.definitions(save.namespace(), walk.namespace(), account)?;
    let mut bytes = 0;
    loop {
        match frame(&mut stream)? {
            (FrameKind::Batch, payload) => {
                let batch = Batch::from_wire(&payload).map_err(|error| told(&error))?;
                walk.batch(&batch).map_err(|error| told(&error))?;
            }
            (FrameKind::Chunk, payload) => {
                let chunk = Chunk::decode(&payload).map_err(|error| told(&error))?;
                walk.chunk(&chunk).map_err(|error| told(&error))?;
                bytes += chunk.content.bytes();
                found.chunk(save, &chunk)?;
            }
            (FrameKind::End, _) => break,
            other => return Err(unexpected(other).into()),
        }
    }
    let (from, to) = (save.past().end, walk.end().seq);
    let before = found.things.len() as u64;
    if before > 0 && to > from.seq {
        let own = PastSource::Journal(dir.to_owned());
        let sources: Vec<_> = history.iter().cloned().chain([own]).collect();
        let since = past::find(&sources, (pair, from), Until::Entry(to))?;
        since.walk(|batch| {
            batch.entries().for_each(|(_, entry)| found.changed(&entry, save.namespace()));
            Ok::<_, AgainstError>(())
        })?;
    }
    let changed = before - found.things.len() as u64;
    let name = |file: FileId| {
        let info = save.namespace().file(file).or_else(|| walk.namespace().file(file));
        info.map_or_else(|| file.to_string(), |info| info.key.clone())
    };
    let differences = found.things.into_iter().map(|((file, thing), how)| (name(file), thing, how)).collect();
    Ok(Against { from: from.seq, to, bytes, changed, differences })
}

/// A node that is behind the save has not yet what it would be held against.
fn check_place(save: &Unpacked, begin: &SetBegin) -> Result<(), AgainstError> {
    let (end, origin) = (save.past().end, begin.copy.origin);
    if origin.seq >= end.seq {
        return Ok(());
    }
    let message = format!(
        "holding the save against {}: it is at entry {}, before the save's end, entry {}",
        begin.node, origin.seq, end.seq
    );
    let next = "wait until the node has it, or ask the other node".to_owned();
    Err(SaveError::Refused { message, next }.into())
}

/// What differs, as far as it is known.
#[derive(Debug, Default)]
struct Noted {
    things: BTreeMap<(FileId, Thing), How>,
}

impl Noted {
    fn note(&mut self, file: FileId, thing: Thing, how: How) -> Result<(), AgainstError> {
        self.things.insert((file, thing), how);
        if self.things.len() > NOTED_MAX { Err(AgainstError::TooMany) } else { Ok(()) }
    }

    fn definitions(&mut self, save: &Namespace, node: &Namespace, account: &str) -> Result<(), AgainstError> {
        let chosen = |info: &FileInfo| account.is_empty() || info.key.split(',').next() == Some(account);
        let shared = |names: &'_ Namespace, id: FileId| {
            names
                .file(id)
                .filter(|info| info.replicated)
                .map(|info| (info.key.clone(), info.dptr.kind, info.dptr.flags, info.dptr.blocks))
        };
        for (id, _) in save.files().filter(|(_, info)| info.replicated && chosen(info)) {
            match shared(node, id) {
                None => self.note(id, Thing::File, How::OnlyInSave)?,
                other if other != shared(save, id) => self.note(id, Thing::File, How::Other)?,
                Some(_) => {}
            }
        }
        for (id, _) in node.files().filter(|(_, info)| info.replicated && chosen(info)) {
            if shared(save, id).is_none() {
                self.note(id, Thing::File, How::OnlyOnNode)?;
            }
        }
        Ok(())
    }

    fn chunk(&mut self, save: &mut Unpacked, chunk: &Chunk) -> Result<(), AgainstError> {
        let Some(blocks) =
            save.namespace().file(chunk.file).filter(|info| info.replicated).map(|info| info.dptr.blocks)
        else {
            return Ok(());
        };
        match &chunk.content {
            Content::Gone | Content::Equal | Content::Differs => Ok(()),
            Content::Items { after, through, items } => {
                self.items(save, chunk.file, (after, (!chunk.ends).then_some(through)), items)
            }
            Content::Blocks { offset, len, runs } => {
                let end = (offset + len).min(blocks * BLOCK as u64);
                let mut at = *offset;
                while at < end {
                    let step = STEP.min(end - at);
                    self.blocks(save, chunk.file, (at, step), runs)?;
                    at += step;
                }
                Ok(())
            }
        }
    }

    fn items(
        &mut self,
        save: &Unpacked,
        file: FileId,
        (after, through): (&Bytes, Option<&Bytes>),
        items: &[(Bytes, Bytes)],
    ) -> Result<(), AgainstError> {
        let mut there = items.iter().peekable();
        let mut at = after.clone();
        loop {
            let page = save.items(file, &at, PAGE)?;
            let more = page.len() == PAGE;
            for (id, value) in page {
                if through.is_some_and(|through| id > *through) {
                    break;
                }
                while let Some((other, _)) = there.next_if(|(other, _)| *other < id) {
                    self.note(file, Thing::Item(copied(other)), How::OnlyOnNode)?;
                }
                match there.next_if(|(other, _)| *other == id) {
                    Some((_, other)) if *other == value => {}
                    Some(_) => self.note(file, Thing::Item(copied(&id)), How::Other)?,
                    None => self.note(file, Thing::Item(copied(&id)), How::OnlyInSave)?,
                }
                at = id;
            }
            if !more || through.is_some_and(|through| at >= *through) {
                break;
            }
        }
        there.try_for_each(|(other, _)| self.note(file, Thing::Item(copied(other)), How::OnlyOnNode))
    }

    fn blocks(
        &mut self,
        save: &mut Unpacked,
        file: FileId,
        (offset, len): (u64, u64),
        runs: &[(u64, Bytes)],
    ) -> Result<(), AgainstError> {
        let size = usize::try_from(len).unwrap_or(usize::MAX);
        let held = save.blocks(file, offset, size)?;
        let there = laid_out(offset, size, runs);
        let pairs = held.chunks(BLOCK).zip(there.chunks(BLOCK)).zip(offset / BLOCK as u64..);
        for ((one, other), number) in pairs {
            if one != other {
                self.note(file, Thing::Block(number), How::Other)?;
            }
        }
        Ok(())
    }

    /// An entry since the save: what it changed says nothing.
    fn changed(&mut self, entry: &Entry<'_>, save: &Namespace) {
        let file = entry.file;
        match entry.kind {
            EntryKind::Put | EntryKind::Delete => {
                self.things.remove(&(file, Thing::Item(copied(entry.id))));
            }
            EntryKind::AccountCreate | EntryKind::AccountDelete | EntryKind::AccountChange => {
                let of = |id: FileId| save.file(id).map(|info| info.dptr.account);
                self.things.retain(|(id, _), _| of(*id) != Some(file));
            }
            EntryKind::EpochStart | EntryKind::Logging => {}
            _ => match entry.block_change() {
                Some(change) => {
                    let block = BLOCK as u64;
                    let (first, behind) = (change.offset / block, change.end().div_ceil(block));
                    let range = (file, Thing::Block(first))..(file, Thing::Block(behind));
                    let touched: Vec<_> = self.things.range(range).map(|(key, _)| key.clone()).collect();
                    for key in &touched {
                        self.things.remove(key);
                    }
                }
                None => self.things.retain(|(id, _), _| *id != file),
            },
        }
    }
}

/// An id that does not hold the content beside which it stood.
fn copied(id: &[u8]) -> Bytes {
    Bytes::copy_from_slice(id)
}

/// A range of a volume, of which these runs say what is not zeros.
fn laid_out(offset: u64, len: usize, runs: &[(u64, Bytes)]) -> Vec<u8> {
    let mut all = vec![0; len];
    let end = offset + len as u64;
    for (at, bytes) in runs {
        let (from, to) = ((*at).max(offset), (at + bytes.len() as u64).min(end));
        if from >= to {
            continue;
        }
        let place = |at: u64, base: u64| usize::try_from(at - base).unwrap_or(usize::MAX);
        let source = bytes.get(place(from, *at)..place(to, *at)).unwrap_or_default();
        if let Some(target) = all.get_mut(place(from, offset)..place(to, offset)) {
            target.copy_from_slice(source);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileId = FileId(4);

    fn noted() -> Noted {
        let mut noted = Noted::default();
        let things = [
            (FILE, Thing::Item(copied(b"a"))),
            (FILE, Thing::Item(copied(b"b"))),
            (FILE, Thing::Block(1)),
            (FILE, Thing::Block(2)),
            (FILE, Thing::Block(3)),
            (FileId(5), Thing::File),
        ];
        for (file, thing) in things {
            noted.note(file, thing, How::Other).unwrap();
        }
        noted
    }

    /// What still differs after these entries, in order.
    fn after(kind: EntryKind, file: FileId, id: &[u8], value: &[u8]) -> Vec<Thing> {
        let mut noted = noted();
        noted.changed(&Entry { kind, file, id, value }, &Namespace::new());
        noted.things.into_keys().map(|(_, thing)| thing).collect()
    }

    #[test]
    fn what_an_entry_since_the_save_changed_does_not_count() {
        let all: Vec<Thing> = noted().things.into_keys().map(|(_, thing)| thing).collect();
        let without = |gone: &[Thing]| -> Vec<Thing> {
            all.iter().filter(|thing| !gone.contains(thing)).cloned().collect()
        };
        assert_eq!(after(EntryKind::Put, FILE, b"a", b"v"), without(&[Thing::Item(copied(b"a"))]));
        assert_eq!(after(EntryKind::Delete, FILE, b"c", b""), all);
        assert_eq!(after(EntryKind::Put, FileId(5), b"a", b"v"), all);
        let at = |offset: u64| offset.to_le_bytes();
        assert_eq!(after(EntryKind::BlockWrite, FILE, &at(8192), &[1; 4096]), without(&[Thing::Block(2)]));
        let two = without(&[Thing::Block(1), Thing::Block(2)]);
        assert_eq!(after(EntryKind::BlockWrite, FILE, &at(8191), &[1; 2]), two);
        assert_eq!(after(EntryKind::FileClear, FILE, b"", b""), [Thing::File]);
        assert_eq!(after(EntryKind::FileChange, FileId(5), b"", b"").len(), 5);
    }

    #[test]
    fn runs_are_laid_out_in_their_place_and_cut_to_the_range() {
        let run = |at: u64, len: usize| (at, Bytes::from(vec![7; len]));
        let all = laid_out(100, 10, &[run(95, 7), run(105, 2), run(109, 9), run(300, 1)]);
        assert_eq!(all, [7, 7, 0, 0, 0, 7, 7, 0, 0, 7]);
    }
}
