//! Fifty rules of four conditions each over thirty variables, and values for them.

use std::fmt::Write as _;

use tollgate_policy::{Money, Policy, Slot, Slots, check};
use tollgate_types::Timestamp;

/// A document with the rules.
pub(crate) fn document() -> String {
    let mut text = String::from("language = 1\nname = \"workload\"\n[members]\n");
    for (kind, count) in [("string", 9), ("number", 12), ("money", 4), ("bool", 4)] {
        for n in 0..count {
            writeln!(text, "{kind}_{n} = \"{kind}\"").unwrap();
        }
    }
    for n in 0..50 {
        let conditions = [
            format!("number_{} {} {}", n % 12, [">=", "<", "!="][n % 3], n % 7),
            format!("string_{} {} 'value {}'", n % 9, ["!=", "=="][n % 2], n % 5),
            match n % 3 {
                0 => format!("amount > {}.25", n * 10),
                1 => format!("money_{} * 1.5 <= amount + {n}", n % 4),
                _ => format!("number_{} / 3 + {n} > number_{}", n % 12, (n + 5) % 12),
            },
            match n % 4 {
                0 => format!("string_{} in ['a', 'value 3', 'c']", (n + 4) % 9),
                1 => format!("!bool_{}", n % 4),
                2 => format!("string_{}.startsWith('value')", (n + 2) % 9),
                _ => format!("bool_{} || hour(timestamp) < 6", n % 4),
            },
        ];
        let glue = if n % 5 == 0 { " || " } else { " && " };
        writeln!(
            text,
            "[[rules]]\nid = \"r{n}\"\npoints = 1\nwhen = \"{}\"",
            conditions.join(glue)
        )
        .unwrap();
    }
    text
}

/// The policy of the document.
pub(crate) fn policy() -> Policy {
    let report = check(&document());
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    report.policy.unwrap()
}

/// Texts of a transaction.
pub(crate) fn texts() -> Vec<String> {
    (0..9).map(|n| format!("value {}", n % 6)).collect()
}

/// Fills every slot, as a transaction of which everything is known does.
pub(crate) fn fill<'t>(policy: &Policy, slots: &mut Slots<'t>, texts: &'t [String], turn: u32) {
    slots.set_timestamp(Timestamp::from_micros(i64::from(turn) * 977_000_000).unwrap());
    for (n, entry) in (turn..).zip(policy.layout.entries()) {
        match entry.slot {
            Slot::Number(at) => slots.set_number(entry.slot, Some(f64::from((n + at) % 9))),
            Slot::Money(_) => {
                let money = Money::from_ten_thousandths(i128::from(n % 40) * 123_456);
                slots.set_money(entry.slot, money);
            }
            Slot::String(at) => {
                let text = &texts[usize::try_from(at + turn).unwrap() % texts.len()];
                slots.set_string(entry.slot, Some(text));
            }
            Slot::Bool(_) => slots.set_bool(entry.slot, Some(n % 3 == 0)),
            Slot::Timestamp => {}
        }
    }
}

/// How many rules fire.
pub(crate) fn evaluate(policy: &Policy, slots: &Slots<'_>) -> usize {
    policy
        .rules
        .iter()
        .filter(|rule| rule.condition.evaluate(slots) == Some(true))
        .count()
}
