//! A condition without money, of which every member is known, against the interpreter of the crate `cel`: where both have a
//! result, it is the same one. Numbers are written as doubles, since an integer literal of CEL is an integer.
#![no_main]

use std::fmt::Write as _;

use cel::{Context, Program, Value};
use libfuzzer_sys::fuzz_target;
use tollgate_policy::{Slot, Slots, check};

const HEAD: &str = "language = 1\nname = \"f\"\n[members]\ns = \"string\"\nt = \"string\"\nn = \"number\"\nm = \"number\"\nb = \"bool\"\nc = \"bool\"\n[[rules]]\nid = \"r\"\npoints = 1\nwhen = '''\n";
const TEXTS: [&str; 6] = ["", "a", "ab", "é", "aé\u{1f600}", "b"];
const NUMBERS: [f64; 8] = [0.0, 1.0, 2.0, 0.5, -2.5, 0.1, 1e300, 86_400.0];

/// Choices from the input; the first ones where it has ended, so that every expression ends.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn next(&mut self, count: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        usize::from(*first) % count
    }

    fn bool(&mut self, to: &mut String) {
        match self.next(10) {
            0 => to.push_str(["b", "c", "true", "false"][self.next(4)]),
            1 => {
                to.push('!');
                self.brackets(Self::bool, to);
            }
            2 => self.both(&[" && ", " || "], Self::bool, to),
            3 => self.both(&[" == ", " != "], Self::bool, to),
            4 => self.choice(Self::bool, to),
            5 | 6 => self.both(
                &[" == ", " != ", " < ", " <= ", " > ", " >= "],
                Self::number,
                to,
            ),
            7 => self.both(
                &[" == ", " != ", " < ", " <= ", " > ", " >= "],
                Self::text,
                to,
            ),
            8 => {
                self.brackets(Self::text, to);
                to.push_str([".startsWith(", ".endsWith(", ".contains("][self.next(3)]);
                self.text(to);
                to.push(')');
            }
            _ => {
                self.brackets(Self::text, to);
                let _ = write!(
                    to,
                    " in ['{}', '{}']",
                    TEXTS[self.next(6)],
                    TEXTS[self.next(6)]
                );
            }
        }
    }

    fn number(&mut self, to: &mut String) {
        match self.next(5) {
            0 => to.push_str(["n", "m"][self.next(2)]),
            1 => {
                let _ = write!(to, "{:?}", NUMBERS[self.next(8)].abs());
            }
            2 => {
                to.push('-');
                self.brackets(Self::number, to);
            }
            3 => self.both(&[" + ", " - ", " * "], Self::number, to),
            _ => self.choice(Self::number, to),
        }
    }

    fn text(&mut self, to: &mut String) {
        match self.next(3) {
            0 => to.push_str(["s", "t"][self.next(2)]),
            1 => {
                let _ = write!(to, "'{}'", TEXTS[self.next(6)]);
            }
            _ => self.choice(Self::text, to),
        }
    }

    fn choice(&mut self, part: fn(&mut Self, &mut String), to: &mut String) {
        to.push('(');
        self.brackets(Self::bool, to);
        to.push_str(" ? ");
        self.brackets(part, to);
        to.push_str(" : ");
        self.brackets(part, to);
        to.push(')');
    }

    fn both(&mut self, operators: &[&str], part: fn(&mut Self, &mut String), to: &mut String) {
        self.brackets(part, to);
        to.push_str(operators[self.next(operators.len())]);
        self.brackets(part, to);
    }

    fn brackets(&mut self, part: fn(&mut Self, &mut String), to: &mut String) {
        to.push('(');
        part(self, to);
        to.push(')');
    }
}

fuzz_target!(|data: &[u8]| {
    // The interpreter of `cel` recurses without a limit.
    let mut choices = Choices(&data[..data.len().min(200)]);
    let (s, t) = (TEXTS[choices.next(6)], TEXTS[choices.next(6)]);
    let (n, m) = (NUMBERS[choices.next(8)], NUMBERS[choices.next(8)]);
    let (b, c) = (choices.next(2) == 0, choices.next(2) == 0);
    let mut condition = String::new();
    choices.bool(&mut condition);
    let Some(policy) = check(&format!("{HEAD}{condition}'''\n")).policy else {
        return;
    };
    let mut slots = Slots::new(&policy.layout);
    let mut context = Context::default();
    for entry in policy.layout.entries() {
        let name = entry.name.as_str();
        match entry.slot {
            Slot::String(_) => slots.set_string(entry.slot, Some(if name == "s" { s } else { t })),
            Slot::Number(_) => slots.set_number(entry.slot, Some(if name == "n" { n } else { m })),
            Slot::Bool(_) => slots.set_bool(entry.slot, Some(if name == "b" { b } else { c })),
            Slot::Money(_) | Slot::Timestamp => {}
        }
    }
    for (name, value) in [
        ("s", Value::from(s)),
        ("t", Value::from(t)),
        ("n", Value::from(n)),
        ("m", Value::from(m)),
        ("b", Value::from(b)),
        ("c", Value::from(c)),
    ] {
        context.add_variable_from_value(name, value);
    }
    let ours = policy.rules[0].condition.evaluate(&slots);
    let Ok(program) = Program::compile(&condition) else {
        return;
    };
    if let (Some(ours), Ok(Value::Bool(theirs))) = (ours, program.execute(&context)) {
        assert_eq!(
            ours, theirs,
            "{condition} with s={s:?} t={t:?} n={n} m={m} b={b} c={c}"
        );
    }
});
