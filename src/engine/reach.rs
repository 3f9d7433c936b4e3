//! Why the peer is not reached, in words for operators: the address that is dialled, and what came back.

use super::admin::LinkView;
use super::core::Core;
use super::roles::Stage;
use crate::base::Seq;
use crate::store::StoreRead;

impl<S: StoreRead> Core<S> {
    /// Where this node dials, as its config names it.
    pub(super) fn peer_address(&self) -> String {
        let (host, port) = (&self.config.peer_host, self.config.peer_port);
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// The link for `status`.
    pub(super) fn link_view(&self) -> LinkView {
        let up = self.link.is_up();
        LinkView {
            dialled: if self.is_primary() { self.peer_address() } else { String::new() },
            last_error: if up { String::new() } else { self.link.trouble.clone() },
        }
    }

    /// Why this node does not serve, in words for a client.
    pub(super) fn reason(&self) -> String {
        match (self.roles.stage(), self.roles.reason()) {
            (Stage::Asking, told) if told.is_empty() => self.asking_reason(),
            (_, reason) => reason,
        }
    }

    /// What a primary that waits for its peer tells: what is wrong first, and what overrides last.
    pub(super) fn asking_reason(&self) -> String {
        let address = self.peer_address();
        let told = match self.link.trouble.as_str() {
            "" => "no answer yet",
            trouble => trouble,
        };
        let new = self.control.epoch().0 == 0 && self.replicated().sealed().seq == Seq(0);
        let mend = if new { "start the peer" } else { "start the peer or mend what keeps it from answering" };
        format!(
            "a primary asks its peer at {address} before it serves: {told}; {mend}; if you are sure that the peer did \
             not take over, `hot-backup start --alone` serves without it"
        )
    }
}
