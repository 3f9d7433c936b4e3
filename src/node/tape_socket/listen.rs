//! The receiving side: one stream at a time goes into one place.

use super::error::WireError;
use super::note::{ListenerView, Notes, StreamView};
use super::sink::{Opened, Sink};
use super::wire::Wire;
use super::{Refusal, Side, SocketError, SocketKeys};
use crate::base::limits::{
    SOCKET_CALLERS_MAX, SOCKET_KEEP_MS, SOCKET_LOOK_MS, SOCKET_PROVE_MS, SOCKET_TELL_MS,
};
use crate::format::PairId;
use crate::format::socket::{Refused, SocketFrame, StreamKind, StreamOpen};
use crate::node::tape::{TapeOrder, Teller};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const LOOK: Duration = Duration::from_millis(SOCKET_LOOK_MS);

/// Where sets are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// One set becomes this file.
    File(PathBuf),
    /// Each set becomes a file in this directory, `NAME.hbs`.
    Dir(PathBuf),
    /// Each set becomes a save on reels.
    Tape(Box<TapeOrder>),
}

impl Keep {
    /// How it is called in messages.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => format!("file:{}", path.display()),
            Self::Dir(path) => format!("dir:{}", path.display()),
            Self::Tape(order) => order.options.place.name(),
        }
    }

    /// Where what is noted of it lies, and what the names of those files begin with.
    pub(super) fn notes(&self) -> (PathBuf, String) {
        match self {
            Self::File(path) => {
                let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                (dir.map_or_else(|| PathBuf::from("."), PathBuf::from), format!("{name}-"))
            }
            Self::Dir(path) => (path.clone(), String::new()),
            Self::Tape(order) => order.options.place.notes(order.options.dir.as_deref()),
        }
    }
}

/// How a listener works.
#[derive(Clone, Debug)]
pub struct ListenOrder {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What is proven.
    pub keys: SocketKeys,
    /// Where sets are kept.
    pub keep: Keep,
    /// Senders keep so much that does not count (bytes).
    pub window: u64,
    /// It ends after one set.
    pub once: bool,
    /// Hears what people should know.
    pub teller: Teller,
}

/// What a listener did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listened {
    /// Sets that it took.
    pub taken: u64,
    /// Whether a stream was left that is not whole.
    pub left: bool,
}

/// Takes sets until it is told to drain, or has one if that is all it shall take.
///
/// # Errors
/// [`SocketError`]: it cannot begin. What goes wrong with a stream is told to its sender and to people here.
pub fn listen(order: ListenOrder) -> Result<Listened, SocketError> {
    let pair = order.keys.pair()?;
    // What is wrong with the keys is said before anybody calls.
    order.keys.identity(Side::Listen)?;
    let notes = Notes::of(&order.keep);
    if let Some(there) = notes.read()? {
        let place = order.keep.name();
        return Err(SocketError::There { place, pid: there.pid, listen: there.listen });
    }
    let failed = |source| SocketError::Listen { address: order.listen, source };
    let listener = TcpListener::bind(order.listen).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    notes.take_word();
    let desk = Arc::new(Desk { order, pair, state: Mutex::default(), callers: AtomicUsize::new(0) });
    desk.order.teller.tell(&format!("listening on {address} for {}", desk.order.keep.name()));
    let listened = desk.serve(&listener, address, &notes);
    notes.remove();
    listened
}

/// What all connections share.
pub(super) struct Desk {
    pub(super) order: ListenOrder,
    pub(super) pair: Option<PairId>,
    state: Mutex<State>,
    callers: AtomicUsize,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) under_way: Option<UnderWay>,
    /// Who reads from the drive.
    pub(super) reading: Option<SocketAddr>,
    /// The number of the last connection that sends.
    turn: u64,
    taken: u64,
    pub(super) draining: bool,
    /// A stream was begun since it listens: the next one goes behind it.
    began: bool,
    /// A set was taken then, and its sender may not know it yet.
    unheard: Option<Instant>,
}

/// A stream under way.
pub(super) struct UnderWay {
    open: StreamOpen,
    sink: Sink,
    /// The connection that sends it.
    turn: u64,
    from: SocketAddr,
    /// Since when its sender is away.
    away: Option<Instant>,
    /// All of it came.
    closed: bool,
    counts: u64,
    /// What had come when this connection began.
    base: u64,
}

/// What a connection is to say.
enum Told {
    Counts(u64),
    Done(u64),
    /// Another connection of the same sender goes on.
    Replaced,
}

/// One that is dropped is counted.
struct Caller(Arc<Desk>);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.callers.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Desk {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(
        self: &Arc<Self>,
        listener: &TcpListener,
        address: SocketAddr,
        notes: &Notes,
    ) -> Result<Listened, SocketError> {
        let mut told = None;
        loop {
            match listener.accept() {
                Ok((socket, from)) => self.let_in(socket, from),
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(LOOK),
                // No descriptors, no memory, or a caller that is gone: it may be better later.
                Err(_) => thread::sleep(LOOK),
            }
            let mut state = self.state();
            state.draining |= notes.take_word();
            if let Some(Refusal { message, .. }) = state.go_on_alone() {
                self.order.teller.tell(&message);
            }
            if state.draining && state.under_way.as_ref().is_some_and(UnderWay::is_left) {
                break;
            }
            let idle = state.under_way.is_none();
            let view = state.view(address, &self.order);
            let kept = Duration::from_millis(SOCKET_KEEP_MS);
            let heard = state.unheard.is_none_or(|since| since.elapsed() >= kept);
            let over = idle && (state.draining || (self.order.once && state.taken > 0 && heard));
            drop(state);
            if told.as_ref() != Some(&view) {
                // People who ask are told less then; what is taken does not depend on it.
                let written = notes.write(&view);
                if told.is_none() {
                    written?;
                }
                told = Some(view);
            }
            if over && self.callers.load(Ordering::Acquire) == 0 {
                break;
            }
        }
        let mut state = self.state();
        let left = state.under_way.take().is_some();
        Ok(Listened { taken: state.taken, left })
    }

    fn let_in(self: &Arc<Self>, socket: TcpStream, from: SocketAddr) {
        // Dropped when the thread ends, or when there is none.
        let caller = Caller(Arc::clone(self));
        if self.callers.fetch_add(1, Ordering::AcqRel) >= SOCKET_CALLERS_MAX {
            return;
        }
        let spawned = thread::Builder::new().name("tape-socket".to_owned()).spawn(move || {
            if let Err(error) = caller.0.receive(socket, from) {
                caller.0.order.teller.tell(&format!("{from}: {error}"));
            }
        });
        drop(spawned);
    }

    /// Takes what one connection sends, or gives what it asks for.
    fn receive(self: &Arc<Self>, socket: TcpStream, from: SocketAddr) -> Result<(), WireError> {
        socket.set_nonblocking(false)?;
        // As they stand now: a peer may be trusted without a new start.
        let keys = match self.order.keys.identity(Side::Listen) {
            Ok(keys) => keys,
            Err(SocketError::Keys(error)) => return Err(error.into()),
            Err(_) => return Err(WireError::Ended),
        };
        let mut wire = Wire::accept(socket, &keys)?;
        let patience = Duration::from_millis(SOCKET_PROVE_MS);
        let open = match wire.receive(patience)?.ok_or(WireError::Silent(patience))? {
            SocketFrame::Open(open) => open,
            SocketFrame::Want(want) => return self.give_all(wire, from, want),
            _ => return Err(WireError::Ended),
        };
        let (name, is_part) = (open.name.clone(), matches!(open.kind, StreamKind::Part(_)));
        let (turn, frame) = match self.begin(open, from) {
            Ok(begun) => begun,
            Err(refusal) => return self.refuse(wire, from, &name, refusal),
        };
        let sent = wire.send(&frame);
        let Some(turn) = turn else {
            // All of it was there before.
            self.heard(wire);
            return sent;
        };
        match sent.and_then(|()| self.take_all(&mut wire, turn, is_part)) {
            Ok(None) => self.heard(wire),
            Ok(Some(refusal)) => {
                self.give_up(turn);
                return self.refuse(wire, from, &name, refusal);
            }
            Err(error) => {
                self.left(turn);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Says goodbye after the last word, and notes whether that was heard.
    fn heard(&self, wire: Wire) {
        if wire.end() {
            self.state().unheard = None;
        }
    }

    pub(super) fn refuse(
        &self,
        mut wire: Wire,
        from: SocketAddr,
        name: &str,
        refusal: Refusal,
    ) -> Result<(), WireError> {
        let Refusal { why, message, next } = refusal;
        self.order.teller.tell(&format!("{from}: {name} is refused: {message}"));
        wire.send(&SocketFrame::Refused { why, message, next })?;
        wire.end();
        Ok(())
    }

    /// Judges what somebody wants to send. None for a turn: all of it is there.
    fn begin(&self, open: StreamOpen, from: SocketAddr) -> Result<(Option<u64>, SocketFrame), Refusal> {
        if let Some(pair) = self.pair.filter(|pair| *pair != open.pair) {
            let message = format!("it is of pair {}, and this listener takes sets of pair {pair}", open.pair);
            return Err(Refusal::new(Refused::Pair, message, "send it to a machine of its own pair"));
        }
        let mut state = self.state();
        state.turn += 1;
        let turn = state.turn;
        // A node sends one part of its spool at a time: the one before is given up.
        let is_part = matches!(open.kind, StreamKind::Part(_));
        let same = |other: &mut UnderWay| (other.open.kind, other.open.pair) == (open.kind, open.pair);
        state.under_way.take_if(|other| is_part && other.open.stream != open.stream && same(other));
        if let Some(other) = state.under_way.as_mut().filter(|other| other.open.stream == open.stream) {
            // The connection before may not have been seen to end.
            (other.turn, other.from, other.away) = (turn, from, None);
            let (from, window) = (other.sink.received(), other.sink.window());
            other.base = from;
            return Ok((Some(turn), SocketFrame::Ready { from, window }));
        }
        if let Some(refusal) = state.in_the_way(&self.order.keep) {
            return Err(refusal);
        }
        if state.draining {
            let message = "this listener takes nothing more, and ends".to_owned();
            return Err(Refusal::new(Refused::InUse, message, "send it when another listener is there"));
        }
        // What is given up for this one keeps what counts of it.
        state.under_way = None;
        let opened = match (&self.order.keep, open.kind) {
            (Keep::Dir(dir), StreamKind::Part(of)) => Sink::part(dir, &open, of, self.order.window),
            (keep, _) => self.sink(keep, &open, state.began),
        };
        let sink = match opened? {
            Opened::Whole(bytes) => return Ok((None, SocketFrame::Done { bytes })),
            Opened::Sink(sink) => sink,
        };
        let (received, window) = (sink.received(), sink.window());
        let how = if received > 0 { format!(", from byte {received} on") } else { String::new() };
        // Of parts there are many.
        if !is_part {
            self.order.teller.tell(&format!("{from}: taking {} of node {}{how}", open.name, open.node));
        }
        let (away, closed, counts, base) = (None, false, received, received);
        state.began = true;
        state.under_way = Some(UnderWay { open, sink, turn, from, away, closed, counts, base });
        Ok((Some(turn), SocketFrame::Ready { from: received, window }))
    }

    fn sink(&self, keep: &Keep, open: &StreamOpen, behind: bool) -> Result<Opened, Refusal> {
        match keep {
            Keep::Tape(order) => Sink::reels(order, open, behind),
            Keep::File(path) if matches!(open.kind, StreamKind::Part(_)) => {
                let message = format!("taking {}: parts of a spool go to a directory", path.display());
                Err(Refusal::new(Refused::Unfit, message, "listen there with --to dir:PATH"))
            }
            Keep::File(path) => Sink::file(path, open, self.order.window),
            Keep::Dir(dir) => Sink::file(&dir.join(format!("{}.hbs", open.name)), open, self.order.window),
        }
    }

    /// Takes data to the end. None when all of it counts, or another connection goes on.
    fn take_all(&self, wire: &mut Wire, turn: u64, is_part: bool) -> Result<Option<Refusal>, WireError> {
        let (mut told, mut said) = (0, Instant::now());
        loop {
            let frame = wire.receive(LOOK)?;
            let step = {
                let mut state = self.state();
                state.step(turn, frame)
            };
            match step {
                Err(refusal) => return Ok(Some(refusal)),
                Ok(Told::Replaced) => return Ok(None),
                Ok(Told::Done(bytes)) => {
                    if !is_part {
                        self.order.teller.tell(&format!("a set of {bytes} bytes is there"));
                    }
                    wire.send(&SocketFrame::Done { bytes })?;
                    return Ok(None);
                }
                Ok(Told::Counts(up_to)) => {
                    if up_to > told || said.elapsed() > Duration::from_millis(SOCKET_TELL_MS) {
                        wire.send(&SocketFrame::Counts { up_to })?;
                        (told, said) = (up_to, Instant::now());
                    }
                }
            }
        }
    }

    /// The sender is away: what came is kept for it.
    fn left(&self, turn: u64) {
        if let Some(stream) = self.state().under_way.as_mut().filter(|stream| stream.turn == turn) {
            stream.away = Some(Instant::now());
        }
    }

    /// The stream is over; what counts of it stays where it is.
    fn give_up(&self, turn: u64) {
        self.state().under_way.take_if(|stream| stream.turn == turn);
    }
}

impl UnderWay {
    /// Whether its sender is away, and something of it did not come.
    fn is_left(&self) -> bool {
        self.away.is_some() && !self.closed
    }

    /// Why another stream is not taken now; none if this one has waited for its sender for long enough.
    fn in_the_way(&self, keep: &Keep) -> Option<Refusal> {
        let kept = Duration::from_millis(SOCKET_KEEP_MS);
        let StreamOpen { name, node, .. } = &self.open;
        let place = keep.name();
        let (message, next) = match self.away {
            None => (
                format!("{place} is in use: it takes {name} of node {node} from {}", self.from),
                "wait for its end".to_owned(),
            ),
            Some(since) if since.elapsed() < kept => (
                format!("{place} is in use: it is kept for {name} of node {node}, whose sender is away"),
                format!("try again in {} s", (kept.saturating_sub(since.elapsed())).as_secs() + 1),
            ),
            Some(_) => return None,
        };
        Some(Refusal::new(Refused::InUse, message, next))
    }
}

impl State {
    /// Why the place cannot be had now; none if it can.
    pub(super) fn in_the_way(&self, keep: &Keep) -> Option<Refusal> {
        if let Some(from) = self.reading {
            let message = format!("{} is in use: {from} reads from it", keep.name());
            return Some(Refusal::new(Refused::InUse, message, "wait for its end"));
        }
        self.under_way.as_ref().and_then(|other| other.in_the_way(keep))
    }

    /// Takes one frame of the connection whose turn it is, and says what counts now.
    fn step(&mut self, turn: u64, frame: Option<SocketFrame>) -> Result<Told, Refusal> {
        let Some(stream) = self.under_way.as_mut().filter(|stream| stream.turn == turn) else {
            return Ok(Told::Replaced);
        };
        let unfit = |message: String| Refusal::new(Refused::Unfit, message, "begin again");
        match frame {
            Some(SocketFrame::Data { offset, bytes }) if !stream.closed => {
                let received = stream.sink.received();
                if offset != received {
                    return Err(unfit(format!("byte {offset} came where byte {received} was to come")));
                }
                // What a sender may send is bounded, so what waits for the drive is.
                let most = stream.counts.max(stream.base).saturating_add(stream.sink.window());
                if received > stream.counts && received + bytes.len() as u64 > most {
                    return Err(unfit("more came than may be sent before it counts".to_owned()));
                }
                stream.sink.put(&bytes)?;
            }
            Some(SocketFrame::End { bytes }) if !stream.closed => {
                let received = stream.sink.received();
                if bytes != received {
                    return Err(unfit(format!("{bytes} bytes were sent, and {received} came")));
                }
                stream.sink.close()?;
                stream.closed = true;
            }
            Some(SocketFrame::End { .. }) | None => {}
            Some(_) => return Err(unfit("a frame came out of its place".to_owned())),
        }
        if stream.closed && stream.sink.is_over()? {
            let bytes = stream.sink.received();
            self.under_way = None;
            self.taken += 1;
            self.unheard = Some(Instant::now());
            return Ok(Told::Done(bytes));
        }
        if !stream.closed {
            stream.counts = stream.sink.counts()?;
        }
        Ok(Told::Counts(stream.counts))
    }

    /// What came whole is ended, whether its sender is there or not. Why that failed, if it did.
    fn go_on_alone(&mut self) -> Option<Refusal> {
        let turn = self.under_way.as_ref().filter(|stream| stream.closed && stream.away.is_some())?.turn;
        let refusal = self.step(turn, None).err()?;
        // Its sender opens it again, and is told then.
        self.under_way = None;
        Some(refusal)
    }

    fn view(&self, address: SocketAddr, order: &ListenOrder) -> ListenerView {
        let stream = self.under_way.as_ref().map(|stream| StreamView {
            name: stream.open.name.clone(),
            set: stream.open.stream.to_string(),
            node: stream.open.node.clone(),
            from: stream.from.to_string(),
            connected: stream.away.is_none(),
            received: stream.sink.received(),
            counts: stream.counts,
        });
        ListenerView {
            pid: std::process::id(),
            listen: address.to_string(),
            place: order.keep.name(),
            stream,
            taken: self.taken,
            draining: self.draining,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Epoch, Seq};
    use crate::format::set::SetId;
    use crate::format::socket::StreamKind;
    use bytes::Bytes;
    use std::path::Path;

    const WINDOW: u64 = 400;

    fn desk(dir: &Path, pair: Option<PairId>) -> Desk {
        let order = ListenOrder {
            listen: ([127, 0, 0, 1], 0).into(),
            keys: SocketKeys::Node(dir.to_owned()),
            keep: Keep::Dir(dir.to_owned()),
            window: WINDOW,
            once: false,
            teller: Teller::default(),
        };
        Desk { order, pair, state: Mutex::default(), callers: AtomicUsize::new(0) }
    }

    fn open(set: u8, name: &str) -> StreamOpen {
        StreamOpen {
            kind: StreamKind::Set,
            stream: SetId([set; 16]),
            pair: PairId([9; 16]),
            epoch: Epoch(1),
            seq: Seq(1),
            name: name.to_owned(),
            node: "a".to_owned(),
        }
    }

    fn data(offset: u64, len: usize) -> Option<SocketFrame> {
        Some(SocketFrame::Data { offset, bytes: Bytes::from(vec![1; len]) })
    }

    fn turn(begun: Result<(Option<u64>, SocketFrame), Refusal>) -> (u64, u64) {
        match begun {
            Ok((Some(turn), SocketFrame::Ready { from, window: WINDOW })) => (turn, from),
            other => panic!("{other:?}"),
        }
    }

    fn why<T>(refused: Result<T, Refusal>) -> Refused {
        refused.err().expect("it is refused").why
    }

    #[test]
    fn data_is_taken_in_its_place_only_and_no_more_than_may_wait() {
        let dir = tempfile::tempdir().unwrap();
        let desk = desk(dir.path(), None);
        let from: SocketAddr = ([127, 0, 0, 1], 9).into();
        let (first, at) = turn(desk.begin(open(1, "x"), from));
        assert_eq!(at, 0);
        let step = |turn, frame| desk.state().step(turn, frame);
        assert!(matches!(step(first, data(0, 50)), Ok(Told::Counts(0))));
        assert!(matches!(step(first, data(50, 60)), Ok(Told::Counts(110))), "a quarter of the window counts");
        // A gap, the same again, a part of it again, another length at the end.
        for frame in [data(111, 1), data(0, 50), data(109, 2), Some(SocketFrame::End { bytes: 109 })] {
            assert_eq!(why(step(first, frame)), Refused::Unfit);
        }
        // Another connection of the same sender goes on behind what came, and the one before is not heard any more.
        let (second, at) = turn(desk.begin(open(1, "x"), from));
        assert_eq!(at, 110);
        assert!(matches!(step(first, data(110, 10)), Ok(Told::Replaced)));
        assert!(matches!(step(second, data(110, 10)), Ok(Told::Counts(110))));
        let too_much = usize::try_from(WINDOW).unwrap() + 1;
        assert_eq!(why(step(second, data(120, too_much))), Refused::Unfit);
        assert_eq!(why(step(second, Some(SocketFrame::Done { bytes: 1 }))), Refused::Unfit);
    }

    #[test]
    fn one_stream_at_a_time_is_taken_and_one_whose_sender_stays_away_gives_way() {
        let dir = tempfile::tempdir().unwrap();
        let desk = desk(dir.path(), Some(PairId([9; 16])));
        let from: SocketAddr = ([127, 0, 0, 1], 9).into();
        let (first, _) = turn(desk.begin(open(1, "x"), from));
        assert_eq!(why(desk.begin(open(2, "y"), from)), Refused::InUse);
        desk.left(first);
        let refusal = desk.begin(open(2, "y"), from).unwrap_err();
        assert!(refusal.message.contains("whose sender is away"), "{refusal:?}");
        let long = Duration::from_millis(SOCKET_KEEP_MS);
        if let Some(stream) = &mut desk.state().under_way {
            stream.away = Instant::now().checked_sub(long);
        }
        let (second, _) = turn(desk.begin(open(2, "y"), from));
        assert!(matches!(desk.state().step(first, None), Ok(Told::Replaced)));
        assert!(matches!(desk.state().step(second, None), Ok(Told::Counts(0))));
        let foreign = StreamOpen { pair: PairId([8; 16]), ..open(3, "z") };
        assert_eq!(why(desk.begin(foreign, from)), Refused::Pair);
        desk.give_up(second);
        desk.state().draining = true;
        assert_eq!(why(desk.begin(open(3, "z"), from)), Refused::InUse);
    }
}
