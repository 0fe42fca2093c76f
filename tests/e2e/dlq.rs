//! Dead letters listed, redriven and dropped by `tollgate dlq`.
#![cfg(all(feature = "kafka", feature = "postgres"))]

use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tollgate_tests::deployment::Deployment;
use tollgate_tests::offline;
use tollgate_tests::process::{binary, without_settings};
use tollgate_tests::wait;
use tollgate_types::{Stage, headers};

const PARTITIONS: u16 = 4;
const LIMIT: Duration = Duration::from_secs(60);

/// `tollgate dlq` on the log of a deployment: whether it succeeded, and its output.
fn dlq(deployment: &Deployment, args: &[&str]) -> anyhow::Result<(bool, String)> {
    let mut command = Command::new(binary("tollgate")?);
    without_settings(&mut command);
    let ended = command
        .arg("dlq")
        .args(args)
        .envs(deployment.log.settings())
        .output()?;
    let said = [ended.stdout, ended.stderr].concat();
    Ok((
        ended.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    ))
}

fn good(deployment: &Deployment, args: &[&str]) -> anyhow::Result<String> {
    let (success, said) = dlq(deployment, args)?;
    anyhow::ensure!(success, "tollgate dlq {args:?}: {said}");
    Ok(said)
}

fn open(deployment: &Deployment, filter: &[&str]) -> anyhow::Result<Vec<Value>> {
    let said = good(deployment, &[&["list", "--json"], filter].concat())?;
    said.lines()
        .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
        .collect()
}

/// A transaction of about so many bytes.
fn transaction(user: &str, id: usize, bytes: usize) -> String {
    let padding = "x".repeat(bytes);
    format!(
        r#"{{"transaction_id":"t{id}","user_id":"{user}","amount":"12.5","timestamp":"2026-03-02T08:00:{id:02}Z","padding":"{padding}"}}"#
    )
}

/// A deployment with 18 dead letters: 12 of records too large for its scorer, which a larger limit lets through, and 6 of
/// records that are no JSON.
async fn with_letters() -> anyhow::Result<Deployment> {
    let mut deployment = Deployment::create("letters", PARTITIONS).await?;
    let topics = deployment.log.topics().clone();
    let writer = deployment.log.writer()?;
    let own = [("x-own", "kept")];
    let write = |user: &str, payload: &str| {
        let (key, payload) = (Some(user.as_bytes()), Some(payload.as_bytes()));
        writer.write(&topics.transactions, key, payload, &own)
    };
    for id in 0..6 {
        write("large", &transaction("large", id, 400))?;
        write("other", &transaction("other", id, 400))?;
        write("broken", "{\"user_id\":\"broken\"")?;
    }
    writer.flush()?;
    deployment.set("SCORER__MAX_TRANSACTION_BYTES", "300");
    let scorer = deployment.start("scorer").await?;
    deployment.caught_up(Stage::Scorer, LIMIT).await?;
    scorer.stop().await?;
    deployment.set("SCORER__MAX_TRANSACTION_BYTES", "300000");
    Ok(deployment)
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_listed_by_kind_user_stage_and_time_and_dropped() -> anyhow::Result<()> {
    let deployment = with_letters().await?;
    for (filter, count) in [
        (&[][..], 18),
        (&["--kind", "too_large"], 12),
        (&["--user", "large"], 6),
        (&["--user", "large", "--kind", "malformed"], 0),
        (&["--since", "2100-01-01T00:00:00Z"], 0),
        (&["--stage", "notifier"], 0),
    ] {
        assert_eq!(open(&deployment, filter)?.len(), count, "{filter:?}");
    }
    let (success, said) = dlq(&deployment, &["redrive"])?;
    assert!(!success && said.contains("--all"), "{said}");

    let letters = open(&deployment, &["--kind", "malformed"])?;
    let first = letters[0]["letter"].as_str().context("a name")?;
    assert_eq!(
        good(&deployment, &["show", "--raw", first])?,
        "{\"user_id\":\"broken\""
    );
    good(&deployment, &["drop", first])?;
    assert_eq!(open(&deployment, &[])?.len(), 17);
    good(&deployment, &["drop", "--all"])?;
    assert_eq!(good(&deployment, &["list"])?, "no open dead letters\n");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_redriven_once_with_their_headers() -> anyhow::Result<()> {
    let deployment = with_letters().await?;
    let topics = deployment.log.topics();
    let kind = ["--kind", "too_large"];
    good(
        &deployment,
        &[&["redrive", "--dry-run"], &kind[..]].concat(),
    )?;
    assert_eq!(deployment.log.count(&topics.transactions)?, 18);

    let scorer = deployment.start("scorer").await?;
    let said = good(
        &deployment,
        &[&["redrive", "--rate", "0"], &kind[..]].concat(),
    )?;
    assert!(said.contains("12 letters redriven"), "{said}");
    deployment.caught_up(Stage::Scorer, LIMIT).await?;
    let decided = offline::every_decision(&deployment.log)?;
    assert_eq!(decided.len(), 12);
    let log = deployment.log.read(&topics.transactions)?;
    let redriven: Vec<_> = log
        .iter()
        .filter(|record| record.header(headers::REDRIVEN_FROM).is_some())
        .collect();
    assert_eq!(redriven.len(), 12);
    for record in redriven {
        assert_eq!(record.header("x-own").as_deref(), Some("kept"));
        assert_eq!(
            record.header(headers::ERROR_KIND).as_deref(),
            Some("too_large")
        );
    }
    assert_eq!(open(&deployment, &kind)?.len(), 0);
    let again = good(&deployment, &[&["redrive"], &kind[..]].concat())?;
    assert!(again.contains("0 letters redriven"), "{again}");
    scorer.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redriven_record_that_fails_again_becomes_a_letter_with_both_failures()
-> anyhow::Result<()> {
    let deployment = with_letters().await?;
    let scorer = deployment.start("scorer").await?;
    good(
        &deployment,
        &["redrive", "--kind", "malformed", "--rate", "0"],
    )?;
    let broken = ["--user", "broken"];
    wait::until_count(LIMIT, "letters that came back", 6, async || {
        let open = open(&deployment, &broken)?;
        let twice = |letter: &&Value| {
            letter["failures"]
                .as_array()
                .is_some_and(|all| all.len() == 2)
        };
        Ok(open.iter().filter(twice).count())
    })
    .await?;
    let letters = open(&deployment, &broken)?;
    assert_eq!(letters.len(), 6);
    let first = letters[0]["letter"].as_str().context("a name")?;
    let shown = good(&deployment, &["show", first])?;
    assert_eq!(shown.matches("failed   ").count(), 2, "{shown}");
    scorer.stop().await
}
