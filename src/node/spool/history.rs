//! The updates on a spool, in order: one history from part to part.

use super::dir::BadPart;
use super::store::PartStore;
use crate::base::Position;
use crate::format::batch::Batch;
use crate::format::spool::PartHeader;
use std::io;

/// Parts of one history, one behind the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// In order.
    pub parts: Vec<PartHeader>,
}

/// Why the updates cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The directory cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A file that should be a part is none.
    #[error("part {name} is damaged: {why}")]
    Damaged {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// Entries are not there.
    #[error("entries {from} to {to} are not on the spool")]
    Gap {
        /// The first that is lacking.
        from: u64,
        /// The last.
        to: u64,
    },
    /// Parts of two histories overlap.
    #[error("part {name} is of another history than the one before it")]
    Other {
        /// Its name.
        name: String,
    },
    /// Whoever took the updates stopped.
    #[error("{0}")]
    Stopped(String),
}

impl History {
    /// Of all parts of a spool that hold something from `from` on, up to `until`.
    ///
    /// # Errors
    /// A part is damaged, or there is a gap.
    pub fn of(store: &PartStore, from: u64, until: u64) -> Result<Self, HistoryError> {
        let (parts, damaged) = store.list()?;
        if let Some((name, why)) = damaged.into_iter().next() {
            return Err(HistoryError::Damaged { name, why });
        }
        let mut parts: Vec<PartHeader> = parts.into_iter().map(|part| part.header).collect();
        parts.sort_unstable_by_key(|part| (part.index, part.base.seq));
        let wanted = |part: &PartHeader| part.end.seq.0 >= from && part.base.seq.0 < until;
        parts.retain(wanted);
        let first = parts.first().map_or(until.max(from), |part| part.base.seq.0 + 1);
        if first > from {
            return Err(HistoryError::Gap { from, to: first - 1 });
        }
        for pair in parts.windows(2) {
            if let [before, after] = pair
                && after.base.seq > before.end.seq
            {
                return Err(HistoryError::Gap { from: before.end.seq.0 + 1, to: after.base.seq.0 });
            }
        }
        Ok(Self { parts })
    }

    /// Calls `each` with every batch of them, in order. A later part cuts what the one before it holds beyond its beginning.
    ///
    /// # Errors
    /// As [`Self::of`], or what `each` says. Everything before was given.
    pub fn walk(
        &self,
        store: &mut PartStore,
        mut each: impl FnMut(&Batch) -> Result<(), String>,
    ) -> Result<(), HistoryError> {
        let mut at: Option<Position> = None;
        for (nth, part) in self.parts.iter().enumerate() {
            let name = part.file_name();
            let cut = self.parts.get(nth + 1).map(|next| next.base.seq);
            let mut stopped = None;
            if at.is_some_and(|at| at != part.base) {
                return Err(HistoryError::Other { name });
            }
            at = Some(part.base);
            let walked = store.walk(part, |batch| {
                if cut.is_some_and(|cut| batch.header().last_seq() > cut) {
                    return Ok(());
                }
                at = Some(batch.end());
                each(&batch).map_err(|why| {
                    stopped = Some(why);
                    BadPart { why: String::new(), good_to: None }
                })
            });
            match (walked, stopped) {
                (_, Some(why)) => return Err(HistoryError::Stopped(why)),
                (Err(BadPart { why, .. }), None) => return Err(HistoryError::Damaged { name, why }),
                (Ok(()), None) => {}
            }
        }
        Ok(())
    }
}
