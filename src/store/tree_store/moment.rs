//! One moment of everything that is stored, for as long as somebody reads it.

use super::super::StoreError;
use super::super::namespace::Namespace;
use super::super::volumes::Kept;
use super::StoreWriter;
use super::read::Snapshot;
use crate::base::{Fault, Seq};
use std::sync::Arc;

/// The definitions and the items between two batches. What volumes held then is kept by a [`Kept`].
#[derive(Debug)]
pub struct Moment {
    /// The last entry of each journal that it shows.
    pub applied: [Seq; 2],
    /// The definitions.
    pub namespace: Namespace,
    /// The items. Tables and memory that hold them stay until this is dropped, and nothing else does.
    pub items: Snapshot,
}

/// A store of which a moment can be held, by the one who writes.
pub trait MomentSource {
    /// The last entry of each journal that a moment would show now.
    fn shows(&self) -> [Seq; 2];

    /// The moment as it is now, without its volumes; none of a store that has no such thing.
    fn items(&self) -> Option<Moment>;

    /// The moment as it is now; from here on what volumes lose is kept.
    ///
    /// # Errors
    /// [`StoreError::Disk`] with [`Fault::STALE`] as long as the store is no state between two batches: during a replay or a
    /// copy, and after a failure.
    fn moment(&mut self, kept: &Arc<Kept>) -> Result<Moment, StoreError>;
}

impl MomentSource for StoreWriter {
    fn shows(&self) -> [Seq; 2] {
        self.state.applied
    }

    fn moment(&mut self, kept: &Arc<Kept>) -> Result<Moment, StoreError> {
        self.ready()?;
        if !self.volumes.keep_for(kept, self.state.applied) {
            let doing =
                "opening a view of a store that is not whole now: a replay, a copy or a failure is not over";
            return Err(StoreError::Disk { doing, fault: Fault::STALE });
        }
        Ok(self.held())
    }

    fn items(&self) -> Option<Moment> {
        Some(self.held())
    }
}

impl StoreWriter {
    fn held(&self) -> Moment {
        let (applied, namespace) = (self.state.applied, self.state.namespace.clone());
        Moment { applied, namespace, items: Snapshot::pinned(&self.shared) }
    }
}
