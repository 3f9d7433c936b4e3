//! From the greeting to the choice of an export. Words in quotes are those of the protocol document.

use super::refusal::option_error;
use super::session::{Io, NbdStep};
use super::transmission::Serving;
use super::{BlockBackend, NbdShared, Refusal, Tls};
use crate::base::FileId;
use crate::base::limits::{NAME_MAX, NBD_LIST_MAX, NBD_OPTION_DRAIN_MAX, NBD_OPTION_MAX, NBD_REQUEST_MAX};
use crate::doors::Volume;
use crate::format::nbd::{self, InfoQuery, MetaQuery, OptionHeader};

/// The one metadata context there is.
const ALLOCATION: &[u8] = b"base:allocation";
/// The query that lists all of its namespace.
const ALL_OF_BASE: &[u8] = b"base:";
/// The number under which the context is told.
pub(super) const ALLOCATION_ID: u32 = 1;
/// Why clients are refused, for people.
const NO_TLS: &str = "it does not use TLS, without which nothing is told to other machines";
/// See [`NO_TLS`].
const NOT_NBD: &str = "what it sent is not NBD";
/// Least, best and largest request (bytes).
const BLOCK_SIZES: [u32; 3] = [1, 4096, NBD_REQUEST_MAX];
/// What the replies to one option are at most, those to a list aside: a text for people, or some facts (bytes).
const OPTION_REPLIES_MAX: usize = 2 * (nbd::OPTION_REPLY_HEAD + nbd::STRING_MAX);
const _: () = assert!(2 * NAME_MAX + nbd::EXPORT_ZEROS + 5 * nbd::OPTION_REPLY_HEAD < nbd::STRING_MAX);

/// How it is with TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Secrecy {
    Before(Tls),
    Secured,
}

/// A client that has not chosen an export.
#[derive(Debug)]
pub(super) struct Negotiation {
    flags: Option<u32>,
    secrecy: Secrecy,
    structured: bool,
    /// The export whose allocations shall be told.
    context: Option<FileId>,
    /// An option whose data is thrown away: itself, and how much is left.
    drained: Option<(u32, usize)>,
}

impl Negotiation {
    pub(super) fn new(tls: Tls) -> Self {
        let secrecy = Secrecy::Before(tls);
        Self { flags: None, secrecy, structured: false, context: None, drained: None }
    }

    /// "If the client requests `NBD_OPT_STARTTLS` after this option, it MUST renegotiate structured replies and any
    /// other dependent extensions that it desires to use."
    pub(super) fn secured(flags: u32) -> Self {
        let secrecy = Secrecy::Secured;
        Self { flags: Some(flags), secrecy, structured: false, context: None, drained: None }
    }

    /// What the client told, once.
    pub(super) fn client_flags(&self) -> u32 {
        self.flags.unwrap_or(0)
    }

    /// Takes one thing of what came.
    pub(super) fn step(
        &mut self,
        io: &mut Io,
        shared: &mut NbdShared,
        backend: &impl BlockBackend,
    ) -> NbdStep {
        if !io.takes() {
            shared.budget.step_back(io.conn);
            return NbdStep::Blocked;
        }
        if !io.admits(self.replies_max(io), 0, shared) {
            return NbdStep::Blocked;
        }
        if self.flags.is_none() {
            return self.flags(io, shared);
        }
        if let Some((option, left)) = self.drained {
            return self.drain(option, left, io, shared);
        }
        let Some(head) = io.unread().first_chunk() else { return NbdStep::Input };
        let Some(OptionHeader { option, len }) = OptionHeader::decode(head) else {
            shared.refuse(io.conn, NOT_NBD);
            return NbdStep::End;
        };
        let len = super::pending::size(len);
        if len > NBD_OPTION_MAX {
            if option == nbd::OPT_EXPORT_NAME || len > NBD_OPTION_DRAIN_MAX {
                return NbdStep::End;
            }
            io.consume(nbd::OPTION_HEADER);
            self.drained = Some((option, len));
            return NbdStep::Again;
        }
        let whole = nbd::OPTION_HEADER + len;
        let Some(data) = io.unread().get(nbd::OPTION_HEADER..whole) else { return NbdStep::Input };
        let data = data.to_vec();
        io.consume(whole);
        self.option(option, &data, io, shared, backend)
    }

    /// The longest that the replies to what comes next can be (bytes).
    fn replies_max(&self, io: &Io) -> usize {
        let head = io.unread().first_chunk().and_then(OptionHeader::decode);
        let next = head.filter(|_| self.flags.is_some() && self.drained.is_none() && !self.tls_missing());
        match next {
            Some(head) if head.option == nbd::OPT_LIST => NBD_LIST_MAX,
            _ => OPTION_REPLIES_MAX,
        }
    }

    /// "The server MUST drop the TCP connection if the client sets an unknown flag".
    fn flags(&mut self, io: &mut Io, shared: &mut NbdShared) -> NbdStep {
        let Some(flags) = io.unread().first_chunk() else { return NbdStep::Input };
        let flags = u32::from_be_bytes(*flags);
        if flags & !(nbd::CLIENT_FIXED_NEWSTYLE | nbd::CLIENT_NO_ZEROES) != 0 {
            shared.refuse(io.conn, NOT_NBD);
            return NbdStep::End;
        }
        io.consume(nbd::CLIENT_FLAGS_LEN);
        self.flags = Some(flags);
        NbdStep::Again
    }

    fn drain(&mut self, option: u32, left: usize, io: &mut Io, shared: &mut NbdShared) -> NbdStep {
        let part = left.min(io.unread().len());
        io.consume(part);
        self.drained = (left > part).then_some((option, left - part));
        if self.drained.is_some() {
            return NbdStep::Input;
        }
        let error = match self.tls_missing() && option != nbd::OPT_STARTTLS {
            true => nbd::REP_ERR_TLS_REQD,
            false => nbd::REP_ERR_TOO_BIG,
        };
        reply(io, shared, option, error)
    }

    fn tls_missing(&self) -> bool {
        self.secrecy == Secrecy::Before(Tls::Required)
    }

    fn option(
        &mut self,
        option: u32,
        data: &[u8],
        io: &mut Io,
        shared: &mut NbdShared,
        backend: &impl BlockBackend,
    ) -> NbdStep {
        match option {
            // "The server MUST reply with `NBD_REP_ACK`", and "SHOULD ignore any data sent".
            nbd::OPT_ABORT => {
                reply(io, shared, option, nbd::REP_ACK);
                NbdStep::End
            }
            nbd::OPT_STARTTLS => self.start_tls(data, io, shared),
            // "As this request cannot error, it MUST terminate the session."
            nbd::OPT_EXPORT_NAME if self.tls_missing() => {
                shared.refuse(io.conn, NO_TLS);
                NbdStep::End
            }
            // "If the server receives any other option, including `NBD_OPT_INFO` and unsupported options, it MUST
            // reply with `NBD_REP_ERR_TLS_REQD`".
            _ if self.tls_missing() => {
                if matches!(option, nbd::OPT_GO | nbd::OPT_INFO | nbd::OPT_LIST) {
                    shared.refuse(io.conn, NO_TLS);
                }
                reply(io, shared, option, nbd::REP_ERR_TLS_REQD)
            }
            nbd::OPT_EXPORT_NAME => self.export_name(data, io, shared, backend),
            nbd::OPT_LIST => list(data, io, shared, backend),
            nbd::OPT_INFO | nbd::OPT_GO => self.info(option, data, io, shared, backend),
            nbd::OPT_STRUCTURED_REPLY => {
                self.structured |= data.is_empty();
                let ack = if data.is_empty() { nbd::REP_ACK } else { nbd::REP_ERR_INVALID };
                reply(io, shared, option, ack)
            }
            nbd::OPT_LIST_META_CONTEXT | nbd::OPT_SET_META_CONTEXT => {
                self.meta_context(option, data, io, shared, backend)
            }
            _ => reply(io, shared, option, nbd::REP_ERR_UNSUP),
        }
    }

    fn start_tls(&mut self, data: &[u8], io: &mut Io, shared: &mut NbdShared) -> NbdStep {
        let option = nbd::OPT_STARTTLS;
        match self.secrecy {
            // "It MUST reply with `NBD_REP_ERR_INVALID`" when TLS was negotiated already.
            Secrecy::Secured => reply(io, shared, option, nbd::REP_ERR_INVALID),
            // "`NBD_REP_ERR_POLICY` (if it does not support TLS for policy reasons)".
            Secrecy::Before(Tls::Off) => reply(io, shared, option, nbd::REP_ERR_POLICY),
            Secrecy::Before(_) if !data.is_empty() => reply(io, shared, option, nbd::REP_ERR_INVALID),
            // Bytes that came before TLS must never be taken for bytes that came under it.
            Secrecy::Before(_) if !io.unread().is_empty() => NbdStep::End,
            Secrecy::Before(_) => {
                reply(io, shared, option, nbd::REP_ACK);
                NbdStep::StartTls
            }
        }
    }

    fn export_name(
        &self,
        name: &[u8],
        io: &mut Io,
        shared: &mut NbdShared,
        backend: &impl BlockBackend,
    ) -> NbdStep {
        // "If the chosen export does not exist [..] the server MUST terminate the session."
        let volume = match find(name, backend) {
            Ok(volume) => volume,
            Err(refusal) => {
                shared.refuse(io.conn, refusal.to_string());
                return NbdStep::End;
            }
        };
        let zeros = self.client_flags() & nbd::CLIENT_NO_ZEROES == 0;
        nbd::export_reply(io.out.small(shared), volume.bytes, self.flags_of(&volume), zeros);
        self.serve(&volume)
    }

    fn info(
        &self,
        option: u32,
        data: &[u8],
        io: &mut Io,
        shared: &mut NbdShared,
        backend: &impl BlockBackend,
    ) -> NbdStep {
        let Some(query) = InfoQuery::decode(data) else {
            return reply(io, shared, option, nbd::REP_ERR_INVALID);
        };
        let volume = match find(query.name, backend) {
            Ok(volume) => volume,
            Err(refusal) => return refuse(io, shared, option, &refusal),
        };
        let out = io.out.small(shared);
        // "The server MUST send at least one `NBD_REP_INFO`, with an `NBD_INFO_EXPORT` information type", asked for or
        // not.
        nbd::info_export(out, option, volume.bytes, self.flags_of(&volume));
        if query.wanted.contains(&nbd::INFO_NAME) {
            nbd::info_name(out, option, volume.name.as_bytes());
        }
        if query.wanted.contains(&nbd::INFO_BLOCK_SIZE) {
            nbd::info_block_size(out, option, BLOCK_SIZES);
        }
        reply(io, shared, option, nbd::REP_ACK);
        if option == nbd::OPT_GO { self.serve(&volume) } else { NbdStep::Again }
    }

    fn meta_context(
        &mut self,
        option: u32,
        data: &[u8],
        io: &mut Io,
        shared: &mut NbdShared,
        backend: &impl BlockBackend,
    ) -> NbdStep {
        let set = option == nbd::OPT_SET_META_CONTEXT;
        if set {
            // It "replaces all previously-set metadata contexts (including when this command fails)".
            self.context = None;
        }
        let query = MetaQuery::decode(data).filter(|_| self.structured);
        let Some(MetaQuery { name, queries }) = query else {
            return reply(io, shared, option, nbd::REP_ERR_INVALID);
        };
        let volume = match find(name, backend) {
            Ok(volume) => volume,
            Err(refusal) => return refuse(io, shared, option, &refusal),
        };
        let named = queries.contains(&ALLOCATION);
        // "If zero queries are sent, then the server MUST return all the metadata contexts that are available";
        // when setting, "the server MUST select no metadata contexts".
        let listed = !set && (queries.is_empty() || queries.contains(&ALL_OF_BASE));
        if named || listed {
            // "The metadata context ID in these replies is reserved and SHOULD be set to zero" when listing.
            let id = if set { ALLOCATION_ID } else { 0 };
            nbd::meta_context(io.out.small(shared), option, id, ALLOCATION);
        }
        if set && named {
            self.context = Some(volume.file);
        }
        reply(io, shared, option, nbd::REP_ACK)
    }

    fn flags_of(&self, volume: &Volume) -> u16 {
        let mut flags = nbd::FLAG_HAS_FLAGS
            | nbd::FLAG_SEND_FLUSH
            | nbd::FLAG_SEND_FUA
            | nbd::FLAG_SEND_TRIM
            | nbd::FLAG_SEND_WRITE_ZEROES
            | nbd::FLAG_SEND_FAST_ZERO
            | nbd::FLAG_SEND_CACHE
            | nbd::FLAG_CAN_MULTI_CONN;
        if self.structured {
            flags |= nbd::FLAG_SEND_DF;
        }
        if !volume.writable {
            flags |= nbd::FLAG_READ_ONLY;
        }
        flags
    }

    /// A context counts only where "it referred to the same export name that was ultimately selected".
    fn serve(&self, volume: &Volume) -> NbdStep {
        let status = self.context == Some(volume.file);
        NbdStep::Serve(Box::new(Serving::new(volume.file, self.structured, status)))
    }
}

fn reply(io: &mut Io, shared: &mut NbdShared, option: u32, kind: u32) -> NbdStep {
    nbd::option_reply(io.out.small(shared), option, kind, &[]);
    NbdStep::Again
}

fn refuse(io: &mut Io, shared: &mut NbdShared, option: u32, refusal: &Refusal) -> NbdStep {
    let text = refusal.to_string();
    shared.refuse(io.conn, text.clone());
    nbd::option_reply(io.out.small(shared), option, option_error(refusal), nbd::cut(&text).as_bytes());
    NbdStep::Again
}

fn list(data: &[u8], io: &mut Io, shared: &mut NbdShared, backend: &impl BlockBackend) -> NbdStep {
    let option = nbd::OPT_LIST;
    // "The server SHOULD reject a request that includes data with `NBD_REP_ERR_INVALID`."
    if !data.is_empty() {
        return reply(io, shared, option, nbd::REP_ERR_INVALID);
    }
    let mut left = NBD_LIST_MAX - nbd::OPTION_REPLY_HEAD;
    for volume in backend.volumes() {
        let Some(less) = left.checked_sub(nbd::OPTION_REPLY_HEAD + 4 + volume.name.len()) else {
            // "Return zero or more `NBD_REP_SERVER` replies, [..] followed by `NBD_REP_ACK` or an error".
            return reply(io, shared, option, nbd::REP_ERR_TOO_BIG);
        };
        left = less;
        nbd::server_reply(io.out.small(shared), option, volume.name.as_bytes());
    }
    reply(io, shared, option, nbd::REP_ACK)
}

/// The export of that name; the empty one means the only volume.
fn find(name: &[u8], backend: &impl BlockBackend) -> Result<Volume, Refusal> {
    if !name.is_empty() {
        return backend.volume_named(name);
    }
    match backend.volumes().as_slice() {
        [only] => backend.volume(only.file),
        _ => Err(Refusal::NoSuchFile("without a name".to_owned())),
    }
}
