//! Payloads that are no transaction, and some that only look as if they were none.

use serde_json::json;

/// Event time of the transactions.
const TIME: &str = "2026-03-02T08:00:00Z";

/// A payload that is no transaction.
pub(super) struct Bad {
    pub(super) payload: Vec<u8>,
    pub(super) kind: &'static str,
    /// A word of the reason.
    pub(super) word: &'static str,
}

fn bad(payload: impl Into<Vec<u8>>, kind: &'static str, word: &'static str) -> Bad {
    Bad {
        payload: payload.into(),
        kind,
        word,
    }
}

/// A transaction with one member as this JSON text.
pub(super) fn with(member: &str, text: &str) -> String {
    let members = [
        ("transaction_id", "\"t\""),
        ("user_id", "\"u\""),
        ("amount", "12.5"),
        ("timestamp", "\"2026-03-02T08:00:00Z\""),
    ];
    let known = members.into_iter().filter(|(name, _)| *name != member);
    let mut all: Vec<String> = known
        .map(|(name, text)| format!("\"{name}\":{text}"))
        .collect();
    if !text.is_empty() {
        all.push(format!("\"{member}\":{text}"));
    }
    format!("{{{}}}", all.join(","))
}

/// Payloads that are no JSON object, are too large, or are nested too deeply.
fn unreadable() -> Vec<Bad> {
    vec![
        bad("", "malformed", "empty"),
        bad(" \n\t", "malformed", "empty"),
        bad("hello", "malformed", "JSON"),
        bad("null", "malformed", "JSON"),
        bad("[]", "malformed", "is an array"),
        bad("{}", "invalid", "transaction_id"),
        bad(
            r#"{"transaction_id":"t","user_id":"u","amount":1"#,
            "malformed",
            "JSON",
        ),
        bad(format!("{0}{0}", with("amount", "1")), "malformed", "JSON"),
        bad(vec![0xff, 0xfe, b'{', b'}'], "malformed", "UTF-16"),
        bad(vec![0; 100], "malformed", "NUL"),
        bad("[".repeat(100_000), "malformed", "JSON"),
        bad(
            format!("[{}[]]", "[],".repeat(50_000)),
            "malformed",
            "is an array",
        ),
        bad(
            with("more", &format!("{}{}", "[".repeat(65), "]".repeat(65))),
            "invalid",
            "nested",
        ),
        bad(with("more", &"{\"a\":".repeat(20_000)), "malformed", ""),
        bad(
            with("more", &json!("x".repeat(300_000)).to_string()),
            "too_large",
            "larger",
        ),
        bad(
            with("user_id", &json!("x".repeat(900_000)).to_string()),
            "too_large",
            "larger",
        ),
        bad(
            format!("{},\"amount\":2}}", with("x", "1").trim_end_matches('}')),
            "invalid",
            "twice",
        ),
    ]
}

/// Members and texts that are no value of them; an empty text means that the member is missing.
const WRONG_MEMBERS: [(&str, &[&str]); 5] = [
    (
        "transaction_id",
        &[
            "",
            "null",
            "7",
            "\"\"",
            "\"\\ud800\"",
            "\"a\\u0000b\"",
            "[\"t\"]",
        ],
    ),
    (
        "user_id",
        &[
            "",
            "null",
            "true",
            "\"\"",
            "\"\\udc00\\ud800\"",
            "\"\\u0000\"",
            "{\"u\":1}",
        ],
    ),
    (
        "amount",
        &[
            "",
            "null",
            "true",
            "[]",
            "\"\"",
            "\"NaN\"",
            "-1",
            "-0.0001",
            "1e400",
            "1.00001",
            "\"1.00001\"",
            "\"1e3\"",
            "\"-5\"",
            "1000000000001",
            "\"12,50\"",
            "\" 1\"",
        ],
    ),
    (
        "timestamp",
        &[
            "",
            "null",
            "1772438400",
            "\"\"",
            "\"yesterday\"",
            "\"2026-02-30T00:00:00Z\"",
            "\"10000-01-01T00:00:00Z\"",
            "\"-0001-01-01T00:00:00Z\"",
            "\"0000-01-01T00:00:00Z\"",
            "\"0001-01-01T00:00:00Z\"",
            "\"1970-01-01T00:00:00Z\"",
            "\"1999-12-31T23:59:59.999999Z\"",
        ],
    ),
    (
        "location",
        &[
            "7",
            "\"Rome\"",
            "[1,2]",
            "{\"latitude\":1}",
            "{\"longitude\":1}",
            "{\"latitude\":91,\"longitude\":0}",
            "{\"latitude\":0,\"longitude\":-180.5}",
            "{\"latitude\":1e400,\"longitude\":0}",
            "{\"latitude\":\"1,5\",\"longitude\":0}",
            "{\"latitude\":\"nan\",\"longitude\":0}",
        ],
    ),
];

/// Every payload that the scorer must set aside.
pub(super) fn bad_records() -> Vec<Bad> {
    let mut all = unreadable();
    for (member, texts) in WRONG_MEMBERS {
        all.extend(
            texts
                .iter()
                .map(|text| bad(with(member, text), "invalid", member)),
        );
    }
    let long = json!("x".repeat(129)).to_string();
    all.push(bad(
        with("transaction_id", &long),
        "invalid",
        "transaction_id",
    ));
    all.push(bad(with("user_id", &long), "invalid", "user_id"));
    // NaN and Infinity are no JSON.
    all.push(bad(with("amount", "NaN"), "malformed", "JSON"));
    all.push(bad(with("amount", "-Infinity"), "malformed", "JSON"));
    all
}

/// Texts that look odd and are valid; their ids are `odd-0`, `odd-1`, … of the user of the same name.
pub(super) fn odd_but_good() -> Vec<String> {
    let members = [
        ("amount", "0"),
        ("amount", "1e12"),
        ("amount", "\"0.0001\""),
        ("amount", "1.50000e1"),
        ("timestamp", "\"2000-01-01T00:00:00Z\""),
        ("timestamp", "\"2026-03-02 09:00:00.5+01\""),
        ("timestamp", "\"2026-03-02T09:00:00.1234567+09:00\""),
        ("timestamp", "\"2026-03-02 08:00:00\""),
        ("location", "null"),
        ("location", "{\"latitude\":\"52.5\",\"longitude\":\"13.4\"}"),
        (
            "location",
            "{\"latitude\":-90,\"longitude\":180.0,\"floor\":3}",
        ),
        ("more", "\"half a pair \\ud800 and \\u0000\""),
        ("more", "1e999"),
        ("more", "123456789012345678901234567890.000000000000000001"),
        ("more", "{\"a\":1,\"a\":2}"),
        ("more", "\"\u{7f}\u{10ffff}\\/\""),
        ("more\\u0000", "{}"),
    ];
    let mut texts: Vec<String> = members
        .iter()
        .map(|(member, text)| with(member, text))
        .collect();
    texts.push(with(
        "more",
        &format!("{}{}", "[".repeat(63), "]".repeat(63)),
    ));
    texts.push(with("more", &format!("[{}1]", "1,".repeat(100_000))));
    let name = |(index, text): (usize, String)| {
        let named = text.replace("\"t\"", &format!("\"odd-{index}\""));
        named.replace("\"u\"", &format!("\"odd-{index}\""))
    };
    texts.into_iter().enumerate().map(name).collect()
}

/// A good transaction.
pub(super) fn good(user: &str, transaction: &str) -> String {
    json!({ "transaction_id": transaction, "user_id": user, "amount": "1.50", "timestamp": TIME })
        .to_string()
}
