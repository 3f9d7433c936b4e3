//! The bodies of replies: what was read and what is allocated.

use super::outbox::ReplyQueue;
use super::pending::PendingRequest;
use super::refusal::Fail;
use super::{Allocation, NbdShared, Piece};
use crate::format::nbd;

fn len_of(piece: &Piece) -> u64 {
    match piece {
        Piece::Data(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        Piece::Zeros(len) => *len,
    }
}

/// The pieces that are not empty, when together they are as long as was asked for.
pub(super) fn fitting(mut pieces: Vec<Piece>, flight: &PendingRequest) -> Result<Vec<Piece>, Fail> {
    pieces.retain(|piece| len_of(piece) > 0);
    let len = pieces.iter().fold(0_u64, |sum, piece| sum.saturating_add(len_of(piece)));
    if len == u64::from(flight.len) { Ok(pieces) } else { Err(Fail::new(nbd::EIO, "read another length")) }
}

/// Sends bytes and zeros one after the other.
pub(super) fn content(pieces: Vec<Piece>, out: &mut ReplyQueue, shared: &mut NbdShared) {
    for piece in pieces {
        match piece {
            Piece::Data(bytes) => out.data(bytes, shared),
            Piece::Zeros(len) => out.zeros(usize::try_from(len).unwrap_or(0), shared),
        }
    }
}

/// A hole that is told as such is longer than what telling it takes, so that a reply in chunks is never longer than one
/// with all the bytes (bytes).
const HOLE_MIN: u64 = 4096;

/// Sends pieces as chunks: long zeros as holes, what lies between them as bytes.
pub(super) fn chunks(
    flight: &PendingRequest,
    pieces: Vec<Piece>,
    out: &mut ReplyQueue,
    shared: &mut NbdShared,
) {
    let mut offset = flight.offset;
    let mut pieces = pieces.into_iter().peekable();
    while let Some(first) = pieces.next() {
        let mut len = len_of(&first);
        if is_hole(&first) {
            while let Some(next) = pieces.next_if(|next| matches!(next, Piece::Zeros(_))) {
                len = len.saturating_add(len_of(&next));
            }
            let done = pieces.peek().is_none();
            nbd::hole_chunk(out.small(shared), done, flight.cookie, offset, short(len));
        } else {
            let mut run = vec![first];
            while let Some(next) = pieces.next_if(|next| !is_hole(next)) {
                len = len.saturating_add(len_of(&next));
                run.push(next);
            }
            let done = pieces.peek().is_none();
            nbd::data_chunk(out.small(shared), done, flight.cookie, offset, short(len));
            content(run, out, shared);
        }
        offset = offset.saturating_add(len);
    }
}

fn is_hole(piece: &Piece) -> bool {
    matches!(piece, Piece::Zeros(len) if *len >= HOLE_MIN)
}

/// A length that was checked to be within that of a request.
fn short(len: u64) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// What is told of allocations: not more than `limit`, and not beyond what was asked for. "The server SHOULD use
/// different *status* values between consecutive descriptors where feasible".
pub(super) fn extents(allocations: &[Allocation], asked: u32, limit: usize) -> Vec<(u32, u32)> {
    let mut left = asked;
    let mut extents: Vec<(u32, u32)> = Vec::new();
    for allocation in allocations {
        let len = short(allocation.len).min(left);
        let state = if allocation.hole { nbd::STATE_HOLE | nbd::STATE_ZERO } else { 0 };
        let told = extents.len();
        match extents.last_mut() {
            _ if len == 0 => continue,
            Some((before, same)) if *same == state => *before += len,
            _ if told == limit => break,
            _ => extents.push((len, state)),
        }
        left -= len;
    }
    extents
}
