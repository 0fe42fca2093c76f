//! A snapshot as bytes: a line of JSON that describes it, the histories compressed, and a keyed code of both.

use std::io::Read as _;

use serde::{Deserialize, Serialize};
use tollgate_types::{Currency, Timestamp};

use super::SnapshotKey;

/// The format that this version writes and reads. Format 3 lacks what policies need: when the partition began, and what changes
/// brought. Formats 1 and 2 lack when records arrived and who sent them, and their scores are those of rules that looked back
/// only. Such a snapshot is not used, and the log is read instead.
pub const FORMAT: u32 = 4;

/// Memory that is taken at once for histories; more is taken as they are read.
const FIRST_BYTES: u64 = 64 * 1024 * 1024;
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
    /// The base currency of the rules, if they had one: amounts of other currencies are remembered in another way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_currency: Option<Currency>,
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
    /// A byte has changed, or it was written under another key.
    #[error(
        "its authentication code is wrong: it is damaged, of an earlier version or another installation, or forged"
    )]
    Authentication,
    /// The histories are larger than permitted.
    #[error("it has {bytes} bytes of histories, and the limit is {limit}")]
    TooLarge {
        /// Their size, uncompressed.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
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
pub fn write(
    header: &Header,
    histories: &[Vec<u8>],
    key: &SnapshotKey,
) -> std::io::Result<Vec<u8>> {
    let mut out = serde_json::to_vec(header)?;
    out.push(b'\n');
    let mut encoder = zstd::Encoder::new(out, COMPRESSION_LEVEL)?;
    for part in histories {
        std::io::Write::write_all(&mut encoder, part)?;
    }
    let mut out = encoder.finish()?;
    key.seal(&mut out);
    Ok(out)
}

/// Decodes a snapshot into its header and the histories, for
/// [`Engine::read_histories`](crate::Engine::read_histories). Nothing of it is interpreted before its code was checked, and no
/// more than `limit` bytes of histories are decompressed.
///
/// # Errors
/// Why it is not used.
pub fn read(
    bytes: &[u8],
    key: &SnapshotKey,
    limit: u64,
) -> Result<(Header, Vec<u8>), UnreadableSnapshot> {
    let text = key.open(bytes)?;
    let end = memchr::memchr(b'\n', text).ok_or(UnreadableSnapshot::Truncated)?;
    let header: Header = serde_json::from_slice(&text[..end])?;
    if header.format != FORMAT {
        return Err(UnreadableSnapshot::Format(header.format));
    }
    if header.bytes > limit {
        return Err(UnreadableSnapshot::TooLarge {
            bytes: header.bytes,
            limit,
        });
    }
    let first = usize::try_from(header.bytes.min(FIRST_BYTES)).unwrap_or_default();
    let mut histories = Vec::with_capacity(first);
    zstd::Decoder::new(&text[end + 1..])
        // One byte more shows that there are too many.
        .and_then(|decoder| decoder.take(header.bytes + 1).read_to_end(&mut histories))
        .map_err(UnreadableSnapshot::Compression)?;
    if histories.len() as u64 != header.bytes {
        return Err(UnreadableSnapshot::Truncated);
    }
    Ok((header, histories))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};

    use super::*;

    fn header(bytes: u64) -> Header {
        Header {
            format: FORMAT,
            partition: 3,
            partitions: 12,
            log: "00000000000000f3".to_owned(),
            offset: 1_234,
            lookback_seconds: 7,
            base_currency: None,
            written_at: Timestamp::from_micros(0).unwrap(),
            bytes,
        }
    }

    const LIMIT: u64 = 10_000;

    fn key() -> SnapshotKey {
        SnapshotKey::derive(b"secret", [7; 16])
    }

    fn write(header: &Header, histories: &[Vec<u8>]) -> std::io::Result<Vec<u8>> {
        super::write(header, histories, &key())
    }

    fn read(bytes: &[u8]) -> Result<(Header, Vec<u8>), UnreadableSnapshot> {
        super::read(bytes, &key(), LIMIT)
    }

    #[test]
    fn a_snapshot_under_another_secret_or_of_another_store_is_refused_though_its_checksum_is_right()
    {
        let part = vec![1; 100];
        for (secret, hash_key) in [
            (&b"other"[..], [7; 16]),
            (b"secret", [8; 16]),
            (b"", [7; 16]),
        ] {
            let foreign = SnapshotKey::derive(secret, hash_key);
            let bytes = super::write(&header(100), std::slice::from_ref(&part), &foreign).unwrap();
            assert!(super::read(&bytes, &foreign, LIMIT).is_ok());
            assert!(matches!(
                read(&bytes),
                Err(UnreadableSnapshot::Authentication)
            ));
        }
        // As the first release wrote it: with a checksum that everybody can compute.
        let mut bytes = write(&header(100), &[part]).unwrap();
        bytes.truncate(bytes.len() - 32);
        let checksum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&checksum);
        assert!(matches!(
            read(&bytes),
            Err(UnreadableSnapshot::Authentication)
        ));
    }

    #[test]
    fn no_more_is_decompressed_than_the_header_says_and_the_limit_permits() {
        let bomb = vec![0; 10_000_000];
        // It says that it is small: ten million zeros take a kilobyte.
        let bytes = write(&header(100), std::slice::from_ref(&bomb)).unwrap();
        assert!(bytes.len() < 10_000);
        assert!(matches!(read(&bytes), Err(UnreadableSnapshot::Truncated)));
        let bytes = write(&header(10_000_000), &[bomb]).unwrap();
        assert!(matches!(
            read(&bytes),
            Err(UnreadableSnapshot::TooLarge { .. })
        ));
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
