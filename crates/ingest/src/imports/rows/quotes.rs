//! Checks that the quotation marks of CSV pair (RFC 4180, section 2).
//!
//! The parser accepts any input: after a quotation mark that is not closed it silently reads the following rows as one
//! field, and their payments would be lost. So quotation marks that do not pair fail the object.

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

/// Follows the quotation marks, byte by byte.
#[derive(Debug)]
pub(super) struct QuoteChecker {
    delimiter: u8,
    state: State,
    line: u64,
    opened: u64,
}

impl QuoteChecker {
    pub(super) const fn new(delimiter: u8) -> Self {
        Self {
            delimiter,
            state: State::Begin,
            line: 1,
            opened: 1,
        }
    }

    /// Checks the next bytes.
    ///
    /// # Errors
    /// A closing quotation mark is followed by text.
    pub(super) fn check(&mut self, bytes: &[u8]) -> Result<(), String> {
        for byte in bytes {
            let ends = *byte == self.delimiter || *byte == b'\n';
            self.state = match self.state {
                State::Begin if *byte == b'"' => {
                    self.opened = self.line;
                    State::Quoted
                }
                State::Begin | State::Plain if ends => State::Begin,
                State::Begin | State::Plain => State::Plain,
                State::Quoted if *byte == b'"' => State::Closing,
                State::Quoted => State::Quoted,
                State::Closing if *byte == b'"' => State::Quoted,
                State::Closing if ends => State::Begin,
                // The first half of a CRLF.
                State::Closing if *byte == b'\r' => State::Closing,
                State::Closing => {
                    return Err(format!(
                        "text follows a closing quotation mark in line {}; the field began in line {}",
                        self.line, self.opened
                    ));
                }
            };
            self.line += u64::from(*byte == b'\n');
        }
        Ok(())
    }

    /// Checks the end of the text.
    ///
    /// # Errors
    /// A quotation mark is not closed.
    pub(super) fn check_end(&self) -> Result<(), String> {
        if self.state == State::Quoted {
            return Err(format!(
                "the quotation mark in line {} is not closed",
                self.opened
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str) -> Result<(), String> {
        let mut quotes = QuoteChecker::new(b',');
        quotes.check(text.as_bytes())?;
        quotes.check_end()
    }

    #[test]
    fn quotation_marks_that_do_not_pair_are_reported_with_their_line() {
        for good in [
            "a,b\r\n1,2\r\n",
            "\"a\",\"b \"\"c\"\" \n d\"\r\n1,\"\"\n",
            "12\" inch,5'9\"\n",
            "\"x\"",
            "",
        ] {
            assert_eq!(check(good), Ok(()), "{good:?}");
        }
        let open = check("a,b\n1,\"12 inch\n2,x\n").unwrap_err();
        assert_eq!(open, "the quotation mark in line 2 is not closed");
        let stray = check("a,b\n1,\"12 inch\n2,x\n3,\"5 inch\n").unwrap_err();
        assert_eq!(
            stray,
            "text follows a closing quotation mark in line 4; the field began in line 2"
        );
        assert!(check("\"x\"y,1\n").is_err());
    }

    proptest! {
        #[test]
        fn the_output_of_a_csv_writer_passes(
            rows in prop::collection::vec(prop::collection::vec("[a\",\n\r ]{0,8}", 1..4), 1..8)
        ) {
            let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
            for row in &rows {
                writer.write_record(row).unwrap();
            }
            let text = String::from_utf8(writer.into_inner().unwrap()).unwrap();
            prop_assert_eq!(check(&text), Ok(()), "{:?}", text);
        }
    }
}
