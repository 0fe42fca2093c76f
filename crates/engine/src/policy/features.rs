//! Features: what is computed of the transactions of a user in a window around the one that is decided on.
//!
//! The rows of the longest window are listed once for a transaction; each feature searches its own window in the list and goes
//! over it. Numbers are added in the order of (timestamp, log), on which the last bit of a sum depends.

use tollgate_policy::{Aggregate, Condition, MemberType, Money, Slot, Slots};
use tollgate_types::Timestamp;

use super::prepared::{PreparedFeature, Source};
use crate::state::{History, MemberColumns, Texts, cell};

/// Seconds have so many microseconds.
const SECOND: f64 = 1e6;

/// The rows of the longest window.
#[derive(Default)]
pub(super) struct Rows {
    times: Vec<i64>,
    amounts: Vec<i64>,
    /// The number of rows of the history before them.
    before: usize,
}

impl Rows {
    /// Lists the rows less than `window` microseconds away from `time`.
    pub(super) fn list(&mut self, history: &History, time: i64, window: i64) {
        self.times.clear();
        self.amounts.clear();
        self.before = history.rank(time - window);
        history.each_between(time - window, time + window, |time, record| {
            self.times.push(time);
            self.amounts.push(record.amount().cast_signed());
        });
    }
}

/// The transaction that is decided on, and the user's rows around it.
pub(super) struct Around<'a> {
    pub(super) rows: &'a Rows,
    pub(super) columns: &'a MemberColumns,
    pub(super) texts: &'a Texts,
    pub(super) user: &'a str,
    /// Microseconds since 1970.
    pub(super) time: i64,
    /// In ten-thousandths.
    pub(super) amount: i64,
    /// The cells of its members in the order of the columns.
    pub(super) cells: &'a [u64],
}

/// The value of a feature.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum FeatureValue {
    Unknown,
    Number(f64),
    Money(Money),
}

/// Gives rows one after another to what takes them; see [`Around::each_row`].
type Visit<'v> = dyn FnMut(&mut dyn FnMut(Option<usize>)) + 'v;

/// A feature of a policy, and its condition compiled.
#[derive(Clone, Copy)]
pub(super) struct Definition<'p> {
    pub(super) prepared: &'p PreparedFeature,
    pub(super) condition: Option<&'p Condition>,
}

impl<'a> Around<'a> {
    /// The value of a feature whose window is covered. `own` says whether its condition holds for the transaction itself;
    /// `slots` are used for the condition of rows, and `scratch` is memory.
    pub(super) fn feature(
        &self,
        definition: Definition<'_>,
        own: bool,
        slots: &mut Slots<'a>,
        scratch: &mut Vec<u64>,
    ) -> FeatureValue {
        let feature = definition.prepared;
        let mut by = feature.by.iter();
        if by.any(|(source, kind)| self.own_cell(*source, *kind) == cell::unknown(*kind)) {
            return FeatureValue::Unknown;
        }
        let mut each = |take: &mut dyn FnMut(Option<usize>)| {
            self.each_row(definition, own, slots, take);
        };
        match feature.of {
            Aggregate::Count => {
                let mut count = 0_u32;
                each(&mut |_| count += 1);
                FeatureValue::Number(count.into())
            }
            Aggregate::SecondsSinceLast => {
                let mut nearest = None;
                each(&mut |row| {
                    if let Some(row) = row {
                        let distance = self.rows.times[row].abs_diff(self.time);
                        nearest =
                            Some(nearest.map_or(distance, |nearest: u64| nearest.min(distance)));
                    }
                });
                nearest.map_or(FeatureValue::Unknown, seconds)
            }
            Aggregate::SecondsSinceFirst => {
                let mut first = None;
                each(&mut |row| {
                    let time = row.map_or(self.time, |row| self.rows.times[row]);
                    first.get_or_insert(time);
                });
                match first {
                    Some(first) if first <= self.time => seconds(self.time.abs_diff(first)),
                    _ => FeatureValue::Unknown,
                }
            }
            Aggregate::Distinct => {
                scratch.clear();
                let mut last = None;
                self.values(definition, &mut each, |text| {
                    // Most are the same as the one before.
                    if last.replace(text) != Some(text) {
                        scratch.push(text);
                    }
                });
                scratch.sort_unstable();
                scratch.dedup();
                FeatureValue::Number(u32::try_from(scratch.len()).unwrap_or(u32::MAX).into())
            }
            Aggregate::Sum | Aggregate::Mean | Aggregate::Min | Aggregate::Max => {
                match feature.member {
                    Some((_, MemberType::Number)) => self.of_numbers(definition, &mut each),
                    _ => self.of_money(definition, &mut each),
                }
            }
        }
    }

    /// Gives every known value of the feature's member.
    fn values(&self, definition: Definition<'_>, each: &mut Visit<'_>, mut take: impl FnMut(u64)) {
        let Some((source, kind)) = definition.prepared.member else {
            return;
        };
        let unknown = cell::unknown(kind);
        each(&mut |row| {
            let value = match row {
                Some(row) => self.row_cell(source, kind, row),
                None => self.own_cell(source, kind),
            };
            if value != unknown {
                take(value);
            }
        });
    }

    fn of_numbers(&self, definition: Definition<'_>, each: &mut Visit<'_>) -> FeatureValue {
        let (mut sum, mut count) = (0.0, 0_u32);
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        self.values(definition, each, |value| {
            let value = f64::from_bits(value);
            sum += value;
            count += 1;
            least = least.min(value);
            most = most.max(value);
        });
        let number = match definition.prepared.of {
            Aggregate::Sum => sum,
            Aggregate::Min => least,
            Aggregate::Max => most,
            // Of none it is NaN, which is unknown.
            _ => sum / f64::from(count),
        };
        if number.is_finite() {
            FeatureValue::Number(number)
        } else {
            FeatureValue::Unknown
        }
    }

    fn of_money(&self, definition: Definition<'_>, each: &mut Visit<'_>) -> FeatureValue {
        let (mut sum, mut count) = (0_i128, 0_u32);
        let (mut least, mut most) = (i64::MAX, i64::MIN);
        self.values(definition, each, |value| {
            let value = cell::money(value).unwrap_or_default();
            sum += i128::from(value);
            count += 1;
            least = least.min(value);
            most = most.max(value);
        });
        let extreme = |value: i64| (count > 0).then(|| Money::from_ten_thousandths(value.into()));
        let money = match definition.prepared.of {
            Aggregate::Sum => Some(Money::from_ten_thousandths(sum)),
            Aggregate::Min => extreme(least),
            Aggregate::Max => extreme(most),
            _ => (count > 0).then(|| {
                let count = Money::from_ten_thousandths(i128::from(count) * 10_000)?;
                Money::from_ten_thousandths(sum)?.divided_by(count)
            }),
        };
        money
            .flatten()
            .map_or(FeatureValue::Unknown, FeatureValue::Money)
    }

    /// Gives every row of the feature's window that has its key and for which its condition holds, in order. `None` is the
    /// transaction itself, which is the last of its time.
    fn each_row(
        &self,
        definition: Definition<'_>,
        own: bool,
        slots: &mut Slots<'a>,
        take: &mut dyn FnMut(Option<usize>),
    ) {
        let feature = definition.prepared;
        let times = &self.rows.times;
        let (after, before) = (self.time - feature.window, self.time + feature.window);
        let from = times.partition_point(|time| *time <= after);
        let middle = times.partition_point(|time| *time <= self.time);
        let to = times.partition_point(|time| *time < before);
        let mut holds = |row: usize| {
            let same_key = feature.by.iter().all(|(source, kind)| {
                self.row_cell(*source, *kind, row) == self.own_cell(*source, *kind)
            });
            same_key
                && definition.condition.is_none_or(|condition| {
                    for (slot, source) in &feature.row_slots {
                        self.fill(slots, *slot, *source, row);
                    }
                    condition.evaluate(slots) == Some(true)
                })
        };
        for row in from..middle {
            if holds(row) {
                take(Some(row));
            }
        }
        if own {
            take(None);
        }
        for row in middle..to {
            if holds(row) {
                take(Some(row));
            }
        }
    }

    fn own_cell(&self, source: Source, kind: MemberType) -> u64 {
        match source {
            Source::Amount => cell::of_money(self.amount),
            Source::Member(member) => {
                let cell = self.cells.get(member).copied();
                cell.unwrap_or(cell::unknown(kind))
            }
            // No key and no aggregate is of these.
            Source::Timestamp | Source::User => cell::unknown(kind),
        }
    }

    fn row_cell(&self, source: Source, kind: MemberType, row: usize) -> u64 {
        match source {
            Source::Amount => cell::of_money(self.rows.amounts[row]),
            Source::Member(member) => self.columns.get(member, kind, self.rows.before + row),
            Source::Timestamp | Source::User => cell::unknown(kind),
        }
    }

    /// Fills a slot with the value of a row.
    fn fill(&self, slots: &mut Slots<'a>, slot: Slot, source: Source, row: usize) {
        match slot {
            Slot::Timestamp => {
                if let Some(time) = Timestamp::from_micros(self.rows.times[row]) {
                    slots.set_timestamp(time);
                }
            }
            Slot::String(_) if source == Source::User => slots.set_string(slot, Some(self.user)),
            Slot::String(_) => {
                let code = self.row_cell(source, MemberType::String, row);
                slots.set_string(slot, self.texts.get(cell::text(code)));
            }
            Slot::Number(_) => {
                let value = self.row_cell(source, MemberType::Number, row);
                slots.set_number(slot, cell::number(value));
            }
            Slot::Money(_) => {
                let value = cell::money(self.row_cell(source, MemberType::Money, row));
                let money = value.and_then(|value| Money::from_ten_thousandths(value.into()));
                slots.set_money(slot, money);
            }
            Slot::Bool(_) => {
                let value = self.row_cell(source, MemberType::Bool, row);
                slots.set_bool(slot, cell::bool(value));
            }
        }
    }
}

fn seconds(micros: u64) -> FeatureValue {
    #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
    FeatureValue::Number(micros as f64 / SECOND)
}
