//! Objects in a bucket, over an S3 server that is not ours, on their way through instances that are killed.
#![cfg(all(feature = "kafka", feature = "postgres", feature = "s3"))]

use std::collections::HashMap;
use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tollgate_tests::deployment::Deployment;
use tollgate_tests::generate::Day;
use tollgate_tests::{variable, wait};
use tollgate_types::{NewTransaction, Stage, Transaction};

const LIMIT: Duration = Duration::from_secs(90);
const ROWS: usize = 30_000;
/// Rows that may be on their way when an instance is killed: two windows of a thousand.
const ON_THEIR_WAY: usize = 2_000;

/// As CSV, under names that are mapped, with some rows in it that are none.
fn csv(transactions: &[NewTransaction]) -> (String, usize) {
    let mut text = "id,customer,value,time,latitude,longitude\n".to_owned();
    let mut wrong = 0;
    for (index, transaction) in transactions.iter().enumerate() {
        let location = transaction.location.map_or_else(
            || ",".to_owned(),
            |location| format!("{},{}", location.latitude, location.longitude),
        );
        let (id, user) = (&transaction.transaction_id, &transaction.user_id);
        text += &format!(
            "{id},{user},{},{},{location}\n",
            transaction.amount, transaction.timestamp
        );
        if index % 5_000 == 0 {
            text += "broken,u,much,never,,\n";
            wrong += 1;
        }
    }
    (text, wrong)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packed_object_in_a_bucket_comes_through_whole_although_its_reader_is_killed_again_and_again()
-> anyhow::Result<()> {
    let endpoint = variable("TEST_S3_ENDPOINT")?;
    let bucket = format!("payments-{}", std::process::id());
    let client = reqwest::Client::new();
    client
        .put(format!("{endpoint}/{bucket}"))
        .send()
        .await?
        .error_for_status()?;
    let day: Vec<NewTransaction> = Day::new(3, 300, "i")
        .take(ROWS)
        .map(|each| each.transaction)
        .collect();
    let (text, wrong) = csv(&day);
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(text.as_bytes())?;
    let object = "2026/03/day one.csv.gz";
    let url = format!("{endpoint}/{bucket}/2026/03/day%20one.csv.gz");
    client
        .put(url)
        .body(packed.finish()?)
        .send()
        .await?
        .error_for_status()?;

    let mut deployment = Deployment::create("imports", 3).await?;
    let source = json!([{
        "bucket": bucket,
        "columns": {"transaction_id": "id", "user_id": "customer", "amount": "value", "timestamp": "time"},
        "options": {
            "aws_endpoint": endpoint, "aws_allow_http": "true", "aws_region": "eu-frankfurt-1",
            "aws_access_key_id": "id", "aws_secret_access_key": "secret",
        },
    }]);
    deployment.set("INGEST__SOURCES", source.to_string());
    // Slow enough to be killed in the midst of it, fast enough for the test.
    deployment.set("INGEST__IMPORT_ROWS_PER_SECOND", "6000");
    let event = json!({
        "eventType": "com.oraclecloud.objectstorage.createobject", "cloudEventsVersion": "0.1", "eventTypeVersion": "2.0",
        "source": "ObjectStorage", "eventTime": "2026-03-02T00:00:00Z", "eventID": "e1",
        "data": {"resourceName": object, "additionalDetails": {"bucketName": bucket, "namespace": "ns", "eTag": "v1"}},
    });
    let (mut first, second) =
        tokio::try_join!(deployment.start("ingest"), deployment.start("ingest"))?;
    for _ in 0..2 {
        let address = first.address("ingest").await?;
        let answer = client
            .post(format!("{address}/v1/events"))
            .json(&event)
            .send()
            .await?;
        assert_eq!(answer.status(), 202);
    }

    // Whoever has it is killed, and whoever is started anew goes on.
    let log = &deployment.log;
    let topics = log.topics();
    let mut running = vec![first, second];
    let mut kills = 0;
    for share in [4, 2] {
        let enough = ROWS / share;
        wait::until(LIMIT, "the next rows", async || {
            Ok((log.count(&topics.transactions)? >= enough).then_some(()))
        })
        .await?;
        for service in running.drain(..) {
            service.kill()?;
            kills += 1;
        }
        running.push(deployment.start("ingest").await?);
    }
    let entries = || -> anyhow::Result<Vec<Value>> {
        let records = log.read(&topics.imports)?;
        Ok(records
            .iter()
            .filter_map(|record| serde_json::from_slice(&record.payload).ok())
            .collect())
    };
    let done = wait::until(LIMIT, "the end of the import", async || {
        Ok(entries()?
            .into_iter()
            .find(|entry| entry["import"] == "done"))
    })
    .await?;
    assert_eq!(done["rows"].as_u64(), Some((ROWS + wrong) as u64));
    assert_eq!(done["rejected"].as_u64(), Some(wrong as u64));

    let mut times: HashMap<String, usize> = HashMap::new();
    for record in log.read(&topics.transactions)? {
        let transaction = Transaction::parse(&record.payload)?;
        *times
            .entry(transaction.transaction_id.into_owned())
            .or_default() += 1;
    }
    let ids: std::collections::HashSet<&str> = day
        .iter()
        .map(|each| each.transaction_id.as_str())
        .collect();
    assert!(
        ids.iter().all(|id| times.contains_key(*id)),
        "rows are missing"
    );
    assert_eq!(times.len(), ids.len());
    let repeated = times.values().sum::<usize>() - ROWS;
    assert!(
        repeated <= kills * ON_THEIR_WAY,
        "{repeated} rows again after {kills} kills"
    );

    // To whoever reads the log, what came twice is a duplicate of what was decided.
    let scorer = deployment.start("scorer").await?;
    deployment.caught_up(Stage::Scorer, LIMIT).await?;
    scorer.stop().await?;
    let letters = log.read(&topics.transactions_dlq)?;
    assert!(letters.len() >= wrong);
    assert!(letters.iter().all(|letter| {
        let object = letter.header("source.object").unwrap_or_default();
        object.ends_with("day one.csv.gz") && letter.header("source.line").is_some()
    }));
    for service in running {
        service.stop().await?;
    }
    Ok(())
}
