//! What a node holds that is given a copy by digests: it looks at each range of its own first, and wants the content only if the
//! primary has another one ([`crate::format::unless`] says why that is right at any moment).
//!
//! A range of a MiB that differs is asked for again in [`DIGEST_PARTS`] parts. Where ranges differ one after another, fewer
//! are asked at once: what was asked behind one that differs is asked twice. Where [`DIGEST_STRIKES`] parts differ one after
//! another, content is asked for as it comes.

use crate::base::FileId;
use crate::base::limits::{BLOCK_U64, COPY_LOOK_MAX, DIGEST_PARTS, DIGEST_STRIKES, WANTS_MAX};
use crate::format::chunk::{Next, WantFrom};
use crate::format::compare::{Found, Span};
use crate::format::unless::Unless;
use bytes::Bytes;

/// A range of which it is known what this node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    at: Next,
    /// None if it ends with the file.
    end: Option<Next>,
    /// None if this node holds nothing that could be equal.
    pub(super) unless: Option<Unless>,
    /// How much it holds (bytes).
    pub(super) bytes: u64,
    /// What was looked at, at most (bytes).
    step: u32,
}

/// What is to be done before a range is wanted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It can be wanted.
    Known(Piece),
    /// This node has to look at its own first: there, at so many bytes at most.
    Look(Span, u32),
    /// It looks already.
    Wait,
}

/// Where this node looks at what it holds.
#[derive(Debug)]
struct Looking {
    look: u64,
    at: Next,
    /// The size of the volume (bytes).
    size: u64,
    step: u32,
    closer: bool,
}

/// What is known of what this node holds.
#[derive(Debug)]
pub(super) struct Held {
    looking: Option<Looking>,
    known: Option<Piece>,
    /// A range that differs begins and ends there; it ends with its file if there is no end.
    differs: Option<(Next, Option<Next>)>,
    /// Ranges that are asked for at once.
    window: usize,
    /// Answers since the last one that a range is equal.
    strikes: u32,
}

impl Default for Held {
    fn default() -> Self {
        Self { looking: None, known: None, differs: None, window: WANTS_MAX, strikes: 0 }
    }
}

impl Piece {
    /// What to ask for.
    pub(super) fn from(&self) -> WantFrom {
        match (&self.at, &self.end) {
            (Next::Items(_, after), Some(Next::Items(_, through))) => {
                WantFrom::ItemsTo(after.clone(), through.clone())
            }
            (Next::Items(_, after), _) => WantFrom::Items(after.clone()),
            (Next::Blocks(_, from), Some(Next::Blocks(_, to))) => WantFrom::BlocksTo(*from, *to),
            (Next::Blocks(_, from), _) => WantFrom::Blocks(*from),
            (Next::Nothing, _) => WantFrom::Blocks(0),
        }
    }

    /// How much content may come, of `chunk` bytes in any other chunk: the primary may have more there than this node.
    pub(super) fn most(&self, chunk: u32) -> u32 {
        if self.unless.is_some() { self.step.saturating_mul(2) } else { chunk }
    }

    /// What is wanted next if it is equal.
    pub(super) fn behind(&self) -> Next {
        match (&self.end, &self.at) {
            (Some(end), _) => end.clone(),
            (None, Next::Items(file, _)) => Next::Items(FileId(file.0 + 1), Bytes::new()),
            (None, Next::Blocks(file, _)) => Next::Blocks(FileId(file.0 + 1), 0),
            (None, Next::Nothing) => Next::Nothing,
        }
    }
}

/// Whether a place stands before another one of the same file.
fn is_before(at: &Next, end: Option<&Next>) -> bool {
    match (at, end) {
        (_, None) => true,
        (Next::Items(_, at), Some(Next::Items(_, end))) => at < end,
        (Next::Blocks(_, at), Some(Next::Blocks(_, end))) => at < end,
        _ => false,
    }
}

impl Held {
    /// Whether what stands there is asked for in smaller parts.
    fn is_closer(&self, at: &Next) -> bool {
        let within = |(from, end): &(Next, Option<Next>)| {
            from.file() == at.file() && !is_before(at, Some(from)) && is_before(at, end.as_ref())
        };
        self.differs.as_ref().is_some_and(within)
    }

    /// How many ranges may be under way when the next one begins there.
    pub(super) fn window(&self, at: &Next) -> usize {
        if self.is_closer(at) { WANTS_MAX } else { self.window }
    }

    /// What is to be done before the range that begins at `at` is wanted. Chunks are of `chunk` bytes, the file is a volume of
    /// `size` bytes, and a look has the number `look`.
    pub(super) fn step(&mut self, at: &Next, chunk: u32, size: u64, look: u64) -> Step {
        if let Some(known) = self.known.take_if(|known| known.at == *at) {
            return Step::Known(known);
        }
        if self.looking.as_ref().is_some_and(|looking| looking.at == *at) {
            return Step::Wait;
        }
        let closer = self.is_closer(at);
        if closer && self.strikes >= DIGEST_STRIKES {
            // All of it was written anew, it seems: asking for it bit by bit would only take longer.
            self.strikes = 0;
            return Step::Known(Piece { at: at.clone(), end: None, unless: None, bytes: 0, step: chunk });
        }
        let step = if closer { (chunk / DIGEST_PARTS).max(1) } else { chunk };
        let span = match at {
            Next::Items(_, after) => Span::Items { after: after.clone(), through: Bytes::new() },
            Next::Blocks(_, offset) => {
                Span::Blocks { offset: *offset, len: size.saturating_sub(*offset).min(COPY_LOOK_MAX) }
            }
            Next::Nothing => return Step::Wait,
        };
        self.looking = Some(Looking { look, at: at.clone(), size, step, closer });
        Step::Look(span, step)
    }

    /// A look found something; false if it was not one of these.
    pub(super) fn looked(&mut self, look: u64, found: &Found) -> bool {
        let Some(Looking { at, size, step, closer, .. }) =
            self.looking.take_if(|looking| looking.look == look)
        else {
            return false;
        };
        let nothing = Piece { at: at.clone(), end: None, unless: None, bytes: 0, step };
        self.known = Some(match (found, &at) {
            (Found::Digest(digest), Next::Items(file, _)) => {
                let end = digest.reached.clone().map(|id| Next::Items(*file, id));
                let unless = Unless { closer: !closer, digest: digest.hash };
                let unless = (digest.count > 0 || end.is_some()).then_some(unless);
                Piece { end, unless, bytes: digest.bytes, ..nothing }
            }
            (Found::Digest(digest), Next::Blocks(file, offset)) => {
                let all = size.min(offset.saturating_add(COPY_LOOK_MAX));
                let end = digest.end().unwrap_or(all);
                let end = (end < size && end > *offset).then_some(Next::Blocks(*file, end));
                let unless = Some(Unless { closer: !closer, digest: digest.hash });
                Piece { end, unless, bytes: digest.bytes, ..nothing }
            }
            // What cannot be read here comes from the primary, whatever it is.
            (Found::Unread, Next::Blocks(file, offset)) => {
                let end = offset.saturating_add(u64::from(step).next_multiple_of(BLOCK_U64));
                Piece { end: (end < size).then_some(Next::Blocks(*file, end)), ..nothing }
            }
            _ => nothing,
        });
        true
    }

    /// An answer came, that a range is equal or what it holds.
    pub(super) fn answered(&mut self, equal: bool) {
        if equal {
            self.window = (self.window * 2).min(WANTS_MAX);
            self.strikes = 0;
        } else {
            self.strikes += 1;
        }
    }

    /// A range differs.
    pub(super) fn differs(&mut self, piece: Option<Piece>) {
        self.differs = piece.map(|piece| (piece.at, piece.end));
        self.window = 1;
    }

    /// A round of the store failed: a look that was not made is made again.
    pub(super) fn take_back(&mut self) {
        self.looking = None;
    }
}
