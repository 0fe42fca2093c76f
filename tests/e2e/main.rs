//! The end-to-end tests: services as processes, on a real Kafka and a real PostgreSQL.
//!
//! One binary, because each one costs a compilation and a link. Each module begins with the features that stand for what
//! it needs; `tests/run -- MODULE` starts just that and runs the module. Tests of all modules share the process and run at
//! the same time, so each has topics, databases, ports and folders of its own and never changes the environment.

mod bad_input;
mod dashboard;
mod dlq;
mod documents;
mod imports;
mod oci_monitoring;
mod oci_notifications;
mod oci_sdk;
mod oci_streaming;
mod partitions;
mod permissions;
mod pipeline;
mod restart;
mod routing;
mod snapshots;
mod snapshots_s3;
mod traces;
