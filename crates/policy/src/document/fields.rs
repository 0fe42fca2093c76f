//! Tables of a document, read key by key. What is wrong is told with its place, and has its default from then on.

use std::collections::BTreeMap;

use tollgate_types::Status;

use crate::fault::{Fault, FaultKind, Suggestions};
use crate::language::is_reserved;
use crate::money::Money;
use crate::policy::Mode;
use crate::source::{Entry, Item, Source, Table, Value};

/// A document's text, and the faults found in it so far.
pub(super) struct Document {
    pub(super) source: Source,
    pub(super) suggestions: Suggestions,
    /// By place and kind: of two at one place that are of the same kind, the first is told.
    faults: BTreeMap<(usize, usize, &'static str), Fault>,
}

/// The entries of a table.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    table: Option<&'a Table>,
    at: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn item(self, key: &str) -> Option<&'a Item> {
        self.table?.get(key).map(|entry| &entry.item)
    }

    pub(super) fn has(self, key: &str) -> bool {
        self.item(key).is_some()
    }

    pub(super) fn entries(self) -> impl Iterator<Item = (&'a String, &'a Entry)> {
        self.table.into_iter().flatten()
    }

    /// Where the table stands.
    pub(super) const fn at(self) -> usize {
        self.at
    }
}

impl Document {
    pub(super) fn new(text: &str) -> Self {
        Self {
            source: Source::new(text),
            suggestions: Suggestions::default(),
            faults: BTreeMap::new(),
        }
    }

    /// Records a fault at an offset of the text.
    pub(super) fn fault(&mut self, at: usize, kind: FaultKind, message: impl Into<String>) {
        let fault = self.source.fault(at, kind, message.into());
        self.faults
            .entry((fault.line, fault.column, kind.name()))
            .or_insert(fault);
    }

    pub(super) fn wrong(&mut self, item: &Item, kind: FaultKind, message: impl Into<String>) {
        self.fault(item.at.start, kind, message);
    }

    /// All faults, by place.
    pub(super) fn into_faults(self) -> Vec<Fault> {
        self.faults.into_values().collect()
    }

    pub(super) fn is_faultless(&self) -> bool {
        self.faults.is_empty()
    }

    /// The entries of a table; of a missing one, and of something else, there are none.
    pub(super) fn table<'a>(&mut self, item: Option<&'a Item>) -> Fields<'a> {
        let table = match item {
            Some(Item {
                value: Value::Table(table),
                ..
            }) => Some(table),
            Some(other) => {
                self.wrong(other, FaultKind::Value, "expected a table");
                None
            }
            None => None,
        };
        let at = item.map_or(0, |item| item.at.start);
        Fields { table, at }
    }

    /// Tells every key that is none of these.
    pub(super) fn only(&mut self, fields: Fields<'_>, keys: &[&str]) {
        for (key, entry) in fields.entries() {
            if !keys.contains(&key.as_str()) {
                let near = self.suggestions.nearest(key, keys.iter().copied());
                let message = format!("{key} is unknown here{near}");
                self.fault(entry.key_at, FaultKind::UnknownKey, message);
            }
        }
    }

    /// The value of a key, `None` if there is none or it is wrong.
    pub(super) fn optional<T>(
        &mut self,
        fields: Fields<'_>,
        key: &str,
        wanted: &str,
        convert: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let item = fields.item(key)?;
        let converted = convert(&item.value);
        if converted.is_none() {
            self.wrong(item, FaultKind::Value, format!("{key}: expected {wanted}"));
        }
        converted
    }

    /// The value of a key that must be there.
    pub(super) fn required<T>(
        &mut self,
        fields: Fields<'_>,
        key: &str,
        wanted: &str,
        convert: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        if !fields.has(key) && fields.table.is_some() {
            let message = format!("{key} is missing: {wanted}");
            self.fault(fields.at, FaultKind::Missing, message);
        }
        self.optional(fields, key, wanted, convert)
    }

    /// The elements of an array that are of the wanted kind; a missing array has none.
    pub(super) fn array<'a>(
        &mut self,
        item: Option<&'a Item>,
        wanted: &str,
        fits: impl Fn(&Value) -> bool,
    ) -> Vec<&'a Item> {
        let Some(item) = item else {
            return Vec::new();
        };
        let Value::Array(elements) = &item.value else {
            self.wrong(item, FaultKind::Value, format!("expected {wanted}"));
            return Vec::new();
        };
        let (fitting, others): (Vec<&Item>, Vec<&Item>) =
            elements.iter().partition(|element| fits(&element.value));
        for other in others {
            self.wrong(other, FaultKind::Value, format!("expected {wanted}"));
        }
        fitting
    }

    // ---- settings with a default ------------------------------------------------------------------------------------

    pub(super) fn number(
        &mut self,
        fields: Fields<'_>,
        key: &str,
        range: (f64, f64),
        usual: f64,
    ) -> f64 {
        let (least, most) = range;
        let wanted = format!("a number from {least} to {most}");
        self.optional(fields, key, &wanted, |value| number(value, least, most))
            .unwrap_or(usual)
    }

    pub(super) fn points(&mut self, fields: Fields<'_>, key: &str, usual: f64) -> f64 {
        self.number(fields, key, POINTS, usual)
    }

    pub(super) fn whole(&mut self, fields: Fields<'_>, key: &str, most: u32, usual: u64) -> u64 {
        let wanted = format!("a whole number from 1 to {most}");
        self.optional(fields, key, &wanted, |value| {
            let value = number(value, 1.0, f64::from(most)).filter(|value| value.fract() == 0.0)?;
            // Whole and at most 2^32, so that the text is that of an integer.
            value.to_string().parse().ok()
        })
        .unwrap_or(usual)
    }

    pub(super) fn money(
        &mut self,
        fields: Fields<'_>,
        key: &str,
        least: Money,
        usual: Money,
    ) -> Money {
        let wanted = format!("money of at least {least} with at most four decimal places");
        self.optional(fields, key, &wanted, |value| {
            money(value).filter(|money| *money >= least)
        })
        .unwrap_or(usual)
    }

    pub(super) fn bool(&mut self, fields: Fields<'_>, key: &str, usual: bool) -> bool {
        let convert = |value: &Value| match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        };
        self.optional(fields, key, "true or false", convert)
            .unwrap_or(usual)
    }

    pub(super) fn mode(&mut self, fields: Fields<'_>) -> Mode {
        let modes = [
            ("live", Mode::Live),
            ("shadow", Mode::Shadow),
            ("off", Mode::Off),
        ];
        self.one_of(fields, "mode", &modes).unwrap_or_default()
    }

    pub(super) fn status(&mut self, fields: Fields<'_>, key: &str, usual: Status) -> Status {
        let statuses = [
            ("approved", Status::Approved),
            ("review", Status::Review),
            ("blocked", Status::Blocked),
        ];
        self.one_of(fields, key, &statuses).unwrap_or(usual)
    }

    pub(super) fn one_of<T: Copy>(
        &mut self,
        fields: Fields<'_>,
        key: &str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        self.optional(fields, key, &listed(choices), |value| {
            choose(value, choices)
        })
    }
}

/// The bounds of points, and of what is like them.
pub(super) const POINTS: (f64, f64) = (0.0, 1_000_000.0);
/// The longest window in seconds, 35 days.
pub(super) const LONGEST_WINDOW: u32 = 35 * 86_400;

/// `"a", "b" or "c"`.
pub(super) fn listed<T>(choices: &[(&str, T)]) -> String {
    let quoted: Vec<String> = choices
        .iter()
        .map(|(name, _)| format!("\"{name}\""))
        .collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

pub(super) fn choose<T: Copy>(value: &Value, choices: &[(&str, T)]) -> Option<T> {
    let text = text(value)?;
    choices
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, value)| *value)
}

pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

pub(super) fn number(value: &Value, least: f64, most: f64) -> Option<f64> {
    match value {
        Value::Number(number) => Some(number.value).filter(|value| (least..=most).contains(value)),
        _ => None,
    }
}

pub(super) fn money(value: &Value) -> Option<Money> {
    match value {
        Value::Number(number) => Money::parse_number(&number.text),
        Value::Text(text) => Money::parse_decimal(text),
        _ => None,
    }
}

pub(super) const NAME: &str = "a name: at most 64 letters, digits and _, not beginning with a digit, not `lists`, and no word that CEL reserves";

/// A name as it can stand in a rule.
pub(super) fn identifier(name: &str) -> Option<&str> {
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let consists = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (begins && consists && name.len() <= 64 && name != "lists" && !is_reserved(name))
        .then_some(name)
}

/// Seconds of `90s`, `10m`, `24h` or `7d`: one minute to 35 days.
pub(super) fn duration(value: &Value) -> Option<u64> {
    let text = text(value)?;
    let unit = match text.bytes().last()? {
        b's' => 1,
        b'm' => 60,
        b'h' => 3_600,
        b'd' => 86_400,
        _ => return None,
    };
    let digits = &text[..text.len() - 1];
    let valid = (1..=7).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && !digits.starts_with('0');
    let seconds = digits.parse::<u64>().ok().filter(|_| valid)? * unit;
    (60..=u64::from(LONGEST_WINDOW))
        .contains(&seconds)
        .then_some(seconds)
}
