//! The wait before a retry: exponential backoff with full jitter (M. Brooker, "Exponential Backoff And Jitter", AWS
//! Architecture Blog, 2015), and the `Retry-After` of the dependency. Pure: randomness is passed in.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::ConfigError;

/// A section `retry`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// Longest wait before the first retry, in milliseconds.
    pub base_ms: u64,
    /// Factor by which the longest wait grows with each failure.
    pub multiplier: f64,
    /// Longest wait, in milliseconds.
    pub cap_ms: u64,
    /// Longest `Retry-After` that is honoured, in milliseconds.
    pub retry_after_cap_ms: u64,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            base_ms: 100,
            multiplier: 2.0,
            cap_ms: 10_000,
            retry_after_cap_ms: 300_000,
        }
    }
}

impl RetryConfig {
    /// Checks the ranges. `section` is the path of this section, such as `notifier.retry`.
    ///
    /// # Errors
    /// Names the invalid setting.
    pub fn validate(&self, section: &str) -> Result<(), ConfigError> {
        let invalid = |member: &str, reason: String| {
            Err(ConfigError::invalid(format!("{section}.{member}"), reason))
        };
        if self.base_ms == 0 {
            return invalid("base_ms", "must be at least 1".to_owned());
        }
        if self.cap_ms < self.base_ms {
            return invalid("cap_ms", format!("must not be less than {section}.base_ms"));
        }
        if !(1.0..=100.0).contains(&self.multiplier) {
            return invalid("multiplier", "must lie between 1 and 100".to_owned());
        }
        Ok(())
    }

    /// The wait after `failed` failed attempts. `random` lies in 0…1, 1 excluded. A `Retry-After` is honoured up to its
    /// cap, with the jitter added to it, so that not all callers return at once.
    #[must_use]
    pub fn backoff(&self, failed: u32, random: f64, retry_after: Option<Duration>) -> Duration {
        let cap = Duration::from_millis(self.cap_ms);
        let exponent = i32::try_from(failed.saturating_sub(1)).unwrap_or(i32::MAX);
        let growth = self.multiplier.powi(exponent);
        let ceiling =
            Duration::try_from_secs_f64(Duration::from_millis(self.base_ms).as_secs_f64() * growth)
                .map_or(cap, |ceiling| ceiling.min(cap));
        let granted = retry_after
            .unwrap_or_default()
            .min(Duration::from_millis(self.retry_after_cap_ms));
        granted + ceiling.mul_f64(random.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config() -> impl Strategy<Value = RetryConfig> {
        (
            1_u64..10_000,
            1.0_f64..100.0,
            0_u64..1_000_000,
            0_u64..1_000_000,
        )
            .prop_map(
                |(base_ms, multiplier, more, retry_after_cap_ms)| RetryConfig {
                    base_ms,
                    multiplier,
                    cap_ms: base_ms + more,
                    retry_after_cap_ms,
                },
            )
    }

    proptest! {
        #[test]
        fn a_wait_never_exceeds_its_caps_nor_undercuts_what_was_asked(
            config in config(),
            failed: u32,
            random in 0.0_f64..1.0,
            asked in proptest::option::of(0_u64..10_000_000),
        ) {
            prop_assert!(config.validate("retry").is_ok());
            let wait = config.backoff(failed, random, asked.map(Duration::from_millis));
            let granted = asked.unwrap_or(0).min(config.retry_after_cap_ms);
            prop_assert!(wait >= Duration::from_millis(granted));
            prop_assert!(wait <= Duration::from_millis(granted + config.cap_ms));
        }

        #[test]
        fn the_ceiling_grows_with_every_failure_until_the_cap(config in config(), failed in 1_u32..1_000) {
            let ceiling = |failed| config.backoff(failed, 1.0, None);
            prop_assert_eq!(ceiling(1), Duration::from_millis(config.base_ms));
            prop_assert!(ceiling(failed) <= ceiling(failed + 1));
        }

        #[test]
        fn the_whole_range_below_the_ceiling_is_used(config in config(), failed in 1_u32..50) {
            prop_assert_eq!(config.backoff(failed, 0.0, None), Duration::ZERO);
            let (half, full) = (config.backoff(failed, 0.5, None), config.backoff(failed, 1.0, None));
            prop_assert!((half.as_secs_f64() * 2.0 - full.as_secs_f64()).abs() < 1e-6);
        }
    }
}
