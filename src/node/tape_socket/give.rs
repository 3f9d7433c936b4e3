//! The listener gives what it keeps: sets to a node that is restored, parts of a spool to the node whose they are.

use super::error::WireError;
use super::listen::{Desk, Keep};
use super::wire::Wire;
use super::{Refusal, printable};
use crate::base::Ordinal;
use crate::base::limits::{SOCKET_BLOCK, SOCKET_LOOK_MS, SOCKET_TELL_MS};
use crate::engine::SpoolFound;
use crate::format::asked::{Asked, Gives, PartThere, PartsThere, SetSummary, Want};
use crate::format::set::SetId;
use crate::format::socket::{Refused, SocketFrame};
use crate::node::set::{Contents, SetError, Source, contents};
use crate::node::spool::{self, SpoolDir};
use crate::node::tape::{TapeError, TapeSource};
use bytes::Bytes;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

const LOOK: Duration = Duration::from_millis(SOCKET_LOOK_MS);
/// Blocks that are read ahead.
const AHEAD: usize = 4;

/// The next bytes; none of them is the end.
type Fed = Result<Bytes, Refusal>;

/// What is given, and where it comes from.
pub(super) struct Given {
    gives: Gives,
    feed: Receiver<Fed>,
    /// Nobody wants it any more.
    stop: Arc<AtomicBool>,
}

impl Drop for Given {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// One reads from the drive, and nobody else does.
struct Reads(Arc<Desk>);

impl Drop for Reads {
    fn drop(&mut self) {
        self.0.state().reading = None;
    }
}

fn of_set(error: &SetError) -> Refusal {
    let why = match error {
        SetError::Io { source, .. } if source.kind() == ErrorKind::NotFound => Refused::Missing,
        SetError::Tape(TapeError::NoSave { .. }) => Refused::Missing,
        SetError::Tape(error) if error.is_busy() => Refused::InUse,
        SetError::Io { .. } | SetError::Tape(_) => Refused::Failed,
        _ => Refused::Unfit,
    };
    Refusal::new(why, printable(&error.to_string()), printable(&error.next()))
}

fn missing(message: String) -> Refusal {
    Refusal::new(
        Refused::Missing,
        message,
        "see what is there: hot-backup save list, or tape list, on that machine",
    )
}

impl Desk {
    /// Gives what one connection asks for, one thing after the other.
    pub(super) fn give_all(
        self: &Arc<Self>,
        mut wire: Wire,
        from: SocketAddr,
        first: Want,
    ) -> Result<(), WireError> {
        let mut want = Some(first);
        loop {
            match want.take() {
                Some(now) => match self.given(&now, from) {
                    Ok(given) => {
                        if let Some(refusal) = give(&mut wire, &now, &given)? {
                            return self.refuse(wire, from, &now.name, refusal);
                        }
                    }
                    Err(refusal) => return self.refuse(wire, from, &now.name, refusal),
                },
                None if self.state().draining => break,
                // Who goes without a word has what was asked for.
                None => match asked(wire.receive(LOOK)) {
                    Ok(next) => want = next,
                    Err(_) => return Ok(()),
                },
            }
            if wire.is_over() {
                break;
            }
        }
        wire.end();
        Ok(())
    }

    fn given(self: &Arc<Self>, want: &Want, from: SocketAddr) -> Result<Given, Refusal> {
        match want.what {
            Asked::Contents | Asked::Set | Asked::Lenient => self.set(want, from),
            Asked::Parts(of) | Asked::Part(of) | Asked::LetGo(of) => self.parts(want, of),
        }
    }

    /// What is asked of the spool of a node below the directory.
    fn parts(&self, want: &Want, of: Ordinal) -> Result<Given, Refusal> {
        let Keep::Dir(dir) = &self.order.keep else {
            let message = format!("{} keeps no spool that a node reads back", self.order.keep.name());
            return Err(Refusal::new(Refused::Unfit, message, "listen there with --to dir:PATH"));
        };
        if let Some(pair) = self.pair.filter(|pair| *pair != want.pair) {
            let message =
                format!("it is of pair {}, and this listener keeps spools of pair {pair}", want.pair);
            return Err(Refusal::new(Refused::Pair, message, "ask a machine of its own pair"));
        }
        let spool = SpoolDir::below(dir, want.pair, of);
        let failed = |doing| {
            let what = spool.path().join(&want.name).display().to_string();
            move |source| of_set(&SetError::Io { doing, what, source })
        };
        spool.make().map_err(failed("making"))?;
        let is_part = want.name.ends_with(spool::PART);
        let gives = |bytes, free| Gives { gaps: false, stream: want.stream, bytes, free };
        match want.what {
            Asked::LetGo(_) if is_part => {
                let removed = spool.remove_named(&want.name).and_then(|()| spool.sync());
                removed.map_err(failed("removing"))?;
                Ok(Given::of_bytes(gives(0, spool.free()), Vec::new(), 0))
            }
            Asked::Part(_) if is_part => {
                let file = File::open(spool.path().join(&want.name)).map_err(failed("reading"))?;
                let len = file.metadata().map_err(failed("reading"))?.len();
                let end = if want.end == 0 { len } else { want.end.min(len) };
                let (from, failed) = (want.from, failed("reading"));
                Ok(Given::of_thread(gives(end, spool.free()), move |sender, _| {
                    feed_file(&file, from..end, sender).map_err(failed)
                }))
            }
            Asked::Parts(_) => {
                let SpoolFound { parts, damaged, free, .. } = spool.list().map_err(failed("listing"))?;
                let there = |header| PartThere { header, reel: 0, let_go: false };
                let listed = PartsThere { parts: parts.into_iter().map(there).collect(), damaged }.encode();
                Ok(Given::of_bytes(gives(listed.len() as u64, free), listed, want.from))
            }
            _ => Err(missing(format!("{:?} is no name of a part of a spool", want.name))),
        }
    }

    /// The drive, for one who reads; nothing has to be taken where there is none.
    fn reads(self: &Arc<Self>, from: SocketAddr) -> Result<Option<Reads>, Refusal> {
        if !matches!(self.order.keep, Keep::Tape(_)) {
            return Ok(None);
        }
        let mut state = self.state();
        if let Some(refusal) = state.in_the_way(&self.order.keep) {
            return Err(refusal);
        }
        // What is given up for this one keeps what counts of it.
        state.under_way = None;
        state.reading = Some(from);
        Ok(Some(Reads(Arc::clone(self))))
    }

    fn set(self: &Arc<Self>, want: &Want, from: SocketAddr) -> Result<Given, Refusal> {
        let reads = self.reads(from)?;
        let (source, found) = self.find(want)?;
        let id = found.header.set;
        if let Some(pair) = self.pair.filter(|pair| *pair != found.header.pair) {
            let found = found.header.pair;
            let message = format!("set {id} is of pair {found}, and this listener gives sets of pair {pair}");
            return Err(Refusal::new(Refused::Pair, message, "ask a machine of its own pair"));
        }
        let gaps = want.only.is_some() && matches!(source, Source::Tape(_));
        let bytes = if gaps { 0 } else { found.bytes };
        let gives = Gives { gaps, stream: id, bytes, free: 0 };
        if want.what == Asked::Contents {
            let Contents { header, begin, trailer, bytes, parts } = found;
            let summary = SetSummary { header, begin, trailer, bytes, parts }.encode();
            let unfit = |error: crate::format::DecodeError| {
                Refusal::new(
                    Refused::Unfit,
                    format!("telling what set {id} holds: {error}"),
                    "restore it there",
                )
            };
            return Ok(Given::of_bytes(gives, summary.map_err(unfit)?, want.from));
        }
        if want.from == 0 {
            self.order.teller.tell(&format!("{from}: giving set {id} of node {}", found.begin.node));
        }
        let from = want.from;
        Ok(Given::of_thread(gives, move |sender, stop| {
            let fed = feed(&source, from, sender, stop);
            // The drive is free before the other side hears of the end.
            drop(reads);
            fed
        }))
    }

    /// The set that is asked for, and what it holds.
    fn find(&self, want: &Want) -> Result<(Source, Contents), Refusal> {
        let any = want.stream.0 == [0; 16];
        let source = match &self.order.keep {
            Keep::File(path) => Source::Path(path.clone()),
            Keep::Dir(dir) if want.name.is_empty() => return self.newest(dir, want.stream),
            Keep::Dir(dir) => {
                let path = dir.join(format!("{}.hbs", want.name));
                if !path.exists() && dir.join(format!("{}.hbs.part", want.name)).exists() {
                    return Err(missing(format!("set {} did not come whole", want.name)));
                }
                Source::Path(path)
            }
            Keep::Tape(order) => {
                let named = Some(want.name.clone()).filter(|name| !name.is_empty());
                let save = if any { named } else { Some(want.stream.to_string()) };
                let (options, lenient) = (order.options.clone(), want.what == Asked::Lenient);
                Source::Tape(Box::new(TapeSource { options, save, only: want.only, lenient }))
            }
        };
        let found = contents(&source).map_err(|error| of_set(&error))?;
        if found.parts > 1 && !matches!(source, Source::Tape(_)) {
            let message = format!("{} stands in several files", source.name());
            return Err(Refusal::new(Refused::Unfit, message, "a set in one file, or on reels, is given"));
        }
        if !any && found.header.set != want.stream {
            return Err(missing(format!("{} is set {} by now", source.name(), found.header.set)));
        }
        Ok((source, found))
    }

    /// The newest set in a directory, or the one of this number.
    fn newest(&self, dir: &Path, stream: SetId) -> Result<(Source, Contents), Refusal> {
        let failed =
            |source| of_set(&SetError::Io { doing: "reading", what: dir.display().to_string(), source });
        let mut newest: Option<(Source, Contents)> = None;
        for entry in std::fs::read_dir(dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_none_or(|end| end != "hbs") || path.is_dir() {
                continue;
            }
            let source = Source::Path(path);
            // What is none, or of somebody else, is none of those that are looked for.
            let Ok(found) = contents(&source) else { continue };
            let wanted = stream.0 == [0; 16] || found.header.set == stream;
            let own = self.pair.is_none_or(|pair| pair == found.header.pair);
            let newer =
                newest.as_ref().is_none_or(|(_, other)| other.trailer.wall_ms < found.trailer.wall_ms);
            if wanted && own && newer {
                newest = Some((source, found));
            }
        }
        newest.ok_or_else(|| missing(format!("{} holds no save set of this pair", dir.display())))
    }
}

/// What was asked for behind the last answer; none if nothing was.
fn asked(frame: Result<Option<SocketFrame>, WireError>) -> Result<Option<Want>, WireError> {
    match frame {
        Ok(Some(SocketFrame::Want(want))) => Ok(Some(want)),
        // What was sent before the end was heard.
        Ok(Some(SocketFrame::Counts { .. }) | None) => Ok(None),
        Ok(Some(_)) => Err(WireError::Ended),
        Err(error) => Err(error),
    }
}

impl Given {
    fn of_bytes(gives: Gives, bytes: Vec<u8>, from: u64) -> Self {
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
        let bytes = Bytes::from(bytes).slice(from..);
        Self::of_thread(gives, move |sender, _| {
            for at in (0..bytes.len()).step_by(SOCKET_BLOCK) {
                let block = bytes.slice(at..bytes.len().min(at + SOCKET_BLOCK));
                if sender.send(Ok(block)).is_err() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// What `feed` reads, in a thread of its own: it may wait for a drive.
    fn of_thread(
        gives: Gives,
        feed: impl FnOnce(&SyncSender<Fed>, &Arc<AtomicBool>) -> Result<(), Refusal> + Send + 'static,
    ) -> Self {
        let (sender, fed) = sync_channel(AHEAD);
        let stop: Arc<AtomicBool> = Arc::default();
        let stopped = Arc::clone(&stop);
        let begun = thread::Builder::new().name("tape-give".to_owned()).spawn(move || {
            // Nobody hears of it who is gone.
            let _ = sender.send(feed(&sender, &stopped).map(|()| Bytes::new()));
        });
        drop(begun);
        Self { gives, feed: fed, stop }
    }
}

/// Reads a source from this byte on.
fn feed(source: &Source, from: u64, sender: &SyncSender<Fed>, stop: &Arc<AtomicBool>) -> Result<(), Refusal> {
    let mut input = source.stream_from(from, stop).map_err(|error| of_set(&error))?;
    let mut buffer = vec![0; SOCKET_BLOCK];
    while !stop.load(Ordering::Relaxed) {
        let count = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(source_error) => {
                let what = source.name();
                return Err(of_set(&SetError::Io { doing: "reading", what, source: source_error }));
            }
        };
        let block = Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default());
        if sender.send(Ok(block)).is_err() {
            break;
        }
    }
    Ok(())
}

/// Reads these bytes of a file.
fn feed_file(file: &File, mut left: Range<u64>, sender: &SyncSender<Fed>) -> io::Result<()> {
    while left.start < left.end {
        let len = usize::try_from(left.end - left.start).unwrap_or(usize::MAX).min(SOCKET_BLOCK);
        let mut block = vec![0; len];
        file.read_exact_at(&mut block, left.start)?;
        left.start += len as u64;
        if sender.send(Ok(block.into())).is_err() {
            break;
        }
    }
    Ok(())
}

/// Sends what is fed, no more than may be sent; why that ended early, if it did.
fn give(wire: &mut Wire, want: &Want, given: &Given) -> Result<Option<Refusal>, WireError> {
    wire.send(&SocketFrame::Gives(given.gives))?;
    let (mut at, mut may, mut said) = (want.from, want.up_to, Instant::now());
    let mut next: Option<Bytes> = None;
    loop {
        if next.is_none() {
            next = match given.feed.recv_timeout(LOOK) {
                Ok(Ok(bytes)) if bytes.is_empty() => break,
                Ok(Ok(bytes)) => Some(bytes),
                Ok(Err(refusal)) => return Ok(Some(refusal)),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => {
                    let message = "reading it ended in its middle";
                    return Ok(Some(Refusal::new(Refused::Failed, message, "see what that machine says")));
                }
            };
        }
        let fits = next.as_ref().is_some_and(|bytes| at + bytes.len() as u64 <= may);
        // One who waits for leave to send waits here, one who waits for the drive above.
        match wire.receive(if next.is_some() && !fits { LOOK } else { Duration::ZERO })? {
            Some(SocketFrame::Counts { up_to }) => may = may.max(up_to),
            Some(_) => return Err(WireError::Ended),
            None => {}
        }
        if fits && let Some(bytes) = next.take() {
            let offset = at;
            at += bytes.len() as u64;
            wire.send(&SocketFrame::Data { offset, bytes })?;
            said = Instant::now();
        } else if said.elapsed() > Duration::from_millis(SOCKET_TELL_MS) {
            wire.send(&SocketFrame::Data { offset: at, bytes: Bytes::new() })?;
            said = Instant::now();
        }
    }
    wire.send(&SocketFrame::Done { bytes: at })?;
    Ok(None)
}
