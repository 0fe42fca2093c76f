//! The same hundred payments, as banks, payment providers and spreadsheets export them, give the same hundred decisions
//! with no more than the settings that the README of ingest has.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{DEADLINE, Up, tollgate};

/// A payment. Times are in Berlin's winter, one hour ahead of UTC.
struct Payment {
    id: String,
    user: String,
    /// In hundredths.
    amount: u64,
    day: u64,
    second: u64,
    memo: &'static str,
}

/// Users with bursts, round amounts and repeated ones, oldest first, in one month.
fn payments() -> Vec<Payment> {
    (0..100_u64)
        .map(|n| {
            let burst = n / 10;
            Payment {
                id: format!("p{n:03}"),
                user: format!("u{}", burst % 5),
                amount: match n % 4 {
                    0 => 150_000,
                    1 => 123_456,
                    2 => 1_250,
                    _ => 50_000 + burst * 10_000,
                },
                day: 1 + burst,
                second: 43_200 + n % 10 * 25,
                memo: if n % 3 == 0 {
                    "Müller, \"Café\""
                } else {
                    "Miete"
                },
            }
        })
        .collect()
}

/// An amount with these characters before decimals and between groups of three digits.
fn amount(hundredths: u64, decimal: char, grouping: Option<char>) -> String {
    let whole = (hundredths / 100).to_string();
    let mut text = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            text.extend(grouping);
        }
        text.push(digit);
    }
    format!("{text}{decimal}{:02}", hundredths % 100)
}

fn clock(second: u64) -> (u64, u64, u64) {
    (second / 3_600, second / 60 % 60, second % 60)
}

fn iso(payment: &Payment, offset: &str, hours: u64) -> String {
    let (hour, minute, second) = clock(payment.second + hours * 3_600);
    let day = payment.day;
    format!("2024-02-{day:02}T{hour:02}:{minute:02}:{second:02}{offset}")
}

fn german(payment: &Payment) -> String {
    let (hour, minute, second) = clock(payment.second + 3_600);
    format!(
        "{:02}.02.2024 {hour:02}:{minute:02}:{second:02}",
        payment.day
    )
}

fn american(payment: &Payment) -> String {
    let (hour, minute, second) = clock(payment.second);
    let (hour, half) = if hour < 12 {
        (hour, "AM")
    } else {
        (hour - 12, "PM")
    };
    let hour = if hour == 0 { 12 } else { hour };
    format!(
        "02/{:02}/2024 {hour}:{minute:02}:{second:02} {half}",
        payment.day
    )
}

fn object(payment: &Payment, time: String) -> Value {
    json!({
        "transaction_id": payment.id, "user_id": payment.user, "amount": amount(payment.amount, '.', None),
        "timestamp": time, "memo": payment.memo,
    })
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// Rows of CSV, newest first.
fn csv(separator: char, end: &str, of: impl Fn(&Payment) -> (String, String)) -> String {
    let rows = payments();
    rows.iter()
        .rev()
        .map(|payment| {
            let (time, amount) = of(payment);
            let cells = [
                quoted(&payment.id),
                payment.user.clone(),
                amount,
                time,
                quoted(payment.memo),
            ];
            cells.join(&separator.to_string()) + end
        })
        .collect()
}

/// Every character of the payments has the same number in Unicode and in windows-1252.
fn windows_1252(text: &str) -> Vec<u8> {
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).unwrap())
        .collect()
}

fn utf_16(text: &str) -> Vec<u8> {
    let marked = format!("\u{feff}{text}");
    marked.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// The name of an object, its content, and the settings of its source.
fn exports() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let lines = |offset: &str, hours| -> String {
        let rows = payments();
        rows.iter()
            .map(|payment| object(payment, iso(payment, offset, hours)).to_string() + "\n")
            .collect()
    };
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(lines("Z", 0).as_bytes()).unwrap();
    let newest_first: Vec<Value> = payments()
        .iter()
        .rev()
        .map(|payment| object(payment, iso(payment, "+01:00", 1)))
        .collect();
    let german_columns = "columns = {transaction_id = \"Referenz\", user_id = \"Konto\", amount = \"Betrag\", timestamp = \"Buchung\", memo = \"Verwendungszweck\"}";
    let german_header = "Referenz;Konto;Betrag;Buchung;Verwendungszweck\r\n";
    let german_rows = csv(';', "\r\n", |payment| {
        (german(payment), amount(payment.amount, ',', Some('.')))
    });
    let plain_header = "transaction_id,user_id,amount,timestamp,memo\n";
    vec![
        ("provider.ndjson.gz", packed.finish().unwrap(), ""),
        ("provider.json", serde_json::to_vec_pretty(&newest_first).unwrap(), ""),
        ("array.json", serde_json::to_vec(&newest_first).unwrap(), ""),
        ("offsets.jsonl", lines("-02:00", 0).replace("T12:", "T10:").into_bytes(), ""),
        (
            "excel.csv",
            format!(
                "\u{feff}{}{}",
                plain_header.replace('\n', "\r\n"),
                csv(',', "\r\n", |payment| (iso(payment, "", 0), amount(payment.amount, '.', None)))
            )
            .into_bytes(),
            "",
        ),
        (
            "bank.csv",
            windows_1252(&format!(
                "Umsatzliste;;;;\r\nKonto 123;;;;\r\n{german_header}{german_rows}"
            )),
            "delimiter = \";\"\nskip_lines = 2\nencoding = \"windows-1252\"\ndecimal = \",\"\ngrouping = \".\"\ntimestamp_format = \"%d.%m.%Y %H:%M:%S\"\ntime_zone = \"Europe/Berlin\"\n",
        ),
        (
            "sep.csv",
            format!("sep=;\r\n{german_header}{german_rows}").into_bytes(),
            "decimal = \",\"\ngrouping = \".\"\ntimestamp_format = \"%d.%m.%Y %H:%M:%S\"\ntime_zone = \"Europe/Berlin\"\n",
        ),
        (
            "unicode-text.csv",
            utf_16(&format!(
                "{}{}",
                plain_header.replace(',', "\t"),
                csv('\t', "\r\n", |payment| (iso(payment, "Z", 0), amount(payment.amount, '.', None)))
            )),
            "delimiter = \"\\t\"\n",
        ),
        (
            "american.csv",
            format!(
                "{plain_header}{}",
                csv(',', "\n", |payment| {
                    (american(payment), quoted(&amount(payment.amount, '.', Some(','))))
                })
            )
            .into_bytes(),
            "decimal = \".\"\ngrouping = \",\"\ntimestamp_format = \"%m/%d/%Y %I:%M:%S %p\"\ntime_zone = \"UTC\"\n",
        ),
        (
            "swiss.csv",
            format!(
                "{}{}",
                plain_header.replace(',', ";"),
                csv(';', ";;\n", |payment| {
                    (iso(payment, "Z", 0), amount(payment.amount, '.', Some('\'')))
                })
            )
            .replace("memo\n", "memo;;\n")
            .into_bytes(),
            "delimiter = \";\"\ndecimal = \".\"\ngrouping = \"'\"\n",
        ),
    ]
    .into_iter()
    .map(|(name, content, settings): (&str, Vec<u8>, &str)| {
        let columns = if content.windows(8).any(|bytes| bytes == b"Referenz") {
            format!("{settings}{german_columns}\n")
        } else {
            settings.to_owned()
        };
        (name, content, &*columns.leak())
    })
    .collect()
}

/// Writes the objects and the settings, a bucket for each.
fn prepare(directory: &Path, exports: &[(&str, Vec<u8>, &str)]) {
    let mut settings = String::new();
    for (name, content, source) in exports {
        let folder = directory.join("objects").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name), content).unwrap();
        settings += &format!(
            "[[ingest.sources]]\nbucket = \"{name}\"\nurl = \"file://{}\"\n{source}\n",
            folder.display()
        );
    }
    std::fs::write(directory.join("tollgate.toml"), settings).unwrap();
}

fn start(directory: &Path) -> Up {
    Up::of(&mut tollgate(
        directory,
        &["up", "--config", "tollgate.toml"],
    ))
}

async fn import(ingest: &str, name: &str) -> Value {
    let client = reqwest::Client::new();
    let event = json!({
        "eventType": "com.oraclecloud.objectstorage.createobject", "cloudEventsVersion": "0.1", "eventID": name,
        "source": "ObjectStorage",
        "data": {"resourceName": name, "additionalDetails": {"bucketName": name, "eTag": "v1"}},
    });
    let sent = client
        .post(format!("{ingest}/v1/events"))
        .json(&event)
        .send();
    let answer: Value = sent.await.unwrap().json().await.unwrap();
    let id = answer["results"][0]["import"].as_str().unwrap().to_owned();
    let deadline = Instant::now() + DEADLINE;
    loop {
        let url = format!("{ingest}/v1/imports/{id}");
        let state: Value = client.get(url).send().await.unwrap().json().await.unwrap();
        if ["done", "failed"].iter().any(|end| state["state"] == *end) {
            return state;
        }
        assert!(Instant::now() < deadline, "{name} does not end: {state}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// What was decided about each payment.
async fn decisions(read_api: &str) -> BTreeMap<String, Value> {
    let client = reqwest::Client::new();
    let deadline = Instant::now() + DEADLINE;
    let mut found = BTreeMap::new();
    for payment in payments() {
        let url = format!("{read_api}/v1/decisions/{}", payment.id);
        let mut decision: Value = loop {
            let answer = client.get(&url).send().await.unwrap();
            if answer.status() == 200 {
                break answer.json().await.unwrap();
            }
            assert!(Instant::now() < deadline, "{} is not decided", payment.id);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        };
        assert_eq!(decision["transaction"]["memo"], payment.memo);
        decision.as_object_mut().unwrap().retain(|name, _| {
            [
                "fraud_score",
                "fraud_indicators",
                "status",
                "late",
                "contributions",
            ]
            .contains(&name.as_str())
        });
        found.insert(payment.id, decision);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_payments_exported_in_ten_ways_give_the_same_decisions() {
    let exports = exports();
    assert_eq!(exports.len(), 10);
    let mut expected = None;
    for export in exports {
        let directory = TempDir::new().unwrap();
        prepare(directory.path(), std::slice::from_ref(&export));
        let up = start(directory.path());
        let addresses = up.addresses();
        let state = import(&addresses["ingest"], export.0).await;
        assert_eq!(
            (&state["accepted"], &state["rejected"], &state["late"]),
            (&json!(100), &json!(0), &json!(0)),
            "{}: {state}",
            export.0
        );
        let found = decisions(&addresses["persistence"]).await;
        let alerts = found.values().filter(|one| one["status"] != "approved");
        assert!(alerts.count() > 10, "the payments are all alike");
        assert_eq!(
            &found,
            expected.get_or_insert_with(|| found.clone()),
            "{}",
            export.0
        );
        up.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_of_another_form_ends_with_a_reason_that_names_the_setting() {
    let exports: Vec<(&str, Vec<u8>, &str)> = exports()
        .into_iter()
        .filter(|(name, ..)| ["bank.csv", "sep.csv", "unicode-text.csv"].contains(name))
        .map(|(name, content, _)| (name, content, ""))
        .collect();
    let directory = TempDir::new().unwrap();
    prepare(directory.path(), &exports);
    let up = start(directory.path());
    let ingest = up.addresses()["ingest"].clone();
    for (name, setting) in [
        ("bank.csv", "delimiter"),
        ("sep.csv", "columns"),
        ("unicode-text.csv", "delimiter"),
    ] {
        let state = import(&ingest, name).await;
        let reason = state["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(setting), "{name}: {state}");
        assert_eq!(state["accepted"], 0, "{name}: {state}");
    }
    up.stop();
}
