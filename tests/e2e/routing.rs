//! A user's transactions meet in one partition, with any writer: four foreign clients with different partitioners.
#![cfg(all(feature = "kafka", feature = "postgres"))]

use std::collections::HashMap;
use std::time::Duration;

use tollgate_tests::deployment::Deployment;
use tollgate_tests::load::{Foreign, ForeignWriter};
use tollgate_tests::offline::{self, Scored, key_of, stands_right};
use tollgate_tests::wait;
use tollgate_types::{
    Amount, Decision, Indicator, NewTransaction, Partitioner, Stage, Timestamp, Transaction,
    headers,
};

const PARTITIONS: u16 = 7;
const USERS: usize = 60;
const LIMIT: Duration = Duration::from_secs(60);
const WRITERS: [Foreign; 4] = [
    Foreign::Kcat,
    Foreign::KcatWithoutKeys,
    Foreign::KcatWithEmptyKeys,
    Foreign::ConsoleProducer,
];
/// Each writer sends so many of each user's.
const EACH: usize = 2;

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_spread_over_four_kinds_of_writers_is_seen_as_one_burst() -> anyhow::Result<()> {
    let deployment = Deployment::create("routing", PARTITIONS).await?;
    let mut scorer = deployment.start("scorer").await?;
    let log = &deployment.log;
    tokio::try_join!(
        ForeignWriter::write_all(WRITERS[0], log, share_of(0)),
        ForeignWriter::write_all(WRITERS[1], log, share_of(1)),
        ForeignWriter::write_all(WRITERS[2], log, share_of(2)),
        ForeignWriter::write_all(WRITERS[3], log, share_of(3)),
    )?;
    deployment.caught_up(Stage::Scorer, LIMIT).await?;

    let records = log.read(&log.topics().transactions)?;
    let sent: Vec<_> = records
        .iter()
        .filter(|record| record.header(headers::ROUTED_FROM).is_none())
        .collect();
    assert_eq!(sent.len(), USERS * WRITERS.len() * EACH);
    for (key, what) in [(None, "no key"), (Some(vec![]), "an empty key")] {
        let with = sent.iter().filter(|record| record.key == key).count();
        assert_eq!(with, USERS * EACH, "records with {what}");
    }
    let mut misplaced = 0;
    for record in &sent {
        let transaction = Transaction::parse(&record.payload)?;
        misplaced += usize::from(!stands_right(record, &transaction, i32::from(PARTITIONS)));
    }
    // Keyless and empty-keyed ones all, and most of those that CRC32 placed.
    assert!(
        misplaced > USERS * EACH * 5 / 2,
        "{misplaced} were misplaced"
    );

    // Each was forwarded once, names its origin, and is the same to the byte.
    let routed: Vec<_> = records
        .iter()
        .filter(|record| record.header(headers::ROUTED_FROM).is_some())
        .collect();
    assert_eq!(routed.len(), misplaced);
    for copy in routed {
        let from = copy.header(headers::ROUTED_FROM).unwrap_or_default();
        let original = sent
            .iter()
            .find(|record| format!("{}@{}", record.partition, record.offset) == from);
        let original =
            original.ok_or_else(|| anyhow::anyhow!("routed-from {from} names no record"))?;
        assert_eq!(copy.payload, original.payload);
        let transaction = Transaction::parse(&copy.payload)?;
        assert!(stands_right(copy, &transaction, i32::from(PARTITIONS)));
    }
    let counted = async || {
        let counted = scorer.metric("tollgate_scorer_routed_total").await?;
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        Ok((counted == misplaced as f64).then_some(()))
    };
    wait::until(LIMIT, "the count of routed records", counted).await?;

    // All eight of a user meet: the burst is counted up to eight, in the user's own partition.
    let decisions = log.read(&log.topics().decisions)?;
    assert_eq!(decisions.len(), sent.len());
    let mut counts: HashMap<String, Vec<u32>> = HashMap::new();
    let mut found = HashMap::new();
    for record in &decisions {
        let decision = Decision::parse(&record.payload)?;
        let own =
            Partitioner::Murmur2.partition(decision.user_id.as_bytes(), i32::from(PARTITIONS));
        assert_eq!(record.partition, own);
        let velocity = decision
            .contributions
            .iter()
            .find(|each| each.indicator == Indicator::HIGH_VELOCITY);
        let of_user = counts.entry(decision.user_id.to_string()).or_default();
        of_user.extend(velocity.and_then(|each| each.count));
        found.insert(key_of(&decision), Scored::of(&decision));
    }
    assert_eq!(counts.len(), USERS);
    for (user, counts) in counts {
        assert_eq!(counts, [5, 6, 7, 8], "{user}");
    }
    let expected = offline::score(&records, i32::from(PARTITIONS));
    offline::ensure_equal("decisions", &found, &expected)?;
    scorer.stop().await
}

/// What one writer sends: a part of every user's burst, all at the same moment.
fn share_of(writer: usize) -> Vec<NewTransaction> {
    let burst = (0..EACH).flat_map(|turn| (0..USERS).map(move |user| (turn, user)));
    let transactions = burst.map(|(turn, user)| NewTransaction {
        transaction_id: format!("t-{writer}-{turn}"),
        user_id: format!("user-{user}"),
        amount: Amount::from_ten_thousandths(10_0001).unwrap_or_default(),
        timestamp: Timestamp::from_micros(1_772_438_400_000_000).unwrap_or(Timestamp::MIN),
        location: None,
        extra: serde_json::Map::new(),
    });
    transactions.collect()
}
