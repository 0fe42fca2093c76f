//! Objects that events tell of, row by row to the log: resumable, once for each version, and never twice at a time.
//!
//! A request is a record of the topic `imports`, and so is its progress: see `journal`.

mod feed;
mod journal;
mod object;
mod quotes;
mod rows;
mod source;
mod status;
mod worker;

use std::sync::Arc;

use tokio::sync::oneshot;
use tollgate_log::Kafka;
use tollgate_service::Shutdown;
use tollgate_service::config::ConfigError;
use tollgate_service::health::Health;

use crate::IngestConfig;
pub(crate) use journal::{Entry, Request};
pub use source::{FormatSetting, SourceConfig};
pub(crate) use source::{NoSource, Source};
pub(crate) use status::admin_routes;
pub use status::{ImportState, ImportStatus, list_imports};

/// What can be imported, for whoever asks.
#[derive(Debug, Clone)]
pub(crate) struct Imports {
    sources: Arc<[Source]>,
}

/// The end of the thread that imports; never, where there is none.
pub(crate) type Ended = Option<oneshot::Receiver<()>>;

impl Imports {
    /// Starts the thread that imports, where there is something to import from.
    pub(crate) fn start(
        config: &IngestConfig,
        kafka: &Kafka,
        health: &Health,
        shutdown: &Shutdown,
    ) -> anyhow::Result<(Self, Ended)> {
        let opened = config.sources.iter().enumerate();
        let opened: Result<Vec<Source>, ConfigError> = opened
            .map(|(index, source)| source.open(&format!("ingest.sources[{index}]")))
            .collect();
        let sources: Arc<[Source]> = opened?.into();
        let imports = Self {
            sources: Arc::clone(&sources),
        };
        if sources.is_empty() {
            return Ok((imports, None));
        }
        // A broker that is away is waited for: there is nobody who would be told.
        let producer = kafka.patient_producer("ingest")?;
        let line = feed::Line::new(
            kafka.clone(),
            producer,
            config.max_transaction_bytes,
            config.import_rows_per_second,
        );
        let parallel = config.parallel_imports;
        let worker = worker::Worker::new(kafka, sources, line, parallel, health, shutdown)?;
        let (done, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("ingest-imports".to_owned())
            .spawn(move || {
                worker.run();
                // The receiver is gone only where the service is.
                let _ = done.send(());
            })?;
        Ok((imports, Some(ended)))
    }

    /// Whether an object can be imported.
    pub(crate) fn check(&self, bucket: &str, object: &str) -> Result<(), NoSource> {
        source::locate(&self.sources, bucket, object).map(drop)
    }
}
