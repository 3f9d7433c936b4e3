//! What an engine asks for, carried out on the simulated disk, store and wire.

use super::checker::Items;
use super::disk::{Death, random_fate};
use super::options::Mutation;
use super::world::{Ev, Given, SEGMENT_BYTES, World};
use crate::base::{AckLevel, Fault, FileId, JournalKind, Round, SegmentIndex, Seq};
use crate::engine::{
    Allocation, ClientEffect, CompareEffect, CopyEffect, Effect, FileEffect, FileEvent, Incident,
    JournalEffect, JournalEvent, LinkEffect, PrepareSegment, ReadSegment, RemoveSegment, ScrubEffect,
    SpoolEffect, StoreEffect, StoreEvent, VolumeEffect, VolumeEvent,
};
use crate::format::batch::{Batch, BatchBuilder, Seal};
use crate::format::control::Control;
use crate::store::StoreWrite;
use bytes::Bytes;

/// No disk operation takes longer (microseconds).
const HANG_MAX: u64 = 600_000;
/// For so long after a node was told that there is no room it may act on that (microseconds).
const NO_ROOM_COUNTS: u64 = 2_000_000;

impl World {
    /// Carries out one effect.
    pub(super) fn effect(&mut self, n: usize, effect: Effect) {
        self.note_effect(n, &effect);
        match effect {
            Effect::Journal(effect) => self.journal_effect(n, effect),
            Effect::Spool(effect) => self.spool_effect(n, effect),
            Effect::Store(StoreEffect::Apply { journal, round, batch }) => {
                self.apply(n, (journal, round), batch)
            }
            Effect::Store(StoreEffect::Checkpoint) => {
                if self.nodes[n].checkpointing {
                    self.check.fail("driver", format!("node {n} asks for two checkpoints at once"));
                }
                self.nodes[n].checkpointing = true;
                let us = self.disk_latency(n);
                self.node_after(us, n, Ev::CheckpointBegins);
            }
            Effect::Store(StoreEffect::BeginCopy { begin, ranges }) => {
                self.give(n, Round(0), Given::Begin(begin, ranges));
            }
            Effect::Store(StoreEffect::PrepareRewind { prepared }) => {
                self.give(n, Round(0), Given::Prepare(prepared));
            }
            Effect::Store(StoreEffect::TakeChunk { round, chunk, progress }) => {
                self.give(n, round, Given::Chunk(chunk, progress));
            }
            Effect::Copy(effect) => {
                let us = self.disk_latency(n);
                self.node_after(us, n, Ev::Copy(effect));
            }
            Effect::Compare(effect) => self.compare_effect(n, effect),
            Effect::Store(StoreEffect::FindRot) => self.find_rot(n),
            Effect::Store(StoreEffect::Fetch { fetch, file, generation, part }) => {
                let us = if self.streams.disk.percent(50) { 0 } else { self.disk_latency(n) };
                self.node_after(us, n, Ev::Fetched(fetch, file, generation, part));
            }
            Effect::Volume(effect) => self.volume_effect(n, effect),
            Effect::Scrub(effect) => self.scrub_effect(n, effect),
            Effect::File(FileEffect::WriteControl { write, bytes }) => self.write_control(n, write, bytes),
            Effect::File(FileEffect::SaveDiverged { save, file, first, bytes }) => {
                self.nodes[n].disk.save_diverged(file, first, bytes);
                let us = self.disk_latency(n);
                self.node_after(us, n, Ev::Diverged(save));
            }
            Effect::Link(effect) => self.link_effect(n, effect),
            Effect::Client(effect) => self.client_effect(n, effect),
            Effect::Admin { token, reply } => self.admin_answer(n, token, reply),
            Effect::Save { answer, .. } => self.save_answer(n, answer),
            Effect::Incident(incident) => self.incident(n, &incident),
            Effect::Ended { .. } => {}
            Effect::Stopped => self.stopped(n),
        }
    }

    fn journal_effect(&mut self, n: usize, effect: JournalEffect) {
        match effect {
            JournalEffect::Prepare(PrepareSegment { journal, index, bytes }) => {
                self.check_quota(n);
                self.nodes[n].disk.prepare(journal, index, bytes);
                let us = self.disk_latency(n) * 3;
                self.node_after(us, n, Ev::Prepared(journal, index));
            }
            JournalEffect::Write { write, journal, segment, offset, parts } => {
                self.write(n, (write, journal), segment, offset, whole(&parts));
            }
            JournalEffect::Remove(RemoveSegment { journal, index, reuse }) => {
                let reuse = reuse || self.mutate(Mutation::ReuseCut);
                let claimed = self.claim_holds(n, journal);
                let spool = &self.nodes[n].spool;
                self.check.on_remove(n, journal, index, claimed, |tip| spool.holds(tip));
                if reuse && let Some(seq) = self.nodes[n].disk.highest(journal, index) {
                    self.check.on_reuse(n, journal, index, seq);
                }
                self.nodes[n].disk.remove(journal, index, reuse);
            }
            JournalEffect::Read(read) => {
                let us = self.disk_latency(n);
                self.node_after(us, n, Ev::Read(read));
            }
        }
    }

    fn volume_effect(&mut self, n: usize, effect: VolumeEffect) {
        match effect {
            VolumeEffect::Read { read, file, offset, len, .. } => {
                let us = if self.streams.disk.percent(50) { 0 } else { self.disk_latency(n) };
                self.node_after(us, n, Ev::Volume(read, file, offset, len, false));
            }
            VolumeEffect::Allocation { read, file, offset, len, .. } => {
                let us = self.disk_latency(n);
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                self.node_after(us, n, Ev::Volume(read, file, offset, len, true));
            }
            VolumeEffect::Forget { .. } => {}
        }
    }

    fn link_effect(&mut self, n: usize, effect: LinkEffect) {
        match effect {
            LinkEffect::Connect { conn } => self.link_connect(n, conn),
            LinkEffect::Send { conn, parts } => self.link_send(n, conn, &parts),
            LinkEffect::Fill { conn, buffer, until } => self.link_fill(n, conn, buffer, until),
            LinkEffect::Close { conn, abort } => self.link_close(n, conn, abort),
        }
    }

    fn client_effect(&mut self, n: usize, effect: ClientEffect) {
        match effect {
            ClientEffect::Send { conn, bytes } => self.client_send(n, conn, &bytes),
            ClientEffect::Receive { conn, buffer } => self.client_receive(n, conn, buffer),
            ClientEffect::Fill { conn, buffer, until } => self.client_fill(n, conn, buffer, until),
            ClientEffect::StartTls { .. } => {
                self.check.fail("driver", format!("node {n} wants TLS, which nobody asked for"));
            }
            ClientEffect::Proven { .. } | ClientEffect::Guessed { .. } | ClientEffect::Refused { .. } => {}
            ClientEffect::Close { conn, .. } => self.client_closed(n, conn),
        }
    }

    fn note_effect(&mut self, n: usize, effect: &Effect) {
        let (tag, a, b) = match effect {
            Effect::Journal(JournalEffect::Prepare(PrepareSegment { journal, index, .. })) => {
                ("prepare", journal.index() as u64, index.0)
            }
            Effect::Journal(JournalEffect::Write { segment, offset, .. }) => ("write", segment.0, *offset),
            Effect::Journal(JournalEffect::Remove(RemoveSegment { journal, index, .. })) => {
                ("remove", journal.index() as u64, index.0)
            }
            Effect::Journal(JournalEffect::Read(ReadSegment { segment, offset, .. })) => {
                ("read", segment.0, *offset)
            }
            Effect::Spool(SpoolEffect::Open { round, .. }) => ("spool-open", *round, 0),
            Effect::Spool(SpoolEffect::Copy { part, .. } | SpoolEffect::Move { part, .. }) => {
                ("spool-copy", part.index.0, part.end.seq.0)
            }
            Effect::Spool(SpoolEffect::Read { read, part }) => ("spool-read", part.index.0, read.offset),
            Effect::Spool(SpoolEffect::Keep { place, .. }) => ("spool-keep", place.len() as u64, 0),
            Effect::Spool(SpoolEffect::Remove { part, .. }) => ("spool-remove", part.index.0, part.end.seq.0),
            Effect::File(FileEffect::WriteControl { bytes, .. }) => ("control", bytes.len() as u64, 0),
            Effect::Store(StoreEffect::Apply { batch, .. }) => {
                ("apply", batch.header().first_seq.0, batch.end().chain.0)
            }
            Effect::Store(StoreEffect::Checkpoint) => ("checkpoint", 0, 0),
            Effect::Store(StoreEffect::BeginCopy { begin, .. }) => ("begin-copy", begin.origin.seq.0, 0),
            Effect::Store(StoreEffect::PrepareRewind { prepared }) => {
                ("prepare-rewind", prepared.begin.origin.seq.0, 0)
            }
            Effect::Store(StoreEffect::TakeChunk { chunk, .. }) => ("take-chunk", chunk.file.0, chunk.at.0),
            Effect::Copy(CopyEffect::Definitions { read }) => ("read-definitions", *read, 0),
            Effect::Copy(CopyEffect::Range { want, .. }) => ("read-range", want.file.0, want.id),
            Effect::Compare(CompareEffect::Look { look, file, .. }) => ("look", *look, file.0),
            Effect::Compare(CompareEffect::Repair { look, chunk, .. }) => ("repair", *look, chunk.file.0),
            Effect::Compare(CompareEffect::Keep { bytes }) => ("keep-certificate", bytes.len() as u64, 0),
            Effect::Store(StoreEffect::FindRot) => ("find-rot", 0, 0),
            Effect::Store(StoreEffect::Fetch { fetch, file, .. }) => ("fetch", *fetch, file.0),
            Effect::File(FileEffect::SaveDiverged { bytes, .. }) => ("save-diverged", bytes.len() as u64, 0),
            Effect::Save { token, .. } => ("save", *token, 0),
            Effect::Link(LinkEffect::Connect { conn }) => ("connect", conn.0, 0),
            Effect::Link(LinkEffect::Send { conn, parts }) => {
                ("link-send", conn.0, parts.iter().map(|p| p.len() as u64).sum())
            }
            Effect::Link(LinkEffect::Fill { conn, until, .. }) => ("link-fill", conn.0, *until as u64),
            Effect::Link(LinkEffect::Close { conn, abort }) => ("link-close", conn.0, u64::from(*abort)),
            Effect::Client(ClientEffect::Send { conn, bytes }) => ("client-send", conn.0, bytes.len() as u64),
            Effect::Client(ClientEffect::Receive { conn, .. }) => ("client-receive", conn.0, 0),
            Effect::Client(ClientEffect::Fill { conn, until, .. }) => ("client-fill", conn.0, *until as u64),
            Effect::Client(ClientEffect::StartTls { conn }) => ("client-tls", conn.0, 0),
            Effect::Client(ClientEffect::Proven { conn }) => ("client-proven", conn.0, 0),
            Effect::Client(ClientEffect::Guessed { conn }) => ("client-guessed", conn.0, 0),
            Effect::Client(ClientEffect::Refused { conn, .. }) => ("client-refused", conn.0, 0),
            Effect::Volume(VolumeEffect::Read { file, offset, .. }) => ("read-volume", file.0, *offset),
            Effect::Volume(VolumeEffect::Allocation { file, offset, .. }) => {
                ("volume-allocation", file.0, *offset)
            }
            Effect::Volume(VolumeEffect::Forget { file }) => ("forget-volume", file.0, 0),
            Effect::Scrub(ScrubEffect::Begin { job, part, .. }) => ("scrub", *job, part.place().0.0),
            Effect::Scrub(ScrubEffect::Stop) => ("scrub-stop", 0, 0),
            Effect::Scrub(ScrubEffect::Keep { bytes }) => ("scrub-keep", bytes.len() as u64, 0),
            Effect::Client(ClientEffect::Close { conn, stuck }) => {
                ("client-close", conn.0, u64::from(*stuck))
            }
            Effect::Admin { token, .. } => ("admin-answer", *token, 0),
            Effect::Incident(incident) => ("incident", incident.kind.len() as u64, 0),
            Effect::Ended { code, .. } => ("ended", code.len() as u64, 0),
            Effect::Stopped => ("stopped", 0, 0),
        };
        self.trace.event(tag, a ^ (n as u64) << 60, b, || format!("node {n}: {}", words(effect)));
    }

    /// Whether the peer's claim keeps what it lacks in a node's journal: not above the quota, and not on a full disk.
    fn claim_holds(&self, n: usize, journal: JournalKind) -> bool {
        let bytes = self.nodes[n].disk.bytes(journal);
        let over = bytes > self.journal_bounds(n).0;
        let told = self.nodes[n].ills.no_room_at;
        let full = told > 0 && self.trace.now.saturating_sub(told) < NO_ROOM_COUNTS;
        !(over || full || self.nodes[n].disk.full)
    }

    /// The journal is bounded by its quota as soon as the store has what is beyond that (I-52).
    fn check_quota(&mut self, n: usize) {
        let (bytes, quota) =
            (self.nodes[n].disk.bytes(JournalKind::Replicated), self.journal_bounds(n).1 + 2 * SEGMENT_BYTES);
        let age = self.trace.now.saturating_sub(self.nodes[n].booted_at);
        if bytes > quota && age > 5_000_000 && self.check.oldest_is_settled(n) {
            self.check.fail("I-52", format!("node {n} keeps {bytes} bytes of journal, the quota is {quota}"));
        }
    }

    /// How long a disk operation takes now.
    pub(super) fn disk_latency(&mut self, n: usize) -> u64 {
        let median = self.options.disk_us;
        let mut us = median / 2 + self.streams.disk.below(median + 1);
        if self.streams.disk.percent(self.options.disk_tail_percent) {
            us *= 1 + self.streams.disk.below(100);
        }
        let us = if self.nodes[n].ills.slow_until > self.trace.now { us * 30 } else { us };
        us.min(HANG_MAX)
    }

    fn write(
        &mut self,
        n: usize,
        (write, journal): (u64, JournalKind),
        segment: SegmentIndex,
        offset: u64,
        bytes: Bytes,
    ) {
        let seen = self.mutated_write(n, offset, &bytes);
        self.check.on_write(n, (write, journal), segment, offset, &seen);
        if self.mutate(Mutation::RemoveEarly) {
            let all = &self.check.nodes[n].journals[journal.index()];
            let needed = all.segments.keys().next_back().copied();
            self.check.nodes[n].journals[journal.index()].checkpointed = 0;
            if let Some(index) = needed {
                self.check.on_remove(n, journal, SegmentIndex(index), true, |_| false);
            } else {
                self.mutated = false;
            }
        }
        if let Ok(batch) = Batch::from_disk(&bytes)
            && !batch.header().mark
            && self.mutate(Mutation::ApplyBeforeDurable)
        {
            self.check.on_apply(n, journal, &batch);
        }
        if let Err(why) = self.nodes[n].disk.write(journal, segment, offset, (write, bytes)) {
            self.check.fail("driver", format!("node {n}: {why}"));
        }
        let us = self.disk_latency(n);
        if self.options.mutation == Some(Mutation::LieWritten) && self.operator.ready() {
            self.mutated = true;
            self.node_after(us * 50, n, Ev::Written(journal, u64::MAX));
            self.node_after(1, n, Ev::Written(journal, write));
            return;
        }
        self.node_after(us, n, Ev::Written(journal, write));
    }

    /// What the checker is shown of a write.
    fn mutated_write(&mut self, n: usize, offset: u64, bytes: &Bytes) -> Bytes {
        if offset == 0 || self.options.mutation != Some(Mutation::ForeignEpoch) {
            return bytes.clone();
        }
        let Ok(batch) = Batch::from_disk(bytes) else { return bytes.clone() };
        let h = *batch.header();
        let foreign = usize::try_from(h.epoch.0 & 1) == Ok(n);
        if h.mark || h.journal != JournalKind::Replicated || !foreign || !self.mutate(Mutation::ForeignEpoch)
        {
            return bytes.clone();
        }
        resealed(&batch, crate::base::Epoch(h.epoch.0 + 1), None).disk().clone()
    }

    /// A journal write ends.
    pub(super) fn disk_written(&mut self, n: usize, journal: JournalKind, write: u64) {
        let mut under_way = self.nodes[n].disk.flights(journal).iter().map(|flight| flight.write);
        if self.options.mutation == Some(Mutation::LieWritten) && self.mutated {
            // Told durable at once, durable (perhaps) much later.
            if write == u64::MAX {
                if let Some(write) = under_way.next() {
                    self.nodes[n].disk.written(journal, write);
                    self.check.on_written(n, journal, write);
                }
            } else {
                self.input(n, JournalEvent::Written { write });
                self.nodes[n].disk.written(journal, write);
            }
            return;
        }
        if !under_way.any(|number| number == write) {
            return;
        }
        if self.nodes[n].ills.write_errors > 0 {
            self.nodes[n].ills.write_errors -= 1;
            let mode = self.streams.disk.below(4);
            let (disk, prng) = (&mut self.nodes[n].disk, &mut self.streams.disk);
            disk.resolve(journal, write, |_| random_fate(Death::Power, mode, prng));
            self.check.on_write_failed(n, journal, write);
            self.trace.sometimes("a poisoned segment");
            self.note(n, "write-failed", write, 0);
            return self.input(n, JournalEvent::WriteFailed { write, fault: Fault::Errno(5) });
        }
        if self.nodes[n].disk.flights(journal).first().is_some_and(|first| first.write != write) {
            self.trace.sometimes("a later write of a journal ended first");
        }
        self.nodes[n].disk.written(journal, write);
        self.check.on_written(n, journal, write);
        self.note(n, "written", write, 0);
        self.input(n, JournalEvent::Written { write });
    }

    pub(super) fn note(&mut self, n: usize, tag: &'static str, a: u64, b: u64) {
        self.trace.event(tag, a ^ (n as u64) << 60, b, || format!("node {n}: {a} {b}"));
    }

    /// A segment was made, or not.
    pub(super) fn disk_prepared(&mut self, n: usize, journal: JournalKind, index: SegmentIndex) {
        let ready = self.nodes[n].disk.prepared(journal, index, false);
        self.note(n, "prepared", index.0, u64::from(ready));
        let event = if ready {
            JournalEvent::SegmentReady { journal, index }
        } else {
            self.nodes[n].ills.no_room_at = self.trace.now;
            JournalEvent::SegmentFailed { journal, index, fault: Fault::NoSpace }
        };
        self.input(n, event);
    }

    /// A read ends.
    pub(super) fn disk_read(
        &mut self,
        n: usize,
        ReadSegment { read, journal, segment, offset, len }: ReadSegment,
    ) {
        let bytes = self.nodes[n].disk.read(journal, segment, offset, len);
        let result = match bytes {
            Some(_) if self.nodes[n].ills.read_until > self.trace.now => Err(Fault::Errno(5)),
            Some(bytes) => Ok(bytes),
            None => Err(Fault::Errno(2)),
        };
        self.note(n, "read-done", read, u64::from(result.is_ok()));
        if self.check.is_primary(n) && journal == JournalKind::Replicated && self.check.fully_applied(n) {
            self.trace.sometimes("catch-up from the disk");
        }
        self.input(n, JournalEvent::Read { read, result });
    }

    fn write_control(&mut self, n: usize, write: u64, bytes: Vec<u8>) {
        if self.nodes[n].disk.control_flight.is_some() {
            self.check.fail("driver", format!("node {n} replaces the control file twice at once"));
        }
        self.nodes[n].disk.control_flight = Some((write, bytes));
        let us = self.disk_latency(n) * 2;
        if self.options.mutation == Some(Mutation::LieControl) && self.operator.ready() {
            self.mutated = true;
            self.nodes[n].disk.control_flight = None;
            return self.node_after(1, n, Ev::Control(write));
        }
        self.node_after(us, n, Ev::Control(write));
    }

    /// The control file was replaced, or not.
    pub(super) fn control_done(&mut self, n: usize, write: u64) {
        let lie = self.options.mutation == Some(Mutation::LieControl) && self.mutated;
        if lie {
            return self.input(n, FileEvent::ControlWritten { write });
        }
        let Some((_, bytes)) = self.nodes[n].disk.control_flight.take() else { return };
        let fails = self.nodes[n].ills.control_until > self.trace.now;
        self.note(n, "control-done", write, u64::from(!fails));
        if fails {
            if self.streams.disk.percent(50) {
                self.control_on_disk(n, bytes);
            }
            return self.input(n, FileEvent::ControlFailed { write, fault: Fault::Errno(5) });
        }
        self.control_on_disk(n, bytes);
        self.input(n, FileEvent::ControlWritten { write });
    }

    fn control_on_disk(&mut self, n: usize, bytes: Vec<u8>) {
        match Control::decode(&bytes) {
            Ok(control) => {
                self.check.on_control(n, control);
            }
            Err(error) => self.check.fail("driver", format!("node {n} writes a bad control file: {error}")),
        }
        self.nodes[n].disk.control = bytes;
    }

    fn apply(&mut self, n: usize, (journal, round): (JournalKind, Round), batch: Batch) {
        let ready = batch.header().count > 0 && self.operator.ready();
        if ready && self.mutate(Mutation::SkipApply) {
            return;
        }
        self.check.on_apply(n, journal, &batch);
        if ready && self.mutate(Mutation::DoubleApply) {
            self.check.on_apply(n, journal, &batch);
        }
        if ready && self.options.mutation == Some(Mutation::SwapApply) {
            self.swap_apply(n, journal);
        }
        self.nodes[n].queue.push_back((journal, round, Given::Batch(batch)));
        self.store_goes_on(n);
    }

    pub(super) fn give(&mut self, n: usize, round: Round, given: Given) {
        self.nodes[n].queue.push_back((JournalKind::Replicated, round, given));
        self.store_goes_on(n);
    }

    /// Shows the checker the two newest batches of a history in the wrong order.
    fn swap_apply(&mut self, n: usize, journal: JournalKind) {
        let truth = &self.check.nodes[n].journals[journal.index()];
        let [.., a, b] = truth.path[..] else { return };
        let space = super::truth::space(n, journal);
        let batch = |chain| self.check.history.batches.get(&(space, chain)).map(|k| k.batch.clone());
        let (Some(first), Some(second)) = (batch(a.chain), batch(b.chain)) else { return };
        if self.mutate(Mutation::SwapApply) {
            let journal_truth = &mut self.check.nodes[n].journals[journal.index()];
            if let Some(at) = journal_truth.path.iter().position(|tip| tip.chain == a.chain) {
                journal_truth.offered = journal_truth.path[at - 1];
            }
            self.check.on_apply(n, journal, &second);
            self.check.on_apply(n, journal, &first);
        }
    }

    /// The store applies some of what waits, not always in the order in which the two journals asked.
    pub(super) fn store_work(&mut self, n: usize) {
        self.nodes[n].store_busy = false;
        self.drop_old_rounds(n);
        let node = &mut self.nodes[n];
        let Some(&(mut journal, ..)) = node.queue.front() else { return };
        if self.streams.disk.percent(20)
            && let Some((other, ..)) = node.queue.iter().find(|(j, ..)| *j != journal)
        {
            journal = *other;
        }
        if node.ills.store_errors > 0 {
            node.ills.store_errors -= 1;
            let at = node.queue.iter().position(|(j, ..)| *j == journal);
            let failed = at.and_then(|at| node.queue.remove(at));
            if let Some((_, round, given)) = failed {
                self.store_fails(n, (journal, round), given);
            }
        } else {
            let count = 1 + self.streams.disk.below(4);
            for event in self.apply_some(n, journal, count) {
                if let StoreEvent::Applied { seq, .. } = event {
                    self.note(n, "applied", journal.index() as u64, seq.0);
                }
                self.tell_later(n, event);
            }
        }
        self.store_goes_on(n);
    }

    fn store_goes_on(&mut self, n: usize) {
        if !self.nodes[n].queue.is_empty() && !self.nodes[n].store_busy {
            self.nodes[n].store_busy = true;
            let us = self.disk_latency(n) / 2 + 1;
            self.node_after(us, n, Ev::Store);
        }
    }

    /// What waits behind a batch that failed is given again, and not applied before.
    pub(super) fn drop_old_rounds(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        let old = |(journal, round, given): &(_, _, Given)| {
            !given.stands_alone() && !node.rounds.takes(*journal, *round)
        };
        if !node.queue.iter().any(old) || self.mutate(Mutation::KeepRound) {
            return;
        }
        self.trace.sometimes("batches of an earlier round still waited for the store");
        let node = &mut self.nodes[n];
        node.queue
            .retain(|(journal, round, given)| given.stands_alone() || node.rounds.takes(*journal, *round));
    }

    /// The node hears of what the store did some time later, in order.
    pub(super) fn tell_later(&mut self, n: usize, event: StoreEvent) {
        let most = self.options.store_lag_us;
        let lag = if most == 0 { 0 } else { self.streams.disk.below(most) };
        let first = self.nodes[n].to_tell.is_empty();
        self.nodes[n].to_tell.push_back(event);
        if first && lag == 0 {
            return self.store_told(n);
        }
        self.node_after(lag, n, Ev::Told);
    }

    /// The node hears of the oldest thing that the store did and did not tell yet.
    pub(super) fn store_told(&mut self, n: usize) {
        let Some(event) = self.nodes[n].to_tell.pop_front() else { return };
        if let StoreEvent::ApplyFailed { journal, fault, .. } = event {
            if fault == Fault::NoSpace {
                self.nodes[n].ills.no_room_at = self.trace.now;
            }
            let given = self.nodes[n].store.submitted()[journal.index()];
            if let Some(tip) = self.tip_at(n, journal, given) {
                self.check.nodes[n].journals[journal.index()].offered = tip;
            }
        }
        self.input(n, event);
    }

    /// Takes up to `count` of what waits of a journal, of one kind and round; tells what became of it.
    pub(super) fn apply_some(&mut self, n: usize, journal: JournalKind, count: u64) -> Vec<StoreEvent> {
        let mut last: Option<(Round, Seq)> = None;
        for _ in 0..count {
            let node = &mut self.nodes[n];
            let Some(at) = node.queue.iter().position(|(j, ..)| *j == journal) else { break };
            let (_, round, given) = &node.queue[at];
            if last.is_some_and(|(of, _)| of != *round || !matches!(given, Given::Batch(_))) {
                break;
            }
            match node.queue.remove(at) {
                Some((_, round, Given::Batch(batch))) => {
                    let Some(seq) = self.apply_one(n, journal, batch) else { break };
                    last = Some((round, seq));
                }
                Some((.., Given::Begin(begin, ranges))) => {
                    return vec![self.begin_copy(n, &begin, ranges.as_deref())];
                }
                Some((.., Given::Prepare(prepared))) => return vec![self.prepare_rewind(n, &prepared)],
                Some((_, round, Given::Chunk(chunk, progress))) => {
                    return self.take_chunk(n, round, &chunk, &progress).into_iter().collect();
                }
                Some((.., Given::Look(wanted))) => {
                    self.look(n, wanted);
                    return Vec::new();
                }
                Some((.., Given::Repair(look, chunk))) => {
                    self.store_repaired(n, look, &chunk);
                    return Vec::new();
                }
                None => break,
            }
        }
        last.map(|(round, seq)| StoreEvent::Applied { journal, round, seq }).into_iter().collect()
    }

    /// Applies the next batch of the replicated journal that waits, if one does; nobody is told.
    pub(super) fn apply_next(&mut self, n: usize) -> bool {
        let of = |(journal, _, given): &(JournalKind, Round, Given)| {
            *journal == JournalKind::Replicated
                && matches!(given, Given::Batch(batch) if batch.header().count > 0)
        };
        let next = self.nodes[n].queue.iter().find(|given| of(given)).cloned();
        match next {
            Some((journal, _, Given::Batch(batch))) => self.apply_one(n, journal, batch).is_some(),
            _ => false,
        }
    }

    fn apply_one(&mut self, n: usize, journal: JournalKind, batch: Batch) -> Option<Seq> {
        let corrupt = batch.header().count > 0 && self.mutate(Mutation::CorruptApply);
        let stored = if corrupt {
            let epoch = batch.header().epoch;
            resealed(&batch, epoch, Some(b"v0.0~corrupted"))
        } else {
            batch.clone()
        };
        let shown = self.nodes[n].store.applied()[journal.index()];
        if let Err(error) = self.nodes[n].store.apply(journal, &[stored]) {
            self.check.fail("I-10", format!("node {n}'s store refuses {batch:?}: {error}"));
            return None;
        }
        let seq = batch.header().last_seq();
        // What the items hold already was given again for the sake of the volumes.
        if seq > shown {
            self.check.on_applied(n, journal, seq);
            self.nodes[n].log.push((journal, batch));
        }
        Some(seq)
    }

    /// The store is asked for a part of a volume, or for what takes space in it. Each batch is applied whole here, so
    /// every moment is one between two batches.
    pub(super) fn volume_asked(
        &mut self,
        n: usize,
        read: u64,
        (file, offset, len): (FileId, u64, usize),
        allocation: bool,
    ) {
        if allocation {
            let found = self.nodes[n].store.volume_allocation(file, offset, len as u64);
            let parts = found.into_iter().map(|(len, hole)| Allocation { len, hole }).collect();
            return self.input(n, VolumeEvent::Allocation { read, result: Ok(parts) });
        }
        self.volume_read(n, read, file, offset, len);
    }

    /// The slow part of a checkpoint begins; batches are applied while it goes on.
    pub(super) fn checkpoint_begins(&mut self, n: usize) {
        // Nothing is left to be done aside: what it makes durable is decided when the checkpoint ends.
        let _ = self.nodes[n].store.begin_checkpoint();
        self.nodes[n].sync_began_at = self.nodes[n].store.submitted();
        let us = self.disk_latency(n) * 4;
        self.node_after(us, n, Ev::Checkpoint);
    }

    /// The checkpoint ends.
    pub(super) fn checkpoint_done(&mut self, n: usize) {
        self.nodes[n].checkpointing = false;
        if self.nodes[n].ills.store_errors > 0 {
            self.nodes[n].ills.store_errors -= 1;
            self.note(n, "checkpoint-failed", 0, 0);
            return self.input(n, StoreEvent::CheckpointFailed { fault: Fault::Errno(5) });
        }
        match self.nodes[n].store.checkpoint() {
            Ok(applied) => {
                if self.nodes[n].store.submitted() != self.nodes[n].sync_began_at {
                    self.trace.sometimes("batches were applied while a checkpoint was under way");
                }
                self.check.on_checkpointed(n, applied);
                self.nodes[n].log_before_copy = None;
                self.note(n, "checkpointed", applied[0].0, applied[1].0);
                self.input(n, StoreEvent::Checkpointed { applied });
            }
            Err(error) => self.check.fail("driver", format!("the model store fails: {error}")),
        }
    }

    /// Diverged entries were saved, or not.
    pub(super) fn diverged_done(&mut self, n: usize, save: u64) {
        if self.options.mutation == Some(Mutation::ForgetDiverged) {
            self.mutated = true;
            return self.input(n, FileEvent::DivergedSaved { save });
        }
        let fails = self.nodes[n].ills.control_until > self.trace.now;
        self.nodes[n].disk.saved_diverged(!fails);
        self.note(n, "diverged-done", u64::from(!fails), 0);
        if fails {
            return self.input(n, FileEvent::DivergedFailed { save, fault: Fault::Errno(5) });
        }
        self.check.saved[n] = self.nodes[n].disk.diverged.values().flatten().copied().collect();
        self.trace.sometimes("diverged entries were saved");
        self.input(n, FileEvent::DivergedSaved { save });
    }

    fn incident(&mut self, n: usize, incident: &Incident) {
        match incident.kind {
            "degraded" => {
                self.check.nodes[n].degraded = true;
                self.trace.sometimes("a promise was degraded");
            }
            "restored" => {
                self.check.nodes[n].degraded = false;
                self.check.on_restored(n, &incident.text);
            }
            "tail-cut" => self.trace.sometimes("the standby cut its tail"),
            "peer-lost" if incident.text.contains("silent") => {
                self.trace.sometimes("a silent link was noticed")
            }
            "epoch" if self.check.openings.len() > 1 => {
                self.trace.sometimes("an epoch was opened at a restart")
            }
            // Nothing damages a spool here: what came was not what was asked for (I-37).
            "spool-damaged" if incident.text.contains("at byte") => {
                self.check
                    .fail("I-37", format!("node {n} read something else from its spool: {}", incident.text));
            }
            "journal-no-space" => self.trace.sometimes("a journal had no room for its next segment"),
            "peer-dropped" => {
                self.check.nodes[1 - n].dropped = true;
                let full = incident.text.starts_with("the disk is full");
                self.trace.sometimes(if full {
                    "the peer lost its claim on the journal because the disk was full"
                } else {
                    "the peer lost its claim on the journal at the quota"
                });
            }
            "whole" | "rewound" => {
                self.check.nodes[n].whole_at = Some(self.trace.now);
                self.trace.sometimes("a copy of everything became whole");
            }
            "handover-unanswered" => self.trace.sometimes("a primary asked what became of its role"),
            "copied" => self.trace.sometimes("a file was copied into the journal"),
            _ => {}
        }
    }
}

/// The batch again with another epoch, or with another value in its first put.
fn resealed(batch: &Batch, epoch: crate::base::Epoch, value: Option<&[u8]>) -> Batch {
    let h = *batch.header();
    let mut builder = BatchBuilder::new(h.first_seq, 0);
    for (i, (_, mut entry)) in batch.entries().enumerate() {
        if let Some(value) = value
            && i == 0
            && !entry.id.is_empty()
        {
            entry.value = value;
        }
        builder.push(&entry);
    }
    let (pair, journal) = (h.pair, h.journal);
    builder.seal(&Seal {
        epoch,
        prev_chain: h.prev_chain,
        durable: h.durable,
        wall_ms: h.wall_ms,
        pair,
        journal,
    })
}

/// Of a file's items those of a range.
pub(super) fn whole_items(mut items: Items, after: &[u8], through: &[u8], ends: bool) -> Items {
    items.retain(|id, _| id[..] > *after && (ends || id[..] <= *through));
    items
}

/// The bytes of a write as one piece.
pub(super) fn whole(parts: &[Bytes]) -> Bytes {
    match parts {
        [only] => only.clone(),
        parts => parts.concat().into(),
    }
}

/// An effect for people.
fn words(effect: &Effect) -> String {
    match effect {
        Effect::Journal(JournalEffect::Write { write, journal, segment, offset, parts }) => {
            let what = match super::truth::parse(*offset, &whole(parts)) {
                Ok(parsed) => {
                    let head = parsed.header.map(|h| format!("header after {:?} ", h.base));
                    format!("{}{:?}", head.unwrap_or_default(), parsed.batches)
                }
                Err(error) => error,
            };
            format!("#{write} {} segment {segment} at {offset}: {what}", journal.name())
        }
        Effect::Store(StoreEffect::Apply { journal, round, batch }) => {
            format!("{} round {round} {batch:?}", journal.name())
        }
        Effect::File(FileEffect::WriteControl { bytes, .. }) => match Control::decode(bytes) {
            Ok(c) => format!("{} epoch {} {:?}", c.role.name(), c.epoch, c.table),
            Err(error) => error.to_string(),
        },
        Effect::Link(LinkEffect::Send { conn, parts }) => {
            let frames = super::net::Tap::default().feed(parts);
            let text: Vec<String> = match frames {
                Ok(frames) => {
                    frames.iter().map(|f| format!("{:?} durable {}", f.body, f.header.durable)).collect()
                }
                Err(error) => vec![error],
            };
            format!("conn {:x} {}", conn.0, text.join(", "))
        }
        Effect::Client(ClientEffect::Send { conn, bytes }) => {
            format!("{conn} {:?}", String::from_utf8_lossy(bytes))
        }
        Effect::Client(ClientEffect::Receive { conn, .. }) => format!("{conn}"),
        Effect::File(FileEffect::SaveDiverged { file, first, bytes, .. }) => {
            format!("{file} first {first} {:?}", String::from_utf8_lossy(bytes))
        }
        other => format!("{other:?}"),
    }
}

/// The level at which an update is promised.
pub(super) fn level_of(file: super::client::File, replicated: bool, database: AckLevel) -> AckLevel {
    match file {
        _ if !replicated => AckLevel::Local,
        super::client::File::Safe => AckLevel::Durable,
        _ => database,
    }
}
