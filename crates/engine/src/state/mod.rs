//! The state of an engine: what is remembered of each user.
//!
//! [`users`] finds a [`history`], which keeps [`columns`] of packed rows, and beside them [`scores`] and [`further`]
//! indicators. [`layout`] draws the bytes.

mod columns;
mod further;
mod history;
pub(crate) mod layout;
mod packed_record;
mod place;
mod scores;
mod user_key;
mod users;

pub(crate) use columns::{Columns, Row};
pub(crate) use further::FurtherIndicators;
pub(crate) use history::{Entry, History, Remembered};
pub(crate) use packed_record::PackedRecord;
pub(crate) use place::PlaceKind;
pub(crate) use scores::Scores;
pub use user_key::{UserHasher, UserKey};
pub(crate) use users::Users;
