//! [`Engine`]: scores one transaction after another and keeps the histories that this needs.
//!
//! A history row takes 24 to 40 bytes, its two fingerprints included; ids are kept as keyed hashes. Two ids of one user are taken for
//! the same with a probability of 1 in 2^64 for each pair, two users with 1 in 2^128, and nobody without the key can
//! search for such a pair.

use std::sync::Arc;

use siphasher::sip::SipHasher13;
use tollgate_types::{Tenant, Transaction};

use crate::checks::{self, Checks};
use crate::rules::Rules;
use crate::state::{Entry, History, UserHasher, UserKey, Users};
use crate::verdict::Verdict;

/// Scores transactions against the history of their users.
pub struct Engine {
    checks: Checks,
    id_hasher: SipHasher13,
    user_hasher: UserHasher,
    users: Users,
    transactions: usize,
    history_bytes: usize,
}

impl Engine {
    /// An engine without history. `rules` must be accepted by [`Rules::validate`]; `hash_key` is secret, and the same for
    /// every engine that reads these histories.
    #[must_use]
    pub fn new(rules: Arc<Rules>, hash_key: [u8; 16]) -> Self {
        Self {
            checks: Checks::new(rules),
            id_hasher: SipHasher13::new_with_key(&hash_key),
            user_hasher: UserHasher::new(hash_key),
            users: Users::default(),
            transactions: 0,
            history_bytes: 0,
        }
    }

    /// As [`Engine::score_in`], for a user of the default tenant.
    pub fn score(&mut self, transaction: &Transaction<'_>) -> Verdict {
        self.score_in(Tenant::DEFAULT, transaction)
    }

    /// Decides on one transaction of this tenant's user and remembers it. Users of equal ids in other tenants are others.
    ///
    /// A duplicate gets its first verdict again and does not change the history. A transaction older than the history is
    /// scored against what is left of it, and is not remembered.
    pub fn score_in(&mut self, tenant: Tenant<'_>, transaction: &Transaction<'_>) -> Verdict {
        let user = self
            .user_hasher
            .key_in(tenant, transaction.user_id.as_bytes());
        let id = self.id_hasher.hash(transaction.transaction_id.as_bytes());
        let history = self.users.history_of(user);
        if let Some(first) = history.find(id) {
            return Verdict::duplicate_of(first);
        }
        let time = transaction.timestamp.micros();
        let lookback = self.checks.lookback();
        let late = history
            .newest()
            .is_some_and(|newest| time < newest - lookback);
        let contributions = self.checks.contributions(history, transaction);
        // Not `sum()`, which starts from -0.0.
        let score = contributions
            .iter()
            .fold(0.0, |score, each| score + each.points);
        let indicators = contributions.indicators();
        let status = checks::status(&self.checks.rules().status, score);
        if !late {
            let before = (history.len(), history.heap_bytes());
            let entry = Entry {
                time,
                id,
                amount: transaction.amount,
                location: transaction.location,
                indicators: &indicators,
                status,
                score,
            };
            history.remember(&entry, lookback);
            self.transactions = self.transactions + history.len() - before.0;
            self.history_bytes = self.history_bytes + history.heap_bytes() - before.1;
        }
        Verdict {
            score,
            indicators,
            status,
            contributions,
            late,
            duplicate: false,
        }
    }

    /// The rules in force.
    #[must_use]
    pub fn rules(&self) -> &Arc<Rules> {
        self.checks.rules()
    }

    /// Number of users in the histories.
    #[must_use]
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// Number of transactions remembered.
    #[must_use]
    pub const fn transactions(&self) -> usize {
        self.transactions
    }

    /// Memory held, in bytes: real capacities, with 16 bytes for each allocation. Cheap enough for every scrape.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.history_bytes + self.users.heap_bytes()
    }

    /// Every user's key and history.
    pub(crate) fn histories(&self) -> impl Iterator<Item = (UserKey, &History)> {
        self.users.iter()
    }

    /// Replaces the history of a user.
    pub(crate) fn replace_history(&mut self, key: UserKey, new: History) {
        let history = self.users.history_of(key);
        self.transactions = self.transactions + new.len() - history.len();
        self.history_bytes = self.history_bytes + new.heap_bytes() - history.heap_bytes();
        *history = new;
    }
}
