//! `tollgate up` under load, killed with SIGKILL again and again: everything that was accepted is decided, stored and
//! delivered once, and as if there had been no kill.
//!
//! `UP_CRASH_KILLS` is the number of kills (50 where it is not set), `UP_CRASH_SEED` makes the load and the moments of
//! the kills.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::support::{DEADLINE, Up, tollgate};

const WRITERS: usize = 4;
const USERS_OF_A_WRITER: usize = 3;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// The transactions of one writer, in the order in which it sends them.
struct Load {
    writer: usize,
    random: StdRng,
    sent: usize,
}

impl Load {
    /// The next transactions: of few users, close together, so that each depends on those before it.
    fn batch(&mut self, began_s: i64) -> Vec<Value> {
        let size = self.random.random_range(1..=12);
        (0..size)
            .map(|_| {
                let number = self.sent;
                self.sent += 1;
                let user = self.random.random_range(0..USERS_OF_A_WRITER);
                let amount = match self.random.random_range(0..20) {
                    0 => "4200.00".to_owned(),
                    1 => "500.00".to_owned(),
                    _ => format!("{}.{:02}", self.random.random_range(1..90), number % 100),
                };
                // In order, and none of them is ahead of the clock.
                let second = began_s + i64::try_from(number).unwrap();
                let mut transaction = json!({
                    "transaction_id": format!("w{}-{number:06}", self.writer),
                    "user_id": format!("w{}-u{user}", self.writer),
                    "amount": amount,
                    "timestamp": timestamp(second),
                });
                if self.random.random_range(0..4) == 0 {
                    let latitude = f64::from(self.random.random_range(0..60));
                    transaction["location"] = json!({ "latitude": latitude, "longitude": 10.5 });
                }
                transaction
            })
            .collect()
    }
}

/// RFC 3339 of seconds since 1970.
fn timestamp(seconds: i64) -> String {
    tollgate_types::Timestamp::from_millis(seconds * 1_000)
        .unwrap()
        .to_string()
}

/// Sends batch after batch until `stop`, each until it is accepted; whatever it sent.
async fn write(
    mut load: Load,
    began_s: i64,
    url: watch::Receiver<String>,
    accepted: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
) -> Vec<Value> {
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        .build()
        .unwrap();
    let mut all = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let batch = load.batch(began_s);
        loop {
            let ingest = url.borrow().clone();
            let sent = client
                .post(format!("{ingest}/v1/transactions"))
                .json(&batch)
                .send()
                .await;
            match sent.map(|answer| answer.status().as_u16()) {
                Ok(202) => break,
                // Without an answer, and where the log is not ready, it is sent again with the same ids.
                Ok(503) | Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                Ok(status) => panic!("status {status}"),
            }
        }
        accepted.fetch_add(batch.len(), Ordering::Relaxed);
        all.extend(batch);
    }
    all
}

/// What `tollgate score` makes of them, by id.
fn expected(directory: &Path, transactions: &[Value]) -> BTreeMap<String, Value> {
    let input = directory.join("accepted.ndjson");
    let mut file = std::fs::File::create(&input).unwrap();
    for transaction in transactions {
        writeln!(file, "{transaction}").unwrap();
    }
    let args = ["score", "--input", "accepted.ndjson", "--output", "-"];
    let output = tollgate(directory, &args).output().unwrap();
    assert!(output.status.success());
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(by_id).collect()
}

fn by_id(decision: &str) -> (String, Value) {
    let decision: Value = serde_json::from_str(decision).unwrap();
    let id = decision["transaction_id"].as_str().unwrap().to_owned();
    (id, verdict(&decision))
}

fn verdict(decision: &Value) -> Value {
    let mut indicators: Vec<String> = decision["fraud_indicators"]
        .as_array()
        .unwrap()
        .iter()
        .map(|indicator| indicator.as_str().unwrap().to_owned())
        .collect();
    indicators.sort();
    json!({
        "fraud_score": decision["fraud_score"],
        "status": decision["status"],
        "fraud_indicators": indicators,
        "duplicate": decision["duplicate"],
    })
}

/// Everything that the read API has, by id.
async fn stored(url: &str) -> BTreeMap<String, Value> {
    let client = reqwest::Client::new();
    let mut all = BTreeMap::new();
    let mut after = String::new();
    loop {
        let page = client
            .get(format!("{url}/v1/decisions?limit=500{after}"))
            .send()
            .await
            .unwrap();
        let page: Value = page.json().await.unwrap();
        for decision in page["decisions"].as_array().unwrap() {
            let (id, verdict) = by_id(&decision.to_string());
            assert!(
                all.insert(id.clone(), verdict).is_none(),
                "{id} is stored twice"
            );
        }
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return all,
        }
    }
}

async fn count(url: &str) -> u64 {
    let answer = reqwest::get(format!("{url}/v1/stats")).await.unwrap();
    let stats: Value = answer.json().await.unwrap();
    let by_status = stats["by_status"].as_object().unwrap();
    by_status
        .values()
        .map(|count| count.as_u64().unwrap())
        .sum()
}

/// Ids in the file of alerts, in its order.
fn alerts(directory: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(directory.join("tollgate-data/alerts.ndjson")).unwrap();
    // A line that a kill has cut off is no alert.
    text.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .map(|alert| alert["transaction_id"].as_str().unwrap().to_owned())
        .collect()
}

/// What the load and the kills have left to be checked.
struct Outcome {
    up: Up,
    transactions: Vec<Value>,
}

async fn load_and_kill(directory: &Path, kills: u64, seed: u64) -> Outcome {
    let mut random = StdRng::seed_from_u64(seed);
    let began_s = i64::try_from(
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs(),
    )
    .unwrap()
        // Too old to be counted by their arrival, which `tollgate score` does not know.
        - 4 * 24 * 3_600;
    let mut up = Up::start(directory);
    let (url, urls) = watch::channel(up.addresses()["ingest"].clone());
    let accepted = Arc::new(AtomicUsize::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let load = Load {
                writer,
                random: StdRng::seed_from_u64(seed ^ writer as u64),
                sent: 0,
            };
            let (accepted, stop) = (Arc::clone(&accepted), Arc::clone(&stop));
            tokio::spawn(write(load, began_s, urls.clone(), accepted, stop))
        })
        .collect();
    for kill in 0..kills {
        let more = random.random_range(0..300);
        let wanted = accepted.load(Ordering::Relaxed) + more;
        let deadline = Instant::now() + DEADLINE;
        while accepted.load(Ordering::Relaxed) < wanted {
            assert!(
                Instant::now() < deadline,
                "nothing is accepted after {kill} kills"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        up.kill();
        if random.random_range(0..4) == 0 {
            // While it starts, before it is ready.
            let early = Up::start(directory);
            tokio::time::sleep(Duration::from_millis(random.random_range(0..400))).await;
            early.kill();
        }
        up = Up::start(directory);
        url.send(up.addresses()["ingest"].clone()).unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let mut transactions = Vec::new();
    for writer in writers {
        transactions.extend(writer.await.unwrap());
    }
    Outcome { up, transactions }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_up_has_accepted_is_decided_stored_and_delivered_once_whatever_kills_it() {
    let kills = number("UP_CRASH_KILLS", 50);
    let seed = number("UP_CRASH_SEED", 1);
    let directory = TempDir::new().unwrap();
    let directory = directory.path();
    let began = Instant::now();
    let Outcome { up, transactions } = load_and_kill(directory, kills, seed).await;
    drop(up);

    // One more start, to read its addresses.
    let up = Up::start(directory);
    let addresses = up.addresses();
    let (ingest, persistence) = (&addresses["ingest"], &addresses["persistence"]);
    let total = transactions.len() as u64;
    let deadline = Instant::now() + DEADLINE;
    while count(persistence).await < total {
        assert!(Instant::now() < deadline, "not everything is stored");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let expected = expected(directory, &transactions);
    assert_eq!(expected.len(), transactions.len());
    let stored = stored(persistence).await;
    for (id, verdict) in &expected {
        assert_eq!(stored.get(id), Some(verdict), "{id}, seed {seed}");
    }
    assert_eq!(stored.len(), expected.len(), "seed {seed}");

    // What was decided before all kills is a duplicate when it is sent again.
    let again = reqwest::Client::new()
        .post(format!("{ingest}/v1/transactions"))
        .header("prefer", "wait=20")
        .json(&transactions[..1])
        .send()
        .await
        .unwrap();
    let again: Value = again.json().await.unwrap();
    assert_eq!(again["decisions"][0]["duplicate"], json!(true), "{again}");

    let due: BTreeSet<&str> = expected
        .iter()
        .filter(|(_, verdict)| verdict["status"] != json!("approved"))
        .map(|(id, _)| id.as_str())
        .collect();
    assert!(!due.is_empty());
    let deadline = Instant::now() + DEADLINE;
    while alerts(directory).len() < due.len() {
        assert!(Instant::now() < deadline, "not every alert is delivered");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    up.stop();
    let delivered = alerts(directory);
    let once: BTreeSet<&str> = delivered.iter().map(String::as_str).collect();
    assert_eq!(once, due, "seed {seed}");
    assert_eq!(
        delivered.len(),
        due.len(),
        "an alert is in the file twice, seed {seed}"
    );
    println!(
        "books balance: accepted={total} stored={} alerts={} kills={kills} seed={seed} seconds={}",
        stored.len(),
        delivered.len(),
        began.elapsed().as_secs()
    );
}
