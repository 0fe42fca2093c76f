//! From the bytes of an object to its rows, each the JSON text of a transaction. Pure, but for what the reader does.
//!
//! Invariant: a row that breaks a rule takes no other with it, and no row, however long, costs more than its limit. Where
//! no row can be told from the next any more, as behind a quotation mark that is not closed, the object ends.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use serde_json::{Map, Value};

use super::quotes::Quotes;

/// What gzip begins with: RFC 1952, section 2.3.1.
const GZIP: [u8; 2] = [0x1f, 0x8b];
const MARK: &[u8] = b"\xef\xbb\xbf";
/// Members without which no row can be a transaction.
const REQUIRED: [&str; 4] = ["transaction_id", "user_id", "amount", "timestamp"];

/// How rows stand in an object.
#[derive(Debug, Clone)]
pub(crate) enum Format {
    Ndjson,
    Csv(Arc<Columns>),
}

/// Which column is which member.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Columns {
    delimiter: u8,
    /// Column to member.
    members: BTreeMap<String, String>,
}

impl Columns {
    /// `columns`: member to column.
    pub(super) fn new(columns: &BTreeMap<String, String>, delimiter: u8) -> Self {
        let members = columns
            .iter()
            .map(|(member, column)| (column.clone(), member.clone()));
        Self {
            delimiter,
            members: members.collect(),
        }
    }

    /// The member of each column. A column that is not mapped has the name of its member.
    fn of(&self, header: &[String]) -> Result<Vec<String>, RowsError> {
        let members: Vec<String> = header
            .iter()
            .map(|column| self.members.get(column).unwrap_or(column).clone())
            .collect();
        for (index, member) in members.iter().enumerate() {
            if let Some(first) = members[..index].iter().position(|other| other == member) {
                return Err(RowsError::Unusable(format!(
                    "the columns {} and {} would both be {member}; ingest.sources[].columns maps them",
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
                    "the header has no column {column}, which is to hold {required}; ingest.sources[].columns maps them"
                )));
            }
        }
        Ok(members)
    }
}

/// Why an object is read no further.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowsError {
    /// It will be the same at the next attempt.
    #[error("{0}")]
    Unusable(String),
    /// The store broke off.
    #[error("{0}")]
    Broken(io::Error),
}

impl From<io::Error> for RowsError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // What the decompressor says of data that is none.
            io::ErrorKind::InvalidInput
            | io::ErrorKind::InvalidData
            | io::ErrorKind::UnexpectedEof => {
                Self::Unusable(format!("the object is damaged: {error}"))
            }
            _ => Self::Broken(error),
        }
    }
}

/// A row: where it begins, and its text or what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Counted from 1.
    pub(crate) line: u64,
    pub(crate) text: Vec<u8>,
    /// Why the text is no row, where it is not.
    pub(crate) wrong: Option<String>,
}

/// The rows of an object, one after the other.
pub(crate) struct Rows<'r> {
    inner: Inner<'r>,
    max_bytes: usize,
}

enum Inner<'r> {
    Lines {
        reader: Box<dyn BufRead + 'r>,
        line: u64,
    },
    Csv {
        reader: Box<csv::Reader<Limited<Box<dyn BufRead + 'r>>>>,
        members: Vec<String>,
    },
}

impl<'r> Rows<'r> {
    /// `max_bytes`: longest row.
    pub(crate) fn of(
        format: &Format,
        reader: impl Read + 'r,
        max_bytes: usize,
    ) -> Result<Self, RowsError> {
        let mut raw = BufReader::new(reader);
        let mut reader: Box<dyn BufRead + 'r> = if raw.fill_buf()?.starts_with(&GZIP) {
            Box::new(BufReader::new(MultiGzDecoder::new(raw)))
        } else {
            Box::new(raw)
        };
        if reader.fill_buf()?.starts_with(MARK) {
            reader.consume(MARK.len());
        }
        let inner = match format {
            Format::Ndjson => Inner::Lines { reader, line: 0 },
            Format::Csv(columns) => {
                let mut reader = csv::ReaderBuilder::new()
                    .delimiter(columns.delimiter)
                    .flexible(true)
                    // Or a line that ends in two characters would be counted with the next one; the first of them is
                    // trimmed off with other white space.
                    .terminator(csv::Terminator::Any(b'\n'))
                    .from_reader(Limited::new(reader, max_bytes, columns.delimiter));
                let header = reader.headers().map_err(csv_error)?;
                let header: Vec<String> =
                    header.iter().map(|name| name.trim().to_owned()).collect();
                Inner::Csv {
                    members: columns.of(&header)?,
                    reader: Box::new(reader),
                }
            }
        };
        Ok(Self { inner, max_bytes })
    }

    /// The next row; none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Row>, RowsError> {
        match &mut self.inner {
            Inner::Lines { reader, line } => loop {
                *line += 1;
                let Some((text, cut)) = next_line(reader, self.max_bytes)? else {
                    return Ok(None);
                };
                if text.trim_ascii().is_empty() && !cut {
                    continue;
                }
                let wrong = cut.then(|| format!("is larger than {} bytes", self.max_bytes));
                return Ok(Some(Row {
                    line: *line,
                    text: text.trim_ascii().to_vec(),
                    wrong,
                }));
            },
            Inner::Csv { reader, members } => {
                let mut record = csv::ByteRecord::new();
                // What is left of a blank line whose end has two characters is no row.
                while record.is_empty() || record.len() == 1 && record[0].trim_ascii().is_empty() {
                    reader.get_mut().renew();
                    if !reader.read_byte_record(&mut record).map_err(csv_error)? {
                        return Ok(None);
                    }
                }
                let line = record.position().map_or(0, csv::Position::line);
                Ok(Some(row_of(line, members, &record)))
            }
        }
    }
}

/// A line without its end, and whether it was longer than it may: then only its beginning is given.
fn next_line(reader: &mut impl BufRead, max: usize) -> io::Result<Option<(Vec<u8>, bool)>> {
    let mut text = Vec::new();
    let (mut any, mut cut) = (false, false);
    loop {
        let chunk = reader.fill_buf()?;
        if chunk.is_empty() {
            return Ok(any.then_some((text, cut)));
        }
        any = true;
        let end = memchr::memchr(b'\n', chunk);
        let part = &chunk[..end.unwrap_or(chunk.len())];
        let room = max.saturating_sub(text.len());
        cut |= part.len() > room;
        text.extend_from_slice(&part[..part.len().min(room)]);
        let used = end.map_or(chunk.len(), |end| end + 1);
        reader.consume(used);
        if end.is_some() {
            return Ok(Some((text, cut)));
        }
    }
}

fn row_of(line: u64, members: &[String], record: &csv::ByteRecord) -> Row {
    let mut object = Map::new();
    let mut location = Map::new();
    let mut wrong = (record.len() != members.len()).then(|| {
        let (found, expected) = (record.len(), members.len());
        format!("has {found} fields, and the header {expected}")
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
            // What is no number is refused as such, by its name.
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
        _ => RowsError::Unusable("the object is no CSV".to_owned()),
    }
}

/// Ends where no row can be told from the next any more, and where a record would never end.
struct Limited<R> {
    reader: R,
    quotes: Quotes,
    limit: usize,
    left: usize,
}

/// What the parser reads ahead.
const AHEAD: usize = 64 * 1024;

impl<R> Limited<R> {
    fn new(reader: R, max_bytes: usize, delimiter: u8) -> Self {
        let limit = max_bytes.saturating_add(AHEAD);
        Self {
            reader,
            quotes: Quotes::new(delimiter),
            limit,
            left: limit,
        }
    }

    fn renew(&mut self) {
        self.left = self.limit;
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let reason = "a record is too long; a quotation mark may not be closed";
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        let most = buffer.len().min(self.left);
        let read = self.reader.read(&mut buffer[..most])?;
        self.left -= read;
        let paired = match read {
            0 => self.quotes.end(),
            _ => self.quotes.read(&buffer[..read]),
        };
        paired.map_err(|reason| io::Error::new(io::ErrorKind::InvalidData, reason))?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    fn csv(columns: &[(&str, &str)]) -> Format {
        let columns = columns
            .iter()
            .map(|(member, column)| ((*member).to_owned(), (*column).to_owned()));
        Format::Csv(Arc::new(Columns::new(&columns.collect(), b',')))
    }

    fn all(format: &Format, bytes: &[u8]) -> Result<Vec<Row>, RowsError> {
        let mut rows = Rows::of(format, bytes, 200)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(row);
        }
        Ok(found)
    }

    fn texts(rows: &[Row]) -> Vec<(u64, String)> {
        rows.iter()
            .map(|row| (row.line, String::from_utf8(row.text.clone()).unwrap()))
            .collect()
    }

    const CSV: &str = "\u{feff}Txn,user_id,Amt,timestamp,Lat,longitude,note\r\nt1,u,10.50,2026-01-01,52.5,13.4,\"a, \"\"b\"\"\nc\"\r\n\r\nt2,u,1,2026-01-01,,,\r\nt3,u,1\r\n";

    #[test]
    fn columns_become_members_under_the_names_of_the_mapping() {
        let format = csv(&[
            ("transaction_id", "Txn"),
            ("amount", "Amt"),
            ("latitude", "Lat"),
        ]);
        let rows = all(&format, CSV.as_bytes()).unwrap();
        let found: Vec<Value> = rows
            .iter()
            .map(|row| serde_json::from_slice(&row.text).unwrap())
            .collect();
        let expected = serde_json::json!({
            "transaction_id": "t1", "user_id": "u", "amount": "10.50", "timestamp": "2026-01-01",
            "location": {"latitude": 52.5, "longitude": 13.4}, "note": "a, \"b\"\nc",
        });
        assert_eq!(found[0], expected);
        assert_eq!(found[1].get("location"), None);
        let lines: Vec<u64> = rows.iter().map(|row| row.line).collect();
        assert_eq!(lines, [2, 5, 6]);
        assert_eq!(
            rows[2].wrong.as_deref(),
            Some("has 3 fields, and the header 7")
        );
    }

    #[test]
    fn a_header_without_a_column_that_is_needed_names_it() {
        let error = all(
            &csv(&[("amount", "Amt")]),
            b"transaction_id,user_id,timestamp\n",
        )
        .unwrap_err()
        .to_string();
        assert!(
            error.contains("no column Amt, which is to hold amount"),
            "{error}"
        );
    }

    #[test]
    fn lines_keep_their_numbers_and_one_that_is_too_long_takes_no_other_with_it() {
        let text = format!("{{\"a\":1}}\n\n{}\n{{\"b\":2}}", "x".repeat(500));
        let rows = all(&Format::Ndjson, text.as_bytes()).unwrap();
        let lines: Vec<u64> = rows.iter().map(|row| row.line).collect();
        assert_eq!(lines, [1, 3, 4]);
        assert_eq!((rows[1].text.len(), rows[1].wrong.is_some()), (200, true));
        assert_eq!(rows[2].text, b"{\"b\":2}");
    }

    #[test]
    fn a_quotation_mark_that_is_not_closed_ends_the_object_and_not_the_memory() {
        let text = format!(
            "transaction_id,user_id,amount,timestamp\n\"{}",
            "x".repeat(200_000)
        );
        assert!(matches!(
            all(&csv(&[]), text.as_bytes()),
            Err(RowsError::Unusable(_))
        ));
    }

    #[test]
    fn a_mark_that_is_not_closed_takes_no_row_into_a_field() {
        let header = "transaction_id,user_id,amount,timestamp,note\n";
        for stray in [vec![50], vec![20, 70]] {
            let rows: String = (0..100)
                .map(|row| {
                    format!(
                        "t{row},u,1,2026-01-01,{}\n",
                        if stray.contains(&row) {
                            "\"12 inch"
                        } else {
                            "x"
                        }
                    )
                })
                .collect();
            let found = all(&csv(&[]), format!("{header}{rows}").as_bytes());
            assert!(matches!(found, Err(RowsError::Unusable(_))), "{found:?}");
        }
    }

    #[test]
    fn an_object_that_was_cut_off_is_damaged_and_not_to_be_read_again() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(CSV.repeat(100).as_bytes()).unwrap();
        let packed = encoder.finish().unwrap();
        let cut = all(&Format::Ndjson, &packed[..packed.len() / 2]);
        assert!(matches!(cut, Err(RowsError::Unusable(_))), "{cut:?}");
    }

    #[test]
    fn two_columns_for_one_member_are_refused_by_their_names() {
        let format = csv(&[("amount", "amount_usd")]);
        let header = b"transaction_id,user_id,amount,amount_usd,timestamp\n";
        let error = all(&format, header).unwrap_err().to_string();
        assert!(
            error.contains("amount and amount_usd would both be amount"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn gzip_changes_nothing(lines in prop::collection::vec("[a-z{}\" ]{0,40}", 0..30)) {
            let plain = lines.join("\n");
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(plain.as_bytes()).unwrap();
            let packed = encoder.finish().unwrap();
            let rows = all(&Format::Ndjson, plain.as_bytes()).unwrap();
            prop_assert_eq!(texts(&rows), texts(&all(&Format::Ndjson, &packed).unwrap()));
        }

        #[test]
        fn no_object_panics(bytes in prop::collection::vec(any::<u8>(), 0..400), as_csv: bool, header: bool) {
            let format = if as_csv { csv(&[]) } else { Format::Ndjson };
            let mut object = Vec::new();
            if header {
                object.extend_from_slice(b"transaction_id,user_id,amount,timestamp\n");
            }
            object.extend_from_slice(&bytes);
            let _ = all(&format, &object);
        }
    }
}
