//! What goes wrong, and when: the same for the same seed. Pure.

use std::time::Duration;

use crate::generate::Random;

/// A program of the deployment, of which there may be several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Program {
    /// `tollgate-ingest`.
    Ingest,
    /// `tollgate-scorer`.
    Scorer,
    /// `tollgate-persistence`.
    Persistence,
    /// `tollgate-notifier`.
    Notifier,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Ingest,
        Self::Scorer,
        Self::Persistence,
        Self::Notifier,
    ];

    /// Its name in [`crate::deployment::Deployment`].
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Scorer => "scorer",
            Self::Persistence => "persistence",
            Self::Notifier => "notifier",
        }
    }

    /// How many run side by side.
    #[must_use]
    pub const fn instances(self) -> usize {
        match self {
            Self::Ingest => 1,
            Self::Scorer | Self::Persistence | Self::Notifier => 2,
        }
    }
}

/// What the services depend on, each behind the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Remote {
    /// The broker.
    Kafka,
    /// The database.
    Postgres,
    /// The receiver of alerts.
    Sink,
}

impl Remote {
    /// The proxy's name for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Postgres => "postgres",
            Self::Sink => "sink",
        }
    }
}

/// How a connection goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Every packet comes late, by so many milliseconds.
    Latency(u32),
    /// Connections are refused, and those there are closed.
    Cut,
    /// Connections stay, and nothing comes through.
    HalfOpen,
    /// So many KiB come through a second.
    SlowDrain(u32),
}

/// What the receiver of alerts does instead of taking them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It answers 500.
    Fails,
    /// It does not answer.
    Hangs,
}

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL, and a new process after the time.
    Kill(Program, usize),
    /// SIGSTOP, and SIGCONT after the time.
    Freeze(Program, usize),
    /// SIGTERM, and a new process once it has ended.
    Restart(Program, usize),
    /// One more instance, stopped with SIGTERM after the time.
    Join(Program),
    /// Trouble on the way.
    Network(Remote, Trouble),
    /// SIGKILL to the broker, and a new process after the time.
    KillBroker,
    /// The database is stopped without a checkpoint, and started after the time.
    KillDatabase,
    /// The receiver of alerts takes none.
    Sink(Refusal),
}

impl Fault {
    /// Whether it kills a process without warning.
    #[must_use]
    pub const fn is_kill(self) -> bool {
        matches!(self, Self::Kill(..) | Self::KillBroker | Self::KillDatabase)
    }

    /// Whether an alert may be on its way twice because of it: it comes between a delivery and the delivery log, or moves
    /// partitions between notifiers.
    #[must_use]
    pub const fn touches_alerts(self) -> bool {
        match self {
            Self::Kill(program, _)
            | Self::Freeze(program, _)
            | Self::Restart(program, _)
            | Self::Join(program) => {
                matches!(program, Program::Notifier)
            }
            // What was not taken is not taken twice.
            Self::Sink(refusal) => matches!(refusal, Refusal::Hangs),
            Self::Network(..) | Self::KillBroker | Self::KillDatabase => true,
        }
    }
}

/// One entry of the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Time since the entry before.
    pub after: Duration,
    /// What goes wrong.
    pub fault: Fault,
    /// How long it lasts.
    pub lasts: Duration,
}

/// An endless schedule.
#[derive(Debug, Clone)]
pub struct Schedule(Random);

impl Schedule {
    /// The schedule of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(Random::new(seed))
    }

    fn millis(&mut self, from: u32, to: u32) -> Duration {
        Duration::from_millis(u64::from(from + self.0.below(to - from)))
    }

    fn instance(&mut self, program: Program) -> usize {
        let count = u32::try_from(program.instances()).unwrap_or(1);
        usize::try_from(self.0.below(count)).unwrap_or_default()
    }

    fn program(&mut self) -> Program {
        match self.0.below(10) {
            0..4 => Program::Scorer,
            4..6 => Program::Persistence,
            6..9 => Program::Notifier,
            _ => Program::Ingest,
        }
    }

    fn consumer(&mut self) -> Program {
        match self.0.below(4) {
            0..2 => Program::Scorer,
            2 => Program::Persistence,
            _ => Program::Notifier,
        }
    }

    fn trouble(&mut self) -> Trouble {
        match self.0.below(4) {
            0 => Trouble::Latency(20 + self.0.below(400)),
            1 => Trouble::Cut,
            2 => Trouble::HalfOpen,
            _ => Trouble::SlowDrain(20 + self.0.below(200)),
        }
    }

    fn remote(&mut self) -> Remote {
        match self.0.below(3) {
            0 => Remote::Kafka,
            1 => Remote::Postgres,
            _ => Remote::Sink,
        }
    }
}

impl Iterator for Schedule {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let after = self.millis(200, 2_500);
        let (fault, lasts) = match self.0.below(100) {
            0..50 => {
                let program = self.program();
                (
                    Fault::Kill(program, self.instance(program)),
                    self.millis(0, 1_500),
                )
            }
            50..58 => {
                let program = self.program();
                // Some longer than a session lasts: the group continues without it, and it comes back with an old assignment.
                let lasts = if self.0.percent(25) {
                    self.millis(11_000, 14_000)
                } else {
                    self.millis(200, 3_000)
                };
                (Fault::Freeze(program, self.instance(program)), lasts)
            }
            58..66 => {
                let program = self.program();
                (
                    Fault::Restart(program, self.instance(program)),
                    self.millis(0, 500),
                )
            }
            66..71 => (Fault::Join(self.consumer()), self.millis(2_000, 6_000)),
            71..87 => (
                Fault::Network(self.remote(), self.trouble()),
                self.millis(300, 5_000),
            ),
            87..90 => (Fault::KillBroker, self.millis(0, 2_000)),
            90..94 => (Fault::KillDatabase, self.millis(0, 2_000)),
            _ => {
                let refusal = if self.0.percent(50) {
                    Refusal::Fails
                } else {
                    Refusal::Hangs
                };
                (Fault::Sink(refusal), self.millis(500, 5_000))
            }
        };
        Some(Entry {
            after,
            fault,
            lasts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_schedule_and_another_seed_another() {
        let of = |seed| Schedule::new(seed).take(500).collect::<Vec<_>>();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn every_kind_of_fault_comes_in_a_long_schedule() {
        let all: Vec<Fault> = Schedule::new(3)
            .take(5_000)
            .map(|entry| entry.fault)
            .collect();
        for program in Program::ALL {
            for instance in 0..program.instances() {
                for fault in [
                    Fault::Kill(program, instance),
                    Fault::Freeze(program, instance),
                    Fault::Restart(program, instance),
                ] {
                    assert!(all.contains(&fault), "{fault:?}");
                }
            }
        }
        for fault in [
            Fault::KillBroker,
            Fault::KillDatabase,
            Fault::Sink(Refusal::Fails),
            Fault::Sink(Refusal::Hangs),
        ] {
            assert!(all.contains(&fault), "{fault:?}");
        }
        for remote in [Remote::Kafka, Remote::Postgres, Remote::Sink] {
            for trouble in [Trouble::Cut, Trouble::HalfOpen] {
                assert!(
                    all.contains(&Fault::Network(remote, trouble)),
                    "{remote:?} {trouble:?}"
                );
            }
        }
        let kills = all.iter().filter(|fault| fault.is_kill()).count();
        assert!(kills > all.len() / 2);
    }
}
