//! Custom metrics in Oracle's Monitoring, as a stand-in sees them that checks every signature, name and limit.
#![cfg(all(feature = "kafka", feature = "postgres", feature = "oci"))]

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use tollgate_tests::deployment::Deployment;
use tollgate_tests::generate::Day;
use tollgate_tests::load::post_all;
use tollgate_tests::oci::{Config, Service, StandIn, StoredMetric, make_user};
use tollgate_tests::{offline, wait};
use tollgate_types::{Stage, Status};

const LIMIT: Duration = Duration::from_secs(60);

/// What the points of a metric add up to, by a dimension: `value × count`, and `count`.
fn totals(metrics: &[StoredMetric], name: &str, dimension: &str) -> BTreeMap<String, (f64, i64)> {
    let mut totals = BTreeMap::new();
    for metric in metrics.iter().filter(|metric| metric.name == name) {
        let key = metric
            .dimensions
            .get(dimension)
            .cloned()
            .unwrap_or_default();
        let total: &mut (f64, i64) = totals.entry(key).or_default();
        for point in &metric.datapoints {
            #[expect(clippy::cast_precision_loss)]
            let count = point.count as f64;
            total.0 += point.value * count;
            total.1 += point.count;
        }
    }
    totals
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_stands_in_monitoring_by_status_however_often_a_post_fails()
-> anyhow::Result<()> {
    let (user, key) = make_user("ocid1.tenancy.oc1..t", "ocid1.user.oc1..u")?;
    let fingerprint = user.fingerprint();
    let cloud = StandIn::start(Config {
        users: vec![user],
        ..Config::default()
    })
    .await?;
    let mut deployment = Deployment::create("oci-metrics", 3).await?;
    for (setting, value) in [
        ("OCI__AUTH", "api-key".to_owned()),
        ("OCI__REGION", "eu-frankfurt-1".to_owned()),
        ("OCI__TENANCY", "ocid1.tenancy.oc1..t".to_owned()),
        ("OCI__USER", "ocid1.user.oc1..u".to_owned()),
        ("OCI__FINGERPRINT", fingerprint),
        ("OCI__PRIVATE_KEY", key),
        ("OCI__MONITORING_ENDPOINT", cloud.endpoint()),
        (
            "OCI__MONITORING__COMPARTMENT",
            "ocid1.compartment.oc1..c".to_owned(),
        ),
        ("OCI__MONITORING__INTERVAL_SECONDS", "1".to_owned()),
    ] {
        deployment.set(setting, value);
    }
    // The first posts fail, and are made again.
    cloud
        .faults()
        .answer_next(Service::Monitoring, 3, 503, "ServiceUnavailable", None);
    let (mut ingest, mut scorer) =
        tokio::try_join!(deployment.start("ingest"), deployment.start("scorer"))?;
    let day: Vec<_> = Day::new(7, 50, "m")
        .take(5_000)
        .map(|each| each.transaction)
        .collect();
    post_all(&ingest.address("ingest").await?, &day, 4, 250).await?;
    deployment.caught_up(Stage::Scorer, LIMIT).await?;

    let expected = offline::every_decision(&deployment.log)?;
    let decisions = deployment
        .log
        .read(&deployment.log.topics().decisions)?
        .len();
    let sum = |by: &BTreeMap<String, (f64, i64)>| by.values().map(|(sum, _)| sum).sum::<f64>();
    wait::until(LIMIT, "every decision in Monitoring", async || {
        let found = totals(&cloud.metrics(), "decisions", "status");
        #[expect(clippy::cast_precision_loss)]
        Ok((sum(&found) >= decisions as f64).then_some(()))
    })
    .await?;
    // The client posts every five seconds.
    wait::until(LIMIT, "lag in Monitoring", async || {
        let found = cloud.metrics().iter().any(|metric| metric.name == "lag");
        Ok(found.then_some(()))
    })
    .await?;
    let refused = scorer
        .metric("tollgate_oci_metric_streams_total{outcome=\"refused\"")
        .await?;
    assert!(refused < 0.5);
    for service in [ingest, scorer] {
        service.stop().await?;
    }

    let metrics = cloud.metrics();
    let scores = totals(&metrics, "fraud_score", "status");
    let counts = totals(&metrics, "decisions", "status");
    for status in Status::ALL {
        let name = status.name();
        #[expect(clippy::cast_possible_truncation)]
        let counted = counts[name].0.round() as i64;
        assert_eq!(scores[name].1, counted, "{name}");
    }
    let total: f64 = expected
        .values()
        .map(|scored| f64::from_bits(scored.score_bits))
        .sum();
    assert!(sum(&scores) >= total * 0.999, "{} of {total}", sum(&scores));
    assert!((sum(&totals(&metrics, "transactions", "outcome")) - 5_000.0).abs() < 0.5);
    assert!(totals(&metrics, "decision_latency", "service")["scorer"].1 > 0);
    assert!(
        metrics
            .iter()
            .all(|metric| metric.namespace == "fraud_detection")
    );
    let streams: HashSet<_> = metrics
        .iter()
        .map(|metric| (&metric.name, &metric.dimensions))
        .collect();
    assert!(streams.len() < 50, "{} streams", streams.len());
    Ok(())
}
