//! The sinks. A sink delivers a message, and classifies its failure.

mod console;
mod file;
#[cfg(feature = "oci")]
mod oci;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use tollgate_service::config::ConfigError;
use tollgate_service::resilience::CallError;

use crate::alert::Alert;
use crate::config::{SinkKind, SinkSpec};
pub use console::ConsoleOut;
use console::ConsoleSink;
use file::FileSink;
#[cfg(feature = "oci")]
use oci::OciSink;
use webhook::WebhookSink;

use crate::Cloud;

/// What to do after a failed delivery.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Retry: the sink is down, overloaded or broken, regardless of the alert.
    #[error("{reason}")]
    Retry {
        /// The reason, for a person. It contains no value of the alert.
        reason: String,
        /// The wait that the sink asked for.
        after: Option<Duration>,
    },
    /// Dead-letter the alert: this sink would reject it again.
    #[error("{reason}")]
    Refuse {
        /// The answer of the sink.
        reason: String,
    },
}

impl CallError for Failure {
    fn timed_out(limit: Duration) -> Self {
        Self::retry(format!("no answer within {limit:?}"))
    }

    fn is_outage(&self) -> bool {
        matches!(self, Self::Retry { .. })
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Retry { after, .. } => *after,
            Self::Refuse { .. } => None,
        }
    }
}

impl Failure {
    pub(crate) fn retry(reason: impl Into<String>) -> Self {
        Self::Retry {
            reason: reason.into(),
            after: None,
        }
    }
}

/// One configured sink.
#[derive(Debug)]
pub(crate) enum Sink {
    Console(ConsoleSink),
    File(FileSink),
    Webhook(WebhookSink),
    #[cfg(feature = "oci")]
    Oci(OciSink),
}

impl Sink {
    pub(crate) async fn open(
        spec: &SinkSpec,
        console: &ConsoleOut,
        cloud: &Cloud,
    ) -> Result<Self, ConfigError> {
        match &spec.kind {
            SinkKind::Console => Ok(Self::Console(ConsoleSink::new(console.clone()))),
            SinkKind::File(path) => {
                let opened = FileSink::open(path.clone()).await;
                opened.map(Self::File).map_err(|error| {
                    let reason = format!("cannot append to {}: {error}", path.display());
                    ConfigError::invalid(format!("{}.path", spec.setting), reason)
                })
            }
            SinkKind::Webhook(webhook) => {
                let opened = WebhookSink::new(webhook);
                opened.map(Self::Webhook).map_err(|error| {
                    let reason = format!("cannot make an HTTPS client: {error}");
                    ConfigError::invalid(spec.setting.clone(), reason)
                })
            }
            #[cfg(feature = "oci")]
            SinkKind::Oci(spec) => Ok(Self::Oci(OciSink::new(spec, cloud))),
            #[cfg(not(feature = "oci"))]
            SinkKind::Oci(_) => {
                let _ = cloud;
                let reason = tollgate_service::cloud::NOT_BUILT;
                Err(ConfigError::invalid(
                    format!("{}.kind", spec.setting),
                    reason,
                ))
            }
        }
    }

    /// The kind, as in the settings.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Console(_) => "console",
            Self::File(_) => "file",
            Self::Webhook(_) => "webhook",
            #[cfg(feature = "oci")]
            Self::Oci(_) => "oci",
        }
    }

    /// Returns after the sink has stored the alerts of a message. Sinks without a limit of messages get one alert in each.
    pub(crate) async fn deliver(&self, alerts: &[Arc<Alert>]) -> Result<(), Failure> {
        for alert in alerts {
            match self {
                Self::Console(sink) => sink.deliver(alert).await?,
                Self::File(sink) => sink.deliver(alert).await?,
                Self::Webhook(sink) => sink.deliver(alert).await?,
                #[cfg(feature = "oci")]
                Self::Oci(sink) => return sink.deliver(alerts).await,
            }
        }
        Ok(())
    }
}

/// Runs blocking work outside the threads of the runtime.
async fn blocking(
    work: impl FnOnce() -> std::io::Result<()> + Send + 'static,
) -> std::io::Result<()> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(std::io::Error::other(error)),
    }
}
