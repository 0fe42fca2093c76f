//! The dashboard and the alerts on a real Prometheus that scrapes the real services under load.
#![cfg(all(feature = "kafka", feature = "postgres", feature = "prometheus"))]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tempfile::TempDir;
use tollgate_tests::collector::free_port;
use tollgate_tests::deployment::Deployment;
use tollgate_tests::generate::Day;
use tollgate_tests::load::post_all;
use tollgate_tests::{variable, wait};
use tollgate_types::{NewTransaction, Stage};

const LIMIT: Duration = Duration::from_secs(120);
const SERVICES: [&str; 4] = ["ingest", "scorer", "persistence", "notifier"];

/// A Prometheus of the test's own. Dropping it stops it.
struct Prometheus {
    child: Child,
    url: String,
    _dir: TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// Scrapes these addresses each second, under the job of the service's name, with the rules of `deploy`.
    async fn start(targets: &[(&str, String)]) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let jobs: Vec<Value> = targets
            .iter()
            .map(|(job, address)| {
                let target = address.trim_start_matches("http://");
                serde_json::json!({"job_name": job, "static_configs": [{"targets": [target]}]})
            })
            .collect();
        let config = serde_json::json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [root().join("deploy/prometheus/alerts.yml")],
            "scrape_configs": jobs,
        });
        // JSON is YAML.
        let file = dir.path().join("prometheus.yml");
        std::fs::write(&file, config.to_string())?;
        let port = free_port()?;
        let child = Command::new(variable("TEST_PROMETHEUS")?)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start Prometheus")?;
        let prometheus = Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
            _dir: dir,
        };
        let ready = format!("{}/-/ready", prometheus.url);
        wait::until(LIMIT, "Prometheus", async || {
            let answer = reqwest::get(&ready).await;
            Ok(answer
                .is_ok_and(|answer| answer.status().is_success())
                .then_some(()))
        })
        .await?;
        Ok(prometheus)
    }

    async fn ask(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<Value> {
        let mut url = reqwest::Url::parse(&format!("{}{path}", self.url))?;
        url.query_pairs_mut().extend_pairs(query);
        let answer: Value = reqwest::get(url).await?.json().await?;
        anyhow::ensure!(answer["status"] == "success", "{path} {query:?}: {answer}");
        Ok(answer["data"].clone())
    }

    /// The values of an instant query.
    async fn values(&self, expression: &str) -> anyhow::Result<Vec<f64>> {
        let data = self.ask("/api/v1/query", &[("query", expression)]).await?;
        let results = data["result"].as_array().cloned().unwrap_or_default();
        let values = results.iter().filter_map(|result| {
            let value = result["value"].get(1).unwrap_or(&result["value"]);
            value.as_str()?.parse().ok()
        });
        Ok(values.collect())
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("/"))
}

/// Title and expression of every query of every panel, those in folded rows too.
fn queries(panels: &Value, found: &mut Vec<(String, String)>) {
    for panel in panels.as_array().into_iter().flatten() {
        queries(&panel["panels"], found);
        for target in panel["targets"].as_array().into_iter().flatten() {
            let title = panel["title"].as_str().unwrap_or_default().to_owned();
            let expression = target["expr"].as_str().unwrap_or_default();
            found.push((title, plain(expression)));
        }
    }
}

/// An expression as Grafana would send it.
fn plain(expression: &str) -> String {
    let plain = expression
        .replace("$__rate_interval", "15s")
        .replace("$__interval", "15s")
        .replace("$__range", "1m");
    // Variables of the dashboard stand in matchers, where everything is chosen.
    let mut text = String::new();
    let mut rest = plain.as_str();
    while let Some((before, after)) = rest.split_once('$') {
        let name = after.trim_start_matches('{');
        let end = name
            .find(|letter: char| !letter.is_alphanumeric() && letter != '_')
            .unwrap_or(name.len());
        text += before;
        text += ".*";
        rest = name[end..].trim_start_matches('}');
    }
    text + rest
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_the_dashboard_has_data_under_load_and_every_alert_can_be_evaluated()
-> anyhow::Result<()> {
    let deployment = Deployment::create("dashboard", 3).await?;
    let mut services = Vec::new();
    for service in SERVICES {
        services.push(deployment.start(service).await?);
    }
    let mut targets = Vec::new();
    for (name, service) in SERVICES.iter().zip(&mut services) {
        targets.push((*name, service.admin().await?));
    }
    let prometheus = Prometheus::start(&targets).await?;

    let text = std::fs::read_to_string(root().join("deploy/grafana/tollgate.json"))?;
    let dashboard: Value = serde_json::from_str(&text)?;
    let mut open = Vec::new();
    queries(&dashboard["panels"], &mut open);
    assert!(open.len() > 20, "{} queries", open.len());

    let ingest = services[0].address("ingest").await?;
    let read = services[2].address("persistence").await?;
    let mut day = Day::new(11, 200, "d").map(|each| each.transaction);
    let mut rounds = 0;
    let waited = wait::until(LIMIT, "data for every query", async || {
        rounds += 1;
        let some: Vec<NewTransaction> = day.by_ref().take(500).collect();
        post_all(&ingest, &some, 2, 100).await?;
        reqwest::get(format!("{read}/v1/stats")).await?;
        let mut without = Vec::new();
        for (title, expression) in open.drain(..) {
            let values = prometheus.values(&expression).await;
            let values = values.with_context(|| format!("panel {title:?}"))?;
            if !values.iter().any(|value| value.is_finite()) {
                without.push((title, expression));
            }
        }
        open = without;
        Ok(open.is_empty().then_some(()))
    });
    let result = waited.await;
    result.with_context(|| format!("without data after {rounds} rounds: {open:#?}"))?;

    // The numbers are those of the load.
    deployment.caught_up(Stage::Persistence, LIMIT).await?;
    let expected = f64::from(rounds) * 500.0;
    wait::until(LIMIT, "every decision in Prometheus", async || {
        let decided = prometheus
            .values("sum(tollgate_scorer_decisions_total)")
            .await?;
        Ok(decided
            .first()
            .is_some_and(|sum| *sum >= expected)
            .then_some(()))
    })
    .await?;

    let rules = prometheus.ask("/api/v1/rules", &[]).await?;
    let groups = rules["groups"].as_array().cloned().unwrap_or_default();
    let rules: Vec<&Value> = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().into_iter().flatten())
        .collect();
    assert!(rules.len() >= 10, "{} rules", rules.len());
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        // Nothing is wrong.
        assert_ne!(rule["state"], "firing", "{rule}");
    }
    for service in services {
        service.stop().await?;
    }
    Ok(())
}
