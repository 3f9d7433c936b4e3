//! What a takeover keeps, and what it may lose.

use serde::{Deserialize, Serialize};

/// What a takeover found: what is proven kept, what is at most lost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TakeoverAccount {
    /// The node that is primary now.
    pub name: String,
    /// Whether it only was tried out.
    pub dry_run: bool,
    /// Its new epoch.
    pub epoch: u64,
    /// The epoch of the last entry here. A primary that was restarted in solitude meanwhile is in a later one, of which
    /// nothing is here, whatever its entries are numbered.
    pub old_epoch: u64,
    /// The last entry applied; all up to it are kept.
    pub applied: u64,
    /// The last entry received.
    pub received: u64,
    /// The last entry the old primary announced as durable on its disk.
    pub announced: u64,
    /// Entries that the old primary had announced and this node does not have.
    pub lost_announced: u64,
    /// Entries that may have been acknowledged at level `durable` or above and are not here (at most). More than 0 only if
    /// this node was set back after it had acknowledged them.
    pub durable_level_lost: u64,
    /// Whether the takeover needs `--accept-loss`: a hello told of entries that are not here.
    #[serde(default)]
    pub needs_accept_loss: bool,
    /// One sentence: none lost, or from which entry on updates acknowledged at level `local` may be lost.
    pub lost: String,
    /// The last entry, of [`Self::old_epoch`] or before, that is kept.
    pub kept_up_to: u64,
    /// Since the last word from the old primary (seconds).
    pub silence_seconds: f64,
    /// Files whose content was being copied and is incomplete.
    pub incomplete_files: Vec<String>,
    /// Whether this node holds a part of a copy only.
    #[serde(default)]
    pub partial: bool,
    /// How long it took (seconds).
    pub seconds: f64,
}
