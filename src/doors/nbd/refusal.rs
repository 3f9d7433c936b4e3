//! Why a request fails, in the protocol's numbers.

use super::Refusal;
use crate::format::nbd::{EIO, ENOSPC, EPERM, ESHUTDOWN, REP_ERR_SHUTDOWN, REP_ERR_UNKNOWN};

/// A request that fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fail {
    /// `E*`.
    pub(super) error: u32,
    /// For people; told where the protocol has room for it.
    pub(super) message: String,
}

impl Fail {
    pub(super) fn new(error: u32, message: &str) -> Self {
        Self { error, message: message.to_owned() }
    }
}

impl From<Refusal> for Fail {
    fn from(refusal: Refusal) -> Self {
        let error = match refusal {
            Refusal::ReadOnly => EPERM,
            Refusal::NoSpace => ENOSPC,
            // The volume was deleted, or this node is a standby now: to the client the server goes away.
            Refusal::NotServing(_) | Refusal::NoSuchFile(_) => ESHUTDOWN,
            _ => EIO,
        };
        Self { error, message: refusal.to_string() }
    }
}

/// The reply to an option that names an export which cannot be had.
pub(super) fn option_error(refusal: &Refusal) -> u32 {
    match refusal {
        Refusal::NotServing(_) => REP_ERR_SHUTDOWN,
        _ => REP_ERR_UNKNOWN,
    }
}
