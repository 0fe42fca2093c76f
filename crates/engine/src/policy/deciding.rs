//! A verdict by the policy in force.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tollgate_policy::{MemberType, Mode, Money, Rule, Slot, Slots};
use tollgate_types::{Contributions, Indicators, Tenant, Transaction};

use super::features::{Around, Definition, FeatureValue};
use super::outcome::{Facts, outcome};
use super::prepared::{Prepared, Source};
use super::reading::{self, MemberValue};
use super::ruling::{Fired, Ruling};
use super::{Buffers, PartitionTimes, PolicyState};
use crate::Verdict;
use crate::checks::Scored;
use crate::origin::{Origin, Sender};
use crate::state::{Entry, History, MemberColumns, Texts, cell};
use crate::worth::Worth;

/// A string that no remembered row has.
const NEW_TEXT: u64 = u32::MAX as u64;

/// A transaction as it came.
pub(crate) struct Arrived<'t> {
    pub(crate) tenant: Tenant<'t>,
    pub(crate) transaction: &'t Transaction<'t>,
    pub(crate) origin: &'t Origin,
    /// Keyed hash of its id.
    pub(crate) id: u64,
    pub(crate) worth: Worth,
}

/// What fired, and where it is shown.
#[derive(Default)]
struct All {
    contributions: Vec<Fired>,
    shadow: Vec<Fired>,
    suppressed: Vec<Fired>,
    indicators: Indicators,
    built_in: Contributions,
    score: f64,
}

impl PolicyState {
    /// Decides on a transaction by its user's history, and remembers it there.
    pub(crate) fn decide(
        &mut self,
        history: &mut History,
        arrived: &Arrived<'_>,
        times: &mut PartitionTimes,
    ) -> Verdict {
        let sender = Sender::bits(arrived.origin.sender);
        let conflict = match history.find(arrived.id) {
            Some(first) if first.is_of(arrived.worth.remembered) => {
                let mut verdict = Verdict::duplicate_of(first, sender);
                verdict.ruling = Some(Box::new(self.first_ruling(history, arrived.id)));
                return verdict;
            }
            other => other.is_some(),
        };
        let transaction = arrived.transaction;
        let time = transaction.timestamp.micros();
        let first = *times.first.get_or_insert(time);
        self.begin(first);
        let rows = history.len();
        let mut columns = history
            .members
            .take()
            .unwrap_or_else(|| Box::new(MemberColumns::of_rows(rows)));
        columns.complete(self.kinds());

        let bounds = self.checks.bounds();
        let newest = history.newest().map_or(time, |newest| newest.max(time));
        let late = time < newest - bounds.lookback;
        let scored = Scored {
            transaction,
            location: self.checks.place(transaction),
            arrival: self.checks.arrival(transaction, arrived.origin),
            conflict,
            worth: arrived.worth,
        };
        let approximate = history.is_shortened(time, bounds);
        let values = self.values(transaction);
        let mut buffers = std::mem::take(&mut self.buffers);
        let all = self.judge(
            history,
            &columns,
            arrived,
            &scored,
            &values,
            newest,
            &mut buffers,
        );
        let (status, decided_by) = outcome(&Facts {
            thresholds: &self.policy.thresholds,
            score: all.score,
            contributions: &all.contributions,
            late: late && !arrived.origin.backfill,
            approximate,
            unknown_currency: self.checks.valuation().least_status(&arrived.worth),
        });
        if !conflict {
            if let Some(arrival) = scored.arrival {
                history.arrivals.add(arrival, self.checks.arrival_window());
            }
            if !late {
                let entry = Entry {
                    time,
                    id: arrived.id,
                    amount: arrived.worth.remembered,
                    // A later policy may take 0/0 for a place.
                    location: transaction.location,
                    sender,
                    indicators: &all.indicators,
                    status,
                    score: all.score,
                };
                let is_there = history.remember(&entry, bounds);
                let after = history.len() - usize::from(is_there);
                columns.evict(rows - after, &mut self.texts);
                if is_there {
                    let reference = self.reference.clone();
                    let ruling = self.remember_ruling(&reference, &decided_by);
                    self.hold_texts(&values, &mut buffers.cells);
                    columns.insert(history.rank(time) - 1, ruling, &buffers.cells);
                }
                times.newest = times.newest.max(Some(time));
            }
        }
        self.buffers = buffers;
        history.members = Some(columns);
        Verdict {
            score: all.score,
            indicators: all.indicators,
            status,
            contributions: all.built_in,
            late,
            duplicate: false,
            foreign: false,
            conflict,
            approximate,
            ruling: Some(Box::new(Ruling {
                policy: self.reference.clone(),
                decided_by,
                contributions: all.contributions,
                shadow: all.shadow,
                suppressed: all.suppressed,
            })),
        }
    }

    /// What decided on the first transaction of this id.
    fn first_ruling(&self, history: &History, id: u64) -> Ruling {
        let columns = history.members.as_ref();
        let ruling = columns.and_then(|columns| Some(columns.ruling(history.position(id)?)));
        let at = ruling.map_or(0, |ruling| ruling as usize);
        // The first is that of rows which were remembered before there was a policy.
        let first = self.rulings.get(at);
        Ruling {
            policy: first.map_or_else(|| self.reference.clone(), |first| first.policy.clone()),
            decided_by: first.map_or_else(|| "score".into(), |first| Arc::clone(&first.decided_by)),
            contributions: Vec::new(),
            shadow: Vec::new(),
            suppressed: Vec::new(),
        }
    }

    /// The members that the policy and the histories read, in the order of [`Prepared::reads`].
    fn values<'t>(&self, transaction: &'t Transaction<'_>) -> Vec<MemberValue<'t>> {
        let mut found = Vec::new();
        self.prepared.paths.find(&transaction.json, &mut found);
        let reads = self.prepared.reads.iter();
        reads
            .map(|read| {
                let text = found.get(read.path).copied().unwrap_or_default();
                reading::value(text, read.kind)
            })
            .collect()
    }

    /// Puts the codes of texts into the cells, for one more row.
    fn hold_texts(&mut self, values: &[MemberValue<'_>], cells: &mut [u64]) {
        for (value, cell) in values.iter().zip(cells) {
            if let MemberValue::Text(text) = value {
                *cell = self.texts.hold(text).into();
            }
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one call; what each is stands at it"
    )]
    fn judge(
        &self,
        history: &History,
        columns: &MemberColumns,
        arrived: &Arrived<'_>,
        scored: &Scored<'_>,
        values: &[MemberValue<'_>],
        newest: i64,
        buffers: &mut Buffers,
    ) -> All {
        let transaction = arrived.transaction;
        let time = transaction.timestamp.micros();
        let prepared = &self.prepared;
        let mut slots = std::mem::take(&mut buffers.slots).reuse(&self.policy.layout);
        for (slot, source) in &prepared.slots {
            fill(&mut slots, *slot, *source, transaction, values);
        }
        cells(
            &mut buffers.cells,
            prepared,
            self.held.len(),
            values,
            &self.texts,
        );
        if prepared.longest > 0 {
            buffers.rows.list(history, time, prepared.longest);
        }
        let around = Around {
            rows: &buffers.rows,
            columns,
            texts: &self.texts,
            user: &transaction.user_id,
            time,
            amount: transaction.amount.ten_thousandths(),
            cells: &buffers.cells,
        };
        let mut row_slots = std::mem::take(&mut buffers.row_slots).reuse(&self.policy.layout);
        let covered_from = newest - self.checks.lookback();
        let dropped = history.dropped_until();
        for (at, slot) in &prepared.feature_slots {
            let (Some(feature), Some(declared)) =
                (prepared.features.get(*at), self.policy.features.get(*at))
            else {
                continue;
            };
            let start = time - feature.window;
            let held = feature
                .held
                .iter()
                .filter_map(|held| self.held.get(*held)?.since);
            let since = held.fold(self.amounts_since.unwrap_or(time), i64::max);
            if start < since.max(covered_from) || dropped.is_some_and(|until| start < until) {
                continue;
            }
            let condition = declared.condition.as_ref();
            let own = condition.is_none_or(|condition| condition.evaluate(&slots) == Some(true));
            let definition = Definition {
                prepared: feature,
                condition,
            };
            match around.feature(definition, own, &mut row_slots, &mut buffers.scratch) {
                FeatureValue::Unknown => {}
                FeatureValue::Number(number) => slots.set_number(*slot, Some(number)),
                FeatureValue::Money(money) => slots.set_money(*slot, Some(money)),
            }
        }
        for (string, list, slot) in &prepared.lookups {
            if let (tollgate_policy::Value::String(text), Some(list)) =
                (slots.value(*string), self.policy.lists.get(*list))
            {
                slots.set_bool(*slot, Some(self.lists.contains(list, text, time)));
            }
        }
        let all = self.fire(history, arrived, scored, &slots);
        buffers.slots = slots.reuse(&self.policy.layout);
        buffers.row_slots = row_slots.reuse(&self.policy.layout);
        all
    }

    /// Everything that fires: built-in indicators, then rules.
    fn fire(
        &self,
        history: &History,
        arrived: &Arrived<'_>,
        scored: &Scored<'_>,
        slots: &Slots<'_>,
    ) -> All {
        let user = &*arrived.transaction.user_id;
        let time = arrived.transaction.timestamp.micros();
        // A suppression names a user of the default tenant.
        let suppressions = match arrived.tenant.given() {
            None => self.suppressions.of(user),
            Some(_) => None,
        };
        let is_suppressed = |name: &str| {
            suppressions
                .and_then(|rules| rules.get(name))
                .is_some_and(|until| time < *until)
        };
        let mut all = All::default();
        for contribution in self.checks.contributions(history, scored).iter() {
            let mode = self.mode(contribution.indicator);
            if mode == Mode::Off {
                continue;
            }
            let fired = Fired::built_in(contribution);
            let live = mode == Mode::Live;
            if all.add(fired, live, is_suppressed) {
                all.indicators.insert(contribution.indicator);
                all.built_in.insert(*contribution);
            }
        }
        for (rule, indicator) in self.policy.rules.iter().zip(&self.prepared.indicators) {
            if rule.mode == Mode::Off || rule.condition.evaluate(slots) != Some(true) {
                continue;
            }
            let live = rule.mode == Mode::Live && in_rollout(rule, user);
            let is_live = all.add(Fired::rule(rule, slots), live, is_suppressed);
            if let (true, Some(indicator)) = (is_live, indicator) {
                all.indicators.insert(*indicator);
            }
        }
        all
    }
}

impl All {
    /// Shows what fired where it belongs; returns whether it counts.
    fn add(&mut self, mut fired: Fired, live: bool, is_suppressed: impl Fn(&str) -> bool) -> bool {
        if is_suppressed(&fired.indicator) {
            fired.effect = None;
            self.suppressed.push(fired);
            return false;
        }
        if !live {
            self.shadow.push(fired);
            return false;
        }
        self.score += fired.points();
        self.contributions.push(fired);
        true
    }
}

/// Whether a rule is live for a user.
fn in_rollout(rule: &Rule, user: &str) -> bool {
    const ALL: u64 = 10_000;
    if u64::from(rule.rollout) >= ALL {
        return true;
    }
    let digest = Sha256::new()
        .chain_update(rule.id.as_bytes())
        .chain_update([0])
        .chain_update(user.as_bytes())
        .finalize();
    let first = digest.first_chunk().map(|first| u64::from_be_bytes(*first));
    first.is_some_and(|first| first % ALL < u64::from(rule.rollout))
}

/// Fills a slot with the value of the transaction itself.
fn fill<'t>(
    slots: &mut Slots<'t>,
    slot: Slot,
    source: Source,
    transaction: &'t Transaction<'_>,
    values: &'t [MemberValue<'_>],
) {
    match source {
        Source::Amount => slots.set_money(slot, Some(Money::from(transaction.amount))),
        Source::Timestamp => slots.set_timestamp(transaction.timestamp),
        Source::User => slots.set_string(slot, Some(&transaction.user_id)),
        Source::Member(at) => match values.get(at) {
            Some(MemberValue::Text(text)) => slots.set_string(slot, Some(text)),
            Some(MemberValue::Number(number)) => slots.set_number(slot, Some(*number)),
            Some(MemberValue::Money(money)) => slots.set_money(slot, Some(*money)),
            Some(MemberValue::Bool(value)) => slots.set_bool(slot, Some(*value)),
            Some(MemberValue::Unknown) | None => {}
        },
    }
}

/// The cells of the members that histories remember.
fn cells(
    cells: &mut Vec<u64>,
    prepared: &Prepared,
    held: usize,
    values: &[MemberValue<'_>],
    texts: &Texts,
) {
    cells.clear();
    let reads = prepared.reads.iter().zip(values).take(held);
    cells.extend(reads.map(|(read, value)| {
        match value {
            MemberValue::Unknown => cell::unknown(read.kind),
            MemberValue::Text(text) => texts.find(text).map_or(NEW_TEXT, u64::from),
            MemberValue::Number(number) => cell::of_number(*number),
            MemberValue::Bool(value) => cell::of_bool(*value),
            MemberValue::Money(money) => i64::try_from(money.ten_thousandths())
                .map_or(cell::unknown(MemberType::Money), cell::of_money),
        }
    }));
}
