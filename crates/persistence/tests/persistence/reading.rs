//! What is stored is found again.

use std::collections::HashSet;
use std::sync::Arc;

use crate::harness::{Sample, Service, TestStore, on_each_store};

on_each_store!(
    pages_visit_every_decision_once_while_new_ones_come_in,
    pages_come_newest_first_and_ties_in_a_fixed_order,
    filters_narrow_and_combine,
    bad_parameters_are_named_with_the_reason,
    an_id_that_several_users_have_needs_the_user,
    ids_may_hold_anything_that_an_address_can_say,
    a_user_is_summed_up_exactly,
    statistics_count_what_is_there_also_after_deletions,
    indicators_that_this_version_does_not_know_are_stored_shown_and_counted,
    nothing_is_found_in_an_empty_store,
    ids_are_found_in_every_composition_and_in_every_case_if_they_are_folded,
);

fn ids(page: &serde_json::Value) -> Vec<String> {
    page["decisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| format!("{}/{}", d["user_id"], d["transaction_id"]).replace('"', ""))
        .collect()
}

async fn pages_visit_every_decision_once_while_new_ones_come_in(store: Arc<TestStore>) {
    let service = Service::start(&store).await;
    let times = [
        "2026-03-01T12:00:00Z",
        "2026-03-01T12:00:00.000001Z",
        "2026-03-02T00:00:00Z",
    ];
    let samples: Vec<Sample> = (0..300)
        .map(|n| Sample::new(format!("u{}", n % 7), format!("t{n}")).at(times[n % 3]))
        .collect();
    service.log.send(samples.iter().map(Sample::decision)).await;
    service.stored(300).await;
    let (mut visited, mut after, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = service.get(&format!("/v1/decisions?limit=17{after}")).await;
        visited.extend(ids(&page));
        let Some(next) = page["next"].as_str() else {
            break;
        };
        after = format!("&after={next}");
        pages += 1;
        // Newer than everything, as old as a page's own, and of a new user that sorts before all others.
        let new = [
            Sample::new("new", format!("n{pages}")).at("2026-03-03T00:00:00Z"),
            Sample::new("zz", format!("n{pages}")).at("2026-03-02T00:00:00Z"),
        ];
        service.log.send(new.iter().map(Sample::decision)).await;
        service.stored(300 + 2 * pages).await;
    }
    let distinct: HashSet<&String> = visited.iter().collect();
    assert_eq!(distinct.len(), visited.len(), "a decision came twice");
    assert!(
        samples
            .iter()
            .all(|sample| distinct.contains(&format!("{}/{}", sample.user, sample.id)))
    );
    assert!(pages >= 17);
    service.stop().await;
}

async fn pages_come_newest_first_and_ties_in_a_fixed_order(store: Arc<TestStore>) {
    let service = Service::start(&store).await;
    let new = |user: &str, id: &str, time: &str| Sample::new(user, id).at(time).decision();
    let (early, late) = ("2026-03-01T12:00:00Z", "2026-03-01T12:00:00.5Z");
    service
        .log
        .send([
            new("a", "2", early),
            new("Z", "1", early),
            new("a", "1", early),
            new("é", "1", early),
            new("b", "1", late),
        ])
        .await;
    service.stored(5).await;
    let page = service.get("/v1/decisions").await;
    assert_eq!(ids(&page), ["b/1", "é/1", "a/2", "a/1", "Z/1"]);
    assert!(page["next"].is_null());
    let exact = service.get("/v1/decisions?limit=5").await;
    assert!(exact["next"].is_null(), "a full last page has no next one");
    service.stop().await;
}

async fn filters_narrow_and_combine(store: Arc<TestStore>) {
    let service = Service::start(&store).await;
    let samples = [
        Sample::new("a", "1").at("2026-03-01T00:00:00Z"),
        Sample::new("a", "2")
            .at("2026-03-02T00:00:00Z")
            .alert("review", 41.0, &["high_amount"]),
        Sample::new("a", "3").at("2026-03-03T00:00:00Z").alert(
            "blocked",
            90.0,
            &["high_velocity", "high_amount"],
        ),
        Sample::new("b", "4")
            .at("2026-03-02T00:00:00Z")
            .alert("review", 41.0, &["high_amount"]),
    ];
    service.log.send(samples.iter().map(Sample::decision)).await;
    service.stored(4).await;
    for (query, expected) in [
        ("", &["a/3", "b/4", "a/2", "a/1"][..]),
        ("status=review", &["b/4", "a/2"]),
        ("status=blocked", &["a/3"]),
        ("status=approved", &["a/1"]),
        ("user_id=a", &["a/3", "a/2", "a/1"]),
        ("user_id=nobody", &[]),
        ("from=2026-03-02T00:00:00Z", &["a/3", "b/4", "a/2"]),
        ("to=2026-03-02T00:00:00Z", &["a/1"]),
        (
            "from=2026-03-02T00:00:00Z&to=2026-03-02T00:00:00.000001Z",
            &["b/4", "a/2"],
        ),
        ("from=2026-03-02T09:00:00%2B09:00&to=2026-03-03", &[]),
        ("from=2026-03-03T00:00:00Z&to=2026-03-03T00:00:00Z", &[]),
        (
            "status=review&user_id=a&from=2026-03-01T00:00:00&to=2026-03-04T00:00:00&limit=1000",
            &["a/2"],
        ),
    ] {
        if query.contains("to=2026-03-03&") || query.ends_with("to=2026-03-03") {
            assert_eq!(
                service
                    .problem(&format!("/v1/decisions?{query}"), 400)
                    .await["parameter"],
                "to"
            );
            continue;
        }
        assert_eq!(
            ids(&service.get(&format!("/v1/decisions?{query}")).await),
            expected,
            "{query}"
        );
    }
    let mut after = String::new();
    for expected in ["b/4", "a/2"] {
        let page = service
            .get(&format!("/v1/decisions?status=review&limit=1{after}"))
            .await;
        assert_eq!(ids(&page), [expected]);
        after = format!("&after={}", page["next"].as_str().unwrap_or_default());
    }
    service.stop().await;
}

async fn bad_parameters_are_named_with_the_reason(store: Arc<TestStore>) {
    let service = Service::start(&store).await;
    let long = "x".repeat(129);
    for (query, parameter, reason) in [
        ("state=review", "state", "no such parameter"),
        ("status=Review", "status", "approved, review or blocked"),
        ("status=", "status", "approved, review or blocked"),
        ("status=review&status=review", "status", "given twice"),
        ("limit=0", "limit", "1 to 1000"),
        ("limit=1001", "limit", "1 to 1000"),
        ("limit=-1", "limit", "1 to 1000"),
        ("limit=99999999999999999999", "limit", "1 to 1000"),
        ("limit=ten", "limit", "1 to 1000"),
        ("from=yesterday", "from", "RFC 3339"),
        ("to=10000-01-01T00:00:00Z", "to", "RFC 3339"),
        ("from=2026-03-01T00:00:00+09:00", "from", "%2B"),
        (
            "from=2026-03-02T00:00:00Z&to=2026-03-01T00:00:00Z",
            "from",
            "is later than to: 2026-03-02T00:00:00Z > 2026-03-01T00:00:00Z",
        ),
        ("after=", "after", "next"),
        ("after=AAAA", "after", "next"),
        ("after=%00%ff", "after", "next"),
        ("user_id=", "user_id", "1 to 128 bytes"),
        ("user_id=%00", "user_id", "U+0000"),
        (&format!("user_id={long}"), "user_id", "1 to 128 bytes"),
    ] {
        let problem = service
            .problem(&format!("/v1/decisions?{query}"), 400)
            .await;
        assert_eq!(problem["parameter"], parameter, "{query}");
        assert!(
            problem["reason"].as_str().unwrap().contains(reason),
            "{query}: {problem}"
        );
        assert!(
            problem["detail"].as_str().unwrap().starts_with(parameter),
            "{query}: {problem}"
        );
    }
    assert_eq!(
        service.problem("/v1/decisions/t?user=u", 400).await["parameter"],
        "user"
    );
    assert_eq!(
        service.problem("/v1/decisions/%ff", 400).await["parameter"],
        "transaction_id"
    );
    assert_eq!(
        service.problem("/v1/stats?pretty", 400).await["parameter"],
        "pretty"
    );
    assert_eq!(
        service.problem("/v1/users/u/summary?limit=1", 400).await["parameter"],
        "limit"
    );
    service.stop().await;
}

async fn an_id_that_several_users_have_needs_the_user(store: Arc<TestStore>) {
    let service = Service::start(&store).await;
    service
        .log
        .send([
            Sample::new("a", "same").decision(),
            Sample::new("b", "same").decision(),
            Sample::new("b", "other").decision(),
        ])
        .await;
    service.stored(3).await;
    let problem = service.problem("/v1/decisions/same", 409).await;
    assert!(problem["detail"].as_str().unwrap().contains("user_id"));
    assert!(!problem.to_string().contains("\"a\""), "it lists nobody");
    assert_eq!(
        service.get("/v1/decisions/same?user_id=b").await["user_id"],
        "b"
    );
    assert_eq!(service.get("/v1/decisions/other").await["user_id"], "b");
    service.problem("/v1/decisions/other?user_id=a", 404).await;
    service.stop().await;
}

async fn ids_are_found_in_every_composition_and_in_every_case_if_they_are_folded(
    store: Arc<TestStore>,
) {
    let service = Service::start(&store).await;
    // As ingest writes them, folded: NFC, small letters.
    let stored = ("m\u{fc}ller", "\u{e9}-1");
    service
        .log
        .send([Sample::new(stored.0, stored.1).decision()])
        .await;
    service.stored(1).await;
    let encoded = |id: &str| -> String { id.bytes().map(|byte| format!("%{byte:02X}")).collect() };
    let statuses = async |service: &Service, user: &str, id: &str| {
        let (user, id) = (encoded(user), encoded(id));
        let mut found = Vec::new();
        for path in [
            format!("/v1/decisions/{id}"),
            format!("/v1/decisions/{id}?user_id={user}"),
            format!("/v1/users/{user}/summary"),
        ] {
            found.push(service.text(&path).await.0);
        }
        let page = service.get(&format!("/v1/decisions?user_id={user}")).await;
        let rows = page["decisions"].as_array().unwrap().len();
        found.push(u16::try_from(rows).unwrap());
        found
    };
    let decomposed = ("mu\u{308}ller", "e\u{301}-1");
    assert_eq!(
        statuses(&service, decomposed.0, decomposed.1).await,
        [200, 200, 200, 1]
    );
    assert_eq!(
        statuses(&service, "MU\u{308}LLER", decomposed.1).await,
        [200, 404, 404, 0]
    );
    let log = service.stop().await;
    let service = Service::start_with(&store, log, |config| {
        config.user_id_case = tollgate_types::UserIdCase::Fold;
    })
    .await;
    service.ready().await;
    for user in ["MU\u{308}LLER", "M\u{dc}ller", stored.0] {
        assert_eq!(
            statuses(&service, user, decomposed.1).await,
            [200, 200, 200, 1],
            "{user}"
        );
    }
    service.stop().await;
}

async fn ids_may_hold_anything_that_an_address_can_say(store: Arc<TestStore>) {
    let service = Service::start(&store).await;
    let ids = [
        "a/b",
        "..",
        "%41",
        "ü 😀",
        "a?b#c",
        "'; --",
        "\"a\\b\"",
        "x".repeat(128).leak(),
    ];
    service
        .log
        .send(ids.map(|id| Sample::new(id, id).decision()))
        .await;
    service.stored(8).await;
    for id in ids {
        let encoded: String = id.bytes().map(|byte| format!("%{byte:02X}")).collect();
        // An address with only dots in a segment is shortened by clients before it is sent.
        if id != ".." {
            assert_eq!(
                service.get(&format!("/v1/decisions/{encoded}")).await["transaction_id"],
                id
            );
            assert_eq!(
                service.get(&format!("/v1/users/{encoded}/summary")).await["transactions"],
                1
            );
        }
        let page = service
            .get(&format!("/v1/decisions?user_id={encoded}"))
            .await;
        assert_eq!(page["decisions"][0]["transaction_id"], id);
    }
    service.problem("/v1/decisions/%00", 404).await;
    service
        .problem(&format!("/v1/decisions/{}", "x".repeat(129)), 404)
        .await;
    service.stop().await;
}

async fn a_user_is_summed_up_exactly(store: Arc<TestStore>) {
    let service = Service::start(&store).await;
    let mut samples = [
        Sample::new("u", "1").at("2026-03-01T00:00:00Z"),
        Sample::new("u", "2").at("2026-03-04T00:00:00Z").alert(
            "review",
            41.5,
            &["high_amount", "suspicious_pattern"],
        ),
        Sample::new("u", "3").at("2026-03-03T00:00:00Z").alert(
            "blocked",
            90.25,
            &["high_velocity", "high_amount"],
        ),
    ];
    for (sample, amount) in samples
        .iter_mut()
        .zip(["0.1", "0.2", "\"999999999999.9999\""])
    {
        sample.amount = amount.into();
    }
    // Sums that pass what 64 bits hold.
    let rich = (0..1000).map(|n| Sample {
        amount: "1e12".into(),
        ..Sample::new("rich", format!("r{n}"))
    });
    service
        .log
        .send(
            samples
                .iter()
                .cloned()
                .chain(rich)
                .map(|sample| sample.decision()),
        )
        .await;
    service.stored(1003).await;
    let mut summary = service.get("/v1/users/u/summary").await;
    assert_eq!(
        summary["last_decision"].take(),
        serde_json::from_str::<serde_json::Value>(&samples[1].decision()).unwrap()
    );
    assert_eq!(
        summary,
        serde_json::json!({
            "user_id": "u",
            "transactions": 3,
            "total_amount": "1000000000000.2999",
            "average_amount": "333333333333.4333",
            "max_amount": "999999999999.9999",
            "by_status": {"approved": 1, "review": 1, "blocked": 1},
            "by_indicator": {"high_velocity": 1, "high_amount": 2, "geographic_anomaly": 0, "suspicious_pattern": 1, "conflicting_duplicate": 0},
            "highest_score": 90.25,
            "first_event_time": "2026-03-01T00:00:00Z",
            "last_event_time": "2026-03-04T00:00:00Z",
            "last_decision": null,
        })
    );
    let rich = service.get("/v1/users/rich/summary").await;
    assert_eq!(
        (&rich["total_amount"], &rich["average_amount"]),
        (&"1000000000000000".into(), &"1000000000000".into())
    );
    service.problem("/v1/users/nobody/summary", 404).await;
    service.stop().await;
}

async fn statistics_count_what_is_there_also_after_deletions(store: Arc<TestStore>) {
    let service = Service::start(&store).await;
    let mut samples: Vec<Sample> = (0..96).map(|n| Sample::new("u", format!("t{n}"))).collect();
    samples.push(Sample::new("u", "a").alert("review", 40.0, &["high_amount"]));
    samples.push(Sample::new("u", "b").alert(
        "review",
        49.999,
        &["high_amount", "suspicious_pattern", "card_testing"],
    ));
    samples.push(
        Sample::new("u", "c")
            .alert("blocked", 145.0, &["high_velocity", "high_amount"])
            .at("2026-03-05T00:00:00Z"),
    );
    samples.push(
        Sample::new("u", "d")
            .alert("blocked", 1e300, &["high_velocity"])
            .at("2026-02-01T00:00:00Z"),
    );
    service.log.send(samples.iter().map(Sample::decision)).await;
    service.stored(100).await;
    let stats = service.get("/v1/stats").await;
    assert_eq!(
        stats["by_status"],
        serde_json::json!({"approved": 96, "review": 2, "blocked": 2})
    );
    let indicators = serde_json::json!({"high_velocity": 2, "high_amount": 3, "geographic_anomaly": 0, "suspicious_pattern": 1, "conflicting_duplicate": 0, "card_testing": 1});
    assert_eq!(stats["by_indicator"], indicators);
    assert_eq!(stats["alert_share"], 0.04);
    let histogram = stats["score_histogram"].as_array().unwrap();
    assert_eq!(histogram.len(), 15);
    assert_eq!(
        histogram[0],
        serde_json::json!({"from": 0, "to": 10, "decisions": 96})
    );
    assert_eq!(
        histogram[4],
        serde_json::json!({"from": 40, "to": 50, "decisions": 2})
    );
    assert_eq!(
        histogram[14],
        serde_json::json!({"from": 140, "to": null, "decisions": 2})
    );
    assert_eq!(stats["first_event_time"], "2026-02-01T00:00:00Z");
    assert_eq!(stats["last_event_time"], "2026-03-05T00:00:00Z");
    assert_eq!(stats["last_processed_at"], "2026-03-01T12:00:01.000001Z");
    store
        .execute("DELETE FROM fraud_analysis WHERE status = 'blocked' OR transaction_id = 't0'")
        .await;
    let stats = service.get("/v1/stats").await;
    assert_eq!(
        stats["by_status"],
        serde_json::json!({"approved": 95, "review": 2, "blocked": 0})
    );
    assert_eq!(
        (&stats["decisions"], &stats["by_indicator"]["high_velocity"]),
        (&97.into(), &0.into())
    );
    service.stop().await;
}

async fn indicators_that_this_version_does_not_know_are_stored_shown_and_counted(
    store: Arc<TestStore>,
) {
    let service = Service::start(&store).await;
    let few = Sample::new("u", "few").alert("review", 61.5, &["high_amount", "zz_rule", "a_rule"]);
    // More bytes of names than an entry of an index holds.
    let hex = |n: u64| format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let name = |n: u64| (1..5).map(|part| hex(n * 5 + part)).collect::<String>();
    let names: Vec<&'static str> = (0..60).map(|n| &*name(n).leak()).collect();
    let many = Sample::new("u", "many").alert("blocked", 145.0, names.leak());
    let samples = [few, many];
    service.log.send(samples.iter().map(Sample::decision)).await;
    service.stored(2).await;
    for sample in &samples {
        let (status, shown) = service.text(&format!("/v1/decisions/{}", sample.id)).await;
        assert_eq!((status, shown), (200, sample.decision()));
    }
    let stats = service.get("/v1/stats").await;
    assert_eq!(stats["decisions"], 2);
    for name in ["high_amount", "zz_rule", "a_rule", &name(0)] {
        assert_eq!(stats["by_indicator"][name], 1, "{name}");
    }
    store.execute("DELETE FROM fraud_analysis").await;
    let stats = service.get("/v1/stats").await;
    assert_eq!(
        (&stats["decisions"], &stats["by_indicator"]["zz_rule"]),
        (&0.into(), &serde_json::Value::Null)
    );
    service.stop().await;
}

async fn nothing_is_found_in_an_empty_store(store: Arc<TestStore>) {
    let service = Service::start(&store).await;
    assert_eq!(
        service.get("/v1/decisions").await,
        serde_json::json!({"decisions": [], "next": null})
    );
    let stats = service.get("/v1/stats").await;
    assert_eq!(
        (&stats["decisions"], &stats["alert_share"]),
        (&0.into(), &0.0.into())
    );
    assert!(stats["first_event_time"].is_null() && stats["last_processed_at"].is_null());
    service.problem("/v1/decisions/t", 404).await;
    service.stop().await;
}
