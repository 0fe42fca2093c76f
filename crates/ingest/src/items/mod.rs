//! From the bytes of a body to its items, and from an item to a transaction or a rejection. No I/O.
//!
//! Invariant: an invalid item does not affect its neighbours, as long as the body can be split into items.

mod split;
mod validate;

pub(crate) use split::{Format, RECORD_SEPARATOR, UnreadableBody, json_value, sequence, split};
pub(crate) use validate::{ItemLimits, count_mixed_scripts, now_micros, validate};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 5;
    const LIMITS: ItemLimits = ItemLimits {
        max_bytes: 200,
        now_micros: i64::MAX,
        oldest_micros: None,
        earliest: tollgate_types::Timestamp::YEAR_2000,
        user_id_case: tollgate_types::UserIdCase::Fold,
    };

    proptest! {
        #[test]
        fn no_body_causes_a_panic(body in prop::collection::vec(any::<u8>(), 0..200), ndjson: bool) {
            let format = if ndjson { Format::Ndjson } else { Format::Json };
            for item in split(format, &body, LIMIT).unwrap_or_default() {
                let _ = validate(item, LIMITS);
            }
        }

        #[test]
        fn no_almost_valid_json_causes_a_panic(body in r#"[\[\]{},:"\\ntu0-9eE+. \n\r-]{0,80}"#, ndjson: bool) {
            let format = if ndjson { Format::Ndjson } else { Format::Json };
            for item in split(format, body.as_bytes(), LIMIT).unwrap_or_default() {
                let _ = validate(item, LIMITS);
            }
        }
    }
}
