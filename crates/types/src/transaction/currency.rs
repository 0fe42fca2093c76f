//! The member `currency`: the code of the amount's currency. It is optional, and no transaction is refused because of it.

use super::Transaction;
use crate::Currency;

/// The currency that a transaction names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedCurrency {
    /// There is no such member, or it is null or empty.
    Nothing,
    /// A code.
    Code(Currency),
    /// The member is something else, or is given twice.
    Unreadable,
}

impl Transaction<'_> {
    /// The currency that it names.
    #[must_use]
    pub fn named_currency(&self) -> NamedCurrency {
        named(self.currency)
    }

    /// The amount as canonical text, with the code of its currency if it names one: `12.5 EUR`. It tells the payments under
    /// one id apart.
    #[must_use]
    pub fn amount_and_currency(&self) -> String {
        match self.named_currency() {
            NamedCurrency::Code(code) => format!("{} {code}", self.amount),
            NamedCurrency::Nothing | NamedCurrency::Unreadable => self.amount.to_string(),
        }
    }
}

/// Reads the member as it stands in the text.
fn named(raw: Option<&str>) -> NamedCurrency {
    let Some(raw) = raw.filter(|raw| *raw != "null") else {
        return NamedCurrency::Nothing;
    };
    let inner = raw
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let code = match inner {
        None => return NamedCurrency::Unreadable,
        Some("") => return NamedCurrency::Nothing,
        Some(plain) if !plain.contains('\\') => Currency::parse(plain),
        Some(_) => {
            let text = serde_json::from_str::<String>(raw).unwrap_or_default();
            Currency::parse(&text)
        }
    };
    code.map_or(NamedCurrency::Unreadable, NamedCurrency::Code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_currency_is_read_in_every_spelling_of_its_code() {
        let code = NamedCurrency::Code(Currency::parse("EUR").unwrap());
        for (raw, expected) in [
            (None, NamedCurrency::Nothing),
            (Some("null"), NamedCurrency::Nothing),
            (Some("\"\""), NamedCurrency::Nothing),
            (Some("\"EUR\""), code),
            (Some("\"eur\""), code),
            (Some("\" Eur \""), code),
            (Some(r#""E\u0055R""#), code),
            (Some("\"€\""), NamedCurrency::Unreadable),
            (Some(r#""\ud800""#), NamedCurrency::Unreadable),
            (Some("978"), NamedCurrency::Unreadable),
            (Some("[\"EUR\"]"), NamedCurrency::Unreadable),
            (Some("\"EUR/USD\""), NamedCurrency::Unreadable),
            // Given twice.
            (Some(""), NamedCurrency::Unreadable),
        ] {
            assert_eq!(named(raw), expected, "{raw:?}");
        }
    }

    #[test]
    fn payments_in_two_currencies_are_told_apart() {
        for (member, expected) in [
            ("", "12.5"),
            (r#","currency":"eur""#, "12.5 EUR"),
            (r#","currency":"€""#, "12.5"),
            (r#","currency":"EUR","currency":"USD""#, "12.5"),
        ] {
            let text = format!(
                r#"{{"transaction_id":"t","user_id":"u","amount":"12.50","timestamp":"2026-03-01T00:00:00Z"{member}}}"#
            );
            let transaction = Transaction::parse(text.as_bytes()).unwrap();
            assert_eq!(transaction.amount_and_currency(), expected);
        }
    }
}
