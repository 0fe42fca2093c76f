//! The rate limit of each tenant, over all of its keys, and the label under which the tenant is counted.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};

use tollgate_types::Tenant;

use crate::IngestConfig;
use crate::admission::{OverRate, RateLimit};

/// The most tenants that metrics tell apart.
const MAX_LABELS: usize = 100;

/// The buckets of tenants.
#[derive(Debug)]
pub(crate) struct TenantRates {
    /// The limit of tenants without one of their own.
    general: Option<RateLimit<String>>,
    /// The limits of single tenants; `None` for a tenant without limit.
    single: HashMap<String, Option<RateLimit<()>>>,
    labels: Mutex<HashSet<String>>,
}

impl TenantRates {
    pub(crate) fn new(config: &IngestConfig) -> Self {
        let single = config.tenant_rate_limits.iter();
        Self {
            general: RateLimit::new(config.tenant_rate_limit),
            single: single
                .map(|(name, limit)| (name.clone(), RateLimit::new(*limit)))
                .collect(),
            labels: Mutex::default(),
        }
    }

    /// Charges transactions to the tenant.
    pub(crate) fn charge(&self, tenant: Tenant<'_>, items: NonZeroU32) -> Result<(), OverRate> {
        match (self.single.get(tenant.name()), &self.general) {
            (Some(Some(own)), _) => own.charge(&(), items),
            (None, Some(general)) => general.charge(&tenant.name().to_owned(), items),
            (Some(None), _) | (None, None) => Ok(()),
        }
    }

    /// The tenant's name, `(default)`, or `(other)` for a tenant beyond the first 100. The names are those of configured
    /// keys, but the file of keys may change for years.
    pub(crate) fn label(&self, tenant: Tenant<'_>) -> String {
        let label = tenant.to_string();
        let mut labels = self.labels.lock().unwrap_or_else(PoisonError::into_inner);
        if labels.contains(&label) {
            return label;
        }
        if labels.len() >= MAX_LABELS {
            return "(other)".to_owned();
        }
        labels.insert(label.clone());
        label
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_labels_is_bounded() {
        let rates = TenantRates::new(&IngestConfig::default());
        assert_eq!(rates.label(Tenant::DEFAULT), "(default)");
        let names: Vec<String> = (0..200).map(|number| format!("t{number}")).collect();
        let labels: HashSet<String> = names
            .iter()
            .map(|name| rates.label(Tenant::parse(name).unwrap()))
            .collect();
        assert_eq!(labels.len(), MAX_LABELS);
        assert_eq!(rates.label(Tenant::parse("t0").unwrap()), "t0");
        assert_eq!(rates.label(Tenant::parse("t199").unwrap()), "(other)");
    }
}
