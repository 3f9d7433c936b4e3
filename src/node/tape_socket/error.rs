//! Why a stream does not come or go.

use crate::base::plainly;
use crate::format::DecodeError;
use crate::format::socket::Refused;
use crate::node::tls::LinkSecurityError;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Why a tape socket came to nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// The keys cannot be used, or the other side's are others.
    #[error(transparent)]
    Keys(#[from] LinkSecurityError),
    /// No keys can be made of the token.
    #[error("making keys of the token: {why}")]
    Token {
        /// Why not.
        why: String,
    },
    /// The node whose keys are to be proven is none.
    #[error("reading the node in {}: {why}", dir.display())]
    Node {
        /// Its directory.
        dir: PathBuf,
        /// How it was seen.
        why: String,
    },
    /// The port cannot be had.
    #[error("listening on {address}: {}", plainly(source))]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Another listener is there.
    #[error("listening for {place}: process {pid} does that already, on {listen}")]
    There {
        /// Where it keeps what it takes.
        place: String,
        /// That process.
        pid: u32,
        /// Where it listens.
        listen: String,
    },
    /// Nobody answers.
    #[error("connecting to {to}: {why}")]
    Connect {
        /// Where.
        to: String,
        /// Why not.
        why: String,
    },
    /// The connection was cut for good.
    #[error("{doing} {to}: the connection was cut, and not made again within {} s ({why})", within.as_secs())]
    Cut {
        /// What was being done.
        doing: &'static str,
        /// Where.
        to: String,
        /// How long that was tried.
        within: Duration,
        /// What came of it last.
        why: String,
    },
    /// The other side does not take it, or does not give it.
    #[error("{doing} {to}: {message}")]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// Where.
        to: String,
        /// Why.
        why: Refused,
        /// The same in its words.
        message: String,
        /// What to do, in its words.
        next: String,
    },
    /// What counted there is gone.
    #[error(
        "sending to {to}: it wants the stream from byte {from} on, and had said that all before byte {counts} counts"
    )]
    Lost {
        /// Where.
        to: String,
        /// What it wants.
        from: u64,
        /// What had counted.
        counts: u64,
    },
    /// The other side says something that makes no sense.
    #[error("{doing} {to}: it says something else than a tape socket does: {why}")]
    Broken {
        /// What was being done.
        doing: &'static str,
        /// Where.
        to: String,
        /// What.
        why: String,
    },
    /// This is not sent.
    #[error("sending {what}: {why}")]
    Source {
        /// The set.
        what: String,
        /// Why not.
        why: &'static str,
    },
    /// A file.
    #[error("{doing} {what}: {}", plainly(source))]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        what: String,
        /// Why not.
        source: io::Error,
    },
}

impl SocketError {
    /// What to do next, for people.
    #[must_use]
    pub fn next(&self) -> String {
        match self {
            Self::Keys(LinkSecurityError::NoPeer | LinkSecurityError::NotTrustedThere) => {
                "let both nodes of the pair trust each other (hot-backup trust), or give both sides one --token".to_owned()
            }
            Self::Keys(_) | Self::Node { .. } => {
                "--dir names the directory of a node of the pair; or give both sides one --token".to_owned()
            }
            Self::Token { .. } => "make another token: umask 077; openssl rand -hex 32 > FILE".to_owned(),
            Self::Listen { .. } => "--listen names an address of this machine and a port that is free".to_owned(),
            Self::There { .. } => "end that one first: hot-backup tape-socket drain".to_owned(),
            Self::Connect { .. } => {
                "see whether hot-backup tape-socket listen runs there, in this version, and whether the way there is open"
                    .to_owned()
            }
            Self::Cut { doing, .. } if doing.starts_with("reading") => {
                "mend the way there and begin again with the same command".to_owned()
            }
            Self::Cut { .. } => {
                "mend the way there and begin again; what counted there stays, and tape-socket send goes on behind it".to_owned()
            }
            Self::Refused { next, .. } => next.clone(),
            Self::Lost { .. } => "look after the disk or the reel there, and begin again".to_owned(),
            Self::Source { .. } => "send a set that is in one file or on reels (hot-backup save --to file:PATH)".to_owned(),
            Self::Broken { .. } => "use programs of one version on both sides".to_owned(),
            Self::Io { .. } => "check the path, its owner and the disk".to_owned(),
        }
    }
}

/// Why a connection is of no use any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error("{}", plainly(.0))]
    Io(#[from] io::Error),
    #[error(transparent)]
    Keys(#[from] LinkSecurityError),
    #[error(transparent)]
    Broken(#[from] DecodeError),
    #[error("nothing came for {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the other side ended it")]
    Ended,
    #[error("{0}")]
    Busy(String),
}

impl WireError {
    /// The error of who called, if it helps nothing to connect again.
    pub(super) fn last(self, doing: &'static str, to: &str) -> Result<SocketError, Self> {
        match self {
            Self::Keys(
                LinkSecurityError::CutInHandshake
                | LinkSecurityError::CutShort
                | LinkSecurityError::Altered
                | LinkSecurityError::PeerGaveUp { .. }
                | LinkSecurityError::Protocol { .. }
                | LinkSecurityError::Closed,
            ) => Err(self),
            Self::Keys(error) => Ok(error.into()),
            Self::Broken(error) => {
                Ok(SocketError::Broken { doing, to: to.to_owned(), why: error.to_string() })
            }
            Self::Io(_) | Self::Silent(_) | Self::Ended | Self::Busy(_) => Err(self),
        }
    }
}
