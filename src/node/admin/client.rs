//! The command line's side.

use super::{Line, LineReader, REPLY_MAX, REQUEST_MAX, connect_in_dir, is_late, write_within};
use crate::engine::admin::{AdminReply, AdminRequest};
use crate::node::layout::{ADMIN_SOCKET, Layout};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Why no answer came from the daemon.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminCallError {
    /// There is no such directory.
    #[error("asking the node in {}: there is no such directory", dir.display())]
    NoDirectory {
        /// The directory.
        dir: PathBuf,
    },
    /// It is a directory, but not a node's.
    #[error("asking the node in {}: it is not a node's directory", dir.display())]
    NotANode {
        /// The directory.
        dir: PathBuf,
    },
    /// Nobody listens.
    #[error("asking the node in {}: no node is running there ({})", dir.display(), if *.stale { "its socket is a dead one" } else { "no socket" })]
    NotRunning {
        /// The directory.
        dir: PathBuf,
        /// Whether the last daemon left its socket behind.
        stale: bool,
    },
    /// This user may not.
    #[error("asking the node in {}: not permitted", dir.display())]
    NotPermitted {
        /// The directory.
        dir: PathBuf,
    },
    /// The request is too long to be sent. Nothing was done.
    #[error("asking the node: the request has {found} bytes, at most {REQUEST_MAX} are allowed")]
    TooLong {
        /// Its length (bytes).
        found: usize,
    },
    /// No answer in time. The request may have been carried out, or may still be.
    #[error("asking the node in {}: no answer within {:.1} s", dir.display(), after.as_secs_f64())]
    Timeout {
        /// The directory.
        dir: PathBuf,
        /// How long was waited.
        after: Duration,
    },
    /// The daemon ended before it answered. The request may have been carried out.
    #[error("asking the node in {}: it ended before it answered", dir.display())]
    Ended {
        /// The directory.
        dir: PathBuf,
    },
    /// The answer is not one that this program knows. The request may have been carried out.
    #[error("asking the node in {}: the answer is not understood: {what}", dir.display())]
    BadReply {
        /// The directory.
        dir: PathBuf,
        /// Why.
        what: String,
    },
    /// The system refused.
    #[error("asking the node in {}: {source}", dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl AdminCallError {
    /// Whether a node that is starting mends it.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::NotRunning { .. })
    }

    /// Of a connection to a socket of the node in `dir` that came to nothing.
    #[must_use]
    pub fn of_connect(dir: &Path, source: io::Error, timeout: Duration) -> Self {
        of_connect(dir, source, timeout)
    }

    /// What to do next, for people.
    #[must_use]
    pub fn next(&self) -> String {
        match self {
            Self::NoDirectory { .. } | Self::NotANode { .. } => {
                "give the node's directory with --dir or HOT_BACKUP_DIR; `hot-backup init` makes one"
                    .to_owned()
            }
            Self::NotRunning { dir, .. } => {
                format!("start it with `hot-backup serve --dir {}`", dir.display())
            }
            Self::NotPermitted { .. } => "run this as the user that the node runs as, or as root".to_owned(),
            Self::TooLong { .. } => "ask for less at once".to_owned(),
            Self::Timeout { .. } => {
                "look at the node's log; `hot-backup status` shows whether it was done".to_owned()
            }
            Self::Ended { .. } => "look at the node's log, and start it again".to_owned(),
            Self::BadReply { .. } => "use the same version of the command and the daemon".to_owned(),
            Self::Io { .. } => "check the directory and the system's limits".to_owned(),
        }
    }
}

/// Asks the daemon of the node in `dir` and waits at most `timeout` for its answer.
///
/// # Errors
/// [`AdminCallError`]; only the variants that say so may have changed something.
pub fn call(
    dir: impl AsRef<Path>,
    request: &AdminRequest,
    timeout: Duration,
) -> Result<AdminReply, AdminCallError> {
    let dir = dir.as_ref();
    let own = || dir.to_owned();
    let deadline = Instant::now() + timeout;
    let late = || AdminCallError::Timeout { dir: own(), after: timeout };
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => late(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => AdminCallError::Ended { dir: own() },
        _ => AdminCallError::Io { dir: own(), source },
    };
    let mut line = serde_json::to_vec(request).map_err(|error| failed(error.into()))?;
    if line.len() > REQUEST_MAX {
        return Err(AdminCallError::TooLong { found: line.len() });
    }
    line.push(b'\n');
    let stream =
        connect_in_dir(dir, ADMIN_SOCKET, timeout).map_err(|error| of_connect(dir, error, timeout))?;
    write_within(&stream, &line, deadline.saturating_duration_since(Instant::now())).map_err(failed)?;
    let mut reader = LineReader::new(stream, REPLY_MAX);
    match reader.line(deadline.saturating_duration_since(Instant::now())).map_err(failed)? {
        Line::Whole(reply) => serde_json::from_slice(&reply)
            .map_err(|error| AdminCallError::BadReply { dir: own(), what: error.to_string() }),
        Line::Late => Err(late()),
        Line::End => Err(AdminCallError::Ended { dir: own() }),
        Line::TooLong => {
            Err(AdminCallError::BadReply { dir: own(), what: format!("more than {REPLY_MAX} bytes") })
        }
    }
}

fn of_connect(dir: &Path, source: io::Error, timeout: Duration) -> AdminCallError {
    let layout = Layout::new(dir);
    let dir = dir.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied => AdminCallError::NotPermitted { dir },
        io::ErrorKind::ConnectionRefused => AdminCallError::NotRunning { dir, stale: true },
        io::ErrorKind::NotFound if !dir.exists() => AdminCallError::NoDirectory { dir },
        io::ErrorKind::NotFound if layout.config().exists() => {
            AdminCallError::NotRunning { dir, stale: false }
        }
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => AdminCallError::NotANode { dir },
        _ if is_late(&source) => AdminCallError::Timeout { dir, after: timeout },
        _ => AdminCallError::Io { dir, source },
    }
}
