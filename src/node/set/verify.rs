//! What a set holds, and whether all of it is what was written.

use super::target::ReadSeek;
use super::{Block, SetError, SetReader, Source, unpacked};
use crate::base::limits::FRAME_PAYLOAD_MAX;
use crate::base::{crc32c, read_at_most};
use crate::format::chunk::Content;
use crate::format::set::{
    BLOCK_HEADER, BlockHeader, BlockKind, FOOTER, PartHeader, SetBegin, Trailer, read_footer,
};
use crate::format::since::{Same, SetBase};
use std::io::{self, Seek, SeekFrom};

/// Damages that are told one by one.
const DAMAGES_MAX: usize = 1000;

/// What a set says of itself.
#[derive(Debug)]
pub struct Contents {
    /// The first part's head.
    pub header: PartHeader,
    /// Its beginning.
    pub begin: SetBegin,
    /// Its end.
    pub trailer: Trailer,
    /// Bytes of all parts.
    pub bytes: u64,
    /// Files.
    pub parts: u32,
}

/// A place of a set that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Damage {
    /// The file.
    pub file: String,
    /// The block.
    pub block: u64,
    /// Where it begins in the file (bytes).
    pub offset: u64,
    /// How it was seen.
    pub why: String,
    /// What is in it.
    pub held: String,
}

/// What came of reading a whole set.
#[derive(Debug, Default)]
pub struct Verified {
    /// The set that it was made since, if it does not hold everything.
    pub base: Option<SetBase>,
    /// Its end, if it has one that fits.
    pub trailer: Option<Trailer>,
    /// What is damaged.
    pub damages: Vec<Damage>,
    /// Bytes read.
    pub bytes: u64,
}

/// Reads the beginning and the end of a set, and not what is between them.
///
/// # Errors
/// Any [`SetError`]; [`SetError::NoTrailer`] where the set is no save.
pub fn contents(source: &Source) -> Result<Contents, SetError> {
    if let Source::Tape(tape) = source {
        return Ok(tape.contents()?);
    }
    if let Source::Socket(socket) = source {
        return socket.contents();
    }
    let mut reader = SetReader::open(source.clone())?;
    let header = *reader.header();
    let begin = match reader.next_block()? {
        Some(Block::Begin(begin)) => *begin,
        _ => unreachable!("the reader gives the beginning first"),
    };
    let (mut bytes, mut last) = (0, None);
    for part in 1.. {
        let Some(opened) = source.part(part)? else { break };
        let Some(mut file) = opened.file else { break };
        let failed = |source| SetError::Io { doing: "reading", what: opened.name.clone(), source };
        let len = file.seek(SeekFrom::End(0)).map_err(failed)?;
        bytes += len;
        last = Some((part, opened.name, file, len));
        if !matches!(source, Source::Path(path) if path.is_dir()) {
            break;
        }
    }
    let piped = || SetError::NoSet {
        what: "standard input".to_owned(),
        why: "what a pipe holds is known at its end only".to_owned(),
    };
    let (parts, what, mut file, len) = last.ok_or_else(piped)?;
    let trailer = trailer_of(&mut file, len, &header)
        .map_err(|source| SetError::Io { doing: "reading", what: what.clone(), source })?
        .map_err(|why| SetError::NoTrailer { what, why })?;
    Ok(Contents { header, begin, trailer, bytes, parts })
}

/// The trailer of the last part, of so many bytes, or why there is none: then it is no save (I-31).
fn trailer_of(
    file: &mut Box<dyn ReadSeek>,
    len: u64,
    header: &PartHeader,
) -> io::Result<Result<Trailer, String>> {
    let Some(at) = len.checked_sub(FOOTER as u64) else { return Ok(Err("it is too short".to_owned())) };
    let offset = match read_footer(&read_there(file, at, FOOTER)?) {
        Ok(offset) => offset,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let head = match BlockHeader::decode(&read_there(file, offset, BLOCK_HEADER)?, header.set) {
        Ok(head) if head.kind == BlockKind::Trailer => head,
        Ok(_) => return Ok(Err("the footer leads elsewhere".to_owned())),
        Err(error) => return Ok(Err(error.to_string())),
    };
    let payload = read_there(file, offset + BLOCK_HEADER as u64, head.stored as usize)?;
    if crc32c(&payload) != head.crc {
        return Ok(Err("the trailer's checksum does not fit".to_owned()));
    }
    let raw = unpacked(&head, payload.into());
    Ok(raw.and_then(|raw| Trailer::decode(&raw).map_err(|error| error.to_string())))
}

fn read_there(file: &mut Box<dyn ReadSeek>, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(offset))?;
    let most = len.min(FRAME_PAYLOAD_MAX);
    read_at_most(io::Read::take(&mut *file, most as u64), most)
}

/// Whether these sets, in this order, hold one state: the first holds everything, and each of the others was made since the one
/// before it.
///
/// # Errors
/// [`SetError::Chain`], which names the set that does not fit.
pub fn check_chain(sets: &[(String, &Contents)]) -> Result<(), SetError> {
    let mut before: Option<&(String, &Contents)> = None;
    for next in sets {
        let (what, found) = next;
        let why = match (before, &found.begin.base) {
            (None, None) => None,
            (None, Some(base)) => Some(format!("it holds only what changed since {}", shown(base))),
            (Some((name, _)), None) => Some(format!("it holds everything, and does not continue {name}")),
            (Some((name, held)), Some(base)) => {
                let follows = (base.set, base.digest) == (held.header.set, held.trailer.digest);
                let id = held.header.set;
                (!follows).then(|| format!("it was made since {}, and {name} is set {id}", shown(base)))
            }
        };
        if let Some(why) = why {
            return Err(SetError::Chain { what: what.clone(), why });
        }
        before = Some(next);
    }
    Ok(())
}

/// A set that another one continues, for people.
fn shown(base: &SetBase) -> String {
    let SetBase { set, end, wall_ms, .. } = base;
    format!("set {set}, which ended with entry {} at {}", end.seq, crate::base::shown::utc(*wall_ms))
}

/// Reads all of each of these sets, which hold one state together (see [`check_chain`]). `progress` hears how many bytes of one
/// were read.
///
/// # Errors
/// Any [`SetError`] but [`SetError::Damaged`]: those are in [`Verified::damages`].
pub fn verify_chain(sources: Vec<Source>, mut progress: impl FnMut(u64)) -> Result<Vec<Verified>, SetError> {
    let (mut all, mut known) = (Vec::new(), None);
    let count = sources.len();
    for (at, source) in sources.into_iter().enumerate() {
        let mut reader = SetReader::open(source)?;
        reader.of_chain(known.take(), at + 1 < count);
        all.push(verify_with(&mut reader, &mut progress)?);
        known = reader.learned();
    }
    Ok(all)
}

/// Reads all of a set. `progress` hears how many bytes were read.
///
/// # Errors
/// Any [`SetError`] but [`SetError::Damaged`]: those are in [`Verified::damages`].
pub fn verify(source: Source, mut progress: impl FnMut(u64)) -> Result<Verified, SetError> {
    verify_with(&mut SetReader::open(source)?, &mut progress)
}

fn verify_with(reader: &mut SetReader, progress: &mut impl FnMut(u64)) -> Result<Verified, SetError> {
    let mut found = Verified::default();
    // The last damage, until what follows it says where it ends.
    let mut open = false;
    loop {
        match reader.next_block() {
            Ok(Some(Block::Trailer(trailer))) => found.trailer = Some(*trailer),
            Ok(Some(Block::Begin(begin))) => found.base = begin.base,
            Ok(Some(Block::Chunk(chunk) | Block::Same(Same { range: chunk, .. }))) => {
                if std::mem::take(&mut open)
                    && let Some(last) = found.damages.last_mut()
                {
                    match &chunk.content {
                        Content::Items { after, .. } if !after.is_empty() => {
                            last.held.push_str(&format!(", up to {}", after.escape_ascii()));
                        }
                        Content::Blocks { offset, .. } if *offset > 0 => {
                            last.held.push_str(&format!(", up to byte {offset}"));
                        }
                        _ => {}
                    }
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(SetError::Damaged { what, number, offset, why, held }) => {
                open = true;
                found.damages.push(Damage { file: what, block: number, offset, why, held });
                if found.damages.len() == DAMAGES_MAX {
                    break;
                }
            }
            // It is cut off behind what is damaged: both are told.
            Err(SetError::NoTrailer { what, why }) if !found.damages.is_empty() => {
                let held = "the end of the set".to_owned();
                found.damages.push(Damage { file: what, block: 0, offset: 0, why, held });
                break;
            }
            Err(error) => return Err(error),
        }
        progress(reader.bytes());
    }
    found.bytes = reader.bytes();
    Ok(found)
}
