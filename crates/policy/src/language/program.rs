//! A compiled condition: a tree of typed operations over slots. Comparisons of a member or feature with a literal, of which
//! most conditions consist, are one operation; `&&` and `||` in a row are one operation with many operands. Evaluation
//! allocates nothing.
//!
//! Unknown is `None`, of numbers NaN and of money [`UNKNOWN`]. Three-valued logic permits to stop at the first operand that
//! decides, whatever the others are.

use crate::money::Money;
use crate::slots::{Slots, UNKNOWN};

/// Which of less, equal and greater satisfy a comparison, as bits. One bit says how two known values compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Order(u8);

const LESS: u8 = 1;
const EQUAL: u8 = 2;
const GREATER: u8 = 4;

impl Order {
    pub(super) const EQUAL: Self = Self(EQUAL);
    pub(super) const NOT_EQUAL: Self = Self(LESS | GREATER);
    pub(super) const LESS: Self = Self(LESS);
    pub(super) const LESS_OR_EQUAL: Self = Self(LESS | EQUAL);
    pub(super) const GREATER: Self = Self(GREATER);
    pub(super) const GREATER_OR_EQUAL: Self = Self(GREATER | EQUAL);

    /// The same with the operands exchanged.
    pub(super) const fn mirrored(self) -> Self {
        let less = if self.0 & GREATER == 0 { 0 } else { LESS };
        let greater = if self.0 & LESS == 0 { 0 } else { GREATER };
        Self(less | self.0 & EQUAL | greater)
    }

    /// NaN compares as nothing, and is unknown.
    #[inline]
    fn numbers(self, left: f64, right: f64) -> Option<bool> {
        let is =
            u8::from(left < right) | (u8::from(left == right) << 1) | (u8::from(left > right) << 2);
        (is != 0).then_some(self.0 & is != 0)
    }

    #[inline]
    fn money(self, left: i128, right: i128) -> Option<bool> {
        (left != UNKNOWN && right != UNKNOWN).then(|| self.known(left, right))
    }

    /// Bytes of UTF-8 are in the order of code points.
    #[inline]
    fn strings(self, left: Option<&str>, right: Option<&str>) -> Option<bool> {
        Some(self.known(left?, right?))
    }

    #[inline]
    fn known<T: Ord>(self, left: T, right: T) -> bool {
        let is = match left.cmp(&right) {
            std::cmp::Ordering::Less => LESS,
            std::cmp::Ordering::Equal => EQUAL,
            std::cmp::Ordering::Greater => GREATER,
        };
        self.0 & is != 0
    }
}

/// What is true, false or unknown.
#[derive(Debug, Clone)]
pub(crate) enum Test {
    Literal(bool),
    Bool(u32),
    /// Whether a value is known.
    HasNumber(u32),
    HasMoney(u32),
    HasString(u32),
    HasBool(u32),
    Not(Box<Test>),
    All(Box<[Test]>),
    Any(Box<[Test]>),
    Choice(Box<[Test; 3]>),
    /// From left to right.
    Bools(Box<Test>, Box<[BoolStep]>),
    NumberToLiteral {
        slot: u32,
        order: Order,
        literal: f64,
    },
    Numbers(Order, Box<[Number; 2]>),
    MoneyToLiteral {
        slot: u32,
        order: Order,
        literal: i64,
    },
    Moneys(Order, Box<[Cash; 2]>),
    StringIs {
        slot: u32,
        equal: bool,
        literal: Box<str>,
    },
    Strings(Order, Box<[Text; 2]>),
    StartsWith(Box<[Text; 2]>),
    EndsWith(Box<[Text; 2]>),
    Contains(Box<[Text; 2]>),
    NumberIn(Box<Number>, Box<[f64]>),
    MoneyIn(Box<Cash>, Box<[i64]>),
    /// In the order of the strings.
    StringIn(Box<Text>, Box<[Box<str>]>),
}

/// What is done with a bool. As many in a row as fit into a condition may not take stack, each on its own.
#[derive(Debug, Clone)]
pub(crate) enum BoolStep {
    Equal(Test),
    NotEqual(Test),
    In(Box<[bool]>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// A number; NaN is unknown, and so is a result that is not finite.
#[derive(Debug, Clone)]
pub(crate) enum Number {
    Literal(f64),
    Slot(u32),
    Negative(Box<Number>),
    Choice(Box<(Test, Number, Number)>),
    /// From left to right.
    Row(Box<Number>, Box<[(Arithmetic, Number)]>),
    /// Code points.
    Size(Text),
    Hour(Box<Moment>),
    Weekday(Box<Moment>),
}

/// Money in ten-thousandths, or [`UNKNOWN`].
#[derive(Debug, Clone)]
pub(crate) enum Cash {
    Literal(i64),
    Slot(u32),
    Negative(Box<Cash>),
    Choice(Box<(Test, Cash, Cash)>),
    /// From left to right.
    Row(Box<Cash>, Box<[(Arithmetic, Cash)]>),
}

#[derive(Debug, Clone)]
pub(crate) enum Text {
    Literal(Box<str>),
    Slot(u32),
    Choice(Box<(Test, Text, Text)>),
}

/// An instant in microseconds since 1970.
#[derive(Debug, Clone)]
pub(crate) enum Moment {
    Timestamp,
    Choice(Box<(Test, Moment, Moment)>),
}

impl Test {
    #[inline]
    pub(crate) fn evaluate(&self, slots: &Slots<'_>) -> Option<bool> {
        match self {
            Self::NumberToLiteral {
                slot,
                order,
                literal,
            } => order.numbers(slots.number(*slot), *literal),
            Self::MoneyToLiteral {
                slot,
                order,
                literal,
            } => order.money(slots.money(*slot), i128::from(*literal)),
            Self::StringIs {
                slot,
                equal,
                literal,
            } => slots
                .string(*slot)
                .map(|value| (value == &**literal) == *equal),
            Self::Bool(slot) => slots.bool(*slot),
            other => other.evaluate_further(slots),
        }
    }

    /// What is seldom or has operands of its own. Apart, so that the tests above cost a row of them no call.
    #[inline(never)]
    fn evaluate_further(&self, slots: &Slots<'_>) -> Option<bool> {
        match self {
            Self::NumberToLiteral { .. }
            | Self::MoneyToLiteral { .. }
            | Self::StringIs { .. }
            | Self::Bool(_) => self.evaluate(slots),
            Self::All(tests) => decide(tests, false, slots),
            Self::Any(tests) => decide(tests, true, slots),
            Self::Not(test) => test.evaluate(slots).map(|value| !value),
            Self::Literal(value) => Some(*value),
            Self::HasNumber(slot) => slots.has_number(*slot),
            Self::HasMoney(slot) => slots.has_money(*slot),
            Self::HasString(slot) => slots.has_string(*slot),
            Self::HasBool(slot) => slots.has_bool(*slot),
            Self::Choice(branches) => {
                let [test, yes, no] = &**branches;
                let branch = if test.evaluate(slots)? { yes } else { no };
                branch.evaluate(slots)
            }
            Self::Bools(first, steps) => {
                let mut value = first.evaluate(slots)?;
                for step in steps {
                    value = match step {
                        BoolStep::Equal(other) => value == other.evaluate(slots)?,
                        BoolStep::NotEqual(other) => value != other.evaluate(slots)?,
                        BoolStep::In(elements) => elements.contains(&value),
                    };
                }
                Some(value)
            }
            Self::Numbers(order, both) => {
                let [left, right] = &**both;
                order.numbers(left.evaluate(slots), right.evaluate(slots))
            }
            Self::Moneys(order, both) => {
                let [left, right] = &**both;
                order.money(left.evaluate(slots), right.evaluate(slots))
            }
            Self::Strings(order, both) => {
                let [left, right] = &**both;
                order.strings(left.evaluate(slots), right.evaluate(slots))
            }
            Self::StartsWith(both) => texts(both, slots, |text, part| text.starts_with(part)),
            Self::EndsWith(both) => texts(both, slots, |text, part| text.ends_with(part)),
            Self::Contains(both) => texts(both, slots, |text, part| text.contains(part)),
            Self::NumberIn(number, elements) => {
                let value = number.evaluate(slots);
                (!value.is_nan()).then(|| elements.contains(&value))
            }
            Self::MoneyIn(cash, elements) => {
                let value = cash.evaluate(slots);
                (value != UNKNOWN)
                    .then(|| i64::try_from(value).is_ok_and(|value| elements.contains(&value)))
            }
            Self::StringIn(text, elements) => {
                let value = text.evaluate(slots)?;
                Some(
                    elements
                        .binary_search_by(|each| (**each).cmp(value))
                        .is_ok(),
                )
            }
        }
    }
}

/// `decisive` if one operand is; unknown if none is and one is unknown; otherwise the opposite.
fn decide(tests: &[Test], decisive: bool, slots: &Slots<'_>) -> Option<bool> {
    let mut result = Some(!decisive);
    for test in tests {
        match test.evaluate(slots) {
            Some(value) if value == decisive => return Some(decisive),
            Some(_) => {}
            None => result = None,
        }
    }
    result
}

fn texts(both: &[Text; 2], slots: &Slots<'_>, test: fn(&str, &str) -> bool) -> Option<bool> {
    let [text, part] = both;
    Some(test(text.evaluate(slots)?, part.evaluate(slots)?))
}

/// A result that is not finite is unknown.
fn finite(value: f64) -> f64 {
    if value.is_finite() { value } else { f64::NAN }
}

impl Number {
    pub(crate) fn evaluate(&self, slots: &Slots<'_>) -> f64 {
        match self {
            Self::Literal(value) => *value,
            Self::Slot(slot) => slots.number(*slot),
            Self::Negative(number) => -number.evaluate(slots),
            Self::Choice(branches) => {
                let (test, yes, no) = &**branches;
                match test.evaluate(slots) {
                    Some(true) => yes.evaluate(slots),
                    Some(false) => no.evaluate(slots),
                    None => f64::NAN,
                }
            }
            Self::Row(first, steps) => {
                let mut value = first.evaluate(slots);
                for (operator, operand) in steps {
                    let operand = operand.evaluate(slots);
                    value = finite(match operator {
                        Arithmetic::Add => value + operand,
                        Arithmetic::Subtract => value - operand,
                        Arithmetic::Multiply => value * operand,
                        Arithmetic::Divide => value / operand,
                    });
                }
                value
            }
            Self::Size(text) => text.evaluate(slots).map_or(f64::NAN, |text| {
                // A text of a transaction is far below 2^32 characters.
                u32::try_from(text.chars().count()).map_or(f64::NAN, f64::from)
            }),
            Self::Hour(moment) => part_of(moment.evaluate(slots), |seconds| {
                seconds.rem_euclid(86_400) / 3_600
            }),
            // 1970-01-01 was a Thursday.
            Self::Weekday(moment) => part_of(moment.evaluate(slots), |seconds| {
                (seconds.div_euclid(86_400) + 4).rem_euclid(7)
            }),
        }
    }
}

fn part_of(micros: Option<i64>, part: fn(i64) -> i64) -> f64 {
    micros.map_or(f64::NAN, |micros| {
        let part = part(micros.div_euclid(1_000_000));
        i32::try_from(part).map_or(f64::NAN, f64::from)
    })
}

impl Cash {
    pub(crate) fn evaluate(&self, slots: &Slots<'_>) -> i128 {
        match self {
            Self::Literal(value) => i128::from(*value),
            Self::Slot(slot) => slots.money(*slot),
            Self::Negative(cash) => match cash.evaluate(slots) {
                UNKNOWN => UNKNOWN,
                value => -value,
            },
            Self::Choice(branches) => {
                let (test, yes, no) = &**branches;
                match test.evaluate(slots) {
                    Some(true) => yes.evaluate(slots),
                    Some(false) => no.evaluate(slots),
                    None => UNKNOWN,
                }
            }
            Self::Row(first, steps) => {
                let mut value = Money::from_ten_thousandths(first.evaluate(slots));
                for (operator, operand) in steps {
                    let operand = Money::from_ten_thousandths(operand.evaluate(slots));
                    value = match (value, operand) {
                        (Some(left), Some(right)) => match operator {
                            Arithmetic::Add => left.plus(right),
                            Arithmetic::Subtract => left.minus(right),
                            Arithmetic::Multiply => left.times(right),
                            Arithmetic::Divide => left.divided_by(right),
                        },
                        _ => return UNKNOWN,
                    };
                }
                value.map_or(UNKNOWN, Money::ten_thousandths)
            }
        }
    }
}

impl Text {
    pub(crate) fn evaluate<'s>(&'s self, slots: &Slots<'s>) -> Option<&'s str> {
        match self {
            Self::Literal(text) => Some(text),
            Self::Slot(slot) => slots.string(*slot),
            Self::Choice(branches) => {
                let (test, yes, no) = &**branches;
                let branch = if test.evaluate(slots)? { yes } else { no };
                branch.evaluate(slots)
            }
        }
    }
}

impl Moment {
    fn evaluate(&self, slots: &Slots<'_>) -> Option<i64> {
        match self {
            Self::Timestamp => slots.timestamp(),
            Self::Choice(branches) => {
                let (test, yes, no) = &**branches;
                let branch = if test.evaluate(slots)? { yes } else { no };
                branch.evaluate(slots)
            }
        }
    }
}
