//! The 64-bit word that holds an amount and what was decided on it.
//!
//! Layout, from the top: 54 bits of amount in ten-thousandths, one unused, one that tells of a score other than
//! zero, two of status, four of indicators, two of the place's kind. The largest amount, 10^16, is below 2^54.

use tollgate_types::{Amount, Indicators, Status};

use super::columns::Fingerprint;
use super::geo::PlaceKind;

const AMOUNT_SHIFT: u32 = 10;
const HAS_SCORE: u64 = 1 << 8;
const STATUS_SHIFT: u32 = 6;
const INDICATORS_SHIFT: u32 = 2;

/// Amount, place's kind, indicators, status, and whether there is a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PackedRecord(u64);

impl PackedRecord {
    pub(super) fn new(
        amount: Amount,
        kind: PlaceKind,
        indicators: Indicators,
        status: Status,
        has_score: bool,
    ) -> Self {
        let flags = (u64::from(has_score) * HAS_SCORE)
            | ((status as u64) << STATUS_SHIFT)
            | u64::from(indicators.bits()) << INDICATORS_SHIFT
            | kind as u64;
        Self(amount_bits(amount) << AMOUNT_SHIFT | flags)
    }

    pub(super) const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_le_bytes(bytes))
    }

    pub(super) const fn to_bytes(self) -> [u8; 8] {
        self.0.to_le_bytes()
    }

    pub(super) fn is_of(self, amount: Amount) -> bool {
        self.0 >> AMOUNT_SHIFT == amount_bits(amount)
    }

    /// The mark of the amount, as [`amount_fingerprint`] gives it.
    pub(super) fn amount_fingerprint(self) -> Fingerprint {
        mark_of_bits(self.0 >> AMOUNT_SHIFT)
    }

    pub(super) const fn place_kind(self) -> PlaceKind {
        match self.0 & 3 {
            0 => PlaceKind::Absent,
            1 => PlaceKind::Short,
            _ => PlaceKind::Full,
        }
    }

    pub(super) fn indicators(self) -> Indicators {
        Indicators::from_bits((self.0 >> INDICATORS_SHIFT & 0xf) as u8)
    }

    pub(super) const fn status(self) -> Status {
        match self.0 >> STATUS_SHIFT & 3 {
            0 => Status::Approved,
            1 => Status::Review,
            _ => Status::Blocked,
        }
    }

    pub(super) const fn has_score(self) -> bool {
        self.0 & HAS_SCORE != 0
    }
}

/// Two bytes that say of most other amounts that they are not this one.
pub(super) fn amount_fingerprint(amount: Amount) -> Fingerprint {
    mark_of_bits(amount_bits(amount))
}

fn mark_of_bits(bits: u64) -> Fingerprint {
    // The top of a product with 2^64 / golden ratio, which neighbours in value do not share.
    let [a, b, ..] = bits.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    [a, b]
}

fn amount_bits(amount: Amount) -> u64 {
    amount.ten_thousandths().unsigned_abs()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_word_gives_back_what_was_put_in(
            amount in 0..=Amount::MAX.ten_thousandths(), bits in 0..16_u8, status in 0..3_usize, has_score: bool,
        ) {
            let amount = Amount::from_ten_thousandths(amount).unwrap();
            let status = Status::ALL[status];
            for kind in [PlaceKind::Absent, PlaceKind::Short, PlaceKind::Full] {
                let word = PackedRecord::new(amount, kind, Indicators::from_bits(bits), status, has_score);
                let word = PackedRecord::from_bytes(word.to_bytes());
                prop_assert!(word.is_of(amount));
                prop_assert_eq!(word.place_kind(), kind);
                prop_assert_eq!(word.indicators().bits(), bits);
                prop_assert_eq!(word.status(), status);
                prop_assert_eq!(word.has_score(), has_score);
            }
        }
    }
}
