//! D3's order of decision: which journal carries a change.

use crate::base::JournalKind;
use crate::format::dptr::{Flags, LoggingMode};

/// Why a change goes to the journal it goes to; the first rule that fits decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// 1: logging is paused for the whole database.
    Paused,
    /// 2: the file is flagged X or Y.
    NotSaved,
    /// 3: the file is flagged T.
    NeverLogged,
    /// The file is the system account's, and that account is not flagged L.
    SystemAccount,
    /// 4: the file, or its updated D-pointer, is flagged L.
    Flagged,
    /// 5: the logging mode is "all".
    LogAll,
    /// None of them.
    NotFlagged,
}

/// What a decision depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The database's logging mode.
    pub mode: LoggingMode,
    /// The flags of the system account when the file is in it. Other accounts' flags play no part: files inherit
    /// them when they are created and go their own way afterwards.
    pub system: Option<Flags>,
    /// The flags of the file.
    pub file: Flags,
    /// For a change of the definition: the flags after it.
    pub updated: Option<Flags>,
}

/// Decides by D3's order.
///
/// A definition change is told to the peer if the file is replicated before it or after it; otherwise a standby
/// would never learn that a file ceased to be replicated.
#[must_use]
pub fn route(question: &Question) -> (JournalKind, Reason) {
    let before = by_flags(question, question.file);
    match question.updated.map(|flags| by_flags(question, flags)) {
        Some(after) if after.0 == JournalKind::Replicated => after,
        _ => before,
    }
}

fn by_flags(question: &Question, flags: Flags) -> (JournalKind, Reason) {
    if question.mode == LoggingMode::Paused {
        (JournalKind::Local, Reason::Paused)
    } else if flags.has(Flags::X.with(Flags::Y)) {
        (JournalKind::Local, Reason::NotSaved)
    } else if flags.has(Flags::T) {
        (JournalKind::Local, Reason::NeverLogged)
    } else if question.system.is_some_and(|account| !account.has(Flags::L)) {
        (JournalKind::Local, Reason::SystemAccount)
    } else if flags.has(Flags::L) {
        (JournalKind::Replicated, Reason::Flagged)
    } else if question.mode == LoggingMode::All {
        (JournalKind::Replicated, Reason::LogAll)
    } else {
        (JournalKind::Local, Reason::NotFlagged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the D3 manual, written out as sentences and not by the code under test.
    fn expected(mode: LoggingMode, system: Option<Flags>, bits: u8) -> (JournalKind, Reason) {
        let (l, xy, t) = (bits & 1 != 0, bits & 6 != 0, bits & 8 != 0);
        let asked = system.is_none_or(|flags| flags.bits() & 1 != 0);
        match (mode, xy, t, asked, l) {
            (LoggingMode::Paused, ..) => (JournalKind::Local, Reason::Paused),
            (_, true, ..) => (JournalKind::Local, Reason::NotSaved),
            (_, false, true, ..) => (JournalKind::Local, Reason::NeverLogged),
            (_, false, false, false, _) => (JournalKind::Local, Reason::SystemAccount),
            (_, false, false, true, true) => (JournalKind::Replicated, Reason::Flagged),
            (LoggingMode::All, false, false, true, false) => (JournalKind::Replicated, Reason::LogAll),
            (LoggingMode::DlOnly, false, false, true, false) => (JournalKind::Local, Reason::NotFlagged),
        }
    }

    #[test]
    fn every_combination_of_mode_account_and_flags_follows_the_order_of_decision() {
        for mode in [LoggingMode::DlOnly, LoggingMode::All, LoggingMode::Paused] {
            for system in [None, Some(Flags::NONE), Some(Flags::T), Some(Flags::L)] {
                for bits in 0..16 {
                    let file = Flags::from_bits(bits).unwrap();
                    let question = Question { mode, system, file, updated: None };
                    assert_eq!(route(&question), expected(mode, system, bits), "{question:?}");
                }
            }
        }
    }

    #[test]
    fn a_definition_change_is_replicated_if_the_file_is_before_or_after_it() {
        for mode in [LoggingMode::DlOnly, LoggingMode::All, LoggingMode::Paused] {
            for before in 0..16 {
                for after in 0..16 {
                    let (file, updated) =
                        (Flags::from_bits(before).unwrap(), Flags::from_bits(after).unwrap());
                    let question = Question { mode, system: None, file, updated: Some(updated) };
                    let either = [before, after].map(|bits| expected(mode, None, bits).0);
                    let replicated = either.contains(&JournalKind::Replicated);
                    assert_eq!(route(&question).0 == JournalKind::Replicated, replicated, "{question:?}");
                }
            }
        }
    }
}
