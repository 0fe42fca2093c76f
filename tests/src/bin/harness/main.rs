//! The programs of the tests and benchmarks in one binary, which is compiled and linked once.

mod bench_scorer;
mod bench_telemetry;
mod drive;
mod faults;
mod oci_stand_in;
mod pass_through;

use clap::Parser;

/// Programs of Tollgate's tests and benchmarks. The scripts in `tests` start what they need and run them.
#[derive(Debug, Parser)]
enum Harness {
    /// Drive a deployment that the test did not start, and balance its books
    #[command(subcommand)]
    Drive(drive::Drive),
    /// Run the fault suite: kill, freeze, restart and disconnect everything by a seed, then balance the books
    Faults(faults::Args),
    /// Stand in for Oracle Cloud: Notifications, Monitoring, workload identity and instance principals
    OciStandIn(oci_stand_in::Args),
    /// Copy a topic to another, record by record: the baseline of `bench-scorer`
    PassThrough(pass_through::Args),
    /// Compare the scorer with a plain pass-through on the Kafka of TEST_KAFKA_BROKERS
    BenchScorer(bench_scorer::Args),
    /// Compare the scorer with and without telemetry on the Kafka of TEST_KAFKA_BROKERS
    BenchTelemetry(bench_telemetry::Args),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Harness::parse() {
        Harness::Drive(command) => drive::run(command).await,
        Harness::Faults(args) => faults::run(args).await,
        Harness::OciStandIn(args) => oci_stand_in::run(args).await,
        // Its client blocks; it has the process to itself.
        Harness::PassThrough(args) => tokio::task::block_in_place(|| pass_through::run(&args)),
        Harness::BenchScorer(args) => bench_scorer::run(args).await,
        Harness::BenchTelemetry(args) => bench_telemetry::run(args).await,
    }
}
