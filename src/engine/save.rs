//! A save: somebody beside the engine writes what this node holds as a stream of batches and chunks, and asks here for what
//! only the sequencer knows: where the journal stood at a state of the store, and the batches between two such states.
//!
//! The journal is kept from the last batch that was given on. Where there is too little room that claim is dropped, and
//! the save fails at its next question: users come before it (I-52).

use super::core::Core;
use super::effect::Effect;
use super::read_back::ReadFor;
use super::roles::Stage;
use crate::base::limits::SAVE_READ_BYTES;
use crate::base::{Fault, JournalKind, Position, Seq};
use crate::format::batch::Batch;
use crate::format::control::{EpochMark, Role};
use crate::journal::{JournalReader, ReadStep};
use crate::store::StoreRead;

/// What one who saves asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveAsk {
    /// A save begins with definitions that show everything up to these entries, by [`JournalKind::index`]. Answered by
    /// [`SaveAnswer::Begun`].
    Begin {
        /// The last entries.
        at: [Seq; 2],
    },
    /// The batches behind `after`, up to the one that ends with `up_to`, or as many of them as fit in one answer; what is up
    /// to `after` is not needed any more. Answered by [`SaveAnswer::Batches`].
    Next {
        /// The save.
        save: u64,
        /// The last entry that is there already.
        after: Seq,
        /// The last that is wanted; the store showed it.
        up_to: Seq,
    },
    /// It is over, whichever way it ended. Not answered.
    End {
        /// The save.
        save: u64,
    },
}

/// The answers.
#[derive(Clone, Debug)]
pub enum SaveAnswer {
    /// It began.
    Begun {
        /// Its number.
        save: u64,
        /// Where the history stood at the definitions.
        origin: Position,
        /// Where epochs began up to there.
        table: Vec<EpochMark>,
        /// This node's role.
        role: Role,
        /// The save has to go on up to here: so it holds all that clients were answered for before it began.
        up_to: Seq,
        /// The same of the local journal, for what this node has alone.
        own: Seq,
    },
    /// The journal does not remember where it stood then: definitions have to be read again.
    Again,
    /// The store does not show yet what was defined on this node alone: definitions have to be read again in a moment. What
    /// is replicated comes with the batches of a save; of this there are none.
    Early,
    /// Another save is under way. One whose command is gone ends in a moment.
    Busy,
    /// Batches.
    Batches {
        /// In order, without marks.
        batches: Vec<Batch>,
        /// The store may have been given everything up to this entry, which is durable.
        given: Seq,
    },
    /// No.
    Refused {
        /// Why.
        why: String,
        /// What people can do.
        next: &'static str,
    },
}

/// A save under way.
#[derive(Debug)]
pub(super) struct Saving {
    save: u64,
    /// It has everything up to here.
    done: Seq,
    reader: JournalReader,
    /// The question that waits.
    asked: Option<Asked>,
}

#[derive(Debug)]
struct Asked {
    token: u64,
    up_to: Seq,
    batches: Vec<Batch>,
    bytes: usize,
}

impl Saving {
    /// It needs nothing of the journal up to here.
    pub(super) fn done(&self) -> Seq {
        self.done
    }

    pub(super) fn reader(&mut self) -> &mut JournalReader {
        &mut self.reader
    }
}

impl Asked {
    /// Takes a batch; whether there is room for more, and more wanted.
    fn take(&mut self, batch: Batch) -> bool {
        self.bytes += batch.header().len as usize;
        let last = batch.header().last_seq();
        self.batches.push(batch);
        last < self.up_to && self.bytes < SAVE_READ_BYTES
    }
}

impl<S: StoreRead> Core<S> {
    pub(super) fn save_asked(&mut self, token: u64, ask: SaveAsk) {
        match ask {
            SaveAsk::Begin { at } => {
                let answer = self.begin_save(token, at);
                self.effect(Effect::Save { token, answer });
            }
            SaveAsk::Next { save, after, up_to } => self.next_of_save(token, save, (after, up_to)),
            SaveAsk::End { save } => {
                self.saving.take_if(|saving| saving.save == save);
            }
        }
    }

    fn begin_save(&mut self, save: u64, [at, own]: [Seq; 2]) -> SaveAnswer {
        let refused = |why: &str, next| SaveAnswer::Refused { why: why.to_owned(), next };
        if self.is_incomplete() {
            return refused("this node is incomplete: it is given a copy", "save the other node");
        }
        if self.roles.stage() == Stage::Replaying {
            return refused("this node is starting", "try again when it is up");
        }
        if self.saving.is_some() {
            return SaveAnswer::Busy;
        }
        if own < self.operators.defined_alone() {
            return SaveAnswer::Early;
        }
        let Some(origin) = self.replicated().end_at(at) else { return SaveAnswer::Again };
        let mut table = self.control.table().to_vec();
        table.retain(|mark| mark.first_seq <= origin.seq);
        let reader = JournalReader::after(origin.seq);
        self.saving = Some(Saving { save, done: origin.seq, reader, asked: None });
        let up_to = self.apply_limit(JournalKind::Replicated).max(origin.seq);
        let own = self.apply_limit(JournalKind::Local);
        SaveAnswer::Begun { save, origin, table, role: self.control.role(), up_to, own }
    }

    fn next_of_save(&mut self, token: u64, save: u64, (after, up_to): (Seq, Seq)) {
        let given = self.appliers.replicated().submitted();
        let answer = match self.saving.as_mut().filter(|saving| saving.save == save) {
            Some(saving) => {
                saving.done = saving.done.max(after);
                saving.reader.seek(after);
                if after < up_to {
                    saving.asked = Some(Asked { token, up_to, batches: Vec::new(), bytes: 0 });
                    return;
                }
                SaveAnswer::Batches { batches: Vec::new(), given }
            }
            None => {
                SaveAnswer::Refused { why: "the node knows no such save".to_owned(), next: "begin it again" }
            }
        };
        self.effect(Effect::Save { token, answer });
    }

    /// Reads what a save waits for.
    pub(super) fn pump_save(&mut self) {
        while self.saving.as_ref().is_some_and(|saving| saving.asked.is_some()) {
            let step = self.read_on(ReadFor::Save);
            let Some(saving) = &mut self.saving else { return };
            let Some(asked) = &mut saving.asked else { return };
            match step {
                Ok(ReadStep::Batch(batch)) => {
                    if asked.take(batch) {
                        continue;
                    }
                }
                Ok(ReadStep::Wait(_)) => return,
                // What the store showed is durable, so there is more unless the journal was cut or left meanwhile.
                Ok(ReadStep::End) => {
                    return self.save_failed("the journal ends before what was saved".to_owned());
                }
                Err(error) => return self.save_failed(format!("reading the journal: {error}")),
            }
            if let Some(Asked { token, batches, .. }) = saving.asked.take() {
                let given = self.appliers.replicated().submitted();
                self.effect(Effect::Save { token, answer: SaveAnswer::Batches { batches, given } });
            }
        }
    }

    /// Bytes of the journal could not be read.
    pub(super) fn save_unread(&mut self, fault: Fault) {
        self.save_failed(format!("reading the journal: {fault}"));
    }

    /// A save that is under way ends here.
    pub(super) fn save_failed(&mut self, why: String) {
        let Some(Saving { asked: Some(Asked { token, .. }), .. }) = self.saving.take() else { return };
        let next = "begin it again; where it was too slow for the journal's quota: with less else to do, or a larger \
                    journal_quota_bytes";
        self.effect(Effect::Save { token, answer: SaveAnswer::Refused { why, next } });
    }
}

#[cfg(test)]
#[path = "save_tests.rs"]
mod tests;
