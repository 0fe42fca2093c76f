//! A policy document, as somebody publishes it: every fault stands within the text, line ends do not matter, and what has no
//! fault has a policy whose rules are unknown or decided, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate_policy::{Slots, check};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let report = check(text);
    assert_eq!(report.policy.is_some(), report.faults.is_empty());
    let text = text.replace("\r\n", "\n");
    let lines: Vec<&str> = text.split('\n').collect();
    for fault in report.faults.iter().chain(&report.warnings) {
        let line = lines[fault.line - 1];
        assert!(
            fault.column >= 1 && fault.column <= line.chars().count() + 1,
            "{fault:?}"
        );
    }
    let again = check(&text.replace('\n', "\r\n"));
    assert_eq!(again.faults, report.faults);
    let Some(policy) = report.policy else {
        return;
    };
    assert_eq!(again.policy.map(|policy| policy.hash), Some(policy.hash));
    let slots = Slots::new(&policy.layout);
    for rule in &policy.rules {
        let _ = rule.condition.evaluate(&slots);
        assert_eq!(
            rule.condition.evaluate(&Slots::default()),
            None,
            "constant: {}",
            rule.condition.source
        );
    }
});
