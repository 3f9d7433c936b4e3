//! Requests after the choice of an export. Words in quotes are those of the protocol document.

use super::handshake::ALLOCATION_ID;
use super::incoming::Incoming;
use super::pending::{Asked, PendingRequest, size};
use super::refusal::Fail;
use super::replies::{chunks, content, extents, fitting};
use super::session::{Io, NbdStep};
use super::{Allocation, BlockBackend, NbdShared, Piece, Refusal};
use crate::base::limits::{NBD_EXTENTS_MAX, NBD_IN_FLIGHT_MAX, NBD_READS_MAX, NBD_REQUEST_MAX};
use crate::base::{AlignedBuf, FileId, Seq, Wait};
use crate::doors::{CommitWatermarks, Volume};
use crate::format::nbd::{self, Request};

/// A client that uses an export.
#[derive(Debug)]
pub(super) struct Serving {
    file: FileId,
    structured: bool,
    /// The allocations may be asked for.
    status: bool,
    /// A write whose payload comes.
    incoming: Option<Incoming>,
    /// Replies that wait until changes are safe: these, and the cookie.
    holds: Vec<([Wait; 2], u64)>,
    /// Requests that the backend will answer.
    requests: usize,
    /// What it will be read for them (bytes).
    reads: usize,
    /// It said goodbye.
    ending: bool,
}

impl Serving {
    pub(super) fn new(file: FileId, structured: bool, status: bool) -> Self {
        let holds = Vec::new();
        Self { file, structured, status, incoming: None, holds, requests: 0, reads: 0, ending: false }
    }

    pub(super) fn file(&self) -> FileId {
        self.file
    }

    /// Whether an answer is owed.
    pub(super) fn waits(&self) -> bool {
        let half_done = self.incoming.as_ref().is_some_and(|incoming| incoming.wait.is_some());
        half_done || self.in_flight() > 0
    }

    fn in_flight(&self) -> usize {
        self.holds.len() + self.requests
    }

    pub(super) fn filled(&mut self, buffer: AlignedBuf) {
        if let Some(incoming) = &mut self.incoming {
            incoming.filled(buffer);
        }
    }

    /// Replies to what is safe now.
    pub(super) fn release(&mut self, marks: &CommitWatermarks, io: &mut Io, shared: &mut NbdShared) {
        self.holds.retain(|(waits, cookie)| {
            let reached = waits.iter().all(|wait| marks.reached(*wait));
            if reached {
                io.out.release(nbd::SIMPLE_REPLY_LEN);
                nbd::simple_reply(io.out.small(shared), 0, *cookie);
            }
            !reached
        });
    }

    /// Fails what waits for an entry after `beyond`, or all that waits. What was accepted stays so: a later flush covers
    /// it.
    pub(super) fn abandon(
        &mut self,
        why: &Refusal,
        beyond: Option<[Seq; 2]>,
        io: &mut Io,
        shared: &mut NbdShared,
    ) {
        let late = |wait: &Wait| beyond.is_none_or(|beyond| wait.seq > beyond[wait.journal.index()]);
        let fail = Fail::from(why.clone());
        self.holds.retain(|(waits, cookie)| {
            let fails = waits.iter().any(late);
            if fails {
                io.out.release(nbd::SIMPLE_REPLY_LEN);
                nbd::simple_reply(io.out.small(shared), fail.error, *cookie);
            }
            !fails
        });
    }

    /// Takes one thing of what came.
    pub(super) fn step(
        &mut self,
        io: &mut Io,
        shared: &mut NbdShared,
        backend: &mut impl BlockBackend,
    ) -> NbdStep {
        if let Some(incoming) = &mut self.incoming {
            if let Some(step) = incoming.step(self.file, io, backend) {
                return step;
            }
            io.out.release(nbd::SIMPLE_REPLY_LEN);
            self.written(io, shared, backend);
            return NbdStep::Again;
        }
        if self.ending {
            // "The server MUST handle all outstanding requests, [..] and close the TCP session."
            return if self.in_flight() == 0 { NbdStep::End } else { NbdStep::Blocked };
        }
        if self.in_flight() >= NBD_IN_FLIGHT_MAX || !io.takes() {
            shared.budget.step_back(io.conn);
            return NbdStep::Blocked;
        }
        let Some(head) = io.unread().first_chunk() else { return NbdStep::Input };
        let Some(request) = Request::decode(head) else { return NbdStep::End };
        if backend.is_held() {
            shared.budget.step_back(io.conn);
            return NbdStep::Blocked;
        }
        self.request(&request, io, shared, backend)
    }

    fn request(
        &mut self,
        request: &Request,
        io: &mut Io,
        shared: &mut NbdShared,
        backend: &mut impl BlockBackend,
    ) -> NbdStep {
        if request.command == nbd::CMD_DISC {
            io.consume(nbd::REQUEST_LEN);
            self.ending = true;
            return NbdStep::Again;
        }
        let checked = self.check(request, backend);
        let need = self.reply_max(request, checked.is_ok());
        let reads = if checked.is_ok() && request.command == nbd::CMD_READ { size(request.len) } else { 0 };
        if self.reads + reads > NBD_READS_MAX {
            shared.budget.step_back(io.conn);
            return NbdStep::Blocked;
        }
        if !io.admits(need, reads, shared) {
            return NbdStep::Blocked;
        }
        if request.command == nbd::CMD_WRITE {
            io.consume(nbd::REQUEST_LEN);
            io.out.reserve(need);
            self.incoming = Some(Incoming::new(request, checked));
            return NbdStep::Again;
        }
        let done = match (checked, request.command) {
            (Err(fail), _) => Err(fail),
            (Ok(()), nbd::CMD_FLUSH) => self.flush(request, io, shared, backend),
            // "The behavior of a server on such a request is unspecified although the server SHOULD NOT disconnect."
            (Ok(()), nbd::CMD_READ) if request.len == 0 && self.structured => {
                nbd::none_chunk(io.out.small(shared), request.cookie);
                Ok(())
            }
            (Ok(()), nbd::CMD_CACHE) => {
                nbd::simple_reply(io.out.small(shared), 0, request.cookie);
                Ok(())
            }
            (Ok(()), _) if request.len == 0 => {
                nbd::simple_reply(io.out.small(shared), 0, request.cookie);
                Ok(())
            }
            (Ok(()), nbd::CMD_TRIM | nbd::CMD_WRITE_ZEROES) => {
                if backend.blocks_congested() {
                    return NbdStep::Blocked;
                }
                self.zero(request, io, shared, backend)
            }
            (Ok(()), _) => self.read(request, need, io, shared, backend),
        };
        io.consume(nbd::REQUEST_LEN);
        if let Err(fail) = done {
            self.fail(request.command, request.cookie, &fail, io, shared);
        }
        NbdStep::Again
    }

    /// Whether a request may be carried out. The only place that decides it, but for what changes while a payload
    /// comes.
    fn check(&self, request: &Request, backend: &impl BlockBackend) -> Result<(), Fail> {
        let (flags, changes) = match request.command {
            nbd::CMD_READ if self.structured => (nbd::CMD_FLAG_DF, false),
            nbd::CMD_WRITE | nbd::CMD_TRIM => (0, true),
            nbd::CMD_WRITE_ZEROES => (nbd::CMD_FLAG_NO_HOLE | nbd::CMD_FLAG_FAST_ZERO, true),
            nbd::CMD_BLOCK_STATUS => (nbd::CMD_FLAG_REQ_ONE, false),
            nbd::CMD_READ | nbd::CMD_FLUSH | nbd::CMD_CACHE => (0, false),
            // "The server SHOULD return `NBD_EINVAL` if it receives an unknown command."
            _ => return Err(Fail::new(nbd::EINVAL, "unknown command")),
        };
        // FUA: "the server MUST accept all commands with this bit set (even by ignoring the bit)". Others: "it also
        // SHOULD return `NBD_EINVAL` if it receives a request with a flag not explicitly documented as applicable".
        if request.flags & !(flags | nbd::CMD_FLAG_FUA) != 0 {
            return Err(Fail::new(nbd::EINVAL, "a flag that the command does not have"));
        }
        match request.command {
            // "*length* and *offset* are reserved, and MUST be set to all-zero."
            nbd::CMD_FLUSH if request.offset != 0 || request.len != 0 => {
                return Err(Fail::new(nbd::EINVAL, "a flush of a range"));
            }
            nbd::CMD_BLOCK_STATUS if !self.status || request.len == 0 => {
                return Err(Fail::new(nbd::EINVAL, "no metadata was negotiated, or none of no bytes"));
            }
            _ => {}
        }
        let volume = backend.volume(self.file)?;
        self.check_range(request, changes, &volume)
    }

    fn check_range(&self, request: &Request, changes: bool, volume: &Volume) -> Result<(), Fail> {
        // "It SHOULD return `NBD_EPERM` if it receives a write or trim request on a read-only export."
        if changes && !volume.writable {
            return Err(Fail::new(nbd::EPERM, "the volume is read-only"));
        }
        let end = request.offset.checked_add(u64::from(request.len));
        if end.is_none_or(|end| end > volume.bytes) {
            // "`NBD_ENOSPC` if it receives a write request including one or more sectors beyond the size of the
            // device", the same for zeros; "`NBD_EINVAL` if it receives a read or trim request" of that kind.
            let grows = matches!(request.command, nbd::CMD_WRITE | nbd::CMD_WRITE_ZEROES);
            let error = if grows { nbd::ENOSPC } else { nbd::EINVAL };
            return Err(Fail::new(error, "beyond the end of the volume"));
        }
        let carries = matches!(request.command, nbd::CMD_READ | nbd::CMD_WRITE);
        if carries && request.len > NBD_REQUEST_MAX {
            // With structured replies the server is "permitted to reject large read requests up front with
            // `NBD_EOVERFLOW`".
            let read = self.structured && request.command == nbd::CMD_READ;
            let error = if read { nbd::EOVERFLOW } else { nbd::EINVAL };
            return Err(Fail::new(error, "more than the largest request"));
        }
        Ok(())
    }

    /// The longest that a reply can be (bytes).
    fn reply_max(&self, request: &Request, passed: bool) -> usize {
        match request.command {
            nbd::CMD_READ | nbd::CMD_BLOCK_STATUS if self.structured && !passed => nbd::ERROR_CHUNK_MAX,
            // It has no more chunks than one with all the bytes is longer than the holes that it leaves out.
            nbd::CMD_READ if self.structured => {
                nbd::ERROR_CHUNK_MAX.max(size(request.len).saturating_add(nbd::READ_CHUNK_HEAD))
            }
            nbd::CMD_READ if passed => size(request.len).saturating_add(nbd::SIMPLE_REPLY_LEN),
            nbd::CMD_BLOCK_STATUS if passed => {
                nbd::ERROR_CHUNK_MAX.max(nbd::status_len(self.extents_max(request)))
            }
            _ => nbd::SIMPLE_REPLY_LEN,
        }
    }

    /// How many extents a reply tells.
    fn extents_max(&self, request: &Request) -> usize {
        if request.flags & nbd::CMD_FLAG_REQ_ONE != 0 { 1 } else { NBD_EXTENTS_MAX.min(size(request.len)) }
    }

    /// A read must be replied to in chunks where those were negotiated, and so must be what asks for metadata; all
    /// else is simple.
    fn fail(&self, command: u16, cookie: u64, fail: &Fail, io: &mut Io, shared: &mut NbdShared) {
        let out = io.out.small(shared);
        if self.structured && matches!(command, nbd::CMD_READ | nbd::CMD_BLOCK_STATUS) {
            nbd::error_chunk(out, cookie, fail.error, &fail.message);
        } else {
            nbd::simple_reply(out, fail.error, cookie);
        }
    }

    /// Replies when the waits are over.
    fn reply_after(
        &mut self,
        waits: [Wait; 2],
        cookie: u64,
        io: &mut Io,
        shared: &mut NbdShared,
        backend: &impl BlockBackend,
    ) {
        let marks = backend.watermarks();
        if waits.iter().all(|wait| marks.reached(*wait)) {
            nbd::simple_reply(io.out.small(shared), 0, cookie);
        } else {
            io.out.reserve(nbd::SIMPLE_REPLY_LEN);
            self.holds.push((waits, cookie));
        }
    }

    /// The payload of a write is at its end.
    fn written(&mut self, io: &mut Io, shared: &mut NbdShared, backend: &impl BlockBackend) {
        let Some(incoming) = self.incoming.take() else { return };
        if let Some(fail) = &incoming.failed {
            self.fail(nbd::CMD_WRITE, incoming.cookie, fail, io, shared);
            return;
        }
        let traffic = shared.traffic(self.file);
        traffic.writes += 1;
        traffic.written_bytes += incoming.bytes();
        match incoming.wait {
            // "If the server receives a command with `NBD_CMD_FLAG_FUA` set it MUST NOT send its reply to that command
            // until all write operations (if any) associated with that command have been completed and persisted".
            Some(wait) if incoming.fua => {
                self.reply_after([wait; 2], incoming.cookie, io, shared, backend);
            }
            _ => nbd::simple_reply(io.out.small(shared), 0, incoming.cookie),
        }
    }

    fn flush(
        &mut self,
        request: &Request,
        io: &mut Io,
        shared: &mut NbdShared,
        backend: &mut impl BlockBackend,
    ) -> Result<(), Fail> {
        // It waits "before all write requests for which a reply has already been sent to the client have reached
        // permanent storage", those of other connections included.
        let waits = backend.flush_blocks(self.file)?;
        shared.traffic(self.file).flushes += 1;
        self.reply_after(waits, request.cookie, io, shared, backend);
        Ok(())
    }

    fn zero(
        &mut self,
        request: &Request,
        io: &mut Io,
        shared: &mut NbdShared,
        backend: &mut impl BlockBackend,
    ) -> Result<(), Fail> {
        let hole = request.command == nbd::CMD_TRIM || request.flags & nbd::CMD_FLAG_NO_HOLE == 0;
        let wait = backend.zero_blocks(self.file, request.offset, u64::from(request.len), hole)?;
        shared.traffic(self.file).zeros += 1;
        if request.flags & nbd::CMD_FLAG_FUA != 0 {
            self.reply_after([wait; 2], request.cookie, io, shared, backend);
        } else {
            nbd::simple_reply(io.out.small(shared), 0, request.cookie);
        }
        Ok(())
    }

    /// Begins a read of content or of allocations, with a reply of up to `need` bytes.
    fn read(
        &mut self,
        request: &Request,
        need: usize,
        io: &mut Io,
        shared: &mut NbdShared,
        backend: &mut impl BlockBackend,
    ) -> Result<(), Fail> {
        let &Request { flags, cookie, offset, len, .. } = request;
        let reads = request.command == nbd::CMD_READ;
        let asked = match reads {
            true => Asked::Read { whole: flags & nbd::CMD_FLAG_DF != 0 },
            false => Asked::Status { one: flags & nbd::CMD_FLAG_REQ_ONE != 0 },
        };
        let flight = PendingRequest { conn: io.conn, cookie, offset, len, asked, reserved: need };
        let token = shared.requests.begin(flight);
        let begun = match reads {
            true => backend.read_blocks(token, self.file, offset, len),
            false => backend.allocation(token, self.file, offset, u64::from(len)),
        };
        if let Err(refusal) = begun {
            shared.requests.take(token);
            return Err(refusal.into());
        }
        io.out.reserve(need);
        self.requests += 1;
        self.reads += flight.bytes();
        Ok(())
    }

    fn landed(&mut self, flight: &PendingRequest) {
        self.requests = self.requests.saturating_sub(1);
        self.reads = self.reads.saturating_sub(flight.bytes());
    }

    pub(super) fn read_done(
        &mut self,
        flight: PendingRequest,
        result: Result<Vec<Piece>, Refusal>,
        io: &mut Io,
        shared: &mut NbdShared,
    ) {
        self.landed(&flight);
        let pieces = result.map_err(Fail::from).and_then(|pieces| fitting(pieces, &flight));
        let pieces = match pieces {
            Ok(pieces) => pieces,
            Err(fail) => return self.fail(nbd::CMD_READ, flight.cookie, &fail, io, shared),
        };
        let traffic = shared.traffic(self.file);
        traffic.reads += 1;
        traffic.read_bytes += u64::from(flight.len);
        match (self.structured, flight.asked, pieces.as_slice()) {
            (false, ..) => {
                nbd::simple_reply(io.out.small(shared), 0, flight.cookie);
                content(pieces, &mut io.out, shared);
            }
            // "If the area being read contains both data and a hole, the server MUST use `NBD_REPLY_TYPE_OFFSET_DATA`
            // with the zeroes explicitly present."
            (true, Asked::Read { whole: true }, [_, _, ..]) => {
                let out = io.out.small(shared);
                nbd::data_chunk(out, true, flight.cookie, flight.offset, flight.len);
                content(pieces, &mut io.out, shared);
            }
            (true, ..) => chunks(&flight, pieces, &mut io.out, shared),
        }
    }

    pub(super) fn allocation_done(
        &mut self,
        flight: PendingRequest,
        result: Result<Vec<Allocation>, Refusal>,
        io: &mut Io,
        shared: &mut NbdShared,
    ) {
        self.landed(&flight);
        let one = flight.asked == Asked::Status { one: true };
        let extents = result.map_err(Fail::from).and_then(|allocations| {
            let extents = extents(&allocations, flight.len, if one { 1 } else { NBD_EXTENTS_MAX });
            // The status of "at least one" extent is due.
            if extents.is_empty() { Err(Fail::new(nbd::EIO, "no allocations found")) } else { Ok(extents) }
        });
        match extents {
            Ok(extents) => {
                nbd::status_chunk(io.out.small(shared), flight.cookie, ALLOCATION_ID, &extents);
            }
            Err(fail) => self.fail(nbd::CMD_BLOCK_STATUS, flight.cookie, &fail, io, shared),
        }
    }
}
