//! What of the store could not be read although it is there: told to people, not only to the client that asked.

use super::core::Core;
use super::effect::Severity;
use crate::base::limits::DAMAGE_TOLD_MAX;
use crate::base::{Fault, FileId};
use crate::doors::Refusal;
use crate::format::dptr::DptrKind;
use crate::store::{StoreError, StoreRead};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// One place that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Spot {
    /// An item.
    Item(Vec<u8>),
    /// Items after this one, met by a walk over the file.
    After(Vec<u8>),
    /// A volume, from this byte on.
    Byte(u64),
}

/// What was found, and what was reported of it.
#[derive(Debug, Default)]
pub(super) struct Damage {
    /// Found while something was read, to be told when that is over.
    found: RefCell<Vec<(FileId, Spot, String)>>,
    reported: BTreeSet<(FileId, Spot)>,
}

impl Damage {
    /// Notes it, unless so much was told that people know.
    fn note(&self, file: FileId, spot: Spot, why: String) {
        let mut found = self.found.borrow_mut();
        let new = !self.reported.contains(&(file, spot.clone()));
        if new && found.len() + self.reported.len() < DAMAGE_TOLD_MAX {
            found.push((file, spot, why));
        }
    }
}

/// Whether an error says that what is stored is not what was written. That it cannot be reached now says nothing.
fn is_damage(error: &StoreError) -> bool {
    match error {
        StoreError::Damaged { .. } => true,
        StoreError::Disk { fault, .. } => !fault.is_shortage(),
        StoreError::OutOfOrder { .. } => false,
    }
}

impl<S: StoreRead> Core<S> {
    /// What a client is told whose read of the store failed.
    pub(super) fn unreadable(&self, file: FileId, spot: Spot, error: &StoreError) -> Refusal {
        let text = error.to_string();
        if is_damage(error) {
            self.damage.note(file, spot, text.clone());
        }
        Refusal::Store(text)
    }

    /// A volume could not be read.
    pub(super) fn volume_unreadable(&self, file: FileId, offset: u64, fault: Fault) {
        if !fault.is_shortage() {
            self.damage.note(file, Spot::Byte(offset), fault.to_string());
        }
    }

    /// Tells people of what was found.
    pub(super) fn tell_damage(&mut self) {
        let found = std::mem::take(&mut *self.damage.found.borrow_mut());
        for (file, spot, why) in found {
            if !self.damage.reported.insert((file, spot.clone())) {
                continue;
            }
            let info = self.namespace.file(file);
            let name = info.map_or_else(|| format!("with id {file}"), |info| info.key.clone());
            let volume = info.is_some_and(|info| info.dptr.kind == DptrKind::Blocks);
            let words = |id: &[u8]| String::from_utf8_lossy(id).escape_debug().to_string();
            let what = match &spot {
                Spot::Item(id) => format!("item {name},{}", words(id)),
                Spot::After(id) if id.is_empty() => format!("items of {name} from the first on"),
                Spot::After(id) => format!("items of {name} after {}", words(id)),
                Spot::Byte(at) => format!("volume {name} at byte {at}"),
            };
            let kind = if volume { "volume-damaged" } else { "item-damaged" };
            let text = format!(
                "{what} cannot be read from the store: {why}; the peer's copy may be whole: compare, and write it again \
                 from there"
            );
            self.incident(Severity::Critical, kind, text);
        }
    }
}
