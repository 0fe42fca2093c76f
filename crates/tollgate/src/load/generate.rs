//! Transactions to send: those of a file, or generated.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Lines};

use anyhow::Context as _;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Map, Value};
use tollgate_types::{Amount, Location, NewTransaction};

use crate::commands::LoadArgs;

/// Where the next transaction comes from.
pub(crate) enum Source {
    File(Lines<BufReader<File>>),
    Made(Box<Maker>),
}

impl Source {
    pub(crate) fn new(args: &LoadArgs) -> anyhow::Result<Self> {
        if let Some(path) = &args.input {
            let file = File::open(path).with_context(|| format!("--input {}", path.display()))?;
            return Ok(Self::File(BufReader::new(file).lines()));
        }
        anyhow::ensure!(args.users > 0, "--users must be at least 1");
        anyhow::ensure!(
            (0.0..=100.0).contains(&args.fraud),
            "--fraud must be from 0 to 100"
        );
        let maker = Maker::new(args.users, args.fraud / 100.0, args.seed);
        Ok(Self::Made(Box::new(maker)))
    }

    /// The next transaction as JSON text; none at the end of the file.
    pub(crate) fn next(&mut self) -> Option<String> {
        match self {
            Self::File(lines) => lines
                .by_ref()
                .map_while(Result::ok)
                .find(|line| !line.trim().is_empty()),
            Self::Made(maker) => Some(maker.next()),
        }
    }
}

/// Half the side of the square, in degrees, in which a user pays. Any two places in it are less than a kilometre apart:
/// farther ones within seconds are an impossible journey, and every second transaction would be an alert.
const NEIGHBOURHOOD: f64 = 0.003;
/// That of a stolen card, in degrees.
const ELSEWHERE: f64 = 9.0;

/// Makes transactions of users who live somewhere, spend mostly little, and now and then do what fraud does.
pub(crate) struct Maker {
    random: SmallRng,
    users: u32,
    /// Share of transactions that are made as fraud: a distant place, and a high or round amount.
    fraud: f64,
    run: u64,
    count: u64,
}

impl Maker {
    fn new(users: u32, fraud: f64, seed: u64) -> Self {
        // Ids of two runs must differ, or the second would be all duplicates; everything else follows from the seed.
        Self {
            random: SmallRng::seed_from_u64(seed),
            users,
            fraud,
            run: rand::random(),
            count: 0,
        }
    }

    fn next(&mut self) -> String {
        self.count += 1;
        let user = self.random.random_range(0..self.users);
        let fraud = self.random.random_bool(self.fraud);
        let home = (f64::from(user % 120) - 60.0, f64::from(user % 340) - 170.0);
        let distance = if fraud { ELSEWHERE } else { NEIGHBOURHOOD };
        let mut near =
            |at: f64| ((at + self.random.random_range(-distance..=distance)) * 1e6).round() / 1e6;
        let location = Location {
            latitude: near(home.0),
            longitude: near(home.1),
        };
        let cents = match (fraud, self.random.random_range(0..100)) {
            (true, 0..50) => self.random.random_range(100_000..600_000),
            (true, _) => 50_000,
            (false, 0..90) => self.random.random_range(100..20_000),
            (false, _) => self.random.random_range(20_000..90_000),
        };
        let transaction = NewTransaction {
            transaction_id: format!("{:016x}-{}", self.run, self.count),
            user_id: format!("user-{user}"),
            amount: Amount::from_ten_thousandths(cents * 100).unwrap_or_default(),
            timestamp: tollgate_service::now(),
            location: Some(location),
            extra: Map::from_iter([
                (
                    "merchant_id".to_owned(),
                    Value::from(format!("merchant-{}", self.random.random_range(0..500))),
                ),
                ("merchant_category".to_owned(), Value::from("grocery_pos")),
                ("currency".to_owned(), Value::from("USD")),
            ]),
        };
        transaction.to_json()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tollgate_engine::{Engine, Origin, Rules};
    use tollgate_types::Transaction;

    use super::*;

    /// Alerts in so many transactions that are made with these options.
    fn alerts(count: usize, fraud: f64) -> usize {
        let mut maker = Maker::new(2_000, fraud, 1);
        let mut engine = Engine::new(Arc::new(Rules::default()), [7; 16]);
        (0..count)
            .filter(|_| {
                let text = maker.next();
                let transaction = Transaction::parse(text.as_bytes()).unwrap();
                let verdict = engine.score(&transaction, &Origin::default());
                verdict.status.is_alert()
            })
            .count()
    }

    #[test]
    fn made_up_transactions_are_mostly_approved_and_the_share_of_fraud_is_an_option() {
        assert!(alerts(20_000, 0.0) < 20);
        let usual = alerts(20_000, 0.005);
        assert!((80..400).contains(&usual), "{usual}");
        assert!(alerts(20_000, 1.0) > 15_000);
    }
}
