//! A snapshot as bytes: one line of JSON that says what it is, the histories compressed, a checksum of both.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tollgate_log::SnapshotRequirements;
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
    /// See [`Position::log`](tollgate_log::Position::log), in hexadecimal digits.
    pub(crate) log: String,
    /// Everything before this offset is in the histories.
    pub(crate) offset: i64,
    /// How far the histories look back, at least.
    #[serde(rename = "horizon_seconds")]
    pub(crate) lookback_seconds: u64,
    pub(crate) written_at: Timestamp,
    /// Bytes of the histories, uncompressed.
    pub(crate) bytes: u64,
}

impl Header {
    /// Whether the histories are those that are wanted, to look back so far.
    ///
    /// # Errors
    /// Why they are not.
    pub(crate) fn usable(
        &self,
        wanted: &SnapshotRequirements,
        lookback_seconds: u64,
    ) -> Result<(), &'static str> {
        let committed = &wanted.committed;
        let checks = [
            (
                self.partition == committed.partition,
                "it is of another partition",
            ),
            (
                self.partitions == committed.partitions,
                "the topic had another number of partitions",
            ),
            (
                self.log == format!("{:016x}", committed.log),
                "it is of another log: the topic or the group's offsets were made anew",
            ),
            (
                self.offset <= committed.offset,
                "it stands beyond the committed offset",
            ),
            (
                self.offset >= wanted.oldest,
                "the log no longer has what comes after it",
            ),
            (
                self.lookback_seconds >= lookback_seconds,
                "the rules look back further now than when it was written",
            ),
        ];
        checks
            .into_iter()
            .find(|(good, _)| !good)
            .map_or(Ok(()), |(_, reason)| Err(reason))
    }
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
    use tollgate_log::Position;

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
    fn a_snapshot_is_used_for_its_own_partition_and_log_up_to_what_is_committed_and_not_with_a_gap()
    {
        let wanted = |change: &dyn Fn(&mut SnapshotRequirements)| {
            let mut wanted = SnapshotRequirements {
                committed: Position {
                    partition: 3,
                    partitions: 12,
                    log: 0xf3,
                    offset: 1_234,
                },
                oldest: 1_234,
            };
            change(&mut wanted);
            header(0).usable(&wanted, 7)
        };
        assert_eq!(wanted(&|_| {}), Ok(()));
        assert_eq!(wanted(&|wanted| wanted.committed.offset += 1), Ok(()));
        for change in [
            &|wanted: &mut SnapshotRequirements| wanted.committed.offset -= 1,
            &|wanted: &mut SnapshotRequirements| wanted.oldest += 1,
            &|wanted: &mut SnapshotRequirements| wanted.committed.log += 1,
            &|wanted: &mut SnapshotRequirements| wanted.committed.partition += 1,
            &|wanted: &mut SnapshotRequirements| wanted.committed.partitions += 1,
        ] as [&dyn Fn(&mut SnapshotRequirements); 5]
        {
            assert!(wanted(change).is_err());
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
