//! Decompression with a bound on what comes out: a few hundred bytes of gzip can be a megabyte.

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;

/// Up to this number of bytes the ratio is not looked at.
const FREE_BYTES: u64 = 16 * 1024 * 1024;

/// Limits of the decompressed object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InflationLimits {
    /// How many times larger than the object it may be.
    pub(crate) ratio: u64,
    /// How large it may be, in bytes.
    pub(crate) max_bytes: u64,
}

/// Decompresses gzip, of one member or several.
pub(super) struct Inflater<R> {
    decoder: MultiGzDecoder<Counted<R>>,
    inflated: u64,
    limits: InflationLimits,
}

impl<R: Read> Inflater<R> {
    pub(super) fn new(reader: R, limits: InflationLimits) -> Self {
        let counted = Counted { reader, bytes: 0 };
        Self {
            decoder: MultiGzDecoder::new(counted),
            inflated: 0,
            limits,
        }
    }
}

impl<R: Read> Read for Inflater<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.decoder.read(buffer)?;
        self.inflated += read as u64;
        let InflationLimits { ratio, max_bytes } = self.limits;
        let compressed = self.decoder.get_ref().bytes;
        let limit = if self.inflated > max_bytes {
            format!("ingest.import_max_inflated_bytes allows {max_bytes} bytes")
        } else if self.inflated > FREE_BYTES && self.inflated > compressed.saturating_mul(ratio) {
            format!("ingest.import_max_inflation allows {ratio} times the compressed size")
        } else {
            return Ok(read);
        };
        let reason = format!("it is too large when decompressed; {limit}");
        Err(io::Error::new(io::ErrorKind::InvalidData, reason))
    }
}

/// Counts the bytes that are read.
struct Counted<R> {
    reader: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.bytes += read as u64;
        Ok(read)
    }
}
