//! How the other machine is called, and called again when a connection is cut.

use super::error::WireError;
use super::wire::Wire;
use super::{Side, SocketError, SocketKeys};
use crate::base::limits::SOCKET_AGAIN_MS;
use crate::format::socket::SocketFrame;
use crate::node::peer_address::PeerAddress;
use crate::node::tape::Teller;
use crate::node::tls::LinkIdentity;
use std::time::{Duration, Instant};

/// Where a stream goes or comes from, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOrder {
    /// The other machine.
    pub to: PeerAddress,
    /// What is proven.
    pub keys: SocketKeys,
    /// What the set is called there; by its node and number if none.
    pub name: Option<String>,
    /// For so long it is tried to connect again.
    pub retry: Duration,
    /// Hears what people should know.
    pub teller: Teller,
}

impl SocketOrder {
    /// How the place is called in messages.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.name {
            Some(name) => format!("tcp:{}/{name}", self.to),
            None => format!("tcp:{}", self.to),
        }
    }
}

/// Why a step was not made.
pub(super) enum Stop {
    /// The connection is of no use; another one may be.
    Cut(WireError),
    /// It is over.
    Over(SocketError),
}

impl From<WireError> for Stop {
    fn from(error: WireError) -> Self {
        Self::Cut(error)
    }
}

/// Who is called, and since when in vain.
pub(super) struct Dial {
    pub(super) order: SocketOrder,
    pub(super) to: String,
    identity: LinkIdentity,
    /// What is being done, in messages.
    doing: &'static str,
    /// Since when it is cut again and again, and nothing more comes of it.
    pub(super) stuck: Option<Instant>,
}

impl Dial {
    pub(super) fn new(order: &SocketOrder, doing: &'static str) -> Result<Self, SocketError> {
        let identity = order.keys.identity(Side::Send)?;
        Ok(Self { to: order.to.to_string(), order: order.clone(), identity, doing, stuck: None })
    }

    /// A connection whose both sides have proved their keys.
    pub(super) fn wire(&self) -> Result<Wire, WireError> {
        Wire::dial(&self.order.to, &self.identity)
    }

    pub(super) fn broken(&self, why: impl Into<String>) -> SocketError {
        SocketError::Broken { doing: self.doing, to: self.to.clone(), why: why.into() }
    }

    /// A frame that was not waited for.
    pub(super) fn unexpected(&self, frame: SocketFrame) -> Stop {
        let (doing, to) = (self.doing, self.to.clone());
        Stop::Over(match frame {
            SocketFrame::Refused { why, message, next } => {
                SocketError::Refused { doing, to, why, message, next }
            }
            _ => self.broken("a frame came out of its place"),
        })
    }
}

/// One who is called again.
pub(super) trait Calls {
    fn dial(&mut self) -> &mut Dial;

    /// Makes a connection, and says what it is for.
    fn connect(&mut self) -> Result<(), Stop>;

    /// The byte at which it goes on.
    fn goes_on(&self) -> u64;

    /// Connects for the first time; nobody is called twice.
    fn first(&mut self) -> Result<(), SocketError> {
        let error = match self.connect() {
            Ok(()) => return Ok(()),
            Err(Stop::Over(error)) => return Err(error),
            Err(Stop::Cut(error)) => error,
        };
        let Dial { to, doing, .. } = self.dial();
        let (to, doing) = (to.clone(), *doing);
        Err(match error.last(doing, &to) {
            Ok(last) => last,
            Err(cut) => SocketError::Connect { to, why: cut.to_string() },
        })
    }

    /// Connects again, for as long as that is allowed.
    fn again(&mut self, error: WireError) -> Result<(), SocketError> {
        let Dial { order, to, doing, stuck, .. } = self.dial();
        let (to, doing, retry, teller) = (to.clone(), *doing, order.retry, order.teller.clone());
        let until = *stuck.get_or_insert_with(Instant::now) + retry;
        let mut last = match error.last(doing, &to) {
            Ok(last) => return Err(last),
            Err(cut) => cut.to_string(),
        };
        teller.tell(&format!("the connection to {to} was cut ({last}); it is made again"));
        loop {
            match self.connect() {
                Ok(()) => {
                    let from = self.goes_on();
                    teller.tell(&format!("connected to {to} again; it goes on at byte {from}"));
                    return Ok(());
                }
                Err(Stop::Over(error)) => return Err(error),
                Err(Stop::Cut(error)) => match error.last(doing, &to) {
                    Ok(error) => return Err(error),
                    Err(cut) => last = cut.to_string(),
                },
            }
            if Instant::now() >= until {
                return Err(SocketError::Cut { doing, to, within: retry, why: last });
            }
            std::thread::sleep(Duration::from_millis(SOCKET_AGAIN_MS));
        }
    }
}
