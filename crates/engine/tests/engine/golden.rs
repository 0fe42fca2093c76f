//! The golden vectors, reproduced to the bit.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use tollgate_engine::{Engine, Origin, Rules};
use tollgate_types::{Indicators, Status, Transaction};

#[derive(Deserialize)]
struct Golden<'a> {
    #[serde(borrow)]
    transaction: &'a RawValue,
    #[serde(default)]
    record_timestamp_ms: Option<i64>,
    #[serde(default)]
    backfill: bool,
    decision: Expected,
}

#[derive(Deserialize)]
struct Expected {
    transaction_id: String,
    user_id: String,
    fraud_score: f64,
    fraud_indicators: Indicators,
    status: Status,
    #[serde(default)]
    duplicate: bool,
    #[serde(default)]
    conflict: bool,
    #[serde(default)]
    late: bool,
}

#[test]
fn every_golden_vector_is_reproduced_to_the_bit() {
    assert_eq!(reproduce(include_str!("../data/golden.jsonl")), 3_451);
}

#[test]
fn every_golden_vector_with_record_timestamps_is_reproduced_to_the_bit() {
    assert_eq!(
        reproduce(include_str!("../data/golden-arrival.jsonl")),
        2_076
    );
}

/// Scores every line and compares; returns their number.
fn reproduce(vectors: &str) -> usize {
    let mut engine = Engine::new(Arc::new(Rules::default()), [7; 16]);
    let mut lines = 0;
    for (number, line) in (1..).zip(vectors.lines()) {
        let golden: Golden<'_> = serde_json::from_str(line).unwrap();
        let transaction = Transaction::parse(golden.transaction.get().as_bytes()).unwrap();
        let origin = Origin {
            timestamp_ms: golden.record_timestamp_ms,
            backfill: golden.backfill,
            sender: None,
        };
        let verdict = engine.score(&transaction, &origin);
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
        assert_eq!(
            (verdict.duplicate, verdict.conflict, verdict.late),
            (expected.duplicate, expected.conflict, expected.late),
            "line {number}"
        );
        lines += 1;
    }
    lines
}
