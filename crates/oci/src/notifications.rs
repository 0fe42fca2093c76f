//! Oracle's Notifications: `PublishMessage`.
//!
//! The API has no idempotency token: a message is published again if its answer was lost. The caller keeps a delivery log.
//! Limits: 64 KB a request, 60 messages a minute and topic.

use serde::Serialize;
use serde_json::Value;
use url::Url;

use crate::{Client, OciFailure};

/// Largest request, in bytes: 64 KB of 1,000 bytes.
pub const MAX_REQUEST_BYTES: usize = 64_000;

/// Publishes to topics.
#[derive(Debug)]
pub struct Notifications(Client);

/// <https://docs.oracle.com/iaas/api/#/en/notification/20181201/NotificationTopic/PublishMessage>
#[derive(Serialize)]
struct Message<'a> {
    title: &'a str,
    body: &'a str,
}

impl Notifications {
    pub(crate) const fn new(client: Client) -> Self {
        Self(client)
    }

    /// Publishes a message to the topic with this OCID. Returns the id of the message.
    ///
    /// # Errors
    /// The error of the service. After a timeout the message may have been published.
    pub async fn publish(
        &self,
        topic: &str,
        title: &str,
        body: &str,
    ) -> Result<String, OciFailure> {
        let answer = self.0.post(&path(topic), &Message { title, body }).await?;
        // Another answer with 2xx, such as the page of a proxy, has published nothing.
        let id = answer.get("messageId").and_then(Value::as_str);
        id.map(str::to_owned).ok_or_else(|| {
            OciFailure::Unreachable("the answer is not that of Notifications".to_owned())
        })
    }

    /// The length of the request that would publish this, in bytes.
    #[must_use]
    pub fn request_bytes(title: &str, body: &str) -> usize {
        serde_json::to_vec(&Message { title, body }).map_or(usize::MAX, |bytes| bytes.len())
    }
}

/// The path, with the topic as one segment.
fn path(topic: &str) -> String {
    let mut url = Url::parse("https://host").ok();
    if let Some(mut segments) = url.as_mut().and_then(|url| url.path_segments_mut().ok()) {
        segments.extend(["20181201", "topics", topic, "messages"]);
    }
    url.map(|url| url.path().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_one_segment_of_the_path() {
        assert_eq!(
            path("ocid1.onstopic.oc1.fra.x"),
            "/20181201/topics/ocid1.onstopic.oc1.fra.x/messages"
        );
        assert_eq!(path("a/b?c"), "/20181201/topics/a%2Fb%3Fc/messages");
    }

    #[test]
    fn the_size_counts_what_json_escapes() {
        let plain = Notifications::request_bytes("t", "xx");
        assert_eq!(Notifications::request_bytes("t", "\"\"") - plain, 2);
    }
}
