//! The ends of the tree's files: each is an archive of named sections, whose list stands at its end.
//!
//! | field | |
//! |---|---|
//! | sections | |
//! | list: `TOC!`, count u32, then each: position u64, length u64, length of the name u16, name | |
//! | `SFA!`, version u8 (1), kind of checksum u8 (0) | the last 38 bytes of the file begin here |
//! | checksum of the list (XXH3, 128 bits), its position u64, its length u64 | |
//!
//! The tree makes room for as many sections as the list says before it compares the checksum, so a flip of one bit there
//! ended the process. What it opens is checked here before. All numbers are little-endian.

use crate::format::{DecodeError, Reader};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use xxhash_rust::xxh3::xxh3_128;

const END: usize = 4 + 1 + 1 + 16 + 8 + 8;
/// The longest list of sections (bytes): there are some ten of them.
const LIST_MAX: u64 = 64 << 10;

/// What the last bytes of a file say.
struct End {
    sum: u128,
    at: u64,
    len: u64,
}

impl End {
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("end of a file of the store", bytes);
        let magic = u32::from_le_bytes(r.array()?);
        r.expect("mark at its end", u64::from(u32::from_le_bytes(*b"SFA!")), u64::from(magic))?;
        let (version, kind) = (r.u8()?, r.u8()?);
        r.expect("version at its end", 1, u64::from(version))?;
        r.expect("kind of checksum at its end", 0, u64::from(kind))?;
        Ok(Self { sum: u128::from_le_bytes(r.array()?), at: r.u64()?, len: r.u64()? })
    }
}

/// Where a section is.
#[derive(Debug, PartialEq, Eq)]
struct Section<'a> {
    name: &'a [u8],
    at: u64,
    len: u64,
}

fn sections(list: &[u8]) -> Result<Vec<Section<'_>>, DecodeError> {
    let mut r = Reader::new("list of sections of the store", list);
    let magic = u32::from_le_bytes(r.array()?);
    r.expect("mark of the list", u64::from(u32::from_le_bytes(*b"TOC!")), u64::from(magic))?;
    let count = r.u32()?;
    let mut sections = Vec::new();
    for _ in 0..count {
        let (at, len, name) = (r.u64()?, r.u64()?, r.u16()?);
        sections.push(Section { name: r.take(usize::from(name))?, at, len });
    }
    r.expect("bytes behind the list", 0, r.rest().len() as u64)?;
    Ok(sections)
}

/// Checks what the tree believes of the end of a table. Tells what is wrong with it.
pub(super) fn check_table(file: &File) -> io::Result<Result<(), String>> {
    let bytes = file.metadata()?.len();
    let Some(end_at) = bytes.checked_sub(END as u64) else { return Ok(Err("it is too short".to_owned())) };
    let mut end = [0; END];
    file.read_exact_at(&mut end, end_at)?;
    let end = match End::decode(&end) {
        Ok(end) => end,
        Err(error) => return Ok(Err(error.to_string())),
    };
    if end.len > LIST_MAX || end.at.checked_add(end.len) != Some(end_at) {
        return Ok(Err("its list of sections is not where it ends".to_owned()));
    }
    let mut list = vec![0; usize::try_from(end.len).unwrap_or(0)];
    file.read_exact_at(&mut list, end.at)?;
    if xxh3_128(&list) != end.sum {
        return Ok(Err("the checksum of its list of sections is wrong".to_owned()));
    }
    Ok(sections(&list).map(drop).map_err(|error| error.to_string()))
}

/// The numbers of the tables that a manifest names.
pub(super) fn tables_of(manifest: &[u8]) -> Result<Vec<u64>, DecodeError> {
    let end_at = manifest.len().saturating_sub(END);
    let end = End::decode(manifest.get(end_at..).unwrap_or_default())?;
    let part = |at: u64, len: u64| {
        let begin = usize::try_from(at).ok();
        let past = at.checked_add(len).and_then(|past| usize::try_from(past).ok());
        begin.zip(past).and_then(|(begin, past)| manifest.get(begin..past)).unwrap_or_default()
    };
    let list = sections(part(end.at, end.len))?;
    let tables = list.iter().find(|section| section.name == b"tables");
    let mut r =
        Reader::new("list of tables", tables.map_or(&[][..], |section| part(section.at, section.len)));
    let mut numbers = Vec::new();
    for _level in 0..r.u8()? {
        for _run in 0..r.u8()? {
            for _table in 0..r.u32()? {
                numbers.push(r.u64()?);
                r.take(1 + 16 + 8)?;
            }
        }
    }
    Ok(numbers)
}

/// Reads any bytes as each part.
pub(super) fn fuzz(bytes: &[u8]) {
    let _ = (End::decode(bytes).is_ok(), sections(bytes), tables_of(bytes));
}
