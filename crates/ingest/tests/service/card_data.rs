//! Card data in what producers send: nothing that ingest writes, answers or logs has it, on any way in.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use serde_json::json;
use tempfile::TempDir;
use tollgate_ingest::{IngestConfig, SourceConfig};
use tollgate_service::Secret;
use tollgate_types::{CardDataMode, CardIds};

use crate::support::{JSON, NDJSON, Service, eventually, start};

const PAN: &str = "4111111111111111";
const KEY: &str = "0123456789abcdef0123456789abcdef";

/// The members of a transaction with a card number of this text and a verification code.
fn with(id: &str, card: &str) -> String {
    format!(
        r#"{{"transaction_id":"{id}","user_id":"u","amount":12.5,"timestamp":"2026-03-01T12:30:00Z","card_number":"{card}","cvv":"987","payment":{{"pan":{PAN},"CVC2":"986"}},"last":1}}"#
    )
}

fn masking(config: &mut IngestConfig) {
    config.card_token_key = Secret::new(KEY);
}

/// Everything that is on any topic that ingest writes.
fn written(service: &Service) -> String {
    let topics = service.kafka.topics();
    let mut all = String::new();
    for topic in [
        &topics.transactions,
        &topics.transactions_dlq,
        &topics.imports,
    ] {
        for record in service.all(topic) {
            all += &format!(
                "{} {} {:?}\n",
                String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()),
                String::from_utf8_lossy(&record.payload),
                record
                    .headers
                    .iter()
                    .map(|(name, value)| format!(
                        "{name}={}",
                        String::from_utf8_lossy(value.as_deref().unwrap_or_default())
                    ))
                    .collect::<Vec<_>>(),
            );
        }
    }
    all
}

fn is_free_of_card_data(text: &str) {
    for secret in [PAN, "4111 1111 1111 1111", "\"987\"", "\"986\""] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

/// The log lines of this thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_way_in_lets_a_card_number_or_a_code_through() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .finish();
    let _logged = tracing::subscriber::set_default(subscriber);
    let bucket = TempDir::new().unwrap();
    let url = format!("file://{}", bucket.path().display());
    let service = start(|config| {
        masking(config);
        config.functions_wait_ms = 0;
        config.sources = vec![SourceConfig {
            bucket: "payments".into(),
            url,
            ..SourceConfig::default()
        }];
    })
    .await;
    let mut answers = String::new();

    // HTTP: valid, invalid, cut off, and an id that is a card number.
    let bad_id = with("t", PAN).replace("\"u\"", &format!("\"{PAN}\""));
    let invalid = with("t", PAN)
        .replace("12.5", "-1")
        .replace("\"t\"", &format!("\"t-{PAN}\""));
    let cut = &with("t", "4111 1111 1111 1111")[..170];
    let body = format!(
        "{}\n{bad_id}\n{invalid}\n{cut}\n{}",
        with("h1", PAN),
        with("h2", "4111 1111 1111 1111")
    );
    let answer = service.send(NDJSON, body).await;
    assert_eq!(
        (answer.status, &answer.body["accepted"]),
        (202, &json!(2)),
        "{}",
        answer.text
    );
    assert_eq!(answer.body["results"][1]["field"], "user_id");
    answers += &answer.text;
    let answer = service.send(JSON, bad_id.clone()).await;
    answer.is_problem(422);
    answers += &answer.text;
    answers += &service.send(JSON, format!("{{\"a\":\"{PAN}\"")).await.text;

    // Events, with ids that are card numbers.
    let event = |id: &str, data: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"{id}","type":"paid","source":"/shop/{PAN}","data":{data}}}"#
        )
    };
    let data = format!("[{},{bad_id},{invalid}]", with("e1", PAN));
    let answer = service
        .post_to(
            "/v1/events",
            &[("content-type", JSON)],
            format!("[{},{}]", event(PAN, &data), event(PAN, "7")),
        )
        .await;
    assert_eq!(
        (answer.status, &answer.body["accepted"]),
        (202, &json!(1)),
        "{}",
        answer.text
    );
    answers += &answer.text;

    // A function's batch.
    let batch = json!({"messages": [
        {"value": with("f1", PAN), "stream": PAN, "partition": PAN, "offset": PAN},
        {"value": bad_id, "stream": PAN, "partition": PAN, "offset": PAN},
        {"value": cut, "stream": PAN},
        {"value": format!("no transaction {PAN}")},
    ]});
    let answer = service
        .post_to(
            "/v1/functions/streaming",
            &[("content-type", JSON)],
            batch.to_string(),
        )
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answers += &answer.text;

    // Imported objects.
    let rows = format!("{}\n{bad_id}\n{cut}\n", with("i1", PAN));
    std::fs::write(bucket.path().join("a.ndjson"), rows).unwrap();
    let rows = format!(
        "transaction_id,user_id,amount,timestamp,card,cvv\ni2,u,1,2026-03-01T12:30:00Z,{PAN},987\ni3,u,x,2026-03-01T12:30:00Z,{PAN},987\n{PAN},{PAN}\n"
    );
    std::fs::write(bucket.path().join("b.csv"), rows).unwrap();
    for object in ["a.ndjson", "b.csv"] {
        let event = json!({
            "eventType": "com.oraclecloud.objectstorage.createobject", "cloudEventsVersion": "0.1", "source": "ObjectStorage",
            "eventID": object, "data": {"resourceName": object, "additionalDetails": {"bucketName": "payments", "eTag": "1"}},
        });
        let answer = service.post_to("/v1/events", &[], event.to_string()).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
    }
    let ended = || written(&service).matches(r#""import":"done""#).count();
    eventually("both imports end", async || ended() == 2).await;

    let all = written(&service);
    for id in ["h1", "h2", "e1", "f1", "i1", "i2"] {
        assert!(
            all.contains(&format!("\"transaction_id\":\"{id}\"")),
            "{id} in {all}"
        );
    }
    assert_eq!(service.letters().len(), 2 + 3 + 2 + 2, "{all}");
    is_free_of_card_data(&all);
    is_free_of_card_data(&answers);
    is_free_of_card_data(&String::from_utf8_lossy(&lines.0.lock().unwrap()));
    assert!(
        service
            .metrics()
            .await
            .contains(r#"tollgate_card_data_found_total{stage="ingest",kind="number"}"#)
            || service
                .metrics()
                .await
                .contains(r#"tollgate_card_data_found_total{kind="number",stage="ingest"}"#)
    );
    service.stop().await;
}

/// Beside the transactions: where a number stands that somebody took for an id.
#[tokio::test]
async fn card_numbers_in_names_headers_and_encodings_get_no_further() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .finish();
    let _logged = tracing::subscriber::set_default(subscriber);
    let bucket = TempDir::new().unwrap();
    let url = format!("file://{}", bucket.path().display());
    let service = start(|config| {
        masking(config);
        config.functions_wait_ms = 0;
        config.sources = vec![SourceConfig {
            bucket: "payments".into(),
            url,
            ..SourceConfig::default()
        }];
    })
    .await;
    let mut answers = String::new();

    // The trace state, and an address.
    let state = format!("shop={PAN}");
    let headers = [
        (
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
        ("tracestate", &state),
        ("user-agent", PAN),
    ];
    let path = format!("/v1/transactions?pan={PAN}");
    let answer = service
        .post_to(&path, &headers, with("a", "4111.1111.1111.1111"))
        .await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    for path in [
        format!("/cards/{PAN}"),
        format!("/v1/transactions/{PAN}?pan={PAN}"),
    ] {
        let answer = service.post_to(&path, &headers, "{}").await;
        assert_eq!(answer.status, 404, "{}", answer.text);
        answers += &answer.text;
    }

    // Base64 that is not of the standard alphabet, lines that are no transaction, numbers in other digits.
    let url_safe =
        data_encoding::BASE64URL_NOPAD.encode(with("f?>", PAN).replace("\"u\"", "7").as_bytes());
    let wide: String = PAN
        .chars()
        .map(|digit| char::from_u32(u32::from(digit) + 0xfee0).unwrap())
        .collect();
    let batch = json!({"messages": [{"value": url_safe}, {"value": PAN}, {"value": format!("{{\"a\":\"{wide}\"")}, {"value": "x=1&cvv=987"}]});
    let path = "/v1/functions/streaming";
    let answer = service.post_to(path, &[], batch.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answers += &answer.text;

    // The name of an object, and a file without a header, whose first row stands in the reason.
    let event = |object: &str| {
        json!({
            "eventType": "com.oraclecloud.objectstorage.createobject", "cloudEventsVersion": "0.1", "source": "ObjectStorage",
            "eventID": PAN, "data": {"resourceName": object, "additionalDetails": {"bucketName": "payments", "eTag": PAN}},
        })
        .to_string()
    };
    let object = format!("{PAN}.csv");
    std::fs::write(bucket.path().join(&object), "transaction_id\n1\n").unwrap();
    let answer = service.post_to("/v1/events", &[], event(&object)).await;
    answer.is_problem(422);
    assert_eq!(answer.body["results"][0]["field"], "data.resourceName");
    answers += &answer.text;
    let rows = format!("t1,u,{PAN},{PAN}\nt2,u,{PAN},x\n");
    std::fs::write(bucket.path().join("a.csv"), rows).unwrap();
    let answer = service.post_to("/v1/events", &[], event("a.csv")).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let ended = || written(&service).contains(r#""import":"failed""#);
    eventually("the import ends", async || ended()).await;

    let all = written(&service);
    assert_eq!(service.letters().len(), 4, "{all}");
    let logged = String::from_utf8_lossy(&lines.0.lock().unwrap()).into_owned();
    for text in [&all, &answers, &logged] {
        is_free_of_card_data(text);
        for secret in [&wide, "987", "4111.1111.1111.1111", &url_safe] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_masked_number_has_its_token_beside_it_and_the_other_members_are_unchanged() {
    let service = start(masking).await;
    let answer = service.send(JSON, with("t", PAN)).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let payload = service.records(1).remove(0).payload;
    let record: serde_json::Value = serde_json::from_str(&payload).unwrap();
    let token = record["card_number_token"].as_str().unwrap();
    assert_eq!(record["card_number"], "411111******1111");
    assert_eq!(record["payment"]["pan_token"], token);
    let expected = format!(
        r#"{{"transaction_id":"t","user_id":"u","amount":12.5,"timestamp":"2026-03-01T12:30:00Z","card_number":"411111******1111","card_number_token":"{token}","payment":{{"pan":"411111******1111","pan_token":"{token}"}},"last":1}}"#
    );
    assert_eq!(payload, expected);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_replaced_refused_or_left_alone_as_set() {
    let sent = async |mode, ids, body: String| {
        let service = start(|config| {
            masking(config);
            config.card_data = mode;
            config.card_data_ids = ids;
        })
        .await;
        let answer = service.send(JSON, body).await;
        let payload = match answer.status {
            202 => service.records(1).remove(0).payload,
            _ => String::new(),
        };
        service.stop().await;
        (answer, payload)
    };
    let (_, tokenised) = sent(CardDataMode::Tokenise, CardIds::Reject, with("t", PAN)).await;
    assert!(tokenised.contains(r#""card_number":"tok_"#), "{tokenised}");
    is_free_of_card_data(&tokenised);
    let (answer, _) = sent(CardDataMode::Reject, CardIds::Reject, with("t", PAN)).await;
    answer.is_problem(422);
    assert_eq!(
        answer.body["results"][0]["reason"],
        "the member card_number has a card number, which is refused here"
    );
    let (_, allowed) = sent(CardDataMode::Allow, CardIds::Reject, with("t", PAN)).await;
    assert_eq!(allowed, with("t", PAN));
    let numeric = format!(
        r#"{{"transaction_id":"{PAN}","user_id":"u","amount":1,"timestamp":"2026-03-01T12:30:00Z"}}"#
    );
    let (_, payload) = sent(CardDataMode::Mask, CardIds::Allow, numeric.clone()).await;
    assert_eq!(payload, numeric);
}
