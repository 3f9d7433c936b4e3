//! Each node's spool: another disk, which may fill up, go away for a while, and lose what was under way with the node.

use super::options::Mutation;
use super::reels::Reels;
use super::truth::Tip;
use super::world::{Ev, World};
use crate::base::{Fault, JournalKind, Prng, Seq};
use crate::engine::{
    JournalEvent, ReadSegment, SpoolEffect, SpoolEvent, SpoolFound, SpoolFull, SpoolKeep, SpoolMode,
};
use crate::format::spool::PartHeader;
use crate::journal::{ReadStep, SegmentInfo, SegmentWalk};
use bytes::Bytes;
use std::collections::BTreeMap;

/// The spool of a run.
#[derive(Clone, Copy, Debug)]
pub struct SpoolOptions {
    /// When it is written.
    pub mode: SpoolMode,
    /// What comes when it takes nothing.
    pub full: SpoolFull,
    /// Its disk fills up and goes away now and then.
    pub faults: bool,
    /// What goes to reels.
    pub tape: SpoolTape,
    /// Whether a history is kept for saves.
    pub keep: SpoolKeep,
}

/// Which parts of a spool go to reels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoolTape {
    /// None.
    None,
    /// Those for which the directory has no room.
    Behind,
    /// All.
    Only,
}

/// A part, durable.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) header: PartHeader,
    pub(super) bytes: Bytes,
    /// Where the history stands behind each of its batches.
    tips: Vec<Tip>,
}

/// A node's spool.
#[derive(Clone, Debug, Default)]
pub(super) struct SpoolDisk {
    parts: BTreeMap<String, Part>,
    /// Being written.
    copying: Option<PartHeader>,
    /// Removed; the name may be back after a power loss.
    removed: Option<Part>,
    /// There is no room on it.
    pub(super) full: bool,
    /// It is not mounted.
    pub(super) away: bool,
    /// The node was last told that it takes nothing.
    stuck: Option<Fault>,
    /// Reels behind it, or in its place.
    pub(super) reels: Reels,
    /// The last entry of the oldest save of the node that is there.
    oldest_save: Option<Seq>,
}

/// What the spool has done.
#[derive(Debug)]
pub(super) enum Done {
    /// It was looked at.
    Opened(u64),
    /// A segment was copied.
    Copied(u64, PartHeader),
    /// Bytes of a part were read.
    Read(ReadSegment, PartHeader),
    /// A drive was given a part: a copy of a segment, or one of the directory.
    Wrote(u64, bool, PartHeader),
    /// It was told to flush.
    Flushed,
}

impl SpoolDisk {
    /// The node dies. What was under way is there or not; what was removed may be back without power.
    pub(super) fn die(&mut self, power: bool, prng: &mut Prng) {
        (self.copying, self.stuck) = (None, None);
        self.reels.die(power, prng);
        let back = self.removed.take().filter(|_| power && prng.percent(30));
        if let Some(part) = back {
            self.parts.insert(part.header.file_name(), part);
        }
    }

    /// Whether a batch that ends there is on it, whole.
    pub(super) fn holds(&self, tip: &Tip) -> bool {
        let all = self.parts.values().chain(self.reels.parts());
        all.flat_map(|part| &part.tips).any(|other| other.chain == tip.chain)
    }

    /// The part of that name in the directory.
    pub(super) fn part(&self, name: &str) -> Option<&Part> {
        self.parts.get(name)
    }
}

/// The batches of a part, held to its header.
fn tips_of(header: &PartHeader, bytes: &Bytes) -> Result<Vec<Tip>, String> {
    let PartHeader { index, base, end, bytes: used, .. } = *header;
    let info = SegmentInfo { index, bytes: used, base, end, used, reusable: false };
    let mut walk = SegmentWalk::new(info).map_err(|error| error.to_string())?;
    let mut tips = Vec::new();
    loop {
        match walk.step().map_err(|error| error.to_string())? {
            ReadStep::Batch(batch) => tips.push(Tip::of(batch.end())),
            ReadStep::Wait(Some(request)) => {
                let at = usize::try_from(request.offset).unwrap_or(usize::MAX).min(bytes.len());
                walk.feed(bytes.slice(at..(at + request.len).min(bytes.len())));
            }
            ReadStep::Wait(None) => return Err("it waits for nothing".to_owned()),
            ReadStep::End => return Ok(tips),
        }
    }
}

impl World {
    pub(super) fn spool_effect(&mut self, n: usize, effect: SpoolEffect) {
        let us = self.disk_latency(n) * 2;
        match effect {
            SpoolEffect::Open { round, .. } => self.node_after(us, n, Ev::Spool(Done::Opened(round))),
            SpoolEffect::Copy { round, part } if self.is_on_reels() => {
                self.node_after(us, n, Ev::Spool(Done::Wrote(round, true, part)));
            }
            SpoolEffect::Move { round, part } => {
                self.node_after(us, n, Ev::Spool(Done::Wrote(round, false, part)));
            }
            SpoolEffect::Copy { round, part } => {
                if self.nodes[n].spool.copying.replace(part).is_some() {
                    self.check.fail("driver", format!("node {n} copies two segments to its spool at once"));
                }
                let lies = self.mutate(Mutation::SpoolLie);
                if lies {
                    self.nodes[n].spool.copying = None;
                    return self.node_after(us, n, Ev::Spool(Done::Copied(round, part)));
                }
                self.node_after(us * 2, n, Ev::Spool(Done::Copied(round, part)));
            }
            SpoolEffect::Read { read, part } => self.node_after(us, n, Ev::Spool(Done::Read(read, part))),
            // Nobody chooses another one here.
            SpoolEffect::Keep { .. } => {}
            SpoolEffect::Remove { part, reel } => self.unspool(n, &part, reel),
        }
    }

    /// A node lets go of a part: nobody may need it (I-36), or it is on a reel by the drive's word (I-38).
    fn unspool(&mut self, n: usize, header: &PartHeader, reel: bool) {
        let (name, spool) = (header.file_name(), &mut self.nodes[n].spool);
        if spool.away && !reel {
            return;
        }
        let gone = if reel { spool.reels.let_go(name.clone()) } else { spool.parts.remove(&name) };
        let Some(part) = gone else { return };
        let elsewhere = if reel { false } else { spool.reels.get(&name).is_some() };
        // I-36, and of a part that should be on a reel I-38.
        let behind = self.options.spool.is_some_and(|spool| spool.tape == SpoolTape::Behind);
        let rule = if behind && !reel { "I-38" } else { "I-36" };
        if !self.check.nodes[1 - n].dropped && !elsewhere {
            self.check.on_unspool(rule, n, &part.tips);
        }
        let oldest = self.nodes[n].spool.oldest_save;
        if self.keeps_for_saves() && !elsewhere && oldest.is_none_or(|save| header.end.seq > save) {
            let text = format!(
                "node {n} lets go of entries up to {}, and a save ends with {oldest:?}",
                header.end.seq
            );
            self.check.fail("I-36", text);
        }
        self.trace.sometimes("the spool let go of what the peer had");
        if !reel {
            self.nodes[n].spool.removed = Some(part);
        }
    }

    fn keeps_for_saves(&self) -> bool {
        self.options.spool.is_some_and(|spool| spool.keep == SpoolKeep::OldestSave)
    }

    /// Somebody removes older saves now and then: the oldest that is left ends with a part that is on the spool.
    fn saves_move(&mut self, n: usize, end: Seq) {
        if !self.keeps_for_saves() {
            return;
        }
        let spool = &mut self.nodes[n].spool;
        if Prng::new(self.options.seed ^ (end.0 << 8)).percent(40)
            && spool.oldest_save.is_none_or(|save| save < end)
        {
            spool.oldest_save = Some(end);
        }
        let Some(oldest) = self.nodes[n].spool.oldest_save else { return };
        let told = if self.mutate(Mutation::ForgetSave) { Seq(u64::MAX >> 1) } else { oldest };
        self.input(n, SpoolEvent::Saves { oldest: Some(told) });
    }

    /// Something that was asked of a spool ends.
    pub(super) fn spool_done(&mut self, n: usize, done: Done) {
        let away = self.nodes[n].spool.away;
        let gone = Fault::Errno(2);
        match done {
            Done::Opened(round) => {
                let spool = &self.nodes[n].spool;
                let parts = spool.parts.values().map(|part| part.header).collect();
                let reels = spool.reels.listed();
                let found = SpoolFound { parts, reels, free: 1 << 40, damaged: Vec::new() };
                let result = if away { Err(gone) } else { Ok(found) };
                if self.nodes[n].spool.parts.is_empty() {
                    self.note(n, "spool-opened", 0, u64::from(away));
                } else {
                    self.trace.sometimes("a node came back to what was on its spool");
                }
                self.nodes[n].spool.stuck = result.as_ref().err().copied();
                self.input(n, SpoolEvent::Opened { round, result });
            }
            Done::Copied(round, header) => {
                let result = self.copied_to_disk(n, header);
                self.note(n, "spool-copied", header.index.0, u64::from(result.is_ok()));
                let result = result.map(|()| 1 << 40);
                if result != Err(Fault::STALE) {
                    self.nodes[n].spool.stuck = result.err();
                }
                let copied = result.is_ok();
                self.input(n, SpoolEvent::Copied { round, result });
                if copied {
                    self.saves_move(n, header.end.seq);
                }
            }
            Done::Wrote(round, copied, header) => self.reel_wrote(n, round, copied, header),
            Done::Flushed => self.reel_flushed(n),
            Done::Read(read, header) if self.nodes[n].spool.part(&header.file_name()).is_none() => {
                self.reel_read(n, read, header);
            }
            Done::Read(ReadSegment { read, offset, len, .. }, header) => {
                let part = self.nodes[n].spool.parts.get(&header.file_name());
                let bytes = part.map(|part| {
                    let at = usize::try_from(offset).unwrap_or(usize::MAX).min(part.bytes.len());
                    part.bytes.slice(at..(at + len).min(part.bytes.len()))
                });
                let fails = away || self.nodes[n].ills.read_until > self.trace.now;
                let result = bytes.filter(|_| !fails).ok_or(gone);
                if result.is_ok() {
                    self.trace.sometimes("catch-up from the spool");
                }
                self.note(n, "spool-read", read, u64::from(result.is_ok()));
                self.input(n, JournalEvent::Read { read, result });
            }
        }
    }

    /// The copy of a segment is durable, or why not.
    fn copied_to_disk(&mut self, n: usize, header: PartHeader) -> Result<(), Fault> {
        if self.nodes[n].spool.copying.take().is_none() {
            // The lie: it is told, and nothing is there.
            return Ok(());
        }
        if self.nodes[n].spool.away {
            return Err(Fault::Errno(2));
        }
        if self.nodes[n].spool.full {
            self.trace.sometimes("a spool was full");
            return Err(Fault::NoSpace);
        }
        if self.nodes[n].ills.read_until > self.trace.now {
            return Err(Fault::Errno(5));
        }
        let len = usize::try_from(header.bytes).unwrap_or(usize::MAX);
        let Some(bytes) = self.nodes[n].disk.read(JournalKind::Replicated, header.index, 0, len) else {
            return Err(Fault::STALE);
        };
        let part = self.part_of(n, header, bytes)?;
        self.nodes[n].spool.parts.insert(header.file_name(), part);
        self.trace.sometimes("a segment went to the spool");
        Ok(())
    }

    /// The part that a segment becomes: of this node's history, every batch whole.
    pub(super) fn part_of(&mut self, n: usize, header: PartHeader, bytes: Bytes) -> Result<Part, Fault> {
        match tips_of(&header, &bytes) {
            Ok(tips) => {
                let path = &self.check.nodes[n].journals[0].path;
                if let Some(tip) = tips.iter().find(|tip| !path.iter().any(|other| other.chain == tip.chain))
                {
                    let text =
                        format!("node {n} copies entry {} to its spool, which is not its history", tip.seq);
                    self.check.fail("I-36", text);
                }
                Ok(Part { header, bytes, tips })
            }
            Err(error) => {
                let text =
                    format!("node {n} copies segment {} to its spool, which is bad: {error}", header.index);
                self.check.fail("I-40", text);
                Err(Fault::UNCLEAN)
            }
        }
    }

    /// Up to so much in the journal nobody loses a claim, and how much it has at most (bytes).
    pub(super) fn journal_bounds(&self, n: usize) -> (u64, u64) {
        let (quota, endless) = (self.config(n).quota_bytes, u64::MAX / 2);
        // What did not count is tried again after a while, and until then the node takes reels for stuck.
        let failed_at = self.nodes[n].spool.reels.failed_at;
        let reels = failed_at > 0 && self.trace.now.saturating_sub(failed_at) < 30_000_000;
        let away = self.nodes[n].spool.stuck.is_some_and(|fault| fault != Fault::NoSpace);
        match self.options.spool {
            None => (quota, quota),
            // Where reels take nothing, the directory may be full; else what is in it goes on to them.
            Some(SpoolOptions {
                full: SpoolFull::DropPeer,
                tape: SpoolTape::Behind | SpoolTape::Only,
                ..
            }) => (if reels || away { quota } else { endless }, endless),
            Some(SpoolOptions { full: SpoolFull::DropPeer, .. }) => match self.nodes[n].spool.stuck {
                Some(Fault::NoSpace) => (quota, quota),
                // It is tried again for a while.
                Some(_) => (quota, endless),
                None => (endless, endless),
            },
            Some(_) => (endless, endless),
        }
    }
}
