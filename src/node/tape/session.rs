//! Reels for who writes to them in bursts: the end of a set is found without the reels that are full, and a reel that is not
//! there is told of instead of waited for.

use super::shelf::Operator;
use super::stage::{base_name, fits};
use super::{TapeError, TapeOptions};
use crate::base::Chain;
use crate::format::reel::ReelLabel;
use crate::format::set::SetId;
use crate::tape::{
    Drive, Event, Found, Purpose, ReelSet, Shelf, ShelfError, SpanWriter, Tail, Want, WriteOrder, find_tail,
};
use std::sync::PoisonError;

/// A place of reels with its catalogue. Nobody is waited for; clones share the catalogue.
#[derive(Clone)]
pub(in crate::node) struct Tape(Operator);

impl std::fmt::Debug for Tape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tape({})", self.0.options.place.name())
    }
}

impl Tape {
    /// Reads the catalogue.
    pub(in crate::node) fn open(options: &TapeOptions) -> Result<Self, TapeError> {
        let mut operator = Operator::new(options)?;
        operator.options.wait = Some(std::time::Duration::ZERO);
        operator.quiet = true;
        Ok(Self(operator))
    }

    /// The sets that are known.
    pub(in crate::node) fn sets(&self) -> Vec<ReelSet> {
        self.0.catalogue().held.sets.clone()
    }

    /// Changes what is known, durably.
    pub(in crate::node) fn change(&self, change: impl FnOnce(&mut Vec<ReelSet>)) -> Result<(), TapeError> {
        let mut catalogue = self.0.catalogue();
        change(&mut catalogue.held.sets);
        catalogue.store()
    }
}

impl Shelf for Tape {
    fn mount(&mut self, want: &Want) -> Result<(Box<dyn Drive>, Found), ShelfError> {
        self.0.mount(want)
    }

    fn tell(&mut self, event: &Event) {
        self.0.tell(event);
    }
}

/// What is written, and to which set.
#[derive(Clone, Debug)]
pub(in crate::node) struct TapeSession {
    pub(in crate::node) tape: Tape,
    /// Of a set that is begun, then the one that is written to.
    pub(in crate::node) set: SetId,
    pub(in crate::node) session: SetId,
    pub(in crate::node) cap: Option<u64>,
    pub(in crate::node) unflushed: u64,
}

impl TapeSession {
    /// Goes on at the end of `set`, or begins one. Gives the label of the reels.
    pub(in crate::node) fn begin(
        mut self,
        mut label: ReelLabel,
        set: Option<&ReelSet>,
    ) -> Result<(Self, ReelLabel, SpanWriter<Tape>), TapeError> {
        let mut shelf = self.tape.clone();
        let last = set.and_then(|set| set.reels.last().map(|reel| (set.number(), reel)));
        let Some((number, last)) = last else {
            let order = self.order(&label);
            *self.tape.0.writing.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.set);
            return Ok((self, label, SpanWriter::new(shelf, order)));
        };
        self.set = number;
        *self.tape.0.writing.lock().unwrap_or_else(PoisonError::into_inner) = Some(number);
        label.block_size = set.map_or(label.block_size, |set| set.block_size);
        if last.closed {
            let tail = Tail {
                reel: last.number,
                next: (last.next, Chain(last.chain)),
                first: last.first,
                last: None,
                position: 0,
                ended: true,
            };
            let order = self.order(&label);
            return Ok((self, label, SpanWriter::after(shelf, order, &tail)));
        }
        let why = "the spool goes on behind what is on it".to_owned();
        let want = Want { set: number, reel: last.number, purpose: Purpose::Append, why };
        let (mut drive, found) = shelf.mount(&want)?;
        let Found::Labelled(found) = found else {
            unreachable!("a reel that is appended to was judged by its label")
        };
        let (head, found) = *found;
        fits(&label, &found)?;
        let tail =
            find_tail(&mut *drive, &head).map_err(|error| TapeError::Tail { reel: head.reel, error })?;
        // What counts has to be there: only behind it is written.
        if tail.next.0 < last.next {
            return Err(TapeError::SetBack { reel: head.reel, expected: last.next - 1 });
        }
        label.name = base_name(&found.name, tail.reel);
        let order = self.order(&label);
        let mut writer = SpanWriter::resume(shelf, order, drive, &tail);
        if last.bytes > 0 {
            writer.holds(last.bytes);
        }
        Ok((self, label, writer))
    }

    fn order(&self, label: &ReelLabel) -> WriteOrder {
        WriteOrder {
            set: self.set,
            session: self.session,
            label: label.clone(),
            cap: self.cap,
            unflushed: self.unflushed,
        }
    }
}
