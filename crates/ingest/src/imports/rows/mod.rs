//! From the bytes of an object to its rows, each the JSON text of a transaction. No I/O but that of the given reader.
//!
//! Invariant: a malformed row does not affect the others, and no row uses more memory than its limit. Where the rows cannot
//! be separated any more, as after a quotation mark that is not closed, the object fails.

mod convert;
mod csv;
mod dialect;
#[cfg(test)]
mod exports;
mod header;
mod inflate;
mod json;
mod letter;
mod ndjson;
mod numbers;
mod record;
#[cfg(test)]
mod tests;
mod times;

use std::io::{self, BufRead, Read};
use std::sync::Arc;

use encoding_rs::{Encoding, UTF_16BE, UTF_16LE};

use self::convert::{CrReader, Utf16Reader, buffered, has_bare_cr};
use self::csv::CsvRows;
pub(crate) use self::csv::{CsvForm, RowReader};
pub(crate) use self::dialect::{Dialect, ValueForms, WrongSetting};
use self::inflate::Inflater;
pub(crate) use self::inflate::InflationLimits;
use self::json::JsonRows;
pub(crate) use self::letter::kept;
use self::ndjson::NdjsonRows;

/// The magic number of gzip: RFC 1952, section 2.3.1.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The format of an object.
#[derive(Debug, Clone)]
pub(crate) enum Format {
    /// One transaction per line, or an array of them, or one indented object after another.
    Ndjson,
    /// A header, then one transaction per record.
    Csv(Arc<Dialect>),
}

/// Why reading an object stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowsError {
    /// The object cannot be imported. Another attempt would fail in the same way.
    #[error("{0}")]
    Unusable(String),
    /// The store failed. Another attempt may succeed.
    #[error("{0}")]
    Broken(io::Error),
}

impl From<io::Error> for RowsError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // The decompressor's errors for damaged data.
            io::ErrorKind::InvalidInput
            | io::ErrorKind::InvalidData
            | io::ErrorKind::UnexpectedEof => {
                Self::Unusable(format!("the object is damaged: {error}"))
            }
            _ => Self::Broken(error),
        }
    }
}

/// A row of an object.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// The line at which the row begins, from 1.
    pub(crate) line: u64,
    /// The JSON text of the transaction.
    pub(crate) text: Vec<u8>,
    /// The row as it was sent, where that is not the JSON text.
    pub(crate) sent: Option<Vec<u8>>,
    /// How many bytes the row has, where the text was cut.
    pub(crate) cut_from: Option<u64>,
    /// Why the row is malformed, if it is.
    pub(crate) wrong: Option<String>,
}

/// The rows of an object, in their order.
pub(crate) enum Rows<'r> {
    /// Of an NDJSON object.
    Ndjson(NdjsonRows<'r>),
    /// Of an object that is a JSON array, or has indented JSON.
    Json(JsonRows<'r>),
    /// Of a CSV object.
    Csv(Box<CsvRows<'r>>),
}

impl<'r> Rows<'r> {
    /// Opens an object, compressed with gzip or not. No row may be larger than `max_bytes`.
    ///
    /// # Errors
    /// The object cannot be read, or its header is unusable.
    pub(crate) fn open(
        format: &Format,
        reader: impl Read + 'r,
        max_bytes: usize,
        inflation: InflationLimits,
    ) -> Result<Self, RowsError> {
        let mut raw = buffered(reader);
        let mut reader: Box<dyn BufRead + 'r> = if raw.fill_buf()?.starts_with(&GZIP_MAGIC) {
            buffered(Inflater::new(raw, inflation))
        } else {
            raw
        };
        // A byte order mark of UTF-16 is as clear as a setting.
        let begin = reader.fill_buf()?;
        let (marked, length) = match Encoding::for_bom(begin) {
            Some((encoding, length)) => (Some(encoding), length),
            None => (None, 0),
        };
        reader.consume(length);
        let given = match format {
            Format::Csv(dialect) => Some(dialect.encoding()),
            Format::Ndjson => None,
        };
        let utf_16 = [UTF_16LE, UTF_16BE];
        if let Some(encoding) = marked.or(given).filter(|found| utf_16.contains(found)) {
            reader = buffered(Utf16Reader::new(reader, encoding));
        }
        Ok(match format {
            Format::Ndjson if json::spans_lines(reader.fill_buf()?) => {
                Self::Json(JsonRows::open(reader, max_bytes))
            }
            Format::Ndjson => Self::Ndjson(NdjsonRows::open(reader, max_bytes)),
            Format::Csv(dialect) => {
                if has_bare_cr(reader.fill_buf()?) {
                    reader = buffered(CrReader(reader));
                }
                Self::Csv(Box::new(CsvRows::open(reader, dialect, max_bytes)?))
            }
        })
    }

    /// What reads a row of this object again, where its text is not the row itself.
    pub(crate) fn reader(&self) -> Option<&Arc<RowReader>> {
        match self {
            Self::Ndjson(_) | Self::Json(_) => None,
            Self::Csv(rows) => Some(rows.reader()),
        }
    }

    /// The next row; `None` at the end.
    ///
    /// # Errors
    /// The object cannot be read any further.
    pub(crate) fn next(&mut self) -> Result<Option<Row>, RowsError> {
        match self {
            Self::Ndjson(rows) => rows.next(),
            Self::Json(rows) => rows.next(),
            Self::Csv(rows) => rows.next(),
        }
    }
}
