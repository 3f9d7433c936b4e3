//! Reads reels: one from its label to its end, or a session from block to block over as many as it takes.

use super::mount::{Purpose, Shelf, ShelfError, Want};
use super::{Drive, Event, Fault, Found, Got};
use crate::base::Chain;
use crate::base::limits::REEL_BLOCK_MAX;
use crate::format::reel::{ReelBlock, ReelKind, ReelLabel};
use crate::format::set::SetId;

/// What comes next on a reel.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// A block of the reel's set, at this position.
    Block(ReelBlock, u64),
    /// Something that cannot be read, at this position.
    Bad {
        /// Where.
        position: u64,
        /// Why.
        why: String,
    },
    /// Nothing more.
    End,
}

/// Reads the reel in a drive. Filemarks tell it nothing.
pub struct ReelReader {
    drive: Box<dyn Drive>,
    label: (ReelBlock, ReelLabel),
    position: u64,
    block: Vec<u8>,
    payload: std::ops::Range<usize>,
}

impl std::fmt::Debug for ReelReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReelReader(reel {}, position {})", self.label.0.reel, self.position)
    }
}

impl ReelReader {
    /// Of a drive that stands behind this label.
    #[must_use]
    pub fn new(drive: Box<dyn Drive>, label: (ReelBlock, ReelLabel)) -> Self {
        Self { drive, label, position: 1, block: vec![0; REEL_BLOCK_MAX], payload: 0..0 }
    }

    /// The reel's label.
    #[must_use]
    pub fn label(&self) -> &(ReelBlock, ReelLabel) {
        &self.label
    }

    /// The payload of the block that was read last, as it stands there.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.block.get(self.payload.clone()).unwrap_or_default()
    }

    /// The TapeAlert flags of the drive.
    #[must_use]
    pub fn alerts(&mut self) -> Vec<u8> {
        self.drive.alerts()
    }

    /// The drive again.
    #[must_use]
    pub fn into_drive(self) -> Box<dyn Drive> {
        self.drive
    }

    /// Goes to a position.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn seek(&mut self, position: u64) -> Result<(), Fault> {
        if self.position != position {
            self.drive.seek(position)?;
            self.position = position;
        }
        Ok(())
    }

    /// Reads on.
    ///
    /// # Errors
    /// [`Fault`], where the drive cannot even tell where it is.
    pub fn step(&mut self) -> Result<Step, Fault> {
        loop {
            let position = self.position;
            let read = self.drive.read(&mut self.block);
            match read {
                Ok(Got::Mark) => self.position += 1,
                Ok(Got::Block(len)) => {
                    self.position += 1;
                    let block = self.block.get(..len).unwrap_or_default();
                    return Ok(match ReelBlock::decode(block) {
                        Ok((header, payload)) if self.belongs(&header) => {
                            let end = crate::format::reel::REEL_HEADER + payload.len();
                            self.payload = crate::format::reel::REEL_HEADER..end;
                            Step::Block(header, position)
                        }
                        Ok((header, _)) => {
                            let why = format!("it belongs to reel {} of set {}", header.reel, header.set);
                            Step::Bad { position, why }
                        }
                        Err(error) => Step::Bad { position, why: error.to_string() },
                    });
                }
                Err(Fault::NoMedium) => return Err(Fault::NoMedium),
                Err(Fault::Busy) => return Err(Fault::Busy),
                Err(fault) => return self.past(position, &fault),
            }
        }
    }

    fn belongs(&self, header: &ReelBlock) -> bool {
        header.set == self.label.0.set && header.reel == self.label.0.reel && header.kind != ReelKind::Label
    }

    /// Tells the end of what is written from a block that cannot be read, by where the drive is then.
    fn past(&mut self, position: u64, fault: &Fault) -> Result<Step, Fault> {
        self.drive.disarm();
        let found = self.drive.position()?;
        self.drive.end()?;
        let end = self.drive.position()?;
        if position >= end {
            self.position = end;
            return Ok(Step::End);
        }
        // Some drives stand behind what they could not read, some before it.
        self.position = found.max(position + 1).min(end);
        self.drive.seek(self.position)?;
        Ok(Step::Bad { position, why: fault.to_string() })
    }
}

/// Blocks that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The reel.
    pub reel: u32,
    /// Position on the reel; none if the whole reel is meant.
    pub position: Option<u64>,
    /// The first block.
    pub first: u64,
    /// Behind the last block.
    pub next: u64,
    /// Why.
    pub why: String,
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { reel, position, first, next, why } = self;
        match position {
            Some(position) => write!(f, "reel {reel}, position {position}")?,
            None => write!(f, "reel {reel}")?,
        }
        match next - first {
            0 => write!(f, ": {why}"),
            1 => write!(f, ", block {first} of the set: {why}"),
            _ => write!(f, ", blocks {first} to {} of the set: {why}", next - 1),
        }
    }
}

/// Why a session cannot be read on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// No reel.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    /// The drive.
    #[error("reading reel {reel}: {fault}")]
    Drive {
        /// The reel.
        reel: u32,
        /// Why.
        fault: Fault,
    },
    /// Blocks are lost, and none may be.
    #[error("{0}")]
    Lost(Loss),
}

/// Where a block is, as far as that is known: reel and position.
pub type Locate = Box<dyn Fn(u64) -> Option<(u32, u64)> + Send>;

/// Reads the blocks of one session in order, each number once, from reel to reel.
pub struct SpanReader<S: Shelf> {
    shelf: S,
    set: SetId,
    /// The next block that is wanted, and behind the last one.
    wanted: std::ops::Range<u64>,
    locate: Locate,
    reel: Option<ReelReader>,
    /// The next reel, if nothing tells better.
    number: u32,
    /// Behind the block that was read last.
    chain: Option<Chain>,
    /// Whether losses are noted and gone past.
    lenient: bool,
    losses: Vec<Loss>,
    /// What could not be read since the last block: position, and why.
    bad: Option<(Option<u64>, String)>,
}

impl<S: Shelf> std::fmt::Debug for SpanReader<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SpanReader(blocks {:?})", self.wanted)
    }
}

impl<S: Shelf> SpanReader<S> {
    /// Reads these blocks of a set. `lenient` goes past what is lost, and notes it.
    #[must_use]
    pub fn new(shelf: S, set: SetId, wanted: std::ops::Range<u64>, locate: Locate, lenient: bool) -> Self {
        let number = locate(wanted.start).map_or(1, |(reel, _)| reel);
        let (reel, chain, losses, bad) = (None, None, Vec::new(), None);
        Self { shelf, set, wanted, locate, reel, number, chain, lenient, losses, bad }
    }

    /// What was lost so far.
    #[must_use]
    pub fn losses(&self) -> &[Loss] {
        &self.losses
    }

    /// The payload of the block that was read last.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.reel.as_ref().map(ReelReader::payload).unwrap_or_default()
    }

    /// The block that comes next.
    #[must_use]
    pub fn wanted(&self) -> u64 {
        self.wanted.start
    }

    /// The blocks that come next and stand on the same reel, as far as that is known.
    #[must_use]
    pub fn missing(&self) -> std::ops::Range<u64> {
        let start = self.wanted.start;
        match (self.locate)(start) {
            Some((reel, _)) => start..self.on_reel(reel),
            None => start..start,
        }
    }

    /// Goes on with this block.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn seek(&mut self, sequence: u64) -> Result<(), ReadError> {
        if sequence == self.wanted.start {
            return Ok(());
        }
        self.wanted.start = sequence;
        self.chain = None;
        if let Some((number, _)) = (self.locate)(sequence)
            && self.reel.as_ref().is_some_and(|reel| reel.label().0.reel != number)
        {
            self.leave(number);
        }
        self.place()
    }

    /// Puts the reel in the drive where the wanted block is, if that is known.
    fn place(&mut self) -> Result<(), ReadError> {
        let Some(reel) = &mut self.reel else { return Ok(()) };
        let number = reel.label().0.reel;
        match (self.locate)(self.wanted.start) {
            Some((there, position)) if there == number => {
                reel.seek(position).map_err(|fault| ReadError::Drive { reel: number, fault })
            }
            _ => Ok(()),
        }
    }

    fn leave(&mut self, next: u32) {
        self.number = next;
        if let Some(mut reel) = self.reel.take() {
            self.shelf.tell(&Event::Alerts(reel.alerts()));
            let mut drive = reel.into_drive();
            // It is only read: what the drive says now changes nothing.
            let _ = drive.eject();
        }
    }

    /// The next block; none behind the last one.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn next_block(&mut self) -> Result<Option<ReelBlock>, ReadError> {
        loop {
            if self.wanted.is_empty() {
                return Ok(None);
            }
            let Some(reel) = &mut self.reel else {
                self.mount()?;
                continue;
            };
            let number = reel.label().0.reel;
            match reel.step().map_err(|fault| ReadError::Drive { reel: number, fault })? {
                Step::Block(header, _) if header.kind == ReelKind::ReelEnd => self.ends(number)?,
                Step::Block(header, position) => {
                    if let Some(header) = self.take(header, number, position)? {
                        return Ok(Some(header));
                    }
                }
                // Whether it is missed shows when the next one comes: it may stand on the next reel as well.
                Step::Bad { position, why } => {
                    self.bad = Some((Some(position), why));
                    self.shelf.tell(&Event::Alerts(reel.alerts()));
                }
                Step::End => self.ends(number)?,
            }
        }
    }

    fn take(&mut self, header: ReelBlock, reel: u32, position: u64) -> Result<Option<ReelBlock>, ReadError> {
        let start = self.wanted.start;
        if header.sequence < start {
            return Ok(None);
        }
        if header.sequence > start {
            let next = header.sequence.min(self.wanted.end);
            let missing = (Some(position), "it is not there".to_owned());
            let (position, why) = self.bad.take().unwrap_or(missing);
            self.lose(Loss { reel, position, first: start, next, why })?;
        } else if self.chain.is_some_and(|chain| chain != header.chain) {
            let why = "it continues another history than the block before it".to_owned();
            self.lose(Loss { reel, position: Some(position), first: start, next: start + 1, why })?;
        }
        if header.sequence >= self.wanted.end {
            return Ok(None);
        }
        (self.wanted.start, self.bad) = (header.sequence + 1, None);
        self.chain = Some(header.chain_behind());
        Ok(Some(header))
    }

    /// Goes to the next reel, unless blocks that stood on this one did not come.
    fn ends(&mut self, reel: u32) -> Result<(), ReadError> {
        let first = self.wanted.start;
        let next = self.on_reel(reel);
        if next > first {
            let unread = (None, "it ends before them".to_owned());
            let (position, why) = self.bad.take().unwrap_or(unread);
            self.lose(Loss { reel, position, first, next, why })?;
        }
        if !self.wanted.is_empty() {
            self.leave(reel + 1);
        }
        Ok(())
    }

    /// Behind the blocks from the wanted one on that are known to stand on this reel.
    fn on_reel(&self, reel: u32) -> u64 {
        let elsewhere = |at: &u64| (self.locate)(*at).is_none_or(|(there, _)| there != reel);
        let mut all = self.wanted.clone();
        all.find(elsewhere).unwrap_or(self.wanted.end)
    }

    fn lose(&mut self, loss: Loss) -> Result<(), ReadError> {
        if !self.lenient {
            return Err(ReadError::Lost(loss));
        }
        self.wanted.start = self.wanted.start.max(loss.next);
        self.chain = None;
        self.losses.push(loss);
        Ok(())
    }

    fn mount(&mut self) -> Result<(), ReadError> {
        let number = (self.locate)(self.wanted.start).map_or(self.number, |(reel, _)| reel);
        let why = format!("it holds block {} of the set", self.wanted.start);
        let want = Want { set: self.set, reel: number, purpose: Purpose::Read, why };
        let (drive, found) = match self.shelf.mount(&want) {
            Ok(mounted) => mounted,
            Err(ShelfError::Missing { what, why }) if self.lenient => {
                let (first, next) = (self.wanted.start, self.on_reel(number).max(self.wanted.start + 1));
                self.number = number + 1;
                let why = format!("{what}: {why}");
                return self.lose(Loss { reel: number, position: None, first, next, why });
            }
            Err(error) => return Err(error.into()),
        };
        let Found::Labelled(label) = found else {
            unreachable!("a reel that is read was judged by its label")
        };
        let (header, start) = (label.0, self.wanted.start);
        if header.sequence > start {
            let (first, next) = (start, header.sequence.min(self.wanted.end));
            let why = "the reel before it does not hold them, and this one begins behind them".to_owned();
            self.lose(Loss { reel: number, position: None, first, next, why })?;
        } else if header.sequence == start && self.chain.is_some_and(|chain| chain != header.chain) {
            let why = "its label is of another history than the reel before it".to_owned();
            self.lose(Loss { reel: number, position: None, first: start, next: start, why })?;
        }
        self.number = number;
        self.reel = Some(ReelReader::new(drive, *label));
        self.place()
    }

    /// The shelf again.
    pub fn close(mut self) -> S {
        self.leave(0);
        self.shelf
    }
}
