//! The scorer's metrics, counted locally and told once a batch: the hot path touches no shared counter.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tollgate_types::{Indicator, Status, Timestamp};

use crate::{Engine, Verdict};

/// Time between two looks at the size of the histories.
const SIZES_EVERY: Duration = Duration::from_secs(1);

pub(crate) struct Measures {
    pub(crate) replayed: u64,
    pub(crate) routed: u64,
    by_status: [u64; 3],
    by_indicator: [u64; 4],
    duplicates: u64,
    late: u64,
    zero_scores: usize,
    scores: Vec<(Status, f64)>,
    oldest_ms: Option<i64>,
    now: Option<Timestamp>,
    sizes_due: Instant,
    handles: Handles,
}

struct Handles {
    replayed: Counter,
    routed: Counter,
    by_status: [Counter; 3],
    by_indicator: [Counter; 4],
    duplicates: Counter,
    late: Counter,
    score: [Histogram; 3],
    latency: Histogram,
    users: Gauge,
    transactions: Gauge,
    bytes: Gauge,
}

impl Measures {
    pub(crate) fn new(worker: usize) -> Self {
        let worker = worker.to_string();
        Self {
            replayed: 0,
            routed: 0,
            by_status: [0; 3],
            by_indicator: [0; 4],
            duplicates: 0,
            late: 0,
            zero_scores: 0,
            scores: Vec::new(),
            oldest_ms: None,
            now: None,
            sizes_due: Instant::now(),
            handles: Handles {
                replayed: counter!("tollgate_scorer_replayed_total"),
                routed: counter!("tollgate_scorer_routed_total"),
                by_status: Status::ALL.map(|status| counter!("tollgate_scorer_decisions_total", "status" => status.name())),
                by_indicator: Indicator::ALL
                    .map(|indicator| counter!("tollgate_scorer_indicators_total", "indicator" => indicator.name())),
                duplicates: counter!("tollgate_scorer_duplicates_total"),
                late: counter!("tollgate_scorer_late_total"),
                score: Status::ALL.map(|status| histogram!("tollgate_scorer_fraud_score", "status" => status.name())),
                latency: histogram!("tollgate_scorer_record_to_decision_seconds"),
                users: gauge!("tollgate_scorer_history_users", "worker" => worker.clone()),
                transactions: gauge!("tollgate_scorer_history_transactions", "worker" => worker.clone()),
                bytes: gauge!("tollgate_scorer_history_bytes", "worker" => worker),
            },
        }
    }

    pub(crate) fn count(&mut self, verdict: &Verdict, record_ms: Option<i64>, now: Timestamp) {
        self.by_status[verdict.status as usize] += 1;
        for indicator in verdict.indicators.iter() {
            self.by_indicator[indicator as usize] += 1;
        }
        self.duplicates += u64::from(verdict.duplicate);
        self.late += u64::from(verdict.late);
        // By far the most have none, and are told at once.
        if verdict.score > 0.0 || verdict.status != Status::Approved {
            self.scores.push((verdict.status, verdict.score));
        } else {
            self.zero_scores += 1;
        }
        if self
            .oldest_ms
            .is_none_or(|oldest| record_ms.is_some_and(|ms| ms < oldest))
        {
            self.oldest_ms = record_ms;
        }
        self.now = Some(now);
    }

    /// Tells what was counted since the last time.
    pub(crate) fn flush(&mut self, engines: &HashMap<i32, Engine>) {
        let tell = |counter: &Counter, count: &mut u64| {
            if *count > 0 {
                counter.increment(std::mem::take(count));
            }
        };
        let handles = &self.handles;
        tell(&handles.replayed, &mut self.replayed);
        tell(&handles.routed, &mut self.routed);
        tell(&handles.duplicates, &mut self.duplicates);
        tell(&handles.late, &mut self.late);
        handles
            .by_status
            .iter()
            .zip(&mut self.by_status)
            .for_each(|(counter, count)| tell(counter, count));
        handles
            .by_indicator
            .iter()
            .zip(&mut self.by_indicator)
            .for_each(|(counter, count)| tell(counter, count));
        if self.zero_scores > 0 {
            handles.score[Status::Approved as usize]
                .record_many(0.0, std::mem::take(&mut self.zero_scores));
        }
        self.scores
            .drain(..)
            .for_each(|(status, score)| handles.score[status as usize].record(score));
        // The oldest record of the batch has waited longest.
        if let (Some(oldest), Some(now)) = (
            self.oldest_ms.take().and_then(Timestamp::from_millis),
            self.now,
        ) {
            #[expect(
                clippy::cast_precision_loss,
                reason = "a duration in seconds is a float"
            )]
            handles.latency.record((now - oldest).max(0) as f64 / 1e6);
        }
        if Instant::now() >= self.sizes_due {
            self.sizes_due = Instant::now() + SIZES_EVERY;
            let sum = |of: fn(&Engine) -> usize| engines.values().map(of).sum::<usize>();
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
            for (gauge, size) in [
                (&handles.users, sum(Engine::users)),
                (&handles.transactions, sum(Engine::transactions)),
                (&handles.bytes, sum(Engine::memory_bytes)),
            ] {
                gauge.set(size as f64);
            }
        }
    }
}
