//! Converts objects before they are read: UTF-16 to UTF-8, and lines that end in CR alone.

use std::io::{self, BufRead, BufReader, Read};

use encoding_rs::{Decoder, DecoderResult, Encoding};

/// The text of UTF-16 as UTF-8.
pub(super) struct Utf16Reader<R> {
    reader: R,
    decoder: Decoder,
    /// What does not fit into the caller's buffer.
    ready: Vec<u8>,
    given: usize,
    ended: bool,
}

impl<R: BufRead> Utf16Reader<R> {
    pub(super) fn new(reader: R, encoding: &'static Encoding) -> Self {
        Self {
            reader,
            decoder: encoding.new_decoder_without_bom_handling(),
            ready: Vec::new(),
            given: 0,
            ended: false,
        }
    }

    fn refill(&mut self) -> io::Result<()> {
        self.ready.resize(16 * 1024, 0);
        self.given = 0;
        let chunk = self.reader.fill_buf()?;
        let last = chunk.is_empty();
        let (result, read, written) =
            self.decoder
                .decode_to_utf8_without_replacement(chunk, &mut self.ready, last);
        self.reader.consume(read);
        self.ready.truncate(written);
        match result {
            DecoderResult::InputEmpty => self.ended = last,
            DecoderResult::OutputFull => {}
            DecoderResult::Malformed(..) => {
                let reason =
                    "the object is not UTF-16, as its first bytes or its setting encoding say";
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
            }
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Utf16Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.given == self.ready.len() && !self.ended {
            self.refill()?;
        }
        let rest = &self.ready[self.given..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.given += length;
        Ok(length)
    }
}

/// Whether the lines of a text that begins like this end in CR alone.
pub(super) fn has_bare_cr(begin: &[u8]) -> bool {
    // A CR at the end may be the first half of a CRLF.
    let inner = &begin[..begin.len().saturating_sub(1)];
    inner.contains(&b'\r') && !begin.contains(&b'\n')
}

/// A text whose lines end in LF instead of CR.
pub(super) struct CrReader<R>(pub(super) R);

impl<R: BufRead> Read for CrReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        for byte in &mut buffer[..read] {
            if *byte == b'\r' {
                *byte = b'\n';
            }
        }
        Ok(read)
    }
}

/// A buffered reader.
pub(super) fn buffered<'r>(reader: impl Read + 'r) -> Box<dyn BufRead + 'r> {
    Box::new(BufReader::with_capacity(64 * 1024, reader))
}
