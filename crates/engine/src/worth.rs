//! What an amount is worth: the thresholds compare amounts in the base currency, if the rules have one.
//!
//! Invariant: without a base currency the amount alone counts, and the `currency` of a transaction is not looked at.

use std::hash::Hasher as _;
use std::sync::Arc;

use siphasher::sip::SipHasher13;
use tollgate_types::{Amount, BaseAmount, Indicator, NamedCurrency, Rate, Status, Transaction};

use crate::rules::{Money, Rules};

/// Converts amounts by the rates of the rules.
pub(crate) struct Valuation {
    rules: Arc<Rules>,
    /// Reported where the currency has no rate. None where the process has no room for another name.
    unknown: Option<Indicator>,
}

/// The amount of a transaction as the checks compare it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Worth {
    /// In the base currency. None where the currency has no rate: then no threshold is compared.
    pub(crate) base: Option<BaseAmount>,
    /// The same, where the rules have a base currency, for the decision.
    pub(crate) reported: Option<BaseAmount>,
    /// Round amounts of the currency are multiples of so many times the setting.
    pub(crate) power_of_ten: u64,
    /// What the history remembers: equal for equal amounts of one currency, and for no others.
    pub(crate) remembered: Amount,
}

impl Worth {
    pub(crate) const fn is_unknown(&self) -> bool {
        self.base.is_none()
    }
}

impl Valuation {
    pub(crate) fn new(rules: Arc<Rules>) -> Self {
        let unknown = rules.money.as_ref();
        Self {
            unknown: unknown.and_then(|_| Indicator::intern("unknown_currency").ok()),
            rules,
        }
    }

    fn money(&self) -> Option<&Money> {
        self.rules.money.as_ref()
    }

    /// What the amount is worth. `hasher` is that of the ids, whose key is secret: nobody can find amounts of two currencies
    /// that are remembered alike.
    pub(crate) fn of(&self, transaction: &Transaction<'_>, hasher: &SipHasher13) -> Worth {
        let amount = transaction.amount;
        let own = Worth {
            base: Some(amount.into()),
            reported: None,
            power_of_ten: 1,
            remembered: amount,
        };
        let Some(money) = self.money() else {
            return own;
        };
        let (rate, remembered) = match transaction.named_currency() {
            NamedCurrency::Nothing => (Some(Rate::ONE), amount),
            NamedCurrency::Code(code) if code == money.base => (Some(Rate::ONE), amount),
            NamedCurrency::Code(code) => (
                money.rate(code),
                remembered(amount, code.as_str().as_bytes(), hasher),
            ),
            NamedCurrency::Unreadable => {
                let text = transaction.currency.unwrap_or_default();
                // No code has a quotation mark, a bracket or no character.
                (None, remembered(amount, text.as_bytes(), hasher))
            }
        };
        let base = rate.map(|rate| rate.convert(amount));
        Worth {
            base,
            reported: base,
            power_of_ten: rate.map_or(1, Rate::power_of_ten),
            remembered,
        }
    }

    /// The indicator of a currency without a rate.
    pub(crate) fn unknown(&self, worth: &Worth) -> Option<Indicator> {
        self.unknown.filter(|_| worth.is_unknown())
    }

    /// The mildest status of a transaction.
    pub(crate) fn least_status(&self, worth: &Worth) -> Status {
        match self.money() {
            Some(money) if worth.is_unknown() => money.unknown_status,
            _ => Status::Approved,
        }
    }
}

/// An amount of another currency as the history remembers it: the room is that of an amount alone, so it is a keyed hash of
/// both. Two are taken for the same with a probability of 1 in 10^16.
fn remembered(amount: Amount, currency: &[u8], hasher: &SipHasher13) -> Amount {
    let mut hasher = *hasher;
    hasher.write(&amount.ten_thousandths().to_le_bytes());
    hasher.write(currency);
    let range = Amount::MAX.ten_thousandths().unsigned_abs() + 1;
    i64::try_from(hasher.finish() % range)
        .ok()
        .and_then(Amount::from_ten_thousandths)
        .unwrap_or(amount)
}
