//! The text of a transaction as both stores' JSON functions can read it. Pure.
//!
//! JSON permits values that PostgreSQL's JSON functions cannot represent: `\u0000`, half a surrogate pair, and numbers
//! beyond its types. One of them anywhere in a row makes a query over all rows fail. SQLite returns invalid UTF-8 for half a
//! surrogate pair, which clients refuse in the same way.
//!
//! Invariant: what [`queryable`] returns can be cast to `jsonb`, each of its strings to `text` and each of its numbers to
//! `numeric` and `double precision`; a text of which all this is true already is returned as it is, to the byte.

use std::borrow::Cow;

/// The replacement character (Unicode, U+FFFD), as an escape.
const REPLACEMENT: &str = r"\ufffd";
/// PostgreSQL's numeric has up to 16,383 digits behind the point, and its casts are slow long before.
const MAX_FRACTION_DIGITS: usize = 2_000;
const MAX_EXPONENT: u32 = 2_000;

/// The text with U+FFFD for each `\u0000` and for each half of a surrogate pair, and null for each number that is no finite
/// double, is rounded to zero, or has more digits than the stores' numbers. The text must be valid JSON.
pub(crate) fn queryable(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut written = String::new();
    // Everything before it is in `written`.
    let (mut copied, mut at) = (0, 0);
    let mut in_string = false;
    while let Some(byte) = bytes.get(at) {
        let (length, replacement) = match byte {
            b'\\' if in_string => escape(&bytes[at..]),
            b'"' => {
                in_string = !in_string;
                (1, None)
            }
            b'-' | b'0'..=b'9' if !in_string => number(&text[at..]),
            _ => (1, None),
        };
        if let Some(replacement) = replacement {
            written.push_str(&text[copied..at]);
            written.push_str(replacement);
            copied = at + length;
        }
        at += length;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    written.push_str(&text[copied..]);
    Cow::Owned(written)
}

/// The length of an escape, and what it is replaced by.
fn escape(bytes: &[u8]) -> (usize, Option<&'static str>) {
    match unit(bytes) {
        None => (2, None),
        Some(0) => (6, Some(REPLACEMENT)),
        Some(0xd800..=0xdbff) => match bytes.get(6..).and_then(unit) {
            Some(0xdc00..=0xdfff) => (12, None),
            _ => (6, Some(REPLACEMENT)),
        },
        Some(0xdc00..=0xdfff) => (6, Some(REPLACEMENT)),
        Some(_) => (6, None),
    }
}

/// The UTF-16 code unit of an escape `\uXXXX`.
fn unit(bytes: &[u8]) -> Option<u16> {
    let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// The length of a number, and what it is replaced by.
fn number(text: &str) -> (usize, Option<&'static str>) {
    let is_part = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    let length = text
        .bytes()
        .position(|byte| !is_part(byte))
        .unwrap_or(text.len());
    (
        length,
        (!is_representable(&text[..length])).then_some("null"),
    )
}

fn is_representable(number: &str) -> bool {
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()),
        None => (number, Some(0)),
    };
    let fraction = mantissa
        .split_once('.')
        .map_or("", |(_, fraction)| fraction);
    let is_zero = !mantissa.bytes().any(|byte| matches!(byte, b'1'..=b'9'));
    exponent.is_some_and(|exponent| exponent.unsigned_abs() <= MAX_EXPONENT)
        && fraction.len() <= MAX_FRACTION_DIGITS
        && number
            .parse::<f64>()
            .is_ok_and(|value| value.is_finite() && (value != 0.0 || is_zero))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn what_the_stores_cannot_represent_is_replaced_and_nothing_else() {
        for (text, expected) in [
            (r#"{"a":"x\u0000y","b":1}"#, r#"{"a":"x\ufffdy","b":1}"#),
            (
                r#"{"\u0000":[1,"\u0000\u0000"]}"#,
                r#"{"\ufffd":[1,"\ufffd\ufffd"]}"#,
            ),
            (
                r#"["\ud800","\uDC00x","\ud83d\ude00"]"#,
                r#"["\ufffd","\ufffdx","\ud83d\ude00"]"#,
            ),
            (
                r#"["\ud800\ud83d\ude00\ud800\n"]"#,
                r#"["\ufffd\ud83d\ude00\ufffd\n"]"#,
            ),
            (
                r#"["\ud800\\u0000","\\u0000"]"#,
                r#"["\ufffd\\u0000","\\u0000"]"#,
            ),
            (
                "[1e400,-1e-400,1E+308,5e-324,1e400000]",
                "[null,null,1E+308,5e-324,null]",
            ),
            (
                "[0e99999999999,0e-20000,0e-400,-0.0,1e]x",
                "[null,null,0e-400,-0.0,null]x",
            ),
            (
                r#"{"n" : -0 ,"e":"1e400","":{}}"#,
                r#"{"n" : -0 ,"e":"1e400","":{}}"#,
            ),
        ] {
            let safe = queryable(text);
            assert_eq!(safe, expected);
            let is_same = matches!(safe, Cow::Borrowed(_));
            assert_eq!(is_same, text == expected, "{text}");
        }
        for digits in [400, 3_000, 200_000] {
            let text = format!("[{}]", "9".repeat(digits));
            assert_eq!(queryable(&text), "[null]");
        }
        let small = format!("[0.{}1]", "0".repeat(3_000));
        assert_eq!(queryable(&small), "[null]");
    }

    proptest! {
        #[test]
        fn the_result_is_json_that_needs_no_further_replacement(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    r"\u0000", r"\ud800", r"\uDFFF", r"\ud83d\ude00", r"\\", r#"\""#, r"\n", "u0000", "ü", "e9", "😀",
                ]),
                0..12,
            ),
            mantissa in "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,4})?",
            exponent in "|[eE][-+]?[0-9]{1,6}",
        ) {
            let text = format!(r#"{{"s{0}":"{0}","n":{mantissa}{exponent},"l":[true,null]}}"#, parts.concat());
            let safe = queryable(&text);
            // Half surrogate pairs cannot be read into a string, and numbers beyond a double cannot be read at all.
            let value: Value = serde_json::from_str(&safe).unwrap();
            prop_assert_eq!(value["l"].as_array().map(Vec::len), Some(2));
            let object = value.as_object().unwrap();
            prop_assert!(object.iter().all(|(name, _)| !name.contains('\0')));
            prop_assert!(object.values().filter_map(Value::as_str).all(|text| !text.contains('\0')));
            prop_assert!(matches!(queryable(&safe), Cow::Borrowed(_)));
            if let Ok(before) = serde_json::from_str::<Value>(&text)
                && !text.contains(r"\u0000")
                && !value["n"].is_null()
            {
                prop_assert_eq!(before, value);
            }
        }

        #[test]
        fn no_text_panics(text in "[\\\\u0d8e\"{}.+-]{0,40}|.{0,40}") {
            let _ = queryable(&text);
        }
    }
}
