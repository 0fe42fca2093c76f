//! The main job on real input: four services, each a process of its own, on a real Kafka and a real PostgreSQL.
#![cfg(all(feature = "kafka", feature = "postgres"))]

use std::collections::HashMap;
use std::time::Duration;

use tollgate_tests::deployment::Deployment;
use tollgate_tests::generate::{Day, Generated};
use tollgate_tests::load::{Foreign, ForeignWriter, post_all};
use tollgate_tests::offline::{self, Key, Scored, key_of, stands_right};
use tollgate_types::{Decision, Indicator, NewTransaction, Stage, Status, Transaction};

const PARTITIONS: u16 = 12;
const LIMIT: Duration = Duration::from_secs(120);
const WRITERS: [Foreign; 3] = [
    Foreign::Kcat,
    Foreign::KcatWithoutKeys,
    Foreign::ConsoleProducer,
];

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_transactions_of_four_kinds_of_writers_are_each_stored_once_and_decided_as_offline()
-> anyhow::Result<()> {
    let deployment = Deployment::create("pipeline", PARTITIONS).await?;
    let (mut ingest, scorer, persistence, notifier) = tokio::try_join!(
        deployment.start("ingest"),
        deployment.start("scorer"),
        deployment.start("persistence"),
        deployment.start("notifier"),
    )?;

    // One day, dealt out to four writers: users and duplicates come from several of them.
    let day: Vec<Generated> = Day::new(4, 500, "t").take(100_000).collect();
    let (over_http, straight) = deal(&day);
    assert_eq!(over_http.len(), 50_000);
    let ingest_address = ingest.address("ingest").await?;
    let [kcat, keyless, console] = straight;
    tokio::try_join!(
        post_all(&ingest_address, &over_http, 6, 500),
        ForeignWriter::write_all(WRITERS[0], &deployment.log, kcat),
        ForeignWriter::write_all(WRITERS[1], &deployment.log, keyless),
        ForeignWriter::write_all(WRITERS[2], &deployment.log, console),
    )?;
    deployment.caught_up(Stage::Scorer, LIMIT).await?;
    deployment.caught_up(Stage::Persistence, LIMIT).await?;
    deployment.caught_up(Stage::Notifier, LIMIT).await?;

    let log = &deployment.log;
    let topics = log.topics();
    for dead_letters in [
        &topics.transactions_dlq,
        &topics.decisions_dlq,
        &topics.alerts_dlq,
    ] {
        assert_eq!(log.count(dead_letters)?, 0, "{dead_letters}");
    }

    // The log is what it is meant to be: all of them, many where they do not belong.
    let records = log.read(&topics.transactions)?;
    let foreign = records.iter().filter(|record| {
        Transaction::parse(&record.payload)
            .is_ok_and(|transaction| !stands_right(record, &transaction, i32::from(PARTITIONS)))
    });
    let foreign = foreign.count();
    assert!(foreign > 25_000, "{foreign} records had to be routed");
    assert_eq!(records.len(), day.len() + foreign);

    let expected = offline::score(&records, i32::from(PARTITIONS));
    ensure_worth_comparing(&expected);
    let sent = texts(&day);
    assert_eq!(expected.len(), sent.len());

    // Every transaction is stored once, with the amount that was sent, every decision is the offline one.
    let stored = deployment.store.transactions().await?;
    assert_eq!(stored.len(), sent.len());
    for each in &day {
        let key = (
            each.transaction.user_id.clone(),
            each.transaction.transaction_id.clone(),
        );
        let amount = format!("{:.4}", each.transaction.amount.to_f64());
        assert_eq!(stored.get(&key), Some(&amount), "{key:?}");
    }
    offline::ensure_equal(
        "fraud_analysis",
        &deployment.store.analyses().await?,
        &expected,
    )?;

    // Every decision carries its transaction as it was sent, unknown members included.
    for record in log.read(&topics.decisions)? {
        let decision = Decision::parse(&record.payload)?;
        let text = sent.get(&key_of(&decision)).map(String::as_str);
        assert_eq!(Some(decision.transaction.get()), text);
    }

    // Nothing crashed, so every alert has come exactly once.
    let mut alerted = HashMap::new();
    for line in deployment.alerts()? {
        let decision = Decision::parse(line.as_bytes())?;
        let twice = alerted.insert(key_of(&decision), Scored::of(&decision));
        assert!(twice.is_none(), "an alert twice: {line}");
    }
    let mut alerts = expected;
    alerts.retain(|_, scored| scored.status.is_alert());
    offline::ensure_equal("alerts", &alerted, &alerts)?;

    for service in [ingest, scorer, persistence, notifier] {
        service.stop().await?;
    }
    Ok(())
}

/// Half to HTTP, the other half to the foreign writers by turns.
fn deal(day: &[Generated]) -> (Vec<NewTransaction>, [Vec<NewTransaction>; 3]) {
    let (mut over_http, mut straight) = (Vec::new(), [const { Vec::new() }; 3]);
    for (index, each) in day.iter().enumerate() {
        match index % 2 {
            0 => over_http.push(each.transaction.clone()),
            _ => straight[index / 2 % 3].push(each.transaction.clone()),
        }
    }
    (over_http, straight)
}

fn texts(day: &[Generated]) -> HashMap<Key, String> {
    let texts = day.iter().map(|each| {
        let key = (
            each.transaction.user_id.clone(),
            each.transaction.transaction_id.clone(),
        );
        (key, each.transaction.to_json())
    });
    texts.collect()
}

/// Every indicator and status occurs often enough for the comparison to say something.
fn ensure_worth_comparing(decisions: &HashMap<Key, Scored>) {
    let conflict = Indicator::CONFLICTING_DUPLICATE;
    for indicator in Indicator::BUILT_IN
        .into_iter()
        .filter(|each| *each != conflict)
    {
        let with = decisions
            .values()
            .filter(|scored| scored.indicators.contains(indicator));
        assert!(with.count() > 500, "{indicator:?}");
    }
    for status in Status::ALL {
        let with = decisions.values().filter(|scored| scored.status == status);
        assert!(with.count() > 100, "{status}");
    }
    assert!(decisions.values().filter(|scored| scored.late).count() > 20);
}
