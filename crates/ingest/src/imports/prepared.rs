//! A row that is ready to be written: a checked transaction without card data, or why it is none. No I/O.
//!
//! Invariant: what is decoded is what was encoded, so that a row that was sorted on disk is written like any other.

use tollgate_service::card_data::count_card_data;
use tollgate_types::{CardPolicy, Rejection, TraceContext};

use super::letters::RowLetters;
use super::rows::Row;
use crate::items::{self, ItemLimits};

/// The key of a row that is no transaction, which is before all others.
const REJECTED_KEY: i64 = i64::MIN;

/// A row that is ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PreparedRow {
    /// A valid transaction.
    Accepted {
        user_id: String,
        /// Its own trace context, as text.
        trace: Option<String>,
        /// Its JSON, in one line.
        json: String,
    },
    /// A row for a dead letter.
    Rejected {
        kind: RejectKind,
        reason: String,
        /// At which it begins, from 1.
        line: u64,
        /// The user, where the payload does not say.
        key: Option<Vec<u8>>,
        payload: Vec<u8>,
        /// The payload would not be read as what was sent.
        is_masked: bool,
        /// How many bytes were sent, if the payload was cut.
        cut_from: Option<u64>,
    },
}

/// The class of a rejection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum RejectKind {
    /// It is not JSON, or not of the object's form.
    Malformed,
    /// It is no valid transaction.
    Invalid,
}

impl RejectKind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Invalid => "invalid",
        }
    }
}

/// The settings for a cell in a form that is not read without them.
fn remedy(row: &Row, rejection: &Rejection) -> &'static str {
    let is_csv = row.sent.is_some();
    match rejection.field {
        _ if !is_csv || !rejection.reason.starts_with("expected") => "",
        "timestamp" => "; for another form set ingest.sources[].timestamp_format",
        "amount" => {
            "; for another form set ingest.sources[].decimal and grouping. Signs of currencies are not read"
        }
        _ => "",
    }
}

impl PreparedRow {
    /// Checks a row: the key by which it is sorted, its timestamp in microseconds, and the row.
    pub(super) fn of(
        row: &Row,
        limits: ItemLimits,
        cards: &CardPolicy,
        trace: Option<TraceContext>,
        letters: &RowLetters,
    ) -> (i64, Self) {
        let protected = cards.protect(&row.text);
        count_card_data("ingest", protected.found);
        let text = &*protected.text;
        let checked = match (&row.wrong, &protected.refusal) {
            // A header that is none is data, and stands in the reason.
            (Some(reason), _) => Err((RejectKind::Malformed, cards.mask(reason).into_owned())),
            (None, Some(refusal)) => Err((RejectKind::Invalid, refusal.to_string())),
            (None, None) => items::validate(text, limits).map_err(|rejection| {
                let kind = if rejection.malformed {
                    RejectKind::Malformed
                } else {
                    RejectKind::Invalid
                };
                (kind, format!("{rejection}{}", remedy(row, &rejection)))
            }),
        };
        match checked {
            Ok(transaction) => {
                items::count_mixed_scripts(&transaction);
                let own = transaction.trace();
                let json = transaction.one_line_within(own.or(trace), limits.max_bytes);
                let accepted = Self::Accepted {
                    user_id: transaction.user_id.clone().into_owned(),
                    trace: own.map(|own| own.to_string()),
                    json: json.into_owned(),
                };
                (transaction.timestamp.micros(), accepted)
            }
            Err((kind, reason)) => {
                let letter = letters.of(row, &protected, cards);
                let rejected = Self::Rejected {
                    kind,
                    reason,
                    line: row.line,
                    key: letter.key,
                    payload: letter.payload.into_owned(),
                    is_masked: letter.is_masked,
                    cut_from: row.cut_from,
                };
                (REJECTED_KEY, rejected)
            }
        }
    }

    /// Appends it to `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let mut field = |bytes: &[u8]| {
            out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            out.extend_from_slice(bytes);
        };
        match self {
            Self::Accepted {
                user_id,
                trace,
                json,
            } => {
                field(b"a");
                field(user_id.as_bytes());
                field(trace.as_deref().unwrap_or_default().as_bytes());
                field(json.as_bytes());
            }
            Self::Rejected {
                kind,
                reason,
                line,
                key,
                payload,
                is_masked,
                cut_from,
            } => {
                field(match kind {
                    RejectKind::Malformed => b"m",
                    RejectKind::Invalid => b"i",
                });
                field(reason.as_bytes());
                field(&line.to_le_bytes());
                field(&[u8::from(key.is_some())]);
                field(key.as_deref().unwrap_or_default());
                field(&[u8::from(*is_masked)]);
                field(&cut_from.unwrap_or_default().to_le_bytes());
                field(payload);
            }
        }
    }

    /// Reads what [`PreparedRow::encode`] wrote; `None` for anything else.
    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut field = || {
            let (length, rest) = bytes.split_first_chunk()?;
            let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
            let (field, rest) = rest.split_at_checked(length)?;
            bytes = rest;
            Some(field)
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let kind = match field()? {
            b"a" => {
                return Some(Self::Accepted {
                    user_id: text(field()?)?,
                    trace: Some(text(field()?)?).filter(|trace| !trace.is_empty()),
                    json: text(field()?)?,
                });
            }
            b"m" => RejectKind::Malformed,
            b"i" => RejectKind::Invalid,
            _ => return None,
        };
        Some(Self::Rejected {
            kind,
            reason: text(field()?)?,
            line: u64::from_le_bytes(*field()?.first_chunk()?),
            key: {
                let given = field()? == [1];
                Some(field()?.to_vec()).filter(|_| given)
            },
            is_masked: field()? == [1],
            cut_from: Some(u64::from_le_bytes(*field()?.first_chunk()?)).filter(|bytes| *bytes > 0),
            payload: field()?.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_row() -> impl Strategy<Value = PreparedRow> {
        let accepted = (
            any::<String>(),
            prop::option::of("[a-f0-9-]{1,9}"),
            any::<String>(),
        )
            .prop_map(|(user_id, trace, json)| PreparedRow::Accepted {
                user_id,
                trace,
                json,
            });
        let rejected = (
            any::<bool>(),
            any::<String>(),
            any::<u64>(),
            any::<Vec<u8>>(),
            any::<Option<Vec<u8>>>(),
            any::<bool>(),
            prop::option::of(1..u64::MAX),
        )
            .prop_map(
                |(malformed, reason, line, payload, key, is_masked, cut_from)| {
                    PreparedRow::Rejected {
                        kind: if malformed {
                            RejectKind::Malformed
                        } else {
                            RejectKind::Invalid
                        },
                        reason,
                        line,
                        key,
                        payload,
                        is_masked,
                        cut_from,
                    }
                },
            );
        prop_oneof![accepted, rejected]
    }

    proptest! {
        #[test]
        fn a_row_that_was_on_disk_is_the_row_that_was_read(row in any_row()) {
            let mut bytes = Vec::new();
            row.encode(&mut bytes);
            prop_assert_eq!(PreparedRow::decode(&bytes), Some(row));
            prop_assert_eq!(PreparedRow::decode(&bytes[..bytes.len() - 1]), None);
        }
    }
}
