//! The command line's side.

use super::codec::{decode_reply, encode_request};
use super::{Line, LineReader, REPLY_MAX, REQUEST_MAX, connect_in_dir, is_late, place_of, write_within};
use crate::base::shown::Grouped;
use crate::engine::admin::{AdminReply, AdminRequest};
use crate::io::{Access, check_dir};
use crate::node::layout::{ADMIN_SOCKET, Layout};
use nix::sys::socket::{getsockopt, sockopt};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
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
    /// Others than the node's user could answer in its place. Nothing was done.
    #[error("asking the node in {}: {why}", dir.display())]
    Distrusted {
        /// The directory.
        dir: PathBuf,
        /// Why.
        why: String,
    },
    /// The request is too long to be sent. Nothing was done.
    #[error("asking the node: the request has {} bytes, at most {} are allowed", Grouped(*found), Grouped(REQUEST_MAX))]
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
            Self::Distrusted { .. } => {
                "a node's directory belongs to the user that runs it, and nobody else may write to it"
                    .to_owned()
            }
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
    ask(dir.as_ref(), request, timeout).map(|(reply, _)| reply)
}

/// The same for a request whose answer has a stream behind it, which is given too.
///
/// # Errors
/// As [`call`].
pub fn call_for_stream(
    dir: impl AsRef<Path>,
    request: &AdminRequest,
    timeout: Duration,
) -> Result<(AdminReply, Box<dyn Read>, UnixStream), AdminCallError> {
    let (reply, LineReader { stream, pending, .. }) = ask(dir.as_ref(), request, timeout)?;
    // Between two parts of it a node may read for long.
    let patient = stream.set_read_timeout(None);
    let failed = |source| AdminCallError::Io { dir: dir.as_ref().to_owned(), source };
    patient.map_err(failed)?;
    let back = stream.try_clone().map_err(failed)?;
    Ok((reply, Box::new(io::Cursor::new(pending).chain(stream)), back))
}

fn ask(
    dir: &Path,
    request: &AdminRequest,
    timeout: Duration,
) -> Result<(AdminReply, LineReader), AdminCallError> {
    let own = || dir.to_owned();
    let deadline = Instant::now() + timeout;
    let late = || AdminCallError::Timeout { dir: own(), after: timeout };
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => late(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => AdminCallError::Ended { dir: own() },
        _ => AdminCallError::Io { dir: own(), source },
    };
    let mut line = encode_request(request).map_err(|error| failed(error.into()))?;
    if line.len() > REQUEST_MAX {
        return Err(AdminCallError::TooLong { found: line.len() });
    }
    line.push(b'\n');
    let stream = if is_socket(dir) {
        // Not a directory, but the socket of `admin_group`.
        place_of(dir)
            .and_then(|(above, name)| connect_in_dir(above, name, timeout))
            .map_err(|error| of_connect(dir, error, timeout))
            .and_then(|stream| check_socket(dir, &stream).map(|()| stream))?
    } else {
        let stream =
            connect_in_dir(dir, ADMIN_SOCKET, timeout).map_err(|error| of_connect(dir, error, timeout))?;
        check_daemon(dir, &stream)?;
        stream
    };
    let sent = write_within(&stream, &line, deadline.saturating_duration_since(Instant::now()));
    let mut reader = LineReader::new(stream, REPLY_MAX);
    let reply = reader.line(deadline.saturating_duration_since(Instant::now()));
    // Who is turned away is told so, whether or not the request still went through.
    let found = match (sent, reply) {
        (_, Ok(Line::Whole(reply))) => Line::Whole(reply),
        (Err(error), _) | (Ok(()), Err(error)) => return Err(failed(error)),
        (Ok(()), Ok(other)) => other,
    };
    match found {
        Line::Whole(reply) => decode_reply(request, &reply)
            .map(|reply| (reply, reader))
            .map_err(|error| AdminCallError::BadReply { dir: own(), what: error.to_string() }),
        Line::Late => Err(late()),
        Line::End => Err(AdminCallError::Ended { dir: own() }),
        Line::TooLong => Err(AdminCallError::BadReply {
            dir: own(),
            what: format!("more than {} bytes", Grouped(REPLY_MAX)),
        }),
    }
}

/// Checks that the directory and the daemon in it are those of one user: in a directory that others may write to,
/// anybody could listen.
fn check_daemon(dir: &Path, stream: &UnixStream) -> Result<(), AdminCallError> {
    let distrusted = |why: String| AdminCallError::Distrusted { dir: dir.to_owned(), why };
    check_dir(dir, Access::Read).map_err(|distrust| distrusted(distrust.to_string()))?;
    let io = |source| AdminCallError::Io { dir: dir.to_owned(), source };
    let runs_as = getsockopt(stream, sockopt::PeerCredentials).map_err(|errno| io(errno.into()))?.uid();
    let owner = std::fs::metadata(dir).map_err(io)?.uid();
    if runs_as != owner && runs_as != 0 {
        return Err(distrusted(format!("its socket is user {runs_as}'s, the directory user {owner}'s")));
    }
    Ok(())
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

/// The same of the socket of `admin_group`: only its owner and root may put another one in its place, and it is one of them
/// who answers.
fn check_socket(path: &Path, stream: &UnixStream) -> Result<(), AdminCallError> {
    let distrusted = |why: String| AdminCallError::Distrusted { dir: path.to_owned(), why };
    let io = |source| AdminCallError::Io { dir: path.to_owned(), source };
    let (above, _) = place_of(path).map_err(io)?;
    let (owner, above) =
        (std::fs::symlink_metadata(path).map_err(io)?.uid(), std::fs::metadata(above).map_err(io)?);
    if above.mode() & 0o022 != 0 || ![owner, 0].contains(&above.uid()) {
        return Err(distrusted("others may write to the directory of this socket".to_owned()));
    }
    let runs_as = getsockopt(stream, sockopt::PeerCredentials).map_err(|errno| io(errno.into()))?.uid();
    if runs_as != owner && runs_as != 0 {
        return Err(distrusted(format!("user {runs_as} answers, and it belongs to user {owner}")));
    }
    Ok(())
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
