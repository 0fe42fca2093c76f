//! Callers that wait for decisions.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tollgate_log::{Acks, ProducerRecord};
use tollgate_types::{ReplyAddress, headers};

use crate::support::{
    Answer, JSON, NDJSON, Reader, Record, Scorer, Service, eventually, signed, start, start_on,
    transaction,
};

fn decision(record: &Record) -> String {
    let transaction: Value = serde_json::from_str(&record.payload).unwrap();
    let (id, user) = (&transaction["transaction_id"], &transaction["user_id"]);
    // 1.50 and the spaces would not survive being parsed.
    format!(r#"{{"transaction_id":{id}, "user_id":{user}, "fraud_score":1.50}}"#)
}

fn decided(id: &str, user: &str) -> String {
    format!(r#"{{"transaction_id":"{id}", "user_id":"{user}", "fraud_score":1.50}}"#)
}

async fn wait(service: &Service, preference: &str, content_type: &str, body: String) -> Answer {
    let request = service
        .post(content_type, body)
        .header("prefer", preference);
    Answer::of(request.send().await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_are_answered_in_the_order_of_the_items_and_as_they_were_written() {
    let service = start(|_| ()).await;
    let _scorer = Scorer::start(&service.kafka, |record| vec![decision(record)]);
    let users: Vec<String> = (0..30).map(|n| format!("u{n}")).collect();
    let lines: Vec<String> = users.iter().map(|user| transaction("t", user)).collect();
    let answer = wait(&service, "wait=20", NDJSON, lines.join("\n")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("preference-applied"), Some("wait=20"));
    let expected: Vec<String> = users.iter().map(|user| decided("t", user)).collect();
    assert_eq!(
        answer.text,
        format!("{{\"decisions\":[{}],\"late\":0}}", expected.join(","))
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_items_are_listed_beside_the_decisions() {
    let service = start(|_| ()).await;
    let _scorer = Scorer::start(&service.kafka, |record| vec![decision(record)]);
    let body = format!(
        "[{}, {{}}, {}]",
        transaction("a", "u"),
        transaction("b", "u")
    );
    let answer = wait(&service, "wait=20", JSON, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let ids: Vec<&Value> = answer.body["decisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|decision| &decision["transaction_id"])
        .collect();
    assert_eq!(ids, ["a", "b"]);
    let expected = json!([{"index": 1, "transaction_id": null, "status": "rejected", "field": "transaction_id", "reason": "is missing"}]);
    assert_eq!(answer.body["results"], expected);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_wait_times_out_the_answer_is_202_with_the_decisions_that_arrived() {
    let service = start(|_| ()).await;
    let _scorer = Scorer::start(&service.kafka, |record| match record.key.as_str() {
        "quick" => vec![decision(record)],
        _ => vec![],
    });
    let body = format!(
        "[{}, {}]",
        transaction("a", "slow"),
        transaction("b", "quick")
    );
    let answer = wait(&service, "wait=1.5", JSON, body).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(answer.header("preference-applied"), Some("wait=1.5"));
    assert_eq!(answer.body["accepted"], 2);
    assert_eq!(answer.body["results"].as_array().unwrap().len(), 2);
    let decisions = answer.body["decisions"].as_array().unwrap();
    assert_eq!(decisions.len(), 1);
    assert_eq!(decisions[0]["transaction_id"], "b");
    let answer = wait(&service, "wait=0", JSON, transaction("c", "slow")).await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.body["decisions"], json!([]));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_transaction_twice_in_a_request_gets_two_decisions() {
    let service = start(|_| ()).await;
    let mut seen = 0;
    let _scorer = Scorer::start(&service.kafka, move |record| {
        seen += 1;
        vec![decision(record).replace("1.50", &seen.to_string())]
    });
    let body = format!("[{0},{0}]", transaction("t", "u"));
    let answer = wait(&service, "wait=20", JSON, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.body["decisions"][0]["fraud_score"], 1);
    assert_eq!(answer.body["decisions"][1]["fraud_score"], 2);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_replies_and_replies_without_a_waiter_are_ignored() {
    let service = start(|_| ()).await;
    let _scorer = Scorer::start(&service.kafka, |record| {
        vec![
            String::new(),
            "nonsense".to_owned(),
            "{\"user_id\":1}".to_owned(),
            decided("t", "somebody-else"),
            decision(record),
            decision(record),
        ]
    });
    for id in ["a", "b"] {
        let answer = wait(&service, "wait=20", JSON, transaction(id, "u")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.body["decisions"][0]["transaction_id"], id);
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_reply_is_requested_without_a_valid_preference() {
    let service = start(|_| ()).await;
    for preference in ["respond-async", "return=minimal, waits=1", "x; wait=1"] {
        let answer = wait(&service, preference, JSON, transaction("t", "u")).await;
        assert_eq!(answer.status, 202);
        assert_eq!(answer.header("preference-applied"), None);
        assert!(answer.body.get("decisions").is_none());
    }
    // One that is no number of seconds is refused, and nothing is written.
    for preference in ["wait", "wait=-1", "wait=soon"] {
        let answer = wait(&service, preference, JSON, transaction("t", "u")).await;
        answer.is_problem(400);
        assert!(answer.text.contains("number of seconds"), "{}", answer.text);
    }
    let records = service.records(3);
    assert!(records.iter().all(|record| record.headers.is_empty()));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_of_more_than_thirty_seconds_is_granted_as_thirty() {
    let service = start(|_| ()).await;
    let _scorer = Scorer::start(&service.kafka, |record| vec![decision(record)]);
    let answer = wait(&service, "wait=9999", JSON, transaction("t", "u")).await;
    assert_eq!(
        (answer.status, answer.header("preference-applied")),
        (200, Some("wait=30"))
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_disconnects_does_not_take_the_decision_of_the_next_one() {
    let service = start(|config| config.max_in_flight = 1).await;
    let request = service.post(JSON, transaction("t", "u"));
    let request = request
        .header("prefer", "wait=30")
        .timeout(Duration::from_millis(500));
    assert!(request.send().await.unwrap_err().is_timeout());
    assert_eq!(service.records(1)[0].key, "u");
    let mut records = 0;
    let _scorer = Scorer::start(&service.kafka, move |record| {
        records += 1;
        if records == 1 {
            vec![]
        } else {
            vec![decision(record)]
        }
    });
    // While the first request holds its permit, others are rejected.
    let mut answer = None;
    eventually("the first has left", async || {
        let next = wait(&service, "wait=20", JSON, transaction("t", "u")).await;
        answer.insert(next).status != 503
    })
    .await;
    assert_eq!(answer.unwrap().status, 200);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_cannot_be_decided_has_an_error_in_the_place_of_its_decision() {
    let service = start(|_| ()).await;
    let error = |id: &str| json!({"transaction_id": id, "user_id": "u", "status": "error", "kind": "too_large", "reason": "is larger than 9 bytes"});
    let _scorer = Scorer::start(&service.kafka, move |record| {
        let transaction: Value = serde_json::from_str(&record.payload).unwrap();
        match transaction["transaction_id"].as_str().unwrap() {
            "b" => vec![error("b").to_string()],
            "late" => vec![],
            _ => vec![decision(record)],
        }
    });
    let three = format!(
        "[{}, {}, {}]",
        transaction("a", "u"),
        transaction("b", "u"),
        transaction("c", "u")
    );
    let answer = wait(&service, "wait=20", JSON, three).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let decisions = answer.body["decisions"].as_array().unwrap();
    assert_eq!(decisions.len(), 3);
    assert_eq!(decisions[1], error("b"));
    assert_eq!(decisions[2]["transaction_id"], "c");
    assert_eq!(answer.body["undecided"], 1);
    let two = format!("[{}, {}]", transaction("b", "u"), transaction("late", "u"));
    let answer = wait(&service, "wait=0.5", JSON, two).await;
    assert_eq!((answer.status, &answer.body["undecided"]), (202, &json!(2)));
    let message = json!({"messages": [{"value": transaction("b", "u")}]});
    let request = service
        .client
        .post(format!("{}/v1/functions/streaming", service.url));
    let answer = Answer::of(request.json(&message).send().await.unwrap()).await;
    let expected =
        json!([{"transaction_id": "b", "status": "error", "error": "is larger than 9 bytes"}]);
    assert_eq!(answer.body["results"], expected);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_ten_thousand_items_with_one_id_costs_no_more_than_one_with_distinct_ids() {
    let service = start(|_| ()).await;
    let _scorer = Scorer::start(&service.kafka, |record| vec![decision(record)]);
    let mut took = Vec::new();
    for same in [false, true] {
        let id = |n: usize| if same { "t".to_owned() } else { n.to_string() };
        let lines: Vec<String> = (0..10_000).map(|n| transaction(&id(n), "u")).collect();
        let begun = Instant::now();
        let answer = wait(&service, "wait=20", NDJSON, lines.join("\n")).await;
        took.push(begun.elapsed());
        assert_eq!(answer.status, 200);
        let undecided = if same { json!(9_900) } else { Value::Null };
        assert_eq!(answer.body["undecided"], undecided);
        assert_eq!(answer.body["decisions"].as_array().unwrap().len(), 10_000);
    }
    // It was twelve times as long, quadratic in the items, with all other requests behind one lock.
    assert!(
        took[1] < took[0] * 3 + Duration::from_millis(500),
        "{took:?}"
    );
    let waiting = service.records(10_000 + 100);
    let waiting = waiting
        .iter()
        .filter(|record| record.header("reply-to").is_some());
    assert_eq!(waiting.count(), 10_100);
    service.stop().await;
}

/// Writes a reply to a partition of `replies`, as anybody can who reaches the topic.
fn forge(service: &Service, partition: i32, reply_to: Option<&str>, reply: &str) {
    let producer = service.kafka.producer("attacker").unwrap();
    let header = reply_to.map(|address| (headers::REPLY_TO, Some(address.as_bytes())));
    let record = ProducerRecord {
        partition: Some(partition),
        headers: header.as_slice(),
        ..ProducerRecord::new(&service.kafka.topics().replies, b"u", reply.as_bytes())
    };
    let acks = Acks::new(|result| result.unwrap());
    producer.send(&record, &acks).unwrap();
    acks.seal();
}

#[tokio::test(flavor = "multi_thread")]
async fn flooded_replies_that_guess_ids_and_partitions_approve_nothing() {
    let service = start(|_| ()).await;
    let approved = r#"{"transaction_id":"t","user_id":"u","status":"approved"}"#;
    const GUESS: &str = "0:00000000000000000000000000000000";
    let flooded = |record: &Record| {
        let nonce = record.header("reply-to").unwrap().to_owned();
        assert_ne!(nonce, GUESS);
        vec![decision(record)]
    };
    for partition in 0..3 {
        for _ in 0..50 {
            forge(&service, partition, None, approved);
            forge(&service, partition, Some(GUESS), approved);
            forge(&service, partition, Some(&partition.to_string()), approved);
        }
    }
    let attacked = async {
        // Until the caller has its answer, of which none is forged.
        loop {
            for partition in 0..3 {
                forge(&service, partition, Some(GUESS), approved);
            }
            tokio::task::yield_now().await;
        }
    };
    let caller = async {
        let scorer = Scorer::start(&service.kafka, flooded);
        let answer = wait(&service, "wait=20", JSON, transaction("t", "u")).await;
        drop(scorer);
        answer
    };
    let answer = tokio::select! {
        answer = caller => answer,
        () = attacked => unreachable!(),
    };
    assert_eq!(
        answer.text,
        format!("{{\"decisions\":[{}],\"late\":0}}", decided("t", "u"))
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_the_nonce_and_has_no_key_cannot_answer() {
    let service = start_on(signed(), |_| ()).await;
    let topic = service.kafka.topics().transactions.clone();
    let mut records = Reader::new(&service.kafka, &topic);
    let answer = async { wait(&service, "wait=1", JSON, transaction("t", "u")).await };
    let attack = async {
        let record = tokio::task::spawn_blocking(move || {
            loop {
                if let Some(record) = records.next() {
                    break record;
                }
            }
        });
        let record = record.await.unwrap();
        let address = record.header("reply-to").unwrap();
        let partition = ReplyAddress::parse(address.as_bytes()).unwrap().partition;
        let approved = r#"{"transaction_id":"t","user_id":"u","status":"approved"}"#;
        forge(&service, partition, Some(address), approved);
    };
    let (answer, ()) = tokio::join!(answer, attack);
    assert_eq!(answer.status, 202, "{}", answer.text);
    // With the key it is answered.
    let _scorer = Scorer::start(&service.kafka, |record| vec![decision(record)]);
    let answer = wait(&service, "wait=20", JSON, transaction("t2", "u")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    service.stop().await;
}
