//! Makes a program of a checked tree. Every node has its type by now, so that nothing here can fail; a node that cannot occur
//! after the check becomes an unknown value.

use super::Type;
use super::program::{Arithmetic, BoolStep, Cash, Moment, Number, Order, Test, Text};
use super::tree::{Binary, Id, Kind, Literal, Tree};
use crate::money::Money;
use crate::slots::Slot;

/// What a node becomes that cannot occur after the check: no slot has this number, so that it is unknown.
const UNREACHED: Test = Test::Bool(u32::MAX);

/// Compiles one condition.
pub(crate) struct Compiler<'a, F> {
    pub(crate) tree: &'a Tree,
    /// Gives the slot of what a condition reads.
    pub(crate) slot: F,
    /// Whether every transaction has a member of this name.
    pub(crate) always: fn(&str) -> bool,
}

/// What a condition reads, for its slot.
pub(crate) enum Wanted<'n> {
    Name(&'n str, Type),
    Lookup { member: &'n str, list: &'n str },
}

impl<F: FnMut(Wanted<'_>) -> Slot> Compiler<'_, F> {
    pub(crate) fn condition(&mut self) -> Test {
        self.test(self.tree.root)
    }

    fn kind(&self, id: Id) -> &Kind {
        &self.tree.node(id).kind
    }

    fn found(&self, id: Id) -> Option<Type> {
        self.tree.node(id).found
    }

    fn name_slot(&mut self, id: Id) -> Option<Slot> {
        let tree = self.tree;
        match (&tree.node(id).kind, tree.node(id).found) {
            (Kind::Name(name), Some(found)) => Some((self.slot)(Wanted::Name(name, found))),
            _ => None,
        }
    }

    pub(super) fn test(&mut self, id: Id) -> Test {
        let tree = self.tree;
        match &tree.node(id).kind {
            Kind::Literal(Literal::Bool(value)) => Test::Literal(*value),
            Kind::Name(_) => match self.name_slot(id) {
                Some(Slot::Bool(slot)) => Test::Bool(slot),
                _ => UNREACHED,
            },
            Kind::Not(inner) => Test::Not(Box::new(self.test(*inner))),
            Kind::Choice { test, yes, no } => Test::Choice(Box::new([
                self.test(*test),
                self.test(*yes),
                self.test(*no),
            ])),
            Kind::Call { name, args } => self.call(name, args),
            Kind::Binary {
                operator,
                left,
                right,
            } if self.is_bool_step(*operator, *left, *right) => self.bools(id),
            Kind::Binary {
                operator,
                left,
                right,
            } => match operator {
                Binary::And => Test::All(self.row(Binary::And, id)),
                Binary::Or => Test::Any(self.row(Binary::Or, id)),
                Binary::In => self.membership(*left, *right),
                Binary::Equal => self.compare(Order::EQUAL, *left, *right),
                Binary::NotEqual => self.compare(Order::NOT_EQUAL, *left, *right),
                Binary::Less => self.compare(Order::LESS, *left, *right),
                Binary::LessOrEqual => self.compare(Order::LESS_OR_EQUAL, *left, *right),
                Binary::Greater => self.compare(Order::GREATER, *left, *right),
                Binary::GreaterOrEqual => self.compare(Order::GREATER_OR_EQUAL, *left, *right),
                Binary::Add
                | Binary::Subtract
                | Binary::Multiply
                | Binary::Divide
                | Binary::Remainder => UNREACHED,
            },
            Kind::Literal(_) | Kind::List(_) | Kind::Unsupported(_) | Kind::Negative(_) => {
                UNREACHED
            }
        }
    }

    /// Whether an operator compares a bool, or looks it up in a list of literals.
    fn is_bool_step(&self, operator: Binary, left: Id, right: Id) -> bool {
        self.found(left) == Some(Type::Bool)
            && match operator {
                Binary::Equal | Binary::NotEqual => true,
                Binary::In => matches!(self.kind(right), Kind::List(_)),
                _ => false,
            }
    }

    /// Comparisons of bools in a row, from left to right.
    fn bools(&mut self, id: Id) -> Test {
        let mut steps = Vec::new();
        let mut first = id;
        while let Kind::Binary {
            operator,
            left,
            right,
        } = *self.kind(first)
            && self.is_bool_step(operator, left, right)
        {
            steps.push(match operator {
                Binary::Equal => BoolStep::Equal(self.test(right)),
                Binary::NotEqual => BoolStep::NotEqual(self.test(right)),
                _ => BoolStep::In(self.bool_elements(right)),
            });
            first = left;
        }
        steps.reverse();
        Test::Bools(Box::new(self.test(first)), steps.into_boxed_slice())
    }

    fn bool_elements(&mut self, list: Id) -> Box<[bool]> {
        let tree = self.tree;
        let Kind::List(elements) = &tree.node(list).kind else {
            return Box::default();
        };
        let elements = elements.iter().filter_map(|id| match tree.node(*id).kind {
            Kind::Literal(Literal::Bool(value)) => Some(value),
            _ => None,
        });
        elements.collect()
    }

    /// The operands of `&&` or of `||` in a row, brackets or not, from left to right.
    fn row(&mut self, operator: Binary, id: Id) -> Box<[Test]> {
        let mut operands = Vec::new();
        let mut pending = vec![id];
        while let Some(id) = pending.pop() {
            match *self.kind(id) {
                Kind::Binary {
                    operator: same,
                    left,
                    right,
                } if same == operator => pending.extend([right, left]),
                _ => operands.push(self.test(id)),
            }
        }
        operands.into_boxed_slice()
    }

    fn call(&mut self, name: &str, args: &[Id]) -> Test {
        match (name, args) {
            ("has", [arg]) => self.has(*arg),
            (".startsWith", [text, part]) => {
                Test::StartsWith(Box::new([self.text(*text), self.text(*part)]))
            }
            (".endsWith", [text, part]) => {
                Test::EndsWith(Box::new([self.text(*text), self.text(*part)]))
            }
            (".contains", [text, part]) => {
                Test::Contains(Box::new([self.text(*text), self.text(*part)]))
            }
            _ => UNREACHED,
        }
    }

    fn has(&mut self, id: Id) -> Test {
        if let Kind::Name(name) = self.kind(id)
            && (self.always)(name)
        {
            return Test::Literal(true);
        }
        match self.name_slot(id) {
            Some(Slot::Number(slot)) => Test::HasNumber(slot),
            Some(Slot::Money(slot)) => Test::HasMoney(slot),
            Some(Slot::String(slot)) => Test::HasString(slot),
            Some(Slot::Bool(slot)) => Test::HasBool(slot),
            Some(Slot::Timestamp) => Test::Literal(true),
            None => UNREACHED,
        }
    }

    fn compare(&mut self, order: Order, left: Id, right: Id) -> Test {
        match self.found(left) {
            Some(Type::Number) => {
                let both = [self.number(left), self.number(right)];
                match both {
                    [Number::Slot(slot), Number::Literal(literal)] => Test::NumberToLiteral {
                        slot,
                        order,
                        literal,
                    },
                    [Number::Literal(literal), Number::Slot(slot)] => Test::NumberToLiteral {
                        slot,
                        order: order.mirrored(),
                        literal,
                    },
                    both => Test::Numbers(order, Box::new(both)),
                }
            }
            Some(Type::Money) => match [self.money(left), self.money(right)] {
                [Cash::Slot(slot), Cash::Literal(literal)] => Test::MoneyToLiteral {
                    slot,
                    order,
                    literal,
                },
                [Cash::Literal(literal), Cash::Slot(slot)] => Test::MoneyToLiteral {
                    slot,
                    order: order.mirrored(),
                    literal,
                },
                both => Test::Moneys(order, Box::new(both)),
            },
            Some(Type::String) => match [self.text(left), self.text(right)] {
                [Text::Slot(slot), Text::Literal(literal)]
                | [Text::Literal(literal), Text::Slot(slot)]
                    if order == Order::EQUAL || order == Order::NOT_EQUAL =>
                {
                    Test::StringIs {
                        slot,
                        equal: order == Order::EQUAL,
                        literal,
                    }
                }
                both => Test::Strings(order, Box::new(both)),
            },
            Some(Type::Bool | Type::Timestamp) | None => UNREACHED,
        }
    }

    fn membership(&mut self, left: Id, right: Id) -> Test {
        let tree = self.tree;
        let elements = match (&tree.node(left).kind, &tree.node(right).kind) {
            (Kind::Name(member), Kind::Name(path)) => {
                let list = path.strip_prefix("lists.").unwrap_or_default();
                return match (self.slot)(Wanted::Lookup { member, list }) {
                    Slot::Bool(slot) => Test::Bool(slot),
                    _ => UNREACHED,
                };
            }
            (_, Kind::List(elements)) => elements,
            _ => return UNREACHED,
        };
        match self.found(left) {
            Some(Type::Number) => {
                let number = Box::new(self.number(left));
                let elements = elements.iter().filter_map(|id| match self.number(*id) {
                    Number::Literal(value) => Some(value),
                    _ => None,
                });
                Test::NumberIn(number, elements.collect())
            }
            Some(Type::Money) => {
                let cash = Box::new(self.money(left));
                let elements = elements.iter().filter_map(|id| match self.money(*id) {
                    Cash::Literal(value) => Some(value),
                    _ => None,
                });
                Test::MoneyIn(cash, elements.collect())
            }
            Some(Type::String) => {
                let text = self.text(left);
                let elements = elements.iter().filter_map(|id| match self.text(*id) {
                    Text::Literal(text) => Some(text),
                    _ => None,
                });
                let mut elements: Vec<Box<str>> = elements.collect();
                elements.sort_unstable();
                Test::StringIn(Box::new(text), elements.into_boxed_slice())
            }
            Some(Type::Bool | Type::Timestamp) | None => UNREACHED,
        }
    }

    /// The operands of arithmetic in a row, first the one that is no such operation.
    fn arithmetic(&self, id: Id) -> (Id, Vec<(Arithmetic, Id)>) {
        let mut steps = Vec::new();
        let mut first = id;
        while let Kind::Binary {
            operator,
            left,
            right,
        } = *self.kind(first)
        {
            let operator = match operator {
                Binary::Add => Arithmetic::Add,
                Binary::Subtract => Arithmetic::Subtract,
                Binary::Multiply => Arithmetic::Multiply,
                Binary::Divide => Arithmetic::Divide,
                _ => break,
            };
            steps.push((operator, right));
            first = left;
        }
        steps.reverse();
        (first, steps)
    }

    pub(super) fn number(&mut self, id: Id) -> Number {
        let tree = self.tree;
        match &tree.node(id).kind {
            Kind::Literal(Literal::Number { value, .. }) => Number::Literal(*value),
            Kind::Name(_) => match self.name_slot(id) {
                Some(Slot::Number(slot)) => Number::Slot(slot),
                _ => Number::Literal(f64::NAN),
            },
            Kind::Negative(inner) => match self.number(*inner) {
                Number::Literal(value) => Number::Literal(-value),
                inner => Number::Negative(Box::new(inner)),
            },
            Kind::Choice { test, yes, no } => Number::Choice(Box::new((
                self.test(*test),
                self.number(*yes),
                self.number(*no),
            ))),
            Kind::Binary { .. } => {
                let (first, steps) = self.arithmetic(id);
                if steps.is_empty() {
                    return Number::Literal(f64::NAN);
                }
                let first = self.number(first);
                let steps = steps
                    .into_iter()
                    .map(|(operator, id)| (operator, self.number(id)))
                    .collect();
                Number::Row(Box::new(first), steps)
            }
            Kind::Call { name, args } => match (name.as_str(), &args[..]) {
                ("size" | ".size", [text]) => Number::Size(self.text(*text)),
                ("hour", [moment]) => Number::Hour(Box::new(self.moment(*moment))),
                ("weekday", [moment]) => Number::Weekday(Box::new(self.moment(*moment))),
                _ => Number::Literal(f64::NAN),
            },
            Kind::Literal(_) | Kind::List(_) | Kind::Unsupported(_) | Kind::Not(_) => {
                Number::Literal(f64::NAN)
            }
        }
    }

    pub(super) fn money(&mut self, id: Id) -> Cash {
        let tree = self.tree;
        // No slot has this number.
        const NOWHERE: Cash = Cash::Slot(u32::MAX);
        match &tree.node(id).kind {
            Kind::Literal(Literal::Number { text, .. }) => Money::parse_number(text)
                .and_then(|money| i64::try_from(money.ten_thousandths()).ok())
                .map_or(NOWHERE, Cash::Literal),
            Kind::Name(_) => match self.name_slot(id) {
                Some(Slot::Money(slot)) => Cash::Slot(slot),
                _ => NOWHERE,
            },
            Kind::Negative(inner) => match self.money(*inner) {
                Cash::Literal(value) => Cash::Literal(-value),
                inner => Cash::Negative(Box::new(inner)),
            },
            Kind::Choice { test, yes, no } => Cash::Choice(Box::new((
                self.test(*test),
                self.money(*yes),
                self.money(*no),
            ))),
            Kind::Binary { .. } => {
                let (first, steps) = self.arithmetic(id);
                if steps.is_empty() {
                    return NOWHERE;
                }
                let first = self.money(first);
                let steps = steps
                    .into_iter()
                    .map(|(operator, id)| (operator, self.money(id)))
                    .collect();
                Cash::Row(Box::new(first), steps)
            }
            Kind::Literal(_)
            | Kind::Call { .. }
            | Kind::List(_)
            | Kind::Unsupported(_)
            | Kind::Not(_) => NOWHERE,
        }
    }

    pub(super) fn text(&mut self, id: Id) -> Text {
        let tree = self.tree;
        // No slot has this number.
        const NOWHERE: Text = Text::Slot(u32::MAX);
        match &tree.node(id).kind {
            Kind::Literal(Literal::String(text)) => Text::Literal(text.as_str().into()),
            Kind::Name(_) => match self.name_slot(id) {
                Some(Slot::String(slot)) => Text::Slot(slot),
                _ => NOWHERE,
            },
            Kind::Choice { test, yes, no } => Text::Choice(Box::new((
                self.test(*test),
                self.text(*yes),
                self.text(*no),
            ))),
            _ => NOWHERE,
        }
    }

    fn moment(&mut self, id: Id) -> Moment {
        match *self.kind(id) {
            Kind::Choice { test, yes, no } => Moment::Choice(Box::new((
                self.test(test),
                self.moment(yes),
                self.moment(no),
            ))),
            _ => {
                // The layout names it, so that a decision shows what was read.
                self.name_slot(id);
                Moment::Timestamp
            }
        }
    }
}
