//! Why a definition cannot be what was asked for.

use crate::base::FileId;
use crate::base::shown::Grouped;
use crate::format::DecodeError;
use crate::format::dptr::Flags;

/// Why an account or file was not created, changed or deleted. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NamespaceError {
    /// An entry's value cannot be read.
    #[error("reading a definition: {0}")]
    Decode(#[from] DecodeError),
    /// An entry's value defines something else than its kind says.
    #[error("reading the definition of {id}: it does not define {expected}")]
    WrongKind {
        /// The account or file.
        id: FileId,
        /// What was expected.
        expected: &'static str,
    },
    /// The name is not allowed.
    #[error(
        "naming {name:?}: a name has 1 to 128 bytes, no comma, slash or control character, does not begin with a \
         dash and does not end in .local-NUMBER"
    )]
    BadName {
        /// The name.
        name: String,
    },
    /// The name is taken.
    #[error("naming {name}: that name is taken")]
    Taken {
        /// The account, or `account,file`.
        name: String,
    },
    /// No account of that name.
    #[error("no such account {name}")]
    NoSuchAccount {
        /// The name.
        name: String,
    },
    /// No file of that name or id.
    #[error("no such file {name}")]
    NoSuchFile {
        /// `account,file`, or the id.
        name: String,
    },
    /// L beside X or Y.
    #[error("flagging {name} {flags}: an X or Y file is never logged, so it cannot be L; {clear_first}")]
    Contradiction {
        /// The account, or `account,file`.
        name: String,
        /// The flags as they would be.
        flags: Flags,
        /// What to do first.
        clear_first: &'static str,
    },
    /// The system account cannot be renamed or deleted.
    #[error("{doing} dm: it is the system account and stays as it is")]
    SystemAccount {
        /// Renaming or deleting.
        doing: &'static str,
    },
    /// L on a file of `dm`, which is not flagged L itself.
    #[error("flagging {name} L: dm is not replicated unless asked; set L on the account dm first")]
    SystemNotReplicated {
        /// `account,file`.
        name: String,
    },
    /// The peer would miss it.
    #[error("{doing} {name}: logging is paused and the standby would not hear of it; resume logging first")]
    Paused {
        /// What was asked for.
        doing: &'static str,
        /// The account, or `account,file`.
        name: String,
    },
    /// Blocks that hold something would be gone.
    #[error(
        "resizing {name} to {} bytes: it has {}, and a volume never shrinks",
        Grouped(wanted),
        Grouped(now)
    )]
    Shrinks {
        /// `account,file`.
        name: String,
        /// Its size (bytes).
        now: u64,
        /// What was asked for (bytes).
        wanted: u64,
    },
    /// A block file without a size, or a record file with one.
    #[error("sizing {name}: {rule}")]
    Blocks {
        /// `account,file`.
        name: String,
        /// The rule.
        rule: &'static str,
    },
    /// A mode that cannot be set in this way.
    #[error("setting the logging mode: {rule}")]
    Mode {
        /// The rule.
        rule: &'static str,
    },
}
