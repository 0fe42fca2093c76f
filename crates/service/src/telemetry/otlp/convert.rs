//! Converts the text of `/metrics` to OTLP. Pure.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum,
};

use crate::telemetry::exposition::{Labels, Sample};

/// The start of counting and the time of the values, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) start: u64,
    pub(super) now: u64,
}

/// The metrics of a text in the format of Prometheus.
pub(super) fn metrics(text: &str, times: Times) -> Vec<Metric> {
    let mut kinds = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        if let (Some("#"), Some("TYPE"), Some(name), Some(kind)) =
            (words.next(), words.next(), words.next(), words.next())
        {
            kinds.insert(name, kind);
        }
    }
    let mut families: BTreeMap<&str, Vec<Sample>> = BTreeMap::new();
    for sample in crate::telemetry::exposition::samples(text) {
        let of_histogram = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|suffix| sample.name.strip_suffix(suffix))
            .find(|name| kinds.get(name) == Some(&"histogram"));
        let family = of_histogram.unwrap_or(&sample.name);
        if let Some((name, _)) = kinds.get_key_value(family) {
            families.entry(name).or_default().push(sample);
        }
    }
    families
        .into_iter()
        .filter_map(|(name, samples)| {
            let data = match *kinds.get(name)? {
                "counter" => Data::Sum(Sum {
                    data_points: numbers(samples, times),
                    aggregation_temporality: AggregationTemporality::Cumulative as i32,
                    is_monotonic: true,
                }),
                "gauge" => Data::Gauge(Gauge {
                    data_points: numbers(samples, times),
                }),
                "histogram" => Data::Histogram(Histogram {
                    data_points: histograms(samples, times),
                    aggregation_temporality: AggregationTemporality::Cumulative as i32,
                }),
                _ => return None,
            };
            Some(Metric {
                name: name.to_owned(),
                unit: unit(name).to_owned(),
                data: Some(data),
                ..Metric::default()
            })
        })
        .collect()
}

/// The unit at the end of a name, by UCUM.
fn unit(name: &str) -> &'static str {
    let name = name.strip_suffix("_total").unwrap_or(name);
    match name.rsplit('_').next() {
        Some("seconds") => "s",
        Some("bytes") => "By",
        Some("records") => "{record}",
        _ => "",
    }
}

fn numbers(samples: Vec<Sample>, times: Times) -> Vec<NumberDataPoint> {
    samples
        .into_iter()
        .map(|sample| NumberDataPoint {
            attributes: attributes(&sample.labels),
            start_time_unix_nano: times.start,
            time_unix_nano: times.now,
            value: Some(Number::AsDouble(sample.value)),
            ..NumberDataPoint::default()
        })
        .collect()
}

/// Histograms by their labels. A bucket of Prometheus is cumulative, one of OTLP is not.
fn histograms(samples: Vec<Sample>, times: Times) -> Vec<HistogramDataPoint> {
    #[derive(Default)]
    struct Parts {
        buckets: Vec<(f64, f64)>,
        sum: f64,
        count: f64,
    }
    let mut all: BTreeMap<Labels, Parts> = BTreeMap::new();
    for mut sample in samples {
        let bound = sample.labels.remove("le");
        let parts = all.entry(sample.labels).or_default();
        if let Some(bound) = bound {
            parts
                .buckets
                .extend(bound.parse().ok().map(|bound: f64| (bound, sample.value)));
        } else if sample.name.ends_with("_sum") {
            parts.sum = sample.value;
        } else {
            parts.count = sample.value;
        }
    }
    all.into_iter()
        .map(|(labels, mut parts)| {
            parts.buckets.sort_by(|(a, _), (b, _)| a.total_cmp(b));
            let mut below = 0.0;
            let mut bucket_counts = Vec::new();
            for (_, up_to) in &parts.buckets {
                bucket_counts.push(whole(up_to - below));
                below = *up_to;
            }
            HistogramDataPoint {
                attributes: attributes(&labels),
                start_time_unix_nano: times.start,
                time_unix_nano: times.now,
                count: whole(parts.count),
                sum: Some(parts.sum),
                bucket_counts,
                explicit_bounds: parts
                    .buckets
                    .iter()
                    .map(|(bound, _)| *bound)
                    .filter(|bound| bound.is_finite())
                    .collect(),
                ..HistogramDataPoint::default()
            }
        })
        .collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count of events; the cast saturates"
)]
const fn whole(count: f64) -> u64 {
    count as u64
}

fn attributes(labels: &Labels) -> Vec<KeyValue> {
    labels
        .iter()
        .map(|(name, value)| KeyValue {
            key: name.clone(),
            value: Some(AnyValue {
                value: Some(Value::StringValue(value.clone())),
            }),
            ..KeyValue::default()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# TYPE a_total counter
a_total{status=\"blocked\"} 7
# TYPE b_bytes gauge
b_bytes 1.5
# TYPE c_seconds histogram
c_seconds_bucket{x=\"1\",le=\"0.5\"} 2
c_seconds_bucket{x=\"1\",le=\"2\"} 5
c_seconds_bucket{x=\"1\",le=\"+Inf\"} 6
c_seconds_sum{x=\"1\"} 9.25
c_seconds_count{x=\"1\"} 6
";

    #[test]
    fn each_kind_is_converted_with_unit_labels_and_times() {
        let all = metrics(TEXT, Times { start: 1, now: 2 });
        let named: Vec<(&str, &str)> = all
            .iter()
            .map(|metric| (&*metric.name, &*metric.unit))
            .collect();
        assert_eq!(
            named,
            [("a_total", ""), ("b_bytes", "By"), ("c_seconds", "s")]
        );
        let Some(Data::Sum(sum)) = &all[0].data else {
            panic!("a counter is a sum");
        };
        assert!(sum.is_monotonic);
        let point = &sum.data_points[0];
        assert_eq!(point.value, Some(Number::AsDouble(7.0)));
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (1, 2));
        assert_eq!(point.attributes[0].key, "status");
        assert!(matches!(&all[1].data, Some(Data::Gauge(gauge)) if gauge.data_points.len() == 1));
        let Some(Data::Histogram(histogram)) = &all[2].data else {
            panic!("a histogram is a histogram");
        };
        let point = &histogram.data_points[0];
        assert_eq!(point.explicit_bounds, [0.5, 2.0]);
        assert_eq!(point.bucket_counts, [2, 3, 1]);
        assert_eq!((point.count, point.sum), (6, Some(9.25)));
        assert_eq!(point.attributes.len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn the_buckets_of_a_histogram_add_up_to_its_count(counts in proptest::collection::vec(0..1_000_u32, 1..20)) {
            let mut text = "# TYPE h histogram\n".to_owned();
            let mut total = 0;
            for (at, count) in counts.iter().enumerate() {
                total += count;
                let bound = if at + 1 == counts.len() { "+Inf".to_owned() } else { at.to_string() };
                text += &format!("h_bucket{{le=\"{bound}\"}} {total}\n");
            }
            text += &format!("h_count {total}\n");
            let all = metrics(&text, Times { start: 0, now: 0 });
            let Some(Data::Histogram(histogram)) = &all[0].data else { panic!() };
            let point = &histogram.data_points[0];
            proptest::prop_assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
            proptest::prop_assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
        }
    }
}
