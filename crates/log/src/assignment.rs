//! Which partitions are this process's, from where each is read, and what happens when they go.
//!
//! Runs inside the poll of the reading thread, where the client library asks for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};

use super::consumer::{Assignment, Event};
use super::histories::CommitNote;
use super::restore::{Found, Start};
use super::shared::{Shared, lock};
use super::{ASK, KafkaError, reports, statistics};

/// How long partitions that are taken away may finish what is in hand.
const REVOKE_GRACE: Duration = Duration::from_secs(5);

impl Shared {
    /// Takes every partition without a group.
    pub(crate) fn assign_all(
        self: &Arc<Self>,
        consumer: &BaseConsumer<Assigner>,
    ) -> Result<(), KafkaError> {
        let total = self.count_partitions(consumer)?;
        let starts: Vec<Start> = (0..total)
            .map(|partition| Start {
                partition,
                offset: Offset::Beginning,
                replay_until: None,
                log: 0,
                restored: None,
                shortened: false,
            })
            .collect();
        self.begin(consumer, &starts, total)
    }

    fn assigned(
        &self,
        consumer: &BaseConsumer<Assigner>,
        list: &TopicPartitionList,
    ) -> Result<(), KafkaError> {
        let total = self.count_partitions(consumer)?;
        let partitions: Vec<i32> = list
            .elements()
            .iter()
            .map(rdkafka::topic_partition_list::TopicPartitionListElem::partition)
            .collect();
        let committed =
            consumer
                .committed_offsets(list.clone(), ASK)
                .map_err(KafkaError::client(format!(
                    "cannot read the committed offsets of {}",
                    self.topic
                )))?;
        let lookback = self.lookback(consumer, &partitions)?;
        let mut found = Vec::new();
        for element in committed.elements() {
            let partition = element.partition();
            let note = CommitNote::parse(element.metadata());
            self.refuse_torn_history(note, total)?;
            found.push(Found {
                partition,
                committed: match element.offset() {
                    Offset::Offset(offset) => Some(offset),
                    _ => None,
                },
                note,
                lookback: match lookback.get(&partition) {
                    Some(Offset::Offset(offset)) => Some(*offset),
                    _ => None,
                },
                watermarks: consumer
                    .fetch_watermarks(&self.topic, partition, ASK)
                    .map_err(KafkaError::client(format!(
                        "cannot read the ends of {}",
                        self.topic
                    )))?,
            });
        }
        self.restore_and_begin(consumer, &found, total)
    }

    pub(super) fn list(&self, starts: &[Start]) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::new();
        for start in starts {
            list.add_partition_offset(&self.topic, start.partition, start.offset)
                .map_err(KafkaError::client("an offset is out of range"))?;
        }
        Ok(list)
    }

    pub(super) fn begin(
        &self,
        consumer: &BaseConsumer<Assigner>,
        starts: &[Start],
        total: i32,
    ) -> Result<(), KafkaError> {
        let list = self.list(starts)?;
        let partitions: Vec<i32> = starts.iter().map(|start| start.partition).collect();
        self.total.store(total, Ordering::Relaxed);
        *lock(&self.logs) = starts
            .iter()
            .map(|start| (start.partition, start.log))
            .collect();
        self.tracker.assign(&partitions);
        self.begin_marks(starts);
        let begun = |start: &Start| Some((start.partition, start.offset.to_raw()?));
        let firsts: HashMap<i32, i64> = starts
            .iter()
            .filter_map(begun)
            .filter(|(_, offset)| *offset >= 0)
            .collect();
        self.awaits_firsts
            .store(!firsts.is_empty(), Ordering::Relaxed);
        *lock(&self.firsts) = firsts;
        self.say_shortened(starts);
        let mut rebuilding = lock(&self.rebuilding);
        *rebuilding = starts
            .iter()
            .filter_map(|start| Some((start.partition, start.replay_until?)))
            .collect();
        self.tell_all(|| {
            Event::Assigned(Assignment {
                partitions: partitions.clone(),
                total,
            })
        });
        tracing::info!(
            topic = self.topic,
            ?partitions,
            rebuilding = rebuilding.len(),
            restored = starts
                .iter()
                .filter(|start| start.restored.is_some())
                .count(),
            "assigned"
        );
        self.say_ready(&rebuilding);
        drop(rebuilding);
        consumer.assign(&list).map_err(KafkaError::client(format!(
            "cannot take partitions of {}",
            self.topic
        )))
    }

    /// A history that lacks what it should hold is never used in silence.
    fn say_shortened(&self, starts: &[Start]) {
        if self.options.replay.is_none() {
            return;
        }
        let shortened: Vec<i32> = starts
            .iter()
            .filter(|start| start.shortened)
            .map(|start| start.partition)
            .collect();
        metrics::gauge!("tollgate_log_shortened_histories", "stage" => self.options.stage.name())
            .set(u32::try_from(shortened.len()).map_or(f64::MAX, f64::from));
        let warning = format!(
            "the log no longer holds all of the history that scores of partitions {shortened:?} look back on, and \
             nothing was kept beside it: until as much time has passed again, they may be too low. Raise the retention \
             of topic {}, or set scorer.snapshots",
            self.topic
        );
        self.health
            .warn("history", (!shortened.is_empty()).then_some(warning));
    }

    fn lag(&self, partition: i32) -> metrics::Gauge {
        let labels = [
            ("topic", self.topic.clone()),
            ("partition", partition.to_string()),
        ];
        metrics::gauge!("tollgate_log_consumer_lag_records", &labels)
    }

    fn revoked(&self, consumer: &BaseConsumer<Assigner>, list: &TopicPartitionList) {
        let partitions: Vec<i32> = list
            .elements()
            .iter()
            .map(rdkafka::topic_partition_list::TopicPartitionListElem::partition)
            .collect();
        *lock(&self.restoring) = None;
        // Whoever has them next tells how far behind they are.
        partitions
            .iter()
            .for_each(|partition| self.lag(*partition).set(0.0));
        self.close_hand();
        // Behind the batches that they have; a worker that waits for a sink may give up what it holds, while one with
        // histories gives those first.
        let tell = || self.tell_all(|| Event::Revoked(partitions.clone()));
        if self.options.histories.is_none() {
            tell();
        }
        if !self.tracker.wait_until_within(0, 0, REVOKE_GRACE) {
            tracing::warn!(
                topic = self.topic,
                "partitions go while records are in hand; the next owner reads them again"
            );
        }
        self.commit(consumer);
        if self.options.histories.is_some() {
            if let Err(error) = self.keep_histories() {
                tracing::warn!(%error, topic = self.topic, "the next owner reads more of the log");
            }
            tell();
        }
        self.tracker.assign(&[]);
        tracing::info!(topic = self.topic, ?partitions, "revoked");
        if let Err(error) = consumer.unassign() {
            tracing::warn!(%error, topic = self.topic, "giving partitions back");
        }
    }

    fn count_partitions(&self, consumer: &BaseConsumer<Assigner>) -> Result<i32, KafkaError> {
        let metadata =
            consumer
                .fetch_metadata(Some(&self.topic), ASK)
                .map_err(KafkaError::client(format!(
                    "cannot count the partitions of {}",
                    self.topic
                )))?;
        let count = metadata
            .topics()
            .first()
            .map_or(0, |topic| topic.partitions().len());
        Ok(i32::try_from(count).unwrap_or(i32::MAX))
    }

    /// The oldest offset inside the time that is replayed, by partition.
    fn lookback(
        &self,
        consumer: &BaseConsumer<Assigner>,
        partitions: &[i32],
    ) -> Result<HashMap<i32, Offset>, KafkaError> {
        let Some(replay) = self.options.replay else {
            return Ok(HashMap::new());
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let since = i64::try_from(now.saturating_sub(replay).as_millis()).unwrap_or(i64::MAX);
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition_offset(&self.topic, *partition, Offset::Offset(since))
                .map_err(KafkaError::client("a time is out of range"))?;
        }
        let found = consumer
            .offsets_for_times(list, ASK)
            .map_err(KafkaError::client(format!(
                "cannot find where the history of {} begins",
                self.topic
            )))?;
        Ok(found
            .elements()
            .iter()
            .map(|element| (element.partition(), element.offset()))
            .collect())
    }

    /// With another number of partitions users live elsewhere than their histories.
    fn refuse_torn_history(&self, note: CommitNote, total: i32) -> Result<(), KafkaError> {
        let torn = |before: &i32| self.options.replay.is_some() && *before != total;
        match note.partitions.filter(torn) {
            None => Ok(()),
            Some(before) => Err(KafkaError::Refused(format!(
                "topic {} has {total} partitions, and had {before} when scoring last went on: users have moved to other partitions \
                 than their histories, and velocity would be missed. Make a new topic with {total} partitions and let the producers \
                 write there, or go back to {before} partitions",
                self.topic
            ))),
        }
    }
}

/// The client library's callbacks.
pub(crate) struct Assigner {
    pub(crate) shared: Arc<Shared>,
}

impl ClientContext for Assigner {
    fn stats(&self, statistics: Statistics) {
        let stage = self.shared.options.stage.name();
        statistics::tell(stage, "consumer", &statistics);
        let Some(topic) = statistics.topics.get(&self.shared.topic) else {
            return;
        };
        let rebuilding = lock(&self.shared.rebuilding).clone();
        let remaining = rebuilding.iter().map(|(partition, end)| {
            let read = topic
                .partitions
                .get(partition)
                .map_or(0, |of| of.app_offset);
            (end - read.max(0)).max(0).unsigned_abs()
        });
        metrics::gauge!("tollgate_log_rebuild_remaining_records", "stage" => stage)
            .set(statistics::float(remaining.sum()));
        for (partition, of) in topic
            .partitions
            .iter()
            .filter(|(partition, of)| **partition >= 0 && of.consumer_lag >= 0)
        {
            self.shared
                .lag(*partition)
                .set(statistics::float(of.consumer_lag.unsigned_abs()));
        }
    }

    fn error(&self, error: rdkafka::error::KafkaError, reason: &str) {
        reports::tell(&error, reason);
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        reports::log(level, facility, line);
    }
}

impl ConsumerContext for Assigner {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        kind: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        metrics::counter!("tollgate_log_rebalances_total", "stage" => self.shared.options.stage.name()).increment(1);
        if kind != RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.shared.revoked(consumer, list);
            return;
        }
        let mut result = self.shared.assigned(consumer, list);
        for _ in 0..2 {
            // A broker that has just changed hands answers at the second or third time.
            if matches!(result, Err(KafkaError::Client { .. })) {
                result = self.shared.assigned(consumer, list);
            }
        }
        if let Err(error) = result {
            self.shared.health.not_ready("log", error.to_string());
            *lock(&self.shared.refusal) = Some(error);
        }
    }
}
