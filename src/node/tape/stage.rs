//! The way of a save to its reels: blocks wait in memory for the thread that owns the drive.
//!
//! A drive that gets less than it can take stops, goes back and starts again, which wears it out. So its thread begins when
//! three quarters of the stage are full, and goes on until it is empty. Blocks that were written and not flushed are kept
//! beside it, in the other half of the memory.

use super::shelf::{Operator, wall_ms};
use super::{Place, TapeError, TapeOptions, scan};
use crate::base::{Epoch, Ordinal, Seq};
use crate::format::PairId;
use crate::format::reel::ReelLabel;
use crate::format::set::SetId;
use crate::node::identity::random;
use crate::tape::{
    Block, Found, Packer, PartIndex, Purpose, ReelSet, SPOOL_NAME, Shelf, SpanWriter, StreamIndex, Want,
    WriteOrder, find_tail,
};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// How a save goes to reels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapeOrder {
    /// Where the reels are, and what is allowed.
    pub options: TapeOptions,
    /// Behind what is on them, instead of beginning a set.
    pub append: bool,
    /// A reel gets no more than this (bytes).
    pub reel_size: Option<u64>,
    /// Size of full blocks (bytes).
    pub block_size: u32,
    /// Memory for blocks (bytes).
    pub stage: u64,
    /// What reels are called.
    pub name: String,
}

/// What is being saved.
#[derive(Clone, Debug)]
pub(in crate::node) struct About {
    /// Of parts of a spool, whose they are; none of a save.
    pub(in crate::node) spool: Option<Ordinal>,
    pub(in crate::node) save: SetId,
    pub(in crate::node) pair: PairId,
    pub(in crate::node) epoch: Epoch,
    pub(in crate::node) seq: Seq,
    pub(in crate::node) node: String,
}

#[derive(Default)]
struct Queue {
    blocks: VecDeque<Block>,
    bytes: u64,
    /// Nothing more comes.
    closed: bool,
    /// The save is given up.
    abandoned: bool,
    /// The thread ended.
    over: bool,
}

#[derive(Default)]
struct Stage {
    queue: Mutex<Queue>,
    changed: Condvar,
    /// Bytes at which the drive begins, and at which the save waits.
    high: u64,
    most: u64,
    /// The sequence of the next block that has to count.
    kept: AtomicU64,
}

/// Says when the thread ends, however it ends.
struct Over(Arc<Stage>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.queue().over = true;
        self.0.changed.notify_all();
    }
}

impl Stage {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner)
    }

    /// The next block; none at the end, or when the save is given up. `idle` says that the drive stands still.
    fn take(&self, idle: &mut bool) -> Option<Block> {
        let mut queue = self.queue();
        loop {
            if queue.abandoned {
                return None;
            }
            let wanted = if *idle { self.high } else { 1 };
            if queue.bytes >= wanted || queue.closed {
                let block = queue.blocks.pop_front()?;
                queue.bytes -= block.len() as u64;
                *idle = false;
                self.changed.notify_all();
                return Some(block);
            }
            *idle = true;
            queue = self.wait(queue);
        }
    }
}

/// Writes a save to reels.
pub struct TapeWriter {
    packer: Packer,
    index: StreamIndex,
    parts: Option<PartIndex>,
    stage: Arc<Stage>,
    thread: Option<JoinHandle<Result<(), TapeError>>>,
    shelf: Operator,
    set: SetId,
    save: SetId,
}

impl std::fmt::Debug for TapeWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TapeWriter({:?})", self.packer)
    }
}

impl TapeWriter {
    /// Begins a save: finds the end of what is there if it is appended to, else begins a set of reels.
    pub(in crate::node) fn begin(order: &TapeOrder, about: &About) -> Result<Self, TapeError> {
        let shelf = Operator::new(&order.options)?;
        let mut label = label_of(order, about);
        let unflushed = order.stage / 2;
        let (set, writer) = if order.append {
            let (set, drive, tail, found) = end_of(&shelf, about.spool)?;
            fits(&label, &found)?;
            (label.block_size, label.name) = (found.block_size, base_name(&found.name, tail.reel));
            let write = write_order(order, (set, about.save), &label, unflushed);
            (set, SpanWriter::resume(shelf.clone(), write, drive, &tail))
        } else {
            let set = new_set()?;
            let write = write_order(order, (set, about.save), &label, unflushed);
            (set, SpanWriter::new(shelf.clone(), write))
        };
        let key = order.options.key.as_ref().map(|key| key.of_session(about.save));
        let packer = Packer::new((set, about.save), writer.next(), label.block_size, key);
        let most = unflushed.max(2 * u64::from(label.block_size));
        Self::start(shelf, writer, packer, (most / 4 * 3, most), (set, about))
    }

    /// Starts the drive's thread, which begins to write when `high` bytes wait; [`Self::write`] waits at `most`.
    pub(super) fn start(
        shelf: Operator,
        writer: SpanWriter<Operator>,
        packer: Packer,
        (high, most): (u64, u64),
        (set, about): (SetId, &About),
    ) -> Result<Self, TapeError> {
        let streams = matches!(shelf.options.place, Place::Device(_));
        let high = if streams { high } else { 1 };
        let kept = AtomicU64::new(writer.next().0);
        let stage = Arc::new(Stage { high, most, kept, ..Stage::default() });
        let (index, save) = (StreamIndex::default(), about.save);
        let parts = about.spool.map(|_| PartIndex::default());
        let for_thread = Arc::clone(&stage);
        let spawned = std::thread::Builder::new().name("tape".to_owned()).spawn(move || {
            let over = Over(for_thread);
            work(writer, &over.0)
        });
        let failed =
            |source| TapeError::Io { doing: "starting", what: "the thread of the drive".to_owned(), source };
        Ok(Self { packer, index, parts, stage, thread: Some(spawned.map_err(failed)?), shelf, set, save })
    }

    /// The sequence of the next block that has to count.
    pub(super) fn kept(&self) -> u64 {
        self.stage.kept.load(Ordering::Acquire)
    }

    /// Whether the drive's thread has ended: all is written after [`Self::close`], or it failed.
    pub(super) fn is_over(&self) -> bool {
        self.stage.queue().over
    }

    /// Whether what was written is this set with its trailer, or whole parts. Of a stream that was begun by another writer
    /// nobody knows.
    pub(super) fn is_whole(&self) -> bool {
        if let Some(parts) = &self.parts {
            return parts.is_whole();
        }
        self.index.header().is_some_and(|header| header.set == self.save) && self.index.trailer().is_some()
    }

    /// Writes the catalogue.
    pub(super) fn note(&self) -> Result<(), TapeError> {
        self.shelf.catalogue().store()
    }

    /// Takes the next bytes of the save; waits while the stage is full.
    ///
    /// # Errors
    /// [`TapeError`]: the drive's thread ended.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), TapeError> {
        match &mut self.parts {
            Some(parts) => parts.feed(bytes),
            None => self.index.feed(bytes),
        }
        let mut rest = bytes;
        while let Some(block) = self.packer.push(&mut rest) {
            self.put(block)?;
        }
        Ok(())
    }

    fn put(&mut self, block: Block) -> Result<(), TapeError> {
        let mut queue = self.stage.queue();
        while queue.bytes >= self.stage.most && !queue.over {
            queue = self.stage.wait(queue);
        }
        if queue.over {
            drop(queue);
            return self.join();
        }
        queue.bytes += block.len() as u64;
        queue.blocks.push_back(block);
        drop(queue);
        self.stage.changed.notify_all();
        Ok(())
    }

    fn join(&mut self) -> Result<(), TapeError> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(()),
        }
    }

    /// Ends the save.
    ///
    /// # Durability
    /// When it returns, every block is on a reel, by the drive's own word, and the catalogue is synced.
    ///
    /// # Errors
    /// [`TapeError`].
    pub fn finish(&mut self) -> Result<(), TapeError> {
        self.close()?;
        self.conclude()
    }

    /// Hands over what is left, and the end. The drive may not have it yet.
    pub(super) fn close(&mut self) -> Result<(), TapeError> {
        let (last, end) = self.packer.finish();
        for block in last.into_iter().chain([end]) {
            self.put(block)?;
        }
        self.stage.queue().closed = true;
        self.stage.changed.notify_all();
        Ok(())
    }

    /// Waits for the drive, and notes what the save holds.
    pub(super) fn conclude(&mut self) -> Result<(), TapeError> {
        self.join()?;
        let mut catalogue = self.shelf.catalogue();
        if let Some(set) = catalogue.held.find_mut(self.set) {
            match &self.parts {
                Some(parts) => set.note_parts(self.save, parts.parts()),
                None => set.note_content(self.save, &self.index),
            }
        }
        catalogue.store()
    }
}

impl Drop for TapeWriter {
    fn drop(&mut self) {
        self.shelf.stopped.store(true, Ordering::Relaxed);
        self.stage.queue().abandoned = true;
        self.stage.changed.notify_all();
        // Half a save has no end on its reels, and is told as such; why it was given up was said already.
        let _ = self.join();
    }
}

/// What the labels of the reels say.
pub(super) fn label_of(order: &TapeOrder, about: &About) -> ReelLabel {
    ReelLabel {
        pair: about.pair,
        epoch: about.epoch,
        seq: about.seq,
        wall_ms: wall_ms(),
        block_size: order.block_size,
        key: order.options.key.as_ref().map_or(0, crate::tape::Key::id),
        name: about.spool.map_or_else(|| order.name.clone(), |of| format!("{SPOOL_NAME}{}", of.0)),
        node: about.node.clone(),
    }
}

/// A number for a set of reels.
pub(super) fn new_set() -> Result<SetId, TapeError> {
    let mut id = [0; 16];
    random(&mut id).map_err(|error| TapeError::Unfit {
        what: "beginning a set of reels".to_owned(),
        why: error.to_string(),
        next: "begin again",
    })?;
    Ok(SetId(id))
}

/// How blocks of this session go to reels of this set.
pub(super) fn write_order(
    order: &TapeOrder,
    (set, session): (SetId, SetId),
    label: &ReelLabel,
    unflushed: u64,
) -> WriteOrder {
    WriteOrder { set, session, label: label.clone(), cap: order.reel_size, unflushed }
}

fn work(mut writer: SpanWriter<Operator>, stage: &Stage) -> Result<(), TapeError> {
    let mut idle = true;
    while let Some(block) = stage.take(&mut idle) {
        writer.put(block)?;
        stage.kept.store(writer.next().0, Ordering::Release);
    }
    if !stage.queue().abandoned {
        writer.flush(1)?;
    }
    writer.close();
    Ok(())
}

/// The name without the number that a label has behind it.
pub(super) fn base_name(name: &str, reel: u32) -> String {
    name.strip_suffix(&format!(" {reel}")).unwrap_or(name).to_owned()
}

pub(super) fn fits(wanted: &ReelLabel, found: &ReelLabel) -> Result<(), TapeError> {
    let unfit =
        |why: String, next| Err(TapeError::Unfit { what: "appending to these reels".to_owned(), why, next });
    if wanted.pair != found.pair {
        let why = format!("they are of pair {}", found.pair);
        return unfit(why, "begin a new set on other reels: leave out --append");
    }
    if wanted.key != found.key {
        return unfit(
            "they are written with another key, or with none".to_owned(),
            "give --encrypt the key file of those reels, or begin a new set on others",
        );
    }
    Ok(())
}

pub(super) type End = (SetId, Box<dyn crate::tape::Drive>, crate::tape::Tail, ReelLabel);

/// The end of the newest set, with the drive there.
pub(super) fn end_of(shelf: &Operator, spool: Option<Ordinal>) -> Result<End, TapeError> {
    let is_device = matches!(shelf.options.place, Place::Device(_));
    if !shelf.catalogue().found && !is_device {
        let scanned = scan(&shelf.options)?;
        shelf.catalogue().held = scanned.catalogue;
    }
    let is_such = |set: &&ReelSet| set.spool_of() == spool.map(|of| of.0);
    let newest = shelf.catalogue().held.sets.iter().rfind(is_such).map(|set| {
        let last = set.reels.last();
        (set.number(), last.map_or(0, |reel| reel.number), last.map_or(0, |reel| reel.next))
    });
    let (set, reel, expected) = match newest {
        Some(newest) => newest,
        None if is_device => (SetId::default(), 0, 0),
        None => {
            return Err(TapeError::NoSave { what: "reels to append to".to_owned() });
        }
    };
    let why = "the next save follows what is on it".to_owned();
    let want = Want { set, reel, purpose: Purpose::Append, why };
    let (mut drive, found) = shelf.clone().mount(&want)?;
    let Found::Labelled(label) = found else {
        unreachable!("a reel that is appended to was judged by its label")
    };
    let (head, label) = *label;
    let tail = find_tail(&mut *drive, &head).map_err(|error| TapeError::Tail { reel: head.reel, error })?;
    if tail.next.0 < expected {
        return Err(TapeError::SetBack { reel: head.reel, expected: expected - 1 });
    }
    let mut catalogue = shelf.catalogue();
    let noted = catalogue.held.set_mut(head.set, &label);
    if noted.reels.iter().all(|reel| reel.number != head.reel) {
        noted.note_label(&head, &label);
    }
    Ok((head.set, drive, tail, label))
}
