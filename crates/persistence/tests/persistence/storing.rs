//! What comes from the log is stored: once, whole, and exactly.

use std::sync::Arc;

use tollgate_log::ProducerRecord;
use tollgate_service::http::{ApiKeyConfig, ApiKeys, Scope};
use tollgate_types::headers;

use crate::harness::{Kind, Sample, Service, TestLog, TestStore, on_each_store};

on_each_store!(
    a_decision_that_is_on_the_log_twice_is_stored_once,
    a_restart_that_reads_everything_again_changes_nothing,
    two_services_that_read_the_same_log_store_everything_once,
    of_two_decisions_on_one_transaction_the_first_in_the_log_stays,
    a_decision_comes_back_as_the_scorer_wrote_it,
    members_that_nobody_knows_are_kept_to_the_byte,
    the_first_and_the_last_year_are_kept_and_sorted,
    malformed_records_are_dead_lettered_and_nothing_behind_them_is_lost,
    columns_hold_what_the_interface_says,
    a_forged_decision_neither_replaces_one_nor_enters_the_store,
    another_amount_under_a_known_id_is_a_row_of_its_own_beside_the_first,
    the_same_amount_in_other_currencies_under_one_id_is_a_row_for_each,
    users_of_other_tenants_have_rows_of_their_own,
    a_different_decision_under_a_stored_id_is_counted_and_the_first_stays,
);

/// Whoever may write to the topic could otherwise approve any payment, before or after the scorer blocks it.
async fn a_forged_decision_neither_replaces_one_nor_enters_the_store(store: Arc<TestStore>) {
    let service = Service::start_with(&store, TestLog::open_signed(), |_| {}).await;
    service.ready().await;
    let topics = service.log.kafka.topics().clone();
    let real = Sample::new("u", "t1").alert("blocked", 90.0, &["high_amount"]);
    let real = real.decision();
    let forged = ["t1", "t2"].map(|id| Sample::new("u", id).decision());
    let foreign = [(headers::MAC, Some(b"k1:AAAA".as_slice()))];
    let mut records: Vec<ProducerRecord<'_>> = forged
        .iter()
        .map(|text| ProducerRecord::new(&topics.decisions, b"u", text.as_bytes()))
        .collect();
    records.push(ProducerRecord {
        headers: &foreign,
        ..records[0]
    });
    records.push(ProducerRecord::signed(
        &topics.decisions,
        b"u",
        real.as_bytes(),
    ));
    records.push(records[0]);
    service.log.send_records(records).await;
    service.stored(1).await;
    let letters = service.log.dead_letters(4).await;
    for letter in letters {
        assert_eq!(letter.header(headers::ERROR_KIND), Some("unauthenticated"));
    }
    service.log.wait_until_committed().await;
    let stored = service.get("/v1/decisions/t1").await;
    assert_eq!(stored["status"], "blocked");
    let (status, _) = service.text("/v1/decisions/t2").await;
    assert_eq!(status, 404);
    service.stop().await;
}

async fn a_decision_that_is_on_the_log_twice_is_stored_once(store: Arc<TestStore>) {
    let service = Service::start(&store).await;
    let decisions: Vec<String> = (0..3000)
        .map(|n| Sample::new(format!("u{}", n % 70), format!("t{n}")).decision())
        .collect();
    service.log.send(&decisions).await;
    service.log.send(&decisions).await;
    service.stored(3000).await;
    service.log.wait_until_committed().await;
    let log = service.stop().await;
    assert_eq!(
        store.number("SELECT count(*) FROM transactions").await,
        3000
    );
    assert_eq!(
        store.number("SELECT count(*) FROM fraud_analysis").await,
        3000
    );
    assert_eq!(
        store
            .number("SELECT CAST(sum(decisions) AS BIGINT) FROM decision_counts")
            .await,
        3000
    );
    assert_eq!(log.count_dead_letters(), 0);
}

async fn a_restart_that_reads_everything_again_changes_nothing(store: Arc<TestStore>) {
    let service = Service::start(&store).await;
    let decisions: Vec<String> = (0..500)
        .map(|n| Sample::new("u", format!("t{n}")).decision())
        .collect();
    service.log.send(&decisions).await;
    service.stored(500).await;
    let before = store
        .texts("SELECT CAST(created_at AS TEXT) FROM fraud_analysis ORDER BY transaction_id")
        .await;
    let log = service.stop().await;
    // What was stored and not committed is read again: here as records of its own.
    let service = Service::start_with(&store, log, |_| {}).await;
    service.ready().await;
    service.log.send(&decisions).await;
    service.log.send([Sample::new("u", "new").decision()]).await;
    service.stored(501).await;
    service.stop().await;
    let after = store.texts("SELECT CAST(created_at AS TEXT) FROM fraud_analysis WHERE transaction_id <> 'new' ORDER BY transaction_id").await;
    assert_eq!(before, after);
}

async fn two_services_that_read_the_same_log_store_everything_once(store: Arc<TestStore>) {
    let first = Service::start(&store).await;
    let second = Service::start_with(&store, first.log.clone(), |_| {}).await;
    second.ready().await;
    for round in 0..10 {
        first
            .log
            .send((0..500).map(|n| Sample::new(format!("u{n}"), format!("t{round}")).decision()))
            .await;
    }
    first.stored(5000).await;
    first.log.wait_until_committed().await;
    let log = first.stop().await;
    second.stop().await;
    assert_eq!(
        store.number("SELECT count(*) FROM transactions").await,
        5000
    );
    assert_eq!(
        store.number("SELECT count(*) FROM fraud_analysis").await,
        5000
    );
    assert_eq!(
        store
            .number("SELECT CAST(sum(decisions) AS BIGINT) FROM decision_counts")
            .await,
        5000
    );
    assert_eq!(log.count_dead_letters(), 0);
}

async fn of_two_decisions_on_one_transaction_the_first_in_the_log_stays(store: Arc<TestStore>) {
    let service = Service::start(&store).await;
    let (mut pairs, count) = (Vec::new(), 200);
    for n in 0..count {
        let first = Sample::new("u", format!("t{n}")).alert("review", 41.0, &["high_amount"]);
        let mut again = first.clone();
        again.amount = "99".into();
        pairs.push(first.decision());
        pairs.push(
            again
                .decision()
                .replace("\"duplicate\":false", "\"duplicate\":true")
                .replace("\"fraud_score\":41.0", "\"fraud_score\":50.0"),
        );
    }
    service.log.send(&pairs).await;
    service.stored(count).await;
    service.log.wait_until_committed().await;
    service.stop().await;
    assert_eq!(
        store
            .number("SELECT count(*) FROM transactions WHERE CAST(amount AS TEXT) LIKE '12.5%'")
            .await,
        count
    );
    assert_eq!(
        store
            .number("SELECT count(*) FROM fraud_analysis WHERE fraud_score = 41")
            .await,
        count
    );
}

async fn a_decision_comes_back_as_the_scorer_wrote_it(store: Arc<TestStore>) {
    let service = Service::start(&store).await;
    let scores = [
        0.1 + 0.2,
        40.0,
        69.999_999_999_999_99,
        70.000_000_000_000_01,
        145.0,
        1.0 / 3.0,
        5e-324,
    ];
    let all = &[
        "high_velocity",
        "high_amount",
        "geographic_anomaly",
        "suspicious_pattern",
    ];
    let samples: Vec<Sample> = scores
        .iter()
        .enumerate()
        .map(|(n, score)| Sample::new("u", format!("t{n}")).alert("blocked", *score, all))
        .collect();
    service.log.send(samples.iter().map(Sample::decision)).await;
    service.stored(7).await;
    for (sample, score) in samples.iter().zip(scores) {
        let (status, text) = service.text(&format!("/v1/decisions/{}", sample.id)).await;
        assert_eq!((status, &text), (200, &sample.decision()));
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            read["fraud_score"].as_f64().unwrap().to_bits(),
            score.to_bits()
        );
    }
    service.stop().await;
}

async fn members_that_nobody_knows_are_kept_to_the_byte(store: Arc<TestStore>) {
    let service = Service::start(&store).await;
    let members = [
        r#","nul":"a\u0000b\u0000""#,
        r#","half":"\ud800","other_half":"\udc00x""#,
        r#","huge":1e400,"tiny":-1e-400,"digits":0.10000000000000000000000000000000000000000001,"minus":-0"#,
        r#","again":1,"again":2,"again":{"again":3}"#,
        r#", "spaces" : [ 1 , 2 ,{ } ],"empty":"","":null"#,
        r#","words":"ünïcödé 😀 \ud83d\ude00 \/ \" \\ \t","ключ":"значение""#,
        r#","sql":"'; DROP TABLE transactions; --","backslash":"\\x00","dollar":"$$""#,
        &format!(r#","deep":{}{}"#, "[".repeat(60), "]".repeat(60)),
        &format!(r#","long":"{}""#, "x".repeat(200_000)),
    ];
    let samples: Vec<Sample> = members
        .iter()
        .enumerate()
        .map(|(n, more)| Sample {
            more: (*more).to_owned(),
            ..Sample::new("u", format!("t{n}"))
        })
        .collect();
    service.log.send(samples.iter().map(Sample::decision)).await;
    service.stored(9).await;
    for sample in &samples {
        let (status, text) = service.text(&format!("/v1/decisions/{}", sample.id)).await;
        assert_eq!((status, &text), (200, &sample.decision()));
    }
    let (_, page) = service.text("/v1/decisions").await;
    assert!(
        samples
            .iter()
            .all(|sample| page.contains(&sample.decision()))
    );
    service.stop().await;
}

async fn the_first_and_the_last_year_are_kept_and_sorted(store: Arc<TestStore>) {
    let service = Service::start(&store).await;
    let times = [
        "9999-12-31T23:59:59.999999Z",
        "2026-03-01T12:00:00.000001Z",
        "2026-03-01T12:00:00Z",
        "1969-12-31T23:59:59.999999Z",
        "0001-01-01T00:00:00Z",
        "0000-12-31T23:59:59.999999Z",
        "0000-01-01T00:00:00Z",
    ];
    let samples: Vec<Sample> = times
        .iter()
        .enumerate()
        .map(|(n, time)| Sample::new("u", format!("t{n}")).at(*time))
        .collect();
    service.log.send(samples.iter().map(Sample::decision)).await;
    service.stored(7).await;
    let page = service.get("/v1/decisions?limit=7").await;
    let found: Vec<&str> = page["decisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["transaction"]["timestamp"].as_str().unwrap())
        .collect();
    assert_eq!(found, times);
    let stats = service.get("/v1/stats").await;
    assert_eq!(
        (&stats["first_event_time"], &stats["last_event_time"]),
        (&times[6].into(), &times[0].into())
    );
    let summary = service.get("/v1/users/u/summary").await;
    assert_eq!(
        (&summary["first_event_time"], &summary["last_event_time"]),
        (&times[6].into(), &times[0].into())
    );
    let early = service
        .get("/v1/decisions?from=0000-01-01T00:00:00Z&to=0001-01-01T00:00:00Z")
        .await;
    assert_eq!(early["decisions"].as_array().unwrap().len(), 2);
    service.stop().await;
}

async fn malformed_records_are_dead_lettered_and_nothing_behind_them_is_lost(
    store: Arc<TestStore>,
) {
    let service = Service::start(&store).await;
    let good = |n: usize| Sample::new("u", format!("t{n}")).decision();
    let bad: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"{\"transaction_id\":".to_vec(),
        b"\xff\xfe\x00".to_vec(),
        vec![b'['; 100_000],
        vec![b'x'; 900_000],
        good(0)
            .replace("\"fraud_score\":0.0", "\"fraud_score\":1e400")
            .into_bytes(),
        good(0)
            .replace("\"status\":\"approved\"", "\"status\":\"fine\"")
            .into_bytes(),
        good(0)
            .replace("\"amount\":12.5", "\"amount\":-12.5")
            .into_bytes(),
        good(0)
            .replacen("\"user_id\":\"u\"", "\"user_id\":\"v\"", 1)
            .into_bytes(),
        good(0)
            .replace("2026-03-01T12:00:00Z", "10000-03-01T12:00:00Z")
            .into_bytes(),
        format!("[{}]", good(0)).into_bytes(),
    ];
    let mut records = Vec::new();
    for (n, bad) in bad.iter().enumerate() {
        records.push(good(n).into_bytes());
        records.push(bad.clone());
    }
    records.push(good(bad.len()).into_bytes());
    let headers: [(&str, Option<&[u8]>); 3] = [
        ("traceparent", Some(b"00-1-2-01")),
        ("empty", None),
        ("twice", Some(b"\xff")),
    ];
    let topic = service.log.kafka.topics().decisions.clone();
    let record = |payload| ProducerRecord {
        partition: Some(1),
        headers: &headers,
        ..ProducerRecord::new(&topic, b"the key", payload)
    };
    service
        .log
        .send_records(records.iter().map(|payload| record(payload)))
        .await;
    service.stored(12).await;
    let letters = service.log.dead_letters(bad.len()).await;
    for (letter, bad) in letters.iter().zip(&bad) {
        assert_eq!(&letter.payload, bad);
        assert_eq!(letter.key.as_deref(), Some(&b"the key"[..]));
        assert!(
            headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.map(<[u8]>::to_vec)))
                .eq(letter.headers[..3].iter().cloned())
        );
        assert_eq!(letter.header("error.stage"), Some("persistence"));
        assert_eq!(letter.header("error.kind"), Some("malformed"));
        assert_eq!(letter.header("source.partition"), Some("1"));
        assert!(!letter.header("error.reason").unwrap().contains("12.5"));
    }
    let offsets: Vec<&str> = letters
        .iter()
        .map(|letter| letter.header("source.offset").unwrap())
        .collect();
    assert_eq!(
        offsets,
        (0..11).map(|n| (2 * n + 1).to_string()).collect::<Vec<_>>()
    );
    let log = service.stop().await;
    assert_eq!(log.count_dead_letters(), 11);
}

async fn columns_hold_what_the_interface_says(store: Arc<TestStore>) {
    let service = Service::start(&store).await;
    let mut sample = Sample::new("u", "t")
        .alert("review", 55.25, &["high_velocity", "high_amount"])
        .at("2026-03-01T21:00:00.5+09:00");
    sample.amount = "\"1000.2500\"".into();
    service.log.send([sample.decision()]).await;
    service.stored(1).await;
    service.stop().await;
    let row = "SELECT transaction_id || '|' || user_id || '|' || amount FROM transactions WHERE event_time = '2026-03-01T12:00:00.500000Z'";
    let amount = if store.kind == Kind::Postgres {
        "1000.2500"
    } else {
        "1000.25"
    };
    assert_eq!(store.texts(row).await, [format!("t|u|{amount}")]);
    let row = "SELECT transaction_id || '|' || user_id || '|' || fraud_score || '|' || status || '|' || fraud_indicators FROM fraud_analysis";
    assert_eq!(
        store.texts(row).await,
        ["t|u|55.25|review|high_velocity,high_amount"]
    );
}

async fn another_amount_under_a_known_id_is_a_row_of_its_own_beside_the_first(
    store: Arc<TestStore>,
) {
    let service = Service::start(&store).await;
    let first = Sample::new("u", "t").decision();
    let conflict = |amount: &str| {
        let mut sample = Sample::new("u", "t").alert("review", 40.0, &["high_amount"]);
        sample.amount = amount.into();
        sample.decision().replace(
            "\"duplicate\":false",
            "\"duplicate\":false,\"conflict\":true",
        )
    };
    let (large, larger) = (conflict("98765.00"), conflict("99999"));
    service.log.send([&first, &large]).await;
    // Redelivered, also with another spelling of the amount, and in one batch with a further conflict.
    let again = large.replace("98765.00", "\"98765\"");
    service.log.send([&large, &first, &again, &larger]).await;
    service.stored(3).await;
    service.log.wait_until_committed().await;
    let shown = service.get("/v1/decisions/t").await;
    assert_eq!(shown["transaction"]["amount"], 12.5);
    assert!(shown.get("conflict").is_none());
    let amounts: Vec<String> = shown["conflicts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|conflict| {
            assert_eq!(conflict["conflict"], true);
            conflict["transaction"]["amount"].to_string()
        })
        .collect();
    assert_eq!(amounts, ["98765.0", "99999"]);
    // A page of one walks over all three, which have the same time and ids.
    let (mut after, mut seen) = (String::new(), Vec::new());
    loop {
        let page = service
            .get(&format!("/v1/decisions?user_id=u&limit=1{after}"))
            .await;
        let amount = page["decisions"][0]["transaction"]["amount"].to_string();
        seen.push(amount);
        let Some(next) = page["next"].as_str() else {
            break;
        };
        after = format!("&after={next}");
    }
    assert_eq!(seen, ["99999", "98765.0", "12.5"]);
    let stats = service.get("/v1/stats").await;
    assert_eq!(
        stats["by_status"],
        serde_json::json!({"approved": 1, "review": 2, "blocked": 0})
    );
    let summary = service.get("/v1/users/u/summary").await;
    assert_eq!(
        (&summary["transactions"], &summary["max_amount"]),
        (&3.into(), &"99999".into())
    );
    let log = service.stop().await;
    assert_eq!(log.count_dead_letters(), 0);
    let rows = store.number("SELECT count(*) FROM transactions").await;
    assert_eq!(rows, 3);
}

async fn the_same_amount_in_other_currencies_under_one_id_is_a_row_for_each(store: Arc<TestStore>) {
    let service = Service::start(&store).await;
    let decision = |currency: &str, conflict: &str| {
        let mut sample = Sample::new("u", "t").alert("review", 40.0, &["high_amount"]);
        sample.amount = "900".into();
        sample.more = format!(r#","currency":"{currency}""#);
        let conflict = format!("\"duplicate\":false{conflict}");
        sample.decision().replace("\"duplicate\":false", &conflict)
    };
    let conflict = ",\"conflict\":true";
    let all = [
        decision("JPY", ""),
        decision("EUR", conflict),
        decision("KWD", conflict),
    ];
    service.log.send([&all[0], &all[1], &all[2], &all[1]]).await;
    service.stored(3).await;
    service.log.wait_until_committed().await;
    let (mut after, mut seen) = (String::new(), Vec::new());
    loop {
        let page = service
            .get(&format!("/v1/decisions?user_id=u&limit=1{after}"))
            .await;
        seen.push(page["decisions"][0]["transaction"]["currency"].to_string());
        let Some(next) = page["next"].as_str() else {
            break;
        };
        after = format!("&after={next}");
    }
    assert_eq!(seen, ["\"KWD\"", "\"EUR\"", "\"JPY\""]);
    service.stop().await;
}

/// As after the lookback, when the scorer has forgotten the first one, or when the log is decided by other rules.
async fn a_different_decision_under_a_stored_id_is_counted_and_the_first_stays(
    store: Arc<TestStore>,
) {
    let service = Service::start(&store).await;
    let counted = async || {
        let name = "tollgate_persistence_decisions_differing_total ";
        let metrics = service.metrics().await;
        let value = metrics.lines().find_map(|line| line.strip_prefix(name));
        value.map_or(0, |value| value.parse::<u64>().unwrap())
    };
    let before = counted().await;
    let first = Sample::new("u", "t").alert("blocked", 90.5, &["high_velocity", "high_amount"]);
    let decisions = (0..300)
        .map(|n| Sample::new(format!("u{}", n % 7), format!("t{n}")).decision())
        .chain([first.decision()]);
    service.log.send(decisions).await;
    service.stored(301).await;
    let later = [
        Sample::new("u", "t").decision(),
        Sample::new("u0", "t0")
            .alert("approved", 1.0, &[])
            .decision(),
        Sample::new("u1", "t1")
            .alert("approved", 0.0, &["high_amount"])
            .decision(),
        // The same again.
        Sample::new("u2", "t2").decision(),
    ];
    service.log.send(&later).await;
    service.log.wait_until_committed().await;
    // Of this test and of others, which share the process.
    assert!(counted().await >= before + 3);
    let (status, text) = service.text("/v1/decisions/t").await;
    assert_eq!((status, text), (200, first.decision()));
    let log = service.stop().await;
    assert_eq!(log.count_dead_letters(), 0);
}

async fn users_of_other_tenants_have_rows_of_their_own(store: Arc<TestStore>) {
    let key = |name: &str, tenant: Option<&str>| ApiKeyConfig {
        name: name.into(),
        hash: ApiKeys::hash_of(name),
        scopes: vec![Scope::DECISIONS_READ],
        tenant: tenant.map(str::to_owned),
        ..ApiKeyConfig::default()
    };
    let service = Service::start_with(&store, TestLog::open(), |config| {
        config.api_keys = vec![
            key("default", None),
            key("shop", Some("shop")),
            key("other", Some("other")),
            key("all", Some("*")),
        ];
    })
    .await;
    service.ready().await;
    let of = |tenant: &str| {
        Sample::new("u", "t").decision().replace(
            "\"duplicate\":false",
            &format!("\"duplicate\":false,\"tenant\":{tenant}"),
        )
    };
    let default = Sample::new("u", "t").decision();
    let long = format!("\"{}\"", "x".repeat(129));
    let sent = [
        of("\"shop\""),
        default,
        of("\"shop\""),
        of("\"\""),
        of(&long),
    ];
    service.log.send(&sent).await;
    let letters = service.log.dead_letters(1).await;
    assert_eq!(letters[0].header("error.kind"), Some("malformed"));
    service.log.wait_until_committed().await;
    let status = async |key: &str, path: &str| {
        let request = service.request(reqwest::Method::GET, path).bearer_auth(key);
        request.send().await.unwrap().status().as_u16()
    };
    let get = async |key: &str, path: &str| {
        let request = service.request(reqwest::Method::GET, path).bearer_auth(key);
        let answer = request.send().await.unwrap().text().await.unwrap();
        serde_json::from_str::<serde_json::Value>(&answer).unwrap()
    };
    let user = "/v1/decisions/t?user_id=u";
    assert!(get("default", user).await.get("tenant").is_none());
    assert_eq!(get("shop", user).await["tenant"], "shop");
    assert_eq!(status("other", user).await, 404);
    assert_eq!(status("all", user).await, 409);
    for (key, count) in [("default", 1), ("shop", 1), ("other", 0), ("all", 2)] {
        let page = get(key, "/v1/decisions?user_id=u").await;
        assert_eq!(page["decisions"].as_array().unwrap().len(), count, "{key}");
        let page = get(key, "/v1/decisions").await;
        assert_eq!(page["decisions"].as_array().unwrap().len(), count, "{key}");
        let stats = get(key, "/v1/stats").await;
        assert_eq!(stats["decisions"], count, "{key}");
        assert_eq!(stats["first_event_time"].is_null(), count == 0, "{key}");
        let summary = get(key, "/v1/users/u/summary").await;
        let expected = if count == 0 { 0 } else { count };
        assert_eq!(
            summary["transactions"].as_u64().unwrap_or_default(),
            expected as u64
        );
    }
    // Pages of one go over both tenants, whose rows differ in nothing else.
    let first = get("all", "/v1/decisions?limit=1").await;
    let next = first["next"].as_str().unwrap();
    let second = get("all", &format!("/v1/decisions?limit=1&after={next}")).await;
    assert_eq!(first["decisions"][0]["tenant"], "shop");
    assert!(second["decisions"][0].get("tenant").is_none() && second["next"].is_null());
    service.stop().await;
    let tenants = "SELECT tenant FROM fraud_analysis ORDER BY tenant";
    assert_eq!(store.texts(tenants).await, ["", "shop"]);
    let counts = "SELECT tenant || CAST(decisions AS TEXT) FROM decision_counts ORDER BY tenant";
    assert_eq!(store.texts(counts).await, ["1", "shop1"]);
}
