//! The events that Tollgate's services exchange, and nothing else: no I/O, no clock.
//!
//! A [`Transaction`] is the input, a [`Decision`] the output; an alert is a decision whose status is not
//! [`Status::Approved`]. Sets that grow are open: an indicator is a name ([`Indicator`]), and a member of a transaction
//! that is not read here is kept, because a decision carries the transaction's own JSON text.

mod amount;
mod card_data;
mod contribution;
mod decision;
pub mod headers;
mod indicator;
mod json_error;
mod money;
mod partitioner;
mod plain_error;
mod rejection;
mod reply;
mod reply_address;
mod tenant;
mod timestamp;
mod topics;
mod trace_context;
mod transaction;

pub use amount::{Amount, AmountError};
pub use card_data::{CardDataFound, CardDataMode, CardIds, CardPolicy, Protected, TokenKey};
pub use contribution::{Contribution, Contributions};
pub use decision::{Decision, Status};
pub use indicator::{Indicator, IndicatorError, Indicators, MAX_INDICATOR_BYTES, MAX_INDICATORS};
pub use json_error::JsonError;
pub use money::{BaseAmount, Currency, InvalidCurrency, InvalidRate, Rate};
pub use partitioner::Partitioner;
pub use plain_error::{Notation, PlainError, allowed};
pub use rejection::Rejection;
pub use reply::{ErrorReply, ErrorStatus, Reply};
pub use reply_address::ReplyAddress;
pub use tenant::{InvalidTenant, MAX_TENANT_BYTES, Tenant};
pub use timestamp::{Timestamp, TimestampError};
pub use topics::{Role, Stage, TopicKind, Topics};
pub use trace_context::{TRACEPARENT_BYTES, TraceContext};
pub use transaction::{
    Location, MAX_DEPTH, MAX_ID_BYTES, MAX_TRANSACTION_BYTES, MemberSlot, MemberTable, Members,
    NamedCurrency, NewTransaction, Transaction, UserIdCase, mixes_scripts, stored_id, without_mark,
};
