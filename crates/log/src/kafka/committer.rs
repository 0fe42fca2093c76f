//! Commits offsets of a group, on another thread than the one that polls.
//!
//! Invariant: a commit returns success only where the broker has accepted the offset of every partition in it.

use std::sync::Arc;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};

use super::callbacks::ConsumerCallbacks;
use crate::consumer::feed::{CommitOffset, OffsetCommitter};
use crate::error::LogError;

/// The committing half of a feed. It shares the client with the feed, so the group sees one member.
pub(super) struct KafkaCommitter {
    pub(super) consumer: Arc<BaseConsumer<ConsumerCallbacks>>,
    pub(super) topics: Arc<[String]>,
}

impl OffsetCommitter for KafkaCommitter {
    /// Commits synchronously, because the client library does not report the end of a commit in the background.
    fn commit(&mut self, offsets: &[CommitOffset]) -> Result<(), LogError> {
        let mut list = TopicPartitionList::new();
        for commit in offsets {
            let Some(topic) = self.topics.get(commit.partition.topic) else {
                continue;
            };
            let mut element = list.add_partition(topic, commit.partition.partition);
            element
                .set_offset(Offset::Offset(commit.offset))
                .map_err(LogError::client("an offset is out of range"))?;
            if let Some(note) = &commit.note {
                element.set_metadata(note);
            }
        }
        self.consumer
            .commit(&list, CommitMode::Sync)
            // The request may succeed while the broker refuses a single partition.
            .and_then(|()| {
                let elements = list.elements();
                elements.iter().try_for_each(TopicPartitionListElem::error)
            })
            .map_err(LogError::client("cannot commit"))
    }
}
