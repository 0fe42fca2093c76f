//! The position of a page, as an opaque text. It is a position in the order, not a row or a number of rows, so that decisions
//! stored between two pages do not shift them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tollgate_types::{MAX_ID_BYTES, Timestamp};

const VERSION: u8 = 1;
/// Ids contain no such byte.
const SEPARATOR: u8 = 0;

/// The last decision of a page: the next page starts behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) event_time: Timestamp,
    pub(crate) user_id: String,
    pub(crate) transaction_id: String,
}

impl Cursor {
    pub(crate) fn encode(&self) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend(self.event_time.micros().to_be_bytes());
        bytes.extend(self.user_id.as_bytes());
        bytes.push(SEPARATOR);
        bytes.extend(self.transaction_id.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// `None` for a text that [`Cursor::encode`] never returns.
    pub(crate) fn decode(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (&version, rest) = bytes.split_first()?;
        let (micros, ids) = rest.split_first_chunk::<8>()?;
        let (user_id, transaction_id) = std::str::from_utf8(ids)
            .ok()?
            .split_once(char::from(SEPARATOR))?;
        let fits = |id: &str| (1..=MAX_ID_BYTES).contains(&id.len()) && !id.contains('\0');
        (version == VERSION && fits(user_id) && fits(transaction_id)).then_some(())?;
        Some(Self {
            event_time: Timestamp::from_micros(i64::from_be_bytes(*micros))?,
            user_id: user_id.to_owned(),
            transaction_id: transaction_id.to_owned(),
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
        ) {
            let event_time = Timestamp::from_micros(micros).unwrap();
            let cursor = Cursor { event_time, user_id, transaction_id };
            prop_assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        }

        #[test]
        fn no_text_panics(text in "[A-Za-z0-9_-]{0,60}|.{0,40}") {
            let _ = Cursor::decode(&text);
        }
    }
}
