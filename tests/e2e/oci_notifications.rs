//! Alerts on their way to Oracle's Notifications, as a stand-in sees them that checks every signature and limit.
#![cfg(all(feature = "kafka", feature = "postgres", feature = "oci"))]

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use serde_json::{Value, json};
use tollgate_tests::alerts::{self, alert};
use tollgate_tests::deployment::Deployment;
use tollgate_tests::oci::{Config, Message, Service, StandIn, make_user};
use tollgate_tests::wait;
use tollgate_types::Stage;

const LIMIT: Duration = Duration::from_secs(60);
const TOPIC: &str = "ocid1.onstopic.oc1.eu-frankfurt-1.alerts";
const ACCOUNT: &str = "token-of-the-service-account";

/// A stand-in, and a deployment whose notifier publishes there.
struct World {
    cloud: StandIn,
    deployment: Deployment,
}

impl World {
    /// By a user's key, unless the test sets another way.
    async fn new(test: &str, change: impl FnOnce(&mut Config)) -> anyhow::Result<Self> {
        let (user, key) = make_user("ocid1.tenancy.oc1..t", "ocid1.user.oc1..u")?;
        let fingerprint = user.fingerprint();
        let mut config = Config {
            users: vec![user],
            topics: vec![TOPIC.to_owned()],
            service_account_token: ACCOUNT.to_owned(),
            ..Config::default()
        };
        change(&mut config);
        let cloud = StandIn::start(config).await?;
        let mut deployment = Deployment::create(test, 3).await?;
        let sink = json!([{"kind": "oci", "topic": TOPIC, "decisions_url": "https://tollgate.example.com"}]);
        deployment.set("NOTIFIER__SINKS", sink.to_string());
        deployment.set("NOTIFIER__RETRY__CAP_MS", "500");
        deployment.set("OCI__NOTIFICATIONS_ENDPOINT", cloud.endpoint());
        deployment.set("OCI__REGION", "eu-frankfurt-1");
        deployment.set("OCI__AUTH", "api-key");
        deployment.set("OCI__TENANCY", "ocid1.tenancy.oc1..t");
        deployment.set("OCI__USER", "ocid1.user.oc1..u");
        deployment.set("OCI__FINGERPRINT", fingerprint);
        deployment.set("OCI__PRIVATE_KEY", key);
        Ok(Self { cloud, deployment })
    }

    /// Writes one alert, and waits for its message.
    async fn deliver(&self, id: &str) -> anyhow::Result<()> {
        alerts::write(&self.deployment.log, &[alert(id, "review", 50.0)])?;
        let what = format!("the message of {id}");
        wait::until(LIMIT, &what, async || {
            let messages = self.cloud.messages();
            let delivered = messages
                .iter()
                .any(|message| body(message)["transaction_id"] == id);
            Ok(delivered.then_some(()))
        })
        .await
    }

    /// Statuses of all that was received since.
    fn statuses(&self, since: usize) -> Vec<Option<u16>> {
        let received = self.cloud.received(Service::Notifications);
        received[since..].iter().map(|one| one.status).collect()
    }
}

fn body(message: &Message) -> Value {
    serde_json::from_str(&message.body).unwrap_or_default()
}

/// Number of alerts in a message.
fn told_by(message: &Message) -> u64 {
    body(message)["alerts"].as_u64().unwrap_or(1)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_alert_is_told_once_with_title_and_members_of_the_reference_and_not_again_by_the_next_notifier()
-> anyhow::Result<()> {
    let world = World::new("oci-once", |_| ()).await?;
    let notifier = world.deployment.start("notifier").await?;
    let batch = [alert("a", "blocked", 82.5), alert("b", "review", 42.0)];
    alerts::write(&world.deployment.log, &batch)?;
    world.deployment.caught_up(Stage::Notifier, LIMIT).await?;
    notifier.stop().await?;
    // The same alerts again, as after a rebalance, for another process.
    alerts::write(&world.deployment.log, &batch)?;
    let notifier = world.deployment.start("notifier").await?;
    world.deployment.caught_up(Stage::Notifier, LIMIT).await?;
    notifier.stop().await?;

    // They went side by side, so either may have come first.
    let mut messages = world.cloud.messages();
    messages.sort_by_key(|message| message.title.clone());
    let titles: Vec<&str> = messages
        .iter()
        .filter_map(|message| message.title.as_deref())
        .collect();
    assert_eq!(titles, ["Fraud Alert - BLOCKED", "Fraud Alert - REVIEW"]);
    let expected = json!({
        "alert_type": "fraud_detection", "transaction_id": "a", "user_id": "u", "fraud_score": 82.5, "status": "blocked",
        "amount": 4200, "indicators": ["high_amount"], "timestamp": "2026-03-01T12:00:01Z",
    });
    assert_eq!(body(&messages[0]), expected);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_alerts_becomes_messages_that_a_topic_takes_and_a_refused_one_leaves_no_alert_out()
-> anyhow::Result<()> {
    let world = World::new("oci-flood", |_| ()).await?;
    let flood: Vec<String> = (0..2_000)
        .map(|n| match n % 4 {
            0 => alert(&format!("t{n}"), "blocked", 70.0 + f64::from(n % 50)),
            _ => alert(&format!("t{n}"), "review", 40.0),
        })
        .collect();
    // They are all there when the first message is made, which has many, and is refused; its halves are accepted.
    alerts::write(&world.deployment.log, &flood)?;
    let faults = world.cloud.faults();
    faults.answer_next(Service::Notifications, 1, 400, "InvalidParameter", None);
    let notifier = world.deployment.start("notifier").await?;
    world.deployment.caught_up(Stage::Notifier, LIMIT).await?;
    notifier.stop().await?;

    let log = &world.deployment.log;
    assert_eq!(log.count(&log.topics().alerts_dlq)?, 0);
    let messages = world.cloud.messages();
    assert_eq!(messages.iter().map(told_by).sum::<u64>(), 2_000);
    assert!(messages.len() < 60, "{} messages", messages.len());
    // Not one was more than a topic takes.
    assert!(world.statuses(1).iter().all(|status| *status == Some(202)));
    let digest = messages.iter().max_by_key(|message| told_by(message));
    let digest = body(digest.ok_or_else(|| anyhow::anyhow!("no message"))?);
    let worst = digest["worst"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let rank = |alert: &Value| {
        let blocked = alert["status"] == "blocked";
        (blocked, alert["fraud_score"].as_f64().unwrap_or_default())
    };
    assert!(worst.len() > 100, "{} listed", worst.len());
    assert!(
        worst
            .windows(2)
            .all(|pair| rank(&pair[0]) >= rank(&pair[1]))
    );
    let counts = digest["blocked"].as_u64().zip(digest["review"].as_u64());
    assert_eq!(
        counts.map(|(blocked, review)| blocked + review),
        digest["alerts"].as_u64()
    );
    let pointer = digest["decisions"][0].as_str().unwrap_or_default();
    assert!(pointer.starts_with("https://tollgate.example.com/v1/decisions?status=blocked&from="));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_in_the_installation_is_waited_for_and_what_is_refused_is_dead_lettered()
-> anyhow::Result<()> {
    let world = World::new("oci-faults", |_| ()).await?;
    let notifier = world.deployment.start("notifier").await?;
    for (index, (status, code)) in [
        (404, "NotAuthorizedOrNotFound"),
        (409, "IncorrectState"),
        (429, "TooManyRequests"),
        (500, "InternalServerError"),
        (503, "ServiceUnavailable"),
    ]
    .into_iter()
    .enumerate()
    {
        let since = world.cloud.received(Service::Notifications).len();
        let faults = world.cloud.faults();
        faults.answer_next(Service::Notifications, 2, status, code, None);
        world.deliver(&format!("t{index}")).await?;
        assert_eq!(
            world.statuses(since),
            [Some(status), Some(status), Some(202)]
        );
    }
    let dead = || {
        world
            .deployment
            .log
            .read(&world.deployment.log.topics().alerts_dlq)
    };
    assert!(dead()?.is_empty());

    let faults = world.cloud.faults();
    faults.answer_next(Service::Notifications, 1, 400, "InvalidParameter", None);
    alerts::write(&world.deployment.log, &[alert("refused", "review", 50.0)])?;
    world.deployment.caught_up(Stage::Notifier, LIMIT).await?;
    let letters = dead()?;
    assert_eq!(letters.len(), 1);
    let reason = letters[0].header("error.reason").unwrap_or_default();
    assert!(reason.contains("HTTP 400 InvalidParameter"), "{reason}");

    // Published, and the answer lost: it is published again, because the API has no idempotency token.
    world.cloud.faults().drop_next(Service::Notifications, 1);
    world.deliver("ambiguous").await?;
    world.deployment.caught_up(Stage::Notifier, LIMIT).await?;
    let twice = world.cloud.messages();
    let twice = twice
        .iter()
        .filter(|message| body(message)["transaction_id"] == "ambiguous");
    assert_eq!(twice.count(), 2);
    notifier.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_identity_is_renewed_before_it_ends_and_when_it_is_revoked() -> anyhow::Result<()> {
    // Half of it is over in two seconds.
    let mut world = World::new("oci-workload", |config| config.token_seconds = 4).await?;
    let [ca, token] = ["ca.crt", "token"].map(|name| world.deployment.dir().join(name));
    std::fs::write(&ca, world.cloud.ca_pem())?;
    std::fs::write(&token, ACCOUNT)?;
    world.deployment.set("OCI__AUTH", "workload-identity");
    let endpoint = world.cloud.tls_endpoint();
    world
        .deployment
        .set("OCI__WORKLOAD_IDENTITY_ENDPOINT", endpoint);
    world
        .deployment
        .environment("OCI_KUBERNETES_SERVICE_ACCOUNT_CERT_PATH", ca.display());
    world
        .deployment
        .environment("OCI_KUBERNETES_SERVICE_ACCOUNT_TOKEN_PATH", token.display());
    let notifier = world.deployment.start("notifier").await?;

    let mut number = 0;
    let mut renewed = async |enough: usize| {
        wait::until(LIMIT, "a new token", async || {
            number += 1;
            world.deliver(&format!("t{number}")).await?;
            Ok((world.cloud.tokens_issued() >= enough).then_some(()))
        })
        .await
    };
    renewed(3).await?;
    // Renewed before its end, none was refused.
    assert!(world.statuses(0).iter().all(|status| *status == Some(202)));

    // The cluster gives pods another token, and those before it count no more.
    world.cloud.set_service_account_token("another");
    std::fs::write(&token, "another")?;
    world.cloud.revoke_tokens();
    let since = world.cloud.received(Service::Notifications).len();
    world.deliver("after").await?;
    let statuses = world.statuses(since);
    assert!(
        statuses.ends_with(&[Some(202)]) && statuses.len() <= 2,
        "{statuses:?}"
    );
    notifier.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_source_of_keys_signs_what_is_accepted() -> anyhow::Result<()> {
    let mut world = World::new("oci-keys", |_| ()).await?;
    let (user, key) = make_user("ocid1.tenancy.oc1..t", "ocid1.user.oc1..file")?;
    let fingerprint = user.fingerprint();
    world.cloud = StandIn::start(Config {
        users: vec![user],
        service_account_token: ACCOUNT.to_owned(),
        ..Config::default()
    })
    .await?;
    let endpoint = world.cloud.endpoint();
    world
        .deployment
        .set("OCI__NOTIFICATIONS_ENDPOINT", endpoint.clone());

    // A file as Oracle's tools have it, and a key as the console hands it out: PKCS#1.
    let [file, pem] = ["config", "key.pem"].map(|name| world.deployment.dir().join(name));
    let pkcs1 = PKey::private_key_from_pem(key.as_bytes())?
        .rsa()?
        .private_key_to_pem()?;
    std::fs::write(&pem, pkcs1)?;
    let profile = format!(
        "[TOLLGATE]\ntenancy=ocid1.tenancy.oc1..t\nuser=ocid1.user.oc1..file\nfingerprint={fingerprint}\nkey_file={}\nregion=eu-frankfurt-1\n",
        pem.display()
    );
    std::fs::write(&file, profile)?;
    world.deployment.set("OCI__AUTH", "config-file");
    world
        .deployment
        .set("OCI__CONFIG_FILE", file.display().to_string());
    world.deployment.set("OCI__PROFILE", "TOLLGATE");
    let notifier = world.deployment.start("notifier").await?;
    world.deliver("by-file").await?;
    notifier.stop().await?;

    world.deployment.set("OCI__AUTH", "instance-principal");
    world
        .deployment
        .set("OCI__METADATA_ENDPOINT", endpoint.clone());
    world.deployment.set("OCI__FEDERATION_ENDPOINT", endpoint);
    let notifier = world.deployment.start("notifier").await?;
    world.deliver("by-instance").await?;
    // Token and certificate are other ones now.
    world.cloud.rotate_instance()?;
    world.cloud.revoke_tokens();
    world.deliver("by-instance-again").await?;
    notifier.stop().await?;

    let (token, key) = session(&world.cloud).await?;
    world.deployment.set("OCI__AUTH", "resource-principal");
    world
        .deployment
        .environment("OCI_RESOURCE_PRINCIPAL_VERSION", "2.2");
    world
        .deployment
        .environment("OCI_RESOURCE_PRINCIPAL_RPST", token);
    world
        .deployment
        .environment("OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM", key);
    let notifier = world.deployment.start("notifier").await?;
    world.deliver("by-resource").await?;
    notifier.stop().await
}

/// A session token and its key, as the function runtime puts them into the environment.
async fn session(cloud: &StandIn) -> anyhow::Result<(String, String)> {
    let key = PKey::from_rsa(Rsa::generate(2048)?)?;
    let ca = reqwest::Certificate::from_pem(cloud.ca_pem().as_bytes())?;
    let client = reqwest::Client::builder().tls_certs_only([ca]).build()?;
    let answer = client
        .post(format!(
            "{}/resourcePrincipalSessionTokens",
            cloud.tls_endpoint()
        ))
        .bearer_auth(ACCOUNT)
        .json(&json!({ "podKey": STANDARD.encode(key.public_key_to_der()?) }))
        .send()
        .await?;
    let coded: String = answer.json().await?;
    let decoded: Value = serde_json::from_slice(&STANDARD.decode(coded)?)?;
    let token = decoded["token"].as_str().unwrap_or_default();
    let token = token.strip_prefix("ST$").unwrap_or(token).to_owned();
    Ok((token, String::from_utf8(key.private_key_to_pem_pkcs8()?)?))
}
