//! Whether a view may be opened now, and what it has to show.

use crate::base::JournalKind;
use crate::engine::admin::ViewView;
use crate::engine::core::Core;
use crate::engine::effect::Severity;
use crate::engine::incidents::Matter;
use crate::store::StoreRead;

impl<S: StoreRead> Core<S> {
    /// A view is asked for. It shows what clients were answered for before that: on a primary all that is durable here.
    pub(in crate::engine) fn view_terms(&mut self, token: u64) {
        if self.stopping || !self.readable() {
            let message =
                format!("opening a view of {}: it does not serve: {}", self.config.name, self.reason());
            return self.reply_no(
                token,
                message,
                "see `hot-backup status`; a view is opened of a node that answers reads",
            );
        }
        let last = |journal: JournalKind| {
            let own = journal == JournalKind::Local || self.is_primary();
            if own { self.journals[journal.index()].pace().durable } else { self.applied_seq(journal) }
        };
        let view = ViewView {
            seq: last(JournalKind::Replicated).0,
            local_seq: last(JournalKind::Local).0,
            epoch: self.control.epoch().0,
            ..ViewView::default()
        };
        self.reply_value(token, view);
    }

    /// A view has ended by itself.
    pub(in crate::engine) fn view_ended(&mut self, name: &str, why: &str) {
        self.incident(Severity::Warning, Matter::ViewEnded, format!("view {name} has ended: {why}"));
    }
}
