//! What is kept in memory: lists that forget their oldest entries, and locks that outlive a panic.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Entries of each list. A stand-in that serves for days must not grow without end.
const KEPT: usize = 10_000;

/// The lock, also after a panic elsewhere: a test that fails must not make others fail.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A list of the latest [`KEPT`] entries, each with a number that stays its own.
#[derive(Debug)]
pub(super) struct Kept<T> {
    forgotten: usize,
    entries: VecDeque<T>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self {
            forgotten: 0,
            entries: VecDeque::new(),
        }
    }
}

impl<T: Clone> Kept<T> {
    /// Adds an entry. Its number.
    pub(super) fn push(&mut self, entry: T) -> usize {
        if self.entries.len() == KEPT {
            self.entries.pop_front();
            self.forgotten += 1;
        }
        self.entries.push_back(entry);
        self.forgotten + self.entries.len() - 1
    }

    /// The entry of this number, unless it is forgotten.
    pub(super) fn get_mut(&mut self, number: usize) -> Option<&mut T> {
        self.entries.get_mut(number.checked_sub(self.forgotten)?)
    }

    /// All that are kept, oldest first.
    pub(super) fn all(&self) -> Vec<T> {
        self.entries.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{KEPT, Kept};

    #[test]
    fn a_full_list_forgets_its_oldest_entry_and_keeps_the_numbers_of_the_others() {
        let mut kept = Kept::default();
        for number in 0..=KEPT {
            assert_eq!(kept.push(number), number);
        }
        assert_eq!(kept.get_mut(0), None);
        assert_eq!(kept.get_mut(1), Some(&mut 1));
        assert_eq!(kept.all().len(), KEPT);
    }
}
