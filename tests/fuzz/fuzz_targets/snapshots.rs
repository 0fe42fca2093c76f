//! A snapshot, as it may lie in a bucket that somebody else can write: histories that are read are those that are written
//! again, and nothing allocates more than its size allows.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use tollgate_engine::snapshot::{self, SnapshotKey};
use tollgate_engine::{Engine, Origin, Rules};
use tollgate_types::Transaction;

const KEY: [u8; 16] = [7; 16];
/// Bytes of histories.
const LIMIT: u64 = 64 * 1024 * 1024;

fuzz_target!(|data: &[u8]| {
    let Some((mode, data)) = data.split_first() else {
        return;
    };
    let key = SnapshotKey::derive(b"secret", KEY);
    match mode % 3 {
        0 => {
            let _ = snapshot::read(data, &key, LIMIT);
        }
        // With a code that fits, or no input would ever get past it.
        1 => {
            let mut whole = data.to_vec();
            key.seal(&mut whole);
            if let Ok((_, histories)) = snapshot::read(&whole, &key, LIMIT) {
                take_over(&histories);
            }
        }
        _ => take_over(data),
    }
});

fn engine() -> Engine {
    Engine::new(Arc::new(Rules::default()), KEY)
}

fn take_over(histories: &[u8]) {
    let mut first = engine();
    if first.read_histories(histories, |_| true).is_err() {
        return;
    }
    let mut written = Vec::new();
    first.write_histories(&mut written);
    let mut second = engine();
    second
        .read_histories(&written, |_| true)
        .expect("what an engine wrote, another one reads");
    assert_eq!(first.users(), second.users());
    let text =
        br#"{"transaction_id":"t","user_id":"u","amount":1,"timestamp":"2026-03-01T12:00:00Z"}"#;
    let transaction = Transaction::parse(text).expect("a transaction");
    let origin = Origin::default();
    assert_eq!(
        first.score(&transaction, &origin).score.to_bits(),
        second.score(&transaction, &origin).score.to_bits()
    );
}
