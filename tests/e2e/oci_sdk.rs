//! Oracle's own SDK for Python as a second caller of the stand-in, and as a second signer: what is good to both is good.
#![cfg(all(feature = "oci-sdk", feature = "kafka", feature = "postgres"))]

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use tollgate_tests::alerts::{self, alert};
use tollgate_tests::deployment::Deployment;
use tollgate_tests::oci::{Config, Service, StandIn, make_user};
use tollgate_tests::variable;
use tollgate_types::Stage;

const LIMIT: Duration = Duration::from_secs(60);

fn sdk() -> anyhow::Result<Command> {
    let mut command = Command::new(variable("TEST_OCI_PYTHON")?);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tools/oci/sdk.py"));
    Ok(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stand_in_and_oracles_sdk_understand_each_other() -> anyhow::Result<()> {
    let (user, key) = make_user("ocid1.tenancy.oc1..t", "ocid1.user.oc1..u")?;
    let key_id = user.key_id.clone();
    let cloud = StandIn::start(Config {
        users: vec![user],
        service_account_token: "account".to_owned(),
        ..Config::default()
    })
    .await?;
    let dir = tempfile::tempdir()?;
    let [key_file, ca_file] = ["key.pem", "ca.pem"].map(|name| dir.path().join(name));
    std::fs::write(&key_file, key)?;
    std::fs::write(&ca_file, cloud.ca_pem())?;
    let endpoint = cloud.endpoint();
    let tls = cloud.tls_endpoint();
    let (key_file, ca_file) = (
        key_file.display().to_string(),
        ca_file.display().to_string(),
    );
    for arguments in [
        vec![
            "--endpoint",
            &endpoint,
            "--key-id",
            &key_id,
            "--key-file",
            &key_file,
        ],
        vec!["--endpoint", &endpoint, "--instance"],
        vec![
            "--endpoint",
            &endpoint,
            "--tls-endpoint",
            &tls,
            "--ca-file",
            &ca_file,
            "--service-account-token",
            "account",
        ],
    ] {
        let mut command = sdk()?;
        command.args(&arguments);
        let ended = tokio::task::spawn_blocking(move || command.output()).await??;
        let said = String::from_utf8_lossy(&ended.stdout);
        let wrong = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{arguments:?}: {said}{wrong}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn for_the_same_request_and_key_oracles_signer_gives_the_signature_that_we_send()
-> anyhow::Result<()> {
    let (user, key) = make_user("ocid1.tenancy.oc1..t", "ocid1.user.oc1..u")?;
    let key_id = user.key_id.clone();
    let cloud = StandIn::start(Config {
        users: vec![user],
        ..Config::default()
    })
    .await?;
    let mut deployment = Deployment::create("oci-sdk", 1).await?;
    let key_file = deployment.dir().join("key.pem");
    std::fs::write(&key_file, &key)?;
    let sink = json!([{"kind": "oci", "topic": "ocid1.onstopic.oc1.eu-frankfurt-1.alerts"}]);
    for (setting, value) in [
        ("NOTIFIER__SINKS", sink.to_string()),
        ("OCI__AUTH", "api-key".to_owned()),
        ("OCI__REGION", "eu-frankfurt-1".to_owned()),
        ("OCI__TENANCY", "ocid1.tenancy.oc1..t".to_owned()),
        ("OCI__USER", "ocid1.user.oc1..u".to_owned()),
        (
            "OCI__FINGERPRINT",
            key_id.rsplit('/').next().unwrap_or_default().to_owned(),
        ),
        ("OCI__PRIVATE_KEY_FILE", key_file.display().to_string()),
        ("OCI__NOTIFICATIONS_ENDPOINT", cloud.endpoint()),
    ] {
        deployment.set(setting, value);
    }
    let notifier = deployment.start("notifier").await?;
    alerts::write(&deployment.log, &[alert("a", "blocked", 82.5)])?;
    deployment.caught_up(Stage::Notifier, LIMIT).await?;
    notifier.stop().await?;

    let received = cloud.received(Service::Notifications);
    let ours = received.first().context("nothing was received")?;
    let authorization = ours.headers.get("authorization").context("no signature")?;
    let parameter = |text: &str, name: &str| {
        let (_, rest) = text.split_once(&format!("{name}=\""))?;
        Some(rest.split('"').next()?.to_owned())
    };
    let signed = parameter(authorization, "headers").context("no list of headers")?;
    let message = cloud.messages().remove(0);
    // The text as it was sent: the members in their order.
    let body = format!(
        "{{\"title\":{},\"body\":{}}}",
        serde_json::to_string(&message.title)?,
        serde_json::to_string(&message.body)?
    );
    let headers: serde_json::Map<String, Value> = ours
        .headers
        .iter()
        .filter(|(name, _)| {
            signed.split(' ').any(|each| each == name.as_str()) && *name != "content-length"
        })
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    let request = json!({
        "method": "POST", "url": format!("{}{}", cloud.endpoint(), ours.path), "headers": headers, "body": body,
        "signed": signed.split(' ').collect::<Vec<_>>(),
    });
    let mut signer = sdk()?
        .args([
            "--sign",
            "--key-id",
            &key_id,
            "--key-file",
            &key_file.display().to_string(),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    signer
        .stdin
        .take()
        .context("no way to ask")?
        .write_all(request.to_string().as_bytes())?;
    let answer = signer.wait_with_output()?;
    let theirs: Value = serde_json::from_slice(&answer.stdout)?;
    let their_authorization = theirs["authorization"].as_str().unwrap_or_default();
    assert_eq!(
        parameter(their_authorization, "signature"),
        parameter(authorization, "signature"),
        "over {}",
        theirs["signing_string"]
    );
    Ok(())
}
