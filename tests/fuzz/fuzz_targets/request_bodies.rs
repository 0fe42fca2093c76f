//! The body of a request to `POST /v1/transactions`: JSON, an array, or NDJSON. A valid item is the same transaction when
//! it is read from the log, and no rejection quotes a long part of the body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate_ingest::fuzzing;
use tollgate_types::Transaction;

fuzz_target!(|data: &[u8]| {
    let Some((mode, body)) = data.split_first() else {
        return;
    };
    let Ok(items) = fuzzing::body(mode % 2 == 0, body) else {
        return;
    };
    assert!(
        (1..=fuzzing::MAX_ITEMS).contains(&items.len()),
        "{}",
        items.len()
    );
    for item in items {
        match item {
            Ok(transaction) => {
                let line = transaction.one_line();
                let again = Transaction::parse(line.as_bytes()).expect("its own line");
                assert_eq!(again.transaction_id, transaction.transaction_id);
                assert_eq!(again.user_id, transaction.user_id);
                assert_eq!(again.amount, transaction.amount);
                assert_eq!(again.timestamp, transaction.timestamp);
            }
            Err(rejection) => assert!(
                rejection.reason.len() < 500,
                "a reason of {} bytes",
                rejection.reason.len()
            ),
        }
    }
});
