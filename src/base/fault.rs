//! What can go wrong outside, as decisions need to know it.

use std::fmt;

/// A failed operation of disk or file system, reduced to what decides the reaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No space, or a quota (ENOSPC, EDQUOT): may pass when there is room again.
    NoSpace,
    /// Anything else, with its errno; never retried on the same segment.
    Errno(i32),
    /// A sync failed for want of something that may be there again, with its errno. That does not help: what it left on
    /// disk is unknown until a restart.
    Unsynced(i32),
}

impl Fault {
    /// What was read is not what was written (EUCLEAN).
    pub const UNCLEAN: Self = Self::Errno(117);
    /// What was meant is not there any more, or is another now (ESTALE).
    pub const STALE: Self = Self::Errno(116);
    /// The reel that is wanted is not in the drive (ENOMEDIUM).
    pub const NO_REEL: Self = Self::Errno(123);

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

    /// The fault of a sync, after which room that is made helps nothing.
    #[must_use]
    pub fn at_sync(self) -> Self {
        match self {
            Self::NoSpace => Self::Unsynced(28),
            Self::Errno(errno) if self.is_shortage() => Self::Unsynced(errno),
            other => other,
        }
    }

    /// Whether something ran out that may be there again later: room, descriptors, memory. Nothing was damaged, and the
    /// same may be done again. Of a sync that failed this is never asked: what it left on disk is unknown, whatever the
    /// reason.
    #[must_use]
    pub fn is_shortage(self) -> bool {
        match self {
            Self::NoSpace => true,
            // EAGAIN 11, ENOMEM 12, ENFILE 23, EMFILE 24, ENOBUFS 105 on Linux.
            Self::Errno(errno) => matches!(errno, 11 | 12 | 23 | 24 | 105),
            Self::Unsynced(_) => false,
        }
    }

    /// Whether descriptors ran out: a file or socket was not opened, and nothing else was done.
    #[must_use]
    pub fn is_unopened(self) -> bool {
        // ENFILE 23, EMFILE 24 on Linux.
        matches!(self, Self::Errno(23 | 24))
    }
}

/// The system's words for a failure, as they stand in the middle of a sentence: `no such file or directory`.
#[must_use]
pub fn plainly(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().collect::<String>()).unwrap_or_default() + chars.as_str()
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSpace => f.write_str("no space left on the device"),
            Self::Errno(errno) => write!(f, "{}", std::io::Error::from_raw_os_error(*errno)),
            Self::Unsynced(errno) => {
                let error = std::io::Error::from_raw_os_error(*errno);
                write!(f, "a sync failed, which is not tried again: {}", plainly(&error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_system_fit_into_a_sentence() {
        for (errno, words) in
            [(111, "connection refused"), (113, "no route to host"), (2, "no such file or directory")]
        {
            assert_eq!(plainly(&std::io::Error::from_raw_os_error(errno)), words);
        }
        assert_eq!(plainly(&std::io::Error::other("")), "");
    }

    #[test]
    fn what_ran_out_may_be_there_again_and_what_broke_is_broken() {
        // ENOSPC, EDQUOT, EMFILE, ENFILE, ENOMEM, EAGAIN.
        for shortage in [28, 122, 24, 23, 12, 11] {
            let fault = Fault::from_errno(shortage);
            assert!(fault.is_shortage(), "{fault}");
            assert!(
                !fault.at_sync().is_shortage() && fault.at_sync().at_sync() == fault.at_sync(),
                "{fault}"
            );
        }
        // EIO, EROFS, ENOENT, EACCES, EINVAL, EUCLEAN.
        for broken in [5, 30, 2, 13, 22, 117] {
            let fault = Fault::from_errno(broken);
            assert!(!fault.is_shortage() && fault.at_sync() == fault, "{fault}");
        }
        assert!(!Fault::from_io(&std::io::Error::other("no errno")).is_shortage());
    }
}
