//! What a log must offer so that the rest of this crate works on it. There is one implementation for Kafka and one for
//! the embedded log; the consumer loop, the producers and the readers are the same for both.

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tollgate_types::TraceContext;

use crate::acks::Acks;
use crate::consumer::feed::{Feed, FeedOptions};
use crate::error::LogError;
use crate::producer::{ProducerRecord, SendError};
use crate::topics::{TopicOutcome, TopicSpec};

/// A log. Clones of the handle in [`Log`](crate::Log) share it.
pub(crate) trait Backend: Debug + Send + Sync {
    /// Where it is reached, for messages to a person.
    fn address(&self) -> String;

    /// A new reader. Nothing is read before it has partitions.
    fn feed(&self, options: FeedOptions) -> Result<Box<dyn Feed>, LogError>;

    /// A new writer.
    fn writer(&self, options: WriterOptions) -> Result<Arc<dyn RecordWriter>, LogError>;

    /// A client that looks up topics.
    fn metadata(&self) -> Result<Box<dyn Metadata>, LogError>;

    /// Creates every topic that does not exist.
    fn create_topics<'a>(&'a self, topics: &'a [TopicSpec]) -> CreateTopics<'a>;
}

/// What became of each topic, by its name.
pub(crate) type CreateTopics<'a> =
    Pin<Box<dyn Future<Output = Result<Vec<(String, TopicOutcome)>, LogError>> + Send + 'a>>;

/// How a writer behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WriterOptions {
    /// Names the writer in metrics, such as `scorer`.
    pub(crate) name: &'static str,
    /// A record that is not acknowledged within this time has failed; none waits as long as it takes.
    pub(crate) delivery_timeout: Option<Duration>,
}

/// Writes records, in order for each partition.
pub(crate) trait RecordWriter: Debug + Send + Sync {
    /// Takes a record, without waiting for anything. `trace` is the context that it carries as the last of its
    /// headers; the record's own members for traces are not looked at. Calls [`Acks::begin`] before it takes the record and
    /// [`Acks::end`] when the record is durable or has failed. On an error neither is left called: [`Acks::undo`].
    fn write(
        &self,
        record: &ProducerRecord<'_>,
        trace: Option<TraceContext>,
        acks: &Arc<Acks>,
    ) -> Result<(), SendError>;

    /// Waits until everything that was taken is acknowledged or has failed, at most `timeout`.
    fn flush(&self, timeout: Duration) -> Result<(), LogError>;
}

/// Looks up topics; kept by whoever asks often.
pub(crate) trait Metadata: Debug + Send + Sync {
    /// Number of partitions of each given topic; a topic that does not exist is left out.
    fn partition_counts(
        &self,
        topics: &[&str],
        timeout: Duration,
    ) -> Result<HashMap<String, i32>, LogError>;
}
