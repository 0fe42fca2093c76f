//! A partition that is revoked while its alerts wait for a sink that is down, and may be assigned again.

use std::collections::HashMap;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tollgate_log::{
    Acks, Batching, ConsumerOptions, Distribution, Event, KafkaConfig, Log, ProducerRecord,
    StartingPosition,
};
use tollgate_service::health::Health;
use tollgate_types::Stage;

use super::*;
use crate::dead_letters::LetterWriter;
use crate::dispatch::{Dispatcher, SinkQueue};
use crate::sinks::ConsoleOut;

const DEADLINE: Duration = Duration::from_secs(30);

/// How often each transaction was seen.
type Counts = Arc<Mutex<HashMap<String, usize>>>;

/// The pipeline behind the log, with a sink that the test switches on, and events that pass through the test.
struct Pipeline {
    kafka: Log,
    from_log: tollgate_log::WorkerQueue,
    to_dispatcher: mpsc::UnboundedSender<Event>,
    shown: Counts,
    attempts: Counts,
    up: Arc<AtomicBool>,
    consumer: tollgate_log::ConsumerHandle,
    stop: Shutdown,
    tasks: JoinSet<anyhow::Result<()>>,
    _directory: tempfile::TempDir,
}

fn options() -> ConsumerOptions {
    ConsumerOptions {
        stage: Stage::Notifier,
        topics: Vec::new(),
        start: StartingPosition::TrimHorizon,
        distribution: Distribution::ByPartition(1),
        batching: Batching {
            max_records: 1,
            max_bytes: 1 << 20,
            max_wait: Duration::ZERO,
        },
        budget_records: 100,
        budget_bytes: 1 << 20,
        commit_interval: Duration::from_secs(1),
        replay: None,
        histories: None,
    }
}

/// A console that counts what it is given, and fails until it is up.
fn console(shown: &Counts, attempts: &Counts, up: &Arc<AtomicBool>) -> ConsoleOut {
    let (see, count, is_up) = (Arc::clone(shown), Arc::clone(attempts), Arc::clone(up));
    ConsoleOut::new(move |alert| {
        *count
            .lock()
            .unwrap()
            .entry(alert.key.transaction_id.clone())
            .or_default() += 1;
        if !is_up.load(Ordering::Relaxed) {
            return Err(io::Error::other("down"));
        }
        *see.lock()
            .unwrap()
            .entry(alert.key.transaction_id.clone())
            .or_default() += 1;
        Ok(())
    })
}

impl Pipeline {
    async fn start() -> Self {
        let kafka = Log::open(KafkaConfig::default()).unwrap();
        // Longer than the deadline of the test, so that a batch left in flight is noticed.
        let stop = Shutdown::new(Duration::from_secs(600));
        let health = Health::default();
        let (consumer, mut queues_of_log) = kafka.consume(options(), &health, &stop).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let url = format!(
            "sqlite://{}",
            directory.path().join("delivery-log.db").display()
        );
        let database =
            tollgate_service::database::Database::open("notifier.delivery_log_url", &url, 2)
                .await
                .unwrap();
        let (delivery_log, delivery_log_writer, store) =
            crate::delivery_log::open(database, health, stop.clone());
        store.prepare().await.unwrap();
        let (letters, letter_writer) =
            LetterWriter::new(kafka.clone(), kafka.producer("test").unwrap(), stop.clone());

        let (shown, attempts, up) = (
            Counts::default(),
            Counts::default(),
            Arc::<AtomicBool>::default(),
        );
        let console = console(&shown, &attempts, &up);
        let mut config = crate::NotifierConfig::default();
        config.retry.base_ms = 10;
        config.retry.cap_ms = 20;
        config.breaker.open_ms = 10;
        let spec = config.validate().unwrap().remove(0);
        let limits = config.dependency_config(&spec);
        let sink = Sink::open(&spec, &console, &crate::Cloud::default())
            .await
            .unwrap();
        let shared = Shared {
            delivery_log,
            letters: letters.clone(),
            drain: Drain {
                stop: stop.clone(),
                late: CancellationToken::new(),
            },
        };
        let worker = Arc::new(SinkWorker::new(spec, sink, &limits, shared));
        let (guards, queue) = mpsc::channel(100);
        let queues = vec![SinkQueue {
            guards,
            queued: worker.queued(),
        }];
        let (to_dispatcher, events) = mpsc::unbounded_channel();
        let dispatcher = Dispatcher {
            queue: events,
            queues,
            letters,
            log: kafka.clone(),
            reads: kafka.reads(tollgate_types::Stage::Notifier),
            stop: stop.clone(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(worker.run(queue));
        tasks.spawn(delivery_log_writer.run());
        tasks.spawn(letter_writer.run());
        tasks.spawn(dispatcher.run());
        let from_log = queues_of_log.remove(0);
        Self {
            kafka,
            from_log,
            to_dispatcher,
            shown,
            attempts,
            up,
            consumer,
            stop,
            tasks,
            _directory: directory,
        }
    }

    /// Writes an alert, and passes it on when it comes from the log.
    async fn pass(&mut self, transaction: &str) {
        let json = format!(
            r#"{{"transaction_id":"{transaction}","user_id":"u","fraud_score":80,"fraud_indicators":[],"status":"blocked","processed_at":"2026-03-01T12:30:00Z","ruleset_version":"1","transaction":{{}}}}"#
        );
        let acks = Acks::new(|result| result.unwrap());
        let record = ProducerRecord::new(&self.kafka.topics().alerts, b"u", json.as_bytes());
        let producer = self.kafka.producer("test").unwrap();
        producer.send(&record, &acks).unwrap();
        producer.flush(DEADLINE).unwrap();
        loop {
            let event = tokio::time::timeout(DEADLINE, self.from_log.recv())
                .await
                .unwrap()
                .unwrap();
            let is_batch = matches!(event, Event::Batch(_));
            self.to_dispatcher.send(event).unwrap();
            if is_batch {
                return;
            }
        }
    }

    fn attempted(&self, transaction: &str) -> usize {
        self.attempts
            .lock()
            .unwrap()
            .get(transaction)
            .copied()
            .unwrap_or_default()
    }

    fn revoke(&self) {
        self.to_dispatcher
            .send(Event::Revoked(vec![tollgate_log::TopicPartition::new(
                0, 0,
            )]))
            .unwrap();
    }

    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !condition(self) {
            assert!(Instant::now() < deadline, "not in time: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The grace period is longer than the deadline, so that this ends only if no record stays in flight.
    async fn ends_with_nothing_in_flight(mut self) {
        self.stop.begin();
        tokio::time::timeout(DEADLINE, self.consumer.join())
            .await
            .expect("a record stays in flight")
            .unwrap();
        drop((self.to_dispatcher, self.from_log));
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_whose_partition_went_is_left_to_the_next_owner() {
    let mut pipeline = Pipeline::start().await;
    pipeline.pass("gone").await;
    pipeline
        .until("first attempts", |p| p.attempted("gone") > 1)
        .await;
    pipeline.revoke();
    pipeline.pass("stays").await;
    // The sink has one at a time: that this one is tried means that the other is not any more.
    pipeline
        .until("an attempt", |p| p.attempted("stays") > 0)
        .await;
    pipeline.up.store(true, Ordering::Relaxed);
    pipeline
        .until("the alert of now", |p| {
            p.shown.lock().unwrap().contains_key("stays")
        })
        .await;
    let shown = pipeline.shown.lock().unwrap().clone();
    assert_eq!(shown, HashMap::from([("stays".to_owned(), 1)]));
    pipeline.ends_with_nothing_in_flight().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_that_comes_back_with_its_partition_is_delivered_once() {
    let mut pipeline = Pipeline::start().await;
    for _ in 0..3 {
        pipeline.pass("again").await;
        let before = pipeline.attempted("again");
        pipeline
            .until("an attempt", |p| p.attempted("again") > before)
            .await;
        pipeline.revoke();
    }
    pipeline.pass("again").await;
    pipeline.up.store(true, Ordering::Relaxed);
    pipeline.pass("behind").await;
    pipeline
        .until("the alert behind", |p| {
            p.shown.lock().unwrap().contains_key("behind")
        })
        .await;
    assert_eq!(pipeline.shown.lock().unwrap()["again"], 1);
    pipeline.ends_with_nothing_in_flight().await;
}
