//! A clean stop: everything under way is finished, then the process may end.

use super::Stage;
use super::stage::StageData;
use crate::base::JournalKind;
use crate::engine::core::Core;
use crate::engine::effect::Effect;
use crate::store::StoreRead;

impl<S: StoreRead> Core<S> {
    pub(super) fn pump_stop(&mut self) {
        if self.roles.stage() == Stage::Stopped {
            return;
        }
        // A journal that failed stays as it is; the other one still finishes its write.
        let quiet = self.journals.iter().all(|journal| journal.is_written() || journal.has_failed());
        let applied =
            JournalKind::ALL.iter().all(|kind| self.applied_to_limit(*kind)) || self.store_fault().is_some();
        if !quiet || !applied || self.control.is_being_written() {
            return;
        }
        if self.lacks_checkpoint() && self.store_fault().is_none() && self.checkpoint.failed().is_none() {
            self.checkpoint.want();
            self.pump_checkpoint();
            return;
        }
        if !self.peer_settled() {
            return;
        }
        self.roles.enter(StageData::Stopped);
        self.close_link();
        self.effect(Effect::Stopped);
    }
}
