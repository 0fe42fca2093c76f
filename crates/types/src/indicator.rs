//! Indicators: the names of the signs of fraud that a decision reports.
//!
//! The set is open. Five indicators are built in; a rule, or a newer version of Tollgate, adds others by name. A name
//! is kept once in a process-wide table, so that an [`Indicator`] is two bytes and is compared as a number.
//!
//! Invariant: the number of an indicator has a meaning in this process only. What leaves the process is the name.

use std::collections::HashMap;
use std::fmt;
use std::sync::{LazyLock, PoisonError, RwLock};

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// Longest name of an indicator, in bytes.
pub const MAX_INDICATOR_BYTES: usize = 64;
/// Most names that a process keeps beside the built-in ones. They are never freed, and each is a label of metrics.
pub const MAX_INDICATORS: usize = 1024;

/// Names of the built-in indicators by number, in the order of the table "Scoring" of the README.
const BUILT_IN_NAMES: [&str; 5] = [
    "high_velocity",
    "high_amount",
    "geographic_anomaly",
    "suspicious_pattern",
    "conflicting_duplicate",
];

/// A sign of fraud, by its name.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Indicator(u16);

/// Why a text does not name an indicator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IndicatorError {
    /// The text is empty, too long, or holds another character.
    #[error("the name of an indicator has 1 to {MAX_INDICATOR_BYTES} letters, digits and _")]
    Name,
    /// The process has already met [`MAX_INDICATORS`] other names.
    #[error("more than {MAX_INDICATORS} different indicators")]
    TooMany,
}

impl Indicator {
    /// Many transactions in a short time.
    pub const HIGH_VELOCITY: Self = Self(0);
    /// A large amount.
    pub const HIGH_AMOUNT: Self = Self(1);
    /// Two places that no traveller reaches in the time between.
    pub const GEOGRAPHIC_ANOMALY: Self = Self(2);
    /// A round or a repeated amount.
    pub const SUSPICIOUS_PATTERN: Self = Self(3);

    /// The transaction id has been used for another amount.
    pub const CONFLICTING_DUPLICATE: Self = Self(4);

    /// The built-in indicators, in the order in which they are reported.
    pub const BUILT_IN: [Self; 5] = [
        Self::HIGH_VELOCITY,
        Self::HIGH_AMOUNT,
        Self::GEOGRAPHIC_ANOMALY,
        Self::SUSPICIOUS_PATTERN,
        Self::CONFLICTING_DUPLICATE,
    ];

    /// The indicator of that name, which is kept if it is new.
    ///
    /// # Errors
    /// Where the text cannot be a name, or the table of names is full.
    pub fn intern(name: &str) -> Result<Self, IndicatorError> {
        if let Some(number) = BUILT_IN_NAMES.iter().position(|known| *known == name) {
            return Ok(Self::BUILT_IN[number]);
        }
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if !(1..=MAX_INDICATOR_BYTES).contains(&name.len()) || !name.bytes().all(is_name) {
            return Err(IndicatorError::Name);
        }
        let known = NAMES.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(indicator) = known.by_name.get(name) {
            return Ok(*indicator);
        }
        drop(known);
        NAMES
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .add(name)
    }

    /// The name it has in JSON, metrics and the store.
    #[must_use]
    pub fn name(self) -> &'static str {
        let number = usize::from(self.0);
        if let Some(name) = BUILT_IN_NAMES.get(number) {
            return name;
        }
        let names = NAMES.read().unwrap_or_else(PoisonError::into_inner);
        // Every indicator that exists was added to the table, from which nothing is removed.
        names
            .added
            .get(number - BUILT_IN_NAMES.len())
            .copied()
            .unwrap_or_default()
    }

    /// Its place among [`Indicator::BUILT_IN`], unless it is another one.
    #[must_use]
    pub const fn built_in_index(self) -> Option<usize> {
        let number = self.0 as usize;
        if number < BUILT_IN_NAMES.len() {
            Some(number)
        } else {
            None
        }
    }
}

/// The names beside the built-in ones.
#[derive(Default)]
struct Names {
    added: Vec<&'static str>,
    by_name: HashMap<&'static str, Indicator>,
}

static NAMES: LazyLock<RwLock<Names>> = LazyLock::new(RwLock::default);

impl Names {
    fn add(&mut self, name: &str) -> Result<Indicator, IndicatorError> {
        // Another thread may have added it since it was looked for.
        if let Some(indicator) = self.by_name.get(name) {
            return Ok(*indicator);
        }
        if self.added.len() >= MAX_INDICATORS {
            return Err(IndicatorError::TooMany);
        }
        let number = BUILT_IN_NAMES.len() + self.added.len();
        let indicator = Indicator(u16::try_from(number).map_err(|_| IndicatorError::TooMany)?);
        let name: &'static str = Box::leak(name.into());
        self.added.push(name);
        self.by_name.insert(name, indicator);
        Ok(indicator)
    }
}

impl fmt::Debug for Indicator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Indicator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Indicator {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Indicator {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Indicator;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of an indicator")
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<Indicator, E> {
                Indicator::intern(name).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Name)
    }
}

/// The indicators of a decision, each once: the built-in ones first, in the order of [`Indicator::BUILT_IN`], then the
/// others in the order in which they were added. In JSON an array of names. Up to eight take no allocation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Indicators(SmallVec<[Indicator; 8]>);

impl Indicators {
    /// Adds one, if it is not there yet.
    pub fn insert(&mut self, indicator: Indicator) {
        if self.contains(indicator) {
            return;
        }
        match place(self.0.iter().copied(), indicator) {
            Some(at) => self.0.insert(at, indicator),
            None => self.0.push(indicator),
        }
    }

    /// Whether it is among them.
    #[must_use]
    pub fn contains(&self, indicator: Indicator) -> bool {
        self.0.contains(&indicator)
    }

    /// All of them, in the order in which they are reported.
    pub fn iter(&self) -> impl Iterator<Item = Indicator> {
        self.0.iter().copied()
    }

    /// Those that are not built in, in the order in which they are reported.
    #[must_use]
    pub fn beyond_built_in(&self) -> &[Indicator] {
        let built_in = self
            .0
            .partition_point(|indicator| indicator.built_in_index().is_some());
        &self.0[built_in..]
    }

    /// The built-in ones among them as bits: bit n is [`Indicator::BUILT_IN`]`[n]`.
    #[must_use]
    pub fn built_in_bits(&self) -> u8 {
        self.0
            .iter()
            .filter_map(|indicator| indicator.built_in_index())
            .fold(0, |bits, index| bits | 1 << index)
    }

    /// The built-in indicators of these bits; higher bits are ignored.
    #[must_use]
    pub fn from_built_in_bits(bits: u8) -> Self {
        let built_in = Indicator::BUILT_IN.into_iter().enumerate();
        Self(
            built_in
                .filter(|(index, _)| bits & 1 << index != 0)
                .map(|(_, indicator)| indicator)
                .collect(),
        )
    }
}

/// Where a new indicator belongs among those that are there: `None` at the end.
pub(crate) fn place(mut there: impl Iterator<Item = Indicator>, new: Indicator) -> Option<usize> {
    let new = new.built_in_index()?;
    there.position(|indicator| indicator.built_in_index().is_none_or(|index| index > new))
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
        struct Names;
        impl<'de> Visitor<'de> for Names {
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
        deserializer.deserialize_seq(Names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Indicator {
        Indicator::intern(name).unwrap()
    }

    #[test]
    fn a_name_is_the_same_indicator_wherever_it_is_read() {
        for indicator in Indicator::BUILT_IN {
            assert_eq!(named(indicator.name()), indicator);
        }
        let names: Vec<String> = (0..50).map(|n| format!("same_everywhere_{n}")).collect();
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let names = names.clone();
                std::thread::spawn(move || names.iter().map(|name| named(name)).collect::<Vec<_>>())
            })
            .collect();
        let read: Vec<_> = readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .collect();
        assert!(read.iter().all(|each| *each == read[0]));
        for (indicator, name) in read[0].iter().zip(&names) {
            assert_eq!(indicator.name(), name);
            assert_eq!(indicator.built_in_index(), None);
        }
    }

    #[test]
    fn what_cannot_be_a_name_is_refused() {
        let longest = "x".repeat(MAX_INDICATOR_BYTES);
        assert_eq!(named(&longest).name(), longest);
        for name in [
            "",
            "high velocity",
            "high-velocity",
            "a,b",
            "é",
            "a\n",
            &format!("{longest}x"),
        ] {
            assert_eq!(
                Indicator::intern(name),
                Err(IndicatorError::Name),
                "{name:?}"
            );
        }
    }

    #[test]
    fn a_process_keeps_a_bounded_number_of_names() {
        // A table of its own: the one of the process is shared with the other tests.
        let mut names = Names::default();
        for n in 0..MAX_INDICATORS {
            names.add(&format!("n{n}")).unwrap();
        }
        assert_eq!(names.add("one_more"), Err(IndicatorError::TooMany));
        assert!(
            names.add("n7").is_ok(),
            "a name that is there stays readable"
        );
    }

    #[test]
    fn built_in_indicators_come_first_and_the_others_as_they_were_added() {
        let others = [named("zebra_rule"), named("apple_rule")];
        let set: Indicators = [
            others[0],
            Indicator::SUSPICIOUS_PATTERN,
            others[1],
            Indicator::HIGH_VELOCITY,
            others[0],
        ]
        .into_iter()
        .collect();
        let names: Vec<_> = set.iter().map(Indicator::name).collect();
        assert_eq!(
            names,
            [
                "high_velocity",
                "suspicious_pattern",
                "zebra_rule",
                "apple_rule"
            ]
        );
        assert_eq!(set.beyond_built_in(), others);
        assert_eq!(set.built_in_bits(), 0b1001);
        for bits in 0..32 {
            let set = Indicators::from_built_in_bits(bits);
            assert_eq!(set.built_in_bits(), bits);
            assert!(set.beyond_built_in().is_empty());
        }
    }
}
