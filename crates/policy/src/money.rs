//! Exact money: a whole number of ten-thousandths of the currency's unit, of either sign. No binary float is involved.

use std::fmt;

use tollgate_types::Amount;

const SCALE: i128 = 10_000;
const SHORT_SCALE: i64 = 10_000;

/// A decimal with four places. What is read lies within 10^12 of zero, results of arithmetic within 10^18.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Money(i128);

impl Money {
    /// The largest result of arithmetic, 10^18; beyond it a result is unknown.
    pub const MAX: Self = Self(1_000_000_000_000_000_000 * SCALE);

    /// Money of this many ten-thousandths, where it lies within 10^18 of zero.
    #[must_use]
    pub const fn from_ten_thousandths(value: i128) -> Option<Self> {
        if -Self::MAX.0 <= value && value <= Self::MAX.0 {
            Some(Self(value))
        } else {
            None
        }
    }

    /// Ten-thousandths of the unit.
    #[must_use]
    pub const fn ten_thousandths(self) -> i128 {
        self.0
    }

    /// Reads a number as JSON and TOML write it: sign and exponent allowed. `None` where it has more than four decimal
    /// places or lies further than 10^12 from zero.
    #[must_use]
    pub fn parse_number(text: &str) -> Option<Self> {
        Self::with_sign(text, |digits| Amount::parse_number(digits).ok())
    }

    /// Reads a plain decimal string, `-12.50`. `None` as for [`Money::parse_number`], and where it is no such string.
    #[must_use]
    pub fn parse_decimal(text: &str) -> Option<Self> {
        Self::with_sign(text, |digits| Amount::parse_decimal(digits).ok())
    }

    fn with_sign(text: &str, parse: impl FnOnce(&str) -> Option<Amount>) -> Option<Self> {
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, text),
        };
        if digits.starts_with('-') {
            return None;
        }
        parse(digits).map(|amount| Self(sign * i128::from(amount.ten_thousandths())))
    }

    /// The sum; `None` beyond 10^18.
    #[must_use]
    pub const fn plus(self, other: Self) -> Option<Self> {
        Self::from_ten_thousandths(self.0 + other.0)
    }

    /// The difference; `None` beyond 10^18.
    #[must_use]
    pub const fn minus(self, other: Self) -> Option<Self> {
        Self::from_ten_thousandths(self.0 - other.0)
    }

    /// The product, half to even at the fourth place. `None` beyond 10^18.
    #[must_use]
    pub fn times(self, other: Self) -> Option<Self> {
        if let (Ok(left), Ok(right)) = (i64::try_from(self.0), i64::try_from(other.0))
            && let Some(product) = left.checked_mul(right)
        {
            // Nearly always; a division by a constant is a multiplication.
            let (quotient, rest) = (
                product.div_euclid(SHORT_SCALE),
                product.rem_euclid(SHORT_SCALE),
            );
            let half = SHORT_SCALE / 2;
            let up = rest > half || rest == half && quotient % 2 != 0;
            return Some(Self(i128::from(quotient) + i128::from(up)));
        }
        // One of the two is a literal in a policy, so that this does not overflow there: 10^22 · 10^16 < 2^127.
        let product = self.0.checked_mul(other.0)?;
        divide_half_even(product, SCALE).and_then(Self::from_ten_thousandths)
    }

    /// The quotient, half to even at the fourth place. `None` beyond 10^18 and for a divisor of zero.
    #[must_use]
    pub fn divided_by(self, other: Self) -> Option<Self> {
        divide_half_even(self.0 * SCALE, other.0).and_then(Self::from_ten_thousandths)
    }
}

/// The nearest whole number to a quotient, and of two that are equally near the even one.
fn divide_half_even(dividend: i128, divisor: i128) -> Option<i128> {
    // Division of 64 bits takes a fraction of the time, and most amounts fit.
    if let (Ok(short), Ok(by)) = (i64::try_from(dividend), i64::try_from(divisor)) {
        let quotient = short.checked_div(by)?;
        let (rest, by) = (short.checked_rem(by)?.unsigned_abs(), by.unsigned_abs());
        let up = rest > by - rest || rest == by - rest && quotient % 2 != 0;
        let away = if (short < 0) == (divisor < 0) { 1 } else { -1 };
        return Some(i128::from(quotient) + if up { away } else { 0 });
    }
    let quotient = dividend.checked_div(divisor)?;
    let rest = dividend.checked_rem(divisor)?.unsigned_abs();
    let by = divisor.unsigned_abs();
    let up = rest > by - rest || rest == by - rest && quotient % 2 != 0;
    let away = if (dividend < 0) == (divisor < 0) {
        1
    } else {
        -1
    };
    Some(quotient + if up { away } else { 0 })
}

impl From<Amount> for Money {
    fn from(amount: Amount) -> Self {
        Self(i128::from(amount.ten_thousandths()))
    }
}

/// The shortest decimal: `12.5`, `-0.0001`, `1000`.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = SCALE.unsigned_abs();
        let (whole, mut fraction) = (self.0.unsigned_abs() / scale, self.0.unsigned_abs() % scale);
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}{whole}")?;
        if fraction == 0 {
            return Ok(());
        }
        let mut places = 4;
        while fraction % 10 == 0 {
            fraction /= 10;
            places -= 1;
        }
        write!(f, ".{fraction:0places$}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn money(text: &str) -> Money {
        Money::parse_decimal(text).unwrap()
    }

    #[test]
    fn money_is_read_and_shown_as_the_shortest_decimal() {
        for (text, shown) in [
            ("12.5000", "12.5"),
            ("-0.0001", "-0.0001"),
            ("-0", "0"),
            ("1000000000000", "1000000000000"),
            ("0.0100", "0.01"),
        ] {
            assert_eq!(money(text).to_string(), shown);
        }
        for wrong in [
            "",
            "-",
            "--1",
            "1.",
            ".5",
            "+1",
            "1e3",
            "0.00001",
            "1000000000000.0001",
        ] {
            assert_eq!(Money::parse_decimal(wrong), None, "{wrong}");
        }
        assert_eq!(Money::parse_number("-1.5e3"), Some(money("-1500")));
        assert_eq!(Money::parse_number("1e-5"), None);
    }

    #[test]
    fn results_are_rounded_half_to_even_and_bounded() {
        assert_eq!(money("0.0001").times(money("0.5")), Some(money("0")));
        assert_eq!(money("0.0003").times(money("0.5")), Some(money("0.0002")));
        assert_eq!(money("-0.0003").times(money("0.5")), Some(money("-0.0002")));
        assert_eq!(money("1").divided_by(money("3")), Some(money("0.3333")));
        assert_eq!(money("-2").divided_by(money("3")), Some(money("-0.6667")));
        assert_eq!(money("1").divided_by(money("0")), None);
        let most = money("1000000000000");
        let large = most.times(money("1000000")).unwrap();
        assert_eq!(large, Money::MAX);
        assert_eq!(large.plus(money("0.0001")), None);
        assert_eq!(large.times(most), None);
        assert_eq!(large.divided_by(money("0.0001")), None);
    }

    proptest! {
        #[test]
        fn a_quotient_is_within_half_a_place_of_the_exact_one(a in -10_i128.pow(26)..10_i128.pow(26), b in -10_i128.pow(22)..10_i128.pow(22)) {
            prop_assume!(b != 0);
            let quotient = divide_half_even(a, b).unwrap();
            let doubled = (2 * (a - quotient * b)).abs();
            prop_assert!(doubled < b.abs() || doubled == b.abs() && quotient % 2 == 0);
        }

        #[test]
        fn a_short_quotient_is_within_half_a_place_of_the_exact_one(a: i64, b in -1_000_i64..1_000) {
            prop_assume!(b != 0);
            let (a, b) = (i128::from(a), i128::from(b));
            let quotient = divide_half_even(a, b).unwrap();
            let doubled = (2 * (a - quotient * b)).abs();
            prop_assert!(doubled < b.abs() || doubled == b.abs() && quotient % 2 == 0);
        }
    }
}
