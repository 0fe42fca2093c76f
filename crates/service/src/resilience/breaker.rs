//! A circuit breaker: after some failures in a row nothing is let through for a while, then a few probes decide.
//! Pure: the time is passed in, and nothing here waits.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::config::ConfigError;

/// A section `breaker`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerConfig {
    /// Failures in a row after which the circuit opens.
    pub failures: u32,
    /// How long it stays open before probes go through, in milliseconds.
    pub open_ms: u64,
    /// Probes that must succeed before it closes, and that are under way at once at most.
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
    /// `section` is where it stands, such as `notifier.breaker`.
    ///
    /// # Errors
    /// Names the setting at fault.
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

/// What a breaker does with calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Circuit {
    /// All go through.
    Closed,
    /// Probes go through.
    HalfOpen,
    /// None goes through.
    Open,
}

/// The answer to a call that would go through.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It may, and must be settled.
    Go(Permit),
    /// Not before this time.
    NotBefore(Instant),
    /// Not before the probes that are under way have ended.
    Probing,
}

/// A call that went through. One from before the circuit last changed says nothing of how it is now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Permit {
    round: u64,
}

/// How a call has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// With an answer, whatever it says.
    Answered,
    /// With the dependency at fault.
    Failed,
    /// Nobody waited for the end.
    Abandoned,
}

#[derive(Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen { under_way: u32, passed: u32 },
}

/// The state of one dependency.
#[derive(Debug)]
pub(super) struct Breaker {
    config: BreakerConfig,
    state: State,
    /// Counts changes of the state.
    round: u64,
}

impl Breaker {
    /// Closed.
    #[must_use]
    pub(super) const fn new(config: BreakerConfig) -> Self {
        Self {
            config,
            state: State::Closed { failures: 0 },
            round: 0,
        }
    }

    /// What it does with calls.
    #[must_use]
    pub(super) const fn circuit(&self) -> Circuit {
        match self.state {
            State::Closed { .. } => Circuit::Closed,
            State::Open { .. } => Circuit::Open,
            State::HalfOpen { .. } => Circuit::HalfOpen,
        }
    }

    /// Asks for a call to go through.
    pub(super) fn admit(&mut self, now: Instant) -> Admission {
        if let State::Open { until } = self.state {
            if now < until {
                return Admission::NotBefore(until);
            }
            self.change(State::HalfOpen {
                under_way: 0,
                passed: 0,
            });
        }
        if let State::HalfOpen { under_way, passed } = &mut self.state {
            if *under_way + *passed >= self.config.probes {
                return Admission::Probing;
            }
            *under_way += 1;
        }
        Admission::Go(Permit { round: self.round })
    }

    /// Tells how a call has ended.
    pub(super) fn settle(&mut self, permit: &Permit, ended: Ended, now: Instant) {
        if permit.round != self.round {
            return;
        }
        match (&mut self.state, ended) {
            (State::Closed { failures }, Ended::Answered) => *failures = 0,
            (State::Closed { failures }, Ended::Failed) => {
                *failures += 1;
                if *failures >= self.config.failures {
                    self.open(now);
                }
            }
            (State::HalfOpen { under_way, passed }, Ended::Answered) => {
                *under_way -= 1;
                *passed += 1;
                if *passed >= self.config.probes {
                    self.change(State::Closed { failures: 0 });
                }
            }
            (State::HalfOpen { .. }, Ended::Failed) => self.open(now),
            (State::HalfOpen { under_way, .. }, Ended::Abandoned) => *under_way -= 1,
            (State::Closed { .. }, Ended::Abandoned) | (State::Open { .. }, _) => {}
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
        /// Settles one of those under way, by its index.
        Settle(usize, Ended),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let ended = prop_oneof![
            Just(Ended::Answered),
            Just(Ended::Failed),
            Just(Ended::Abandoned)
        ];
        prop_oneof![
            3 => Just(Step::Admit),
            3 => (0_usize..8, ended).prop_map(|(index, ended)| Step::Settle(index, ended)),
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
        fn nothing_goes_through_while_it_is_open_and_no_more_than_the_probes_while_half_open(
            config in config(),
            steps in proptest::collection::vec(step(), 1..200),
        ) {
            let mut breaker = Breaker::new(config.clone());
            let mut now = Instant::now();
            let mut opened = None;
            let mut under_way: Vec<Permit> = Vec::new();
            for step in steps {
                match step {
                    Step::Wait(ms) => now += Duration::from_millis(ms),
                    Step::Admit => {
                        let before = breaker.circuit();
                        match breaker.admit(now) {
                            Admission::Go(permit) => {
                                let waited = opened.is_none_or(|opened| now >= opened + Duration::from_millis(config.open_ms));
                                prop_assert!(before != Circuit::Open || waited);
                                under_way.push(permit);
                            }
                            Admission::NotBefore(until) => {
                                prop_assert_eq!(breaker.circuit(), Circuit::Open);
                                prop_assert!(until > now);
                            }
                            Admission::Probing => prop_assert_eq!(breaker.circuit(), Circuit::HalfOpen),
                        }
                    }
                    Step::Settle(index, ended) => {
                        if !under_way.is_empty() {
                            let permit = under_way.remove(index % under_way.len());
                            let before = breaker.circuit();
                            breaker.settle(&permit, ended, now);
                            if breaker.circuit() == Circuit::Open && before != Circuit::Open {
                                prop_assert_eq!(ended, Ended::Failed);
                                opened = Some(now);
                            }
                            if breaker.circuit() == Circuit::Closed && before != Circuit::Closed {
                                prop_assert_eq!((before, ended), (Circuit::HalfOpen, Ended::Answered));
                            }
                        }
                    }
                }
                if breaker.circuit() == Circuit::HalfOpen {
                    let probes = under_way.iter().filter(|permit| permit.round == breaker.round).count();
                    prop_assert!(probes <= config.probes as usize);
                }
            }
        }

        #[test]
        fn it_closes_again_whatever_went_before_once_the_dependency_answers(
            config in config(),
            steps in proptest::collection::vec(step(), 0..100),
        ) {
            let mut breaker = Breaker::new(config.clone());
            let mut now = Instant::now();
            let mut under_way = Vec::new();
            for step in steps {
                match step {
                    Step::Wait(ms) => now += Duration::from_millis(ms),
                    Step::Admit => {
                        if let Admission::Go(permit) = breaker.admit(now) {
                            under_way.push(permit);
                        }
                    }
                    Step::Settle(_, ended) => {
                        if let Some(permit) = under_way.pop() {
                            breaker.settle(&permit, ended, now);
                        }
                    }
                }
            }
            // Whatever is under way is given up: a probe that nobody waits for must not hold the circuit half-open.
            for permit in under_way {
                breaker.settle(&permit, Ended::Abandoned, now);
            }
            now += Duration::from_millis(config.open_ms);
            for _ in 0..config.probes {
                match breaker.admit(now) {
                    Admission::Go(permit) => breaker.settle(&permit, Ended::Answered, now),
                    other => prop_assert_eq!((other, breaker.circuit()), (Admission::Probing, Circuit::Closed)),
                }
            }
            prop_assert_eq!(breaker.circuit(), Circuit::Closed);
        }
    }

    #[test]
    fn it_opens_after_so_many_failures_in_a_row_and_no_answer_between_them() {
        let mut breaker = Breaker::new(BreakerConfig::default());
        let now = Instant::now();
        let mut call = |ended| {
            let Admission::Go(permit) = breaker.admit(now) else {
                return Circuit::Open;
            };
            breaker.settle(&permit, ended, now);
            breaker.circuit()
        };
        for ended in [
            Ended::Failed,
            Ended::Failed,
            Ended::Answered,
            Ended::Failed,
            Ended::Failed,
        ] {
            assert_eq!(call(ended), Circuit::Closed);
        }
        assert_eq!(call(Ended::Failed), Circuit::Open);
    }
}
