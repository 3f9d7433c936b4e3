//! Each node's reels: a drive that holds in memory what it was given, and loses it with a reset; reels that fill up; and an
//! operator who puts in the wrong one now and then.

use super::options::Mutation;
use super::spool::{Done, Part, SpoolTape};
use super::world::{Ev, World};
use crate::base::{Fault, JournalKind, Prng};
use crate::engine::{JournalEvent, ReadSegment, SpoolEvent};
use crate::format::spool::PartHeader;
use std::collections::{BTreeMap, BTreeSet};

/// What a drive was given, and does not have on its reel for certain.
#[derive(Clone, Debug)]
struct Written {
    round: u64,
    /// It is a copy of a segment of the journal.
    copied: bool,
    part: Part,
}

/// A node's drive and reels.
#[derive(Clone, Debug, Default)]
pub(super) struct Reels {
    /// What is on reels by the drive's word, and in the catalogue: part and reel.
    on: BTreeMap<String, (Part, u64)>,
    let_go: BTreeSet<String>,
    buffer: Vec<Written>,
    /// The reel that is written to, and so many parts that it still takes.
    number: u64,
    room: u64,
    /// The reel in the drive.
    loaded: u64,
    /// When the node was told last that nothing can be written (microseconds); 0 for never.
    pub(super) failed_at: u64,
    wanted: bool,
}

impl Reels {
    /// The node dies: what the drive was given counts for nothing. The last word of the catalogue may be lost.
    pub(super) fn die(&mut self, power: bool, prng: &mut Prng) {
        self.wanted = false;
        self.buffer.clear();
        if power && prng.percent(30) {
            self.let_go.pop_last();
        }
    }

    /// The part of that name.
    pub(super) fn get(&self, name: &str) -> Option<&Part> {
        self.on.get(name).map(|(part, _)| part)
    }

    pub(super) fn parts(&self) -> impl Iterator<Item = &Part> {
        self.on.values().map(|(part, _)| part)
    }

    /// What the catalogue tells.
    pub(super) fn listed(&self) -> Vec<PartHeader> {
        let needed = self.on.iter().filter(|(name, _)| !self.let_go.contains(*name));
        needed.map(|(_, (part, _))| part.header).collect()
    }

    pub(super) fn let_go(&mut self, name: String) -> Option<Part> {
        let part = self.get(&name).cloned();
        self.let_go.insert(name);
        part
    }
}

impl World {
    /// A node's operator is asked for a reel, and may bring another one. Whether the right one is there then.
    fn brings(&mut self, n: usize, reel: u64) -> bool {
        if self.nodes[n].spool.reels.loaded != reel && self.streams.spool.percent(40) {
            self.nodes[n].spool.reels.loaded = reel;
        }
        let reels = &mut self.nodes[n].spool.reels;
        let there = reels.loaded == reel;
        if there == reels.wanted {
            reels.wanted = !there;
            let wanted = (!there).then(|| format!("reel {reel}"));
            self.input(n, SpoolEvent::Reel { wanted });
        }
        there
    }

    /// A drive was given a part.
    pub(super) fn reel_wrote(&mut self, n: usize, round: u64, copied: bool, header: PartHeader) {
        let part = if copied { self.copied(n, header) } else { self.moved(n, header) };
        if part.is_ok() && self.mutate(Mutation::FlushLie) {
            // It is told before the flush, and the drive is reset.
            return self.reel_answer(n, (round, copied), Ok(()));
        }
        let reel = self.nodes[n].spool.reels.number;
        let there = part.is_ok() && self.brings(n, reel);
        if part.is_ok() && !there {
            self.trace.sometimes("the wrong reel was refused");
        }
        let part = match part {
            Ok(part) if there => part,
            other => return self.reel_fails(n, (round, copied), other.err().unwrap_or(Fault::NO_REEL)),
        };
        let us = self.disk_latency(n) * 4;
        let reels = &mut self.nodes[n].spool.reels;
        if reels.buffer.is_empty() {
            self.node_after(us, n, Ev::Spool(Done::Flushed));
        }
        self.nodes[n].spool.reels.buffer.push(Written { round, copied, part });
    }

    /// A part in the directory, for the drive.
    fn moved(&self, n: usize, header: PartHeader) -> Result<Part, Fault> {
        let spool = &self.nodes[n].spool;
        match spool.part(&header.file_name()) {
            _ if spool.away => Err(Fault::Errno(2)),
            Some(part) => Ok(part.clone()),
            None => Err(Fault::STALE),
        }
    }

    /// All that does not count fails, and this.
    fn reel_fails(&mut self, n: usize, last: (u64, bool), fault: Fault) {
        let lost = std::mem::take(&mut self.nodes[n].spool.reels.buffer);
        for written in lost {
            self.reel_answer(n, (written.round, written.copied), Err(fault));
        }
        self.reel_answer(n, last, Err(fault));
    }

    fn reel_answer(&mut self, n: usize, (round, copied): (u64, bool), result: Result<(), Fault>) {
        self.note(n, "reel-wrote", round, u64::from(result.is_ok()));
        if result.is_err() {
            self.nodes[n].spool.reels.failed_at = self.trace.now.max(1);
        }
        match copied {
            true => self.input(n, SpoolEvent::Copied { round, result: result.map(|()| 0) }),
            false => self.input(n, SpoolEvent::Moved { round, result }),
        }
    }

    /// A drive was told to flush.
    pub(super) fn reel_flushed(&mut self, n: usize) {
        let written = std::mem::take(&mut self.nodes[n].spool.reels.buffer);
        let fails = !self.operator.healing() && self.streams.spool.percent(5);
        for Written { round, copied, part } in written {
            if fails {
                self.trace.sometimes("a drive lost what it held in memory");
                self.reel_answer(n, (round, copied), Err(Fault::Errno(5)));
                continue;
            }
            let reels = &mut self.nodes[n].spool.reels;
            let number = reels.number;
            reels.let_go.remove(&part.header.file_name());
            reels.on.insert(part.header.file_name(), (part, number));
            self.trace.sometimes("a part went to a reel");
            self.reel_answer(n, (round, copied), Ok(()));
        }
        let more = 1 + self.streams.spool.below(6);
        let reels = &mut self.nodes[n].spool.reels;
        match reels.room {
            // The next one is put in by hand: whichever lies there.
            0 => (reels.number, reels.room) = (reels.number + 1, more),
            room => reels.room = room - 1,
        }
    }

    /// Bytes of a part on reels; they wait for the reel.
    pub(super) fn reel_read(&mut self, n: usize, read: ReadSegment, header: PartHeader) {
        let name = header.file_name();
        let reel = self.nodes[n].spool.reels.on.get(&name).map(|(_, reel)| *reel);
        if let Some(reel) = reel
            && !self.brings(n, reel)
        {
            self.trace.sometimes("the wrong reel was refused");
            return self.node_after(1_000_000, n, Ev::Spool(Done::Read(read, header)));
        }
        let name = self.replayed(n, name);
        let part = self.nodes[n].spool.reels.get(&name);
        let bytes = part.map(|part| {
            let at = usize::try_from(read.offset).unwrap_or(usize::MAX).min(part.bytes.len());
            part.bytes.slice(at..(at + read.len).min(part.bytes.len()))
        });
        if bytes.is_some() {
            self.trace.sometimes("catch-up from a reel");
        }
        self.note(n, "reel-read", read.read, u64::from(bytes.is_some()));
        self.input(n, JournalEvent::Read { read: read.read, result: bytes.ok_or(Fault::Errno(2)) });
    }

    /// With the mutation, the part before it: what was read comes again.
    fn replayed(&mut self, n: usize, name: String) -> String {
        let before =
            self.nodes[n].spool.reels.on.range(..name.clone()).next_back().map(|(name, _)| name.clone());
        match before {
            Some(before) if self.mutate(Mutation::ReplayReel) => before,
            _ => name,
        }
    }

    /// Whether a node's parts go to reels at once.
    pub(super) fn is_on_reels(&self) -> bool {
        self.options.spool.is_some_and(|spool| spool.tape == SpoolTape::Only)
    }

    /// A copy of a segment, held to its header.
    fn copied(&mut self, n: usize, header: PartHeader) -> Result<Part, Fault> {
        let len = usize::try_from(header.bytes).unwrap_or(usize::MAX);
        let bytes = self.nodes[n].disk.read(JournalKind::Replicated, header.index, 0, len);
        bytes.ok_or(Fault::STALE).and_then(|bytes| self.part_of(n, header, bytes))
    }
}
