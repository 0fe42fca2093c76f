//! The state of an engine: what is remembered of each user.
//!
//! [`users`] finds a [`history`], which is one [`block`] or many [`blocks`] with indexes of ids and [`amounts`], and when its
//! latest records came ([`arrivals`]). A block keeps [`columns`] of packed rows, and beside them [`scores`] and [`further`]
//! indicators. [`layout`] draws the bytes.

mod amounts;
mod arrivals;
mod block;
mod blocks;
mod columns;
mod further;
mod history;
pub(crate) mod layout;
mod packed_record;
mod place;
mod scores;
mod user_key;
mod users;

pub(crate) use arrivals::Arrivals;
pub(crate) use block::{Block, Entry, Remembered};
pub(crate) use columns::Row;
pub(crate) use history::{Bounds, History};
pub(crate) use packed_record::PackedRecord;
pub(crate) use place::PlaceKind;
pub use user_key::{UserHasher, UserKey};
pub(crate) use users::Users;
