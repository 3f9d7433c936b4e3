//! The primary's side of a copy: it answers what the peer wants, range by range, from states between two batches.

use super::Parting;
use crate::base::limits::WANTS_MAX;
use crate::base::{Fault, Seq};
use crate::engine::config::FullSync;
use crate::engine::core::Core;
use crate::engine::effect::{CopyEffect, Severity};
use crate::engine::event::CopyEvent;
use crate::engine::link::Link;
use crate::engine::sender::{Outbound, OutboundPhase};
use crate::format::chunk::{Chunk, Content, CopyBegin, Definitions, Want};
use crate::format::frame::{FEATURE_COPY, FEATURE_LOST, FrameKind};
use crate::store::StoreRead;
use crate::store::volumes::{BadPlace, Wrong};
use std::collections::VecDeque;

/// The definitions are read again so often if the journal has forgotten where it stood at their position: it remembers some
/// thousand batches.
pub(super) const READS_MAX: u32 = 8;

/// What a peer that is streamed to wants, and how far that is.
#[derive(Debug, Default)]
pub(in crate::engine) struct Giving {
    wants: VecDeque<Want>,
    /// Nothing beyond this entry is sent before the next chunk.
    hold: Option<Seq>,
    /// The read of the first want.
    reading: Option<u64>,
    /// Read, and not sent yet.
    ready: Option<Chunk>,
    /// The stream began behind this entry.
    origin: Seq,
    /// Content sent (bytes).
    sent: u64,
    /// About how much there was when the copy began; 0 if that was on an earlier connection.
    pub(super) size: u64,
}

impl Giving {
    /// To a peer that has the history up to `origin`.
    pub(in crate::engine) fn behind(origin: Seq) -> Self {
        Self { origin, ..Self::default() }
    }

    /// Whether the batch behind entry `sent` may go.
    pub(in crate::engine) fn lets_go_on(&self, sent: Seq) -> bool {
        self.hold.is_none_or(|hold| sent < hold)
    }

    /// The chunk that is to be sent before any other batch, once everything up to entry `sent` is.
    fn due(&mut self, sent: Seq) -> Option<Chunk> {
        let chunk = self.ready.take_if(|chunk| chunk.at == sent)?;
        self.sent += chunk.content.bytes();
        if self.wants.is_empty() {
            self.hold = None;
        }
        Some(chunk)
    }

    /// The want that can be read now, if everything up to `shown` is in the store and everything up to `sent` was sent.
    fn next(&mut self, shown: Seq, sent: Seq) -> Option<&Want> {
        let want = self.wants.front()?;
        let hold = *self.hold.get_or_insert(sent);
        let free = self.reading.is_none() && self.ready.is_none() && shown >= hold;
        free.then_some(want)
    }
}

impl<S: StoreRead> Core<S> {
    /// The peer's history cannot be joined to this one. It is given a copy if it may be, and told why if not.
    pub(in crate::engine) fn give_copy(&mut self, why: &str, safe: bool, parting: Option<Parting>) {
        let takes = self.peer.features() & FEATURE_COPY != 0;
        let asked = self.config.full_sync == FullSync::Ask && !std::mem::take(&mut self.resync.asked);
        let lacking = match (takes, safe, asked) {
            (false, ..) => "its program is older and takes no copy; install this version there",
            (_, false, _) => {
                "a copy would drop entries that only the peer has; set it up anew if they may go"
            }
            (.., true) => "full_sync is \"ask\": say `hot-backup resync` here",
            _ => return self.begin_giving(READS_MAX, parting),
        };
        let text = format!("the peer cannot follow: {why}; it needs a full copy, and {lacking}");
        self.incident_once(Severity::Critical, "needs-full-sync", text);
        self.part_from_peer(why);
    }

    pub(super) fn begin_giving(&mut self, reads_left: u32, parting: Option<Parting>) {
        let read = self.fresh_id();
        let Some(outbound) = &mut self.link.outbound else { return };
        outbound.phase = OutboundPhase::Defining { read, reads_left, parting };
        self.effect(CopyEffect::Definitions { read });
    }

    pub(in crate::engine) fn copy_event(&mut self, event: CopyEvent) {
        match event {
            CopyEvent::Definitions { read, result, size } => self.defined(read, result, size),
            CopyEvent::Range { read, result } => self.range_read(read, result),
        }
    }

    /// The definitions that a copy begins with were read.
    fn defined(&mut self, read: u64, result: Result<(Seq, Definitions), Fault>, size: u64) {
        let Some(Outbound { phase: OutboundPhase::Defining { read: wanted, reads_left, parting }, .. }) =
            self.link.outbound
        else {
            return;
        };
        if read != wanted {
            return;
        }
        let (at, namespace) = match result {
            Ok(found) => found,
            Err(fault) => return self.cannot_give(&format!("reading the definitions: {fault}")),
        };
        let Some(origin) = self.replicated().end_at(at) else {
            return match reads_left.checked_sub(1) {
                Some(left) => self.begin_giving(left, parting),
                None => self.cannot_give(&format!("the journal knows no more how it stood at entry {at}")),
            };
        };
        let mut table = self.control.table().to_vec();
        table.retain(|mark| mark.first_seq <= origin.seq);
        // How much a list of ranges holds is not known.
        let size = if parting.is_some() { 0 } else { size };
        let begin = CopyBegin { origin, size, table, namespace };
        match parting {
            Some(parting) => self.gather(parting, begin),
            None => self.send_begin(&begin, None),
        }
    }

    pub(super) fn cannot_give(&mut self, why: &str) {
        let text = format!("the peer needs a full copy, which cannot be given: {why}; it is tried again");
        self.incident_once(Severity::Critical, "needs-full-sync", text.clone());
        self.end_outbound(true, &text);
    }

    /// The peer wants a range.
    pub(in crate::engine) fn wanted(&mut self, want: Want) {
        let Some((_, stream)) = self.link.stream() else { return };
        if stream.giving.wants.len() >= WANTS_MAX {
            return self.outbound_fault("it wants more ranges at once than it may");
        }
        stream.giving.wants.push_back(want);
        self.dirty = true;
    }

    /// Reads what is wanted next, and sends what was read as soon as everything before it is sent; whether it sent
    /// something.
    pub(in crate::engine) fn pump_giving(&mut self) -> bool {
        let (shown, head, now) = (self.appliers.replicated().visible(), self.head(), self.now);
        let changes = [0, 1].map(|kind| self.journals[kind].pace().appended);
        let read = self.next_id + 1;
        let Some((session, stream)) = self.link.stream() else { return false };
        let sent = stream.sent_up_to();
        let due = stream.giving.due(sent);
        let sends = due.is_some();
        if let Some(chunk) = due {
            // Whatever the peer wants: what is not replicated is this node's alone.
            let own = self.namespace.file(chunk.file).is_none_or(|info| !info.replicated);
            let chunk = if own { Chunk { content: Content::Gone, ends: true, ..chunk } } else { chunk };
            let payload = chunk.encode();
            stream.sends(payload.len());
            self.resync.pace.ends(now.mono, chunk.content.bytes(), changes, self.config.copy_rate);
            self.resync.meter.look(now.mono, stream.giving.sent);
            session.send(now, FrameKind::Chunk, head, payload.into());
        }
        if self.resync.pace.may_begin()
            && let Some(want) = stream.giving.next(shown, sent).cloned()
        {
            stream.giving.reading = Some(read);
            self.resync.pace.begins(now.mono);
            self.next_id = read;
            self.effect(CopyEffect::Range { read, want });
        }
        sends
    }

    fn range_read(&mut self, read: u64, result: Result<Chunk, Fault>) {
        let durable = self.replicated().pace().durable;
        if let Ok(Chunk { file, content, .. }) = &result
            && let (true, Content::Blocks { offset, len, .. }) = (content.is_lost(), content)
        {
            let (file, offset, len, wrong) = (*file, *offset, *len, Wrong::Content);
            self.volumes_wrong(&[BadPlace { file, offset, len, wrong }]);
            if self.peer.features() & FEATURE_LOST == 0 {
                let why =
                    format!("bytes {offset} of volume {file} on are rotten here; install this version there");
                return self.cannot_give(&why);
            }
        }
        let Some((_, stream)) = self.link.stream() else { return };
        let giving = &mut stream.giving;
        if giving.reading.take_if(|reading| *reading == read).is_none() {
            return;
        }
        self.dirty = true;
        match result {
            Ok(chunk) => {
                giving.wants.pop_front();
                giving.hold = Some(chunk.at);
                // Blocks may be newer than the store says, but not than what it could be given.
                let newest = if matches!(chunk.content, Content::Blocks { .. }) { durable } else { chunk.at };
                giving.ready = Some(Chunk { until: chunk.until.max(newest), ..chunk });
            }
            Err(fault) => self.cannot_give(&format!("reading what is wanted: {fault}")),
        }
    }
}

impl Link {
    /// Where a copy began that the peer is given in the present stream, how much of it was given, and how much there was
    /// (bytes).
    pub(super) fn given_copy(&self) -> Option<(Seq, u64, u64)> {
        match &self.outbound.as_ref()?.phase {
            OutboundPhase::Streaming(stream) if stream.giving.sent > 0 => {
                Some((stream.giving.origin, stream.giving.sent, stream.giving.size))
            }
            _ => None,
        }
    }
}
