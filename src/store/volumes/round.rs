//! What is being written: noted before each round in the file `round`, and never synced.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic `HBr1` |
//! | 4 | 4 | CRC32C of all from 8 on |
//! | 8 | 2 | version 1 |
//! | 10 | 6 | 0 |
//! | 16 | 8 | count of ranges; all ones: anything may be under way |
//! | 24 | 8 | length of what follows |
//! | 32 | .. | the page cache in which it was written, as words; then of each range: file, first block, blocks (u64 each) |
//!
//! A process that was killed leaves everything that it wrote to the page cache. So data and checksums differ only where
//! the round under way was: all else that differs is rot, and the replay takes it for that. After a power loss they differ
//! anywhere. Which of both it was tells the word for the page cache: the next process reads another one after that.

use super::calls;
use super::plan::Plan;
use crate::base::limits::BLOCK_U64;
use crate::base::limits::{VOLUME_ROUND_FILE_MAX, VOLUME_ROUND_RANGES_MAX};
use crate::base::{FileId, crc32c, read_at_most};
use crate::format::{Reader, Writer};
use nix::fcntl::OFlag;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Its name.
pub(super) const NAME: &str = "round";
const MAGIC: u32 = u32::from_le_bytes(*b"HBr1");
const VERSION: u16 = 1;

/// Blocks of a volume: where they begin, and how many.
type Blocks = (FileId, u64, u64);

/// Where data and checksums may differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum UnderWay {
    /// Anywhere.
    Anything,
    /// There.
    Ranges(Vec<Blocks>),
}

impl UnderWay {
    /// What a plan is about to write.
    pub(super) fn of(plan: &Plan<'_>) -> Self {
        let mut all: Vec<Blocks> = plan.emptied().map(|file| (file, 0, u64::MAX)).collect();
        for (file, offset, len, _) in plan.ranges() {
            let (first, end) = (offset / BLOCK_U64, (offset + len).div_ceil(BLOCK_U64));
            match all.last_mut() {
                Some((last, start, count)) if *last == file && first <= start.saturating_add(*count) => {
                    *count = (*count).max(end - *start);
                }
                _ => all.push((file, first, end - first)),
            }
            if all.len() > VOLUME_ROUND_RANGES_MAX {
                return Self::Anything;
            }
        }
        Self::Ranges(all)
    }

    /// Whether a block may be different.
    pub(super) fn holds(&self, file: FileId, block: u64) -> bool {
        match self {
            Self::Anything => true,
            Self::Ranges(all) => {
                all.iter().any(|(of, first, count)| *of == file && block >= *first && block - first < *count)
            }
        }
    }

    /// There, and where another round was.
    pub(super) fn add(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Ranges(all), Self::Ranges(more)) if all.len() <= 8 * VOLUME_ROUND_RANGES_MAX => {
                all.extend(more);
            }
            _ => *self = Self::Anything,
        }
    }

    fn encode(&self, life: &str) -> Vec<u8> {
        let mut w = Writer::with_capacity(64 + life.len());
        let count = match self {
            Self::Anything => u64::MAX,
            Self::Ranges(all) => all.len() as u64,
        };
        w.u16(VERSION).put(&[0; 6]).u64(count).u64(life.len() as u64).put(life.as_bytes());
        if let Self::Ranges(all) = self {
            for (file, first, count) in all {
                w.u64(file.0).u64(*first).u64(*count);
            }
        }
        let body = w.into_bytes();
        let mut w = Writer::with_capacity(8 + body.len());
        w.u32(MAGIC).u32(crc32c(&body)).put(&body);
        w.into_bytes()
    }

    /// What was under way, if these bytes say so of this page cache. Behind them may stand what is left of longer ones.
    fn decode(bytes: &[u8], life: &str) -> Option<Self> {
        let mut r = Reader::new("round of volumes", bytes);
        let (magic, sum) = (r.u32().ok()?, r.u32().ok()?);
        let body = r.rest();
        if magic != MAGIC || r.u16().ok()? != VERSION {
            return None;
        }
        r.take(6).ok()?;
        let (count, len) = (r.u64().ok()?, usize::try_from(r.u64().ok()?).ok()?);
        let same = r.take(len).ok()? == life.as_bytes();
        let ranges = if count == u64::MAX { 0 } else { usize::try_from(count).ok()? };
        let mut fields = Reader::new("round of volumes", r.take(ranges.checked_mul(24)?).ok()?);
        let whole = body.get(..body.len() - r.rest().len())?;
        if crc32c(whole) != sum || !same {
            return None;
        }
        if count == u64::MAX {
            return Some(Self::Anything);
        }
        let mut all = Vec::with_capacity(ranges);
        for _ in 0..ranges {
            all.push((FileId(fields.u64().ok()?), fields.u64().ok()?, fields.u64().ok()?));
        }
        Some(Self::Ranges(all))
    }
}

/// The file.
#[derive(Debug)]
pub(super) struct RoundFile {
    file: File,
    life: String,
}

impl RoundFile {
    /// What the process before this one was writing, as far as its page cache is this one's, and the file for this one.
    pub(super) fn open(dir: &Path, life: &str) -> io::Result<(Option<UnderWay>, Self)> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.custom_flags(OFlag::O_NOFOLLOW.bits()).open(dir.join(NAME))?;
        let bytes = read_at_most(&file, VOLUME_ROUND_FILE_MAX)?;
        Ok((UnderWay::decode(&bytes, life), Self { file, life: life.to_owned() }))
    }

    /// Notes what is under way from now on.
    pub(super) fn note(&self, what: &UnderWay) -> io::Result<()> {
        calls::write(&self.file, &what.encode(&self.life), 0)
    }
}

/// Decodes any bytes as what was under way.
pub fn fuzz_round(bytes: &[u8]) {
    if let Some(found) = UnderWay::decode(bytes, "life") {
        assert_eq!(UnderWay::decode(&found.encode("life"), "life"), Some(found));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_under_way_is_known_only_to_who_has_the_same_page_cache() {
        let dir = tempfile::tempdir().unwrap();
        let (found, round) = RoundFile::open(dir.path(), "life one").unwrap();
        assert_eq!(found, None);
        let long = UnderWay::Ranges((0..50).map(|n| (FileId(n), n * 3, 2)).collect());
        let short = UnderWay::Ranges(vec![(FileId(7), 5, 2)]);
        for what in [&long, &short, &UnderWay::Anything] {
            round.note(what).unwrap();
            assert_eq!(RoundFile::open(dir.path(), "life one").unwrap().0.as_ref(), Some(what));
            assert_eq!(RoundFile::open(dir.path(), "life two").unwrap().0, None);
        }
        assert!(short.holds(FileId(7), 6) && !short.holds(FileId(7), 7) && !short.holds(FileId(6), 5));
        let bytes = short.encode("life");
        for at in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[at / 8] ^= 1 << (at % 8);
            assert_eq!(UnderWay::decode(&bad, "life"), None, "bit {at}");
            fuzz_round(&bad);
        }
        for end in 0..bytes.len() {
            assert_eq!(UnderWay::decode(&bytes[..end], "life"), None);
        }
    }
}
