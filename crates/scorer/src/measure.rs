//! The scorer's metrics, counted in the worker and published once a batch: scoring touches no shared counter.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tollgate_types::{Indicator, Status, Timestamp};

use tollgate_engine::{Engine, Origin, Verdict};

/// Time between two measurements of the size of the histories.
const SIZES_EVERY: Duration = Duration::from_secs(1);
/// One score in this many is timed: reading the clock takes a good part of the time that a score takes.
const TIMED_EVERY: u32 = 32;

pub(crate) struct Measures {
    pub(crate) replayed: u64,
    /// Records that were not replayed because they were signed with an unknown key.
    pub(crate) missed: u64,
    pub(crate) routed: u64,
    by_status: [u64; 3],
    /// The built-in indicators, then others as they fire.
    by_indicator: Vec<IndicatorCount>,
    duplicates: u64,
    late: u64,
    conflicts: u64,
    foreign: u64,
    approximate: u64,
    backfill: u64,
    zero_scores: usize,
    scores: Vec<(Status, f64)>,
    records: u32,
    scored: u32,
    timed: Vec<Duration>,
    /// Milliseconds, and how many records in a row had them: neighbours mostly have the same.
    from_record: Vec<(i64, usize)>,
    from_event: Vec<(i64, usize)>,
    sizes_due: Instant,
    handles: Handles,
}

struct IndicatorCount {
    indicator: Indicator,
    count: u64,
    counter: Counter,
}

impl IndicatorCount {
    fn new(indicator: Indicator) -> Self {
        Self {
            indicator,
            count: 0,
            counter: counter!("tollgate_scorer_indicators_total", "indicator" => indicator.name()),
        }
    }
}

struct Handles {
    replayed: Counter,
    missed: Counter,
    routed: Counter,
    by_status: [Counter; 3],
    duplicates: Counter,
    late: Counter,
    conflicts: Counter,
    foreign: Counter,
    approximate: Counter,
    backfill: Counter,
    score: [Histogram; 3],
    from_record: Histogram,
    from_event: Histogram,
    scoring: Histogram,
    batch: Histogram,
    users: Gauge,
    transactions: Gauge,
    bytes: Gauge,
}

impl Measures {
    pub(crate) fn new(worker: usize) -> Self {
        let worker = worker.to_string();
        Self {
            replayed: 0,
            missed: 0,
            routed: 0,
            by_status: [0; 3],
            by_indicator: Indicator::BUILT_IN.map(IndicatorCount::new).into(),
            duplicates: 0,
            late: 0,
            conflicts: 0,
            foreign: 0,
            approximate: 0,
            backfill: 0,
            zero_scores: 0,
            scores: Vec::new(),
            records: 0,
            scored: 0,
            timed: Vec::new(),
            from_record: Vec::new(),
            from_event: Vec::new(),
            sizes_due: Instant::now(),
            handles: Handles {
                replayed: counter!("tollgate_scorer_replayed_total"),
                missed: counter!("tollgate_scorer_replay_unknown_key_total"),
                routed: counter!("tollgate_scorer_routed_total"),
                by_status: Status::ALL.map(
                    |status| counter!("tollgate_scorer_decisions_total", "status" => status.name()),
                ),
                duplicates: counter!("tollgate_scorer_duplicates_total"),
                late: counter!("tollgate_scorer_late_total"),
                conflicts: counter!("tollgate_scorer_conflicts_total"),
                foreign: counter!("tollgate_scorer_foreign_duplicates_total"),
                approximate: counter!("tollgate_scorer_approximate_total"),
                backfill: counter!("tollgate_scorer_backfill_total"),
                score: Status::ALL.map(
                    |status| histogram!("tollgate_scorer_fraud_score", "status" => status.name()),
                ),
                from_record: histogram!("tollgate_scorer_record_to_decision_seconds"),
                from_event: histogram!("tollgate_scorer_event_to_decision_seconds"),
                scoring: histogram!("tollgate_scorer_scoring_duration_seconds"),
                batch: histogram!("tollgate_scorer_batch_records"),
                users: gauge!("tollgate_scorer_history_users", "worker" => worker.clone()),
                transactions: gauge!("tollgate_scorer_history_transactions", "worker" => worker.clone()),
                bytes: gauge!("tollgate_scorer_history_bytes", "worker" => worker),
            },
        }
    }

    /// The time before a score, where it is one of those that are timed.
    pub(crate) fn begin_scoring(&mut self) -> Option<Instant> {
        self.scored = self.scored.wrapping_add(1);
        self.scored.is_multiple_of(TIMED_EVERY).then(Instant::now)
    }

    pub(crate) fn end_scoring(&mut self, begun: Option<Instant>) {
        self.timed.extend(begun.map(|begun| begun.elapsed()));
    }

    /// Counts a decision, made now, on an event of this time in a record of this origin.
    pub(crate) fn count(
        &mut self,
        verdict: &Verdict,
        event: Timestamp,
        origin: &Origin,
        now: Timestamp,
    ) {
        self.records += 1;
        self.by_status[verdict.status as usize] += 1;
        for indicator in verdict.indicators.iter() {
            self.count_indicator(indicator);
        }
        self.duplicates += u64::from(verdict.duplicate);
        self.late += u64::from(verdict.late);
        self.conflicts += u64::from(verdict.conflict);
        self.foreign += u64::from(verdict.foreign);
        self.approximate += u64::from(verdict.approximate);
        self.backfill += u64::from(origin.backfill);
        // Most scores are zero: they are recorded together.
        if verdict.score > 0.0 || verdict.status != Status::Approved {
            self.scores.push((verdict.status, verdict.score));
        } else {
            self.zero_scores += 1;
        }
        let now_ms = now.micros() / 1_000;
        if let Some(record_ms) = origin.timestamp_ms {
            note(&mut self.from_record, now_ms - record_ms);
        }
        note(&mut self.from_event, now_ms - event.micros() / 1_000);
    }

    fn count_indicator(&mut self, indicator: Indicator) {
        let known = self
            .by_indicator
            .iter_mut()
            .find(|known| known.indicator == indicator);
        match known {
            Some(known) => known.count += 1,
            // A process has a bounded number of indicators, so the label's values are bounded too.
            None => {
                let mut new = IndicatorCount::new(indicator);
                new.count = 1;
                self.by_indicator.push(new);
            }
        }
    }

    /// Publishes what was counted since the last time.
    pub(crate) fn flush(&mut self, engines: &HashMap<i32, Engine>) {
        let publish = |counter: &Counter, count: &mut u64| {
            if *count > 0 {
                counter.increment(std::mem::take(count));
            }
        };
        let handles = &self.handles;
        publish(&handles.replayed, &mut self.replayed);
        publish(&handles.missed, &mut self.missed);
        publish(&handles.routed, &mut self.routed);
        publish(&handles.duplicates, &mut self.duplicates);
        publish(&handles.late, &mut self.late);
        publish(&handles.conflicts, &mut self.conflicts);
        publish(&handles.foreign, &mut self.foreign);
        publish(&handles.approximate, &mut self.approximate);
        publish(&handles.backfill, &mut self.backfill);
        handles
            .by_status
            .iter()
            .zip(&mut self.by_status)
            .for_each(|(counter, count)| publish(counter, count));
        for known in &mut self.by_indicator {
            publish(&known.counter, &mut known.count);
        }
        if self.zero_scores > 0 {
            handles.score[Status::Approved as usize]
                .record_many(0.0, std::mem::take(&mut self.zero_scores));
        }
        self.scores
            .drain(..)
            .for_each(|(status, score)| handles.score[status as usize].record(score));
        for (histogram, latencies) in [
            (&handles.from_record, &mut self.from_record),
            (&handles.from_event, &mut self.from_event),
        ] {
            for (milliseconds, number) in latencies.drain(..) {
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "a duration in seconds is a float"
                )]
                histogram.record_many(milliseconds.max(0) as f64 / 1e3, number);
            }
        }
        self.timed
            .drain(..)
            .for_each(|time| handles.scoring.record(time));
        if self.records > 0 {
            handles.batch.record(std::mem::take(&mut self.records));
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

fn note(latencies: &mut Vec<(i64, usize)>, milliseconds: i64) {
    match latencies.last_mut() {
        Some((same, number)) if *same == milliseconds => *number += 1,
        _ => latencies.push((milliseconds, 1)),
    }
}
