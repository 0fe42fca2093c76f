//! The state of an engine: what is remembered of each user.
//!
//! [`users`] finds a [`history`], which is one [`block`] or many [`blocks`] with indexes of ids and [`amounts`], and when its
//! latest records came ([`arrivals`]). What policies read beyond that stands in [`members`], by row. A block keeps [`columns`] of packed rows, and beside them [`scores`] and [`further`]
//! indicators. [`layout`] draws the bytes.

mod amounts;
mod arrivals;
mod block;
mod blocks;
mod columns;
mod further;
mod history;
pub(crate) mod layout;
mod members;
mod packed_record;
mod place;
mod scores;
mod texts;
mod user_key;
mod users;

pub(crate) use arrivals::Arrivals;
pub(crate) use block::{Block, Entry, Remembered};
pub(crate) use columns::Row;
pub(crate) use history::{Bounds, History};
pub(crate) use members::{MemberColumns, cell};
pub(crate) use packed_record::PackedRecord;
pub(crate) use place::PlaceKind;
pub(crate) use texts::Texts;
pub use user_key::{UserHasher, UserKey};
pub(crate) use users::Users;
