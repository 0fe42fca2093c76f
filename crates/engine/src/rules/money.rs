//! The base currency and the rates of others.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use tollgate_types::{Currency, Rate, Status};

/// Thresholds are in the base currency. Without this section the currency of an amount is not looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Money {
    /// The currency of every threshold, and of transactions that name none.
    pub base: Currency,
    /// What one unit of another currency is worth in the base currency.
    #[serde(default, deserialize_with = "rates")]
    pub rates: BTreeMap<Currency, Rate>,
    /// The mildest status of a transaction whose currency has no rate.
    #[serde(default = "review")]
    pub unknown_status: Status,
}

impl Money {
    /// The rate of a currency, if it is known.
    pub(crate) fn rate(&self, currency: Currency) -> Option<Rate> {
        if currency == self.base {
            return Some(Rate::ONE);
        }
        self.rates.get(&currency).copied()
    }
}

const fn review() -> Status {
    Status::Review
}

/// Codes that differ in case are one currency, so that one of two rates would win by chance: an error.
fn rates<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<Currency, Rate>, D::Error> {
    struct Rates;
    impl<'de> Visitor<'de> for Rates {
        type Value = BTreeMap<Currency, Rate>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("currencies and their rates")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut rates = BTreeMap::new();
            while let Some((currency, rate)) = map.next_entry()? {
                if rates.insert(currency, rate).is_some() {
                    return Err(de::Error::custom(format!("{currency} has two rates")));
                }
            }
            Ok(rates)
        }
    }
    deserializer.deserialize_map(Rates)
}
