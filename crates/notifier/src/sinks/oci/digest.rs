//! Title and body of a message. For one alert, the alert as JSON (`ListedAlert`); for many, their number, the most
//! severe of them, blocked before review, as far as they fit into a message, and links to the read API for all. Pure.

use std::cmp::Reverse;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tollgate_oci::{MAX_REQUEST_BYTES, Notifications};
use tollgate_types::{Amount, Decision, Status, Timestamp};

use crate::alert::Alert;

/// An alert in a message.
#[derive(Serialize)]
struct ListedAlert<'a> {
    alert_type: &'static str,
    transaction_id: &'a str,
    user_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    tenant: &'a str,
    fraud_score: f64,
    status: Status,
    /// Every digit of it, as a number.
    amount: Option<Box<RawValue>>,
    indicators: &'a tollgate_types::Indicators,
    timestamp: Timestamp,
}

impl<'a> ListedAlert<'a> {
    fn of(alert: &'a Alert) -> Self {
        let amount = amount(alert);
        Self {
            alert_type: "fraud_detection",
            transaction_id: &alert.key.transaction_id,
            user_id: &alert.key.user_id,
            tenant: &alert.key.tenant,
            fraud_score: alert.fraud_score,
            status: alert.status,
            amount: amount.and_then(|text| RawValue::from_string(text).ok()),
            indicators: &alert.fraud_indicators,
            timestamp: alert.processed_at,
        }
    }
}

/// The amount of the alert's transaction, if the sink gets it: it may be the only member that is left of the transaction.
fn amount(alert: &Alert) -> Option<String> {
    #[derive(Deserialize)]
    struct Paid<'a> {
        #[serde(borrow)]
        amount: &'a RawValue,
    }
    let decision = Decision::parse(alert.json.as_bytes()).ok()?;
    let paid: Paid<'_> = serde_json::from_str(decision.transaction.get()).ok()?;
    let amount = match serde_json::from_str::<String>(paid.amount.get()) {
        Ok(text) => Amount::parse_decimal(&text),
        Err(_) => Amount::parse_number(paid.amount.get()),
    };
    amount.ok().map(|amount| amount.to_string())
}

#[derive(Serialize)]
struct Digest<'a> {
    alert_type: &'static str,
    alerts: usize,
    blocked: usize,
    review: usize,
    worst: &'a [ListedAlert<'a>],
    not_listed: usize,
    /// Where all of them can be read.
    decisions: Vec<String>,
}

/// Title and body of the message for one alert.
pub(super) fn single(alert: &Alert) -> (String, String) {
    let title = format!("Fraud Alert - {}", alert.status.name().to_uppercase());
    (title, json(&ListedAlert::of(alert)))
}

/// Title and body of the message for many.
pub(super) fn of(alerts: &[Arc<Alert>], decisions_url: &str) -> (String, String) {
    let count = |status| alerts.iter().filter(|alert| alert.status == status).count();
    let (blocked, review) = (count(Status::Blocked), count(Status::Review));
    let title = format!("Fraud Alerts - {blocked} BLOCKED, {review} REVIEW");
    let mut ordered: Vec<&Alert> = alerts.iter().map(|alert| &**alert).collect();
    ordered.sort_by(|a, b| {
        let rank = |alert: &Alert| Reverse(alert.status == Status::Blocked);
        rank(a)
            .cmp(&rank(b))
            .then(b.fraud_score.total_cmp(&a.fraud_score))
            .then(a.processed_at.cmp(&b.processed_at))
    });
    let alerts_by_severity: Vec<ListedAlert<'_>> =
        ordered.into_iter().map(ListedAlert::of).collect();
    let decisions = pointers(alerts, decisions_url, blocked, review);
    let body = |listed: usize| {
        json(&Digest {
            alert_type: "fraud_detection_digest",
            alerts: alerts.len(),
            blocked,
            review,
            worst: &alerts_by_severity[..listed],
            not_listed: alerts_by_severity.len() - listed,
            decisions: decisions.clone(),
        })
    };
    let fits =
        |listed: usize| Notifications::request_bytes(&title, &body(listed)) <= MAX_REQUEST_BYTES;
    // The largest number that fits; none of them always does.
    let (mut listed, mut too_many) = (0, alerts_by_severity.len() + 1);
    while too_many - listed > 1 {
        let middle = usize::midpoint(listed, too_many);
        if fits(middle) {
            listed = middle;
        } else {
            too_many = middle;
        }
    }
    let body = body(listed);
    (title, body)
}

/// Questions to the read API, which counts in the transactions' own time, for those that are there.
fn pointers(
    alerts: &[Arc<Alert>],
    decisions_url: &str,
    blocked: usize,
    review: usize,
) -> Vec<String> {
    let times = alerts.iter().map(|alert| alert.event_time);
    let span = times.fold(None, |span: Option<(Timestamp, Timestamp)>, time| {
        Some(span.map_or((time, time), |(from, to)| (from.min(time), to.max(time))))
    });
    let Some((from, last)) = span else {
        return Vec::new();
    };
    // The end of the span is no part of it.
    let to = Timestamp::from_micros(last.micros().saturating_add(1)).unwrap_or(last);
    [(Status::Blocked, blocked), (Status::Review, review)]
        .into_iter()
        .filter(|(_, number)| *number > 0)
        .map(|(status, _)| {
            let status = status.name();
            format!("{decisions_url}/v1/decisions?status={status}&from={from}&to={to}")
        })
        .collect()
}

fn json(message: &impl Serialize) -> String {
    // Maps with keys that are no text are all that could fail.
    serde_json::to_string(message).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;
    use tollgate_types::{Indicator, Indicators};

    use super::*;
    use crate::alert::AlertKey;

    fn alert(id: &str, status: Status, score: f64, second: i64) -> Arc<Alert> {
        let time = Timestamp::from_micros(1_770_000_000_000_000 + second * 1_000_000).unwrap();
        let status_name = status.name();
        let json = serde_json::json!({
            "transaction_id": id, "user_id": "u\"1", "fraud_score": score, "fraud_indicators": [], "status": status_name,
            "processed_at": time.to_string(), "contributions": [], "ruleset_version": "r", "late": false, "duplicate": false,
            "transaction": {"transaction_id": id, "user_id": "u\"1", "amount": "1250.50", "timestamp": time.to_string()},
        });
        Arc::new(Alert {
            key: AlertKey {
                user_id: "u\"1".to_owned(),
                transaction_id: id.to_owned(),
                ..AlertKey::default()
            },
            status,
            fraud_score: score,
            fraud_indicators: Indicators::from_iter(Indicator::intern("card_testing")),
            processed_at: time,
            json: json.to_string().into(),
            event_time: time,
            trace: None,
        })
    }

    #[test]
    fn the_amount_is_told_where_it_is_the_only_member_that_the_sink_gets_and_not_where_it_is_none()
    {
        let mut all = Alert::clone(&alert("t1", Status::Blocked, 82.5, 0));
        for (transaction, expected) in [
            (r#"{"amount":1250.5}"#, Some("1250.50")),
            (r#"{"amount":"1250.5"}"#, Some("1250.50")),
            ("{}", None),
        ] {
            let mut json: Value = serde_json::from_str(&all.json).unwrap();
            json["transaction"] = serde_json::from_str(transaction).unwrap();
            all.json = json.to_string().into();
            let written = amount(&all);
            assert_eq!(
                written.map(|text| text.parse::<f64>().unwrap()),
                expected.map(|text| text.parse::<f64>().unwrap())
            );
        }
    }

    #[test]
    fn one_alert_is_told_with_the_members_of_the_reference() {
        let (title, body) = single(&alert("t1", Status::Blocked, 82.5, 0));
        assert_eq!(title, "Fraud Alert - BLOCKED");
        let body: Value = serde_json::from_str(&body).unwrap();
        let expected = serde_json::json!({
            "alert_type": "fraud_detection", "transaction_id": "t1", "user_id": "u\"1", "fraud_score": 82.5,
            "status": "blocked", "amount": 1250.50, "indicators": ["card_testing"], "timestamp": "2026-02-02T02:40:00Z",
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn a_digest_counts_lists_the_worst_first_and_points_to_all() {
        let alerts = [
            alert("a", Status::Review, 69.0, 5),
            alert("b", Status::Blocked, 70.0, 9),
            alert("c", Status::Blocked, 99.0, 0),
        ];
        let (title, body) = of(&alerts, "https://t.example");
        assert_eq!(title, "Fraud Alerts - 2 BLOCKED, 1 REVIEW");
        let body: Value = serde_json::from_str(&body).unwrap();
        let listed: Vec<&str> = body["worst"]
            .as_array()
            .unwrap()
            .iter()
            .map(|alert| alert["transaction_id"].as_str().unwrap())
            .collect();
        assert_eq!(listed, ["c", "b", "a"]);
        assert_eq!(
            (&body["alerts"], &body["not_listed"]),
            (&3.into(), &0.into())
        );
        assert_eq!(
            body["decisions"][0],
            "https://t.example/v1/decisions?status=blocked&from=2026-02-02T02:40:00Z&to=2026-02-02T02:40:09.000001Z"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]
        #[test]
        fn a_digest_fits_into_a_request_and_loses_no_count(number in 2_usize..1_000, length in 1_usize..128) {
            let alerts: Vec<Arc<Alert>> = (0..number)
                .map(|index| {
                    let status = if index % 3 == 0 { Status::Blocked } else { Status::Review };
                    let score = f64::from(u32::try_from(index).unwrap() % 97);
                    alert(&format!("{index}{}", "\"".repeat(length)), status, score, 0)
                })
                .collect();
            let (title, text) = of(&alerts, "");
            prop_assert!(Notifications::request_bytes(&title, &text) <= MAX_REQUEST_BYTES);
            let body: Value = serde_json::from_str(&text).unwrap();
            let listed = body["worst"].as_array().unwrap().len();
            let full = Notifications::request_bytes(&title, &text) > MAX_REQUEST_BYTES - 2_000;
            prop_assert!(full || listed == number);
            prop_assert_eq!(listed as u64 + body["not_listed"].as_u64().unwrap(), number as u64);
            prop_assert_eq!(body["blocked"].as_u64().unwrap() + body["review"].as_u64().unwrap(), number as u64);
        }
    }
}
