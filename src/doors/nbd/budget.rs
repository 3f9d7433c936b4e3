//! How many bytes of replies may be there at once: what clients have not taken, and what begun requests will bring.
//!
//! Before a request is begun, the longest reply that it can have is reserved. [`NBD_OUT_FREE`] of each client are its
//! own; what is above that is taken from what all share, or the request waits. As the shares of all clients and what
//! is shared add up to [`NBD_OUT_ALL_MAX`], no client, reading or not, makes it more.

use crate::base::ConnId;
use crate::base::limits::{NBD_CLIENTS_MAX, NBD_OUT_ALL_MAX, NBD_OUT_FREE};
use std::collections::VecDeque;

/// What all clients share (bytes).
const SHARED: usize = NBD_OUT_ALL_MAX - NBD_CLIENTS_MAX * NBD_OUT_FREE;

/// How much of what a client holds is taken from what all share (bytes).
fn charge(held: usize) -> usize {
    held.saturating_sub(NBD_OUT_FREE)
}

/// What all clients share.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// What is taken of it (bytes).
    charged: usize,
    /// Clients whose next request found no room, in order.
    queue: VecDeque<ConnId>,
}

impl Budget {
    /// Whether a client that holds `held` bytes may begin what takes up to `need` more. If not, nobody else may take
    /// of what is shared before it. `room` is whether there is room for it otherwise.
    pub(super) fn admit(&mut self, conn: ConnId, held: usize, need: usize, room: bool) -> bool {
        let wants = held.saturating_add(need);
        if room && charge(wants) == 0 {
            self.step_back(conn);
            return true;
        }
        let first = self.queue.front().is_none_or(|first| *first == conn);
        let admitted = first && room && self.charged + charge(wants) - charge(held) <= SHARED;
        if admitted {
            self.step_back(conn);
        } else if !self.queue.contains(&conn) {
            self.queue.push_back(conn);
        }
        admitted
    }

    /// The client wants no room now.
    pub(super) fn step_back(&mut self, conn: ConnId) {
        self.queue.retain(|other| *other != conn);
    }

    /// A client that was charged `before` holds `held` now (bytes); what it is charged.
    pub(super) fn settle(&mut self, before: usize, held: usize) -> usize {
        self.charged = self.charged - before + charge(held);
        assert!(self.charged <= SHARED, "no reply is longer than what was reserved for it");
        charge(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_goes_on_with_something_small_keeps_nobody_back_any_more() {
        let mut budget = Budget::default();
        let [large, waits, other] = [1, 2, 3].map(ConnId);
        let all = NBD_OUT_FREE + SHARED;
        assert!(budget.admit(large, 0, all, true));
        assert_eq!(budget.settle(0, all), SHARED);
        assert!(!budget.admit(waits, 0, NBD_OUT_FREE + 1, true), "there is no room");
        budget.settle(SHARED, NBD_OUT_FREE);
        assert!(!budget.admit(other, 0, NBD_OUT_FREE + 1, true), "another was there before");
        assert!(budget.admit(waits, 0, 1, true), "it wants less now, which is its own");
        assert!(budget.admit(other, 0, NBD_OUT_FREE + 1, true), "nobody waits before it");
    }
}
