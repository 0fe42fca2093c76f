//! Parses one item and checks it against the limits of ingest.

use tollgate_types::{Rejection, Timestamp, Transaction, UserIdCase, mixes_scripts};

/// How far a timestamp may be ahead of the clock, in microseconds: the clocks of producers differ.
const MAX_AHEAD_MICROS: i64 = 5 * 60 * 1_000_000;

/// The limits of an item beyond the rules of a transaction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ItemLimits {
    /// The largest text of an item, as it came and as it is written, in bytes.
    pub(crate) max_bytes: usize,
    /// The current time, in microseconds since 1970.
    pub(crate) now_micros: i64,
    /// The oldest timestamp, in microseconds since 1970, if it is limited.
    pub(crate) oldest_micros: Option<i64>,
    /// The oldest timestamp that is not taken for the zero time of a program.
    pub(crate) earliest: Timestamp,
    /// Whether user ids that differ only in case are one user.
    pub(crate) user_id_case: UserIdCase,
}

/// Parses and validates one item.
///
/// # Errors
/// The member at fault and the reason. The reason never contains a value of the item.
pub(crate) fn validate(item: &[u8], limits: ItemLimits) -> Result<Transaction<'_>, Rejection> {
    let too_large = || {
        let reason = format!("is larger than {} bytes", limits.max_bytes);
        Err(Rejection::new("", reason))
    };
    if item.len() > limits.max_bytes {
        return too_large();
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
    let transaction = Transaction::parse_in_case(item, limits.user_id_case)?;
    // An id that was brought to its form may be longer than the one that came.
    if transaction.json.len() > limits.max_bytes {
        return too_large();
    }
    if transaction.timestamp.micros() > limits.now_micros.saturating_add(MAX_AHEAD_MICROS) {
        let reason = "is more than 5 minutes ahead of the clock";
        return Err(Rejection::new("timestamp", reason));
    }
    transaction.check_not_before(limits.earliest, "ingest.earliest_timestamp")?;
    if limits
        .oldest_micros
        .is_some_and(|oldest| transaction.timestamp.micros() < oldest)
    {
        let reason = "is older than ingest.max_age_hours permits; a key with the scope transactions:backfill may send it";
        return Err(Rejection::new("timestamp", reason));
    }
    Ok(transaction)
}

/// Counts ids in which scripts are mixed, as they are where a letter was replaced by one that looks like it.
pub(crate) fn count_mixed_scripts(transaction: &Transaction<'_>) {
    for (field, id) in [
        ("user_id", &transaction.user_id),
        ("transaction_id", &transaction.transaction_id),
    ] {
        if mixes_scripts(id) {
            metrics::counter!("tollgate_ingest_mixed_script_ids_total", "field" => field)
                .increment(1);
        }
    }
}

/// The current time, for [`ItemLimits`].
pub(crate) fn now_micros() -> i64 {
    chrono::Utc::now()
        .timestamp_micros()
        .clamp(Timestamp::MIN.micros(), Timestamp::MAX.micros())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tollgate_types::TraceContext;

    use super::*;

    fn limits() -> ItemLimits {
        ItemLimits {
            max_bytes: 200,
            now_micros: Timestamp::parse("2026-03-01T12:00:00Z").unwrap().micros(),
            oldest_micros: None,
            earliest: Timestamp::YEAR_2000,
            user_id_case: UserIdCase::Keep,
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
    fn the_zero_time_of_a_program_is_no_timestamp_unless_a_setting_permits_it() {
        for zero in [
            "0001-01-01T00:00:00Z",
            "1970-01-01T00:00:00Z",
            "1899-12-30T00:00:00",
            "1999-12-31T23:59:59.999999Z",
        ] {
            let item = at(zero);
            let rejection = validate(item.as_bytes(), limits()).unwrap_err();
            assert_eq!(rejection.field, "timestamp", "{zero}");
            assert!(
                rejection.reason.contains("ingest.earliest_timestamp"),
                "{rejection}"
            );
            let open = ItemLimits {
                earliest: Timestamp::MIN,
                ..limits()
            };
            assert!(validate(item.as_bytes(), open).is_ok(), "{zero}");
        }
        assert!(validate(at("2000-01-01T00:00:00Z").as_bytes(), limits()).is_ok());
    }

    #[test]
    fn a_timestamp_may_be_as_old_as_its_key_allows() {
        let oldest = Timestamp::parse("2026-02-26T12:00:00Z").unwrap().micros();
        let limits = ItemLimits {
            oldest_micros: Some(oldest),
            ..limits()
        };
        assert!(validate(at("2026-02-26T12:00:00Z").as_bytes(), limits).is_ok());
        let rejection = validate(at("2026-02-26T11:59:59Z").as_bytes(), limits).unwrap_err();
        assert_eq!(rejection.field, "timestamp");
        assert!(rejection.reason.contains("transactions:backfill"));
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

    proptest! {
        /// The scorer accepts what is a transaction and not larger than its limit, which is not below that of ingest.
        #[test]
        fn what_ingest_accepts_is_written_as_what_the_scorer_accepts(
            user in prop_oneof!["[a-zA-Zéß]{1,20}", "(e\u{301}|\u{1d160}|ΐ){1,8}"],
            padding in 0..140_usize,
            before in "[ \n]{0,3}",
            traced: bool,
            fold: bool,
            timestamp in prop_oneof![
                3 => "2026-02-[012][1-8][T ][01][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[-+]0[0-9](:?[0-5][0-9])?|)",
                1 => "(0001|1899|1970|1999|2000)-01-01T00:00:00(Z|[+]00)",
            ],
            location in prop::sample::select(vec![
                "null", "\"\"", "{\"latitude\":\"52.5\",\"longitude\":13.4}", "{\"latitude\":\"\",\"longitude\":\"\"}",
                "{\"latitude\":\"5,5\",\"longitude\":1}", "[1,2]",
            ]),
        ) {
            let limits = ItemLimits {
                max_bytes: 300,
                user_id_case: if fold { UserIdCase::Fold } else { UserIdCase::Keep },
                ..limits()
            };
            let item = format!(
                "{before}{{\n\"transaction_id\":\"t\",\"user_id\":\"{user}\",\"amount\":1,\"timestamp\":\"{timestamp}\",\"location\":{location},\"x\":\"{}\"}}{before}",
                "x".repeat(padding)
            );
            let trace = TraceContext::new(7, 7, true).filter(|_| traced);
            if let Ok(transaction) = validate(item.as_bytes(), limits) {
                let written = transaction.one_line_within(trace, limits.max_bytes);
                prop_assert!(written.len() <= limits.max_bytes, "{}", written.len());
                let read = Transaction::parse(written.as_bytes()).unwrap();
                prop_assert_eq!(&read.user_id, &transaction.user_id);
                prop_assert_eq!(&read.json, &*written);
                prop_assert_eq!(read.timestamp, transaction.timestamp);
                prop_assert_eq!(read.location, transaction.location);
                prop_assert!(read.check_not_before(limits.earliest, "scorer.earliest_timestamp").is_ok());
            } else {
                let is_small = item.len() + 3 * user.len() <= limits.max_bytes;
                let is_good = timestamp.starts_with("20") && !matches!(location.as_bytes(), [b'[', ..] | [.., b'1', b'}']);
                prop_assert!(!(is_small && is_good), "{item}");
            }
        }
    }
}
