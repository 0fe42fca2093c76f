//! Bad records among good ones, as any producer may write them: each is set aside whole, and holds nothing up.
#![cfg(all(feature = "kafka", feature = "postgres"))]

use std::collections::HashMap;
use std::time::Duration;

use serde_json::json;
use tollgate_tests::deployment::Deployment;
use tollgate_tests::kafka::LogRecord;
use tollgate_tests::load::post;
use tollgate_types::{Decision, Stage, Timestamp, headers};

const LIMIT: Duration = Duration::from_secs(60);
const TIME: &str = "2026-03-02T08:00:00Z";
/// The longest that a good record may wait behind bad ones, from being written to being decided.
const PROMPT_MICROS: i64 = 10_000_000;

/// A payload that is no transaction.
struct Bad {
    payload: Vec<u8>,
    kind: &'static str,
    /// Stands in the reason.
    word: &'static str,
}

fn bad(payload: impl Into<Vec<u8>>, kind: &'static str, word: &'static str) -> Bad {
    Bad {
        payload: payload.into(),
        kind,
        word,
    }
}

/// A transaction with one member as this JSON text.
fn with(member: &str, text: &str) -> String {
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

fn bad_records() -> Vec<Bad> {
    let mut all = vec![
        bad("", "malformed", "empty"),
        bad(" \n\t", "malformed", "empty"),
        bad("hello", "malformed", "JSON"),
        bad("null", "malformed", "JSON"),
        bad("[]", "malformed", "JSON"),
        bad("{}", "invalid", "transaction_id"),
        bad(
            r#"{"transaction_id":"t","user_id":"u","amount":1"#,
            "malformed",
            "JSON",
        ),
        bad(format!("{0}{0}", with("amount", "1")), "malformed", "JSON"),
        bad(
            format!("\u{feff}{}", with("amount", "1")),
            "malformed",
            "JSON",
        ),
        bad(vec![0xff, 0xfe, b'{', b'}'], "malformed", "UTF-8"),
        bad(vec![0; 100], "malformed", "JSON"),
        bad("[".repeat(100_000), "malformed", "JSON"),
        bad(format!("[{}[]]", "[],".repeat(50_000)), "malformed", "JSON"),
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
    ];
    let members = [
        (
            "transaction_id",
            vec![
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
            vec![
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
            vec![
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
            vec![
                "",
                "null",
                "1772438400",
                "\"\"",
                "\"yesterday\"",
                "\"2026-02-30T00:00:00Z\"",
                "\"10000-01-01T00:00:00Z\"",
                "\"-0001-01-01T00:00:00Z\"",
            ],
        ),
        (
            "location",
            vec![
                "7",
                "\"Rome\"",
                "[1,2]",
                "{\"latitude\":1}",
                "{\"longitude\":1}",
                "{\"latitude\":91,\"longitude\":0}",
                "{\"latitude\":0,\"longitude\":-180.5}",
                "{\"latitude\":1e400,\"longitude\":0}",
                "{\"latitude\":\"1\",\"longitude\":0}",
            ],
        ),
    ];
    for (member, texts) in members {
        all.extend(
            texts
                .into_iter()
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
fn odd_but_good() -> Vec<String> {
    let members = [
        ("amount", "0"),
        ("amount", "1e12"),
        ("amount", "\"0.0001\""),
        ("amount", "1.50000e1"),
        ("timestamp", "\"0000-01-01T00:00:00Z\""),
        ("timestamp", "\"2026-03-02T09:00:00.1234567+09:00\""),
        ("timestamp", "\"2026-03-02 08:00:00\""),
        ("location", "null"),
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

fn good(user: &str, transaction: &str) -> String {
    json!({ "transaction_id": transaction, "user_id": user, "amount": "1.50", "timestamp": TIME })
        .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_record_is_set_aside_whole_and_every_good_one_is_stored_without_delay()
-> anyhow::Result<()> {
    let deployment = Deployment::create("bad", 3).await?;
    let log = &deployment.log;
    let topics = log.topics();
    log.allow_records_of(&topics.transactions, 2_000_000)
        .await?;
    let (scorer, persistence) =
        tokio::try_join!(deployment.start("scorer"), deployment.start("persistence"))?;

    let writer = log.writer()?;
    let write = |key: Option<&str>, payload: &[u8]| {
        let own = [
            ("x-own", "kept"),
            (
                headers::TRACEPARENT,
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            ),
        ];
        writer.write(
            &topics.transactions,
            key.map(str::as_bytes),
            Some(payload),
            &own,
        )
    };
    // Every bad record stands right between two good ones, in the partition of their user.
    let bad = bad_records();
    let mut expected = HashMap::new();
    let mut send_good = |key: Option<&str>, user: &str, id: &str| {
        expected.insert((user.to_owned(), id.to_owned()), good(user, id));
        write(key, good(user, id).as_bytes())
    };
    for (index, each) in bad.iter().enumerate() {
        let user = format!("user-{index}");
        send_good(Some(&user), &user, "before")?;
        write(Some(&user), &each.payload)?;
        send_good(Some(&user), &user, "after")?;
    }
    send_good(None, "keyless", "t")?;
    send_good(Some(""), "empty-keyed", "t")?;
    send_good(Some("somebody"), "else", "t")?;
    for (index, text) in odd_but_good().into_iter().enumerate() {
        let id = format!("odd-{index}");
        write(Some(&id), text.as_bytes())?;
        expected.insert((id.clone(), id), text);
    }
    // Bad ones without a key, with an empty one, without a payload; one from the future; one too large for any letter.
    write(None, b"hello")?;
    write(Some(""), b"hello")?;
    writer.write(&topics.transactions, Some(b"nothing"), None, &[])?;
    for future in ["9999-12-31T23:59:59Z", &tomorrow()] {
        write(
            Some("u"),
            with("timestamp", &json!(future).to_string()).as_bytes(),
        )?;
    }
    let huge = with(
        "transaction_id",
        &json!("x".repeat(1024 * 1024)).to_string(),
    );
    write(Some("u"), huge.as_bytes())?;
    writer.flush()?;
    let set_aside = bad.len() + 6;

    deployment.caught_up(Stage::Scorer, LIMIT).await?;
    deployment.caught_up(Stage::Persistence, LIMIT).await?;

    // Each bad one is on the dead-letter topic, with what it was, where it stood, and why.
    let records = log.read(&topics.transactions)?;
    let letters = log.read(&topics.transactions_dlq)?;
    assert_eq!(letters.len(), set_aside);
    assert_eq!(log.count(&topics.decisions_dlq)?, 0);
    let mut reasons: HashMap<&[u8], Vec<(String, String)>> = HashMap::new();
    for letter in &letters {
        let reason = ensure_complete(letter, &records, &topics.transactions)?;
        reasons.entry(&letter.payload).or_default().push(reason);
    }
    let mut wrong = Vec::new();
    for each in &bad {
        let kept = &each.payload[..each.payload.len().min(990_000)];
        let found = reasons.get(kept).map_or(&[][..], Vec::as_slice);
        let right =
            |(kind, reason): &(String, String)| kind == each.kind && reason.contains(each.word);
        if found.is_empty() || !found.iter().all(right) {
            let shown = String::from_utf8_lossy(&kept[..kept.len().min(100)]).into_owned();
            let expected = (each.kind, each.word);
            wrong.push(format!("{shown}: {found:?}, expected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "set aside for other reasons: {wrong:#?}");
    let ahead = letters
        .iter()
        .filter(|letter| letter.header(headers::ERROR_KIND).as_deref() == Some("timestamp_ahead"));
    assert_eq!(ahead.count(), 2);
    let cut: Vec<String> = letters
        .iter()
        .filter_map(|letter| letter.header(headers::TRUNCATED_FROM))
        .collect();
    assert_eq!(cut, [huge.len().to_string()]);

    // Every good one is stored, as it was sent, and was decided at once.
    let stored = deployment.store.transactions().await?;
    for ((user, id), text) in &expected {
        assert!(
            stored.contains_key(&(user.clone(), id.clone())),
            "{user}/{id} is not stored"
        );
        assert_eq!(&deployment.store.body(user, id).await?, text);
    }
    assert_eq!(stored.len(), expected.len());
    let written: HashMap<Vec<u8>, i64> = records
        .iter()
        .map(|record| (record.payload.clone(), record.timestamp_ms))
        .collect();
    for record in log.read(&topics.decisions)? {
        let decision = Decision::parse(&record.payload)?;
        let at = written
            .get(decision.transaction.get().as_bytes())
            .copied()
            .unwrap_or_default();
        let waited = decision.processed_at.micros() - at * 1_000;
        assert!(
            waited < PROMPT_MICROS,
            "{} waited {waited} µs",
            decision.transaction_id
        );
    }
    tokio::try_join!(scorer.stop(), persistence.stop())?;
    Ok(())
}

/// Checks a dead letter against the record it was made of; its kind and its reason.
fn ensure_complete(
    letter: &LogRecord,
    records: &[LogRecord],
    topic: &str,
) -> anyhow::Result<(String, String)> {
    let header = |name: &str| {
        letter
            .header(name)
            .ok_or_else(|| anyhow::anyhow!("a dead letter without {name}: {:?}", letter.headers))
    };
    let place = (
        header(headers::SOURCE_PARTITION)?.parse()?,
        header(headers::SOURCE_OFFSET)?.parse()?,
    );
    let source = records
        .iter()
        .find(|record| (record.partition, record.offset) == place);
    let source = source
        .ok_or_else(|| anyhow::anyhow!("a dead letter from {place:?}, where nothing stands"))?;
    assert_eq!(letter.key, source.key);
    assert_eq!(
        letter.payload,
        source.payload[..source.payload.len().min(990_000)]
    );
    assert_eq!(
        letter.headers[..source.headers.len()],
        source.headers,
        "its own headers come first"
    );
    assert_eq!(header(headers::SOURCE_TOPIC)?, topic);
    assert_eq!(header(headers::ERROR_STAGE)?, "scorer");
    assert!(header(headers::ATTEMPTS)?.parse::<u32>()? > 0);
    assert!(
        Timestamp::parse(&header(headers::FAILED_AT)?)?.micros() >= source.timestamp_ms * 1_000
    );
    let reason = header(headers::ERROR_REASON)?;
    assert!(
        (1..300).contains(&reason.len()),
        "a reason for a person: {reason}"
    );
    Ok((header(headers::ERROR_KIND)?, reason))
}

/// A little more than a day from now.
fn tomorrow() -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let then = i64::try_from(now.as_millis()).unwrap_or_default() + 25 * 3_600_000;
    Timestamp::from_millis(then)
        .map(|time| time.to_string())
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_line_in_the_middle_of_ndjson_is_rejected_alone() -> anyhow::Result<()> {
    let deployment = Deployment::create("lines", 2).await?;
    let mut ingest = deployment.start("ingest").await?;
    let lines = [
        good("u", "a"),
        "{\"transaction_id\":".to_owned(),
        good("u", "b"),
        with("amount", "NaN"),
        good("u", "c"),
    ];
    let address = ingest.address("ingest").await?;
    let answer = post(
        &reqwest::Client::new(),
        &address,
        lines.join("\n").into_bytes(),
    )
    .await?;
    assert_eq!((answer.accepted, answer.rejected), (3, 2));
    let rejected: Vec<usize> = answer
        .results
        .iter()
        .filter(|result| result.status == "rejected")
        .map(|result| result.index)
        .collect();
    assert_eq!(rejected, [1, 3]);
    let written = deployment.log.read(&deployment.log.topics().transactions)?;
    let payloads: Vec<&[u8]> = written
        .iter()
        .map(|record| record.payload.as_slice())
        .collect();
    assert_eq!(
        payloads,
        [&lines[0], &lines[2], &lines[4]].map(|line| line.as_bytes())
    );
    ingest.stop().await
}
