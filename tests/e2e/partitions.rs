//! A changed number of partitions moves users away from their histories: scorers refuse to start on it.
#![cfg(all(feature = "kafka", feature = "postgres"))]

use std::time::Duration;

use tollgate_tests::deployment::Deployment;
use tollgate_tests::generate::Day;
use tollgate_types::Stage;

const LIMIT: Duration = Duration::from_secs(60);

/// Scores on `before` partitions, raises them to `after` while no scorer runs, and starts `scorers` again.
async fn raise_and_start(
    test: &str,
    before: u16,
    after: usize,
    scorers: usize,
) -> anyhow::Result<()> {
    let deployment = Deployment::create(test, before).await?;
    let log = &deployment.log;
    let topics = log.topics();
    let writer = log.writer()?;
    let mut day = Day::new(3, 100, "t").map(|each| each.transaction);
    writer.write_all(&topics.transactions, day.by_ref().take(2_000))?;
    let scorer = deployment.start("scorer").await?;
    deployment.caught_up(Stage::Scorer, LIMIT).await?;
    scorer.stop().await?;
    let decided = log.count(&topics.decisions)?;
    assert_eq!(decided, 2_000);

    log.raise_partitions(&topics.transactions, after).await?;
    writer.write_all(&topics.transactions, day.by_ref().take(2_000))?;

    let mut started = Vec::new();
    for _ in 0..scorers {
        started.push(deployment.spawn("scorer")?);
    }
    for scorer in &mut started {
        let status = scorer.ended(LIMIT).await?;
        assert!(!status.success(), "it must not end well");
        let said = scorer.log()?;
        for part in [
            topics.transactions.as_str(),
            &format!("{after} partitions"),
            &format!("had {before}"),
            "Make a new topic",
        ] {
            assert!(said.contains(part), "no «{part}» in what it said: {said}");
        }
    }
    assert_eq!(
        log.count(&topics.decisions)?,
        decided,
        "nothing more may be decided"
    );
    assert_eq!(
        log.count(&topics.transactions)?,
        4_000,
        "nothing may be routed"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scorer_that_finds_more_partitions_than_before_refuses_and_says_what_to_do()
-> anyhow::Result<()> {
    raise_and_start("raised", 4, 6, 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scorer_that_is_given_only_new_partitions_refuses_too() -> anyhow::Result<()> {
    // One of the two gets the upper half, of which nothing was ever committed.
    raise_and_start("doubled", 4, 8, 2).await
}
