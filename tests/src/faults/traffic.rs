//! The load: transactions over HTTP and straight onto the log, duplicates and late ones among them, and poison.
//!
//! A writer that got no acknowledgement sends the same again, with the same ids, until it gets one, as the contract
//! with ingest has it.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tollgate_types::NewTransaction;

use crate::generate::{Day, Random};
use crate::kafka::Writer;
use crate::offline::Key;

/// Time between batches.
const PACE: Duration = Duration::from_millis(250);
/// Transactions a batch.
const BATCH: usize = 50;
/// Users: few, so that bursts and crashes meet in the same histories.
const USERS: u32 = 120;
/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Before a request is made again.
const AGAIN: Duration = Duration::from_millis(100);

/// What was acknowledged.
#[derive(Debug, Default)]
pub(super) struct Acknowledged {
    pub(super) transactions: HashSet<Key>,
    pub(super) poison: HashSet<Vec<u8>>,
    /// Requests that were made again.
    pub(super) repeated: usize,
}

/// The address of ingest, which moves when it is started again.
pub(super) type Address = watch::Receiver<Option<String>>;

/// A record that is no transaction, unlike every other. Its number is written in letters: digits may be those of a card, which a
/// dead letter masks.
fn poison(number: u64) -> Vec<u8> {
    let letters: String = number
        .to_string()
        .bytes()
        .map(|digit| char::from(digit - b'0' + b'a'))
        .collect();
    format!("{{\"poison\":{letters}").into_bytes()
}

fn key(transaction: &NewTransaction) -> Key {
    (
        transaction.user_id.clone(),
        transaction.transaction_id.clone(),
    )
}

/// Writes over HTTP until `stop`, and then until everything is acknowledged.
pub(super) async fn over_http(
    seed: u64,
    mut ingest: Address,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<Acknowledged> {
    let client = reqwest::Client::builder().timeout(TIMEOUT).build()?;
    let mut day = Day::new(seed, USERS, "h").map(|each| each.transaction);
    let mut done = Acknowledged::default();
    let mut pace = tokio::time::interval(PACE);
    while !*stop.borrow() {
        pace.tick().await;
        let batch: Vec<NewTransaction> = day.by_ref().take(BATCH).collect();
        let body = batch
            .iter()
            .map(|each| each.to_json() + "\n")
            .collect::<String>();
        while !accepted(&client, &mut ingest, &body, batch.len()).await? {
            done.repeated += 1;
            tokio::time::sleep(AGAIN).await;
        }
        done.transactions.extend(batch.iter().map(key));
    }
    Ok(done)
}

/// Whether ingest has taken all of a request.
async fn accepted(
    client: &reqwest::Client,
    ingest: &mut Address,
    body: &str,
    items: usize,
) -> anyhow::Result<bool> {
    let address = ingest
        .wait_for(Option::is_some)
        .await?
        .clone()
        .unwrap_or_default();
    let request = client
        .post(format!("{address}/v1/transactions"))
        .header("content-type", "application/x-ndjson")
        .body(body.to_owned());
    // It may be down, or not answer in time, or end amid its answer.
    let Ok(answer) = request.send().await else {
        return Ok(false);
    };
    let status = answer.status().as_u16();
    let Ok(report) = answer.json::<serde_json::Value>().await else {
        return Ok(false);
    };
    anyhow::ensure!(
        matches!(status, 202 | 503),
        "ingest answers {status}: {report}"
    );
    if status == 503 {
        return Ok(false);
    }
    anyhow::ensure!(
        report["accepted"] == json!(items),
        "ingest rejects what is valid: {report}"
    );
    Ok(true)
}

/// Writes straight onto the log until `stop`: with keys and without, and now and then what is no transaction.
pub(super) fn onto_the_log(
    seed: u64,
    writer: &Writer,
    topic: &str,
    stop: &watch::Receiver<bool>,
) -> anyhow::Result<Acknowledged> {
    let mut random = Random::new(seed ^ 0x7e57);
    let mut day = Day::new(seed, USERS, "l").map(|each| each.transaction);
    let mut done = Acknowledged::default();
    while !*stop.borrow() {
        let batch: Vec<NewTransaction> = day.by_ref().take(BATCH / 2).collect();
        for transaction in &batch {
            // Without a key it goes anywhere, and the scorer writes it on to where it belongs.
            let keyed = !random.percent(10);
            let text = transaction.to_json();
            writer.write(
                topic,
                keyed.then_some(transaction.user_id.as_bytes()),
                Some(text.as_bytes()),
                &[],
            )?;
        }
        let poison = random.percent(20).then(|| poison(random.bits()));
        if let Some(poison) = &poison {
            writer.write(topic, Some(b"poison"), Some(poison), &[])?;
        }
        while let Err(error) = writer.flush() {
            // The client retries for minutes; the broker is back before that.
            anyhow::ensure!(!error.to_string().contains("Fatal"), error);
            done.repeated += 1;
        }
        done.transactions.extend(batch.iter().map(key));
        done.poison.extend(poison);
        std::thread::sleep(PACE);
    }
    Ok(done)
}
