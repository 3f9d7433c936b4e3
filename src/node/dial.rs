//! Which address of the peer is dialled next. A name may have several: each is tried in turn, and the next dial begins
//! behind the one at which the last dial ended, so that an address that never answers does not hide the others.

use super::peer_address::{PeerAddress, Resolver};
use crate::base::limits::{DIAL_TROUBLES_TOLD, PEER_LOOK_MS};
use crate::base::{ConnId, Mono, plainly};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// The peer's addresses, and the dial that waits for them.
pub(crate) struct Dial {
    peer: PeerAddress,
    resolver: Resolver,
    /// The last answer of the name service.
    known: Vec<SocketAddr>,
    first: Option<SocketAddr>,
    waiting: Option<(ConnId, Mono)>,
    /// A node that is called, and so does not dial, looks the name up again from here on.
    next_look: Mono,
    told: Vec<String>,
}

/// One dial: an address, and those that are tried after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// Dialled now.
    pub(crate) at: SocketAddr,
    others: VecDeque<SocketAddr>,
    /// What came back from the ones before.
    failed: Vec<String>,
    /// How long one address may take (milliseconds).
    pub(crate) each_ms: u64,
    /// The present one took longer.
    pub(crate) is_late: bool,
}

impl Attempt {
    fn of(addresses: &[SocketAddr], within_ms: u64) -> Option<Self> {
        let (at, others) = addresses.split_first()?;
        let each_ms = within_ms / addresses.len() as u64;
        let others = others.iter().copied().collect();
        Some(Self { at: *at, others, failed: Vec::new(), each_ms, is_late: false })
    }

    /// Whether there is another address to try.
    pub(crate) fn has_more(&self) -> bool {
        !self.others.is_empty()
    }

    /// Notes what came of this address; whether there is another one now.
    pub(crate) fn go_on(&mut self, error: &io::Error) -> bool {
        let trouble = if std::mem::take(&mut self.is_late) {
            format!("not done within {} ms", self.each_ms)
        } else {
            plainly(error)
        };
        self.failed.push(format!("{}: {trouble}", self.at));
        match self.others.pop_front() {
            Some(next) => self.at = next,
            None => return false,
        }
        true
    }

    /// What came of all addresses of `far`, which is not told twice if it is an address itself.
    pub(crate) fn troubles(&self, far: &str) -> String {
        let all = self.failed.join("; ");
        match all.strip_prefix(far).and_then(|rest| rest.strip_prefix(": ")) {
            Some(rest) => rest.to_owned(),
            None => all,
        }
    }

    /// The last address took too long; what came of all.
    pub(crate) fn end_late(&mut self, far: &str) -> String {
        self.is_late = true;
        self.go_on(&io::ErrorKind::TimedOut.into());
        self.troubles(far)
    }
}

impl Dial {
    /// Nothing dialled yet.
    pub(crate) fn new(peer: PeerAddress, resolver: Resolver) -> Self {
        Self {
            peer,
            resolver,
            known: Vec::new(),
            first: None,
            waiting: None,
            next_look: Mono(0),
            told: Vec::new(),
        }
    }

    /// The peer, as the config names it.
    pub(crate) fn peer(&self) -> &PeerAddress {
        &self.peer
    }

    /// Whether this is a host of the peer, as far as is known.
    pub(crate) fn has_host(&self, host: IpAddr) -> bool {
        let literal = self.peer.literal();
        self.known.iter().chain(&literal).any(|address| address.ip().to_canonical() == host)
    }

    /// Looks the peer's name up if that was long ago: a node that never dials knows its peer's hosts by this alone.
    pub(crate) fn refresh(&mut self, now: Mono) {
        if self.peer.literal().is_none() && now >= self.next_look {
            self.next_look = now.plus_ms(PEER_LOOK_MS);
            // Without a thread for it, the next call tries again.
            let _ = self.resolver.ask(&self.peer);
        }
    }

    /// Begins a dial; nothing if its addresses are to be found first, and then [`Self::found`] goes on.
    pub(crate) fn begin(
        &mut self,
        conn: ConnId,
        now: Mono,
        within_ms: u64,
    ) -> Result<Option<Attempt>, String> {
        if let Some(address) = self.peer.literal() {
            return Ok(Attempt::of(&[address], within_ms));
        }
        self.resolver.ask(&self.peer).map_err(|error| self.not_found(&error))?;
        self.waiting = Some((conn, now.plus_ms(within_ms)));
        Ok(None)
    }

    /// The name service answered: the dial that waits for it, if there is one, and where it goes. If the service
    /// fails, the addresses that it gave last are as good a guess as any: the peer proves its key at each of them.
    pub(crate) fn found(
        &mut self,
        answer: io::Result<Vec<SocketAddr>>,
        within_ms: u64,
    ) -> Option<(ConnId, Result<Attempt, String>)> {
        let trouble = match answer {
            Ok(known) => {
                self.known = known;
                String::new()
            }
            Err(error) => self.not_found(&error),
        };
        let (conn, _) = self.waiting.take()?;
        let mut addresses = self.known.clone();
        if let Some(at) = addresses.iter().position(|address| Some(*address) == self.first) {
            addresses.rotate_left(at);
        }
        if !trouble.is_empty() && !addresses.is_empty() {
            self.tell(&format!("{trouble}; its last addresses are dialled"));
        }
        Some((conn, Attempt::of(&addresses, within_ms).ok_or(trouble)))
    }

    fn not_found(&self, error: &io::Error) -> String {
        format!("looking up the address of {}: {}", self.peer, plainly(error))
    }

    /// An address is dialled now: the next dial begins behind it, unless it turns out to be the peer's.
    pub(crate) fn trying(&mut self, attempt: &Attempt) {
        let place = self.known.iter().position(|address| *address == attempt.at);
        self.first = place.and_then(|at| self.known.get((at + 1) % self.known.len()).copied());
    }

    /// The peer proved its key at this address.
    pub(crate) fn reached(&mut self, at: SocketAddr) {
        self.first = Some(at);
        if !self.told.is_empty() {
            self.told.clear();
            tracing::info!("the peer is reached at {at}");
        }
    }

    /// Logs why the peer is not reached, each reason once until it is.
    pub(crate) fn tell(&mut self, why: &str) {
        if self.told.len() < DIAL_TROUBLES_TOLD && !self.told.iter().any(|told| told == why) {
            tracing::warn!("the peer is not reached, and is dialled again: {why}");
            self.told.push(why.to_owned());
        }
    }

    /// The engine gave a dial up; whether it was still waiting for an address.
    pub(crate) fn give_up(&mut self, conn: ConnId) -> bool {
        self.waiting.take_if(|(waiting, _)| *waiting == conn).is_some()
    }

    /// When patience with the name service ends.
    pub(crate) fn deadline(&self) -> Option<Mono> {
        self.waiting.map(|(_, at)| at)
    }

    /// The dial that waited too long for an address, and what is to be said of it.
    pub(crate) fn expire(&mut self, now: Mono, within_ms: u64) -> Option<(ConnId, String)> {
        let (conn, _) = self.waiting.take_if(|(_, at)| *at <= now)?;
        let why = format!(
            "looking up the address of {}: the name service does not answer within {within_ms} ms",
            self.peer
        );
        Some((conn, why))
    }
}

#[cfg(test)]
#[path = "dial_tests.rs"]
mod tests;
