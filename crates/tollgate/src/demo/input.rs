//! What the demo replays.

use std::path::Path;

use anyhow::Context as _;
use tollgate_types::{NewTransaction, Transaction};

use super::scenes::scenes;

const SAMPLE: &str = include_str!("../../data/sample.jsonl");
const FRAUDS: &str = include_str!("../../data/sample.frauds.txt");

/// Transactions to replay, one JSON text each, and what is known of them.
pub(crate) struct Input {
    pub(crate) lines: Vec<String>,
    /// Ids of those that are labelled as frauds; none for other input.
    pub(crate) frauds: Vec<&'static str>,
    pub(crate) what: String,
}

impl Input {
    /// The shipped sample, with the scenes that it lacks spread over it.
    pub(crate) fn sample() -> anyhow::Result<Self> {
        let mut lines: Vec<String> = SAMPLE.lines().map(str::to_owned).collect();
        let parse = |line: &str| {
            Transaction::parse(line.as_bytes()).map(|transaction| transaction.timestamp)
        };
        // Late in the replay, so that their alerts are among the latest when it ends.
        let first = lines.len() * 4 / 5;
        for (index, scene) in scenes(parse(&lines[first])?).into_iter().enumerate() {
            // Scenes have users of their own, so their place among the others changes nothing but the show.
            let at = first + index * lines.len() / 20;
            lines.splice(at..at, scene.iter().map(NewTransaction::to_json));
        }
        Ok(Self {
            lines,
            frauds: FRAUDS.lines().collect(),
            what: "the shipped sample".to_owned(),
        })
    }

    /// A file of JSON lines.
    pub(crate) fn file(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("--input {}", path.display()))?;
        let lines: Vec<String> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(str::to_owned)
            .collect();
        anyhow::ensure!(
            !lines.is_empty(),
            "--input {}: holds no line",
            path.display()
        );
        Ok(Self {
            lines,
            frauds: Vec::new(),
            what: path.display().to_string(),
        })
    }
}
