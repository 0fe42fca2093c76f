//! Histories written by one engine and read by another.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use proptest::prelude::*;
use tollgate_engine::{Engine, Origin, Rules, Sender, UserHasher};
use tollgate_types::{Amount, Transaction};

use crate::stream::{self, Places, Random};

const KEY: [u8; 16] = [3; 16];

fn engine() -> Engine {
    Engine::new(Arc::new(Rules::default()), KEY)
}

/// Transactions of a few users over a month: repeated ids, repeated and high amounts, some late, places of every kind, bursts
/// of records, backfill, and two senders.
fn transactions(seed: u64, count: u64) -> Vec<(Transaction<'static>, Origin)> {
    let mut random = Random(seed);
    let mut all: Vec<(Transaction<'static>, Origin)> = Vec::new();
    for n in 0..count {
        if n > 0 && random.below(10) == 0 {
            let again = usize::try_from(random.below(n)).unwrap();
            all.push(all[again].clone());
            continue;
        }
        let places = [Places::None, Places::SixDecimals, Places::Full];
        let places = places[usize::try_from(random.below(3)).unwrap()];
        let seconds = i64::try_from(n * 30 * 86_400 / count).unwrap();
        let late = i64::try_from(random.below(3) * random.below(100_000)).unwrap();
        let user = random.below(7);
        let mut transaction = stream::transaction(&mut random, user, seconds - late, places);
        if random.below(3) == 0 {
            let cents = i64::try_from(random.below(3) * 7_000_001).unwrap();
            transaction.amount = Amount::from_ten_thousandths(cents * 100).unwrap();
        }
        let origin = Origin {
            timestamp_ms: (random.below(5) > 0).then_some(seconds / 200 * 200_000 + 1),
            backfill: random.below(10) == 0,
            sender: Sender::from_header(&b"ab"[..usize::try_from(random.below(3)).unwrap()]),
        };
        all.push((transaction, origin));
    }
    all
}

proptest! {
    #[test]
    fn engines_go_on_from_written_histories_as_if_nothing_had_happened(
        seed: u64, count in 0..400_u64, cut in 0..400_usize, workers in 1..5_usize,
    ) {
        let all = transactions(seed, count);
        let (before, after) = all.split_at(cut.min(all.len()));
        let (mut undisturbed, hasher) = (engine(), UserHasher::new(KEY));
        for (transaction, origin) in before {
            undisturbed.score(transaction, origin);
        }
        let mut written = Vec::new();
        undisturbed.write_histories(&mut written);
        let mut restored: Vec<Engine> = (0..workers).map(|_| engine()).collect();
        for (worker, engine) in restored.iter_mut().enumerate() {
            engine.read_histories(&written, |user| user.worker(workers) == worker).unwrap();
        }
        prop_assert_eq!(restored.iter().map(Engine::users).sum::<usize>(), undisturbed.users());
        for (transaction, origin) in after {
            let worker = hasher.key(transaction.user_id.as_bytes()).worker(workers);
            prop_assert_eq!(restored[worker].score(transaction, origin), undisturbed.score(transaction, origin));
        }
        let remembered = restored.iter().map(Engine::transactions).sum::<usize>();
        prop_assert_eq!(remembered, undisturbed.transactions());
    }

    #[test]
    fn histories_that_are_cut_off_or_changed_are_refused_or_read_and_never_panic(
        seed: u64, place: prop::sample::Index, change in 1..=255_u8,
    ) {
        let mut whole = engine();
        for (transaction, origin) in transactions(seed, 60) {
            whole.score(&transaction, &origin);
        }
        let mut written = Vec::new();
        whole.write_histories(&mut written);
        let at = place.index(written.len());
        prop_assert!(engine().read_histories(&written[..at], |_| true).is_err() || at == 0 || is_border(&written, at));
        written[at] ^= change;
        let mut changed = engine();
        if changed.read_histories(&written, |_| true).is_ok() {
            for (transaction, origin) in transactions(seed, 60) {
                changed.score(&transaction, &origin);
            }
        }
    }

    #[test]
    fn no_bytes_make_the_reading_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = engine().read_histories(&bytes, |_| true);
    }
}

/// Whether a cut here falls between two users, where what stands before it is whole.
fn is_border(written: &[u8], at: usize) -> bool {
    engine().read_histories(&written[at..], |_| true).is_ok()
}
