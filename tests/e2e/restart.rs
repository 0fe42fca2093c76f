//! A scorer's history is the log's: neither a restart nor a rebalance alters a decision.
#![cfg(all(feature = "kafka", feature = "postgres"))]

use std::time::Duration;

use tollgate_tests::deployment::Deployment;
use tollgate_tests::generate::Day;
use tollgate_tests::kafka::TestLog;
use tollgate_tests::offline::{self, Key};
use tollgate_tests::wait;
use tollgate_types::{Amount, Indicator, NewTransaction, Stage, Timestamp};

const PARTITIONS: u16 = 4;
const LIMIT: Duration = Duration::from_secs(90);

/// Every decision of the log is the one that `tollgate score` makes over it.
fn as_offline(log: &TestLog) -> anyhow::Result<()> {
    let found = offline::every_decision(log)?;
    let expected = offline::score(
        &log.read(&log.topics().transactions)?,
        i32::from(PARTITIONS),
    );
    offline::ensure_equal("decisions", &found, &expected)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scorer_restarted_in_the_middle_of_a_burst_decides_as_if_it_had_never_stopped()
-> anyhow::Result<()> {
    let deployment = Deployment::create("restart", PARTITIONS).await?;
    let (log, writer) = (&deployment.log, deployment.log.writer()?);
    let decisions = &log.topics().decisions;
    let scorer = deployment.start("scorer").await?;

    // Six transactions of each of 50 users within a minute: three before the restart, three after it.
    writer.write_all(&log.topics().transactions, (0..3).flat_map(burst))?;
    wait::until_count(LIMIT, "decisions", 150, async || log.count(decisions)).await?;
    scorer.stop().await?;
    writer.write_all(&log.topics().transactions, (3..5).flat_map(burst))?;
    let scorer = deployment.start("scorer").await?;
    writer.write_all(&log.topics().transactions, burst(5))?;
    deployment.caught_up(Stage::Scorer, LIMIT).await?;
    scorer.stop().await?;

    let found = offline::every_decision(log)?;
    assert_eq!(log.count(decisions)?, 300);
    let velocity = |key: &Key| found[key].indicators.contains(Indicator::HIGH_VELOCITY);
    for user in 0..50 {
        let fired: Vec<bool> = (0..6)
            .map(|turn| velocity(&(format!("burst-{user}"), format!("b-{turn}"))))
            .collect();
        assert_eq!(
            fired,
            [false, false, false, false, true, true],
            "user {user}"
        );
    }
    as_offline(log)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scorer_stopped_under_load_again_and_again_leaves_no_trace_in_the_decisions()
-> anyhow::Result<()> {
    let deployment = Deployment::create("stopped", PARTITIONS).await?;
    let (log, writer) = (&deployment.log, deployment.log.writer()?);
    let mut day = Day::new(11, 200, "t").map(|each| each.transaction);
    for round in 1..=3 {
        writer.write_all(&log.topics().transactions, day.by_ref().take(20_000))?;
        // Stopped while it works: some are decided, some are not.
        let enough = log.count(&log.topics().decisions)? + 2_000;
        let scorer = deployment.spawn("scorer")?;
        let begun = async || Ok((log.count(&log.topics().decisions)? >= enough).then_some(()));
        wait::until(LIMIT, &format!("decisions of round {round}"), begun).await?;
        scorer.stop().await?;
    }
    let scorer = deployment.start("scorer").await?;
    deployment.caught_up(Stage::Scorer, LIMIT).await?;
    scorer.stop().await?;
    as_offline(log)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_scorers_share_the_partitions_and_one_takes_over_when_the_other_leaves()
-> anyhow::Result<()> {
    let deployment = Deployment::create("shared", PARTITIONS).await?;
    let (log, writer) = (&deployment.log, deployment.log.writer()?);
    let mut day = Day::new(12, 200, "t").map(|each| each.transaction);
    let mut first = deployment.start("scorer").await?;
    writer.write_all(&log.topics().transactions, day.by_ref().take(10_000))?;

    // The second comes while the first works; both are at work once both have decided something.
    let mut second = deployment.start("scorer").await?;
    let before = [&mut first, &mut second];
    let mut counts = Vec::new();
    for scorer in before {
        counts.push(scorer.metric("tollgate_scorer_decisions_total").await?);
    }
    wait::until(LIMIT, "decisions by both", async || {
        writer.write_all(&log.topics().transactions, day.by_ref().take(1_000))?;
        let now = [
            first.metric("tollgate_scorer_decisions_total").await?,
            second.metric("tollgate_scorer_decisions_total").await?,
        ];
        Ok((now[0] > counts[0] && now[1] > counts[1]).then_some(()))
    })
    .await?;
    writer.write_all(&log.topics().transactions, day.by_ref().take(10_000))?;
    first.stop().await?;
    writer.write_all(&log.topics().transactions, day.by_ref().take(10_000))?;
    deployment.caught_up(Stage::Scorer, LIMIT).await?;
    second.stop().await?;

    as_offline(log)
}

/// One turn of the burst, of every user; a turn is ten seconds of event time.
fn burst(turn: u32) -> impl Iterator<Item = NewTransaction> {
    (0..50).map(move |user| NewTransaction {
        transaction_id: format!("b-{turn}"),
        user_id: format!("burst-{user}"),
        amount: Amount::from_ten_thousandths(10_0001 + i64::from(turn)).unwrap_or_default(),
        timestamp: Timestamp::from_micros(1_772_438_400_000_000 + i64::from(turn) * 10_000_000)
            .unwrap_or(Timestamp::MIN),
        location: None,
        extra: serde_json::Map::new(),
    })
}
