//! Amounts of money, held exactly: a whole number of ten-thousandths of the currency's unit.
//! It is never a binary float while it is read or written, so `0.1 + 0.2` is `0.3` and equal amounts compare equal.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

const SCALE_DIGITS: i32 = 4;
const SCALE: i64 = 10_000;

/// A non-negative amount of at most 10^12 with at most four decimal places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Amount(i64);

/// Why a text is not an amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Not a decimal number at all.
    #[error("expected a number or a decimal string")]
    Malformed,
    /// Below zero.
    #[error("must not be negative")]
    Negative,
    /// Above 10^12.
    #[error("must be at most 1000000000000")]
    TooLarge,
    /// More than four decimal places.
    #[error("must have at most 4 decimal places")]
    TooPrecise,
}

impl Amount {
    /// The largest amount: 10^12.
    pub const MAX: Self = Self(1_000_000_000_000 * SCALE);

    /// The amount of this many ten-thousandths, where it is in range.
    #[must_use]
    pub fn from_ten_thousandths(value: i64) -> Option<Self> {
        (0..=Self::MAX.0).contains(&value).then_some(Self(value))
    }

    /// The amount in ten-thousandths of the unit.
    #[must_use]
    pub const fn ten_thousandths(self) -> i64 {
        self.0
    }

    /// The nearest 64-bit float.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "scores are floats; above 2^53 the nearest float is meant"
    )]
    pub fn to_f64(self) -> f64 {
        self.0 as f64 / SCALE as f64
    }

    /// Reads a JSON number, exponent allowed (`1.5e3`).
    ///
    /// # Errors
    /// Which rule the number breaks. Trailing zeros are no decimal places: `1.50000` is 1.5.
    pub fn parse_number(text: &str) -> Result<Self, AmountError> {
        let (mantissa, exponent) = match text.find(['e', 'E']) {
            None => (text, 0),
            Some(at) => (&text[..at], parse_exponent(&text[at + 1..])?),
        };
        Self::parse(mantissa, exponent)
    }

    /// Reads a plain decimal string (`"12.50"`), no exponent.
    ///
    /// # Errors
    /// Which rule the text breaks.
    pub fn parse_decimal(text: &str) -> Result<Self, AmountError> {
        Self::parse(text, 0)
    }

    fn parse(mantissa: &str, exponent: i32) -> Result<Self, AmountError> {
        let (negative, digits) = match mantissa.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, mantissa),
        };
        let (whole, fraction) = match digits.split_once('.') {
            Some((_, "")) => return Err(AmountError::Malformed),
            Some(parts) => parts,
            None => (digits, ""),
        };
        let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
            return Err(AmountError::Malformed);
        }
        // The value is 0.d1d2d3… · 10^point; without its outer zeros the digits are few or out of range.
        let leading = whole
            .bytes()
            .chain(fraction.bytes())
            .take_while(|b| *b == b'0')
            .count();
        let trailing = fraction
            .bytes()
            .rev()
            .chain(whole.bytes().rev())
            .take_while(|b| *b == b'0')
            .count();
        let total = whole.len() + fraction.len();
        if leading == total {
            return Ok(Self(0));
        }
        let clamp = |n: usize| i32::try_from(n).unwrap_or(i32::MAX / 4);
        let point = clamp(whole.len())
            .saturating_sub(clamp(leading))
            .saturating_add(exponent);
        let significant = clamp(total - leading - trailing);
        if negative {
            return Err(AmountError::Negative);
        }
        if point > 13 {
            return Err(AmountError::TooLarge);
        }
        if significant.saturating_sub(point) > SCALE_DIGITS {
            return Err(AmountError::TooPrecise);
        }
        let mut value = whole
            .bytes()
            .chain(fraction.bytes())
            .skip(leading)
            .take(total - leading - trailing)
            .fold(0_i64, |value, digit| value * 10 + i64::from(digit - b'0'));
        for _ in significant..point + SCALE_DIGITS {
            value *= 10;
        }
        Self::from_ten_thousandths(value).ok_or(AmountError::TooLarge)
    }
}

fn parse_exponent(text: &str) -> Result<i32, AmountError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(AmountError::Malformed);
    }
    // Anything this far out is out of range whatever its sign; the bound keeps sums from overflowing.
    let size = digits.parse::<i32>().unwrap_or(i32::MAX).min(i32::MAX / 4);
    Ok(if text.starts_with('-') { -size } else { size })
}

/// The longest text of an amount: thirteen digits, a point and four more.
const TEXT_BYTES: usize = 18;

impl Amount {
    /// The shortest decimal, written to the end of `text`: `56.55`, `1000`.
    fn write_text(self, text: &mut [u8; TEXT_BYTES]) -> &str {
        let (mut whole, mut fraction) = (self.0 / SCALE, self.0 % SCALE);
        let mut start = TEXT_BYTES;
        let mut put = |byte: u8| {
            start -= 1;
            text[start] = byte;
        };
        let digit = |value: i64| b'0' + u8::try_from(value % 10).unwrap_or_default();
        if fraction != 0 {
            let mut digits = SCALE_DIGITS;
            while fraction % 10 == 0 {
                fraction /= 10;
                digits -= 1;
            }
            for _ in 0..digits {
                put(digit(fraction));
                fraction /= 10;
            }
            put(b'.');
        }
        loop {
            put(digit(whole));
            whole /= 10;
            if whole == 0 {
                break;
            }
        }
        // Digits and a point.
        std::str::from_utf8(&text[start..]).unwrap_or_default()
    }
}

impl fmt::Display for Amount {
    /// The shortest decimal: `56.55`, `1000`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.write_text(&mut [0; TEXT_BYTES]))
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.write_text(&mut [0; TEXT_BYTES]))
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Amount;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount as a decimal string")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Amount, E> {
                Amount::parse_decimal(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_at_the_edges_are_read_exactly() {
        for (text, expected) in [
            ("0", 0),
            ("-0", 0),
            ("0e999999999999", 0),
            ("0.0001", 1),
            ("1e-4", 1),
            ("12.5", 125_000),
            ("12.50000000000", 125_000),
            ("1.5E+3", 15_000_000),
            ("100e-2", 10_000),
            ("0.00001e1", 1),
            ("999999999999.9999", 9_999_999_999_999_999),
            ("1e12", 10_000_000_000_000_000),
            ("1000000000000.0000", 10_000_000_000_000_000),
        ] {
            assert_eq!(
                Amount::parse_number(text).map(Amount::ten_thousandths),
                Ok(expected),
                "{text}"
            );
        }
    }

    #[test]
    fn what_breaks_a_rule_is_told_which() {
        for (text, expected) in [
            ("-1", AmountError::Negative),
            ("-0.00001", AmountError::Negative),
            ("1e400", AmountError::TooLarge),
            ("1e99999999999999999999", AmountError::TooLarge),
            ("1000000000000.0001", AmountError::TooLarge),
            ("10000000000000", AmountError::TooLarge),
            ("1.00001", AmountError::TooPrecise),
            ("1e-400", AmountError::TooPrecise),
            ("", AmountError::Malformed),
            (".5", AmountError::Malformed),
            ("5.", AmountError::Malformed),
            ("+5", AmountError::Malformed),
            ("1,5", AmountError::Malformed),
            ("NaN", AmountError::Malformed),
            ("1e", AmountError::Malformed),
            ("--1", AmountError::Malformed),
        ] {
            assert_eq!(Amount::parse_number(text), Err(expected), "{text}");
        }
        assert_eq!(
            Amount::parse_decimal("1e3"),
            Err(AmountError::Malformed),
            "a decimal string has no exponent"
        );
    }

    proptest! {
        #[test]
        fn parsing_what_was_printed_gives_the_same_amount(value in 0..=Amount::MAX.0) {
            let amount = Amount(value);
            prop_assert_eq!(Amount::parse_decimal(&amount.to_string()), Ok(amount));
            prop_assert_eq!(Amount::parse_number(&amount.to_string()), Ok(amount));
        }

        #[test]
        fn no_text_panics(text in "[-+0-9.eE]{0,40}|.{0,40}") {
            let _ = Amount::parse_number(&text);
            let _ = Amount::parse_decimal(&text);
        }
    }
}
