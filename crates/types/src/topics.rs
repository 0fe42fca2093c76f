//! Names of the topics. A prefix keeps several installations apart on one cluster.

use std::fmt;

/// A service that reads a topic, and dead-letters the records that it cannot process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Reads `transactions`.
    Scorer,
    /// Reads `decisions`.
    Persistence,
    /// Reads `alerts`.
    Notifier,
}

impl Stage {
    /// Every stage, in the order of the flow.
    pub const ALL: [Self; 3] = [Self::Scorer, Self::Persistence, Self::Notifier];

    /// The stage's name as it stands in headers, metrics and consumer groups.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scorer => "scorer",
            Self::Persistence => "persistence",
            Self::Notifier => "notifier",
        }
    }

    /// The stage of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The topics of one installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    /// Transactions to decide on, written by ingest and by any other producer.
    pub transactions: String,
    /// Every decision, with its transaction.
    pub decisions: String,
    /// Decisions that are not `approved`.
    pub alerts: String,
    /// Decisions for callers that wait; the partition is the waiting instance's.
    pub replies: String,
    /// Imports of objects: each request and its progress.
    pub imports: String,
    /// Transactions that ingest or the scorer dead-lettered.
    pub transactions_dlq: String,
    /// Decisions that persistence dead-lettered.
    pub decisions_dlq: String,
    /// Alerts that the notifier dead-lettered.
    pub alerts_dlq: String,
}

impl Topics {
    /// Topic names with `prefix` put before each.
    #[must_use]
    pub fn with_prefix(prefix: &str) -> Self {
        Self {
            transactions: format!("{prefix}transactions"),
            decisions: format!("{prefix}decisions"),
            alerts: format!("{prefix}alerts"),
            replies: format!("{prefix}replies"),
            imports: format!("{prefix}imports"),
            transactions_dlq: format!("{prefix}transactions.dlq"),
            decisions_dlq: format!("{prefix}decisions.dlq"),
            alerts_dlq: format!("{prefix}alerts.dlq"),
        }
    }

    /// All of them, in the order of the flow.
    #[must_use]
    pub fn all(&self) -> [&str; 8] {
        [
            &self.transactions,
            &self.decisions,
            &self.alerts,
            &self.replies,
            &self.imports,
            &self.transactions_dlq,
            &self.decisions_dlq,
            &self.alerts_dlq,
        ]
    }

    /// The topic that a stage reads.
    #[must_use]
    pub fn input_of(&self, stage: Stage) -> &str {
        match stage {
            Stage::Scorer => &self.transactions,
            Stage::Persistence => &self.decisions,
            Stage::Notifier => &self.alerts,
        }
    }

    /// The topic that a stage writes its dead letters to.
    #[must_use]
    pub fn dead_letters_of(&self, stage: Stage) -> &str {
        match stage {
            Stage::Scorer => &self.transactions_dlq,
            Stage::Persistence => &self.decisions_dlq,
            Stage::Notifier => &self.alerts_dlq,
        }
    }
}
