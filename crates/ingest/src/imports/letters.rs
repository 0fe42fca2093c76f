//! The dead letters of rows: what was sent, and what is needed to read it again.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use tollgate_types::{CardPolicy, Protected, UserIdCase};

use super::rows::{Row, RowReader, Rows, kept};
use crate::letters::is_masked;
use crate::sent::{Payload, PayloadFormat};

/// Makes the letters of the rows of one object.
#[derive(Debug)]
pub(super) struct RowLetters {
    /// The format of rows that are JSON.
    json: String,
    /// The reader and the format of rows that are not.
    csv: Option<(Arc<RowReader>, String)>,
}

/// A letter of a row.
#[derive(Debug)]
pub(super) struct RowLetter<'a> {
    pub(super) key: Option<Vec<u8>>,
    pub(super) payload: Cow<'a, [u8]>,
    pub(super) is_masked: bool,
}

impl RowLetters {
    pub(super) fn new(rows: &Rows<'_>, user_id_case: UserIdCase, cards: &CardPolicy) -> Self {
        let header = |payload| PayloadFormat::new(payload, user_id_case).to_string();
        let csv = rows.reader().map(|reader| {
            let form = reader
                .form()
                .with_names(|name| cards.mask(name).into_owned());
            (Arc::clone(reader), header(Payload::Csv(form)))
        });
        Self {
            json: header(Payload::Json),
            csv,
        }
    }

    /// What is needed to read a letter again.
    pub(super) fn format(&self) -> &str {
        self.csv.as_ref().map_or(&self.json, |(_, format)| format)
    }

    /// The bytes that each letter has beside its payload, where they follow from the object.
    pub(super) fn header_bytes(&self) -> usize {
        self.csv.as_ref().map_or(0, |(_, format)| format.len())
    }

    /// The letter of a row, whose JSON text without card data is `protected`.
    pub(super) fn of<'a>(
        &self,
        row: &'a Row,
        protected: &'a Protected<'_>,
        cards: &CardPolicy,
    ) -> RowLetter<'a> {
        if let (Some(sent), Some((reader, _))) = (&row.sent, &self.csv) {
            let (payload, is_changed) = kept(sent, reader, cards);
            return RowLetter {
                key: user(&protected.text),
                payload,
                is_masked: is_changed,
            };
        }
        RowLetter {
            // It stands in the payload.
            key: None,
            payload: Cow::Borrowed(&protected.text),
            is_masked: is_masked(protected),
        }
    }
}

/// The user of a row, as far as it says: letters are found and erased by it.
fn user(text: &[u8]) -> Option<Vec<u8>> {
    #[derive(Deserialize)]
    struct User<'a> {
        #[serde(borrow)]
        user_id: Option<Cow<'a, str>>,
    }
    let user: User<'_> = serde_json::from_slice(text).ok()?;
    user.user_id.map(|user| user.into_owned().into_bytes())
}
