//! Which transactions are older than the history of their user, as far as this instance knows what came before.
//!
//! The scorer decides it, and says so in the decision. Nobody waits for the decisions of an import or of a request without
//! `Prefer: wait`; for these the timestamps that this instance has written since it started are compared.
//! Invariant: memory is bounded; the users that were not seen for the longest time are forgotten first.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};

use tollgate_types::{Tenant, Timestamp};

/// The users of one of the two generations.
const GENERATION: usize = 500_000;
const MICROS_PER_HOUR: i64 = 3_600_000_000;

/// The newest timestamp of each user.
#[derive(Debug)]
pub(crate) struct NewestTimes {
    /// How much older a late transaction is, in microseconds.
    after: i64,
    hashes: RandomState,
    users: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    current: HashMap<u64, i64>,
    previous: HashMap<u64, i64>,
}

impl NewestTimes {
    /// A transaction is late if it is this much older than the newest of its user.
    pub(crate) fn new(late_after_hours: u32) -> Self {
        Self {
            after: i64::from(late_after_hours) * MICROS_PER_HOUR,
            hashes: RandomState::new(),
            users: Mutex::default(),
        }
    }

    /// Records a transaction that is written to the log now. True if it is late.
    pub(crate) fn is_late(&self, tenant: Tenant<'_>, user_id: &str, at: Timestamp) -> bool {
        self.record(tenant, user_id, at.micros(), GENERATION)
    }

    fn record(&self, tenant: Tenant<'_>, user_id: &str, at: i64, generation: usize) -> bool {
        let user = self.hashes.hash_one((tenant.name(), user_id));
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let known = users
            .current
            .get(&user)
            .or_else(|| users.previous.get(&user));
        let newest = known.copied().unwrap_or(at);
        if users.current.len() >= generation && !users.current.contains_key(&user) {
            users.previous = std::mem::take(&mut users.current);
        }
        users.current.insert(user, newest.max(at));
        at < newest.saturating_sub(self.after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = MICROS_PER_HOUR;

    #[test]
    fn a_transaction_older_than_the_history_of_its_user_is_late() {
        let times = NewestTimes::new(169);
        let late = |user, at| times.record(Tenant::DEFAULT, user, at, GENERATION);
        assert!(!late("u", 1_000 * HOUR));
        assert!(!late("u", 831 * HOUR));
        assert!(late("u", 831 * HOUR - 1));
        assert!(late("u", 0));
        assert!(!late("v", 0));
        assert!(!times.record(Tenant::parse("other").unwrap(), "u", 0, GENERATION));
    }

    #[test]
    fn users_beyond_two_generations_are_forgotten() {
        let times = NewestTimes::new(1);
        for user in 0..10 {
            times.record(Tenant::DEFAULT, &user.to_string(), 100 * HOUR, 2);
        }
        let users = times.users.lock().unwrap();
        assert!(users.current.len() + users.previous.len() <= 4);
    }
}
