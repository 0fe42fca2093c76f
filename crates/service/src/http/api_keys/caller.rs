//! Who sends a request, and whose data it may write and read.

use std::sync::Arc;

use tollgate_types::{InvalidTenant, Tenant};

/// The owner of a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Caller {
    name: Arc<str>,
    tenants: Tenants,
}

/// The tenants of a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Tenants {
    /// The one of this name; empty for the default tenant.
    One(Arc<str>),
    /// All of them.
    All,
}

impl Caller {
    /// A caller of the default tenant.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self::of(name, Tenant::DEFAULT)
    }

    /// A caller of this tenant.
    #[must_use]
    pub fn of(name: &str, tenant: Tenant<'_>) -> Self {
        Self {
            name: name.into(),
            tenants: Tenants::One(tenant.name().into()),
        }
    }

    /// A caller that may read the data of all tenants.
    #[must_use]
    pub fn of_all_tenants(name: &str) -> Self {
        Self {
            name: name.into(),
            tenants: Tenants::All,
        }
    }

    /// Whoever sends a request to a service without keys: writes for the default tenant, and reads all.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::of_all_tenants("anonymous")
    }

    /// The name of the key, in logs and metrics. All keys of a rotation have the same.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tenant for which the caller writes.
    #[must_use]
    pub fn tenant(&self) -> Tenant<'_> {
        match &self.tenants {
            Tenants::One(name) => Tenant::parse(name).unwrap_or_default(),
            Tenants::All => Tenant::DEFAULT,
        }
    }

    /// The tenant whose data the caller may read; `None` for all of them.
    #[must_use]
    pub fn reads_only(&self) -> Option<Tenant<'_>> {
        match &self.tenants {
            Tenants::One(_) => Some(self.tenant()),
            Tenants::All => None,
        }
    }
}

/// The owner that the setting `tenant` of a key describes: none is the default tenant, `*` all of them.
pub(super) fn owner(name: &str, tenant: Option<&str>) -> Result<Caller, InvalidTenant> {
    Ok(match tenant {
        Some("*") => Caller::of_all_tenants(name),
        named => Caller::of(name, Tenant::from_member(named)?),
    })
}
