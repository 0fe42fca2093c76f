//! The engine against a slow model that keeps everything and applies the rules of the README literally.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::borrow::Cow;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;
use tollgate_engine::{Engine, Money, Origin, Rules, Sender, Verdict};
use tollgate_types::{
    Amount, Contribution, Currency, Indicator, Location, Members, Rate, Status, Timestamp,
    Transaction,
};

const SECOND: i64 = 1_000_000;
const YEAR: i64 = 365 * 86_400 * SECOND;

/// One transaction and what the model decided on it.
#[derive(Debug, Clone)]
struct Past {
    user: String,
    id: String,
    time: i64,
    amount: i64,
    /// None of the base currency, and where the rules have none.
    currency: Option<&'static str>,
    location: Option<Location>,
    score: f64,
    indicators: Vec<Indicator>,
    status: Status,
    sender: Option<Sender>,
}

struct Model {
    rules: Rules,
    remembered: Vec<Past>,
    /// Users, and when the records arrived that take part in the count by arrival, in milliseconds.
    arrivals: Vec<(String, i64)>,
}

/// Members `currency`, what they mean where the base currency is the euro, and their rates in 10^-12.
const CURRENCIES: [(Option<&str>, Option<&str>, Option<i128>); 7] = [
    (None, None, Some(1_000_000_000_000)),
    (Some("\"eur\""), None, Some(1_000_000_000_000)),
    (Some("\"JPY\""), Some("JPY"), Some(6_150_000_001)),
    (Some("\"kwd\""), Some("KWD"), Some(3_014_999_999_999)),
    (Some("\"KWD \""), Some("KWD"), Some(3_014_999_999_999)),
    (Some("\"XTS\""), Some("XTS"), None),
    (Some("[1]"), Some("[1]"), None),
];

/// The rules' section for them.
fn money(unknown_status: Status) -> Money {
    let rate = |currency, rate| {
        (
            Currency::parse(currency).unwrap(),
            Rate::parse(rate).unwrap(),
        )
    };
    Money {
        base: Currency::parse("EUR").unwrap(),
        rates: [rate("JPY", "0.006150000001"), rate("KWD", "3.014999999999")].into(),
        unknown_status,
    }
}

/// An amount in the base currency in ten-thousandths, half to even.
fn base_of(amount: i64, rate: i128) -> i128 {
    let exact = i128::from(amount) * rate;
    let below = exact.div_euclid(1_000_000_000_000);
    let twice_rest = 2 * exact.rem_euclid(1_000_000_000_000);
    let up = twice_rest > 1_000_000_000_000 || (twice_rest == 1_000_000_000_000 && below % 2 != 0);
    below + i128::from(up)
}

/// Ten-thousandths as a decimal.
fn decimal(value: i128) -> String {
    format!("{}.{:04}", value / 10_000, value % 10_000)
}

struct Judged {
    past: Past,
    contributions: Vec<Contribution>,
    late: bool,
    duplicate: bool,
    conflict: bool,
    foreign: bool,
}

impl Model {
    fn new(rules: Rules) -> Self {
        Self {
            rules,
            remembered: Vec::new(),
            arrivals: Vec::new(),
        }
    }

    /// The number of arrivals of the user in the window that ends with this record, itself included.
    fn arrived(&self, user: &str, record_ms: i64) -> usize {
        let of_user = || self.arrivals.iter().filter(|(who, _)| who == user);
        let latest = of_user().map(|(_, at)| *at).max();
        let r = latest.unwrap_or(record_ms).max(record_ms);
        let window = i64::try_from(self.rules.high_velocity.window_seconds).unwrap() * 1_000;
        1 + of_user()
            .filter(|(_, at)| r - window < *at && *at <= r)
            .count()
    }

    /// The arrival of a transaction that takes part in the count by arrival.
    fn takes_part(&self, transaction: &Transaction<'_>, origin: &Origin) -> Option<i64> {
        let within = i64::from(self.rules.high_velocity.arrival_within_hours) * 3_600 * SECOND;
        origin
            .timestamp_ms
            .filter(|at| !origin.backfill && at * 1_000 - transaction.timestamp.micros() <= within)
    }

    fn place(&self, transaction: &Transaction<'_>) -> Option<Location> {
        let at = transaction.location?;
        let null_island = at.latitude == 0.0 && at.longitude == 0.0;
        (!(null_island && self.rules.geographic_anomaly.null_island)).then_some(at)
    }

    fn lookback(&self) -> i64 {
        let windows = [
            self.rules.high_velocity.window_seconds,
            self.rules.geographic_anomaly.window_seconds,
            self.rules.suspicious_pattern.repeat_window_seconds,
        ];
        let seconds = windows.into_iter().max().unwrap() + self.rules.lateness_seconds;
        i64::try_from(seconds).unwrap() * SECOND
    }

    fn newest(&self, user: &str) -> Option<i64> {
        self.remembered
            .iter()
            .filter(|past| past.user == user)
            .map(|past| past.time)
            .max()
    }

    fn visible(&self, user: &str) -> Vec<&Past> {
        let Some(newest) = self.newest(user) else {
            return Vec::new();
        };
        self.remembered
            .iter()
            .filter(|past| past.user == user && past.time >= newest - self.lookback())
            .collect()
    }

    /// What the currency of a transaction means under the rules, and its rate.
    fn currency(&self, transaction: &Transaction<'_>) -> (Option<&'static str>, Option<i128>) {
        let known = CURRENCIES
            .iter()
            .find(|(raw, ..)| *raw == transaction.currency);
        match (known, &self.rules.money) {
            (Some((_, meaning, rate)), Some(_)) => (*meaning, *rate),
            _ => (None, Some(1_000_000_000_000)),
        }
    }

    /// The rules as the specification words them, over the remembered transactions of the user.
    fn contributions(
        &self,
        transaction: &Transaction<'_>,
        origin: &Origin,
        visible: &[&Past],
        conflict: bool,
    ) -> Vec<Contribution> {
        let time = transaction.timestamp.micros();
        let amount = transaction.amount.ten_thousandths();
        let window = |seconds: u64, t: i64| {
            let micros = i64::try_from(seconds).unwrap() * SECOND;
            time - micros < t && t < time + micros
        };
        let mut contributions = Vec::new();

        let rule = &self.rules.high_velocity;
        let n = 1 + visible
            .iter()
            .filter(|past| window(rule.window_seconds, past.time))
            .count();
        let arrived = self
            .takes_part(transaction, origin)
            .map_or(0, |at| self.arrived(&transaction.user_id, at));
        let n = u32::try_from(n.max(arrived)).unwrap();
        if n >= rule.minimum_count {
            let points = f64::min(rule.points_per_transaction * f64::from(n), rule.cap);
            contributions.push(Contribution {
                count: Some(n),
                ..Contribution::new(Indicator::HIGH_VELOCITY, points)
            });
        }

        let (currency, rate) = self.currency(transaction);
        let base = rate.map(|rate| base_of(amount, rate));
        let amount_base = base
            .filter(|_| self.rules.money.is_some())
            .map(|base| serde_json::from_value(decimal(base).into()).unwrap());
        let rule = &self.rules.high_amount;
        if let Some(base) = base
            && base > i128::from(rule.threshold.ten_thousandths())
        {
            let share = base as f64 / 1e4 / rule.threshold.to_f64();
            let points = f64::min(share * rule.points_per_threshold, rule.cap);
            contributions.push(Contribution {
                amount: Some(transaction.amount),
                amount_base,
                ..Contribution::new(Indicator::HIGH_AMOUNT, points)
            });
        }

        let rule = &self.rules.geographic_anomaly;
        let near = || {
            visible
                .iter()
                .filter(|past| window(rule.window_seconds, past.time))
                .filter(|past| past.location.is_some())
        };
        // The last of the greatest: the later in the log wins.
        let latest = near()
            .filter(|past| past.time <= time)
            .max_by_key(|past| past.time);
        let after = || near().filter(|past| past.time > time);
        let first = after().map(|past| past.time).min();
        let earliest = after().rfind(|past| Some(past.time) == first);
        let mut fastest: Option<(f64, f64)> = None;
        if let Some(here) = self.place(transaction) {
            for past in [latest, earliest].into_iter().flatten() {
                let distance = haversine(past.location.unwrap(), here);
                let between = (time - past.time).abs().max(SECOND);
                let speed = distance / (between as f64 / 3.6e9);
                if distance >= rule.minimum_km && fastest.is_none_or(|(most, _)| speed > most) {
                    fastest = Some((speed, distance));
                }
            }
        }
        if let Some((speed, distance)) = fastest.filter(|(speed, _)| *speed > rule.threshold_kmh) {
            contributions.push(Contribution {
                speed_kmh: Some(speed),
                distance_km: Some(distance),
                ..Contribution::new(
                    Indicator::GEOGRAPHIC_ANOMALY,
                    f64::min(speed / rule.kmh_per_point, rule.cap),
                )
            });
        }

        let rule = &self.rules.suspicious_pattern;
        let repeated = visible
            .iter()
            .filter(|past| window(rule.repeat_window_seconds, past.time))
            .filter(|past| past.amount == amount && past.currency == currency)
            .count();
        // The least power of ten of the currency that is worth more than a tenth of the base.
        let mut power = 1_i128;
        while rate.is_some_and(|rate| rate * power <= 100_000_000_000) {
            power *= 10;
        }
        let n = u32::try_from(repeated + 1).unwrap();
        let multiple = i128::from(rule.round_multiple.ten_thousandths()) * power;
        let minimum = i128::from(rule.round_minimum.ten_thousandths());
        if i128::from(amount) % multiple == 0 && base.is_some_and(|base| base >= minimum) {
            contributions.push(Contribution {
                amount: Some(transaction.amount),
                amount_base,
                ..Contribution::new(Indicator::SUSPICIOUS_PATTERN, rule.round_points)
            });
        } else if n >= rule.repeat_minimum_count {
            let points = f64::min(rule.points_per_repeat * f64::from(n), rule.repeat_cap);
            contributions.push(Contribution {
                count: Some(n),
                amount: Some(transaction.amount),
                amount_base,
                ..Contribution::new(Indicator::SUSPICIOUS_PATTERN, points)
            });
        }
        if conflict {
            let points = self.rules.conflicting_duplicate.points;
            contributions.push(Contribution {
                amount: Some(transaction.amount),
                ..Contribution::new(Indicator::CONFLICTING_DUPLICATE, points)
            });
        }
        if rate.is_none() {
            contributions.push(Contribution {
                amount: Some(transaction.amount),
                ..Contribution::new(Indicator::intern("unknown_currency").unwrap(), 0.0)
            });
        }
        contributions
    }

    fn score(&mut self, transaction: &Transaction<'_>, origin: &Origin) -> Judged {
        let (user, time) = (transaction.user_id.as_ref(), transaction.timestamp.micros());
        let amount = transaction.amount.ten_thousandths();
        let (currency, rate) = self.currency(transaction);
        let visible = self.visible(user);
        let first = visible
            .iter()
            .find(|past| past.id == transaction.transaction_id);
        if let Some(first) = first
            && (first.amount, first.currency) == (amount, currency)
        {
            let past = (*first).clone();
            return Judged {
                foreign: past.sender.is_some() && past.sender != origin.sender,
                past,
                contributions: Vec::new(),
                late: false,
                duplicate: true,
                conflict: false,
            };
        }
        let conflict = first.is_some();
        let late = self
            .newest(user)
            .is_some_and(|newest| time < newest - self.lookback());
        let contributions = self.contributions(transaction, origin, &visible, conflict);
        let mut score = 0.0;
        for contribution in &contributions {
            score += contribution.points;
        }
        let mut status = match score {
            score if score >= self.rules.status.blocked => Status::Blocked,
            score if score >= self.rules.status.review => Status::Review,
            _ => Status::Approved,
        };
        if conflict && status == Status::Approved {
            status = Status::Review;
        }
        if late && !origin.backfill && self.rules.late_status > status {
            status = self.rules.late_status;
        }
        if let (None, Some(money)) = (rate, &self.rules.money) {
            status = status.max(money.unknown_status);
        }
        let past = Past {
            user: user.to_owned(),
            id: transaction.transaction_id.to_string(),
            time,
            amount,
            currency,
            location: self.place(transaction),
            score,
            indicators: contributions.iter().map(|each| each.indicator).collect(),
            status,
            sender: origin.sender,
        };
        if !conflict && let Some(at) = self.takes_part(transaction, origin) {
            self.arrivals.push((user.to_owned(), at));
        }
        if !late && !conflict {
            self.remembered.push(past.clone());
        }
        Judged {
            past,
            contributions,
            late,
            duplicate: false,
            conflict,
            foreign: false,
        }
    }
}

/// With the platform's functions, unlike the engine: close, not equal.
fn haversine(from: Location, to: Location) -> f64 {
    let [lat1, lon1, lat2, lon2] =
        [from.latitude, from.longitude, to.latitude, to.longitude].map(f64::to_radians);
    let a = ((lat2 - lat1) / 2.0).sin().powi(2)
        + lat1.cos() * lat2.cos() * ((lon2 - lon1) / 2.0).sin().powi(2);
    2.0 * a.min(1.0).sqrt().asin() * 6371.0
}

fn close(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(1.0),
        (a, b) => a == b,
    }
}

fn check(verdict: &Verdict, expected: &Judged, step: &str) -> Result<(), TestCaseError> {
    prop_assert_eq!(verdict.late, expected.late, "late, {}", step);
    prop_assert_eq!(verdict.duplicate, expected.duplicate, "duplicate, {}", step);
    prop_assert_eq!(verdict.conflict, expected.conflict, "conflict, {}", step);
    prop_assert_eq!(verdict.foreign, expected.foreign, "foreign, {}", step);
    let indicators: Vec<_> = verdict.indicators.iter().collect();
    prop_assert_eq!(&indicators, &expected.past.indicators, "{}", step);
    prop_assert_eq!(verdict.status, expected.past.status, "{}", step);
    prop_assert!(
        close(Some(verdict.score), Some(expected.past.score)),
        "score, {}",
        step
    );
    prop_assert_eq!(
        verdict.contributions.iter().count(),
        expected.contributions.len()
    );
    for (ours, theirs) in verdict.contributions.iter().zip(&expected.contributions) {
        prop_assert_eq!(ours.indicator, theirs.indicator, "{}", step);
        prop_assert_eq!(ours.count, theirs.count, "{}", step);
        prop_assert_eq!(ours.amount, theirs.amount, "{}", step);
        prop_assert!(
            close(Some(ours.points), Some(theirs.points)),
            "points, {}",
            step
        );
        prop_assert!(close(ours.speed_kmh, theirs.speed_kmh), "speed, {}", step);
        prop_assert!(
            close(ours.distance_km, theirs.distance_km),
            "distance, {}",
            step
        );
    }
    Ok(())
}

/// A time in terms of the rules and of the user's newest transaction, so that boundaries are hit.
#[derive(Debug, Clone, Copy)]
enum When {
    /// This many microseconds after the newest.
    After(i64),
    /// One of the spans of the rules before or after the newest, and so many microseconds beside it.
    Span {
        which: usize,
        before: bool,
        beside: i64,
    },
    /// This part of the lookback before the newest, in thousandths.
    Back(i64),
    /// The time of the n-th last remembered, whoever's it is, and so many seconds beside it.
    Again { nth: usize, beside: i64 },
}

#[derive(Debug, Clone)]
struct Step {
    user: u8,
    /// The id of the n-th last step, and whether with its amount; else one never used.
    repeat: Option<(usize, bool)>,
    when: When,
    amount: i64,
    location: Option<Location>,
    arrival: Option<Arrival>,
    backfill: bool,
    sender: u8,
    currency: usize,
}

/// When a record arrived.
#[derive(Debug, Clone, Copy)]
enum Arrival {
    /// So many milliseconds after the latest of all.
    After(i64),
    /// So many milliseconds after the transaction's own time.
    Beside(i64),
}

fn when() -> impl Strategy<Value = When> {
    prop_oneof![
        8 => select(vec![0, 1, SECOND / 2, SECOND, 2 * SECOND, 7 * SECOND]).prop_map(When::After),
        4 => (0..6_usize, any::<bool>(), -1..=1_i64)
            .prop_map(|(which, before, beside)| When::Span { which, before, beside }),
        3 => (0..1_300_i64).prop_map(When::Back),
        3 => (0..6_usize, -1..=1_i64).prop_map(|(nth, beside)| When::Again { nth, beside }),
        1 => (1..12 * YEAR).prop_map(When::After),
    ]
}

fn location() -> impl Strategy<Value = Option<Location>> {
    let place = |latitude, longitude| {
        Some(Location {
            latitude,
            longitude,
        })
    };
    let six =
        |limit: i32| (-limit..=limit).prop_map(|millionths| f64::from(millionths) / 1_000_000.0);
    prop_oneof![
        2 => Just(None),
        4 => (six(90_000_000), six(180_000_000)).prop_map(move |(lat, lon)| place(lat, lon)),
        1 => (-90.0..=90.0, -180.0..=180.0).prop_map(move |(lat, lon)| place(lat, lon)),
        1 => select(vec![place(90.0, 0.0), place(-90.0, 0.0), place(-0.0, 180.0), place(0.0, -180.0)]),
        1 => select(vec![place(0.0, 0.0), place(-0.0, 0.0), place(0.0, 1e-7), place(0.003, 0.0)]),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let amount = prop_oneof![
        4 => select(vec![0, 1, 125_000, 125_001, 4_999_999, 5_000_000, 10_000_000, 10_000_001]),
        1 => Just(Amount::MAX.ten_thousandths()),
        2 => 0..=Amount::MAX.ten_thousandths(),
    ];
    let repeat = prop_oneof![4 => Just(None), 1 => (0..40_usize, any::<bool>()).prop_map(Some)];
    let arrival = prop_oneof![
        1 => Just(None),
        3 => (0..9_000_i64).prop_map(|ms| Some(Arrival::After(ms))),
        1 => (-30_000..0_i64).prop_map(|ms| Some(Arrival::After(ms))),
        2 => select(vec![0, 1, 3_600_000, 7_200_000, 7_200_001, -7]).prop_map(|ms| Some(Arrival::Beside(ms))),
    ];
    let beside = (
        arrival,
        prop::bool::weighted(0.1),
        0..3_u8,
        0..CURRENCIES.len(),
    );
    (0..3_u8, repeat, when(), amount, location(), beside).prop_map(
        |(user, repeat, when, amount, location, (arrival, backfill, sender, currency))| Step {
            user,
            repeat,
            when,
            amount,
            location,
            arrival,
            backfill,
            sender,
            currency,
        },
    )
}

prop_compose! {
    fn rules()(
        windows in (1..20_u64, 1..20_u64, 1..40_u64),
        lateness_seconds in 0..20_u64,
        counts in (1..5_u32, 1..5_u32),
        amounts in (select(vec![1, 10_000, 4_999_999, 10_000_000]), select(vec![1, 5_000, 1_000_000])),
        weights in (0.0..10.0, 0.0..10.0, 0.1..1e4, 0.0..20.0, 0.0..10.0),
        threshold_kmh in 0.0..1e5,
        statuses in (0.0..50.0, 0.0..50.0, select(Status::ALL.to_vec())),
        (arrival_within_hours, minimum_km, null_island, points) in (0..3_u32, 0.0..2.0, any::<bool>(), 0.0..60.0),
        unknown_status in prop::option::of(select(Status::ALL.to_vec())),
    ) -> Rules {
        let mut rules = Rules::default();
        rules.high_velocity.window_seconds = windows.0;
        rules.geographic_anomaly.window_seconds = windows.1;
        rules.suspicious_pattern.repeat_window_seconds = windows.2;
        rules.lateness_seconds = lateness_seconds;
        rules.high_velocity.minimum_count = counts.0;
        rules.suspicious_pattern.repeat_minimum_count = counts.1;
        rules.high_amount.threshold = Amount::from_ten_thousandths(amounts.0).unwrap();
        rules.suspicious_pattern.round_multiple = Amount::from_ten_thousandths(amounts.1).unwrap();
        rules.high_velocity.points_per_transaction = weights.0;
        rules.high_amount.points_per_threshold = weights.1;
        rules.geographic_anomaly.kmh_per_point = weights.2;
        rules.suspicious_pattern.round_points = weights.3;
        rules.suspicious_pattern.points_per_repeat = weights.4;
        rules.geographic_anomaly.threshold_kmh = threshold_kmh;
        rules.status.review = statuses.0;
        rules.status.blocked = statuses.0 + statuses.1;
        rules.late_status = statuses.2;
        rules.high_velocity.arrival_within_hours = arrival_within_hours;
        rules.geographic_anomaly.minimum_km = minimum_km;
        rules.geographic_anomaly.null_island = null_island;
        rules.conflicting_duplicate.points = points;
        rules.money = unknown_status.map(money);
        rules
    }
}

fn time_of(model: &Model, user: &str, when: When) -> i64 {
    // Before 1970, so that negative times are met.
    let newest = model.newest(user).unwrap_or(-5 * YEAR);
    let seconds = |seconds: u64| i64::try_from(seconds).unwrap() * SECOND;
    match when {
        When::After(micros) => newest + micros,
        When::Span {
            which,
            before,
            beside,
        } => {
            let span = [
                seconds(model.rules.high_velocity.window_seconds),
                seconds(model.rules.geographic_anomaly.window_seconds),
                seconds(model.rules.suspicious_pattern.repeat_window_seconds),
                seconds(model.rules.lateness_seconds),
                model.lookback(),
                0,
            ][which];
            newest + if before { -span } else { span } + beside
        }
        When::Back(thousandths) => newest - model.lookback() / 1_000 * thousandths,
        When::Again { nth, beside } => {
            let past = model
                .remembered
                .iter()
                .rev()
                .filter(|past| past.user == user)
                .nth(nth);
            past.map_or(newest, |past| past.time) + beside * SECOND
        }
    }
}

fn agrees_with_the_model(rules: Rules, steps: &[Step]) -> Result<(), TestCaseError> {
    prop_assert_eq!(rules.validate(), Ok(()));
    let mut engine = Engine::new(Arc::new(rules.clone()), [1; 16]);
    let mut model = Model::new(rules);
    let mut ids: Vec<(String, i64)> = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let user = format!("user {}", step.user);
        let repeated = step
            .repeat
            .and_then(|(nth, same)| Some((ids.iter().rev().nth(nth)?.clone(), same)));
        let (id, amount) = match repeated {
            Some(((id, amount), true)) => (id, amount),
            Some(((id, _), false)) => (id, step.amount),
            None => (format!("transaction {number}"), step.amount),
        };
        ids.push((id.clone(), amount));
        let transaction = Transaction {
            transaction_id: Cow::Owned(id),
            timestamp: Timestamp::from_micros(time_of(&model, &user, step.when)).unwrap(),
            user_id: Cow::Borrowed(&user),
            amount: Amount::from_ten_thousandths(amount).unwrap(),
            location: step.location,
            traceparent: None,
            currency: CURRENCIES[step.currency].0,
            members: Members::default(),
            json: "".into(),
        };
        let time_ms = transaction.timestamp.micros() / 1_000;
        let latest = model.arrivals.iter().map(|(_, at)| *at).max();
        let origin = Origin {
            timestamp_ms: step.arrival.map(|arrival| match arrival {
                Arrival::After(ms) => latest.unwrap_or(time_ms) + ms,
                Arrival::Beside(ms) => time_ms + ms,
            }),
            backfill: step.backfill,
            sender: Sender::from_header(&b"ab"[..usize::from(step.sender)]),
        };
        let expected = model.score(&transaction, &origin);
        check(
            &engine.score(&transaction, &origin),
            &expected,
            &format!("step {number}: {step:?} {transaction:?}"),
        )?;
    }
    let users: Vec<String> = (0..3).map(|user| format!("user {user}")).collect();
    let visible: usize = users.iter().map(|user| model.visible(user).len()).sum();
    prop_assert_eq!(engine.transactions(), visible);
    let seen = users
        .iter()
        .filter(|user| model.newest(user).is_some())
        .count();
    prop_assert_eq!(engine.users(), seen);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn every_verdict_is_that_of_a_model_that_keeps_everything(
        rules in rules(), steps in prop::collection::vec(step(), 1..200),
    ) {
        agrees_with_the_model(rules, &steps)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_user_with_a_long_history_is_scored_as_one_with_a_short_one(
        rules in rules(), mut steps in prop::collection::vec(step(), 1_500..2_000),
    ) {
        // One user, a window that holds hundreds, few jumps.
        let mut rules = rules;
        rules.suspicious_pattern.repeat_window_seconds = 900;
        for step in &mut steps {
            step.user = 0;
            if matches!(step.when, When::After(micros) if micros > YEAR) {
                step.when = When::After(3);
            }
        }
        agrees_with_the_model(rules, &steps)?;
    }

    #[test]
    fn a_history_that_crosses_the_span_of_a_packed_time_keeps_its_entries(
        rules in rules(), mut steps in prop::collection::vec(step(), 20..60),
    ) {
        for step in &mut steps {
            step.user = 0;
            if matches!(step.when, When::After(micros) if micros > YEAR) {
                step.when = When::After(SECOND);
            }
        }
        // Times are packed in 48 bits and count from the first one less the lookback.
        let model = Model::new(rules.clone());
        steps[1].when = When::After((1 << 48) - model.lookback() - 5 * SECOND);
        agrees_with_the_model(rules, &steps)?;
    }
}

fn transaction<'a>(id: &'a str, user: &'a str, seconds: i64, amount: i64) -> Transaction<'a> {
    Transaction {
        transaction_id: Cow::Borrowed(id),
        user_id: Cow::Borrowed(user),
        amount: Amount::from_ten_thousandths(amount).unwrap(),
        timestamp: Timestamp::from_micros(seconds * SECOND).unwrap(),
        location: None,
        traceparent: None,
        currency: None,
        members: Members::default(),
        json: "".into(),
    }
}

#[test]
fn a_b_a_is_one_duplicate_with_the_first_decision_and_no_trace_in_the_history() {
    let mut engine = Engine::new(Arc::new(Rules::default()), [1; 16]);
    let first = engine.score(&transaction("a", "u", 0, 20_000_000), &Origin::default());
    engine.score(&transaction("b", "u", 1, 10_000), &Origin::default());
    let again = engine.score(&transaction("a", "u", 2, 20_000_000), &Origin::default());
    assert!(again.duplicate && !first.duplicate);
    assert_eq!((again.score, again.status), (35.0, Status::Approved));
    assert_eq!(
        (again.score, again.indicators),
        (first.score, first.indicators)
    );
    assert_eq!(again.contributions.iter().count(), 0);
    assert_eq!(engine.transactions(), 2);
    assert!(
        !engine
            .score(&transaction("a", "v", 2, 10_000), &Origin::default())
            .duplicate,
        "ids belong to their user"
    );
}

#[test]
fn an_entry_exactly_at_the_lookback_is_there_and_one_a_microsecond_older_is_not() {
    let lookback = 7 * 86_400 + 3_600;
    for (beyond, duplicate) in [(0, true), (1, false)] {
        let mut engine = Engine::new(Arc::new(Rules::default()), [1; 16]);
        engine.score(&transaction("a", "u", 0, 10_000), &Origin::default());
        let mut newest = transaction("b", "u", lookback, 10_000);
        newest.timestamp = Timestamp::from_micros(newest.timestamp.micros() + beyond).unwrap();
        engine.score(&newest, &Origin::default());
        let again = engine.score(&transaction("a", "u", 0, 10_000), &Origin::default());
        assert_eq!((again.duplicate, again.late), (duplicate, !duplicate));
        assert_eq!(engine.transactions(), if duplicate { 2 } else { 1 });
    }
}

#[test]
fn the_statuses_begin_at_their_thresholds() {
    // Each is high, all but 5001 round; the fifth in five minutes is worth 25 for velocity.
    let mut engine = Engine::new(Arc::new(Rules::default()), [1; 16]);
    for (id, amount, score, status) in [
        ("a", 40_000_000, 55.0, Status::Review),
        ("b", 25_000_000, 40.0, Status::Review),
        ("c", 24_000_000, 39.0, Status::Approved),
        ("d", 50_010_000, 50.0, Status::Review),
        ("e", 50_000_000, 90.0, Status::Blocked),
    ] {
        let verdict = engine.score(&transaction(id, "u", 0, amount), &Origin::default());
        assert_eq!((verdict.score, verdict.status), (score, status), "{id}");
    }
}
