//! A decision, as persistence, the notifier and ingest read it from the log: one that is read is written as the same text
//! from then on, on one line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate_types::{Decision, Transaction};

fuzz_target!(|data: &[u8]| {
    let Ok(decision) = Decision::parse(data) else {
        return;
    };
    let _ = decision.trace();
    let mut first = Vec::new();
    decision.write_to(&mut first);
    let again = Decision::parse(&first).expect("what was written is a decision");
    assert_eq!(again.transaction_id, decision.transaction_id);
    assert_eq!(again.user_id, decision.user_id);
    assert_eq!(again.fraud_score.to_bits(), decision.fraud_score.to_bits());
    assert_eq!(again.status, decision.status);
    let mut second = Vec::new();
    again.write_to(&mut second);
    assert_eq!(first, second);
    let Ok(transaction) = Transaction::parse(decision.transaction.get().as_bytes()) else {
        return;
    };
    let mut around = Vec::new();
    decision.write_around(&transaction.one_line(), &mut around);
    assert!(!around.contains(&b'\n') || first.contains(&b'\n'));
    Decision::parse(&around).expect("a decision around one line is a decision");
});
