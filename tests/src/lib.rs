//! What the end-to-end tests and benchmarks have in common: a log of their own on a real Kafka, a database of their
//! own on a real PostgreSQL, the services as processes, and waiting without sleeping.
//!
//! Everything made here is removed when its owner is dropped. `tests/run` starts Kafka and PostgreSQL, and exports their
//! addresses in `TEST_KAFKA_BROKERS`, `TEST_KAFKA_TOOL`, `TEST_KCAT` and `TEST_POSTGRES_URL`.

pub mod alerts;
pub mod bench;
pub mod collector;
pub mod deployment;
pub mod faults;
pub mod generate;
pub mod kafka;
pub mod load;
pub mod oci;
pub mod offline;
pub mod postgres;
pub mod process;
pub mod wait;

/// A variable that `tests/run` sets.
///
/// # Errors
/// Where it is not set.
pub fn variable(name: &str) -> anyhow::Result<String> {
    std::env::var(name).map_err(|_| {
        anyhow::anyhow!("{name} is not set; `tests/run` starts what the tests need and sets it")
    })
}
