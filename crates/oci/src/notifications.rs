//! Oracle's Notifications: `PublishMessage`.
//!
//! The API has no idempotency token, so a message whose answer was lost is sent again: whoever must not tell twice
//! keeps a ledger. Limits: 64 KB a request, 60 messages a minute and topic.

use serde::Serialize;
use serde_json::Value;
use url::Url;

use crate::{Client, OciFailure};

/// Largest request, in bytes: 64 KB in their smaller reading.
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

    /// Publishes a message to a topic, by its OCID. Gives the message's id.
    ///
    /// # Errors
    /// What the service says; after a time-out the message may have been published all the same.
    pub async fn publish(
        &self,
        topic: &str,
        title: &str,
        body: &str,
    ) -> Result<String, OciFailure> {
        let answer = self.0.post(&path(topic), &Message { title, body }).await?;
        // Whatever else answers well, a proxy's page for example, has told nobody.
        let id = answer.get("messageId").and_then(Value::as_str);
        id.map(str::to_owned).ok_or_else(|| {
            OciFailure::Unreachable("the answer is not that of Notifications".to_owned())
        })
    }

    /// Bytes of the request that would publish this.
    #[must_use]
    pub fn request_bytes(title: &str, body: &str) -> usize {
        serde_json::to_vec(&Message { title, body }).map_or(usize::MAX, |bytes| bytes.len())
    }
}

/// The topic is one segment of the path, whatever it holds.
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
