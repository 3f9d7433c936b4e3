//! A client of volumes with many requests under way, a writer of stamps on it, and the audit of those.

use super::wait_until;
use hot_backup::client::NbdClient;
use hot_backup::client::nbd::{Choice, NbdReply, Request};
use hot_backup::format::nbd as wire;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// No answer may take so long.
const ANSWER: Duration = Duration::from_secs(60);

/// A connection to one export, chosen in the old way, by `NBD_OPT_EXPORT_NAME`.
#[derive(Debug)]
pub(crate) struct Nbd(NbdClient);

impl Nbd {
    /// Chooses an export.
    pub(crate) fn open(address: SocketAddr, export: &str) -> io::Result<Self> {
        NbdClient::open_by(address, export, ANSWER, Choice::ByName).map(Self)
    }

    /// Size of the export (bytes).
    pub(crate) fn bytes(&self) -> u64 {
        self.0.bytes
    }

    fn request(
        &mut self,
        (flags, command): (u16, u16),
        cookie: u64,
        offset: u64,
        bytes: &[u8],
    ) -> io::Result<()> {
        let len = u32::try_from(bytes.len()).unwrap();
        self.0.send(&Request { command, flags, cookie, offset, len }, bytes)
    }

    /// Waits for the next reply; its cookie.
    fn reply(&mut self) -> io::Result<u64> {
        match self.0.receive()? {
            NbdReply::Simple { cookie, error: 0 } => Ok(cookie),
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    }

    /// Reads; nothing else may be under way.
    pub(crate) fn read(&mut self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.0.read(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes; nothing else may be under way.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write(offset, bytes)
    }

    /// Sends a write without waiting for anything.
    pub(crate) fn sends_write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.request((0, wire::CMD_WRITE), offset, offset, bytes)?;
        self.0.push()
    }

    /// The same of one that asks to be made safe.
    pub(crate) fn sends_fua_write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.request((wire::CMD_FLAG_FUA, wire::CMD_WRITE), offset, offset, bytes)?;
        self.0.push()
    }

    /// Writes `bytes` at each offset, so many at a time; nothing else may be under way.
    pub(crate) fn writes(
        &mut self,
        offsets: impl Iterator<Item = u64>,
        bytes: &[u8],
        in_flight: usize,
    ) -> io::Result<()> {
        let mut open = 0;
        for offset in offsets {
            if open == in_flight {
                self.reply()?;
                open -= 1;
            }
            self.request((0, wire::CMD_WRITE), offset, offset, bytes)?;
            open += 1;
        }
        (0..open).try_for_each(|_| self.reply().map(|_| ()))
    }

    /// Ends its sending side in the middle of a write, and without a goodbye; what still comes until the connection is
    /// closed.
    pub(crate) fn leaves_within_a_write(mut self) -> io::Result<Vec<u8>> {
        let request = Request { command: wire::CMD_WRITE, cookie: 1, len: 8192, ..Request::default() };
        self.0.send(&request, &[0xEE; 4096])?;
        self.0.end_sending()?;
        self.0.receive_rest()
    }

    /// Makes safe what was written; nothing else may be under way.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Drop for Nbd {
    fn drop(&mut self) {
        let _ = self.request((0, wire::CMD_DISC), 0, 0, &[]);
        let _ = self.0.push();
    }
}

/// Bytes of a stamp: they begin and end within blocks.
const STAMP: usize = 4608;
/// Stamps have so many places, which they take one after the other, again and again.
const PLACES: u64 = 2001;
/// Stamps that are read at once.
const AT_ONCE: usize = 200;
/// Writes in flight, and between two flushes.
const BURST: u64 = 16;
/// The cookie of a flush; those of writes are the numbers of their stamps.
const OF_FLUSH: u64 = u64::MAX;

fn place(stamp: u64) -> u64 {
    (stamp % PLACES) * u64::try_from(STAMP).unwrap()
}

/// Every so many stamps of a place are zeros, by the request for that.
fn is_zeros(number: u64) -> bool {
    number % 5 == 4
}

/// Content that no other stamp has, of which no part looks like another; or zeros.
fn stamp(number: u64) -> Vec<u8> {
    if is_zeros(number) {
        return vec![0; STAMP];
    }
    let line = format!("stamp {number}; ");
    line.bytes().cycle().take(STAMP).collect()
}

fn number(stamp: &[u8]) -> Option<u64> {
    let text = stamp.strip_prefix(b"stamp ")?;
    let end = text.iter().position(|byte| *byte == b';')?;
    std::str::from_utf8(&text[..end]).ok()?.parse().ok()
}

/// How a writer makes its stamps safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Safe {
    /// A flush after each burst.
    Flushed,
    /// Every write asks for it.
    Fua,
}

/// What a writer sent and was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamped {
    /// Stamps up to this one may have reached the node.
    pub(crate) sent: u64,
    /// Those up to this one are promised.
    pub(crate) safe: u64,
}

/// One connection that stamps a volume, in order.
pub(crate) struct Stamper {
    thread: JoinHandle<(Stamped, io::Result<()>)>,
    safe: Arc<AtomicU64>,
    most: Arc<AtomicU64>,
}

impl Stamper {
    /// Begins with stamp `first`.
    #[track_caller]
    pub(crate) fn start(address: SocketAddr, export: &str, first: u64, how: Safe) -> Self {
        let nbd = Nbd::open(address, export).expect("the export is there");
        let (safe, most) = (Arc::new(AtomicU64::new(first)), Arc::new(AtomicU64::new(u64::MAX)));
        let mut work = Work { nbd, how, sent: first, safe: Arc::clone(&safe), most: Arc::clone(&most) };
        let thread = thread::spawn(move || {
            let end = work.until_the_end();
            (Stamped { sent: work.sent, safe: work.safe.load(Ordering::Relaxed) }, end)
        });
        Self { thread, safe, most }
    }

    /// Stamps that are promised so far.
    pub(crate) fn safe(&self) -> u64 {
        self.safe.load(Ordering::Relaxed)
    }

    /// Waits until so many more are promised.
    #[track_caller]
    pub(crate) fn goes_on(&self, more: u64) {
        let goal = self.safe() + more;
        wait_until("stamps to be safe", || {
            assert!(!self.thread.is_finished() || self.safe() >= goal, "the writer ended");
            (self.safe() >= goal).then_some(())
        });
    }

    /// Waits until the node hangs up.
    pub(crate) fn run_to_the_end(self) -> Stamped {
        self.thread.join().expect("a writer does not panic").0
    }

    /// Makes safe what was sent, and ends.
    #[track_caller]
    pub(crate) fn finish(self) -> Stamped {
        self.most.store(0, Ordering::Relaxed);
        let (stamped, end) = self.thread.join().expect("a writer does not panic");
        end.unwrap_or_else(|error| panic!("{error} after {stamped:?}"));
        assert_eq!(stamped.safe, stamped.sent);
        stamped
    }
}

struct Work {
    nbd: Nbd,
    how: Safe,
    sent: u64,
    safe: Arc<AtomicU64>,
    most: Arc<AtomicU64>,
}

impl Work {
    fn until_the_end(&mut self) -> io::Result<()> {
        loop {
            let answered = self.sent;
            let flush = self.how == Safe::Flushed && self.safe.load(Ordering::Relaxed) < answered;
            if flush {
                self.nbd.request((0, wire::CMD_FLUSH), OF_FLUSH, 0, &[])?;
            }
            // The next burst is under way while the last one is made safe: something is always half done.
            if self.most.load(Ordering::Relaxed) > 0 {
                (0..BURST).try_for_each(|_| self.send())?;
            } else if !flush {
                return Ok(());
            }
            for _ in 0..self.sent - answered + u64::from(flush) {
                if self.nbd.reply()? == OF_FLUSH {
                    self.safe.store(answered, Ordering::Relaxed);
                }
            }
            if self.how == Safe::Fua {
                self.safe.store(self.sent, Ordering::Relaxed);
            }
        }
    }

    fn send(&mut self) -> io::Result<()> {
        let fua = if self.how == Safe::Fua { wire::CMD_FLAG_FUA } else { 0 };
        let number = self.sent;
        self.sent += 1;
        if is_zeros(number) {
            let flags = if number.is_multiple_of(2) { fua } else { fua | wire::CMD_FLAG_NO_HOLE };
            let (cookie, offset, len) = (number, place(number), u32::try_from(STAMP).unwrap());
            let zeros = Request { command: wire::CMD_WRITE_ZEROES, flags, cookie, offset, len };
            return self.nbd.0.send(&zeros, &[]);
        }
        self.nbd.request((fua, wire::CMD_WRITE), number, place(number), &stamp(number))
    }
}

/// Holds the export to what the writer of all its stamps was told last; how many are there.
///
/// # Panics
/// If a stamp that was promised is missing, or if what is there is not the first so many of what was sent.
#[track_caller]
pub(crate) fn audit_stamps(address: SocketAddr, export: &str, told: Stamped) -> u64 {
    let mut nbd = Nbd::open(address, export).expect("the export is there");
    let mut read = |first| nbd.read(place(first), STAMP * AT_ONCE).expect("it can be read");
    let content: Vec<u8> = (0..PLACES).step_by(AT_ONCE).flat_map(&mut read).collect();
    let found: Vec<&[u8]> = content.chunks(STAMP).take(usize::try_from(PLACES).unwrap()).collect();
    let seen = found.iter().copied().filter_map(number).max().map_or(0, |newest| newest + 1);
    // That zeros came after those is seen only where something else was.
    let zeros = (is_zeros(seen) && seen < told.sent).then_some(seen + 1);
    let fits = zeros.into_iter().chain([seen]).find(|there| first_wrong(&found, *there).is_none());
    let wrong = || format!("{seen} stamps are there, but for {:?}; {told:?}", first_wrong(&found, seen));
    let there = fits.unwrap_or_else(|| panic!("{}", wrong()));
    assert!((told.safe..=told.sent).contains(&there), "{there} stamps are there of {told:?}");
    there
}

/// Where the places do not hold the first so many stamps: the one that is not there, and how it begins.
fn first_wrong(found: &[&[u8]], there: u64) -> Option<(u64, String)> {
    (0..).zip(found).find_map(|(at, found)| {
        let newest = (at..there).step_by(usize::try_from(PLACES).unwrap()).last();
        let right = newest.map_or_else(|| vec![0; STAMP], stamp);
        let text = || String::from_utf8_lossy(&found[..40]).into_owned();
        (*found != right).then(|| (newest.unwrap_or(at), text()))
    })
}
