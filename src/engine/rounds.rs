//! Which of the batches that wait for the store still count.

use crate::base::{JournalKind, Round};

/// For whoever applies what [`super::StoreEffect::Apply`] hands over: after a failure, everything of that round that still
/// waits is dropped. It cannot follow what failed, and it is given again in the next round.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    /// The last round that failed, by [`JournalKind::index`].
    failed: [Option<Round>; 2],
}

impl Rounds {
    /// Whether a batch of that round is to be applied.
    #[must_use]
    pub fn takes(&self, journal: JournalKind, round: Round) -> bool {
        self.failed.get(journal.index()).copied().flatten().is_none_or(|failed| round > failed)
    }

    /// A batch of that round could not be applied.
    pub fn failed(&mut self, journal: JournalKind, round: Round) {
        if let Some(failed) = self.failed.get_mut(journal.index()) {
            *failed = (*failed).max(Some(round));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use JournalKind::{Local, Replicated};

    #[test]
    fn after_a_failure_only_later_rounds_of_that_journal_count() {
        let mut rounds = Rounds::default();
        assert!(rounds.takes(Local, Round(0)) && rounds.takes(Replicated, Round(0)));
        rounds.failed(Local, Round(0));
        assert!(!rounds.takes(Local, Round(0)) && rounds.takes(Local, Round(1)));
        assert!(rounds.takes(Replicated, Round(0)), "the other journal goes on");
        rounds.failed(Local, Round(1));
        rounds.failed(Local, Round(0));
        assert!(!rounds.takes(Local, Round(1)), "what failed later stays");
    }
}
