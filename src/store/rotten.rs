//! What is left to be healed of items that cannot be read, whichever store it is.

use super::RottenItems;
use crate::base::FileId;
use crate::format::chunk::{Chunk, Content};
use bytes::Bytes;

/// Items of a file behind `after` through `through`, to the last one if that is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) file: FileId,
    pub(super) generation: u32,
    pub(super) after: Bytes,
    pub(super) through: Bytes,
}

impl Part {
    /// As it is told.
    pub(super) fn told(&self) -> RottenItems {
        RottenItems { file: self.file, after: self.after.clone(), through: self.through.clone() }
    }

    /// What a chunk holds.
    pub(super) fn of_chunk(chunk: &Chunk, generation: u32) -> Option<Self> {
        let Content::Items { after, through, .. } = &chunk.content else { return None };
        let through = if chunk.ends { Bytes::new() } else { through.clone() };
        Some(Self { file: chunk.file, generation, after: after.clone(), through })
    }

    /// What is left of it beside another one.
    pub(super) fn without(self, other: &Self) -> Vec<Self> {
        if (self.file, self.generation) != (other.file, other.generation) {
            return vec![self];
        }
        let mut left = Vec::new();
        if self.after < other.after {
            let ends = self.through.is_empty() || other.after < self.through;
            let through = if ends { other.after.clone() } else { self.through.clone() };
            left.push(Self { through, ..self.clone() });
        }
        if !other.through.is_empty() && (self.through.is_empty() || other.through < self.through) {
            let after = self.after.clone().max(other.through.clone());
            left.push(Self { after, ..self });
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_part_is_what_no_chunk_has_held() {
        let edge = |n: u8| if n == 0 { Bytes::new() } else { Bytes::from(vec![n]) };
        let part = |after, through| Part {
            file: FileId(3),
            generation: 1,
            after: edge(after),
            through: edge(through),
        };
        let holds = |part: &Part, n: u8| {
            [n][..] > part.after[..] && (part.through.is_empty() || [n][..] <= part.through[..])
        };
        let edges = || (0..6_u8).flat_map(|after| (0..6).map(move |through| (after, through)));
        let real = || edges().filter(|(after, through)| *through == 0 || through > after);
        for ((a, b), (c, d)) in real().flat_map(|one| real().map(move |other| (one, other))) {
            let (whole, cut) = (part(a, b), part(c, d));
            let left = whole.clone().without(&cut);
            for n in 1..8 {
                let wanted = holds(&whole, n) && !holds(&cut, n);
                let found = left.iter().filter(|part| holds(part, n)).count();
                assert_eq!(found, usize::from(wanted), "{n} of {whole:?} without {cut:?}: {left:?}");
            }
            let other = Part { file: FileId(4), ..cut };
            assert_eq!(whole.clone().without(&other), [whole]);
        }
    }
}
