//! The preference `wait` of the header `Prefer` (RFC 7240): how long a caller waits for decisions.
//!
//! The RFC defines whole seconds; decimals are an extension. A malformed preference is ignored, as the RFC permits.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue};

/// The longest wait that is granted.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// A granted wait, at most 30 s.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Wait(Duration);

impl Wait {
    /// A wait of `millis`, limited to the longest wait.
    pub(crate) fn of_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis).min(MAX_WAIT))
    }

    /// The wait that the request prefers. The first of several applies, as the RFC requires.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        headers
            .get_all("prefer")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .find_map(wait_value)
            .and_then(parse)
    }

    pub(crate) const fn duration(self) -> Duration {
        self.0
    }

    /// The value of `Preference-Applied`.
    pub(crate) fn applied(self) -> Option<HeaderValue> {
        HeaderValue::try_from(format!("wait={}", self.0.as_secs_f64())).ok()
    }
}

/// The value of a preference named `wait`. Its parameters, after a semicolon, are ignored.
fn wait_value(preference: &str) -> Option<&str> {
    let (name, value) = preference.split(';').next()?.split_once('=')?;
    let named = name.trim().eq_ignore_ascii_case("wait");
    named.then(|| value.trim().trim_matches('"'))
}

fn parse(value: &str) -> Option<Wait> {
    // `f64` would also parse `inf`, `-0` and `1e9`.
    let plain = value.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let seconds: f64 = value.parse().ok().filter(|_| plain)?;
    let clamped = seconds.min(MAX_WAIT.as_secs_f64());
    Duration::try_from_secs_f64(clamped).ok().map(Wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Option<f64> {
        let name = axum::http::HeaderName::from_static("prefer");
        let headers = values
            .iter()
            .map(|value| (name.clone(), value.parse().unwrap()));
        Wait::of(&headers.collect()).map(|wait| wait.duration().as_secs_f64())
    }

    #[test]
    fn a_wait_is_found_among_other_preferences() {
        assert_eq!(of(&["wait=5"]), Some(5.0));
        assert_eq!(of(&["respond-async, WAIT = \"2.5\" ; x=1"]), Some(2.5));
        assert_eq!(of(&["return=minimal", "wait=0"]), Some(0.0));
        assert_eq!(of(&["wait=1, wait=2"]), Some(1.0));
    }

    #[test]
    fn more_than_thirty_seconds_become_thirty() {
        assert_eq!(of(&["wait=31"]), Some(30.0));
        assert_eq!(of(&[&format!("wait={}", "9".repeat(400))]), Some(30.0));
    }

    #[test]
    fn what_is_no_wait_is_ignored() {
        for value in [
            "wait", "wait=", "wait=-1", "wait=abc", "wait=inf", "wait=NaN", "wait=1e9", "wait=.",
            "waits=3", "",
        ] {
            assert_eq!(of(&[value]), None, "{value}");
        }
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn the_applied_preference_is_the_one_granted() {
        let applied = |text: &str| parse(text).unwrap().applied().unwrap();
        assert_eq!(applied("2.50"), "wait=2.5");
        assert_eq!(applied("99"), "wait=30");
    }
}
