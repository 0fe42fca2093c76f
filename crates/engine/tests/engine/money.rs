//! Amounts of several currencies, by rules with a base currency.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use tollgate_engine::{Engine, Origin, Rules, Verdict};
use tollgate_types::{Indicator, Status, Transaction};

fn rules(money: &str) -> Rules {
    let rules: Rules = serde_json::from_str(&format!(r#"{{"money":{money}}}"#)).unwrap();
    assert_eq!(rules.validate(), Ok(()));
    rules
}

const EURO: &str =
    r#"{"base":"EUR","rates":{"USD":"0.92","JPY":"0.0061","KWD":"3","VND":"0.000036"}}"#;

struct Bank {
    engine: Engine,
    payments: u32,
}

impl Bank {
    fn new(rules: Rules) -> Self {
        Self {
            engine: Engine::new(Arc::new(rules), [7; 16]),
            payments: 0,
        }
    }

    /// A payment with these further members.
    fn pay(&mut self, id: &str, amount: &str, members: &str) -> Verdict {
        self.payments += 1;
        let text = format!(
            r#"{{"transaction_id":"{id}","user_id":"u","amount":"{amount}","timestamp":"2026-03-01T{:02}:00:00Z"{members}}}"#,
            self.payments
        );
        let transaction = Transaction::parse(text.as_bytes()).unwrap();
        self.engine.score(&transaction, &Origin::default())
    }

    /// As [`Bank::pay`], in a currency, under an id of its own.
    fn pays(&mut self, amount: &str, currency: &str) -> Verdict {
        let id = format!("t{}", self.payments);
        self.pay(&id, amount, &format!(r#","currency":"{currency}""#))
    }
}

fn fired(verdict: &Verdict) -> Vec<&'static str> {
    verdict.indicators.iter().map(Indicator::name).collect()
}

#[test]
fn a_lunch_in_yen_is_approved_and_a_car_in_dinar_is_not() {
    let mut bank = Bank::new(rules(EURO));
    let lunch = bank.pays("3000", "JPY");
    assert_eq!((lunch.score, lunch.status), (0.0, Status::Approved));
    // 4,500 euros.
    let car = bank.pays("1500", "KWD");
    assert_eq!(fired(&car), ["high_amount", "suspicious_pattern"]);
    assert_eq!((car.score, car.status), (60.0, Status::Review));
    let high = car.contributions.iter().next().unwrap();
    assert_eq!(high.amount.unwrap().to_string(), "1500");
    assert_eq!(high.amount_base.unwrap().to_string(), "4500");

    let mut without = Bank::new(Rules::default());
    assert_eq!(without.pays("3000", "JPY").status, Status::Review);
    let car = without.pays("1500", "KWD");
    assert_eq!(car.score, 30.0);
    assert!(
        car.contributions
            .iter()
            .all(|each| each.amount_base.is_none())
    );
}

#[test]
fn an_amount_is_round_in_its_own_currency_by_what_is_round_there() {
    let mut bank = Bank::new(rules(EURO));
    for (amount, currency, round) in [
        ("500", "EUR", true),
        ("550", "EUR", false),
        ("600", "USD", true),
        // 459 euros are below the least round amount.
        ("499", "USD", false),
        ("100000", "JPY", true),
        // A multiple of 100 yen is no more round than one of 60 cents.
        ("100300", "JPY", false),
        ("20000000", "VND", true),
        ("20500000", "VND", false),
    ] {
        let verdict = bank.pays(amount, currency);
        let is_round = fired(&verdict).contains(&"suspicious_pattern");
        assert_eq!(is_round, round, "{amount} {currency}");
    }
}

#[test]
fn a_currency_without_a_rate_is_said_and_reviewed_whatever_the_amount() {
    let mut bank = Bank::new(rules(EURO));
    for (number, members) in [
        r#","currency":"ZZZ""#,
        r#","currency":"978""#,
        r#","currency":978"#,
        r#","currency":["EUR"]"#,
        // Readers would disagree on which one counts.
        r#","currency":"JPY","currency":"KWD""#,
    ]
    .into_iter()
    .enumerate()
    {
        let id = number.to_string();
        let verdict = bank.pay(&id, "98765.43", members);
        assert_eq!(fired(&verdict), ["unknown_currency"], "{members}");
        assert_eq!((verdict.score, verdict.status), (0.0, Status::Review));
    }
    let mut lenient = Bank::new(rules(r#"{"base":"EUR","unknown_status":"approved"}"#));
    let verdict = lenient.pays("98765.43", "USD");
    assert_eq!(fired(&verdict), ["unknown_currency"]);
    assert_eq!(verdict.status, Status::Approved);
}

#[test]
fn no_currency_is_the_base_currency() {
    let mut bank = Bank::new(rules(EURO));
    for members in [
        "",
        r#","currency":null"#,
        r#","currency":"""#,
        r#","currency":"eur""#,
    ] {
        let verdict = bank.pay(&format!("t{}", members.len()), "2000.5", members);
        assert_eq!(fired(&verdict)[0], "high_amount", "{members}");
        assert!(verdict.score >= 20.005);
    }
}

#[test]
fn an_id_approved_in_yen_does_not_approve_the_same_number_in_dinar() {
    let mut bank = Bank::new(rules(EURO));
    let yen = bank.pay("t", "900", r#","currency":"JPY""#);
    assert_eq!(yen.status, Status::Approved);
    let again = bank.pay("t", "900.00", r#","currency":"jpy""#);
    assert!(again.duplicate);
    for currency in ["KWD", "EUR", "ZZZ"] {
        let other = bank.pay("t", "900", &format!(r#","currency":"{currency}""#));
        assert!(other.conflict && !other.duplicate, "{currency}");
        assert!(other.status >= Status::Review);
    }
    // Without a base currency, only the amount counts.
    let mut without = Bank::new(Rules::default());
    without.pay("t", "900", r#","currency":"JPY""#);
    assert!(without.pay("t", "900", r#","currency":"KWD""#).duplicate);
}

#[test]
fn an_amount_is_repeated_in_one_currency() {
    let mut bank = Bank::new(rules(EURO));
    for currency in ["JPY", "USD", "KWD", "EUR", "ZZZ"] {
        let verdict = bank.pays("12.34", currency);
        assert!(
            !fired(&verdict).contains(&"suspicious_pattern"),
            "{currency}"
        );
    }
    bank.pays("12.34", "USD");
    let third = bank.pays("12.34", "usd");
    let repeated = third.contributions.iter().next().unwrap();
    assert_eq!(repeated.count, Some(3));
    assert_eq!(repeated.amount_base.unwrap().to_string(), "11.3528");
}

#[test]
fn the_largest_amount_at_the_highest_rate_is_high() {
    let mut bank = Bank::new(rules(r#"{"base":"IDR","rates":{"BTC":"1000000"}}"#));
    let verdict = bank.pays("1000000000000", "BTC");
    assert_eq!(fired(&verdict)[0], "high_amount");
    let high = verdict.contributions.iter().next().unwrap();
    assert_eq!(high.amount_base.unwrap().to_string(), "1000000000000000000");
}

#[test]
fn the_rates_are_part_of_the_version_of_the_rules_however_they_are_written() {
    let version = |money: &str| rules(money).version();
    let one = version(r#"{"base":"EUR","rates":{"USD":"0.92"}}"#);
    assert_ne!(one, Rules::default().version());
    for same in [
        r#"{"base":"eur","rates":{"usd":"0.920"}}"#,
        r#"{"rates":{"USD":0.92},"base":"EUR","unknown_status":"review"}"#,
    ] {
        assert_eq!(version(same), one, "{same}");
    }
    for other in [
        r#"{"base":"EUR","rates":{"USD":"0.921"}}"#,
        r#"{"base":"EUR","rates":{"CAD":"0.92"}}"#,
        r#"{"base":"GBP","rates":{"USD":"0.92"}}"#,
        r#"{"base":"EUR","rates":{"USD":"0.92","CAD":"0.6"}}"#,
        r#"{"base":"EUR","rates":{"USD":"0.92"},"unknown_status":"blocked"}"#,
    ] {
        assert_ne!(version(other), one, "{other}");
    }
}

#[test]
fn what_cannot_be_used_as_money_is_refused() {
    for (money, why) in [
        (r#"{"rates":{}}"#, "base"),
        (r#"{"base":"E R"}"#, "letters and digits"),
        (r#"{"base":"EUR","rates":{"USD":"0"}}"#, "above 0"),
        (
            r#"{"base":"EUR","rates":{"USD":"0.92","usd":"0.93"}}"#,
            "two rates",
        ),
        (r#"{"base":"EUR","rate":{}}"#, "rate"),
    ] {
        let read = serde_json::from_str::<Rules>(&format!(r#"{{"money":{money}}}"#));
        let error = read.unwrap_err().to_string();
        assert!(error.contains(why), "{money}: {error}");
    }
    let own: Rules =
        serde_json::from_str(r#"{"money":{"base":"EUR","rates":{"eur":"1"}}}"#).unwrap();
    assert_eq!(own.validate().unwrap_err().setting, "money.rates");
}
