//! The interface of this crate to the `main` of a service.

use std::sync::Arc;

use serde::{Serialize, Serializer};
use tollgate_service::Shutdown;
use tollgate_service::config::{ConfigError, Settings};

use crate::client::Endpoint;
use crate::config::OciConfig;
use crate::credentials::Credentials;
use crate::{Client, Notifications, monitoring};

/// Oracle Cloud with its settings. Clones share the keys.
#[derive(Debug, Clone)]
pub struct Cloud {
    config: Arc<OciConfig>,
    credentials: Arc<Credentials>,
}

impl Default for Cloud {
    fn default() -> Self {
        Self::new(OciConfig::default())
    }
}

impl Serialize for Cloud {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.config.serialize(serializer)
    }
}

impl Cloud {
    fn new(config: OciConfig) -> Self {
        Self {
            credentials: Arc::new(Credentials::new(&config)),
            config: Arc::new(config),
        }
    }

    /// Oracle Cloud with these settings.
    ///
    /// # Errors
    /// Names the invalid setting.
    pub fn of(config: OciConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self::new(config))
    }

    /// Oracle's Notifications.
    #[must_use]
    pub fn notifications(&self) -> Notifications {
        Notifications::new(self.client(&self.config.notifications_endpoint, "notification"))
    }

    fn client(&self, given: &str, host: &'static str) -> Client {
        let endpoint = match given {
            "" => Endpoint::Regional {
                host,
                domain: self.config.domain.clone(),
            },
            given => Endpoint::Given(given.to_owned()),
        };
        let credentials = Arc::clone(&self.credentials);
        Client::new(credentials, endpoint, self.config.timeout())
    }
}

impl tollgate_service::cloud::Cloud for Cloud {
    fn read(settings: &Settings) -> Result<Self, ConfigError> {
        Self::of(settings.section("oci")?)
    }

    /// Posts the metrics of the process if `oci.monitoring` is configured.
    async fn beside<T>(&self, service: &'static str, run: impl Future<Output = T>) -> T {
        if !self.config.monitoring.is_on() {
            return run.await;
        }
        let client = self.client(&self.config.monitoring_endpoint, "telemetry-ingestion");
        let ended = Shutdown::default();
        let config = OciConfig::clone(&self.config);
        let mut posting = tokio::spawn(monitoring::run(client, config, service, ended.clone()));
        let result = run.await;
        ended.begin();
        match tokio::time::timeout(monitoring::FAREWELL, &mut posting).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "what posts metrics has panicked"),
            Err(_) => posting.abort(),
        }
        result
    }
}
