//! Parses one item and checks it against the limits of ingest.

use tollgate_types::{Rejection, Timestamp, Transaction};

/// How far a timestamp may be ahead of the clock, in microseconds: the clocks of producers differ.
const MAX_AHEAD_MICROS: i64 = 5 * 60 * 1_000_000;

/// The limits of an item beyond the rules of a transaction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ItemLimits {
    /// The largest text of an item, in bytes.
    pub(crate) max_bytes: usize,
    /// The current time, in microseconds since 1970.
    pub(crate) now_micros: i64,
}

/// Parses and validates one item.
///
/// # Errors
/// The member at fault and the reason. The reason never contains a value of the item.
pub(crate) fn validate(item: &[u8], limits: ItemLimits) -> Result<Transaction<'_>, Rejection> {
    if item.len() > limits.max_bytes {
        let reason = format!("is larger than {} bytes", limits.max_bytes);
        return Err(Rejection::new("", reason));
    }
    // Checked here, because the parser's own message would quote the value.
    let found = match item {
        b"true" | b"false" => Some("a boolean"),
        b"null" => Some("null"),
        [b'"', ..] => Some("a string"),
        [b'[', ..] => Some("an array"),
        [b'-' | b'0'..=b'9', ..] => Some("a number"),
        _ => None,
    };
    if let Some(found) = found {
        let reason = format!("expected a transaction as a JSON object, found {found}");
        return Err(Rejection::new("", reason));
    }
    let transaction = Transaction::parse(item)?;
    if transaction.timestamp.micros() > limits.now_micros.saturating_add(MAX_AHEAD_MICROS) {
        let reason = "is more than 5 minutes ahead of the clock";
        return Err(Rejection::new("timestamp", reason));
    }
    Ok(transaction)
}

/// The current time, for [`ItemLimits`].
pub(crate) fn now_micros() -> i64 {
    chrono::Utc::now()
        .timestamp_micros()
        .clamp(Timestamp::MIN.micros(), Timestamp::MAX.micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> ItemLimits {
        ItemLimits {
            max_bytes: 200,
            now_micros: Timestamp::parse("2026-03-01T12:00:00Z").unwrap().micros(),
        }
    }

    fn at(timestamp: &str) -> String {
        format!(r#"{{"transaction_id":"t","user_id":"u","amount":1,"timestamp":"{timestamp}"}}"#)
    }

    #[test]
    fn a_timestamp_may_be_at_most_five_minutes_ahead() {
        assert!(validate(at("2026-03-01T12:05:00Z").as_bytes(), limits()).is_ok());
        let rejection =
            validate(at("2026-03-01T12:05:00.000001Z").as_bytes(), limits()).unwrap_err();
        assert_eq!(rejection.field, "timestamp");
    }

    #[test]
    fn an_item_that_is_not_an_object_or_too_long_is_rejected_without_quoting_it() {
        let long = format!("{{\"x\":\"{}\"}}", "secret".repeat(100));
        for item in ["\"secret\"", "[\"secret\"]", "12345", &long] {
            let rejection = validate(item.as_bytes(), limits()).unwrap_err();
            assert_eq!(rejection.field, "");
            let reason = rejection.reason;
            assert!(
                !reason.contains("secret") && !reason.contains("12345"),
                "{reason}"
            );
        }
    }
}
