//! Converts two snapshots of the metrics to the data points between them. Pure.
//!
//! A counter becomes its increase since the last snapshot, a histogram the values since then, a gauge its value. The number
//! of streams, and of points in them, therefore depends on the metrics, not on the traffic.

use std::collections::BTreeMap;

use tollgate_service::telemetry::exposition::{Labels, Sample};

/// The mapping of a metric to Monitoring.
struct Stream {
    /// The name in `/metrics`.
    metric: &'static str,
    /// The name in Monitoring.
    name: &'static str,
    unit: &'static str,
    kind: Kind,
    /// The labels that become dimensions; series that differ in other labels are added.
    dimensions: &'static [&'static str],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

const fn stream(
    metric: &'static str,
    name: &'static str,
    unit: &'static str,
    kind: Kind,
    dimensions: &'static [&'static str],
) -> Stream {
    Stream {
        metric,
        name,
        unit,
        kind,
        dimensions,
    }
}

/// The mapped metrics. Their labels are bounded, and so are the streams.
const STREAMS: [Stream; 8] = [
    stream(
        "tollgate_scorer_fraud_score",
        "fraud_score",
        "points",
        Kind::Histogram,
        &["status"],
    ),
    stream(
        "tollgate_scorer_decisions_total",
        "decisions",
        "count",
        Kind::Counter,
        &["status"],
    ),
    stream(
        "tollgate_scorer_record_to_decision_seconds",
        "decision_latency",
        "seconds",
        Kind::Histogram,
        &[],
    ),
    stream(
        "tollgate_ingest_transactions_total",
        "transactions",
        "count",
        Kind::Counter,
        &["outcome"],
    ),
    stream(
        "tollgate_notifier_alerts_total",
        "alerts",
        "count",
        Kind::Counter,
        &["sink", "outcome"],
    ),
    stream(
        "tollgate_notifier_delivery_duration_seconds",
        "alert_delivery",
        "seconds",
        Kind::Histogram,
        &["sink"],
    ),
    stream(
        "tollgate_dead_letters_total",
        "dead_letters",
        "count",
        Kind::Counter,
        &["stage", "kind"],
    ),
    stream(
        "tollgate_log_consumer_lag_records",
        "lag",
        "records",
        Kind::Gauge,
        &["topic"],
    ),
];

/// The identity of a stream: its index in [`STREAMS`] and its dimensions.
type Key = (usize, Labels);

/// A snapshot of the mapped metrics.
#[derive(Debug, Clone, Default)]
pub(super) struct Look {
    values: BTreeMap<Key, f64>,
    /// Observations up to each upper bound. The bits of positive floats sort like the floats.
    buckets: BTreeMap<Key, BTreeMap<u64, f64>>,
}

/// The data points of one stream.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Points {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) dimensions: Labels,
    /// A value, and its count.
    pub(super) points: Vec<(f64, u64)>,
}

impl Look {
    pub(super) fn at(samples: impl Iterator<Item = Sample>) -> Self {
        let mut look = Self::default();
        for sample in samples {
            let Some((index, suffix)) = wanted(&sample.name) else {
                continue;
            };
            let kept = STREAMS[index].dimensions.iter().filter_map(|name| {
                let value = sample.labels.get(*name)?;
                Some(((*name).to_owned(), value.clone()))
            });
            let key = (index, kept.collect());
            match suffix {
                "_bucket" => {
                    let bound = sample.labels.get("le").and_then(|bound| bound.parse().ok());
                    let Some(bound): Option<f64> = bound else {
                        continue;
                    };
                    let buckets = look.buckets.entry(key).or_default();
                    *buckets.entry(bound.to_bits()).or_default() += sample.value;
                }
                // The count of the last bucket.
                "_count" => {}
                _ => *look.values.entry(key).or_default() += sample.value,
            }
        }
        look
    }

    /// The changes since `before`. A new series starts at zero.
    pub(super) fn since(&self, before: &Self) -> Vec<Points> {
        let mut all = Vec::new();
        for (key, value) in &self.values {
            let stream = &STREAMS[key.0];
            let earlier = before.values.get(key).copied().unwrap_or_default();
            // A counter that decreased was reset.
            let grown = if *value >= earlier {
                value - earlier
            } else {
                *value
            };
            let points = match stream.kind {
                Kind::Gauge => vec![(*value, 1)],
                Kind::Counter => vec![(grown, 1)],
                Kind::Histogram => {
                    let none = BTreeMap::new();
                    let now = self.buckets.get(key).unwrap_or(&none);
                    let then = before.buckets.get(key).unwrap_or(&none);
                    values_of(now, then, grown)
                }
            };
            if !points.is_empty() {
                all.push(Points {
                    name: stream.name,
                    unit: stream.unit,
                    dimensions: key.1.clone(),
                    points,
                });
            }
        }
        all
    }
}

fn wanted(name: &str) -> Option<(usize, &str)> {
    STREAMS.iter().enumerate().find_map(|(index, stream)| {
        let suffix = name.strip_prefix(stream.metric)?;
        let fits = match stream.kind {
            Kind::Histogram => ["_bucket", "_sum", "_count"].contains(&suffix),
            Kind::Counter | Kind::Gauge => suffix.is_empty(),
        };
        fits.then_some((index, suffix))
    })
}

/// A value for each bucket with observations: its middle, moved within the bucket so that the sum is the observed sum. Sums
/// and means are exact; other statistics have the resolution of the buckets.
fn values_of(now: &BTreeMap<u64, f64>, then: &BTreeMap<u64, f64>, sum: f64) -> Vec<(f64, u64)> {
    let (mut low, mut counted) = (0.0_f64, 0.0);
    let mut found: Vec<(f64, f64, f64)> = Vec::new();
    for (bits, total) in now {
        let high = f64::from_bits(*bits);
        let grown = total - then.get(bits).copied().unwrap_or_default();
        let count = (grown - counted).max(0.0);
        counted = grown;
        if count >= 1.0 {
            found.push((low, high, count));
        }
        low = high;
    }
    // The last bucket has no upper bound, and so no middle.
    let middle = |low: f64, high: f64| {
        if high.is_finite() {
            f64::midpoint(low, high)
        } else {
            low
        }
    };
    let mut values: Vec<f64> = found
        .iter()
        .map(|(low, high, _)| middle(*low, *high))
        .collect();
    let total = |values: &[f64]| -> f64 {
        let pairs = values.iter().zip(&found);
        pairs.map(|(value, (.., count))| value * count).sum()
    };
    // Each round moves those that can still move, and at least one of them to its end.
    for _ in 0..=found.len() {
        let off = sum - total(&values);
        let moves = |value: f64, low: f64, high: f64| {
            if off > 0.0 { value < high } else { value > low }
        };
        let movable: f64 = values
            .iter()
            .zip(&found)
            .filter(|(value, (low, high, _))| moves(**value, *low, *high))
            .map(|(_, (.., count))| count)
            .sum();
        if movable < 1.0 {
            break;
        }
        for (value, (low, high, _)) in values.iter_mut().zip(&found) {
            if moves(*value, *low, *high) {
                *value = (*value + off / movable).clamp(*low, *high);
            }
        }
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count"
    )]
    let points = values
        .into_iter()
        .zip(found)
        .map(|(value, (.., count))| (value, count as u64));
    points.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use tollgate_service::telemetry::exposition::samples;

    fn look(text: &str) -> Look {
        Look::at(samples(text))
    }

    #[test]
    fn counters_tell_what_was_counted_since_and_gauges_what_is() {
        let before = look(
            "tollgate_scorer_decisions_total{status=\"blocked\"} 5\ntollgate_log_consumer_lag_records{topic=\"t\",partition=\"0\"} 9\n",
        );
        let after = look(
            "tollgate_scorer_decisions_total{status=\"blocked\"} 7\ntollgate_scorer_decisions_total{status=\"review\"} 2\ntollgate_log_consumer_lag_records{topic=\"t\",partition=\"0\"} 3\ntollgate_log_consumer_lag_records{topic=\"t\",partition=\"1\"} 4\nother 1\n",
        );
        let found: Vec<(&str, Vec<(f64, u64)>)> = after
            .since(&before)
            .into_iter()
            .map(|points| (points.name, points.points))
            .collect();
        assert_eq!(
            found,
            [
                ("decisions", vec![(2.0, 1)]),
                ("decisions", vec![(2.0, 1)]),
                ("lag", vec![(7.0, 1)]),
            ]
        );
    }

    fn histogram(values: &[f64], bounds: &[f64]) -> String {
        let mut text = String::new();
        for bound in bounds {
            let count = values.iter().filter(|value| *value <= bound).count();
            text += &format!(
                "tollgate_scorer_fraud_score_bucket{{status=\"x\",le=\"{bound}\"}} {count}\n"
            );
        }
        let (count, sum) = (values.len(), values.iter().sum::<f64>());
        text + &format!(
            "tollgate_scorer_fraud_score_bucket{{status=\"x\",le=\"+Inf\"}} {count}\ntollgate_scorer_fraud_score_sum{{status=\"x\"}} {sum}\ntollgate_scorer_fraud_score_count{{status=\"x\"}} {count}\n"
        )
    }

    proptest! {
        #[test]
        fn a_histograms_points_keep_number_sum_and_bucket(
            old in prop::collection::vec(0.0_f64..150.0, 0..50),
            new in prop::collection::vec(0.0_f64..150.0, 1..200),
        ) {
            let bounds = [0.0, 10.0, 40.0, 70.0, 100.0];
            let both: Vec<f64> = old.iter().chain(&new).copied().collect();
            let points = look(&histogram(&both, &bounds)).since(&look(&histogram(&old, &bounds)));
            prop_assert_eq!(points.len(), 1);
            let points = &points[0].points;
            let number: u64 = points.iter().map(|(_, count)| count).sum();
            prop_assert_eq!(number, new.len() as u64);
            #[expect(clippy::cast_precision_loss)]
            let sum: f64 = points.iter().map(|(value, count)| value * *count as f64).sum();
            prop_assert!((sum - new.iter().sum::<f64>()).abs() < 1e-6 * 150.0 * 200.0);
            let bucket = |value: f64| bounds.iter().filter(|bound| value > **bound).count();
            for (value, count) in points {
                // A value on the lower bound belongs to the bucket below.
                let near = new.iter().filter(|each| bucket(**each).abs_diff(bucket(*value)) <= 1).count();
                prop_assert!(near as u64 >= *count);
            }
        }
    }

    #[test]
    fn whatever_the_traffic_there_are_no_more_points_than_buckets() {
        let values: Vec<f64> = (0..100_000).map(|value| f64::from(value % 145)).collect();
        let points = look(&histogram(&values, &[0.0, 10.0, 40.0])).since(&Look::default());
        assert!(points[0].points.len() <= 4);
    }
}
