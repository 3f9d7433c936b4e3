//! Accounts for every single update: kept, or missing, and whether that agrees with what the takeover said.
//!
//! Pure: what the writers were told and what was found go in, counts and checks come out.

use super::writers::{REFUSED, WriterLog, id};
use crate::base::AckLevel;
use crate::engine::admin::TakeoverAccount;
use serde::Serialize;
use std::collections::HashSet;

/// One thing that must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// What must hold.
    pub(super) name: &'static str,
    /// Whether it does.
    pub(super) ok: bool,
    /// The numbers.
    pub(super) detail: String,
}

/// What became of the updates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    /// Sent by the writers.
    pub(super) sent: u64,
    /// Answered with "ok".
    pub(super) acknowledged: u64,
    /// Answered with an error.
    pub(super) refused: u64,
    /// Sent, but the node was gone before it answered: such an update may be there or not.
    pub(super) unanswered: u64,
    /// Acknowledged and there.
    pub(super) kept: u64,
    /// Acknowledged and not there.
    pub(super) missing: u64,
    /// Never answered, and there all the same.
    pub(super) unanswered_kept: u64,
    /// The first missing update of each writer that misses one.
    pub(super) first_missing: Vec<String>,
}

/// What is known besides the writers' logs.
pub(super) struct Facts<'a> {
    /// The promise under which the updates were acknowledged.
    pub(super) level: AckLevel,
    /// Whether each update of each writer was found on the survivor.
    pub(super) found: &'a [Vec<bool>],
    /// Updates found with another value than was sent.
    pub(super) altered: u64,
    /// The last entry before the load.
    pub(super) before: u64,
    /// Blocks of the volume that are there.
    pub(super) blocks: u64,
    /// What the takeover said.
    pub(super) account: &'a TakeoverAccount,
}

impl Counts {
    /// Counts.
    pub(super) fn of(logs: &[WriterLog], found: &[Vec<bool>]) -> Self {
        let mut counts = Self::default();
        for (log, found) in logs.iter().zip(found) {
            counts.sent += log.sent_at.len() as u64;
            let mut first_missing = None;
            for (n, &there) in found.iter().enumerate() {
                match log.answered_at.get(n) {
                    None => {
                        counts.unanswered += 1;
                        counts.unanswered_kept += u64::from(there);
                    }
                    Some(&REFUSED) => counts.refused += 1,
                    Some(_) => {
                        counts.acknowledged += 1;
                        counts.kept += u64::from(there);
                        counts.missing += u64::from(!there);
                        if !there {
                            first_missing.get_or_insert(n);
                        }
                    }
                }
            }
            counts.first_missing.extend(first_missing.map(|n| id(log.writer, n)));
        }
        counts
    }
}

/// Everything that must hold after the takeover.
pub(super) fn checks(logs: &[WriterLog], facts: &Facts<'_>) -> Vec<Check> {
    let counts = Counts::of(logs, facts.found);
    let mut checks = vec![
        Check {
            name: "every kept update has the value that was sent",
            ok: facts.altered == 0,
            detail: format!("{} altered", facts.altered),
        },
        each_writer_in_order(logs, facts.found),
        all_writers_in_order(logs, facts.found),
        account_agrees(logs, facts),
    ];
    if facts.level != AckLevel::Local {
        checks.push(Check {
            name: "nothing acknowledged is lost",
            ok: counts.missing == 0 && facts.account.durable_level_lost == 0,
            detail: format!("{} of {} missing", counts.missing, counts.acknowledged),
        });
    }
    checks
}

/// Of each writer, what is kept is what it sent first: no gap.
fn each_writer_in_order(logs: &[WriterLog], found: &[Vec<bool>]) -> Check {
    let refused = |log: &WriterLog, n: usize| log.answered_at.get(n) == Some(&REFUSED);
    let gap = logs.iter().zip(found).find_map(|(log, found)| {
        let last = found.iter().rposition(|&there| there)?;
        let hole = found.iter().take(last).enumerate().find(|&(n, there)| !there && !refused(log, n))?;
        Some(format!("{} is missing, {} is there", id(log.writer, hole.0), id(log.writer, last)))
    });
    let ok = gap.is_none();
    let detail = gap.unwrap_or_else(|| format!("{} writers", logs.len()));
    Check { name: "of each writer, the kept updates are the first ones, without a gap", ok, detail }
}

/// Across writers: an update sent after another was acknowledged has a higher number in the one order of the journal.
/// So when the first is missing, the second must be too.
fn all_writers_in_order(logs: &[WriterLog], found: &[Vec<bool>]) -> Check {
    let mut first_lost: Option<(u64, String)> = None;
    let mut last_kept: Option<(u64, String)> = None;
    for (log, found) in logs.iter().zip(found) {
        for (n, &there) in found.iter().enumerate() {
            if there {
                let sent = log.sent_at.get(n).copied().unwrap_or(0);
                if last_kept.as_ref().is_none_or(|(at, _)| sent > *at) {
                    last_kept = Some((sent, id(log.writer, n)));
                }
            } else if let Some(&acknowledged) = log.answered_at.get(n).filter(|&&at| at != REFUSED)
                && first_lost.as_ref().is_none_or(|(at, _)| acknowledged < *at)
            {
                first_lost = Some((acknowledged, id(log.writer, n)));
            }
        }
    }
    let name = "nothing is kept that was sent after a missing update was acknowledged";
    match (first_lost, last_kept) {
        (Some((lost_at, lost)), Some((sent, kept))) => {
            let detail = format!(
                "{lost}, missing, was acknowledged at {lost_at} us; {kept}, kept, was sent at {sent} us"
            );
            Check { name, ok: sent <= lost_at, detail }
        }
        _ => Check { name, ok: true, detail: "nothing acknowledged is missing".to_owned() },
    }
}

/// Each update and each block is one entry of the journal, and nothing else was written meanwhile: the entries that the
/// account says are kept are exactly the updates and blocks that are there.
fn account_agrees(logs: &[WriterLog], facts: &Facts<'_>) -> Check {
    let there: u64 = facts.found.iter().flatten().map(|&there| u64::from(there)).sum();
    let said = facts.account.applied.saturating_sub(facts.before);
    let sent: u64 = logs.iter().map(|log| log.sent_at.len() as u64).sum();
    Check {
        name: "all entries up to the account's last kept one are there, and none after it",
        ok: there + facts.blocks == said,
        detail: format!(
            "{said} entries kept by the account; found {there} of {sent} updates and {} blocks",
            facts.blocks
        ),
    }
}

/// The old primary, when it is back, lists what it had and the pair never kept: each missing update must be on that
/// list, and none that is kept.
pub(super) fn list_agrees(logs: &[WriterLog], found: &[Vec<bool>], listed: &HashSet<String>) -> Check {
    let mut unlisted = 0_u64;
    let mut kept = 0_u64;
    let mut missing = 0_u64;
    for (log, found) in logs.iter().zip(found) {
        for (n, &there) in found.iter().enumerate() {
            let acknowledged = log.answered_at.get(n).is_some_and(|&at| at != REFUSED);
            missing += u64::from(!there && acknowledged);
            // A list without entries needs no look-up of each update.
            let listed = !listed.is_empty() && listed.contains(&id(log.writer, n));
            unlisted += u64::from(!there && acknowledged && !listed);
            kept += u64::from(there && listed);
        }
    }
    Check {
        name: "what is missing is what the returned old primary lists as never kept",
        ok: unlisted == 0 && kept == 0,
        detail: format!(
            "{} listed; of {missing} missing {unlisted} are not listed; {kept} listed are there",
            listed.len()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two writers with four updates each, sent at 10, 20, ... by the one and 15, 25, ... by the other, all
    /// acknowledged 3 us later but the last.
    fn logs() -> Vec<WriterLog> {
        let log = |writer, offset: u64| WriterLog {
            writer,
            sent_at: (1..=4).map(|n| n * 10 + offset).collect(),
            answered_at: (1..=3).map(|n| n * 10 + offset + 3).collect(),
            refusal: None,
        };
        vec![log(0, 0), log(1, 5)]
    }

    fn found(kept: [usize; 2]) -> Vec<Vec<bool>> {
        kept.iter().map(|&kept| (0..4).map(|n| n < kept).collect()).collect()
    }

    fn failed(level: AckLevel, found: &[Vec<bool>], account: &TakeoverAccount) -> Vec<&'static str> {
        let facts = Facts { level, found, altered: 0, before: 100, blocks: 0, account };
        checks(&logs(), &facts).into_iter().filter(|check| !check.ok).map(|check| check.name).collect()
    }

    fn kept_up_to(applied: u64) -> TakeoverAccount {
        TakeoverAccount { applied, lost: "updates after it may be lost".into(), ..TakeoverAccount::default() }
    }

    #[test]
    fn updates_are_counted_by_what_the_writer_was_told_and_what_is_there() {
        let counts = Counts::of(&logs(), &found([4, 2]));
        assert_eq!((counts.sent, counts.acknowledged, counts.unanswered), (8, 6, 2));
        assert_eq!((counts.kept, counts.missing, counts.unanswered_kept), (5, 1, 1));
        assert_eq!(counts.first_missing, ["w1-2"]);
        let mut with_refusal = logs();
        with_refusal[0].answered_at[1] = REFUSED;
        let counts = Counts::of(&with_refusal, &found([4, 4]));
        assert_eq!((counts.acknowledged, counts.refused), (5, 1));
    }

    #[test]
    fn a_lost_end_is_allowed_at_local_when_the_account_says_the_same() {
        assert_eq!(failed(AckLevel::Local, &found([3, 2]), &kept_up_to(105)), [""; 0]);
        assert_eq!(failed(AckLevel::Local, &found([4, 4]), &kept_up_to(108)), [""; 0]);
    }

    #[test]
    fn one_lost_update_at_durable_is_a_failure() {
        assert_eq!(
            failed(AckLevel::Durable, &found([3, 2]), &kept_up_to(105)),
            ["nothing acknowledged is lost"]
        );
        assert_eq!(failed(AckLevel::Durable, &found([3, 3]), &kept_up_to(106)), [""; 0]);
    }

    #[test]
    fn an_account_that_promises_more_or_less_than_is_there_is_found_out() {
        for wrong in [104, 106] {
            let names = failed(AckLevel::Local, &found([3, 2]), &kept_up_to(wrong));
            assert_eq!(
                names,
                ["all entries up to the account's last kept one are there, and none after it"],
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_gap_within_a_writer_and_across_writers_is_found_out() {
        let mut gap = found([4, 3]);
        gap[0][1] = false;
        let names = failed(AckLevel::Local, &gap, &kept_up_to(106));
        assert!(
            names.contains(&"of each writer, the kept updates are the first ones, without a gap"),
            "{names:?}"
        );
        // Writer 1 misses its first, acknowledged at 18, while writer 0 keeps one sent at 40.
        let names = failed(AckLevel::Local, &found([4, 0]), &kept_up_to(104));
        assert_eq!(names, ["nothing is kept that was sent after a missing update was acknowledged"]);
    }

    #[test]
    fn each_missing_update_must_be_on_the_list_of_the_old_primary() {
        let listed = |ids: &[&str]| ids.iter().map(|&id| id.to_owned()).collect::<HashSet<_>>();
        let agrees = |ids: &[&str]| list_agrees(&logs(), &found([3, 2]), &listed(ids)).ok;
        // w1-2 was acknowledged and is missing; w0-3 and w1-3 were never answered.
        assert!(agrees(&["w1-2"]));
        assert!(agrees(&["w1-2", "w1-3", "w0-3"]));
        assert!(!agrees(&["w1-3"]), "one missing update is not on the list");
        assert!(!agrees(&["w1-2", "w1-1"]), "one update of the list is there");
        assert!(!agrees(&[]));
    }
}
