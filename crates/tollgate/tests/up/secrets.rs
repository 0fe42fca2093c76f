//! No secret of the settings is in what a process prints: neither in `--print-config`, nor in the error of a setting that
//! is wrong.

use std::process::Stdio;

use tempfile::TempDir;

use crate::support::tollgate;

/// What must not be printed. It is long enough for every key.
const CANARY: &str = "canary0hunter2canary0hunter2canary0hunter2";

/// Every setting that can have a secret, with a value that has it.
fn settings() -> Vec<(&'static str, String)> {
    let sink = format!(
        r#"[{{"kind":"webhook","url":"https://hooks.example.com/services/{CANARY}?key={CANARY}","secret":"whsec_{}","headers":{{"authorization":"Bearer {CANARY}"}}}}]"#,
        data_encoding::BASE64.encode(&CANARY.as_bytes()[..32])
    );
    let source = format!(
        r#"[{{"bucket":"b","options":{{"aws_access_key_id":"x","aws_secret_access_key":"{CANARY}","aws_region":"eu"}}}}]"#
    );
    let table = |name: &str| format!(r#"{{"{name}":"{CANARY}"}}"#);
    vec![
        ("KAFKA__PROPERTIES", table("sasl.password")),
        ("KAFKA__OCI__AUTH_TOKEN", CANARY.to_owned()),
        (
            "KAFKA__AUTHENTICATION__KEYS",
            format!(r#"[{{"id":"1","secret":"{CANARY}"}},{{"id":"2","secret":"{CANARY}2"}}]"#),
        ),
        ("PERSISTENCE__AUDIT__KEY", CANARY.to_owned()),
        ("INGEST__CARD_TOKEN_KEY", CANARY.to_owned()),
        ("INGEST__SOURCES", source),
        ("SCORER__CARD_TOKEN_KEY", CANARY.to_owned()),
        ("SCORER__SNAPSHOT_KEY", CANARY.to_owned()),
        ("SCORER__SNAPSHOT_OPTIONS", table("aws_secret_access_key")),
        (
            "PERSISTENCE__DATABASE_URL",
            format!("postgres://me:{CANARY}@127.0.0.1/x?options={CANARY}"),
        ),
        (
            "NOTIFIER__DELIVERY_LOG_URL",
            format!("postgres://127.0.0.1/x?user=me&password={CANARY}"),
        ),
        ("NOTIFIER__SINKS", sink),
        ("TELEMETRY__USER_KEY", CANARY.to_owned()),
        (
            "TELEMETRY__OTLP_ENDPOINT",
            format!("http://me:{CANARY}@127.0.0.1:4318/?key={CANARY}"),
        ),
        ("TELEMETRY__OTLP_HEADERS", table("authorization")),
    ]
}

/// Everything that `up --print-config` prints with these settings, and whether it succeeds.
fn printed(settings: &[(&str, String)], file: Option<&str>) -> (bool, String) {
    let directory = TempDir::new().unwrap();
    let mut command = tollgate(directory.path(), &["up", "--print-config"]);
    for (name, value) in settings {
        command.env(format!("TOLLGATE_{name}"), value);
    }
    if let Some(text) = file {
        std::fs::write(directory.path().join("tollgate.toml"), text).unwrap();
        command.env("TOLLGATE_CONFIG", "tollgate.toml");
    }
    let output = command.stderr(Stdio::piped()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

fn is_silent(case: &str, text: &str) {
    // A part would be too much already.
    assert!(!text.contains("hunter2"), "{case}: {text}");
    // The secret of the webhook is the same bytes in base64.
    let coded = data_encoding::BASE64.encode(&CANARY.as_bytes()[..9]);
    assert!(!text.contains(&coded), "{case}: {text}");
}

#[test]
fn the_printed_settings_have_no_secret() {
    let (well, text) = printed(&settings(), None);
    assert!(well, "{text}");
    is_silent("all", &text);
    for shown in ["(hidden)", "https://hooks.example.com", "127.0.0.1:4318"] {
        assert!(text.contains(shown), "{shown} is not in {text}");
    }
}

#[test]
fn no_error_of_a_wrong_setting_has_its_value() {
    for (name, value) in settings() {
        let wrong = [
            format!("authorization={CANARY}"),
            format!("{CANARY}: {CANARY}"),
            format!(r#"["{CANARY}"]"#),
            format!(r#"{{"{CANARY}""#),
            format!(r#"{{"security.protocol":"{CANARY}","sasl.pasword":"{CANARY}"}}"#),
            format!(r#"[{{"kind":"webhook","bucket":"b","url":"{CANARY}"}}]"#),
            format!(r#"[{{"kind":"webhook","url":"ftp://{CANARY}","secret":"{CANARY}"}}]"#),
            format!("postgres://me:{CANARY}@host:port/x"),
            format!("postgres://me@host/x?sslmode={CANARY}&password={CANARY}"),
            format!("s3://key:{CANARY}@bucket/prefix"),
            format!(r#"[{{"id":"1","secret":["{CANARY}"]}}]"#),
            format!(r#"[{{"id":"{CANARY}","secert":"{CANARY}"}}]"#),
            r#"[{"id":"1","secret":"hunter2"}]"#.to_owned(),
            format!(r#"[{{"id":"1","secret":"{CANARY}"}},{{"id":"1","secret":"{CANARY}"}}]"#),
            value.replace('}', ""),
            value.replace(':', "="),
        ];
        for value in wrong {
            let case = format!("{name}={value}");
            is_silent(&case, &printed(&[(name, value)], None).1);
        }
    }
    for setting in ["SCORER__SNAPSHOTS", "KAFKA__PROPERTIES__SASL.PASWORD"] {
        let value = format!("s3://key:{CANARY}@bucket/prefix");
        is_silent(setting, &printed(&[(setting, value)], None).1);
    }
}

/// The key of TLS, and the file of API keys: their paths are settings, and their content is read at start.
#[test]
fn no_error_of_a_file_of_keys_has_its_content() {
    let directory = TempDir::new().unwrap();
    let pem = |name: &str| format!("-----BEGIN {name}-----\n{CANARY}\n-----END {name}-----\n");
    for (content, setting) in [
        (CANARY.to_owned(), "TLS__KEY"),
        (pem("PRIVATE KEY"), "TLS__KEY"),
        (pem("EC PRIVATE KEY"), "TLS__KEY"),
        (pem("CERTIFICATE"), "TLS__CERTIFICATE"),
        (CANARY.to_owned(), "INGEST__API_KEYS_FILE"),
        (
            format!("[[api_keys]]\nname = {CANARY}\n"),
            "INGEST__API_KEYS_FILE",
        ),
        (
            format!("[[api_keys]]\nname = \"a\"\nhash = \"{CANARY}\"\n"),
            "INGEST__API_KEYS_FILE",
        ),
        (
            format!(r#"[{{"name":"a","hash":["{CANARY}"]}}]"#),
            "PERSISTENCE__API_KEYS_FILE",
        ),
    ] {
        std::fs::write(directory.path().join("keys"), &content).unwrap();
        let mut command = tollgate(directory.path(), &["up"]);
        if setting.starts_with("TLS") {
            command.env("TOLLGATE_TLS__CERTIFICATE", "keys");
            command.env("TOLLGATE_TLS__KEY", "keys");
        }
        command.env(format!("TOLLGATE_{setting}"), "keys");
        let output = command.stderr(Stdio::piped()).output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!output.status.success(), "{setting}: {text}");
        is_silent(setting, &text);
        let section = setting.split("__").next().unwrap().to_lowercase();
        assert!(text.contains(&section), "{text}");
    }
}

#[test]
fn a_file_that_is_no_toml_is_reported_by_its_line_and_not_quoted() {
    for line in [
        format!("card_token_key = \"{CANARY}"),
        format!("card_token_key = {CANARY}"),
        format!("card_token_key \"{CANARY}\""),
        format!("card_token_key = \"x\"\ncard_token_key = \"{CANARY}\"\n{CANARY}"),
    ] {
        let (well, text) = printed(&[], Some(&format!("[ingest]\n{line}\n")));
        assert!(!well && text.contains("tollgate.toml: line "), "{text}");
        is_silent(&line, &text);
    }
}
