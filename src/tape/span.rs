//! Fills reel after reel.
//!
//! ```text
//!   none --mount, label--> writing --early warning, no space, size--> closing --trailer, flush--> none, next reel
//!                             |                                          |
//!                             +---------------- any fault ---------------+--> disarm, prove what counts --> none, next reel
//! ```

use super::mount::{Purpose, Shelf, ShelfError, Want};
use super::{Block, Drive, Fault, Found, Got, Wrote};
use crate::base::limits::{REEL_BLOCK_MAX, TAPE_FAILURES_MAX, TAPE_TAIL_MAX};
use crate::base::{Chain, shown};
use crate::format::reel::{ReelBlock, ReelKind, ReelLabel};
use crate::format::set::SetId;
use std::collections::VecDeque;

/// What is written, and how.
#[derive(Clone, Debug)]
pub struct WriteOrder {
    /// The reel set.
    pub set: SetId,
    /// The session.
    pub session: SetId,
    /// What labels say; the name gets the reel's number.
    pub label: ReelLabel,
    /// A reel gets no more than this (bytes), whatever the drive says.
    pub cap: Option<u64>,
    /// What is not flushed at most (bytes).
    pub unflushed: u64,
}

/// What a writer did, for the catalogue and for people.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A reel got its label.
    Began(ReelBlock, ReelLabel),
    /// A block is on its reel, at this position.
    Kept(ReelBlock, u64),
    /// A reel is full, and has its trailer or not.
    Full {
        /// The reel.
        reel: u32,
        /// The trailer's head, if the drive took it.
        trailer: Option<ReelBlock>,
    },
    /// A reel is not written to any more. What counts on it was read back.
    Failed {
        /// The reel.
        reel: u32,
        /// Why.
        fault: Fault,
    },
    /// The TapeAlert flags of the drive that is done with a reel.
    Alerts(Vec<u8>),
}

/// Why nothing more can be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpanError {
    /// No reel.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    /// What was on a reel is not there any more.
    #[error("writing reel {reel}: {fault}; what was written to it before cannot be read back ({why})")]
    Lost {
        /// The reel.
        reel: u32,
        /// What happened first.
        fault: Fault,
        /// How the loss was seen.
        why: String,
    },
    /// Reels in a row took nothing.
    #[error("writing reel {reel}: {fault}; {} took nothing", shown::counted(TAPE_FAILURES_MAX.into(), "reel in a row", "reels in a row"))]
    GivenUp {
        /// The last one.
        reel: u32,
        /// Why.
        fault: Fault,
    },
}

/// The reel in the drive.
struct OnReel {
    drive: Box<dyn Drive>,
    /// Where the drive has to be.
    position: u64,
    /// Bytes on the reel.
    bytes: u64,
    /// The reel's first block.
    first: u64,
    /// The last block that counts, and its position.
    kept: Option<(u64, u64)>,
}

/// Writes one session to as many reels as it takes.
pub struct SpanWriter<S: Shelf> {
    shelf: S,
    order: WriteOrder,
    reel: Option<OnReel>,
    /// Of the reel in the drive, or of the last one.
    number: u32,
    /// What does not count yet, in order.
    pending: VecDeque<Block>,
    /// So many of them stand on the reel.
    written: usize,
    /// Bytes of those.
    unflushed: u64,
    /// The next block that has to count.
    next: (u64, Chain),
    failures: u32,
}

impl<S: Shelf> std::fmt::Debug for SpanWriter<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SpanWriter(reel {}, block {})", self.number, self.next.0)
    }
}

/// Where a set ends on the reel in the drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The reel.
    pub reel: u32,
    /// The next block's sequence and chain.
    pub next: (u64, Chain),
    /// The reel's first block.
    pub first: u64,
    /// The last block and its position; none if the reel has none.
    pub last: Option<(u64, u64)>,
    /// Where to go on.
    pub position: u64,
    /// The reel says that the set goes on on the next one.
    pub ended: bool,
}

/// Why the end of a set cannot be found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TailError {
    /// The drive.
    #[error("{0}")]
    Drive(#[from] Fault),
    /// The blocks at its end are damaged.
    #[error("its last {TAPE_TAIL_MAX} blocks cannot be read")]
    Damaged,
}

/// Finds the end of what is on the reel in the drive, whose label is `head`, and goes there.
///
/// # Errors
/// [`TailError`].
pub fn find_tail(drive: &mut dyn Drive, head: &ReelBlock) -> Result<Tail, TailError> {
    drive.end()?;
    let end = drive.position()?;
    let mut block = vec![0; REEL_BLOCK_MAX];
    let none = Tail {
        reel: head.reel,
        next: (head.sequence, head.chain),
        first: head.sequence,
        last: None,
        position: end,
        ended: false,
    };
    let (mut at, mut damaged) = (end, 0);
    while at > 1 && damaged < TAPE_TAIL_MAX {
        at -= 1;
        drive.seek(at)?;
        let found = match drive.read(&mut block) {
            Ok(Got::Mark) => continue,
            Ok(Got::Block(len)) => ReelBlock::decode(block.get(..len).unwrap_or_default()).ok(),
            Err(_) => None,
        };
        let Some((found, _)) = found.filter(|(found, _)| found.set == head.set && found.reel == head.reel)
        else {
            damaged += 1;
            continue;
        };
        // What stands behind the last whole block is cut off, but not the marks, which cost nothing.
        let position = if damaged > 0 { at + 1 } else { end };
        drive.seek(position)?;
        let ended = found.kind == ReelKind::ReelEnd;
        let last = found.kind.is_numbered().then_some((found.sequence, at));
        return Ok(Tail {
            next: (found.sequence_behind(), found.chain_behind()),
            last,
            position,
            ended,
            ..none
        });
    }
    if damaged > 0 && at > 1 {
        return Err(TailError::Damaged);
    }
    let position = if damaged > 0 { 2.min(end) } else { end };
    drive.seek(position)?;
    Ok(Tail { position, ..none })
}

impl<S: Shelf> SpanWriter<S> {
    /// Begins a set, on its first reel.
    #[must_use]
    pub fn new(shelf: S, order: WriteOrder) -> Self {
        let next = (0, Chain(0));
        let (pending, written, unflushed) = (VecDeque::new(), 0, 0);
        Self { shelf, order, reel: None, number: 0, pending, written, unflushed, next, failures: 0 }
    }

    /// Goes on behind a reel that is full or failed, on the next one.
    #[must_use]
    pub fn after(shelf: S, order: WriteOrder, tail: &Tail) -> Self {
        let mut this = Self::new(shelf, order);
        (this.number, this.next) = (tail.reel, tail.next);
        this
    }

    /// Goes on at the end of a set, on the reel in the drive, which stands there.
    #[must_use]
    pub fn resume(shelf: S, order: WriteOrder, drive: Box<dyn Drive>, tail: &Tail) -> Self {
        let mut this = Self::new(shelf, order);
        (this.number, this.next) = (tail.reel, tail.next);
        if !tail.ended {
            let (position, first, kept) = (tail.position, tail.first, tail.last);
            // What a cap counts is not known here; blocks of full size are the most that it can be.
            let bytes = position * u64::from(this.order.label.block_size);
            this.reel = Some(OnReel { drive, position, bytes, first, kept });
        }
        this
    }

    /// The reel in the drive holds so much (bytes), as who went on on it knows better than its positions tell.
    pub fn holds(&mut self, bytes: u64) {
        self.reel.iter_mut().for_each(|reel| reel.bytes = bytes);
    }

    /// The sequence and the chain of the next block that has to count.
    #[must_use]
    pub fn next(&self) -> (u64, Chain) {
        self.next
    }

    /// Bytes of blocks that are not flushed yet.
    #[must_use]
    pub fn unflushed(&self) -> u64 {
        self.unflushed
    }

    /// Writes a block, and flushes when much is not.
    ///
    /// # Errors
    /// [`SpanError`]: nothing more can be written.
    pub fn put(&mut self, block: Block) -> Result<(), SpanError> {
        self.pending.push_back(block);
        self.pump()?;
        if self.unflushed >= self.order.unflushed { self.flush(0) } else { Ok(()) }
    }

    /// Makes all that was put count, with so many filemarks behind it.
    ///
    /// # Errors
    /// [`SpanError`].
    ///
    /// # Durability
    /// When it returns, every block is on a reel, by the drive's own word.
    pub fn flush(&mut self, marks: u32) -> Result<(), SpanError> {
        loop {
            self.pump()?;
            if self.written == 0 {
                return Ok(());
            }
            let Some(reel) = &mut self.reel else { continue };
            match synced(reel, marks) {
                Ok(()) => self.keep(marks),
                Err(fault) => self.fail(fault)?,
            }
        }
    }

    /// Lets go of the last reel, which stays in the drive.
    pub fn close(mut self) -> S {
        if let Some(mut reel) = self.reel.take() {
            // All that counts was flushed: what goes wrong now takes nothing away.
            let _ = reel.drive.lock(false);
        }
        self.shelf
    }

    fn pump(&mut self) -> Result<(), SpanError> {
        while self.written < self.pending.len() {
            if self.reel.is_none() {
                self.next_reel()?;
            }
            match self.write_one() {
                Ok(true) => {}
                Ok(false) => self.end_reel()?,
                Err(fault) => self.fail(fault)?,
            }
        }
        Ok(())
    }

    /// Writes the next block; false if the reel is full.
    fn write_one(&mut self) -> Result<bool, Fault> {
        let (Some(reel), Some(block)) = (&mut self.reel, self.pending.get_mut(self.written)) else {
            return Ok(true);
        };
        let (len, trailer) = (block.len() as u64, u64::from(self.order.label.block_size));
        let any = self.written > 0 || reel.kept.is_some();
        if any && self.order.cap.is_some_and(|cap| reel.bytes + len + trailer > cap) {
            return Ok(false);
        }
        let wrote = match reel.drive.write(block.on_reel(self.number)) {
            Err(Fault::NoSpace) => return Ok(false),
            other => other?,
        };
        reel.position += 1;
        reel.bytes += len;
        self.written += 1;
        self.unflushed += len;
        Ok(wrote == Wrote::Block)
    }

    /// Closes a full reel: trailer, flush, out.
    fn end_reel(&mut self) -> Result<(), SpanError> {
        let Some(reel) = &mut self.reel else { return Ok(()) };
        let next = match self.written.checked_sub(1).and_then(|at| self.pending.get(at)) {
            Some(block) => (block.header.sequence_behind(), block.header.chain_behind()),
            None => self.next,
        };
        let mut trailer =
            Block::reel_end((self.order.set, self.order.session), self.number, next, reel.first);
        match trailed(reel, trailer.on_reel(self.number)) {
            Err(fault) => self.fail(fault),
            Ok(took) => {
                let number = self.number;
                if self.written == 0 && reel.kept.is_none() {
                    return self.fail(Fault::NoSpace);
                }
                let trailer = took.then_some(trailer.header);
                self.keep(1);
                self.shelf.tell(&Event::Full { reel: number, trailer });
                if let Some(mut reel) = self.reel.take() {
                    reel.drive.disarm();
                    self.shelf.tell(&Event::Alerts(reel.drive.alerts()));
                    let _ = reel.drive.lock(false).and_then(|()| reel.drive.eject());
                }
                Ok(())
            }
        }
    }

    /// All that is written counts: a flush succeeded, and the drive is where it has to be (I-38).
    fn keep(&mut self, marks: u32) {
        let Some(reel) = &mut self.reel else { return };
        // Behind the blocks stand a trailer, if there is one, and the marks; none of them counts here.
        let first = reel.position - u64::from(marks) - self.written as u64;
        for (at, block) in self.pending.drain(..self.written).enumerate() {
            let position = first + at as u64;
            self.next = (block.header.sequence_behind(), block.header.chain_behind());
            reel.kept = Some((block.header.sequence, position));
            self.shelf.tell(&Event::Kept(block.header, position));
        }
        (self.written, self.unflushed, self.failures) = (0, 0, 0);
    }

    /// Nothing more is written to this reel: disarm, prove that what counts is there, go on with another one.
    fn fail(&mut self, fault: Fault) -> Result<(), SpanError> {
        let Some(mut reel) = self.reel.take() else { return Ok(()) };
        reel.drive.disarm();
        let number = self.number;
        let label = has_label(&mut *reel.drive, (self.order.set, number));
        let lost = reel.kept.and_then(|(sequence, position)| {
            label.clone().and_then(|()| proven(&mut *reel.drive, sequence, position)).err()
        });
        self.shelf.tell(&Event::Alerts(reel.drive.alerts()));
        if let Some(why) = lost {
            return Err(SpanError::Lost { reel: number, fault, why });
        }
        let _ = reel.drive.lock(false).and_then(|()| reel.drive.eject());
        (self.written, self.unflushed) = (0, 0);
        self.failures += 1;
        self.shelf.tell(&Event::Failed { reel: number, fault: fault.clone() });
        if self.failures >= TAPE_FAILURES_MAX {
            return Err(SpanError::GivenUp { reel: number, fault });
        }
        if label.is_err() {
            // It is no reel of the set: the next one takes its place.
            self.number -= 1;
        }
        Ok(())
    }

    fn next_reel(&mut self) -> Result<(), SpanError> {
        self.number += 1;
        let why = match self.number {
            1 => "the set begins".to_owned(),
            more => format!("reel {} is full or failed", more - 1),
        };
        let want = Want { set: self.order.set, reel: self.number, purpose: Purpose::Write, why };
        let (drive, _) = self.shelf.mount(&want)?;
        let name = format!("{} {}", self.order.label.name, self.number);
        let label = ReelLabel { name, ..self.order.label.clone() };
        let mut block = Block::label(self.order.set, self.number, self.next, &label);
        let mut reel = OnReel { drive, position: 0, bytes: 0, first: self.next.0, kept: None };
        let labelled = labelled(&mut reel, block.on_reel(self.number));
        self.reel = Some(reel);
        match labelled {
            Ok(()) => self.shelf.tell(&Event::Began(block.header, label)),
            Err(fault) => self.fail(fault)?,
        }
        Ok(())
    }
}

fn synced(reel: &mut OnReel, marks: u32) -> Result<(), Fault> {
    reel.drive.marks(marks)?;
    reel.position += u64::from(marks);
    let found = reel.drive.position()?;
    if found == reel.position { Ok(()) } else { Err(Fault::Moved { expected: reel.position, found }) }
}

fn labelled(reel: &mut OnReel, label: &[u8]) -> Result<(), Fault> {
    reel.drive.rewind()?;
    reel.drive.lock(true)?;
    reel.drive.write(label)?;
    (reel.position, reel.bytes) = (1, label.len() as u64);
    synced(reel, 1)
}

/// Writes the trailer, if the drive takes it, and flushes; whether it took it.
fn trailed(reel: &mut OnReel, trailer: &[u8]) -> Result<bool, Fault> {
    // The first answer behind an early warning is "no space" without a try; the second one is the end of the reel.
    let took = match reel.drive.write(trailer) {
        Err(Fault::NoSpace) => match reel.drive.write(trailer) {
            Err(Fault::NoSpace) => false,
            other => other.map(|_| true)?,
        },
        other => other.map(|_| true)?,
    };
    reel.position += u64::from(took);
    synced(reel, 1)?;
    if took {
        // Positions of blocks are counted back from here.
        reel.position -= 1;
    }
    Ok(took)
}

/// Whether the reel still has its label.
fn has_label(drive: &mut dyn Drive, (set, number): (SetId, u32)) -> Result<(), String> {
    match super::identify(drive).map_err(|fault| fault.to_string())? {
        (Found::Labelled(label), _) if label.0.set == set && label.0.reel == number => Ok(()),
        _ => Err("its label is gone".to_owned()),
    }
}

/// Whether this block is at its place.
pub(super) fn proven(drive: &mut dyn Drive, sequence: u64, position: u64) -> Result<(), String> {
    let told = |fault: Fault| fault.to_string();
    drive.seek(position).map_err(told)?;
    let mut block = vec![0; REEL_BLOCK_MAX];
    let Got::Block(len) = drive.read(&mut block).map_err(told)? else {
        return Err("a filemark stands where its last block was".to_owned());
    };
    let read = ReelBlock::decode(block.get(..len).unwrap_or_default());
    let (header, _) = read.map_err(|error| error.to_string())?;
    if header.sequence == sequence {
        Ok(())
    } else {
        Err(format!("block {} stands where block {sequence} was", header.sequence))
    }
}
