//! What a record tells beside its transaction: its origin, and which partition it belongs to. All transactions of a user are
//! scored in one partition, whoever wrote them.

use tollgate_engine::{Origin, Sender};
use tollgate_log::Record;
use tollgate_types::{Partitioner, ReplyAddress, Transaction, headers};

/// How often a record is forwarded before it is dead-lettered.
pub(crate) const MAX_HOPS: usize = 3;

/// The rule by which users are spread over partitions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Routing {
    partitioner: Partitioner,
    /// Partitions of the topic; set at each assignment.
    pub(crate) partitions: i32,
}

impl Routing {
    pub(crate) const fn new(partitioner: Partitioner) -> Self {
        Self {
            partitioner,
            partitions: 1,
        }
    }

    /// The partition that the record must be forwarded to; `None` where it is in its user's partition, with the user as
    /// its key, by which records are spread over workers.
    pub(crate) fn elsewhere(
        &self,
        record: &Record<'_>,
        transaction: &Transaction<'_>,
    ) -> Option<i32> {
        let user = transaction.user_id.as_bytes();
        let own = self.partitioner.partition(user, self.partitions);
        (own != record.partition || record.key != Some(user)).then_some(own)
    }
}

/// How often the record was forwarded since it was last redriven.
pub(crate) fn hops(record: &Record<'_>) -> usize {
    record.headers.iter().fold(0, |hops, (name, _)| match name {
        headers::ROUTED_FROM => hops + 1,
        headers::REDRIVEN_FROM => 0,
        _ => hops,
    })
}

/// What the record tells of its transaction's origin. A record without a timestamp is not counted by its arrival.
pub(crate) fn origin(record: &Record<'_>) -> Origin {
    let timestamp_ms = record.timestamp_ms.filter(|at| *at > 0);
    if record.headers.is_empty() {
        return Origin {
            timestamp_ms,
            ..Origin::default()
        };
    }
    let sender = record.headers.last(headers::SENDER);
    Origin {
        timestamp_ms,
        backfill: record.headers.last(headers::BACKFILL) == Some(b"1"),
        sender: sender.and_then(Sender::from_header),
    }
}

/// Where a caller waits for the decision.
pub(crate) fn reply_address(record: &Record<'_>) -> Option<ReplyAddress> {
    if record.headers.is_empty() {
        return None;
    }
    ReplyAddress::parse(record.headers.last(headers::REPLY_TO)?)
}
