//! A listing that is asked for on both nodes at one entry: what a read command answers there, line by line.
//!
//! It is a compare with one look. Both nodes carry out the command on the state that they have at the mark; the standby holds
//! the lines against each other.

use super::super::compare::{Flight, Purpose};
use super::super::findings::{findings, words};
use super::{Errand, Run};
use crate::base::Seq;
use crate::base::limits::ITEM_ID_MAX;
use crate::engine::core::Core;
use crate::format::compare::{Details, Difference, Found, Order, QUERY, Span, What, line_of};
use crate::format::frame::FEATURE_QUERY;
use crate::store::StoreRead;
use bytes::Bytes;

/// Before a command in an order: no name of an account or a file holds one.
const MARK: char = ',';

/// The command of an order that is one for a listing.
pub(super) fn query_of(name: &str) -> Option<&str> {
    name.strip_prefix(MARK)
}

/// The one look that such an order takes.
pub(super) fn errand(query: &str) -> Errand {
    let span = Span::Query(Bytes::copy_from_slice(query.as_bytes()));
    Errand { file: QUERY, span, what: What::Details, purpose: Purpose::Query }
}

impl<S: StoreRead> Core<S> {
    /// An operator wants an account, a file or everything compared.
    pub(in crate::engine) fn compare_files(&mut self, token: u64, order: Order) {
        if query_of(&order.name).is_some() {
            let message = format!("comparing: {:?} is no name of an account or a file", order.name);
            return self.reply_no(token, &message, "see: hot-backup file list");
        }
        self.compare(token, order);
    }

    /// An operator wants a listing of both nodes held against each other.
    pub(in crate::engine) fn compare_query(&mut self, token: u64, query: &str) {
        let failed = |why: &str| format!("comparing a listing: {why}");
        if query.is_empty() || query.len() > ITEM_ID_MAX || query.contains(char::is_control) {
            let next = "say one read command, such as: hot-backup compare --query 'KEYS app,orders,*'";
            return self.reply_no(token, failed("it has to be one command of at most 255 bytes"), next);
        }
        if self.link.is_up() && self.peer.features() & FEATURE_QUERY == 0 {
            let next = "install this version there";
            return self.reply_no(token, failed("the peer's program is older and knows no listings"), next);
        }
        let name = format!("{MARK}{query}");
        self.compare(token, Order { stop: false, repair: false, dry_run: false, rate: None, name });
    }
}

impl Run {
    /// Both nodes have answered.
    pub(super) fn queried(&mut self, flight: &Flight, own: &Details, theirs: &Details) {
        let at = flight.at.unwrap_or_default();
        self.looked_at(flight.at);
        let found = findings(&flight.span, own, theirs);
        let mut differing = 0;
        for (name, kind) in found.stretches.into_iter().flat_map(|stretch| stretch.parts) {
            differing += 1;
            let part = words(line_of(&name), false);
            self.differs(Difference { kind, repaired: false, at, file: "the listing".to_owned(), part });
        }
        self.certificate.items += (own.parts.len() as u64).saturating_sub(differing);
        self.certificate.bytes += own.parts.iter().map(|(name, _)| name.len() as u64).sum::<u64>();
    }

    /// The entry at which a listing was made, and what could not be, when either node found something else than lines.
    pub(super) fn unlisted(&mut self, at: Option<Seq>, own: Option<&Found>, theirs: Option<&Found>) {
        self.looked_at(at);
        let why = |node: &str| {
            format!("the {node} could not carry out the command: see its log; is it a read command?")
        };
        match (own, theirs) {
            (Some(Found::Details(_)), _) => self.fails(&why("primary")),
            _ => self.fails(&why("standby")),
        }
    }
}
