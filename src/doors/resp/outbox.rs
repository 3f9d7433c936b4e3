//! What a client is still to be told, in order, and what each part of it waits for.

use crate::base::{AckLevel, JournalKind, Seq, Wait};
use crate::doors::CommitWatermarks;
use crate::format::resp::error;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// Replies up to this size are copied out of the client's own buffer, so that it can be used again at once.
const COPIED_MAX: usize = 4096;
/// One arena holds the replies of many clients. A slow client keeps a whole one alive, so it is small.
const ARENA: usize = 16 << 10;
/// A buffer that grew beyond this is not kept.
const KEPT_MAX: usize = 64 << 10;

const OK: &[u8] = b"+OK\r\n";
const OKS_COUNT: usize = 64;

/// The commonest replies of all, ready to be sent.
static OKS: [u8; OK.len() * OKS_COUNT] = {
    let mut bytes = [0; OK.len() * OKS_COUNT];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = OK[at % OK.len()];
        at += 1;
    }
    bytes
};

/// Everything that one reply waits for: the furthest entry for each promise.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waits {
    local: Seq,
    replicated: [Seq; 4],
}

const LEVELS: [AckLevel; 4] = [AckLevel::Local, AckLevel::Received, AckLevel::Durable, AckLevel::Applied];

impl Waits {
    /// Adds one more.
    pub(super) fn add(&mut self, wait: Wait) {
        let seq = match wait.journal {
            JournalKind::Local => &mut self.local,
            JournalKind::Replicated => match wait.level {
                AckLevel::Local => &mut self.replicated[0],
                AckLevel::Received => &mut self.replicated[1],
                AckLevel::Durable => &mut self.replicated[2],
                AckLevel::Applied => &mut self.replicated[3],
            },
        };
        *seq = (*seq).max(wait.seq);
    }

    /// Adds all of another reply's.
    pub(super) fn join(&mut self, other: &Self) {
        other.each().for_each(|wait| self.add(wait));
    }

    /// Whether there is nothing to wait for.
    pub(super) fn is_empty(&self) -> bool {
        self.local == Seq(0) && self.replicated == [Seq(0); 4]
    }

    fn each(&self) -> impl Iterator<Item = Wait> + use<> {
        let local = Wait { journal: JournalKind::Local, seq: self.local, level: AckLevel::Local };
        let replicated = LEVELS.into_iter().zip(self.replicated);
        let replicated = replicated.map(|(level, seq)| Wait { journal: JournalKind::Replicated, seq, level });
        std::iter::once(local).chain(replicated).filter(|wait| wait.seq > Seq(0))
    }
}

#[derive(Clone, Copy, Debug)]
struct Hold {
    /// Where in the stream of all replies the first byte stands that has to wait.
    at: u64,
    wait: Wait,
}

/// The replies of one client.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Encoded replies; those before `head` were handed out. Commands append here.
    pub(super) bytes: Vec<u8>,
    head: usize,
    /// Where in the stream of all replies `bytes` begins.
    base: u64,
    holds: VecDeque<Hold>,
    under_way: usize,
}

impl Outbox {
    /// Takes a whole reply that was written elsewhere.
    pub(super) fn append(&mut self, reply: Vec<u8>) {
        if self.bytes.is_empty() {
            self.bytes = reply;
        } else {
            self.bytes.extend_from_slice(&reply);
        }
    }

    /// Bytes that the client does not have yet, as far as known.
    pub(super) fn pending(&self) -> usize {
        self.bytes.len() - self.head + self.under_way
    }

    /// Memory held (bytes).
    pub(super) fn held(&self) -> usize {
        self.pending() + self.holds.len() * size_of::<Hold>()
    }

    /// Whether everything was handed out for sending.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.len() == self.head
    }

    /// How many replies wait, at most.
    pub(super) fn holds(&self) -> usize {
        self.holds.len()
    }

    /// Holds back the reply that starts at `start` of `bytes`, and all behind it, until `waits` are over.
    pub(super) fn hold(&mut self, start: usize, waits: &Waits, marks: &CommitWatermarks) {
        let at = self.base + start as u64;
        for wait in waits.each().filter(|wait| !marks.reached(*wait)) {
            // A read of what the same client wrote just before waits for nothing new.
            let covered = |last: &Hold| {
                last.wait.journal == wait.journal
                    && last.wait.level == wait.level
                    && last.wait.seq >= wait.seq
            };
            if !self.holds.back().is_some_and(covered) {
                self.holds.push_back(Hold { at, wait });
            }
        }
    }

    /// Lets go what has waited long enough.
    pub(super) fn release(&mut self, marks: &CommitWatermarks) {
        while self.holds.front().is_some_and(|hold| marks.reached(hold.wait)) {
            self.holds.pop_front();
        }
    }

    /// The first reply that waits for something `late` becomes the error `text`, and those behind it are not given; false
    /// if there is none.
    pub(super) fn abandon(&mut self, text: &str, late: impl Fn(Wait) -> bool) -> bool {
        let Some(first) = self.holds.iter().find(|hold| late(hold.wait)).map(|hold| hold.at) else {
            return false;
        };
        // It may wait for several things.
        while self.holds.back().is_some_and(|hold| hold.at >= first) {
            self.holds.pop_back();
        }
        self.bytes.truncate(usize::try_from(first - self.base).unwrap_or(usize::MAX));
        error(&mut self.bytes, text);
        true
    }

    /// One send is over.
    pub(super) fn sent(&mut self) {
        self.under_way = 0;
    }

    /// Everything that may be sent now, unless a send is under way.
    pub(super) fn take(&mut self, arena: &mut BytesMut) -> Option<Bytes> {
        if self.under_way > 0 {
            return None;
        }
        let held_at = self.holds.front().map(|hold| usize::try_from(hold.at - self.base));
        let end = held_at.and_then(Result::ok).unwrap_or(self.bytes.len());
        let free = self.bytes.get(self.head..end)?;
        let len = free.len();
        if len == 0 {
            return None;
        }
        let whole = len == self.bytes.len();
        let out = if OKS.get(..len) == Some(free) {
            Bytes::from_static(OKS.get(..len).unwrap_or_default())
        } else if len <= COPIED_MAX {
            if arena.capacity() - arena.len() < len {
                arena.reserve(ARENA);
            }
            arena.extend_from_slice(free);
            arena.split().freeze()
        } else if whole {
            self.base += len as u64;
            Bytes::from(std::mem::take(&mut self.bytes))
        } else {
            Bytes::copy_from_slice(free)
        };
        self.under_way = len;
        if !self.bytes.is_empty() {
            self.forget(end);
        }
        Some(out)
    }

    /// The bytes before `end` were handed out.
    fn forget(&mut self, end: usize) {
        self.head = end;
        if end == self.bytes.len() {
            self.bytes.clear();
        } else if end >= KEPT_MAX && end > self.bytes.len() / 2 {
            self.bytes.drain(..end);
        } else {
            return;
        }
        self.base += end as u64;
        self.head = 0;
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT_MAX {
            self.bytes = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(level: AckLevel, seq: u64) -> Wait {
        Wait { journal: JournalKind::Replicated, seq: Seq(seq), level }
    }

    fn marks(local: u64, received: u64) -> CommitWatermarks {
        CommitWatermarks { durable: [Seq(0); 2], replicated: [Seq(local), Seq(received), Seq(0), Seq(0)] }
    }

    fn reply(out: &mut Outbox, text: &str, waits: &[Wait]) {
        let start = out.bytes.len();
        out.bytes.extend_from_slice(text.as_bytes());
        let mut all = Waits::default();
        waits.iter().for_each(|wait| all.add(*wait));
        out.hold(start, &all, &marks(0, 0));
    }

    fn taken(out: &mut Outbox) -> String {
        let bytes = out.take(&mut BytesMut::new()).unwrap_or_default();
        out.sent();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn a_reply_that_waits_holds_back_those_behind_it_only() {
        let mut out = Outbox::default();
        reply(&mut out, "a", &[]);
        reply(&mut out, "b", &[wait(AckLevel::Local, 5), wait(AckLevel::Received, 3)]);
        reply(&mut out, "c", &[]);
        reply(&mut out, "d", &[wait(AckLevel::Local, 9)]);
        assert_eq!(taken(&mut out), "a");
        out.release(&marks(9, 2));
        assert_eq!(taken(&mut out), "");
        out.release(&marks(5, 3));
        assert_eq!(taken(&mut out), "bc");
        out.release(&marks(9, 3));
        assert_eq!(taken(&mut out), "d");
        assert!(out.is_empty() && out.pending() == 0);
    }

    #[test]
    fn the_first_reply_that_comes_too_late_becomes_an_error_and_nothing_follows_it() {
        let mut out = Outbox::default();
        reply(&mut out, "a", &[]);
        reply(&mut out, "b", &[wait(AckLevel::Received, 3)]);
        reply(&mut out, "cc", &[wait(AckLevel::Received, 4), wait(AckLevel::Local, 5)]);
        reply(&mut out, "d", &[wait(AckLevel::Local, 9)]);
        assert_eq!(taken(&mut out), "a");
        assert!(!out.abandon("IOERR x", |wait| wait.seq > Seq(9)));
        assert!(out.abandon("IOERR x", |wait| wait.seq > Seq(4)));
        assert_eq!(taken(&mut out), "", "what stands before it is still waited for");
        out.release(&marks(0, 3));
        assert_eq!(taken(&mut out), "b-IOERR x\r\n");
        assert!(out.is_empty() && out.holds() == 0);
    }

    #[test]
    fn one_send_at_a_time_and_the_next_takes_all_that_gathered() {
        let mut out = Outbox::default();
        let mut arena = BytesMut::new();
        reply(&mut out, "+OK\r\n", &[]);
        assert_eq!(out.take(&mut arena).unwrap().as_ref(), b"+OK\r\n");
        reply(&mut out, "+OK\r\n+OK\r\n", &[]);
        reply(&mut out, ":1\r\n", &[]);
        assert_eq!(out.take(&mut arena), None);
        assert_eq!(out.pending(), 19);
        out.sent();
        assert_eq!(out.take(&mut arena).unwrap().as_ref(), b"+OK\r\n+OK\r\n:1\r\n");
    }

    #[test]
    fn large_replies_and_long_queues_leave_whole_and_in_order() {
        let mut out = Outbox::default();
        let (mut expected, mut found) = (String::new(), String::new());
        for round in 1..400_u64 {
            let text = format!("{round}:{}", "x".repeat(usize::try_from(round * 37 % 9000).unwrap()));
            expected.push_str(&text);
            reply(&mut out, &text, &[wait(AckLevel::Local, round)]);
            if round % 7 == 0 {
                out.release(&marks(round.saturating_sub(round % 50), 0));
                found.push_str(&taken(&mut out));
            }
        }
        out.release(&marks(400, 0));
        found.push_str(&taken(&mut out));
        assert!(found == expected, "the stream is what was written");
        assert!(out.is_empty());
    }

    #[test]
    fn reads_behind_a_write_need_no_hold_of_their_own() {
        let mut out = Outbox::default();
        reply(&mut out, "a", &[wait(AckLevel::Local, 5)]);
        reply(&mut out, "b", &[wait(AckLevel::Local, 4)]);
        assert_eq!(out.holds(), 1);
        reply(&mut out, "c", &[wait(AckLevel::Received, 4)]);
        assert_eq!(out.holds(), 2);
    }
}
