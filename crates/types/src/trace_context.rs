//! W3C trace context, as far as Tollgate reads it: <https://www.w3.org/TR/trace-context/#traceparent-header>.
//!
//! Only a value in the form of the standard is accepted; any other is dropped and not passed on.

use std::fmt;

/// Length of a `traceparent` as this version of the standard writes it.
pub const TRACEPARENT_BYTES: usize = 55;
/// Longest `traceparent` that is read: a later version may append fields.
const MAX_BYTES: usize = 512;
const SAMPLED: u8 = 1;

/// A position in a trace: the trace, the parent span, and whether the trace is sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// The trace; not zero.
    pub trace_id: u128,
    /// The span; not zero.
    pub span_id: u64,
    flags: u8,
}

impl TraceContext {
    /// A context of these ids. None where one of them is zero.
    #[must_use]
    pub const fn new(trace_id: u128, span_id: u64, sampled: bool) -> Option<Self> {
        if trace_id == 0 || span_id == 0 {
            return None;
        }
        Some(Self {
            trace_id,
            span_id,
            flags: sampled as u8,
        })
    }

    /// Reads `version-trace_id-parent_id-flags`: lower-case hexadecimal, ids not zero. A later version may append
    /// fields after a dash.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if !(TRACEPARENT_BYTES..=MAX_BYTES).contains(&text.len()) {
            return None;
        }
        let (known, rest) = text.split_at(TRACEPARENT_BYTES);
        let dashes = known[2] == b'-' && known[35] == b'-' && known[52] == b'-';
        let version = hex(&known[..2])?;
        let ends = rest.is_empty() || (version != 0 && rest[0] == b'-');
        if !dashes || !ends || version == 0xff {
            return None;
        }
        let (trace_id, span_id) = (hex(&known[3..35])?, hex(&known[36..52])?);
        let mut context = Self::new(trace_id, u64::try_from(span_id).ok()?, false)?;
        context.flags = u8::try_from(hex(&known[53..])?).ok()?;
        Some(context)
    }

    /// Whether the trace is sampled, as its root has decided.
    #[must_use]
    pub const fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The same position in a trace that is sampled, or is not.
    #[must_use]
    pub const fn with_sampled(mut self, sampled: bool) -> Self {
        self.flags = (self.flags & !SAMPLED) | sampled as u8;
        self
    }

    /// The same trace, with this span as the parent.
    #[must_use]
    pub const fn with_span(mut self, span_id: u64) -> Self {
        self.span_id = span_id;
        self
    }

    /// The value of `traceparent`.
    #[must_use]
    pub fn to_traceparent(self) -> [u8; TRACEPARENT_BYTES] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&mut text[3..35], self.trace_id);
        write_hex(&mut text[36..52], u128::from(self.span_id));
        // Of the flags only those that are known may be passed on.
        write_hex(&mut text[53..], u128::from(self.flags & SAMPLED));
        text
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.to_traceparent()).unwrap_or_default())
    }
}

fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

fn write_hex(digits: &mut [u8], mut number: u128) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[usize::try_from(number & 15).unwrap_or_default()];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parse(text: &str) -> Option<TraceContext> {
        TraceContext::parse(text.as_bytes())
    }

    #[test]
    fn the_forms_of_the_standard_are_told_from_others() {
        assert_eq!(parse(PARENT).unwrap().to_string(), PARENT);
        assert!(parse(&format!("01{}-what-comes", &PARENT[2..])).is_some());
        for wrong in [
            "",
            "00",
            &PARENT.to_uppercase(),
            &format!("{PARENT}-more"),
            &format!("01{}x", &PARENT[2..]),
            &PARENT.replacen("00", "ff", 1),
            &PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &PARENT.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &PARENT[..54],
            &PARENT.replace('-', "_"),
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sampling_and_the_span_change_by_themselves() {
        let context = parse(PARENT).unwrap();
        assert!(context.is_sampled() && !context.with_sampled(false).is_sampled());
        let next = context.with_span(7);
        assert_eq!((next.trace_id, next.span_id), (context.trace_id, 7));
        // Flags of a later version must not be passed on.
        let later = parse(&PARENT.replace("-01", "-ff")).unwrap();
        assert!(later.to_string().ends_with("-01"));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(text in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
            let _ = TraceContext::parse(&text);
        }

        #[test]
        fn what_is_written_is_read_again(trace in 1..u128::MAX, span in 1..u64::MAX, sampled: bool) {
            let context = TraceContext::new(trace, span, sampled).unwrap();
            proptest::prop_assert_eq!(TraceContext::parse(&context.to_traceparent()), Some(context));
        }
    }
}
