//! The golden vectors, reproduced to the bit.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use tollgate_engine::{Engine, Rules};
use tollgate_types::{Indicators, Status, Transaction};

#[derive(Deserialize)]
struct Golden<'a> {
    #[serde(borrow)]
    transaction: &'a RawValue,
    decision: Expected,
}

#[derive(Deserialize)]
struct Expected {
    transaction_id: String,
    user_id: String,
    fraud_score: f64,
    fraud_indicators: Indicators,
    status: Status,
}

#[test]
fn every_golden_vector_is_reproduced_to_the_bit() {
    let mut engine = Engine::new(Arc::new(Rules::default()), [7; 16]);
    let mut lines = 0;
    for (number, line) in (1..).zip(include_str!("../data/golden.jsonl").lines()) {
        let golden: Golden<'_> = serde_json::from_str(line).unwrap();
        let transaction = Transaction::parse(golden.transaction.get().as_bytes()).unwrap();
        let verdict = engine.score(&transaction);
        let expected = golden.decision;
        assert_eq!(
            transaction.transaction_id, expected.transaction_id,
            "line {number}"
        );
        assert_eq!(transaction.user_id, expected.user_id, "line {number}");
        assert_eq!(
            verdict.indicators, expected.fraud_indicators,
            "line {number}"
        );
        assert_eq!(verdict.status, expected.status, "line {number}");
        assert_eq!(
            verdict.score.to_bits(),
            expected.fraud_score.to_bits(),
            "line {number}: {} is not {}",
            verdict.score,
            expected.fraud_score,
        );
        lines += 1;
    }
    assert!(lines > 3_000, "only {lines} golden vectors were found");
}
