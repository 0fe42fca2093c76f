//! The preference `wait` of the header `Prefer` (RFC 7240): how long a caller waits for decisions.
//!
//! The RFC defines whole seconds; decimals are an extension. Other preferences are ignored, as the RFC requires. A `wait`
//! that cannot be read is refused: whoever sent it would wait for a decision that nobody was asked for.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, StatusCode};
use tollgate_service::http::Problem;

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
    ///
    /// # Errors
    /// 400 for a `wait` that is no number of seconds.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let preferred = headers
            .get_all("prefer")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .find_map(wait_value);
        preferred
            .map(|value| parse(value).ok_or_else(invalid))
            .transpose()
    }

    pub(crate) const fn duration(self) -> Duration {
        self.0
    }

    /// The value of `Preference-Applied`.
    pub(crate) fn applied(self) -> Option<HeaderValue> {
        HeaderValue::try_from(format!("wait={}", self.0.as_secs_f64())).ok()
    }
}

fn invalid() -> Problem {
    let detail = "Prefer: `wait` must be a number of seconds, such as `wait=5` or `wait=2.5`";
    Problem::new(StatusCode::BAD_REQUEST, detail)
}

/// The value of a preference named `wait`, which is empty where none is given. Its parameters, after a semicolon, are
/// ignored.
fn wait_value(preference: &str) -> Option<&str> {
    let named_value = preference.split(';').next()?;
    let (name, value) = named_value.split_once('=').unwrap_or((named_value, ""));
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

    fn of(values: &[&str]) -> Result<Option<f64>, StatusCode> {
        let name = axum::http::HeaderName::from_static("prefer");
        let headers = values
            .iter()
            .map(|value| (name.clone(), value.parse().unwrap()));
        let wait = Wait::of(&headers.collect()).map_err(|problem| problem.status());
        wait.map(|wait| wait.map(|wait| wait.duration().as_secs_f64()))
    }

    #[test]
    fn a_wait_is_found_among_other_preferences() {
        assert_eq!(of(&["wait=5"]), Ok(Some(5.0)));
        assert_eq!(of(&["respond-async, WAIT = \"2.5\" ; x=1"]), Ok(Some(2.5)));
        assert_eq!(of(&["return=minimal", "wait=0"]), Ok(Some(0.0)));
        assert_eq!(of(&["wait=1, wait=2"]), Ok(Some(1.0)));
    }

    #[test]
    fn more_than_thirty_seconds_become_thirty() {
        assert_eq!(of(&["wait=31"]), Ok(Some(30.0)));
        assert_eq!(of(&[&format!("wait={}", "9".repeat(400))]), Ok(Some(30.0)));
    }

    #[test]
    fn other_preferences_are_ignored_and_a_wait_that_is_no_number_is_refused() {
        for value in [
            "waits=3",
            "",
            "respond-async",
            "return=minimal; wait=x",
            ",",
        ] {
            assert_eq!(of(&[value]), Ok(None), "{value}");
        }
        assert_eq!(of(&[]), Ok(None));
        for value in [
            "wait",
            "wait=",
            "wait=-1",
            "wait=abc",
            "wait=inf",
            "wait=NaN",
            "wait=1e9",
            "wait=.",
            "wait=5s",
            "respond-async, wait=x",
            "wait=x, wait=1",
        ] {
            assert_eq!(of(&[value]), Err(StatusCode::BAD_REQUEST), "{value}");
        }
    }

    #[test]
    fn the_applied_preference_is_the_one_granted() {
        let applied = |text: &str| parse(text).unwrap().applied().unwrap();
        assert_eq!(applied("2.50"), "wait=2.5");
        assert_eq!(applied("99"), "wait=30");
    }
}
