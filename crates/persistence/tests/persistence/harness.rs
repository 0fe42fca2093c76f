//! A service on port 0, its log and its store, and ways to wait for what they do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Headers as _;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};
use tempfile::TempDir;
use tollgate_persistence::{Persistence, PersistenceConfig, start};
use tollgate_runtime::Shutdown;
use tollgate_runtime::kafka::{Acks, Kafka, KafkaConfig, Outgoing, Producer};

/// Longer than anything takes on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

/// Makes a test of each of these functions and each store.
macro_rules! on_each_store {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                crate::harness::run(crate::harness::Kind::Sqlite, super::$name).await;
            })+
        }
        #[cfg(feature = "postgres-tests")]
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                crate::harness::run(crate::harness::Kind::Postgres, super::$name).await;
            })+
        }
    };
}
pub(crate) use on_each_store;

/// Runs a test on a store of its own, which is gone afterwards whatever comes of it.
pub(crate) async fn run<F: Future<Output = ()> + 'static>(kind: Kind, test: impl FnOnce(Arc<TestStore>) -> F) {
    let store = Arc::new(TestStore::create(kind).await);
    let task = tokio::task::LocalSet::new();
    let test = task.spawn_local(test(Arc::clone(&store)));
    let result = task.run_until(test).await;
    store.remove().await;
    if let Err(error) = result {
        std::panic::resume_unwind(error.into_panic());
    }
}

/// A database that only one test uses.
pub(crate) struct TestStore {
    pub(crate) kind: Kind,
    pub(crate) url: String,
    name: String,
    _directory: TempDir,
}

fn postgres_url() -> String {
    std::env::var("TEST_POSTGRES_URL").expect("the feature postgres-tests needs TEST_POSTGRES_URL=postgres://…/postgres")
}

impl TestStore {
    async fn create(kind: Kind) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let name = format!("persistence_{:016x}", rand::random::<u64>());
        let url = match kind {
            Kind::Sqlite => format!("sqlite://{}/test.db", directory.path().display()),
            Kind::Postgres => {
                admin(&format!("CREATE DATABASE {name}")).await;
                let url = postgres_url();
                let (server, _) = url.rsplit_once('/').unwrap();
                format!("{server}/{name}")
            }
        };
        Self { kind, url, name, _directory: directory }
    }

    async fn remove(&self) {
        if self.kind == Kind::Postgres {
            admin(&format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
        }
    }

    async fn sqlite(&self) -> SqliteConnection {
        SqliteConnection::connect(&format!("{}?mode=rwc", self.url)).await.unwrap()
    }

    async fn postgres(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    pub(crate) async fn execute(&self, sql: &str) {
        let sql = AssertSqlSafe(sql);
        match self.kind {
            Kind::Sqlite => drop(self.sqlite().await.execute(sql).await.unwrap()),
            Kind::Postgres => drop(self.postgres().await.execute(sql).await.unwrap()),
        }
    }

    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(sql);
        match self.kind {
            Kind::Sqlite => sqlx::query_scalar(sql).fetch_one(&mut self.sqlite().await).await.unwrap(),
            Kind::Postgres => sqlx::query_scalar(sql).fetch_one(&mut self.postgres().await).await.unwrap(),
        }
    }

    /// The first column of each row.
    pub(crate) async fn texts(&self, sql: &str) -> Vec<String> {
        let sql = AssertSqlSafe(sql);
        match self.kind {
            Kind::Sqlite => sqlx::query_scalar(sql).fetch_all(&mut self.sqlite().await).await.unwrap(),
            Kind::Postgres => sqlx::query_scalar(sql).fetch_all(&mut self.postgres().await).await.unwrap(),
        }
    }

    /// Takes the store away from its writer: PostgreSQL from everybody, SQLite by a lock on the file.
    pub(crate) async fn take_away(&self) -> Away<'_> {
        match self.kind {
            Kind::Sqlite => {
                let mut lock = self.sqlite().await;
                lock.execute("PRAGMA journal_mode = WAL").await.unwrap();
                lock.execute("BEGIN IMMEDIATE").await.unwrap();
                Away { store: self, lock: Some(lock) }
            }
            Kind::Postgres => {
                admin(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", self.name)).await;
                admin(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'", self.name)).await;
                Away { store: self, lock: None }
            }
        }
    }
}

/// A store that is away until it is given back.
pub(crate) struct Away<'a> {
    store: &'a TestStore,
    lock: Option<SqliteConnection>,
}

impl Away<'_> {
    pub(crate) async fn give_back(self) {
        match self.lock {
            Some(mut lock) => drop(lock.execute("ROLLBACK").await.unwrap()),
            None => admin(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", self.store.name)).await,
        }
    }
}

async fn admin(sql: &str) {
    let mut connection = PgConnection::connect(&postgres_url()).await.unwrap();
    connection.execute(AssertSqlSafe(sql)).await.unwrap();
}

/// A record on the dead-letter topic.
#[derive(Debug)]
pub(crate) struct DeadRecord {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) payload: Vec<u8>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

impl DeadRecord {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().rfind(|(found, _)| found == name)?;
        value.as_deref().map(|value| std::str::from_utf8(value).unwrap())
    }
}

/// The key of a decision, whatever else is in it.
#[derive(serde::Deserialize)]
struct Keyed {
    user_id: String,
}

/// A log, which outlives the services that read it.
#[derive(Clone)]
pub(crate) struct Log {
    pub(crate) kafka: Kafka,
    producer: Producer,
}

impl Log {
    pub(crate) fn open() -> Self {
        let kafka = Kafka::open(KafkaConfig { partitions: 3, ..KafkaConfig::default() }).unwrap();
        Self { producer: kafka.producer().unwrap(), kafka }
    }

    /// Writes decisions, each into the partition of its user.
    pub(crate) async fn send(&self, decisions: impl IntoIterator<Item = impl AsRef<str>>) {
        let user = |decision: &str| serde_json::from_str::<Keyed>(decision).unwrap().user_id;
        let keyed: Vec<(String, String)> =
            decisions.into_iter().map(|decision| (user(decision.as_ref()), decision.as_ref().to_owned())).collect();
        let topic = &self.kafka.topics().decisions;
        self.send_records(keyed.iter().map(|(user, decision)| Outgoing::new(topic, user.as_bytes(), decision.as_bytes()))).await;
    }

    /// Writes records of any shape, and waits until they are on the log.
    pub(crate) async fn send_records<'a>(&self, records: impl IntoIterator<Item = Outgoing<'a>>) {
        let (done, acknowledged) = tokio::sync::oneshot::channel();
        let acks = Acks::new(|result| done.send(result).unwrap());
        let deadline = Instant::now() + DEADLINE;
        for record in records {
            self.producer.send_until(&record, &acks, deadline).await.unwrap();
        }
        acks.seal();
        acknowledged.await.unwrap().unwrap();
    }

    /// Waits until the service has read everything that was sent.
    pub(crate) async fn wait_until_read(&self) {
        let topic = &self.kafka.topics().decisions;
        until("everything is read", async || self.kafka.embedded().unwrap().unread_bytes(topic) == 0).await;
    }

    /// What is on the dead-letter topic, once there are `count` records.
    pub(crate) async fn dead_letters(&self, count: usize) -> Vec<DeadRecord> {
        let (brokers, topic) = (self.kafka.brokers(), self.kafka.topics().decisions_dlq.clone());
        tokio::task::spawn_blocking(move || read_topic(&brokers, &topic, count)).await.unwrap()
    }

    /// How many records were ever dead-lettered.
    pub(crate) fn count_dead_letters(&self) -> i64 {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", self.kafka.brokers()).set("group.id", "count").create().unwrap();
        let topic = &self.kafka.topics().decisions_dlq;
        (0..3).map(|partition| consumer.fetch_watermarks(topic, partition, DEADLINE).unwrap().1).sum()
    }
}

fn read_topic(brokers: &str, topic: &str, count: usize) -> Vec<DeadRecord> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "dead-letters")
        .set("fetch.wait.max.ms", "5")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..3 {
        list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let deadline = Instant::now() + DEADLINE;
    let mut found = Vec::new();
    while found.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} dead letters came: {found:?}", found.len());
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message.unwrap();
        let headers = message.headers().unwrap().iter();
        found.push(DeadRecord {
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().unwrap_or_default().to_vec(),
            headers: headers.map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect(),
        });
    }
    found
}

/// A running service.
pub(crate) struct Service {
    pub(crate) log: Log,
    shutdown: Shutdown,
    persistence: Persistence,
    http: reqwest::Client,
}

impl Service {
    /// Starts one that is ready.
    pub(crate) async fn start(store: &TestStore) -> Self {
        let service = Self::start_with(store, Log::open(), |_| {}).await;
        service.persistence.ready().await;
        service
    }

    /// Starts one, ready or not.
    pub(crate) async fn start_with(store: &TestStore, log: Log, change: impl FnOnce(&mut PersistenceConfig)) -> Self {
        let mut config = PersistenceConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            admin_listen: "127.0.0.1:0".parse().unwrap(),
            database_url: store.url.as_str().into(),
            ..PersistenceConfig::default()
        };
        change(&mut config);
        let shutdown = Shutdown::default();
        let persistence = start(config, log.kafka.clone(), shutdown.clone()).await.unwrap();
        Self { log, shutdown, persistence, http: reqwest::Client::new() }
    }

    pub(crate) async fn ready(&self) {
        self.persistence.ready().await;
    }

    pub(crate) fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.persistence.address))
    }

    pub(crate) async fn text(&self, path: &str) -> (u16, String) {
        let response = self.request(reqwest::Method::GET, path).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// The answer to a question that has one.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, text) = self.text(path).await;
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// The problem that a question is answered with.
    pub(crate) async fn problem(&self, path: &str, expected: u16) -> Value {
        let response = self.request(reqwest::Method::GET, path).send().await.unwrap();
        let (status, kind) = (response.status().as_u16(), response.headers()["content-type"].clone());
        let problem: Value = response.json().await.unwrap();
        assert_eq!((status, kind.to_str().unwrap()), (expected, "application/problem+json"), "{path}: {problem}");
        assert_eq!(problem["status"], expected);
        problem
    }

    /// Waits until this many decisions are stored.
    pub(crate) async fn stored(&self, count: i64) {
        until(&format!("{count} decisions are stored"), async || self.get("/v1/stats").await["decisions"] == count).await;
    }

    /// What `/readyz` says.
    pub(crate) async fn readiness(&self) -> (u16, Value) {
        let url = format!("http://{}/readyz", self.persistence.admin_address);
        let response = self.http.get(url).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    pub(crate) async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.persistence.admin_address);
        self.http.get(url).send().await.unwrap().text().await.unwrap()
    }

    /// Stops it as SIGTERM would.
    pub(crate) async fn stop(self) -> Log {
        self.shutdown.begin();
        tokio::time::timeout(DEADLINE, self.persistence.join()).await.expect("the service hangs at its end").unwrap();
        self.log
    }

    /// Waits for an end that nobody asked for.
    pub(crate) async fn failure(self) -> String {
        let ended = tokio::time::timeout(DEADLINE, self.persistence.join()).await.expect("the service goes on");
        format!("{:#}", ended.unwrap_err())
    }
}

/// Asks again and again until it is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "in vain waited until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A decision as the scorer writes it.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) user: String,
    pub(crate) id: String,
    pub(crate) amount: String,
    pub(crate) time: String,
    pub(crate) score: f64,
    pub(crate) status: &'static str,
    pub(crate) indicators: &'static [&'static str],
    /// Further members of the transaction: `,"name":value`.
    pub(crate) more: String,
}

impl Sample {
    pub(crate) fn new(user: impl Into<String>, id: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            id: id.into(),
            amount: "12.5".into(),
            time: "2026-03-01T12:00:00Z".into(),
            score: 0.0,
            status: "approved",
            indicators: &[],
            more: String::new(),
        }
    }

    pub(crate) fn at(mut self, time: impl Into<String>) -> Self {
        self.time = time.into();
        self
    }

    pub(crate) fn alert(mut self, status: &'static str, score: f64, indicators: &'static [&'static str]) -> Self {
        (self.status, self.score, self.indicators) = (status, score, indicators);
        self
    }

    pub(crate) fn transaction(&self) -> String {
        let quoted = |text: &str| serde_json::to_string(text).unwrap();
        format!(
            r#"{{"transaction_id":{},"user_id":{},"amount":{},"timestamp":"{}"{}}}"#,
            quoted(&self.id),
            quoted(&self.user),
            self.amount,
            self.time,
            self.more
        )
    }

    /// Members in the order in which the service gives them back, so that texts can be compared.
    pub(crate) fn decision(&self) -> String {
        let quoted = |text: &str| serde_json::to_string(text).unwrap();
        let contributions: Vec<String> =
            self.indicators.iter().map(|name| format!(r#"{{"indicator":"{name}","points":17.3,"amount":"1000.25"}}"#)).collect();
        format!(
            r#"{{"transaction_id":{},"user_id":{},"fraud_score":{:?},"fraud_indicators":{},"status":"{}","processed_at":"2026-03-01T12:00:01.000001Z","contributions":[{}],"ruleset_version":"r-1","late":false,"duplicate":false,"transaction":{}}}"#,
            quoted(&self.id),
            quoted(&self.user),
            self.score,
            serde_json::to_string(self.indicators).unwrap(),
            self.status,
            contributions.join(","),
            self.transaction()
        )
    }
}
