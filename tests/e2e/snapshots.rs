//! A scorer that gets its histories from snapshots decides as one that never stopped.
#![cfg(all(feature = "kafka", feature = "postgres"))]

use std::path::PathBuf;
use std::time::Duration;

use tollgate_tests::deployment::Deployment;
use tollgate_tests::generate::Day;
use tollgate_tests::kafka::{LogRecord, Writer};
use tollgate_tests::offline;
use tollgate_tests::wait;
use tollgate_types::{NewTransaction, Stage};

const PARTITIONS: u16 = 4;
const LIMIT: Duration = Duration::from_secs(90);
const RESTORED: &str = "tollgate_scorer_histories_restored_total";
const WRITTEN: &str = "tollgate_scorer_snapshots_written_total";

/// A deployment that keeps snapshots, and transactions to feed it.
struct Case {
    deployment: Deployment,
    writer: Writer,
    day: Box<dyn Iterator<Item = NewTransaction>>,
}

impl Case {
    async fn create(test: &str, seed: u64) -> anyhow::Result<Self> {
        let mut deployment = Deployment::create(test, PARTITIONS).await?;
        let url = format!("file://{}/snapshots", deployment.dir().display());
        deployment.set("SCORER__SNAPSHOTS", url);
        deployment.set("SCORER__SNAPSHOT_INTERVAL_SECONDS", "1");
        deployment.set("SCORER__SNAPSHOT_RECORDS", "2000");
        let writer = deployment.log.writer()?;
        let day = Day::new(seed, 200, "t").map(|each| each.transaction);
        Ok(Self {
            deployment,
            writer,
            day: Box::new(day),
        })
    }

    fn write(&mut self, count: usize) -> anyhow::Result<()> {
        let topic = &self.deployment.log.topics().transactions;
        self.writer.write_all(topic, self.day.by_ref().take(count))
    }

    fn decided(&self) -> anyhow::Result<usize> {
        let log = &self.deployment.log;
        log.count(&log.topics().decisions)
    }

    /// Runs a scorer until everything is decided. Returns what `look` finds before it stops.
    async fn run(&self, stop_well: bool) -> anyhow::Result<Restored> {
        let mut scorer = self.deployment.start("scorer").await?;
        self.deployment.caught_up(Stage::Scorer, LIMIT).await?;
        let of = |from: &str| format!("{RESTORED}{{from=\"{from}\"");
        let restored = Restored {
            newest: scorer.metric(&of("snapshot")).await?,
            older: scorer.metric(&of("older_snapshot")).await?,
            log: scorer.metric(&of("log")).await?,
            warning: scorer.readiness().await?["warnings"]["history"].to_string(),
        };
        if stop_well {
            scorer.stop().await?;
        } else {
            scorer.kill()?;
        }
        Ok(restored)
    }

    fn input(&self) -> anyhow::Result<Vec<LogRecord>> {
        self.deployment
            .log
            .read(&self.deployment.log.topics().transactions)
    }

    /// Every decision is the one of `tollgate score` on these records.
    fn check(&self, input: &[LogRecord]) -> anyhow::Result<()> {
        let found = offline::every_decision(&self.deployment.log)?;
        let expected = offline::score(input, i32::from(PARTITIONS));
        offline::ensure_equal("decisions", &found, &expected)
    }

    /// The snapshots of a partition, newest first.
    fn snapshots(&self, partition: u16) -> anyhow::Result<Vec<PathBuf>> {
        let topic = &self.deployment.log.topics().transactions;
        let folder = format!("snapshots/{topic}/{partition:05}");
        let folder = std::fs::read_dir(self.deployment.dir().join(folder))?;
        let mut found = folder
            .map(|entry| Ok(entry?.path()))
            .collect::<anyhow::Result<Vec<_>>>()?;
        found.sort();
        found.reverse();
        Ok(found)
    }
}

/// From where a scorer had its histories, in partitions.
#[derive(Debug)]
struct Restored {
    newest: f64,
    older: f64,
    log: f64,
    warning: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scorer_goes_on_from_its_snapshots_where_the_log_before_them_is_gone()
-> anyhow::Result<()> {
    let mut case = Case::create("gone", 31).await?;
    let topic = case.deployment.log.topics().transactions.clone();
    case.write(10_000)?;
    case.run(true).await?;
    let mut input = case.input()?;
    case.deployment.log.delete_records(&topic).await?;
    case.write(10_000)?;
    input.extend(case.input()?);
    assert_eq!(input.len(), 20_000);

    let restored = case.run(true).await?;
    assert!(
        (restored.newest - f64::from(PARTITIONS)).abs() < 0.5,
        "{restored:?}"
    );
    assert_eq!(restored.warning, "null");
    case.check(&input)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scorer_that_is_killed_again_and_again_decides_as_one_that_never_stopped()
-> anyhow::Result<()> {
    let mut case = Case::create("killed", 32).await?;
    let mut from_snapshots = 0.0;
    for round in 1..=4 {
        case.write(5_000)?;
        let enough = case.decided()? + 5_000;
        let mut scorer = case.deployment.start("scorer").await?;
        // The load continues until the kill, which comes amid work, with a snapshot to continue from.
        let amid = async || {
            case.write(500)?;
            let written = scorer.metric(WRITTEN).await?;
            Ok((written > 0.5 && case.decided()? >= enough).then_some(()))
        };
        wait::until(LIMIT, &format!("a snapshot in round {round}"), amid).await?;
        let name = format!("{RESTORED}{{from=\"snapshot\"");
        from_snapshots += scorer.metric(&name).await?;
        scorer.kill()?;
    }
    case.run(true).await?;
    assert!(from_snapshots > 0.0, "no history came from a snapshot");
    case.check(&case.input()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_is_passed_over_for_the_older_one_and_that_one_for_the_log()
-> anyhow::Result<()> {
    let mut case = Case::create("damaged", 33).await?;
    for _ in 0..2 {
        case.write(8_000)?;
        case.run(true).await?;
    }
    let damage = |path: &PathBuf| -> anyhow::Result<()> {
        let bytes = std::fs::read(path)?;
        Ok(std::fs::write(path, &bytes[..bytes.len() - 1])?)
    };
    for partition in 0..PARTITIONS {
        let snapshots = case.snapshots(partition)?;
        assert_eq!(snapshots.len(), 2, "the last two are kept: {snapshots:?}");
        damage(&snapshots[0])?;
    }
    case.write(2_000)?;
    let partitions = f64::from(PARTITIONS);
    let restored = case.run(false).await?;
    assert!((restored.older - partitions).abs() < 0.5, "{restored:?}");

    for partition in 0..PARTITIONS {
        case.snapshots(partition)?.iter().try_for_each(damage)?;
    }
    case.write(2_000)?;
    let restored = case.run(true).await?;
    assert!((restored.log - partitions).abs() < 0.5, "{restored:?}");
    case.check(&case.input()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scorer_says_so_where_neither_log_nor_snapshot_holds_the_whole_history()
-> anyhow::Result<()> {
    let mut case = Case::create("shortened", 34).await?;
    case.deployment.set("SCORER__SNAPSHOTS", "");
    let topic = case.deployment.log.topics().transactions.clone();
    case.write(2_000)?;
    case.run(true).await?;
    case.deployment.log.delete_records(&topic).await?;
    case.write(2_000)?;

    let mut scorer = case.deployment.start("scorer").await?;
    let warning = scorer.readiness().await?["warnings"]["history"].to_string();
    assert!(
        warning.contains("no longer holds all of the history"),
        "{warning}"
    );
    let shortened = scorer.metric("tollgate_log_shortened_histories").await?;
    assert!((shortened - f64::from(PARTITIONS)).abs() < 0.5);
    scorer.stop().await
}
