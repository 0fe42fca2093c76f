//! [`Engine`]: scores one transaction after another and keeps the histories that this needs.
//!
//! A history row takes 26 to 42 bytes, its two fingerprints included; ids are kept as keyed hashes. Two ids of one user are taken for
//! the same with a probability of 1 in 2^64 for each pair, two users with 1 in 2^128, and nobody without the key can
//! search for such a pair.

use std::sync::Arc;

use siphasher::sip::SipHasher13;
use tollgate_types::{Status, Tenant, Transaction};

use crate::checks::{self, Checks, Scored};
use crate::log_time::{self, LogTime};
use crate::origin::{Origin, Sender};
use crate::rules::Rules;
use crate::state::{Entry, History, UserHasher, UserKey, Users};
use crate::verdict::Verdict;
use crate::worth::Worth;

/// Scores transactions against the history of their users.
pub struct Engine {
    checks: Checks,
    id_hasher: SipHasher13,
    user_hasher: UserHasher,
    users: Users,
    log_time: LogTime,
    /// Hours without a record after which a user is forgotten.
    forget_hours: u32,
    transactions: usize,
    history_bytes: usize,
}

/// By how many hours an accepted transaction may be older than its record: `ingest.max_age_hours` by default.
pub const ACCEPTED_AGE_HOURS: u64 = 72;
/// Beyond the lookback, the hours after which a user without records is forgotten: 72 by which an accepted transaction may be
/// older than its record, 24 by which it may be ahead of it, and 24 for records that are not in the order of their timestamps.
/// So the rows of a user who is forgotten are older than the lookback of every transaction that can still be accepted.
const FORGET_HOURS_BEYOND: u64 = ACCEPTED_AGE_HOURS + 48;
/// Users that are looked at with each score for being forgotten: more than can be new with it, so that none is missed.
const SWEPT_WITH_EACH: usize = 2;

impl Engine {
    /// An engine without history. `rules` must be accepted by [`Rules::validate`]; `hash_key` is secret, and the same for
    /// every engine that reads these histories.
    #[must_use]
    pub fn new(rules: Arc<Rules>, hash_key: [u8; 16]) -> Self {
        let forget_hours = rules.lookback_seconds().div_ceil(3_600) + FORGET_HOURS_BEYOND;
        Self {
            log_time: LogTime::default(),
            forget_hours: u32::try_from(forget_hours).unwrap_or(u32::MAX),
            checks: Checks::new(rules),
            id_hasher: SipHasher13::new_with_key(&hash_key),
            user_hasher: UserHasher::new(hash_key),
            users: Users::default(),
            transactions: 0,
            history_bytes: 0,
        }
    }

    /// As [`Engine::score_in`], for a user of the default tenant.
    pub fn score(&mut self, transaction: &Transaction<'_>, origin: &Origin) -> Verdict {
        self.score_in(Tenant::DEFAULT, transaction, origin)
    }

    /// Decides on one transaction of this tenant's user and remembers it. Users of equal ids in other tenants are others.
    ///
    /// A duplicate gets its first verdict again. A transaction older than the history, and one whose id is taken by another
    /// amount, is scored against what is there, and is not remembered.
    pub fn score_in(
        &mut self,
        tenant: Tenant<'_>,
        transaction: &Transaction<'_>,
        origin: &Origin,
    ) -> Verdict {
        self.forget_users(origin);
        let user = self
            .user_hasher
            .key_in(tenant, transaction.user_id.as_bytes());
        let id = self.id_hasher.hash(transaction.transaction_id.as_bytes());
        let history = self.users.history_of(user);
        let before = (history.len(), history.heap_bytes());
        if let Some(hour) = origin.timestamp_ms.map(log_time::hour) {
            history.see(hour);
        }
        let worth = self.checks.valuation().of(transaction, &self.id_hasher);
        let verdict = decide(&self.checks, history, id, worth, transaction, origin);
        self.transactions = self.transactions + history.len() - before.0;
        self.history_bytes = self.history_bytes + history.heap_bytes() - before.1;
        verdict
    }

    /// Removes a few of the users who have had no record for so long that no score depends on their history.
    fn forget_users(&mut self, origin: &Origin) {
        let Some(record_ms) = origin.timestamp_ms else {
            return;
        };
        self.log_time.pass(record_ms);
        let before = self.log_time.hour().saturating_sub(self.forget_hours);
        if before > 0 {
            for history in self.users.sweep(SWEPT_WITH_EACH, before) {
                self.transactions -= history.len();
                self.history_bytes -= history.heap_bytes();
            }
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

    /// How far back a history reaches from its newest row, in microseconds.
    pub(crate) const fn lookback(&self) -> i64 {
        self.checks.lookback()
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

/// Decides on a transaction by its user's history, and remembers it there.
fn decide(
    checks: &Checks,
    history: &mut History,
    id: u64,
    worth: Worth,
    transaction: &Transaction<'_>,
    origin: &Origin,
) -> Verdict {
    let sender = Sender::bits(origin.sender);
    let conflict = match history.find(id) {
        Some(first) if first.is_of(worth.remembered) => {
            return Verdict::duplicate_of(first, sender);
        }
        other => other.is_some(),
    };
    let time = transaction.timestamp.micros();
    let bounds = checks.bounds();
    let late = history
        .newest()
        .is_some_and(|newest| time < newest - bounds.lookback);
    let scored = Scored {
        transaction,
        location: checks.place(transaction),
        arrival: checks.arrival(transaction, origin),
        conflict,
        worth,
    };
    let contributions = checks.contributions(history, &scored);
    // Not `sum()`, which starts from -0.0.
    let score = contributions
        .iter()
        .fold(0.0, |score, each| score + each.points);
    let indicators = contributions.indicators();
    let approximate = history.is_shortened(time, bounds);
    let mut status = checks::status(&checks.rules().status, score);
    if conflict || approximate {
        status = status.max(Status::Review);
    }
    if late && !origin.backfill {
        status = status.max(checks.rules().late_status);
    }
    status = status.max(checks.valuation().least_status(&worth));
    if !conflict {
        if let Some(arrival) = scored.arrival {
            history.arrivals.add(arrival, checks.arrival_window());
        }
        if !late {
            let entry = Entry {
                time,
                id,
                amount: worth.remembered,
                location: scored.location,
                sender,
                indicators: &indicators,
                status,
                score,
            };
            history.remember(&entry, bounds);
        }
    }
    Verdict {
        score,
        indicators,
        status,
        contributions,
        late,
        duplicate: false,
        foreign: false,
        conflict,
        approximate,
    }
}
