//! A service on port 0, its log and its store, and ways to wait for what they do.

mod log;
mod sample;
mod store;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tollgate_persistence::{PersistenceConfig, start};
use tollgate_service::Shutdown;
use tollgate_service::supervisor::RunningService;

pub(crate) use log::TestLog;
pub(crate) use sample::Sample;
pub(crate) use store::{Kind, TestStore};

/// Longer than anything takes on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(60);
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
pub(crate) async fn run<F: Future<Output = ()> + 'static>(
    kind: Kind,
    test: impl FnOnce(Arc<TestStore>) -> F,
) {
    let store = Arc::new(TestStore::create(kind).await);
    let task = tokio::task::LocalSet::new();
    let test = task.spawn_local(test(Arc::clone(&store)));
    let result = task.run_until(test).await;
    store.remove().await;
    if let Err(error) = result {
        std::panic::resume_unwind(error.into_panic());
    }
}

/// A running service.
pub(crate) struct Service {
    pub(crate) log: TestLog,
    shutdown: Shutdown,
    persistence: RunningService,
    http: reqwest::Client,
}

impl Service {
    /// Starts one that is ready.
    pub(crate) async fn start(store: &TestStore) -> Self {
        let service = Self::start_with(store, TestLog::open(), |_| {}).await;
        service.persistence.ready().await;
        service
    }

    /// Starts one, ready or not.
    pub(crate) async fn start_with(
        store: &TestStore,
        log: TestLog,
        change: impl FnOnce(&mut PersistenceConfig),
    ) -> Self {
        let mut config = PersistenceConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            admin_listen: "127.0.0.1:0".parse().unwrap(),
            database_url: store.url.as_str().into(),
            ..PersistenceConfig::default()
        };
        change(&mut config);
        let shutdown = Shutdown::default();
        let persistence = start(config, log.kafka.clone(), shutdown.clone())
            .await
            .unwrap();
        Self {
            log,
            shutdown,
            persistence,
            http: reqwest::Client::new(),
        }
    }

    pub(crate) async fn ready(&self) {
        self.persistence.ready().await;
    }

    pub(crate) fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(
            method,
            format!("http://{}{path}", self.persistence.address.unwrap()),
        )
    }

    pub(crate) async fn text(&self, path: &str) -> (u16, String) {
        let response = self
            .request(reqwest::Method::GET, path)
            .send()
            .await
            .unwrap();
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
        let response = self
            .request(reqwest::Method::GET, path)
            .send()
            .await
            .unwrap();
        let (status, kind) = (
            response.status().as_u16(),
            response.headers()["content-type"].clone(),
        );
        let problem: Value = response.json().await.unwrap();
        assert_eq!(
            (status, kind.to_str().unwrap()),
            (expected, "application/problem+json"),
            "{path}: {problem}"
        );
        assert_eq!(problem["status"], expected);
        problem
    }

    /// Waits until this many decisions are stored.
    pub(crate) async fn stored(&self, count: i64) {
        until(&format!("{count} decisions are stored"), async || {
            self.get("/v1/stats").await["decisions"] == count
        })
        .await;
    }

    /// The answer of `/readyz`.
    pub(crate) async fn readiness(&self) -> (u16, Value) {
        let url = format!("http://{}/readyz", self.persistence.admin_address);
        let response = self.http.get(url).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    pub(crate) async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.persistence.admin_address);
        self.http
            .get(url)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    }

    /// Stops it as SIGTERM would.
    pub(crate) async fn stop(self) -> TestLog {
        self.shutdown.begin();
        tokio::time::timeout(DEADLINE, self.persistence.join())
            .await
            .expect("the service hangs at its end")
            .unwrap();
        self.log
    }

    /// Waits until the service ends by itself.
    pub(crate) async fn failure(self) -> String {
        let ended = tokio::time::timeout(DEADLINE, self.persistence.join())
            .await
            .expect("the service goes on");
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
