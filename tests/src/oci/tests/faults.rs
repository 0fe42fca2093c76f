//! What goes wrong on demand.

use std::time::Duration;

use super::{TOPIC, started};
use crate::oci::{Config, Service, StandIn};
use crate::wait;

const BODY: &str = r#"{"body":"alert"}"#;

#[tokio::test]
async fn planned_answers_are_given_in_order_and_have_no_effect() {
    let (stand_in, client) = started(Config::default()).await;
    let faults = stand_in.faults();
    faults.answer_next(Service::Notifications, 2, 429, "TooManyRequests", Some(7));
    faults.answer_next(Service::Notifications, 1, 503, "ServiceUnavailable", None);
    faults.answer_next(Service::Monitoring, 1, 500, "InternalServerError", None);
    let draft = client.post(TOPIC, BODY);
    for _ in 0..2 {
        let answer = draft.send().await.unwrap();
        assert_eq!(answer.refusal(), (429, "TooManyRequests".to_owned()));
        assert_eq!(answer.header("retry-after"), Some("7"));
    }
    let answer = draft.send().await.unwrap();
    assert_eq!(answer.refusal(), (503, "ServiceUnavailable".to_owned()));
    assert_eq!(answer.header("retry-after"), None);
    assert_eq!(stand_in.messages(), []);
    assert_eq!(draft.send().await.unwrap().status, 202);
    let received = stand_in.received(Service::Notifications);
    let statuses: Vec<_> = received.iter().map(|one| one.status.unwrap()).collect();
    assert_eq!(statuses, [429, 429, 503, 202]);
}

#[tokio::test]
async fn a_plan_waits_for_a_request_that_is_signed_well() {
    let (stand_in, client) = started(Config::default()).await;
    stand_in
        .faults()
        .answer_next(Service::Notifications, 1, 500, "InternalServerError", None);
    let good = client.post(TOPIC, BODY);
    let bad = good.clone().header("date", "now");
    assert_eq!(bad.send().await.unwrap().status, 401);
    assert_eq!(good.send().await.unwrap().status, 500);
}

#[tokio::test]
async fn plans_that_are_cleared_come_to_nothing() {
    let (stand_in, client) = started(Config::default()).await;
    stand_in
        .faults()
        .answer_next(Service::Notifications, 9, 500, "InternalServerError", None);
    stand_in.faults().clear(Service::Notifications);
    assert_eq!(client.post(TOPIC, BODY).send().await.unwrap().status, 202);
}

#[tokio::test]
async fn a_dropped_request_has_its_effect_and_no_answer() {
    let (stand_in, client) = started(Config::default()).await;
    stand_in.faults().drop_next(Service::Notifications, 1);
    let draft = client.post(TOPIC, BODY);
    assert!(draft.send().await.is_none());
    assert_eq!(stand_in.messages().len(), 1);
    assert_eq!(stand_in.received(Service::Notifications)[0].status, None);
    assert_eq!(draft.send().await.unwrap().status, 202);
    assert_eq!(stand_in.messages().len(), 2);
}

async fn arrived(stand_in: &StandIn) {
    let limit = Duration::from_secs(10);
    wait::until(limit, "the request", async || {
        let received = stand_in.received(Service::Notifications);
        Ok((!received.is_empty()).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_hanging_request_is_seen_but_never_answered() {
    let (stand_in, client) = started(Config::default()).await;
    stand_in.faults().hang_next(Service::Notifications, 1);
    let draft = client.post(TOPIC, BODY);
    let hanging = {
        let draft = draft.clone();
        tokio::spawn(async move { draft.send().await })
    };
    arrived(&stand_in).await;
    assert_eq!(
        draft.send().await.unwrap().status,
        202,
        "others are answered meanwhile"
    );
    assert!(!hanging.is_finished());
    let received = stand_in.received(Service::Notifications);
    assert_eq!(received[0].status, None);
    assert_eq!(stand_in.messages().len(), 1);
    hanging.abort();
}

#[tokio::test]
async fn dropping_the_stand_in_ends_its_connections() {
    let (stand_in, client) = started(Config::default()).await;
    stand_in.faults().hang_next(Service::Notifications, 1);
    let draft = client.post(TOPIC, BODY);
    let hanging = tokio::spawn(async move { draft.send().await });
    arrived(&stand_in).await;
    drop(stand_in);
    assert!(hanging.await.unwrap().is_none());
    assert!(tokio::net::TcpStream::connect(client.host).await.is_err());
}
