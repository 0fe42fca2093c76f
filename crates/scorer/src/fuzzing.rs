//! For the fuzz targets in `tests/fuzz` only: what the scorer reads of a record's headers.

use tollgate_log::Record;
pub use tollgate_log::fuzzing::copied;

use crate::route;

/// How often the record was forwarded, and whether a caller waits for the decision.
#[must_use]
pub fn route_of(record: &Record<'_>) -> (usize, bool) {
    (route::hops(record), route::reply_address(record).is_some())
}
