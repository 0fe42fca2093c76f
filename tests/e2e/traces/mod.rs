//! One trace from the request, or from a foreign producer, to the row and the alert, as a real collector sees it.
#![cfg(all(feature = "kafka", feature = "postgres", feature = "collector"))]

mod endpoints;
mod payments;
mod support;
