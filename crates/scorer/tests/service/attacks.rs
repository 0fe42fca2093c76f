//! Attempts to get around the rules, from outside: records on the topic of transactions, over the embedded log.

use tollgate_log::ProducerRecord;
use tollgate_types::{Decision, Indicator, Reply, Status, Timestamp, headers};

use crate::harness::{ADDRESS, Harness};

const HOUR: i64 = 3_600_000;
const NOW: i64 = 1_772_000_000_000;

type Headers<'a> = &'a [(&'a str, Option<&'a [u8]>)];

impl Harness {
    /// Writes a payment of one user with timestamps in milliseconds: its own, and that of its record.
    fn pay(&self, id: &str, amount: &str, time_ms: i64, record_ms: i64, headers: Headers<'_>) {
        let time = Timestamp::from_millis(time_ms).unwrap();
        let json = format!(
            r#"{{"transaction_id":"{id}","user_id":"u","amount":"{amount}","timestamp":"{time}"}}"#
        );
        let record = ProducerRecord {
            headers,
            timestamp_ms: Some(record_ms),
            ..ProducerRecord::new(&self.kafka.topics().transactions, b"u", json.as_bytes())
        };
        self.put(&record);
    }

    /// The ids of all records of a topic that were written before this one's decision.
    fn ids(&self, topic: &str, count: usize) -> Vec<String> {
        let records = self.read(topic, count);
        let ids = records.iter().map(|record| {
            let reply = Reply::parse(&record.payload).unwrap();
            reply.transaction_id.into_owned()
        });
        ids.collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_with_made_up_timestamps_are_counted_by_the_timestamps_of_their_records() {
    let scorer = Harness::start(|_| {}).await;
    for n in 0..20 {
        let time = NOW - n * 3 * HOUR;
        scorer.pay(&format!("p{n}"), "1500", time, NOW + n, &[]);
    }
    let decisions = scorer.read(&scorer.kafka.topics().decisions, 20);
    for (n, record) in decisions.iter().enumerate() {
        let decision = Decision::parse(&record.payload).unwrap();
        let fired = decision.fraud_indicators.contains(Indicator::HIGH_VELOCITY);
        assert_eq!(fired, n >= 4, "{n}");
    }
    scorer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_amount_under_a_known_id_is_decided_for_itself_and_alerted() {
    let scorer = Harness::start(|_| {}).await;
    let topics = scorer.kafka.topics().clone();
    scorer.pay("id", "1.00", NOW, NOW, &[]);
    scorer.pay("id", "98765.00", NOW, NOW + 1, &[]);
    scorer.pay("id", "1.00", NOW, NOW + 2, &[]);
    let decisions = scorer.read(&topics.decisions, 3);
    let decisions: Vec<_> = decisions
        .iter()
        .map(|record| Decision::parse(&record.payload).unwrap())
        .collect();
    let told = decisions
        .iter()
        .map(|each| (each.status, each.duplicate, each.conflict));
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            (Status::Approved, false, false),
            (Status::Blocked, false, true),
            (Status::Approved, true, false),
        ]
    );
    let alert = &scorer.read(&topics.alerts, 1)[0];
    let alert = Decision::parse(&alert.payload).unwrap();
    assert!(alert.conflict && alert.transaction.get().contains("98765.00"));
    scorer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_is_not_told_to_another_sender_who_repeats_the_id() {
    let scorer = Harness::start(|_| {}).await;
    let topics = scorer.kafka.topics().clone();
    let from = |sender: &'static [u8]| {
        [
            (headers::REPLY_TO, Some(ADDRESS)),
            (headers::SENDER, Some(sender)),
        ]
    };
    let (own, other) = (from(b"00112233aabbccdd"), from(b"ffeeddccbbaa0099"));
    for headers in [&own, &other, &own] {
        scorer.pay("id", "4200", NOW, NOW, headers);
    }
    let replies = scorer.read(&topics.replies, 3);
    let replies: Vec<_> = replies
        .iter()
        .map(|record| Reply::parse(&record.payload).unwrap())
        .collect();
    assert!(!replies[0].is_error && !replies[2].is_error);
    let refused = replies[1].error().unwrap();
    assert_eq!(
        (&*refused.kind, refused.field.as_deref()),
        ("id_taken", Some("transaction_id"))
    );
    assert!(!replies[1].text.get().contains("score"));
    // The decision on the log is that of every duplicate.
    for record in scorer.read(&topics.decisions, 3) {
        let decision = Decision::parse(&record.payload).unwrap();
        assert_eq!(decision.status, Status::Review);
    }
    scorer.stop().await;
}

/// An amount is a number, however it is spelled: none of its spellings is another payment, and no other amount is the same.
#[tokio::test(flavor = "multi_thread")]
async fn the_spelling_of_an_amount_makes_neither_a_conflict_nor_a_duplicate() {
    let scorer = Harness::start(|_| {}).await;
    let topics = scorer.kafka.topics().clone();
    let spellings = [
        "1", "1.0", "1.0000", "1e0", "10e-1", "\"1\"", "\"1.00\"", "1.0001",
    ];
    for amount in spellings {
        let json = format!(
            r#"{{"transaction_id":"t","user_id":"u","amount":{amount},"timestamp":"2026-02-25T06:00:00Z"}}"#
        );
        scorer.put(&ProducerRecord::new(
            &topics.transactions,
            b"u",
            json.as_bytes(),
        ));
    }
    let decisions = scorer.read(&topics.decisions, spellings.len());
    for (n, (record, spelling)) in decisions.iter().zip(spellings).enumerate() {
        let decision = Decision::parse(&record.payload).unwrap();
        let told = (decision.duplicate, decision.conflict);
        let expected = (n > 0 && spelling != "1.0001", spelling == "1.0001");
        assert_eq!(told, expected, "{spelling}");
    }
    scorer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backfill_is_decided_and_causes_no_alert_and_no_reply() {
    let scorer = Harness::start(|_| {}).await;
    let topics = scorer.kafka.topics().clone();
    let backfill = [
        (headers::REPLY_TO, Some(ADDRESS)),
        (headers::BACKFILL, Some(&b"1"[..])),
    ];
    let waiting = [(headers::REPLY_TO, Some(ADDRESS))];
    scorer.pay("current", "1", NOW, NOW, &[]);
    scorer.pay("imported", "98765", NOW, NOW, &backfill);
    scorer.pay("imported late", "2", NOW - 200 * HOUR, NOW, &backfill);
    scorer.pay("late", "3", NOW - 200 * HOUR, NOW, &waiting);
    scorer.pay("last", "98765", NOW, NOW, &waiting);
    let decisions = scorer.read(&topics.decisions, 5);
    let told: Vec<_> = decisions
        .iter()
        .map(|record| {
            let decision = Decision::parse(&record.payload).unwrap();
            (decision.status, decision.late)
        })
        .collect();
    assert_eq!(
        told,
        [
            (Status::Approved, false),
            (Status::Review, false),
            (Status::Approved, true),
            (Status::Review, true),
            (Status::Review, false),
        ]
    );
    // Both are in the order of the transactions.
    assert_eq!(scorer.ids(&topics.alerts, 2), ["late", "last"]);
    assert_eq!(scorer.ids(&topics.replies, 2), ["late", "last"]);
    scorer.stop().await;
}
