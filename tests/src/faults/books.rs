//! The balance check of a run: what was accepted, the effects that it must have had, and those that were found. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use tollgate_types::Status;

use crate::offline::{Key, Scored};

/// Largest number of mistakes of each kind that are reported.
const TOLD: usize = 5;
/// A disturbance this short before a delivery may still have separated it from the delivery log.
const SLACK: Duration = Duration::from_secs(2);

/// Everything that was seen of a run.
#[derive(Debug, Clone, Default)]
pub struct Books {
    /// Transactions that ingest or the broker has acknowledged.
    pub accepted: HashSet<Key>,
    /// Records that are no transactions, and that the broker has acknowledged. Each is unlike every other.
    pub poison: HashSet<Vec<u8>>,
    /// What the engine decides on the log, for every record of a key, in log order.
    pub expected: HashMap<Key, Vec<Scored>>,
    /// Every decision on the log.
    pub decided: Vec<(Key, Scored)>,
    /// Keys of the table of transactions, row by row.
    pub transactions: Vec<Key>,
    /// Rows of the table of analyses.
    pub analyses: Vec<(Key, Scored)>,
    /// The dead letters of each stage: their original bytes.
    pub dead_letters: BTreeMap<&'static str, Vec<Vec<u8>>>,
    /// Alerts that the receiver has taken, and when.
    pub deliveries: Vec<(Key, Duration)>,
    /// From when to when an alert may have been on its way twice.
    pub disturbances: Vec<(Duration, Duration)>,
    /// Alerts that may be on their way at once, all notifiers together.
    pub in_flight: usize,
}

/// The sums of books that balance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Transactions and poison that went in.
    pub accepted: usize,
    /// Transactions with their analyses.
    pub stored: usize,
    /// Poison.
    pub dead_lettered: usize,
    /// Alerts, each delivered.
    pub alerts: usize,
    /// Deliveries beyond the first of an alert.
    pub repeated: usize,
    /// Decisions on the log beyond the first of a key.
    pub decided_again: usize,
}

/// Mistakes, by kind.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Imbalance(BTreeMap<&'static str, Vec<String>>);

impl Imbalance {
    fn add(&mut self, kind: &'static str, what: impl fmt::Debug) {
        self.0.entry(kind).or_default().push(format!("{what:?}"));
    }

    /// The kinds of mistakes, for tests of the books.
    #[must_use]
    pub fn kinds(&self) -> Vec<&'static str> {
        self.0.keys().copied().collect()
    }
}

impl fmt::Display for Imbalance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, all) in &self.0 {
            writeln!(f, "{kind}: {}", all.len())?;
            for one in all.iter().take(TOLD) {
                writeln!(f, "  {one}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Imbalance {}

const fn is_alert(scored: &Scored) -> bool {
    matches!(scored.status, Status::Review | Status::Blocked)
}

impl Books {
    /// Balances the books.
    ///
    /// # Errors
    /// Every mistake that was found.
    pub fn balance(&self) -> Result<Totals, Imbalance> {
        let mut wrong = Imbalance::default();
        for key in &self.accepted {
            if !self.expected.contains_key(key) {
                wrong.add("accepted and not on the log", key);
            }
        }
        self.check_decisions(&mut wrong);
        self.check_rows(&mut wrong);
        let dead_lettered = self.check_dead_letters(&mut wrong);
        let (alerts, repeated) = self.check_alerts(&mut wrong);
        let totals = Totals {
            accepted: self.accepted.len() + self.poison.len(),
            stored: self.analyses.len(),
            dead_lettered,
            alerts,
            repeated,
            decided_again: self.decided.len().saturating_sub(self.expected.len()),
        };
        if totals.accepted != totals.stored + totals.dead_lettered {
            wrong.add("accepted is not stored and dead-lettered together", totals);
        }
        if wrong == Imbalance::default() {
            Ok(totals)
        } else {
            Err(wrong)
        }
    }

    /// Every record has its decision, to the bit, whatever was decided again after a crash.
    fn check_decisions(&self, wrong: &mut Imbalance) {
        let mut undecided: HashSet<&Key> = self.expected.keys().collect();
        for (key, scored) in &self.decided {
            undecided.remove(key);
            match self.expected.get(key) {
                None => wrong.add("decided and not on the log", key),
                Some(expected) if !expected.contains(scored) => {
                    wrong.add("decided wrongly", (key, scored, expected))
                }
                Some(_) => {}
            }
        }
        for key in undecided {
            wrong.add("never decided", key);
        }
    }

    /// Every key has one row in both tables: that of its first decision.
    fn check_rows(&self, wrong: &mut Imbalance) {
        let mut transactions = HashSet::new();
        for key in &self.transactions {
            if !transactions.insert(key) {
                wrong.add("stored twice", key);
            }
        }
        let mut analyses = HashMap::new();
        for (key, scored) in &self.analyses {
            if analyses.insert(key, scored).is_some() {
                wrong.add("stored twice", key);
            }
            if !transactions.contains(key) {
                wrong.add("analysis without its transaction", key);
            }
        }
        for (key, expected) in &self.expected {
            match analyses.get(key) {
                None => wrong.add("never stored", key),
                Some(scored) if Some(*scored) != expected.first() => {
                    wrong.add("stored wrongly", (key, scored, expected));
                }
                Some(_) => {}
            }
        }
        for key in analyses
            .keys()
            .filter(|key| !self.expected.contains_key(**key))
        {
            wrong.add("stored and not on the log", key);
        }
        if transactions.len() != analyses.len() {
            wrong.add(
                "rows of the two tables",
                (transactions.len(), analyses.len()),
            );
        }
    }

    /// All poison is dead-lettered, and nothing else: a dependency that is down is no poison. How much.
    fn check_dead_letters(&self, wrong: &mut Imbalance) -> usize {
        let mut found = HashSet::new();
        for (stage, letters) in &self.dead_letters {
            for letter in letters {
                if *stage == "scorer" && self.poison.contains(letter) {
                    found.insert(letter);
                } else {
                    wrong.add(
                        "dead-lettered and no poison",
                        (stage, String::from_utf8_lossy(letter)),
                    );
                }
            }
        }
        for lost in self.poison.iter().filter(|letter| !found.contains(letter)) {
            wrong.add(
                "poison without its dead letter",
                String::from_utf8_lossy(lost),
            );
        }
        found.len()
    }

    /// Every alert was taken, once but for those in flight at a disturbance. The alerts, and the repetitions.
    fn check_alerts(&self, wrong: &mut Imbalance) -> (usize, usize) {
        let mut taken: HashMap<&Key, Vec<Duration>> = HashMap::new();
        for (key, at) in &self.deliveries {
            taken.entry(key).or_default().push(*at);
        }
        let alerts = self
            .expected
            .iter()
            .filter(|(_, all)| all.first().is_some_and(is_alert));
        let mut count = 0;
        for (key, _) in alerts {
            count += 1;
            if !taken.contains_key(key) {
                wrong.add("alert never delivered", key);
            }
        }
        let mut repeated = 0;
        for (key, times) in taken {
            if !self
                .expected
                .get(key)
                .is_some_and(|all| all.iter().any(is_alert))
            {
                wrong.add("delivered and no alert", key);
            }
            for pair in times.windows(2) {
                repeated += 1;
                let (first, second) = (pair[0], pair[1]);
                // In flight when something happened, and repeated after it.
                let excused = self.disturbances.iter().any(|(from, to)| {
                    *from <= second && *from <= first + SLACK && first <= *to + SLACK
                });
                if !excused {
                    wrong.add(
                        "alert delivered twice with nothing amiss",
                        (key, first, second),
                    );
                }
            }
        }
        let most = self.disturbances.len() * self.in_flight;
        if repeated > most {
            wrong.add(
                "more alerts delivered twice than were in flight",
                (repeated, most),
            );
        }
        (count, repeated)
    }
}

#[cfg(test)]
mod tests {
    use tollgate_types::Indicators;

    use super::*;

    fn key(number: usize) -> Key {
        (format!("user-{}", number % 3), format!("t{number}"))
    }

    fn scored(number: usize) -> Scored {
        Scored {
            score_bits: (number as f64).to_bits(),
            indicators: Indicators::default(),
            status: if number.is_multiple_of(4) {
                Status::Blocked
            } else {
                Status::Approved
            },
            late: false,
        }
    }

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A run of 20 transactions and two poison records, with a kill between 10 s and 11 s.
    fn clean() -> Books {
        let all = 0..20;
        Books {
            accepted: all.clone().map(key).collect(),
            poison: HashSet::from([b"{".to_vec(), b"}".to_vec()]),
            expected: all
                .clone()
                .map(|number| (key(number), vec![scored(number)]))
                .collect(),
            // A crash made one decision again.
            decided: all
                .clone()
                .chain([7])
                .map(|number| (key(number), scored(number)))
                .collect(),
            transactions: all.clone().map(key).collect(),
            analyses: all
                .clone()
                .map(|number| (key(number), scored(number)))
                .collect(),
            dead_letters: BTreeMap::from([(
                "scorer",
                vec![b"{".to_vec(), b"}".to_vec(), b"}".to_vec()],
            )]),
            deliveries: all
                .filter(|number| number.is_multiple_of(4))
                .map(|number| (key(number), at(9)))
                .collect(),
            disturbances: vec![(at(10), at(11))],
            in_flight: 2,
        }
    }

    fn kinds(change: impl FnOnce(&mut Books)) -> Vec<&'static str> {
        let mut books = clean();
        change(&mut books);
        books.balance().unwrap_err().kinds()
    }

    #[test]
    fn books_of_a_clean_run_balance() {
        let totals = clean().balance().unwrap();
        let expected = Totals {
            accepted: 22,
            stored: 20,
            dead_lettered: 2,
            alerts: 5,
            repeated: 0,
            decided_again: 1,
        };
        assert_eq!(totals, expected);
    }

    #[test]
    fn a_planted_loss_is_caught_wherever_it_is() {
        assert!(
            kinds(|books| drop(books.expected.remove(&key(3))))
                .contains(&"accepted and not on the log")
        );
        assert_eq!(
            kinds(|books| books.decided.retain(|(each, _)| *each != key(3))),
            ["never decided"]
        );
        let lost = kinds(|books| {
            books.analyses.retain(|(each, _)| *each != key(3));
            books.transactions.retain(|each| *each != key(3));
        });
        assert_eq!(
            lost,
            [
                "accepted is not stored and dead-lettered together",
                "never stored"
            ]
        );
        assert_eq!(
            kinds(|books| books.transactions.truncate(19)),
            ["analysis without its transaction", "rows of the two tables"]
        );
        let letter = kinds(|books| books.dead_letters.get_mut("scorer").unwrap().truncate(1));
        assert_eq!(
            letter,
            [
                "accepted is not stored and dead-lettered together",
                "poison without its dead letter"
            ]
        );
        assert_eq!(
            kinds(|books| books.deliveries.truncate(4)),
            ["alert never delivered"]
        );
    }

    #[test]
    fn a_planted_duplicate_is_caught_wherever_it_is() {
        let twice = kinds(|books| books.analyses.push((key(3), scored(3))));
        assert_eq!(
            twice,
            [
                "accepted is not stored and dead-lettered together",
                "stored twice"
            ]
        );
        assert_eq!(
            kinds(|books| books.transactions.push(key(3))),
            ["stored twice"]
        );
        let foreign = kinds(|books| books.deliveries.push((key(3), at(9))));
        assert_eq!(foreign, ["delivered and no alert"]);
        // Both before the kill.
        let again = kinds(|books| books.deliveries.push((key(4), at(9))));
        assert_eq!(again, ["alert delivered twice with nothing amiss"]);
        // Long after it.
        let again = kinds(|books| {
            books
                .deliveries
                .extend([(key(8), at(20)), (key(8), at(21))])
        });
        assert_eq!(again, ["alert delivered twice with nothing amiss"]);
        // More than a kill can have had in flight.
        let again = kinds(|books| {
            books
                .deliveries
                .extend([4, 8, 12].map(|number| (key(number), at(12))))
        });
        assert_eq!(again, ["more alerts delivered twice than were in flight"]);
    }

    #[test]
    fn alerts_that_a_notifier_without_a_memory_sends_again_are_caught() {
        let again = kinds(|books| {
            let early = books.deliveries.iter().map(|(key, _)| (key.clone(), at(2)));
            let late = books
                .deliveries
                .iter()
                .map(|(key, _)| (key.clone(), at(12)));
            books.deliveries = early.chain(late).collect();
            books.in_flight = 100;
        });
        assert_eq!(again, ["alert delivered twice with nothing amiss"]);
    }

    #[test]
    fn an_alert_in_flight_at_a_kill_may_come_twice() {
        let mut books = clean();
        books
            .deliveries
            .extend([4, 8].map(|number| (key(number), at(12))));
        assert_eq!(books.balance().unwrap().repeated, 2);
    }

    #[test]
    fn a_planted_wrong_score_is_caught_wherever_it_is() {
        let mut near = scored(3);
        near.score_bits += 1;
        assert_eq!(
            kinds(|books| books.decided.push((key(3), near.clone()))),
            ["decided wrongly"]
        );
        let stored = kinds(|books| {
            books
                .analyses
                .iter_mut()
                .filter(|(each, _)| *each == key(3))
                .for_each(|row| row.1 = near.clone())
        });
        assert_eq!(stored, ["stored wrongly"]);
    }

    #[test]
    fn what_is_no_poison_and_dead_lettered_is_caught() {
        let letter = kinds(|books| {
            drop(
                books
                    .dead_letters
                    .insert("persistence", vec![b"a decision".to_vec()]),
            )
        });
        assert_eq!(letter, ["dead-lettered and no poison"]);
    }
}
