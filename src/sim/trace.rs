//! What happened in a run: a digest of every event, the last events in words, and the named states reached.

use std::collections::{BTreeSet, VecDeque};

/// States that a full run over many seeds must reach at least once; otherwise the simulator has gone blind there.
pub const SOMETIMES: &[&str] = &[
    "a batch came into the buffer in which it stays",
    "batches of an earlier round still waited for the store",
    "batches were applied while a checkpoint was under way",
    "a clean stop and start",
    "a client left in the middle of what it asked for",
    "a compare found both nodes equal",
    "a compare was cut off",
    "a client was refused because the disk was full",
    "a connection was cut",
    "a copy of a file reached the standby",
    "a copy of the primary called its standby",
    "a corrupted frame closed the connection",
    "a damaged journal was refused",
    "a fault-free run",
    "a flush covered a write of an earlier connection",
    "a flush of a volume was answered",
    "a file was cleared",
    "a later write of a journal ended first",
    "a file was copied into the journal",
    "a file was deleted",
    "a journal had no room for its next segment",
    "a kill of a node",
    "a poisoned segment",
    "a scrub found rot",
    "rot was healed by the peer",
    "rot was refused",
    "rotten items were found",
    "rotten items were healed by the peer",
    "a payload was received in place",
    "a power loss of a node",
    "a process was suspended",
    "a promise was degraded",
    "a silent link was noticed",
    "a range was as an earlier save left it",
    "a save was made",
    "a view showed a moment that its node had left",
    "a view was closed",
    "a view was opened",
    "a view went on while its node was given a copy",
    "a standby accepted an update of its own file",
    "a standby refused an update",
    "a standby with a stale file",
    "a primary asked what became of its role",
    "a switchover",
    "a switchover was given up",
    "a takeover",
    "a takeover asked whether known entries may be given up",
    "a takeover while the old primary served",
    "a takeover with an unapplied tail",
    "a test update made the whole way",
    "a torn write was found at a restart",
    "a transaction committed",
    "a whole in-flight write was found at a restart",
    "acknowledged updates were lost by a takeover and accounted",
    "an epoch was opened at a restart",
    "both nodes hold the same bytes of a volume",
    "bytes of a closed connection came late",
    "catch-up from the disk",
    "diverged entries were saved",
    "disk full, then updates again",
    "logging was paused and resumed",
    "a node became read-only",
    "half-open link",
    "the old primary returned and served nobody",
    "the old primary returned and became standby",
    "the peer lost its claim on the journal at the quota",
    "the peer lost its claim on the journal because the disk was full",
    "the standby cut its tail",
    "the store fell back behind its journal at a power loss",
    "the wall clock jumped",
    "update after a takeover",
    "WAIT was told a count",
    "a second crash during recovery",
    "a standby showed a volume read-only",
    "volumes were behind the items at a start",
    "a copy of everything began",
    "an old copy was compared",
    "a range was equal by its digest",
    "a range differed by its digest",
    "content came where a digest differed",
    "a node was rewound",
    "a copy of everything became whole",
    "an incomplete node came back before its store had begun the copy",
    "an incomplete node came back with a part of its copy",
    "a read of the store was cold",
    "a segment went to the spool",
    "catch-up from the spool",
    "the spool let go of what the peer had",
    "a node came back to what was on its spool",
    "a spool was full",
    "a part went to a reel",
    "catch-up from a reel",
    "the wrong reel was refused",
    "a drive lost what it held in memory",
];

/// The same, of lives in which a lease decides who is primary.
pub const SOMETIMES_UNDER_LEASES: &[&str] = &[
    "a watch took over",
    "a watch was cut off from its lease",
    "a standby that may lack something was not let take over",
];

/// The record of one run.
#[derive(Debug)]
pub(super) struct Trace {
    /// Simulated time (microseconds).
    pub(super) now: u64,
    /// Events so far.
    pub(super) events: u64,
    /// Ticks so far; they leave no trace of their own.
    pub(super) ticks: u64,
    digest: u64,
    keep: usize,
    lines: VecDeque<String>,
    reached: BTreeSet<&'static str>,
}

impl Trace {
    /// Keeps the last `keep` events in words; 0 for none.
    pub(super) fn new(keep: usize) -> Self {
        Self {
            now: 0,
            events: 0,
            ticks: 0,
            digest: 0,
            keep,
            lines: VecDeque::new(),
            reached: BTreeSet::new(),
        }
    }

    /// Adds an event to the digest and, if words are kept, to the words.
    pub(super) fn event(&mut self, tag: &'static str, a: u64, b: u64, words: impl FnOnce() -> String) {
        self.events += 1;
        let head = u64::from(tag.as_bytes().iter().fold(0_u32, |h, &c| h.rotate_left(5) ^ u32::from(c)));
        for part in [self.now, head, a, b] {
            let mut z = self.digest.rotate_left(17) ^ part;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            self.digest = z ^ (z >> 31);
        }
        if self.keep > 0 {
            if self.lines.len() == self.keep {
                self.lines.pop_front();
            }
            let (s, us) = (self.now / 1_000_000, self.now % 1_000_000);
            self.lines.push_back(format!("{s:3}.{us:06} {tag} {}", words()));
        }
    }

    /// Notes that a named state was reached.
    pub(super) fn sometimes(&mut self, name: &'static str) {
        let known = SOMETIMES.contains(&name) || SOMETIMES_UNDER_LEASES.contains(&name);
        debug_assert!(known, "{name} is not registered");
        self.reached.insert(name);
    }

    /// Digest of all events.
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    /// The kept words and the names reached.
    pub(super) fn into_parts(self) -> (Vec<String>, BTreeSet<&'static str>) {
        (self.lines.into_iter().collect(), self.reached)
    }
}
