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
use crate::policy::{
    Arrived, Change, PartState, PartitionTimes, PolicyReference, PolicyState, SavedState,
};
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
    times: PartitionTimes,
    /// What changes have brought; absent while there was none.
    policies: Option<Box<PolicyState>>,
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
            times: PartitionTimes::default(),
            policies: None,
        }
    }

    /// Applies a change of the control topic, which comes after all that were applied. Transactions that were scored before
    /// stay as they were decided. Where an engine has only some users of a partition, its [`Engine::agree_on`] comes first.
    pub fn apply(&mut self, number: u64, change: &Change) {
        self.follow_changes();
        if let Some(policies) = &mut self.policies {
            policies.apply(number, change, self.times.newest);
            let hours = policies.lookback_hours() + FORGET_HOURS_BEYOND;
            self.forget_hours = u32::try_from(hours).unwrap_or(u32::MAX);
        }
    }

    /// From here on verdicts say which policy decided: the built-in one as long as no other is applied.
    pub fn follow_changes(&mut self) {
        if self.policies.is_none() {
            let rules = Arc::clone(self.checks.rules());
            let state = PolicyState::new(rules, self.id_hasher, self.times);
            self.policies = state.map(Box::new);
        }
    }

    /// The number of the first change that is not applied.
    #[must_use]
    pub fn next_change(&self) -> u64 {
        self.policies
            .as_ref()
            .map_or(0, |state| state.next_change())
    }

    /// The policy in force, once verdicts say so.
    #[must_use]
    pub fn policy(&self) -> Option<&PolicyReference> {
        self.policies.as_ref().map(|state| state.reference())
    }

    /// The first and the newest time that the engine has met.
    #[must_use]
    pub const fn partition_times(&self) -> PartitionTimes {
        self.times
    }

    /// Tells the engine what its partition has met, where other engines have the rest of its users: the partition's first
    /// transaction once it is read, and the newest of all engines before changes are applied. Since when a feature is known
    /// depends on it.
    pub fn agree_on(&mut self, times: PartitionTimes) {
        self.times.first = times.first.or(self.times.first);
        self.times.newest = self.times.newest.max(times.newest);
        if let (Some(policies), Some(first)) = (&mut self.policies, self.times.first) {
            policies.begin(first);
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
        let verdict = match &mut self.policies {
            None => decide(
                &self.checks,
                history,
                id,
                worth,
                transaction,
                origin,
                &mut self.times,
            ),
            Some(policies) => {
                let arrived = Arrived {
                    tenant,
                    transaction,
                    origin,
                    id,
                    worth,
                };
                policies.decide(history, &arrived, &mut self.times)
            }
        };
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
                release(self.policies.as_deref_mut(), history);
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
        let texts = self.policies.as_ref();
        let texts = texts.map_or(0, |policies| policies.texts.heap_bytes());
        self.history_bytes + self.users.heap_bytes() + texts
    }

    /// How far back a history reaches from its newest row, in microseconds.
    pub(crate) fn lookback(&self) -> i64 {
        let policies = self.policies.as_ref();
        policies.map_or(self.checks.lookback(), |state| state.checks.lookback())
    }

    /// Everything beside the histories.
    pub(crate) fn saved_state(&self) -> SavedState {
        SavedState::of(self.times, self.policies.as_deref())
    }

    /// Takes over what another engine of the partition has saved. `None` where it is not of the same changes.
    pub(crate) fn restore_state(&mut self, saved: &SavedState) -> Option<PartState> {
        let rules = self.checks.rules();
        let part = saved.restore(&mut self.policies, rules, self.id_hasher)?;
        let times = saved.times();
        // Engines that agreed have the same one; of others the later claims less.
        self.times.first = self.times.first.max(times.first);
        self.times.newest = self.times.newest.max(times.newest);
        if let Some(policies) = &self.policies {
            let hours = policies.lookback_hours() + FORGET_HOURS_BEYOND;
            self.forget_hours = u32::try_from(hours).unwrap_or(u32::MAX);
        }
        Some(part)
    }

    /// The state of policies, for the columns of histories that are read.
    pub(crate) fn policies_mut(&mut self) -> Option<&mut PolicyState> {
        self.policies.as_deref_mut()
    }

    pub(crate) fn policies(&self) -> Option<&PolicyState> {
        self.policies.as_deref()
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
        let old = std::mem::replace(history, new);
        release(self.policies.as_deref_mut(), old);
    }
}

/// The texts of a history that is given up are no longer held by it.
fn release(policies: Option<&mut PolicyState>, history: History) {
    if let (Some(policies), Some(mut columns)) = (policies, history.members) {
        columns.evict(columns.len(), &mut policies.texts);
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
    times: &mut PartitionTimes,
) -> Verdict {
    let sender = Sender::bits(origin.sender);
    let conflict = match history.find(id) {
        Some(first) if first.is_of(worth.remembered) => {
            return Verdict::duplicate_of(first, sender);
        }
        other => other.is_some(),
    };
    let time = transaction.timestamp.micros();
    times.first.get_or_insert(time);
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
            times.newest = times.newest.max(Some(time));
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
        ruling: None,
    }
}
