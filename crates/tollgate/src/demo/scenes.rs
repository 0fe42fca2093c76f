//! Scenes that the sample lacks: what fraud looks like that is not a high amount late at night.

use serde_json::{Map, Value};
use tollgate_types::{Amount, Location, NewTransaction, Timestamp};

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;

const LISBON: Location = Location {
    latitude: 38.722_252,
    longitude: -9.139_337,
};
const TOKYO: Location = Location {
    latitude: 35.676_422,
    longitude: 139.650_027,
};
const CHICAGO: Location = Location {
    latitude: 41.878_113,
    longitude: -87.629_799,
};

/// The scenes, each in the order of its timestamps; they begin at `start`.
pub(crate) fn scenes(start: Timestamp) -> Vec<Vec<NewTransaction>> {
    vec![
        card_testing(start),
        impossible_travel(start),
        round_amounts(start),
        account_takeover(start),
    ]
}

/// A stolen card is tried with small amounts, many times within a minute or two.
fn card_testing(start: Timestamp) -> Vec<NewTransaction> {
    (0..9)
        .map(|n| {
            scene(
                "card-testing",
                n,
                start.micros() + n * 12 * SECOND,
                10_100 + 1_700 * n,
                Some(CHICAGO),
                "digital_goods",
            )
        })
        .collect()
}

/// The card pays in Lisbon, and forty minutes later in Tokyo.
fn impossible_travel(start: Timestamp) -> Vec<NewTransaction> {
    [
        (0, 184_500, LISBON),
        (40, 892_000, TOKYO),
        (55, 1_249_900, TOKYO),
        (90, 61_000, LISBON),
    ]
    .into_iter()
    .zip(0..)
    .map(|((minute, amount, place), n)| {
        scene(
            "impossible-travel",
            n,
            start.micros() + minute * MINUTE,
            amount,
            Some(place),
            "travel",
        )
    })
    .collect()
}

/// Gift cards of the same round amounts.
fn round_amounts(start: Timestamp) -> Vec<NewTransaction> {
    [500, 500, 1_000, 1_000, 2_000]
        .into_iter()
        .zip(0..)
        .map(|(amount, n)| {
            scene(
                "round-amounts",
                n,
                start.micros() + n * 7 * MINUTE,
                amount * 10_000,
                None,
                "gift_cards",
            )
        })
        .collect()
}

/// Everything at once: far away, fast, high and round.
fn account_takeover(start: Timestamp) -> Vec<NewTransaction> {
    (0..6)
        .map(|n| {
            let place = if n == 0 { CHICAGO } else { TOKYO };
            scene(
                "account-takeover",
                n,
                start.micros() + n * 40 * SECOND,
                (500 + 900 * n) * 10_000,
                Some(place),
                "electronics",
            )
        })
        .collect()
}

fn scene(
    name: &str,
    n: i64,
    micros: i64,
    ten_thousandths: i64,
    location: Option<Location>,
    category: &str,
) -> NewTransaction {
    NewTransaction {
        transaction_id: format!("scene-{name}-{n}"),
        user_id: format!("scene-{name}"),
        amount: Amount::from_ten_thousandths(ten_thousandths).unwrap_or_default(),
        timestamp: Timestamp::from_micros(micros).unwrap_or(Timestamp::MAX),
        location,
        extra: Map::from_iter([
            ("merchant_category".to_owned(), Value::from(category)),
            ("currency".to_owned(), Value::from("USD")),
        ]),
    }
}
