//! W3C trace context of a request, passed on to the records it causes: <https://www.w3.org/TR/trace-context/>.
//!
//! Only what has the form of the standard goes on; anything else is a caller's bytes in every later hop.

use axum::http::HeaderMap;
use tollgate_types::headers::{TRACEPARENT, TRACESTATE};

/// Longest `tracestate` passed on, in bytes: as much as the standard asks everybody to carry.
const MAX_STATE_BYTES: usize = 512;

/// A request's trace context.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TraceContext {
    pub(crate) parent: Option<String>,
    pub(crate) state: Option<String>,
}

impl TraceContext {
    /// The context that a request carries, if it is one. A state without a parent means nothing.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let parent = match (parents.next(), parents.next()) {
            (Some(parent), None) => parent.to_str().ok().filter(|text| is_parent(text)),
            _ => None,
        };
        let Some(parent) = parent else {
            return Self::default();
        };
        let states: Option<Vec<&str>> = headers
            .get_all(TRACESTATE)
            .iter()
            .map(|value| value.to_str().ok())
            .collect();
        let state = states.unwrap_or_default().join(",");
        let state = (!state.is_empty() && state.len() <= MAX_STATE_BYTES).then_some(state);
        Self {
            parent: Some(parent.to_owned()),
            state,
        }
    }

    /// The context of an event that carries one itself.
    pub(crate) fn of_parent(parent: &str) -> Option<Self> {
        is_parent(parent).then(|| Self {
            parent: Some(parent.to_owned()),
            state: None,
        })
    }
}

/// `version-trace_id-parent_id-flags`, lower case hexadecimal, ids not zero; a later version may go on behind a dash.
fn is_parent(text: &str) -> bool {
    let mut parts = text.splitn(5, '-');
    let mut hex = |length: usize| {
        parts.next().filter(|part| {
            part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        })
    };
    let (Some(version), Some(trace), Some(parent), Some(_)) = (hex(2), hex(32), hex(16), hex(2))
    else {
        return false;
    };
    let zero = |part: &str| part.bytes().all(|b| b == b'0');
    let ends = parts.next().is_none() || version != "00";
    version != "ff" && !zero(trace) && !zero(parent) && ends && text.len() <= MAX_STATE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_forms_of_the_standard_are_told_from_others() {
        assert!(is_parent(PARENT));
        assert!(is_parent(&format!("01{}-what-comes", &PARENT[2..])));
        for wrong in [
            "",
            "00",
            &PARENT.to_uppercase(),
            &format!("{PARENT}-more"),
            &PARENT.replacen("00", "ff", 1),
            &PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &PARENT.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &PARENT[..54],
        ] {
            assert!(!is_parent(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_state_goes_on_only_with_its_parent() {
        let mut headers = HeaderMap::new();
        headers.append(TRACESTATE, "a=1".parse().unwrap());
        headers.append(TRACESTATE, "b=2".parse().unwrap());
        assert_eq!(TraceContext::of(&headers), TraceContext::default());
        headers.append(TRACEPARENT, PARENT.parse().unwrap());
        let context = TraceContext::of(&headers);
        assert_eq!(context.parent.as_deref(), Some(PARENT));
        assert_eq!(context.state.as_deref(), Some("a=1,b=2"));
        headers.append(TRACEPARENT, PARENT.parse().unwrap());
        assert_eq!(TraceContext::of(&headers), TraceContext::default());
    }
}
