//! A drive in memory that answers as `st` and a real drive do, with faults to order. The rules are those that runs against the
//! real driver showed: early warning is an answer without a try every second time, what the drive holds in memory may be
//! lost with one late error, and a driver that was writing adds a filemark by itself unless it is disarmed.

use super::{Drive, Fault, Got, Medium, Wrote};
use crate::base::limits::REEL_BLOCK_MAX;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A block.
    Block(Vec<u8>),
    /// A filemark.
    Mark,
    /// A block that cannot be read.
    Bad,
}

/// A reel, whether or not it is in a drive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FakeReel {
    /// What is on it.
    pub records: Vec<Record>,
    /// It cannot be written to.
    pub protected: bool,
    /// From so many bytes on a write is warned of; 0 for never.
    pub warn_at: usize,
    /// So many bytes fit; 0 for no limit.
    pub end_at: usize,
}

impl FakeReel {
    /// Bytes on it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let len = |record: &Record| if let Record::Block(bytes) = record { bytes.len() } else { 0 };
        self.records.iter().map(len).sum()
    }
}

/// What goes wrong, once each.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The write after so many more fails, and takes nothing.
    pub write: Option<u32>,
    /// So many writes from now the drive loses what it holds in memory, and says so at a later call.
    pub deferred: Option<u32>,
    /// So many writes from now the drive is reset. The driver is told by an error, or nobody is.
    pub reset: Option<(u32, bool)>,
    /// The next flush fails.
    pub flush: bool,
}

/// The state of a drive.
#[derive(Debug, Default)]
pub struct State {
    /// The reel.
    pub reel: Option<FakeReel>,
    /// What goes wrong.
    pub faults: Faults,
    /// Where it is.
    pub position: usize,
    /// Blocks at the end that the drive holds in memory.
    pub buffered: usize,
    /// The driver was writing, and would add a mark.
    pub writing: bool,
    /// The last write was warned of: the next is refused without a try.
    pub toggled: bool,
    /// An error that is to be told.
    pub late: bool,
    /// Reels that were given out.
    pub out: Vec<FakeReel>,
    /// Filemarks that the driver added by itself.
    pub own_marks: u32,
    /// TapeAlert flags that are set.
    pub alerts: Vec<u8>,
}

/// A drive; a clone is the same one.
#[derive(Clone, Debug, Default)]
pub struct FakeDrive(Arc<Mutex<State>>);

fn failed(why: &str) -> Fault {
    Fault::Failed(why.to_owned())
}

impl FakeDrive {
    /// With this reel.
    #[must_use]
    pub fn with(reel: FakeReel) -> Self {
        let this = Self::default();
        this.state().reel = Some(reel);
        this
    }

    /// Its state, to look at and to change.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn there(&mut self) -> Result<&mut FakeReel, Fault> {
        self.reel.as_mut().ok_or(Fault::NoMedium)
    }

    fn told(&mut self) -> Result<(), Fault> {
        if std::mem::take(&mut self.late) { Err(failed("deferred error of the drive")) } else { Ok(()) }
    }

    /// What the driver does before it moves the reel.
    fn own_mark(&mut self) {
        if std::mem::take(&mut self.writing) {
            self.own_marks += 1;
            let at = self.position;
            if let Some(reel) = &mut self.reel {
                reel.records.truncate(at);
                reel.records.push(Record::Mark);
            }
        }
        self.buffered = 0;
    }

    fn due(count: &mut Option<u32>) -> bool {
        match count {
            Some(0) => {
                *count = None;
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    fn write(&mut self, block: &[u8]) -> Result<Wrote, Fault> {
        self.there()?;
        self.told()?;
        if self.there()?.protected {
            return Err(Fault::Protected);
        }
        if Self::due(&mut self.faults.write) {
            return Err(failed("write error"));
        }
        if let Some((left, told)) = self.faults.reset {
            let mut left = Some(left);
            let now = Self::due(&mut left);
            self.faults.reset = left.map(|left| (left, told));
            if now {
                // What the drive held in memory is gone, and it stands at the beginning.
                let keep = self.position - self.buffered;
                self.there()?.records.truncate(keep);
                (self.position, self.buffered) = (0, 0);
                if told {
                    return Err(failed("the drive was reset"));
                }
            }
        }
        if std::mem::take(&mut self.toggled) {
            return Err(Fault::NoSpace);
        }
        let (at, buffered) = (self.position, self.buffered);
        let reel = self.there()?;
        reel.records.truncate(at);
        if reel.end_at > 0 && reel.bytes() + block.len() > reel.end_at {
            return Err(Fault::NoSpace);
        }
        reel.records.push(Record::Block(block.to_vec()));
        let warned = reel.warn_at > 0 && reel.bytes() >= reel.warn_at;
        (self.position, self.buffered, self.writing, self.toggled) = (at + 1, buffered + 1, true, warned);
        if Self::due(&mut self.faults.deferred) {
            let keep = self.position - self.buffered;
            self.there()?.records.truncate(keep);
            (self.position, self.buffered, self.late) = (keep, 0, true);
        }
        Ok(if warned { Wrote::Warned } else { Wrote::Block })
    }

    fn marks(&mut self, count: u32) -> Result<(), Fault> {
        self.there()?;
        self.told()?;
        if std::mem::take(&mut self.faults.flush) {
            let keep = self.position - self.buffered;
            self.there()?.records.truncate(keep);
            (self.position, self.buffered) = (keep, 0);
            return Err(failed("the drive could not write what it held in memory"));
        }
        let at = self.position;
        let reel = self.there()?;
        if reel.protected {
            return Err(Fault::Protected);
        }
        if count > 0 {
            reel.records.truncate(at);
            (0..count).for_each(|_| reel.records.push(Record::Mark));
        }
        self.position += count as usize;
        (self.buffered, self.writing, self.toggled) = (0, false, false);
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<Got, Fault> {
        let at = self.position;
        let record = self.there()?.records.get(at).cloned();
        match record {
            None => Err(failed("input/output error")),
            Some(record) => {
                self.position += 1;
                match record {
                    Record::Mark => Ok(Got::Mark),
                    Record::Bad => Err(failed("medium error")),
                    Record::Block(bytes) if bytes.len() > buffer.len() || bytes.len() > REEL_BLOCK_MAX => {
                        Err(Fault::TooLong)
                    }
                    Record::Block(bytes) => {
                        buffer.iter_mut().zip(&bytes).for_each(|(to, from)| *to = *from);
                        Ok(Got::Block(bytes.len()))
                    }
                }
            }
        }
    }
}

impl Drive for FakeDrive {
    fn name(&self) -> String {
        "fake".to_owned()
    }

    fn medium(&mut self) -> Result<Medium, Fault> {
        let state = self.state();
        let ready = |reel: &FakeReel| Medium::Ready { protected: reel.protected };
        Ok(state.reel.as_ref().map_or(Medium::Absent, ready))
    }

    fn rewind(&mut self) -> Result<(), Fault> {
        let mut state = self.state();
        state.there()?;
        state.own_mark();
        state.position = 0;
        state.told()
    }

    fn end(&mut self) -> Result<(), Fault> {
        let mut state = self.state();
        state.own_mark();
        state.position = state.there()?.records.len();
        state.told()
    }

    fn seek(&mut self, to: u64) -> Result<(), Fault> {
        let mut state = self.state();
        state.own_mark();
        let end = state.there()?.records.len();
        let to = usize::try_from(to).unwrap_or(usize::MAX);
        state.position = to.min(end);
        if to > end { Err(failed("end of data")) } else { state.told() }
    }

    fn position(&mut self) -> Result<u64, Fault> {
        let mut state = self.state();
        state.there()?;
        state.told()?;
        Ok(state.position as u64)
    }

    fn write(&mut self, block: &[u8]) -> Result<Wrote, Fault> {
        self.state().write(block)
    }

    fn marks(&mut self, count: u32) -> Result<(), Fault> {
        self.state().marks(count)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<Got, Fault> {
        self.state().read(buffer)
    }

    fn lock(&mut self, _locked: bool) -> Result<(), Fault> {
        self.state().there().map(drop)
    }

    fn disarm(&mut self) {
        let mut state = self.state();
        (state.writing, state.late) = (false, false);
    }

    fn eject(&mut self) -> Result<(), Fault> {
        let mut state = self.state();
        state.own_mark();
        state.position = 0;
        let reel = state.reel.take().ok_or(Fault::NoMedium)?;
        state.out.push(reel);
        Ok(())
    }

    fn alerts(&mut self) -> Vec<u8> {
        let state = self.state();
        assert!(state.buffered == 0 && !state.late, "what was written was told of before");
        state.alerts.clone()
    }
}
