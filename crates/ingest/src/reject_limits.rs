//! Settings `ingest.request_rejects` and `ingest.import_rejects`: when a request or an import ends because too much of it
//! is rejected.

use serde::{Deserialize, Serialize};

/// The share is looked at from this number of items on.
const MIN_SAMPLE: u64 = 1_000;

/// How much of a request or of an import may be rejected before it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RejectLimits {
    /// The most rejected items.
    pub max: u64,
    /// The largest share of rejected items, in percent, from 1,000 items on.
    pub percent: u8,
}

impl RejectLimits {
    /// Of a request.
    pub const REQUEST: Self = Self {
        max: 1_000,
        percent: 100,
    };
    /// Of an import.
    pub const IMPORT: Self = Self {
        max: 10_000,
        percent: 50,
    };

    /// Why a request or an import with these numbers ends, if it does: the limit, by the name of its setting.
    pub(crate) fn exceeded(&self, section: &str, items: u64, rejected: u64) -> Option<String> {
        let (max, percent) = (self.max, self.percent);
        let limit = if rejected > max {
            format!("ingest.{section}.max allows {max}")
        } else if items >= MIN_SAMPLE && rejected * 100 > items * u64::from(percent) {
            format!("ingest.{section}.percent allows {percent} %")
        } else {
            return None;
        };
        Some(format!(
            "{rejected} of the first {items} items are rejected; {limit}"
        ))
    }
}

impl Default for RejectLimits {
    fn default() -> Self {
        Self::IMPORT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_that_is_exceeded_is_named() {
        let limits = RejectLimits {
            max: 600,
            percent: 10,
        };
        let exceeded = |items, rejected| {
            limits
                .exceeded("import_rejects", items, rejected)
                .unwrap_or_default()
        };
        assert_eq!(exceeded(999, 600), "");
        assert_eq!(exceeded(1_000, 100), "");
        assert!(exceeded(1_000, 101).ends_with("ingest.import_rejects.percent allows 10 %"));
        assert!(exceeded(9_999, 601).ends_with("ingest.import_rejects.max allows 600"));
    }
}
