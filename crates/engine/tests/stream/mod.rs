//! A stream of transactions in the style of card data, the same at every run.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "each test and benchmark uses a part of it, and fails by panicking"
)]

use std::borrow::Cow;

use tollgate_types::{Amount, Location, Members, Timestamp, Transaction};

/// SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// 0 ≤ x < 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// What the places of a stream look like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Places {
    None,
    SixDecimals,
    Full,
}

/// A transaction of `user` at `seconds` with a 32-digit id, an amount between 1 and 300, and a place near the
/// user's home.
pub fn transaction(
    random: &mut Random,
    user: u64,
    seconds: i64,
    places: Places,
) -> Transaction<'static> {
    let home = Random(user).unit();
    let (latitude, longitude) = (
        25.0 + home * 24.0 + random.unit() * 0.005,
        -124.0 + home * 57.0 + random.unit() * 0.005,
    );
    let cents = 100 + random.below(29_900);
    let location = match places {
        Places::None => None,
        Places::SixDecimals => Some(Location {
            latitude: (latitude * 1e6).round() / 1e6,
            longitude: (longitude * 1e6).round() / 1e6,
        }),
        Places::Full => Some(Location {
            latitude,
            longitude,
        }),
    };
    Transaction {
        transaction_id: Cow::Owned(format!("{:016x}{:016x}", random.next(), random.next())),
        user_id: Cow::Owned(format!("s{user}")),
        amount: Amount::from_ten_thousandths(i64::try_from(cents).unwrap() * 100).unwrap(),
        timestamp: Timestamp::from_micros(seconds * 1_000_000).unwrap(),
        location,
        traceparent: None,
        currency: None,
        members: Members::default(),
        json: "".into(),
    }
}
