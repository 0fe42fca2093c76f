//! The decisions of `tollgate score` over a log, which those of the services must equal.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufWriter, Write as _};
use std::process::Command;

use anyhow::Context as _;
use tollgate_types::{Decision, Indicator, Indicators, Partitioner, Status, Transaction};

use crate::kafka::{LogRecord, TestLog};
use crate::process;

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
///
/// # Errors
/// Where the program fails.
pub fn score(log: &[LogRecord], partitions: i32) -> anyhow::Result<HashMap<Key, Scored>> {
    let every = score_every(log, partitions)?;
    Ok(every
        .into_iter()
        .filter_map(|(key, all)| Some((key, all.into_iter().next()?)))
        .collect())
}

/// Scores the topic `transactions`, a partition at a time, with `tollgate score`: the decisions on each key, in the
/// order of the log. Records that stand elsewhere than they belong, and what is no transaction, are left out.
///
/// # Errors
/// Where the program fails.
pub fn score_every(
    log: &[LogRecord],
    partitions: i32,
) -> anyhow::Result<HashMap<Key, Vec<Scored>>> {
    let mut streams: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    for record in log {
        match Transaction::parse(&record.payload) {
            Ok(transaction) if stands_right(record, &transaction, partitions) => {
                let line = transaction.one_line().into_owned();
                streams.entry(record.partition).or_default().push(line);
            }
            Ok(_) | Err(_) => {}
        }
    }
    let dir = tempfile::tempdir()?;
    let mut every: HashMap<Key, Vec<Scored>> = HashMap::new();
    for (partition, lines) in streams {
        let (input, output) = (
            dir.path().join(format!("{partition}.in")),
            dir.path().join(format!("{partition}.out")),
        );
        let mut file = BufWriter::new(std::fs::File::create(&input)?);
        for line in &lines {
            writeln!(file, "{line}")?;
        }
        file.flush()?;
        drop(file);
        let mut command = Command::new(process::binary("tollgate")?);
        process::without_settings(&mut command);
        let ended = command
            .arg("score")
            .arg("--input")
            .arg(&input)
            .arg("--output")
            .arg(&output)
            .output()?;
        anyhow::ensure!(
            ended.status.success(),
            "tollgate score: {}: {}",
            ended.status,
            String::from_utf8_lossy(&ended.stderr)
        );
        let decisions = std::fs::read_to_string(&output)?;
        anyhow::ensure!(
            decisions.lines().count() == lines.len(),
            "tollgate score answered with {} lines for {}",
            decisions.lines().count(),
            lines.len()
        );
        for line in decisions.lines() {
            let decision = Decision::parse(line.as_bytes()).with_context(|| line.to_owned())?;
            let all = every.entry(key_of(&decision)).or_default();
            all.push(Scored::of(&decision));
        }
    }
    Ok(every)
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
