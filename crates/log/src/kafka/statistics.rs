//! What the client library counts by itself, as metrics: its queues, its connections, how long brokers take.

use metrics::{counter, gauge};
use rdkafka::statistics::Statistics;

/// How often the library reports.
pub(super) const INTERVAL_MS: &str = "5000";

/// Records the statistics of one client. `client` names its owner, such as `scorer`, and `role` which of its clients it is.
pub(super) fn record(client: &'static str, role: &'static str, statistics: &Statistics) {
    let labels = [("client", client), ("role", role)];
    gauge!("tollgate_log_queue_records", &labels).set(float(statistics.msg_cnt));
    gauge!("tollgate_log_queue_bytes", &labels).set(float(statistics.msg_size));
    let fetched = statistics
        .topics
        .values()
        .flat_map(|topic| topic.partitions.values())
        .map(|partition| partition.fetchq_cnt.max(0).unsigned_abs());
    gauge!("tollgate_log_fetched_records", &labels).set(float(fetched.sum()));
    let brokers = || statistics.brokers.values();
    let up = brokers().filter(|broker| broker.state == "UP");
    gauge!("tollgate_log_brokers_up", &labels).set(float(up.count() as u64));
    let connects = brokers().filter_map(|broker| broker.connects);
    let disconnects = brokers().filter_map(|broker| broker.disconnects);
    for (name, total) in [
        (
            "tollgate_log_connects_total",
            connects.sum::<i64>().unsigned_abs(),
        ),
        (
            "tollgate_log_disconnects_total",
            disconnects.sum::<i64>().unsigned_abs(),
        ),
        (
            "tollgate_log_request_retries_total",
            brokers().map(|broker| broker.txretries).sum(),
        ),
        (
            "tollgate_log_request_timeouts_total",
            brokers().map(|broker| broker.req_timeouts).sum(),
        ),
    ] {
        counter!(name, &labels).absolute(total);
    }
    // The slowest broker's average over the interval, in microseconds.
    let slowest = brokers()
        .filter_map(|broker| broker.rtt.as_ref())
        .map(|window| window.avg)
        .max();
    if let Some(slowest) = slowest.filter(|slowest| *slowest > 0) {
        gauge!("tollgate_log_round_trip_seconds", &labels).set(float(slowest.unsigned_abs()) / 1e6);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
pub(super) const fn float(number: u64) -> f64 {
    number as f64
}
