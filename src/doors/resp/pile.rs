//! What very large commands held and nobody needs any more: giving a million values back to the allocator takes as long
//! as reading them, so that is done in steps, too.

use super::work::Work;
use crate::base::limits::{DIRECT_ITEMS_MAX, PILE_STEP, WORK_FREED};
use crate::doors::Draft;
use bytes::Bytes;

/// Values and drafts to be freed.
#[derive(Debug, Default)]
pub(super) struct Pile {
    values: Vec<Vec<Option<Bytes>>>,
    drafts: Vec<Draft>,
}

impl Pile {
    /// Takes values; a few are freed at once.
    pub(super) fn add_values(&mut self, values: Vec<Option<Bytes>>) {
        if values.len() > DIRECT_ITEMS_MAX {
            self.values.push(values);
        }
    }

    /// Takes a draft; a small one is freed at once.
    pub(super) fn add_draft(&mut self, draft: Draft) {
        if draft.len() > DIRECT_ITEMS_MAX {
            self.drafts.push(draft);
        }
    }

    /// Whether nothing is left to be freed.
    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty() && self.drafts.is_empty()
    }

    /// Frees some, which counts as work of this round.
    pub(super) fn shrink(&mut self, work: &mut Work) {
        let mut left = PILE_STEP;
        while left > 0 {
            if let Some(values) = self.values.last_mut() {
                let step = left.min(values.len());
                values.truncate(values.len() - step);
                left -= step.max(1);
                self.values.pop_if(|values| values.is_empty());
            } else if let Some(draft) = self.drafts.last_mut() {
                let step = left.min(draft.len());
                let more = draft.shed(step);
                left -= step.max(1);
                self.drafts.pop_if(|_| !more);
            } else {
                break;
            }
        }
        work.spend((PILE_STEP - left) * WORK_FREED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::FileId;
    use crate::doors::{ItemHash, Update};

    #[test]
    fn what_a_huge_command_held_is_freed_in_steps_and_all_of_it() {
        let mut pile = Pile::default();
        let (value, count) = (Bytes::from(vec![7; 100]), 3 * PILE_STEP + 5);
        pile.add_values(vec![Some(value.clone()); count]);
        let mut draft = Draft::default();
        for n in 0..u64::try_from(PILE_STEP + 1).unwrap() {
            draft.put(ItemHash(n), &Update::Put { file: FileId(4), id: &n.to_le_bytes(), value: b"v" });
        }
        pile.add_draft(draft);
        let (mut work, mut steps) = (Work::new(), 0);
        while !pile.is_empty() {
            let before = work.spent;
            pile.shrink(&mut work);
            assert!(work.spent - before <= PILE_STEP * WORK_FREED);
            steps += 1;
        }
        assert_eq!(steps, 5, "{PILE_STEP} at once, and no more");
        assert!(value.is_unique(), "all were freed");
        pile.add_values(vec![Some(value.clone()); 5]);
        assert!(pile.is_empty() && value.is_unique(), "a few are freed at once");
    }
}
