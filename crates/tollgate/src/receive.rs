//! `tollgate receive`: takes the notifier's webhooks and shows them, for trials and tests.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use serde_json::value::RawValue;
use standardwebhooks::{Webhook, WebhookError};
use tollgate_service::Shutdown;
use tollgate_service::http::{HttpConfig, Problem, bind, escaped, require_json};
use tollgate_service::terminal::printable;
use tollgate_types::{Decision, Timestamp};

use crate::commands::{ReceiveArgs, say};

/// Alerts that are kept.
const KEPT: usize = 20_000;
/// Of those on the page.
const SHOWN: usize = 100;

/// An alert that was taken.
#[derive(Debug, Clone, Serialize)]
struct Taken {
    received_at: Timestamp,
    alert: Arc<RawValue>,
}

#[derive(Debug, Serialize)]
struct AlertList {
    /// Since the start, including those that are no longer kept.
    received: usize,
    /// Oldest first.
    alerts: Vec<Taken>,
}

struct Receiver {
    signed_with: Option<Webhook>,
    taken: Mutex<(usize, VecDeque<Taken>)>,
}

impl Receiver {
    fn taken(&self) -> MutexGuard<'_, (usize, VecDeque<Taken>)> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The part of a message that the page shows.
#[derive(serde::Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
}

/// Receives until SIGTERM.
pub(crate) async fn run(args: ReceiveArgs) -> anyhow::Result<()> {
    let signed_with = match args.secret.as_deref().unwrap_or_default() {
        "" if !args.listen.ip().is_loopback() => anyhow::bail!(
            "TOLLGATE_RECEIVE_SECRET: to listen elsewhere than on loopback, set the secret that the sink signs with"
        ),
        "" => None,
        secret => Some(verifier(secret).context(
            "--secret, TOLLGATE_RECEIVE_SECRET: expected whsec_ and the base64 of 24 to 64 random bytes, as in the sink's setting",
        )?),
    };
    let bound = bind("receive.listen", args.listen)
        .await?
        .with(&HttpConfig::default(), signed_with.is_some());
    say(format_args!(
        "alerts: http://{}/ (to be sent to /alerts; signatures are {}checked)\n",
        bound.address(),
        if signed_with.is_some() { "" } else { "not " }
    ))?;
    bound
        .serve(routes(signed_with), Shutdown::on_signal())
        .await
}

/// Verifies signatures with a secret in the notifier's format.
fn verifier(secret: &str) -> Option<Webhook> {
    Webhook::from_bytes(tollgate_notifier::webhook_key(secret)?).ok()
}

fn routes(signed_with: Option<Webhook>) -> Router {
    let receiver = Receiver {
        signed_with,
        taken: Mutex::default(),
    };
    Router::new()
        .route("/", get(page))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/alerts", post(take).get(alerts))
        .with_state(Arc::new(receiver))
}

async fn take(
    State(receiver): State<Arc<Receiver>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    require_json(&headers)?;
    if let Some(signature) = &receiver.signed_with {
        signature.verify(&body, &headers).map_err(|error| {
            let why = match error {
                WebhookError::InvalidSignature => "; the sink signs with another secret",
                _ => "",
            };
            Problem::new(StatusCode::FORBIDDEN, format!("{error}{why}"))
        })?;
    }
    let wrong = |what: String| Problem::new(StatusCode::BAD_REQUEST, what);
    let alert: Box<RawValue> =
        serde_json::from_slice(&body).map_err(|error| wrong(format!("no JSON: {error}")))?;
    let line = line(&alert).ok_or_else(|| wrong("data: no decision".to_owned()))?;
    let taken = Taken {
        received_at: tollgate_service::now(),
        alert: alert.into(),
    };
    {
        let mut all = receiver.taken();
        all.0 += 1;
        all.1.push_back(taken);
        if all.1.len() > KEPT {
            all.1.pop_front();
        }
    }
    // The reader of the lines may have ended; the alert is taken all the same.
    let _ = say(line);
    Ok(StatusCode::NO_CONTENT)
}

/// An alert's columns.
fn columns(alert: &RawValue) -> Option<[String; 6]> {
    let message: Message<'_> = serde_json::from_str(alert.get()).ok()?;
    let decision = Decision::parse(message.data.get().as_bytes()).ok()?;
    let indicators: Vec<&str> = decision
        .fraud_indicators
        .iter()
        .map(tollgate_types::Indicator::name)
        .collect();
    Some([
        decision.status.name().to_owned(),
        decision.fraud_score.to_string(),
        decision.user_id.into_owned(),
        decision.transaction_id.into_owned(),
        decision.processed_at.to_string(),
        indicators.join(" "),
    ])
}

fn line(alert: &RawValue) -> Option<String> {
    let [status, score, user, transaction, at, indicators] = columns(alert)?;
    let (user, transaction) = (printable(&user), printable(&transaction));
    Some(format!(
        "{status} {score} {user} {transaction} {at} {}\n",
        printable(&indicators)
    ))
}

async fn alerts(State(receiver): State<Arc<Receiver>>) -> Response {
    let list = {
        let all = receiver.taken();
        AlertList {
            received: all.0,
            alerts: all.1.iter().cloned().collect(),
        }
    };
    axum::Json(list).into_response()
}

async fn page(State(receiver): State<Arc<Receiver>>) -> Html<String> {
    let (received, newest) = {
        let all = receiver.taken();
        let newest: Vec<Taken> = all.1.iter().rev().take(SHOWN).cloned().collect();
        (all.0, newest)
    };
    let mut page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=2><title>Alerts</title>\
         <style>body{{font:14px system-ui;margin:2em}}td,th{{text-align:left;padding:.2em 1em .2em 0}}.blocked{{color:#b00}}</style>\
         <h1>{received} alerts</h1><p>The last {SHOWN}, newest first. All as JSON: <a href=/alerts>/alerts</a>.</p>\
         <table><tr><th>received<th>status<th>score<th>user<th>transaction<th>decided at<th>indicators"
    );
    for Taken { received_at, alert } in newest {
        let Some(columns) = columns(&alert) else {
            continue;
        };
        let _ = write!(page, "<tr class={}><td>{received_at}", escaped(&columns[0]));
        for column in &columns {
            let _ = write!(page, "<td>{}", escaped(column));
        }
    }
    page.push_str("</table></html>\n");
    Html(page)
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt as _;

    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ALERT: &str = r#"{"type":"fraud.alert","timestamp":"2026-01-01T00:00:00Z","data":{"transaction_id":"t<1>","user_id":"a&b","fraud_score":65.0,"status":"review","fraud_indicators":["high_amount"],"processed_at":"2026-01-01T00:00:00Z","ruleset_version":"1","duplicate":false,"late":false,"transaction":{}}}"#;

    fn signed(body: &str, secret: &str) -> Request<Body> {
        let at = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
        let signature = Webhook::new(secret)
            .unwrap()
            .sign("m1", at, body.as_bytes())
            .unwrap();
        Request::post("/alerts")
            .header("content-type", "application/json")
            .header("webhook-id", "m1")
            .header("webhook-timestamp", at)
            .header("webhook-signature", signature)
            .body(Body::from(body.to_owned()))
            .unwrap()
    }

    async fn text(app: &Router, path: &str) -> String {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = app.clone().oneshot(request).await.unwrap();
        let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[test]
    fn a_weak_secret_is_refused() {
        for weak in ["", "whsec_", "whsec_YQ==", "whsec_%%%", "hunter2"] {
            assert!(verifier(weak).is_none(), "{weak}");
        }
        assert!(verifier(SECRET).is_some());
    }

    #[tokio::test]
    async fn a_signed_alert_is_taken_and_shown_with_its_ids_escaped() {
        let app = routes(Some(Webhook::new(SECRET).unwrap()));
        let answer = app.clone().oneshot(signed(ALERT, SECRET)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        let told: serde_json::Value = serde_json::from_str(&text(&app, "/alerts").await).unwrap();
        assert_eq!(told["received"], 1);
        assert_eq!(told["alerts"][0]["alert"]["data"]["transaction_id"], "t<1>");
        let page = text(&app, "/").await;
        assert!(
            page.contains("t&lt;1&gt;") && page.contains("a&amp;b"),
            "{page}"
        );
        assert!(!page.contains("t<1>"), "{page}");
    }

    #[test]
    fn the_line_of_an_alert_has_no_escape_sequence() {
        let hostile = ALERT.replace("a&b", "ann\\u001b]0;owned\\u0007\\n");
        let line = line(&RawValue::from_string(hostile).unwrap()).unwrap();
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.contains("ann\\u{1b}]0;owned\\u{7}\\n"), "{line}");
    }

    #[tokio::test]
    async fn another_secret_and_a_body_that_is_no_alert_are_refused_and_not_shown() {
        let other = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let app = routes(Some(Webhook::new(SECRET).unwrap()));
        for (request, status) in [
            (signed(ALERT, other), StatusCode::FORBIDDEN),
            (
                Request::post("/alerts")
                    .header("content-type", "application/json")
                    .body(Body::from(ALERT))
                    .unwrap(),
                StatusCode::FORBIDDEN,
            ),
            (signed("{}", SECRET), StatusCode::BAD_REQUEST),
        ] {
            let answer = app.clone().oneshot(request).await.unwrap();
            assert_eq!(answer.status(), status);
        }
        assert!(text(&app, "/alerts").await.starts_with(r#"{"received":0"#));
    }
}
