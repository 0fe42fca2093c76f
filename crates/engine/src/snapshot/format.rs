//! A snapshot as bytes: a line of JSON that describes it, the histories compressed, and a SHA-256 of both.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tollgate_types::Timestamp;

/// The format that this version writes and reads. Formats 1 and 2 lack when records arrived and who sent them, and their
/// scores are those of rules that looked back only: such a snapshot is not used, and the log is read instead.
pub const FORMAT: u32 = 3;

const CHECKSUM_BYTES: usize = 32;
/// Fast to write and to read; histories are mostly hashes and compress little.
const COMPRESSION_LEVEL: i32 = 1;

/// The first line of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The format, see [`FORMAT`].
    pub format: u32,
    /// The partition of the histories.
    pub partition: i32,
    /// How many partitions the topic had.
    pub partitions: i32,
    /// Which log it was, as 16 hexadecimal digits: another number means that the topic was created anew.
    pub log: String,
    /// Everything before this offset is in the histories.
    pub offset: i64,
    /// How far the histories look back, at least. The member has the name that it had in the first release.
    #[serde(rename = "horizon_seconds")]
    pub lookback_seconds: u64,
    /// When it was written.
    pub written_at: Timestamp,
    /// Bytes of the histories, uncompressed.
    pub bytes: u64,
}

/// Why bytes are not a snapshot that this version reads.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableSnapshot {
    /// The end is missing.
    #[error("it is truncated")]
    Truncated,
    /// A byte has changed.
    #[error("its checksum is wrong")]
    Checksum,
    /// The first line is not a [`Header`].
    #[error("its first line cannot be parsed: {0}")]
    Header(#[from] serde_json::Error),
    /// It was written by another version.
    #[error("it has format {0}, and this version reads format {FORMAT}")]
    Format(u32),
    /// The histories are not compressed data.
    #[error("it cannot be decompressed: {0}")]
    Compression(std::io::Error),
}

/// Encodes a snapshot of these histories.
///
/// # Errors
/// Where the compression fails.
pub fn write(header: &Header, histories: &[Vec<u8>]) -> std::io::Result<Vec<u8>> {
    let mut out = serde_json::to_vec(header)?;
    out.push(b'\n');
    let mut encoder = zstd::Encoder::new(out, COMPRESSION_LEVEL)?;
    for part in histories {
        std::io::Write::write_all(&mut encoder, part)?;
    }
    let mut out = encoder.finish()?;
    let checksum = Sha256::digest(&out);
    out.extend_from_slice(&checksum);
    Ok(out)
}

/// Decodes a snapshot into its header and the histories, for
/// [`Engine::read_histories`](crate::Engine::read_histories).
///
/// # Errors
/// Why it is not used.
pub fn read(bytes: &[u8]) -> Result<(Header, Vec<u8>), UnreadableSnapshot> {
    let at = bytes
        .len()
        .checked_sub(CHECKSUM_BYTES)
        .ok_or(UnreadableSnapshot::Truncated)?;
    let (text, checksum) = bytes.split_at(at);
    if Sha256::digest(text).as_slice() != checksum {
        return Err(UnreadableSnapshot::Checksum);
    }
    let end = memchr::memchr(b'\n', text).ok_or(UnreadableSnapshot::Truncated)?;
    let header: Header = serde_json::from_slice(&text[..end])?;
    if header.format != FORMAT {
        return Err(UnreadableSnapshot::Format(header.format));
    }
    let histories = zstd::decode_all(&text[end + 1..]).map_err(UnreadableSnapshot::Compression)?;
    if histories.len() as u64 != header.bytes {
        return Err(UnreadableSnapshot::Truncated);
    }
    Ok((header, histories))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(bytes: u64) -> Header {
        Header {
            format: FORMAT,
            partition: 3,
            partitions: 12,
            log: "00000000000000f3".to_owned(),
            offset: 1_234,
            lookback_seconds: 7,
            written_at: Timestamp::from_micros(0).unwrap(),
            bytes,
        }
    }

    proptest! {
        #[test]
        fn a_snapshot_is_read_as_it_was_written(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..500), 0..5),
        ) {
            let whole = parts.concat();
            let header = header(whole.len() as u64);
            let (read, histories) = read(&write(&header, &parts).unwrap()).unwrap();
            prop_assert_eq!(read, header);
            prop_assert_eq!(histories, whole);
        }

        #[test]
        fn no_changed_byte_and_no_truncation_goes_unnoticed(
            part in prop::collection::vec(any::<u8>(), 0..500),
            place: prop::sample::Index,
            change in 1..=255_u8,
        ) {
            let good = write(&header(part.len() as u64), &[part]).unwrap();
            let place = place.index(good.len());
            let mut changed = good.clone();
            changed[place] ^= change;
            prop_assert!(read(&changed).is_err());
            prop_assert!(read(&good[..place]).is_err());
        }
    }

    #[test]
    fn another_format_is_distinguished_from_damage() {
        for format in [1, 2, FORMAT + 1] {
            let other = Header {
                format,
                ..header(0)
            };
            let bytes = write(&other, &[]).unwrap();
            assert!(
                matches!(read(&bytes), Err(UnreadableSnapshot::Format(found)) if found == format)
            );
        }
    }

    #[test]
    fn a_header_of_the_first_release_is_read() {
        let line = r#"{"format":1,"partition":3,"partitions":12,"log":"00000000000000f3","offset":1234,"horizon_seconds":7,"written_at":"1970-01-01T00:00:00Z","bytes":0}"#;
        let expected = Header {
            format: 1,
            ..header(0)
        };
        assert_eq!(serde_json::from_str::<Header>(line).unwrap(), expected);
        assert_eq!(serde_json::to_string(&expected).unwrap(), line);
    }
}
