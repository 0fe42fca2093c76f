//! Section `telemetry`, and the variables of OpenTelemetry for settings that are not given. Pure.
//!
//! <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use super::headers::{checked, pairs};
use crate::Secret;
use crate::config::ConfigError;
use crate::secret::serialize_redacted;

/// Ratio of sampled traces.
const TRACE_RATIO: f64 = 0.01;
const METRICS_INTERVAL_MS: u64 = 15_000;
const TIMEOUT_MS: u64 = 10_000;

/// Section `telemetry` of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// Log filter, such as `info` or `info,tollgate_scorer=debug`.
    pub log: String,
    /// The format of log lines.
    pub log_format: LogFormat,
    /// Key of the hashes of user ids in logs and traces. Without a key the hashes of two processes cannot be compared.
    pub user_key: Secret,
    /// How traces identify users.
    pub user_ids: UserIds,
    /// Base URL of an OTLP endpoint; `/v1/traces`, `/v1/metrics` and `/v1/logs` are appended for HTTP.
    #[serde(
        skip_serializing_if = "String::is_empty",
        serialize_with = "serialize_redacted"
    )]
    pub otlp_endpoint: String,
    /// The protocol of the endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_protocol: Option<OtlpProtocol>,
    /// Headers of every export, such as `authorization`.
    pub otlp_headers: BTreeMap<String, Secret>,
    /// Complete URL for traces; `none` exports none.
    #[serde(
        skip_serializing_if = "String::is_empty",
        serialize_with = "serialize_redacted"
    )]
    pub otlp_traces_endpoint: String,
    /// Complete URL for metrics; `none` exports none.
    #[serde(
        skip_serializing_if = "String::is_empty",
        serialize_with = "serialize_redacted"
    )]
    pub otlp_metrics_endpoint: String,
    /// Complete URL for logs; `none` exports none.
    #[serde(
        skip_serializing_if = "String::is_empty",
        serialize_with = "serialize_redacted"
    )]
    pub otlp_logs_endpoint: String,
    /// Ratio of the traces started here that are sampled, from 0 to 1. Blocked, for review, dead-lettered and failed are
    /// always sampled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_ratio: Option<f64>,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line, for machines.
    Json,
    /// Plain lines, for a terminal.
    Text,
}

/// How traces identify users.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UserIds {
    /// As keyed hashes, in `user.hash`.
    #[default]
    Hashed,
    /// As user ids, in `user.id`.
    Plain,
}

/// The protocol of an OTLP endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OtlpProtocol {
    /// Protocol buffers in HTTP requests.
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
    /// gRPC.
    #[serde(rename = "grpc")]
    Grpc,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            log: "info".to_owned(),
            log_format: LogFormat::Json,
            user_key: Secret::default(),
            user_ids: UserIds::default(),
            otlp_endpoint: String::new(),
            otlp_protocol: None,
            otlp_headers: BTreeMap::new(),
            otlp_traces_endpoint: String::new(),
            otlp_metrics_endpoint: String::new(),
            otlp_logs_endpoint: String::new(),
            trace_ratio: None,
        }
    }
}

/// The endpoint of one signal.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Target {
    pub(super) url: Url,
    pub(super) protocol: OtlpProtocol,
    pub(super) headers: BTreeMap<String, Secret>,
    pub(super) timeout: Duration,
    /// PEM file of a private certificate authority.
    pub(super) ca_file: Option<String>,
}

/// The endpoints of all signals.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Targets {
    pub(super) traces: Option<Target>,
    pub(super) metrics: Option<Target>,
    pub(super) logs: Option<Target>,
    pub(super) trace_ratio: f64,
    pub(super) metrics_interval: Duration,
}

/// The signals of OpenTelemetry.
#[derive(Clone, Copy)]
enum Signal {
    Traces,
    Metrics,
    Logs,
}

impl Signal {
    const fn name(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }
}

/// Looks up a variable of the environment.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

impl TelemetryConfig {
    /// Checks what can be checked without the environment.
    ///
    /// # Errors
    /// Names the invalid setting.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.targets(&|_| None).map(drop)
    }

    /// The endpoints; `None` if none is configured.
    pub(super) fn targets(
        &self,
        environment: Environment<'_>,
    ) -> Result<Option<Targets>, ConfigError> {
        let given = |name: &str| environment(name).filter(|text| !text.trim().is_empty());
        if given("OTEL_SDK_DISABLED").is_some_and(|text| text.trim().eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let trace_ratio = self.ratio(&given)?;
        let interval = milliseconds(
            &given,
            &["OTEL_METRIC_EXPORT_INTERVAL"],
            METRICS_INTERVAL_MS,
        )?;
        let targets = Targets {
            traces: self.target(Signal::Traces, &self.otlp_traces_endpoint, &given)?,
            metrics: self.target(Signal::Metrics, &self.otlp_metrics_endpoint, &given)?,
            logs: self.target(Signal::Logs, &self.otlp_logs_endpoint, &given)?,
            trace_ratio,
            metrics_interval: interval.max(Duration::from_millis(100)),
        };
        let any = targets.traces.is_some() || targets.metrics.is_some() || targets.logs.is_some();
        Ok(any.then_some(targets))
    }

    fn ratio(&self, given: Environment<'_>) -> Result<f64, ConfigError> {
        let within = |ratio: f64| (0.0..=1.0).contains(&ratio);
        if let Some(ratio) = self.trace_ratio {
            let wrong = || ConfigError::invalid("telemetry.trace_ratio", "must be from 0 to 1");
            return within(ratio).then_some(ratio).ok_or_else(wrong);
        }
        let argument = || {
            let name = "OTEL_TRACES_SAMPLER_ARG";
            let Some(text) = given(name) else {
                return Ok(1.0);
            };
            let ratio = text.trim().parse().ok().filter(|ratio| within(*ratio));
            ratio.ok_or_else(|| ConfigError::invalid(name, "must be a number from 0 to 1"))
        };
        match given("OTEL_TRACES_SAMPLER").as_deref() {
            None => Ok(TRACE_RATIO),
            Some("always_on" | "parentbased_always_on") => Ok(1.0),
            Some("always_off" | "parentbased_always_off") => Ok(0.0),
            Some("traceidratio" | "parentbased_traceidratio") => argument(),
            Some(_) => Err(ConfigError::invalid(
                "OTEL_TRACES_SAMPLER",
                "must be parentbased_traceidratio, parentbased_always_on or parentbased_always_off",
            )),
        }
    }

    fn target(
        &self,
        signal: Signal,
        whole: &str,
        given: Environment<'_>,
    ) -> Result<Option<Target>, ConfigError> {
        let name = signal.name();
        let own = |rest: &str| format!("OTEL_EXPORTER_OTLP_{}_{rest}", name.to_uppercase());
        let common = |rest: &str| format!("OTEL_EXPORTER_OTLP_{rest}");
        let either = |rest: &str| given(&own(rest)).or_else(|| given(&common(rest)));
        let off = given(&format!("OTEL_{}_EXPORTER", name.to_uppercase()));
        if whole == "none" || off.is_some_and(|text| text.trim() == "none") {
            return Ok(None);
        }
        let protocol = self.protocol(either("PROTOCOL").as_deref())?;
        let setting = format!("telemetry.otlp_{name}_endpoint");
        let url = if !whole.is_empty() {
            parse(&setting, whole)?
        } else if !self.otlp_endpoint.is_empty() {
            let base = parse("telemetry.otlp_endpoint", &self.otlp_endpoint)?;
            under(base, protocol, signal)
        } else if let Some(whole) = given(&own("ENDPOINT")) {
            parse(&own("ENDPOINT"), &whole)?
        } else if let Some(base) = given(&common("ENDPOINT")) {
            under(parse(&common("ENDPOINT"), &base)?, protocol, signal)
        } else {
            return Ok(None);
        };
        let timeout = milliseconds(given, &[&own("TIMEOUT"), &common("TIMEOUT")], TIMEOUT_MS)?;
        let mut headers = match either("HEADERS") {
            Some(text) => checked(&common("HEADERS"), pairs(&common("HEADERS"), &text)?)?,
            None => BTreeMap::new(),
        };
        let own = self.otlp_headers.clone();
        headers.extend(checked("telemetry.otlp_headers", own)?);
        Ok(Some(Target {
            url,
            protocol,
            headers,
            timeout,
            ca_file: either("CERTIFICATE"),
        }))
    }

    fn protocol(&self, variable: Option<&str>) -> Result<OtlpProtocol, ConfigError> {
        match (self.otlp_protocol, variable.map(str::trim)) {
            (Some(protocol), _) => Ok(protocol),
            (None, None | Some("http/protobuf")) => Ok(OtlpProtocol::HttpProtobuf),
            (None, Some("grpc")) => Ok(OtlpProtocol::Grpc),
            (None, Some(_)) => Err(ConfigError::invalid(
                "OTEL_EXPORTER_OTLP_PROTOCOL",
                "must be http/protobuf or grpc",
            )),
        }
    }
}

fn parse(setting: &str, text: &str) -> Result<Url, ConfigError> {
    Url::parse(text.trim())
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| ConfigError::invalid(setting, "must be a URL such as http://127.0.0.1:4318"))
}

/// The URL of a signal under a base URL; gRPC has one URL for all.
fn under(mut base: Url, protocol: OtlpProtocol, signal: Signal) -> Url {
    if protocol == OtlpProtocol::HttpProtobuf {
        let path = format!("{}/v1/{}", base.path().trim_end_matches('/'), signal.name());
        base.set_path(&path);
    }
    base
}

fn milliseconds(
    given: Environment<'_>,
    names: &[&str],
    default: u64,
) -> Result<Duration, ConfigError> {
    for name in names {
        if let Some(text) = given(name) {
            let number = text.trim().parse().ok().filter(|number| *number > 0);
            return number.map(Duration::from_millis).ok_or_else(|| {
                ConfigError::invalid(*name, "must be a number of milliseconds over 0")
            });
        }
    }
    Ok(Duration::from_millis(default))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(config: &TelemetryConfig, variables: &[(&str, &str)]) -> Option<Targets> {
        resolve(config, variables).unwrap()
    }

    fn resolve(
        config: &TelemetryConfig,
        variables: &[(&str, &str)],
    ) -> Result<Option<Targets>, ConfigError> {
        config.targets(&|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn url(target: &Option<Target>) -> &str {
        target.as_ref().map_or("", |target| target.url.as_str())
    }

    #[test]
    fn nothing_is_exported_without_an_endpoint() {
        let config = TelemetryConfig::default();
        assert_eq!(targets(&config, &[]), None);
        let asked = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
        assert!(targets(&config, &[asked]).is_some());
        assert_eq!(
            targets(&config, &[asked, ("OTEL_SDK_DISABLED", "true")]),
            None
        );
    }

    #[test]
    fn a_base_url_is_completed_for_each_signal_and_a_complete_url_is_unchanged() {
        let config = TelemetryConfig {
            otlp_endpoint: "http://c:4318/".to_owned(),
            otlp_metrics_endpoint: "https://apm/20200101/opentelemetry/v1/metrics".to_owned(),
            otlp_logs_endpoint: "none".to_owned(),
            ..TelemetryConfig::default()
        };
        let all = targets(&config, &[]).unwrap();
        assert_eq!(url(&all.traces), "http://c:4318/v1/traces");
        assert_eq!(
            url(&all.metrics),
            "https://apm/20200101/opentelemetry/v1/metrics"
        );
        assert_eq!(all.logs, None);
        // Settings take precedence over variables, complete URLs over base URLs.
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://other:4318");
        let whole = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://whole/t");
        assert_eq!(targets(&config, &[base, whole]), Some(all));
        let silent = TelemetryConfig::default();
        let all = targets(&silent, &[base, whole]).unwrap();
        assert_eq!(url(&all.traces), "http://whole/t");
        assert_eq!(url(&all.logs), "http://other:4318/v1/logs");
    }

    #[test]
    fn grpc_has_one_url_for_all_signals() {
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ];
        let all = targets(&TelemetryConfig::default(), &variables).unwrap();
        assert_eq!(url(&all.traces), "http://c:4317/");
        assert_eq!(url(&all.metrics), "http://c:4317/");
    }

    #[test]
    fn headers_are_decoded_and_those_of_settings_take_precedence() {
        let config = TelemetryConfig {
            otlp_headers: BTreeMap::from([("x".to_owned(), Secret::new("2"))]),
            ..TelemetryConfig::default()
        };
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                "Authorization=dataKey%20abc, x=1",
            ),
        ];
        let headers = targets(&config, &variables)
            .and_then(|all| all.traces)
            .map(|target| target.headers)
            .unwrap();
        assert_eq!(headers["authorization"].expose(), "dataKey abc");
        assert_eq!(headers["x"].expose(), "2");
    }

    #[test]
    fn an_invalid_or_reserved_header_is_refused_without_its_value() {
        for (name, value) in [
            ("two words", "secret"),
            ("", "secret"),
            ("x", "sec\nret"),
            ("x", "secrét"),
            ("Content-Type", "secret"),
        ] {
            let config = TelemetryConfig {
                otlp_endpoint: "http://c:4318".to_owned(),
                otlp_headers: BTreeMap::from([(name.to_owned(), Secret::new(value))]),
                ..TelemetryConfig::default()
            };
            for protocol in [OtlpProtocol::HttpProtobuf, OtlpProtocol::Grpc] {
                let config = TelemetryConfig {
                    otlp_protocol: Some(protocol),
                    ..config.clone()
                };
                let error = config.validate().unwrap_err().to_string();
                assert!(error.starts_with("telemetry.otlp_headers: "), "{error}");
                assert!(!error.contains("sec"), "{error}");
            }
        }
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "user-agent=x"),
        ];
        let error = resolve(&TelemetryConfig::default(), &variables).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("OTEL_EXPORTER_OTLP_HEADERS: ")
        );
    }

    #[test]
    fn the_ratio_is_the_setting_or_the_variable_or_the_default() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
        let ratio = |config: &TelemetryConfig, more: &[(&str, &str)]| {
            let variables: Vec<_> = more.iter().copied().chain([endpoint]).collect();
            targets(config, &variables).unwrap().trace_ratio
        };
        let silent = TelemetryConfig::default();
        assert_eq!(ratio(&silent, &[]).to_bits(), TRACE_RATIO.to_bits());
        let sampler = ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio");
        let argument = ("OTEL_TRACES_SAMPLER_ARG", "0.25");
        assert_eq!(
            ratio(&silent, &[sampler, argument]).to_bits(),
            0.25_f64.to_bits()
        );
        let set = TelemetryConfig {
            trace_ratio: Some(0.5),
            ..TelemetryConfig::default()
        };
        assert_eq!(
            ratio(&set, &[sampler, argument]).to_bits(),
            0.5_f64.to_bits()
        );
    }

    #[test]
    fn an_invalid_setting_is_named() {
        let set = |change: fn(&mut TelemetryConfig)| {
            let mut config = TelemetryConfig::default();
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        let wrong_url = set(|config| config.otlp_endpoint = "127.0.0.1:4318".to_owned());
        assert!(
            wrong_url.starts_with("telemetry.otlp_endpoint: "),
            "{wrong_url}"
        );
        let wrong_ratio = set(|config| config.trace_ratio = Some(2.0));
        assert!(
            wrong_ratio.starts_with("telemetry.trace_ratio: "),
            "{wrong_ratio}"
        );
        for variable in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector"),
        ] {
            let endpoint = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4318");
            let error = resolve(&TelemetryConfig::default(), &[variable, endpoint]);
            assert!(error.unwrap_err().to_string().starts_with(variable.0));
        }
    }
}
