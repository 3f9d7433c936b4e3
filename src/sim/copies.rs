//! Copies of everything that is replicated, as the simulator's stores carry them out.

use super::checker::{Items, model};
use super::options::{Mutation, Trouble};
use super::truth::Tip;
use super::world::{Given, PAIR, World};
use crate::base::{Fault, JournalKind, Round, Seq};
use crate::engine::{CopyEffect, CopyEvent, StoreEvent};
use crate::format::batch::{Batch, BatchBuilder, Seal};
use crate::format::chunk::{Chunk, Content, CopyBegin, Progress, Want};
use crate::format::entry::{Entry, EntryKind};
use crate::format::rewind::{Prepared, Ranges};
use crate::format::unless::settled;
use crate::store::{CopySource as _, CopyTarget as _};

/// A batch that empties every file of a copy.
fn cleared(begin: &CopyBegin) -> Batch {
    let mut builder = BatchBuilder::new(Seq(1), 0);
    for (file, _) in &begin.namespace.records {
        builder.push(&Entry { kind: EntryKind::FileClear, file: *file, id: b"", value: b"" });
    }
    let (epoch, prev_chain, journal) = (begin.origin.epoch, begin.origin.chain, JournalKind::Replicated);
    builder.seal(&Seal { epoch, prev_chain, durable: Seq(0), wall_ms: 0, pair: PAIR, journal })
}

impl World {
    /// Something is read for a peer that is given a copy, between two batches.
    pub(super) fn copy_read(&mut self, n: usize, effect: CopyEffect) {
        let store = &self.nodes[n].store;
        let event = match effect {
            CopyEffect::Definitions { read } => match store.definitions() {
                Ok((at, all)) => {
                    CopyEvent::Definitions { read, result: Ok((at[0], all)), size: store.size() }
                }
                Err(error) => return self.check.fail("driver", format!("the model store fails: {error}")),
            },
            CopyEffect::Range { read, want } => match store.range(&want) {
                // What is read for a copy is held to its checksums, as every read of a volume is.
                Ok(Chunk { file, content: Content::Blocks { offset, len, .. }, .. })
                    if !store.wrong_blocks(file, offset, len).is_empty() =>
                {
                    CopyEvent::Range { read, result: Err(Fault::UNCLEAN) }
                }
                Ok(mut chunk) => {
                    if let Content::Items { items, .. } = &mut chunk.content
                        && !items.is_empty()
                        && self.options.mutation == Some(Mutation::ShortChunk)
                    {
                        self.mutated = true;
                        items.pop();
                    }
                    self.check_range(n, &chunk);
                    CopyEvent::Range { read, result: Ok(self.given(chunk, &want)) }
                }
                Err(error) if error.is_damage() => CopyEvent::Range { read, result: Err(Fault::UNCLEAN) },
                Err(error) => return self.check.fail("driver", format!("the model store fails: {error}")),
            },
        };
        self.input(n, event);
    }

    /// What is answered to a want of which the peer told what it holds.
    fn given(&mut self, chunk: Chunk, want: &Want) -> (Chunk, u64) {
        let (answer, held) = settled(chunk, want);
        match answer.content {
            Content::Equal => self.trace.sometimes("a range was equal by its digest"),
            Content::Differs => self.trace.sometimes("a range differed by its digest"),
            _ if want.unless.is_some() && answer.content.bytes() > 0 => {
                if self.mutate(Mutation::CallEqual) {
                    return (Chunk { content: Content::Equal, ..answer }, 0);
                }
                self.trace.sometimes("content came where a digest differed");
            }
            _ => {}
        }
        (answer, held)
    }

    /// A chunk holds exactly what the node's history makes of its range (I-44).
    fn check_range(&mut self, n: usize, chunk: &Chunk) {
        match &chunk.content {
            Content::Gone | Content::Equal | Content::Differs => {}
            Content::Items { after, through, items } => {
                let mut files = model(n, self.nodes[n].log.iter().map(|(_, batch)| batch));
                let mut wanted = files.remove(&chunk.file.0).unwrap_or_default();
                wanted.retain(|id, _| id[..] > after[..] && (chunk.ends || id[..] <= through[..]));
                let found: Items = items.iter().map(|(id, value)| (id.to_vec(), value.to_vec())).collect();
                if found != wanted {
                    let text = format!(
                        "node {n} gives {} items of file {} behind {after:?}, its history has {}",
                        found.len(),
                        chunk.file,
                        wanted.len()
                    );
                    self.check.fail("I-44", text);
                }
            }
            Content::Blocks { offset, len, runs } => {
                let bytes = self.store_reads(n, chunk.file, *offset, usize::try_from(*len).unwrap_or(0));
                let mut found = vec![0; bytes.len()];
                for (at, run) in runs {
                    let at = usize::try_from(at - offset).unwrap_or(usize::MAX);
                    if let Some(place) = found.get_mut(at..at.saturating_add(run.len())) {
                        place.copy_from_slice(run);
                    }
                }
                if found != bytes.as_ref() {
                    self.check.fail(
                        "I-44",
                        format!("node {n} gives other blocks of file {} than it has", chunk.file),
                    );
                }
            }
        }
    }

    /// A node's store leaves what it had for a copy.
    pub(super) fn begin_copy(&mut self, n: usize, begin: &CopyBegin, ranges: Option<&Ranges>) -> StoreEvent {
        if let Some(ranges) = ranges {
            let how = if ranges.compares() { "an old copy was compared" } else { "a node was rewound" };
            self.trace.sometimes(how);
        }
        if let Err(error) = self.nodes[n].store.begin_copy(begin, ranges) {
            self.check.fail("driver", format!("node {n}'s model store cannot begin a copy: {error}"));
        }
        self.trace.sometimes("a copy of everything began");
        let path = self.check.nodes[n].journals[0].path.clone();
        let until = path.iter().position(|tip| *tip == Tip::of(begin.origin)).map_or(0, |at| at + 1);
        let known = path.iter().take(until).filter_map(|tip| self.check.history.batches.get(&(0, tip.chain)));
        // What the copy brings is what these make; a model of it is held against the store once it is whole.
        let known: Vec<_> = known.map(|known| (JournalKind::Replicated, known.batch.clone())).collect();
        let node = &mut self.nodes[n];
        // What the node did to such files while logging was paused is gone.
        let local = node.log.iter().filter(|(journal, _)| *journal == JournalKind::Local).cloned();
        let mut log: Vec<_> = local.chain([(JournalKind::Replicated, cleared(begin))]).collect();
        log.extend(known);
        let old = std::mem::replace(&mut node.log, log);
        node.log_before_copy.get_or_insert(old);
        node.left_local = Some(Seq(self.check.nodes[n].journals[1].tip().seq));
        self.check.on_applied(n, JournalKind::Replicated, begin.origin.seq);
        self.check.nodes[n].journals[0].offered = Tip::of(begin.origin);
        StoreEvent::CopyBegun { result: Ok(()) }
    }

    /// A node's store keeps what a rewind will begin with.
    pub(super) fn prepare_rewind(&mut self, n: usize, prepared: &Prepared) -> StoreEvent {
        if let Err(error) = self.nodes[n].store.prepare_rewind(prepared) {
            self.check.fail("driver", format!("node {n}'s model store cannot prepare a rewind: {error}"));
        }
        StoreEvent::RewindPrepared { result: Ok(()) }
    }

    /// A node's store takes a range.
    pub(super) fn take_chunk(
        &mut self,
        n: usize,
        round: Round,
        chunk: &Chunk,
        progress: &Progress,
    ) -> Option<StoreEvent> {
        let applied = self.nodes[n].store.applied()[0];
        if chunk.at != applied {
            let text = format!("node {n} takes a chunk that belongs behind entry {} at {applied}", chunk.at);
            self.check.fail("I-43", text);
            return None;
        }
        let loses = match self.options.mutation {
            Some(Mutation::LoseChunk) => true,
            Some(Mutation::ForgetRange) => self.nodes[n].store.prepared().is_some(),
            _ => false,
        };
        let lost = chunk.content.bytes() > 0 && loses;
        let stored = if lost {
            self.mutated = true;
            &Chunk { content: Content::Gone, ..chunk.clone() }
        } else {
            chunk
        };
        if let Err(error) = self.nodes[n].store.take_chunk(stored, progress) {
            self.check.fail("driver", format!("node {n}'s model store refuses a chunk: {error}"));
            return None;
        }
        Some(StoreEvent::ChunkTaken { round, id: chunk.id })
    }

    /// The store cannot do what it was given.
    pub(super) fn store_fails(&mut self, n: usize, (journal, round): (JournalKind, Round), given: Given) {
        let fault = self.fault_of_store();
        match given {
            Given::Begin(..) => self.tell_later(n, StoreEvent::CopyBegun { result: Err(fault) }),
            Given::Prepare(_) => self.tell_later(n, StoreEvent::RewindPrepared { result: Err(fault) }),
            Given::Look(wanted) => self.look_fails(n, &wanted),
            Given::Repair(look, _) => self.repair_fails(n, look, fault),
            Given::Batch(_) | Given::Chunk(..) => {
                self.nodes[n].rounds.failed(journal, round);
                self.note(n, "apply-failed", journal.index() as u64, round.0);
                self.tell_later(n, StoreEvent::ApplyFailed { journal, round, fault });
            }
        }
    }

    /// No room, where that has no end that nothing brings a pair together after.
    fn fault_of_store(&mut self) -> Fault {
        let room = !self.options.troubles.contains(&Trouble::Full);
        if room || self.streams.disk.percent(50) { Fault::Errno(5) } else { Fault::NoSpace }
    }
}
