//! A log of one's own on the Kafka of `TEST_KAFKA_BROKERS`: topics and groups under a prefix, deleted at the end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use tollgate_log::{AuthenticationConfig, KafkaConfig, Log, Producer};
use tollgate_types::{NewTransaction, Stage, Topics};

/// The key with which the services of a test sign what they write to each other.
const KEY_ID: &str = "test";
const KEY_SECRET: &str = "0123456789abcdef0123456789abcdef";

const ASK: Duration = Duration::from_secs(20);

static LOGS: AtomicU32 = AtomicU32::new(0);

/// A record of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its time, milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Its key; none is not empty.
    pub key: Option<Vec<u8>>,
    /// Its bytes.
    pub payload: Vec<u8>,
    /// Its headers, in order.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl LogRecord {
    /// The last header of this name, as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        let found = self.headers.iter().rev().find(|(found, _)| found == name)?;
        Some(String::from_utf8_lossy(&found.1).into_owned())
    }
}

/// Topics and groups of one test.
#[derive(Debug)]
pub struct TestLog {
    kafka: Log,
    prefix: String,
    added: Vec<String>,
}

impl TestLog {
    /// Makes the topics.
    ///
    /// # Errors
    /// Where Kafka is not there.
    pub async fn create(test: &str, partitions: u16) -> anyhow::Result<Self> {
        let number = LOGS.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{test}-{}-{number}.", std::process::id());
        let config = KafkaConfig {
            brokers: crate::variable("TEST_KAFKA_BROKERS")?,
            topic_prefix: prefix.clone(),
            partitions,
            replication: 1,
            authentication: AuthenticationConfig::with_key(KEY_ID, KEY_SECRET),
            ..KafkaConfig::default()
        };
        let log = Self {
            kafka: Log::open(config)?,
            prefix,
            added: Vec::new(),
        };
        log.kafka.create_topics().await?;
        // A topic is there before its partitions have leaders.
        let led = async || {
            let all = log.topics().all();
            Ok(all
                .iter()
                .all(|topic| log.ends(topic).is_ok())
                .then_some(()))
        };
        crate::wait::until(ASK, "a leader for every partition", led).await?;
        Ok(log)
    }

    /// The topics.
    #[must_use]
    pub fn topics(&self) -> &Topics {
        self.kafka.topics()
    }

    /// The consumer group of a stage.
    #[must_use]
    pub fn group(&self, stage: Stage) -> String {
        self.kafka.group(stage)
    }

    /// The brokers.
    #[must_use]
    pub fn brokers(&self) -> String {
        self.kafka.brokers()
    }

    /// The settings of a service that works on this log.
    #[must_use]
    pub fn settings(&self) -> Vec<(String, String)> {
        vec![
            ("TOLLGATE_KAFKA__BROKERS".to_owned(), self.brokers()),
            (
                "TOLLGATE_KAFKA__TOPIC_PREFIX".to_owned(),
                self.prefix.clone(),
            ),
            (
                "TOLLGATE_KAFKA__AUTHENTICATION__KEYS".to_owned(),
                serde_json::json!([{ "id": KEY_ID, "secret": KEY_SECRET }]).to_string(),
            ),
        ]
    }

    /// A client's settings.
    #[must_use]
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.brokers())
            .set("allow.auto.create.topics", "false");
        config
    }

    fn admin(&self) -> anyhow::Result<AdminClient<DefaultClientContext>> {
        Ok(self.client().create()?)
    }

    /// A producer that signs with the key of this log's services.
    ///
    /// # Errors
    /// Where the client cannot be made.
    pub fn producer(&self) -> anyhow::Result<Producer> {
        Ok(self.kafka.producer("test")?)
    }

    /// Number of partitions of a topic.
    ///
    /// # Errors
    /// Where the topic is not there.
    pub fn partitions(&self, topic: &str) -> anyhow::Result<i32> {
        let counts = self.kafka.partition_counts(&[topic])?;
        counts
            .get(topic)
            .copied()
            .with_context(|| format!("no topic {topic}"))
    }

    /// Raises a topic's number of partitions to `total`.
    ///
    /// # Errors
    /// Where the cluster refuses.
    pub async fn raise_partitions(&self, topic: &str, total: usize) -> anyhow::Result<()> {
        let results = self
            .admin()?
            .create_partitions(&[NewPartitions::new(topic, total)], &options())
            .await?;
        for result in results {
            result.map_err(|(topic, code)| anyhow::anyhow!("{topic}: {code}"))?;
        }
        let shown = async || Ok((usize::try_from(self.partitions(topic)?)? == total).then_some(()));
        crate::wait::until(ASK, "the new partitions in the metadata", shown).await
    }

    /// Deletes every record that a topic holds now, as its retention would.
    ///
    /// # Errors
    /// Where the cluster refuses.
    pub async fn delete_records(&self, topic: &str) -> anyhow::Result<()> {
        let mut list = TopicPartitionList::new();
        for (partition, end) in self.ends(topic)? {
            list.add_partition_offset(topic, partition, Offset::Offset(end))?;
        }
        let deleted = self.admin()?.delete_records(&list, &options()).await?;
        for partition in deleted.elements() {
            partition.error()?;
        }
        Ok(())
    }

    /// Lets a topic take larger records than the broker's default of 1 MiB.
    ///
    /// # Errors
    /// Where the cluster refuses.
    pub async fn allow_records_of(&self, topic: &str, bytes: usize) -> anyhow::Result<()> {
        let size = bytes.to_string();
        let change =
            AlterConfig::new(ResourceSpecifier::Topic(topic)).set("max.message.bytes", &size);
        for result in self.admin()?.alter_configs(&[change], &options()).await? {
            result.map_err(|(_, code)| anyhow::anyhow!("{topic}: {code}"))?;
        }
        Ok(())
    }

    /// Makes one more topic, which is deleted with the others.
    ///
    /// # Errors
    /// Where the cluster refuses.
    pub async fn add_topic(&mut self, name: &str, partitions: i32) -> anyhow::Result<String> {
        let name = format!("{}{name}", self.prefix);
        let topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
        for result in self.admin()?.create_topics(&[topic], &options()).await? {
            result.map_err(|(topic, code)| anyhow::anyhow!("{topic}: {code}"))?;
        }
        self.added.push(name.clone());
        let led = async || Ok(self.ends(&name).ok());
        crate::wait::until(ASK, "a leader for every partition", led).await?;
        Ok(name)
    }

    /// Watches how many records were ever written to a topic, cheaply.
    ///
    /// # Errors
    /// Where the topic is not there.
    pub fn watch(&self, topic: &str) -> anyhow::Result<Watch> {
        let mut ends = TopicPartitionList::new();
        for partition in 0..self.partitions(topic)? {
            ends.add_partition_offset(topic, partition, Offset::End)?;
        }
        Ok(Watch {
            client: self.client().create()?,
            ends,
        })
    }

    /// End offset of every partition.
    ///
    /// # Errors
    /// Where the cluster does not answer.
    pub fn ends(&self, topic: &str) -> anyhow::Result<BTreeMap<i32, i64>> {
        let client: BaseConsumer = self.client().create()?;
        ends(&client, topic, self.partitions(topic)?)
    }

    /// Records that were ever written to a topic.
    ///
    /// # Errors
    /// Where the cluster does not answer.
    pub fn count(&self, topic: &str) -> anyhow::Result<usize> {
        Ok(usize::try_from(self.ends(topic)?.values().sum::<i64>())?)
    }

    /// Records of a stage's topic that it has not committed yet.
    ///
    /// # Errors
    /// Where the cluster does not answer.
    pub fn lag(&self, stage: Stage) -> anyhow::Result<i64> {
        self.lag_of(&self.group(stage), self.topics().input_of(stage))
    }

    /// Records of a topic that a group has not committed yet.
    ///
    /// # Errors
    /// Where the cluster does not answer.
    pub fn lag_of(&self, group: &str, topic: &str) -> anyhow::Result<i64> {
        let client: BaseConsumer = self.client().set("group.id", group).create()?;
        // The committed offsets first: what is written meanwhile is lag, not the other way round.
        let partitions = self.partitions(topic)?;
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition(topic, partition);
        }
        let committed = client.committed_offsets(list, ASK)?;
        let ends = ends(&client, topic, partitions)?;
        let lag = committed.elements().into_iter().map(|element| {
            let end = ends.get(&element.partition()).copied().unwrap_or_default();
            match element.offset() {
                Offset::Offset(offset) => end - offset,
                _ => end,
            }
        });
        Ok(lag.sum())
    }

    /// Everything on a topic, partition by partition in the order of offsets.
    ///
    /// # Errors
    /// Where the cluster does not answer.
    pub fn read(&self, topic: &str) -> anyhow::Result<Vec<LogRecord>> {
        let client: BaseConsumer = self
            .client()
            .set("group.id", "none")
            .set("enable.auto.commit", "false")
            .set("fetch.wait.max.ms", "50")
            .create()?;
        let ends = ends(&client, topic, self.partitions(topic)?)?;
        let mut list = TopicPartitionList::new();
        let mut expected = 0;
        for (partition, end) in &ends {
            list.add_partition_offset(topic, *partition, Offset::Beginning)?;
            let (first, _) = client.fetch_watermarks(topic, *partition, ASK)?;
            expected += usize::try_from(end - first)?;
        }
        client.assign(&list)?;
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut records = Vec::with_capacity(expected);
        while records.len() < expected {
            anyhow::ensure!(
                Instant::now() < deadline,
                "{topic}: {} of {expected} records read",
                records.len()
            );
            let Some(message) = client.poll(Duration::from_millis(100)) else {
                continue;
            };
            let message = message?;
            // Written after the ends were fetched.
            if ends
                .get(&message.partition())
                .is_none_or(|end| message.offset() >= *end)
            {
                continue;
            }
            let headers = message
                .headers()
                .into_iter()
                .flat_map(|headers| headers.iter());
            records.push(LogRecord {
                partition: message.partition(),
                offset: message.offset(),
                timestamp_ms: message.timestamp().to_millis().unwrap_or_default(),
                key: message.key().map(<[u8]>::to_vec),
                payload: message.payload().unwrap_or_default().to_vec(),
                headers: headers
                    .map(|header| {
                        (
                            header.key.to_owned(),
                            header.value.unwrap_or_default().to_vec(),
                        )
                    })
                    .collect(),
            });
        }
        records.sort_by_key(|record| (record.partition, record.offset));
        Ok(records)
    }

    /// A writer with Kafka's own partitioner.
    ///
    /// # Errors
    /// Where the client cannot be made.
    pub fn writer(&self) -> anyhow::Result<Writer> {
        let mut config = self.client();
        config
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "5")
            .set("message.max.bytes", "2000000");
        Ok(Writer(config.create()?))
    }
}

/// The ends of a topic, fetched in one request.
pub struct Watch {
    client: BaseConsumer,
    ends: TopicPartitionList,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

impl Watch {
    /// Records that were ever written.
    ///
    /// # Errors
    /// Where the cluster does not answer.
    pub fn count(&self) -> anyhow::Result<usize> {
        let found = self.client.offsets_for_times(self.ends.clone(), ASK)?;
        let offsets = found
            .elements()
            .into_iter()
            .map(|element| match element.offset() {
                Offset::Offset(offset) => offset,
                _ => 0,
            });
        Ok(usize::try_from(offsets.sum::<i64>())?)
    }
}

/// Writes single records, with whatever key and headers a test wants.
pub struct Writer(ThreadedProducer<DefaultProducerContext>);

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer")
    }
}

impl Writer {
    /// Hands one record over.
    ///
    /// # Errors
    /// Where the client does not take it.
    pub fn write(
        &self,
        topic: &str,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (*name, Some(value.as_bytes())))
            .collect();
        self.write_with(topic, key, payload, &headers)
    }

    /// As [`Writer::write`], with headers that may hold anything, or nothing.
    ///
    /// # Errors
    /// Where the client does not take it.
    pub fn write_with(
        &self,
        topic: &str,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) -> anyhow::Result<()> {
        let all = headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| {
                all.insert(Header { key, value: *value })
            });
        let mut record = BaseRecord::to(topic).headers(all);
        if let Some(payload) = payload {
            record = record.payload(payload);
        }
        if let Some(key) = key {
            record = record.key(key);
        }
        self.0
            .send(record)
            .map_err(|(error, _): (_, BaseRecord<'_, [u8], [u8]>)| error.into())
    }

    /// Writes transactions as any good producer would, and waits until all are acknowledged.
    ///
    /// # Errors
    /// Where one is not.
    pub fn write_all(
        &self,
        topic: &str,
        transactions: impl Iterator<Item = NewTransaction>,
    ) -> anyhow::Result<()> {
        for transaction in transactions {
            let (key, text) = (transaction.user_id.as_bytes(), transaction.to_json());
            self.write(topic, Some(key), Some(text.as_bytes()), &[])?;
        }
        self.flush()
    }

    /// Waits until everything is acknowledged.
    ///
    /// # Errors
    /// Where it is not in time.
    pub fn flush(&self) -> anyhow::Result<()> {
        Ok(self.0.flush(ASK)?)
    }
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .operation_timeout(Some(ASK))
        .request_timeout(Some(ASK))
}

fn ends(client: &BaseConsumer, topic: &str, partitions: i32) -> anyhow::Result<BTreeMap<i32, i64>> {
    (0..partitions)
        .map(|partition| Ok((partition, client.fetch_watermarks(topic, partition, ASK)?.1)))
        .collect()
}

/// Runs to its end what an executor must drive, from anywhere, as from `drop` inside another executor.
pub(crate) fn blocking<T: Send>(
    work: impl Future<Output = anyhow::Result<T>> + Send,
) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(work)
        });
        thread.join().unwrap_or_else(|_| anyhow::bail!("panicked"))
    })
}

impl Drop for TestLog {
    fn drop(&mut self) {
        let removed = self.admin().and_then(|admin| {
            let groups = Stage::ALL.map(|stage| self.group(stage));
            blocking(async {
                let mut topics = self.topics().all().to_vec();
                topics.extend(self.added.iter().map(String::as_str));
                admin.delete_topics(&topics, &options()).await?;
                // A group of a service that was killed is deleted by the broker when its session is over.
                let _ = admin
                    .delete_groups(&groups.each_ref().map(String::as_str), &options())
                    .await;
                Ok(())
            })
        });
        if let Err(error) = removed {
            eprintln!("topics {}* stay: {error:#}", self.prefix);
        }
    }
}
