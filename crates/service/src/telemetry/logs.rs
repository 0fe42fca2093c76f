//! Log lines on standard error, and their filter, which can be changed while the process runs.

use std::fmt;
use std::io::IsTerminal as _;
use std::sync::OnceLock;

use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::FilterExt as _;
use tracing_subscriber::fmt::format::{FmtSpan, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Filter, Layer as _, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, filter, reload};

use super::config::{LogFormat, TelemetryConfig};
use super::otlp::Otlp;
use super::trace::SPAN_TARGET;

static LEVELS: OnceLock<LogLevels> = OnceLock::new();

/// The log filter of this process, once its logs have been started.
#[must_use]
pub fn log_levels() -> Option<&'static LogLevels> {
    LEVELS.get()
}

type Handle = reload::Handle<EnvFilter, Registry>;

/// The log filter in force.
#[derive(Debug)]
pub struct LogLevels {
    configured: String,
    handles: Vec<Handle>,
}

impl LogLevels {
    /// The filter in force.
    #[must_use]
    pub fn current(&self) -> String {
        let current = self
            .handles
            .first()
            .map(|handle| handle.with_current(ToString::to_string));
        current.and_then(Result::ok).unwrap_or_default()
    }

    /// Replaces the filter.
    ///
    /// # Errors
    /// What is wrong with the new one; the current one stays in force.
    pub fn set(&self, text: &str) -> Result<(), String> {
        for handle in &self.handles {
            let filter = parse(text)?;
            handle.reload(filter).map_err(|error| error.to_string())?;
        }
        set_max_level_of_log();
        Ok(())
    }

    /// Restores the configured filter.
    ///
    /// # Errors
    /// The logs of the process have ended.
    pub fn reset(&self) -> Result<(), String> {
        self.set(&self.configured)
    }
}

fn parse(text: &str) -> Result<EnvFilter, String> {
    const EXPECTED: &str = "expected a filter such as info or info,tollgate_scorer=debug";
    // The library accepts any word as the name of a module.
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |word: &str| levels.contains(&word.trim().to_lowercase().as_str());
    let mut words = text.split(',').filter(|word| !word.contains(['=', '[']));
    if let Some(word) = words.find(|word| !is_level(word)) {
        return Err(format!("{word:?} is no level; {EXPECTED}"));
    }
    EnvFilter::try_new(text).map_err(|error| format!("{error}; {EXPECTED}"))
}

/// Sets the level of libraries that log by the crate `log`, so that lines below it are not created.
fn set_max_level_of_log() {
    let most = filter::LevelFilter::current().to_string();
    log::set_max_level(most.parse().unwrap_or(log::LevelFilter::Trace));
}

/// Starts logging, with `otlp` also to its endpoint. A second call in one process has no effect.
pub(super) fn start(config: &TelemetryConfig, otlp: Option<&Otlp>) -> anyhow::Result<()> {
    let filter = || parse(&config.log).map_err(|reason| anyhow::anyhow!("telemetry.log: {reason}"));
    let (levels, handle) = reload::Layer::new(filter()?);
    let mut handles = vec![handle];
    let lines = tracing_subscriber::fmt::layer()
        .with_span_events(FmtSpan::NONE)
        .with_writer(std::io::stderr);
    let lines = match config.log_format {
        LogFormat::Json => {
            let lines = lines
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false);
            lines.map_event_format(WithTrace).boxed()
        }
        LogFormat::Text => lines
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal())
            .boxed(),
    };
    let mut layers = vec![lines.with_filter(uncached(levels)).boxed()];
    if let Some(provider) = otlp.and_then(Otlp::logs) {
        let (levels, handle) = reload::Layer::new(filter()?);
        handles.push(handle);
        // Otherwise each export would log lines that are exported again.
        let senders = ["hyper", "h2", "tonic", "tower", "reqwest", "opentelemetry"];
        let ours = filter::filter_fn(move |metadata| {
            !senders
                .iter()
                .any(|sender| metadata.target().starts_with(sender))
        })
        .with_max_level_hint(filter::LevelFilter::TRACE);
        let bridge = OpenTelemetryTracingBridge::new(provider);
        layers.push(bridge.with_filter(uncached(levels.and(ours))).boxed());
    }
    if let Some(tracer) = otlp.and_then(Otlp::tracer) {
        let spans = tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false);
        let ours = filter::filter_fn(|metadata| metadata.target() == SPAN_TARGET)
            .with_max_level_hint(filter::LevelFilter::INFO);
        layers.push(spans.with_filter(uncached(ours)).boxed());
    }
    // Fails only if a subscriber is set already, as in tests that start several services.
    if tracing_subscriber::registry()
        .with(layers)
        .try_init()
        .is_ok()
    {
        set_max_level_of_log();
        let configured = config.log.clone();
        let _ = LEVELS.set(LogLevels {
            configured,
            handles,
        });
    }
    Ok(())
}

/// A filter whose result is not cached by the callsite. A library may call `enabled!` and log nothing, which leaves the
/// results of the layers behind: a cached result could then be that of another call.
fn uncached(filter: impl Filter<Registry>) -> impl Filter<Registry> {
    let anew = filter::dynamic_filter_fn(|_, _| true);
    // Without this hint the filter would enable all levels, those of libraries too.
    filter.and(anew.with_max_level_hint(filter::LevelFilter::TRACE))
}

/// A line of JSON with the ids of its trace and span.
struct WithTrace<F>(F);

impl<S, N, F> FormatEvent<S, N> for WithTrace<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let current = opentelemetry::Context::current();
        let span = current.span().span_context().clone();
        if !span.is_valid() {
            return self.0.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.0
            .format_event(context, Writer::new(&mut line), event)?;
        match line.trim_end().strip_suffix('}') {
            Some(members) => {
                let (trace, span) = (span.trace_id(), span.span_id());
                writeln!(
                    writer,
                    r#"{members},"trace_id":"{trace}","span_id":"{span}"}}"#
                )
            }
            None => writer.write_str(&line),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tracing_subscriber::layer::Layer;

    use super::*;

    /// Counts spans.
    struct Counting(Arc<AtomicUsize>);

    impl Layer<Registry> for Counting {
        fn on_new_span(
            &self,
            _: &tracing::span::Attributes<'_>,
            _: &tracing::Id,
            _: tracing_subscriber::layer::Context<'_, Registry>,
        ) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_library_that_checks_the_level_and_logs_nothing_hides_no_span() {
        let spans = Arc::new(AtomicUsize::new(0));
        let ours = filter::filter_fn(|metadata| metadata.target() == SPAN_TARGET);
        let others = filter::filter_fn(|metadata| metadata.target() != SPAN_TARGET);
        let layers = vec![
            Counting(Arc::default())
                .with_filter(uncached(others))
                .boxed(),
            Counting(Arc::clone(&spans))
                .with_filter(uncached(ours))
                .boxed(),
        ];
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layers), || {
            for number in 1..4 {
                assert!(tracing::enabled!(target: "sqlx::query", tracing::Level::WARN));
                drop(tracing::info_span!(target: SPAN_TARGET, "SELECT"));
                assert_eq!(spans.load(Ordering::Relaxed), number);
            }
        });
    }

    #[test]
    fn the_level_of_a_filter_is_that_of_its_most_verbose_directive() {
        let level = |text| uncached(parse(text).unwrap()).max_level_hint();
        assert_eq!(level("info"), Some(filter::LevelFilter::INFO));
        let named = level("error,tollgate_scorer=debug");
        assert_eq!(named, Some(filter::LevelFilter::DEBUG));
    }

    #[test]
    fn an_invalid_filter_is_refused_with_an_example() {
        for wrong in ["loud", "info,nonsense", "tollgate_scorer=loud"] {
            let reason = parse(wrong).unwrap_err();
            assert!(reason.contains("info,tollgate_scorer=debug"), "{reason}");
        }
        assert!(parse("off").is_ok() && parse("info,tollgate_scorer=debug").is_ok());
    }
}
