//! What changes have brought, as a snapshot holds it: as JSON before the histories of an engine.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;
use tollgate_policy::{Member, MemberType, check};

use super::{Held, PartitionTimes, PolicyReference, PolicyState, RememberedRuling};
use crate::rules::Rules;

/// Everything of an engine beside its histories.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedState {
    first: Option<i64>,
    newest: Option<i64>,
    policies: Option<SavedPolicies>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedPolicies {
    next_change: u64,
    change: Option<u64>,
    document: Option<Arc<str>>,
    lookback_micros: i64,
    amounts_since: Option<i64>,
    held: Vec<SavedHeld>,
    lists: Vec<SavedList>,
    /// Rule, user, until.
    suppressions: Vec<(String, String, i64)>,
    rulings: Vec<SavedRuling>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedList {
    name: String,
    /// Values, and the instants from which they no longer count.
    entries: Vec<(String, Option<i64>)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedHeld {
    path: String,
    kind: String,
    since: Option<i64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedRuling {
    change: Option<u64>,
    hash: Arc<str>,
    decided_by: Arc<str>,
}

/// How numbers of one part of a snapshot are those of the engine that reads it.
#[derive(Debug, Default)]
pub(crate) struct PartState {
    pub(crate) rulings: Vec<u32>,
    /// Type and own number of each column.
    pub(crate) columns: Vec<(MemberType, usize)>,
}

impl SavedState {
    pub(crate) fn of(times: PartitionTimes, policies: Option<&PolicyState>) -> Self {
        Self {
            first: times.first,
            newest: times.newest,
            policies: policies.map(SavedPolicies::of),
        }
    }

    pub(crate) const fn times(&self) -> PartitionTimes {
        PartitionTimes {
            first: self.first,
            newest: self.newest,
        }
    }

    /// Takes the state over where there is none, and finds its numbers in the one that is there. `None` where the two are
    /// not of the same changes, or a document cannot be read.
    pub(crate) fn restore(
        &self,
        policies: &mut Option<Box<PolicyState>>,
        rules: &Arc<Rules>,
        hasher: SipHasher13,
    ) -> Option<PartState> {
        let Some(saved) = &self.policies else {
            return Some(PartState::default());
        };
        let state = match policies {
            Some(state) => state,
            None => policies.insert(Box::new(saved.state(rules, hasher, self.times())?)),
        };
        if state.next_change != saved.next_change {
            return None;
        }
        let held = saved.held.iter().map(|held| {
            let member = held.member()?;
            let own = state.held.iter().position(|each| each.member == member)?;
            Some((member.kind, own))
        });
        let columns = held.collect::<Option<_>>()?;
        let rulings = saved.rulings.iter().map(|ruling| {
            let policy = PolicyReference {
                change: ruling.change,
                hash: Arc::clone(&ruling.hash),
            };
            state.remember_ruling(&policy, &ruling.decided_by)
        });
        Some(PartState {
            rulings: rulings.collect(),
            columns,
        })
    }
}

impl SavedPolicies {
    fn of(state: &PolicyState) -> Self {
        let lists = state.lists.iter().map(|(name, entries)| {
            let entries = entries.iter();
            let entries = entries.map(|(value, expires_at)| (value.to_string(), *expires_at));
            SavedList {
                name: name.clone(),
                entries: entries.collect(),
            }
        });
        let suppressions = state.suppressions.iter();
        Self {
            next_change: state.next_change,
            change: state.reference.change,
            document: state.document.clone(),
            lookback_micros: state.checks.lookback(),
            amounts_since: state.amounts_since,
            held: state.held.iter().map(SavedHeld::of).collect(),
            lists: lists.collect(),
            suppressions: suppressions
                .map(|(rule, user, until)| (rule.to_owned(), user.to_owned(), until))
                .collect(),
            rulings: state
                .rulings
                .iter()
                .map(|ruling| SavedRuling {
                    change: ruling.policy.change,
                    hash: Arc::clone(&ruling.policy.hash),
                    decided_by: Arc::clone(&ruling.decided_by),
                })
                .collect(),
        }
    }

    fn state(
        &self,
        rules: &Arc<Rules>,
        hasher: SipHasher13,
        times: PartitionTimes,
    ) -> Option<PolicyState> {
        let mut state = PolicyState::new(Arc::clone(rules), hasher, times)?;
        state.next_change = self.next_change;
        state.amounts_since = self.amounts_since;
        for held in &self.held {
            state.held.push(Held {
                member: held.member()?,
                since: held.since,
            });
        }
        for list in &self.lists {
            let add = list.entries.iter();
            let add = add.map(|(value, expires_at)| (value.as_str(), *expires_at));
            state.lists.change(&list.name, std::iter::empty(), add);
        }
        for (rule, user, until) in &self.suppressions {
            state.suppressions.set(rule, user, *until);
        }
        let (policy, reference) = match &self.document {
            None => (Arc::clone(&state.policy), state.reference.clone()),
            Some(document) => {
                let policy = check(document).policy?;
                let reference = PolicyReference {
                    change: self.change,
                    hash: policy.hash.to_string().into(),
                };
                (Arc::new(policy), reference)
            }
        };
        if let Some(first) = self.rulings.first() {
            // The built-in policy of the rules that were configured when the histories were written.
            state.rulings = vec![RememberedRuling {
                policy: PolicyReference {
                    change: first.change,
                    hash: Arc::clone(&first.hash),
                },
                decided_by: Arc::clone(&first.decided_by),
            }];
        }
        let lookback = self.lookback_micros.max(state.checks.lookback());
        state.use_policy(&policy, self.document.clone(), reference, lookback);
        Some(state)
    }
}

impl SavedHeld {
    fn of(held: &Held) -> Self {
        Self {
            path: held.member.path.clone(),
            kind: kind_name(held.member.kind).to_owned(),
            since: held.since,
        }
    }

    fn member(&self) -> Option<Member> {
        let kinds = [
            MemberType::String,
            MemberType::Number,
            MemberType::Bool,
            MemberType::Money,
        ];
        let mut kinds = kinds.into_iter();
        Some(Member {
            path: self.path.clone(),
            kind: kinds.find(|kind| kind_name(*kind) == self.kind)?,
        })
    }
}

const fn kind_name(kind: MemberType) -> &'static str {
    match kind {
        MemberType::String => "string",
        MemberType::Number => "number",
        MemberType::Bool => "bool",
        MemberType::Money => "money",
    }
}
