//! Rows of an NDJSON object.

use std::io::{self, BufRead};

use super::{Row, RowsError};

/// Reads the lines of an NDJSON object. Blank lines are skipped.
pub(crate) struct NdjsonRows<'r> {
    reader: Box<dyn BufRead + 'r>,
    line: u64,
    max_bytes: usize,
}

impl<'r> NdjsonRows<'r> {
    pub(super) fn open(reader: Box<dyn BufRead + 'r>, max_bytes: usize) -> Self {
        Self {
            reader,
            line: 0,
            max_bytes,
        }
    }

    /// The next line that is not blank; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Row>, RowsError> {
        loop {
            self.line += 1;
            let Some((text, cut_from)) = next_line(&mut self.reader, self.max_bytes)? else {
                return Ok(None);
            };
            if text.trim_ascii().is_empty() && cut_from.is_none() {
                continue;
            }
            let wrong = cut_from.map(|_| format!("is larger than {} bytes", self.max_bytes));
            return Ok(Some(Row {
                line: self.line,
                text: text.trim_ascii().to_vec(),
                sent: None,
                cut_from,
                wrong,
            }));
        }
    }
}

/// A line without its terminator, and how long it is if it was cut to `max` bytes.
fn next_line(reader: &mut impl BufRead, max: usize) -> io::Result<Option<(Vec<u8>, Option<u64>)>> {
    let mut text = Vec::new();
    let mut length = None;
    loop {
        let chunk = reader.fill_buf()?;
        let (part, end) = match memchr::memchr(b'\n', chunk) {
            Some(end) => (&chunk[..end], true),
            None => (chunk, chunk.is_empty()),
        };
        if chunk.is_empty() && length.is_none() {
            return Ok(None);
        }
        let length = length.get_or_insert(0);
        *length += part.len() as u64;
        let room = max.saturating_sub(text.len());
        text.extend_from_slice(&part[..part.len().min(room)]);
        let used = part.len() + usize::from(end && !chunk.is_empty());
        reader.consume(used);
        if end {
            return Ok(Some((
                text,
                Some(*length).filter(|length| *length > max as u64),
            )));
        }
    }
}
