//! Dead letters as they stand on their topics.
//!
//! A log is not changed, so what is done with a letter is written behind it: a record in the same partition that
//! says which letter is settled, and how. A letter is open while there is none.

use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde_json::Value;
use tollgate_ingest::SentTransaction;
use tollgate_log::{Log, LogRecord};
use tollgate_types::{Stage, Timestamp, TopicKind, headers};

use super::of_users;

/// A service that dead-letters records: those that read a topic, and ingest, whose letters are rows and messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    Ingest,
    Stage(Stage),
}

impl Service {
    pub(super) const ALL: [Self; 4] = [
        Self::Ingest,
        Self::Stage(Stage::Scorer),
        Self::Stage(Stage::Persistence),
        Self::Stage(Stage::Notifier),
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Stage(stage) => stage.name(),
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.name() == name)
    }

    /// The stage whose dead-letter topic it writes to.
    pub(super) const fn stage(self) -> Stage {
        match self {
            // They are transactions that could not be read, as the scorer's are, and are redriven to the same topic.
            Self::Ingest => Stage::Scorer,
            Self::Stage(stage) => stage,
        }
    }
}

/// Names a letter: `scorer/3@17` is offset 17 of partition 3 of the dead-letter topic that the scorer writes to. Ingest
/// writes to the same topic: the name of the service says who gave it up, and the place alone which letter it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct LetterId {
    pub(super) service: Service,
    pub(super) partition: i32,
    pub(super) offset: i64,
}

impl LetterId {
    pub(super) const fn stage(&self) -> Stage {
        self.service.stage()
    }

    const fn place(&self) -> (Stage, i32, i64) {
        (self.stage(), self.partition, self.offset)
    }
}

impl PartialEq for LetterId {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for LetterId {}

impl Hash for LetterId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.place().hash(state);
    }
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = self.service.name();
        write!(f, "{service}/{}@{}", self.partition, self.offset)
    }
}

impl FromStr for LetterId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (service, place) = text.split_once('/')?;
            let (partition, offset) = place.split_once('@')?;
            Some(Self {
                service: Service::from_name(service)?,
                partition: partition.parse().ok().filter(|number| *number >= 0)?,
                offset: offset.parse().ok().filter(|number| *number >= 0)?,
            })
        };
        parse().ok_or_else(|| {
            "expected SERVICE/PARTITION@OFFSET as `tollgate dlq list` shows it, such as scorer/3@17"
                .to_owned()
        })
    }
}

/// One time that a stage gave the record up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) stage: String,
    pub(super) kind: String,
    pub(super) reason: String,
    pub(super) attempts: String,
    pub(super) failed_at: String,
    pub(super) source: String,
}

/// A record that a stage gave up.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) id: LetterId,
    pub(super) record: LogRecord,
}

impl Letter {
    /// Every time that it was given up, the first one first.
    pub(super) fn failures(&self) -> Vec<Failure> {
        let text = |value: &Option<Vec<u8>>| {
            String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned()
        };
        // A sender that gave no partition and offset has left them empty.
        let place = |mark: &str, value: &Option<Vec<u8>>| match text(value) {
            value if value.is_empty() => value,
            value => format!("{mark}{value}"),
        };
        let mut all: Vec<Failure> = Vec::new();
        for (name, value) in &self.record.headers {
            if name == headers::ERROR_STAGE {
                all.push(Failure {
                    stage: text(value),
                    kind: String::new(),
                    reason: String::new(),
                    attempts: String::new(),
                    failed_at: String::new(),
                    source: String::new(),
                });
            }
            let Some(last) = all.last_mut() else { continue };
            match name.as_str() {
                headers::ERROR_KIND => last.kind = text(value),
                headers::ERROR_REASON => last.reason = text(value),
                headers::ATTEMPTS => last.attempts = text(value),
                headers::FAILED_AT => last.failed_at = text(value),
                headers::SOURCE_TOPIC => last.source = text(value),
                headers::SOURCE_OBJECT => last.source = text(value),
                headers::SOURCE_LINE => last.source += &place(":", value),
                headers::SOURCE_PARTITION => last.source += &place("/", value),
                headers::SOURCE_OFFSET => last.source += &place("@", value),
                _ => {}
            }
        }
        all
    }

    pub(super) fn kind(&self) -> &str {
        self.record.header(headers::ERROR_KIND).unwrap_or_default()
    }

    pub(super) fn failed_at(&self) -> Option<Timestamp> {
        Timestamp::parse(self.record.header(headers::FAILED_AT)?).ok()
    }

    /// The user, as far as the record still says: by its payload, or by its key; the first one of a letter of several.
    pub(super) fn user(&self) -> Option<String> {
        self.users().into_iter().next()
    }

    /// All users that it is of.
    pub(super) fn users(&self) -> Vec<String> {
        of_users::users_of(&self.record.payload, self.record.key.as_deref())
    }

    /// The tenant, empty for the default tenant: by its header, or by its payload.
    pub(super) fn tenant(&self) -> String {
        let member = || {
            let value: Value = serde_json::from_slice(&self.record.payload).ok()?;
            Some(value.get("tenant")?.as_str()?.to_owned())
        };
        let header = self.record.header(headers::TENANT).map(str::to_owned);
        match self.id.service.stage() {
            // A transaction is of the tenant in its header, whatever its text says.
            Stage::Scorer => header.unwrap_or_default(),
            Stage::Persistence | Stage::Notifier => header.or_else(member).unwrap_or_default(),
        }
    }

    /// What is written when it is sent through again.
    ///
    /// # Errors
    /// Why it cannot be.
    pub(super) fn redriven(&self, log: &Log) -> Result<Redriven, String> {
        let last = self.failures().pop();
        let at = last.as_ref().map_or("", |last| &*last.source);
        if let Some(whole) = self.record.header(headers::TRUNCATED_FROM) {
            return Err(format!(
                "its payload of {whole} bytes was cut to fit; the whole stands at {at}"
            ));
        }
        if self.record.header(headers::PAYLOAD_MASKED).is_some() {
            return Err(format!(
                "card data was taken out of it, so it would not be read as what was sent; the source is {at}"
            ));
        }
        let of_ingest = last.as_ref().is_some_and(|last| last.stage == INGEST);
        let Some(format) = self.record.header(headers::PAYLOAD_FORMAT) else {
            if of_ingest && self.kind() != "invalid" {
                return Err(format!(
                    "an earlier version wrote it, which kept less than what was sent; the source is {at}"
                ));
            }
            return Ok(Redriven::AsItIs);
        };
        // Its writer may have claimed a tenant: it is signed anew only if a service wrote it.
        let kind = TopicKind::Transactions;
        if !of_ingest || log.authenticate_owned(kind, &self.record).is_err() {
            return Ok(Redriven::AsItIs);
        }
        let transactions = tollgate_ingest::read_again(format, &self.record.payload)?;
        if let [only] = &transactions[..]
            && only.json.as_bytes() == self.record.payload
        {
            return Ok(Redriven::AsItIs);
        }
        if self.record.header(headers::MAC).is_some() && log.config().authentication.keys.is_empty()
        {
            return Err(
                "it has to be signed anew; set kafka.authentication.keys as the services have them"
                    .to_owned(),
            );
        }
        Ok(Redriven::ReadAgain(transactions))
    }
}

/// The stage of letters that no [`Stage`] wrote.
const INGEST: &str = "ingest";

/// What is written for a letter that is redriven.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Redriven {
    /// The record that the stage gave up.
    AsItIs,
    /// What ingest reads in the payload, the way it came in.
    ReadAgain(Vec<SentTransaction>),
}

/// Which letters are meant. What is not given does not matter.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    pub(super) ids: Vec<LetterId>,
    pub(super) services: Vec<Service>,
    pub(super) kinds: Vec<String>,
    pub(super) users: Vec<String>,
    /// Empty for the default tenant.
    pub(super) tenant: Option<String>,
    pub(super) since: Option<Timestamp>,
    pub(super) until: Option<Timestamp>,
}

impl Filter {
    /// The stages whose dead-letter topics have such letters.
    fn stages(&self) -> Vec<Stage> {
        let services = &self.services;
        Stage::ALL
            .into_iter()
            .filter(|stage| {
                services.is_empty() || services.iter().any(|service| service.stage() == *stage)
            })
            .filter(|stage| self.ids.is_empty() || self.ids.iter().any(|id| id.stage() == *stage))
            .collect()
    }

    /// Whether it lets everything through.
    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
            && self.services.is_empty()
            && self.kinds.is_empty()
            && self.users.is_empty()
            && self.tenant.is_none()
            && self.since.is_none()
            && self.until.is_none()
    }

    pub(super) fn matches(&self, letter: &Letter) -> bool {
        let within = |failed: Timestamp| {
            self.since.is_none_or(|since| failed >= since)
                && self.until.is_none_or(|until| failed < until)
        };
        let in_time = self.since.is_none() && self.until.is_none();
        (self.ids.is_empty() || self.ids.contains(&letter.id))
            && (self.services.is_empty() || self.services.contains(&letter.id.service))
            && (self.kinds.is_empty() || self.kinds.iter().any(|kind| kind == letter.kind()))
            && (in_time || letter.failed_at().is_some_and(within))
            && (self.tenant.as_ref()).is_none_or(|tenant| letter.tenant() == *tenant)
            && (self.users.is_empty()
                || letter.users().iter().any(|user| self.users.contains(user)))
    }
}

/// Calls `each` with every open letter that the filter lets through, oldest first in each partition.
pub(super) fn for_each_open(
    kafka: &Log,
    filter: &Filter,
    mut each: impl FnMut(Letter) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for stage in filter.stages() {
        let topic = kafka.topics().dead_letters_of(stage);
        let mut settled = HashSet::new();
        kafka.reader(&[topic])?.read_all(|record| {
            settled.extend(settles(stage, &record));
            anyhow::Ok(())
        })?;
        kafka.reader(&[topic])?.read_all(|record| {
            let by = record.header(headers::ERROR_STAGE);
            let id = LetterId {
                service: by
                    .and_then(Service::from_name)
                    .filter(|service| service.stage() == stage)
                    .unwrap_or(Service::Stage(stage)),
                partition: record.partition,
                offset: record.offset,
            };
            if settles(stage, &record).is_some() || settled.contains(&id) {
                return Ok(());
            }
            let letter = Letter { id, record };
            if filter.matches(&letter) {
                each(letter)?;
            }
            anyhow::Ok(())
        })?;
    }
    Ok(())
}

/// The letter that this record says is done with.
fn settles(stage: Stage, record: &LogRecord) -> Option<LetterId> {
    let place = record.header(headers::SETTLED)?;
    format!("{stage}/{place}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(payload: &str, failures: &[(&str, &str)]) -> Letter {
        let mut headers = vec![("x-own".to_owned(), Some(b"kept".to_vec()))];
        for (kind, at) in failures {
            for (name, value) in [
                (headers::ERROR_STAGE, "scorer"),
                (headers::ERROR_KIND, *kind),
                (headers::ERROR_REASON, "why"),
                (headers::SOURCE_TOPIC, "transactions"),
                (headers::SOURCE_PARTITION, "3"),
                (headers::SOURCE_OFFSET, "17"),
                (headers::ATTEMPTS, "1"),
                (headers::FAILED_AT, *at),
            ] {
                headers.push((name.to_owned(), Some(value.as_bytes().to_vec())));
            }
        }
        Letter {
            id: "scorer/0@5".parse().unwrap(),
            record: LogRecord {
                topic: "transactions.dlq".into(),
                partition: 0,
                offset: 5,
                timestamp_ms: None,
                key: Some(b"by key".to_vec()),
                payload: payload.into(),
                headers,
            },
        }
    }

    #[test]
    fn a_letter_shows_every_time_it_was_given_up_and_counts_as_the_last() {
        let letter = letter(
            "{",
            &[
                ("malformed", "2026-01-01T00:00:00Z"),
                ("invalid", "2026-01-02T00:00:00Z"),
            ],
        );
        let failures = letter.failures();
        assert_eq!(failures.len(), 2);
        assert_eq!(failures[0].kind, "malformed");
        assert_eq!(failures[1].source, "transactions/3@17");
        assert_eq!(letter.kind(), "invalid");
        let since = |text| Filter {
            since: Timestamp::parse(text).ok(),
            ..Filter::default()
        };
        assert!(since("2026-01-02T00:00:00Z").matches(&letter));
        assert!(!since("2026-01-02T00:00:01Z").matches(&letter));
    }

    #[test]
    fn a_source_without_partition_and_offset_is_its_name_alone() {
        let mut letter = letter("{", &[("invalid", "2026-01-01T00:00:00Z")]);
        for (name, value) in &mut letter.record.headers {
            if [headers::SOURCE_PARTITION, headers::SOURCE_OFFSET].contains(&name.as_str()) {
                *value = Some(Vec::new());
            }
        }
        assert_eq!(letter.failures()[0].source, "transactions");
    }

    #[test]
    fn an_id_is_read_as_it_is_shown() {
        for name in ["notifier/3@17", "ingest/0@1"] {
            let id: LetterId = name.parse().unwrap();
            assert_eq!(id.to_string(), name);
        }
        // One topic: both names are of the same letter.
        let id = |name: &str| name.parse::<LetterId>().unwrap();
        assert_eq!(id("ingest/3@17"), id("scorer/3@17"));
        assert_ne!(id("notifier/3@17"), id("scorer/3@17"));
        for wrong in [
            "",
            "scorer",
            "scorer/1",
            "tester/1@2",
            "scorer/-1@2",
            "scorer/1@x",
        ] {
            assert!(wrong.parse::<LetterId>().is_err(), "{wrong}");
        }
    }
}
