//! The 64 bits that hold an amount and what was decided on it; [`layout`](super::layout) draws them.

use tollgate_types::{Amount, Indicators, Status};

use super::layout::{
    AMOUNT_SHIFT, FURTHER_SHIFT, Fingerprint, INDICATORS_BITS, INDICATORS_SHIFT, PLACE_KIND_BITS,
    PLACE_KIND_SHIFT, RECORD_BYTES, SCORE_SHIFT, STATUS_BITS, STATUS_SHIFT,
};
use super::place::PlaceKind;

const HAS_SCORE: u64 = 1 << SCORE_SHIFT;
const INDICATORS_MASK: u64 = (1 << INDICATORS_BITS) - 1;
const HAS_FURTHER: u64 = 1 << FURTHER_SHIFT;

/// Amount, kind of place, built-in indicators and status, and whether the row has an entry in the side queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PackedRecord(u64);

impl PackedRecord {
    pub(crate) fn new(
        amount: Amount,
        kind: PlaceKind,
        indicators: &Indicators,
        status: Status,
        has_score: bool,
    ) -> Self {
        let flags = (u64::from(!indicators.beyond_built_in().is_empty()) * HAS_FURTHER)
            | (u64::from(has_score) * HAS_SCORE)
            | ((status as u64) << STATUS_SHIFT)
            | (u64::from(indicators.built_in_bits()) & INDICATORS_MASK) << INDICATORS_SHIFT
            | (kind as u64) << PLACE_KIND_SHIFT;
        Self(amount_bits(amount) << AMOUNT_SHIFT | flags)
    }

    pub(crate) const fn from_bytes(bytes: [u8; RECORD_BYTES]) -> Self {
        Self(u64::from_le_bytes(bytes))
    }

    pub(crate) const fn to_bytes(self) -> [u8; RECORD_BYTES] {
        self.0.to_le_bytes()
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "parts are at most four bits wide"
    )]
    const fn part(self, shift: u32, bits: u32) -> u8 {
        (self.0 >> shift & ((1 << bits) - 1)) as u8
    }

    /// The amount in ten-thousandths.
    pub(crate) const fn amount(self) -> u64 {
        self.0 >> AMOUNT_SHIFT
    }

    pub(crate) fn is_of(self, amount: Amount) -> bool {
        self.amount() == amount_bits(amount)
    }

    /// The fingerprint of the amount, as [`amount_fingerprint`] computes it.
    pub(crate) fn amount_fingerprint(self) -> Fingerprint {
        fingerprint_of_bits(self.amount())
    }

    pub(crate) const fn place_kind(self) -> PlaceKind {
        match self.part(PLACE_KIND_SHIFT, PLACE_KIND_BITS) {
            0 => PlaceKind::Absent,
            1 => PlaceKind::Short,
            _ => PlaceKind::Full,
        }
    }

    /// The built-in indicators.
    pub(crate) fn indicators(self) -> Indicators {
        Indicators::from_built_in_bits(self.part(INDICATORS_SHIFT, INDICATORS_BITS))
    }

    pub(crate) const fn status(self) -> Status {
        match self.part(STATUS_SHIFT, STATUS_BITS) {
            0 => Status::Approved,
            1 => Status::Review,
            _ => Status::Blocked,
        }
    }

    /// Whether the score is other than zero.
    pub(crate) const fn has_score(self) -> bool {
        self.0 & HAS_SCORE != 0
    }

    /// Whether indicators fired that are not built in.
    pub(crate) const fn has_further(self) -> bool {
        self.0 & HAS_FURTHER != 0
    }
}

/// Two bytes that differ for most amounts that are not this one.
pub(crate) fn amount_fingerprint(amount: Amount) -> Fingerprint {
    fingerprint_of_bits(amount_bits(amount))
}

fn fingerprint_of_bits(bits: u64) -> Fingerprint {
    // The top of a product with 2^64 / golden ratio, which neighbours in value do not share.
    let [a, b, ..] = bits.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    [a, b]
}

/// An amount in ten-thousandths, as it is stored.
pub(crate) fn amount_bits(amount: Amount) -> u64 {
    amount.ten_thousandths().unsigned_abs()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tollgate_types::Indicator;

    use super::*;

    proptest! {
        #[test]
        fn a_packed_record_returns_what_was_put_in(
            amount in 0..=Amount::MAX.ten_thousandths(), bits in 0..16_u8, status in 0..3_usize, has_score: bool,
            further: bool,
        ) {
            let amount = Amount::from_ten_thousandths(amount).unwrap();
            let status = Status::ALL[status];
            for kind in [PlaceKind::Absent, PlaceKind::Short, PlaceKind::Full] {
                let mut indicators = Indicators::from_built_in_bits(bits);
                if further {
                    indicators.insert(Indicator::intern("a_rule").unwrap());
                }
                let record = PackedRecord::new(amount, kind, &indicators, status, has_score);
                let record = PackedRecord::from_bytes(record.to_bytes());
                prop_assert!(record.is_of(amount));
                prop_assert_eq!(record.amount_fingerprint(), amount_fingerprint(amount));
                prop_assert_eq!(record.place_kind(), kind);
                prop_assert_eq!(record.indicators().built_in_bits(), bits);
                prop_assert_eq!(record.status(), status);
                prop_assert_eq!(record.has_score(), has_score);
                prop_assert_eq!(record.has_further(), further);
            }
        }
    }
}
