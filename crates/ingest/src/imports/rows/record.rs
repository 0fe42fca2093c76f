//! Separates the records of CSV (RFC 4180) and the cells of a record. Knows no encoding: the separators are ASCII.
//!
//! Invariant: a quotation mark that is not paired never reads the following rows into one field, which would lose their
//! payments. It ends the object, after the records before it.

use std::borrow::Cow;
use std::io::BufRead;
use std::ops::Range;

use super::RowsError;

/// How much longer a record may be than the transaction in it, in bytes.
const OVERHEAD: usize = 64 * 1024;

/// Why a text is no whole record, where more lines could make it one.
pub(super) const NOT_CLOSED: &str = "a quotation mark is not closed";

/// The state at a byte of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the beginning of a field.
    Begin,
    /// In an unquoted field, in which a quotation mark is a character like any other.
    Plain,
    /// In a quoted field.
    Quoted,
    /// After a quotation mark in a quoted field: the field ends, or the mark is the first half of an escaped one.
    Closing,
}

impl State {
    /// The state after a byte; `None` where text follows a closing quotation mark.
    const fn after(self, byte: u8, delimiter: u8) -> Option<Self> {
        let ends = byte == delimiter || byte == b'\n';
        Some(match self {
            Self::Begin if byte == b'"' => Self::Quoted,
            Self::Begin | Self::Plain if ends => Self::Begin,
            Self::Begin | Self::Plain => Self::Plain,
            Self::Quoted if byte == b'"' => Self::Closing,
            Self::Quoted => Self::Quoted,
            Self::Closing if byte == b'"' => Self::Quoted,
            Self::Closing if ends => Self::Begin,
            // The first half of a CRLF.
            Self::Closing if byte == b'\r' => Self::Closing,
            Self::Closing => return None,
        })
    }
}

/// A record as it was sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// The line at which it begins, from 1.
    pub(super) line: u64,
    /// Its bytes, without the end of its last line.
    pub(super) raw: Vec<u8>,
}

/// Reads the records of an object.
pub(super) struct Records<R> {
    reader: R,
    /// The line that is read next, from 1.
    line: u64,
    limit: usize,
}

impl<R: BufRead> Records<R> {
    /// No record may be larger than `max_bytes` and a constant.
    pub(super) const fn new(reader: R, max_bytes: usize) -> Self {
        Self {
            reader,
            line: 1,
            limit: max_bytes.saturating_add(OVERHEAD),
        }
    }

    /// The next line, whatever quotation marks are in it; `None` at the end.
    pub(super) fn line(&mut self) -> Result<Option<Record>, RowsError> {
        self.read(|byte| Some(byte != b'\n'))
    }

    /// The next record that is not blank, with this delimiter; `None` at the end.
    pub(super) fn record(&mut self, delimiter: u8) -> Result<Option<Record>, RowsError> {
        loop {
            let (begin, mut line) = (self.line, self.line);
            let (mut state, mut opened) = (State::Begin, self.line);
            let mut stray = false;
            let record = self.read(|byte| {
                let Some(next) = state.after(byte, delimiter) else {
                    stray = true;
                    return None;
                };
                if next == State::Quoted && state == State::Begin {
                    opened = line;
                }
                state = next;
                line += u64::from(byte == b'\n');
                Some(state != State::Begin || byte != b'\n')
            })?;
            if stray {
                return Err(RowsError::Unusable(format!(
                    "text follows a closing quotation mark in line {line}; the field began in line {opened}. A quotation mark in a quoted field is doubled (RFC 4180); a backslash does not escape it"
                )));
            }
            if state == State::Quoted {
                return Err(RowsError::Unusable(format!(
                    "the quotation mark in line {opened} is not closed"
                )));
            }
            let Some(record) = record else {
                return Ok(None);
            };
            if !is_blank(&record.raw, delimiter) {
                return Ok(Some(Record {
                    line: begin,
                    ..record
                }));
            }
        }
    }

    /// Reads up to the byte for which `goes_on` is false, which it consumes; `None` from `goes_on` stops before the byte.
    fn read(
        &mut self,
        mut goes_on: impl FnMut(u8) -> Option<bool>,
    ) -> Result<Option<Record>, RowsError> {
        let line = self.line;
        let mut raw = Vec::new();
        let mut any = false;
        loop {
            let chunk = self.reader.fill_buf()?;
            if chunk.is_empty() {
                break;
            }
            any = true;
            let (mut used, mut ended) = (chunk.len(), false);
            for (index, byte) in chunk.iter().enumerate() {
                match goes_on(*byte) {
                    Some(true) => self.line += u64::from(*byte == b'\n'),
                    Some(false) => {
                        self.line += 1;
                        (used, ended) = (index + 1, true);
                        break;
                    }
                    None => {
                        (used, ended) = (index, true);
                        break;
                    }
                }
            }
            raw.extend_from_slice(&chunk[..used]);
            self.reader.consume(used);
            if raw.len() > self.limit {
                return Err(RowsError::Unusable(format!(
                    "the record in line {line} is too long; a quotation mark may not be closed"
                )));
            }
            if ended {
                break;
            }
        }
        if raw.ends_with(b"\n") {
            raw.pop();
        }
        if raw.ends_with(b"\r") {
            raw.pop();
        }
        Ok(any.then_some(Record { line, raw }))
    }
}

/// Whether a record has nothing but separators: a blank line, or the empty cells that spreadsheets write below a table.
pub(super) fn is_blank(raw: &[u8], delimiter: u8) -> bool {
    raw.iter()
        .all(|byte| *byte == delimiter || matches!(byte, b' ' | b'\t' | b'\r' | b'"'))
}

/// Where the cells of a record stand in it, with their quotation marks.
///
/// # Errors
/// The quotation marks do not pair, or it is more than one record.
pub(super) fn cells(raw: &[u8], delimiter: u8) -> Result<Vec<Range<usize>>, &'static str> {
    let mut cells = Vec::new();
    let (mut state, mut begin) = (State::Begin, 0);
    for (index, byte) in raw.iter().enumerate() {
        state = state
            .after(*byte, delimiter)
            .ok_or("text follows a closing quotation mark")?;
        if state == State::Begin {
            if *byte != delimiter {
                return Err("it is more than one record");
            }
            cells.push(begin..index);
            begin = index + 1;
        }
    }
    if state == State::Quoted {
        return Err(NOT_CLOSED);
    }
    cells.push(begin..raw.len());
    Ok(cells)
}

/// The content of a cell.
pub(super) fn content(cell: &[u8]) -> Cow<'_, [u8]> {
    let Some(inner) = cell.strip_prefix(b"\"") else {
        return Cow::Borrowed(cell);
    };
    let end = inner.iter().rposition(|byte| *byte == b'"');
    let inner = &inner[..end.unwrap_or(inner.len())];
    if !inner.contains(&b'"') {
        return Cow::Borrowed(inner);
    }
    let mut plain = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        plain.push(*byte);
        if *byte == b'"' {
            // The second half of an escaped quotation mark.
            bytes.next();
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(text: &str) -> (Vec<(u64, Vec<String>)>, Option<String>) {
        let mut records = Records::new(text.as_bytes(), 1_000);
        let mut found = Vec::new();
        loop {
            match records.record(b',') {
                Ok(Some(Record { line, raw })) => {
                    let cells = cells(&raw, b',').unwrap();
                    let text = |range: Range<usize>| {
                        String::from_utf8(content(&raw[range]).into_owned()).unwrap()
                    };
                    found.push((line, cells.into_iter().map(text).collect()));
                }
                Ok(None) => return (found, None),
                Err(error) => return (found, Some(error.to_string())),
            }
        }
    }

    #[test]
    fn quotation_marks_that_do_not_pair_are_reported_with_their_line_after_the_records_before_them()
    {
        for good in [
            "a,b\r\n1,2\r\n",
            "\"a\",\"b \"\"c\"\" \n d\"\r\n1,\"\"\n",
            "12\" inch,5'9\"\n",
            "\"x\"",
            "",
        ] {
            assert_eq!(all(good).1, None, "{good:?}");
        }
        let (before, error) = all("a,b\n1,\"12 inch\n2,x\n");
        assert_eq!(before.len(), 1);
        assert_eq!(error.unwrap(), "the quotation mark in line 2 is not closed");
        let (before, error) = all("a,b\n1,\"12 inch\n2,x\n3,\"5 inch\n");
        assert_eq!(before.len(), 1);
        let error = error.unwrap();
        assert!(
            error.starts_with(
                "text follows a closing quotation mark in line 4; the field began in line 2"
            ),
            "{error}"
        );
        assert!(all("\"x\"y,1\n").1.is_some());
    }

    #[test]
    fn blank_lines_and_rows_of_empty_cells_are_no_records_and_count_as_lines() {
        let (found, _) = all("a,b\n\n\r\n,,\n1,\"x\ny\"\n2,z");
        let lines: Vec<u64> = found.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 5, 7]);
    }

    proptest! {
        #[test]
        fn the_output_of_a_csv_writer_is_read_as_it_was_written(
            rows in prop::collection::vec(prop::collection::vec("[a\",\n\r é]{0,8}", 1..4), 1..8)
        ) {
            let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
            for row in &rows {
                writer.write_record(row).unwrap();
            }
            let text = String::from_utf8(writer.into_inner().unwrap()).unwrap();
            let (found, error) = all(&text);
            prop_assert_eq!(error, None, "{:?}", text);
            let found: Vec<Vec<String>> = found.into_iter().map(|(_, cells)| cells).collect();
            let blank = |row: &Vec<String>| row.iter().all(|cell| cell.bytes().all(|byte| b" \",\r".contains(&byte)));
            let rows: Vec<Vec<String>> = rows.into_iter().filter(|row| !blank(row)).collect();
            let found: Vec<Vec<String>> = found.into_iter().filter(|row| !blank(row)).collect();
            prop_assert_eq!(found, rows);
        }
    }
}
