//! Reads this instance's partition of the topic `replies` and hands decisions to the requests that wait for them.
//!
//! Replies are news, not state: reading begins at the end, nothing is committed, and a reply that nobody waits for is
//! dropped. Instances may share a partition, since each knows whom it waits for.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, SystemTime};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{BorrowedMessage, Headers as _};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use tollgate_log::{Kafka, Profile, Quiet, reports};
use tollgate_service::Shutdown;
use tollgate_service::health::Health;
use tollgate_service::telemetry::trace::{Span, SpanKind, begin_kept};
use tollgate_types::TraceContext;
use tollgate_types::headers::TRACEPARENT;

use crate::pending_replies::PendingReplies;

/// The component that `/readyz` names.
pub(crate) const COMPONENT: &str = "replies";
/// How long one look for replies takes when there are none; it delays the end of the thread as much.
const POLL: Duration = Duration::from_millis(100);
/// How long the cluster may take to tell about a topic.
const ASK: Duration = Duration::from_secs(3);
const ASK_AGAIN: Duration = Duration::from_millis(500);
const NOWHERE: i32 = -1;

/// Where decisions for this instance arrive, and who waits for them. Clones share both.
#[derive(Debug, Clone)]
pub(crate) struct Replies {
    pub(crate) pending: PendingReplies,
    partition: Arc<AtomicI32>,
}

impl Replies {
    /// Starts the reading thread. The receiver gets its end, or breaks when it panics.
    pub(crate) fn start(
        kafka: &Kafka,
        health: &Health,
        shutdown: &Shutdown,
    ) -> anyhow::Result<(Self, oneshot::Receiver<()>)> {
        let replies = Self {
            pending: PendingReplies::default(),
            partition: Arc::new(AtomicI32::new(NOWHERE)),
        };
        let mut config = kafka.consumer_config();
        config
            // It is never joined: the client library wants a name before it assigns anything.
            .set(
                "group.id",
                format!("{}tollgate-ingest", kafka.config().topic_prefix),
            )
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "latest");
        let own_wait = kafka.config().properties.contains_key("fetch.wait.max.ms");
        if kafka.config().profile() == Profile::Embedded && !own_wait {
            // The mock cluster does not wake a fetch that waits.
            config.set("fetch.wait.max.ms", "5");
        }
        let reader = Reader {
            consumer: config.create_with_context(Quiet)?,
            topic: kafka.topics().replies.clone(),
            kafka: kafka.clone(),
            replies: replies.clone(),
            health: health.clone(),
            shutdown: shutdown.clone(),
        };
        let (done, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("ingest-replies".to_owned())
            .spawn(move || {
                reader.run();
                // The receiver is gone only where the service is.
                let _ = done.send(());
            })?;
        Ok((replies, ended))
    }

    /// The partition on which decisions arrive, once it is being read.
    pub(crate) fn partition(&self) -> Option<i32> {
        Some(self.partition.load(Ordering::Acquire)).filter(|partition| *partition != NOWHERE)
    }
}

struct Reader {
    consumer: BaseConsumer<Quiet>,
    topic: String,
    kafka: Kafka,
    replies: Replies,
    health: Health,
    shutdown: Shutdown,
}

impl Reader {
    fn run(self) {
        while !self.shutdown.is_begun() {
            match self.take_partition() {
                Ok(partition) => {
                    tracing::info!(partition, "decisions for waiting callers are read");
                    self.replies.partition.store(partition, Ordering::Release);
                    self.health.ready(COMPONENT);
                    break;
                }
                Err(reason) => {
                    self.health.not_ready(COMPONENT, reason);
                    std::thread::sleep(ASK_AGAIN);
                }
            }
        }
        while !self.shutdown.is_begun() {
            match self.consumer.poll(POLL) {
                None => {}
                Some(Ok(message)) => self.deliver(&message),
                // The client mends what it can by itself; until then callers get their 202.
                Some(Err(error)) => reports::tell(&error, "replies cannot be read"),
            }
        }
    }

    /// Assigns one of the topic's partitions, from its end on.
    fn take_partition(&self) -> Result<i32, String> {
        let unreachable = |error| format!("no broker at {} answers: {error}", self.kafka.brokers());
        let metadata = self
            .consumer
            .fetch_metadata(Some(&self.topic), ASK)
            .map_err(unreachable)?;
        let found = metadata.topics().iter().find(|found| {
            found.name() == self.topic && found.error().is_none() && !found.partitions().is_empty()
        });
        let partitions = found.map(|found| found.partitions()).ok_or_else(|| {
            let topic = &self.topic;
            format!("topic {topic} does not exist; `tollgate topics create` makes it")
        })?;
        let partition = partitions[rand::random_range(0..partitions.len())].id();
        let (_, end) = self
            .consumer
            .fetch_watermarks(&self.topic, partition, ASK)
            .map_err(unreachable)?;
        // A fixed offset, not "the end": whatever is written from now on is read, however late the first fetch is.
        let mut assignment = TopicPartitionList::with_capacity(1);
        assignment
            .add_partition_offset(&self.topic, partition, Offset::Offset(end))
            .and_then(|()| self.consumer.assign(&assignment))
            .map_err(|error| format!("replies cannot be read: {error}"))?;
        Ok(partition)
    }

    /// Somebody had waited for it.
    fn tell(&self, message: &BorrowedMessage<'_>, began: SystemTime) {
        let headers = message.headers();
        let parents = headers.iter().flat_map(|headers| headers.iter());
        let parent = parents
            .filter(|header| header.key == TRACEPARENT)
            .filter_map(|header| TraceContext::parse(header.value?))
            .last();
        let Some(context) = parent.and_then(|parent| begin_kept(Some(parent))) else {
            return;
        };
        let (partition, offset) = (message.partition(), message.offset());
        let span = Span::new(
            "ingest",
            SpanKind::Consumer,
            format!("process {}", self.topic),
            context,
            parent,
        );
        span.since(began)
            .behind_remote()
            .with("messaging.system", "kafka")
            .with("messaging.destination.name", self.topic.clone())
            .with("messaging.operation.name", "process")
            .with("messaging.operation.type", "process")
            .with("messaging.destination.partition.id", partition.to_string())
            .with("messaging.kafka.offset", offset)
            .end();
    }

    fn deliver(&self, message: &BorrowedMessage<'_>) {
        #[derive(Deserialize)]
        struct Ids<'a> {
            #[serde(borrow)]
            user_id: Cow<'a, str>,
            #[serde(borrow)]
            transaction_id: Cow<'a, str>,
        }
        if let Some(log) = self.kafka.embedded() {
            log.release(&self.topic, message.partition(), size(message));
        }
        let payload = message.payload().unwrap_or_default();
        let read = serde_json::from_slice::<&RawValue>(payload)
            .and_then(|raw| serde_json::from_str::<Ids<'_>>(raw.get()).map(|ids| (ids, raw)));
        match read {
            Ok((ids, raw)) => {
                let began = SystemTime::now();
                let pending = &self.replies.pending;
                if pending.deliver(&ids.user_id, &ids.transaction_id, raw) {
                    self.tell(message, began);
                }
            }
            Err(error) => {
                let (partition, offset) = (message.partition(), message.offset());
                tracing::warn!(
                    partition,
                    offset,
                    column = error.column(),
                    "a reply is no decision"
                );
            }
        }
    }
}

/// Bytes of a record as its writer counted them.
fn size(message: &BorrowedMessage<'_>) -> usize {
    let headers = message.headers().map_or(0, |headers| {
        headers
            .iter()
            .map(|header| header.key.len() + header.value.map_or(0, <[u8]>::len))
            .sum()
    });
    message.key_len() + message.payload_len() + headers
}
