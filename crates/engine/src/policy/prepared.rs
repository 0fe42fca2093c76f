//! A policy made ready: which members are read from a transaction, which slot each fills, and what features read of a row.

use tollgate_policy::{Aggregate, Feature, Input, Member, MemberType, Mode, Policy, Rule, Slot};
use tollgate_types::Indicator;

use super::reading::Paths;

/// Where a value of a transaction or row comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The amount that the history keeps.
    Amount,
    Timestamp,
    User,
    /// The member of this number in [`Prepared::reads`]; the first ones are those that histories remember.
    Member(usize),
}

/// A member that is read from each transaction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) path: usize,
    pub(super) kind: MemberType,
}

/// A feature made ready.
pub(super) struct PreparedFeature {
    pub(super) of: Aggregate,
    /// In microseconds.
    pub(super) window: i64,
    pub(super) by: Vec<(Source, MemberType)>,
    pub(super) member: Option<(Source, MemberType)>,
    /// What its condition reads of a row.
    pub(super) row_slots: Vec<(Slot, Source)>,
    /// The remembered members that it reads.
    pub(super) held: Vec<usize>,
}

pub(super) struct Prepared {
    pub(super) paths: Paths,
    pub(super) reads: Vec<Reading>,
    /// The slots of members.
    pub(super) slots: Vec<(Slot, Source)>,
    /// In the order of the policy.
    pub(super) features: Vec<PreparedFeature>,
    /// The features that conditions read, with their slots.
    pub(super) feature_slots: Vec<(usize, Slot)>,
    /// The string, the list and the slot of each lookup.
    pub(super) lookups: Vec<(Slot, usize, Slot)>,
    /// The longest window of a feature that is read, in microseconds.
    pub(super) longest: i64,
    /// The indicators of rules in their order. `None` where the process has no room for another name: then a duplicate's
    /// decision does not name the rule.
    pub(super) indicators: Vec<Option<Indicator>>,
}

impl Prepared {
    /// `held` are the remembered members in the order of their columns; those of the policy's features are among them.
    pub(super) fn new(policy: &Policy, held: &[Member]) -> Self {
        let mut paths = Paths::default();
        let mut reads: Vec<Reading> = held
            .iter()
            .map(|member| Reading {
                path: paths.add(&member.path),
                kind: member.kind,
            })
            .collect();
        let mut source = |path: &str, kind: MemberType| match path {
            "amount" => Source::Amount,
            "timestamp" => Source::Timestamp,
            "user_id" => Source::User,
            _ => {
                let path = paths.add(path);
                let same = |read: &Reading| read.path == path && read.kind == kind;
                let at = reads.iter().position(same).unwrap_or_else(|| {
                    reads.push(Reading { path, kind });
                    reads.len() - 1
                });
                Source::Member(at)
            }
        };
        let mut slots = Vec::new();
        let mut feature_slots = Vec::new();
        let mut lookups = Vec::new();
        let is_read = |name: &str| {
            let on = |rule: &&Rule| rule.mode != Mode::Off;
            let reads = |rule: &Rule| rule.condition.reads.iter().any(|read| read.name == name);
            policy.rules.iter().filter(on).any(reads)
        };
        for entry in policy.layout.entries() {
            match &entry.input {
                Input::Member(names) => {
                    let kind = match entry.slot {
                        Slot::Number(_) => MemberType::Number,
                        Slot::Money(_) => MemberType::Money,
                        Slot::Bool(_) => MemberType::Bool,
                        Slot::String(_) | Slot::Timestamp => MemberType::String,
                    };
                    slots.push((entry.slot, source(&names.join("."), kind)));
                }
                Input::Feature(feature) => {
                    if is_read(&entry.name) {
                        feature_slots.push((*feature, entry.slot));
                    }
                }
                Input::Lookup { string, list } => lookups.push((*string, *list, entry.slot)),
                // Unknown until there are models.
                Input::ModelRisk => {}
            }
        }
        let features: Vec<_> = policy
            .features
            .iter()
            .map(|feature| PreparedFeature::new(feature, held, &slots))
            .collect();
        let longest = feature_slots
            .iter()
            .filter_map(|(feature, _)| features.get(*feature));
        Self {
            longest: longest.map(|feature| feature.window).max().unwrap_or(0),
            paths,
            reads,
            slots,
            features,
            feature_slots,
            lookups,
            indicators: policy
                .rules
                .iter()
                .map(|rule| Indicator::intern(&rule.id).ok())
                .collect(),
        }
    }
}

impl PreparedFeature {
    fn new(feature: &Feature, held: &[Member], slots: &[(Slot, Source)]) -> Self {
        let find = |path: &str| {
            let reads = feature.reads.iter().find(|member| member.path == path)?;
            let at = held.iter().position(|member| member == reads)?;
            Some((Source::Member(at), reads.kind))
        };
        // Where the history keeps amounts of several currencies, the amount is a remembered member.
        let of_row = |path: &str| {
            let amount = (Source::Amount, MemberType::Money);
            let at = held
                .iter()
                .position(|member| member.path == path && member.kind == MemberType::Money);
            match (path, at) {
                ("amount", Some(at)) => (Source::Member(at), MemberType::Money),
                ("user_id", _) => (Source::User, MemberType::String),
                _ => find(path).unwrap_or(amount),
            }
        };
        let condition = feature.condition.iter();
        let row_slots = condition
            .flat_map(|condition| &condition.reads)
            .map(|read| {
                let slot = read.slot;
                let same = slots.iter().find(|(each, _)| *each == slot);
                match same {
                    Some((_, Source::Amount)) => (slot, of_row("amount").0),
                    Some((_, source)) => (slot, *source),
                    None => (slot, Source::Timestamp),
                }
            });
        let row_slots: Vec<_> = row_slots.collect();
        let by: Vec<_> = feature.by.iter().map(|path| of_row(path)).collect();
        let member = feature.member.as_deref().map(of_row);
        let sources = by.iter().chain(&member).map(|(source, _)| *source);
        let mut held: Vec<usize> = sources
            .chain(row_slots.iter().map(|(_, source)| *source))
            .filter_map(|source| match source {
                Source::Member(at) => Some(at),
                _ => None,
            })
            .collect();
        held.sort_unstable();
        held.dedup();
        Self {
            of: feature.of,
            window: feature.window.cast_signed().saturating_mul(1_000_000),
            by,
            member,
            row_slots,
            held,
        }
    }
}
