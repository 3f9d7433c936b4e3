//! What `status` tells of a copy.

use serde::{Deserialize, Serialize};

/// A copy of everything that is replicated, on its way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyView {
    /// Whether this node is given it; else it gives it.
    pub here: bool,
    /// The entry at which it began.
    pub origin: u64,
    /// Content that came; of one that is given, what went over the link in this connection (bytes).
    pub bytes: u64,
    /// About how much there was when it began (bytes); 0 if that is not known here.
    pub size: u64,
    /// Content in a second, as of the last seconds (bytes).
    pub rate: u64,
    /// Entries that the primary has made since it began, as far as they are here.
    pub moved: u64,
    /// full-copy, digests or rewind; empty where only the other node knows.
    #[serde(default)]
    pub way: String,
    /// Of `bytes`, what the node that is given it held already, so that it did not come (bytes).
    #[serde(default)]
    pub equal: u64,
}
