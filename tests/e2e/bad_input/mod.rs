//! Bad records among good ones, as any producer may write them: each becomes a dead letter, and blocks no other record.
#![cfg(all(feature = "kafka", feature = "postgres"))]

mod records;

use std::collections::HashMap;
use std::time::Duration;

use serde_json::json;
use tollgate_tests::deployment::Deployment;
use tollgate_tests::kafka::{LogRecord, Writer};
use tollgate_tests::load::post;
use tollgate_types::{Decision, Stage, Timestamp, headers};

use records::{Bad, bad_records, good, odd_but_good, with};

const LIMIT: Duration = Duration::from_secs(60);
/// The longest that a good record may wait behind bad ones, from being written to being decided.
const PROMPT_MICROS: i64 = 10_000_000;

/// What was written to the topic.
struct Sent {
    bad: Vec<Bad>,
    /// Good transactions as they were sent, by user and id.
    good: HashMap<(String, String), String>,
    /// Records that become dead letters.
    dead: usize,
    /// Bytes of the one record that is too large for a dead letter.
    huge: usize,
}

/// Writes every bad record between two good ones of the same user, then records without keys, without a payload, from the
/// future, and one too large for a dead letter.
fn write_everything(writer: &Writer, topic: &str) -> anyhow::Result<Sent> {
    let write = |key: Option<&str>, payload: &[u8]| {
        let own = [
            ("x-own", "kept"),
            (
                headers::TRACEPARENT,
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            ),
        ];
        writer.write(topic, key.map(str::as_bytes), Some(payload), &own)
    };
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
    write(None, b"hello")?;
    write(Some(""), b"hello")?;
    writer.write(topic, Some(b"nothing"), None, &[])?;
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
    Ok(Sent {
        dead: bad.len() + 6,
        bad,
        good: expected,
        huge: huge.len(),
    })
}

/// Each bad record is on the dead-letter topic with its payload, its place and the reason.
fn check_dead_letters(
    sent: &Sent,
    letters: &[LogRecord],
    records: &[LogRecord],
    topic: &str,
) -> anyhow::Result<()> {
    assert_eq!(letters.len(), sent.dead);
    let mut reasons: HashMap<&[u8], Vec<(String, String)>> = HashMap::new();
    for letter in letters {
        let reason = ensure_complete(letter, records, topic)?;
        reasons.entry(&letter.payload).or_default().push(reason);
    }
    let mut wrong = Vec::new();
    for each in &sent.bad {
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
    assert!(
        wrong.is_empty(),
        "dead letters for other reasons: {wrong:#?}"
    );
    let ahead = letters
        .iter()
        .filter(|letter| letter.header(headers::ERROR_KIND).as_deref() == Some("timestamp_ahead"));
    assert_eq!(ahead.count(), 2);
    let cut: Vec<String> = letters
        .iter()
        .filter_map(|letter| letter.header(headers::TRUNCATED_FROM))
        .collect();
    assert_eq!(cut, [sent.huge.to_string()]);
    Ok(())
}

/// No decision waited longer than [`PROMPT_MICROS`] since its record was written.
fn check_prompt(decisions: &[LogRecord], records: &[LogRecord]) -> anyhow::Result<()> {
    let written: HashMap<&[u8], i64> = records
        .iter()
        .map(|record| (&*record.payload, record.timestamp_ms))
        .collect();
    for record in decisions {
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
    Ok(())
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
    let sent = write_everything(&log.writer()?, &topics.transactions)?;
    deployment.caught_up(Stage::Scorer, LIMIT).await?;
    deployment.caught_up(Stage::Persistence, LIMIT).await?;

    let records = log.read(&topics.transactions)?;
    let letters = log.read(&topics.transactions_dlq)?;
    check_dead_letters(&sent, &letters, &records, &topics.transactions)?;
    assert_eq!(log.count(&topics.decisions_dlq)?, 0);

    let stored = deployment.store.transactions().await?;
    for ((user, id), text) in &sent.good {
        assert!(
            stored.contains_key(&(user.clone(), id.clone())),
            "{user}/{id} is not stored"
        );
        assert_eq!(&deployment.store.body(user, id).await?, text);
    }
    assert_eq!(stored.len(), sent.good.len());
    check_prompt(&log.read(&topics.decisions)?, &records)?;
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
        .ok_or_else(|| anyhow::anyhow!("a dead letter from {place:?}, where there is no record"))?;
    assert_eq!(letter.key, source.key);
    if letter.header(headers::TRUNCATED_FROM).is_some() {
        assert!(source.payload.starts_with(&letter.payload));
        assert!((980_000..990_000).contains(&letter.payload.len()));
    } else {
        assert!(letter.payload == source.payload, "{}", letter.offset);
    }
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
