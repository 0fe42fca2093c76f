//! Hostile and broken texts: each is refused with the member at fault, and none panics.

use proptest::prelude::*;
use tollgate_types::{MAX_DEPTH, Rejection, Transaction};

/// A valid text with one member replaced by another text, or left out.
fn with(member: &str, value: Option<&str>) -> String {
    let valid = [
        ("transaction_id", r#""t-1""#),
        ("user_id", r#""u-1""#),
        ("amount", "12.5"),
        ("timestamp", r#""2026-03-01T12:30:00Z""#),
        ("location", r#"{"latitude":1.5,"longitude":-2.5}"#),
    ];
    let mut members: Vec<String> = valid
        .into_iter()
        .filter(|(name, _)| *name != member)
        .map(|(name, value)| format!("{name:?}:{value}"))
        .collect();
    members.extend(value.map(|value| format!("{member:?}:{value}")));
    format!("{{{}}}", members.join(","))
}

fn rejection(text: impl AsRef<[u8]>) -> Rejection {
    let text = text.as_ref();
    match Transaction::parse(text) {
        Err(rejection) => rejection,
        Ok(_) => panic!(
            "{:?} was taken",
            String::from_utf8_lossy(&text[..text.len().min(200)])
        ),
    }
}

#[test]
fn the_text_from_which_the_others_are_made_is_valid() {
    assert!(Transaction::parse(with("note", Some("null")).as_bytes()).is_ok());
}

#[test]
fn each_wrong_member_is_named() {
    let long = format!("\"{}\"", "x".repeat(129));
    let megabyte = format!("\"{}\"", "x".repeat(1 << 20));
    let escapes = format!("\"{}\"", "\\u0041".repeat(1 << 18));
    let exponents = format!("1e{}", "9".repeat(10_000));
    let digits = "9".repeat(1 << 20);
    let ids = [
        "null",
        "1",
        "true",
        "[]",
        "{}",
        r#""""#,
        &long,
        &megabyte,
        &escapes,
        r#""\u0000""#,
        r#""\ud800""#,
    ];
    let amounts = [
        "null",
        "true",
        "[]",
        "{}",
        r#""""#,
        r#"" 1""#,
        r#""1e3""#,
        r#""NaN""#,
        r#""Infinity""#,
        r#""-1""#,
        r#""0x10""#,
        r#""1,000""#,
        r#""\u0661""#,
        r#""\ud800""#,
        "-1",
        "-0.00001",
        "1e400",
        "1e13",
        "1.00001",
        "1e-5",
        "1000000000000.0001",
        &exponents,
        &digits,
    ];
    let timestamps = [
        "null",
        "1767225600",
        "true",
        "[]",
        "{}",
        r#""""#,
        r#""now""#,
        r#""2026-03-01""#,
        r#""2026-02-30T00:00:00Z""#,
        r#""2026-03-01T25:00:00Z""#,
        r#""+2026-03-01T12:30:00Z""#,
        r#""10000-01-01T00:00:00Z""#,
        r#""2026-03-01T12:30:00+25:00""#,
        r#""2026-03-01T12:30:00Z ""#,
        r#""٢٠٢٦-03-01T12:30:00Z""#,
        r#""\ud800""#,
        &megabyte,
    ];
    for (member, values) in [
        ("transaction_id", &ids[..]),
        ("user_id", &ids),
        ("amount", &amounts),
        ("timestamp", &timestamps),
    ] {
        assert_eq!(rejection(with(member, None)).field, member, "left out");
        for value in values {
            let rejection = rejection(with(member, Some(value)));
            assert_eq!(
                rejection.field, member,
                "{} for {:.60}",
                rejection.reason, value
            );
            assert!(!rejection.malformed && rejection.reason.len() < 100);
        }
    }
}

#[test]
fn each_wrong_location_is_named_with_its_coordinate() {
    for (value, field) in [
        ("1", "location"),
        ("true", "location"),
        (r#""1,2""#, "location"),
        ("[1,2]", "location"),
        (r#"{"latitude":1}"#, "location.longitude"),
        (r#"{"longitude":1}"#, "location.latitude"),
        (r#"{"latitude":1,"longitude":null}"#, "location.longitude"),
        (
            r#"{"latitude":90.0000001,"longitude":1}"#,
            "location.latitude",
        ),
        (r#"{"latitude":-1e400,"longitude":1}"#, "location.latitude"),
        (r#"{"latitude":1,"longitude":180.1}"#, "location.longitude"),
        (r#"{"latitude":"1,5","longitude":1}"#, "location.latitude"),
        (r#"{"latitude":1,"longitude":"1 E"}"#, "location.longitude"),
        (r#"{"latitude":1,"longitude":"inf"}"#, "location.longitude"),
        (
            r#"{"latitude":"1\u0030","longitude":1}"#,
            "location.latitude",
        ),
        (r#"{"latitude":"91","longitude":1}"#, "location.latitude"),
        (r#"{"latitude":"","longitude":1}"#, "location.latitude"),
        (r#"{"latitude":"NaN","longitude":1}"#, "location.latitude"),
        (r#"{"latitude":[1],"longitude":1}"#, "location.latitude"),
        (r#"{"latitude":true,"longitude":1}"#, "location.latitude"),
        (r#"{"latitude":1,"latitude":1,"longitude":1}"#, "location"),
    ] {
        assert_eq!(
            rejection(with("location", Some(value))).field,
            field,
            "{value}"
        );
    }
}

#[test]
fn a_location_that_says_nothing_is_none() {
    for value in [
        "null",
        "{}",
        r#""""#,
        r#"{"latitude":null,"longitude":null}"#,
        r#"{"latitude":"","longitude":""}"#,
        r#"{"accuracy":{"m":5}}"#,
    ] {
        let text = with("location", Some(value));
        assert_eq!(
            Transaction::parse(text.as_bytes()).unwrap().location,
            None,
            "{value}"
        );
    }
}

#[test]
fn coordinates_in_strings_are_read_as_numbers() {
    let plain = with("location", Some(r#"{"latitude":52.5,"longitude":-13}"#));
    let expected = Transaction::parse(plain.as_bytes()).unwrap().location;
    assert!(expected.is_some());
    for value in [
        r#"{"latitude":"52.5","longitude":"-13"}"#,
        r#"{"latitude":52.5,"longitude":"-13.0"}"#,
        r#"{"longitude":" -13","latitude":"+52.50 "}"#,
        r#"{"latitude":"5.25e1","longitude":-13}"#,
    ] {
        let text = with("location", Some(value));
        let read = Transaction::parse(text.as_bytes()).unwrap();
        assert_eq!(read.location, expected, "{value}");
        assert_eq!(read.json, text, "the text stays as it came");
    }
}

#[test]
fn a_timestamp_that_is_a_number_is_told_why_it_is_not_read() {
    for value in ["1767225600", r#""1767225600000""#] {
        let reason = rejection(with("timestamp", Some(value))).reason;
        assert!(reason.contains("seconds or milliseconds"), "{reason}");
    }
}

#[test]
fn what_is_no_json_object_is_malformed() {
    for text in [
        "",
        " \n\t",
        "null",
        "1",
        "\"text\"",
        "[]",
        "{",
        "{}}",
        "{]",
        "{\"amount\"}",
        "{\"amount\":}",
        "{\"amount\":1,}",
        "{'amount':1}",
        "{}{}",
        "{\"a\":nul}",
        "{\"a\":01}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\n\"}",
        "NaN",
        "{\"a\":NaN}",
        "{\"a\":Infinity}",
        "{\"a\":+1}",
        "{\"a\":.5}",
        "{\"a\":1 2}",
        "{\0}",
        "\0",
    ] {
        let rejection = rejection(text);
        assert!(rejection.malformed, "{text:?}: {rejection}");
    }
    assert!(rejection(b"{\"user_id\":\"\xff\"}").malformed);
    for text in ["{\"amount\":NaN}", "{\"amount\":1e}", "{\"amount\":1.}"] {
        let rejection = rejection(text);
        assert_eq!(
            (rejection.field, rejection.malformed),
            ("amount", true),
            "{text}"
        );
    }
}

#[test]
fn a_member_given_twice_is_refused_by_name_even_in_disguise() {
    for (member, disguised, value) in [
        ("transaction_id", r"transaction_\u0069d", r#""t-1""#),
        ("user_id", r"\u0075ser_id", r#""u-2""#),
        ("amount", r"am\u006funt", "1"),
        ("timestamp", r"timestam\u0070", r#""2026-03-01T12:30:00Z""#),
        ("location", r"l\u006fcation", "null"),
    ] {
        for name in [member, disguised] {
            let text = with("note", Some("1")).replacen('{', &format!("{{\"{name}\":{value},"), 1);
            assert_eq!(rejection(&text).field, member, "{text}");
        }
    }
}

#[test]
fn nesting_is_limited_and_a_bracket_in_a_string_is_none() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(Transaction::parse(with("note", Some(&nested(MAX_DEPTH - 1))).as_bytes()).is_ok());
    assert!(
        rejection(with("note", Some(&nested(MAX_DEPTH))))
            .reason
            .contains("nested")
    );
    let deep = nested(100_000);
    for member in ["note", "location"] {
        for value in [
            deep.clone(),
            format!("{{\"a\":{deep}}}"),
            "{\"a\":".repeat(50_000) + "1" + &"}".repeat(50_000),
        ] {
            let rejection = rejection(with(member, Some(&value)));
            assert!(
                !rejection.reason.is_empty() && rejection.reason.len() < 100,
                "{rejection}"
            );
        }
    }
    for member in ["transaction_id", "user_id", "amount", "timestamp"] {
        assert_eq!(rejection(with(member, Some(&deep))).field, member);
    }
    for unclosed in [
        "[".repeat(100_000),
        "{\"a\":".repeat(100_000),
        format!("{{\"a\":{}", "[".repeat(100_000)),
    ] {
        assert!(rejection(&unclosed).malformed);
        assert_eq!(Transaction::id_of_rejected(unclosed.as_bytes()), None);
    }
    let text = format!("\"\\\"{}\"", "[{".repeat(1_000));
    assert!(Transaction::parse(with("note", Some(&format!("[{text}]"))).as_bytes()).is_ok());
    let bomb = format!("[{}0]", "[],".repeat(100_000));
    assert!(Transaction::parse(with("note", Some(&bomb)).as_bytes()).is_ok());
}

#[test]
fn the_id_of_a_rejected_text_is_made_out_wherever_it_can_be() {
    for (text, expected) in [
        (r#"{"transaction_id":"t","amount":-1}"#, Some("t")),
        (r#"{"amount":-1,"transaction_id":"a\u0042"}"#, Some("aB")),
        (r#"{"transaction_id":"t","amount":"#, Some("t")),
        (r#"{"x":[[[{}]]],"transaction_id":"t""#, Some("t")),
        (r#"{"transaction_id":"t","transaction_id":"u"}"#, Some("t")),
        (r#"{"transaction_id":""}"#, None),
        (r#"{"transaction_id":7}"#, None),
        (r#"{"transaction_id":"\ud800"}"#, None),
        (r#"{"x":{"transaction_id":"t"}}"#, None),
        (r#"[{"transaction_id":"t"}]"#, None),
        ("", None),
    ] {
        assert_eq!(
            Transaction::id_of_rejected(text.as_bytes()).as_deref(),
            expected,
            "{text}"
        );
    }
    let not_utf8 = b"{\"transaction_id\":\"t\",\"merchant_id\":\"\xe9\"}";
    assert!(Transaction::parse(not_utf8).is_err());
    assert_eq!(Transaction::id_of_rejected(not_utf8).as_deref(), Some("t"));
    let long = with("transaction_id", Some(&format!("\"{}\"", "x".repeat(129))));
    assert_eq!(Transaction::id_of_rejected(long.as_bytes()), None);
}

fn takes_or_refuses(bytes: &[u8]) {
    if let Err(rejection) = Transaction::parse(bytes) {
        assert!(!rejection.reason.is_empty());
        assert!(rejection.to_string().len() < 200, "{rejection}");
    }
    let _ = Transaction::id_of_rejected(bytes);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        takes_or_refuses(&bytes);
    }

    #[test]
    fn no_text_of_jsons_own_characters_panics(text in "[\\[\\]{}:,\"\\\\u0dD8eE.+\\- a-z\\n]{0,200}") {
        takes_or_refuses(text.as_bytes());
        takes_or_refuses(format!("{{\"transaction_id\":{text}}}").as_bytes());
    }

    #[test]
    fn no_valid_text_with_a_few_bytes_changed_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..6),
    ) {
        let mut bytes = with("note", Some(r#"{"a":[1,"\u00e9\\\"",null]}"#)).into_bytes();
        for (at, byte, how) in changes {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => bytes.truncate(at + 1),
            }
        }
        takes_or_refuses(&bytes);
    }

    #[test]
    fn any_json_in_place_of_a_member_is_taken_or_refused_by_that_name(
        member in prop::sample::select(vec!["transaction_id", "user_id", "amount", "timestamp", "location"]),
        value in "(\"[^\"\\\\\\x00-\\x1f]{0,30}\"|-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?([eE][-+]?[0-9]{1,4})?|null|true|\\[\\]|\\{\\})",
    ) {
        if let Err(rejection) = Transaction::parse(with(member, Some(&value)).as_bytes()) {
            prop_assert!(rejection.field.starts_with(member), "{} for {}", rejection, value);
        }
    }
}
