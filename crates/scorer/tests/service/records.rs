//! The scorer from outside: records on its topic, records on the topics that it writes, over the embedded log.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tollgate_engine::{Engine, Money, Origin, Rules};
use tollgate_log::{Acks, AuthenticationConfig, LogRecord, ProducerRecord, Provenance};
use tollgate_scorer::Mode;
use tollgate_types::{
    Currency, Decision, Indicator, Partitioner, Rate, Reply, Status, Timestamp, TopicKind,
    Transaction, headers,
};

use crate::harness::{ADDRESS, Harness, take};

fn transaction(user: &str, n: usize, amount: &str) -> String {
    let (minute, second) = (n / 60, n % 60);
    format!(
        r#"{{"transaction_id":"t{n}","user_id":"{user}","amount":"{amount}","timestamp":"2026-03-01T10:{minute:02}:{second:02}Z","merchant":"m{n}"}}"#
    )
}

/// What the engine says of the same transactions in the same order per user.
fn expected(transactions: &[String]) -> HashMap<(String, String), (f64, bool)> {
    let mut engine = Engine::new(Arc::new(Rules::default()), [7; 16]);
    let mut all = HashMap::new();
    for json in transactions {
        let transaction = Transaction::parse(json.as_bytes()).unwrap();
        let verdict = engine.score(&transaction, &Origin::default());
        let key = (
            transaction.user_id.into_owned(),
            transaction.transaction_id.into_owned(),
        );
        all.entry(key)
            .or_insert((verdict.score, verdict.status.is_alert()));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mode_decides_as_the_engine_does_on_the_log() {
    let transactions: Vec<String> = (0..600)
        .map(|n| {
            transaction(
                &format!("u{}", n % 17),
                n,
                if n % 7 == 0 { "4500" } else { "12.5" },
            )
        })
        .collect();
    let expected = expected(&transactions);
    for mode in [Mode::Parallel, Mode::Ordered, Mode::Batch] {
        let harness = Harness::start(|config| {
            config.mode = mode;
            config.batch.max_wait_ms = 20;
        })
        .await;
        transactions
            .iter()
            .for_each(|json| harness.put_transaction(json));
        let topics = harness.kafka.topics().clone();
        let decisions = harness.read(&topics.decisions, transactions.len());
        for record in &decisions {
            let decision = Decision::parse(&record.payload).unwrap();
            let key = (
                decision.user_id.into_owned(),
                decision.transaction_id.into_owned(),
            );
            assert_eq!(record.key.as_deref(), Some(key.0.as_bytes()));
            assert_eq!(
                decision.fraud_score.to_bits(),
                expected[&key].0.to_bits(),
                "{mode:?} {key:?}"
            );
            assert!(
                transactions
                    .iter()
                    .any(|json| json == decision.transaction.get()),
                "the transaction travels as it came"
            );
        }
        let alerts = expected.values().filter(|(_, alert)| *alert).count();
        assert!(alerts > 0);
        assert_eq!(harness.read(&topics.alerts, alerts).len(), alerts);
        harness.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_in_a_foreign_partition_or_under_another_key_is_scored_with_its_users_history() {
    let harness = Harness::start(|_| {}).await;
    let topic = harness.kafka.topics().transactions.clone();
    let own = Partitioner::Murmur2.partition(b"wanderer", 4);
    let transactions: Vec<String> = (0..6).map(|n| transaction("wanderer", n, "10")).collect();
    let places = [
        (Some(&b"wanderer"[..]), own),
        (None, own),
        (Some(b""), (own + 1) % 4),
        (Some(b"x"), (own + 2) % 4),
        (None, (own + 3) % 4),
        (Some(b"wanderer"), (own + 1) % 4),
    ];
    for (n, (json, (key, partition))) in transactions.iter().zip(places).enumerate() {
        harness.put(&ProducerRecord {
            key,
            partition: Some(partition),
            ..ProducerRecord::new(&topic, &[], json.as_bytes())
        });
        // One after the other, so that the order in which they reach their partition is known.
        assert_eq!(
            harness.read(&harness.kafka.topics().decisions, n + 1).len(),
            n + 1
        );
    }
    let decisions = harness.read(&harness.kafka.topics().decisions, 6);
    let last = Decision::parse(&decisions[5].payload).unwrap();
    assert_eq!(
        last.contributions
            .iter()
            .find_map(|contribution| contribution.count),
        Some(6),
        "velocity counts all six"
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_transaction_goes_to_the_dead_letters_and_nothing_behind_it_is_lost() {
    let harness = Harness::start(|_| {}).await;
    let topics = harness.kafka.topics().clone();
    let huge = transaction("u", 1, "1").replace("\"m1\"", &format!("\"{}\"", "x".repeat(300_000)));
    let deep =
        transaction("u", 1, "1").replace("\"m1\"", &("[".repeat(100_000) + &"]".repeat(100_000)));
    let bad: Vec<(Vec<u8>, &str, &str)> = vec![
        (b"".to_vec(), "malformed", "empty"),
        (b"{\"transaction_id\":".to_vec(), "malformed", ""),
        (b"\xff\xfe".to_vec(), "malformed", "UTF-8"),
        (b"[[[[".repeat(20_000), "malformed", ""),
        (deep.into_bytes(), "invalid", "deeper"),
        (huge.into_bytes(), "too_large", "larger"),
        (transaction("u", 1, "-5").into_bytes(), "invalid", "amount"),
        (
            transaction("u", 1, "1.00001").into_bytes(),
            "invalid",
            "amount",
        ),
        (
            transaction("u", 1, "1")
                .replace("\"1\"", "NaN")
                .into_bytes(),
            "malformed",
            "amount",
        ),
        (
            transaction("u", 1, "1")
                .replace("\"1\"", "1e400")
                .into_bytes(),
            "invalid",
            "amount",
        ),
        (
            transaction("u", 1, "1")
                .replace(r#""user_id":"u""#, r#""user_id":"""#)
                .into_bytes(),
            "invalid",
            "user_id",
        ),
        (
            transaction("u", 1, "1")
                .replace("\"t1\"", "\"\\ud800\"")
                .into_bytes(),
            "invalid",
            "transaction_id",
        ),
        (
            transaction("u", 1, "1")
                .replace("\"t1\"", "\"\\u0000\"")
                .into_bytes(),
            "invalid",
            "transaction_id",
        ),
        (
            transaction("u", 1, "1")
                .replace("2026-", "9999-")
                .into_bytes(),
            "timestamp_ahead",
            "timestamp",
        ),
        (
            transaction("u", 1, "1")
                .replace("2026-", "10000-")
                .into_bytes(),
            "invalid",
            "timestamp",
        ),
    ];
    for (n, (payload, _, _)) in bad.iter().enumerate() {
        harness.put(&ProducerRecord::new(&topics.transactions, b"u", payload));
        harness.put_transaction(&transaction("u", n, "1"));
    }
    assert_eq!(harness.read(&topics.decisions, bad.len()).len(), bad.len());
    let letters = harness.read(&topics.transactions_dlq, bad.len());
    for (letter, (payload, kind, reason)) in letters.iter().zip(&bad) {
        assert_eq!(&letter.payload, payload, "the bytes are as they came");
        assert_eq!(letter.key.as_deref(), Some(&b"u"[..]));
        let told = letter.header(headers::ERROR_REASON).unwrap();
        assert_eq!(letter.header(headers::ERROR_KIND), Some(*kind), "{told}");
        assert!(told.contains(reason), "{told} names {reason}");
        assert_eq!(letter.header(headers::ERROR_STAGE), Some("scorer"));
        assert_eq!(letter.header(headers::SOURCE_TOPIC), Some("transactions"));
        assert!(
            letter.header(headers::SOURCE_OFFSET).is_some()
                && letter.header(headers::FAILED_AT).is_some()
        );
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_the_decision_gets_it_on_its_own_partition_and_a_wrong_request_harms_nobody() {
    let harness = Harness::start(|_| {}).await;
    let topics = harness.kafka.topics().clone();
    let nonce = "00112233445566778899aabbccddeeff";
    let addresses = ["2:", "99:", "-1:", "x", ""].map(|start| format!("{start}{nonce}"));
    for (n, reply_to) in addresses.iter().enumerate() {
        let headers = [(headers::REPLY_TO, Some(reply_to.as_bytes()))];
        let json = transaction("u", n, "1");
        harness.put(&ProducerRecord {
            headers: &headers,
            ..ProducerRecord::new(&topics.transactions, b"u", json.as_bytes())
        });
    }
    assert_eq!(harness.read(&topics.decisions, 5).len(), 5);
    let replies = harness.read(&topics.replies, 1);
    assert_eq!(replies[0].partition, 2);
    // By the nonce its reader knows that it has asked.
    assert_eq!(replies[0].header(headers::REPLY_TO), Some(&*addresses[0]));
    assert_eq!(
        Decision::parse(&replies[0].payload).unwrap().transaction_id,
        "t0"
    );
    harness.stop().await;
}

/// A letter that does not fit into the log would stop the scorer, at the same record after each restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_nearly_a_megabyte_of_headers_or_key_is_dead_lettered_and_blocks_nothing() {
    let harness = Harness::start(|_| {}).await;
    let topics = harness.kafka.topics().clone();
    let valid = transaction("u", 1, "1");
    let (large, medium) = ("x".repeat(900_000), "y".repeat(3_000));
    let one = [
        ("foreign", Some(large.as_bytes())),
        (headers::REPLY_TO, Some(ADDRESS)),
    ];
    let many = [("foreign", Some(medium.as_bytes())); 300];
    for headers in [&one[..], &many] {
        harness.put(&ProducerRecord {
            headers,
            ..ProducerRecord::new(&topics.transactions, b"u", valid.as_bytes())
        });
    }
    let payload = "z".repeat(965_000);
    harness.put(&ProducerRecord {
        headers: &many[..10],
        ..ProducerRecord::new(&topics.transactions, b"u", payload.as_bytes())
    });
    harness.put(&ProducerRecord::new(
        &topics.transactions,
        large.as_bytes(),
        b"no transaction",
    ));
    harness.put_transaction(&transaction("u", 2, "1"));
    assert_eq!(harness.read(&topics.decisions, 1).len(), 1);
    let letters = harness.read(&topics.transactions_dlq, 4);
    let kinds = letters
        .iter()
        .map(|letter| letter.header(headers::ERROR_KIND).unwrap());
    let mut kinds: Vec<&str> = kinds.collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["malformed", "too_large", "too_large", "too_large"]);
    assert_eq!(
        letters
            .iter()
            .filter(|letter| letter.payload == valid.as_bytes())
            .count(),
        2
    );
    assert!(
        letters
            .iter()
            .any(|letter| letter.header(headers::TRUNCATED_FROM) == Some("965000"))
    );
    let reply =
        Reply::parse(&harness.read(&topics.replies, 1)[0].payload).map(|reply| reply.is_error);
    assert!(reply.unwrap());
    harness.stop().await;
}

/// Ingest has answered 202 for it, and its caller waits: without an answer, a client that fails open would pay.
#[tokio::test(flavor = "multi_thread")]
async fn every_dead_letter_for_which_a_caller_waits_is_a_reply() {
    let harness = Harness::start(|_| {}).await;
    let topics = harness.kafka.topics().clone();
    let valid = transaction("u", 1, "1");
    let cases = [
        (
            valid.replace("\"m1\"", &format!("\"{}\"", "x".repeat(300_000))),
            "too_large",
            None,
        ),
        (valid.replace("\"1\"", "-5"), "invalid", Some("amount")),
        (
            valid.replace("2026-", "9999-"),
            "timestamp_ahead",
            Some("timestamp"),
        ),
        (valid.replace('}', ""), "malformed", None),
    ];
    for (payload, _, _) in &cases {
        harness.put(&ProducerRecord {
            headers: &[(headers::REPLY_TO, Some(ADDRESS))],
            ..ProducerRecord::new(&topics.transactions, b"u", payload.as_bytes())
        });
        // Nobody waits for this one.
        harness.put(&ProducerRecord::new(
            &topics.transactions,
            b"u",
            payload.as_bytes(),
        ));
    }
    harness.put(&ProducerRecord {
        headers: &[
            (headers::REPLY_TO, Some(ADDRESS)),
            (headers::ROUTED_FROM, Some(b"0@1")),
            (headers::ROUTED_FROM, Some(b"0@2")),
            (headers::ROUTED_FROM, Some(b"0@3")),
        ],
        ..ProducerRecord::new(&topics.transactions, b"u2", valid.as_bytes())
    });
    let letters = harness.read(&topics.transactions_dlq, 2 * cases.len() + 1);
    assert_eq!(letters.len(), 2 * cases.len() + 1);
    let replies = harness.read(&topics.replies, cases.len() + 1);
    let expected = cases.iter().map(|(_, kind, field)| ("u", *kind, *field));
    for (user, kind, field) in expected.chain([("u2", "routing_loop", None)]) {
        let found = replies
            .iter()
            .map(|reply| Reply::parse(&reply.payload).unwrap());
        let found: Vec<_> = found.filter_map(|reply| reply.error()).collect();
        let error = found.iter().find(|error| error.kind == kind).unwrap();
        assert_eq!(
            (&*error.user_id, &*error.transaction_id),
            (user, "t1"),
            "{kind}"
        );
        assert_eq!(error.field.as_deref(), field);
        assert!(!error.reason.is_empty() && !error.reason.contains("merchant"));
    }
    assert!(replies.iter().all(|reply| reply.partition == 1));
    harness.stop().await;
}

/// More than a partition holds in memory: writers have to wait, and nothing may be dropped.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_into_the_embedded_log_loses_nothing() {
    const COUNT: usize = 60_000;
    let harness = Harness::start(|_| {}).await;
    let topics = harness.kafka.topics().clone();
    let mut reader = harness.kafka.reader(&[&topics.decisions]).unwrap();
    let mut alerts = harness.kafka.reader(&[&topics.alerts]).unwrap();
    let (producer, topic) = (harness.producer.clone(), topics.transactions.clone());
    let writer = std::thread::spawn(move || {
        let padding = "x".repeat(600);
        for n in 0..COUNT {
            let json = transaction("flood", n % 3_600, "1")
                .replace(&format!("\"t{}\"", n % 3_600), &format!("\"f{n}\""));
            let json = json.replace(
                "\"merchant\"",
                &format!("\"padding\":\"{padding}\",\"merchant\""),
            );
            let acks = Acks::new(|result| result.unwrap());
            // One user: all of it, 50 MB, goes through one partition.
            producer
                .send_waiting(
                    &ProducerRecord::new(&topic, b"flood", json.as_bytes()),
                    &acks,
                    || false,
                )
                .unwrap();
            acks.seal();
        }
    });
    // Alerts are read too, or their partition would fill and the scorer wait for its reader.
    let drained =
        std::thread::spawn(move || while alerts.next(Duration::from_secs(3)).unwrap().is_some() {});
    let mut seen = std::collections::HashSet::new();
    for record in take(&mut reader, COUNT) {
        let decision = Decision::parse(&record.payload).unwrap();
        assert!(
            seen.insert(decision.transaction_id.into_owned()),
            "decided twice"
        );
    }
    writer.join().unwrap();
    drained.join().unwrap();
    assert_eq!(seen.len(), COUNT);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_ids_in_two_tenants_are_two_users_with_histories_of_their_own() {
    let harness = Harness::start(|_| {}).await;
    let topics = harness.kafka.topics().clone();
    let tenants = [None, Some("acme"), Some("other")];
    let send = |tenant: Option<&str>, json: &str, partition: Option<i32>| {
        let header = tenant.map(|name| (headers::TENANT, Some(name.as_bytes())));
        harness.put(&ProducerRecord {
            headers: header.as_slice(),
            partition,
            ..ProducerRecord::new(&topics.transactions, b"u", json.as_bytes())
        });
    };
    // Four payments within the window are below the threshold of velocity, twelve are not. Those of one tenant are written
    // into a foreign partition, and forwarded with their tenant.
    let own = Partitioner::Murmur2.partition(b"u", 4);
    for n in 0..4 {
        for tenant in tenants {
            let foreign = (tenant == Some("other")).then_some((own + 1) % 4);
            send(tenant, &transaction("u", n, "10.01"), foreign);
        }
    }
    let decisions = harness.read(&topics.decisions, 12);
    let mut seen: Vec<(Option<String>, String)> = Vec::new();
    for record in &decisions {
        let decision = Decision::parse(&record.payload).unwrap();
        assert!(
            !decision.duplicate,
            "the id was used in another tenant only"
        );
        assert!(!decision.conflict);
        assert!(
            !decision
                .fraud_indicators
                .iter()
                .any(|it| it.name() == "high_velocity"),
            "{decision:?}"
        );
        assert_eq!(record.key.as_deref(), Some(&b"u"[..]));
        seen.push((
            decision.tenant.map(|name| name.into_owned()),
            decision.transaction_id.into_owned(),
        ));
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 12, "{seen:?}");

    // A repetition is one within its tenant, and the alert has the tenant as well.
    send(Some("acme"), &transaction("u", 0, "10.01"), None);
    let again = harness.read(&topics.decisions, 13).pop().unwrap();
    let again = Decision::parse(&again.payload).unwrap();
    assert!(again.duplicate);
    assert_eq!(again.tenant.as_deref(), Some("acme"));
    send(Some("acme"), &transaction("u", 59, "90000"), None);
    let alerts = harness.read(&topics.alerts, 1);
    let alert = Decision::parse(&alerts[0].payload).unwrap();
    assert_eq!(alert.tenant.as_deref(), Some("acme"));
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_with_an_invalid_tenant_is_dead_lettered_with_its_header() {
    let harness = Harness::start(|_| {}).await;
    let topics = harness.kafka.topics().clone();
    for name in [&b"ACME"[..], b"", b"a b", b"\xff", b"*"] {
        harness.put(&ProducerRecord {
            headers: &[(headers::TENANT, Some(name))],
            ..ProducerRecord::new(
                &topics.transactions,
                b"u",
                transaction("u", 1, "1").as_bytes(),
            )
        });
    }
    for letter in harness.read(&topics.transactions_dlq, 5) {
        let header = |wanted: &str| {
            let found = letter.headers.iter().find(|(name, _)| name == wanted);
            found.and_then(|(_, value)| value.clone()).unwrap()
        };
        let reason = String::from_utf8(header(headers::ERROR_REASON)).unwrap();
        assert!(reason.starts_with("header tollgate-tenant: "), "{reason}");
        header(headers::TENANT);
    }
    harness.stop().await;
}

fn keys() -> AuthenticationConfig {
    AuthenticationConfig::with_key("k1", "0123456789abcdef0123456789abcdef")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_key_claims_no_tenant_no_sender_and_no_backfill() {
    let harness = Harness::start_with(keys(), |_| {}).await;
    let topics = harness.kafka.topics().clone();
    let claims = [
        (headers::TENANT, Some(b"north".as_slice())),
        (headers::SENDER, Some(b"0011223344556677".as_slice())),
        (headers::BACKFILL, Some(b"1".as_slice())),
        (headers::BACKFILL, None),
    ];
    let foreign_mac = (headers::MAC, Some(b"k1:AAAA".as_slice()));
    for (n, claim) in claims.into_iter().enumerate() {
        let json = transaction("u", n, "1");
        for all in [vec![claim], vec![claim, foreign_mac]] {
            harness.put(&ProducerRecord {
                headers: &all,
                ..ProducerRecord::new(&topics.transactions, b"u", json.as_bytes())
            });
        }
    }
    // A bare transaction stays welcome, also with the address of somebody who waits, which is ignored.
    let bare = transaction("u", 10, "1");
    harness.put(&ProducerRecord {
        headers: &[(headers::REPLY_TO, Some(ADDRESS))],
        ..ProducerRecord::new(&topics.transactions, b"u", bare.as_bytes())
    });
    // With the key each is believed.
    let waiting = transaction("u", 11, "1");
    harness.put(&ProducerRecord {
        headers: &[(headers::REPLY_TO, Some(ADDRESS)), claims[1]],
        ..ProducerRecord::signed(&topics.transactions, b"u", waiting.as_bytes())
    });
    let letters = harness.read(&topics.transactions_dlq, 8);
    for letter in &letters {
        assert_eq!(letter.header(headers::ERROR_KIND), Some("unauthenticated"));
    }
    let decisions = harness.read(&topics.decisions, 2);
    let replies = harness.read(&topics.replies, 1);
    let ids: Vec<String> = decisions
        .iter()
        .chain(&replies)
        .map(|record| Decision::parse(&record.payload).unwrap())
        .map(|decision| decision.transaction_id.into_owned())
        .collect();
    assert_eq!(ids, ["t10", "t11", "t11"]);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_alerts_and_replies_are_signed_and_so_is_a_record_that_is_forwarded() {
    let harness = Harness::start_with(keys(), |_| {}).await;
    let topics = harness.kafka.topics().clone();
    let user = "u";
    let own = Partitioner::Murmur2.partition(user.as_bytes(), 4);
    let json = transaction(user, 1, "98765");
    // With no key and in a foreign partition, as a dead letter that ingest signed is redriven.
    harness.put(&ProducerRecord {
        partition: Some((own + 1) % 4),
        key: None,
        headers: &[
            (headers::REPLY_TO, Some(ADDRESS)),
            (headers::SENDER, Some(b"0011223344556677")),
        ],
        ..ProducerRecord::signed(&topics.transactions, &[], json.as_bytes())
    });
    for (kind, topic) in [
        (TopicKind::Decisions, &topics.decisions),
        (TopicKind::Alerts, &topics.alerts),
        (TopicKind::Replies, &topics.replies),
    ] {
        let record = &harness.read(topic, 1)[0];
        let provenance = harness.kafka.authenticate_owned(kind, record);
        assert_eq!(provenance, Ok(Provenance::Service), "{topic}");
    }
    let transactions = harness.read(&topics.transactions, 2);
    let forwarded = transactions.iter().find(|record| record.partition == own);
    let forwarded = forwarded.unwrap();
    assert_eq!(forwarded.key.as_deref(), Some(user.as_bytes()));
    assert_eq!(
        harness
            .kafka
            .authenticate_owned(TopicKind::Transactions, forwarded),
        Ok(Provenance::Service)
    );
    assert_eq!(
        harness
            .read(&topics.transactions, 2)
            .iter()
            .filter(|record| record.header(headers::MAC).is_some())
            .count(),
        2
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn card_data_of_a_foreign_producer_gets_no_further_than_the_topic_of_transactions() {
    const PAN: &str = "5555555555554444";
    let harness = Harness::start(|_| {}).await;
    let topics = harness.kafka.topics().clone();
    let put = |key: &[u8], json: &str| {
        harness.put(&ProducerRecord::new(
            &topics.transactions,
            key,
            json.as_bytes(),
        ));
    };
    let whole = format!(
        r#"{{"transaction_id":"t1","user_id":"u","amount":"4500","timestamp":"2026-03-01T10:00:00Z","card":"{PAN}","cvv":"987"}}"#
    );
    put(b"u", &whole);
    put(
        PAN.as_bytes(),
        &whole.replace("\"u\"", &format!("\"{PAN}\"")),
    );
    put(b"u", &whole[..whole.len() - 3]);
    // Under another key, so that it is forwarded.
    put(b"x", &whole.replace("t1", "t2"));
    let decisions = harness.read(&topics.decisions, 2);
    for record in &decisions {
        let decision = Decision::parse(&record.payload).unwrap();
        let transaction = decision.transaction.get();
        assert!(
            transaction.ends_with(r#""card":"555555******4444"}"#),
            "{transaction}"
        );
    }
    let letters = harness.read(&topics.transactions_dlq, 2);
    let refused = letters
        .iter()
        .find(|letter| letter.header("error.kind") == Some("card_data"));
    assert_eq!(
        refused
            .unwrap()
            .header("error.reason")
            .unwrap()
            .split(':')
            .next(),
        Some("user_id")
    );
    for record in letters.iter().chain(&decisions) {
        let shown = format!(
            "{} {}",
            String::from_utf8_lossy(&record.payload),
            String::from_utf8_lossy(record.key.as_deref().unwrap_or_default())
        );
        assert!(!shown.contains(PAN) && !shown.contains("987"), "{shown}");
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn amounts_are_judged_in_the_base_currency_and_an_unknown_one_is_alerted() {
    let currency = |code: &str| Currency::parse(code).unwrap();
    let money = Money {
        base: currency("EUR"),
        rates: [(currency("JPY"), Rate::parse("0.0061").unwrap())].into(),
        unknown_status: Status::Review,
    };
    let scorer = Harness::start(|config| config.rules.money = Some(money)).await;
    let topics = scorer.kafka.topics().clone();
    for (id, currency) in [("yen", "jpy"), ("euro", "EUR"), ("other", "ZZZ")] {
        scorer.put_transaction(&format!(
            r#"{{"transaction_id":"{id}","user_id":"u-{id}","amount":3000,"timestamp":"2026-03-01T12:00:00Z","currency":"{currency}"}}"#
        ));
    }
    let decisions = scorer.read(&topics.decisions, 3);
    let told = decisions.iter().map(|record| {
        let decision = Decision::parse(&record.payload).unwrap();
        let base = decision
            .contributions
            .iter()
            .find_map(|each| each.amount_base);
        let names: Vec<_> = decision
            .fraud_indicators
            .iter()
            .map(Indicator::name)
            .collect();
        let id = decision.transaction_id.to_string();
        (
            id,
            names.join(","),
            decision.status,
            base.map(|base| base.to_string()),
        )
    });
    let told: BTreeSet<_> = told.collect();
    let of = |id: &str, names: &str, status, base: Option<&str>| {
        (
            id.to_owned(),
            names.to_owned(),
            status,
            base.map(str::to_owned),
        )
    };
    let round = "high_amount,suspicious_pattern";
    assert_eq!(
        told,
        BTreeSet::from([
            of("yen", "", Status::Approved, None),
            of("euro", round, Status::Review, Some("3000")),
            of("other", "unknown_currency", Status::Review, None),
        ])
    );
    let alerts = scorer.read(&topics.alerts, 2);
    let is_other = |record: &LogRecord| record.payload.windows(4).any(|part| part == b"\"ZZZ");
    assert_eq!(alerts.iter().filter(|alert| is_other(alert)).count(), 1);
    scorer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_zero_time_of_a_program_is_dead_lettered_unless_a_setting_permits_it() {
    let zero =
        r#"{"transaction_id":"t","user_id":"u","amount":1,"timestamp":"1970-01-01T00:00:00Z"}"#;
    let scorer = Harness::start(|_| {}).await;
    scorer.put_transaction(zero);
    let letter = &scorer.read(&scorer.kafka.topics().transactions_dlq, 1)[0];
    assert_eq!(letter.header(headers::ERROR_KIND), Some("invalid"));
    let reason = letter.header(headers::ERROR_REASON).unwrap();
    assert!(reason.contains("scorer.earliest_timestamp"), "{reason}");
    scorer.stop().await;

    let scorer = Harness::start(|config| config.earliest_timestamp = Timestamp::MIN).await;
    scorer.put_transaction(zero);
    scorer.read(&scorer.kafka.topics().decisions, 1);
    scorer.stop().await;
}
