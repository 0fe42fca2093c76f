//! A transaction, as any producer may write it to the log: what is accepted is read again as the same transaction, and is
//! scored without a panic.
#![no_main]

use std::cell::RefCell;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use tollgate_engine::{Engine, Origin, Rules};
use tollgate_types::Transaction;

/// Beyond this the engine is replaced, so that its memory stays bounded.
const MAX_TRANSACTIONS: usize = 10_000;

thread_local! {
    static ENGINE: RefCell<Engine> = RefCell::new(engine());
}

fn engine() -> Engine {
    Engine::new(Arc::new(Rules::default()), [7; 16])
}

fuzz_target!(|data: &[u8]| {
    // Several transactions, one a line, so that they meet in one history.
    for text in data.split(|byte| *byte == b'\n') {
        let Ok(transaction) = Transaction::parse(text) else {
            continue;
        };
        let line = transaction.one_line();
        assert!(!line.contains('\n'), "a line break in {line:?}");
        let again = Transaction::parse(line.as_bytes()).expect("its own line is a transaction");
        assert_eq!(again.transaction_id, transaction.transaction_id);
        assert_eq!(again.user_id, transaction.user_id);
        assert_eq!(again.amount, transaction.amount);
        assert_eq!(again.timestamp, transaction.timestamp);
        ENGINE.with_borrow_mut(|engine| {
            if engine.transactions() > MAX_TRANSACTIONS {
                *engine = self::engine();
            }
            let origin = Origin {
                timestamp_ms: Some(transaction.timestamp.micros() / 1_000),
                ..Origin::default()
            };
            let verdict = engine.score(&transaction, &origin);
            assert!(
                verdict.score.is_finite() && verdict.score >= 0.0,
                "{}",
                verdict.score
            );
        });
    }
});
