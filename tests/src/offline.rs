//! The decisions of the engine over a log, with the timestamps of its records, which those of the services must equal.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context as _;
use tollgate_engine::{Engine, Origin, Rules, Sender};
use tollgate_types::{Decision, Indicator, Indicators, Partitioner, Status, Transaction, headers};

use crate::kafka::{LogRecord, TestLog};

/// User and transaction: what is stored once.
pub type Key = (String, String);

/// What of a decision does not depend on when it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scored {
    /// The score's bits: equal means equal.
    pub score_bits: u64,
    /// Which indicators fired.
    pub indicators: Indicators,
    /// What is done with the transaction.
    pub status: Status,
    /// It came later than the history reaches back.
    pub late: bool,
}

impl Scored {
    /// That part of a row of `fraud_analysis`: its columns.
    ///
    /// # Errors
    /// Where one holds what cannot be read.
    pub fn of_row(
        fraud_score: f64,
        status: &str,
        fraud_indicators: &str,
        late: bool,
    ) -> anyhow::Result<Self> {
        let indicators: Option<Indicators> = fraud_indicators
            .split(',')
            .filter(|name| !name.is_empty())
            .map(|name| Indicator::intern(name).ok())
            .collect();
        Ok(Self {
            score_bits: fraud_score.to_bits(),
            indicators: indicators
                .with_context(|| format!("fraud_indicators: {fraud_indicators}"))?,
            status: Status::from_name(status).with_context(|| format!("status: {status}"))?,
            late,
        })
    }

    /// That part of a decision.
    #[must_use]
    pub fn of(decision: &Decision<'_>) -> Self {
        Self {
            score_bits: decision.fraud_score.to_bits(),
            indicators: decision.fraud_indicators.clone(),
            status: decision.status,
            late: decision.late,
        }
    }
}

/// The key of a decision.
#[must_use]
pub fn key_of(decision: &Decision<'_>) -> Key {
    (
        decision.user_id.clone().into_owned(),
        decision.transaction_id.clone().into_owned(),
    )
}

/// Whether a record is where it is scored: in its user's partition, with the user as its key.
#[must_use]
pub fn stands_right(record: &LogRecord, transaction: &Transaction<'_>, partitions: i32) -> bool {
    let user = transaction.user_id.as_bytes();
    record.key.as_deref() == Some(user)
        && Partitioner::Murmur2.partition(user, partitions) == record.partition
}

/// The first decision on each key, of those of [`score_every`].
#[must_use]
pub fn score(log: &[LogRecord], partitions: i32) -> HashMap<Key, Scored> {
    let every = score_every(log, partitions);
    every
        .into_iter()
        .filter_map(|(key, all)| Some((key, all.into_iter().next()?)))
        .collect()
}

/// Scores the topic `transactions`, a partition at a time, with the engine and each record's own timestamp: the decisions on
/// each key, in the order of the log. Records that stand elsewhere than they belong, and what is no transaction, are left out.
#[must_use]
pub fn score_every(log: &[LogRecord], partitions: i32) -> HashMap<Key, Vec<Scored>> {
    let rules = Arc::new(Rules::default());
    let mut engines: HashMap<i32, Engine> = HashMap::new();
    let mut every: HashMap<Key, Vec<Scored>> = HashMap::new();
    for record in log {
        let Ok(transaction) = Transaction::parse(&record.payload) else {
            continue;
        };
        if !stands_right(record, &transaction, partitions) {
            continue;
        }
        let engine = engines
            .entry(record.partition)
            .or_insert_with(|| Engine::new(Arc::clone(&rules), [7; 16]));
        let sender = record.header(headers::SENDER);
        let origin = Origin {
            timestamp_ms: Some(record.timestamp_ms).filter(|at| *at > 0),
            backfill: record.header(headers::BACKFILL).as_deref() == Some("1"),
            sender: sender.and_then(|sender| Sender::from_header(sender.as_bytes())),
        };
        let verdict = engine.score(&transaction, &origin);
        let key = (
            transaction.user_id.into_owned(),
            transaction.transaction_id.into_owned(),
        );
        every.entry(key).or_default().push(Scored {
            score_bits: verdict.score.to_bits(),
            indicators: verdict.indicators,
            status: verdict.status,
            late: verdict.late,
        });
    }
    every
}

/// Compares two sets of decisions, and names some that differ.
///
/// # Errors
/// Where they differ.
pub fn ensure_equal(
    what: &str,
    found: &HashMap<Key, Scored>,
    expected: &HashMap<Key, Scored>,
) -> anyhow::Result<()> {
    let mut wrong: Vec<String> = Vec::new();
    for (key, scored) in expected {
        match found.get(key) {
            None => wrong.push(format!("{key:?} is missing")),
            Some(other) if other != scored => {
                wrong.push(format!("{key:?} is {other:?}, expected {scored:?}"))
            }
            Some(_) => {}
        }
    }
    wrong.extend(
        found
            .keys()
            .filter(|key| !expected.contains_key(*key))
            .map(|key| format!("{key:?} was not expected")),
    );
    wrong.sort_unstable();
    anyhow::ensure!(
        wrong.is_empty(),
        "{what}: {} differ, as {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(10)]
    );
    Ok(())
}

/// Everything that was ever decided. A key that was decided twice, by a duplicate or a redelivery, was decided alike.
///
/// # Errors
/// Where it was not, or the log cannot be read.
pub fn every_decision(log: &TestLog) -> anyhow::Result<HashMap<Key, Scored>> {
    let mut all = HashMap::new();
    for record in log.read(&log.topics().decisions)? {
        let decision = Decision::parse(&record.payload)?;
        let scored = Scored::of(&decision);
        let first = all
            .entry(key_of(&decision))
            .or_insert_with(|| scored.clone());
        anyhow::ensure!(
            *first == scored,
            "{:?} was decided as {first:?} and as {scored:?}",
            key_of(&decision)
        );
    }
    Ok(all)
}
