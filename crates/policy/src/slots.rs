//! The values that conditions read: one slot for each member, feature and lookup that a policy's conditions name.
//!
//! A [`Layout`] says which slot is whose; it belongs to a policy and is shared. [`Slots`] hold the values of one transaction,
//! and are filled again for the next without an allocation.

use std::collections::BTreeMap;

use tollgate_types::Timestamp;

use crate::language::Type;
use crate::money::Money;

/// Money that is unknown.
pub(crate) const UNKNOWN: i128 = i128::MIN;

/// A place for a value of one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    /// [`Slots::set_number`].
    Number(u32),
    /// [`Slots::set_money`].
    Money(u32),
    /// [`Slots::set_string`].
    String(u32),
    /// [`Slots::set_bool`].
    Bool(u32),
    /// The transaction's own timestamp, [`Slots::set_timestamp`].
    Timestamp,
}

/// What a slot has to be filled with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The member of the transaction at this path of names. Unknown if it is absent, null or of another type.
    Member(Box<[String]>),
    /// The feature of this index in [`crate::Policy::features`].
    Feature(usize),
    /// Whether the string in a slot is in the list of this index in [`crate::Policy::lists`]. Unknown if the string is.
    Lookup {
        /// The string that is looked up.
        string: Slot,
        /// The list.
        list: usize,
    },
    /// The probability of the model, `model.risk`.
    ModelRisk,
}

/// An input, its name in a condition and its slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As a decision's `values` name it: `card.bin`, `merchant_id in lists.trusted`.
    pub name: String,
    /// What the slot has to be filled with.
    pub input: Input,
    /// The slot.
    pub slot: Slot,
}

/// Which slot is whose. Lookups come after the strings that they look up.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    entries: Vec<Entry>,
    by_name: BTreeMap<String, usize>,
    numbers: u32,
    money: u32,
    strings: u32,
    bools: u32,
}

impl Layout {
    /// The inputs, in the order in which they can be filled.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The input of a name.
    #[must_use]
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.by_name.get(name).and_then(|at| self.entries.get(*at))
    }

    /// The slot of a name, a new one where it has none yet.
    pub(crate) fn slot(&mut self, name: &str, found: Type, input: impl FnOnce() -> Input) -> Slot {
        if let Some(entry) = self.entry(name) {
            return entry.slot;
        }
        let next = |count: &mut u32| {
            *count += 1;
            *count - 1
        };
        let slot = match found {
            Type::Number => Slot::Number(next(&mut self.numbers)),
            Type::Money => Slot::Money(next(&mut self.money)),
            Type::String => Slot::String(next(&mut self.strings)),
            Type::Bool => Slot::Bool(next(&mut self.bools)),
            Type::Timestamp => Slot::Timestamp,
        };
        self.by_name.insert(name.to_owned(), self.entries.len());
        self.entries.push(Entry {
            name: name.to_owned(),
            input: input(),
            slot,
        });
        slot
    }
}

/// The values of one transaction, by slot.
#[derive(Debug, Clone, Default)]
pub struct Slots<'t> {
    timestamp: Option<i64>,
    /// NaN is unknown.
    numbers: Vec<f64>,
    money: Vec<i128>,
    strings: Vec<Option<&'t str>>,
    bools: Vec<Option<bool>>,
}

impl<'t> Slots<'t> {
    /// Slots of a layout, all unknown.
    #[must_use]
    pub fn new(layout: &Layout) -> Self {
        let mut slots = Self::default();
        slots.clear(layout);
        slots
    }

    /// Makes every value unknown, and the slots those of a layout.
    fn clear(&mut self, layout: &Layout) {
        fn fill<T: Clone>(values: &mut Vec<T>, count: u32, value: T) {
            values.clear();
            values.resize(usize::try_from(count).unwrap_or(0), value);
        }
        self.timestamp = None;
        fill(&mut self.numbers, layout.numbers, f64::NAN);
        fill(&mut self.money, layout.money, UNKNOWN);
        fill(&mut self.strings, layout.strings, None);
        fill(&mut self.bools, layout.bools, None);
    }

    /// The same memory for another transaction: all values are unknown, and strings may have another lifetime.
    #[must_use]
    pub fn reuse<'n>(self, layout: &Layout) -> Slots<'n> {
        let mut strings = self.strings;
        strings.clear();
        let mut slots = Slots {
            timestamp: None,
            numbers: self.numbers,
            money: self.money,
            // Collecting an empty vector into one of the same layout keeps its memory.
            strings: strings.into_iter().map(|_| None).collect(),
            bools: self.bools,
        };
        slots.clear(layout);
        slots
    }

    /// Sets the transaction's own timestamp.
    pub fn set_timestamp(&mut self, timestamp: Timestamp) {
        self.timestamp = Some(timestamp.micros());
    }

    /// Sets a number; one that is not finite is unknown. A slot of another type is left as it is.
    pub fn set_number(&mut self, slot: Slot, value: Option<f64>) {
        if let Slot::Number(at) = slot {
            let value = value.filter(|value| value.is_finite()).unwrap_or(f64::NAN);
            set(&mut self.numbers, at, value);
        }
    }

    /// Sets money. A slot of another type is left as it is.
    pub fn set_money(&mut self, slot: Slot, value: Option<Money>) {
        if let Slot::Money(at) = slot {
            let value = value.map_or(UNKNOWN, Money::ten_thousandths);
            set(&mut self.money, at, value);
        }
    }

    /// Sets a string. A slot of another type is left as it is.
    pub fn set_string(&mut self, slot: Slot, value: Option<&'t str>) {
        if let Slot::String(at) = slot {
            set(&mut self.strings, at, value);
        }
    }

    /// Sets a bool. A slot of another type is left as it is.
    pub fn set_bool(&mut self, slot: Slot, value: Option<bool>) {
        if let Slot::Bool(at) = slot {
            set(&mut self.bools, at, value);
        }
    }

    /// The value in a slot.
    #[must_use]
    pub fn value(&self, slot: Slot) -> Value<'t> {
        let value = match slot {
            Slot::Number(at) => Some(self.number(at))
                .filter(|value| !value.is_nan())
                .map(Value::Number),
            Slot::Money(at) => Money::from_ten_thousandths(self.money(at)).map(Value::Money),
            Slot::String(at) => self.string(at).map(Value::String),
            Slot::Bool(at) => self.bool(at).map(Value::Bool),
            Slot::Timestamp => self
                .timestamp
                .and_then(Timestamp::from_micros)
                .map(Value::Timestamp),
        };
        value.unwrap_or(Value::Unknown)
    }

    pub(crate) fn timestamp(&self) -> Option<i64> {
        self.timestamp
    }

    pub(crate) fn number(&self, at: u32) -> f64 {
        get(&self.numbers, at).unwrap_or(f64::NAN)
    }

    pub(crate) fn money(&self, at: u32) -> i128 {
        get(&self.money, at).unwrap_or(UNKNOWN)
    }

    pub(crate) fn string(&self, at: u32) -> Option<&'t str> {
        get(&self.strings, at).flatten()
    }

    pub(crate) fn bool(&self, at: u32) -> Option<bool> {
        get(&self.bools, at).flatten()
    }

    // Whether a value is known. Of a slot that does not exist nobody knows: with `Slots::default()` only that has a result
    // which is the same for every transaction.

    pub(crate) fn has_number(&self, at: u32) -> Option<bool> {
        get(&self.numbers, at).map(|value| !value.is_nan())
    }

    pub(crate) fn has_money(&self, at: u32) -> Option<bool> {
        get(&self.money, at).map(|value| value != UNKNOWN)
    }

    pub(crate) fn has_string(&self, at: u32) -> Option<bool> {
        get(&self.strings, at).map(|value| value.is_some())
    }

    pub(crate) fn has_bool(&self, at: u32) -> Option<bool> {
        get(&self.bools, at).map(|value| value.is_some())
    }
}

fn get<T: Copy>(values: &[T], at: u32) -> Option<T> {
    values.get(usize::try_from(at).ok()?).copied()
}

fn set<T>(values: &mut [T], at: u32, value: T) {
    let place = usize::try_from(at).ok().and_then(|at| values.get_mut(at));
    if let Some(place) = place {
        *place = value;
    }
}

/// A value that a condition reads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'t> {
    /// Absent, null, of another type, not warmed up or not finite.
    Unknown,
    /// A finite number.
    Number(f64),
    /// Exact money.
    Money(Money),
    /// A text.
    String(&'t str),
    /// True or false.
    Bool(bool),
    /// An instant.
    Timestamp(Timestamp),
}
