//! Finds the type of every node, and all faults of a condition. A node with a fault has no type, and what follows from the
//! fault is not told again.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::{Binary, Id, Kind, Literal, Tree};
use super::{Type, Wrong};
use crate::fault::{FaultKind, Suggestions};
use crate::money::Money;

/// What a condition reads, in the order of its first use.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Read {
    /// A member or feature.
    Name(String),
    /// Whether a member is in a list.
    Lookup { member: String, list: String },
}

/// The names that a condition may use.
#[derive(Clone, Copy)]
pub(crate) struct Names<'a> {
    /// Members and features; without a type where a fault was told.
    pub(crate) types: &'a BTreeMap<String, Option<Type>>,
    pub(crate) lists: &'a BTreeSet<String>,
    /// Of a `where`, which reads members alone, the names of features.
    pub(crate) not_members: Option<&'a BTreeSet<String>>,
    pub(crate) suggestions: &'a Suggestions,
}

/// What the check of a condition found.
#[derive(Default)]
pub(crate) struct Checked {
    pub(crate) faults: Vec<Wrong>,
    pub(crate) reads: Vec<Read>,
    /// Where money is compared.
    pub(crate) money_comparisons: Vec<usize>,
}

pub(crate) struct Checker<'a> {
    names: Names<'a>,
    tree: &'a mut Tree,
    checked: Checked,
    seen: BTreeSet<Read>,
}

/// Names of functions and macros that CEL has and the profile leaves out.
const ELSEWHERE: [&str; 23] = [
    "all",
    "bool",
    "bytes",
    "double",
    "duration",
    "dyn",
    "exists",
    "existsOne",
    "exists_one",
    "filter",
    "getDate",
    "getDayOfWeek",
    "getFullYear",
    "getHours",
    "getMinutes",
    "getMonth",
    "int",
    "map",
    "matches",
    "string",
    "timestamp",
    "type",
    "uint",
];

/// A function's name, what each argument is, how many there are, and the result.
const FUNCTIONS: [(&str, Type, usize, Type); 7] = [
    ("size", Type::String, 1, Type::Number),
    (".size", Type::String, 1, Type::Number),
    (".startsWith", Type::String, 2, Type::Bool),
    (".endsWith", Type::String, 2, Type::Bool),
    (".contains", Type::String, 2, Type::Bool),
    ("hour", Type::Timestamp, 1, Type::Number),
    ("weekday", Type::Timestamp, 1, Type::Number),
];

const EQUAL: &[Type] = &[Type::Bool, Type::Money, Type::Number, Type::String];
const ORDERED: &[Type] = &[Type::Money, Type::Number, Type::String];
const ADDED: &[Type] = &[Type::Money, Type::Number];

impl Binary {
    /// The types that both operands may have, and the result where it is another.
    const fn signature(self) -> (&'static [Type], Option<Type>) {
        match self {
            Self::Or | Self::And => (&[Type::Bool], Some(Type::Bool)),
            Self::Equal | Self::NotEqual | Self::In => (EQUAL, Some(Type::Bool)),
            Self::Less | Self::LessOrEqual | Self::Greater | Self::GreaterOrEqual => {
                (ORDERED, Some(Type::Bool))
            }
            Self::Add | Self::Subtract => (ADDED, None),
            Self::Multiply | Self::Divide | Self::Remainder => (&[Type::Number], None),
        }
    }
}

impl<'a> Checker<'a> {
    /// Gives every node its type; returns that of the whole, `None` after a fault, and what was found.
    pub(crate) fn check(tree: &'a mut Tree, names: Names<'a>) -> (Option<Type>, Checked) {
        let root = tree.root;
        let mut checker = Self {
            names,
            tree,
            checked: Checked::default(),
            seen: BTreeSet::new(),
        };
        let found = checker.find(root);
        (found, checker.checked)
    }

    fn fault(&mut self, at: usize, kind: FaultKind, message: impl Into<String>) -> Option<Type> {
        self.checked.faults.push(Wrong::new(at, kind, message));
        None
    }

    fn read(&mut self, read: Read) {
        if self.seen.insert(read.clone()) {
            self.checked.reads.push(read);
        }
    }

    fn kind(&self, id: Id) -> Kind {
        self.tree.node(id).kind.clone()
    }

    fn found(&self, id: Id) -> Option<Type> {
        self.tree.node(id).found
    }

    fn set(&mut self, id: Id, found: Option<Type>) -> Option<Type> {
        self.tree.node_mut(id).found = found;
        found
    }

    /// The type of a node. Operators in a row lean to the left, and their number is bounded by size alone: a loop takes them.
    fn find(&mut self, id: Id) -> Option<Type> {
        let mut row = Vec::new();
        let mut first = id;
        while let Kind::Binary { operator, left, .. } = self.tree.node(first).kind
            && operator != Binary::Remainder
        {
            row.push(first);
            first = left;
        }
        let found = self.single(first);
        let mut found = self.set(first, found);
        for id in row.into_iter().rev() {
            if let Kind::Binary {
                operator,
                left,
                right,
            } = self.tree.node(id).kind
            {
                let at = self.tree.node(id).at;
                found = match operator {
                    Binary::In => self.membership(at, left, right),
                    _ => self.binary(at, operator, left, right),
                };
                self.set(id, found);
            }
        }
        found
    }

    fn single(&mut self, id: Id) -> Option<Type> {
        let at = self.tree.node(id).at;
        match self.kind(id) {
            Kind::Literal(Literal::Bool(_)) => Some(Type::Bool),
            Kind::Literal(Literal::String(_)) => Some(Type::String),
            Kind::Literal(Literal::Number { .. }) => Some(Type::Number),
            Kind::Unsupported(what) => {
                self.fault(at, FaultKind::Unsupported, not_in_language(&what))
            }
            Kind::Binary { .. } => self.fault(
                at,
                FaultKind::Unsupported,
                not_in_language("the operator `%`"),
            ),
            Kind::List(_) => self.fault(at, FaultKind::Type, LIST_PLACE),
            Kind::Name(name) => self.name(at, &name),
            Kind::Call { name, args } => self.call(at, &name, &args),
            Kind::Not(inner) => {
                self.find(inner);
                self.common(at, &[inner], Some(&[Type::Bool]));
                Some(Type::Bool)
            }
            Kind::Negative(inner) => {
                self.find(inner);
                self.common(at, &[inner], Some(ADDED))
            }
            Kind::Choice { test, yes, no } => {
                let tested = self.find(test);
                self.find(yes);
                self.find(no);
                if tested.is_some_and(|found| found != Type::Bool) {
                    self.fault(at, FaultKind::Type, "`?` expects a condition to its left");
                }
                self.common(at, &[yes, no], None)
            }
        }
    }

    /// Any operator but `in`; its left operand has been checked.
    fn binary(&mut self, at: usize, operator: Binary, left: Id, right: Id) -> Option<Type> {
        let first = self.found(left);
        let second = self.find(right);
        let literal_left = self.tree.literal_number(left).is_some();
        let literal_right = self.tree.literal_number(right).map(|(_, value)| value);
        if operator == Binary::Divide && literal_right == Some(0.0) {
            return self.fault(
                at,
                FaultKind::DivisionByZero,
                "a division by zero has no result; divide by another number",
            );
        }
        let scales = matches!(operator, Binary::Multiply | Binary::Divide);
        if scales
            && (first, second) == (Some(Type::Money), Some(Type::Number))
            && literal_right.is_some()
        {
            return self.convert(right, at);
        }
        if operator == Binary::Multiply
            && (first, second) == (Some(Type::Number), Some(Type::Money))
            && literal_left
        {
            return self.convert(left, at);
        }
        let (takes, gives) = operator.signature();
        let common = self.common(at, &[left, right], Some(takes));
        if gives.is_some() && common == Some(Type::Money) {
            self.checked.money_comparisons.push(at);
        }
        gives.or(common)
    }

    fn name(&mut self, at: usize, name: &str) -> Option<Type> {
        if name == "lists" || name.starts_with("lists.") {
            return self.fault(at, FaultKind::Type, LIST_PLACE);
        }
        if self
            .names
            .not_members
            .is_some_and(|features| features.contains(name))
        {
            let message = format!("{name} is a feature; `where` reads members alone");
            return self.fault(at, FaultKind::NotAMember, message);
        }
        let types = self.names.types;
        let Some(found) = types.get(name) else {
            let near = self
                .names
                .suggestions
                .nearest(name, types.keys().map(String::as_str));
            let hint = if near.is_empty() {
                "; declare it in [members] or as one of [[features]]"
            } else {
                &near
            };
            return self.fault(
                at,
                FaultKind::UnknownName,
                format!("{name} is neither a member nor a feature{hint}"),
            );
        };
        self.read(Read::Name(name.to_owned()));
        *found
    }

    fn call(&mut self, at: usize, name: &str, args: &[Id]) -> Option<Type> {
        if name == "has" {
            match args {
                [arg] if matches!(self.tree.node(*arg).kind, Kind::Name(_)) => {
                    self.find(*arg);
                }
                _ => {
                    self.fault(
                        at,
                        FaultKind::Type,
                        "`has` expects the name of a member or a feature: has(card.bin)",
                    );
                }
            }
            return Some(Type::Bool);
        }
        let Some((_, takes, count, gives)) = FUNCTIONS.iter().find(|each| each.0 == name) else {
            let plain = name.trim_start_matches('.');
            let known = FUNCTIONS.iter().map(|each| each.0);
            return if ELSEWHERE.contains(&plain) {
                self.fault(
                    at,
                    FaultKind::Unsupported,
                    not_in_language(&format!("the function {plain}")),
                )
            } else {
                let near = self.names.suggestions.nearest(name, known);
                let message = format!("there is no function {plain}{near}");
                self.fault(at, FaultKind::UnknownName, message)
            };
        };
        let types: Vec<Option<Type>> = args.iter().map(|arg| self.find(*arg)).collect();
        let fits = types.len() == *count && types.iter().flatten().all(|found| found == takes);
        if !fits {
            let wanted = match (name.strip_prefix('.'), takes) {
                (Some(method), _) if *count == 1 => format!("TEXT.{method}()"),
                (Some(method), _) => format!("TEXT.{method}(TEXT)"),
                (None, Type::Timestamp) => format!("{name}(timestamp)"),
                (None, _) => format!("{name}(TEXT)"),
            };
            let message = format!("{} is written {wanted}", name.trim_start_matches('.'));
            self.fault(at, FaultKind::Type, message);
        }
        Some(*gives)
    }

    /// `in`; its left operand has been checked.
    fn membership(&mut self, at: usize, left: Id, right: Id) -> Option<Type> {
        let found = self.found(left);
        let place = self.tree.node(right).at;
        match self.kind(right) {
            Kind::Name(path) if path.starts_with("lists.") => {
                let list = path.strip_prefix("lists.").unwrap_or_default();
                self.lookup(at, place, left, list);
            }
            Kind::List(elements) if !elements.is_empty() && found != Some(Type::Timestamp) => {
                for element in elements {
                    self.element(at, left, element);
                }
            }
            _ => {
                self.fault(
                    at,
                    FaultKind::Type,
                    "`in` expects a value to its left, and lists.NAME or a list with elements, ['a', 'b'], to its right",
                );
            }
        }
        Some(Type::Bool)
    }

    fn lookup(&mut self, at: usize, place: usize, left: Id, list: &str) {
        let found = self.found(left);
        if self.names.not_members.is_some() {
            let message = format!("lists.{list} is a list; `where` reads members alone");
            self.fault(place, FaultKind::NotAMember, message);
        } else if !self.names.lists.contains(list) {
            let lists = self.names.lists.iter().map(String::as_str);
            let near = self.names.suggestions.nearest(list, lists);
            let message = format!("there is no list {list} in `lists`{near}");
            self.fault(place, FaultKind::UnknownName, message);
        } else if let Some(found) = found {
            match self.kind(left) {
                Kind::Name(member) if found == Type::String => {
                    let list = list.to_owned();
                    self.read(Read::Lookup { member, list });
                }
                _ => {
                    let message = "only a member of type string is looked up in a list";
                    self.fault(at, FaultKind::Type, message);
                }
            }
        } else if let Kind::Name(member) = self.kind(left) {
            let list = list.to_owned();
            self.read(Read::Lookup { member, list });
        }
    }

    /// An element of the list to the right of `in`.
    fn element(&mut self, at: usize, left: Id, element: Id) {
        let node = self.tree.node(element);
        let place = node.at;
        let inner = match node.kind {
            Kind::Negative(inner) => inner,
            _ => element,
        };
        if !matches!(self.tree.node(inner).kind, Kind::Literal(_)) {
            self.fault(
                place,
                FaultKind::Unsupported,
                "the elements of a list are literals",
            );
        } else if self.find(element).is_some()
            && self.found(left).is_some()
            && self.common(place, &[left, element], None) == Some(Type::Money)
        {
            self.checked.money_comparisons.push(at);
        }
    }

    /// The type that all the nodes have, one of `takes`; a literal number beside money becomes money.
    fn common(&mut self, at: usize, nodes: &[Id], takes: Option<&[Type]>) -> Option<Type> {
        let mut known: Vec<Type> = nodes.iter().filter_map(|id| self.found(*id)).collect();
        let all = known.len() == nodes.len();
        known.sort_unstable();
        known.dedup();
        match known[..] {
            [Type::Money, Type::Number] => {
                let mut converted = true;
                for id in nodes {
                    converted &=
                        self.found(*id) == Some(Type::Money) || self.convert(*id, at).is_some();
                }
                converted.then_some(Type::Money)
            }
            [first, second, ..] => {
                let message = format!("{} and {} do not go together", first.name(), second.name());
                self.fault(at, FaultKind::Type, message)
            }
            [only] if takes.is_some_and(|takes| !takes.contains(&only)) => {
                let takes = takes.unwrap_or_default().iter().map(|each| each.name());
                let takes: Vec<&str> = takes.collect();
                let message = format!("expected {}, found {}", takes.join(" or "), only.name());
                self.fault(at, FaultKind::Type, message)
            }
            [only] => all.then_some(only),
            [] => None,
        }
    }

    /// Makes a literal number, or each branch of a choice, money.
    fn convert(&mut self, id: Id, at: usize) -> Option<Type> {
        let place = self.tree.node(id).at;
        let converted = match self.kind(id) {
            Kind::Negative(inner) => self.convert_branch(inner, at),
            Kind::Choice { yes, no, .. } => {
                let yes = self.convert_branch(yes, at);
                self.convert_branch(no, at) && yes
            }
            Kind::Literal(Literal::Number { text, .. }) => {
                let exact = Money::parse_number(&text).is_some();
                if !exact {
                    self.fault(
                        place,
                        FaultKind::MoneyLiteral,
                        format!("{text} is no money, which has at most four decimal places and is at most 10^12"),
                    );
                }
                exact
            }
            _ => {
                self.fault(
                    at,
                    FaultKind::Type,
                    "money goes together with money and with literal numbers only",
                );
                false
            }
        };
        self.set(id, converted.then_some(Type::Money))
    }

    fn convert_branch(&mut self, id: Id, at: usize) -> bool {
        self.found(id) == Some(Type::Money) || self.convert(id, at).is_some()
    }
}

const LIST_PLACE: &str = "a list stands only to the right of `in`";

fn not_in_language(what: &str) -> String {
    format!("{what} is not in the language")
}
