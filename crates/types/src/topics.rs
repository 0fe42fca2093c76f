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

/// What a topic is for, whatever its name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TopicKind {
    /// [`Topics::transactions`].
    Transactions,
    /// [`Topics::decisions`].
    Decisions,
    /// [`Topics::alerts`].
    Alerts,
    /// [`Topics::replies`].
    Replies,
    /// [`Topics::imports`].
    Imports,
    /// The dead letters of ingest and of a stage.
    DeadLetters(Stage),
}

/// Who reads and writes topics. Each has credentials of its own where the log checks permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The service ingest.
    Ingest,
    /// A service that is a stage.
    Stage(Stage),
    /// The commands of `tollgate` that a person runs: creating topics, redriving dead letters, listing imports.
    Operator,
    /// Any other program that writes transactions.
    Producer,
}

impl Role {
    /// Every role, in the order of the flow.
    pub const ALL: [Self; 6] = [
        Self::Ingest,
        Self::Stage(Stage::Scorer),
        Self::Stage(Stage::Persistence),
        Self::Stage(Stage::Notifier),
        Self::Operator,
        Self::Producer,
    ];

    /// The role's name as it stands in settings and documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Stage(stage) => stage.name(),
            Self::Operator => "operator",
            Self::Producer => "producer",
        }
    }

    /// The role of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl TopicKind {
    /// Every kind, in the order of [`Topics::all`].
    pub const ALL: [Self; 8] = [
        Self::Transactions,
        Self::Decisions,
        Self::Alerts,
        Self::Replies,
        Self::Imports,
        Self::DeadLetters(Stage::Scorer),
        Self::DeadLetters(Stage::Persistence),
        Self::DeadLetters(Stage::Notifier),
    ];

    /// The name of the topic without a prefix.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transactions => "transactions",
            Self::Decisions => "decisions",
            Self::Alerts => "alerts",
            Self::Replies => "replies",
            Self::Imports => "imports",
            Self::DeadLetters(Stage::Scorer) => "transactions.dlq",
            Self::DeadLetters(Stage::Persistence) => "decisions.dlq",
            Self::DeadLetters(Stage::Notifier) => "alerts.dlq",
        }
    }

    /// Who may read the topic. Permissions of the log are made of this.
    #[must_use]
    pub fn readers(self) -> Vec<Role> {
        match self {
            Self::Transactions => vec![Role::Stage(Stage::Scorer)],
            Self::Decisions => vec![Role::Stage(Stage::Persistence)],
            Self::Alerts => vec![Role::Stage(Stage::Notifier)],
            Self::Replies => vec![Role::Ingest],
            Self::Imports => vec![Role::Ingest, Role::Operator],
            Self::DeadLetters(_) => vec![Role::Operator],
        }
    }

    /// Who may write to the topic. The scorer forwards transactions; the operator redrives dead letters to the topics that
    /// they come from, and writes beside them that they are settled.
    #[must_use]
    pub fn writers(self) -> Vec<Role> {
        let scorer = Role::Stage(Stage::Scorer);
        match self {
            Self::Transactions => vec![Role::Ingest, scorer, Role::Operator, Role::Producer],
            Self::Decisions | Self::Alerts => vec![scorer, Role::Operator],
            Self::Replies => vec![scorer],
            Self::Imports => vec![Role::Ingest],
            Self::DeadLetters(Stage::Scorer) => vec![Role::Ingest, scorer, Role::Operator],
            Self::DeadLetters(stage) => vec![Role::Stage(stage), Role::Operator],
        }
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

    /// The name of the topic of that kind.
    #[must_use]
    pub fn name_of(&self, kind: TopicKind) -> &str {
        match kind {
            TopicKind::Transactions => &self.transactions,
            TopicKind::Decisions => &self.decisions,
            TopicKind::Alerts => &self.alerts,
            TopicKind::Replies => &self.replies,
            TopicKind::Imports => &self.imports,
            TopicKind::DeadLetters(stage) => self.dead_letters_of(stage),
        }
    }

    /// What the topic of that name is for; none where it is not one of these.
    #[must_use]
    pub fn kind_of(&self, topic: &str) -> Option<TopicKind> {
        TopicKind::ALL
            .into_iter()
            .find(|kind| self.name_of(*kind) == topic)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_has_a_kind_a_reader_and_a_writer() {
        let topics = Topics::with_prefix("a.");
        let names = TopicKind::ALL.map(|kind| topics.name_of(kind));
        assert_eq!(names, topics.all());
        for kind in TopicKind::ALL {
            let name = topics.name_of(kind);
            assert_eq!(name, format!("a.{}", kind.name()));
            assert_eq!(topics.kind_of(name), Some(kind));
            assert!(!kind.readers().is_empty() && !kind.writers().is_empty());
        }
        assert_eq!(topics.kind_of("transactions"), None);
    }

    #[test]
    fn only_the_scorer_and_an_operator_write_what_is_stored_and_sent() {
        for kind in [TopicKind::Decisions, TopicKind::Alerts] {
            assert_eq!(kind.writers(), [Role::Stage(Stage::Scorer), Role::Operator]);
        }
        assert_eq!(TopicKind::Replies.writers(), [Role::Stage(Stage::Scorer)]);
    }

    #[test]
    fn a_role_is_found_by_its_name() {
        for role in Role::ALL {
            assert_eq!(Role::from_name(role.name()), Some(role));
        }
        assert_eq!(Role::from_name("root"), None);
    }
}
