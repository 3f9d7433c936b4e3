//! Writers that remember exactly what they were told, and the audit that holds a node to it.

use super::Door;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

/// Every so many updates of a writer go to one and the same item, so that older values are overwritten.
const REPEATED: usize = 4;

/// What a load is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Connections.
    pub(crate) writers: usize,
    /// Updates of one connection without an answer at once.
    pub(crate) window: usize,
    /// Bytes of a value.
    pub(crate) value: usize,
    /// Updates of each writer.
    pub(crate) most: usize,
    /// The first writer's number: writers of the same number write the same items.
    pub(crate) first: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Self { writers: 4, window: 8, value: 100, most: usize::MAX, first: 0 }
    }
}

/// Writers at work on `app,orders`.
pub(crate) struct Load {
    threads: Vec<JoinHandle<Told>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    acked: AtomicU64,
    refused: AtomicU64,
}

/// What one writer sent, and what it was told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) writer: usize,
    /// Bytes of a value.
    value: usize,
    /// Updates that may have reached the node.
    pub(crate) sent: usize,
    /// The answers in order: the error, if it was one.
    pub(crate) answers: Vec<Option<String>>,
}

impl Told {
    /// Which updates were answered with "ok".
    pub(crate) fn acked(&self) -> impl Iterator<Item = usize> {
        self.answers.iter().enumerate().filter(|(_, error)| error.is_none()).map(|(n, _)| n)
    }

    /// What the node refused.
    pub(crate) fn refusals(&self) -> impl Iterator<Item = &str> {
        self.answers.iter().flatten().map(String::as_str)
    }

    /// The item of update `n`.
    pub(crate) fn id(&self, n: usize) -> String {
        if is_repeated(n) { format!("w{}-newest", self.writer) } else { format!("w{}-{n}", self.writer) }
    }

    /// The value of update `n`, which no other update has.
    pub(crate) fn value(&self, n: usize) -> Vec<u8> {
        let mut text = format!("{n} of writer {} ", self.writer).into_bytes();
        let letter = b'a' + u8::try_from(n % 26).unwrap();
        text.resize(self.value.max(text.len()), letter);
        text
    }
}

fn is_repeated(n: usize) -> bool {
    n % REPEATED == REPEATED - 1
}

impl Load {
    /// Starts writers.
    pub(crate) fn start(door: &Door, shape: Shape) -> Self {
        let shared = Arc::new(Shared::default());
        let start = |at| {
            let (door, shared) = (door.clone(), Arc::clone(&shared));
            thread::spawn(move || {
                let mut told = Told { writer: shape.first + at, value: shape.value, ..Told::default() };
                // That the connection ends is what most tests are about.
                let _ = write(&mut told, &door, shape, &shared);
                told
            })
        };
        Self { threads: (0..shape.writers).map(start).collect(), shared }
    }

    /// Updates answered with "ok" so far.
    pub(crate) fn acked(&self) -> u64 {
        self.shared.acked.load(Ordering::Relaxed)
    }

    /// Waits until the node has refused an update.
    #[track_caller]
    pub(crate) fn is_refused(&self) {
        super::wait_until("a refusal", || (self.shared.refused.load(Ordering::Relaxed) > 0).then_some(()));
    }

    /// Waits until `more` further updates are answered with "ok".
    #[track_caller]
    pub(crate) fn goes_on(&self, more: u64) {
        let goal = self.acked() + more;
        super::wait_until("updates to be answered", || (self.acked() >= goal).then_some(()));
    }

    /// Lets all writers come to their end, that of the connection or of what they have to send.
    pub(crate) fn run_to_the_end(self) -> Vec<Told> {
        self.threads.into_iter().map(|thread| thread.join().expect("a writer does not panic")).collect()
    }

    /// Sends nothing new, waits for the answers, and gives the accounts.
    pub(crate) fn finish(self) -> Vec<Told> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.run_to_the_end()
    }
}

fn write(told: &mut Told, door: &Door, shape: Shape, shared: &Shared) -> std::io::Result<()> {
    let (answers, mut requests) = door.stream()?;
    let mut answers = BufReader::new(answers);
    let mut line = String::new();
    loop {
        let mut bytes = Vec::new();
        while told.sent - told.answers.len() < shape.window
            && told.sent < shape.most
            && !shared.stop.load(Ordering::Relaxed)
        {
            let (key, value) = (format!("app,orders,{}", told.id(told.sent)), told.value(told.sent));
            write!(bytes, "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n", key.len(), value.len())?;
            bytes.extend_from_slice(&value);
            bytes.extend_from_slice(b"\r\n");
            told.sent += 1;
        }
        requests.write_all(&bytes)?;
        if told.sent == told.answers.len() {
            return Ok(());
        }
        line.clear();
        answers.read_line(&mut line)?;
        let Some(answer) = line.strip_suffix("\r\n") else {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        };
        let error = answer.strip_prefix('-').map(str::to_owned);
        let count = if error.is_none() { &shared.acked } else { &shared.refused };
        count.fetch_add(1, Ordering::Relaxed);
        told.answers.push(error);
    }
}

/// What an audit found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Audit {
    /// Updates that were answered with "ok".
    pub(crate) acked: usize,
    /// Those of them that are not there: place of the writer in the list, number of its update.
    pub(crate) missing: Vec<(usize, usize)>,
}

impl Audit {
    /// Nothing that was acknowledged is missing.
    #[track_caller]
    pub(crate) fn is_complete(&self) {
        let Self { acked, missing } = self;
        assert!(
            missing.is_empty(),
            "{} of {acked} acknowledged updates are missing: {missing:?}",
            missing.len()
        );
    }
}

/// Holds the node behind `door` to what the writers were told.
///
/// # Panics
/// If an item is there that nobody wrote, or half of one; if an update is missing although a later one of the same
/// writer is there.
#[track_caller]
pub(crate) fn audit(door: &Door, all: &[Told]) -> Audit {
    let stored = items(door, "app,orders,");
    let mut audit = Audit::default();
    for (at, told) in all.iter().enumerate() {
        let found = |n: usize| stored.get(format!("app,orders,{}", told.id(n)).as_bytes());
        let newest =
            (0..told.sent).rev().filter(|n| is_repeated(*n)).find(|n| found(*n) == Some(&told.value(*n)));
        let there = |n: usize| if is_repeated(n) { newest >= Some(n) } else { found(n).is_some() };
        let mut gap = None;
        for n in 0..told.sent {
            if let Some(value) = found(n).filter(|_| !is_repeated(n)) {
                assert!(*value == told.value(n), "item {} is not what was written: {value:?}", told.id(n));
            }
            assert!(found(n).is_none() || !is_repeated(n) || newest.is_some(), "{} is half", told.id(n));
            let refused = told.answers.get(n).is_some_and(Option::is_some);
            match (there(n), refused) {
                (true, _) => {
                    assert!(gap.is_none(), "{} is there, update {gap:?} before it is not", told.id(n))
                }
                (false, true) => {}
                (false, false) => gap = gap.or(Some(n)),
            }
        }
        audit.acked += told.acked().count();
        audit.missing.extend(told.acked().filter(|n| !there(*n)).map(|n| (at, n)));
    }
    audit
}

/// All items whose keys begin with `prefix`.
#[track_caller]
pub(crate) fn items(door: &Door, prefix: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut connection = door.connect();
    let mut found = BTreeMap::new();
    let mut cursor = 0_u64;
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{prefix}*")).arg("COUNT").arg(1000);
        let (next, keys): (u64, Vec<Vec<u8>>) = scan.query(&mut connection).unwrap();
        if !keys.is_empty() {
            let values: Vec<Option<Vec<u8>>> = redis::cmd("MGET").arg(&keys).query(&mut connection).unwrap();
            let there = keys.into_iter().zip(values).filter_map(|(key, value)| Some((key, value?)));
            found.extend(there);
        }
        if next == 0 {
            return found;
        }
        cursor = next;
    }
}

/// Bytes that nothing packs.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..len.div_ceil(8)).flat_map(|_| next()).take(len).collect()
}
