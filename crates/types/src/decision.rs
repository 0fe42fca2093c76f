//! A decision: score, reasons and status for one transaction, with the transaction in it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Amount, Timestamp, TraceContext};

/// What is done with a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Let through.
    Approved,
    /// A person looks at it.
    Review,
    /// Stopped.
    Blocked,
}

impl Status {
    /// Every status, mildest first.
    pub const ALL: [Self; 3] = [Self::Approved, Self::Review, Self::Blocked];

    /// The name it has in JSON, metrics and the store.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Review => "review",
            Self::Blocked => "blocked",
        }
    }

    /// The status of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }

    /// Whether somebody must be told.
    #[must_use]
    pub const fn is_alert(self) -> bool {
        matches!(self, Self::Review | Self::Blocked)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A sign of fraud. The order is that of the scoring specification's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Indicator {
    /// Many transactions in a short time.
    HighVelocity,
    /// A large amount.
    HighAmount,
    /// Two places that no traveller reaches in the time between.
    GeographicAnomaly,
    /// A round or a repeated amount.
    SuspiciousPattern,
}

impl Indicator {
    /// Every indicator, in the order in which they are reported.
    pub const ALL: [Self; 4] = [
        Self::HighVelocity,
        Self::HighAmount,
        Self::GeographicAnomaly,
        Self::SuspiciousPattern,
    ];

    /// The name it has in JSON, metrics and the store.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HighVelocity => "high_velocity",
            Self::HighAmount => "high_amount",
            Self::GeographicAnomaly => "geographic_anomaly",
            Self::SuspiciousPattern => "suspicious_pattern",
        }
    }

    /// The indicator of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|indicator| indicator.name() == name)
    }
}

/// A set of indicators in four bits; in JSON an array in the order of [`Indicator::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Indicators(u8);

impl Indicators {
    /// Adds one.
    pub fn insert(&mut self, indicator: Indicator) {
        self.0 |= 1 << indicator as u8;
    }

    /// Whether it is in the set.
    #[must_use]
    pub const fn contains(self, indicator: Indicator) -> bool {
        self.0 & (1 << indicator as u8) != 0
    }

    /// Those in the set, in the order in which they are reported.
    pub fn iter(self) -> impl Iterator<Item = Indicator> {
        Indicator::ALL
            .into_iter()
            .filter(move |indicator| self.contains(*indicator))
    }

    /// The set as four bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The set of these four bits; higher ones are ignored.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & 0x0f)
    }
}

impl FromIterator<Indicator> for Indicators {
    fn from_iter<I: IntoIterator<Item = Indicator>>(indicators: I) -> Self {
        indicators
            .into_iter()
            .fold(Self::default(), |mut set, indicator| {
                set.insert(indicator);
                set
            })
    }
}

impl Serialize for Indicators {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Indicators {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Set;
        impl<'de> Visitor<'de> for Set {
            type Value = Indicators;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of fraud indicators")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Indicators, A::Error> {
                let mut set = Indicators::default();
                while let Some(indicator) = seq.next_element()? {
                    set.insert(indicator);
                }
                Ok(set)
            }
        }
        deserializer.deserialize_seq(Set)
    }
}

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
    /// Speed from the last place to this one, in km/h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed_kmh: Option<f64>,
    /// Great-circle distance from the last place to this one, in km.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distance_km: Option<f64>,
}

/// At most one contribution an indicator, in the order in which they are reported, without an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Contributions([Option<Contribution>; 4]);

impl Contributions {
    /// Puts a contribution into its indicator's place.
    pub fn insert(&mut self, contribution: Contribution) {
        self.0[contribution.indicator as usize] = Some(contribution);
    }

    /// In the order in which they are reported.
    pub fn iter(&self) -> impl Iterator<Item = &Contribution> {
        self.0.iter().flatten()
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

/// What was decided on a transaction, and why. An alert is a decision whose status [is one](Status::is_alert).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Decision<'a> {
    /// The transaction's id, unique within the user.
    #[serde(borrow)]
    pub transaction_id: Cow<'a, str>,
    /// The key of the stream.
    #[serde(borrow)]
    pub user_id: Cow<'a, str>,
    /// The sum of the contributions' points.
    pub fraud_score: f64,
    /// Which indicators fired.
    pub fraud_indicators: Indicators,
    /// What is done with the transaction.
    pub status: Status,
    /// When the scorer decided. The only member that a replay changes.
    pub processed_at: Timestamp,
    /// Points and measured values; may be missing in a duplicate's decision.
    #[serde(default)]
    pub contributions: Contributions,
    /// Fingerprint of the rules in force.
    #[serde(borrow)]
    pub ruleset_version: Cow<'a, str>,
    /// Older than the history that was there to judge it.
    #[serde(default)]
    pub late: bool,
    /// The transaction had been decided on before; this is that decision again.
    #[serde(default)]
    pub duplicate: bool,
    /// W3C trace context of the scoring, for a reader whose log drops headers.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<Cow<'a, str>>,
    /// The transaction as its producer wrote it.
    #[serde(borrow)]
    pub transaction: &'a RawValue,
}

impl<'a> Decision<'a> {
    /// Reads a decision that the scorer wrote.
    ///
    /// # Errors
    /// Where the text is no decision.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, serde_json::Error> {
        let text = std::str::from_utf8(bytes).map_err(de::Error::custom)?;
        serde_json::from_str(text)
    }

    /// The trace that the decision is part of.
    #[must_use]
    pub fn trace(&self) -> Option<TraceContext> {
        TraceContext::parse(self.traceparent.as_deref()?.as_bytes())
    }

    /// Appends the decision as JSON on one line.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        // Writing to memory cannot fail, and every member serialises.
        let _ = serde_json::to_writer(out, self);
    }

    /// As [`Decision::write_to`], but with this text for the transaction, which is not read again: it is JSON on one
    /// line, as [`Transaction::one_line`](crate::Transaction::one_line) gives it.
    pub fn write_around(mut self, transaction: &str, out: &mut Vec<u8>) {
        self.transaction = RawValue::NULL;
        self.write_to(out);
        // The transaction is the last member.
        out.truncate(out.len() - "null}".len());
        out.extend_from_slice(transaction.as_bytes());
        out.push(b'}');
    }
}
