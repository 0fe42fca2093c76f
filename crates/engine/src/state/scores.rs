//! The scores other than zero of one user, in the order of their entries.
//!
//! Nearly all are small whole numbers, a sum of capped points, and take one byte. Any other takes the byte
//! [`SCORE_IN_FULL`] and its 64 bits in a second queue. Every score is returned to the bit.

use std::collections::VecDeque;

use super::layout::{ALLOCATION_OVERHEAD, SCORE_IN_FULL, slack, tolerance};

/// Scores by rank.
#[derive(Default)]
pub(crate) struct Scores {
    codes: VecDeque<u8>,
    full: VecDeque<f64>,
}

impl Scores {
    pub(crate) fn len(&self) -> usize {
        self.codes.len()
    }

    pub(crate) fn get(&self, rank: usize) -> Option<f64> {
        match *self.codes.get(rank)? {
            SCORE_IN_FULL => self.full.get(self.full_before(rank)).copied(),
            code => Some(code.into()),
        }
    }

    /// Every score, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = f64> {
        let mut full = self.full.iter();
        self.codes.iter().map(move |code| match *code {
            SCORE_IN_FULL => full.next().copied().unwrap_or_default(),
            code => f64::from(code),
        })
    }

    pub(crate) fn insert(&mut self, rank: usize, score: f64) {
        let code = code(score);
        if code == SCORE_IN_FULL {
            let full_rank = self.full_before(rank);
            make_room(&mut self.full);
            self.full.insert(full_rank, score);
        }
        make_room(&mut self.codes);
        self.codes.insert(rank, code);
    }

    /// The scores from this rank on, which are removed here.
    pub(crate) fn split_off(&mut self, rank: usize) -> Self {
        let full_rank = self.full_before(rank);
        Self {
            codes: self.codes.split_off(rank),
            full: self.full.split_off(full_rank),
        }
    }

    pub(crate) fn append(&mut self, mut later: Self) {
        self.codes.append(&mut later.codes);
        self.full.append(&mut later.full);
    }

    pub(crate) fn pop_front(&mut self) {
        if self.codes.pop_front() == Some(SCORE_IN_FULL) {
            self.full.pop_front();
        }
    }

    /// Frees memory beyond the tolerance.
    pub(crate) fn trim(&mut self) {
        trim(&mut self.codes);
        trim(&mut self.full);
    }

    /// Memory held, the struct itself included, since it is boxed.
    pub(crate) fn bytes(&self) -> usize {
        [
            size_of::<Self>(),
            self.codes.capacity(),
            self.full.capacity() * size_of::<f64>(),
        ]
        .into_iter()
        .filter(|bytes| *bytes > 0)
        .map(|bytes| bytes + ALLOCATION_OVERHEAD)
        .sum()
    }

    /// Scores kept in full before this rank. Counted from the end, where most changes are.
    fn full_before(&self, rank: usize) -> usize {
        self.full.len()
            - self
                .codes
                .range(rank..)
                .filter(|code| **code == SCORE_IN_FULL)
                .count()
    }
}

fn code(score: f64) -> u8 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, and is compared with what it came from"
    )]
    let code = score as u8;
    if f64::from(code).to_bits() == score.to_bits() {
        code
    } else {
        SCORE_IN_FULL
    }
}

fn make_room<T>(queue: &mut VecDeque<T>) {
    if queue.len() == queue.capacity() {
        queue.reserve_exact(slack(queue.len()));
    }
}

fn trim<T>(queue: &mut VecDeque<T>) {
    let used = queue.len();
    if queue.capacity() > used + tolerance(used) {
        queue.shrink_to(if used == 0 { 0 } else { used + slack(used) });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn score() -> impl Strategy<Value = f64> {
        prop_oneof![
            (0..300_u32).prop_map(f64::from),
            Just(-0.0),
            0.0..300.0,
            0.0..1e9
        ]
    }

    proptest! {
        #[test]
        fn scores_are_returned_to_the_bit_wherever_they_were_inserted(
            steps in prop::collection::vec((any::<prop::sample::Index>(), score(), any::<bool>()), 0..200),
            split in any::<prop::sample::Index>(),
        ) {
            let (mut scores, mut model) = (Scores::default(), Vec::new());
            for (place, score, remove) in steps {
                if remove && !model.is_empty() {
                    scores.pop_front();
                    scores.trim();
                    model.remove(0);
                } else {
                    let rank = place.index(model.len() + 1);
                    scores.insert(rank, score);
                    model.insert(rank, score);
                }
                prop_assert_eq!(scores.len(), model.len());
                let in_full = model.iter().filter(|score| code(**score) == SCORE_IN_FULL).count();
                prop_assert_eq!(scores.full.len(), in_full, "a removed score takes no memory");
                for (rank, score) in model.iter().enumerate() {
                    prop_assert_eq!(scores.get(rank).map(f64::to_bits), Some(score.to_bits()));
                }
            }
            let rank = split.index(model.len() + 1);
            let later = scores.split_off(rank);
            prop_assert!(later.iter().map(f64::to_bits).eq(model[rank..].iter().map(|score| score.to_bits())));
            scores.append(later);
            prop_assert!(scores.iter().map(f64::to_bits).eq(model.iter().map(|score| score.to_bits())));
        }
    }
}
