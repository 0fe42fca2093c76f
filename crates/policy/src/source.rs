//! The TOML text of a document as values that know where they stand.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::fault::{Fault, FaultKind};
use crate::toml_version::beyond_toml_1_0;

const NO_VALUE: &str = "neither a number, a text in quotes, true nor false";

/// A number as the document writes it.
pub(crate) struct Number {
    /// Decimal digits with a sign where negative, perhaps a point and an exponent.
    pub(crate) text: String,
    /// The nearest float.
    pub(crate) value: f64,
}

pub(crate) enum Value {
    Text(String),
    Number(Number),
    Bool(bool),
    Array(Vec<Item>),
    Table(Table),
    /// A date, a time, infinity or NaN: no part of a document.
    Other,
}

/// A value, and where it stands: a table at its header, or at its key where it has none.
pub(crate) struct Item {
    pub(crate) at: Range<usize>,
    pub(crate) value: Value,
}

pub(crate) struct Entry {
    /// Where the key stands.
    pub(crate) key_at: usize,
    pub(crate) item: Item,
}

pub(crate) type Table = BTreeMap<String, Entry>;

/// A text, its lines, and its values.
pub(crate) struct Source {
    text: String,
    /// Where each line begins.
    lines: Vec<usize>,
    /// The first number that is none.
    malformed: Cell<Option<usize>>,
}

impl Source {
    /// The text with `\r\n` as `\n`: the values of a document, and with them its hash, are the same on every system.
    pub(crate) fn new(text: &str) -> Self {
        let text = text.replace("\r\n", "\n");
        let lines = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        Self {
            text,
            lines,
            malformed: Cell::new(None),
        }
    }

    /// A fault at an offset.
    pub(crate) fn fault(&self, at: usize, kind: FaultKind, message: String) -> Fault {
        let line = self.lines.partition_point(|start| *start <= at);
        let start = self.lines.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let column = self
            .text
            .get(start..at)
            .map_or(0, |before| before.chars().count())
            + 1;
        Fault {
            line,
            column,
            kind,
            message,
        }
    }

    /// The values.
    ///
    /// # Errors
    /// Where the text is not TOML: the fault of kind `toml`.
    pub(crate) fn parse(&self) -> Result<Table, Fault> {
        match DeTable::parse(&self.text) {
            Ok(root) => {
                let table = self.table(root.get_ref(), false);
                let malformed = self.malformed.get().map(|at| (at, NO_VALUE));
                match malformed.or_else(|| beyond_toml_1_0(&self.text)) {
                    None => Ok(table),
                    Some((at, message)) => Err(self.fault(at, FaultKind::Toml, message.to_owned())),
                }
            }
            Err(error) => {
                let at = error.span().map_or(0, |span| self.boundary(span.start));
                Err(self.fault(at, FaultKind::Toml, error.message().replace('\n', ", ")))
            }
        }
    }

    /// The nearest offset, at or before this one, at which a character begins.
    fn boundary(&self, at: usize) -> usize {
        let at = at.min(self.text.len());
        (0..=at)
            .rev()
            .find(|at| self.text.is_char_boundary(*at))
            .unwrap_or(0)
    }

    fn table(&self, table: &DeTable<'_>, inline: bool) -> Table {
        table
            .iter()
            .map(|(key, value)| {
                let entry = Entry {
                    key_at: key.span().start,
                    item: self.item(value, inline),
                };
                (key.get_ref().clone().into_owned(), entry)
            })
            .collect()
    }

    /// `inline`: within a value that stands to the right of `=`.
    fn item(&self, spanned: &Spanned<DeValue<'_>>, inline: bool) -> Item {
        let at = spanned.span();
        let is_value = |open| inline || self.text[at.start..].starts_with(open);
        let value = match spanned.get_ref() {
            DeValue::String(text) => Value::Text(text.clone().into_owned()),
            DeValue::Integer(digits) => self.number(&at, digits.as_str(), digits.radix()),
            DeValue::Float(digits) => self.number(&at, digits.as_str(), 10),
            DeValue::Boolean(value) => Value::Bool(*value),
            DeValue::Datetime(_) => Value::Other,
            DeValue::Array(elements) => {
                let of_tables = self.text[at.start..].starts_with("[[")
                    && elements
                        .iter()
                        .next()
                        .is_some_and(|first| first.span() == at);
                let inline = inline || !of_tables;
                Value::Array(
                    elements
                        .iter()
                        .map(|each| self.item(each, inline))
                        .collect(),
                )
            }
            DeValue::Table(table) => {
                let inline = is_value('{');
                return Item {
                    value: Value::Table(self.table(table, inline)),
                    at: if inline { at } else { self.header(at) },
                };
            }
        };
        Item { at, value }
    }

    fn number(&self, at: &Range<usize>, digits: &str, radix: u32) -> Value {
        let written = self.text.get(at.clone()).unwrap_or_default();
        if !is_number(written) {
            self.malformed.set(self.malformed.get().or(Some(at.start)));
        }
        number(&digits.replace('_', ""), radix)
    }

    /// The place of a table that has no header of its own, only headers of tables within it: the first of those.
    fn header(&self, at: Range<usize>) -> Range<usize> {
        let line = self.text[..at.start].rfind('\n').map_or(0, |end| end + 1);
        let indent = self.text[line..at.start]
            .bytes()
            .take_while(|byte| matches!(byte, b' ' | b'\t'))
            .count();
        match self.text[line + indent..at.start].starts_with('[') {
            true => line + indent..at.end,
            false => at,
        }
    }

    /// Where each character of a string stands in the text, and where the string ends.
    pub(crate) fn characters(&self, at: &Range<usize>) -> Vec<usize> {
        let raw = self.text.get(at.clone()).unwrap_or_default();
        let quote = raw.chars().next().unwrap_or('"');
        let long = raw.len() >= 6 && raw.starts_with(&quote.to_string().repeat(3));
        let width = if long { 3 } else { 1 };
        let end = raw.len().saturating_sub(width);
        let mut places = Vec::with_capacity(raw.len());
        let mut offset = width;
        if long && raw[offset..].starts_with('\n') {
            offset += 1;
        }
        while offset < end {
            let rest = &raw[offset..end];
            if quote == '"'
                && let Some(escaped) = rest.strip_prefix('\\')
            {
                let ended = escaped.trim_start_matches([' ', '\t']);
                if ended.starts_with('\n') {
                    // The line break and the white space after it are no part of the string.
                    offset = end - ended.trim_start_matches([' ', '\t', '\n']).len();
                    continue;
                }
                places.push(at.start + offset);
                offset += match escaped.bytes().next() {
                    Some(b'u') => 6,
                    Some(b'U') => 10,
                    _ => 2,
                };
                continue;
            }
            places.push(at.start + offset);
            offset += rest.chars().next().map_or(1, char::len_utf8);
        }
        places.push(at.start + end);
        places
    }
}

/// A number. The parser of TOML leaves it to its caller to read it, and to refuse what is none.
fn number(text: &str, radix: u32) -> Value {
    if radix == 10 {
        return decimal(text);
    }
    // Larger ones are beyond every setting and would lose digits in the canonical form.
    match u128::from_str_radix(text, radix) {
        Ok(value) => decimal(&value.to_string()),
        Err(_) => Value::Other,
    }
}

fn decimal(text: &str) -> Value {
    let text = text.strip_prefix('+').unwrap_or(text);
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Value::Number(Number {
            text: text.to_owned(),
            value,
        }),
        _ => Value::Other,
    }
}

/// Whether a text is a number of TOML: no leading zero, digits on both sides of a point and of every underscore.
fn is_number(text: &str) -> bool {
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            return are_digits(digits, radix);
        }
    }
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(text, "inf" | "nan") {
        return true;
    }
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    are_digits(whole, 10)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(|digits| are_digits(digits, 10))
        && exponent.is_none_or(|exponent| {
            are_digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent), 10)
        })
}

fn are_digits(text: &str, radix: u32) -> bool {
    text.split('_')
        .all(|digits| !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_toml() {
        for right in [
            "0",
            "-0",
            "+1_000",
            "0xdead_BEEF",
            "0o7",
            "0b1",
            "1.5e-3",
            "6E+2",
            "inf",
            "-nan",
            "1e06",
        ] {
            assert!(is_number(right), "{right}");
        }
        for wrong in [
            "",
            "01",
            "1_",
            "_1",
            "1__0",
            "1.",
            ".5",
            "1e",
            "0x",
            "0xg",
            "1_00010m\"",
            "1.0.0",
            "-01",
        ] {
            assert!(!is_number(wrong), "{wrong}");
        }
    }
}
