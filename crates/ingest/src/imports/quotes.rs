//! Watches over the quotation marks of CSV: RFC 4180, section 2.
//!
//! The parser takes whatever comes: behind a mark that is not closed it reads the rows that follow as one field, without a
//! word. Payments would be gone, so an object in which marks do not pair is read no further.

/// Where the text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Where a field may begin, by a mark or by anything else.
    Begin,
    /// In a field without marks around it, in which a mark is a letter.
    Plain,
    /// Between marks.
    Quoted,
    /// Behind a mark between marks: its end, or the first half of a mark that is meant.
    Closing,
}

/// Reads along, byte by byte.
#[derive(Debug)]
pub(super) struct Quotes {
    delimiter: u8,
    state: State,
    line: u64,
    opened: u64,
}

impl Quotes {
    pub(super) const fn new(delimiter: u8) -> Self {
        Self {
            delimiter,
            state: State::Begin,
            line: 1,
            opened: 1,
        }
    }

    /// What comes next, and what is wrong with it.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(), String> {
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
                // The first half of the end of a line.
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

    /// What is wrong where nothing comes any more.
    pub(super) fn end(&self) -> Result<(), String> {
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
        let mut quotes = Quotes::new(b',');
        quotes.read(text.as_bytes())?;
        quotes.end()
    }

    #[test]
    fn marks_that_pair_are_taken_and_others_are_told_with_their_line() {
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
        fn what_a_writer_of_csv_writes_is_taken(
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
