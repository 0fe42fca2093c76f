//! Ids: one spelling of each, and none with what nobody sees.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use serde_json::{Value, json};
use tollgate_types::{Transaction, UserIdCase, mixes_scripts, stored_id};

fn with_user(user: &str) -> String {
    let user = serde_json::to_string(user).unwrap();
    format!(
        r#"{{"transaction_id":"t", "user_id":{user} ,"amount":1.50,"timestamp":"2026-03-01T12:00:00Z","user":{user}}}"#
    )
}

/// The user of a text, or why it is refused.
fn user(user: &str, case: UserIdCase) -> Result<String, String> {
    let text = with_user(user);
    match Transaction::parse_in_case(text.as_bytes(), case) {
        Ok(read) => Ok(read.user_id.into_owned()),
        Err(rejection) => {
            assert_eq!(rejection.field, "user_id", "{user:?}");
            Err(rejection.reason.into_owned())
        }
    }
}

/// What a fraudster tried: each was a user of its own, with a history of its own.
#[test]
fn sixteen_spellings_of_a_user_are_one_user_or_are_refused_or_counted() {
    let same = [
        "andré",
        "andre\u{301}",
        "andré ",
        " andré",
        "\u{3000}\tandré\u{a0}\n",
    ];
    let cased = ["ANDRÉ", "André", "ANDRE\u{301}"];
    let refused = [
        ("\u{200b}andré", "U+200B"),
        ("an\u{200d}dré", "U+200D"),
        ("andré\u{feff}", "U+FEFF"),
        ("an\u{ad}dré", "U+00AD"),
        ("an\u{2060}dré", "U+2060"),
        ("\u{202e}érdna", "U+202E"),
        ("an\u{2066}dré", "U+2066"),
        ("an\u{34f}dré", "U+034F"),
        ("andré\u{fe0f}", "U+FE0F"),
        ("an\u{3164}dré", "U+3164"),
        ("an\tdré", "U+0009"),
        ("an\u{7f}dré", "U+007F"),
        ("an\u{a0}dré", "U+00A0"),
        ("an\u{e000}dré", "U+E000"),
        ("an\u{378}dré", "U+0378"),
        ("an\u{3000}dré", "white space"),
        (" ", "1 to 128 bytes"),
    ];
    for spelling in same {
        assert_eq!(user(spelling, UserIdCase::Keep).as_deref(), Ok("andré"));
    }
    for spelling in same.iter().chain(&cased) {
        assert_eq!(user(spelling, UserIdCase::Fold).as_deref(), Ok("andré"));
    }
    assert_eq!(
        user("STRASSE", UserIdCase::Fold),
        user("straße", UserIdCase::Fold)
    );
    for case in [UserIdCase::Keep, UserIdCase::Fold] {
        for (spelling, reason) in refused {
            let refusal = user(spelling, case).unwrap_err();
            assert!(refusal.contains(reason), "{spelling:?}: {refusal}");
        }
    }
    // A Cyrillic letter among Latin ones, against names in one script and in those that are written together.
    assert!(mixes_scripts("\u{430}ndré") && mixes_scripts("αda"));
    for name in [
        "andré",
        "андрей",
        "Ωμέγα",
        "東京タワーabc",
        "user-17",
        "名前ひらがな",
    ] {
        assert!(!mixes_scripts(name), "{name}");
        assert!(user(name, UserIdCase::Keep).is_ok(), "{name}");
    }
}

#[test]
fn a_transaction_carries_the_id_in_the_form_in_which_it_is_used_and_is_the_same_otherwise() {
    let text = with_user("andre\u{301} \"x\"");
    let read = Transaction::parse(text.as_bytes()).unwrap();
    assert_eq!(read.user_id, "andré \"x\"");
    let expected = text.replacen("andre\u{301}", "andré", 1);
    assert_eq!(read.json, expected);
    // An escape is another text of the same id, and stays.
    let escaped = text.replacen("andre\u{301}", "andr\\u00e9", 1);
    let read = Transaction::parse(escaped.as_bytes()).unwrap();
    assert_eq!((&*read.user_id, &*read.json), ("andré \"x\"", &*escaped));
    let both = json!({"user_id": "e\u{301}", "amount": 1, "transaction_id": "o\u{308}", "timestamp": "2026-03-01T12:00:00Z"});
    let both = both.to_string();
    let read = Transaction::parse(both.as_bytes()).unwrap();
    let line: Value = serde_json::from_str(&read.one_line()).unwrap();
    assert_eq!(
        (&line["user_id"], &line["transaction_id"]),
        (&json!("é"), &json!("ö"))
    );
    assert_eq!(
        Transaction::id_of_rejected(both.as_bytes()).as_deref(),
        Some("ö")
    );
}

/// A few code points grow in NFC.
#[test]
fn the_length_of_an_id_is_that_of_its_form() {
    let grows = "\u{1d160}".repeat(32);
    assert_eq!(grows.len(), 128);
    let refusal = user(&grows, UserIdCase::Keep).unwrap_err();
    assert!(refusal.contains("128 bytes"), "{refusal}");
    assert!(user(&"ΐ".repeat(64), UserIdCase::Keep).is_ok());
    // In the case folding too, after which it is composed again.
    assert!(user(&"ΐ".repeat(64), UserIdCase::Fold).is_ok());
    assert!(user(&"ŉ".repeat(64), UserIdCase::Keep).is_ok());
    assert!(user(&"ŉ".repeat(64), UserIdCase::Fold).is_err());
}

proptest! {
    #[test]
    fn an_id_is_refused_or_stays_what_it_is_when_it_is_read_again(
        id in prop_oneof![".{1,40}", "[a-zA-Z ]{1,40}", "[eao\u{301}\u{308}\u{323}\u{200b}é ]{1,20}"],
        fold: bool,
    ) {
        let case = if fold { UserIdCase::Fold } else { UserIdCase::Keep };
        let text = with_user(&id);
        if let Ok(read) = Transaction::parse_in_case(text.as_bytes(), case) {
            prop_assert!(!read.user_id.chars().any(char::is_control));
            prop_assert_eq!(read.user_id.trim(), &*read.user_id);
            let again = Transaction::parse_in_case(read.json.as_bytes(), case).unwrap();
            prop_assert_eq!(&again.user_id, &read.user_id);
            prop_assert_eq!(&again.json, &read.json);
            // The scorer, which keeps the case, sees the same user.
            let scored = Transaction::parse(read.json.as_bytes()).unwrap();
            prop_assert_eq!(&scored.user_id, &read.user_id);
            let mut members: Value = serde_json::from_str(&read.json).unwrap();
            members["user_id"] = json!(id);
            prop_assert_eq!(&stored_id(&id, case), &read.user_id);
            prop_assert_eq!(members, serde_json::from_str::<Value>(&text).unwrap());
        }
    }
}
