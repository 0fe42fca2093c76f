//! Conditions of a document: parsed, checked and compiled, with their faults placed in the document.

use super::fields::Document;
use super::names::{Declared, is_always};
use crate::fault::{Fault, FaultKind};
use crate::language::{self, Checker, Compiler, Names, Read as Name, Type, Wanted, Wrong};
use crate::policy::{Condition, Read};
use crate::slots::{Input, Layout, Slot, Slots};
use crate::source::{Item, Value};

/// What the conditions of a document read, all together.
#[derive(Default)]
pub(super) struct Conditions {
    pub(super) layout: Layout,
    /// Where money is first compared.
    money: Option<usize>,
    /// Whether a condition, or the key of a feature, looks at the currency.
    pub(super) sees_currency: bool,
}

const CURRENCY: &str = "currency";

impl Conditions {
    /// The condition in a value, which is a text. `None` after a fault, or where the value is none.
    pub(super) fn condition(
        &mut self,
        document: &mut Document,
        item: &Item,
        declared: &Declared,
        names: Names<'_>,
    ) -> Option<Condition> {
        let Value::Text(source) = &item.value else {
            return None;
        };
        let places = document.source.characters(&item.at);
        let place = |at: usize| places.get(at).copied().unwrap_or(item.at.start);
        let tell = |document: &mut Document, wrong: Wrong| {
            document.fault(place(wrong.at), wrong.kind, wrong.message);
        };
        let mut tree = match language::parse(source) {
            Ok(tree) => tree,
            Err(wrong) => {
                tell(document, wrong);
                return None;
            }
        };
        let first = place(tree.first);
        let (found, checked) = Checker::check(&mut tree, names);
        let compares_money = !checked.money_comparisons.is_empty();
        let compared = checked.money_comparisons.iter().map(|at| place(*at)).min();
        self.money = self.money.into_iter().chain(compared).min();
        let has_fault = !checked.faults.is_empty();
        for wrong in checked.faults {
            tell(document, wrong);
        }
        self.sees_currency |= checked.reads.contains(&Name::Name(CURRENCY.to_owned()));
        if let Some(found) = found.filter(|found| *found != Type::Bool) {
            document.fault(
                first,
                FaultKind::NotBoolean,
                format!("a condition is true or false; this is a {}", found.name()),
            );
        }
        // Without a type where a name has none, because of a fault in its declaration.
        if has_fault || found.is_some_and(|found| found != Type::Bool) {
            return None;
        }
        let mut slot = |wanted: Wanted<'_>| slot(&mut self.layout, declared, &wanted);
        let test = Compiler {
            tree: &tree,
            slot: &mut slot,
            always: is_always,
        }
        .condition();
        let reads = checked
            .reads
            .into_iter()
            .map(|read| read_of(&mut self.layout, declared, names, read))
            .collect();
        if let Some(always) = test.evaluate(&Slots::default()) {
            document.fault(
                first,
                FaultKind::Constant,
                format!("the condition is {always} for every transaction"),
            );
            return None;
        }
        Some(Condition {
            source: source.clone(),
            reads,
            compares_money,
            test,
        })
    }

    /// The warning that money is compared and nothing looks at its currency.
    pub(super) fn warning(&self, document: &Document) -> Vec<Fault> {
        let at = self.money.filter(|_| !self.sees_currency);
        at.map(|at| {
            document.source.fault(
                at,
                FaultKind::Currency,
                "money is compared, and no condition and no `by` reads currency: 100 JPY and 100 EUR are the same here; \
                 declare currency = \"string\" in [members] and compare it"
                    .to_owned(),
            )
        })
        .into_iter()
        .collect()
    }

    pub(super) fn is_currency(name: &str) -> bool {
        name == CURRENCY
    }
}

fn slot(layout: &mut Layout, declared: &Declared, wanted: &Wanted<'_>) -> Slot {
    match *wanted {
        Wanted::Name(name, found) => layout.slot(name, found, || declared.input(name)),
        Wanted::Lookup { member, list } => {
            let string = slot(layout, declared, &Wanted::Name(member, Type::String));
            let name = lookup_name(member, list);
            layout.slot(&name, Type::Bool, || Input::Lookup {
                string,
                list: declared.list_place(list),
            })
        }
    }
}

/// A lookup as `values` of a decision name it.
fn lookup_name(member: &str, list: &str) -> String {
    format!("{member} in lists.{list}")
}

fn read_of(layout: &mut Layout, declared: &Declared, names: Names<'_>, read: Name) -> Read {
    match read {
        Name::Name(name) => {
            // Checked before: every name that is read has a type.
            let found = names.types.get(&name).copied().flatten();
            let found = found.unwrap_or(Type::String);
            let slot = slot(layout, declared, &Wanted::Name(&name, found));
            Read { name, slot }
        }
        Name::Lookup { member, list } => {
            let wanted = Wanted::Lookup {
                member: &member,
                list: &list,
            };
            Read {
                slot: slot(layout, declared, &wanted),
                name: lookup_name(&member, &list),
            }
        }
    }
}
