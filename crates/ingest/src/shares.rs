//! A capacity that callers share, such as requests in flight or bytes in memory. No I/O.
//!
//! Invariant: a caller never holds more than its share of what it holds and what is free, so that something is left for
//! the next caller, and what is given back goes to those that hold less.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tollgate_service::http::Caller;

/// A capacity and who holds how much of it.
#[derive(Debug)]
pub(crate) struct Shares {
    capacity: usize,
    /// In percent.
    share: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    total: usize,
    /// Those that hold something. Its keys are the names of the configured API keys.
    callers: HashMap<Caller, usize>,
}

/// Why something was not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exhausted {
    /// The capacity.
    All,
    /// The share of the caller.
    Share,
}

/// A held part of the capacity. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct SharePermit {
    shares: Arc<Shares>,
    caller: Caller,
    amount: usize,
}

impl Shares {
    /// Of this capacity a caller may hold `share` percent of what it holds and what is free.
    pub(crate) fn new(capacity: usize, share: u8) -> Arc<Self> {
        Arc::new(Self {
            capacity,
            share: usize::from(share),
            held: Mutex::default(),
        })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `amount`. Whatever its share, a caller may hold `minimum`, if it is free.
    ///
    /// # Errors
    /// What is exhausted.
    pub(crate) fn acquire(
        self: &Arc<Self>,
        caller: &Caller,
        amount: usize,
        minimum: usize,
    ) -> Result<SharePermit, Exhausted> {
        let mut held = self.held();
        let free = self.capacity - held.total;
        if amount > free {
            return Err(Exhausted::All);
        }
        let own = held.callers.get(caller).copied().unwrap_or_default();
        let most = (own + free).saturating_mul(self.share) / 100;
        if own + amount > most.max(minimum) {
            return Err(Exhausted::Share);
        }
        held.total += amount;
        *held.callers.entry(caller.clone()).or_default() += amount;
        Ok(SharePermit {
            shares: Arc::clone(self),
            caller: caller.clone(),
            amount,
        })
    }
}

impl SharePermit {
    /// Adds what another permit of the same caller holds.
    pub(crate) fn merge(&mut self, mut other: Self) {
        self.amount += std::mem::take(&mut other.amount);
    }
}

impl Drop for SharePermit {
    fn drop(&mut self) {
        let mut held = self.shares.held();
        held.total -= self.amount;
        if let Some(own) = held.callers.get_mut(&self.caller) {
            *own -= self.amount;
            if *own == 0 {
                held.callers.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn caller(name: &str) -> Caller {
        Caller::named(name)
    }

    /// Takes one by one until nothing is given.
    fn exhaust(shares: &Arc<Shares>, name: &str) -> Vec<SharePermit> {
        std::iter::from_fn(|| shares.acquire(&caller(name), 1, 1).ok()).collect()
    }

    #[test]
    fn one_caller_that_takes_what_it_gets_leaves_something_for_the_next_ones() {
        let shares = Shares::new(512, 75);
        let greedy = exhaust(&shares, "a");
        assert_eq!(greedy.len(), 384);
        let refused = shares.acquire(&caller("a"), 1, 1);
        assert_eq!(refused.unwrap_err(), Exhausted::Share);
        let second = exhaust(&shares, "b");
        assert_eq!(second.len(), 96);
        assert!(shares.acquire(&caller("c"), 1, 1).is_ok());
        // What is given back goes to the one that has less.
        drop(greedy.into_iter().take(100).collect::<Vec<_>>());
        assert!(shares.acquire(&caller("b"), 1, 1).is_ok());
    }

    #[test]
    fn a_single_caller_may_have_everything_and_then_the_capacity_is_exhausted() {
        let shares = Shares::new(10, 100);
        let all = exhaust(&shares, "a");
        assert_eq!(all.len(), 10);
        let refused = shares.acquire(&caller("b"), 1, 1);
        assert_eq!(refused.unwrap_err(), Exhausted::All);
    }

    #[test]
    fn the_minimum_is_given_whatever_the_share() {
        let shares = Shares::new(10, 50);
        let mut body = shares.acquire(&caller("a"), 8, 10).unwrap();
        body.merge(shares.acquire(&caller("a"), 2, 10).unwrap());
        drop(body);
        assert_eq!(shares.held().total, 0);
        assert!(shares.held().callers.is_empty());
    }

    proptest! {
        #[test]
        fn what_is_held_adds_up_and_is_within_the_capacity(
            steps in prop::collection::vec((0..4_u8, 1..40_usize, any::<bool>()), 0..200),
            share in 1..=100_u8,
        ) {
            let shares = Shares::new(100, share);
            let mut permits: Vec<SharePermit> = Vec::new();
            for (name, amount, release) in steps {
                if release {
                    if !permits.is_empty() {
                        permits.swap_remove(amount % permits.len());
                    }
                } else if let Ok(permit) = shares.acquire(&caller(&name.to_string()), amount, 1) {
                    permits.push(permit);
                }
                let held = shares.held();
                let sum: usize = permits.iter().map(|permit| permit.amount).sum();
                prop_assert_eq!(held.total, sum);
                prop_assert_eq!(held.callers.values().sum::<usize>(), sum);
                prop_assert!(sum <= 100 && held.callers.values().all(|own| *own > 0));
            }
        }
    }
}
