//! A rewind: a copy that brings a node back which holds entries that are no part of the pair's history. Only what either node
//! touched since the histories parted is copied; all else is equal on both, and stays.
//!
//! ```text
//!   primary                                          holds entries of its own after 80
//!     | Rewind: parted after 80; I touched these ranges   |   are mine saved? (if not: first that, then it is called again)
//!     | CopyBegin: definitions at entry 100               |   what I touched is known since the save; the store keeps the
//!     |-------------------------------------------------->|   list and all that it shows; control file: incomplete
//!     |    from here on as in any copy, of the ranges of the list alone
//! ```
//!
//! Why what stays is right: both had it at the common point, no entry of the primary changed it up to the copy's origin, and
//! none of this node's own did. What no entry of the replicated journal tells makes a file count as a whole
//! ([`Namespace::apart`](crate::store::namespace::Namespace::apart)).
//!
//! - Invariant: this node's own entries after the common point are saved durably before anything of them is undone (I-24).
//! - Invariant: the list is in the store, with all that the node shows, before the control file says that it is incomplete: so
//!   whoever dies at whichever step, the rewind goes on. Without the list everything from the cursor on is copied, which is
//!   right as well.

use super::giver::READS_MAX;
use super::taker::Leaving;
use crate::base::limits::{DIVERGED_BASE_MAX, REWIND_RECORD_MAX};
use crate::base::{Epoch, Fault, Position, Seq};
use crate::engine::admin::DoneView;
use crate::engine::config::{FullSync, OnDiverged};
use crate::engine::core::Core;
use crate::engine::effect::{FileEffect, Severity};
use crate::engine::incidents::Matter;
use crate::engine::link::Link;
use crate::engine::read_back::ReadFor;
use crate::engine::receiver::Phase;
use crate::engine::roles::Stage;
use crate::engine::sender::{Outbound, OutboundPhase, Stream};
use crate::format::batch::Batch;
use crate::format::chunk::{Chunk, Content, CopyBegin, Next};
use crate::format::control::Role;
use crate::format::frame::{FEATURE_ALL_CONTENT, FEATURE_DIGESTS, FEATURE_PARTIAL, FrameKind, RefuseCode};
use crate::format::rewind::{Prepared, Ranges, Rewind};
use crate::journal::{JournalReader, ReadStep};
use crate::pair::{base_line, changed_line};
use crate::store::StoreRead;

/// Where the histories of the two nodes parted.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Parting {
    common: Position,
    /// This journal does not reach back to there.
    everything: bool,
}

/// What the primary has in the place of what a node leaves. It is written beside that when the rewind is done.
#[derive(Debug)]
pub(in crate::engine) struct Base {
    /// What the primary changed since the histories parted.
    changed: Rewind,
    lines: Vec<u8>,
}

impl Base {
    pub(super) fn note_batch(&mut self, batch: &Batch) {
        if let Some(ranges) = &mut self.changed.ranges {
            batch.entries().for_each(|(_, entry)| ranges.note(&entry));
        }
    }

    /// A chunk answers a want that ends there. Of files that are copied whole nothing is noted.
    pub(super) fn note_chunk(&mut self, chunk: &Chunk, end: Option<Next>) {
        let (Content::Items { items, .. }, Some(Next::Items(_, through))) = (&chunk.content, end) else {
            return;
        };
        if self.lines.len() > DIVERGED_BASE_MAX {
            return;
        }
        for (id, value) in items {
            self.lines.extend_from_slice(&base_line(chunk.file, id, Some(value)));
        }
        // Most ranges are of one item, which is their last one.
        if (chunk.ends || matches!(&chunk.content, Content::Items { through: told, .. } if *told == through))
            && items.last().is_none_or(|(id, _)| *id < through)
        {
            self.lines.extend_from_slice(&base_line(chunk.file, &through, None));
        }
    }
}

/// What a copy begins with, until it is known what this node touched.
#[derive(Debug)]
pub(in crate::engine) struct Gathering {
    pub(in crate::engine) reader: JournalReader,
    common: Position,
    begin: CopyBegin,
    touched: Ranges,
}

impl Link {
    pub(in crate::engine) fn gathering(&mut self) -> Option<&mut Gathering> {
        match &mut self.outbound {
            Some(Outbound { phase: OutboundPhase::Gathering(gathering), .. }) => Some(gathering),
            _ => None,
        }
    }
}

/// The primary's side.
impl<S: StoreRead> Core<S> {
    /// The peer holds entries that are no part of this history.
    pub(in crate::engine) fn rewind_peer(&mut self, common: Option<Position>) {
        // What a part of a copy has in common with anything says nothing of content.
        let whole = !self.peer.record().partial;
        let reaches = |common: &Position| whole && common.seq.next() >= self.replicated().oldest();
        match common.filter(reaches) {
            Some(common) => self.begin_giving(READS_MAX, Some(Parting { common, everything: false })),
            None => self.rewind_with_all(common.unwrap_or_default()),
        }
    }

    /// Everything has to be copied.
    fn rewind_with_all(&mut self, common: Position) {
        if self.config.full_sync == FullSync::Ask {
            let why = format!("the journal here does not reach back to entry {}", common.seq.next());
            return self.give_copy(&why, true, Some(Parting { common, everything: true }));
        }
        self.begin_giving(READS_MAX, Some(Parting { common, everything: true }));
    }

    /// The definitions are known: now what was touched up to there.
    pub(super) fn gather(&mut self, parting: Parting, begin: CopyBegin) {
        let Parting { common, everything } = parting;
        if everything || begin.origin.seq <= common.seq {
            let nothing = !everything && begin.origin == common;
            let ranges = nothing.then(Ranges::default);
            return self.send_rewind(Rewind { common, ranges }, &begin);
        }
        let reader = JournalReader::after(common.seq);
        let gathering = Gathering { reader, common, begin, touched: Ranges::default() };
        if let Some(outbound) = &mut self.link.outbound {
            outbound.phase = OutboundPhase::Gathering(Box::new(gathering));
        }
        self.dirty = true;
    }

    fn send_rewind(&mut self, rewind: Rewind, begin: &CopyBegin) {
        let (head, now) = (self.head(), self.now);
        let Some(outbound) = &mut self.link.outbound else { return };
        outbound.session.admit();
        outbound.session.send(now, FrameKind::Rewind, head, rewind.encode().into());
        self.send_begin(begin, Some(&rewind));
    }

    /// Reads the journal on, up to where the copy begins.
    pub(in crate::engine) fn pump_gathering(&mut self) {
        while let Some(gathering) = self.link.gathering() {
            let (common, origin) = (gathering.common, gathering.begin.origin.seq);
            match self.read_on(ReadFor::Rewind) {
                Ok(ReadStep::Batch(batch)) => {
                    let Some(gathering) = self.link.gathering() else { return };
                    let header = batch.header();
                    if header.first_seq == common.seq.next() && header.prev_chain != common.chain {
                        let text = format!("the peer's history differs at entry {}", common.seq);
                        self.incident_once(Severity::Critical, Matter::HistoryDiffers, text);
                        return self.rewind_with_all(Position::default());
                    }
                    let mine = batch.entries().filter(|(seq, _)| *seq > common.seq);
                    mine.for_each(|(_, entry)| gathering.touched.note(&entry));
                    if header.last_seq() >= origin {
                        return self.gathered();
                    }
                }
                Ok(ReadStep::Wait(_)) => return,
                Ok(ReadStep::End) | Err(_) => return self.rewind_with_all(common),
            }
        }
    }

    fn gathered(&mut self) {
        let Some(gathering) = self.link.gathering() else { return };
        let (common, touched) = (gathering.common, std::mem::take(&mut gathering.touched));
        let begin = std::mem::take(&mut gathering.begin);
        self.send_rewind(Rewind { common, ranges: touched.bounded() }, &begin);
    }

    /// Bytes for [`Self::pump_gathering`] could not be read.
    pub(in crate::engine) fn rewind_unread(&mut self, fault: Fault) {
        let text = format!("reading the journal for the peer: {fault}");
        self.incident_once(Severity::Critical, Matter::CatchUpFailed, text.clone());
        self.end_outbound(true, &text);
    }

    /// Sends what a copy begins with; the stream follows.
    pub(super) fn send_begin(&mut self, begin: &CopyBegin, rewind: Option<&Rewind>) {
        let origin = begin.origin;
        let payload = match begin.encode() {
            Ok(payload) => payload,
            Err(error) => return self.cannot_give(&error.to_string()),
        };
        let (head, now) = (self.head(), self.now);
        let Some(outbound) = &mut self.link.outbound else { return };
        outbound.session.admit();
        outbound.session.send(now, FrameKind::CopyBegin, head, payload.into());
        let mut stream = Stream::behind(origin);
        stream.giving.size = begin.size;
        outbound.phase = OutboundPhase::Streaming(Box::new(stream));
        let kept = match rewind {
            Some(Rewind { common, ranges: Some(_) }) => common.seq.min(origin.seq),
            _ => origin.seq,
        };
        self.peer.copy_begins(now.mono, origin, kept);
        self.dirty = true;
        self.settled(&[Matter::NeedsFullSync]);
        let (name, at) = (self.peer.name(), origin.seq);
        match rewind {
            Some(Rewind { common, ranges: Some(ranges) }) => {
                let (files, ranges) = ranges.len();
                let text = format!(
                    "the peer {name} is rewound from entry {} on: of what changed here up to entry {at}, it needs {ranges} \
                     ranges in {files} files, and what changed there",
                    common.seq
                );
                self.incident(Severity::Notice, Matter::Rewinding, text);
            }
            _ => {
                let text = format!(
                    "the peer {name} is given a copy of everything that is replicated, from entry {at} on"
                );
                self.incident(Severity::Notice, Matter::Copying, text);
            }
        }
    }
}

/// The side of the node that is rewound.
impl<S: StoreRead> Core<S> {
    /// Whether this node leaves entries that only it has, once they are saved.
    pub(in crate::engine) fn may_be_rewound(&self) -> bool {
        self.config.on_diverged == OnDiverged::Rewind || self.resync.asked
    }

    /// The primary offers a copy in place of what this node has; of all of it, or of what was touched since they parted.
    pub(in crate::engine) fn copy_offered(
        &mut self,
        begin: Box<CopyBegin>,
        epoch: Epoch,
        rewind: Option<Box<Rewind>>,
    ) {
        if let Err(error) = self.namespace.clone().adopt(&begin.namespace, None) {
            return self.inbound_fault(&format!("the definitions that a copy begins with: {error}"));
        }
        let end = self.replicated().sealed().seq;
        let mut base = None;
        let ranges = match rewind {
            Some(rewind) => {
                let common = rewind.common;
                if self.replicated().end_at(common.seq).is_some_and(|known| known != common) {
                    let text = format!("the primary takes another entry {} for a common one", common.seq);
                    self.incident_once(Severity::Critical, Matter::HistoryDiffers, text.clone());
                    return self.refuse_inbound(RefuseCode::History, text);
                }
                if end > common.seq && !self.roles.has_saved(common.seq) {
                    return self.save_before_rewind(common, epoch);
                }
                base =
                    rewind.ranges.is_some().then(|| Base { changed: (*rewind).clone(), lines: Vec::new() });
                rewind.ranges.and_then(|theirs| self.wanted_in(theirs, &begin, end > common.seq))
            }
            None if self.roles.stage() == Stage::Diverged => {
                return self.inbound_fault("a copy is offered, and not told where the histories parted");
            }
            None => {
                let applied = self.appliers.replicated().applied();
                if !self.is_incomplete() && applied > begin.origin.seq {
                    let text = format!(
                        "the primary offers a copy that begins at entry {}, and entry {applied} is applied here",
                        begin.origin.seq
                    );
                    self.incident_once(Severity::Critical, Matter::HistoryDiffers, text.clone());
                    return self.refuse_inbound(RefuseCode::History, text);
                }
                None
            }
        };
        // What the primary has in the place of what is left is known where a list of ranges is copied.
        let base = base.filter(|_| ranges.is_some());
        let ranges = ranges.or_else(|| self.compared_with(&begin));
        let Some(inbound) = &mut self.link.inbound else { return };
        inbound.phase = Phase::Leaving;
        self.resync.leaving = Some(Leaving::of(begin, epoch, ranges, base));
        self.dirty = true;
    }

    /// All that a rewind has to bring; none if that is everything.
    fn wanted_in(&self, theirs: Ranges, begin: &CopyBegin, has_own: bool) -> Option<Box<Ranges>> {
        if self.peer.record().partial {
            return None;
        }
        let mut all = theirs;
        if has_own {
            all.add(self.roles.touched()?);
        }
        let apart = self.namespace.apart(&begin.namespace).ok()?;
        apart.into_iter().for_each(|file| all.whole(file));
        Self::kept(begin, all)
    }

    /// Everything, of which what this node holds is compared by digests first; none if it holds nothing that could be equal, the
    /// primary's program is older, or its operator wants all content to come.
    fn compared_with(&self, begin: &CopyBegin) -> Option<Box<Ranges>> {
        if self.peer.features() & (FEATURE_DIGESTS | FEATURE_ALL_CONTENT) != FEATURE_DIGESTS {
            return None;
        }
        let common = self.namespace.common(&begin.namespace).ok()?;
        let mut all = Ranges::default();
        for (file, held) in common {
            if held { all.compare(file) } else { all.whole(file) }
        }
        if all.compares() { Self::kept(begin, all) } else { None }
    }

    /// The list, if a store can keep it.
    fn kept(begin: &CopyBegin, ranges: Ranges) -> Option<Box<Ranges>> {
        let prepared = Prepared { begin: begin.clone(), ranges: ranges.bounded()? };
        let fits = prepared.encode().is_ok_and(|record| record.len() <= REWIND_RECORD_MAX);
        fits.then(|| Box::new(prepared.ranges))
    }

    /// A rewind is done: what the primary has in the place of what this node left stands beside that from now on.
    pub(super) fn keep_base(&mut self, base: Option<Base>) {
        let Some(Base { changed, mut lines }) = base else { return };
        let Some(file) = self.roles.diverged_files().last() else { return };
        let file = file.replace(".jsonl", ".base");
        let Some(ranges) = changed.ranges.and_then(Ranges::bounded) else { return };
        lines.extend_from_slice(&changed_line(&Rewind { ranges: Some(ranges), ..changed }));
        let save = self.fresh_id();
        self.effect(FileEffect::SaveDiverged { save, file, first: true, bytes: lines.into() });
    }

    /// What is told when a node has left its history for a copy from `origin` on.
    pub(super) fn tell_left(&mut self, origin: Seq, left: Seq, ranges: Option<&Ranges>) {
        match ranges {
            Some(ranges) if ranges.compares() => {
                let text = format!(
                    "this node holds an old copy, and compares it with what the primary has by digests, from entry {origin} on; \
                     content comes where they differ, and until all is whole it can take nothing over"
                );
                self.incident(Severity::Notice, Matter::Copying, text);
            }
            Some(ranges) => {
                let (files, ranges) = ranges.len();
                let text = format!(
                    "this node is rewound: it leaves its own history, which ended at entry {left}, for that of the primary \
                     at entry {origin}; {ranges} ranges in {files} files are copied, and until then it can take nothing over"
                );
                self.incident(Severity::Notice, Matter::Rewinding, text);
            }
            None => {
                let text = format!(
                    "this node is given a copy of everything that is replicated, from entry {origin} on; until that is \
                     whole it can take nothing over"
                );
                self.incident(Severity::Notice, Matter::Copying, text);
            }
        }
    }

    /// What is told when it is whole.
    pub(super) fn tell_whole(&mut self, rewound: bool) {
        let (matter, what) = match rewound {
            true => (Matter::Rewound, "the rewind is done"),
            false => (Matter::Whole, "the copy is whole"),
        };
        let text = format!("{what}: this node is a standby that can take over");
        self.incident(Severity::Notice, matter, text);
    }

    /// Whether this node keeps what it has from a peer that took over with a part of a copy.
    fn is_spared(&self) -> bool {
        let partial = self.peer.features() & FEATURE_PARTIAL != 0;
        let role = self.control.role();
        (self.peer.record().spared || partial) && matches!(role, Role::Standby | Role::Diverged)
    }

    /// `resync`: the peer may be given a copy, or this node, which has diverged, may be rewound.
    pub(in crate::engine) fn resync(
        &mut self,
        token: u64,
        rate: Option<u64>,
        full: bool,
        accept_incomplete: bool,
    ) {
        let diverged = self.control.role() == Role::Diverged;
        if accept_incomplete && !self.is_spared() {
            let message = "this node keeps nothing from a primary that took over with a part of a copy";
            return self.reply_no(
                token,
                message,
                "say it on the node that is whole; see `hot-backup status`",
            );
        }
        self.resync.takes_partial |= accept_incomplete;
        let diverged = diverged || accept_incomplete;
        if !self.serving() && !diverged {
            let message = format!("this node does not serve as primary (it is {})", self.roles.word());
            return self.reply_no(
                token,
                message,
                "say it on the primary: that is the node whose content is copied",
            );
        }
        self.resync.asked = true;
        self.resync.all_content = full;
        self.resync.pace.set_rate(rate);
        self.link.dial_now(self.now.mono);
        self.dirty = true;
        self.reply_value(token, DoneView { done: true });
    }
}

#[cfg(test)]
#[path = "rewind_tests.rs"]
mod tests;
