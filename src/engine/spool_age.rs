//! How old a history on the spool may get: what nobody needs goes by age or for its size, and where the config says so by the
//! saves that are kept. A save and what came after it are one history, so a part with entries behind the oldest save is
//! needed to come to any second after that; a part without is not.

use super::config::SpoolKeep;
use super::spool::Spool;
use crate::base::Seq;
use crate::format::spool::PartHeader;

/// Which saves are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Saves {
    /// That was not told yet: any part may be needed.
    #[default]
    Untold,
    /// None.
    None,
    /// The oldest ends with this entry.
    Oldest(Seq),
}

impl Saves {
    pub(super) fn told(oldest: Option<Seq>) -> Self {
        oldest.map_or(Self::None, Self::Oldest)
    }
}

impl Spool {
    /// Whether a save needs a part, or may need it. Only a history is kept for saves.
    pub(super) fn save_needs(&self, part: &PartHeader) -> bool {
        let kept = self.is_always() && self.settings.keep == SpoolKeep::OldestSave;
        kept && match self.saves {
            Saves::Untold => true,
            Saves::None => false,
            Saves::Oldest(end) => part.end.seq > end,
        }
    }

    /// Whether a part is older than the oldest save that is kept.
    pub(super) fn is_before_saves(&self, part: &PartHeader) -> bool {
        let before = matches!(self.saves, Saves::Oldest(end) if part.end.seq <= end);
        self.settings.keep == SpoolKeep::OldestSave && before
    }

    /// Whether the oldest part stays for the saves that are kept.
    pub(super) fn is_held_by_saves(&self) -> bool {
        self.parts.first().is_some_and(|part| self.save_needs(part))
    }
}

#[cfg(test)]
#[path = "spool_age_tests.rs"]
mod tests;
