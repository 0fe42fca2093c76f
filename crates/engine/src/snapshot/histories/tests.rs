use std::sync::Arc;

use tollgate_types::{Amount, Status};

use super::*;
use crate::Rules;
use crate::state::{Bounds, Entry};

const BOUNDS: Bounds = Bounds {
    lookback: 10_000_000_000,
    rows: 100_000,
};

/// A history of `rows` entries, every third of which has indicators that are not built in.
fn history(rows: u64) -> History {
    let mut history = History::default();
    for id in 0..rows {
        let mut indicators = Indicators::from_built_in_bits(u8::try_from(id % 16).unwrap());
        if id % 3 == 0 {
            for n in 0..=id % 4 {
                indicators.insert(Indicator::intern(&format!("written_rule_{n}")).unwrap());
            }
        }
        let entry = Entry {
            time: id.cast_signed(),
            id,
            amount: Amount::default(),
            location: None,
            sender: u16::try_from(id % 7).unwrap(),
            indicators: &indicators,
            status: Status::Review,
            score: (id % 5) as f64 / 2.0,
        };
        history.remember(&entry, BOUNDS);
        history
            .arrivals
            .add(i64::try_from(id / 2 + 1).unwrap(), 300_000);
    }
    history.see(17);
    history
}

fn engine(history: Option<History>) -> Engine {
    let mut engine = Engine::new(Arc::new(Rules::default()), [0; 16]);
    if let Some(history) = history {
        engine.replace_history(UserKey(1, 2), history);
    }
    engine
}

#[test]
fn a_history_read_again_is_the_one_that_was_written_however_long() {
    for rows in [0, 1, 100, 512, 513, 3_000] {
        let mut written = Vec::new();
        let ours = history(rows);
        assert_eq!(
            engine(Some(history(rows))).write_histories(&mut written),
            FORMAT
        );
        let mut read = engine(None);
        read.read_histories(&written, |_| true).unwrap();
        let (_, copy) = read.histories().next().unwrap();
        assert_eq!(
            (copy.len(), copy.seen_hour),
            (usize::try_from(rows).unwrap(), 17)
        );
        assert!(copy.arrivals.iter().eq(ours.arrivals.iter()));
        for id in 0..rows {
            let (theirs, ours) = (copy.find(id).unwrap(), ours.find(id).unwrap());
            // Indicators that are not built in are written by name.
            assert_eq!(theirs.indicators, ours.indicators);
            assert_eq!(theirs.score.to_bits(), ours.score.to_bits());
            assert_eq!(theirs.sender, ours.sender);
        }
        let mut again = Vec::new();
        read.write_histories(&mut again);
        assert_eq!(again, written);
        let mut skipped = engine(None);
        skipped.read_histories(&written, |_| false).unwrap();
        assert_eq!(skipped.users(), 0);
    }
}

#[test]
fn no_truncation_and_no_changed_byte_of_further_indicators_panics() {
    let mut written = Vec::new();
    engine(Some(history(20))).write_histories(&mut written);
    // Beside nothing at all, the state without a history is whole.
    let mut state = Vec::new();
    engine(None).write_histories(&mut state);
    for at in 0..written.len() {
        assert!(
            engine(None)
                .read_histories(&written[..at], |_| true)
                .is_err()
                || at == 0
                || at == state.len()
        );
        let mut changed = written.clone();
        changed[at] ^= 0x41;
        let _ = engine(None).read_histories(&changed, |_| true);
    }
}
