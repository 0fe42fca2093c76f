//! The language of conditions: a profile of the Common Expression Language (google/cel-spec).
//!
//! `tokens` limits size and nesting before anything is parsed, `parser` builds the tree, `types` checks it against the names
//! of a document, and `compile` makes a program of it that reads slots. Offsets are characters of the condition.

mod compile;
mod parser;
mod program;
mod tokens;
mod tree;
mod types;

#[cfg(test)]
mod tests;

pub(crate) use compile::{Compiler, Wanted};
pub(crate) use program::Test;
pub(crate) use tree::Tree;
pub(crate) use types::{Checker, Names, Read};

use crate::fault::FaultKind;

/// The most bytes of a condition.
pub(crate) const MOST_BYTES: usize = 4_096;
/// The deepest nesting: open brackets, the `?` in them, and `!` and `-` in a row.
pub(crate) const MOST_NESTING: usize = 32;

/// Words that CEL reserves.
const RESERVED: [&str; 21] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
    "while",
];

pub(crate) fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

/// Something wrong at a character of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) at: usize,
    pub(crate) kind: FaultKind,
    pub(crate) message: String,
}

impl Wrong {
    pub(crate) fn new(at: usize, kind: FaultKind, message: impl Into<String>) -> Self {
        Self {
            at,
            kind,
            message: message.into(),
        }
    }
}

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Type {
    /// True or false.
    Bool,
    /// Exact money.
    Money,
    /// A double.
    Number,
    /// A text.
    String,
    /// An instant: `timestamp` alone.
    Timestamp,
}

impl Type {
    /// The name that a document gives it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Money => "money",
            Self::Number => "number",
            Self::String => "string",
            Self::Timestamp => "timestamp",
        }
    }
}

/// Reads the tree of a condition.
///
/// # Errors
/// The first fault: `too_long`, `too_deep` or `syntax`.
pub(crate) fn parse(source: &str) -> Result<Tree, Wrong> {
    let tokens = tokens::tokens(source)?;
    parser::parse(tokens)
}
