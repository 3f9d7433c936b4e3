//! The checksums of a part's blocks, in the file beside it; `src/format/sums.rs` has its layout.
//!
//! - Invariant: the file of checksums is made, and durable, before the part's own: what is found without one, or with
//!   a shorter one, is older than they are, or has lost them. The file `checksums` in the directory tells which.
//! - Invariant: data and checksums of one round reach the disk in any order. What a crash leaves of them is written again
//!   by the replay; until its end no difference between them counts.

use super::calls;
use super::files::{Part, part_path};
use crate::base::limits::{BLOCK, BLOCK_U64, VOLUME_SUMS_SPAN};
use crate::base::{FileId, crc32c_append};
use crate::format::sums::{RECORD, SUMS_BYTES, SumHeader, SumKey, block_at, record_at};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{Whence, lseek64};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Tells that every part in the directory has had checksums, or the file for them, from the beginning on.
pub(super) const MARK: &str = "checksums";
/// Fewer records than this are cleared by writing zeros.
const CLEAR_FEW: u64 = 512;
/// Records looked at in one go.
const LOOK: u64 = 8192;

/// The file of the checksums of a volume's part.
#[must_use]
pub fn sums_path(dir: &Path, file: FileId, part: u64) -> PathBuf {
    let mut path = part_path(dir, file, part).into_os_string();
    path.push(".sums");
    path.into()
}

/// What is wrong with a place of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// The content is not what was written.
    Content,
    /// The checksum is damaged, so the content cannot be checked.
    Checksum,
    /// The checksum is missing, so the content cannot be checked.
    NoChecksum,
    /// The checksums of a whole part are lost. Until a scrub has made them again, reads of it are not checked.
    AllChecksums,
    /// A checksum was damaged, and was made again by its second copy.
    Mended,
    /// A checksum was made again from the content as it is, as an operator asked.
    Renewed,
}

/// A place of a volume that was found wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPlace {
    /// The volume.
    pub file: FileId,
    /// Where (bytes, whole blocks).
    pub offset: u64,
    /// How much (bytes).
    pub len: u64,
    /// In which way.
    pub wrong: Wrong,
}

/// What the file of checksums is found to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// There is none.
    Missing,
    /// It is not what was made.
    Damaged,
    /// It is whole.
    Whole {
        /// Whether a block without a record holds zeros.
        complete: bool,
    },
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
    options
}

/// Looks at the file of a part's checksums.
///
/// # Errors
/// Those of reading it; [`io::ErrorKind::InvalidData`] for one of a later version.
pub(super) fn look(dir: &Path, part: Part) -> io::Result<Found> {
    let file = match File::open(sums_path(dir, part.0, part.1)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
        file => file?,
    };
    let mut block = vec![0; BLOCK];
    if file.metadata()?.len() != SUMS_BYTES || file.read_exact_at(&mut block, 0).is_err() {
        return Ok(Found::Damaged);
    }
    Ok(match SumHeader::decode(&block) {
        Ok(header) if (header.file, header.part) == part => Found::Whole { complete: header.complete },
        Err(error @ crate::format::DecodeError::Field { what: "version of a volume's checksums", .. }) => {
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        _ => Found::Damaged,
    })
}

/// The file of a part's checksums, open for writing.
#[derive(Clone, Debug)]
pub(super) struct Sums {
    pub(super) file: Arc<File>,
    pub(super) key: SumKey,
    part: Part,
}

impl Sums {
    /// Opens what [`look`] found whole.
    pub(super) fn open(dir: &Path, part: Part) -> io::Result<Self> {
        let file = Arc::new(options().open(sums_path(dir, part.0, part.1))?);
        Ok(Self { file, key: SumKey::new(part.0, part.1), part })
    }

    /// Makes it, or makes one whole that is not; what it holds stays.
    pub(super) fn make(dir: &Path, part: Part, complete: bool) -> io::Result<Self> {
        let path = sums_path(dir, part.0, part.1);
        let file = Arc::new(options().create(true).truncate(false).open(path)?);
        let sums = Self { file, key: SumKey::new(part.0, part.1), part };
        calls::set_len(&sums.file, SUMS_BYTES)?;
        sums.write_header(complete)?;
        Ok(sums)
    }

    /// Says from now on whether a block without a record holds zeros.
    pub(super) fn write_header(&self, complete: bool) -> io::Result<()> {
        let header = SumHeader { file: self.part.0, part: self.part.1, complete };
        calls::write(&self.file, &header.encode(), 0)
    }

    /// The records of blocks.
    pub(super) fn read(&self, first: u64, count: u64) -> io::Result<Vec<u8>> {
        read_records(&self.file, first, count)
    }

    fn write(&self, first: u64, records: &[u8]) -> io::Result<()> {
        calls::write(&self.file, records, record_at(first))
    }

    fn clear(&self, first: u64, count: u64) -> io::Result<()> {
        if count <= CLEAR_FEW {
            return self.write(first, &vec![0; bytes_of(count)]);
        }
        calls::zero(&self.file, record_at(first), count * RECORD as u64, true)
    }

    /// Drops every record.
    pub(super) fn empty(&self) -> io::Result<()> {
        calls::zero(&self.file, BLOCK_U64, SUMS_BYTES - BLOCK_U64, true)
    }
}

fn bytes_of(count: u64) -> usize {
    usize::try_from(count).unwrap_or(0) * RECORD
}

/// The records of blocks in a file of checksums. What lies behind its end is none.
///
/// # Errors
/// Those of pread(2).
pub fn read_records(file: &File, first: u64, count: u64) -> io::Result<Vec<u8>> {
    let mut records = vec![0; bytes_of(count)];
    read_full(file, &mut records, record_at(first))?;
    Ok(records)
}

/// Reads until the end of the file or of `into`, which stays as it is behind that.
pub(super) fn read_full(file: &File, mut into: &mut [u8], mut at: u64) -> io::Result<()> {
    while !into.is_empty() {
        match file.read_at(into, at) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) => break,
            Ok(got) => {
                at += u64::try_from(got).unwrap_or(u64::MAX);
                into = into.split_at_mut(got).1;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// One record out of some.
#[must_use]
pub fn record_of(records: &[u8], n: usize) -> [u8; RECORD] {
    records.get(n * RECORD..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; RECORD])
}

/// The blocks from `first` to `end` that have a record, as runs: where each begins, and how many they are.
pub(super) fn recorded(file: &File, first: u64, end: u64) -> io::Result<Vec<(u64, u64)>> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let mut block = first;
    while block < end {
        let from = i64::try_from(record_at(block)).map_err(|_| Errno::EFBIG)?;
        let data = match lseek64(file, from, Whence::SeekData) {
            Ok(data) => block_at(u64::try_from(data).unwrap_or(u64::MAX)).max(block),
            Err(Errno::ENXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        if data >= end {
            break;
        }
        let count = LOOK.min(end - data);
        let records = read_records(file, data, count)?;
        for n in (0..count).filter(|n| record_of(&records, usize::try_from(*n).unwrap_or(0)) != [0; RECORD]) {
            match runs.last_mut() {
                Some((start, count)) if *start + *count == data + n => *count += 1,
                _ => runs.push((data + n, 1)),
            }
        }
        block = data + count;
    }
    Ok(runs)
}

/// Sums blocks that come in pieces.
#[derive(Debug, Default)]
pub(super) struct Summing {
    crc: u32,
    filled: usize,
    pub(super) sums: Vec<u32>,
}

impl Summing {
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (some, rest) = bytes.split_at(bytes.len().min(BLOCK - self.filled));
            self.crc = crc32c_append(self.crc, some);
            self.filled += some.len();
            bytes = rest;
            if self.filled == BLOCK {
                self.sums.push(self.crc);
                (self.crc, self.filled) = (0, 0);
            }
        }
    }
}

/// A change of records.
#[derive(Debug)]
enum Change {
    Set(Vec<u8>),
    /// So many blocks hold zeros.
    Clear(u64),
}

/// Records that are to be written once the data of their round is, in the order of parts and blocks.
#[derive(Debug, Default)]
pub(super) struct NewSums(Vec<(Part, u64, Change)>, BTreeSet<Part>);

impl NewSums {
    /// Blocks from `first` on have these records.
    pub(super) fn set(&mut self, part: Part, first: u64, records: Vec<u8>) {
        self.0.push((part, first, Change::Set(records)));
    }

    /// A block of this part turned out wrong: its record has to be durable before it can be forgotten.
    pub(super) fn condemn(&mut self, part: Part) {
        self.1.insert(part);
    }

    /// The parts that have such blocks.
    pub(super) fn condemned(&mut self) -> BTreeSet<Part> {
        std::mem::take(&mut self.1)
    }

    /// Blocks hold zeros.
    pub(super) fn clear(&mut self, part: Part, first: u64, count: u64) {
        self.0.push((part, first, Change::Clear(count)));
    }

    /// The record that a block will have. Changes come in order, so only the last one can be about it.
    pub(super) fn record(&self, part: Part, block: u64) -> Option<[u8; RECORD]> {
        let (of, first, Change::Set(records)) = self.0.last()? else { return None };
        let n = usize::try_from(block.checked_sub(*first)?).ok()?;
        (*of == part && n < records.len() / RECORD).then(|| record_of(records, n))
    }

    /// Writes them to the files that `sums` gives: those that stand close together in one call.
    pub(super) fn write(self, mut sums: impl FnMut(Part) -> io::Result<Sums>) -> io::Result<()> {
        let mut changes = self.0.into_iter().peekable();
        let mut of: Option<(Part, Sums)> = None;
        while let Some((part, first, change)) = changes.next() {
            let (_, file) = match of.take() {
                Some(last) if last.0 == part => of.insert(last),
                _ => of.insert((part, sums(part)?)),
            };
            let mut records = match change {
                Change::Clear(count) => {
                    file.clear(first, count)?;
                    continue;
                }
                Change::Set(records) => records,
            };
            let mut near = Vec::new();
            let count = |records: &Vec<u8>| (records.len() / RECORD) as u64;
            let mut end = first + count(&records);
            while let Some((_, at, Change::Set(more))) = changes.next_if(|(other, at, change)| {
                *other == part
                    && matches!(change, Change::Set(more) if at + count(more) - first <= VOLUME_SUMS_SPAN)
            }) {
                end = end.max(at + count(&more));
                near.push((at, more));
            }
            match near.as_slice() {
                [] => file.write(first, &records)?,
                [(at, more)] if *at > first + count(&records) => {
                    file.write(first, &records)?;
                    file.write(*at, more)?;
                }
                _ => {
                    let own = records.len();
                    records.extend_from_slice(&file.read(first, end - first)?[own..]);
                    for (at, more) in near {
                        let from = bytes_of(at - first);
                        records[from..from + more.len()].copy_from_slice(&more);
                    }
                    file.write(first, &records)?;
                }
            }
        }
        Ok(())
    }
}
