//! A condition over members of every type: it is refused at one of its characters, or evaluated to the same result whenever
//! it is, and more knowledge never turns true into false: what is decided with unknown members stays decided.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate_policy::{Money, Slot, Slots, check};
use tollgate_types::Timestamp;

const HEAD: &str = "language = 1\nname = \"f\"\nlists = [\"l\"]\n[members]\ns = \"string\"\nn = \"number\"\nm = \"money\"\nb = \"bool\"\n\"o.s\" = \"string\"\n[[rules]]\nid = \"r\"\npoints = 1\nwhen = '''\n";

fuzz_target!(|data: &[u8]| {
    let Ok(condition) = std::str::from_utf8(data) else {
        return;
    };
    if condition.contains("''") || condition.contains('\r') {
        return;
    }
    let report = check(&format!("{HEAD}{condition} '''\n"));
    let lines = HEAD.lines().count() + condition.matches('\n').count() + 1;
    for fault in &report.faults {
        assert!(
            (14..=lines + 1).contains(&fault.line) || fault.kind.name() == "toml",
            "{fault:?}"
        );
    }
    let Some(policy) = report.policy else {
        return;
    };
    let rule = &policy.rules[0].condition;
    // Without `has`, which looks at what is unknown, knowledge only decides what was open.
    let monotone = !condition.contains("has");
    let mut slots = Slots::new(&policy.layout);
    let mut before = rule.evaluate(&slots);
    slots.set_timestamp(Timestamp::from_micros(1_700_000_000_123_456).unwrap_or(Timestamp::MIN));
    for entry in policy.layout.entries() {
        match entry.slot {
            Slot::String(_) => slots.set_string(entry.slot, Some("aé\u{1f600}")),
            Slot::Number(_) => slots.set_number(entry.slot, Some(-2.5)),
            Slot::Money(_) => slots.set_money(entry.slot, Money::parse_decimal("-12.3456")),
            Slot::Bool(_) => slots.set_bool(entry.slot, Some(true)),
            Slot::Timestamp => {}
        }
        let after = rule.evaluate(&slots);
        assert_eq!(after, rule.evaluate(&slots));
        assert!(
            !monotone || before.is_none() || after == before,
            "{condition}"
        );
        before = after;
    }
});
