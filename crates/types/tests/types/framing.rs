//! Transactions in the framings of serializers and connectors: the reason of the refusal names the framing.

use proptest::prelude::*;
use tollgate_types::{CardDataMode, CardPolicy, Transaction};

const PLAIN: &str =
    r#"{"transaction_id":"k","user_id":"u","amount":"12.50","timestamp":"2026-11-30T18:10:39Z"}"#;

fn reason(text: &[u8]) -> String {
    Transaction::parse(text).unwrap_err().to_string()
}

#[test]
fn each_framing_is_named() {
    let envelope = |text: &str| text.replace("PLAIN", PLAIN).into_bytes();
    let twice = serde_json::to_string(PLAIN).unwrap();
    let utf16: Vec<u8> = PLAIN.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (text, named) in [
        (
            [b"\0\0\0\0\x07", PLAIN.as_bytes()].concat(),
            "Confluent's Schema Registry",
        ),
        (
            b"\0\0\0\0\x07\x04k5\x06u-k\n12.50".to_vec(),
            "Confluent's Schema Registry",
        ),
        (
            envelope(r#"{"schema":{"type":"struct","fields":[]},"payload":PLAIN}"#),
            "Kafka Connect",
        ),
        (
            envelope(r#"{"before":null,"after":PLAIN,"source":{"table":"p"},"op":"c"}"#),
            "Debezium",
        ),
        (
            envelope(r#"{"schema":{},"payload":{"before":null,"after":PLAIN,"op":"c"}}"#),
            "Kafka Connect",
        ),
        (
            envelope(r#"{"specversion":"1.0","id":"1","type":"p","source":"s","data":PLAIN}"#),
            "CloudEvent",
        ),
        (envelope("[PLAIN,PLAIN]"), "is an array"),
        (
            envelope(r#"{"messages":[{"value":PLAIN}]}"#),
            "batch of messages",
        ),
        (twice.into_bytes(), "encoded twice"),
        ([PLAIN.as_bytes(), b"\0"].concat(), "NUL bytes"),
        ([PLAIN.as_bytes(), &[0; 40]].concat(), "NUL bytes"),
        (utf16.clone(), "UTF-16"),
        ([b"\xff\xfe", &*utf16].concat(), "UTF-16"),
        (b"\x1f\x8b\x08\0\0\0\0\0".to_vec(), "gzip"),
        (b"Obj\x01\x04\x14".to_vec(), "Avro"),
        (b"PAR1\x15\x04".to_vec(), "Parquet"),
    ] {
        let reason = reason(&text);
        assert!(reason.contains(named), "{named}: {reason}");
        // As the scorer reads it, which takes card data out first.
        let protected = CardPolicy::new(CardDataMode::Mask, None)
            .protect(&text)
            .text
            .into_owned();
        assert_eq!(
            Transaction::parse(&protected).unwrap_err().to_string(),
            reason
        );
    }
    // What is none is refused for what it lacks.
    for (text, wrong) in [
        ("[1,", "malformed"),
        ("{\"schema\":1}", "transaction_id"),
        ("\"x", "malformed"),
        ("\0", "malformed"),
    ] {
        assert!(reason(text.as_bytes()).contains(wrong), "{text}");
    }
}

#[test]
fn a_byte_order_mark_is_skipped_and_white_space_at_the_end_too() {
    for text in [
        format!("\u{feff}{PLAIN}"),
        format!("{PLAIN}\r"),
        format!("\u{feff} {PLAIN}\r\n"),
    ] {
        let read = Transaction::parse(text.as_bytes()).unwrap();
        assert_eq!(read.json, PLAIN);
        assert_eq!(
            Transaction::id_of_rejected(text.as_bytes()).as_deref(),
            Some("k")
        );
    }
    // Card data is taken out of it as of a text without one.
    let with = format!(
        "\u{feff}{}",
        PLAIN.replace("{", r#"{"cvv":"987","a":"\ufeff{\"pin\":\"1234\"}","#)
    );
    let done = CardPolicy::new(CardDataMode::Mask, None)
        .protect(with.as_bytes())
        .text
        .into_owned();
    let text = String::from_utf8(done).unwrap();
    assert!(!text.contains("987") && !text.contains("1234"), "{text}");
    assert!(Transaction::parse(text.as_bytes()).is_ok());
}

proptest! {
    #[test]
    fn no_framing_is_seen_in_what_is_valid(mark: bool, blanks in "[ \r\n]{0,3}") {
        let mark = if mark { "\u{feff}" } else { "" };
        let text = format!("{mark}{blanks}{PLAIN}{blanks}");
        prop_assert!(Transaction::parse(text.as_bytes()).is_ok());
    }
}
