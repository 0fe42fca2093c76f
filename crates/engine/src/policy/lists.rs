//! Lists and suppressions: what changes without a policy.

use std::collections::HashMap;

/// Named sets of strings. An instant is that from which an entry no longer counts, in microseconds since 1970.
#[derive(Debug, Default)]
pub(crate) struct Lists(HashMap<String, Entries>);

pub(crate) type Entries = HashMap<Box<str>, Option<i64>>;

impl Lists {
    pub(crate) fn change<'c>(
        &mut self,
        name: &str,
        remove: impl Iterator<Item = &'c str>,
        add: impl Iterator<Item = (&'c str, Option<i64>)>,
    ) {
        let entries = self.0.entry(name.to_owned()).or_default();
        remove.for_each(|value| {
            entries.remove(value);
        });
        entries.extend(add.map(|(value, expires_at)| (value.into(), expires_at)));
    }

    /// Whether a value counts as an entry of a list for a transaction of this time.
    pub(crate) fn contains(&self, list: &str, value: &str, time: i64) -> bool {
        let entries = self.0.get(list);
        let found = entries.and_then(|entries| entries.get(value));
        found.is_some_and(|expires_at| expires_at.is_none_or(|expires_at| time < expires_at))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Entries)> {
        self.0.iter()
    }
}

/// Until when, exclusively, a rule is off for a user, in microseconds since 1970.
#[derive(Debug, Default)]
pub(crate) struct Suppressions(HashMap<Box<str>, HashMap<Box<str>, i64>>);

impl Suppressions {
    pub(crate) fn set(&mut self, rule: &str, user: &str, until: i64) {
        let rules = self.0.entry(user.into()).or_default();
        rules.insert(rule.into(), until);
    }

    /// Those of a user, by rule.
    pub(crate) fn of(&self, user: &str) -> Option<&HashMap<Box<str>, i64>> {
        self.0.get(user)
    }

    /// Rule, user and instant of each.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str, i64)> {
        self.0.iter().flat_map(|(user, rules)| {
            let rules = rules.iter();
            rules.map(move |(rule, until)| (&**rule, &**user, *until))
        })
    }
}
