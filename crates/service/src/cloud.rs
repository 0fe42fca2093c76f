//! The cloud provider of a process: its settings and its background tasks.

use serde::Serialize;

use crate::config::{ConfigError, Settings};

/// A cloud provider. `tollgate_oci::Cloud` is one, in builds with the feature `oci`.
pub trait Cloud: Serialize + Sized {
    /// Reads its section.
    ///
    /// # Errors
    /// Names the invalid setting.
    fn read(settings: &Settings) -> Result<Self, ConfigError>;

    /// Runs a service, and tasks of the provider for as long as it runs.
    fn beside<T>(
        &self,
        service: &'static str,
        run: impl Future<Output = T>,
    ) -> impl Future<Output = T>;
}

/// No cloud provider: that of a build without one.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NoCloud {}

impl Cloud for NoCloud {
    /// Refuses settings that this build would ignore.
    fn read(settings: &Settings) -> Result<Self, ConfigError> {
        if settings.is_set("oci") {
            return Err(ConfigError::invalid("oci", NOT_BUILT));
        }
        Ok(Self {})
    }

    async fn beside<T>(&self, _service: &'static str, run: impl Future<Output = T>) -> T {
        run.await
    }
}

/// The error of a program that was built without Oracle Cloud and has settings for it.
pub const NOT_BUILT: &str =
    "this program was built without Oracle Cloud; build it with `--features oci`";
