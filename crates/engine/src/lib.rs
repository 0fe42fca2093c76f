//! The scoring engine: every user's history in memory, and the rules applied to it.
//!
//! Invariant: a verdict is a function of the transactions scored before it, in their order, and of the rules.
//! There is no I/O, no clock and no randomness. What is remembered of a transaction is 24 to 40 bytes and two
//! marks; ids are remembered as keyed hashes. Two ids of one user are mistaken for each other with odds of
//! 1 in 2^64 for each pair, two users with odds of 1 in 2^128, and nobody without the key can look for such a pair.

mod checks;
mod columns;
mod export;
mod geo;
mod history;
mod packed_record;
mod rules;
mod scores;
mod user_key;
mod users;
mod verdict;

use std::sync::Arc;

use siphasher::sip::SipHasher13;
use tollgate_types::{Indicators, Transaction};

use checks::Limits;
pub use export::UnreadableHistory;
use history::Entry;
pub use rules::{
    GeographicAnomaly, HighAmount, HighVelocity, Rules, RulesError, StatusThresholds,
    SuspiciousPattern,
};
pub use user_key::{UserHasher, UserKey};
use users::Users;
pub use verdict::Verdict;

/// Scores transactions against the history of their users.
pub struct Engine {
    rules: Arc<Rules>,
    limits: Limits,
    id_hasher: SipHasher13,
    user_hasher: UserHasher,
    users: Users,
    transactions: usize,
    history_bytes: usize,
}

impl Engine {
    /// An engine without history. `rules` are those that [`Rules::validate`] accepts; `hash_key` is secret, and
    /// the same wherever the history goes.
    #[must_use]
    pub fn new(rules: Arc<Rules>, hash_key: [u8; 16]) -> Self {
        Self {
            limits: Limits::new(&rules),
            rules,
            id_hasher: SipHasher13::new_with_key(&hash_key),
            user_hasher: UserHasher::new(hash_key),
            users: Users::default(),
            transactions: 0,
            history_bytes: 0,
        }
    }

    /// Decides on one transaction and remembers it.
    ///
    /// A duplicate gets its first verdict again and leaves no trace; a transaction older than the history is
    /// scored against what is left, and is not remembered.
    pub fn score(&mut self, transaction: &Transaction<'_>) -> Verdict {
        let user = self.user_hasher.key(transaction.user_id.as_bytes());
        let id = self.id_hasher.hash(transaction.transaction_id.as_bytes());
        let history = self.users.history_of(user);
        if let Some(first) = history.find(id) {
            return Verdict::again(first);
        }
        let time = transaction.timestamp.micros();
        let late = history
            .newest()
            .is_some_and(|newest| time < newest - self.limits.lookback);
        let contributions = checks::contributions(&self.rules, &self.limits, history, transaction);
        // Not `sum()`, which starts from -0.0.
        let score = contributions
            .iter()
            .fold(0.0, |score, each| score + each.points);
        let indicators: Indicators = contributions.iter().map(|each| each.indicator).collect();
        let status = checks::status(&self.rules.status, score);
        if !late {
            let before = (history.len(), history.heap_bytes());
            let entry = Entry {
                time,
                id,
                amount: transaction.amount,
                location: transaction.location,
                indicators,
                status,
                score,
            };
            history.remember(&entry, self.limits.lookback);
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
        &self.rules
    }

    /// Users ever seen.
    #[must_use]
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// Transactions remembered.
    #[must_use]
    pub const fn transactions(&self) -> usize {
        self.transactions
    }

    /// Memory held, in bytes: real capacities, with 16 bytes for each allocation. Cheap enough for every scrape.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.history_bytes + self.users.heap_bytes()
    }
}
