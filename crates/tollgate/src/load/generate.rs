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
        Ok(Self::Made(Box::new(Maker::new(args.users, args.seed))))
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

/// Makes transactions of users who live somewhere, spend mostly little, and now and then do what fraud does.
pub(crate) struct Maker {
    random: SmallRng,
    users: u32,
    run: u64,
    count: u64,
}

impl Maker {
    fn new(users: u32, seed: u64) -> Self {
        // Ids of two runs must differ, or the second would be all duplicates; everything else follows from the seed.
        Self {
            random: SmallRng::seed_from_u64(seed),
            users,
            run: rand::random(),
            count: 0,
        }
    }

    fn next(&mut self) -> String {
        self.count += 1;
        let user = self.random.random_range(0..self.users);
        let fraud = self.random.random_ratio(1, 50);
        let home = (f64::from(user % 120) - 60.0, f64::from(user % 340) - 170.0);
        let distance = if fraud { 9.0 } else { 0.05 };
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
