//! Objects in a bucket of an independent S3 server, imported by instances that are killed.
#![cfg(all(feature = "kafka", feature = "postgres", feature = "s3"))]

use std::collections::{HashMap, HashSet};
use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tollgate_tests::deployment::Deployment;
use tollgate_tests::generate::Day;
use tollgate_tests::process::Service;
use tollgate_tests::{variable, wait};
use tollgate_types::{NewTransaction, Stage, Transaction};

const LIMIT: Duration = Duration::from_secs(90);
const ROWS: usize = 30_000;
/// Rows that may be in flight when an instance is killed: two windows of a thousand.
const IN_FLIGHT: usize = 2_000;

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

/// A bucket of the test's own on the S3 server, with one gzip object in it.
struct Bucket {
    endpoint: String,
    name: String,
    client: reqwest::Client,
}

impl Bucket {
    const OBJECT: &str = "2026/03/day one.csv.gz";

    async fn with_object(text: &str) -> anyhow::Result<Self> {
        let bucket = Self {
            endpoint: variable("TEST_S3_ENDPOINT")?,
            name: format!("payments-{}", std::process::id()),
            client: reqwest::Client::new(),
        };
        let url = format!("{}/{}", bucket.endpoint, bucket.name);
        bucket.client.put(&url).send().await?.error_for_status()?;
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(text.as_bytes())?;
        bucket
            .client
            .put(format!("{url}/2026/03/day%20one.csv.gz"))
            .body(packed.finish()?)
            .send()
            .await?
            .error_for_status()?;
        Ok(bucket)
    }

    /// The setting `ingest.sources`.
    fn source(&self) -> Value {
        json!([{
            "bucket": self.name,
            "columns": {"transaction_id": "id", "user_id": "customer", "amount": "value", "timestamp": "time"},
            "options": {
                "aws_endpoint": self.endpoint, "aws_allow_http": "true", "aws_region": "eu-frankfurt-1",
                "aws_access_key_id": "id", "aws_secret_access_key": "secret",
            },
        }])
    }

    /// Sends the event that the object was created.
    async fn send_event(&self, ingest: &str) -> anyhow::Result<()> {
        let event = json!({
            "eventType": "com.oraclecloud.objectstorage.createobject", "cloudEventsVersion": "0.1", "eventTypeVersion": "2.0",
            "source": "ObjectStorage", "eventTime": "2026-03-02T00:00:00Z", "eventID": "e1",
            "data": {
                "resourceName": Self::OBJECT,
                "additionalDetails": {"bucketName": self.name, "namespace": "ns", "eTag": "v1"},
            },
        });
        let answer = self
            .client
            .post(format!("{ingest}/v1/events"))
            .json(&event)
            .send()
            .await?;
        assert_eq!(answer.status(), 202);
        Ok(())
    }
}

/// Kills every instance when a quarter and when half of the rows are on the log, and starts another each time.
async fn kill_twice(
    deployment: &Deployment,
    mut running: Vec<Service>,
) -> anyhow::Result<(Vec<Service>, usize)> {
    let topic = &deployment.log.topics().transactions;
    let mut kills = 0;
    for share in [4, 2] {
        let enough = ROWS / share;
        wait::until(LIMIT, "the next rows", async || {
            Ok((deployment.log.count(topic)? >= enough).then_some(()))
        })
        .await?;
        for service in running.drain(..) {
            service.kill()?;
            kills += 1;
        }
        running.push(deployment.start("ingest").await?);
    }
    Ok((running, kills))
}

/// The entry of the topic `imports` that ends an import.
async fn until_done(deployment: &Deployment) -> anyhow::Result<Value> {
    let log = &deployment.log;
    wait::until(LIMIT, "the end of the import", async || {
        let records = log.read(&log.topics().imports)?;
        let mut entries = records
            .iter()
            .filter_map(|record| serde_json::from_slice::<Value>(&record.payload).ok());
        Ok(entries.find(|entry| entry["import"] == "done"))
    })
    .await
}

/// Every transaction of the day is on the log. The number of records beyond one for each.
fn repeated_rows(deployment: &Deployment, day: &[NewTransaction]) -> anyhow::Result<usize> {
    let log = &deployment.log;
    let mut times: HashMap<String, usize> = HashMap::new();
    for record in log.read(&log.topics().transactions)? {
        let transaction = Transaction::parse(&record.payload)?;
        *times
            .entry(transaction.transaction_id.into_owned())
            .or_default() += 1;
    }
    let ids: HashSet<&str> = day
        .iter()
        .map(|each| each.transaction_id.as_str())
        .collect();
    assert!(
        ids.iter().all(|id| times.contains_key(*id)),
        "rows are missing"
    );
    assert_eq!(times.len(), ids.len());
    Ok(times.values().sum::<usize>() - ROWS)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packed_object_in_a_bucket_comes_through_whole_although_its_reader_is_killed_again_and_again()
-> anyhow::Result<()> {
    let day: Vec<NewTransaction> = Day::new(3, 300, "i")
        .take(ROWS)
        .map(|each| each.transaction)
        .collect();
    let (text, wrong) = csv(&day);
    let bucket = Bucket::with_object(&text).await?;
    let mut deployment = Deployment::create("imports", 3).await?;
    deployment.set("INGEST__SOURCES", bucket.source().to_string());
    // Slow enough for kills in the middle of it, fast enough for the test.
    deployment.set("INGEST__IMPORT_ROWS_PER_SECOND", "6000");
    let (mut first, second) =
        tokio::try_join!(deployment.start("ingest"), deployment.start("ingest"))?;
    for _ in 0..2 {
        bucket.send_event(&first.address("ingest").await?).await?;
    }
    let (running, kills) = kill_twice(&deployment, vec![first, second]).await?;
    let done = until_done(&deployment).await?;
    assert_eq!(done["rows"].as_u64(), Some((ROWS + wrong) as u64));
    assert_eq!(done["rejected"].as_u64(), Some(wrong as u64));
    let repeated = repeated_rows(&deployment, &day)?;
    assert!(
        repeated <= kills * IN_FLIGHT,
        "{repeated} rows again after {kills} kills"
    );

    // A row that was written twice is decided once; the second is its duplicate.
    let scorer = deployment.start("scorer").await?;
    deployment.caught_up(Stage::Scorer, LIMIT).await?;
    scorer.stop().await?;
    let log = &deployment.log;
    let letters = log.read(&log.topics().transactions_dlq)?;
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
