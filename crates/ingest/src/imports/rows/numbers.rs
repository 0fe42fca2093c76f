//! Forms of numbers: `1,234.56`, `1.234,56`, `1 234,56`, `1'234.56`. No I/O.
//!
//! Invariant: without settings only a number with one clear reading is read, the one of the column's other rows. An amount
//! that could be a thousand times as large ends the import.

use std::fmt::Write as _;

/// Separators of groups, each with what is written for it.
const GROUPINGS: [(char, &[char]); 5] = [
    ('.', &['.']),
    (',', &[',']),
    ('\'', &['\'', '\u{2019}']),
    // No-break, thin and narrow no-break spaces.
    (' ', &[' ', '\u{a0}', '\u{2009}', '\u{202f}']),
    ('_', &['_']),
];

/// Whether a setting may name this separator of groups.
pub(super) fn is_grouping(separator: char) -> bool {
    GROUPINGS.iter().any(|(known, _)| *known == separator)
}

/// The number with a point before its decimals and no groups; `None` if it is not written in this form.
pub(super) fn normalised(text: &str, decimal: char, grouping: Option<char>) -> Option<String> {
    let (sign, digits) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (&text[..1], rest),
        None => ("", text),
    };
    let (whole, decimals) = match digits.split_once(decimal) {
        Some((whole, decimals)) => (whole, Some(decimals)),
        None => (digits, None),
    };
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if decimals.is_some_and(|decimals| !is_number(decimals)) {
        return None;
    }
    let mut plain = String::with_capacity(text.len());
    if sign == "-" {
        plain.push('-');
    }
    if is_number(whole) {
        plain.push_str(whole);
    } else {
        let known = GROUPINGS
            .iter()
            .find(|(known, _)| Some(*known) == grouping)?;
        let groups: Vec<&str> = whole.split(known.1).collect();
        let (first, rest) = groups.split_first()?;
        let (last, middle) = rest.split_last()?;
        let lengths = |first_at_most: usize, middle_length: usize| {
            (1..=first_at_most).contains(&first.len())
                && middle.iter().all(|group| group.len() == middle_length)
                && last.len() == 3
        };
        // Groups of three, or of two before the last one as in India. A group of zeros alone does not begin a number.
        let is_grouped = lengths(3, 3) || lengths(2, 2);
        if !is_grouped || first.starts_with('0') || !groups.iter().all(|group| is_number(group)) {
            return None;
        }
        groups.iter().for_each(|group| plain.push_str(group));
    }
    if let Some(decimals) = decimals {
        // Writing to a String cannot fail.
        let _ = write!(plain, ".{decimals}");
    }
    Some(plain)
}

/// What an amount tells about the form of the numbers of its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Nothing: a whole number, or no number at all.
    Any,
    /// The point is before the decimals.
    Point,
    /// `1.500`: one and a half, or one and a half thousand.
    Ambiguous,
    /// Another form, with the separators that it would be read with.
    Other {
        /// How it is written.
        written: &'static str,
        /// The settings that read it.
        settings: &'static str,
    },
}

/// The form of an amount.
pub(super) fn form(text: &str) -> Form {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Form::Any;
    }
    if normalised(digits, '.', None).is_some() {
        return match normalised(digits, ',', Some('.')) {
            Some(_) => Form::Ambiguous,
            None => Form::Point,
        };
    }
    let reads = |decimal, grouping| normalised(digits, decimal, grouping).is_some();
    let other = |written, settings| Form::Other { written, settings };
    match digits {
        _ if reads(',', None) && reads('.', Some(',')) => other(
            "a comma before three digits",
            "decimal = \",\", or decimal = \".\" and grouping = \",\"",
        ),
        _ if reads(',', None) => other("a decimal comma", "decimal = \",\""),
        _ if reads(',', Some('.')) => other(
            "points between groups of digits",
            "decimal = \",\" and grouping = \".\"",
        ),
        _ if reads('.', Some(',')) => other(
            "commas between groups of digits",
            "decimal = \".\" and grouping = \",\"",
        ),
        _ if reads('.', Some(' ')) || reads(',', Some(' ')) => other(
            "spaces between groups of digits",
            "decimal, and grouping = \" \"",
        ),
        _ if reads('.', Some('\'')) || reads(',', Some('\'')) => other(
            "apostrophes between groups of digits",
            "decimal, and grouping = \"'\"",
        ),
        _ if reads('.', Some('_')) || reads(',', Some('_')) => other(
            "underscores between groups of digits",
            "decimal, and grouping = \"_\"",
        ),
        _ => Form::Any,
    }
}

/// What the amounts of an object have shown so far.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// The first line with a decimal point.
    point: Option<u64>,
    /// The first line whose amount has two readings, while no other line decides.
    ambiguous: Option<u64>,
}

impl Evidence {
    /// Adds the amount of a line.
    ///
    /// # Errors
    /// It is written in a form that needs settings.
    pub(super) fn add(&mut self, line: u64, form: Form, column: &str) -> Result<(), String> {
        match form {
            Form::Any => {}
            Form::Point => {
                self.point.get_or_insert(line);
            }
            Form::Ambiguous => {
                self.ambiguous.get_or_insert(line);
            }
            Form::Other { written, settings } => {
                let before = self
                    .point
                    .or(self.ambiguous)
                    .map_or_else(String::new, |at| {
                        format!(", and the one in line {at} a point: the column mixes forms")
                    });
                return Err(format!(
                    "the amount in line {line}, column {column}, has {written}{before}. Set ingest.sources[].{settings}; a row in another form is then rejected"
                ));
            }
        }
        Ok(())
    }

    /// Why the amounts seen so far cannot be read, if they cannot.
    pub(super) fn undecided(&self, column: &str) -> Option<String> {
        let line = self.ambiguous.filter(|_| self.point.is_none())?;
        Some(format!(
            "the amount in line {line}, column {column}, has a point before three digits, which may be decimals or thousands, and no other row decides. Set ingest.sources[].decimal = \".\", or decimal = \",\" and grouping = \".\""
        ))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_read_in_the_form_of_the_settings_and_in_no_other() {
        for (text, decimal, grouping, expected) in [
            ("1.234,56", ',', Some('.'), Some("1234.56")),
            ("1.500", ',', Some('.'), Some("1500")),
            ("25.000", ',', Some('.'), Some("25000")),
            ("12,50", ',', Some('.'), Some("12.50")),
            ("1'500.00", ',', Some('.'), None),
            ("49,90 EUR", ',', Some('.'), None),
            ("12.50", ',', Some('.'), None),
            ("12.50", ',', None, None),
            ("1.50", ',', Some('.'), None),
            ("1.2345", ',', Some('.'), None),
            ("0.500", ',', Some('.'), None),
            ("1.234.56", ',', Some('.'), None),
            ("1.500", '.', None, Some("1.500")),
            ("1,500", '.', None, None),
            ("1,500", '.', Some(','), Some("1500")),
            ("12,34,567.5", '.', Some(','), Some("1234567.5")),
            ("1\u{202f}234,5", ',', Some(' '), Some("1234.5")),
            ("1\u{2019}234.5", '.', Some('\''), Some("1234.5")),
            ("-1.500,25", ',', Some('.'), Some("-1500.25")),
            ("+7", ',', None, Some("7")),
            ("", ',', None, None),
            ("1,", ',', None, None),
            (",5", ',', None, None),
            ("1e3", '.', None, None),
        ] {
            assert_eq!(
                normalised(text, decimal, grouping).as_deref(),
                expected,
                "{text} {decimal} {grouping:?}"
            );
        }
    }

    #[test]
    fn an_amount_with_two_readings_is_ambiguous_and_another_form_names_its_settings() {
        for text in ["7", "", "bad", "12.", "01.03.2026", "1.2.3", "1e3"] {
            assert_eq!(form(text), Form::Any, "{text}");
        }
        for text in ["12.5", "12.50", "0.500", "1234.500", "1.2345"] {
            assert_eq!(form(text), Form::Point, "{text}");
        }
        for text in ["1.500", "12.000", "-123.456"] {
            assert_eq!(form(text), Form::Ambiguous, "{text}");
        }
        for (text, setting) in [
            ("12,50", "decimal = \",\""),
            ("1.234,56", "grouping = \".\""),
            ("1.234.567", "grouping = \".\""),
            ("1,234.56", "grouping = \",\""),
            ("1,500", "or decimal"),
            ("1 234,56", "grouping = \" \""),
            ("1'234.56", "grouping = \"'\""),
        ] {
            let Form::Other { settings, .. } = form(text) else {
                panic!("{text}");
            };
            assert!(settings.contains(setting), "{text}: {settings}");
        }
    }

    proptest! {
        #[test]
        fn a_number_in_any_form_is_read_as_itself_and_never_as_another_one(
            whole in 0_u64..10_000_000_000,
            decimals in "[0-9]{0,4}",
            decimal in prop::sample::select(vec!['.', ',']),
            grouping in prop::sample::select(vec!['.', ',', ' ', '\'', '_']),
        ) {
            prop_assume!(decimal != grouping);
            let digits = whole.to_string();
            let mut written = String::new();
            for (index, digit) in digits.chars().enumerate() {
                if index > 0 && (digits.len() - index).is_multiple_of(3) {
                    written.push(grouping);
                }
                written.push(digit);
            }
            let mut plain = digits.clone();
            if !decimals.is_empty() {
                written = format!("{written}{decimal}{decimals}");
                plain = format!("{plain}.{decimals}");
            }
            prop_assert_eq!(normalised(&written, decimal, Some(grouping)), Some(plain.clone()));
            // Without settings it is itself, or it is not read.
            match form(&written) {
                Form::Any | Form::Point => prop_assert_eq!(written, plain),
                Form::Ambiguous | Form::Other { .. } => {}
            }
        }
    }
}
