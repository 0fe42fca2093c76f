//! Deciding by a policy: rules, features and lists that changes bring, beside the built-in indicators.
//!
//! [`change`] reads the records of the control topic and applies them in order. [`reading`] finds members in a transaction's
//! text, [`features`] are computed from the user's rows, [`outcome`] is the status and what set it, and [`ruling`] what a
//! decision says of it. An engine to which nothing was applied has none of this, and decides by its rules alone.
//!
//! Invariant: a verdict is a function of the transactions and changes before it, in their order. What a feature says is
//! unknown until the histories cover its window.

mod builtin;
mod change;
mod deciding;
mod features;
mod lists;
mod outcome;
mod prepared;
mod reading;
mod ruling;
mod saved;

use std::sync::Arc;

use siphasher::sip::SipHasher13;
use tollgate_policy::{Member, MemberType, Mode, Policy, Slots};
use tollgate_types::Indicator;

pub use change::{Change, Control, MarkerOutcome, UnreadableChange};
pub(crate) use deciding::Arrived;
pub use ruling::{Fired, PolicyReference, Ruling, Shown};
pub(crate) use saved::{PartState, SavedState};

use crate::checks::Checks;
use crate::rules::Rules;
use crate::state::Texts;
use features::Rows;
use lists::{Lists, Suppressions};
use prepared::Prepared;

/// A week and the lateness that is permitted, in microseconds: the shortest lookback under a policy.
const SHORTEST_LOOKBACK: i64 = (7 * 86_400 + LATENESS_SECONDS) * 1_000_000;
/// How far a lookback reaches beyond the longest window.
const LATENESS_SECONDS: i64 = 3_600;

/// The earliest and the latest that a partition has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartitionTimes {
    /// Event time of the partition's first transaction, in microseconds since 1970.
    pub first: Option<i64>,
    /// The newest event time that the partition remembered.
    pub newest: Option<i64>,
}

/// A member that histories remember, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    member: Member,
    /// Event time in microseconds. `None` until the partition's first transaction.
    since: Option<i64>,
}

/// What a verdict was decided by, as histories remember it by its number.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RememberedRuling {
    policy: PolicyReference,
    decided_by: Arc<str>,
}

/// Everything that changes have brought.
pub(crate) struct PolicyState {
    /// The settings of the process.
    rules: Arc<Rules>,
    policy: Arc<Policy>,
    document: Option<Arc<str>>,
    reference: PolicyReference,
    /// All changes before this one are applied.
    next_change: u64,
    pub(crate) checks: Checks,
    held: Vec<Held>,
    /// Since when amounts and times are remembered.
    amounts_since: Option<i64>,
    lists: Lists,
    suppressions: Suppressions,
    pub(crate) texts: Texts,
    rulings: Vec<RememberedRuling>,
    prepared: Prepared,
    buffers: Buffers,
}

/// Memory that is used again for the next transaction.
#[derive(Default)]
struct Buffers {
    rows: Rows,
    cells: Vec<u64>,
    scratch: Vec<u64>,
    slots: Slots<'static>,
    row_slots: Slots<'static>,
}

impl PolicyState {
    /// The built-in policy. `None` if it cannot be read, which a test excludes.
    pub(crate) fn new(
        rules: Arc<Rules>,
        hasher: SipHasher13,
        times: PartitionTimes,
    ) -> Option<Self> {
        let (policy, hash) = builtin::policy(&rules)?;
        let reference = PolicyReference { change: None, hash };
        Some(Self {
            checks: Checks::new(Arc::clone(&rules)),
            prepared: Prepared::new(&policy, &[]),
            rules,
            policy,
            document: None,
            rulings: vec![RememberedRuling {
                policy: reference.clone(),
                decided_by: "score".into(),
            }],
            reference,
            next_change: 0,
            held: Vec::new(),
            amounts_since: times.first,
            lists: Lists::default(),
            suppressions: Suppressions::default(),
            texts: Texts::new(hasher),
            buffers: Buffers::default(),
        })
    }

    /// How far back histories reach, in hours.
    pub(crate) const fn lookback_hours(&self) -> u64 {
        let seconds = self.checks.lookback() / 1_000_000;
        seconds.cast_unsigned().div_ceil(3_600)
    }

    /// What is remembered since the partition began is known since its first transaction.
    pub(crate) fn begin(&mut self, first: i64) {
        self.amounts_since.get_or_insert(first);
        for held in &mut self.held {
            held.since.get_or_insert(first);
        }
    }

    /// The number of the first change that is not applied.
    pub(crate) const fn next_change(&self) -> u64 {
        self.next_change
    }

    /// The policy in force.
    pub(crate) const fn reference(&self) -> &PolicyReference {
        &self.reference
    }

    /// Applies a change; `newest` is the newest event time that the partition remembered.
    pub(crate) fn apply(&mut self, number: u64, change: &Change, newest: Option<i64>) {
        match change {
            Change::Policy {
                policy,
                document,
                expects,
            } => {
                // Otherwise another came first.
                if *expects == self.reference.change {
                    let reference = PolicyReference {
                        change: Some(number),
                        hash: policy.hash.to_string().into(),
                    };
                    self.put_in_force(policy, document, reference, newest);
                }
            }
            Change::List { name, remove, add } => {
                let add = add.iter().map(|(value, expires_at)| {
                    (value.as_str(), expires_at.map(|time| time.micros()))
                });
                self.lists
                    .change(name, remove.iter().map(String::as_str), add);
            }
            Change::Suppression {
                rule,
                user_id,
                until,
            } => self.suppressions.set(rule, user_id, until.micros()),
            Change::Nothing => {}
        }
        self.next_change = number + 1;
    }

    fn put_in_force(
        &mut self,
        policy: &Arc<Policy>,
        document: &Arc<str>,
        reference: PolicyReference,
        newest: Option<i64>,
    ) {
        let before = self.checks.lookback();
        let longest = policy
            .longest_window
            .cast_signed()
            .saturating_add(LATENESS_SECONDS);
        let lookback = before
            .max(SHORTEST_LOOKBACK)
            .max(longest.saturating_mul(1_000_000));
        if let (true, Some(newest)) = (lookback > before, newest) {
            // What was forgotten before does not come back.
            let forgotten = newest - before;
            let later = |since: Option<i64>| since.map(|since| since.max(forgotten));
            self.amounts_since = later(self.amounts_since);
            for held in &mut self.held {
                held.since = later(held.since);
            }
        }
        for member in self.read_by(policy) {
            if !self.held.iter().any(|held| held.member == member) {
                self.held.push(Held {
                    member,
                    since: newest,
                });
            }
        }
        self.use_policy(policy, Some(Arc::clone(document)), reference, lookback);
    }

    /// The members that the features of a policy read of remembered transactions.
    fn read_by(&self, policy: &Policy) -> Vec<Member> {
        let features = policy.features.iter();
        let mut members: Vec<Member> = features
            .clone()
            .flat_map(|feature| feature.reads.iter().cloned())
            .collect();
        // With several currencies a history keeps no amounts that can be added.
        if self.rules.money.is_some() && features.clone().any(reads_amount) {
            members.push(Member {
                path: "amount".to_owned(),
                kind: MemberType::Money,
            });
        }
        members
    }

    fn use_policy(
        &mut self,
        policy: &Arc<Policy>,
        document: Option<Arc<str>>,
        reference: PolicyReference,
        lookback: i64,
    ) {
        if document.is_some() {
            let rules = Arc::new(builtin::rules(policy, &self.rules));
            let hours = policy.builtin.high_velocity.arrival_within_hours;
            self.checks = Checks::new(rules).with_arrival_within_hours(hours);
        }
        self.checks.set_lookback(lookback);
        let held: Vec<Member> = self.held.iter().map(|held| held.member.clone()).collect();
        self.prepared = Prepared::new(policy, &held);
        self.policy = Arc::clone(policy);
        self.document = document;
        self.reference = reference;
    }

    /// The types of the remembered members, in the order of their columns.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = MemberType> {
        self.held.iter().map(|held| held.member.kind)
    }

    /// The mode of a built-in indicator.
    fn mode(&self, indicator: Indicator) -> Mode {
        let builtin = &self.policy.builtin;
        match indicator {
            Indicator::HIGH_VELOCITY => builtin.high_velocity.mode,
            Indicator::HIGH_AMOUNT => builtin.high_amount.mode,
            Indicator::GEOGRAPHIC_ANOMALY => builtin.geographic_anomaly.mode,
            Indicator::SUSPICIOUS_PATTERN => builtin.suspicious_pattern.mode,
            Indicator::CONFLICTING_DUPLICATE => builtin.conflicting_duplicate.mode,
            _ => Mode::Live,
        }
    }

    /// The number by which histories remember a ruling.
    fn remember_ruling(&mut self, policy: &PolicyReference, decided_by: &Arc<str>) -> u32 {
        // Those of the policy in force are the last ones.
        let same =
            |each: &RememberedRuling| each.decided_by == *decided_by && each.policy == *policy;
        let at = self.rulings.iter().rposition(same).unwrap_or_else(|| {
            self.rulings.push(RememberedRuling {
                policy: policy.clone(),
                decided_by: Arc::clone(decided_by),
            });
            self.rulings.len() - 1
        });
        // 2^32 rulings do not fit in memory.
        u32::try_from(at).unwrap_or_default()
    }
}

fn reads_amount(feature: &tollgate_policy::Feature) -> bool {
    let names = feature.by.iter().chain(&feature.member);
    let condition = feature.condition.iter();
    let reads = condition.flat_map(|condition| condition.reads.iter().map(|read| &read.name));
    names.chain(reads).any(|name| name == "amount")
}
