//! A snapshot as bytes: one line of JSON that says what it is, the histories compressed, a checksum of both.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tollgate_types::Timestamp;

/// Goes up when older readers would misread what follows.
pub(super) const FORMAT: u32 = 1;
const CHECKSUM_BYTES: usize = 32;
/// Fast to write and to read; histories are mostly hashes and shrink little.
const COMPRESSION_LEVEL: i32 = 1;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) format: u32,
    pub(crate) partition: i32,
    pub(crate) partitions: i32,
    /// See [`Position::log`](tollgate_runtime::kafka::Position::log), in hexadecimal digits.
    pub(crate) log: String,
    /// Everything before this offset is in the histories.
    pub(crate) offset: i64,
    /// How far the histories look back, at least.
    pub(crate) horizon_seconds: u64,
    pub(crate) written_at: Timestamp,
    /// Bytes of the histories, uncompressed.
    pub(crate) bytes: u64,
}

/// Why bytes are no snapshot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Damaged {
    #[error("it is cut off")]
    Short,
    #[error("its checksum is wrong")]
    Checksum,
    #[error("its first line is not understood: {0}")]
    Header(#[from] serde_json::Error),
    #[error("it has format {0}, and this version reads {FORMAT}")]
    Format(u32),
    #[error("it cannot be decompressed: {0}")]
    Compression(std::io::Error),
}

/// Puts a snapshot together.
pub(crate) fn write(header: &Header, histories: &[Vec<u8>]) -> std::io::Result<Vec<u8>> {
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

/// Takes it apart: what it says of itself, and the histories.
pub(crate) fn read(bytes: &[u8]) -> Result<(Header, Vec<u8>), Damaged> {
    let at = bytes
        .len()
        .checked_sub(CHECKSUM_BYTES)
        .ok_or(Damaged::Short)?;
    let (text, checksum) = bytes.split_at(at);
    if Sha256::digest(text).as_slice() != checksum {
        return Err(Damaged::Checksum);
    }
    let end = memchr::memchr(b'\n', text).ok_or(Damaged::Short)?;
    let header: Header = serde_json::from_slice(&text[..end])?;
    if header.format != FORMAT {
        return Err(Damaged::Format(header.format));
    }
    let histories = zstd::decode_all(&text[end + 1..]).map_err(Damaged::Compression)?;
    if histories.len() as u64 != header.bytes {
        return Err(Damaged::Short);
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
            horizon_seconds: 7,
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
        fn no_change_of_a_byte_and_no_cut_goes_unnoticed(
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
    fn another_format_is_told_from_damage() {
        let newer = Header {
            format: FORMAT + 1,
            ..header(0)
        };
        let bytes = write(&newer, &[]).unwrap();
        assert!(matches!(read(&bytes), Err(Damaged::Format(2))));
    }
}
