//! A save that comes over a wire to reels: what counts is told while it is written, and a writer that was killed goes on where
//! its reels end.
//!
//! Before a part of the stream is said to count, the catalogue is synced that says where it stands. So after a kill only what
//! stands behind that has to be looked for, and it is looked for on the reel itself.

use super::scan::scan;
use super::shelf::Operator;
use super::stage::{
    About, End, TapeOrder, TapeWriter, base_name, end_of, fits, label_of, new_set, write_order,
};
use super::{Place, TapeError};
use crate::base::limits::{REEL_BLOCK_MAX, SOCKET_WINDOW_MAX};
use crate::format::reel::{ReelBlock, ReelKind, ReelLabel};
use crate::format::set::SetId;
use crate::tape::{Drive, Fault, Got, Packer, SpanWriter, Tail};
use std::time::Duration;

/// What came of opening a save.
pub(in crate::node) enum Carried {
    /// All of it is on the reels (bytes of its stream).
    Whole(u64),
    /// It is taken from where [`CarriedWriter::received`] says.
    Open(Box<CarriedWriter>),
}

/// Writes a save that comes over a wire.
pub(in crate::node) struct CarriedWriter {
    writer: TapeWriter,
    order: TapeOrder,
    /// Bytes of the stream in a full block.
    payload: u64,
    /// The sequence of its first block.
    start: u64,
    /// Where this writer began.
    from: u64,
    received: u64,
    counts: u64,
    /// Its last block is shorter than the others: only the end may follow.
    short: bool,
}

/// A save that is found at the end of what is on a reel.
struct Last {
    start: u64,
    bytes: u64,
    ended: bool,
}

/// The window that senders are given (bytes).
fn window_of(order: &TapeOrder) -> u64 {
    order.stage.max(8 * u64::from(order.block_size)).min(SOCKET_WINDOW_MAX)
}

impl Carried {
    /// Opens a save: goes on with it if it stands at the end of the reels; appends it if that is ordered, or if it may be and
    /// there is a set of reels; else begins one. Nobody is waited for to bring a reel that has to be appended to.
    pub(in crate::node) fn begin(
        order: &TapeOrder,
        about: &About,
        may_append: bool,
    ) -> Result<Self, TapeError> {
        let shelf = Operator::new(&order.options)?;
        let (mut known, mut any) = (None, false);
        for set in
            shelf.catalogue().held.sets.iter().filter(|set| set.spool_of() == about.spool.map(|of| of.0))
        {
            any = true;
            known = set.saves.iter().find(|save| save.id == about.save.to_string()).cloned().or(known);
        }
        if let Some(bytes) = known.as_ref().and_then(|save| save.bytes) {
            return Ok(Self::Whole(bytes));
        }
        let append = order.append || (may_append && any);
        let mut looking = shelf.clone();
        looking.options.wait = Some(Duration::ZERO);
        let end = match append || any {
            true => end_of(&looking, about.spool),
            false => Err(TapeError::NoSave { what: "reels to append to".to_owned() }),
        };
        let (set, mut drive, tail, label) = match end {
            Ok(end) => end,
            Err(error) if append || known.is_some() => return Err(error),
            Err(_) => return Self::anew(order, about, shelf),
        };
        let last = last_of(&shelf, set, &mut *drive, &tail)?;
        match last.filter(|(session, _)| *session == about.save) {
            Some((_, Last { bytes, ended: true, .. })) => {
                shelf.catalogue().store()?;
                Ok(Self::Whole(bytes))
            }
            Some((_, last)) => Self::behind(order, about, shelf, (set, drive, tail, label), Some(&last)),
            None if known.is_some() => Err(TapeError::Unfit {
                what: format!("going on with save {}", about.save),
                why: "it was interrupted, and another save stands behind it".to_owned(),
                next: "make another save",
            }),
            None if append => Self::behind(order, about, shelf, (set, drive, tail, label), None),
            None => {
                drop(drive);
                Self::anew(order, about, shelf)
            }
        }
    }

    fn anew(order: &TapeOrder, about: &About, shelf: Operator) -> Result<Self, TapeError> {
        let (set, label) = (new_set()?, label_of(order, about));
        let write = write_order(order, (set, about.save), &label, window_of(order) / 4);
        let writer = SpanWriter::new(shelf.clone(), write);
        Self::start(order, about, shelf, set, &label, writer, None)
    }

    /// Goes on behind what is on the reels: with this save, or with a new one.
    fn behind(
        order: &TapeOrder,
        about: &About,
        shelf: Operator,
        (set, drive, tail, found): End,
        last: Option<&Last>,
    ) -> Result<Self, TapeError> {
        let mut label = label_of(order, about);
        fits(&label, &found)?;
        (label.block_size, label.name) = (found.block_size, base_name(&found.name, tail.reel));
        let write = write_order(order, (set, about.save), &label, window_of(order) / 4);
        let writer = SpanWriter::resume(shelf.clone(), write, drive, &tail);
        Self::start(order, about, shelf, set, &label, writer, last)
    }

    fn start(
        order: &TapeOrder,
        about: &About,
        shelf: Operator,
        set: SetId,
        label: &ReelLabel,
        writer: SpanWriter<Operator>,
        last: Option<&Last>,
    ) -> Result<Self, TapeError> {
        let next = writer.next();
        let (start, from) = last.map_or((next.0, 0), |last| (last.start, last.bytes));
        let key = order.options.key.as_ref().map(|key| key.of_session(about.save));
        let packer = Packer::new((set, about.save), next, label.block_size, key).resumed(start, from);
        let payload = packer.payload();
        let full = (next.0 - start) * payload;
        let short = from < full && full - from < payload;
        if from != full && !short {
            return Err(TapeError::Unfit {
                what: format!("going on with save {}", about.save),
                why: "its blocks on the reel have another size".to_owned(),
                next: "make another save",
            });
        }
        // What a sender may send before it counts is bounded, so nothing waits here but that.
        let marks = (window_of(order) / 8 * 3, u64::MAX);
        let writer = TapeWriter::start(shelf, writer, packer, marks, (set, about))?;
        let (order, received, counts) = (order.clone(), from, from);
        let open = CarriedWriter { writer, order, payload, start, from, received, counts, short };
        Ok(Self::Open(Box::new(open)))
    }
}

/// The save that stands last on the reel in the drive, which is left at its end. Blocks that the catalogue does not know are
/// noted in it.
fn last_of(
    shelf: &Operator,
    set: SetId,
    drive: &mut dyn Drive,
    tail: &Tail,
) -> Result<Option<(SetId, Last)>, TapeError> {
    let mut catalogue = shelf.catalogue();
    let Some(held) = catalogue.held.find_mut(set) else { return Ok(None) };
    let known = held.reels.iter().find(|reel| reel.number == tail.reel).map_or(0, |reel| reel.next);
    let failed = |fault| TapeError::Drive { drive: format!("reel {}", tail.reel), fault };
    let (mut found, mut at) = (Vec::new(), tail.position);
    let mut buffer = vec![0; REEL_BLOCK_MAX];
    while at > 1 {
        at -= 1;
        match block_at(drive, at, &mut buffer).map_err(failed)? {
            Some(block) if block.set == set && block.kind.is_numbered() => {
                found.push((block, at));
                if block.sequence < known {
                    break;
                }
            }
            _ => {}
        }
    }
    drive.seek(tail.position).map_err(failed)?;
    // What a writer that was killed left there may not have been flushed.
    drive.marks(0).map_err(failed)?;
    let stands = drive.position().map_err(failed)?;
    if stands != tail.position {
        return Err(failed(Fault::Moved { expected: tail.position, found: stands }));
    }
    for (block, position) in found.iter().rev() {
        held.note_block(block, *position);
    }
    if let Some((block, _)) = found.first() {
        let ended = block.kind == ReelKind::SessionEnd;
        return Ok(Some((block.session, Last { start: block.start, bytes: block.last, ended })));
    }
    // Only the label stands there: the last block is on the reel before it.
    let last = held.saves.iter().find(|save| save.next == tail.next.0 && save.first < save.next);
    Ok(last.map(|save| {
        let bytes = (save.next - save.first) * save.payload;
        (super::source::id_of(&save.id), Last { start: save.first, bytes, ended: save.bytes.is_some() })
    }))
}

/// The head of the block at this position; none of a filemark, or of what cannot be read.
fn block_at(drive: &mut dyn Drive, at: u64, buffer: &mut [u8]) -> Result<Option<ReelBlock>, Fault> {
    drive.seek(at)?;
    let Ok(Got::Block(len)) = drive.read(buffer) else { return Ok(None) };
    Ok(ReelBlock::decode(buffer.get(..len).unwrap_or_default()).ok().map(|(block, _)| block))
}

impl CarriedWriter {
    /// So much may come before it counts (bytes).
    pub(in crate::node) fn window(&self) -> u64 {
        window_of(&self.order)
    }

    /// Bytes of the stream that came.
    pub(in crate::node) fn received(&self) -> u64 {
        self.received
    }

    /// Takes the next bytes.
    pub(in crate::node) fn write(&mut self, bytes: &[u8]) -> Result<(), TapeError> {
        if self.short && !bytes.is_empty() {
            return Err(TapeError::Unfit {
                what: "taking a save".to_owned(),
                why: "more comes than its last block on the reel says".to_owned(),
                next: "make another save",
            });
        }
        self.writer.write(bytes)?;
        self.received += bytes.len() as u64;
        Ok(())
    }

    /// All before this byte is on reels, by the drive's own word, and the catalogue says where.
    pub(in crate::node) fn counts(&mut self) -> Result<u64, TapeError> {
        if self.writer.is_over() {
            // It did not end by itself.
            self.writer.conclude()?;
        }
        let counts = ((self.writer.kept() - self.start) * self.payload).min(self.received);
        if counts > self.counts {
            self.writer.note()?;
            self.counts = counts;
        }
        Ok(self.counts)
    }

    /// Nothing more comes.
    pub(in crate::node) fn close(&mut self) -> Result<(), TapeError> {
        if self.from == 0 && !self.writer.is_whole() {
            return Err(TapeError::Unfit {
                what: "taking a save".to_owned(),
                why: "what came is no save set with a trailer, or no whole parts of a spool".to_owned(),
                next: "begin the save again",
            });
        }
        self.writer.close()
    }

    /// Whether all of it is on reels, after [`Self::close`].
    pub(in crate::node) fn is_over(&mut self) -> Result<bool, TapeError> {
        if !self.writer.is_over() {
            return Ok(false);
        }
        self.writer.conclude()?;
        // What was begun by another process was not seen from its beginning here: it is read to tell what it holds.
        let is_drive = matches!(self.order.options.place, Place::Device(_));
        if self.from > 0 && is_drive {
            let place = self.order.options.place.name();
            self.order.options.teller.tell(&format!(
                "what the save holds is told by its reels: hot-backup tape list --scan {place}"
            ));
        } else if self.from > 0 {
            scan(&self.order.options)?;
        }
        Ok(true)
    }
}
