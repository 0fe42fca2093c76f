//! A Kafka that checks permissions: each service works with credentials of its own, and they permit nothing else.
#![cfg(all(feature = "kafka-tls", feature = "kafka", feature = "postgres"))]

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use serde_json::json;
use tollgate_tests::deployment::Deployment;
use tollgate_tests::generate::Day;
use tollgate_tests::load::post_all;
use tollgate_tests::process::{binary, without_settings};
use tollgate_tests::{offline, variable};
use tollgate_types::{NewTransaction, Role, Stage, TopicKind};

const LIMIT: Duration = Duration::from_secs(90);

/// Client properties of a role's user.
fn login(role: Role) -> anyhow::Result<Vec<(&'static str, String)>> {
    Ok(vec![
        ("security.protocol", "SASL_SSL".to_owned()),
        ("sasl.mechanism", "PLAIN".to_owned()),
        ("sasl.username", format!("tollgate-{}", role.name())),
        ("sasl.password", variable("TEST_KAFKA_SASL_PASSWORD")?),
        (
            "ssl.ca.location",
            format!("{}/ca.pem", variable("TEST_KAFKA_TLS")?),
        ),
    ])
}

/// Executes what `tollgate topics create --acls` prints.
fn grant(deployment: &Deployment) -> anyhow::Result<()> {
    let mut command = Command::new(binary("tollgate")?);
    without_settings(&mut command);
    let printed = command
        .args(["topics", "create", "--partitions", "3", "--acls"])
        .envs(deployment.log.settings())
        .output()?;
    anyhow::ensure!(
        printed.status.success(),
        "{}",
        String::from_utf8_lossy(&printed.stderr)
    );
    let tool = deployment.dir().join("kafka-acls");
    let script = format!(
        "#!/bin/sh\nexec '{}' acls \"$@\"\n",
        variable("TEST_KAFKA_TOOL")?
    );
    std::fs::write(&tool, script)?;
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o700))?;
    let mut shell = Command::new("sh")
        .env("KAFKA_ACLS", &tool)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let mut input = shell.stdin.take().context("no standard input")?;
    input.write_all(&printed.stdout)?;
    drop(input);
    let ended = shell.wait()?;
    anyhow::ensure!(ended.success(), "kafka-acls: {ended}");
    Ok(())
}

/// Keeps how the last record ended.
struct Outcome(std::sync::mpsc::SyncSender<Result<(), RDKafkaErrorCode>>);

impl ClientContext for Outcome {}

impl ProducerContext for Outcome {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &rdkafka::message::DeliveryResult<'_>, (): ()) {
        let result = result.as_ref().map(|_| ()).map_err(|(error, _)| {
            error
                .rdkafka_error_code()
                .unwrap_or(RDKafkaErrorCode::Unknown)
        });
        let _ = self.0.send(result);
    }
}

fn client(role: Role) -> anyhow::Result<rdkafka::ClientConfig> {
    let mut client = rdkafka::ClientConfig::new();
    client.set("bootstrap.servers", variable("TEST_KAFKA_SASL_PLAIN")?);
    for (name, value) in login(role)? {
        client.set(name, value);
    }
    Ok(client)
}

/// Whether the user of a role may write to a topic. What is written is a dead letter of whoever reads it.
fn may_write(role: Role, topic: &str) -> anyhow::Result<bool> {
    let (sender, outcome) = std::sync::mpsc::sync_channel(1);
    let producer: ThreadedProducer<Outcome> = client(role)?
        .set("message.timeout.ms", "20000")
        .create_with_context(Outcome(sender))?;
    let sent = producer.send(BaseRecord::<str, str>::to(topic).key("k").payload("x"));
    let result = match sent {
        Err((KafkaError::MessageProduction(code), _)) => Err(code),
        Err((error, _)) => return Err(error.into()),
        Ok(()) => {
            producer.flush(Duration::from_secs(30))?;
            outcome.recv_timeout(Duration::from_secs(1))?
        }
    };
    match result {
        Ok(()) => Ok(true),
        Err(RDKafkaErrorCode::TopicAuthorizationFailed) => Ok(false),
        // Without any permission the topic is not shown at all.
        Err(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            Ok(false)
        }
        Err(code) => anyhow::bail!("{} writes to {topic}: {code}", role.name()),
    }
}

/// Whether the user of a role may read a topic.
fn may_read(role: Role, group: &str, topic: &str) -> anyhow::Result<bool> {
    let consumer: BaseConsumer = client(role)?
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()?;
    // A topic that a user may not even see gives a consumer neither a record nor an error.
    let seen = consumer.fetch_metadata(Some(topic), LIMIT)?;
    if seen.topics().iter().any(|topic| topic.error().is_some()) {
        return Ok(false);
    }
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning)?;
    consumer.assign(&list)?;
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        let code = match consumer.poll(Duration::from_millis(100)) {
            None => continue,
            Some(Ok(_)) | Some(Err(KafkaError::PartitionEOF(_))) => return Ok(true),
            Some(Err(error)) => error.rdkafka_error_code(),
        };
        match code {
            Some(
                RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic,
            ) => return Ok(false),
            // Of a group that the role has nothing to do with: reading goes on without.
            Some(RDKafkaErrorCode::GroupAuthorizationFailed) => {}
            other => anyhow::bail!("{} reads {topic}: {other:?}", role.name()),
        }
    }
    anyhow::bail!(
        "{} reads {topic}: neither a record nor a refusal",
        role.name()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn each_service_works_with_its_own_user_and_is_refused_what_is_not_its_own()
-> anyhow::Result<()> {
    let mut deployment = Deployment::create("acls", 3).await?;
    grant(&deployment)?;
    deployment.set("KAFKA__BROKERS", variable("TEST_KAFKA_SASL_PLAIN")?);
    let mut services = Vec::new();
    for name in ["scorer", "persistence", "notifier", "ingest"] {
        let role = Role::from_name(name).context("no such role")?;
        let properties: serde_json::Map<_, _> = login(role)?
            .into_iter()
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect();
        deployment.set("KAFKA__PROPERTIES", json!(properties).to_string());
        services.push(deployment.start(name).await?);
    }
    let day: Vec<NewTransaction> = Day::new(11, 100, "o")
        .take(500)
        .map(|each| each.transaction)
        .collect();
    let ingest = services.last_mut().context("no ingest")?;
    post_all(&ingest.address("ingest").await?, &day, 2, 100).await?;
    for stage in Stage::ALL {
        deployment.caught_up(stage, LIMIT).await?;
    }
    let records = deployment.log.read(&deployment.log.topics().transactions)?;
    let expected = offline::score(&records, 3);
    let stored = deployment.store.analyses().await?;
    offline::ensure_equal("fraud_analysis", &stored, &expected)?;
    for service in services {
        service.stop().await?;
    }

    let topics = deployment.log.topics().clone();
    tokio::task::spawn_blocking(move || {
        for role in Role::ALL {
            for kind in TopicKind::ALL {
                let topic = topics.name_of(kind);
                let what = format!("{} and {}", role.name(), kind.name());
                let wanted = (
                    kind.writers().contains(&role),
                    kind.readers().contains(&role),
                );
                let group = format!("{topic}-of-a-test");
                let found = (may_write(role, topic)?, may_read(role, &group, topic)?);
                anyhow::ensure!(found == wanted, "{what}: {found:?}, expected {wanted:?}");
            }
        }
        anyhow::Ok(())
    })
    .await?
}
