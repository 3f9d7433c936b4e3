//! Which batches a store still has to apply.

use super::StoreError;
use super::namespace::NamespaceError;
use crate::base::{JournalKind, Seq};
use crate::format::batch::Batch;

/// The batches that are not applied yet, without marks and duplicates.
///
/// # Errors
/// [`StoreError::OutOfOrder`] at a gap, or where a batch was applied in part: it is not the batch it was.
pub(super) fn batches_due(
    journal: JournalKind,
    mut applied: Seq,
    batches: &[Batch],
) -> Result<Vec<&Batch>, StoreError> {
    let mut due = Vec::with_capacity(batches.len());
    for batch in batches {
        let header = batch.header();
        let (first, last) = (header.first_seq, header.last_seq());
        if header.mark || last <= applied {
            continue;
        }
        if first != applied.next() || header.journal != journal {
            return Err(StoreError::OutOfOrder { journal, first, last, applied });
        }
        applied = last;
        due.push(batch);
    }
    Ok(due)
}

pub(super) fn damaged_entry(error: NamespaceError) -> StoreError {
    StoreError::Damaged { what: "an entry to apply", why: error.to_string() }
}
