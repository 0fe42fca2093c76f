//! `GET /`: the latest messages, for a person.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Html;
use axum::routing::get;
use serde_json::Value;
use tollgate_service::http::escaped;

use super::clock::rfc3339;
use super::core::Core;
use super::notifications::Message;

const SHOWN: usize = 50;

const HEAD: &str = r#"<!doctype html>
<html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="5">
<meta name="viewport" content="width=device-width"><title>Alerts</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
article { border-top: 1px solid #ccc; padding: .75rem 0 } h2 { font-size: 1rem; margin: 0 }
small { color: #666 } pre { margin: .5rem 0 0; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem }
</style>
"#;

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new().route("/", get(page))
}

async fn page(State(core): State<Arc<Core>>) -> Html<String> {
    Html(render(&core.notifications.messages()))
}

fn render(messages: &[Message]) -> String {
    let mut page = format!(
        "{HEAD}<h1>Alerts</h1>\n<p>{} in all, newest first.</p>\n",
        messages.len()
    );
    for message in messages.iter().rev().take(SHOWN) {
        let title = message.title.as_deref().unwrap_or("(no title)");
        // Writing to a string does not fail.
        let _ = writeln!(
            page,
            "<article><h2>{}</h2><small>{} · {}</small><pre>{}</pre></article>",
            escaped(title),
            rfc3339(message.at),
            escaped(&message.topic),
            escaped(&readable(&message.body)),
        );
    }
    page
}

/// JSON on several lines; anything else as it is.
fn readable(body: &str) -> String {
    let value = serde_json::from_str::<Value>(body).ok();
    let pretty = value.and_then(|value| serde_json::to_string_pretty(&value).ok());
    pretty.unwrap_or_else(|| body.to_owned())
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};

    use super::render;
    use crate::oci::Message;

    #[test]
    fn a_message_is_shown_as_text_and_never_as_markup() {
        let message = Message {
            topic: "ocid1.onstopic.oc1..t".to_owned(),
            title: Some("<script>alert(1)</script>".to_owned()),
            body: r#"{"score":0.97}"#.to_owned(),
            message_id: String::new(),
            at: DateTime::<Utc>::UNIX_EPOCH,
        };
        let page = render(&[message]);
        assert!(!page.contains("<script>"));
        assert!(page.contains("&lt;script&gt;alert(1)"));
        assert!(page.contains("{\n  &quot;score&quot;: 0.97\n}"));
    }
}
