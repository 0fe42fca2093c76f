//! A real OpenTelemetry collector of the test's own, and what it was sent.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use openssl::nid::Nid;
use serde_json::Value;
use tempfile::TempDir;

use crate::oci::certificates::{Authority, new_ec};
use crate::{variable, wait};

const START: Duration = Duration::from_secs(30);

/// A collector that runs. Dropping it stops it.
#[derive(Debug)]
pub struct Collector {
    child: Child,
    dir: TempDir,
    scheme: &'static str,
    http: u16,
    grpc: u16,
}

/// A span as the collector got it.
#[derive(Debug, Clone, PartialEq)]
pub struct SeenSpan {
    /// `service.name` of the process.
    pub service: String,
    /// Who made it: `tollgate-scorer`.
    pub scope: String,
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// Empty for the first of a trace.
    pub parent_id: String,
    /// Its name.
    pub name: String,
    /// `internal`, `server`, `client`, `producer`, `consumer`.
    pub kind: &'static str,
    /// As text; lists joined by commas.
    pub attributes: BTreeMap<String, String>,
    /// Trace and span of each.
    pub links: Vec<(String, String)>,
    /// Whether its status is error.
    pub failed: bool,
    /// Nanoseconds since 1970.
    pub began: u64,
    /// Nanoseconds since 1970.
    pub ended: u64,
}

impl SeenSpan {
    /// An attribute; empty where there is none.
    #[must_use]
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// Its own place in its trace, as links name it.
    #[must_use]
    pub fn place(&self) -> (String, String) {
        (self.trace_id.clone(), self.span_id.clone())
    }
}

impl Collector {
    /// Starts one.
    ///
    /// # Errors
    /// Where it is not there, or does not start.
    pub async fn start() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let config = variable("TEST_COLLECTOR_CONFIG")?;
        let collector = Self::spawn(dir, &config, "http")?;
        let url = format!("{}/v1/traces", collector.http());
        wait::until(START, "the collector", async || {
            let request = reqwest::Client::new()
                .post(&url)
                .header("content-type", "application/json")
                .body("{}");
            Ok(request.send().await.is_ok().then_some(()))
        })
        .await?;
        Ok(collector)
    }

    /// Starts one that takes TLS only, with a certificate of [`Collector::authority`]'s.
    ///
    /// # Errors
    /// Where it is not there, or does not start.
    pub async fn start_with_tls() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let authority = Authority::root("collector CA")?;
        let key = new_ec()?;
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let certificate = authority.issue(&[(Nid::COMMONNAME, "collector")], &key, &names)?;
        let write = |name: &str, pem: Vec<u8>| {
            let path = dir.path().join(name);
            std::fs::write(&path, pem).map(|()| path.display().to_string())
        };
        write("ca.pem", authority.certificate.to_pem()?)?;
        let certificate = write("server.pem", certificate.to_pem()?)?;
        let key = write("server.key", key.private_key_to_pem_pkcs8()?)?;
        let plain = std::fs::read_to_string(variable("TEST_COLLECTOR_CONFIG")?)?;
        let tls = format!("_PORT}}\n        tls: {{cert_file: {certificate}, key_file: {key}}}\n");
        let config = write("config.yaml", plain.replace("_PORT}\n", &tls).into_bytes())?;
        let collector = Self::spawn(dir, &config, "https")?;
        wait::until(START, "the collector", async || {
            let connected = tokio::net::TcpStream::connect(("127.0.0.1", collector.grpc)).await;
            Ok(connected.is_ok().then_some(()))
        })
        .await?;
        Ok(collector)
    }

    /// PEM of the authority of its certificate, where it has one.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    fn spawn(dir: TempDir, config: &str, scheme: &'static str) -> anyhow::Result<Self> {
        let (http, grpc) = (free_port()?, free_port()?);
        let child = Command::new(variable("TEST_COLLECTOR")?)
            .args(["--config", config])
            .env("COLLECTOR_DIR", dir.path())
            .env("COLLECTOR_HTTP_PORT", http.to_string())
            .env("COLLECTOR_GRPC_PORT", grpc.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start the collector")?;
        Ok(Self {
            child,
            dir,
            scheme,
            http,
            grpc,
        })
    }

    /// Where it takes OTLP over HTTP.
    #[must_use]
    pub fn http(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.http)
    }

    /// Where it takes OTLP over gRPC.
    #[must_use]
    pub fn grpc(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.grpc)
    }

    /// Kills it, as a crash would.
    ///
    /// # Errors
    /// Where it cannot be killed.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn lines(&self, file: &str) -> anyhow::Result<Vec<Value>> {
        let path: PathBuf = self.dir.path().join(file);
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error.into()),
        };
        // The last line may be half written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).context("a line of the collector's"))
            .collect()
    }

    /// The spans so far.
    ///
    /// # Errors
    /// Where its file cannot be read.
    pub fn spans(&self) -> anyhow::Result<Vec<SeenSpan>> {
        let mut spans = Vec::new();
        for line in self.lines("traces.jsonl")? {
            for resource in list(&line["resourceSpans"]) {
                let service = attributes(&resource["resource"]["attributes"]);
                let service = service.get("service.name").cloned().unwrap_or_default();
                for scope in list(&resource["scopeSpans"]) {
                    let name = text(&scope["scope"]["name"]);
                    let found = list(&scope["spans"]).iter();
                    spans.extend(found.map(|span| seen(&service, &name, span)));
                }
            }
        }
        Ok(spans)
    }

    /// The numbers of a metric in what was sent last, by its attributes.
    ///
    /// # Errors
    /// Where its file cannot be read.
    pub fn metric(&self, name: &str) -> anyhow::Result<BTreeMap<String, f64>> {
        let mut points = BTreeMap::new();
        for line in self.lines("metrics.jsonl")? {
            for resource in list(&line["resourceMetrics"]) {
                for scope in list(&resource["scopeMetrics"]) {
                    for metric in list(&scope["metrics"])
                        .iter()
                        .filter(|metric| metric["name"] == name)
                    {
                        for kind in ["sum", "gauge", "histogram"] {
                            for point in list(&metric[kind]["dataPoints"]) {
                                let labels = attributes(&point["attributes"]);
                                let labels: Vec<String> = labels
                                    .iter()
                                    .map(|(name, value)| format!("{name}={value}"))
                                    .collect();
                                let value = match &point["asDouble"] {
                                    Value::Number(value) => value.as_f64().unwrap_or_default(),
                                    _ => text(&point["count"]).parse().unwrap_or_default(),
                                };
                                points.insert(labels.join(","), value);
                            }
                        }
                    }
                }
            }
        }
        Ok(points)
    }

    /// Log lines so far: the text, and its trace, if any.
    ///
    /// # Errors
    /// Where its file cannot be read.
    pub fn logs(&self) -> anyhow::Result<Vec<(String, String)>> {
        let mut logs = Vec::new();
        for line in self.lines("logs.jsonl")? {
            for resource in list(&line["resourceLogs"]) {
                for scope in list(&resource["scopeLogs"]) {
                    for record in list(&scope["logRecords"]) {
                        let line = text(&record["body"]["stringValue"]);
                        logs.push((line, text(&record["traceId"])));
                    }
                }
            }
        }
        Ok(logs)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
///
/// # Errors
/// Where there is none.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn attributes(value: &Value) -> BTreeMap<String, String> {
    list(value)
        .iter()
        .map(|attribute| (text(&attribute["key"]), plain(&attribute["value"])))
        .collect()
}

/// `{"stringValue":"x"}` and the like.
fn plain(value: &Value) -> String {
    let Some((kind, value)) = value.as_object().and_then(|members| members.iter().next()) else {
        return String::new();
    };
    match kind.as_str() {
        "arrayValue" => {
            let values: Vec<String> = list(&value["values"]).iter().map(plain).collect();
            values.join(",")
        }
        _ => text(value),
    }
}

fn seen(service: &str, scope: &str, span: &Value) -> SeenSpan {
    let kind = match span["kind"].as_u64() {
        Some(2) => "server",
        Some(3) => "client",
        Some(4) => "producer",
        Some(5) => "consumer",
        _ => "internal",
    };
    let nanos = |name: &str| text(&span[name]).parse().unwrap_or_default();
    SeenSpan {
        service: service.to_owned(),
        scope: scope.to_owned(),
        trace_id: text(&span["traceId"]),
        span_id: text(&span["spanId"]),
        parent_id: text(&span["parentSpanId"]),
        name: text(&span["name"]),
        kind,
        attributes: attributes(&span["attributes"]),
        links: list(&span["links"])
            .iter()
            .map(|link| (text(&link["traceId"]), text(&link["spanId"])))
            .collect(),
        failed: span["status"]["code"] == 2,
        began: nanos("startTimeUnixNano"),
        ended: nanos("endTimeUnixNano"),
    }
}
