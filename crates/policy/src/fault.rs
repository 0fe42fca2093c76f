//! What is wrong with a policy, and where.

use std::cell::Cell;

use serde::Serialize;

/// A kind of fault, by the name that a report gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The text is not TOML.
    Toml,
    /// A required key, or the member of a feature, is not there.
    Missing,
    /// A key that no table of this kind has.
    UnknownKey,
    /// A value of the wrong type or out of range.
    Value,
    /// A name that cannot be written in a rule.
    Name,
    /// A name that is taken, or needs no declaration.
    Duplicate,
    /// A member, feature, list or function that does not exist.
    UnknownName,
    /// A feature or list in `where`, which reads members alone.
    NotAMember,
    /// Types that do not go together.
    Type,
    /// A condition whose result is neither true nor false.
    NotBoolean,
    /// A condition that is the same for every transaction.
    Constant,
    /// Division by a literal zero.
    DivisionByZero,
    /// A literal beside money that is not exactly an amount.
    MoneyLiteral,
    /// A part of CEL that the profile leaves out.
    Unsupported,
    /// Not an expression of the language.
    Syntax,
    /// A condition of more than 4,096 bytes.
    TooLong,
    /// A condition that is nested deeper than 32.
    TooDeep,
    /// A warning: money is compared, and nothing reads its currency.
    Currency,
}

impl FaultKind {
    /// The name in reports: `unknown_name`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Toml => "toml",
            Self::Missing => "missing",
            Self::UnknownKey => "unknown_key",
            Self::Value => "value",
            Self::Name => "name",
            Self::Duplicate => "duplicate",
            Self::UnknownName => "unknown_name",
            Self::NotAMember => "not_a_member",
            Self::Type => "type",
            Self::NotBoolean => "not_boolean",
            Self::Constant => "constant",
            Self::DivisionByZero => "division_by_zero",
            Self::MoneyLiteral => "money_literal",
            Self::Unsupported => "unsupported",
            Self::Syntax => "syntax",
            Self::TooLong => "too_long",
            Self::TooDeep => "too_deep",
            Self::Currency => "currency",
        }
    }
}

/// Something wrong at one place of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// From 1. Both `\n` and `\r\n` end a line.
    pub line: usize,
    /// From 1, in characters (Unicode scalar values).
    pub column: usize,
    /// What kind of fault it is.
    pub kind: FaultKind,
    /// What is wrong and what would be right, without a place.
    pub message: String,
}

/// Finds the known name that is nearest to a wrong one, for so many faults of a document as somebody reads: each costs a
/// comparison with every known name.
pub(crate) struct Suggestions {
    left: Cell<u32>,
}

/// How many suggestions a document gets.
const MOST_SUGGESTIONS: u32 = 200;
/// The longest name that a suggestion is looked for; the time it takes grows with the square.
const LONGEST_SUGGESTED: usize = 128;

impl Default for Suggestions {
    fn default() -> Self {
        Self {
            left: Cell::new(MOST_SUGGESTIONS),
        }
    }
}

impl Suggestions {
    /// `; did you mean …?` with the nearest known name, or nothing where none is near.
    pub(crate) fn nearest<'a>(
        &self,
        wrong: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> String {
        let left = self.left.get();
        if left == 0 || wrong.len() > LONGEST_SUGGESTED {
            return String::new();
        }
        self.left.set(left - 1);
        let limit = wrong.chars().count().div_ceil(3).max(1);
        known
            .into_iter()
            .filter(|name| name.len() <= LONGEST_SUGGESTED)
            .map(|name| (strsim::damerau_levenshtein(wrong, name), name))
            .filter(|(distance, _)| *distance <= limit)
            .min()
            .map(|(_, name)| format!("; did you mean {name}?"))
            .unwrap_or_default()
    }
}
