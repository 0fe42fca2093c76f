//! Contributions: how many points each indicator adds to a score, and the measured value behind them.

use std::fmt;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::{Amount, BaseAmount, Indicator, Indicators, indicator};

/// The points that one indicator gave, and the measured value behind them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Contribution {
    /// Which indicator.
    pub indicator: Indicator,
    /// Its share of the score.
    pub points: f64,
    /// Transactions counted: within the velocity window, or of the same amount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// The amount that was high or round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<Amount>,
    /// That amount in the base currency, where the rules have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount_base: Option<BaseAmount>,
    /// Speed from the last place to this one, in km/h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed_kmh: Option<f64>,
    /// Great-circle distance from the last place to this one, in km.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distance_km: Option<f64>,
}

impl Contribution {
    /// Points of an indicator without a measured value.
    #[must_use]
    pub const fn new(indicator: Indicator, points: f64) -> Self {
        Self {
            indicator,
            points,
            count: None,
            amount: None,
            amount_base: None,
            speed_kmh: None,
            distance_km: None,
        }
    }
}

/// At most one contribution for each indicator, in the order of [`Indicators`]. Up to four take no allocation.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Contributions(SmallVec<[Contribution; 4]>);

impl Contributions {
    /// Adds a contribution, in place of an earlier one of the same indicator.
    pub fn insert(&mut self, contribution: Contribution) {
        let new = contribution.indicator;
        if let Some(same) = self.0.iter_mut().find(|each| each.indicator == new) {
            *same = contribution;
            return;
        }
        match indicator::place(self.0.iter().map(|each| each.indicator), new) {
            Some(at) => self.0.insert(at, contribution),
            None => self.0.push(contribution),
        }
    }

    /// In the order in which they are reported.
    pub fn iter(&self) -> impl Iterator<Item = &Contribution> {
        self.0.iter()
    }

    /// The indicators that contribute.
    #[must_use]
    pub fn indicators(&self) -> Indicators {
        self.iter().map(|each| each.indicator).collect()
    }
}

impl Serialize for Contributions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Contributions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Contributions;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of contributions")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Contributions, A::Error> {
                let mut list = Contributions::default();
                while let Some(contribution) = seq.next_element()? {
                    list.insert(contribution);
                }
                Ok(list)
            }
        }
        deserializer.deserialize_seq(List)
    }
}
