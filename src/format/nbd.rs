//! NBD, as its protocol document fixes it: every number of the wire, and the layouts of requests and replies.
//!
//! Names are those of `doc/proto.md` of NBD without their prefix. All numbers are big-endian. The decoders take whole
//! buffers; what is too short or too long is `None`.

/// The first eight bytes that a server sends: `NBDMAGIC`.
pub const NBDMAGIC: u64 = 0x4e42_444d_4147_4943;
/// The second eight bytes of a server, and the first of every option: `IHAVEOPT`.
pub const IHAVEOPT: u64 = 0x4948_4156_454f_5054;
/// The first eight bytes of every reply to an option.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

/// Client flag: it talks the fixed newstyle.
pub const CLIENT_FIXED_NEWSTYLE: u32 = 1;
/// Client flag: it wants no 124 zeros after `OPT_EXPORT_NAME`.
pub const CLIENT_NO_ZEROES: u32 = 2;

/// Server flag: it talks the fixed newstyle.
pub const FLAG_FIXED_NEWSTYLE: u16 = 1;
/// Server flag: it can leave the 124 zeros out.
pub const FLAG_NO_ZEROES: u16 = 2;

/// Option: choose an export and begin; no error can be told.
pub const OPT_EXPORT_NAME: u32 = 1;
/// Option: the end.
pub const OPT_ABORT: u32 = 2;
/// Option: name all exports.
pub const OPT_LIST: u32 = 3;
/// Option: TLS from here on.
pub const OPT_STARTTLS: u32 = 5;
/// Option: tell about an export.
pub const OPT_INFO: u32 = 6;
/// Option: choose an export and begin.
pub const OPT_GO: u32 = 7;
/// Option: replies in chunks.
pub const OPT_STRUCTURED_REPLY: u32 = 8;
/// Option: which metadata there is.
pub const OPT_LIST_META_CONTEXT: u32 = 9;
/// Option: which metadata block status shall tell.
pub const OPT_SET_META_CONTEXT: u32 = 10;

/// Reply to an option: done, nothing more follows.
pub const REP_ACK: u32 = 1;
/// Reply to an option: one export.
pub const REP_SERVER: u32 = 2;
/// Reply to an option: a fact about an export.
pub const REP_INFO: u32 = 3;
/// Reply to an option: one metadata context.
pub const REP_META_CONTEXT: u32 = 4;
/// Reply to an option: not known here.
pub const REP_ERR_UNSUP: u32 = 0x8000_0001;
/// Reply to an option: not allowed here.
pub const REP_ERR_POLICY: u32 = 0x8000_0002;
/// Reply to an option: malformed, or not now.
pub const REP_ERR_INVALID: u32 = 0x8000_0003;
/// Reply to an option: this platform cannot.
pub const REP_ERR_PLATFORM: u32 = 0x8000_0004;
/// Reply to an option: only under TLS.
pub const REP_ERR_TLS_REQD: u32 = 0x8000_0005;
/// Reply to an option: no such export.
pub const REP_ERR_UNKNOWN: u32 = 0x8000_0006;
/// Reply to an option: the server serves nobody now.
pub const REP_ERR_SHUTDOWN: u32 = 0x8000_0007;
/// Reply to an option: the client must respect block sizes first.
pub const REP_ERR_BLOCK_SIZE_REQD: u32 = 0x8000_0008;
/// Reply to an option: its data is too long.
pub const REP_ERR_TOO_BIG: u32 = 0x8000_0009;

/// Fact: size and transmission flags.
pub const INFO_EXPORT: u16 = 0;
/// Fact: the name it goes by.
pub const INFO_NAME: u16 = 1;
/// Fact: words for people.
pub const INFO_DESCRIPTION: u16 = 2;
/// Fact: least, best and largest request.
pub const INFO_BLOCK_SIZE: u16 = 3;

/// Transmission flag: always set.
pub const FLAG_HAS_FLAGS: u16 = 1;
/// Transmission flag: no changes.
pub const FLAG_READ_ONLY: u16 = 1 << 1;
/// Transmission flag: `CMD_FLUSH` may be sent.
pub const FLAG_SEND_FLUSH: u16 = 1 << 2;
/// Transmission flag: `CMD_FLAG_FUA` may be sent.
pub const FLAG_SEND_FUA: u16 = 1 << 3;
/// Transmission flag: `CMD_TRIM` may be sent.
pub const FLAG_SEND_TRIM: u16 = 1 << 5;
/// Transmission flag: `CMD_WRITE_ZEROES` may be sent.
pub const FLAG_SEND_WRITE_ZEROES: u16 = 1 << 6;
/// Transmission flag: `CMD_FLAG_DF` may be sent.
pub const FLAG_SEND_DF: u16 = 1 << 7;
/// Transmission flag: several connections see one volume, and a flush covers all of them.
pub const FLAG_CAN_MULTI_CONN: u16 = 1 << 8;
/// Transmission flag: `CMD_CACHE` may be sent.
pub const FLAG_SEND_CACHE: u16 = 1 << 10;
/// Transmission flag: `CMD_FLAG_FAST_ZERO` may be sent.
pub const FLAG_SEND_FAST_ZERO: u16 = 1 << 11;

/// The first four bytes of a request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// The first four bytes of a simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// The first four bytes of a chunk of a structured reply.
pub const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// Command: read a range.
pub const CMD_READ: u16 = 0;
/// Command: write the payload that follows.
pub const CMD_WRITE: u16 = 1;
/// Command: the end; no reply.
pub const CMD_DISC: u16 = 2;
/// Command: all that was replied to is safe before this is replied to.
pub const CMD_FLUSH: u16 = 3;
/// Command: the range is not needed.
pub const CMD_TRIM: u16 = 4;
/// Command: the range will be read soon.
pub const CMD_CACHE: u16 = 5;
/// Command: the range reads as zeros from now on.
pub const CMD_WRITE_ZEROES: u16 = 6;
/// Command: tell the metadata of a range.
pub const CMD_BLOCK_STATUS: u16 = 7;

/// Command flag: safe before it is replied to.
pub const CMD_FLAG_FUA: u16 = 1;
/// Command flag: keep the space of zeros.
pub const CMD_FLAG_NO_HOLE: u16 = 1 << 1;
/// Command flag: what is read comes in one chunk.
pub const CMD_FLAG_DF: u16 = 1 << 2;
/// Command flag: one extent is enough.
pub const CMD_FLAG_REQ_ONE: u16 = 1 << 3;
/// Command flag: zeros only if faster than writing them.
pub const CMD_FLAG_FAST_ZERO: u16 = 1 << 4;

/// Chunk flag: the last of its reply.
pub const REPLY_FLAG_DONE: u16 = 1;
/// Chunk: nothing.
pub const REPLY_TYPE_NONE: u16 = 0;
/// Chunk: bytes at an offset.
pub const REPLY_TYPE_OFFSET_DATA: u16 = 1;
/// Chunk: zeros at an offset.
pub const REPLY_TYPE_OFFSET_HOLE: u16 = 2;
/// Chunk: extents.
pub const REPLY_TYPE_BLOCK_STATUS: u16 = 5;
/// Chunk: an error.
pub const REPLY_TYPE_ERROR: u16 = (1 << 15) | 1;
/// Chunk: an error at an offset.
pub const REPLY_TYPE_ERROR_OFFSET: u16 = (1 << 15) | 2;

/// `base:allocation`: takes no space.
pub const STATE_HOLE: u32 = 1;
/// `base:allocation`: reads as zeros.
pub const STATE_ZERO: u32 = 2;
/// Error: not permitted.
pub const EPERM: u32 = 1;
/// Error: input or output failed.
pub const EIO: u32 = 5;
/// Error: no memory.
pub const ENOMEM: u32 = 12;
/// Error: an invalid request.
pub const EINVAL: u32 = 22;
/// Error: no space left.
pub const ENOSPC: u32 = 28;
/// Error: too large for one chunk.
pub const EOVERFLOW: u32 = 75;
/// Error: not supported.
pub const ENOTSUP: u32 = 95;
/// Error: the server is about to go.
pub const ESHUTDOWN: u32 = 108;
/// Bytes of the flags that a client answers the greeting with.
pub const CLIENT_FLAGS_LEN: usize = 4;
/// Bytes of an option before its data.
pub const OPTION_HEADER: usize = 16;
/// Bytes of a request before its payload.
pub const REQUEST_LEN: usize = 28;
/// Bytes of a simple reply before its payload.
pub const SIMPLE_REPLY_LEN: usize = 16;
/// Bytes of a chunk before its payload.
pub const CHUNK_HEAD: usize = 20;
/// Bytes of a whole [`REPLY_TYPE_OFFSET_HOLE`]; not less than those of a [`REPLY_TYPE_OFFSET_DATA`] before its data.
pub const READ_CHUNK_HEAD: usize = CHUNK_HEAD + 12;
/// Bytes of a whole [`REPLY_TYPE_ERROR`] at most.
pub const ERROR_CHUNK_MAX: usize = CHUNK_HEAD + 6 + STRING_MAX;
/// Bytes of a reply to an option before its data.
pub const OPTION_REPLY_HEAD: usize = 20;
/// Zeros after the reply to [`OPT_EXPORT_NAME`], unless both sides do without.
pub const EXPORT_ZEROS: usize = 124;
/// Longest string of the protocol (bytes).
pub const STRING_MAX: usize = 4096;

/// Takes the first `N` bytes off `bytes`.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}

/// Takes a string off `bytes` that stands behind its length (u32).
fn take_string<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(u32::from_be_bytes(take(bytes)?)).ok()?;
    let (string, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(string)
}

/// As much of a text as a string of the protocol may hold.
#[must_use]
pub fn cut(text: &str) -> &str {
    let mut end = STRING_MAX.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

fn len32(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// What a client asks for in transmission. A payload of `len` bytes follows [`CMD_WRITE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// `CMD_FLAG_*`.
    pub flags: u16,
    /// `CMD_*`.
    pub command: u16,
    /// Told back in the reply.
    pub cookie: u64,
    /// Where (bytes).
    pub offset: u64,
    /// How much (bytes).
    pub len: u32,
}

impl Request {
    /// Reads a request; `None` when it does not begin with [`REQUEST_MAGIC`].
    #[must_use]
    pub fn decode(bytes: &[u8; REQUEST_LEN]) -> Option<Self> {
        let mut bytes = &bytes[..];
        if u32::from_be_bytes(take(&mut bytes)?) != REQUEST_MAGIC {
            return None;
        }
        Some(Self {
            flags: u16::from_be_bytes(take(&mut bytes)?),
            command: u16::from_be_bytes(take(&mut bytes)?),
            cookie: u64::from_be_bytes(take(&mut bytes)?),
            offset: u64::from_be_bytes(take(&mut bytes)?),
            len: u32::from_be_bytes(take(&mut bytes)?),
        })
    }

    /// Appends the request, as a client does.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&REQUEST_MAGIC.to_be_bytes());
        out.extend_from_slice(&self.flags.to_be_bytes());
        out.extend_from_slice(&self.command.to_be_bytes());
        out.extend_from_slice(&self.cookie.to_be_bytes());
        out.extend_from_slice(&self.offset.to_be_bytes());
        out.extend_from_slice(&self.len.to_be_bytes());
    }
}

/// The head of an option; `len` bytes of data follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionHeader {
    /// `OPT_*`.
    pub option: u32,
    /// Bytes of data.
    pub len: u32,
}

impl OptionHeader {
    /// Reads the head of an option; `None` when it does not begin with [`IHAVEOPT`].
    #[must_use]
    pub fn decode(bytes: &[u8; OPTION_HEADER]) -> Option<Self> {
        let mut bytes = &bytes[..];
        if u64::from_be_bytes(take(&mut bytes)?) != IHAVEOPT {
            return None;
        }
        Some(Self {
            option: u32::from_be_bytes(take(&mut bytes)?),
            len: u32::from_be_bytes(take(&mut bytes)?),
        })
    }

    /// Appends the head, as a client does.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&IHAVEOPT.to_be_bytes());
        out.extend_from_slice(&self.option.to_be_bytes());
        out.extend_from_slice(&self.len.to_be_bytes());
    }
}

/// The data of [`OPT_INFO`] and [`OPT_GO`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfoQuery<'a> {
    /// The export; empty for the default one.
    pub name: &'a [u8],
    /// `INFO_*` that are asked for.
    pub wanted: Vec<u16>,
}

impl<'a> InfoQuery<'a> {
    /// Reads the data of an option; `None` when its lengths do not fit.
    #[must_use]
    pub fn decode(mut data: &'a [u8]) -> Option<Self> {
        let name = take_string(&mut data)?;
        let count = usize::from(u16::from_be_bytes(take(&mut data)?));
        let (pairs, odd) = data.as_chunks::<2>();
        let fits = odd.is_empty() && pairs.len() == count;
        fits.then(|| Self { name, wanted: pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect() })
    }
}

/// The data of [`OPT_LIST_META_CONTEXT`] and [`OPT_SET_META_CONTEXT`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaQuery<'a> {
    /// The export.
    pub name: &'a [u8],
    /// What is asked for.
    pub queries: Vec<&'a [u8]>,
}

impl<'a> MetaQuery<'a> {
    /// Reads the data of an option; `None` when its lengths do not fit.
    #[must_use]
    pub fn decode(mut data: &'a [u8]) -> Option<Self> {
        let name = take_string(&mut data)?;
        let count = u32::from_be_bytes(take(&mut data)?);
        let mut queries = Vec::new();
        // Each takes four bytes at least, so the data bounds them and not the count.
        for _ in 0..count {
            queries.push(take_string(&mut data)?);
        }
        data.is_empty().then_some(Self { name, queries })
    }
}

/// Appends the greeting of a fixed newstyle server.
pub fn greeting(out: &mut Vec<u8>) {
    out.extend_from_slice(&NBDMAGIC.to_be_bytes());
    out.extend_from_slice(&IHAVEOPT.to_be_bytes());
    out.extend_from_slice(&(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES).to_be_bytes());
}

/// Appends a reply to an option.
pub fn option_reply(out: &mut Vec<u8>, option: u32, kind: u32, data: &[u8]) {
    out.extend_from_slice(&OPTION_REPLY_MAGIC.to_be_bytes());
    out.extend_from_slice(&option.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&len32(data).to_be_bytes());
    out.extend_from_slice(data);
}

/// Appends a [`REP_SERVER`].
pub fn server_reply(out: &mut Vec<u8>, option: u32, name: &[u8]) {
    let mut data = len32(name).to_be_bytes().to_vec();
    data.extend_from_slice(name);
    option_reply(out, option, REP_SERVER, &data);
}

/// Appends an [`INFO_EXPORT`].
pub fn info_export(out: &mut Vec<u8>, option: u32, size: u64, flags: u16) {
    let mut data = INFO_EXPORT.to_be_bytes().to_vec();
    data.extend_from_slice(&size.to_be_bytes());
    data.extend_from_slice(&flags.to_be_bytes());
    option_reply(out, option, REP_INFO, &data);
}

/// Appends an [`INFO_NAME`].
pub fn info_name(out: &mut Vec<u8>, option: u32, name: &[u8]) {
    let mut data = INFO_NAME.to_be_bytes().to_vec();
    data.extend_from_slice(name);
    option_reply(out, option, REP_INFO, &data);
}

/// Appends an [`INFO_BLOCK_SIZE`]: least, best and largest request (bytes).
pub fn info_block_size(out: &mut Vec<u8>, option: u32, sizes: [u32; 3]) {
    let mut data = INFO_BLOCK_SIZE.to_be_bytes().to_vec();
    sizes.iter().for_each(|size| data.extend_from_slice(&size.to_be_bytes()));
    option_reply(out, option, REP_INFO, &data);
}

/// Appends a [`REP_META_CONTEXT`].
pub fn meta_context(out: &mut Vec<u8>, option: u32, id: u32, name: &[u8]) {
    let mut data = id.to_be_bytes().to_vec();
    data.extend_from_slice(name);
    option_reply(out, option, REP_META_CONTEXT, &data);
}

/// Appends what follows [`OPT_EXPORT_NAME`].
pub fn export_reply(out: &mut Vec<u8>, size: u64, flags: u16, zeros: bool) {
    out.extend_from_slice(&size.to_be_bytes());
    out.extend_from_slice(&flags.to_be_bytes());
    if zeros {
        out.extend_from_slice(&[0; EXPORT_ZEROS]);
    }
}

/// Appends a simple reply; after one without error the bytes that were read follow.
pub fn simple_reply(out: &mut Vec<u8>, error: u32, cookie: u64) {
    out.extend_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
    out.extend_from_slice(&error.to_be_bytes());
    out.extend_from_slice(&cookie.to_be_bytes());
}

/// Appends the head of a chunk; `len` bytes follow.
pub fn chunk(out: &mut Vec<u8>, done: bool, kind: u16, cookie: u64, len: u32) {
    let flags = if done { REPLY_FLAG_DONE } else { 0 };
    out.extend_from_slice(&STRUCTURED_REPLY_MAGIC.to_be_bytes());
    out.extend_from_slice(&flags.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&cookie.to_be_bytes());
    out.extend_from_slice(&len.to_be_bytes());
}

/// Appends a chunk that holds nothing and ends a reply.
pub fn none_chunk(out: &mut Vec<u8>, cookie: u64) {
    chunk(out, true, REPLY_TYPE_NONE, cookie, 0);
}

/// Appends the head of a chunk with bytes; `len` of them follow.
pub fn data_chunk(out: &mut Vec<u8>, done: bool, cookie: u64, offset: u64, len: u32) {
    chunk(out, done, REPLY_TYPE_OFFSET_DATA, cookie, len.saturating_add(8));
    out.extend_from_slice(&offset.to_be_bytes());
}

/// Appends a chunk for `len` zeros.
pub fn hole_chunk(out: &mut Vec<u8>, done: bool, cookie: u64, offset: u64, len: u32) {
    chunk(out, done, REPLY_TYPE_OFFSET_HOLE, cookie, 12);
    out.extend_from_slice(&offset.to_be_bytes());
    out.extend_from_slice(&len.to_be_bytes());
}

/// Appends a chunk with an error, which ends a reply. A long message is cut.
pub fn error_chunk(out: &mut Vec<u8>, cookie: u64, error: u32, message: &str) {
    let message = cut(message).as_bytes();
    chunk(out, true, REPLY_TYPE_ERROR, cookie, len32(message).saturating_add(6));
    out.extend_from_slice(&error.to_be_bytes());
    out.extend_from_slice(&u16::try_from(message.len()).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(message);
}

/// Bytes of a whole [`REPLY_TYPE_BLOCK_STATUS`] with so many extents.
#[must_use]
pub fn status_len(extents: usize) -> usize {
    CHUNK_HEAD + 4 + extents.saturating_mul(8)
}

/// Appends a chunk with extents as (length, `STATE_*`) of one metadata context, which ends a reply.
pub fn status_chunk(out: &mut Vec<u8>, cookie: u64, context: u32, extents: &[(u32, u32)]) {
    let len = u32::try_from(extents.len()).unwrap_or(u32::MAX).saturating_mul(8).saturating_add(4);
    chunk(out, true, REPLY_TYPE_BLOCK_STATUS, cookie, len);
    out.extend_from_slice(&context.to_be_bytes());
    for (len, state) in extents {
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(&state.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_comes_back_as_it_was_and_a_wrong_magic_is_seen() {
        let request = Request { flags: 3, command: CMD_WRITE, cookie: 7, offset: 1 << 40, len: 9 };
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        let mut bytes: [u8; REQUEST_LEN] = bytes.try_into().expect("its size");
        assert_eq!(Request::decode(&bytes), Some(request));
        bytes[0] ^= 1;
        assert_eq!(Request::decode(&bytes), None);
    }

    #[test]
    fn the_data_of_options_must_fit_its_lengths() {
        let whole = b"\0\0\0\x03a/b\0\x02\0\x03\0\x01";
        let query = InfoQuery::decode(whole).expect("it fits");
        assert_eq!((query.name, query.wanted), (&b"a/b"[..], vec![INFO_BLOCK_SIZE, INFO_NAME]));
        let meta = b"\0\0\0\x01x\0\0\0\x02\0\0\0\x05base:\0\0\0\0";
        let query = MetaQuery::decode(meta).expect("it fits");
        assert_eq!((query.name, query.queries), (&b"x"[..], vec![&b"base:"[..], b""]));
        for cut in 0..whole.len() {
            assert_eq!(InfoQuery::decode(&whole[..cut]), None);
        }
        for cut in 0..meta.len() {
            assert_eq!(MetaQuery::decode(&meta[..cut]), None);
        }
        assert_eq!(InfoQuery::decode(&[&whole[..], b"\0"].concat()), None);
        assert_eq!(MetaQuery::decode(&[&meta[..], b"\0"].concat()), None);
        assert_eq!(MetaQuery::decode(b"\0\0\0\0\xff\xff\xff\xff"), None);
    }

    #[test]
    fn a_long_message_is_cut_between_letters() {
        let mut out = Vec::new();
        error_chunk(&mut out, 1, EIO, &"ä".repeat(STRING_MAX));
        assert_eq!(out.len(), 20 + 6 + STRING_MAX);
        out.clear();
        error_chunk(&mut out, 1, EIO, &format!("x{}", "ä".repeat(STRING_MAX)));
        assert_eq!(out.len(), 20 + 6 + STRING_MAX - 1);
    }
}
