//! The amounts and times of a long history, in order, so that repetitions of an amount are counted without a scan.
//!
//! A list of sorted chunks. Invariant: no chunk is empty or holds more than [`CHUNK`] keys, and each key of a chunk is at
//! most the first of the next one.

use super::layout::ALLOCATION_OVERHEAD;

/// Most keys of a chunk.
const CHUNK: usize = 512;
/// A chunk with fewer keys is joined to a neighbour that has room.
const SPARSE: usize = CHUNK / 8;

/// An amount in ten-thousandths, and a time in microseconds since 1970.
type Key = (u64, i64);

/// Keys in order, each as often as it was inserted.
#[derive(Default)]
pub(crate) struct Amounts {
    chunks: Vec<Vec<Key>>,
}

impl Amounts {
    /// Adds a transaction.
    pub(crate) fn insert(&mut self, amount: u64, time: i64) {
        let key = (amount, time);
        let mut at = self.chunk_of(key);
        if at == self.chunks.len() {
            at = at.saturating_sub(1);
        }
        match self.chunks.get(at).map(Vec::len) {
            None => self.chunks.push(Vec::with_capacity(CHUNK)),
            Some(CHUNK) => {
                let chunk = &mut self.chunks[at];
                let mut later = Vec::with_capacity(CHUNK);
                later.extend_from_slice(&chunk[CHUNK / 2..]);
                chunk.truncate(CHUNK / 2);
                let belongs_later = later[0] <= key;
                self.chunks.insert(at + 1, later);
                at += usize::from(belongs_later);
            }
            Some(_) => {}
        }
        let chunk = &mut self.chunks[at];
        let place = chunk.partition_point(|each| *each <= key);
        chunk.insert(place, key);
    }

    /// Removes a transaction that was added.
    pub(crate) fn remove(&mut self, amount: u64, time: i64) {
        let key = (amount, time);
        let at = self.chunk_of(key);
        let Some(chunk) = self.chunks.get_mut(at) else {
            return;
        };
        let place = chunk.partition_point(|each| *each < key);
        if chunk.get(place) != Some(&key) {
            return;
        }
        chunk.remove(place);
        let left = chunk.len();
        if left == 0 {
            self.chunks.remove(at);
        } else if left < SPARSE
            && let Some(next) = self.chunks.get(at + 1)
            && left + next.len() <= CHUNK / 2
        {
            let next = self.chunks.remove(at + 1);
            self.chunks[at].extend(next);
        }
    }

    /// How many have this amount and a time in (after, before), both ends excluded.
    pub(crate) fn count(&self, amount: u64, after: i64, before: i64) -> usize {
        let first = self.position((amount, after.saturating_add(1)));
        let end = self.position((amount, before));
        if end <= first {
            return 0;
        }
        let before_end: usize = self.chunks[first.0..end.0].iter().map(Vec::len).sum();
        before_end + end.1 - first.1
    }

    /// Chunk and place of the first key that is not less.
    fn position(&self, key: Key) -> (usize, usize) {
        let at = self.chunk_of(key);
        let place = self
            .chunks
            .get(at)
            .map_or(0, |chunk| chunk.partition_point(|each| *each < key));
        (at, place)
    }

    /// The first chunk whose last key is not less.
    fn chunk_of(&self, key: Key) -> usize {
        self.chunks
            .partition_point(|chunk| chunk.last().is_some_and(|last| *last < key))
    }

    /// Memory held beside the struct itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.chunks.len() * (CHUNK * size_of::<Key>() + ALLOCATION_OVERHEAD)
            + self.chunks.capacity() * size_of::<Vec<Key>>()
            + ALLOCATION_OVERHEAD
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

        #[test]
        fn counts_are_those_of_a_list_after_any_insertions_and_removals(
            steps in prop::collection::vec((0..4_u64, 0..300_i64, 0..3_u8), 0..4_000),
            ascending: bool,
        ) {
            let (mut amounts, mut model) = (Amounts::default(), Vec::new());
            for (n, (amount, time, action)) in (0..).zip(steps) {
                if action == 0 && !model.is_empty() {
                    let (amount, time) = model.remove(usize::try_from(time).unwrap() % model.len());
                    amounts.remove(amount, time);
                } else {
                    let time = if ascending { n } else { time };
                    amounts.insert(amount, time);
                    model.push((amount, time));
                }
                if n % 64 == 0 {
                    let (after, before) = (time - 40, time + 40);
                    let expected = model.iter().filter(|(of, at)| *of == amount && (after + 1..before).contains(at));
                    prop_assert_eq!(amounts.count(amount, after, before), expected.count());
                }
            }
            prop_assert!(amounts.chunks.iter().all(|chunk| (1..=CHUNK).contains(&chunk.len())));
            prop_assert_eq!(amounts.chunks.iter().map(Vec::len).sum::<usize>(), model.len());
            prop_assert!(amounts.chunks.concat().is_sorted());
        }
    }
}
