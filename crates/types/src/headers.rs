//! Names of the Kafka record headers that Tollgate reads and writes.

/// W3C trace context of the hop that wrote the record.
pub const TRACEPARENT: &str = "traceparent";
/// W3C trace state, vendor specific, passed on unread.
pub const TRACESTATE: &str = "tracestate";
/// Partition of the topic `replies` on which the sender waits for the decision, as decimal digits.
pub const REPLY_TO: &str = "reply-to";
/// `partition@offset` at which a record stood before it was written on to its user's own partition.
pub const ROUTED_FROM: &str = "routed-from";

/// Stage that gave a record up: `ingest`, `scorer`, `persistence`, `notifier`.
pub const ERROR_STAGE: &str = "error.stage";
/// Class of the failure, a short stable word such as `malformed`.
pub const ERROR_KIND: &str = "error.kind";
/// What was wrong, for a person.
pub const ERROR_REASON: &str = "error.reason";
/// Topic that the record was read from.
pub const SOURCE_TOPIC: &str = "source.topic";
/// Partition that the record was read from.
pub const SOURCE_PARTITION: &str = "source.partition";
/// Offset that the record was read from.
pub const SOURCE_OFFSET: &str = "source.offset";
/// Object that the row was read from, where it came from no topic: its URL.
pub const SOURCE_OBJECT: &str = "source.object";
/// Line of the object at which the row begins, counted from 1.
pub const SOURCE_LINE: &str = "source.line";
/// How often the stage tried, as decimal digits.
pub const ATTEMPTS: &str = "attempts";
/// When the stage gave up, RFC 3339.
pub const FAILED_AT: &str = "failed.at";
/// Bytes of the original payload, where a dead letter had to be cut to fit; the whole stands at the source offset.
pub const TRUNCATED_FROM: &str = "payload.truncated-from";
/// `topic/partition@offset` of the dead letter that this record is again.
pub const REDRIVEN_FROM: &str = "redriven-from";
/// On a dead-letter topic: `partition@offset` of the letter there that is done with. The record itself is no letter.
pub const SETTLED: &str = "dead-letter.settled";
/// How it was settled: `redriven` or `dropped`.
pub const SETTLED_AS: &str = "dead-letter.settled-as";
