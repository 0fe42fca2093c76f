//! `PublishMessage` of Notifications: `POST /20181201/topics/{topicId}/messages`.
//!
//! Limits: 64 KB a request, 60 messages a minute and topic
//! (<https://docs.oracle.com/iaas/Content/Notification/Tasks/publishingmessages.htm>).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::answer::{
    cannot_parse, invalid_parameter, missing_parameter, not_found, not_json, too_large,
    too_many_requests,
};
use super::clock::{Window, as_rfc3339, rfc3339};
use super::core::Core;
use super::keys;
use super::store::{Kept, lock};

const MAX_REQUEST: usize = 64 * 1024;

/// A message that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// OCID of its topic.
    pub topic: String,
    /// Subject of an e-mail; Slack, SMS and HTTPS subscriptions do not show it.
    pub title: Option<String>,
    /// Text, or JSON as text.
    pub body: String,
    /// The id that it was given.
    pub message_id: String,
    /// When it was accepted.
    #[serde(serialize_with = "as_rfc3339")]
    pub at: DateTime<Utc>,
}

/// What was published, and how much of the limit is used.
#[derive(Debug, Default)]
pub(super) struct Notifications {
    windows: Mutex<HashMap<String, Window>>,
    messages: Mutex<Kept<Message>>,
}

impl Notifications {
    /// The latest 10,000, oldest first.
    pub(super) fn messages(&self) -> Vec<Message> {
        lock(&self.messages).all()
    }

    fn admit(&self, topic: &str, now: DateTime<Utc>, limit: u32) -> bool {
        let mut windows = lock(&self.windows);
        let window = windows.entry(topic.to_owned());
        let window = window.or_insert_with(|| Window::new(TimeDelta::minutes(1)));
        window.admit(now, usize::try_from(limit).unwrap_or(usize::MAX))
    }
}

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new().route("/20181201/topics/{topic}/messages", post(publish))
}

#[derive(Deserialize)]
struct Details {
    title: Option<String>,
    body: Option<String>,
}

async fn publish(
    State(core): State<Arc<Core>>,
    Path(topic): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let topics = &core.config.topics;
    if !topics.is_empty() && !topics.contains(&topic) {
        return not_found(&format!("topic {topic}"));
    }
    let (title, body) = match read(&headers, &body) {
        Ok(message) => message,
        Err(refusal) => return *refusal,
    };
    let now = core.clock.now();
    let limit = core.config.notifications_per_minute;
    if !core.notifications.admit(&topic, now, limit) {
        return too_many_requests(&format!("more than {limit} messages a minute to {topic}"));
    }
    let message = Message {
        topic,
        title,
        body,
        message_id: keys::random_id(),
        at: now,
    };
    let result = json!({ "messageId": message.message_id, "timeStamp": rfc3339(now) });
    lock(&core.notifications.messages).push(message);
    // Accepted, not delivered. That the status is 202 is not documented; clients take any of 2xx.
    (StatusCode::ACCEPTED, Json(result)).into_response()
}

/// Title and body of a message.
fn read(headers: &HeaderMap, body: &Bytes) -> Result<(Option<String>, String), Box<Response>> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    // Of the codes that all services share, this is the one for a request too large; LimitExceeded is for resources.
    if body.len() > MAX_REQUEST {
        let message = format!("body: {} bytes, {MAX_REQUEST} are allowed", body.len());
        return Err(Box::new(too_large(&message)));
    }
    let content_type = header("content-type").unwrap_or_default();
    if content_type.split(';').next().map(str::trim) != Some("application/json") {
        return Err(Box::new(not_json(content_type)));
    }
    let details = serde_json::from_slice::<Details>(body)
        .map_err(|error| cannot_parse(&format!("body: {error}")))?;
    let text = details.body.ok_or_else(|| missing_parameter("body"))?;
    if text.is_empty() {
        return Err(Box::new(invalid_parameter("body: empty")));
    }
    // Deprecated, but still kept to.
    match header("messagetype") {
        None | Some("RAW_TEXT") => {}
        Some("JSON") => {
            let texts = serde_json::from_str::<Value>(&text).unwrap_or_default();
            if texts.get("default").is_none() {
                let message = "body: a message of type JSON is an object with `default`";
                return Err(Box::new(invalid_parameter(message)));
            }
        }
        Some(other) => {
            let message = format!("messageType: {other:?}, not RAW_TEXT or JSON");
            return Err(Box::new(invalid_parameter(&message)));
        }
    }
    Ok((details.title, text))
}
