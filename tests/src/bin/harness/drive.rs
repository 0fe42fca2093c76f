//! Load for a deployment that the test did not start, and its books: for `tests/compose` and `tests/kubernetes`.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tollgate_tests::faults::books::Books;
use tollgate_tests::generate::Day;
use tollgate_tests::kafka::LogRecord;
use tollgate_tests::offline::{self, Key, Scored, key_of};
use tollgate_types::{Decision, NewTransaction, Transaction};

/// Transactions under way at once, each of another user.
const WORKERS: usize = 32;
const TIMEOUT: Duration = Duration::from_secs(20);
/// Until a transaction must have been accepted.
const DEADLINE: Duration = Duration::from_secs(300);
/// After a request that got no answer.
const AGAIN: Duration = Duration::from_millis(100);

/// What `drive` does.
#[derive(Debug, Subcommand)]
pub(crate) enum Drive {
    /// Post generated transactions one by one until each is accepted; any answer but 202, and 429 or 503 with Retry-After,
    /// is a failure
    Post(PostArgs),
    /// Print generated transactions for Kafka's console producer: the user, a tab, the transaction
    Lines(GeneratedArgs),
    /// Compare the input with decisions, rows and alerts
    Books(BooksArgs),
}

#[derive(Debug, Args)]
pub(crate) struct GeneratedArgs {
    /// Transactions.
    #[arg(long)]
    count: usize,
    /// Users they come from.
    #[arg(long, default_value_t = 200)]
    users: u32,
    /// The same seed makes the same transactions.
    #[arg(long)]
    seed: u64,
    /// Prefix of their ids.
    #[arg(long)]
    prefix: String,
}

impl GeneratedArgs {
    fn transactions(&self) -> impl Iterator<Item = NewTransaction> {
        Day::new(self.seed, self.users, &self.prefix)
            .take(self.count)
            .map(|each| each.transaction)
    }
}

#[derive(Debug, Args)]
pub(crate) struct PostArgs {
    #[command(flatten)]
    generated: GeneratedArgs,
    /// Ingest.
    #[arg(long)]
    url: String,
    /// API key.
    #[arg(long)]
    key: String,
    /// Transactions a second.
    #[arg(long)]
    rate: f64,
    /// File to which accepted transactions are appended, as JSON lines.
    #[arg(long)]
    accepted: PathBuf,
}

/// The folder holds `accepted.jsonl` of `drive post`, `produced.tsv` of `drive lines`; `transactions.log`, `decisions.log` and
/// `dead-letters.log` as Kafka's console consumer prints the topics with partitions and keys; `transactions.jsonl` and
/// `analyses.jsonl`, rows of the two tables as JSON; `alerts.json` of `tollgate receive`. A missing file counts as empty.
#[derive(Debug, Args)]
pub(crate) struct BooksArgs {
    folder: PathBuf,
    /// Partitions of the topic `transactions`.
    #[arg(long, default_value_t = 12)]
    partitions: i32,
    /// Alerts that may have been delivered twice, since a notifier was killed.
    #[arg(long, default_value_t = 0)]
    repeated: usize,
}

#[expect(clippy::print_stdout, reason = "this is the command's output")]
pub(crate) async fn run(command: Drive) -> anyhow::Result<()> {
    match command {
        Drive::Post(args) => println!("{}", post(args).await?),
        Drive::Lines(generated) => {
            let mut out = std::io::stdout().lock();
            for each in generated.transactions() {
                writeln!(out, "{}\t{}", each.user_id, each.to_json())?;
            }
        }
        Drive::Books(args) => {
            let totals = read(&args)?.balance()?;
            println!("decisions made again      {:>8}", totals.decided_again);
            println!("alerts delivered again    {:>8}", totals.repeated);
            println!(
                "books balance: accepted={} stored={} dead_lettered={} alerts={}",
                totals.accepted, totals.stored, totals.dead_lettered, totals.alerts
            );
        }
    }
    Ok(())
}

/// Number of answers by status; 0 stands for no answer.
type Answers = BTreeMap<u16, usize>;

async fn post(args: PostArgs) -> anyhow::Result<String> {
    ensure!(args.rate > 0.0, "--rate must be over 0");
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&args.accepted)
        .with_context(|| args.accepted.display().to_string())?;
    let client = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .no_proxy()
        .build()?;
    let url = format!("{}/v1/transactions", args.url.trim_end_matches('/'));
    let (accepted, mut written) = mpsc::unbounded_channel::<String>();
    let mut queues = Vec::new();
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        let (sender, mut queue) = mpsc::unbounded_channel::<NewTransaction>();
        let (client, url, key) = (client.clone(), url.clone(), args.key.clone());
        let accepted = accepted.clone();
        queues.push(sender);
        workers.spawn(async move {
            let mut answers = Answers::new();
            while let Some(transaction) = queue.recv().await {
                let body = transaction.to_json();
                until_accepted(&client, &url, &key, &body, &mut answers).await?;
                accepted.send(body)?;
            }
            anyhow::Ok(answers)
        });
    }
    drop(accepted);
    let writing = tokio::task::spawn_blocking(move || {
        let mut count = 0;
        while let Some(line) = written.blocking_recv() {
            writeln!(file, "{line}")?;
            count += 1;
        }
        file.sync_all()?;
        anyhow::Ok(count)
    });
    let mut pace = tokio::time::interval(Duration::from_secs_f64(1.0 / args.rate));
    for transaction in args.generated.transactions() {
        pace.tick().await;
        // A worker that has failed has closed its queue; its error is returned below.
        let number: usize = transaction
            .user_id
            .bytes()
            .map(usize::from)
            .fold(0, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
        if queues[number % WORKERS].send(transaction).is_err() {
            break;
        }
    }
    drop(queues);
    let mut answers = Answers::new();
    while let Some(ended) = workers.join_next().await {
        for (status, count) in ended?? {
            *answers.entry(status).or_default() += count;
        }
    }
    let accepted: usize = writing.await??;
    let mut report = format!("accepted={accepted}");
    for (status, count) in answers {
        match status {
            0 => report += &format!(" unanswered={count}"),
            status => report += &format!(" {status}={count}"),
        }
    }
    Ok(report)
}

async fn until_accepted(
    client: &reqwest::Client,
    url: &str,
    key: &str,
    body: &str,
    answers: &mut Answers,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        ensure!(begun.elapsed() < DEADLINE, "never accepted: {body}");
        let request = client
            .post(url)
            .bearer_auth(key)
            .header("content-type", "application/json")
            .body(body.to_owned());
        let answer = request.send().await;
        let status = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
        *answers.entry(status).or_default() += 1;
        let Ok(answer) = answer else {
            tokio::time::sleep(AGAIN).await;
            continue;
        };
        let wait = answer.headers().get("retry-after").cloned();
        let text = answer.text().await.unwrap_or_default();
        match status {
            202 => return Ok(()),
            429 | 503 => {
                let wait = wait
                    .as_ref()
                    .and_then(|wait| wait.to_str().ok()?.parse().ok());
                let wait = wait.with_context(|| format!("{status} without Retry-After: {text}"))?;
                tokio::time::sleep(Duration::from_secs(wait)).await;
            }
            _ => anyhow::bail!("{url} answers {status}: {text}"),
        }
    }
}

/// A row of `fraud_analysis`.
#[derive(Deserialize)]
struct Analysis {
    user_id: String,
    transaction_id: String,
    fraud_score: f64,
    status: String,
    fraud_indicators: String,
    late: bool,
}

/// A row of `transactions`.
#[derive(Deserialize)]
struct Row {
    user_id: String,
    transaction_id: String,
}

/// The alerts that `tollgate receive` has.
#[derive(Deserialize, Default)]
struct Received {
    received: usize,
    alerts: Vec<Delivered>,
}

#[derive(Deserialize)]
struct Delivered {
    alert: Message,
}

#[derive(Deserialize)]
struct Message {
    data: Box<RawValue>,
}

fn read(args: &BooksArgs) -> anyhow::Result<Books> {
    let file = |name: &str| args.folder.join(name);
    let mut books = Books::default();
    for line in lines(&file("accepted.jsonl"))? {
        books.accepted.insert(key_of_transaction(&line)?);
    }
    for line in lines(&file("produced.tsv"))? {
        let (_, text) = line.split_once('\t').context("produced.tsv: no tab")?;
        books.accepted.insert(key_of_transaction(text)?);
    }
    let input = records(&file("transactions.log"))?;
    books.expected = offline::score_every(&input, args.partitions);
    for record in records(&file("decisions.log"))? {
        let decision = Decision::parse(&record.payload)?;
        books
            .decided
            .push((key_of(&decision), Scored::of(&decision)));
    }
    for record in records(&file("dead-letters.log"))? {
        let letters = books.dead_letters.entry("any").or_default();
        letters.push(record.payload);
    }
    for row in rows::<Row>(&file("transactions.jsonl"))? {
        books.transactions.push((row.user_id, row.transaction_id));
    }
    for row in rows::<Analysis>(&file("analyses.jsonl"))? {
        let scored = Scored::of_row(
            row.fraud_score,
            &row.status,
            &row.fraud_indicators,
            row.late,
        )?;
        books
            .analyses
            .push(((row.user_id, row.transaction_id), scored));
    }
    let received = match File::open(file("alerts.json")) {
        Ok(file) => serde_json::from_reader(BufReader::new(file))?,
        Err(_) => Received::default(),
    };
    ensure!(
        received.received == received.alerts.len(),
        "alerts.json: the receiver no longer has every alert"
    );
    for delivered in received.alerts {
        let decision = Decision::parse(delivered.alert.data.get().as_bytes())?;
        books.deliveries.push((key_of(&decision), Duration::ZERO));
    }
    if args.repeated > 0 {
        books.disturbances = vec![(Duration::ZERO, Duration::MAX / 2)];
        books.in_flight = args.repeated;
    }
    Ok(books)
}

fn lines(path: &Path) -> anyhow::Result<Vec<String>> {
    let Ok(file) = File::open(path) else {
        return Ok(Vec::new());
    };
    let lines = BufReader::new(file).lines();
    let filled = lines.filter(|line| line.as_ref().map_or(true, |line| !line.is_empty()));
    filled
        .collect::<Result<_, _>>()
        .with_context(|| path.display().to_string())
}

fn rows<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Vec<T>> {
    let parse = |line: String| serde_json::from_str(&line).with_context(|| line.clone());
    lines(path)?.into_iter().map(parse).collect()
}

fn key_of_transaction(text: &str) -> anyhow::Result<Key> {
    match Transaction::parse(text.as_bytes()) {
        Ok(parsed) => Ok((
            parsed.user_id.into_owned(),
            parsed.transaction_id.into_owned(),
        )),
        Err(rejection) => anyhow::bail!("{rejection}: {text}"),
    }
}

/// What the console consumer prints: `CreateTime:1772000000000`, `Partition:3`, the key and the record, between tabs, in the
/// order of each partition.
fn records(path: &Path) -> anyhow::Result<Vec<LogRecord>> {
    let mut all = Vec::new();
    for line in lines(path)? {
        let parts: Vec<&str> = line.splitn(4, '\t').collect();
        let [time, partition, key, text] = parts.as_slice() else {
            anyhow::bail!("{}: {line:?} has no four fields", path.display());
        };
        let timestamp_ms = time
            .split_once(':')
            .and_then(|(_, time)| time.parse().ok())
            .with_context(|| format!("{}: {line:?} names no time", path.display()))?;
        let partition = partition
            .strip_prefix("Partition:")
            .and_then(|number| number.parse().ok())
            .with_context(|| format!("{}: {line:?} names no partition", path.display()))?;
        all.push(LogRecord {
            partition,
            offset: i64::try_from(all.len())?,
            timestamp_ms,
            key: (*key != "null").then(|| key.as_bytes().to_vec()),
            payload: text.as_bytes().to_vec(),
            headers: Vec::new(),
        });
    }
    Ok(all)
}
