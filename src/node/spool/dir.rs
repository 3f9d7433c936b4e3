//! A spool's directory: parts, each with the name that its header gives it, and an index that saves opening them.
//!
//! The index is a convenience: a part counts by its name, which it gets once all of it is durable. What the index does not
//! know, or tells otherwise, is read from the part itself.

use crate::base::limits::{BLOCK, SPOOL_PARTS_MAX};
use crate::base::{Ordinal, read_at_most};
use crate::engine::SpoolFound;
use crate::format::PairId;
use crate::format::batch::Batch;
use crate::format::segment::SegmentHeader;
use crate::format::spool::{INDEX_RECORD, PART_START, PART_TRAILER, PartHeader, PartTrailer};
use crate::io::{Access, Own, check_dir, make_dir, put_in_place, sync_dir};
use crate::journal::{ReadRequest, ReadStep, SegmentInfo, SegmentWalk};
use crate::node::tape::TapeError;
use bytes::Bytes;
use nix::sys::statvfs::statvfs;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What the config's `spool` begins with for a directory.
pub const FILE: &str = "file:";
/// What names of parts end with.
pub(in crate::node) const PART: &str = ".hbp";
const UNFINISHED: &str = ".hbp.hot-backup-tmp";
const INDEX: &str = "index";

/// The spool of one node, in a directory of its own below the one that the config names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolDir {
    dir: PathBuf,
}

/// Something that stops a part from being one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct BadPart {
    /// Where it was seen, for people.
    pub why: String,
    /// The last entry before the damage, as far as the part could be read.
    pub good_to: Option<u64>,
}

fn bad(why: impl ToString) -> BadPart {
    BadPart { why: why.to_string(), good_to: None }
}

impl SpoolDir {
    /// Of a node, in the directory that `place` names (`file:/directory`). Touches nothing.
    ///
    /// # Errors
    /// In words, if the place is of another form.
    pub fn of(place: &str, pair: PairId, ordinal: Ordinal) -> Result<Self, String> {
        let dir = place.strip_prefix(FILE).filter(|dir| dir.starts_with('/'));
        let dir = dir.ok_or_else(|| format!("{place:?} is no place for a spool: say file:/directory"))?;
        Ok(Self::below(Path::new(dir), pair, ordinal))
    }

    /// Of a node, in this directory. Touches nothing.
    pub(in crate::node) fn below(dir: &Path, pair: PairId, ordinal: Ordinal) -> Self {
        Self { dir: dir.join(format!("spool-{pair}-{}", ordinal.0)) }
    }

    /// A directory that holds parts, whosever they are.
    #[must_use]
    pub fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Where the parts are.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Makes it, if it is not there; the directory above it must be: else the disk is not mounted.
    pub(in crate::node) fn make(&self) -> io::Result<()> {
        if self.dir.parent().is_none_or(|above| !above.is_dir()) {
            return Err(io::ErrorKind::NotFound.into());
        }
        make_dir(&self.dir)?;
        check_dir(&self.dir, Access::Change).map_err(|error| {
            tracing::warn!("the spool: {error}");
            io::Error::from(io::ErrorKind::PermissionDenied)
        })
    }

    fn own(&self, name: &str) -> Own {
        Own::new(&self.dir, name)
    }

    /// Bytes that the disk has left.
    pub(in crate::node) fn free(&self) -> u64 {
        let disk = statvfs(&self.dir);
        disk.map_or(0, |disk| disk.blocks_available().saturating_mul(disk.fragment_size()))
    }

    /// The names of all parts, in order.
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string()
                && name.ends_with(PART)
                && !name.starts_with('.')
                && entry.file_type()?.is_file()
                && names.len() < SPOOL_PARTS_MAX
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Removes what a process that was killed left unfinished.
    pub(super) fn tidy(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.dir)? {
            if let Ok(name) = entry?.file_name().into_string()
                && name.starts_with('.')
                && name.ends_with(UNFINISHED)
            {
                self.own(&name).remove()?;
            }
        }
        Ok(())
    }

    fn index(&self) -> HashMap<String, PartHeader> {
        let most = SPOOL_PARTS_MAX * INDEX_RECORD;
        let bytes = File::open(self.dir.join(INDEX)).and_then(|file| read_at_most(file, most));
        let bytes = bytes.unwrap_or_default();
        let records = bytes.chunks(INDEX_RECORD).filter_map(|record| PartHeader::of_record(record).ok());
        records.map(|header| (header.file_name(), header)).collect()
    }

    /// All parts, and the files that are none although they have such names.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> io::Result<SpoolFound> {
        let index = self.index();
        let mut found = SpoolFound { free: self.free(), ..SpoolFound::default() };
        for name in self.names()? {
            let known = index.get(&name).filter(|known| {
                std::fs::metadata(self.dir.join(&name)).is_ok_and(|meta| meta.len() == known.file_bytes())
            });
            match known.map_or_else(|| self.ends_of(&name).map(|(header, _)| header), |known| Ok(*known)) {
                Ok(header) => found.parts.push(header),
                Err(error) => found.damaged.push((name, error.why)),
            }
        }
        Ok(found)
    }

    /// Writes the index anew.
    pub(super) fn write_index(&self, parts: &[PartHeader]) -> io::Result<()> {
        let records: Vec<u8> = parts.iter().flat_map(PartHeader::record).collect();
        self.own(INDEX).replace(&records)
    }

    pub(in crate::node) fn note_in_index(&self, part: &PartHeader) -> io::Result<()> {
        self.own(INDEX).append()?.write_all(&part.record())
    }

    /// Header and trailer of the file of that name.
    fn ends_of(&self, name: &str) -> Result<(PartHeader, PartTrailer), BadPart> {
        let file = File::open(self.dir.join(name)).map_err(bad)?;
        let (header, trailer) = ends_of(&file)?;
        if header.file_name() != name {
            return Err(bad(format!("its header is that of {}", header.file_name())));
        }
        Ok((header, trailer))
    }

    /// Reads of a part's segment.
    pub(super) fn read(&self, part: &PartHeader, offset: u64, len: usize) -> io::Result<Bytes> {
        let file = File::open(self.dir.join(part.file_name()))?;
        read_part(&file, part, offset, len)
    }

    /// Whether it holds this part.
    pub(super) fn holds(&self, part: &PartHeader) -> bool {
        self.dir.join(part.file_name()).exists()
    }

    /// Removes a part; one that is not there is gone.
    pub(super) fn remove(&self, part: &PartHeader) -> io::Result<()> {
        self.remove_named(&part.file_name())
    }

    /// The same of the part of that plain name.
    pub(in crate::node) fn remove_named(&self, name: &str) -> io::Result<()> {
        self.own(name).remove()?;
        Ok(())
    }

    /// Writes a part of a segment that `read` gives, checked batch by batch. It has its name once all of it is durable.
    pub(super) fn write(
        &self,
        part: &PartHeader,
        mut read: impl FnMut(u64, usize) -> io::Result<Bytes>,
    ) -> Result<(), WriteError> {
        let own = self.own(&part.file_name());
        let temporary = own.temporary();
        temporary.remove().map_err(WriteError::Spool)?;
        let written = temporary.make().map_err(WriteError::Spool).and_then(|mut file| {
            stream(part, &mut read, |bytes| file.write_all(bytes).map_err(WriteError::Spool))
        });
        let placed =
            written.and_then(|()| put_in_place(temporary.path(), own.path()).map_err(WriteError::Spool));
        if placed.is_err() {
            // The error that is being returned says more.
            let _ = temporary.remove();
            return placed;
        }
        if let Err(error) = self.note_in_index(part) {
            tracing::debug!("the spool's index: {error}");
        }
        placed
    }

    /// Makes what was removed stay so.
    pub(in crate::node) fn sync(&self) -> io::Result<()> {
        sync_dir(&self.dir)
    }

    /// Reads a whole part, holds it to its digest and every batch to its checksum and place, and calls `each` with them.
    ///
    /// # Errors
    /// What is wrong with it, and up to which entry it is good; or what `each` says.
    pub fn walk(
        &self,
        name: &str,
        mut each: impl FnMut(&PartHeader, Batch) -> Result<(), BadPart>,
    ) -> Result<PartHeader, BadPart> {
        let file = File::open(self.dir.join(name)).map_err(bad)?;
        let (header, trailer) = ends_of(&file)?;
        if header.file_name() != name {
            return Err(bad(format!("its header is that of {}", header.file_name())));
        }
        walk_file(&file, (&header, &trailer), |batch| each(&header, batch))?;
        Ok(header)
    }
}

/// Header and trailer of a part in a file of its own.
pub(super) fn ends_of(file: &File) -> Result<(PartHeader, PartTrailer), BadPart> {
    let block = read_exactly(file, 0, BLOCK)?;
    let header = PartHeader::decode(&block).map_err(bad)?;
    let size = file.metadata().map_err(bad)?.len();
    if size != header.file_bytes() {
        return Err(bad(format!("it has {size} bytes, its header says {}", header.file_bytes())));
    }
    let trailer = read_exactly(file, PART_START + header.bytes, PART_TRAILER)?;
    let trailer = PartTrailer::decode(&trailer).map_err(bad)?;
    if trailer.bytes != header.bytes {
        return Err(bad("its trailer is of another part"));
    }
    Ok((header, trailer))
}

/// Reads a part in a file of its own to its end, and holds it to its digest and every batch to its checksum and place.
pub(in crate::node) fn check_part(file: &File) -> Result<PartHeader, BadPart> {
    let (header, trailer) = ends_of(file)?;
    walk_file(file, (&header, &trailer), |_| Ok(()))?;
    Ok(header)
}

/// Bytes of a part's segment.
pub(super) fn read_part(file: &File, part: &PartHeader, offset: u64, len: usize) -> io::Result<Bytes> {
    let left = usize::try_from(part.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
    let mut bytes = vec![0; len.min(left)];
    file.read_exact_at(&mut bytes, PART_START + offset)?;
    Ok(bytes.into())
}

/// Reads a whole part, and holds it to its digest and every batch to its checksum and place.
pub(super) fn walk_file(
    file: &File,
    (header, trailer): (&PartHeader, &PartTrailer),
    mut each: impl FnMut(Batch) -> Result<(), BadPart>,
) -> Result<(), BadPart> {
    let mut digest = blake3::Hasher::new();
    digest.update(&header.encode());
    let mut checked = Checked::new(header)?;
    let mut at = 0;
    while at < header.bytes {
        let len = usize::try_from(header.bytes - at).unwrap_or(usize::MAX).min(COPY);
        let bytes = read_part(file, header, at, len).map_err(bad)?;
        digest.update(&bytes);
        at += bytes.len() as u64;
        checked.take(bytes, &mut each)?;
    }
    checked.end()?;
    if digest.finalize().as_bytes() != &trailer.digest {
        return Err(bad("its bytes are not those of its digest, outside of any batch"));
    }
    Ok(())
}

/// The whole part of a segment that `read` gives, checked batch by batch, in pieces.
pub(super) fn stream(
    part: &PartHeader,
    read: &mut impl FnMut(u64, usize) -> io::Result<Bytes>,
    mut put: impl FnMut(&[u8]) -> Result<(), WriteError>,
) -> Result<(), WriteError> {
    let mut digest = blake3::Hasher::new();
    let head = part.encode();
    digest.update(&head);
    put(&head)?;
    let mut checked = Checked::new(part).map_err(WriteError::Segment)?;
    let mut at = 0;
    while at < part.bytes {
        let len = usize::try_from(part.bytes - at).unwrap_or(usize::MAX).min(COPY);
        let bytes = read(at, len).map_err(WriteError::Read)?;
        if bytes.is_empty() {
            return Err(WriteError::Segment(bad("the segment is shorter than it was")));
        }
        digest.update(&bytes);
        put(&bytes)?;
        at += bytes.len() as u64;
        checked.take(bytes, |_| Ok(())).map_err(WriteError::Segment)?;
    }
    checked.end().map_err(WriteError::Segment)?;
    let trailer = PartTrailer { bytes: part.bytes, digest: *digest.finalize().as_bytes() };
    put(&trailer.encode())
}

/// A segment is copied in pieces of this size (bytes).
const COPY: usize = 1 << 20;

/// Why a part was not written.
#[derive(Debug)]
pub(super) enum WriteError {
    /// The spool's disk.
    Spool(io::Error),
    /// The journal's disk.
    Read(io::Error),
    /// Reels, or their drive.
    Tape(Box<TapeError>),
    /// The segment is not what it was.
    Segment(BadPart),
}

fn read_exactly(file: &File, at: u64, len: usize) -> Result<Vec<u8>, BadPart> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, at).map_err(bad)?;
    Ok(bytes)
}

/// The bytes of a segment as they come, held to what its part's header says.
struct Checked<'a> {
    part: &'a PartHeader,
    walk: SegmentWalk,
    /// What the walk asked for.
    wants: Option<ReadRequest>,
    /// Bytes that came, from `from` of the segment on.
    held: Vec<u8>,
    from: u64,
    /// The last entry seen.
    good: u64,
    ended: bool,
}

impl<'a> Checked<'a> {
    fn new(part: &'a PartHeader) -> Result<Self, BadPart> {
        let PartHeader { index, base, end, bytes, .. } = *part;
        let info = SegmentInfo { index, bytes, base, end, used: bytes, reusable: false };
        let walk = SegmentWalk::new(info).map_err(bad)?;
        let (wants, held, from, good) = (None, Vec::new(), 0, base.seq.0);
        Ok(Self { part, walk, wants, held, from, good, ended: false })
    }

    fn bad(&self, why: impl ToString) -> BadPart {
        BadPart { why: why.to_string(), good_to: Some(self.good) }
    }

    fn take(
        &mut self,
        bytes: Bytes,
        mut each: impl FnMut(Batch) -> Result<(), BadPart>,
    ) -> Result<(), BadPart> {
        if self.from == 0 && self.held.is_empty() {
            let header = SegmentHeader::decode(&bytes).map_err(|error| self.bad(error))?;
            let PartHeader { pair, index, base, .. } = *self.part;
            if (header.pair, header.index, header.base) != (pair, index, base) {
                return Err(self.bad("its segment is not the one that its header names"));
            }
        }
        self.held.extend_from_slice(&bytes);
        while !self.ended {
            if let Some(ReadRequest { offset, len, .. }) = self.wants {
                // The walk asks for what it can use; near the end it asks for less.
                let at = usize::try_from(offset - self.from).unwrap_or(usize::MAX);
                let Some(wanted) = self.held.get(at..at.saturating_add(len)) else { return Ok(()) };
                let wanted = Bytes::copy_from_slice(wanted);
                self.held.drain(..at);
                self.from = offset;
                self.walk.feed(wanted);
                self.wants = None;
            }
            match self.walk.step().map_err(|error| self.bad(error))? {
                ReadStep::Batch(batch) => {
                    self.good = batch.header().last_seq().0;
                    each(batch)?;
                }
                ReadStep::Wait(request) => self.wants = request,
                ReadStep::End => self.ended = true,
            }
        }
        self.held.clear();
        Ok(())
    }

    fn end(&self) -> Result<(), BadPart> {
        if self.ended { Ok(()) } else { Err(self.bad("it ends before its last entry")) }
    }
}
