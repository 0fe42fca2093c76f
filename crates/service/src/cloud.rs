//! The cloud that a service runs in, as far as it is more than machines.

use serde::Serialize;

use crate::config::{ConfigError, Settings};

/// What a process has beside its service. `tollgate_oci::Cloud` is one, in builds with the feature `oci`.
pub trait Cloud: Serialize + Sized {
    /// Reads its section.
    ///
    /// # Errors
    /// Names the setting at fault.
    fn read(settings: &Settings) -> Result<Self, ConfigError>;

    /// Runs a service, and beside it, as long as it runs, whatever the cloud wants of it.
    fn beside<T>(
        &self,
        service: &'static str,
        run: impl Future<Output = T>,
    ) -> impl Future<Output = T>;
}

/// No cloud: that of a build without one.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NoCloud {}

impl Cloud for NoCloud {
    /// Settings for what is not there were meant for something.
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

/// What a program says that was built without Oracle Cloud and is to use it.
pub const NOT_BUILT: &str =
    "this program was built without Oracle Cloud; build it with `--features oci`";
