//! Random expressions against a plain interpreter of the specification: eager, without a parser, types or programs, and with
//! its own rounding.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::{Type, Value, Variables, evaluate};

#[derive(Debug, Clone)]
enum Expression {
    Literal(Value),
    Variable(&'static str),
    Has(&'static str),
    Not(Box<Expression>),
    Negative(Box<Expression>),
    Choice(Box<[Expression; 3]>),
    Binary(&'static str, Box<[Expression; 2]>),
    In(Box<Expression>, Vec<Value>),
    Method(&'static str, Box<[Expression; 2]>),
    Size(Box<Expression>),
    Function(&'static str),
}

const NUMBERS: [&str; 3] = ["n", "m", "deep.number"];
const MONEY: [&str; 3] = ["amount", "fee", "cash"];
const STRINGS: [&str; 3] = ["s", "t", "card.bin"];
const BOOLS: [&str; 2] = ["b", "c"];
const TEXTS: [&str; 8] = [
    "",
    "a",
    "ab",
    "aé",
    "é",
    "\u{1f600}",
    "\u{ffff}",
    "it's \\ \"\n",
];

/// A generator of small numbers from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn number(&mut self) -> f64 {
        self.one_of(&[0.0, 1.0, 2.0, 3.0, 0.5, 0.1, 7.25, 1e300, 1e-300, 86_400.0])
    }

    /// Not zero, and with at most four places.
    fn ten_thousandths(&mut self) -> i128 {
        self.one_of(&[
            1,
            3,
            5,
            2_500,
            10_000,
            12_345,
            99_999,
            1_000_000,
            10_i128.pow(16),
        ])
    }

    fn variables(&mut self) -> Variables {
        let mut variables = Variables::new();
        let mut add = |name: &str, found: Type, value: Option<Value>| {
            variables.insert(name.to_owned(), (found, value));
        };
        for name in NUMBERS {
            let value = Value::Number(self.number() * self.one_of(&[1.0, -1.0]));
            add(name, Type::Number, (self.below(4) > 0).then_some(value));
        }
        for name in MONEY {
            let value = Value::Money(self.ten_thousandths() * self.one_of(&[1, -1, 0]));
            add(name, Type::Money, (self.below(4) > 0).then_some(value));
        }
        for name in STRINGS {
            let value = Value::String(self.one_of(&TEXTS).to_owned());
            add(name, Type::String, (self.below(4) > 0).then_some(value));
        }
        for name in BOOLS {
            let value = Value::Bool(self.below(2) == 0);
            add(name, Type::Bool, (self.below(3) > 0).then_some(value));
        }
        let micros = i64::try_from(self.below(1 << 30)).unwrap() * 200_000_123 - (1 << 55);
        add("timestamp", Type::Timestamp, Some(Value::Timestamp(micros)));
        variables
    }

    fn bool(&mut self, depth: usize) -> Expression {
        let next = depth.saturating_sub(1);
        match if depth == 0 {
            self.below(3)
        } else {
            self.below(14)
        } {
            0 => Expression::Literal(Value::Bool(self.below(2) == 0)),
            1 => Expression::Variable(self.one_of(&BOOLS)),
            2 => {
                let all = [&NUMBERS[..], &MONEY, &STRINGS, &BOOLS].concat();
                Expression::Has(self.one_of(&all))
            }
            3 => Expression::Not(Box::new(self.bool(next))),
            4..=6 => {
                let operator = self.one_of(&["&&", "||", "==", "!="]);
                Expression::Binary(operator, Box::new([self.bool(next), self.bool(next)]))
            }
            7 => Expression::Choice(Box::new([
                self.bool(next),
                self.bool(next),
                self.bool(next),
            ])),
            8 => {
                let both = [self.number_expression(next), self.number_expression(next)];
                Expression::Binary(self.comparison(), Box::new(both))
            }
            9 => {
                let both = self.with_money(next);
                Expression::Binary(self.comparison(), Box::new(both))
            }
            10 => {
                let both = [self.string(next), self.string(next)];
                Expression::Binary(self.comparison(), Box::new(both))
            }
            11 => {
                let elements =
                    (0..=self.below(3)).map(|_| Value::String(self.one_of(&TEXTS).to_owned()));
                let elements = elements.collect();
                Expression::In(Box::new(self.string(next)), elements)
            }
            12 => match self.below(2) {
                0 => {
                    let elements = (0..=self.below(3))
                        .map(|_| Value::Number(self.number()))
                        .collect();
                    Expression::In(Box::new(self.number_expression(next)), elements)
                }
                _ => {
                    let elements =
                        (0..=self.below(3)).map(|_| Value::Money(self.ten_thousandths()));
                    let elements = elements.collect();
                    Expression::In(Box::new(self.money(next)), elements)
                }
            },
            _ => {
                let method = self.one_of(&["startsWith", "endsWith", "contains"]);
                Expression::Method(method, Box::new([self.string(next), self.string(next)]))
            }
        }
    }

    fn comparison(&mut self) -> &'static str {
        self.one_of(&["==", "!=", "<", "<=", ">", ">="])
    }

    fn number_expression(&mut self, depth: usize) -> Expression {
        let next = depth.saturating_sub(1);
        match if depth == 0 {
            self.below(2)
        } else {
            self.below(8)
        } {
            0 => Expression::Literal(Value::Number(self.number())),
            1 => Expression::Variable(self.one_of(&NUMBERS)),
            2 => Expression::Negative(Box::new(self.number_expression(next))),
            3 | 4 => {
                let both = [self.number_expression(next), self.number_expression(next)];
                Expression::Binary(self.one_of(&["+", "-", "*"]), Box::new(both))
            }
            5 => {
                // A literal zero below the line is refused.
                let by = Expression::Variable(self.one_of(&NUMBERS));
                Expression::Binary("/", Box::new([self.number_expression(next), by]))
            }
            6 => {
                let branches = [
                    self.bool(next),
                    self.number_expression(next),
                    self.number_expression(next),
                ];
                Expression::Choice(Box::new(branches))
            }
            _ => match self.below(3) {
                0 => Expression::Function("hour"),
                1 => Expression::Function("weekday"),
                _ => Expression::Size(Box::new(self.string(next))),
            },
        }
    }

    /// Money, and not only literals.
    fn money(&mut self, depth: usize) -> Expression {
        let next = depth.saturating_sub(1);
        match if depth == 0 { 0 } else { self.below(7) } {
            0 | 1 => Expression::Variable(self.one_of(&MONEY)),
            2 => Expression::Negative(Box::new(self.money(next))),
            3 => {
                let both = self.with_money(next);
                Expression::Binary(self.one_of(&["+", "-"]), Box::new(both))
            }
            4 => {
                let by = Expression::Literal(Value::Money(self.ten_thousandths()));
                let operator = self.one_of(&["*", "/"]);
                Expression::Binary(operator, Box::new([self.money(next), by]))
            }
            5 => {
                let by = Expression::Literal(Value::Money(self.ten_thousandths()));
                Expression::Binary("*", Box::new([by, self.money(next)]))
            }
            _ => {
                let [yes, no] = self.with_money(next);
                Expression::Choice(Box::new([self.bool(next), yes, no]))
            }
        }
    }

    /// Two of money, one of them perhaps a literal.
    fn with_money(&mut self, depth: usize) -> [Expression; 2] {
        let literal = Expression::Literal(Value::Money(self.ten_thousandths()));
        match self.below(3) {
            0 => [literal, self.money(depth)],
            1 => [self.money(depth), literal],
            _ => [self.money(depth), self.money(depth)],
        }
    }

    fn string(&mut self, depth: usize) -> Expression {
        let next = depth.saturating_sub(1);
        match if depth == 0 {
            self.below(2)
        } else {
            self.below(3)
        } {
            0 => Expression::Literal(Value::String(self.one_of(&TEXTS).to_owned())),
            1 => Expression::Variable(self.one_of(&STRINGS)),
            _ => Expression::Choice(Box::new([
                self.bool(next),
                self.string(next),
                self.string(next),
            ])),
        }
    }
}

fn show_value(value: &Value, to: &mut String) {
    match value {
        Value::Bool(value) => write!(to, "{value}").unwrap(),
        Value::Number(value) => write!(to, "{value:?}").unwrap(),
        Value::Money(value) => write!(to, "{}.{:04}", value / 10_000, value % 10_000).unwrap(),
        Value::String(text) => {
            to.push('\'');
            for c in text.chars() {
                match c {
                    '\'' | '\\' => write!(to, "\\{c}").unwrap(),
                    '\n' => to.push_str("\\n"),
                    c if u32::from(c) > 0xffff => write!(to, "\\U{:08x}", u32::from(c)).unwrap(),
                    c => to.push(c),
                }
            }
            to.push('\'');
        }
        Value::Timestamp(_) => unreachable!("no literal"),
    }
}

/// Writes an expression with no more brackets than an operand that binds at least as strongly as `least` needs.
fn show(expression: &Expression, least: u8, to: &mut String) {
    let strength = match expression {
        Expression::Choice(_) => 0,
        Expression::Binary("||", _) => 1,
        Expression::Binary("&&", _) => 2,
        Expression::Binary("+" | "-", _) => 4,
        Expression::Binary("*" | "/", _) => 5,
        Expression::Binary(..) | Expression::In(..) => 3,
        Expression::Not(_) | Expression::Negative(_) => 6,
        _ => 7,
    };
    let brackets = strength < least;
    to.push_str(if brackets { "(" } else { "" });
    match expression {
        Expression::Literal(value) => show_value(value, to),
        Expression::Variable(name) => to.push_str(name),
        Expression::Has(name) => write!(to, "has({name})").unwrap(),
        Expression::Not(inner) => {
            to.push('!');
            show(inner, 6, to);
        }
        Expression::Negative(inner) => {
            to.push('-');
            show(inner, 6, to);
        }
        Expression::Choice(branches) => {
            let [test, yes, no] = &**branches;
            show(test, 1, to);
            to.push_str(" ? ");
            show(yes, 1, to);
            to.push_str(" : ");
            show(no, 0, to);
        }
        Expression::Binary(operator, both) => {
            let [left, right] = &**both;
            show(left, strength, to);
            write!(to, " {operator} ").unwrap();
            show(right, strength + 1, to);
        }
        Expression::In(left, elements) => {
            show(left, 3, to);
            to.push_str(" in [");
            for (index, element) in elements.iter().enumerate() {
                to.push_str(if index > 0 { ", " } else { "" });
                show_value(element, to);
            }
            to.push(']');
        }
        Expression::Method(name, both) => {
            let [text, part] = &**both;
            show(text, 7, to);
            write!(to, ".{name}(").unwrap();
            show(part, 0, to);
            to.push(')');
        }
        Expression::Size(text) => {
            to.push_str("size(");
            show(text, 0, to);
            to.push(')');
        }
        Expression::Function(name) => write!(to, "{name}(timestamp)").unwrap(),
    }
    to.push_str(if brackets { ")" } else { "" });
}

/// Half to even, by comparing the two neighbours.
fn nearest(dividend: i128, divisor: i128) -> i128 {
    let (dividend, divisor) = (dividend * divisor.signum(), divisor.abs());
    let below = dividend.div_euclid(divisor);
    let rest = dividend.rem_euclid(divisor);
    match (2 * rest).cmp(&divisor) {
        std::cmp::Ordering::Less => below,
        std::cmp::Ordering::Greater => below + 1,
        std::cmp::Ordering::Equal => below + below.rem_euclid(2),
    }
}

fn arithmetic(operator: &str, left: &Value, right: &Value) -> Option<Value> {
    match (left, right) {
        (Value::Number(a), Value::Number(b)) => {
            let value = match operator {
                "+" => a + b,
                "-" => a - b,
                "*" => a * b,
                _ => a / b,
            };
            value.is_finite().then_some(Value::Number(value))
        }
        (Value::Money(a), Value::Money(b)) => {
            let value = match operator {
                "+" => a + b,
                "-" => a - b,
                "*" => nearest(a * b, 10_000),
                _ => nearest(a * 10_000, *b),
            };
            (value.abs() <= 10_i128.pow(22)).then_some(Value::Money(value))
        }
        _ => unreachable!("arithmetic of {left:?} and {right:?}"),
    }
}

fn order(left: &Value, right: &Value) -> std::cmp::Ordering {
    match (left, right) {
        (Value::Number(a), Value::Number(b)) => a.partial_cmp(b).unwrap(),
        (Value::Money(a), Value::Money(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::String(a), Value::String(b)) => a.chars().cmp(b.chars()),
        _ => unreachable!("{left:?} and {right:?} compared"),
    }
}

fn interpret(expression: &Expression, variables: &Variables) -> Option<Value> {
    let is = |expression: &Expression| match interpret(expression, variables) {
        Some(Value::Bool(value)) => Some(value),
        None => None,
        other => unreachable!("{other:?} is no bool"),
    };
    let text = |expression: &Expression| match interpret(expression, variables) {
        Some(Value::String(text)) => Some(text),
        None => None,
        other => unreachable!("{other:?} is no text"),
    };
    match expression {
        Expression::Literal(value) => Some(value.clone()),
        Expression::Variable(name) => variables[*name].1.clone(),
        Expression::Has(name) => Some(Value::Bool(variables[*name].1.is_some())),
        Expression::Not(inner) => is(inner).map(|value| Value::Bool(!value)),
        Expression::Negative(inner) => match interpret(inner, variables)? {
            Value::Number(value) => Some(Value::Number(-value)),
            Value::Money(value) => Some(Value::Money(-value)),
            other => unreachable!("minus {other:?}"),
        },
        Expression::Choice(branches) => {
            let [test, yes, no] = &**branches;
            interpret(if is(test)? { yes } else { no }, variables)
        }
        Expression::Binary(operator @ ("&&" | "||"), both) => {
            let decisive = *operator == "||";
            let both = [is(&both[0]), is(&both[1])];
            if both.contains(&Some(decisive)) {
                Some(Value::Bool(decisive))
            } else if both.contains(&None) {
                None
            } else {
                Some(Value::Bool(!decisive))
            }
        }
        Expression::Binary(operator, both) => {
            let (left, right) = (
                interpret(&both[0], variables)?,
                interpret(&both[1], variables)?,
            );
            let holds = match *operator {
                "==" => order(&left, &right).is_eq(),
                "!=" => order(&left, &right).is_ne(),
                "<" => order(&left, &right).is_lt(),
                "<=" => order(&left, &right).is_le(),
                ">" => order(&left, &right).is_gt(),
                ">=" => order(&left, &right).is_ge(),
                operator => return arithmetic(operator, &left, &right),
            };
            Some(Value::Bool(holds))
        }
        Expression::In(left, elements) => {
            let left = interpret(left, variables)?;
            let found = elements.iter().any(|each| order(&left, each).is_eq());
            Some(Value::Bool(found))
        }
        Expression::Method(name, both) => {
            let (text, part) = (text(&both[0])?, text(&both[1])?);
            Some(Value::Bool(match *name {
                "startsWith" => text.starts_with(&part),
                "endsWith" => text.ends_with(&part),
                _ => text.contains(&part),
            }))
        }
        Expression::Size(inner) => {
            let count = text(inner)?.chars().count();
            Some(Value::Number(f64::from(u32::try_from(count).unwrap())))
        }
        Expression::Function(name) => {
            let Some(Value::Timestamp(micros)) = variables["timestamp"].1 else {
                unreachable!("there is always a timestamp")
            };
            let seconds = micros.div_euclid(1_000_000);
            let mut day = seconds.div_euclid(86_400);
            Some(Value::Number(if *name == "hour" {
                f64::from(i32::try_from((seconds - day * 86_400) / 3_600).unwrap())
            } else {
                // A Sunday was on the third day of 1970 counted from 0.
                day -= 3;
                f64::from(i32::try_from(day.rem_euclid(7)).unwrap())
            }))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn a_compiled_condition_is_what_a_plain_interpreter_says(seed: u64, depth in 0_usize..5) {
        let mut random = Random(seed);
        let variables = random.variables();
        let expression = random.bool(depth);
        let mut source = String::new();
        show(&expression, 0, &mut source);
        match evaluate(&source, &variables) {
            Ok(found) => prop_assert_eq!(found, interpret(&expression, &variables), "{}", source),
            Err(faults) => {
                let too_large = |kind| matches!(kind, crate::FaultKind::TooLong | crate::FaultKind::TooDeep);
                prop_assert!(faults.iter().all(|fault| too_large(fault.kind)), "{}: {:?}", source, faults);
            }
        }
    }
}
