//! Reads this instance's partition of the topic `replies` and delivers decisions, or the errors
//! that stand in their place, to the requests that wait for them.
//!
//! Reading begins at the end and nothing is committed: a reply is of use only to a request that is waiting now. Instances
//! may share a partition; a reply for which no request of this instance waits is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tollgate_log::{Log, LogError, RawRecord, ReaderEvent, TopicReader, Unauthenticated};
use tollgate_service::Shutdown;
use tollgate_service::health::Health;
use tollgate_service::telemetry::trace::{Span, SpanKind, begin_kept};
use tollgate_types::{Reply, ReplyAddress, Tenant, TopicKind, headers};

use crate::pending_replies::PendingReplies;

/// The component that `/readyz` names.
pub(crate) const COMPONENT: &str = "replies";
/// How long one poll waits for replies. It bounds the delay of the end of the thread.
const POLL: Duration = Duration::from_millis(100);
/// Before the topic is looked up again.
const RETRY: Duration = Duration::from_millis(500);
/// No partition is read yet.
const NO_PARTITION: i32 = -1;

/// The partition of replies that this instance reads, and the requests that wait. Clones share both.
#[derive(Debug, Clone)]
pub(crate) struct Replies {
    pub(crate) pending: PendingReplies,
    partition: Arc<AtomicI32>,
}

impl Replies {
    /// Starts the reading thread. The receiver resolves when the thread ends or panics.
    ///
    /// # Errors
    /// The log's client or the thread cannot be started.
    pub(crate) fn start(
        log: &Log,
        health: &Health,
        shutdown: &Shutdown,
    ) -> anyhow::Result<(Self, oneshot::Receiver<()>)> {
        let replies = Self {
            pending: PendingReplies::default(),
            partition: Arc::new(AtomicI32::new(NO_PARTITION)),
        };
        let topic = log.topics().replies.clone();
        let reader = Reader {
            reader: log.tail_reader(&topic)?,
            log: log.clone(),
            topic,
            replies: replies.clone(),
            health: health.clone(),
            shutdown: shutdown.clone(),
        };
        let (done, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("ingest-replies".to_owned())
            .spawn(move || {
                reader.run();
                // The receiver is gone only if the service is.
                let _ = done.send(());
            })?;
        Ok((replies, ended))
    }

    /// The partition on which decisions arrive, once it is read.
    pub(crate) fn partition(&self) -> Option<i32> {
        Some(self.partition.load(Ordering::Acquire)).filter(|partition| *partition != NO_PARTITION)
    }
}

struct Reader {
    log: Log,
    reader: TopicReader,
    topic: String,
    replies: Replies,
    health: Health,
    shutdown: Shutdown,
}

impl Reader {
    fn run(mut self) {
        while !self.shutdown.is_begun() {
            match self.take_partition() {
                Ok(partition) => {
                    tracing::info!(partition, "decisions for waiting callers are read");
                    self.replies.partition.store(partition, Ordering::Release);
                    self.health.ready(COMPONENT);
                    break;
                }
                Err(error) => {
                    self.health.not_ready(COMPONENT, error.to_string());
                    std::thread::sleep(RETRY);
                }
            }
        }
        let Self {
            log,
            mut reader,
            topic,
            replies,
            shutdown,
            ..
        } = self;
        while !shutdown.is_begun() {
            let polled = reader.poll(POLL, &mut |event| {
                if let ReaderEvent::Record(record) = event {
                    deliver(&log, &record, &topic, &replies.pending);
                }
            });
            // The client recovers by itself, and has reported it; until then callers get their 202.
            drop(polled);
        }
    }

    /// Takes one of the topic's partitions, from its end on.
    fn take_partition(&mut self) -> Result<i32, LogError> {
        let partition = rand::random_range(0..self.reader.partition_count(0)?);
        self.reader.start_at_end(partition)?;
        Ok(partition)
    }
}

/// The span of a reply for which a caller has waited.
fn record_span(record: &RawRecord<'_>, topic: &str, began: SystemTime) {
    let parent = record.trace();
    let Some(context) = parent.and_then(|parent| begin_kept(Some(parent))) else {
        return;
    };
    let span = Span::new(
        "ingest",
        SpanKind::Consumer,
        format!("process {topic}"),
        context,
        parent,
    );
    let partition = record.at.partition.to_string();
    span.since(began)
        .behind_remote()
        .with("messaging.system", "kafka")
        .with("messaging.destination.name", topic.to_owned())
        .with("messaging.operation.name", "process")
        .with("messaging.operation.type", "process")
        .with("messaging.destination.partition.id", partition)
        .with("messaging.kafka.offset", record.offset)
        .end();
}

/// The nonce that the reply repeats, if it has one.
fn nonce(record: &RawRecord<'_>) -> Option<u128> {
    let mut found = None;
    record.headers.for_each(&mut |name, value| {
        if name == headers::REPLY_TO {
            found = value.and_then(ReplyAddress::parse);
        }
    });
    found.map(|address| address.nonce)
}

fn dropped(reason: &'static str) {
    metrics::counter!("tollgate_ingest_replies_dropped_total", "reason" => reason).increment(1);
}

fn deliver(log: &Log, record: &RawRecord<'_>, topic: &str, pending: &PendingReplies) {
    let Some(nonce) = nonce(record) else {
        return dropped("no_nonce");
    };
    // Not logged one by one: whoever can write here could fill the disk.
    if log.authenticate_raw(TopicKind::Replies, record).is_err() {
        return dropped(Unauthenticated::KIND);
    }
    match Reply::parse(record.payload) {
        Ok(reply) => {
            let began = SystemTime::now();
            let (user_id, id) = (&*reply.user_id, &*reply.transaction_id);
            // A name that no key can have: nobody waits for it.
            let Ok(tenant) = Tenant::from_member(reply.tenant.as_deref()) else {
                return;
            };
            if pending.deliver(nonce, tenant, user_id, id, reply.text, reply.is_error) {
                record_span(record, topic, began);
            }
        }
        Err(error) => {
            let (partition, offset) = (record.at.partition, record.offset);
            tracing::warn!(
                partition,
                offset,
                column = error.column(),
                "a reply is neither a decision nor an error"
            );
        }
    }
}
