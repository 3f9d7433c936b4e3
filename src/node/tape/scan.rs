//! Reads reels from end to end: what is on them, and what cannot be read.

use super::shelf::Operator;
use super::{Place, TapeError, TapeOptions};
use crate::base::Chain;
use crate::format::reel::{ReelBlock, ReelKind};
use crate::format::set::SetId;
use crate::tape::{
    Catalogue, Found, Key, Loss, PartIndex, Purpose, ReelReader, SessionKey, Shelf, ShelfError, Step,
    StreamIndex, Want,
};
use std::collections::BTreeMap;

/// What came of it.
#[derive(Debug)]
pub struct Scanned {
    /// The catalogue, made anew for the set that was read; what is known of others stays.
    pub catalogue: Catalogue,
    /// The set.
    pub set: SetId,
    /// What cannot be read.
    pub losses: Vec<Loss>,
    /// Reels read.
    pub reels: u32,
    /// Blocks read.
    pub blocks: u64,
}

/// A session's stream as it comes, of which nobody knows yet whether it is a save or parts of a spool.
struct Stream {
    index: StreamIndex,
    parts: PartIndex,
    key: Option<SessionKey>,
}

struct Scan<'a> {
    key: Option<&'a Key>,
    found: Catalogue,
    losses: Vec<Loss>,
    reels: u32,
    blocks: u64,
    /// Behind the last block that counts; none before the first.
    next: Option<(u64, Chain)>,
    /// What could not be read since then.
    bad: Option<(u32, u64, String)>,
    /// The streams of sessions; none of one that has a hole or cannot be decrypted.
    streams: BTreeMap<[u8; 16], Option<Stream>>,
    set: SetId,
    ended: bool,
}

/// Scans a set of reels from its first reel on, and stores its catalogue. In a drive it begins with the reel that is there.
///
/// # Errors
/// [`TapeError`]; what cannot be read is no error, but told as a loss.
pub fn scan(options: &TapeOptions) -> Result<Scanned, TapeError> {
    let mut shelf = Operator::new(options)?;
    let mut scan = Scan {
        key: options.key.as_ref(),
        found: Catalogue::default(),
        losses: Vec::new(),
        reels: 0,
        blocks: 0,
        next: None,
        bad: None,
        streams: BTreeMap::new(),
        set: SetId::default(),
        ended: false,
    };
    // What lies in a drive is where it begins, unless something can bring the first reel.
    let begins = matches!(options.place, Place::Device(_)) && options.changer.is_none();
    let mut number = u32::from(!begins);
    loop {
        let why = "all reels are read from the first one on".to_owned();
        let want = Want { set: scan.set, reel: number, purpose: Purpose::Read, why };
        let known = {
            let catalogue = shelf.catalogue();
            let set = catalogue.held.set(scan.set);
            set.and_then(|set| {
                set.reels.iter().find(|reel| reel.number == number).map(|reel| (reel.first, reel.next))
            })
        };
        let more = number <= 1 || scan.ended || known.is_some();
        let is_device = matches!(options.place, Place::Device(_));
        if !more && (is_device || !options.place.path(number).exists()) {
            break;
        }
        match shelf.mount(&want) {
            Ok((drive, Found::Labelled(label))) => {
                number = label.0.reel;
                scan.reel(ReelReader::new(drive, *label))?;
            }
            Ok(_) => unreachable!("a reel that is read was judged by its label"),
            Err(ShelfError::Missing { what, why }) if number > 1 => {
                let (first, next) = known.unwrap_or((0, 0));
                let first = first.max(scan.next.map_or(0, |next| next.0)).min(next);
                let why = format!("{what}: {why}");
                scan.losses.push(Loss { reel: number, position: None, first, next, why });
                // What is behind it may be read all the same.
                (scan.next, scan.ended) = (None, false);
                scan.streams.values_mut().for_each(|stream| *stream = None);
            }
            Err(error) => return Err(error.into()),
        }
        number += 1;
    }
    scan.end(&shelf)
}

impl Scan<'_> {
    fn reel(&mut self, mut reel: ReelReader) -> Result<(), TapeError> {
        let (head, label) = reel.label().clone();
        self.set = head.set;
        (self.reels, self.ended) = (self.reels + 1, false);
        self.found.set_mut(head.set, &label).note_label(&head, &label);
        if let Some((next, chain)) = self.next {
            self.follows(&head, head.sequence, (next, chain), None);
        }
        loop {
            let failed = |fault| TapeError::Drive { drive: format!("reel {}", head.reel), fault };
            match reel.step().map_err(failed)? {
                Step::End => break,
                Step::Bad { position, why } => self.bad = Some((head.reel, position, why)),
                Step::Block(block, position) => {
                    self.blocks += 1;
                    self.block(&block, position, reel.payload());
                }
            }
        }
        if let Some((reel, position, why)) = self.bad.take() {
            // Behind the last block that is read it held nothing that is known to count.
            let first = self.next.map_or(0, |next| next.0);
            self.losses.push(Loss { reel, position: Some(position), first, next: first, why });
        }
        let mut drive = reel.into_drive();
        let _ = drive.eject();
        Ok(())
    }

    /// Notes a loss if a block or label does not follow what was before it.
    fn follows(&mut self, block: &ReelBlock, at: u64, (next, chain): (u64, Chain), position: Option<u64>) {
        let reel = block.reel;
        if at > next {
            let (reel, position, why) = match self.bad.take() {
                Some((reel, position, why)) => (reel, Some(position), why),
                None => (reel, position, "it is not there".to_owned()),
            };
            self.losses.push(Loss { reel, position, first: next, next: at, why });
            self.streams.values_mut().for_each(|stream| *stream = None);
        } else if at == next && block.chain != chain {
            let why = "it continues another history than what is before it".to_owned();
            self.losses.push(Loss { reel, position, first: at, next: at, why });
        }
    }

    fn block(&mut self, block: &ReelBlock, position: u64, payload: &[u8]) {
        let Some(set) = self.found.find_mut(self.set) else { return };
        if !block.kind.is_numbered() {
            self.ended = block.kind == ReelKind::ReelEnd;
            set.note_block(block, position);
            return;
        }
        if self.next.is_some_and(|(next, _)| block.sequence < next) {
            // It was written again to this reel, as the one before it may not have kept it.
            set.note_block(block, position);
            return;
        }
        if let Some(next) = self.next {
            self.follows(block, block.sequence, next, Some(position));
        }
        self.bad = None;
        self.next = Some((block.sequence_behind(), block.chain_behind()));
        let Some(set) = self.found.find_mut(self.set) else { return };
        set.note_block(block, position);
        let key = self.key;
        let session = block.session;
        let fresh = || {
            let key = key.map(|key| key.of_session(session));
            let (index, parts) = (StreamIndex::default(), PartIndex::default());
            (block.sequence == block.start).then_some(Stream { index, parts, key })
        };
        let slot = self.streams.entry(session.0).or_insert_with(fresh);
        let Some(stream) = slot else { return };
        let opened = match (block.kind, block.sealed, &stream.key) {
            (ReelKind::SessionEnd, ..) => return set.note_content(session, &stream.index),
            (_, false, _) => Some(payload.to_vec()),
            (_, true, Some(key)) => key.open(block, payload),
            (_, true, None) => None,
        };
        let Some(content) = opened else {
            *slot = None;
            return;
        };
        let known = stream.parts.parts().len();
        stream.index.feed(&content);
        stream.parts.feed(&content);
        set.note_parts(session, stream.parts.parts().get(known..).unwrap_or_default());
    }

    fn end(self, shelf: &Operator) -> Result<Scanned, TapeError> {
        let Self { found, losses, reels, blocks, set, .. } = self;
        let mut file = shelf.catalogue();
        let mut catalogue = file.held.clone();
        if let Some(set) = found.sets.into_iter().next() {
            match catalogue.sets.iter_mut().find(|known| known.id == set.id) {
                // What is known of a reel that is lost stays known.
                Some(known) if losses.is_empty() => *known = set,
                Some(_) => {}
                None => catalogue.sets.push(set),
            }
        }
        (file.held, file.found) = (catalogue.clone(), true);
        file.store()?;
        Ok(Scanned { catalogue, set, losses, reels, blocks })
    }
}
