//! Which partition a user belongs to. Producers do not agree on this, so the scorer checks it for every record.

use serde::{Deserialize, Serialize};

/// How a key is turned into a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Partitioner {
    /// Apache Kafka's own clients (`org.apache.kafka.common.utils.Utils#murmur2`).
    #[default]
    Murmur2,
    /// librdkafka's default, for a house where every producer is built on it.
    Crc32,
}

impl Partitioner {
    /// The partition of `key` among `partitions`.
    ///
    /// # Panics
    /// Never for `partitions` > 0; there is no topic without partitions.
    #[must_use]
    pub fn partition(self, key: &[u8], partitions: i32) -> i32 {
        let hash = match self {
            Self::Murmur2 => murmur2(key) & 0x7fff_ffff,
            Self::Crc32 => crc32fast::hash(key),
        };
        let partition = hash % partitions.unsigned_abs().max(1);
        i32::try_from(partition).unwrap_or_default()
    }
}

/// MurmurHash2 as Kafka's clients compute it, seed included.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut h = 0x9747_b28c ^ length;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_agrees_with_the_vectors_of_kafkas_own_tests() {
        // org.apache.kafka.common.utils.UtilsTest#testMurmur2
        for (key, expected) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), expected, "{key}");
        }
    }

    #[test]
    fn every_key_has_a_partition_in_range() {
        for partitions in [1, 2, 12, 1000] {
            for key in [&b""[..], b"a", b"user-1", &[0xff; 300]] {
                for partitioner in [Partitioner::Murmur2, Partitioner::Crc32] {
                    assert!((0..partitions).contains(&partitioner.partition(key, partitions)));
                }
            }
        }
    }
}
