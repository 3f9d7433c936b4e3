//! A save set: the content of a database at one position, as a stream of blocks in one file or several.
//!
//! A set is made of the very bytes of a copy: the definitions, then batches and chunks, each at its place (see
//! [`super::chunk`]). Whoever takes them in order has the state at the end position. A set without its trailer is no save.
//!
//! ```text
//!   part 1:  header, block 0 (beginning), block 1, .. block 70 (end of the part)
//!   part 2:  header, block 71, .. block 90 (trailer), footer
//! ```
//!
//! **Part header**, 64 bytes
//!
//! | size | field |
//! |---|---|
//! | 4 | magic `HBs1` |
//! | 4 | CRC32C of the 56 bytes that follow |
//! | 2, 2 | `version` 1, or 2 of a set that was made since another one; zero. Or 3 of one with what its node has alone (see
//! [`super::alone`]); 1 if that was made since another one |
//! | 4 | number of the part, from 1 |
//! | 16 | `set`: a random number, alike in all parts |
//! | 16 | `pair` |
//! | 8 | `wall_ms`: when the save began |
//! | 8 | number of the first block in this part |
//!
//! **Block header**, 40 bytes, directly before the block's payload
//!
//! | size | field |
//! |---|---|
//! | 4 | magic `HBsb` |
//! | 4 | CRC32C of `set` and of the 32 bytes that follow |
//! | 8 | number of the block, from 0 through all parts |
//! | 1 | kind: 1 beginning, 2 batch, 3 chunk, 4 end of the part, 5 trailer; since another set also 6 same (see [`super::since`]); in version 3 also 7 alone |
//! | 1 | 0 as it is, 1 LZ4 (block format) |
//! | 2 | zero |
//! | 4 | `stored`: length of the payload |
//! | 4 | `raw`: its length once unpacked, [`FRAME_PAYLOAD_MAX`] at most |
//! | 8 | `about`: of a chunk its file, of a batch its last entry |
//! | 4 | CRC32C of the payload as it stands |
//!
//! A batch or a chunk is, unpacked, what the link carries, byte for byte, with a checksum of its own. A block that does not match
//! is named by its header, and by the chunks around it; a block of another set does not match.
//!
//! **Beginning**
//!
//! | size | field |
//! |---|---|
//! | 80 | since another set: that one (see [`super::since`]) |
//! | 1 | role of the node, as in a control file |
//! | 1, n | its name |
//! | 1, n | the account that was saved; empty for all |
//! | 4 | number of files that are left out, then u16, `account,file` for each |
//! | .. | a [`CopyBegin`] |
//!
//! **Trailer**
//!
//! | size | field |
//! |---|---|
//! | 24 | end position: epoch, seq, chain |
//! | 8 | when the save ended (ms since 1970) |
//! | 8 × 4 | batches, chunks, items in chunks, bytes of content in chunks |
//! | 32 | SHA-256 of everything before the trailer's block header, part headers included |
//! | 4 | number of files, then for each: id u64, kind (1 items, 2 blocks), items u64, bytes u64, u16, `account,file` |
//! | .. | in version 3: what the node has alone |
//!
//! **Footer**, 16 bytes at the end of the last part: magic `HBse`, CRC32C of what follows, offset of the trailer's block header
//! in this part (u64). So what a set holds is read without reading it all.
//!
//! Golden files: `tests/data/set-v1.hbs`, `tests/data/set-v2.hbs`, `tests/data/set-v3.hbs`.

use super::alone::AloneFiles;
use super::chunk::CopyBegin;
use super::control::Role;
use super::since::{BASE, SetBase};
use super::{DecodeError, PairId, Reader, Writer};
use crate::base::limits::{FRAME_PAYLOAD_MAX, SET_FILES_MAX, SET_NAME_MAX};
use crate::base::{Chain, Epoch, FileId, Position, Seq, crc32c};
use bytes::Bytes;

const MAGIC: u32 = u32::from_le_bytes(*b"HBs1");
/// What a block begins with.
pub const BLOCK_MAGIC: [u8; 4] = *b"HBsb";
const FOOTER_MAGIC: u32 = u32::from_le_bytes(*b"HBse");
const VERSION: u16 = 1;
/// Of a set that was made since another one, which an older program cannot restore alone.
const VERSION_SINCE: u16 = 2;
/// Of a set with what its node has alone, which an older program would leave out.
const VERSION_ALONE: u16 = 3;
/// LZ4 packs no byte into less than this part of one.
const LZ4_MOST: u64 = 256;
/// Bytes of a part's header.
pub const PART_HEADER: usize = 64;
/// Bytes of a block's header.
pub const BLOCK_HEADER: usize = 40;
/// Bytes of the footer.
pub const FOOTER: usize = 16;

/// The number by which the parts of a set know each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetId(pub [u8; 16]);

impl std::fmt::Display for SetId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The head of a file of a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartHeader {
    /// Whether it was made since another set.
    pub since: bool,
    /// Whether it holds what its node has alone.
    pub alone: bool,
    /// Its number, from 1.
    pub part: u32,
    /// The set.
    pub set: SetId,
    /// The pair that was saved.
    pub pair: PairId,
    /// When the save began (ms since 1970).
    pub wall_ms: u64,
    /// Its first block.
    pub first_block: u64,
}

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// What a save begins with.
    Begin,
    /// A batch of the journal.
    Batch,
    /// What a range holds.
    Chunk,
    /// The set goes on in the next file.
    PartEnd,
    /// The end.
    Trailer,
    /// What a range holds is what the earlier set holds there.
    Same,
    /// The files that the node has alone.
    Alone,
}

impl BlockKind {
    const ALL: [Self; 7] =
        [Self::Begin, Self::Batch, Self::Chunk, Self::PartEnd, Self::Trailer, Self::Same, Self::Alone];

    fn byte(self) -> u8 {
        match self {
            Self::Begin => 1,
            Self::Batch => 2,
            Self::Chunk => 3,
            Self::PartEnd => 4,
            Self::Trailer => 5,
            Self::Same => 6,
            Self::Alone => 7,
        }
    }

    /// The word in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Begin => "the beginning",
            Self::Batch => "a batch",
            Self::Chunk => "content",
            Self::PartEnd => "the end of a part",
            Self::Trailer => "the trailer",
            Self::Same => "a range of the earlier set",
            Self::Alone => "the definitions of files that the node has alone",
        }
    }
}

/// How a payload is packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    #[default]
    Plain,
    /// LZ4, block format.
    Lz4,
}

/// The head of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    /// Its number in the set.
    pub number: u64,
    /// What it is.
    pub kind: BlockKind,
    /// How its payload is packed.
    pub packing: Packing,
    /// Bytes of the payload.
    pub stored: u32,
    /// The same once unpacked.
    pub raw: u32,
    /// Of a chunk the file, of a batch the last entry.
    pub about: u64,
    /// Of the payload as it stands.
    pub crc: u32,
}

/// What a save begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetBegin {
    /// The set that it was made since; none if it holds everything.
    pub base: Option<SetBase>,
    /// Of the node that was saved.
    pub role: Role,
    /// The same.
    pub node: String,
    /// The one account that was saved; empty for all.
    pub account: String,
    /// Files that are not in it, because they are that node's alone.
    pub left_out: Vec<String>,
    /// Position and definitions.
    pub copy: CopyBegin,
}

/// What a set holds of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetFile {
    /// Its id.
    pub id: FileId,
    /// Whether it is a volume.
    pub blocks: bool,
    /// Items in chunks.
    pub items: u64,
    /// Content in chunks (bytes).
    pub bytes: u64,
    /// `account,file`, as it was named at the end.
    pub name: String,
}

/// How much a set holds beside what its files say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Batches.
    pub batches: u64,
    /// Chunks.
    pub chunks: u64,
    /// Items in chunks.
    pub items: u64,
    /// Content in chunks (bytes).
    pub bytes: u64,
}

/// What a set ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// The state that the set holds.
    pub end: Position,
    /// When the save ended (ms since 1970).
    pub wall_ms: u64,
    /// How much there is.
    pub counts: Counts,
    /// SHA-256 of everything before.
    pub digest: [u8; 32],
    /// The files.
    pub files: Vec<SetFile>,
    /// What the node has alone; none of a set without that.
    pub alone: Option<AloneFiles>,
}

impl PartHeader {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; PART_HEADER] {
        let mut w = Writer::with_capacity(PART_HEADER);
        let (version, how) = match (self.alone, self.since) {
            (true, since) => (VERSION_ALONE, u16::from(since)),
            (false, true) => (VERSION_SINCE, 0),
            (false, false) => (VERSION, 0),
        };
        w.u32(MAGIC).u32(0).u16(version).u16(how).u32(self.part).put(&self.set.0).put(&self.pair.0);
        w.u64(self.wall_ms).u64(self.first_block);
        sealed(w, &[])
    }

    /// Reads a header.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("header of a save set", bytes);
        let (magic, found) = (r.u32()?, r.u32()?);
        r.expect("magic of a save set", u64::from(MAGIC), u64::from(magic))?;
        check("header of a save set", found, r.rest(), &[])?;
        let version = r.u16()?;
        let how = r.u16()?;
        let (alone, since) = match (version, how) {
            (VERSION_ALONE, 0 | 1) => (true, how == 1),
            (VERSION_SINCE, 0) => (false, true),
            _ => {
                r.expect("version of a save set", u64::from(VERSION), u64::from(version))?;
                r.expect("reserved bytes of a save set", 0, u64::from(how))?;
                (false, false)
            }
        };
        let this = Self {
            since,
            alone,
            part: r.u32()?,
            set: SetId(r.array()?),
            pair: PairId(r.array()?),
            wall_ms: r.u64()?,
            first_block: r.number("first block of a part")?,
        };
        r.expect("bytes behind the header of a save set", 0, r.rest().len() as u64)?;
        Ok(this)
    }
}

impl BlockHeader {
    /// The header's bytes, in this set.
    #[must_use]
    pub fn encode(&self, set: SetId) -> [u8; BLOCK_HEADER] {
        let mut w = Writer::with_capacity(BLOCK_HEADER);
        w.u32(u32::from_le_bytes(BLOCK_MAGIC)).u32(0).u64(self.number).u8(self.kind.byte());
        w.u8(u8::from(self.packing == Packing::Lz4)).u16(0).u32(self.stored).u32(self.raw);
        w.u64(self.about).u32(self.crc);
        sealed(w, &set.0)
    }

    /// Reads a header of a block of this set.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(bytes: &[u8], set: SetId) -> Result<Self, DecodeError> {
        let mut r = Reader::new("header of a block", bytes);
        let (magic, found) = (r.u32()?, r.u32()?);
        r.expect("magic of a block", u64::from(u32::from_le_bytes(BLOCK_MAGIC)), u64::from(magic))?;
        check("header of a block", found, r.rest(), &set.0)?;
        let number = r.number("number of a block")?;
        let kind = r.u8()?;
        let (expected, found) = (BlockKind::ALL.len() as u64, u64::from(kind));
        let unknown = DecodeError::Field { what: "kind of a block", expected, found };
        let kind = BlockKind::ALL.into_iter().find(|known| known.byte() == kind).ok_or(unknown)?;
        let packing = match r.u8()? {
            0 => Packing::Plain,
            1 => Packing::Lz4,
            other => {
                let found = u64::from(other);
                return Err(DecodeError::Field { what: "packing of a block", expected: 1, found });
            }
        };
        let zero = r.u16()?;
        let (stored, raw, about, crc) = (r.u32()?, r.u32()?, r.u64()?, r.u32()?);
        r.expect("reserved bytes of a block", 0, u64::from(zero))?;
        r.expect("bytes behind the header of a block", 0, r.rest().len() as u64)?;
        for len in [stored, raw] {
            if len as usize > FRAME_PAYLOAD_MAX {
                let (limit, found) = (FRAME_PAYLOAD_MAX as u64, u64::from(len));
                return Err(DecodeError::Limit { what: "length of a block", limit, found });
            }
        }
        match packing {
            Packing::Plain => r.expect("length of a block", u64::from(raw), u64::from(stored))?,
            Packing::Lz4 => {
                let (limit, found) = (u64::from(stored) * LZ4_MOST, u64::from(raw));
                if found > limit {
                    return Err(DecodeError::Limit { what: "unpacked length of a block", limit, found });
                }
            }
        }
        Ok(Self { number, kind, packing, stored, raw, about, crc })
    }
}

impl SetBegin {
    /// The payload's bytes.
    ///
    /// # Errors
    /// [`DecodeError::Limit`] where there are more definitions than fit.
    ///
    /// # Panics
    /// If a name is longer than [`SET_NAME_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        let copy = self.copy.encode()?;
        let mut w = Writer::with_capacity(copy.len() + 64 + BASE);
        if let Some(base) = &self.base {
            base.put(&mut w);
        }
        w.u8(self.role.byte());
        brief(&mut w, &self.node);
        brief(&mut w, &self.account);
        put_names(&mut w, &self.left_out);
        w.put(&copy);
        Ok(w.into_bytes())
    }

    /// Reads the payload, of a set that was made since another one or not.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(payload: &Bytes, since: bool) -> Result<Self, DecodeError> {
        let mut r = Reader::new("beginning of a save set", payload);
        let base = if since { Some(SetBase::take(&mut r)?) } else { None };
        let role = Role::from_byte(r.u8()?)?;
        let (node, account) = (take_brief(&mut r)?, take_brief(&mut r)?);
        let left_out = take_names(&mut r)?;
        let copy = CopyBegin::decode(&payload.slice_ref(r.rest()))?;
        Ok(Self { base, role, node, account, left_out, copy })
    }
}

impl Trailer {
    /// All files of which there is content: what is replicated, then what the node has alone.
    pub fn all_files(&self) -> impl Iterator<Item = &SetFile> {
        self.files.iter().chain(self.alone.iter().flat_map(|alone| &alone.files))
    }

    /// The payload's bytes. Of more than [`SET_FILES_MAX`] files the rest is left out.
    ///
    /// # Panics
    /// If a name is longer than [`SET_NAME_MAX`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Counts { batches, chunks, items, bytes } = self.counts;
        let mut w = Writer::with_capacity(128 + 64 * self.files.len());
        w.u64(self.end.epoch.0).u64(self.end.seq.0).u64(self.end.chain.0).u64(self.wall_ms);
        w.u64(batches).u64(chunks).u64(items).u64(bytes).put(&self.digest);
        put_files(&mut w, &self.files);
        if let Some(alone) = &self.alone {
            alone.put(&mut w);
        }
        w.into_bytes()
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("trailer of a save set", payload);
        let epoch = Epoch(r.number("epoch of a save set")?);
        let end = Position { epoch, seq: Seq(r.number("end of a save set")?), chain: Chain(r.u64()?) };
        let wall_ms = r.u64()?;
        let counts = Counts { batches: r.u64()?, chunks: r.u64()?, items: r.u64()?, bytes: r.u64()? };
        let digest = r.array()?;
        let files = take_files(&mut r)?;
        let alone = if r.rest().is_empty() { None } else { Some(AloneFiles::take(&mut r)?) };
        r.expect("bytes behind the trailer of a save set", 0, r.rest().len() as u64)?;
        Ok(Self { end, wall_ms, counts, digest, files, alone })
    }
}

/// The footer that leads to a trailer.
#[must_use]
pub fn footer(offset: u64) -> [u8; FOOTER] {
    let mut w = Writer::with_capacity(FOOTER);
    w.u32(FOOTER_MAGIC).u32(0).u64(offset);
    sealed(w, &[])
}

/// Where the footer says that the trailer is.
///
/// # Errors
/// Any [`DecodeError`]; never panics.
pub fn read_footer(bytes: &[u8]) -> Result<u64, DecodeError> {
    let mut r = Reader::new("footer of a save set", bytes);
    let (magic, found) = (r.u32()?, r.u32()?);
    r.expect("magic of the footer", u64::from(FOOTER_MAGIC), u64::from(magic))?;
    check("footer of a save set", found, r.rest(), &[])?;
    let offset = r.number("place of the trailer")?;
    r.expect("bytes behind the footer", 0, r.rest().len() as u64)?;
    Ok(offset)
}

/// The bytes with their checksum at 4, which `seed` enters first.
fn sealed<const N: usize>(w: Writer, seed: &[u8]) -> [u8; N] {
    let mut bytes = w.into_bytes();
    let crc = sum(seed, bytes.get(8..).unwrap_or_default());
    if let Some(field) = bytes.get_mut(4..8) {
        field.copy_from_slice(&crc.to_le_bytes());
    }
    bytes.try_into().expect("a header has its length")
}

fn sum(seed: &[u8], bytes: &[u8]) -> u32 {
    if seed.is_empty() { crc32c(bytes) } else { crc32c(&[seed, bytes].concat()) }
}

fn check(what: &'static str, found: u32, rest: &[u8], seed: &[u8]) -> Result<(), DecodeError> {
    let computed = sum(seed, rest);
    if found == computed { Ok(()) } else { Err(DecodeError::Checksum { what, found, computed }) }
}

fn limited(what: &'static str, count: u32) -> Result<usize, DecodeError> {
    if count > SET_FILES_MAX {
        let (limit, found) = (u64::from(SET_FILES_MAX), u64::from(count));
        return Err(DecodeError::Limit { what, limit, found });
    }
    Ok(count as usize)
}

fn brief(w: &mut Writer, text: &str) {
    let len = u8::try_from(text.len()).expect("names of nodes and accounts are short");
    w.u8(len).put(text.as_bytes());
}

fn take_brief(r: &mut Reader<'_>) -> Result<String, DecodeError> {
    let len = usize::from(r.u8()?);
    text(r.take(len)?)
}

fn name(w: &mut Writer, text: &str) {
    assert!(text.len() <= SET_NAME_MAX, "a name stays within its limit");
    w.u16(u16::try_from(text.len()).expect("limit fits")).put(text.as_bytes());
}

fn take_name(r: &mut Reader<'_>) -> Result<String, DecodeError> {
    let len = usize::from(r.u16()?);
    if len > SET_NAME_MAX {
        let (limit, found) = (SET_NAME_MAX as u64, len as u64);
        return Err(DecodeError::Limit { what: "name in a save set", limit, found });
    }
    text(r.take(len)?)
}

/// Names of files; of more than [`SET_FILES_MAX`] the rest is left out.
pub(super) fn put_names(w: &mut Writer, names: &[String]) {
    let names = names.get(..SET_FILES_MAX as usize).unwrap_or(names);
    w.u32(u32::try_from(names.len()).expect("limit fits"));
    names.iter().for_each(|text| name(w, text));
}

pub(super) fn take_names(r: &mut Reader<'_>) -> Result<Vec<String>, DecodeError> {
    let count = limited("names in a save set", r.u32()?)?;
    let mut names = Vec::with_capacity(count.min(r.rest().len() / 2));
    for _ in 0..count {
        names.push(take_name(r)?);
    }
    Ok(names)
}

/// What there is of files; of more than [`SET_FILES_MAX`] the rest is left out.
pub(super) fn put_files(w: &mut Writer, files: &[SetFile]) {
    let files = files.get(..SET_FILES_MAX as usize).unwrap_or(files);
    w.u32(u32::try_from(files.len()).expect("limit fits"));
    for file in files {
        w.u64(file.id.0).u8(if file.blocks { 2 } else { 1 }).u64(file.items).u64(file.bytes);
        name(w, &file.name);
    }
}

pub(super) fn take_files(r: &mut Reader<'_>) -> Result<Vec<SetFile>, DecodeError> {
    let count = limited("files of a save set", r.u32()?)?;
    // Each takes 27 bytes at least.
    let mut files = Vec::with_capacity(count.min(r.rest().len() / 27));
    for _ in 0..count {
        let (id, kind) = (FileId(r.number("file of a save set")?), r.u8()?);
        if !matches!(kind, 1 | 2) {
            let found = u64::from(kind);
            return Err(DecodeError::Field { what: "kind of a file", expected: 2, found });
        }
        let (items, bytes, name) = (r.u64()?, r.u64()?, take_name(r)?);
        files.push(SetFile { id, blocks: kind == 2, items, bytes, name });
    }
    Ok(files)
}

fn text(bytes: &[u8]) -> Result<String, DecodeError> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(error) => {
            let found = error.valid_up_to() as u64;
            Err(DecodeError::Field { what: "text in a save set", expected: bytes.len() as u64, found })
        }
    }
}

/// Decodes any bytes as each of a set's parts, also with checksums that fit.
pub fn fuzz_set(bytes: &[u8]) {
    let resealed = |seed: &[u8], len: usize| {
        let mut all = bytes.get(..len)?.to_vec();
        let crc = sum(seed, all.get(8..)?);
        all.get_mut(4..8)?.copy_from_slice(&crc.to_le_bytes());
        Some(all)
    };
    let set = SetId([7; 16]);
    for bytes in [Some(bytes.to_vec()), resealed(&[], PART_HEADER)].into_iter().flatten() {
        if let Ok(header) = PartHeader::decode(&bytes) {
            assert_eq!(PartHeader::decode(&header.encode()), Ok(header));
        }
    }
    for bytes in [Some(bytes.to_vec()), resealed(&set.0, BLOCK_HEADER)].into_iter().flatten() {
        if let Ok(header) = BlockHeader::decode(&bytes, set) {
            assert_eq!(BlockHeader::decode(&header.encode(set), set), Ok(header));
        }
    }
    for bytes in [Some(bytes.to_vec()), resealed(&[], FOOTER)].into_iter().flatten() {
        if let Ok(offset) = read_footer(&bytes) {
            assert_eq!(read_footer(&footer(offset)), Ok(offset));
        }
    }
    if let Ok(trailer) = Trailer::decode(bytes) {
        assert_eq!(Trailer::decode(&trailer.encode()), Ok(trailer));
    }
    for since in [false, true] {
        if let Ok(begin) = SetBegin::decode(&Bytes::copy_from_slice(bytes), since) {
            let again = begin.encode().expect("it fitted");
            assert_eq!(SetBegin::decode(&again.into(), since), Ok(begin));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: SetId = SetId([7; 16]);

    fn header() -> PartHeader {
        PartHeader {
            since: false,
            alone: false,
            part: 2,
            set: SET,
            pair: PairId([9; 16]),
            wall_ms: 5,
            first_block: 71,
        }
    }

    fn block() -> BlockHeader {
        BlockHeader {
            number: 3,
            kind: BlockKind::Chunk,
            packing: Packing::Lz4,
            stored: 10,
            raw: 20,
            about: 4,
            crc: 5,
        }
    }

    fn trailer() -> Trailer {
        let file = |id, blocks, name: &str| SetFile {
            id: FileId(id),
            blocks,
            items: 3,
            bytes: 99,
            name: name.to_owned(),
        };
        Trailer {
            end: Position { epoch: Epoch(2), seq: Seq(80), chain: Chain(7) },
            wall_ms: 9,
            counts: Counts { batches: 1, chunks: 2, items: 3, bytes: 4 },
            digest: [8; 32],
            files: vec![file(4, false, "app,orders"), file(5, true, "app,disk")],
            alone: None,
        }
    }

    fn begin() -> SetBegin {
        SetBegin {
            base: None,
            role: Role::Standby,
            node: "b".to_owned(),
            account: "app".to_owned(),
            left_out: vec!["own,notes".to_owned()],
            copy: CopyBegin::default(),
        }
    }

    #[test]
    fn the_parts_of_a_set_read_back_and_no_cut_or_change_of_them_panics_or_goes_unnoticed_in_a_header() {
        assert_eq!(Trailer::decode(&trailer().encode()), Ok(trailer()));
        let base = SetBase { set: SET, end: trailer().end, wall_ms: 8, digest: [3; 32] };
        let since = SetBegin { base: Some(base), ..begin() };
        let payload = |begin: &SetBegin| Bytes::from(begin.encode().unwrap());
        assert_eq!(SetBegin::decode(&payload(&begin()), false), Ok(begin()));
        assert_eq!(SetBegin::decode(&payload(&since), true), Ok(since.clone()));
        for (since, alone, version) in
            [(false, false, 1), (true, false, 2), (false, true, 3), (true, true, 3)]
        {
            let other = PartHeader { since, alone, ..header() };
            assert_eq!((PartHeader::decode(&other.encode()), other.encode()[8]), (Ok(other), version));
        }
        let alone = Trailer { alone: Some(AloneFiles::default()), ..trailer() };
        assert_eq!(Trailer::decode(&alone.encode()), Ok(alone));
        let all = [
            header().encode().to_vec(),
            block().encode(SET).to_vec(),
            footer(77).to_vec(),
            trailer().encode(),
            payload(&begin()).to_vec(),
            payload(&since).to_vec(),
        ];
        for (at, bytes) in all.iter().enumerate() {
            fuzz_set(bytes);
            for bit in 0..bytes.len() * 8 {
                let mut other = bytes.clone();
                other[bit / 8] ^= 1 << (bit % 8);
                fuzz_set(&other);
                fuzz_set(&bytes[..bit / 8]);
                let unnoticed = [
                    PartHeader::decode(&other).is_ok(),
                    BlockHeader::decode(&other, SET).is_ok(),
                    read_footer(&other).is_ok(),
                ];
                assert!(at > 2 || unnoticed == [false; 3], "part {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_block_of_another_set_a_newer_version_and_lengths_beyond_the_limit_are_refused_by_name() {
        let told = |bytes: &[u8], set| BlockHeader::decode(bytes, set).unwrap_err().to_string();
        assert!(told(&block().encode(SET), SetId([6; 16])).contains("header of a block"));
        let long = BlockHeader { stored: u32::MAX, ..block() };
        assert!(told(&long.encode(SET), SET).contains("length of a block"));
        let bomb = BlockHeader { stored: 10, raw: 2561, ..block() };
        assert!(told(&bomb.encode(SET), SET).contains("unpacked length"));
        let plain = BlockHeader { packing: Packing::Plain, ..block() };
        assert!(told(&plain.encode(SET), SET).contains("length of a block"));
        let mut newer = header().encode();
        newer[8] = 4;
        let crc = crc32c(&newer[8..]);
        newer[4..8].copy_from_slice(&crc.to_le_bytes());
        let error = PartHeader::decode(&newer).unwrap_err().to_string();
        assert_eq!(error, "version of a save set: expected 1, found 4");
        let mut many = trailer().encode();
        many[96..100].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Trailer::decode(&many).unwrap_err().to_string().contains("files of a save set"));
    }
}
