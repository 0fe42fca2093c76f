//! The log over TLS, as OCI Streaming wants it (SASL_SSL with PLAIN, connections closed now and then, few reads), and as
//! OCI Streaming with Apache Kafka does (SCRAM-SHA-512, certificates of clients).
#![cfg(all(feature = "kafka-tls", feature = "kafka", feature = "postgres"))]

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::statistics::Statistics;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tollgate_log::{KafkaConfig, Log, OciStreamingConfig, Profile};
use tollgate_service::Secret;
use tollgate_tests::deployment::Deployment;
use tollgate_tests::generate::Day;
use tollgate_tests::load::post_all;
use tollgate_tests::{offline, variable, wait};
use tollgate_types::{NewTransaction, Stage, Transaction};

const LIMIT: Duration = Duration::from_secs(90);
/// Transactions of one request.
const REQUEST: usize = 50;
/// How long reads are counted.
const READING: Duration = Duration::from_secs(6);

fn certificates(name: &str) -> anyhow::Result<String> {
    Ok(format!("{}/{name}", variable("TEST_KAFKA_TLS")?))
}

/// The parts of a name as OCI Streaming has it: `tenancy/[domain/]user/pool`.
fn credentials(user: &str) -> anyhow::Result<OciStreamingConfig> {
    let user = variable(user)?;
    let parts: Vec<&str> = user.split('/').collect();
    let (tenancy, domain, user, pool) = match parts[..] {
        [tenancy, user, pool] => (tenancy, "", user, pool),
        [tenancy, domain, user, pool] => (tenancy, domain, user, pool),
        _ => anyhow::bail!("{user} is no name of OCI Streaming"),
    };
    Ok(OciStreamingConfig {
        tenancy: tenancy.to_owned(),
        domain: domain.to_owned(),
        user: user.to_owned(),
        stream_pool: pool.to_owned(),
        auth_token: Secret::new(variable("TEST_KAFKA_SASL_PASSWORD")?),
    })
}

/// A deployment on OCI Streaming, as a client sees it.
async fn oci_streaming(test: &str, brokers: &str, user: &str) -> anyhow::Result<Deployment> {
    let mut deployment = Deployment::create(test, 3).await?;
    let oci = credentials(user)?;
    deployment.set("KAFKA__PROFILE", "oci-streaming");
    deployment.set("KAFKA__BROKERS", variable(brokers)?);
    deployment.set("KAFKA__OCI__TENANCY", oci.tenancy);
    deployment.set("KAFKA__OCI__DOMAIN", oci.domain);
    deployment.set("KAFKA__OCI__USER", oci.user);
    deployment.set("KAFKA__OCI__STREAM_POOL", oci.stream_pool);
    deployment.set("KAFKA__OCI__AUTH_TOKEN", oci.auth_token.expose());
    let properties = json!({ "ssl.ca.location": certificates("ca.pem")? });
    deployment.set("KAFKA__PROPERTIES", properties.to_string());
    Ok(deployment)
}

fn day(seed: u64, number: usize) -> Vec<NewTransaction> {
    Day::new(seed, 100, "o")
        .take(number)
        .map(|each| each.transaction)
        .collect()
}

/// Sends a day through all four services; every transaction must be stored once, decided as offline.
async fn comes_through(deployment: &Deployment, number: usize) -> anyhow::Result<()> {
    let (mut ingest, scorer, persistence, notifier) = tokio::try_join!(
        deployment.start("ingest"),
        deployment.start("scorer"),
        deployment.start("persistence"),
        deployment.start("notifier"),
    )?;
    post_all(&ingest.address("ingest").await?, &day(5, number), 2, 100).await?;
    for stage in Stage::ALL {
        deployment.caught_up(stage, LIMIT).await?;
    }
    let records = deployment.log.read(&deployment.log.topics().transactions)?;
    let expected = offline::score(&records, 3);
    offline::ensure_equal(
        "fraud_analysis",
        &deployment.store.analyses().await?,
        &expected,
    )?;
    for service in [ingest, scorer, persistence, notifier] {
        service.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pipeline_runs_over_sasl_plain_for_a_user_without_and_with_a_domain()
-> anyhow::Result<()> {
    for user in ["TEST_KAFKA_SASL_USER", "TEST_KAFKA_SASL_DOMAIN_USER"] {
        let deployment = oci_streaming("oci-plain", "TEST_KAFKA_SASL_PLAIN", user).await?;
        comes_through(&deployment, 1_000).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pipeline_runs_over_scram_and_over_certificates_of_clients() -> anyhow::Result<()> {
    let scram = json!({
        "security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "ssl.ca.location": certificates("ca.pem")?,
        "sasl.username": variable("TEST_KAFKA_SCRAM_USER")?, "sasl.password": variable("TEST_KAFKA_SCRAM_PASSWORD")?,
    });
    let mtls = json!({
        "security.protocol": "SSL", "ssl.ca.location": certificates("ca.pem")?,
        "ssl.certificate.location": certificates("client.pem")?, "ssl.key.location": certificates("client.key")?,
    });
    for (brokers, properties) in [("TEST_KAFKA_SCRAM", scram), ("TEST_KAFKA_MTLS", mtls)] {
        let mut deployment = Deployment::create("oci-kafka", 3).await?;
        deployment.set("KAFKA__BROKERS", variable(brokers)?);
        deployment.set("KAFKA__PROPERTIES", properties.to_string());
        comes_through(&deployment, 1_000).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_and_a_foreign_authority_are_said_in_the_log_without_the_token()
-> anyhow::Result<()> {
    for (setting, value, said) in [
        (
            "KAFKA__OCI__AUTH_TOKEN",
            "hunter2".to_owned(),
            "Authentication",
        ),
        (
            "KAFKA__PROPERTIES",
            json!({ "ssl.ca.location": certificates("stranger-ca.pem")? }).to_string(),
            "certificate verify failed",
        ),
    ] {
        let mut deployment =
            oci_streaming("oci-wrong", "TEST_KAFKA_SASL_PLAIN", "TEST_KAFKA_SASL_USER").await?;
        deployment.set(setting, value);
        let mut persistence = deployment.spawn("persistence")?;
        persistence.admin().await?;
        wait::until(LIMIT, said, async || {
            Ok(persistence.log()?.contains(said).then_some(()))
        })
        .await?;
        assert_eq!(persistence.readiness().await?["status"], "not ready");
        assert!(!persistence.log()?.contains("hunter2"));
        persistence.stop().await?;
    }
    Ok(())
}

/// Passes connections on, and closes each after a while, as OCI Streaming does to spread them anew.
async fn recycle(
    listener: TcpListener,
    upstream: String,
    life: Duration,
    closed: Arc<AtomicUsize>,
) {
    while let Ok((mut client, _)) = listener.accept().await {
        let (upstream, closed) = (upstream.clone(), Arc::clone(&closed));
        tokio::spawn(async move {
            let Ok(mut server) = TcpStream::connect(upstream).await else {
                return;
            };
            let passing = copy_bidirectional(&mut client, &mut server);
            if tokio::time::timeout(life, passing).await.is_err() {
                closed.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
}

/// Each user's transactions in the order in which they first appear: what is sent again after a broken connection may
/// stand behind itself once more.
fn in_order(texts: &[String]) -> anyhow::Result<HashMap<String, Vec<String>>> {
    let mut seen = HashSet::new();
    let mut order: HashMap<String, Vec<String>> = HashMap::new();
    for text in texts {
        let transaction = Transaction::parse(text.as_bytes())?;
        let (user, id) = (
            transaction.user_id.into_owned(),
            transaction.transaction_id.into_owned(),
        );
        if seen.insert((user.clone(), id.clone())) {
            order.entry(user).or_default().push(id);
        }
    }
    Ok(order)
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_closed_again_and_again_cost_no_record_no_order_and_few_lines_in_the_log()
-> anyhow::Result<()> {
    let listener = TcpListener::bind(variable("TEST_KAFKA_RECYCLED")?).await?;
    let closed = Arc::new(AtomicUsize::new(0));
    let upstream = variable("TEST_KAFKA_BEHIND_RECYCLED")?;
    let proxy = tokio::spawn(recycle(
        listener,
        upstream,
        Duration::from_millis(1_500),
        Arc::clone(&closed),
    ));
    let deployment = oci_streaming(
        "oci-recycled",
        "TEST_KAFKA_RECYCLED",
        "TEST_KAFKA_SASL_USER",
    )
    .await?;
    let logs = deployment.dir().join("log");
    let (mut ingest, mut scorer) = (
        deployment.spawn_logging("ingest", &logs)?,
        deployment.spawn_logging("scorer", &logs)?,
    );
    ingest.ready(LIMIT).await?;
    scorer.ready(LIMIT).await?;
    let address = ingest.address("ingest").await?;
    // In small requests, one after the other, so that every connection is closed many times meanwhile.
    let mut all = day(6, 6_000);
    for part in all.chunks(100) {
        post_all(&address, part, 1, REQUEST).await?;
    }
    wait::until(LIMIT, "enough connections closed", async || {
        Ok((closed.load(Ordering::Relaxed) >= 40).then_some(()))
    })
    .await?;
    deployment.caught_up(Stage::Scorer, LIMIT).await?;
    // Every record of the log is decided in its order, and each user's transactions are in the order they were sent, those of
    // one request in the order of their timestamps.
    let records = deployment.log.read(&deployment.log.topics().transactions)?;
    let expected = offline::score(&records, 3);
    offline::ensure_equal(
        "decisions",
        &offline::every_decision(&deployment.log)?,
        &expected,
    )?;
    for request in all.chunks_mut(REQUEST) {
        request.sort_by_key(|transaction| transaction.timestamp);
    }
    let sent: Vec<String> = all.iter().map(NewTransaction::to_json).collect();
    let sent = in_order(&sent)?;
    let texts: Vec<String> = records
        .iter()
        .map(|record| String::from_utf8_lossy(&record.payload).into_owned())
        .collect();
    assert!(
        in_order(&texts)? == sent,
        "a user's transactions are in another order"
    );
    for service in [ingest, scorer] {
        service.stop().await?;
    }
    proxy.abort();
    let log = std::fs::read_to_string(&logs)?;
    let loud = log
        .lines()
        .filter(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\""));
    let loud: Vec<&str> = loud.collect();
    let closed = closed.load(Ordering::Relaxed);
    assert!(
        loud.len() <= 12,
        "{} lines for {closed} closed connections: {:?}",
        loud.len(),
        &loud[..12]
    );
    Ok(())
}

/// Counts the requests that a client makes to read.
#[derive(Default)]
struct Fetches(Arc<AtomicUsize>);

impl ClientContext for Fetches {
    fn stats(&self, statistics: Statistics) {
        let fetches = statistics
            .brokers
            .values()
            .filter_map(|broker| broker.req.get("Fetch"));
        let sum: i64 = fetches.sum();
        self.0
            .store(usize::try_from(sum).unwrap_or_default(), Ordering::Relaxed);
    }
}

impl ConsumerContext for Fetches {}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_is_read_at_most_five_times_a_second_be_there_little_or_much()
-> anyhow::Result<()> {
    let mut deployment = Deployment::create("oci-reads", 1).await?;
    let topic = deployment.log.add_topic("flood", 1).await?;
    let writer = deployment.log.writer()?;
    // 24 MB that are there already, then a trickle.
    let mut filler = day(8, 24_000);
    for transaction in &mut filler {
        transaction
            .extra
            .insert("filler".to_owned(), "x".repeat(1_000).into());
    }
    writer.write_all(&topic, filler.into_iter())?;
    let config = KafkaConfig {
        profile: Some(Profile::OciStreaming),
        brokers: variable("TEST_KAFKA_SASL_PLAIN")?,
        oci: credentials("TEST_KAFKA_SASL_USER")?,
        properties: [("ssl.ca.location".to_owned(), certificates("ca.pem")?)].into(),
        ..KafkaConfig::default()
    };
    // One record after the other, on a thread of its own, on demand.
    let (writes, ended) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let (go, end, to) = (Arc::clone(&writes), Arc::clone(&ended), topic.clone());
    let little = day(9, 1);
    let trickling = std::thread::spawn(move || {
        while !end.load(Ordering::Relaxed) {
            if go.load(Ordering::Relaxed) {
                writer.write_all(&to, little.clone().into_iter())?;
            }
            std::thread::yield_now();
        }
        anyhow::Ok(())
    });
    let read = tokio::task::spawn_blocking(move || -> anyhow::Result<Vec<(usize, f64)>> {
        let mut client = rdkafka::ClientConfig::new();
        client.extend(Log::open(config)?.consumer_properties());
        client
            .set("group.id", "reads")
            .set("enable.auto.commit", "false")
            .set("statistics.interval.ms", "200");
        let fetches = Fetches::default();
        let count = Arc::clone(&fetches.0);
        let consumer: BaseConsumer<Fetches> = client.create_with_context(fetches)?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&topic, 0, Offset::Beginning)?;
        consumer.assign(&list)?;
        let mut rates = Vec::new();
        let mut records = 0;
        for trickle in [false, true] {
            let (begun, before) = (Instant::now(), count.load(Ordering::Relaxed));
            writes.store(trickle, Ordering::Relaxed);
            while begun.elapsed() < READING {
                if let Some(message) = consumer.poll(Duration::from_millis(5)) {
                    message?;
                    records += 1;
                }
            }
            let made = count.load(Ordering::Relaxed) - before;
            rates.push((
                records,
                f64::from(u32::try_from(made)?) / begun.elapsed().as_secs_f64(),
            ));
        }
        Ok(rates)
    });
    let rates = read.await;
    ended.store(true, Ordering::Relaxed);
    assert!(trickling.join().is_ok_and(|written| written.is_ok()));
    let rates = rates??;
    eprintln!("records and reads a second: {rates:?}");
    // More than may be written in the same time: 1 MB a second.
    assert!(rates[0].0 > 6_000, "too little was read: {rates:?}");
    assert!(rates.iter().all(|(_, rate)| *rate <= 5.0), "{rates:?}");
    Ok(())
}
