//! Rows of a CSV object with a header (RFC 4180).

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufRead, Read};

use serde_json::{Map, Value};

use super::quotes::QuoteChecker;
use super::{Row, RowsError};

/// Members without which no row can be a transaction.
const REQUIRED: [&str; 4] = ["transaction_id", "user_id", "amount", "timestamp"];

/// The most columns of an object.
const MAX_COLUMNS: usize = 1_024;
/// The most bytes of all names of columns together: each row has them in its JSON.
const MAX_NAMES_BYTES: usize = 32 * 1024;

/// The delimiter of an object, and the mapping from its columns to the members of a transaction.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Columns {
    delimiter: u8,
    /// The member of a mapped column.
    members: BTreeMap<String, String>,
}

impl Columns {
    /// `columns` maps members to columns.
    pub(crate) fn new(columns: &BTreeMap<String, String>, delimiter: u8) -> Self {
        let members = columns
            .iter()
            .map(|(member, column)| (column.clone(), member.clone()));
        Self {
            delimiter,
            members: members.collect(),
        }
    }

    /// The member of each column of the header. A column that is not mapped has the name of its member.
    fn of(&self, header: &[String]) -> Result<Vec<String>, RowsError> {
        let members: Vec<String> = header
            .iter()
            .map(|column| self.members.get(column).unwrap_or(column).clone())
            .collect();
        let mut seen = HashMap::new();
        for (index, member) in members.iter().enumerate() {
            if let Some(first) = seen.insert(member, index) {
                return Err(RowsError::Unusable(format!(
                    "the columns {} and {} both map to {member}; see ingest.sources[].columns",
                    header[first], header[index]
                )));
            }
        }
        for required in REQUIRED {
            if !members.iter().any(|member| member == required) {
                let mut named = self.members.iter();
                let column = named
                    .find_map(|(column, member)| (member == required).then_some(column.as_str()));
                let column = column.unwrap_or(required);
                return Err(RowsError::Unusable(format!(
                    "the header has no column {column} for the member {required}; see ingest.sources[].columns"
                )));
            }
        }
        Ok(members)
    }
}

/// Reads the records of a CSV object.
pub(crate) struct CsvRows<'r> {
    reader: csv::Reader<RecordLimit<Box<dyn BufRead + 'r>>>,
    members: Vec<String>,
}

impl<'r> CsvRows<'r> {
    /// Reads the header.
    pub(super) fn open(
        reader: Box<dyn BufRead + 'r>,
        columns: &Columns,
        max_bytes: usize,
    ) -> Result<Self, RowsError> {
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(columns.delimiter)
            .flexible(true)
            // With CRLF as the terminator a line would be counted together with the next one. The CR is trimmed with
            // other white space.
            .terminator(csv::Terminator::Any(b'\n'))
            .from_reader(RecordLimit::new(reader, max_bytes, columns.delimiter));
        let header = reader.headers().map_err(csv_error)?;
        if header.len() > MAX_COLUMNS {
            let found = header.len();
            return Err(RowsError::Unusable(format!(
                "the header has {found} columns; at most {MAX_COLUMNS} columns are read"
            )));
        }
        if header.as_slice().len() > MAX_NAMES_BYTES {
            return Err(RowsError::Unusable(format!(
                "the names of the columns are longer than {MAX_NAMES_BYTES} bytes"
            )));
        }
        let header: Vec<String> = header.iter().map(|name| name.trim().to_owned()).collect();
        Ok(Self {
            members: columns.of(&header)?,
            reader,
        })
    }

    /// The next record; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Row>, RowsError> {
        let mut record = csv::ByteRecord::new();
        // The CR of a blank line is not a record.
        while record.is_empty() || record.len() == 1 && record[0].trim_ascii().is_empty() {
            self.reader.get_mut().reset();
            if !self
                .reader
                .read_byte_record(&mut record)
                .map_err(csv_error)?
            {
                return Ok(None);
            }
        }
        let line = record.position().map_or(0, csv::Position::line);
        Ok(Some(row_of(line, &self.members, &record)))
    }
}

fn row_of(line: u64, members: &[String], record: &csv::ByteRecord) -> Row {
    let mut object = Map::new();
    let mut location = Map::new();
    let mut wrong = (record.len() != members.len()).then(|| {
        let (found, expected) = (record.len(), members.len());
        format!("has {found} fields, but the header has {expected}")
    });
    for (member, field) in members.iter().zip(record) {
        let text = match std::str::from_utf8(field) {
            Ok(text) => text.trim(),
            Err(_) => {
                wrong.get_or_insert_with(|| format!("{member}: is not UTF-8"));
                continue;
            }
        };
        if text.is_empty() {
            continue;
        }
        if member == "latitude" || member == "longitude" {
            // A coordinate that is not a number stays text, and is rejected by the name of its member.
            let number = serde_json::from_str(text)
                .ok()
                .filter(Value::is_number)
                .unwrap_or_else(|| text.into());
            location.insert(member.clone(), number);
        } else {
            object.insert(member.clone(), text.into());
        }
    }
    if !location.is_empty() {
        object.insert("location".to_owned(), Value::Object(location));
    }
    Row {
        line,
        text: Value::Object(object).to_string().into_bytes(),
        wrong,
    }
}

fn csv_error(error: csv::Error) -> RowsError {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error.into(),
        csv::ErrorKind::Utf8 { .. } => RowsError::Unusable("the header is not UTF-8".to_owned()),
        _ => RowsError::Unusable("the object is not CSV".to_owned()),
    }
}

/// Fails where the rows cannot be separated any more, or where a record is too long.
struct RecordLimit<R> {
    reader: R,
    quotes: QuoteChecker,
    limit: usize,
    left: usize,
}

/// How many bytes the parser reads ahead.
const READ_AHEAD: usize = 64 * 1024;

impl<R> RecordLimit<R> {
    fn new(reader: R, max_bytes: usize, delimiter: u8) -> Self {
        let limit = max_bytes.saturating_add(READ_AHEAD);
        Self {
            reader,
            quotes: QuoteChecker::new(delimiter),
            limit,
            left: limit,
        }
    }

    /// Begins a new record.
    fn reset(&mut self) {
        self.left = self.limit;
    }
}

impl<R: Read> Read for RecordLimit<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let reason = "a record is too long; a quotation mark may not be closed";
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        let most = buffer.len().min(self.left);
        let read = self.reader.read(&mut buffer[..most])?;
        self.left -= read;
        let paired = match read {
            0 => self.quotes.check_end(),
            _ => self.quotes.check(&buffer[..read]),
        };
        paired.map_err(|reason| io::Error::new(io::ErrorKind::InvalidData, reason))?;
        Ok(read)
    }
}
