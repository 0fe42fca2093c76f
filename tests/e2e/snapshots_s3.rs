//! Snapshots in a bucket: an S3 server that is not ours takes what is signed here, and gives it back.
#![cfg(all(feature = "kafka", feature = "postgres", feature = "s3"))]

use std::time::Duration;

use tollgate_tests::deployment::Deployment;
use tollgate_tests::generate::Day;
use tollgate_tests::{offline, variable};
use tollgate_types::Stage;

const PARTITIONS: u16 = 3;
const LIMIT: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn a_scorer_goes_on_from_snapshots_in_a_bucket_where_the_log_before_them_is_gone()
-> anyhow::Result<()> {
    let endpoint = variable("TEST_S3_ENDPOINT")?;
    let bucket = format!("tollgate-{}", std::process::id());
    let client = reqwest::Client::new();
    let made = client.put(format!("{endpoint}/{bucket}")).send().await?;
    assert!(made.status().is_success(), "{made:?}");

    let mut deployment = Deployment::create("bucket", PARTITIONS).await?;
    deployment.set("SCORER__SNAPSHOTS", format!("s3://{bucket}/snapshots"));
    let options = serde_json::json!({
        "aws_endpoint": endpoint,
        "aws_allow_http": "true",
        "aws_region": "eu-frankfurt-1",
        "aws_access_key_id": "id",
        "aws_secret_access_key": "secret",
    });
    deployment.set("SCORER__SNAPSHOT_OPTIONS", options.to_string());
    let topic = deployment.log.topics().transactions.clone();
    let writer = deployment.log.writer()?;
    let mut day = Day::new(41, 100, "s").map(|each| each.transaction);
    let mut input = Vec::new();
    for round in 0..2 {
        writer.write_all(&topic, day.by_ref().take(5_000))?;
        input.extend(deployment.log.read(&topic)?);
        let mut scorer = deployment.start("scorer").await?;
        deployment.caught_up(Stage::Scorer, LIMIT).await?;
        let restored = scorer
            .metric("tollgate_scorer_histories_restored_total{from=\"snapshot\"")
            .await?;
        let expected = if round == 0 {
            0.0
        } else {
            f64::from(PARTITIONS)
        };
        assert!(
            (restored - expected).abs() < 0.5,
            "round {round}: {restored}"
        );
        scorer.stop().await?;
        deployment.log.delete_records(&topic).await?;
    }
    let found = offline::every_decision(&deployment.log)?;
    let expected = offline::score(&input, i32::from(PARTITIONS));
    offline::ensure_equal("decisions", &found, &expected)
}
