//! The language from inside: any expression, whatever its type, and without the rule that a condition is not constant.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cel_spec;
mod limits;
mod model;

use std::collections::{BTreeMap, BTreeSet};

use super::{Checker, Compiler, Names, Type, Wanted, Wrong, parse};
use crate::fault::Suggestions;
use crate::money::Money;
use crate::slots::{Input, Layout, Slots, UNKNOWN};

/// A value of any type. Timestamps are microseconds.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Bool(bool),
    Number(f64),
    Money(i128),
    String(String),
    Timestamp(i64),
}

impl Value {
    fn type_of(&self) -> Type {
        match self {
            Self::Bool(_) => Type::Bool,
            Self::Number(_) => Type::Number,
            Self::Money(_) => Type::Money,
            Self::String(_) => Type::String,
            Self::Timestamp(_) => Type::Timestamp,
        }
    }
}

type Variables = BTreeMap<String, (Type, Option<Value>)>;

/// The value of an expression, `None` if it is unknown.
fn evaluate(source: &str, variables: &Variables) -> Result<Option<Value>, Vec<Wrong>> {
    let mut tree = parse(source).map_err(|wrong| vec![wrong])?;
    let types: BTreeMap<String, Option<Type>> = variables
        .iter()
        .map(|(name, (found, _))| (name.clone(), Some(*found)))
        .collect();
    let lists = BTreeSet::new();
    let names = Names {
        types: &types,
        lists: &lists,
        not_members: None,
        suggestions: &Suggestions::default(),
    };
    let (found, checked) = Checker::check(&mut tree, names);
    if !checked.faults.is_empty() {
        return Err(checked.faults);
    }
    let mut layout = Layout::default();
    let slot = |wanted: Wanted<'_>| match wanted {
        Wanted::Name(name, found) => layout.slot(name, found, || Input::ModelRisk),
        Wanted::Lookup { .. } => unreachable!("there are no lists here"),
    };
    let mut compiler = Compiler {
        tree: &tree,
        slot,
        always: |_| false,
    };
    let root = tree.root;
    enum Program {
        Bool(super::Test),
        Number(super::program::Number),
        Money(super::program::Cash),
        String(super::program::Text),
    }
    let program = match found.unwrap() {
        Type::Bool => Program::Bool(compiler.test(root)),
        Type::Number => Program::Number(compiler.number(root)),
        Type::Money => Program::Money(compiler.money(root)),
        Type::String => Program::String(compiler.text(root)),
        Type::Timestamp => unreachable!("no expression here is an instant"),
    };
    let mut slots = Slots::new(&layout);
    for entry in layout.entries() {
        match &variables[&entry.name].1 {
            None => {}
            Some(Value::Bool(value)) => slots.set_bool(entry.slot, Some(*value)),
            Some(Value::Number(value)) => slots.set_number(entry.slot, Some(*value)),
            Some(Value::String(value)) => slots.set_string(entry.slot, Some(value)),
            Some(Value::Money(value)) => {
                slots.set_money(entry.slot, Money::from_ten_thousandths(*value));
            }
            Some(Value::Timestamp(micros)) => {
                slots.set_timestamp(tollgate_types::Timestamp::from_micros(*micros).unwrap());
            }
        }
    }
    Ok(match program {
        Program::Bool(test) => test.evaluate(&slots).map(Value::Bool),
        Program::Number(number) => Some(number.evaluate(&slots))
            .filter(|value| !value.is_nan())
            .map(Value::Number),
        Program::Money(cash) => Some(cash.evaluate(&slots))
            .filter(|value| *value != UNKNOWN)
            .map(Value::Money),
        Program::String(text) => text
            .evaluate(&slots)
            .map(|value| Value::String(value.to_owned())),
    })
}
