//! The commands as a user types them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(90);

const ADDRESSES: [&str; 6] = [
    "INGEST__LISTEN",
    "PERSISTENCE__LISTEN",
    "INGEST__ADMIN_LISTEN",
    "SCORER__ADMIN_LISTEN",
    "PERSISTENCE__ADMIN_LISTEN",
    "NOTIFIER__ADMIN_LISTEN",
];

/// `tollgate` in a folder and on ports of the test's own, without the settings of the caller's environment.
fn tollgate(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TOLLGATE_") {
            command.env_remove(name);
        }
    }
    for address in ADDRESSES {
        command.env(format!("TOLLGATE_{address}"), "127.0.0.1:0");
    }
    command
        .args(args)
        .current_dir(dir)
        .env("TMPDIR", dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(dir: &Path, args: &[&str]) -> Output {
    tollgate(dir, args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits for a process to end by itself, and kills it if it does not.
fn ended(child: &mut Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    None
}

#[test]
fn the_demo_shows_decisions_alerts_and_a_summary() {
    let dir = TempDir::new().unwrap();
    let demo = run(dir.path(), &["demo", "--rate", "0"]);
    let shown = text(&demo.stdout);
    assert!(demo.status.success(), "{shown}{}", text(&demo.stderr));
    for word in [
        "Summary",
        "3024 accepted, 0 rejected",
        "blocked",
        "latency",
        "Where to look next",
    ] {
        assert!(shown.contains(word), "no {word:?} in {shown}");
    }
    assert!(!shown.contains('\u{1b}'), "colours in a pipe");
    let said = text(&demo.stderr);
    assert!(!said.contains("ERROR") && !said.contains("WARN"), "{said}");
}

#[test]
fn a_demo_whose_reader_has_gone_ends_by_itself() {
    let dir = TempDir::new().unwrap();
    let mut demo = tollgate(dir.path(), &["demo"]).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(demo.stdout.take().unwrap())
        .read_line(&mut first)
        .unwrap();
    assert!(first.contains("Four services"), "{first}");
    // The reader is dropped here.
    let status = ended(&mut demo).expect("the demo hangs");
    assert_eq!(status.code(), Some(141));
}

#[test]
fn score_answers_line_by_line_and_tells_what_it_rejects() {
    let dir = TempDir::new().unwrap();
    let good = |id: &str| {
        format!(
            r#"{{"transaction_id":"{id}","user_id":"u","amount":"1500","timestamp":"2026-03-01T12:00:00Z","own":[1]}}"#
        )
    };
    let input = [
        good("a"),
        r#"{"transaction_id":"b","amount":-1}"#.to_owned(),
        good("c"),
    ]
    .join("\n");
    std::fs::write(dir.path().join("in"), input).unwrap();

    let scored = run(dir.path(), &["score", "--input", "in", "--output", "-"]);
    let said = text(&scored.stderr);
    assert_eq!(scored.status.code(), Some(3), "{said}");
    assert!(said.contains("line 2: user_id: "), "{said}");
    assert!(
        said.contains("1 line was rejected") && said.contains("--rejects"),
        "{said}"
    );
    let decisions: Vec<Value> = text(&scored.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let ids: Vec<_> = decisions
        .iter()
        .map(|each| &each["transaction_id"])
        .collect();
    assert_eq!(ids, [&json!("a"), &json!("c")]);
    assert_eq!(decisions[0]["transaction"]["own"], json!([1]));

    let scored = run(
        dir.path(),
        &[
            "score",
            "--input",
            "in",
            "--output",
            "out",
            "--rejects",
            "bad",
        ],
    );
    assert_eq!(scored.status.code(), Some(0));
    let rejects = std::fs::read_to_string(dir.path().join("bad")).unwrap();
    let reject: Value = serde_json::from_str(rejects.trim()).unwrap();
    assert_eq!(reject["line"], json!(2));
    assert_eq!(reject["field"], json!("user_id"));
    assert!(reject["reason"].is_string());
}

/// Bank exports are newest first: a burst that is scored backwards has no predecessors.
#[test]
fn score_warns_about_a_file_that_goes_back_in_time_and_scores_it_by_time_on_request() {
    let dir = TempDir::new().unwrap();
    let at = |id: usize| {
        format!(
            r#"{{"transaction_id":"t{id}","user_id":"u","amount":"12.34","timestamp":"2026-03-10T10:00:{id:02}Z"}}"#
        )
    };
    let rows: Vec<String> = (0..20).map(at).collect();
    let backwards: Vec<&str> = rows.iter().rev().map(String::as_str).collect();
    std::fs::write(dir.path().join("ascending"), rows.join("\n")).unwrap();
    std::fs::write(dir.path().join("backwards"), backwards.join("\n")).unwrap();
    let score = |input: &str, order: &[&str]| {
        let arguments = [&["score", "--input", input, "--output", "-"], order].concat();
        let scored = run(dir.path(), &arguments);
        assert_eq!(scored.status.code(), Some(0), "{}", text(&scored.stderr));
        let written = text(&scored.stdout);
        let decisions = written.lines().map(|line| {
            let mut decision: Value = serde_json::from_str(line).unwrap();
            decision["processed_at"].take();
            decision
        });
        (
            decisions.collect::<Vec<_>>(),
            text(&scored.stderr).to_owned(),
        )
    };
    let (expected, said) = score("ascending", &[]);
    assert!(!said.contains("goes back in time"), "{said}");
    assert!(said.contains("20 decisions, 0 of them late"), "{said}");
    let (_, said) = score("backwards", &[]);
    assert!(said.contains("goes back in time: 19 "), "{said}");
    assert!(said.contains("--order time"), "{said}");
    let (sorted, said) = score("backwards", &["--order", "time"]);
    assert_eq!(sorted, expected);
    assert!(!said.contains("goes back in time"), "{said}");

    let late = format!("{}\n{}\n", at(1).replace("03-10", "03-20"), at(2));
    std::fs::write(dir.path().join("late"), late).unwrap();
    let (_, said) = score("late", &[]);
    assert!(said.contains("2 decisions, 1 of them late"), "{said}");
}

#[test]
fn score_converts_amounts_by_the_rates_of_its_rules() {
    let dir = TempDir::new().unwrap();
    let rules =
        "[scorer.rules.money]\nbase = \"EUR\"\n[scorer.rules.money.rates]\nJPY = \"0.0061\"\n";
    std::fs::write(dir.path().join("rules.toml"), rules).unwrap();
    let payment = |currency: &str| {
        format!(
            r#"{{"transaction_id":"{currency}","user_id":"u","amount":3000,"timestamp":"2026-03-01T12:00:00Z","currency":"{currency}"}}"#
        )
    };
    let input = ["JPY", "EUR", "USD"].map(payment).join("\n");
    std::fs::write(dir.path().join("in"), input).unwrap();
    let told = |arguments: &[&str]| -> Vec<String> {
        let all = [&["score", "--input", "in", "--output", "-"], arguments].concat();
        let scored = run(dir.path(), &all);
        assert_eq!(scored.status.code(), Some(0), "{}", text(&scored.stderr));
        let decisions = text(&scored.stdout);
        let decisions = decisions.lines().map(|line| {
            let decision: Value = serde_json::from_str(line).unwrap();
            let base = decision["contributions"][0]["amount_base"].as_str();
            let indicator = decision["fraud_indicators"][0].as_str();
            [decision["status"].as_str(), indicator, base]
                .map(Option::unwrap_or_default)
                .join(" ")
        });
        decisions.collect()
    };
    assert_eq!(
        told(&["--config", "rules.toml"]),
        [
            "approved  ",
            "review high_amount 3000",
            "review unknown_currency "
        ]
    );
    assert_eq!(told(&[]), ["review high_amount "; 3]);
}

#[test]
fn policy_check_shows_each_fault_at_its_place_and_what_would_be_right() {
    let dir = TempDir::new().unwrap();
    let document = [
        "language = 1",
        "name = \"cards\"",
        "[members]",
        "channel = \"string\"",
        "[[rules]]",
        "id = \"größer\"",
        "when = \"chanel == 'Übersee' && amount > 1.00001\"",
        "points = 5",
    ];
    std::fs::write(dir.path().join("p.toml"), document.join("\n")).unwrap();
    let output = run(dir.path(), &["policy", "check", "p.toml"]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    let expected = "p.toml:7:9: unknown_name: chanel is neither a member nor a feature; did you mean channel?\n \
                    7 | when = \"chanel == 'Übersee' && amount > 1.00001\"\n   \
                    |         ^\n";
    assert!(shown.contains(expected), "{shown}");
    assert!(
        shown.contains("p.toml:6:6: value: id: expected a name"),
        "{shown}"
    );
    assert!(shown.ends_with("p.toml: 3 faults\n"), "{shown}");

    let output = run(dir.path(), &["policy", "check", "--json", "p.toml"]);
    assert_eq!(output.status.code(), Some(4));
    let faults: Value = serde_json::from_slice(&output.stdout).unwrap();
    let places: Vec<(&Value, &Value, &Value)> = faults
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| (&fault["line"], &fault["column"], &fault["kind"]))
        .collect();
    assert_eq!(
        places,
        [
            (&json!(6), &json!(6), &json!("value")),
            (&json!(7), &json!(9), &json!("unknown_name")),
            (&json!(7), &json!(41), &json!("money_literal")),
        ]
    );
}

#[test]
fn policy_check_tells_the_hash_of_a_document_without_faults() {
    let dir = TempDir::new().unwrap();
    std::fs::write(
        dir.path().join("p.toml"),
        "language = 1\nname = \"built-in\"\n",
    )
    .unwrap();
    let output = run(dir.path(), &["policy", "check", "p.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    assert!(shown.contains("p.toml: no faults\n"), "{shown}");
    assert!(shown.contains("  hash      "), "{shown}");
    let output = run(dir.path(), &["policy", "check", "--json", "p.toml"]);
    assert_eq!(text(&output.stdout), "[]\n");
    let output = run(dir.path(), &["policy", "check", "missing.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("cannot read missing.toml"));
}

#[test]
fn score_names_the_first_rejected_lines_and_counts_the_others() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("in"), "[]\n".repeat(10_000)).unwrap();
    let scored = run(dir.path(), &["score", "--input", "in", "--output", "out"]);
    let said = text(&scored.stderr);
    assert_eq!(scored.status.code(), Some(3), "{said}");
    assert_eq!(said.matches(": line ").count(), 10, "{said}");
    assert!(said.contains("10000 lines were rejected"), "{said}");
}

#[test]
fn score_refuses_files_that_would_overwrite_each_other() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("in"), "").unwrap();
    std::fs::hard_link(dir.path().join("in"), dir.path().join("link")).unwrap();
    for args in [
        ["--input", "in", "--output", "link", "--rejects", "r"],
        ["--input", "in", "--output", "o", "--rejects", "./o"],
        ["--input", "in", "--output", "in", "--rejects", "r"],
        ["--input", "missing", "--output", "o", "--rejects", "r"],
    ] {
        let refused = run(dir.path(), &[&["score"], &args[..]].concat());
        assert_eq!(refused.status.code(), Some(2), "{args:?}");
        assert!(
            text(&refused.stderr).contains(" --"),
            "{}",
            text(&refused.stderr)
        );
    }
}

/// A `tollgate up` that is ready. Dropping it kills it.
struct Up {
    child: Child,
    ingest: String,
    /// Reads standard output as long as the process writes it.
    rest: Option<std::thread::JoinHandle<usize>>,
}

impl Up {
    fn start(dir: &Path) -> Self {
        let mut child = tollgate(dir, &["up"]).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ingest = lines
            .find_map(|line| Some(line.unwrap().strip_prefix("ingest: ")?.to_owned()))
            .unwrap();
        let rest = std::thread::spawn(move || lines.map_while(Result::ok).count());
        Self {
            child,
            ingest,
            rest: Some(rest),
        }
    }

    /// Ends it with SIGTERM, and waits until it has ended.
    fn stop(mut self) {
        let pid = self.child.id().to_string();
        let killed = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(killed.unwrap().success());
        assert!(ended(&mut self.child).is_some_and(|status| status.success()));
        self.rest.take().unwrap().join().unwrap();
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn up_decides_until_it_is_told_to_stop_and_keeps_its_files_to_itself() {
    let dir = TempDir::new().unwrap();
    let up = Up::start(dir.path());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let answer: Value = runtime.block_on(async {
        let sent = reqwest::Client::new()
            .post(format!("{}/v1/transactions", up.ingest))
            .header("prefer", "wait=20")
            .json(&json!({ "transaction_id": "t", "user_id": "u", "amount": "4200", "timestamp": "2026-03-01T12:00:00Z" }))
            .send();
        sent.await.unwrap().json().await.unwrap()
    });
    assert_eq!(
        answer["decisions"][0]["status"],
        json!("review"),
        "{answer}"
    );

    let second = run(dir.path(), &["up"]);
    assert!(!second.status.success());
    assert!(
        text(&second.stderr).contains("another process"),
        "{}",
        text(&second.stderr)
    );
    up.stop();
}

#[test]
fn commands_find_the_up_that_runs_in_their_directory_until_it_ends() {
    let dir = TempDir::new().unwrap();
    let output = |args: &[&str]| {
        let output = run(dir.path(), args);
        let said = text(&output.stdout) + &text(&output.stderr);
        (output.status.success(), said)
    };
    let lost = output(&["load", "--duration", "1s"]);
    assert!(
        !lost.0 && lost.1.contains("no `tollgate up` runs"),
        "{lost:?}"
    );

    let up = Up::start(dir.path());
    let file = dir.path().join("tollgate-data/up.json");
    let addresses: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(addresses["ingest"], json!(up.ingest));
    assert_eq!(addresses["pid"], json!(up.child.id()));
    for (args, expected) in [
        (&["dlq", "list"][..], "no open dead letters"),
        (&["imports"], "no imports"),
        (&["load", "--rate", "20", "--duration", "1s"], "accepted"),
    ] {
        let (success, said) = output(args);
        assert!(success && said.contains(expected), "{args:?}: {said}");
    }
    let (success, said) = output(&["imports", "import_of_nothing"]);
    assert!(!success && said.contains("no import"), "{said}");
    up.stop();
    assert!(!file.exists());
    // On the journal that it left.
    let (success, said) = output(&["dlq", "list"]);
    assert!(success && said.contains("no open dead letters"), "{said}");

    // Killed, it leaves the file behind.
    drop(Up::start(dir.path()));
    assert!(file.exists());
    let (success, said) = output(&["imports"]);
    assert!(!success && said.contains("kafka.brokers"), "{said}");
}

#[test]
fn each_service_is_a_command_with_the_settings_of_its_program() {
    let dir = TempDir::new().unwrap();
    for service in ["ingest", "scorer", "persistence", "notifier"] {
        let printed = tollgate(dir.path(), &[service, "--print-config"])
            .env("TOLLGATE_KAFKA__BROKERS", "127.0.0.1:9092")
            .env(
                "TOLLGATE_KAFKA__AUTHENTICATION__KEYS",
                r#"[{"id":"k1","secret":"hunter2-hunter2-hunter2-hunter2-hunter2"}]"#,
            )
            .env(
                "TOLLGATE_PERSISTENCE__DATABASE_URL",
                "postgres://me:hunter2@127.0.0.1/x",
            )
            .output()
            .unwrap();
        let settings = text(&printed.stdout);
        assert!(printed.status.success(), "{}", text(&printed.stderr));
        for section in ["[kafka]", &format!("[{service}]"), "[telemetry]"] {
            assert!(settings.contains(section), "{service}: {settings}");
        }
        assert!(!settings.contains("hunter2"), "{settings}");

        let lost = run(dir.path(), &[service]);
        let said = text(&lost.stderr);
        assert!(
            !lost.status.success() && said.contains("TOLLGATE_"),
            "{service}: {said}"
        );
    }
}

#[test]
fn print_config_refuses_what_up_refuses_and_names_it() {
    let dir = TempDir::new().unwrap();
    for (setting, value, reason) in [
        (
            "INGEST__MAX_ITEMS",
            "0",
            "ingest.max_items: must be at least 1",
        ),
        (
            "NOTIFIER__SINKS",
            r#"[{"kind":"webhok"}]"#,
            "unknown kind `webhok`",
        ),
        (
            "SCORER__PARALLELISM",
            "1000",
            "scorer.parallelism: must be at most",
        ),
        (
            "SCORER__SNAPSHOTS",
            "ftp://x",
            "scorer.snapshots: must begin with",
        ),
        ("INGEST__LISTEN", "localhost:8080", "must be IP:port"),
    ] {
        let output = tollgate(dir.path(), &["up", "--print-config"])
            .env(format!("TOLLGATE_{setting}"), value)
            .output()
            .unwrap();
        let said = text(&output.stderr);
        assert!(
            !output.status.success() && said.contains(reason),
            "{setting}: {said}"
        );
    }
    let good = tollgate(dir.path(), &["up", "--print-config"])
        .env("TOLLGATE_INGEST__LISTEN", "[::1]:0")
        .env("TOLLGATE_API_KEY", "the key of tollgate load")
        .output()
        .unwrap();
    assert!(good.status.success(), "{}", text(&good.stderr));
    assert!(text(&good.stdout).contains("[::1]:0"));
}

#[test]
fn a_wrong_argument_is_answered_with_what_is_allowed_and_the_name_it_was_given_by() {
    let dir = TempDir::new().unwrap();
    for (args, words) in [
        (&["load", "--rate", "many"][..], "from 0 to 4294967295"),
        (&["load", "--rate", "4294967296"], "from 0 to 4294967295"),
        (&["load", "--wait", "x"], "must be a number"),
        (&["load", "--seed=-1"], "at least 0"),
        (
            &["topics", "create", "--partitions", "70000"],
            "from 0 to 65535",
        ),
        (&["receive", "--listen", "localhost:1"], "127.0.0.1:8090"),
        (&["dlq", "list", "--limit", "x"], "at least 0"),
        (
            &["dlq", "list", "--stage", "x"],
            "ingest, scorer, persistence, notifier",
        ),
        (&["dlq", "show", "x"], "SERVICE/PARTITION@OFFSET"),
        (&["key", "a", "--tenant", "A/B"], "--tenant"),
        (&["key", "a", "--expires", "tomorrow"], "--expires: "),
        (&["key", ""], "NAME: must not be empty"),
        (
            &["key", "a", "--tenant", "*"],
            "--tenant: a key of all tenants may only read",
        ),
    ] {
        let refused = run(dir.path(), args);
        let said = text(&refused.stderr);
        assert!(
            !refused.status.success() && said.contains(words),
            "{args:?}: {said}"
        );
        for wrong in [
            "invalid digit",
            "socket address",
            "u32",
            "usize",
            "api_keys",
        ] {
            assert!(!said.contains(wrong), "{args:?}: {said}");
        }
    }
}

#[test]
fn tables_are_made_once_and_a_migration_without_a_database_names_the_setting() {
    let dir = TempDir::new().unwrap();
    let nothing = run(dir.path(), &["migrate"]);
    assert!(!nothing.status.success());
    let said = text(&nothing.stderr);
    assert!(said.contains("persistence.database_url: "), "{said}");
    for _ in 0..2 {
        let migrated = tollgate(dir.path(), &["migrate"])
            .env("TOLLGATE_PERSISTENCE__DATABASE_URL", "sqlite://store.db")
            .env(
                "TOLLGATE_NOTIFIER__DELIVERY_LOG_URL",
                "sqlite://delivery-log.db",
            )
            .output()
            .unwrap();
        let said = text(&migrated.stdout);
        assert!(migrated.status.success(), "{}", text(&migrated.stderr));
        assert_eq!(
            said.matches("the tables are up to date").count(),
            2,
            "{said}"
        );
    }
    assert!(dir.path().join("store.db").exists() && dir.path().join("delivery-log.db").exists());
    let misspelt = tollgate(dir.path(), &["migrate"])
        .env("TOLLGATE_PERSISTENCE__DATABSE_URL", "sqlite://store.db")
        .output()
        .unwrap();
    let said = text(&misspelt.stderr);
    assert!(
        said.contains("did you mean TOLLGATE_PERSISTENCE__DATABASE_URL?"),
        "{said}"
    );
    let away = tollgate(dir.path(), &["migrate"])
        .env(
            "TOLLGATE_PERSISTENCE__DATABASE_URL",
            "postgres://me:hunter2@127.0.0.1:1/x",
        )
        .output()
        .unwrap();
    let said = text(&away.stderr);
    assert!(!away.status.success());
    assert!(
        said.contains("persistence.database_url: ") && !said.contains("hunter2"),
        "{said}"
    );
}

#[test]
fn a_receiver_of_alerts_that_others_reach_wants_the_secret_they_are_signed_with() {
    let dir = TempDir::new().unwrap();
    let open = run(dir.path(), &["receive", "--listen", "0.0.0.0:0"]);
    assert!(!open.status.success());
    let said = text(&open.stderr);
    assert!(said.contains("TOLLGATE_RECEIVE_SECRET: "), "{said}");
}

#[test]
fn a_tampered_audit_is_detected_in_the_store_and_in_an_export() {
    use tollgate_persistence::PersistenceConfig;
    use tollgate_persistence::audit::{AuditEvent, AuditLog};

    let dir = tempfile::tempdir().unwrap();
    let missing = run(dir.path(), &["audit", "verify", "store"]);
    assert!(text(&missing.stderr).contains("there is no file"));
    assert!(!dir.path().join("tollgate-data").exists());

    std::fs::create_dir(dir.path().join("tollgate-data")).unwrap();
    let store = dir.path().join("tollgate-data/tollgate.db");
    let config = PersistenceConfig {
        database_url: format!("sqlite://{}", store.display()).into(),
        ..PersistenceConfig::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { AuditLog::open(&config).await.unwrap().close().await });
    for args in [&["audit", "verify", "store"][..], &["audit", "export"]] {
        let off = run(dir.path(), args);
        let said = text(&off.stderr);
        assert!(
            !off.status.success() && said.contains("persistence.audit.mode"),
            "{said}"
        );
    }
    let event = |user: &str| AuditEvent {
        time: tollgate_service::now(),
        caller: "shop".into(),
        tenant: String::new(),
        peer: "127.0.0.1".into(),
        action: "GET /v1/users/{user_id}/summary".into(),
        asked: vec![("user_id".into(), user.into())],
        status: 200,
        rows: 1,
    };
    let head = runtime.block_on(async {
        let log = AuditLog::open(&config).await.unwrap();
        log.migrate().await.unwrap();
        log.append(&[event("ada"), event("bob")]).await.unwrap();
        let head = log.append(&[event("eve")]).await.unwrap();
        log.close().await;
        head.to_string()
    });

    let verified = run(dir.path(), &["audit", "verify", "store", "--head", &head]);
    assert!(verified.status.success(), "{}", text(&verified.stderr));
    assert!(text(&verified.stdout).contains(&head));
    let export = run(dir.path(), &["audit", "export"]);
    let lines = text(&export.stdout);
    assert_eq!(lines.lines().count(), 3);
    let verify = |lines: &str, options: &[&str]| {
        std::fs::write(dir.path().join("audit.jsonl"), lines).unwrap();
        run(
            dir.path(),
            &[&["audit", "verify", "audit.jsonl"], options].concat(),
        )
    };
    assert!(verify(&lines, &["--head", &head]).status.success());
    let changed = lines.replace("\"bob\"", "\"joe\"");
    let without_second: String = lines
        .lines()
        .enumerate()
        .filter(|(index, _)| *index != 1)
        .map(|(_, line)| format!("{line}\n"))
        .collect();
    let cut: String = lines
        .lines()
        .take(2)
        .map(|line| format!("{line}\n"))
        .collect();
    for (tampered, options) in [
        (&changed, &[][..]),
        (&without_second, &[]),
        (&cut, &["--head", &head]),
    ] {
        let refused = verify(tampered, options);
        assert_eq!(refused.status.code(), Some(1), "{tampered}");
    }
}

#[test]
fn score_follows_the_changes_of_a_control_file_from_marker_to_marker() {
    let dir = TempDir::new().unwrap();
    let document = "language = 1\nname = \"small payments\"\n[members]\nchannel = \"string\"\n[[rules]]\nid = \"online\"\n\
                    when = \"channel == 'online' && amount < 5\"\naction = \"block\"\n";
    std::fs::write(dir.path().join("p.toml"), document).unwrap();
    let checked = run(dir.path(), &["policy", "check", "p.toml"]);
    let hash = text(&checked.stdout)
        .lines()
        .find_map(|line| line.trim().strip_prefix("hash"))
        .unwrap()
        .trim()
        .to_owned();
    let control = [
        json!({"kind": "policy", "document": document, "hash": hash, "expects": null}).to_string(),
        json!({"kind": "suppression", "rule": "online", "user_id": "u", "until": "2026-03-02T00:00:00Z"}).to_string(),
        r#"{"kind": "telepathy"}"#.to_owned(),
    ];
    std::fs::write(dir.path().join("control"), control.join("\n")).unwrap();
    let pay = |id: &str| {
        format!(
            r#"{{"transaction_id":"{id}","user_id":"u","amount":"1","timestamp":"2026-03-01T12:00:00Z","channel":"online"}}"#
        )
    };
    let marker = |change: u64| format!(r#"{{"tollgate":{{"change":{change}}}}}"#);
    let input = [
        pay("a"),
        marker(0),
        pay("b"),
        marker(99),
        pay("a"),
        marker(1),
        pay("c"),
        marker(2),
        pay("d"),
    ];
    std::fs::write(dir.path().join("in"), input.join("\n")).unwrap();
    let arguments = [
        "score",
        "--input",
        "in",
        "--output",
        "-",
        "--rejects",
        "bad",
        "--control",
        "control",
    ];
    let scored = run(dir.path(), &arguments);
    assert_eq!(scored.status.code(), Some(0), "{}", text(&scored.stderr));
    assert!(text(&scored.stderr).contains("change 2 cannot be applied"));
    let decisions: Vec<Value> = text(&scored.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let shown: Vec<_> = decisions
        .iter()
        .map(|each| {
            (
                &each["status"],
                &each["decided_by"],
                &each["policy"]["change"],
            )
        })
        .collect();
    let (approved, score, null) = (json!("approved"), json!("score"), Value::Null);
    assert_eq!(shown[0], (&approved, &score, &null));
    assert_eq!(shown[1], (&json!("blocked"), &json!("online"), &json!(0)));
    assert_eq!(
        shown[2],
        (&approved, &score, &null),
        "the first verdict again"
    );
    assert_eq!(shown[3], (&approved, &score, &json!(0)));
    assert_eq!(
        decisions[3]["suppressed"],
        json!([{"indicator": "online", "values": {"channel": "online", "amount": "1"}}])
    );
    assert_eq!(
        decisions[4],
        Value::Null,
        "nothing is decided after a change that cannot be read"
    );
    let rejects = std::fs::read_to_string(dir.path().join("bad")).unwrap();
    let reject: Value = serde_json::from_str(rejects.trim()).unwrap();
    assert_eq!(reject["line"], json!(4));
    assert!(
        reject["reason"]
            .as_str()
            .unwrap()
            .contains("unknown_change")
    );
}
