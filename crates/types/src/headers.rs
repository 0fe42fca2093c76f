//! Names of the Kafka record headers that Tollgate reads and writes.

/// W3C trace context of the hop that wrote the record.
pub const TRACEPARENT: &str = "traceparent";
/// W3C trace state, vendor specific, passed on unchanged.
pub const TRACESTATE: &str = "tracestate";
/// Where the sender waits for the decision: `PARTITION:NONCE`, a [`ReplyAddress`](crate::ReplyAddress). The reply repeats it.
pub const REPLY_TO: &str = "reply-to";
/// The record is backfill: it builds history and is decided on, without an alert or a reply.
pub const BACKFILL: &str = "tollgate-backfill";
/// Tenant of the transaction's user; absent for the default tenant.
pub const TENANT: &str = "tollgate-tenant";
/// Identity of the API key that sent the transaction, as a fingerprint; absent where no keys are configured.
pub const SENDER: &str = "tollgate-sender";
/// Keyed hash over what a service wrote, checked by the service that reads it.
pub const MAC: &str = "tollgate-mac";
/// `partition@offset` of a record before it was forwarded to its user's partition.
pub const ROUTED_FROM: &str = "routed-from";

/// Stage that dead-lettered the record: `ingest`, `scorer`, `persistence`, `notifier`.
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
/// Number of attempts, as decimal digits.
pub const ATTEMPTS: &str = "attempts";
/// When the record was dead-lettered, RFC 3339.
pub const FAILED_AT: &str = "failed.at";
/// Size of the original payload in bytes, where a dead letter had to be truncated. The source record has all of it.
pub const TRUNCATED_FROM: &str = "payload.truncated-from";
/// On a dead letter of ingest: what is needed to read its payload the way it came in, as JSON.
pub const PAYLOAD_FORMAT: &str = "payload.format";
/// On a dead letter: card data was taken out of the payload, which would not be read as what was sent.
pub const PAYLOAD_MASKED: &str = "payload.masked";
/// `topic/partition@offset` of the dead letter that this record repeats.
pub const REDRIVEN_FROM: &str = "redriven-from";
/// On a dead-letter topic: `partition@offset` of the dead letter there that is resolved. The record itself is none.
pub const SETTLED: &str = "dead-letter.settled";
/// How the dead letter was resolved: `redriven` or `dropped`.
pub const SETTLED_AS: &str = "dead-letter.settled-as";

/// Whether the values of this header are of a form that Tollgate checks, so that a producer cannot put other data into it.
#[must_use]
pub fn is_checked(name: &str) -> bool {
    [TRACEPARENT, REPLY_TO, BACKFILL, TENANT, SENDER, MAC].contains(&name)
}
