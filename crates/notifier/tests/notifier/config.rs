//! A setting that cannot be used is named, with what would do.

use tollgate_notifier::{Cloud, ConsoleOut, NotifierConfig, SinkConfig};
use tollgate_service::Shutdown;
use tollgate_service::config::Settings;

fn load(variables: &[(&str, &str)]) -> anyhow::Result<NotifierConfig> {
    let variables = variables
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    let config: NotifierConfig = Settings::load(None, variables)?.section("notifier")?;
    config.validate()?;
    Ok(config)
}

fn error(sinks: &str) -> String {
    load(&[("TOLLGATE_NOTIFIER__SINKS", sinks)])
        .unwrap_err()
        .to_string()
}

#[test]
fn without_any_setting_there_is_one_console_and_a_local_delivery_log() {
    let config = load(&[]).unwrap();
    assert_eq!(config.sinks, [SinkConfig::of_kind("console")]);
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:9104");
    assert_eq!(config.delivery_log_url, "sqlite://tollgate-notifier.db");
}

#[test]
fn sinks_come_from_the_environment_as_json_or_toml() {
    let json = r#"[{"kind":"console"},{"kind":"webhook","url":"https://h.example/a","secret":"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}]"#;
    let toml = r#"[{kind="console"},{kind="webhook",url="https://h.example/a",secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}]"#;
    let sinks = |text| load(&[("TOLLGATE_NOTIFIER__SINKS", text)]).unwrap().sinks;
    assert_eq!(sinks(json), sinks(toml));
    assert_eq!(sinks(json).len(), 2);
}

/// Each of these sinks is refused with a text that begins with the setting, has the hint, and never the secret.
fn assert_refused<const N: usize>(cases: [(String, &str, &str); N]) {
    for (sinks, setting, hint) in cases {
        let message = error(&sinks);
        assert!(message.starts_with(setting), "{sinks}: {message}");
        assert!(message.contains(hint), "{sinks}: {message}");
        assert!(!message.contains("MfKQ9"), "{message}");
    }
}

#[test]
fn every_invalid_sink_is_named_with_what_is_expected() {
    assert_refused([
        (
            r#"[{"kind":"pager"}]"#.to_owned(),
            "notifier.sinks[0].kind: ",
            "known are console, file, webhook, oci",
        ),
        if cfg!(feature = "oci") {
            (
                r#"[{"kind":"oci","topic":"alerts"}]"#.to_owned(),
                "notifier.sinks[0].topic: ",
                "ocid1.onstopic.",
            )
        } else {
            (
                r#"[{"kind":"oci"}]"#.to_owned(),
                "notifier.sinks[0].kind: ",
                "--features oci",
            )
        },
        (
            r#"[{"kind":"console","messages_per_minute":5}]"#.to_owned(),
            "notifier.sinks[0].messages_per_minute: ",
            "no such setting",
        ),
        (r#"[{"path":"x"}]"#.to_owned(), "notifier.sinks[0]", "kind"),
        ("[]".to_owned(), "notifier.sinks: ", "at least one"),
        (
            r#"[{"kind":"file"}]"#.to_owned(),
            "notifier.sinks[0].path: ",
            "must name the file",
        ),
        (
            r#"[{"kind":"console","path":"x"}]"#.to_owned(),
            "notifier.sinks[0].path: ",
            "console has no such setting",
        ),
        (
            r#"[{"kind":"console"},{"kind":"console"}]"#.to_owned(),
            "notifier.sinks[1].name: ",
            "notifier.sinks[0] has the name console",
        ),
        (
            r#"[{"kind":"console","name":"a b"}]"#.to_owned(),
            "notifier.sinks[0].name: ",
            "1 to 128",
        ),
        (
            r#"[{"kind":"console","concurrency":0}]"#.to_owned(),
            "notifier.sinks[0].concurrency: ",
            "between 1",
        ),
        (
            r#"[{"kind":"file","pth":"x"}]"#.to_owned(),
            "notifier.sinks[0].pth: no such setting",
            "did you mean",
        ),
    ]);
}

#[test]
fn every_invalid_setting_of_a_webhook_is_named_and_its_secret_is_not_shown() {
    let secret = r#""secret":"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw""#;
    let hook =
        |rest: &str| format!(r#"[{{"kind":"console"}},{{"kind":"webhook",{secret},{rest}}}]"#);
    assert_refused([
        (
            r#"[{"kind":"webhook","url":"https://h.example/"}]"#.to_owned(),
            "notifier.sinks[0].secret: ",
            "whsec_",
        ),
        (
            hook(r#""url":"http://h.example/""#),
            "notifier.sinks[1].url: ",
            "must be https",
        ),
        (
            hook(r#""url":"ftp://localhost/""#),
            "notifier.sinks[1].url: ",
            "https URL",
        ),
        (
            hook(r#""url":"nonsense""#),
            "notifier.sinks[1].url: ",
            "https URL",
        ),
        (
            hook(r#""timeout_ms":5"#),
            "notifier.sinks[1].url: ",
            "https URL",
        ),
        (
            hook(r#""url":"https://h.example/","timeout_ms":0"#),
            "notifier.sinks[1].timeout_ms: ",
            "between",
        ),
        (
            hook(r#""url":"https://h.example/","timeout_ms":"x""#),
            "notifier.sinks[1].timeout_ms: ",
            "whole number",
        ),
        (
            hook(r#""url":"https://h.example/","headers":{"Webhook-Id":"x"}"#),
            "notifier.sinks[1].headers.Webhook-Id: ",
            "itself",
        ),
    ]);
}

#[test]
fn an_invalid_setting_beside_the_sinks_is_named_and_a_misspelt_one_gets_a_suggestion() {
    let message = load(&[("TOLLGATE_NOTIFIER__RETRY__CAP_MS", "1")])
        .unwrap_err()
        .to_string();
    assert!(message.starts_with("notifier.retry.cap_ms: "), "{message}");
    let message = load(&[("TOLLGATE_NOTIFIER__DELIVERY_LOG_ULR", "x")])
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("did you mean TOLLGATE_NOTIFIER__DELIVERY_LOG_URL?"),
        "{message}"
    );
}

#[test]
fn plain_http_is_allowed_on_a_loopback_host() {
    for host in ["localhost", "127.0.0.1:8080", "[::1]:8080"] {
        let sinks = format!(
            r#"[{{"kind":"webhook","url":"http://{host}/","secret":"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}}]"#
        );
        assert!(
            load(&[("TOLLGATE_NOTIFIER__SINKS", &sinks)]).is_ok(),
            "{host}"
        );
    }
}

#[tokio::test]
async fn what_only_a_start_can_tell_is_answered_with_the_setting_too() {
    let world = crate::common::World::new();
    let start = async |config| {
        let cloud = Cloud::default();
        let started = tollgate_notifier::start(
            config,
            world.kafka.clone(),
            Shutdown::default(),
            ConsoleOut::stdout(),
            &cloud,
        );
        started.await.unwrap_err().to_string()
    };
    let file = crate::common::file(&world.path("no/such/directory/alerts.ndjson"));
    let message = start(world.config(vec![crate::common::console(), file])).await;
    assert!(
        message.starts_with("notifier.sinks[1].path: cannot append to "),
        "{message}"
    );

    let mut config = world.config(vec![crate::common::console()]);
    config.delivery_log_url = "mysql://me:hunter2@db/x".into();
    let message = start(config).await;
    assert!(
        message.starts_with("notifier.delivery_log_url: ") && !message.contains("hunter2"),
        "{message}"
    );

    let mut config = world.config(vec![crate::common::console()]);
    config.delivery_log_retention_days = 1;
    let message = start(config).await;
    assert!(
        message.starts_with("notifier.delivery_log_retention_days: "),
        "{message}"
    );
}
