//! The queue of spans in front of the exporter, and the counts of exported and dropped items.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use metrics::{Counter, counter};
use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor,
};

use super::transport::Cause;

/// Most spans that wait: some megabytes.
const QUEUE: usize = 8_192;
const BATCH: usize = 512;
/// Longest time a span waits for its batch to fill.
const DELAY: Duration = Duration::from_secs(1);
/// No span is created for this long after a failed export.
const PAUSE: Duration = Duration::from_secs(5);
/// Interval of the log lines for a failure that persists.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The queue of spans. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct SpanQueue {
    processor: Arc<BatchSpanProcessor>,
    waiting: Arc<AtomicUsize>,
    pause: Arc<Pause>,
    dropped: Dropped,
}

/// Whether the last export failed. Then no span is created for a while, so that spans that cannot be exported cost nothing;
/// the contexts of callers are propagated as if tracing were off.
#[derive(Debug)]
struct Pause {
    began: Instant,
    /// Milliseconds since `began`, or 0.
    until: AtomicU64,
}

impl Pause {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            until: AtomicU64::new(0),
        }
    }

    fn is_active(&self, now: impl FnOnce() -> Instant) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        until > 0 && self.milliseconds(now()) < until
    }

    fn record(&self, accepted: bool, now: Instant) {
        let pause = u64::try_from(PAUSE.as_millis()).unwrap_or(u64::MAX);
        let until = if accepted {
            0
        } else {
            self.milliseconds(now) + pause
        };
        self.until.store(until, Ordering::Relaxed);
    }

    fn milliseconds(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.began);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

#[derive(Clone)]
struct Dropped(Counter);

impl std::fmt::Debug for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dropped")
    }
}

impl SpanQueue {
    pub(super) fn new(
        exporter: impl SpanExporter + 'static,
        cause: Cause,
        resource: &Resource,
    ) -> Self {
        let exporter = Counted::new("spans", exporter, cause);
        let waiting = Arc::clone(&exporter.waiting);
        let pause = Arc::clone(&exporter.pause);
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(DELAY)
            .build();
        let mut processor = BatchSpanProcessor::builder(exporter)
            .with_batch_config(config)
            .build();
        processor.set_resource(resource);
        Self {
            processor: Arc::new(processor),
            waiting,
            pause,
            dropped: Dropped(
                counter!("tollgate_telemetry_items_total", "signal" => "spans", "outcome" => "dropped"),
            ),
        }
    }

    /// Whether spans can be exported. With `sampled` a span that cannot is counted as dropped.
    pub(crate) fn accepts(&self, sampled: bool) -> bool {
        let pause = self.pause.is_active(Instant::now);
        if pause && sampled {
            self.dropped.0.increment(1);
        }
        !pause
    }

    /// Adds a span. It is not created if the queue is full.
    pub(crate) fn put(&self, span: impl FnOnce() -> SpanData) {
        if !self.accepts(true) {
            return;
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= QUEUE {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.dropped.0.increment(1);
            return;
        }
        self.processor.on_end(span());
    }
}

impl SpanProcessor for SpanQueue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.put(|| span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.processor.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.processor.shutdown_with_timeout(timeout)
    }
}

/// An exporter that counts its results.
pub(super) struct Counted<E> {
    inner: E,
    signal: &'static str,
    cause: Cause,
    /// Items in the queue or in the current export.
    waiting: Arc<AtomicUsize>,
    pause: Arc<Pause>,
    sent: Counter,
    failed: Counter,
    logged: Mutex<Option<Instant>>,
}

impl<E> std::fmt::Debug for Counted<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counted")
            .field("signal", &self.signal)
            .finish_non_exhaustive()
    }
}

impl<E> Counted<E> {
    pub(super) fn new(signal: &'static str, inner: E, cause: Cause) -> Self {
        let items = |outcome: &'static str| counter!("tollgate_telemetry_items_total", "signal" => signal, "outcome" => outcome);
        Self {
            inner,
            signal,
            cause,
            waiting: Arc::default(),
            pause: Arc::new(Pause::new()),
            sent: items("sent"),
            failed: items("failed"),
            logged: Mutex::default(),
        }
    }

    fn count(&self, items: usize, result: &OTelSdkResult) {
        let counter = if result.is_ok() {
            &self.sent
        } else {
            &self.failed
        };
        counter.increment(items as u64);
        self.pause.record(result.is_ok(), Instant::now());
        if let Err(error) = result {
            let cause = self.cause.lock().unwrap_or_else(PoisonError::into_inner);
            let reason = match &*cause {
                Some(cause) => format!("{error}: {cause}"),
                None => error.to_string(),
            };
            failed(self.signal, &reason, &self.logged);
        }
    }
}

/// Logs a failed export, once a minute.
pub(super) fn failed(signal: &'static str, reason: &str, logged: &Mutex<Option<Instant>>) {
    let mut logged = logged.lock().unwrap_or_else(PoisonError::into_inner);
    if logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
        *logged = Some(Instant::now());
        tracing::warn!(
            signal,
            reason,
            "an export to the OTLP endpoint failed; its items are counted and dropped"
        );
    }
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let items = batch.len();
        let result = self.inner.export(batch).await;
        self.waiting.fetch_sub(items, Ordering::Relaxed);
        self.count(items, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<E: LogExporter> LogExporter for Counted<E> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let items = batch.iter().count();
        let result = self.inner.export(batch).await;
        self.count(items, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::SpanKind;
    use opentelemetry_sdk::error::OTelSdkError;
    use tollgate_types::TraceContext;

    use super::*;
    use crate::telemetry::trace;

    /// Blocks while its lock is held.
    #[derive(Debug, Clone, Default)]
    struct Held(Arc<Mutex<Vec<SpanData>>>);

    impl SpanExporter for Held {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(batch);
            Ok(())
        }
    }

    fn data() -> SpanData {
        let context = TraceContext::new(1, 1, true).unwrap();
        trace::Span::new("test", SpanKind::Internal, "test", context, None).data_for_test()
    }

    /// Fails while the flag is set.
    #[derive(Debug, Clone, Default)]
    struct Refusing(Arc<std::sync::atomic::AtomicBool>);

    impl SpanExporter for Refusing {
        async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
            if self.0.load(Ordering::Relaxed) {
                return Err(OTelSdkError::InternalFailure("gone".to_owned()));
            }
            Ok(())
        }
    }

    #[test]
    fn after_a_failed_export_no_span_is_created_for_a_while() {
        let exporter = Refusing::default();
        exporter.0.store(true, Ordering::Relaxed);
        let resource = Resource::builder_empty().build();
        let queue = SpanQueue::new(exporter, Cause::default(), &resource);
        assert!(queue.accepts(true));
        queue.put(data);
        let _ = queue.force_flush();
        assert!(!queue.accepts(true));
        queue.put(|| panic!("it must not be created"));
        let then = Instant::now() + PAUSE;
        assert!(!queue.pause.is_active(|| then));
        queue.pause.record(true, Instant::now());
        assert!(queue.accepts(true));
    }

    #[test]
    fn an_exporter_that_hangs_costs_spans_and_no_more_memory_than_the_queue() {
        let exporter = Held::default();
        let sent = exporter.clone();
        let queue = SpanQueue::new(
            exporter,
            Cause::default(),
            &Resource::builder_empty().build(),
        );
        let hanging = sent.0.lock().unwrap();
        let mut made = 0;
        for _ in 0..3 * QUEUE {
            queue.put(|| {
                made += 1;
                data()
            });
        }
        assert_eq!(made, QUEUE);
        drop(hanging);
        queue
            .shutdown_with_timeout(Duration::from_secs(10))
            .unwrap();
        assert_eq!(sent.0.lock().unwrap().len(), QUEUE);
    }
}
