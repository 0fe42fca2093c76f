//! What is on the topic `replies`: for a transaction for which a caller waits, its decision, or why there is none.

use std::borrow::Cow;

use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The answer to a caller whose transaction was not decided.
///
/// It is no approval. The caller sends the transaction again with the same id, or holds the payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply<'a> {
    /// The transaction's id; empty where it could not be read.
    #[serde(borrow)]
    pub transaction_id: Cow<'a, str>,
    /// The key of the record, under which the caller waits.
    #[serde(borrow)]
    pub user_id: Cow<'a, str>,
    /// The user's tenant; absent for the default tenant.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Cow<'a, str>>,
    /// Always `error`, where a decision has `approved`, `review` or `blocked`.
    pub status: ErrorStatus,
    /// Class of the failure, a short stable word such as `too_large`: that of the dead letter, where there is one.
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    /// The member at fault, if it is one.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub field: Option<Cow<'a, str>>,
    /// What was wrong, for a person. It quotes no value.
    #[serde(borrow)]
    pub reason: Cow<'a, str>,
}

/// The status of an [`ErrorReply`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorStatus {
    /// There is no decision.
    #[default]
    Error,
}

impl ErrorReply<'_> {
    /// Appends the reply as JSON on one line.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        // Writing to memory cannot fail, and strings always serialise.
        let _ = serde_json::to_writer(out, self);
    }
}

/// A record of the topic `replies`.
#[derive(Debug, Clone)]
pub struct Reply<'a> {
    /// The user for whose transaction a caller waits.
    pub user_id: Cow<'a, str>,
    /// The user's tenant, not checked; none for the default tenant.
    pub tenant: Option<Cow<'a, str>>,
    /// The transaction's id.
    pub transaction_id: Cow<'a, str>,
    /// Whether this is an [`ErrorReply`] and no decision.
    pub is_error: bool,
    /// The whole reply as it was written.
    pub text: &'a RawValue,
}

impl<'a> Reply<'a> {
    /// Reads a reply. Of a decision no more than the ids is read: callers get it as the scorer wrote it.
    ///
    /// # Errors
    /// Where the text is neither a decision nor an error.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Head<'a> {
            #[serde(borrow)]
            user_id: Cow<'a, str>,
            #[serde(borrow)]
            transaction_id: Cow<'a, str>,
            #[serde(borrow, default)]
            tenant: Option<Cow<'a, str>>,
            #[serde(borrow, default)]
            status: Option<Cow<'a, str>>,
        }
        let text = std::str::from_utf8(bytes).map_err(serde_json::Error::custom)?;
        let text: &RawValue = serde_json::from_str(text)?;
        let head: Head<'_> = serde_json::from_str(text.get())?;
        Ok(Self {
            is_error: head.status.as_deref() == Some("error"),
            user_id: head.user_id,
            tenant: head.tenant,
            transaction_id: head.transaction_id,
            text,
        })
    }

    /// The error, if it is one.
    #[must_use]
    pub fn error(&self) -> Option<ErrorReply<'a>> {
        serde_json::from_str(self.text.get())
            .ok()
            .filter(|_| self.is_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_from_a_decision_and_read_as_it_was_written() {
        let error = ErrorReply {
            transaction_id: "t\"1".into(),
            user_id: "é".into(),
            tenant: Some("acme".into()),
            status: ErrorStatus::Error,
            kind: "too_large".into(),
            field: None,
            reason: "is larger than 10 bytes".into(),
        };
        let mut text = Vec::new();
        error.write_to(&mut text);
        let reply = Reply::parse(&text).unwrap();
        assert!(reply.is_error);
        assert_eq!((&*reply.user_id, &*reply.transaction_id), ("é", "t\"1"));
        assert_eq!(reply.tenant.as_deref(), Some("acme"));
        assert_eq!(reply.error(), Some(error));
        let decision =
            br#"{"transaction_id":"t","user_id":"u","status":"approved","fraud_score":1.50}"#;
        let reply = Reply::parse(decision).unwrap();
        assert!(!reply.is_error && reply.error().is_none());
        assert_eq!(reply.tenant, None);
        assert_eq!(reply.text.get().as_bytes(), decision);
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        for text in [
            "",
            "nonsense",
            "{}",
            r#"{"user_id":1,"transaction_id":"t"}"#,
        ] {
            assert!(Reply::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Reply::parse(b"\xff").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(text in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
            let _ = Reply::parse(&text).map(|reply| reply.error().is_some());
        }
    }
}
