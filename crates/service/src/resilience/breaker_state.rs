//! The state of a circuit breaker. After a number of consecutive failures the circuit opens for a while; then a few
//! probes decide whether it closes again. Pure: the time is passed in, and nothing here waits.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::config::ConfigError;

/// A section `breaker`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerConfig {
    /// Consecutive failures after which the circuit opens.
    pub failures: u32,
    /// How long the circuit stays open before probes go through, in milliseconds.
    pub open_ms: u64,
    /// Probes that must succeed before the circuit closes; also the most probes in flight at once.
    pub probes: u32,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            failures: 3,
            open_ms: 1_000,
            probes: 1,
        }
    }
}

impl BreakerConfig {
    /// Checks the ranges. `section` is the path of this section, such as `notifier.breaker`.
    ///
    /// # Errors
    /// Names the invalid setting.
    pub fn validate(&self, section: &str) -> Result<(), ConfigError> {
        let members = [("failures", self.failures), ("probes", self.probes)];
        match members.iter().find(|(_, value)| *value == 0) {
            Some((member, _)) => Err(ConfigError::invalid(
                format!("{section}.{member}"),
                "must be at least 1",
            )),
            None => Ok(()),
        }
    }
}

/// The state of a circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Circuit {
    /// All calls go through.
    Closed,
    /// Only probes go through.
    HalfOpen,
    /// No call goes through.
    Open,
}

/// Whether a call may go through.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Yes. Its outcome must be recorded.
    Admitted(Permit),
    /// Not before this time.
    OpenUntil(Instant),
    /// Not before the probes in flight have ended.
    Probing,
}

/// A call that went through. It belongs to the state in which it was admitted: the outcome of one that was admitted
/// before the last change of the circuit is ignored.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Permit {
    round: u64,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// With an answer, which may be a rejection.
    Answered,
    /// With a failure of the dependency.
    Failed,
    /// The caller dropped it before its end.
    Abandoned,
}

#[derive(Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen { in_flight: u32, passed: u32 },
}

/// The breaker of one dependency.
#[derive(Debug)]
pub(super) struct BreakerState {
    config: BreakerConfig,
    state: State,
    /// Counts the changes of the state.
    round: u64,
}

impl BreakerState {
    /// A closed circuit.
    #[must_use]
    pub(super) const fn new(config: BreakerConfig) -> Self {
        Self {
            config,
            state: State::Closed { failures: 0 },
            round: 0,
        }
    }

    /// The state of the circuit.
    #[must_use]
    pub(super) const fn circuit(&self) -> Circuit {
        match self.state {
            State::Closed { .. } => Circuit::Closed,
            State::Open { .. } => Circuit::Open,
            State::HalfOpen { .. } => Circuit::HalfOpen,
        }
    }

    /// Decides whether a call may go through.
    pub(super) fn admit(&mut self, now: Instant) -> Admission {
        if let State::Open { until } = self.state {
            if now < until {
                return Admission::OpenUntil(until);
            }
            self.change(State::HalfOpen {
                in_flight: 0,
                passed: 0,
            });
        }
        if let State::HalfOpen { in_flight, passed } = &mut self.state {
            if *in_flight + *passed >= self.config.probes {
                return Admission::Probing;
            }
            *in_flight += 1;
        }
        Admission::Admitted(Permit { round: self.round })
    }

    /// Records how an admitted call ended.
    pub(super) fn record(&mut self, permit: &Permit, outcome: Outcome, now: Instant) {
        if permit.round != self.round {
            return;
        }
        match (&mut self.state, outcome) {
            (State::Closed { failures }, Outcome::Answered) => *failures = 0,
            (State::Closed { failures }, Outcome::Failed) => {
                *failures += 1;
                if *failures >= self.config.failures {
                    self.open(now);
                }
            }
            (State::HalfOpen { in_flight, passed }, Outcome::Answered) => {
                *in_flight -= 1;
                *passed += 1;
                if *passed >= self.config.probes {
                    self.change(State::Closed { failures: 0 });
                }
            }
            (State::HalfOpen { .. }, Outcome::Failed) => self.open(now),
            (State::HalfOpen { in_flight, .. }, Outcome::Abandoned) => *in_flight -= 1,
            (State::Closed { .. }, Outcome::Abandoned) | (State::Open { .. }, _) => {}
        }
    }

    fn open(&mut self, now: Instant) {
        let until = now + Duration::from_millis(self.config.open_ms);
        self.change(State::Open { until });
    }

    fn change(&mut self, state: State) {
        self.state = state;
        self.round += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Admit,
        /// Records the outcome of one of the calls in flight, by its index.
        Record(usize, Outcome),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let outcome = prop_oneof![
            Just(Outcome::Answered),
            Just(Outcome::Failed),
            Just(Outcome::Abandoned)
        ];
        prop_oneof![
            3 => Just(Step::Admit),
            3 => (0_usize..8, outcome).prop_map(|(index, outcome)| Step::Record(index, outcome)),
            1 => (0_u64..200).prop_map(Step::Wait),
        ]
    }

    fn config() -> impl Strategy<Value = BreakerConfig> {
        (1_u32..5, 0_u64..100, 1_u32..4).prop_map(|(failures, open_ms, probes)| BreakerConfig {
            failures,
            open_ms,
            probes,
        })
    }

    proptest! {
        #[test]
        fn no_call_goes_through_an_open_circuit_and_no_more_than_the_probes_a_half_open_one(
            config in config(),
            steps in proptest::collection::vec(step(), 1..200),
        ) {
            let mut breaker = BreakerState::new(config.clone());
            let mut now = Instant::now();
            let mut opened = None;
            let mut in_flight: Vec<Permit> = Vec::new();
            for step in steps {
                match step {
                    Step::Wait(ms) => now += Duration::from_millis(ms),
                    Step::Admit => {
                        let before = breaker.circuit();
                        match breaker.admit(now) {
                            Admission::Admitted(permit) => {
                                let waited = opened.is_none_or(|opened| now >= opened + Duration::from_millis(config.open_ms));
                                prop_assert!(before != Circuit::Open || waited);
                                in_flight.push(permit);
                            }
                            Admission::OpenUntil(until) => {
                                prop_assert_eq!(breaker.circuit(), Circuit::Open);
                                prop_assert!(until > now);
                            }
                            Admission::Probing => prop_assert_eq!(breaker.circuit(), Circuit::HalfOpen),
                        }
                    }
                    Step::Record(index, outcome) => {
                        if !in_flight.is_empty() {
                            let permit = in_flight.remove(index % in_flight.len());
                            let before = breaker.circuit();
                            breaker.record(&permit, outcome, now);
                            if breaker.circuit() == Circuit::Open && before != Circuit::Open {
                                prop_assert_eq!(outcome, Outcome::Failed);
                                opened = Some(now);
                            }
                            if breaker.circuit() == Circuit::Closed && before != Circuit::Closed {
                                prop_assert_eq!((before, outcome), (Circuit::HalfOpen, Outcome::Answered));
                            }
                        }
                    }
                }
                if breaker.circuit() == Circuit::HalfOpen {
                    let probes = in_flight.iter().filter(|permit| permit.round == breaker.round).count();
                    prop_assert!(probes <= config.probes as usize);
                }
            }
        }

        #[test]
        fn the_circuit_closes_once_the_dependency_answers_whatever_happened_before(
            config in config(),
            steps in proptest::collection::vec(step(), 0..100),
        ) {
            let mut breaker = BreakerState::new(config.clone());
            let mut now = Instant::now();
            let mut in_flight = Vec::new();
            for step in steps {
                match step {
                    Step::Wait(ms) => now += Duration::from_millis(ms),
                    Step::Admit => {
                        if let Admission::Admitted(permit) = breaker.admit(now) {
                            in_flight.push(permit);
                        }
                    }
                    Step::Record(_, outcome) => {
                        if let Some(permit) = in_flight.pop() {
                            breaker.record(&permit, outcome, now);
                        }
                    }
                }
            }
            // The calls in flight are dropped: an abandoned probe must not hold the circuit half-open.
            for permit in in_flight {
                breaker.record(&permit, Outcome::Abandoned, now);
            }
            now += Duration::from_millis(config.open_ms);
            for _ in 0..config.probes {
                match breaker.admit(now) {
                    Admission::Admitted(permit) => breaker.record(&permit, Outcome::Answered, now),
                    other => prop_assert_eq!((other, breaker.circuit()), (Admission::Probing, Circuit::Closed)),
                }
            }
            prop_assert_eq!(breaker.circuit(), Circuit::Closed);
        }
    }

    #[test]
    fn the_circuit_opens_after_consecutive_failures_only() {
        let mut breaker = BreakerState::new(BreakerConfig::default());
        let now = Instant::now();
        let mut call = |outcome| {
            let Admission::Admitted(permit) = breaker.admit(now) else {
                return Circuit::Open;
            };
            breaker.record(&permit, outcome, now);
            breaker.circuit()
        };
        for outcome in [
            Outcome::Failed,
            Outcome::Failed,
            Outcome::Answered,
            Outcome::Failed,
            Outcome::Failed,
        ] {
            assert_eq!(call(outcome), Circuit::Closed);
        }
        assert_eq!(call(Outcome::Failed), Circuit::Open);
    }
}
