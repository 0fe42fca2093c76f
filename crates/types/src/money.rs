//! Money of several currencies: a currency's code, the exact rate of a currency, and amounts converted by it.
//!
//! Invariant: nothing here is ever a binary float while it is read, converted or written. An amount in the base currency has
//! four places, rounded half to even.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::Amount;

/// Longest code of a currency: those of ISO 4217 have three characters, others have more.
const MAX_CODE_BYTES: usize = 12;
/// Decimal places of a rate.
const RATE_PLACES: u32 = 12;
const RATE_SCALE: u64 = 10_u64.pow(RATE_PLACES);
/// Highest rate. With it the largest amount is 10^18 in the base currency.
const MAX_RATE: u64 = 1_000_000 * RATE_SCALE;
/// What an amount is counted in.
const AMOUNT_PLACES: u32 = 4;
const AMOUNT_SCALE: u128 = 10_u128.pow(AMOUNT_PLACES);

/// The code of a currency in capitals, such as `EUR`: 1 to 12 letters and digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; MAX_CODE_BYTES]);

/// A text is not the code of a currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a currency is a code of 1 to {MAX_CODE_BYTES} letters and digits, such as EUR")]
pub struct InvalidCurrency;

impl Currency {
    /// Reads a code. Case does not matter, nor do blanks around it.
    ///
    /// # Errors
    /// Where the text is no code.
    pub fn parse(text: &str) -> Result<Self, InvalidCurrency> {
        let text = text.trim_ascii();
        let mut code = [0; MAX_CODE_BYTES];
        let fits = (1..=MAX_CODE_BYTES).contains(&text.len());
        if !fits || !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(InvalidCurrency);
        }
        for (to, byte) in code.iter_mut().zip(text.bytes()) {
            *to = byte.to_ascii_uppercase();
        }
        Ok(Self(code))
    }

    /// The code.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|byte| *byte == 0);
        // Letters and digits.
        std::str::from_utf8(&self.0[..end.unwrap_or(MAX_CODE_BYTES)]).unwrap_or_default()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Code;
        impl Visitor<'_> for Code {
            type Value = Currency;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the code of a currency")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Currency, E> {
                Currency::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Code)
    }
}

/// What one unit of a currency is worth in the base currency: above 0, at most 1,000,000, with at most 12 decimal places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(u64);

/// A text is not a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a rate is a decimal above 0 and at most 1000000 with at most {RATE_PLACES} decimal places, such as \"0.92\""
)]
pub struct InvalidRate;

impl Rate {
    /// That of the base currency.
    pub const ONE: Self = Self(RATE_SCALE);

    /// Reads a plain decimal, without an exponent.
    ///
    /// # Errors
    /// Where the text is no rate.
    pub fn parse(text: &str) -> Result<Self, InvalidRate> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let fraction_without_zeros = fraction.trim_end_matches('0');
        let all_digits =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let places = u32::try_from(fraction_without_zeros.len()).unwrap_or(u32::MAX);
        if !all_digits(whole) || !all_digits(fraction) || places > RATE_PLACES {
            return Err(InvalidRate);
        }
        let digits = |text: &str| match text.is_empty() {
            true => Ok(0),
            false => text.parse::<u64>().map_err(|_| InvalidRate),
        };
        let fraction = digits(fraction_without_zeros)? * 10_u64.pow(RATE_PLACES - places);
        let value = digits(whole)?
            .checked_mul(RATE_SCALE)
            .and_then(|whole| whole.checked_add(fraction))
            .ok_or(InvalidRate)?;
        match value {
            1..=MAX_RATE => Ok(Self(value)),
            _ => Err(InvalidRate),
        }
    }

    /// An amount of this currency in the base currency: exact, then half to even at four places.
    #[must_use]
    pub fn convert(self, amount: Amount) -> BaseAmount {
        let amount = u128::from(amount.ten_thousandths().unsigned_abs());
        // At most 10^16 · 10^18.
        let exact = amount * u128::from(self.0);
        let scale = u128::from(RATE_SCALE);
        let (whole, rest) = (exact / scale, exact % scale);
        let up = match (2 * rest).cmp(&scale) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => whole % 2 == 1,
            std::cmp::Ordering::Greater => true,
        };
        BaseAmount(whole + u128::from(up))
    }

    /// The least power of ten of which so many units are worth more than a tenth of a unit of the base currency: 1 for most
    /// currencies, 100 for one whose unit is worth half a cent.
    #[must_use]
    pub fn power_of_ten(self) -> u64 {
        let mut power = 1;
        // At most 10^12, since a rate is at least 10^-12.
        while u128::from(self.0) * u128::from(power) * 10 <= u128::from(RATE_SCALE) {
            power *= 10;
        }
        power
    }
}

impl fmt::Display for Rate {
    /// The shortest decimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_decimal(f, u128::from(self.0), RATE_PLACES)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Decimal;
        impl Visitor<'_> for Decimal {
            type Value = Rate;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a rate as a decimal string")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Rate, E> {
                Rate::parse(text).map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Rate, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Rate, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Rate, E> {
                // The shortest text that gives this float is the one that a person wrote.
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Decimal)
    }
}

/// An amount in the base currency: a whole number of ten-thousandths, at most 10^18 units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BaseAmount(u128);

impl BaseAmount {
    /// The nearest 64-bit float.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "scores are floats; above 2^53 the nearest float is meant"
    )]
    pub fn to_f64(self) -> f64 {
        self.0 as f64 / AMOUNT_SCALE as f64
    }
}

impl From<Amount> for BaseAmount {
    fn from(amount: Amount) -> Self {
        Self(u128::from(amount.ten_thousandths().unsigned_abs()))
    }
}

impl fmt::Display for BaseAmount {
    /// The shortest decimal: `18.3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_decimal(f, self.0, AMOUNT_PLACES)
    }
}

impl Serialize for BaseAmount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BaseAmount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Decimal;
        impl Visitor<'_> for Decimal {
            type Value = BaseAmount;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount as a decimal string")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<BaseAmount, E> {
                let error =
                    || E::custom("expected a decimal of at most 10^18 with at most 4 places");
                let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
                let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
                let sized = (1..=19).contains(&whole.len()) && fraction.len() <= 4;
                if !sized || !digits(whole) || !digits(fraction) {
                    return Err(error());
                }
                // Digits of a bounded number.
                let value = format!("{whole}{fraction:0<4}")
                    .parse()
                    .map_err(|_| error())?;
                Ok(BaseAmount(value))
            }
        }
        deserializer.deserialize_str(Decimal)
    }
}

/// Writes so many parts of a unit, of which a unit has 10^`places`, as the shortest decimal.
fn write_decimal(f: &mut fmt::Formatter<'_>, value: u128, places: u32) -> fmt::Result {
    let scale = 10_u128.pow(places);
    let (whole, fraction) = (value / scale, value % scale);
    if fraction == 0 {
        return write!(f, "{whole}");
    }
    let text = format!("{fraction:0width$}", width = places as usize);
    write!(f, "{whole}.{}", text.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn converted(amount: &str, rate: &str) -> String {
        let amount = Amount::parse_decimal(amount).unwrap();
        Rate::parse(rate).unwrap().convert(amount).to_string()
    }

    #[test]
    fn an_amount_is_converted_exactly_and_rounded_half_to_even_at_four_places() {
        for (amount, rate, expected) in [
            ("3000", "0.0061", "18.3"),
            ("0.1", "3", "0.3"),
            // Halves, to the even neighbour.
            ("0.0001", "0.5", "0"),
            ("0.0003", "0.5", "0.0002"),
            ("0.0001", "2.5", "0.0002"),
            ("0.0001", "3.5", "0.0004"),
            // Just beside a half.
            ("0.0001", "2.500000000001", "0.0003"),
            ("0.0001", "3.499999999999", "0.0003"),
            ("1000000000000", "1000000", "1000000000000000000"),
            ("999999999999.9999", "1", "999999999999.9999"),
            ("0", "0.000000000001", "0"),
        ] {
            assert_eq!(converted(amount, rate), expected, "{amount} at {rate}");
        }
    }

    #[test]
    fn a_rate_is_a_plain_decimal_above_zero() {
        for (text, printed) in [
            ("0.920", "0.92"),
            ("1", "1"),
            ("1.0", "1"),
            ("0.000000000001", "0.000000000001"),
            ("0.0000000000010000", "0.000000000001"),
            ("1000000", "1000000"),
        ] {
            assert_eq!(Rate::parse(text).unwrap().to_string(), printed, "{text}");
        }
        for text in [
            "",
            "0",
            "0.0",
            "-1",
            "+1",
            ".5",
            "5.",
            "1e3",
            "1,5",
            "NaN",
            "1000000.000000000001",
            "0.0000000000001",
            "99999999999999999999",
            "1 ",
        ] {
            assert_eq!(Rate::parse(text), Err(InvalidRate), "{text}");
        }
    }

    #[test]
    fn a_code_is_read_in_any_case_and_with_blanks_around_it() {
        for text in ["EUR", "eur", " Eur\t"] {
            assert_eq!(Currency::parse(text).unwrap().as_str(), "EUR");
        }
        for text in ["", " ", "E R", "€", "EUR/USD", "ABCDEFGHIJKLM"] {
            assert_eq!(Currency::parse(text), Err(InvalidCurrency), "{text}");
        }
    }

    #[test]
    fn a_unit_that_is_worth_little_has_a_power_of_ten_that_is_worth_about_as_much_as_the_base() {
        for (rate, power) in [
            ("1", 1),
            ("0.92", 1),
            ("3.01", 1),
            ("0.11", 1),
            ("0.1", 10),
            ("0.0061", 100),
            ("0.000036", 10_000),
            ("0.000000000001", 1_000_000_000_000),
        ] {
            assert_eq!(Rate::parse(rate).unwrap().power_of_ten(), power, "{rate}");
        }
    }

    proptest! {
        #[test]
        fn what_was_printed_is_read_as_the_same(
            rate in 1..=MAX_RATE, amount in 0..=Amount::MAX.ten_thousandths(),
        ) {
            let rate = Rate(rate);
            prop_assert_eq!(Rate::parse(&rate.to_string()), Ok(rate));
            let base = rate.convert(Amount::from_ten_thousandths(amount).unwrap());
            let text = serde_json::to_string(&base).unwrap();
            prop_assert_eq!(serde_json::from_str::<BaseAmount>(&text).unwrap(), base);
        }

        #[test]
        fn the_base_currency_keeps_its_amounts(amount in 0..=Amount::MAX.ten_thousandths()) {
            let amount = Amount::from_ten_thousandths(amount).unwrap();
            let base = Rate::ONE.convert(amount);
            prop_assert_eq!(base, BaseAmount::from(amount));
            prop_assert_eq!(base.to_f64().to_bits(), amount.to_f64().to_bits());
            prop_assert_eq!(base.to_string(), amount.to_string());
        }

        #[test]
        fn no_text_panics(text in "[-+0-9.eE]{0,40}|.{0,40}") {
            let _ = (Rate::parse(&text), Currency::parse(&text));
            let _ = serde_json::from_value::<BaseAmount>(text.into());
        }
    }
}
