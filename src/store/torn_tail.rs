//! Cuts the journal of a store of version 0.1 where a power loss tore it, before that store is converted.
//!
//! Its engine (fjall 3.1) wrote that without syncing each batch, as our own journal is the one that counts.
//! A power loss may therefore keep a later page of the file and lose an earlier one. The engine cuts an incomplete
//! last batch by itself, but refuses to open (or panics, in a debug build) when a batch is whole in shape and wrong in
//! content. So the file is cut before the engine sees it, at the first batch whose checksum does not fit: everything
//! that was synced, at a checkpoint or before a table was written, lies before the first page that can be missing.
//! What is left is some exact state not older than the last checkpoint, and our journal goes on from there. Should
//! rot have hit what was synced, the store falls back further than our journal reaches, and its next apply says so.
//!
//! Layout of that journal, little-endian: a batch is a start (1 u8, count u32, number u64), items (2 u8, kind u8,
//! compression u8, keyspace u64, key length u16, value length u32, stored length u32, key, stored value) and an end (3 u8,
//! XXH3 of the items u64, `FJL` and 3). Other kinds of entry exist, but we cause none. Files of another format
//! version are left alone.

use crate::base::read_at_most;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
/// Ends each batch; is also the content of the engine's version file.
const TRAILER: [u8; 4] = *b"FJL\x03";
/// Longest version file (bytes).
const VERSION_MAX: usize = 4096;
/// Kind to stored length.
const ITEM_HEAD: usize = 20;

/// Cuts the newest journal file in `dir` after its last good batch and syncs it; returns the bytes cut, 0 when
/// nothing is wrong with it.
pub(super) fn cut(dir: &Path) -> io::Result<u64> {
    let version = dir.join("version");
    if !version.try_exists()? || read_at_most(File::open(version)?, VERSION_MAX)? != TRAILER {
        return Ok(0);
    }
    let Some(path) = newest_journal(dir)? else { return Ok(0) };
    let len = path.metadata()?.len();
    let good = good_bytes(BufReader::new(File::open(&path)?))?;
    // Zeros after the last batch are room written ahead, which the engine knows how to deal with.
    if good >= len || only_zeros(&path, good)? {
        return Ok(0);
    }
    let file = OpenOptions::new().write(true).open(&path)?;
    file.set_len(good)?;
    file.sync_all()?;
    Ok(len - good)
}

/// The newest journal file in `dir`. Only this one can be torn: an older one was synced before it was followed.
pub(super) fn newest_journal(dir: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest: Option<(u64, PathBuf)> = None;
    for found in std::fs::read_dir(dir)? {
        let path = found?.path();
        if path.extension().is_none_or(|ext| ext != "jnl") {
            continue;
        }
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        // Exactly as the engine writes it: "+7" is a number too, but no file of the engine.
        let own =
            |number: &u64| path.file_name().is_some_and(|name| name == format!("{number}.jnl").as_str());
        if let Some(number) = number.filter(own)
            && newest.as_ref().is_none_or(|(other, _)| *other < number)
        {
            newest = Some((number, path));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

/// How many bytes at the front are whole batches with the right checksum.
fn good_bytes(mut input: impl Read) -> io::Result<u64> {
    let mut good = 0;
    let mut bytes = Vec::new();
    loop {
        match batch_bytes(&mut input, &mut bytes) {
            Ok(Some(len)) => good += len,
            Ok(None) => return Ok(good),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(good),
            Err(error) => return Err(error),
        }
    }
}

/// Reads one batch; none if it is not a good one.
fn batch_bytes(input: &mut impl Read, bytes: &mut Vec<u8>) -> io::Result<Option<u64>> {
    let head: [u8; 13] = array(input)?;
    if head[0] != START {
        return Ok(None);
    }
    let count = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
    let mut len = head.len() as u64;
    let mut hash = Xxh3::new();
    for _ in 0..count {
        let Some(item_len) = item_bytes(input, bytes)? else { return Ok(None) };
        hash.update(bytes);
        len += item_len;
    }
    let tail: [u8; 13] = array(input)?;
    let found = [tail[1], tail[2], tail[3], tail[4], tail[5], tail[6], tail[7], tail[8]];
    let good = tail[0] == END && tail[9..] == TRAILER && u64::from_le_bytes(found) == hash.digest();
    Ok(good.then_some(len + tail.len() as u64))
}

/// Reads one item into `bytes`; none if it is not an item.
fn item_bytes(input: &mut impl Read, bytes: &mut Vec<u8>) -> io::Result<Option<u64>> {
    let head: [u8; 1 + ITEM_HEAD] = array(input)?;
    if head[0] != ITEM {
        return Ok(None);
    }
    let key = u64::from(u16::from_le_bytes([head[11], head[12]]));
    let stored = u64::from(u32::from_le_bytes([head[17], head[18], head[19], head[20]]));
    bytes.clear();
    bytes.extend_from_slice(&head);
    // Grows with what is there, not with what the length claims.
    let found = input.take(key + stored).read_to_end(bytes)?;
    Ok((found as u64 == key + stored).then_some(bytes.len() as u64))
}

/// Reads any bytes as the engine's journal.
///
/// # Panics
/// If more is found to be good than there is, or if what is good is not when it stands alone.
pub fn fuzz_engine_journal(bytes: &[u8]) {
    let good = good_bytes(bytes).unwrap_or(0);
    let front =
        usize::try_from(good).ok().and_then(|good| bytes.get(..good)).expect("no more is good than there is");
    assert_eq!(good_bytes(front).ok(), Some(good), "what was kept is kept again");
}

fn array<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut out = [0; N];
    input.read_exact(&mut out)?;
    Ok(out)
}

fn only_zeros(path: &Path, from: u64) -> io::Result<bool> {
    use std::io::{BufRead, Seek, SeekFrom};
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut input = BufReader::with_capacity(1 << 16, file);
    loop {
        let chunk = input.fill_buf()?;
        if chunk.is_empty() {
            return Ok(true);
        }
        if chunk.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        let len = chunk.len();
        input.consume(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;

    #[test]
    fn any_bytes_are_measured_without_a_panic_and_without_great_allocations() {
        let mut prng = Prng::new(5);
        for _ in 0..5000 {
            let len = prng.below(200);
            let mut bytes: Vec<u8> = (0..len).map(|_| u8::try_from(prng.below(4)).unwrap()).collect();
            if prng.percent(50) {
                bytes.splice(0..0, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
            }
            let good = good_bytes(&bytes[..]).unwrap();
            assert!(good <= bytes.len() as u64);
        }
        let huge = [&[1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2][..], &[255; 40]].concat();
        assert_eq!(good_bytes(&huge[..]).unwrap(), 0);
    }

    #[test]
    fn the_newest_journal_is_the_one_with_the_highest_number() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(newest_journal(dir.path()).unwrap(), None);
        for name in ["lock", "x.jnl"] {
            std::fs::write(dir.path().join(name), b"").unwrap();
        }
        for number in 3..31 {
            std::fs::write(dir.path().join(format!("{number}.jnl")), b"").unwrap();
        }
        assert_eq!(newest_journal(dir.path()).unwrap(), Some(dir.path().join("30.jnl")));
    }
}
