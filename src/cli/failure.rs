//! How a command ends, and the one place where that becomes an exit code.

use crate::base::plainly;
use crate::client::RespError;
use crate::engine::admin::AdminReply;
use std::fmt;
use std::io;

/// A command that ended with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Yes, or done.
    Yes,
    /// No: nothing there, not in sync, not everything was done.
    No,
}

/// A command that could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The answer is no, and why.
    No {
        /// What, to what, why.
        message: String,
        /// What to do next.
        next: String,
    },
    /// It failed.
    Error {
        /// What, to what, why.
        message: String,
        /// What to do next.
        next: String,
    },
    /// Whoever read stdout went away: nothing to say, nothing wrong.
    ReaderGone,
}

/// What every command gives back.
pub(crate) type Done = Result<Answer, Failure>;

impl Failure {
    /// The answer is no.
    pub(crate) fn no(message: impl Into<String>, next: impl Into<String>) -> Self {
        Self::No { message: message.into(), next: next.into() }
    }

    /// It failed.
    pub(crate) fn error(message: impl Into<String>, next: impl Into<String>) -> Self {
        Self::Error { message: message.into(), next: next.into() }
    }

    /// A failed write to stdout.
    pub(crate) fn from_stdout(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::ReaderGone
        } else {
            Self::error(format!("writing to stdout: {error}"), "")
        }
    }

    /// A conversation with a node's RESP door that came to nothing.
    pub(crate) fn resp(doing: impl fmt::Display, error: &RespError) -> Self {
        Self::error(format!("{doing}: {error}"), "see whether the node still runs: hot-backup status")
    }

    /// A failed operation on a file or directory.
    pub(crate) fn io(doing: impl fmt::Display, error: &io::Error) -> Self {
        let next = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "check the path",
            io::ErrorKind::IsADirectory => "name a file in it",
            io::ErrorKind::PermissionDenied => "run as the user that owns it",
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room on that disk",
            io::ErrorKind::ReadOnlyFilesystem => "choose a path on a disk that can be written",
            _ => "",
        };
        Self::error(format!("{doing}: {}", plainly(error)), next)
    }

    /// The exit code: 0 yes, 1 no, 2 error.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::ReaderGone => 0,
            Self::No { .. } => 1,
            Self::Error { .. } => 2,
        }
    }

    /// The same as an answer of a node, which `--json` prints.
    pub(crate) fn reply(&self) -> Option<AdminReply> {
        let (Self::No { message, next } | Self::Error { message, next }) = self else { return None };
        let (message, next) = (message.clone(), next.clone());
        Some(match self {
            Self::No { .. } => AdminReply::No { message, next },
            _ => AdminReply::Error { message, next },
        })
    }
}

impl Answer {
    /// Yes if `yes`.
    pub(crate) fn of(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }

    /// The exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Yes => 0,
            Self::No => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReaderGone => f.write_str("the reader of stdout went away"),
            Self::No { message, .. } | Self::Error { message, .. } => f.write_str(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yes_is_0_no_is_1_error_is_2_and_a_closed_pipe_is_quiet() {
        assert_eq!(Answer::of(true).code(), 0);
        assert_eq!(Answer::of(false).code(), 1);
        assert_eq!(Failure::no("a", "b").code(), 1);
        assert_eq!(Failure::error("a", "b").code(), 2);
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(Failure::from_stdout(&closed).code(), 0);
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(Failure::from_stdout(&full).code(), 2);
    }

    #[test]
    fn a_refusal_is_told_to_scripts_in_the_words_of_the_node() {
        let json = serde_json::to_string(&Failure::no("w", "n").reply()).unwrap();
        assert_eq!(json, r#"{"answer":"no","message":"w","next":"n"}"#);
        assert_eq!(Failure::ReaderGone.reply(), None);
    }
}
