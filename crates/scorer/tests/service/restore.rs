//! What a scorer knows after a restart from the log alone, over the embedded log with a journal.

use std::path::Path;

use tollgate_log::{AuthenticationConfig, KafkaConfig, Log, ProducerRecord};
use tollgate_types::{Decision, Indicator, Timestamp, headers};

use crate::harness::Harness;

const HOUR: i64 = 3_600_000;

fn log(directory: &Path, authentication: AuthenticationConfig) -> Log {
    Log::open(KafkaConfig {
        partitions: 1,
        journal: directory.join("journal.db").to_string_lossy().into_owned(),
        authentication,
        ..KafkaConfig::default()
    })
    .unwrap()
}

fn key(id: &str) -> AuthenticationConfig {
    AuthenticationConfig::with_key(id, "0123456789abcdef0123456789abcdef")
}

/// Writes a payment of 12.34, made and recorded so many hours ago.
fn pay(scorer: &Harness, id: &str, made: i64, recorded: i64, sender: Option<&[u8]>) {
    let ago = |hours: i64| tollgate_service::now().micros() / 1_000 - hours * HOUR;
    let time = Timestamp::from_millis(ago(made)).unwrap();
    let json = format!(
        r#"{{"transaction_id":"{id}","user_id":"u","amount":"12.34","timestamp":"{time}"}}"#
    );
    let claim = sender.map(|sender| (headers::SENDER, Some(sender)));
    scorer.put(&ProducerRecord {
        headers: claim.as_slice(),
        timestamp_ms: Some(ago(recorded)),
        ..ProducerRecord::signed(&scorer.kafka.topics().transactions, b"u", json.as_bytes())
    });
}

/// Whether the n-th decision counts a repeated amount.
fn repeats(scorer: &Harness, n: usize) -> bool {
    let decisions = scorer.read(&scorer.kafka.topics().decisions, n);
    let decision = Decision::parse(&decisions[n - 1].payload).unwrap();
    decision
        .fraud_indicators
        .contains(Indicator::SUSPICIOUS_PATTERN)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_three_days_older_than_its_record_is_scored_alike_after_a_restart_from_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let first = Harness::on(
        log(directory.path(), AuthenticationConfig::default()),
        |_| {},
    )
    .await;
    // Six days and 23 hours before a payment of 71 hours ago, in records that are a day older than they.
    pay(&first, "a", 71 + 167, 71 + 167 + 23, None);
    pay(&first, "b", 71 + 166, 71 + 166 + 23, None);
    assert!(!repeats(&first, 2));
    first.stop().await;

    let second = Harness::on(
        log(directory.path(), AuthenticationConfig::default()),
        |_| {},
    )
    .await;
    pay(&second, "c", 71, 0, None);
    assert!(repeats(&second, 3));
    assert!(!second.readiness().await.contains("\"history\""));
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_without_records_of_a_removed_key_is_used_with_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let sender = Some(&b"00112233aabbccdd"[..]);
    let first = Harness::on(log(directory.path(), key("old")), |_| {}).await;
    pay(&first, "a", 3, 3, sender);
    pay(&first, "b", 2, 2, sender);
    assert!(!repeats(&first, 2));
    assert!(!first.readiness().await.contains("history_keys"));
    first.stop().await;

    let second = Harness::on(log(directory.path(), key("new")), |_| {}).await;
    pay(&second, "c", 1, 1, sender);
    assert!(!repeats(&second, 3), "the old key is unknown");
    let answer = second.readiness().await;
    assert!(answer.contains("history_keys"), "{answer}");
    second.stop().await;

    // The old key behind the new one, as during a rotation.
    let mut both = key("new");
    both.keys.extend(key("old").keys);
    let third = Harness::on(log(directory.path(), both), |_| {}).await;
    pay(&third, "d", 0, 0, sender);
    assert!(repeats(&third, 4));
    assert!(!third.readiness().await.contains("history_keys"));
    third.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_without_a_key_of_their_own_are_warned_about() {
    for (snapshot_key, is_warned) in [("", true), ("0123456789abcdef0123456789abcdef", false)] {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = format!("file://{}", directory.path().join("snapshots").display());
        std::fs::create_dir(directory.path().join("snapshots")).unwrap();
        let change = |config: &mut tollgate_scorer::ScorerConfig| {
            config.snapshots = snapshots;
            config.snapshot_key = tollgate_service::secret::Secret::new(snapshot_key);
        };
        let log = log(directory.path(), AuthenticationConfig::default());
        let scorer = Harness::on(log, change).await;
        let answer = scorer.readiness().await;
        assert_eq!(
            answer.contains("scorer.snapshot_key"),
            is_warned,
            "{answer}"
        );
        scorer.stop().await;
    }
}
