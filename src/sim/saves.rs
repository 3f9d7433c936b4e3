//! Saves of a node while everything goes on, and the rule that what is saved is the state at the save's end (I-30).

use super::checker::{Items, model};
use super::options::{Mutation, Trouble};
use super::world::{Ev, World};
use crate::base::{JournalKind, Ordinal, Position, Prng, Seq};
use crate::engine::{Engine, Event, Known, SaveAnswer, SaveAsk, SetWalk, is_over, within};
use crate::format::batch::Batch;
use crate::format::chunk::{Chunk, Content, CopyBegin, Definitions};
use crate::format::dptr::{DptrKind, FileState};
use crate::format::rewind::Ranges;
use crate::format::since::Same;
use crate::store::memory::MemoryStore;
use crate::store::namespace::Namespace;
use crate::store::{CopySource as _, CopyTarget as _, StoreWrite as _};

/// A copy of a file comes from elsewhere for whoever takes a save: neither node has this number.
const NOBODY: Ordinal = Ordinal(9);
/// Between two steps of a save at most (microseconds).
const STEP: u64 = 40_000;

/// Who makes saves, one at a time.
#[derive(Debug)]
pub(super) struct Saver {
    prng: Prng,
    run: Option<Run>,
    tokens: u64,
    /// The last save, for one since it.
    base: Option<Base>,
}

/// A save that came to its end, as it was restored.
#[derive(Debug)]
struct Base {
    store: MemoryStore,
    known: Known,
    end: Position,
    namespace: Namespace,
}

/// A save under way.
#[derive(Debug)]
struct Run {
    node: usize,
    life: u64,
    save: u64,
    /// It does not end before this entry.
    up_to: Seq,
    definitions: Definitions,
    walk: Option<SetWalk>,
    /// What is restored from it.
    store: MemoryStore,
    /// Read, and not in its place yet.
    chunk: Option<Chunk>,
    answer: Option<SaveAnswer>,
    /// Blocks of the node had turned when they were read.
    rotten: bool,
    /// It holds what changed since this one.
    since: Option<Base>,
    /// The ranges of that one, and how many are behind.
    told: (Vec<Same>, usize),
    /// What this one holds.
    learned: Known,
}

impl Saver {
    /// Saves of a run are made or not by its seed.
    pub(super) fn new(seed: u64) -> Self {
        Self { prng: Prng::new(seed ^ 0x5a7e), run: None, tokens: 0, base: None }
    }
}

impl Run {
    /// Goes on with what an earlier save made, if the node is not behind that; gives what of it goes.
    fn since_another(&mut self) -> Option<Ranges> {
        let (base, walk) = (self.since.take()?, self.walk.as_ref()?);
        let origin = walk.end();
        if (origin.epoch, origin.seq) < (base.end.epoch, base.end.seq) {
            return None;
        }
        let ranges = walk.goes(&base.namespace);
        self.store = base.store;
        self.told = (base.known.ranges().cloned().collect(), 0);
        Some(ranges)
    }
}

impl World {
    /// Begins a save now and then.
    pub(super) fn save_sometimes(&mut self) {
        if self.options.seed % 4 != 3 || self.saver.prng.percent(85) {
            return;
        }
        let n = usize::from(self.saver.prng.percent(50));
        let lives = |n: usize, life| self.nodes[n].life == life && self.nodes[n].engine.is_some();
        if self.saver.run.as_ref().is_some_and(|run| lives(run.node, run.life)) {
            return;
        }
        if !self.nodes[n].engine.as_ref().is_some_and(Engine::is_up) {
            return;
        }
        let Ok((at, definitions)) = self.nodes[n].store.definitions() else { return };
        let since = if self.saver.tokens.is_multiple_of(3) { None } else { self.saver.base.take() };
        self.saver.run = Some(Run {
            node: n,
            life: self.nodes[n].life,
            save: 0,
            up_to: Seq(0),
            definitions,
            walk: None,
            store: MemoryStore::new(NOBODY),
            chunk: None,
            answer: None,
            rotten: false,
            since,
            told: (Vec::new(), 0),
            learned: Known::default(),
        });
        self.save_asks(n, SaveAsk::Begin { at });
    }

    fn save_asks(&mut self, n: usize, ask: SaveAsk) {
        self.saver.tokens += 1;
        let token = self.saver.tokens;
        self.input(n, Event::Save { token, ask });
    }

    /// The node answers whoever saves it.
    pub(super) fn save_answer(&mut self, n: usize, answer: SaveAnswer) {
        let life = self.nodes[n].life;
        let Some(run) = self.saver.run.as_mut().filter(|run| (run.node, run.life) == (n, life)) else {
            return;
        };
        run.answer = Some(answer);
        let us = self.saver.prng.below(STEP);
        self.node_after(us, n, Ev::Save);
    }

    /// A save goes on.
    pub(super) fn save_step(&mut self, n: usize) {
        let Some(mut run) = self.saver.run.take() else { return };
        match run.answer.take() {
            Some(SaveAnswer::Begun { save, origin, table, up_to, .. }) => {
                (run.save, run.up_to) = (save, up_to);
                let copy = CopyBegin { origin, size: 0, table, namespace: run.definitions.clone() };
                match SetWalk::begin(super::world::PAIR, &copy, "") {
                    Ok(walk) => run.walk = Some(walk),
                    Err(error) => {
                        self.check.fail("I-30", format!("a save of node {n} cannot begin: {error}"))
                    }
                }
                let ranges = run.since_another();
                if let Err(error) = run.store.begin_copy(&copy, ranges.as_ref()) {
                    self.check.fail("driver", format!("the model store refuses a save: {error}"));
                }
            }
            Some(SaveAnswer::Batches { batches, given }) => {
                self.save_takes(n, &mut run, &batches, given);
            }
            // Users come before saves; this one is over.
            Some(SaveAnswer::Refused { .. } | SaveAnswer::Again | SaveAnswer::Early | SaveAnswer::Busy)
            | None => return,
        }
        if self.check.violation.is_some() {
            return;
        }
        let ask = self.save_next(n, &mut run);
        let over = matches!(ask, SaveAsk::End { .. });
        if over {
            self.check_save(n, &run);
            self.save_ends(run);
        } else {
            self.saver.run = Some(run);
        }
        self.save_asks(n, ask);
    }

    /// What is asked next; what is wanted is read first.
    fn save_next(&mut self, n: usize, run: &mut Run) -> SaveAsk {
        let (save, Some(walk)) = (run.save, &run.walk) else { return SaveAsk::End { save: run.save } };
        let after = walk.end().seq;
        if let Some(chunk) = &run.chunk {
            return SaveAsk::Next { save, after, up_to: chunk.at };
        }
        let (told, at) = &mut run.told;
        *at += told.iter().skip(*at).take_while(|same| is_over(same, walk.next())).count();
        if let Some(want) = walk.want() {
            run.rotten |= !self.nodes[n].rotten.is_empty() || self.nodes[n].store.has_rotten_items();
            // What cannot be read ends a save, as it does that of a node.
            let Ok(chunk) = self.nodes[n].store.range(&within(want, told.get(*at))) else {
                return SaveAsk::End { save };
            };
            let up_to = chunk.at;
            run.chunk = Some(chunk);
            return SaveAsk::Next { save, after, up_to };
        }
        match walk.until().max(run.up_to) {
            until if until > after => SaveAsk::Next { save, after, up_to: until },
            _ => SaveAsk::End { save },
        }
    }

    /// Batches, and the chunk that waited for them.
    fn save_takes(&mut self, n: usize, run: &mut Run, batches: &[Batch], given: Seq) {
        let Some(walk) = &mut run.walk else { return };
        for batch in batches {
            let walked = walk.batch(batch).map_err(|error| error.to_string());
            run.learned.batch(batch);
            let applied = run.store.apply(JournalKind::Replicated, std::slice::from_ref(batch));
            if let Err(error) = walked.and(applied.map_err(|error| error.to_string())) {
                return self.check.fail("I-30", format!("a save of node {n}: {error}"));
            }
        }
        let Some(mut chunk) = run.chunk.take_if(|chunk| walk.end().seq >= chunk.at) else { return };
        if matches!(chunk.content, Content::Blocks { .. }) {
            chunk.until = chunk.until.max(given);
        }
        let same = Same::of(&chunk);
        let told = run.told.0.get(run.told.1);
        let mut known = told.is_some_and(|told| same.is(told));
        if self.options.mutation == Some(Mutation::TakeForSame)
            && told.is_some_and(|told| Same { hash: same.hash, ..told.clone() }.is(&same) && !known)
        {
            (self.mutated, known) = (true, true);
        }
        if known {
            self.trace.sometimes("a range was as an earlier save left it");
            chunk = same.range.clone();
            run.learned.same(same);
        } else {
            run.learned.chunk(&chunk);
        }
        if let Err(error) = walk.chunk(&chunk) {
            return self.check.fail("I-30", format!("a save of node {n}: {error}"));
        }
        if known {
            chunk.content = Content::Gone;
        }
        if chunk.content.bytes() > 0 && self.options.mutation == Some(Mutation::LoseSaved) {
            self.mutated = true;
            chunk.content = Content::Gone;
        }
        if let Err(error) = run.store.take_chunk(&chunk, &walk.progress()) {
            self.check.fail("driver", format!("the model store refuses a chunk: {error}"));
        }
    }

    /// What it made is what a later save may be made since.
    fn save_ends(&mut self, run: Run) {
        let Run { store, learned, walk: Some(walk), rotten: false, .. } = run else { return };
        if walk.is_whole() {
            let (end, namespace) = (walk.end(), walk.namespace().clone());
            self.saver.base = Some(Base { store, known: learned, end, namespace });
        }
    }

    /// The history that ends there, as its sequencers made it; none if a part of it is not known.
    fn history_of(&self, end: Position) -> Option<Vec<Batch>> {
        let (mut chain, mut batches) = (end.chain.0, Vec::new());
        while chain != 0 {
            let known = self.check.history.batches.get(&(0, chain))?;
            chain = known.batch.header().prev_chain.0;
            batches.push(known.batch.clone());
        }
        batches.reverse();
        Some(batches)
    }

    /// What was saved is the state at the save's end (I-30).
    fn check_save(&mut self, n: usize, run: &Run) {
        let Some(walk) = &run.walk else { return };
        // Rotten items end a save.
        if !walk.is_whole() && run.rotten && self.options.has(Trouble::RotItems) {
            return;
        }
        if !walk.is_whole() || walk.end().seq < run.up_to {
            let text = format!("a save of node {n} is not whole at its end, entry {}", walk.end().seq);
            return self.check.fail("I-30", text);
        }
        self.trace.sometimes("a save was made");
        // What changes during a pause is in another journal, until it is copied.
        if self.operator.paused_ever {
            return;
        }
        let Some(history) = self.history_of(walk.end()) else {
            let text = format!("a save of node {n} ends at entry {}, which nobody sequenced", walk.end().seq);
            return self.check.fail("I-30", text);
        };
        let mut files = model(usize::from(NOBODY.0), history.iter());
        let mut truth = MemoryStore::new(NOBODY);
        if let Err(error) = truth.apply(JournalKind::Replicated, &history) {
            return self.check.fail("driver", format!("the model store refuses a history: {error}"));
        }
        let shared = walk.namespace().files();
        // A file that becomes replicated is whole when all of it was copied into the journal.
        for (id, info) in shared.filter(|(_, info)| info.replicated && info.dptr.state == FileState::Whole) {
            let wrong = match info.dptr.kind {
                DptrKind::Blocks => {
                    let len = usize::try_from(info.dptr.blocks * 4096).unwrap_or(0);
                    !run.rotten && run.store.volume_bytes(id, 0, len) != truth.volume_bytes(id, 0, len)
                }
                _ => {
                    let found: Items =
                        run.store.items(id).into_iter().map(|(id, v)| (id.to_vec(), v.to_vec())).collect();
                    found != files.remove(&id.0).unwrap_or_default()
                }
            };
            if wrong {
                let end = walk.end().seq;
                let text =
                    format!("a save of node {n} has another content of {} than entry {end} had", info.key);
                return self.check.fail("I-30", text);
            }
        }
    }
}
