//! What a dead letter keeps of a row of CSV: the row as it was sent, without card data.
//!
//! Invariant: what is kept reads as the row that was sent, or it says that it was changed and is not read again.

use std::borrow::Cow;

use serde_json::Value;
use tollgate_types::CardPolicy;

use super::csv::RowReader;

/// The bytes of a row that may be kept, and whether they differ from those that were sent.
pub(crate) fn kept<'r>(
    sent: &'r [u8],
    reader: &RowReader,
    cards: &CardPolicy,
) -> (Cow<'r, [u8]>, bool) {
    let without_codes = match codes(sent, reader, cards) {
        Codes::None => Cow::Borrowed(sent),
        Codes::At(columns) => Cow::Owned(without(sent, reader, &columns)),
        // They may stand in any cell.
        Codes::Anywhere => Cow::Owned(sent.iter().map(hidden).collect()),
    };
    let kept = match cards.mask_bytes(&without_codes) {
        Cow::Owned(masked) => Cow::Owned(masked),
        Cow::Borrowed(_) => without_codes,
    };
    let is_changed = *kept != *sent;
    (kept, is_changed)
}

const fn hidden(byte: &u8) -> u8 {
    match byte {
        b'0'..=b'9' => b'*',
        other => *other,
    }
}

/// Where a row has verification codes, PINs or track data.
enum Codes {
    None,
    At(Vec<usize>),
    /// The cells are not those of the header.
    Anywhere,
}

fn codes(sent: &[u8], reader: &RowReader, cards: &CardPolicy) -> Codes {
    let is_code = |name: &str, value: Value| {
        let member = Value::Object([(name.to_owned(), value)].into_iter().collect());
        let protected = cards.protect(member.to_string().as_bytes()).found;
        protected.codes > 0
    };
    let named: Vec<usize> = reader
        .columns()
        .enumerate()
        .filter(|(_, names)| names.iter().any(|name| is_code(name, "123".into())))
        .map(|(column, _)| column)
        .collect();
    if named.is_empty() {
        return Codes::None;
    }
    let Ok(cells) = reader.cells(sent) else {
        return Codes::Anywhere;
    };
    if cells.len() != reader.columns().count() {
        return Codes::Anywhere;
    }
    Codes::At(named)
}

/// The row with nothing in these cells.
fn without(sent: &[u8], reader: &RowReader, columns: &[usize]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(sent.len());
    let mut copied = 0;
    for (column, cell) in reader
        .cells(sent)
        .unwrap_or_default()
        .into_iter()
        .enumerate()
    {
        if columns.contains(&column) {
            kept.extend_from_slice(&sent[copied..cell.start]);
            copied = cell.end;
        }
    }
    kept.extend_from_slice(&sent[copied..]);
    kept
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::imports::rows::{CsvForm, ValueForms};

    fn reader(header: &str) -> RowReader {
        RowReader::new(CsvForm {
            header: header.split(',').map(str::to_owned).collect(),
            delimiter: ',',
            columns: BTreeMap::new(),
            values: ValueForms::default(),
        })
        .unwrap()
    }

    fn text(header: &str, sent: &str) -> (String, bool) {
        let reader = reader(header);
        let (kept, changed) = kept(sent.as_bytes(), &reader, &CardPolicy::default());
        (String::from_utf8(kept.into_owned()).unwrap(), changed)
    }

    #[test]
    fn a_row_without_card_data_is_kept_to_the_byte() {
        let header = "transaction_id,user_id,amount,timestamp,memo";
        for row in ["t,u,1,560.00,2026-03-01,x", "t, \"u\" ,bad,,\"a\"\"b\nc\""] {
            assert_eq!(text(header, row), (row.to_owned(), false));
        }
    }

    #[test]
    fn card_numbers_are_masked_and_codes_dropped_also_where_the_cells_are_not_those_of_the_header()
    {
        let header = "transaction_id,user_id,amount,timestamp,cvv";
        let (kept, changed) = text(header, "t,4111 1111 1111 1111,1,x,123");
        assert!(changed);
        assert_eq!(kept, "t,4111 11** **** 1111,1,x,");
        // The code is in another column than its name.
        let (kept, changed) = text(header, "t,u,1,560.00,2026-03-01,123");
        assert!(changed && !kept.contains("123"), "{kept}");
    }
}
