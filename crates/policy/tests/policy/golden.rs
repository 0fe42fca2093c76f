//! The golden vectors of documents: faults with their places, warnings and hashes of an independent implementation.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde::Deserialize;
use tollgate_policy::{Fault, check};

#[derive(Deserialize)]
struct Golden {
    document: String,
    faults: Vec<Place>,
    warnings: Vec<Place>,
    hash: Option<String>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Place {
    line: usize,
    column: usize,
    kind: String,
}

fn places(faults: &[Fault]) -> Vec<Place> {
    faults
        .iter()
        .map(|fault| {
            let kind = fault.kind.name().to_owned();
            // Parsers of TOML differ in where they stop; the vectors have no place there.
            let is_told = |place| if kind == "toml" { 0 } else { place };
            Place {
                line: is_told(fault.line),
                column: is_told(fault.column),
                kind: kind.clone(),
            }
        })
        .collect()
}

#[test]
fn every_golden_document_has_its_faults_warnings_and_hash() {
    let mut lines = 0;
    for (number, line) in (1..).zip(include_str!("../data/policy-invalid.jsonl").lines()) {
        let golden: Golden = serde_json::from_str(line).unwrap();
        let report = check(&golden.document);
        assert_eq!(
            places(&report.faults),
            golden.faults,
            "line {number}: {:?}\n{}",
            report.faults,
            golden.document
        );
        assert_eq!(places(&report.warnings), golden.warnings, "line {number}");
        let hash = report.policy.map(|policy| policy.hash.to_string());
        assert_eq!(hash, golden.hash, "line {number}: {}", golden.document);
        assert!(report.faults.iter().all(|fault| !fault.message.is_empty()));
        lines += 1;
    }
    assert_eq!(lines, 144);
}
