//! The tape socket: the drive, the images or the disk of one machine take the save sets of another, and give them back.
//!
//! The sender connects, and both prove keys: those of their pair, or two that are made of a token both have. What is said then
//! stands in [`crate::format::socket`], and of what is given back in [`crate::format::asked`].
//!
//! - Invariant: what the receiver says counts is on its reel by the drive's own word at a flush, or synced with its note; only
//!   then the sender lets go of it. So a cut, and a sender or a listener that is killed, take nothing away.
//! - Invariant: each part of a stream is taken in its place only, so nothing is there twice.
//! - Invariant: a set gets its name when all of it counts and it has its trailer (I-31).
//!
//! | thread | owns | may block on |
//! |---|---|---|
//! | that of the command `listen` | the port, the note of what is done | nothing |
//! | one for each connection | its socket; in turn what is being written | the other side, the disk; never the drive |
//! | tape | the drive | the drive; the operator |
//! | one for each set that is given | the file, or the drive | the same; the other side |

mod dial;
mod error;
mod fetch;
mod give;
mod listen;
mod note;
mod send;
mod sink;
mod wire;

pub use dial::SocketOrder;
pub use error::SocketError;
pub(in crate::node) use fetch::of_stream;
pub use fetch::{SocketReader, SocketSource, next_of};
pub use listen::{Keep, ListenOrder, Listened, listen};
pub use note::{ListenerView, StreamView, drain, status};
pub use send::{Begun, SocketWriter, send_parts, send_set};

use super::config::Encryption;
use super::identity::{NewKey, NodeKey};
use super::layout::Layout;
use super::setup;
use super::tls::LinkIdentity;
use crate::format::PairId;
use crate::io::Own;
use crate::tape::Key;
use std::path::{Path, PathBuf};

/// Which keys both sides prove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketKeys {
    /// Those of the node in this directory and of its peer.
    Node(PathBuf),
    /// Two that are made of a token.
    Token(Key),
}

/// Which side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Send,
    Listen,
}

impl SocketKeys {
    /// As they stand on disk.
    fn identity(&self, side: Side) -> Result<LinkIdentity, SocketError> {
        let token = match self {
            Self::Node(dir) => return Ok(LinkIdentity::load(&Layout::new(dir), Encryption::Tls)?),
            Self::Token(token) => token,
        };
        let key = |purpose: &str| {
            let new = NewKey::of_secret("tape-socket", &token.of_purpose(purpose));
            new.map_err(|error| error.to_string()).and_then(|new| NodeKey::from_pem(&new))
        };
        let made = |why| SocketError::Token { why };
        let (sender, listener) = (key("tape socket: sender").map_err(made)?, key("tape socket: listener"));
        let listener = listener.map_err(made)?;
        let (own, other) = match side {
            Side::Send => (sender, listener.fingerprint),
            Side::Listen => (listener, sender.fingerprint),
        };
        Ok(LinkIdentity::new(own, vec![other], Encryption::Tls)?)
    }

    /// The only pair whose sets are taken; none where a token says who may send.
    fn pair(&self) -> Result<Option<PairId>, SocketError> {
        match self {
            Self::Node(dir) => {
                let identity = setup::identity(dir)
                    .map_err(|error| SocketError::Node { dir: dir.clone(), why: error.to_string() })?;
                Ok(Some(identity.pair))
            }
            Self::Token(_) => Ok(None),
        }
    }
}

/// A file of ours beside what is received.
fn own(dir: &Path, name: &str) -> Own {
    Own::new(dir, name)
}

/// A text as it may be sent.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What this receiver does not take or give, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal {
    why: crate::format::socket::Refused,
    message: String,
    next: String,
}

impl Refusal {
    fn new(why: crate::format::socket::Refused, message: impl Into<String>, next: impl Into<String>) -> Self {
        Self { why, message: message.into(), next: next.into() }
    }
}

#[cfg(test)]
mod tests;
