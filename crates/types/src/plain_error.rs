//! Messages of serde in words for a person: what was given and what is allowed, without the names of Rust's types.
//!
//! Invariant: a text that was given is never repeated, since it may be a secret in the wrong place or card data. A number is
//! repeated where a number was expected in a setting.

use std::borrow::Cow;

/// Whose words are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notation {
    /// Settings: texts, lists, tables.
    Settings,
    /// JSON: strings, arrays, objects. No number is repeated.
    Json,
}

/// What serde found wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlainError<'a> {
    /// The value is wrong, with the reason.
    Value(String),
    /// A member is missing.
    Missing(&'a str),
    /// A member is not known, and these are: empty where there are none.
    Unknown(&'a str, Vec<&'a str>),
    /// A member is given twice.
    Twice(&'a str),
    /// A message that is not one of serde's own.
    Other,
}

impl<'a> PlainError<'a> {
    /// Reads a message of serde, without a place such as `at line 1 column 2`.
    #[must_use]
    pub fn of(message: &'a str, notation: Notation) -> Self {
        // The `toml` crate appends the place, which the caller knows.
        let message = message.split("\nin `").next().unwrap_or_default().trim();
        let named =
            |start: &str| Some(message.strip_prefix(start)?.split('`').nth(1).unwrap_or(""));
        if let Some(name) = named("missing field ") {
            return Self::Missing(name);
        }
        if let Some(name) = named("duplicate field ") {
            return Self::Twice(name);
        }
        if let Some(name) = named("unknown field ") {
            let known = names(
                message
                    .split_once("`, expected ")
                    .map_or("", |(_, known)| known),
            );
            return Self::Unknown(name, known);
        }
        // The variant itself may have any text, so that the last such words end it.
        if message.starts_with("unknown variant ") {
            let known = message
                .rsplit_once("`, expected ")
                .map_or("", |(_, known)| known);
            return match names(known).as_slice() {
                [] => Self::Other,
                known => Self::Value(format!("must be {}", one_of(known))),
            };
        }
        if message.starts_with("data did not match any variant") {
            return Self::Value("has none of the allowed forms".to_owned());
        }
        for start in ["invalid type: ", "invalid value: ", "invalid length "] {
            if let Some((given, expected)) = message
                .strip_prefix(start)
                .and_then(|rest| rest.rsplit_once(", expected "))
            {
                let not = given_words(given, expected, notation)
                    .map(|given| format!(", not {given}"))
                    .unwrap_or_default();
                return Self::Value(format!("must be {}{not}", allowed(expected, notation)));
            }
        }
        Self::Other
    }
}

/// The names in backticks.
fn names(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn one_of(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// The values that serde describes as `expected`, or that a type of this name has: `u32` is a whole number from 0 to
/// 4294967295.
#[must_use]
pub fn allowed(expected: &str, notation: Notation) -> Cow<'static, str> {
    let (text, list, table) = match notation {
        Notation::Settings => ("a text", "a list", "a table"),
        Notation::Json => ("a string", "an array", "an object"),
    };
    let (expected, nonzero) = match expected.strip_prefix("a nonzero ") {
        Some(number) => (number, true),
        None => (expected, false),
    };
    if let Some((min, max)) = range(expected) {
        let min = if nonzero && min == Some(0) {
            Some(1)
        } else {
            min
        };
        return Cow::Owned(match (min, max) {
            (Some(min), Some(max)) => format!("a whole number from {min} to {max}"),
            (Some(min), None) => format!("a whole number of at least {min}"),
            (None, _) => "a whole number".to_owned(),
        });
    }
    let words = match expected {
        "f32" | "f64" => "a number",
        "a boolean" | "bool" => "true or false",
        "a string" | "string" | "a borrowed string" | "str" => text,
        "a path" | "path string" => "a path",
        "a character" => "a single character",
        "a sequence" => list,
        "a map" => table,
        "unit" => "empty",
        "string or map" | "variant identifier" => "one of the allowed names",
        other if other.starts_with("struct ") => table,
        other if LISTS.iter().any(|start| other.starts_with(start)) => list,
        other if names_a_type(other) => "of another form",
        other => return Cow::Owned(other.to_owned()),
    };
    Cow::Borrowed(words)
}

/// How serde begins its words for a list of a fixed length.
const LISTS: [&str; 3] = ["tuple ", "a tuple ", "an array of length "];

/// Whether the words are a declaration, or have the name of a type in them, such as `HighAmount`.
fn names_a_type(words: &str) -> bool {
    let declares = ["enum ", "newtype ", "unit ", "variant "];
    let has_hump = |word: &str| {
        let mut pairs = word.chars().zip(word.chars().skip(1));
        pairs.any(|(one, next)| one.is_lowercase() && next.is_uppercase())
    };
    let is_type = |word: &str| word.contains("::") || has_hump(word);
    declares.iter().any(|start| words.starts_with(start)) || words.split(' ').any(is_type)
}

/// The least and the greatest number of a type, if it is a type of numbers. Bounds that nobody means are left out.
fn range(type_name: &str) -> Option<(Option<i64>, Option<i64>)> {
    Some(match type_name {
        "u8" => (Some(0), Some(u8::MAX.into())),
        "u16" => (Some(0), Some(u16::MAX.into())),
        "u32" => (Some(0), Some(u32::MAX.into())),
        "u64" | "u128" | "usize" => (Some(0), None),
        "i8" => (Some(i8::MIN.into()), Some(i8::MAX.into())),
        "i16" => (Some(i16::MIN.into()), Some(i16::MAX.into())),
        "i32" => (Some(i32::MIN.into()), Some(i32::MAX.into())),
        "i64" | "i128" | "isize" => (None, None),
        _ => return None,
    })
}

/// What was given, as serde describes it; none where it would say nothing.
fn given_words(given: &str, expected: &str, notation: Notation) -> Option<String> {
    let (kind, value) = given.split_once(' ').unwrap_or((given, ""));
    let (text, list, table) = match notation {
        Notation::Settings => ("a text", "a list", "a table"),
        Notation::Json => ("a string", "an array", "an object"),
    };
    let value = match kind {
        "floating" => value.strip_prefix("point ").unwrap_or(value),
        _ => value,
    };
    let value = value.trim_matches(['`', '"']);
    let is_number =
        !value.is_empty() && value.len() <= MAX_NUMBER_BYTES && value.parse::<f64>().is_ok();
    let wants_number = range(expected.trim_start_matches("a nonzero ")).is_some()
        || ["f32", "f64"].contains(&expected);
    if is_number && wants_number && notation == Notation::Settings {
        return Some(value.to_owned());
    }
    Some(match kind {
        // A text of digits is a number that did not fit.
        "string" if is_number && wants_number => "a number beyond its range".to_owned(),
        "string" | "character" => text.to_owned(),
        "integer" | "floating" => "a number".to_owned(),
        "boolean" => value.to_owned(),
        "sequence" => list.to_owned(),
        "map" => table.to_owned(),
        "null" | "unit" | "Option" => "nothing".to_owned(),
        _ => return None,
    })
}

/// A longer one is not repeated.
const MAX_NUMBER_BYTES: usize = 40;

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its errors are read")]
    struct HighAmount {
        points: u32,
        #[serde(default)]
        size: usize,
        #[serde(default)]
        weight: f64,
        #[serde(default)]
        name: String,
        #[serde(default)]
        list: Vec<u8>,
        #[serde(default)]
        on: bool,
        mode: Option<Mode>,
        pair: Option<(u8, u8)>,
        inner: Option<Box<HighAmount>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        Fast,
        Slow,
        Off,
    }

    fn message(mut value: Value) -> String {
        if let Some(object) = value.as_object_mut() {
            object.entry("points").or_insert_with(|| json!(1));
        }
        serde_json::from_value::<HighAmount>(value)
            .unwrap_err()
            .to_string()
    }

    fn reason(value: Value, notation: Notation) -> String {
        let message = message(value);
        match PlainError::of(&message, notation) {
            PlainError::Value(reason) => reason,
            other => panic!("{message}: {other:?}"),
        }
    }

    #[test]
    fn what_is_allowed_and_what_was_given_is_said_in_words() {
        for (value, expected) in [
            (
                json!({"points": -1}),
                "must be a whole number from 0 to 4294967295, not -1",
            ),
            (
                json!({"points": 4_294_967_296_u64}),
                "must be a whole number from 0 to 4294967295, not 4294967296",
            ),
            (
                json!({"points": 1.5}),
                "must be a whole number from 0 to 4294967295, not 1.5",
            ),
            (
                json!({"points": "many"}),
                "must be a whole number from 0 to 4294967295, not a text",
            ),
            (
                json!({"points": "99999999999999999999"}),
                "must be a whole number from 0 to 4294967295, not 99999999999999999999",
            ),
            (
                json!({"size": -1}),
                "must be a whole number of at least 0, not -1",
            ),
            (
                json!({"size": true}),
                "must be a whole number of at least 0, not true",
            ),
            (json!({"weight": "x"}), "must be a number, not a text"),
            (json!({"name": 7}), "must be a text, not a number"),
            (json!({"name": null}), "must be a text, not nothing"),
            (json!({"list": "x"}), "must be a list, not a text"),
            (
                json!({"list": [300]}),
                "must be a whole number from 0 to 255, not 300",
            ),
            (json!({"on": "yes"}), "must be true or false, not a text"),
            (
                json!({"mode": "quick, expected `x"}),
                "must be fast, slow or off",
            ),
            (json!({"pair": [1]}), "must be a list"),
            (json!({"pair": 1}), "must be a list, not a number"),
            (json!({"inner": 4}), "must be a table, not a number"),
            (json!("x"), "must be a table, not a text"),
        ] {
            let found = reason(value.clone(), Notation::Settings);
            assert_eq!(found, expected, "{value}");
        }
    }

    #[test]
    fn in_json_no_value_is_repeated() {
        for (value, expected) in [
            (
                json!({"points": -4111}),
                "must be a whole number from 0 to 4294967295, not a number",
            ),
            (
                json!({"points": "4111"}),
                "must be a whole number from 0 to 4294967295, not a number beyond its range",
            ),
            (json!({"name": {"x": 1}}), "must be a string, not an object"),
            (json!({"name": [4111]}), "must be a string, not an array"),
            (json!({"inner": "4111"}), "must be an object, not a string"),
            (json!({"mode": "4111"}), "must be fast, slow or off"),
        ] {
            let found = reason(value.clone(), Notation::Json);
            assert!(found.starts_with(expected), "{value}: {found}");
            assert!(!found.contains("4111"), "{found}");
        }
    }

    #[test]
    fn missing_and_unknown_members_are_told_apart() {
        let missing = serde_json::from_value::<HighAmount>(json!({})).unwrap_err();
        let missing = missing.to_string();
        assert_eq!(
            PlainError::of(&missing, Notation::Json),
            PlainError::Missing("points")
        );
        let unknown = message(json!({"poinst": 1}));
        let PlainError::Unknown("poinst", known) = PlainError::of(&unknown, Notation::Json) else {
            panic!("{unknown}");
        };
        assert_eq!(&known[..2], ["points", "size"]);
        let custom = "must be at least 7 days";
        assert_eq!(PlainError::of(custom, Notation::Json), PlainError::Other);
    }

    #[test]
    fn no_name_of_a_type_is_left() {
        for expected in [
            "u8",
            "u64",
            "usize",
            "i64",
            "f64",
            "struct HighAmount",
            "struct HighAmount with 3 elements",
            "tuple struct Seconds",
            "enum Mode",
            "unit struct Off",
            "an array of length 3",
            "HighAmount",
            "a nonzero u16",
            "tollgate::Mode",
            "newtype struct Seconds",
        ] {
            let words = allowed(expected, Notation::Settings);
            for wrong in [
                "u8",
                "u16",
                "u64",
                "usize",
                "i64",
                "f64",
                "struct",
                "enum",
                "HighAmount",
                "Seconds",
                "::",
            ] {
                assert!(!words.contains(wrong), "{expected}: {words}");
            }
        }
        assert_eq!(
            allowed("a list of URLs", Notation::Settings),
            "a list of URLs"
        );
    }
}
