//! Callbacks of the consumer's client: rebalances, statistics, errors and log lines.
//!
//! The client library calls them inside a poll. Invariant: the rebalance callback never waits. It sends an event, which
//! the poll then returns; the answer to the event is what changes the assignment. Only while the feed is being dropped
//! does the callback answer by itself, because no loop is left to do it and leaving the group waits for the answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::types::RDKafkaRespErr;

use super::{reports, statistics};
use crate::consumer::feed::FeedEvent;
use crate::record::TopicPartition;

/// The state of the callbacks. The client owns it.
pub(super) struct ConsumerCallbacks {
    /// The topics of the feed. The index of a topic here is its [`TopicPartition::topic`].
    pub(super) topics: Arc<[String]>,
    /// The stage that labels the metrics of this client. A client without a stage sets none.
    pub(super) stage: Option<&'static str>,
    /// The feed takes the events out of this channel after each poll.
    pub(super) rebalances: Sender<FeedEvent>,
    /// True while the feed is being dropped.
    pub(super) closing: Arc<AtomicBool>,
}

impl ConsumerCallbacks {
    /// The partitions in a list of the client, of topics that the feed reads.
    fn partitions(&self, list: &TopicPartitionList) -> Vec<TopicPartition> {
        let elements = list.elements();
        elements
            .iter()
            .filter_map(|element| partition_of(&self.topics, element))
            .collect()
    }

    /// The gauge of a partition's consumer lag, in records. None for a topic that the feed does not read.
    fn lag(&self, topic: usize, partition: i32) -> Option<metrics::Gauge> {
        let topic = self.topics.get(topic)?;
        let labels = [
            ("topic", topic.clone()),
            ("partition", partition.to_string()),
        ];
        Some(metrics::gauge!(
            "tollgate_log_consumer_lag_records",
            &labels
        ))
    }
}

impl ClientContext for ConsumerCallbacks {
    fn stats(&self, statistics: Statistics) {
        let Some(stage) = self.stage else { return };
        statistics::record(stage, "consumer", &statistics);
        for (index, name) in self.topics.iter().enumerate() {
            let topic = statistics.topics.get(name);
            let partitions = topic.into_iter().flat_map(|topic| &topic.partitions);
            // The library reports partition -1 for records without one, and a lag of -1 where it is not known yet.
            for (partition, of) in
                partitions.filter(|(partition, of)| **partition >= 0 && of.consumer_lag >= 0)
            {
                if let Some(lag) = self.lag(index, *partition) {
                    lag.set(statistics::float(of.consumer_lag.unsigned_abs()));
                }
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        reports::client_error(&error, reason);
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        reports::log(level, facility, line);
    }
}

impl ConsumerContext for ConsumerCallbacks {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        kind: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        if let Some(stage) = self.stage {
            metrics::counter!("tollgate_log_rebalances_total", "stage" => stage).increment(1);
        }
        let partitions = self.partitions(list);
        let assigned = kind == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if !assigned && self.stage.is_some() {
            // The next owner sets the lag from here on. A value that stayed here would be counted twice.
            partitions
                .iter()
                .filter_map(|at| self.lag(at.topic, at.partition))
                .for_each(|lag| lag.set(0.0));
        }
        if self.closing.load(Ordering::Acquire) {
            unassign(consumer);
            return;
        }
        let event = if assigned {
            FeedEvent::Assigned(partitions)
        } else {
            FeedEvent::Revoked {
                partitions,
                lost: consumer.assignment_lost(),
            }
        };
        // The receiver is dropped after `closing` is set.
        let _ = self.rebalances.send(event);
    }
}

/// Answers a rebalance with no partitions at all.
pub(super) fn unassign(consumer: &BaseConsumer<ConsumerCallbacks>) {
    if let Err(error) = consumer.unassign() {
        tracing::warn!(%error, "partitions could not be given back");
    }
}

/// The partition that an element of the client's list names. None where its topic is not one of these.
pub(super) fn partition_of(
    topics: &[String],
    element: &TopicPartitionListElem<'_>,
) -> Option<TopicPartition> {
    let topic = index_of(topics, element.topic())?;
    Some(TopicPartition::new(topic, element.partition()))
}

/// The index of a topic among these.
pub(super) fn index_of(topics: &[String], name: &str) -> Option<usize> {
    topics.iter().position(|topic| topic == name)
}
