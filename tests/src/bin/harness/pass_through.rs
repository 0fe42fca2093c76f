//! Reads a topic and writes every record to another, unchanged: the least that a stage on this log can cost.
//!
//! `tests/bench scorer` holds the scorer against it. Its clients are set as the scorer's are; it commits when it has
//! reached the end and everything is acknowledged, then waits for SIGTERM.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args as ClapArgs;
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// host:port,…
    #[arg(long)]
    brokers: String,
    /// Topic to read.
    #[arg(long)]
    input: String,
    /// Topic to write.
    #[arg(long)]
    output: String,
    /// Consumer group.
    #[arg(long)]
    group: String,
}

static FAILED: AtomicBool = AtomicBool::new(false);

struct Deliveries;

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            FAILED.store(true, Ordering::Relaxed);
        }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let common = [
        ("bootstrap.servers", args.brokers.as_str()),
        ("client.id", "pass-through"),
        ("allow.auto.create.topics", "false"),
        ("socket.keepalive.enable", "true"),
    ];
    let mut reading = ClientConfig::new();
    let mut writing = ClientConfig::new();
    for (name, value) in common {
        reading.set(name, value);
        writing.set(name, value);
    }
    let consumer: BaseConsumer = reading
        .set("group.id", &args.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "true")
        .set("partition.assignment.strategy", "range,roundrobin")
        .set("statistics.interval.ms", "5000")
        .create()?;
    let producer: BaseProducer<Deliveries> = writing
        .set("acks", "all")
        .set("partitioner", "murmur2")
        .set("max.in.flight.requests.per.connection", "1")
        .set("linger.ms", "5")
        .set("message.timeout.ms", "0")
        .set("compression.type", "none")
        .set("queue.buffering.max.messages", "200000")
        .set("queue.buffering.max.kbytes", "131072")
        .create_with_context(Deliveries)?;
    consumer.subscribe(&[&args.input])?;

    let (mut at_end, mut polled) = (HashSet::new(), 0_u32);
    loop {
        match consumer.poll(Duration::from_millis(100)) {
            None => {
                producer.poll(Duration::ZERO);
            }
            Some(Ok(message)) => {
                at_end.remove(&message.partition());
                let mut record = BaseRecord::<[u8], [u8]>::to(&args.output)
                    .key(message.key().unwrap_or_default())
                    .payload(message.payload().unwrap_or_default());
                while let Err((error, back)) = producer.send(record) {
                    anyhow::ensure!(
                        error == KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull),
                        error
                    );
                    producer.poll(Duration::from_millis(1));
                    record = back;
                }
                polled += 1;
                if polled % 512 == 0 {
                    producer.poll(Duration::ZERO);
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                at_end.insert(partition);
                if at_end.len() == consumer.assignment()?.count() {
                    producer.flush(Duration::from_secs(60))?;
                    anyhow::ensure!(
                        !FAILED.load(Ordering::Relaxed),
                        "a record was not acknowledged"
                    );
                    // At its position: nothing is in flight any more.
                    consumer.commit(&consumer.position()?, CommitMode::Sync)?;
                }
            }
            Some(Err(error)) => eprintln!("pass-through: {error}"),
        }
    }
}
