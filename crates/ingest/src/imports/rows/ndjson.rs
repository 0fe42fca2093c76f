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
            let Some((text, truncated)) = next_line(&mut self.reader, self.max_bytes)? else {
                return Ok(None);
            };
            if text.trim_ascii().is_empty() && !truncated {
                continue;
            }
            let wrong = truncated.then(|| format!("is larger than {} bytes", self.max_bytes));
            return Ok(Some(Row {
                line: self.line,
                text: text.trim_ascii().to_vec(),
                wrong,
            }));
        }
    }
}

/// A line without its terminator, and whether it was truncated to `max` bytes.
fn next_line(reader: &mut impl BufRead, max: usize) -> io::Result<Option<(Vec<u8>, bool)>> {
    let mut text = Vec::new();
    let (mut any, mut truncated) = (false, false);
    loop {
        let chunk = reader.fill_buf()?;
        if chunk.is_empty() {
            return Ok(any.then_some((text, truncated)));
        }
        any = true;
        let end = memchr::memchr(b'\n', chunk);
        let part = &chunk[..end.unwrap_or(chunk.len())];
        let room = max.saturating_sub(text.len());
        truncated |= part.len() > room;
        text.extend_from_slice(&part[..part.len().min(room)]);
        let used = end.map_or(chunk.len(), |end| end + 1);
        reader.consume(used);
        if end.is_some() {
            return Ok(Some((text, truncated)));
        }
    }
}
