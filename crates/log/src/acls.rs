//! What each service may do on a Kafka cluster that checks permissions, and the commands of Kafka that permit it.
//!
//! Who reads and writes which topic is said in `tollgate_types::TopicKind` alone; consumer groups are added here. The client
//! library for Rust cannot create ACLs, so they are commands of `kafka-acls.sh`, which every distribution of Kafka has.

use std::collections::HashMap;
use std::fmt::Write as _;

use tollgate_types::{Role, TopicKind};

use crate::Log;

/// What may be done with a topic or a consumer group, by Kafka's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Read records; join a group and commit. Includes `Describe`.
    Read,
    /// Write records. Includes `Describe`.
    Write,
    /// Create the topic.
    Create,
    /// See partitions, offsets and lag.
    Describe,
}

impl Operation {
    const fn name(self) -> &'static str {
        match self {
            Self::Read => "Read",
            Self::Write => "Write",
            Self::Create => "Create",
            Self::Describe => "Describe",
        }
    }
}

/// One operation that a role may do with these topics and groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Who.
    pub role: Role,
    /// What.
    pub operation: Operation,
    /// Names of topics.
    pub topics: Vec<String>,
    /// Names of consumer groups.
    pub groups: Vec<String>,
}

impl Grant {
    /// The principal of a role, where no other is given.
    #[must_use]
    pub fn default_principal(role: Role) -> String {
        format!("User:tollgate-{}", role.name())
    }

    /// The command of a shell that grants this.
    #[must_use]
    pub fn command(&self, brokers: &str, principals: &HashMap<Role, String>) -> String {
        let principal = principals
            .get(&self.role)
            .cloned()
            .unwrap_or_else(|| Self::default_principal(self.role));
        let mut command = format!(
            "\"${{KAFKA_ACLS:-kafka-acls.sh}}\" --bootstrap-server {} \
             ${{KAFKA_ACLS_CONFIG:+--command-config \"$KAFKA_ACLS_CONFIG\"}} \
             --add --allow-principal {} --operation {}",
            quoted(brokers),
            quoted(&principal),
            self.operation.name()
        );
        // Writing to memory cannot fail.
        for topic in &self.topics {
            let _ = write!(command, " --topic {}", quoted(topic));
        }
        for group in &self.groups {
            let _ = write!(command, " --group {}", quoted(group));
        }
        command
    }
}

/// One word of a shell, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

impl Log {
    /// Everything that the services, an operator and other producers may do with this log, and nothing else.
    #[must_use]
    pub fn grants(&self) -> Vec<Grant> {
        let topics_where = |is_given: &dyn Fn(TopicKind) -> bool| {
            let kinds = TopicKind::ALL.into_iter().filter(|kind| is_given(*kind));
            kinds
                .map(|kind| self.topics().name_of(kind).to_owned())
                .collect::<Vec<_>>()
        };
        let mut grants = Vec::new();
        for role in Role::ALL {
            let mut grant = |operation, topics: Vec<String>, groups| {
                if !topics.is_empty() {
                    grants.push(Grant {
                        role,
                        operation,
                        topics,
                        groups,
                    });
                }
            };
            grant(
                Operation::Read,
                topics_where(&|kind| kind.readers().contains(&role)),
                self.groups_of(role),
            );
            grant(
                Operation::Write,
                topics_where(&|kind| kind.writers().contains(&role)),
                Vec::new(),
            );
            if role == Role::Operator {
                let stages = Role::ALL.into_iter().flat_map(|role| self.groups_of(role));
                grant(Operation::Create, topics_where(&|_| true), Vec::new());
                grant(
                    Operation::Describe,
                    topics_where(&|_| true),
                    stages.collect(),
                );
            }
        }
        grants
    }

    /// The consumer groups that a role is a member of. A reader outside of a group has the name of one too, since the client
    /// requires it and looks for its coordinator.
    fn groups_of(&self, role: Role) -> Vec<String> {
        match role {
            Role::Stage(stage) => vec![self.group(stage)],
            Role::Ingest => vec![
                self.reader_group("ingest-imports"),
                self.reader_group("reader"),
            ],
            Role::Operator => vec![self.reader_group("reader")],
            Role::Producer => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tollgate_types::Stage;

    use super::*;
    use crate::KafkaConfig;

    fn log() -> Log {
        Log::open(KafkaConfig {
            brokers: "127.0.0.1:9".to_owned(),
            topic_prefix: "a.".to_owned(),
            ..KafkaConfig::default()
        })
        .unwrap()
    }

    #[test]
    fn a_service_gets_what_it_reads_and_writes_and_nothing_else() {
        let grants = log().grants();
        let of = |role| grants.iter().filter(move |grant| grant.role == role);
        let notifier: Vec<&Grant> = of(Role::Stage(Stage::Notifier)).collect();
        assert_eq!(notifier.len(), 2);
        assert_eq!(notifier[0].operation, Operation::Read);
        assert_eq!(notifier[0].topics, ["a.alerts"]);
        assert_eq!(notifier[0].groups, ["a.tollgate-notifier"]);
        assert_eq!(notifier[1].operation, Operation::Write);
        assert_eq!(notifier[1].topics, ["a.alerts.dlq"]);
        let producer: Vec<&Grant> = of(Role::Producer).collect();
        assert_eq!(producer.len(), 1);
        assert_eq!(producer[0].operation, Operation::Write);
        assert_eq!(producer[0].topics, ["a.transactions"]);
        // Only who creates topics may.
        let creating = grants.iter().filter(|g| g.operation == Operation::Create);
        assert!(creating.map(|grant| grant.role).eq([Role::Operator]));
    }

    #[test]
    fn a_command_is_one_word_for_each_argument_whatever_the_names_are() {
        let grant = Grant {
            role: Role::Producer,
            operation: Operation::Write,
            topics: vec!["transactions".to_owned()],
            groups: Vec::new(),
        };
        let named = HashMap::from([(Role::Producer, "User:CN=o'brien,O=a b".to_owned())]);
        let command = grant.command("b:1", &named);
        assert!(command.contains(r"--allow-principal 'User:CN=o'\''brien,O=a b' "));
        let default = grant.command("b:1", &HashMap::new());
        assert!(default.ends_with(
            "--allow-principal 'User:tollgate-producer' --operation Write --topic 'transactions'"
        ));
    }

    #[test]
    fn the_table_of_the_architecture_is_that_of_the_code() {
        let document = include_str!("../../../ARCHITECTURE.md");
        let names = |roles: Vec<Role>| {
            let names: Vec<&str> = roles.into_iter().map(Role::name).collect();
            names.join(", ")
        };
        for kind in TopicKind::ALL {
            let (name, writers) = (kind.name(), names(kind.writers()));
            let row = format!("| `{name}` | {writers} | {} |", names(kind.readers()));
            assert!(document.contains(&row), "not in ARCHITECTURE.md: {row}");
        }
    }

    #[test]
    fn the_policies_of_terraform_are_those_of_the_code() {
        let document = include_str!("../../../deploy/terraform/iam.tf");
        let names = |is_given: &dyn Fn(TopicKind) -> bool| {
            let kinds = TopicKind::ALL.into_iter().filter(|kind| is_given(*kind));
            let mut names: Vec<&str> = kinds.map(TopicKind::name).collect();
            names.sort_unstable();
            names
        };
        let listed = |text: &'static str| {
            let mut names: Vec<&str> = text.split('"').skip(1).step_by(2).collect();
            names.sort_unstable();
            names
        };
        for role in Role::ALL.into_iter().filter(|role| *role != Role::Producer) {
            let line = document.lines().map(str::trim).find(|line| {
                line.split_once('=')
                    .is_some_and(|(name, may)| name.trim() == role.name() && may.contains("writes"))
            });
            let (writes, reads) = line.unwrap().split_once("reads").unwrap();
            assert_eq!(
                listed(writes),
                names(&|kind| kind.writers().contains(&role)),
                "{role:?}"
            );
            assert_eq!(
                listed(reads),
                names(&|kind| kind.readers().contains(&role)),
                "{role:?}"
            );
        }
    }
}
