//! Load written to the topic directly, as by a producer that does not use ingest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate_log::{Acks, KafkaConfig, Log, Producer, ProducerRecord};
use tollgate_types::Transaction;

use super::Target;
use super::report::{Failure, Outcome, Tally};

/// How long a transaction may wait for room in the queue before the run ends.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) struct KafkaTarget {
    producer: Producer,
    topic: String,
}

impl KafkaTarget {
    pub(crate) async fn new(brokers: &str, prefix: &str) -> anyhow::Result<Self> {
        let config = KafkaConfig {
            brokers: brokers.to_owned(),
            topic_prefix: prefix.to_owned(),
            // The transactions are made up, and no password is sent.
            allow_plaintext: true,
            ..KafkaConfig::default()
        };
        let kafka = Log::open_cluster(config)?;
        let topic = kafka.topics().transactions.clone();
        let asked = kafka.clone();
        let counts = tokio::task::spawn_blocking(move || {
            asked.partition_counts(&[&asked.topics().transactions])
        })
        .await??;
        anyhow::ensure!(
            counts.contains_key(&topic),
            "topic {topic} does not exist; `tollgate topics create` makes it"
        );
        Ok(Self {
            producer: kafka.producer("tollgate")?,
            topic,
        })
    }
}

impl Target for KafkaTarget {
    async fn send(
        &self,
        batch: Vec<String>,
        due: Instant,
        tally: &Arc<Tally>,
    ) -> anyhow::Result<()> {
        for text in batch {
            // A line that is no transaction is written too, without a key: the scorer dead-letters it.
            let user = Transaction::parse(text.as_bytes())
                .map(|transaction| transaction.user_id.into_owned())
                .ok();
            let record = ProducerRecord {
                key: user.as_deref().map(str::as_bytes),
                ..ProducerRecord::new(&self.topic, &[], text.as_bytes())
            };
            let tally = Arc::clone(tally);
            let acks = Acks::new(move |result| match result {
                Ok(_) => tally.accepted(1, due.elapsed()),
                Err(error) => {
                    tally.failed(1, Outcome::Failed(Failure::Other), || error.to_string());
                }
            });
            self.producer
                .send_until(&record, &acks, Instant::now() + SEND_TIMEOUT)
                .await?;
            acks.seal();
        }
        Ok(())
    }

    async fn finish(&self) {
        let producer = self.producer.clone();
        let flushed =
            tokio::task::spawn_blocking(move || producer.flush(Duration::from_secs(60))).await;
        if !matches!(flushed, Ok(Ok(()))) {
            tracing::warn!("not everything was acknowledged within a minute");
        }
    }
}
