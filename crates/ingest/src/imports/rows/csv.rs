//! Rows of a CSV object with a header (RFC 4180), in the dialect of its source.
//!
//! Invariant: no row is read with another form of numbers than the rows around it. Where no setting names the form, the
//! amounts of a mebibyte of rows ahead are looked at before a row is returned.

use std::collections::{BTreeMap, VecDeque};
use std::io::BufRead;
use std::ops::Range;
use std::sync::Arc;

use encoding_rs::{UTF_8, UTF_16BE, UTF_16LE};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::dialect::{Dialect, ValueForms, Values, WrongSetting};
use super::header::{self, COORDINATES};
use super::numbers::{self, Evidence, Form};
use super::record::{NOT_CLOSED, Record, Records, cells, content, is_blank};
use super::{Row, RowsError};

/// How far ahead amounts are looked at, in bytes of rows.
const LOOK_AHEAD: usize = 1024 * 1024;
/// The longest header, in bytes.
const MAX_HEADER_BYTES: usize = 128 * 1024;
/// How many lines are searched for a header that is not the first one, for the message.
const SEARCHED_LINES: u32 = 30;

/// What is needed to read a row of an object: a dead letter keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CsvForm {
    /// The names of the columns.
    pub(super) header: Vec<String>,
    pub(super) delimiter: char,
    /// The column of each member that is not named as its column.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) columns: BTreeMap<String, String>,
    #[serde(flatten)]
    pub(super) values: ValueForms,
}

impl CsvForm {
    pub(crate) const fn new(
        header: Vec<String>,
        delimiter: char,
        columns: BTreeMap<String, String>,
        values: ValueForms,
    ) -> Self {
        Self {
            header,
            delimiter,
            columns,
            values,
        }
    }

    /// The same with other names of columns.
    pub(crate) fn with_names(&self, change: impl Fn(&str) -> String) -> Self {
        Self {
            header: self.header.iter().map(|name| change(name)).collect(),
            ..self.clone()
        }
    }
}

/// Reads rows in their form.
#[derive(Debug)]
pub(crate) struct RowReader {
    form: CsvForm,
    delimiter: u8,
    members: Vec<Option<String>>,
    values: Values,
}

impl RowReader {
    /// # Errors
    /// Why no row can be read in this form.
    pub(crate) fn new(form: CsvForm) -> Result<Self, String> {
        let delimiter = u8::try_from(form.delimiter)
            .map_err(|_| "the delimiter is not an ASCII character".to_owned())?;
        let values = Values::new(form.values.clone(), Some(delimiter))
            .map_err(|WrongSetting { name, reason }| format!("{name} {reason}"))?;
        header::bounded(&form.header).map_err(|error| error.to_string())?;
        Ok(Self {
            members: header::members(&form.header, &form.columns)?,
            delimiter,
            values,
            form,
        })
    }

    pub(crate) const fn form(&self) -> &CsvForm {
        &self.form
    }

    /// The names of each column: its own, and that of its member.
    pub(super) fn columns(&self) -> impl Iterator<Item = [&str; 2]> {
        let columns = self.form.header.iter().zip(&self.members);
        columns.map(|(name, member)| [name, member.as_deref().unwrap_or_default()])
    }

    /// Where the cells of a row stand in it.
    pub(super) fn cells(&self, raw: &[u8]) -> Result<Vec<Range<usize>>, &'static str> {
        cells(raw, self.delimiter)
    }

    /// The row of a record.
    pub(crate) fn row(&self, line: u64, raw: Vec<u8>) -> Row {
        self.read(line, raw).0
    }

    /// The row of a record, and the form of its amount if it is one of a payment.
    fn read(&self, line: u64, raw: Vec<u8>) -> (Row, Form) {
        let mut wrong = None;
        let cells = self.cells(&raw).unwrap_or_else(|reason| {
            wrong = Some(reason.to_owned());
            Vec::new()
        });
        // Some writers end each row with a delimiter, and the header without one.
        let excess = cells.get(self.members.len()..).unwrap_or_default();
        let is_excess = excess
            .iter()
            .any(|cell| !raw[cell.clone()].trim_ascii().is_empty());
        if is_excess || cells.len() < self.members.len() {
            let (found, expected) = (cells.len(), self.members.len());
            wrong.get_or_insert_with(|| {
                format!("has {found} fields, but the header has {expected}")
            });
        }
        let mut object = Map::new();
        let mut location = Map::new();
        let mut form = Form::Any;
        for (member, cell) in self.members.iter().zip(cells) {
            let Some(member) = member else { continue };
            let cell = content(&raw[cell]);
            let encoding = self.values.encoding;
            let Some(text) = encoding.decode_without_bom_handling_and_without_replacement(&cell)
            else {
                wrong.get_or_insert_with(|| {
                    let name = encoding.name();
                    format!("{member}: is not {name}; see ingest.sources[].encoding")
                });
                continue;
            };
            let text = text.trim();
            if text.is_empty() {
                continue;
            }
            if COORDINATES.contains(&member.as_str()) {
                // A coordinate that is not a number stays text, and is rejected by the name of its member.
                let plain = self.number(text);
                let number = serde_json::from_str(plain.as_deref().unwrap_or(text))
                    .ok()
                    .filter(Value::is_number)
                    .unwrap_or_else(|| text.into());
                location.insert(member.clone(), number);
                continue;
            }
            let value = match member.as_str() {
                "amount" => {
                    form = numbers::form(text);
                    match self.number(text) {
                        Some(number) => number,
                        None => {
                            wrong.get_or_insert_with(|| self.other_form());
                            continue;
                        }
                    }
                }
                "timestamp" => match self.values.times.read(text) {
                    Ok(time) => time.unwrap_or_else(|| text.to_owned()),
                    Err(reason) => {
                        wrong.get_or_insert(reason);
                        continue;
                    }
                },
                _ => text.to_owned(),
            };
            object.insert(member.clone(), value.into());
        }
        if !location.is_empty() {
            object.insert("location".to_owned(), Value::Object(location));
        }
        // A line of totals says nothing about the amounts of payments.
        let is_payment = wrong.is_none()
            && object.contains_key("transaction_id")
            && object.contains_key("user_id");
        let form = match is_payment {
            true => form,
            false => Form::Any,
        };
        let row = Row {
            line,
            text: Value::Object(object).to_string().into_bytes(),
            sent: Some(raw),
            cut_from: None,
            wrong,
        };
        (row, form)
    }

    /// A number in the form of the settings, as JSON has it; without settings, as it is.
    fn number(&self, text: &str) -> Option<String> {
        let ValueForms {
            decimal, grouping, ..
        } = self.values.forms;
        match decimal {
            Some(decimal) => numbers::normalised(text, decimal, grouping),
            None => Some(text.to_owned()),
        }
    }

    fn other_form(&self) -> String {
        let ValueForms {
            decimal, grouping, ..
        } = self.values.forms;
        let decimal = decimal.unwrap_or('.');
        let grouping =
            grouping.map_or_else(|| "none".to_owned(), |grouping| format!("{grouping:?}"));
        format!(
            "amount: is no number with ingest.sources[].decimal {decimal:?} and grouping {grouping}"
        )
    }

    /// The column of the amount, for messages.
    fn amount_column(&self) -> &str {
        let column = self.form.columns.get("amount");
        column.map_or("amount", String::as_str)
    }
}

/// Reads the records of a CSV object.
pub(crate) struct CsvRows<'r> {
    records: Records<Box<dyn BufRead + 'r>>,
    reader: Arc<RowReader>,
    /// Rows that were looked at ahead, with their bytes.
    ahead: VecDeque<Row>,
    ahead_bytes: usize,
    /// How reading ahead ended.
    end: Option<Result<(), RowsError>>,
    evidence: Evidence,
}

impl<'r> CsvRows<'r> {
    /// Reads the lines before the header and the header.
    pub(super) fn open(
        reader: Box<dyn BufRead + 'r>,
        dialect: &Dialect,
        max_bytes: usize,
    ) -> Result<Self, RowsError> {
        let mut records = Records::new(reader, max_bytes);
        for _ in 0..dialect.skip_lines {
            records.line()?;
        }
        let unusable = |reason: String| RowsError::Unusable(reason);
        let mut delimiter = dialect.delimiter.unwrap_or(b',');
        let mut first = first_line(&mut records, delimiter)?;
        // Excel writes and reads a line with the delimiter before the header.
        if let Some(separator) = first.as_ref().and_then(|first| separator(&first.raw)) {
            if dialect.delimiter.is_some_and(|given| given != separator) {
                return Err(unusable(format!(
                    "the line sep= names the delimiter {:?}, and ingest.sources[].delimiter another one",
                    char::from(separator)
                )));
            }
            delimiter = separator;
            first = first_line(&mut records, delimiter)?;
        }
        let Some(mut line) = first else {
            return Err(unusable("the object has no header".to_owned()));
        };
        // A name may have line breaks within its quotation marks.
        while cells(&line.raw, delimiter) == Err(NOT_CLOSED) && line.raw.len() < MAX_HEADER_BYTES {
            let Some(more) = records.line()? else { break };
            line.raw.push(b'\n');
            line.raw.extend_from_slice(&more.raw);
        }
        let names = names(&line.raw, delimiter, &dialect.values).map_err(|reason| {
            let other = header::other_delimiter(&line.raw, delimiter);
            unusable(match other {
                Some(other) => format!("{reason}. {}", wrong_delimiter(other)),
                None => reason,
            })
        })?;
        header::bounded(&names)?;
        if let Err(reason) = header::members(&names, &dialect.columns) {
            let hint = hint(&line, delimiter, dialect, &mut records);
            return Err(unusable(format!("{reason}{hint}")));
        }
        let mut values = dialect.values.forms.clone();
        let encoding = dialect.values.encoding;
        if encoding == UTF_16LE || encoding == UTF_16BE {
            // It was converted before it came here.
            values.encoding = None;
        }
        let form = CsvForm::new(names, delimiter.into(), dialect.columns.clone(), values);
        Ok(Self {
            records,
            reader: Arc::new(RowReader::new(form).map_err(unusable)?),
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            end: None,
            evidence: Evidence::default(),
        })
    }

    /// What reads a row of this object again.
    pub(super) const fn reader(&self) -> &Arc<RowReader> {
        &self.reader
    }

    /// The next record; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Row>, RowsError> {
        let decides = self.reader.values.forms.decimal.is_none();
        let far = if decides { LOOK_AHEAD } else { 1 };
        while self.end.is_none() && self.ahead_bytes < far {
            match self.records.record(self.reader.delimiter) {
                Ok(Some(Record { line, raw })) => {
                    self.ahead_bytes += raw.len();
                    let (row, form) = self.reader.read(line, raw);
                    if decides {
                        let column = self.reader.amount_column();
                        let added = self.evidence.add(line, form, column);
                        added.map_err(RowsError::Unusable)?;
                    }
                    self.ahead.push_back(row);
                }
                Ok(None) => self.end = Some(Ok(())),
                Err(error) => self.end = Some(Err(error)),
            }
        }
        if let Some(reason) = self.evidence.undecided(self.reader.amount_column()) {
            return Err(RowsError::Unusable(reason));
        }
        if let Some(row) = self.ahead.pop_front() {
            self.ahead_bytes -= row.sent.as_ref().map_or(0, Vec::len);
            return Ok(Some(row));
        }
        self.end.replace(Ok(())).unwrap_or(Ok(())).map(|()| None)
    }
}

/// The first line that is not blank.
fn first_line<R: BufRead>(
    records: &mut Records<R>,
    delimiter: u8,
) -> Result<Option<Record>, RowsError> {
    loop {
        match records.line()? {
            Some(line) if is_blank(&line.raw, delimiter) => {}
            other => return Ok(other),
        }
    }
}

fn wrong_delimiter(other: &str) -> String {
    format!("The delimiter looks wrong: set ingest.sources[].delimiter = {other}")
}

/// The delimiter of a line `sep=;`.
fn separator(line: &[u8]) -> Option<u8> {
    let line = line.trim_ascii_end();
    let line = match line {
        [b'"', inner @ .., b'"'] => inner,
        other => other,
    };
    let (name, rest) = line.split_at_checked(4)?;
    match rest {
        // White space at the end was trimmed.
        [] if name.eq_ignore_ascii_case(b"sep=") => Some(b'\t'),
        [separator] if name.eq_ignore_ascii_case(b"sep=") && separator.is_ascii_punctuation() => {
            Some(*separator)
        }
        _ => None,
    }
}

/// The names in a header.
fn names(raw: &[u8], delimiter: u8, values: &Values) -> Result<Vec<String>, String> {
    let encoding = match values.encoding {
        // It was converted before it came here.
        utf_16 if utf_16 == UTF_16LE || utf_16 == UTF_16BE => UTF_8,
        other => other,
    };
    if raw.contains(&0) {
        return Err(
            "the header has zero bytes, as UTF-16 has: set ingest.sources[].encoding = \"utf-16le\""
                .to_owned(),
        );
    }
    let cells = cells(raw, delimiter).map_err(|reason| format!("in the header, {reason}"))?;
    let names = cells.into_iter().map(|cell| {
        let cell = content(&raw[cell]);
        let text = encoding.decode_without_bom_handling_and_without_replacement(&cell);
        text.map(|text| text.trim().to_owned())
    });
    names.collect::<Option<_>>().ok_or_else(|| {
        let name = encoding.name();
        format!("the header is not {name}: set ingest.sources[].encoding, such as \"windows-1252\"")
    })
}

/// What else may be wrong where a column is missing.
fn hint<R: BufRead>(
    line: &Record,
    delimiter: u8,
    dialect: &Dialect,
    records: &mut Records<R>,
) -> String {
    if let Some(other) = header::other_delimiter(&line.raw, delimiter) {
        return format!(". {}", wrong_delimiter(other));
    }
    for _ in 0..SEARCHED_LINES {
        let Ok(Some(next)) = records.line() else {
            break;
        };
        let names = names(&next.raw, delimiter, &dialect.values);
        if names.is_ok_and(|names| header::members(&names, &dialect.columns).is_ok()) {
            let lines = next.line - 1;
            return format!(
                ". Line {} has them: set ingest.sources[].skip_lines = {lines}",
                next.line
            );
        }
        if let Some(other) = header::other_delimiter(&next.raw, delimiter) {
            let lines = next.line - 1;
            return format!(
                ". Line {} looks like the header: set ingest.sources[].skip_lines = {lines} and delimiter = {other}",
                next.line
            );
        }
    }
    String::new()
}
