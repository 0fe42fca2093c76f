//! Transactions as a busy day would bring them, the same for the same seed.

use serde_json::json;
use tollgate_types::{Amount, Location, NewTransaction, Timestamp};

/// 2026-03-02T08:00:00Z: long past, so that no clock takes it for the future.
const START_MICROS: i64 = 1_772_438_400_000_000;
const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600 * SECOND;
const DAY: i64 = 24 * HOUR;

/// SplitMix64 (Steele, Lea, Flood 2014): small, and never changes with a library's version.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u32) -> u32 {
        let scaled = (self.bits() >> 32) * u64::from(bound);
        u32::try_from(scaled >> 32).unwrap_or_default()
    }

    /// True in `percent` of a hundred cases.
    pub fn percent(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }
}

/// One customer.
#[derive(Debug, Clone)]
struct User {
    id: String,
    clock: i64,
    burst: u32,
    home: Location,
    habit: Amount,
    last: Option<NewTransaction>,
}

/// An endless day of many customers: bursts, high, round and repeated amounts, travellers, late arrivals, duplicates.
#[derive(Debug, Clone)]
pub struct Day {
    random: Random,
    users: Vec<User>,
    next: u64,
    prefix: String,
}

/// One transaction to send.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// It.
    pub transaction: NewTransaction,
    /// Its id was sent before.
    pub duplicate: bool,
}

impl Day {
    /// A day of `users` customers. Transaction ids begin with `prefix`.
    #[must_use]
    pub fn new(seed: u64, users: u32, prefix: &str) -> Self {
        let mut random = Random::new(seed);
        let users = (0..users)
            .map(|number| User {
                id: format!("user-{number}"),
                clock: START_MICROS + i64::from(random.below(3_600)) * SECOND,
                burst: 0,
                home: Location {
                    latitude: f64::from(random.below(120)) - 60.0,
                    longitude: f64::from(random.below(360)) - 180.0,
                },
                habit: amount(4_9900 + 1_0000 * i64::from(random.below(20))),
                last: None,
            })
            .collect();
        Self {
            random,
            users,
            next: 0,
            prefix: prefix.to_owned(),
        }
    }

    fn time(random: &mut Random, user: &mut User) -> (i64, bool) {
        if user.burst == 0 && random.percent(3) {
            user.burst = 4 + random.below(6);
        }
        user.burst = user.burst.saturating_sub(1);
        let step = if user.burst > 0 { 20 } else { 400 };
        user.clock +=
            (1 + i64::from(random.below(step))) * SECOND + i64::from(random.below(1_000_000));
        match random.below(1_000) {
            // Late, and still scored as if it were not.
            0..20 => (user.clock - i64::from(random.below(1_800)) * SECOND, false),
            20..25 => (user.clock - i64::from(random.below(60)) * HOUR, false),
            // Later than the history reaches back.
            25..28 => (user.clock - 30 * DAY, true),
            _ => (user.clock, false),
        }
    }

    fn amount(random: &mut Random, user: &User) -> Amount {
        match random.below(100) {
            0..12 => user.habit,
            12..16 => amount(100_0000 * i64::from(random.below(20))),
            16..20 => amount(10_000_000 + i64::from(random.below(60_000_000))),
            _ => amount(1_0000 + 100 * i64::from(random.below(30_000))),
        }
    }
}

fn amount(ten_thousandths: i64) -> Amount {
    Amount::from_ten_thousandths(ten_thousandths).unwrap_or_default()
}

impl Iterator for Day {
    type Item = Generated;

    fn next(&mut self) -> Option<Generated> {
        let count = u32::try_from(self.users.len()).unwrap_or(u32::MAX);
        let index = usize::try_from(self.random.below(count)).unwrap_or_default();
        let user = self.users.get_mut(index)?;
        if let Some(last) = user.last.clone().filter(|_| self.random.percent(2)) {
            return Some(Generated {
                transaction: last,
                duplicate: true,
            });
        }
        let (micros, too_late) = Self::time(&mut self.random, user);
        let mut location = user.home;
        if self.random.percent(4) {
            location.latitude = -location.latitude / 2.0;
        }
        self.next += 1;
        let transaction = NewTransaction {
            transaction_id: format!("{}{:08}", self.prefix, self.next),
            user_id: user.id.clone(),
            amount: Self::amount(&mut self.random, user),
            timestamp: Timestamp::from_micros(micros).unwrap_or(Timestamp::MIN),
            location: self.random.percent(70).then_some(location),
            extra: serde_json::Map::from_iter([
                ("currency".to_owned(), json!("EUR")),
                (
                    "merchant_id".to_owned(),
                    json!(format!("shop-{}", self.random.below(500))),
                ),
                ("channel".to_owned(), json!("pos")),
                (
                    "note".to_owned(),
                    json!({ "grüße": [1, 2.50, null], "till": self.random.below(9) }),
                ),
            ]),
        };
        // One that is too late is not remembered, so that its duplicate would be a new decision.
        if !too_late {
            user.last = Some(transaction.clone());
        }
        Some(Generated {
            transaction,
            duplicate: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_day_is_the_same_for_the_same_seed_and_has_of_everything() {
        let day: Vec<Generated> = Day::new(7, 50, "t").take(20_000).collect();
        assert_eq!(day, Day::new(7, 50, "t").take(20_000).collect::<Vec<_>>());
        let duplicates = day.iter().filter(|each| each.duplicate).count();
        let ids: HashSet<_> = day
            .iter()
            .map(|each| &each.transaction.transaction_id)
            .collect();
        assert_eq!(ids.len() + duplicates, day.len());
        assert!(duplicates > 200);
        let high = day
            .iter()
            .filter(|each| each.transaction.amount > amount(10_000_000))
            .count();
        assert!(high > 200);
    }

    #[test]
    fn numbers_below_a_bound_reach_all_of_it() {
        let mut random = Random::new(1);
        let seen: HashSet<u32> = (0..1_000).map(|_| random.below(10)).collect();
        assert_eq!(seen, (0..10).collect());
    }
}
