//! From the bytes of an object to its rows, each the JSON text of a transaction. No I/O but that of the given reader.
//!
//! Invariant: a malformed row does not affect the others, and no row uses more memory than its limit. Where the rows cannot
//! be separated any more, as after a quotation mark that is not closed, the object fails.

mod csv;
mod inflate;
mod json;
mod ndjson;
mod quotes;
#[cfg(test)]
mod tests;

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;

pub(crate) use self::csv::Columns;
use self::csv::CsvRows;
use self::inflate::Inflater;
pub(crate) use self::inflate::InflationLimits;
use self::json::JsonRows;
use self::ndjson::NdjsonRows;

/// The magic number of gzip: RFC 1952, section 2.3.1.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// The byte order mark of UTF-8.
const UTF8_BOM: &[u8] = b"\xef\xbb\xbf";

/// The format of an object.
#[derive(Debug, Clone)]
pub(crate) enum Format {
    /// One transaction per line, or an array of them, or one indented object after another.
    Ndjson,
    /// A header, then one transaction per record.
    Csv(Arc<Columns>),
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
        let mut raw = BufReader::new(reader);
        let mut reader: Box<dyn BufRead + 'r> = if raw.fill_buf()?.starts_with(&GZIP_MAGIC) {
            Box::new(BufReader::new(Inflater::new(raw, inflation)))
        } else {
            Box::new(raw)
        };
        if reader.fill_buf()?.starts_with(UTF8_BOM) {
            reader.consume(UTF8_BOM.len());
        }
        Ok(match format {
            Format::Ndjson if json::spans_lines(reader.fill_buf()?) => {
                Self::Json(JsonRows::open(reader, max_bytes))
            }
            Format::Ndjson => Self::Ndjson(NdjsonRows::open(reader, max_bytes)),
            Format::Csv(columns) => Self::Csv(Box::new(CsvRows::open(reader, columns, max_bytes)?)),
        })
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
