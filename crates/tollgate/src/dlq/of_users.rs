//! Whose a dead letter is. The invalid items of a request share letters, so one letter may be of many users.
//!
//! Invariant: ids are compared in the form in which ingest uses them, whatever the rejected item had.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use tollgate_types::{UserIdCase, stored_id, without_mark};

/// Begins each item in a letter of several: RFC 7464, section 2.2.
const RECORD_SEPARATOR: u8 = 0x1e;
/// The name of the member, as it stands in a text.
const MEMBER: &str = "\"user_id\"";

/// An id as ingest would use it; one that it refuses stays as it is.
pub(crate) fn normal(user_id: &str) -> String {
    stored_id(user_id, UserIdCase::Keep)
}

/// The items of a payload: itself, if it is not a sequence.
fn items(payload: &[u8]) -> Vec<&[u8]> {
    match payload.strip_prefix(&[RECORD_SEPARATOR]) {
        Some(rest) => rest.split(|byte| *byte == RECORD_SEPARATOR).collect(),
        None => vec![payload],
    }
}

/// The users that a payload names, each once; that of its key if it names none.
pub(crate) fn users_of(payload: &[u8], key: Option<&[u8]>) -> Vec<String> {
    let mut users: Vec<String> = Vec::new();
    for user in items(payload).into_iter().filter_map(user_in) {
        if !users.contains(&user) {
            users.push(user);
        }
    }
    if users.is_empty() {
        let key = key.and_then(|key| std::str::from_utf8(key).ok());
        users.extend(key.map(normal));
    }
    users
}

/// The user that an item names: itself, or in the message of a function, whose `value` is the item as JSON, as text or in
/// base64. In a text that is no JSON, the first member of that name.
fn user_in(item: &[u8]) -> Option<String> {
    let item = without_mark(item);
    let Ok(value) = serde_json::from_slice::<Value>(item) else {
        return in_broken_text(&String::from_utf8_lossy(item));
    };
    let named = |value: &Value| Some(normal(value.get("user_id")?.as_str()?));
    let inner = || match value.get("value")? {
        Value::String(text) => {
            let decoded = BASE64_STANDARD.decode(text);
            let bytes = decoded.unwrap_or_else(|_| text.as_bytes().to_vec());
            match serde_json::from_slice(without_mark(&bytes)) {
                Ok(inner) => named(&inner),
                Err(_) => in_broken_text(&String::from_utf8_lossy(&bytes)),
            }
        }
        inner => named(inner),
    };
    named(&value).or_else(inner)
}

fn in_broken_text(text: &str) -> Option<String> {
    let (_, after) = text.split_once(MEMBER)?;
    let value = after.trim_start().strip_prefix(':')?.trim_start();
    let mut read = serde_json::Deserializer::from_str(value).into_iter::<String>();
    read.next()?.ok().map(|user| normal(&user))
}

/// What of a payload is of these users, and what is of others.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// Nothing of it.
    None,
    /// All of it.
    Whole,
    /// Some of its items, and the others.
    Part { theirs: Vec<u8>, others: Vec<u8> },
}

/// Divides a payload between these users and all others.
pub(crate) fn share_of(payload: &[u8], key: Option<&[u8]>, users: &[String]) -> Share {
    let all = users_of(payload, key);
    if !all.iter().any(|user| users.contains(user)) {
        return Share::None;
    }
    let items = items(payload);
    if items.len() == 1 {
        return Share::Whole;
    }
    let (mut theirs, mut others) = (Vec::new(), Vec::new());
    for item in items {
        let is_theirs = user_in(item).is_some_and(|user| users.contains(&user));
        let part = if is_theirs { &mut theirs } else { &mut others };
        part.push(RECORD_SEPARATOR);
        part.extend_from_slice(item);
    }
    match others.is_empty() {
        true => Share::Whole,
        false => Share::Part { theirs, others },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_made_out_of_what_is_left_of_an_item() {
        for item in [
            r#"{"user_id":"u","amount":-1}"#,
            r#"{"user_id":" u ","amount":-1}"#,
            "\u{feff}{\"user_id\":\"u\"}",
            r#"{"user_id" : "u","amount":"#,
            r#"{"value":{"user_id":"u","amount":-1}}"#,
            r#"{"value":"{\"user_id\":\"u\"}"}"#,
            r#"{"value":"{\"user_id\":\"u\",\"x"}"#,
            r#"{"value":"eyJ1c2VyX2lkIjoidSJ9"}"#,
        ] {
            assert_eq!(users_of(item.as_bytes(), Some(b"key")), ["u"], "{item}");
        }
        assert_eq!(users_of(br#"{"user_id":"u"#, Some(b"key")), ["key"]);
        assert_eq!(
            users_of("{\"user_id\":\"e\u{301}\"}".as_bytes(), None),
            ["é"]
        );
        assert!(users_of(b"{}", None).is_empty());
    }

    #[test]
    fn a_letter_of_several_users_is_divided_between_them() {
        let item = |user: &str| format!("\u{1e}{{\"user_id\":\"{user}\",\"amount\":-1}}\n");
        let shared = [item("a"), item("b"), item("a"), "\u{1e}7\n".to_owned()].concat();
        assert_eq!(users_of(shared.as_bytes(), None), ["a", "b"]);
        let users = ["a".to_owned()];
        let expected = Share::Part {
            theirs: [item("a"), item("a")].concat().into_bytes(),
            others: [item("b"), "\u{1e}7\n".to_owned()].concat().into_bytes(),
        };
        assert_eq!(share_of(shared.as_bytes(), None, &users), expected);
        assert_eq!(share_of(item("a").as_bytes(), None, &users), Share::Whole);
        assert_eq!(share_of(item("b").as_bytes(), None, &users), Share::None);
    }
}
