//! What can go wrong outside, as decisions need to know it.

use std::fmt;

/// A failed operation of disk or file system, reduced to what decides the reaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No space, or a quota (ENOSPC, EDQUOT): may pass when there is room again.
    NoSpace,
    /// Anything else, with its errno; never retried on the same segment.
    Errno(i32),
}

impl Fault {
    /// From an errno.
    #[must_use]
    pub fn from_errno(errno: i32) -> Self {
        // ENOSPC 28, EDQUOT 122 on Linux.
        if errno == 28 || errno == 122 { Self::NoSpace } else { Self::Errno(errno) }
    }

    /// From an I/O error; one without errno counts as EIO (5).
    #[must_use]
    pub fn from_io(error: &std::io::Error) -> Self {
        Self::from_errno(error.raw_os_error().unwrap_or(5))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSpace => f.write_str("no space left on the device"),
            Self::Errno(errno) => write!(f, "{}", std::io::Error::from_raw_os_error(*errno)),
        }
    }
}
