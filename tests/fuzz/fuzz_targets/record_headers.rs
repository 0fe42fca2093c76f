//! Headers of a record of any producer: trace contexts survive their own text, and what is copied into a batch is what was
//! written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate_scorer::fuzzing::route_of;
use tollgate_types::{TraceContext, headers};

/// Names that are read somewhere; a byte of the input selects one.
const NAMES: [&str; 16] = [
    headers::TRACEPARENT,
    headers::TRACESTATE,
    headers::REPLY_TO,
    headers::ROUTED_FROM,
    headers::REDRIVEN_FROM,
    headers::BACKFILL,
    headers::TENANT,
    headers::SENDER,
    headers::MAC,
    headers::ERROR_STAGE,
    headers::ERROR_KIND,
    headers::SOURCE_PARTITION,
    headers::SOURCE_OFFSET,
    headers::SETTLED,
    headers::TRUNCATED_FROM,
    "x-other",
];

fuzz_target!(|data: &[u8]| {
    // Each header is a byte for its name, a byte for its length, and its value; the rest is the payload.
    let mut rest = data;
    let mut all = Vec::new();
    while let [name, length, after @ ..] = rest {
        let name = NAMES[usize::from(name % 16)].to_owned();
        if *length == u8::MAX {
            all.push((name, None));
            rest = after;
            continue;
        }
        let (value, after) = after.split_at(usize::from(*length).min(after.len()));
        all.push((name, Some(value.to_vec())));
        rest = after;
        if all.len() == 32 {
            break;
        }
    }
    tollgate_scorer::fuzzing::copied(&all, Some(b"user"), rest, |record| {
        let found: Vec<(String, Option<Vec<u8>>)> = record
            .headers
            .iter()
            .map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)))
            .collect();
        assert_eq!(found, all);
        assert_eq!((record.key, record.payload), (Some(&b"user"[..]), rest));
        let (hops, _reply) = route_of(record);
        assert!(hops <= all.len());
        if let Some(context) = record.trace() {
            let text = context.to_traceparent();
            assert_eq!(
                TraceContext::parse(&text).map(TraceContext::to_traceparent),
                Some(text)
            );
        }
    });
});
