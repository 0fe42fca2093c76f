//! What dead letters hold and how it is read again: the payload as it was sent, and beside it, in the header
//! `payload.format`, what is needed to read it the way it came in.
//!
//! Invariant: a payload that is read again is the transaction that was sent, or it is refused. It is never read in
//! another form than the one it came in.

use std::fmt;

use serde::{Deserialize, Serialize};
use tollgate_types::{Timestamp, UserIdCase};

use crate::imports::rows::{CsvForm, RowReader};
use crate::items::{self, ItemLimits};

/// The longest header of a dead letter that is read, in bytes.
const MAX_FORMAT_BYTES: usize = 256 * 1024;

/// The format of the payload of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "format", rename_all = "snake_case")]
pub(crate) enum Payload {
    /// The JSON text of one transaction: a line of NDJSON, the data of an event, or the value of a message.
    Json,
    /// Several of them, as a JSON text sequence (RFC 7464).
    JsonSequence,
    /// A row of CSV.
    Csv(CsvForm),
    /// It says how many rows have no letters of their own, and has none of them.
    Summary,
}

/// A payload's format, and how its ids are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PayloadFormat {
    #[serde(flatten)]
    payload: Payload,
    #[serde(default)]
    user_id_case: UserIdCase,
}

impl PayloadFormat {
    /// Of a letter that stands for others.
    pub(crate) const fn summary() -> Self {
        Self::new(Payload::Summary, UserIdCase::Keep)
    }

    pub(crate) const fn new(payload: Payload, user_id_case: UserIdCase) -> Self {
        Self {
            payload,
            user_id_case,
        }
    }
}

/// As the header has it.
impl fmt::Display for PayloadFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

/// A transaction of a dead letter that ingest would accept now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentTransaction {
    /// The key of its record.
    pub user_id: String,
    /// Its JSON text, on one line.
    pub json: String,
}

/// Reads the payload of a dead letter of ingest again, in the format that its header `payload.format` names, by the rules
/// that apply to what is sent now.
///
/// # Errors
/// Why it is no transaction, or which of its items is none. The reason names no value.
pub fn read_again(format: &str, payload: &[u8]) -> Result<Vec<SentTransaction>, String> {
    if format.len() > MAX_FORMAT_BYTES {
        return Err("its header payload.format is too long".to_owned());
    }
    let format: PayloadFormat = serde_json::from_str(format)
        .map_err(|_| "its header payload.format is none that this version knows".to_owned())?;
    let limits = ItemLimits {
        // The scorer has a limit of its own.
        max_bytes: usize::MAX,
        now_micros: items::now_micros(),
        // The operator chooses what is sent through again.
        oldest_micros: None,
        // As for its size: the scorer refuses zero times by its own setting.
        earliest: Timestamp::MIN,
        user_id_case: format.user_id_case,
    };
    match &format.payload {
        Payload::Json => Ok(vec![transaction(payload, limits)?]),
        Payload::JsonSequence => {
            let items = items::sequence(payload);
            let read = items.enumerate().map(|(index, item)| {
                transaction(item, limits).map_err(|reason| format!("item {index}: {reason}"))
            });
            read.collect()
        }
        Payload::Summary => Err("it stands for rows that have no letters of their own".to_owned()),
        Payload::Csv(form) => {
            let row = RowReader::new(form.clone())?.row(1, payload.to_vec());
            match row.wrong {
                Some(reason) => Err(reason),
                None => Ok(vec![transaction(&row.text, limits)?]),
            }
        }
    }
}

fn transaction(text: &[u8], limits: ItemLimits) -> Result<SentTransaction, String> {
    let read = items::validate(text, limits).map_err(|rejection| rejection.to_string())?;
    Ok(SentTransaction {
        user_id: read.user_id.clone().into_owned(),
        json: read.one_line().into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::imports::rows::ValueForms;

    const ITEM: &str =
        r#"{"transaction_id":"t","user_id":"U","amount":1,"timestamp":"2026-03-01T10:00:00Z"}"#;

    fn csv(header: &[&str]) -> String {
        let form = CsvForm::new(
            header.iter().map(|name| (*name).to_owned()).collect(),
            ',',
            BTreeMap::new(),
            ValueForms::default(),
        );
        PayloadFormat::new(Payload::Csv(form), UserIdCase::Keep).to_string()
    }

    #[test]
    fn a_row_with_an_unquoted_comma_is_never_read_as_a_payment_of_one() {
        let format = csv(&["transaction_id", "user_id", "timestamp", "amount"]);
        let refused = read_again(&format, b"c19-1,u-c19,2026-03-01T10:00:00Z,1,560.00");
        assert_eq!(refused.unwrap_err(), "has 5 fields, but the header has 4");
        let read = read_again(&format, b"c19-2,u-c19,2026-03-01T10:01:00Z,15.60").unwrap();
        assert_eq!(read[0].user_id, "u-c19");
        assert!(
            read[0].json.contains(r#""amount":"15.60""#),
            "{}",
            read[0].json
        );
    }

    #[test]
    fn an_item_is_read_by_the_rules_it_came_in_by() {
        let folded = PayloadFormat::new(Payload::Json, UserIdCase::Fold).to_string();
        assert_eq!(
            read_again(&folded, ITEM.as_bytes()).unwrap()[0].user_id,
            "u"
        );
        let negative = ITEM.replace(":1,", ":-1,");
        let reason = read_again(&folded, negative.as_bytes()).unwrap_err();
        assert!(reason.starts_with("amount: "), "{reason}");
    }

    #[test]
    fn a_sequence_is_read_whole_or_refused_with_the_item_at_fault() {
        let format = PayloadFormat::new(Payload::JsonSequence, UserIdCase::Keep).to_string();
        let good = format!("\u{1e}{ITEM}\n\u{1e}{ITEM}\n");
        assert_eq!(read_again(&format, good.as_bytes()).unwrap().len(), 2);
        let bad = format!("\u{1e}{ITEM}\n\u{1e}7\n");
        let reason = read_again(&format, bad.as_bytes()).unwrap_err();
        assert!(reason.starts_with("item 1: "), "{reason}");
    }

    #[test]
    fn a_format_that_is_none_is_refused() {
        for format in ["", "{}", r#"{"format":"xml"}"#, r#"{"format":"csv"}"#] {
            assert!(read_again(format, ITEM.as_bytes()).is_err(), "{format}");
        }
    }
}
