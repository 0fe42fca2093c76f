//! Rows of an object that is a JSON array, or one JSON object after another over several lines. Streamed: only one element
//! is in memory, and no more of it than its limit.
//!
//! Invariant: a malformed element does not affect the others where the text still says where the next one begins: by its
//! brackets, or by a line that begins with an opening brace where none may stand.

use std::io::{self, BufRead};

use super::{Row, RowsError};

/// Whether the beginning of an object is that of an array or of an indented JSON object, rather than that of NDJSON.
pub(super) fn spans_lines(beginning: &[u8]) -> bool {
    let text = beginning.trim_ascii_start();
    match text.first() {
        Some(b'[') => true,
        Some(b'{') => {
            let Some(end) = memchr::memchr(b'\n', text) else {
                return false;
            };
            let (first, rest) = text.split_at(end);
            let mut element = Element::default();
            let complete = first
                .iter()
                .any(|byte| matches!(element.step(*byte), Step::EndAfter));
            // A line of NDJSON that is cut off is followed by the brace of the next one.
            let next = rest.trim_ascii_start().first();
            !complete && !element.quoted && matches!(next, Some(b'"' | b'}'))
        }
        _ => false,
    }
}

/// Reads the elements of an array, or JSON objects one after another.
pub(crate) struct JsonRows<'r> {
    reader: Box<dyn BufRead + 'r>,
    /// The line of the next byte, from 1.
    line: u64,
    /// The line at which the array begins that is being read.
    array: Option<u64>,
    max_bytes: usize,
}

impl<'r> JsonRows<'r> {
    pub(super) fn open(reader: Box<dyn BufRead + 'r>, max_bytes: usize) -> Self {
        Self {
            reader,
            line: 1,
            array: None,
            max_bytes,
        }
    }

    /// The next element; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Row>, RowsError> {
        loop {
            let Some(byte) = self.peek()? else {
                return match self.array {
                    None => Ok(None),
                    Some(line) => Err(RowsError::Unusable(format!(
                        "the JSON array that begins in line {line} is not closed: the end of the object is missing"
                    ))),
                };
            };
            match (byte, self.array) {
                (b'\n', _) => self.line += 1,
                (b' ' | b'\t' | b'\r', _) | (b',', Some(_)) => {}
                (b'[', None) => self.array = Some(self.line),
                (b']', Some(_)) => self.array = None,
                _ => return self.element().map(Some),
            }
            self.reader.consume(1);
        }
    }

    fn peek(&mut self) -> io::Result<Option<u8>> {
        Ok(self.reader.fill_buf()?.first().copied())
    }

    fn element(&mut self) -> Result<Row, RowsError> {
        let begin = self.line;
        let mut element = Element {
            in_array: self.array.is_some(),
            ..Element::default()
        };
        let (mut text, mut length) = (Vec::new(), 0);
        let mut cut_off = false;
        loop {
            let chunk = self.reader.fill_buf()?;
            if chunk.is_empty() {
                cut_off = element.depth > 0 || element.quoted;
                break;
            }
            let (mut used, mut end) = (0, false);
            for byte in chunk {
                let step = element.step(*byte);
                end = !matches!(step, Step::Inside);
                if matches!(step, Step::EndBefore | Step::CutOff) {
                    cut_off = matches!(step, Step::CutOff);
                    break;
                }
                used += 1;
                self.line += u64::from(*byte == b'\n');
                if end {
                    break;
                }
            }
            let room = self.max_bytes.saturating_sub(text.len());
            text.extend_from_slice(&chunk[..used.min(room)]);
            length += used;
            self.reader.consume(used);
            if end {
                break;
            }
        }
        let is_cut = length > self.max_bytes;
        let wrong = if is_cut {
            Some(format!("is larger than {} bytes", self.max_bytes))
        } else {
            cut_off.then(|| "is JSON without its end".to_owned())
        };
        Ok(Row {
            line: begin,
            text: text.trim_ascii().to_vec(),
            sent: None,
            cut_from: is_cut.then_some(length as u64),
            wrong,
        })
    }
}

/// Finds the end of an element.
#[derive(Debug, Default)]
struct Element {
    in_array: bool,
    /// Open brackets and braces.
    depth: usize,
    /// Within a string, and after a backslash in it.
    quoted: bool,
    escaped: bool,
    /// Only white space so far in this line.
    at_line_begin: bool,
    /// The last byte that is not white space.
    last: Option<u8>,
}

/// Where the element ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Not here.
    Inside,
    /// After this byte.
    EndAfter,
    /// Before this byte.
    EndBefore,
    /// Before this byte, which begins the next element although this one has not ended.
    CutOff,
}

impl Element {
    fn step(&mut self, byte: u8) -> Step {
        let step = self.find_end(byte);
        match byte {
            b'\n' => self.at_line_begin = true,
            b' ' | b'\t' | b'\r' => {}
            _ => {
                self.at_line_begin = false;
                self.last = Some(byte);
            }
        }
        step
    }

    fn find_end(&mut self, byte: u8) -> Step {
        if self.quoted {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                // A string has no line break: its quotation mark is missing.
                b'"' | b'\n' => self.quoted = false,
                _ => {}
            }
            return Step::Inside;
        }
        match byte {
            b'"' => self.quoted = true,
            b'{' if self.depth > 0
                && self.at_line_begin
                && !matches!(self.last, Some(b':' | b',' | b'[')) =>
            {
                return Step::CutOff;
            }
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' if self.depth > 1 => self.depth -= 1,
            b'}' | b']' if self.depth == 1 => return Step::EndAfter,
            b']' | b',' if self.depth == 0 && self.in_array && self.last.is_some() => {
                return Step::EndBefore;
            }
            b'\n' if self.depth == 0 => return Step::EndBefore,
            _ => {}
        }
        Step::Inside
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(text: &[u8], max: usize) -> (Vec<Row>, Option<String>) {
        let mut rows = JsonRows::open(Box::new(text), max);
        let mut found = Vec::new();
        loop {
            match rows.next() {
                Ok(Some(row)) => found.push(row),
                Ok(None) => return (found, None),
                Err(error) => return (found, Some(error.to_string())),
            }
        }
    }

    fn texts(text: &str) -> Vec<(u64, String)> {
        let (rows, error) = all(text.as_bytes(), 1_000);
        assert_eq!(error, None);
        rows.iter()
            .map(|row| (row.line, String::from_utf8(row.text.clone()).unwrap()))
            .collect()
    }

    fn row(line: u64, text: &str) -> (u64, String) {
        (line, text.to_owned())
    }

    #[test]
    fn arrays_and_indented_objects_are_told_from_ndjson() {
        for json in [
            "[",
            " \n[{}]",
            "{\n  \"a\": 1\n}\n",
            "{\"a\": {\n\"b\": 1}}",
            "{\n}",
        ] {
            assert!(spans_lines(json.as_bytes()), "{json}");
        }
        for ndjson in [
            "",
            "{\"a\":1}",
            "{\"a\":1}\n{\"a\":2}",
            "{\"a\":\n{\"b\":2}\n",
            "{\"a\n\"b\":2}\n",
            "nonsense\n[1]",
        ] {
            assert!(!spans_lines(ndjson.as_bytes()), "{ndjson}");
        }
    }

    #[test]
    fn elements_are_read_with_the_lines_at_which_they_begin() {
        let array = "[\n {\"a\": [1, {\"b\": \"]},{\\\"\"}]},\n\n {\"c\": 2}, 7 ,\"x\"]\n";
        let expected = [
            row(2, "{\"a\": [1, {\"b\": \"]},{\\\"\"}]}"),
            row(4, "{\"c\": 2}"),
            row(4, "7"),
            row(4, "\"x\""),
        ];
        assert_eq!(texts(array), expected);
        let objects = "{\n  \"a\": 1\n}\n{\n  \"b\":\n  {}\n}{\"c\":3}\n";
        let expected = [
            row(1, "{\n  \"a\": 1\n}"),
            row(4, "{\n  \"b\":\n  {}\n}"),
            row(7, "{\"c\":3}"),
        ];
        assert_eq!(texts(objects), expected);
        assert_eq!(texts("[]\n[{}]"), [row(2, "{}")]);
    }

    #[test]
    fn an_element_without_its_end_or_that_is_too_large_does_not_affect_the_next_ones() {
        let text = format!(
            "[\n{{\"a\": {{\"b\": 1}},\n\"c\": \"open\n{{\"d\": 2}},\n{{\"e\": \"{}\"}},\n{{\"f\": 3}}]",
            "x".repeat(100)
        );
        let (rows, error) = all(text.as_bytes(), 50);
        assert_eq!(error, None);
        let wrong: Vec<(u64, Option<&str>)> = rows
            .iter()
            .map(|row| (row.line, row.wrong.as_deref()))
            .collect();
        assert_eq!(
            wrong,
            [
                (2, Some("is JSON without its end")),
                (4, None),
                (5, Some("is larger than 50 bytes")),
                (6, None),
            ]
        );
    }

    #[test]
    fn an_array_that_is_not_closed_is_an_error_after_its_elements() {
        let (rows, error) = all(b"[{\"a\":1},{\"b\":2}", 100);
        assert_eq!(rows.len(), 2);
        assert!(error.unwrap().contains("begins in line 1 is not closed"));
    }

    proptest! {
        #[test]
        fn an_array_has_the_elements_that_serde_reads(
            values in prop::collection::vec(("[a-z{}\\[\\],:\"\\\\ ]{0,12}", any::<i32>()), 0..20),
            pretty: bool,
        ) {
            let values: Vec<serde_json::Value> = values
                .into_iter()
                .map(|(text, number)| serde_json::json!({text.clone(): [text, {"n": number}]}))
                .collect();
            let text = if pretty {
                serde_json::to_string_pretty(&values).unwrap()
            } else {
                serde_json::to_string(&values).unwrap()
            };
            let found: Vec<serde_json::Value> = texts(&text)
                .iter()
                .map(|(_, text)| serde_json::from_str(text).unwrap())
                .collect();
            prop_assert_eq!(found, values);
        }

        #[test]
        fn any_text_comes_to_an_end(text in "[\\[\\]{},:\"\\\\a \n]{0,60}") {
            let _ = all(text.as_bytes(), 20);
        }
    }
}
