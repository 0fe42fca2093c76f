//! Verification codes in texts that are no JSON: broken JSON, queries, forms, XML, notes of people.
//!
//! Invariant: only digits change, each into an asterisk, so that a text keeps its length and its form.

use std::ops::Range;

use super::verification::{
    MAX_NAME_BYTES, ends_like_one, is_code, is_name_of_verification_data, is_verification_data,
};

/// Shorter texts have no code with its name: `cvv=123`.
pub(super) const MIN_TEXT: usize = 7;
/// How far before a separator a name is looked for, in bytes: the longest one with its quotes and blanks.
const MAX_BEFORE: usize = MAX_NAME_BYTES + 8;

/// Whether the separator at this place may stand between the name of a code and the code.
pub(super) fn follows_name(text: &[u8], at: usize) -> bool {
    let before = before(text, at);
    ends_like_one(before)
        && (quoted_name(before).is_some_and(is_name_of_verification_data) || word_before(before))
}

/// Where separators of a name and its value stand.
pub(super) fn separators(text: &[u8]) -> impl Iterator<Item = usize> {
    memchr::memchr3_iter(b':', b'=', b'>', text)
}

/// The text with asterisks for the digits of codes, and how many codes there are; `None` if there is none.
pub(super) fn hidden(text: &[u8]) -> Option<(Vec<u8>, u32)> {
    let mut out: Option<Vec<u8>> = None;
    let mut codes = 0;
    for at in separators(text) {
        let Some(code) = code_at(text, at) else {
            continue;
        };
        let out = out.get_or_insert_with(|| text.to_vec());
        for byte in &mut out[code] {
            if byte.is_ascii_digit() {
                *byte = b'*';
            }
        }
        codes += 1;
    }
    out.map(|out| (out, codes))
}

/// Where the code stands whose name ends before the separator at `at`.
fn code_at(text: &[u8], at: usize) -> Option<Range<usize>> {
    if !follows_name(text, at) {
        return None;
    }
    let before = before(text, at);
    if text[at] == b':'
        && let Some(name) = quoted_name(before)
    {
        let value = at + 1 + blanks(&text[at + 1..]);
        let (end, closed) = end_of_value(text, value);
        let has_digit = text[value..end].iter().any(u8::is_ascii_digit);
        if has_digit && is_verification_data(name, text.get(value..closed)?) {
            return Some(value..end);
        }
    }
    if !word_before(before) {
        return None;
    }
    let opening = text[at + 1..].iter();
    let is_opening = |byte: &&u8| {
        byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b'\\' | b'>' | b'=' | b'[')
    };
    let value = at + 1 + opening.take(8).take_while(is_opening).count();
    let digits = text
        .get(value..)?
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    let end = value + digits.count();
    // Longer numbers behind the word PIN are postal codes.
    let is_short =
        matches!(end - value, 3 | 4) && !text.get(end).is_some_and(u8::is_ascii_alphabetic);
    is_short.then_some(value..end)
}

/// What may be a name, before the blanks before `at`.
fn before(text: &[u8], at: usize) -> &[u8] {
    let before = text[..at].trim_ascii_end();
    &before[before.len().saturating_sub(MAX_BEFORE)..]
}

/// The name between the last two quotation marks, if the text ends with the second.
fn quoted_name(before: &[u8]) -> Option<&[u8]> {
    let (b'"', before) = before.trim_ascii_end().split_last()? else {
        return None;
    };
    let open = memchr::memrchr(b'"', before)?;
    Some(&before[open + 1..])
}

/// Whether the last word of a text, or its last two, are the name of a code: `cvv`, `card[cvc]`, `security code`.
fn word_before(before: &[u8]) -> bool {
    let closing =
        |byte: &&u8| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b'\\' | b'=');
    let closed = before.iter().rev().take_while(closing).count();
    let before = &before[..before.len() - closed];
    let of_word = |byte: &u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'[' | b']')
    };
    let word = |end: usize| {
        let word = before[..end].iter().rev();
        end - word.take_while(|byte| of_word(byte)).count()
    };
    let last = word(before.len());
    if is_code(&before[last..]) {
        return true;
    }
    let second = last.checked_sub(1).filter(|space| before[*space] == b' ');
    second.is_some_and(|space| is_code(&before[word(space)..]))
}

fn blanks(text: &[u8]) -> usize {
    text.iter()
        .take_while(|byte| byte.is_ascii_whitespace())
        .count()
}

/// Where the JSON value that begins at `value` ends: its last character, and the whole of it with a closing quote.
fn end_of_value(text: &[u8], value: usize) -> (usize, usize) {
    let rest = text.get(value..).unwrap_or_default().iter();
    let found = rest
        .skip(1)
        .position(|byte| matches!(byte, b',' | b'}' | b'\n' | b'"'));
    let end = found.map_or(text.len(), |found| (value + 1 + found).min(text.len()));
    let closed = match text.get(value) {
        Some(b'"') => (end + 1).min(text.len()),
        _ => end,
    };
    (
        end.max(value.min(text.len())),
        closed.max(value.min(text.len())),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        hidden(text.as_bytes()).map_or_else(
            || text.to_owned(),
            |(text, _)| String::from_utf8(text).unwrap(),
        )
    }

    #[test]
    fn codes_are_hidden_in_every_form_that_names_them() {
        for (text, expected) in [
            ("a=1&cvv=123&b=2", "a=1&cvv=***&b=2"),
            ("card[cvc]=1234", "card[cvc]=****"),
            ("CVV: 123", "CVV: ***"),
            (
                "the security code: 123, thanks",
                "the security code: ***, thanks",
            ),
            ("<ns:cvv2>123</ns:cvv2>", "<ns:cvv2>***</ns:cvv2>"),
            ("<card cvv='123'/>", "<card cvv='***'/>"),
            (r#"{"cvv" => "123"}"#, r#"{"cvv" => "***"}"#),
            (r#"{"pin":"123456","a":"#, r#"{"pin":"******","a":"#),
            (r#"x {\"cvv\":\"123\"} y"#, r#"x {\"cvv\":\"***\"} y"#),
            (r#"{"cvv":"12"#, r#"{"cvv":"**"#),
            ("pin=1234;pin=5678", "pin=****;pin=****"),
        ] {
            assert_eq!(shown(text), expected);
        }
        for text in [
            "PIN: 560001",
            "cid=123",
            "spin=123",
            "cvv=yes",
            "code: 123",
            "12:30:45",
            "cvv",
            ":",
            "cvv:",
            "\":",
        ] {
            assert_eq!(shown(text), text);
        }
    }
}
