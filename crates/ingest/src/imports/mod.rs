//! Imports objects, row by row, into the log. An import is resumable and runs once for each version of an object.
//!
//! Invariant: requests and progress are records of the topic `imports`, which is the only state: see `journal`.

mod endpoint;
mod feed;
mod folder;
mod journal;
mod letters;
mod object;
mod prepared;
mod queue;
mod reading;
pub(crate) mod rows;
mod source;
mod status;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tollgate_log::Log;
use tollgate_service::Shutdown;
use tollgate_service::config::ConfigError;
use tollgate_service::health::Health;
use tollgate_types::Tenant;

use crate::IngestConfig;
use crate::lateness::NewestTimes;
pub(crate) use endpoint::__path_get_import;
pub(crate) use endpoint::get_import;
pub(crate) use journal::{Entry, Request};
pub use source::{FormatSetting, SourceConfig};
pub(crate) use source::{Source, SourceError};
pub(crate) use status::admin_routes;
pub use status::{ImportState, ImportStatus, list_imports};

/// The configured sources of objects.
#[derive(Debug, Clone)]
pub(crate) struct Imports {
    sources: Arc<[Source]>,
    status: endpoint::StatusCache,
}

/// Resolves when the import thread ends; `None` if no source is configured.
pub(crate) type Ended = Option<oneshot::Receiver<()>>;

impl Imports {
    /// Starts the import thread if sources are configured.
    ///
    /// # Errors
    /// Names the setting at fault.
    pub(crate) fn start(
        config: &IngestConfig,
        kafka: &Log,
        health: &Health,
        shutdown: &Shutdown,
        newest: &Arc<NewestTimes>,
    ) -> anyhow::Result<(Self, Ended)> {
        let opened = config.sources.iter().enumerate();
        let opened: Result<Vec<Source>, ConfigError> = opened
            .map(|(index, source)| source.open(&format!("ingest.sources[{index}]")))
            .collect();
        let sources: Arc<[Source]> = opened?.into();
        let imports = Self {
            sources: Arc::clone(&sources),
            status: endpoint::StatusCache::default(),
        };
        if sources.is_empty() {
            return Ok((imports, None));
        }
        // It retries without a deadline: no caller is waiting for an answer.
        let producer = kafka.patient_producer("ingest")?;
        let cards = config.card_policy()?;
        let writer =
            feed::ImportWriter::new(kafka.clone(), producer, config, cards, Arc::clone(newest));
        let limits = worker::WorkerLimits {
            parallel: config.parallel_imports,
            pause: Duration::from_millis(config.import_pause_ms),
        };
        let worker = worker::Worker::new(kafka, sources, writer, limits, health, shutdown)?;
        let (done, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("ingest-imports".to_owned())
            .spawn(move || {
                worker.run();
                // The receiver is gone only if the service is.
                let _ = done.send(());
            })?;
        Ok((imports, Some(ended)))
    }

    /// Checks whether a caller of this tenant may have an object imported.
    ///
    /// # Errors
    /// No source of the tenant matches the object, or its name is unusable.
    pub(crate) fn check(
        &self,
        tenant: Tenant<'_>,
        bucket: &str,
        object: &str,
    ) -> Result<(), SourceError> {
        match source::locate(&self.sources, bucket, object) {
            // As if there were no such source: a foreign tenant does not learn that there is one.
            Ok(located) if located.source.tenant() != tenant => Err(SourceError::Unknown {
                bucket: bucket.to_owned(),
            }),
            located => located.map(drop),
        }
    }
}
