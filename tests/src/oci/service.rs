//! The services that this stands in for, by name.

use serde::{Deserialize, Serialize};

/// A service of Oracle Cloud, as far as it is stood in for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// `PublishMessage` of Notifications.
    Notifications,
    /// The address that confirms a subscription of Notifications.
    Confirmation,
    /// `PostMetricData` of Monitoring.
    Monitoring,
    /// Session tokens for pods of a Kubernetes cluster.
    WorkloadIdentity,
    /// What an instance learns about itself.
    InstanceMetadata,
    /// Session tokens for instances, in exchange for their certificate.
    Federation,
}

impl Service {
    /// Whether every request bears a signature by a key known beforehand. Those of [`Service::Federation`] are signed
    /// as well, by the key of the certificate that they carry.
    pub(super) const fn signed(self) -> bool {
        matches!(self, Self::Notifications | Self::Monitoring)
    }
}
