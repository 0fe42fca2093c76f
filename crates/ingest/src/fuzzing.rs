//! For the fuzz targets in `tests/fuzz` only: the parsers of what callers, event senders and writers of objects send.
//! They are private otherwise, because nothing but ingest should depend on them.

use std::collections::BTreeMap;
use std::sync::Arc;

use tollgate_types::{Rejection, Timestamp, Transaction, UserIdCase};

use crate::imports::rows::{
    Dialect, Format as RowFormat, InflationLimits, RowReader, Rows, RowsError, ValueForms,
};
use crate::items::{self, Format, ItemLimits};
use crate::sent::{Payload, PayloadFormat};
use crate::{events, functions};

/// The largest item, in bytes.
pub const MAX_ITEM_BYTES: usize = 4096;
/// The most items of a body.
pub const MAX_ITEMS: usize = 64;

const LIMITS: ItemLimits = ItemLimits {
    max_bytes: MAX_ITEM_BYTES,
    now_micros: i64::MAX,
    oldest_micros: None,
    earliest: Timestamp::YEAR_2000,
    user_id_case: UserIdCase::Keep,
};

const INFLATION: InflationLimits = InflationLimits {
    ratio: 100,
    max_bytes: 64 * 1024 * 1024,
};

/// The items of a body, or why it cannot be split into items.
///
/// # Errors
/// As the caller gets it.
pub fn body(ndjson: bool, body: &[u8]) -> Result<Vec<Result<Transaction<'_>, Rejection>>, String> {
    let format = if ndjson { Format::Ndjson } else { Format::Json };
    let items = items::split(format, body, MAX_ITEMS).map_err(|error| error.to_string())?;
    Ok(items.into_iter().map(item).collect())
}

/// One item, as a request, an event or a row contains it.
///
/// # Errors
/// The member at fault and the reason.
pub fn item(text: &[u8]) -> Result<Transaction<'_>, Rejection> {
    items::validate(text, LIMITS)
}

/// A row of an object.
#[derive(Debug)]
pub struct ObjectRow {
    /// The line at which it begins, from 1.
    pub line: u64,
    /// The JSON text of the transaction.
    pub text: Vec<u8>,
    /// Whether it is malformed.
    pub is_malformed: bool,
    /// What a dead letter of it holds: the format and the bytes that were sent.
    pub letter: (String, Vec<u8>),
}

/// How a CSV object is written.
#[derive(Debug, Default, Clone)]
pub struct CsvSettings {
    /// The delimiter.
    pub delimiter: Option<char>,
    /// Lines before the header.
    pub skip_lines: u32,
    /// What stands before decimals.
    pub decimal: Option<char>,
    /// What stands between groups of digits.
    pub grouping: Option<char>,
    /// The zone of local times.
    pub time_zone: Option<String>,
    /// The encoding.
    pub encoding: Option<String>,
}

/// The rows of an object, NDJSON without settings, up to where it cannot be read any further.
#[must_use]
pub fn rows(csv: Option<CsvSettings>, object: &[u8]) -> Vec<ObjectRow> {
    let mut rows = Vec::new();
    let read = || {
        let format = match csv {
            None => RowFormat::Ndjson,
            Some(settings) => {
                let forms = ValueForms {
                    decimal: settings.decimal,
                    grouping: settings.grouping,
                    timestamp_format: None,
                    time_zone: settings.time_zone,
                    encoding: settings.encoding,
                };
                let (delimiter, skip_lines) = (settings.delimiter, settings.skip_lines);
                let dialect = Dialect::new(BTreeMap::new(), delimiter, skip_lines, forms);
                RowFormat::Csv(Arc::new(
                    dialect.map_err(|wrong| RowsError::Unusable(wrong.reason.to_owned()))?,
                ))
            }
        };
        let mut object = Rows::open(&format, object, MAX_ITEM_BYTES, INFLATION)?;
        let payload = match object.reader().map(|reader| RowReader::form(reader)) {
            Some(form) => Payload::Csv(form.clone()),
            None => Payload::Json,
        };
        let format = PayloadFormat::new(payload, UserIdCase::Keep).to_string();
        while let Some(row) = object.next()? {
            let sent = row.sent.unwrap_or_else(|| row.text.clone());
            rows.push(ObjectRow {
                line: row.line,
                text: row.text,
                is_malformed: row.wrong.is_some(),
                letter: (format.clone(), sent),
            });
        }
        Ok(())
    };
    let _stopped: Result<(), RowsError> = read();
    rows
}

/// The texts of the transactions of the events of a request in structured mode.
///
/// # Errors
/// As the caller gets it.
pub fn events(body: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    events::texts(body, MAX_ITEMS)
}

/// The texts of the transactions in a batch of messages, as a function receives it.
///
/// # Errors
/// As the caller gets it.
pub fn messages(body: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    functions::texts(body, MAX_ITEMS)
}
