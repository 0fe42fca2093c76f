//! What was wrong with a JSON text, in words that quote nothing of it: the text may hold card data.

use std::borrow::Cow;
use std::fmt;

use serde_json::error::Category;

use crate::plain_error::{Notation, PlainError};

/// The reason and the place of a JSON error. It holds no value of the text that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonError {
    /// What was expected or missing.
    pub reason: Cow<'static, str>,
    /// The line, counted from 1.
    pub line: usize,
    /// The column, counted from 1.
    pub column: usize,
}

impl From<&serde_json::Error> for JsonError {
    fn from(error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let message = text.split(" at line ").next().unwrap_or_default();
        let reason = match error.classify() {
            // Messages about the syntax are constants of the library.
            Category::Syntax | Category::Eof => Cow::Owned(message.to_owned()),
            // Nothing but names from Tollgate's own types is quoted.
            Category::Data => match PlainError::of(message, Notation::Json) {
                PlainError::Value(reason) => Cow::Owned(format!("a value {reason}")),
                PlainError::Missing(name) => Cow::Owned(format!("`{name}` is missing")),
                PlainError::Twice(name) => Cow::Owned(format!("`{name}` is given twice")),
                PlainError::Unknown(_, known) if !known.is_empty() => {
                    Cow::Owned(format!("a member is not one of {}", known.join(", ")))
                }
                PlainError::Unknown(..) | PlainError::Other => {
                    Cow::Borrowed("a member of the wrong type or value")
                }
            },
            Category::Io => Cow::Borrowed("the text could not be read"),
        };
        Self {
            reason,
            line: error.line(),
            column: error.column(),
        }
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            reason,
            line,
            column,
        } = self;
        write!(f, "{reason}, line {line}, column {column}")
    }
}

impl std::error::Error for JsonError {}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its errors are read")]
    struct Known {
        kind: Kind,
        number: u32,
    }

    #[derive(Debug, Deserialize)]
    enum Kind {
        Known,
    }

    fn error(text: &str) -> String {
        let error = serde_json::from_str::<Known>(text).unwrap_err();
        JsonError::from(&error).to_string()
    }

    #[test]
    fn nothing_of_the_text_is_quoted() {
        for text in [
            r#"{"kind":"4111111111111111"}"#,
            r#"{"kind":"Known","number":4111111111111111}"#,
            r#"{"kind":"Known","number":"4111111111111111"}"#,
            r#"{"4111111111111111":1}"#,
            r#"4111111111111111"#,
            r#"{"kind":"4111111111111111"#,
            r#"{"kind":4111111111111111x"#,
            r#"[4111111111111111, "#,
        ] {
            let message = error(text);
            assert!(!message.contains("4111"), "{text}: {message}");
        }
    }

    #[test]
    fn the_reason_and_its_place_are_named() {
        assert_eq!(
            error(r#"{"kind":"Known"}"#),
            "`number` is missing, line 1, column 16"
        );
        assert_eq!(
            error(r#"{"kind":"Known","number":"7"}"#),
            "a value must be a whole number from 0 to 4294967295, not a number beyond its range, line 1, column 28"
        );
        assert_eq!(
            error(r#"{"kind":"Known","number":-7}"#),
            "a value must be a whole number from 0 to 4294967295, not a number, line 1, column 27"
        );
        assert_eq!(
            error("{\n\"kind\":"),
            "EOF while parsing a value, line 2, column 7"
        );
        assert_eq!(error("x"), "expected value, line 1, column 1");
    }
}
