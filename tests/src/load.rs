//! Writers: the HTTP API, and foreign clients that know nothing of Tollgate.

use std::io::{BufWriter, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::Context as _;
use serde::Deserialize;
use tollgate_types::NewTransaction;

use crate::kafka::TestLog;

/// A client of another make, and what it does with keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// kcat as it comes: librdkafka's default partitioner, CRC32 over the key.
    Kcat,
    /// kcat without keys: any partition.
    KcatWithoutKeys,
    /// kcat with a key of no bytes.
    KcatWithEmptyKeys,
    /// Kafka's console producer: murmur2 over the key.
    ConsoleProducer,
}

/// A running foreign client, which writes what it is given line by line.
#[derive(Debug)]
pub struct ForeignWriter {
    client: Foreign,
    child: Child,
    input: Option<BufWriter<ChildStdin>>,
}

impl ForeignWriter {
    /// Starts it on a topic.
    ///
    /// # Errors
    /// Where it is not to be had.
    pub fn start(client: Foreign, log: &TestLog, topic: &str) -> anyhow::Result<Self> {
        let brokers = log.brokers();
        let mut command = match client {
            Foreign::Kcat | Foreign::KcatWithoutKeys | Foreign::KcatWithEmptyKeys => {
                let mut kcat = Command::new(crate::variable("TEST_KCAT")?);
                kcat.args(["-q", "-P", "-b", &brokers, "-t", topic]);
                if client != Foreign::KcatWithoutKeys {
                    kcat.args(["-K", "\\t"]);
                }
                kcat
            }
            Foreign::ConsoleProducer => {
                let mut tool = Command::new(crate::variable("TEST_KAFKA_TOOL")?);
                tool.args([
                    "console-producer",
                    "--bootstrap-server",
                    &brokers,
                    "--topic",
                    topic,
                ]);
                tool.args([
                    "--reader-property",
                    "parse.key=true",
                    "--reader-property",
                    "key.separator=\t",
                ]);
                tool
            }
        };
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let input = child.stdin.take().map(BufWriter::new);
        Ok(Self {
            client,
            child,
            input,
        })
    }

    /// Gives it one transaction.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn write(&mut self, transaction: &NewTransaction) -> anyhow::Result<()> {
        let input = self.input.as_mut().context("closed")?;
        let json = transaction.to_json();
        match self.client {
            Foreign::Kcat | Foreign::ConsoleProducer => {
                writeln!(input, "{}\t{json}", transaction.user_id)?
            }
            Foreign::KcatWithoutKeys => writeln!(input, "{json}")?,
            Foreign::KcatWithEmptyKeys => writeln!(input, "\t{json}")?,
        }
        Ok(())
    }

    /// Waits until it has written everything and ended well.
    ///
    /// # Errors
    /// Where it has not.
    pub fn finish(mut self) -> anyhow::Result<()> {
        let mut input = self.input.take().context("closed")?;
        input.flush()?;
        drop(input);
        let said = self
            .child
            .stderr
            .take()
            .map(std::io::read_to_string)
            .transpose()?
            .unwrap_or_default();
        let status = self.child.wait()?;
        anyhow::ensure!(
            status.success(),
            "{:?} ended with {status}: {said}",
            self.client
        );
        anyhow::ensure!(
            !said.to_lowercase().contains("error"),
            "{:?} printed: {said}",
            self.client
        );
        Ok(())
    }

    /// Writes all of these through a client of this kind, on a thread of its own.
    ///
    /// # Errors
    /// Where it fails.
    pub async fn write_all(
        client: Foreign,
        log: &TestLog,
        transactions: Vec<NewTransaction>,
    ) -> anyhow::Result<()> {
        let mut writer = Self::start(client, log, &log.topics().transactions)?;
        let written = tokio::task::spawn_blocking(move || {
            for transaction in &transactions {
                writer.write(transaction)?;
            }
            writer.finish()
        });
        written.await?
    }
}

impl Drop for ForeignWriter {
    fn drop(&mut self) {
        // It has ended already, unless the test fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What ingest answers to `POST /v1/transactions`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Answer {
    /// Items that are on the log.
    pub accepted: usize,
    /// Items that are not, and never will be.
    pub rejected: usize,
    /// Item by item, where some were rejected.
    #[serde(default)]
    pub results: Vec<ItemResult>,
}

/// What became of one item.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ItemResult {
    /// Its place in the request.
    pub index: usize,
    /// `accepted` or `rejected`.
    pub status: String,
    /// The member at fault.
    #[serde(default)]
    pub field: Option<String>,
}

/// Sends NDJSON as one request.
///
/// # Errors
/// Where the answer is not 202.
pub async fn post(client: &reqwest::Client, ingest: &str, body: Vec<u8>) -> anyhow::Result<Answer> {
    let request = client
        .post(format!("{ingest}/v1/transactions"))
        .header("content-type", "application/x-ndjson")
        .body(body);
    let response = request.send().await?;
    let status = response.status();
    let text = response.text().await?;
    anyhow::ensure!(status.as_u16() == 202, "ingest answered {status}: {text}");
    serde_json::from_str(&text).with_context(|| text)
}

/// Sends transactions in batches over several connections; every one must be accepted.
///
/// # Errors
/// Where one is not.
pub async fn post_all(
    ingest: &str,
    transactions: &[NewTransaction],
    connections: usize,
    batch: usize,
) -> anyhow::Result<()> {
    let mut senders = tokio::task::JoinSet::new();
    let share = transactions.len().div_ceil(connections.max(1)).max(1);
    for part in transactions.chunks(share) {
        let bodies: Vec<(usize, Vec<u8>)> = part
            .chunks(batch)
            .map(|items| {
                (
                    items.len(),
                    items
                        .iter()
                        .map(|item| item.to_json() + "\n")
                        .collect::<String>()
                        .into_bytes(),
                )
            })
            .collect();
        let ingest = ingest.to_owned();
        senders.spawn(async move {
            // A client of its own is a connection of its own.
            let client = reqwest::Client::new();
            for (items, body) in bodies {
                let answer = post(&client, &ingest, body).await?;
                anyhow::ensure!(
                    answer.accepted == items && answer.rejected == 0,
                    "{items} were sent: {answer:?}"
                );
            }
            anyhow::Ok(())
        });
    }
    while let Some(sent) = senders.join_next().await {
        sent??;
    }
    Ok(())
}
