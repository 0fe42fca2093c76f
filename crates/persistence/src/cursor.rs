//! The position of a page, as an opaque text. It is a position in the order, not a row or a number of rows, so that decisions
//! stored between two pages do not shift them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tollgate_types::{Amount, Currency, MAX_ID_BYTES, Timestamp};

const VERSION: u8 = 1;
/// Ids contain no such byte.
const SEPARATOR: u8 = 0;

/// The last decision of a page: the next page starts behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) event_time: Timestamp,
    pub(crate) user_id: String,
    pub(crate) transaction_id: String,
    /// Empty for the first decision on the transaction.
    pub(crate) conflict_amount: String,
    /// Empty for the default tenant.
    pub(crate) tenant: String,
}

impl Cursor {
    pub(crate) fn encode(&self) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend(self.event_time.micros().to_be_bytes());
        bytes.extend(self.user_id.as_bytes());
        bytes.push(SEPARATOR);
        bytes.extend(self.transaction_id.as_bytes());
        if !(self.conflict_amount.is_empty() && self.tenant.is_empty()) {
            for part in [&self.conflict_amount, &self.tenant] {
                bytes.push(SEPARATOR);
                bytes.extend(part.as_bytes());
            }
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// `None` for a text that [`Cursor::encode`] never returns.
    pub(crate) fn decode(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (&version, rest) = bytes.split_first()?;
        let (micros, ids) = rest.split_first_chunk::<8>()?;
        let mut parts = std::str::from_utf8(ids).ok()?.split(char::from(SEPARATOR));
        let (user_id, transaction_id) = (parts.next()?, parts.next()?);
        // Missing in the cursors of the default tenant's first decisions.
        let conflict_amount = parts.next().unwrap_or_default();
        let tenant = parts.next().unwrap_or_default();
        let is_amount = |text: &str| {
            let (amount, code) = match text.split_once(' ') {
                None => (text, None),
                Some((amount, code)) => (amount, Some(code)),
            };
            // Only as they are stored.
            Amount::parse_decimal(amount).is_ok_and(|read| read.to_string() == amount)
                && code.is_none_or(|code| {
                    Currency::parse(code).is_ok_and(|read| read.as_str() == code)
                })
        };
        let is_whole = parts.next().is_none()
            && (conflict_amount.is_empty() || is_amount(conflict_amount))
            && tenant.len() <= MAX_ID_BYTES;
        is_whole.then_some(())?;
        let fits = |id: &str| (1..=MAX_ID_BYTES).contains(&id.len()) && !id.contains('\0');
        (version == VERSION && fits(user_id) && fits(transaction_id)).then_some(())?;
        Some(Self {
            event_time: Timestamp::from_micros(i64::from_be_bytes(*micros))?,
            user_id: user_id.to_owned(),
            transaction_id: transaction_id.to_owned(),
            conflict_amount: conflict_amount.to_owned(),
            tenant: tenant.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_is_decoded_as_it_was_encoded(
            micros in Timestamp::MIN.micros()..=Timestamp::MAX.micros(),
            user_id in "[^\0]{1,32}",
            transaction_id in "[^\0]{1,32}",
            conflict_amount in "|[1-9][0-9]{0,9}( [A-Z]{3})?|0\\.0[1-9]",
            tenant in "[a-z]{0,4}",
        ) {
            let event_time = Timestamp::from_micros(micros).unwrap();
            let cursor = Cursor { event_time, user_id, transaction_id, conflict_amount, tenant };
            prop_assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        }

        #[test]
        fn no_text_panics(text in "[A-Za-z0-9_-]{0,60}|.{0,40}") {
            let _ = Cursor::decode(&text);
        }
    }
}
