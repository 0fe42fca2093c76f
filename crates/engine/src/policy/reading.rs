//! The members of a transaction that policies read, found in its text in one pass.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use tollgate_policy::{MemberType, Money};

/// A member's value as its declared type has it. One that is absent, null or of another type is unknown.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum MemberValue<'t> {
    Unknown,
    Text(Cow<'t, str>),
    Number(f64),
    Money(Money),
    Bool(bool),
}

/// Where members stand: names from the outside in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Paths {
    root: Node,
    count: usize,
}

#[derive(Debug, Clone, Default)]
struct Node {
    children: Vec<(Box<str>, Node)>,
    path: Option<usize>,
}

/// The text of each member. Of one that is given twice readers would take different values, so that none counts.
pub(crate) type Found<'t> = Vec<Text<'t>>;

#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Text<'t> {
    #[default]
    Absent,
    Once(&'t str),
    Twice,
}

impl Paths {
    /// The number of a path such as `card.bin`.
    pub(crate) fn add(&mut self, path: &str) -> usize {
        let mut node = &mut self.root;
        for name in path.split('.') {
            let at = node.children.iter().position(|(each, _)| **each == *name);
            let at = at.unwrap_or_else(|| {
                node.children.push((name.into(), Node::default()));
                node.children.len() - 1
            });
            node = &mut node.children[at].1;
        }
        if node.path.is_none() {
            node.path = Some(self.count);
            self.count += 1;
        }
        node.path.unwrap_or_default()
    }

    /// Finds the members in the text of a transaction.
    pub(crate) fn find<'t>(&self, json: &'t str, found: &mut Found<'t>) {
        found.clear();
        found.resize(self.count, Text::Absent);
        if self.count > 0 {
            self.root.find(json, found);
        }
    }
}

impl Node {
    fn find<'t>(&self, json: &'t str, found: &mut Found<'t>) {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        // The text was parsed before: it is JSON.
        let _ = ObjectSeed { node: self, found }.deserialize(&mut deserializer);
    }

    fn take<'t>(&self, json: &'t str, found: &mut Found<'t>) {
        if let Some(place) = self.path.and_then(|path| found.get_mut(path)) {
            *place = match place {
                Text::Absent => Text::Once(json),
                Text::Once(_) | Text::Twice => Text::Twice,
            };
        }
        if !self.children.is_empty() && json.starts_with('{') {
            self.find(json, found);
        }
    }
}

struct ObjectSeed<'n, 'f, 't> {
    node: &'n Node,
    found: &'f mut Found<'t>,
}

impl<'de> DeserializeSeed<'de> for ObjectSeed<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ObjectSeed<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(child) = map.next_key_seed(NameSeed(self.node))? {
            match child {
                Some(child) => child.take(map.next_value::<&'de RawValue>()?.get(), self.found),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

struct NameSeed<'n>(&'n Node);

impl<'de, 'n> DeserializeSeed<'de> for NameSeed<'n> {
    type Value = Option<&'n Node>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl<'n> Visitor<'_> for NameSeed<'n> {
    type Value = Option<&'n Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        let mut children = self.0.children.iter();
        Ok(children
            .find(|(each, _)| **each == *name)
            .map(|(_, child)| child))
    }
}

/// The value of a member of this type.
pub(crate) fn value<'t>(found: Text<'t>, kind: MemberType) -> MemberValue<'t> {
    let Text::Once(text) = found else {
        return MemberValue::Unknown;
    };
    let value = match kind {
        MemberType::String => string(text).map(MemberValue::Text),
        MemberType::Bool => match text {
            "true" => Some(MemberValue::Bool(true)),
            "false" => Some(MemberValue::Bool(false)),
            _ => None,
        },
        // Negative zero is zero.
        MemberType::Number => number(text).map(|number| MemberValue::Number(number + 0.0)),
        MemberType::Money => money(text).map(MemberValue::Money),
    };
    value.unwrap_or(MemberValue::Unknown)
}

fn string(text: &str) -> Option<Cow<'_, str>> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str(text).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

fn number(text: &str) -> Option<f64> {
    let first = text.bytes().next()?;
    if !first.is_ascii_digit() && first != b'-' {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

fn money(text: &str) -> Option<Money> {
    match string(text) {
        Some(decimal) => Money::parse_decimal(&decimal),
        None => Money::parse_number(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'t>(json: &'t str, path: &str, kind: MemberType) -> MemberValue<'t> {
        let (mut paths, mut found) = (Paths::default(), Vec::new());
        paths.add("other.inner");
        let at = paths.add(path);
        paths.find(json, &mut found);
        value(found[at], kind)
    }

    #[test]
    fn a_member_is_known_where_it_is_once_and_of_its_type() {
        use MemberType::{Bool, Money, Number, String};
        let text = |text: &'static str| MemberValue::Text(text.into());
        for (json, path, kind, expected) in [
            (r#"{"a": "x"}"#, "a", String, text("x")),
            (r#"{"a": "\u0078\n"}"#, "a", String, text("x\n")),
            (r#"{"\u0061": "x"}"#, "a", String, text("x")),
            (r#"{"a": {"b": {"c": "x"}}}"#, "a.b.c", String, text("x")),
            (
                r#"{"a": [{"b": "x"}]}"#,
                "a.b",
                String,
                MemberValue::Unknown,
            ),
            (r#"{"a.b": "x"}"#, "a.b", String, MemberValue::Unknown),
            (r#"{"a": 1}"#, "a", String, MemberValue::Unknown),
            (r#"{"a": "x", "a": "x"}"#, "a", String, MemberValue::Unknown),
            (r#"{"a": 1e2}"#, "a", Number, MemberValue::Number(100.0)),
            (r#"{"a": 1e999}"#, "a", Number, MemberValue::Unknown),
            (r#"{"a": "1"}"#, "a", Number, MemberValue::Unknown),
            (r#"{"a": null}"#, "a", Bool, MemberValue::Unknown),
            (r#"{"a": false}"#, "a", Bool, MemberValue::Bool(false)),
            (r#"{"a": 0}"#, "a", Bool, MemberValue::Unknown),
            (r#"{"a": "1e2"}"#, "a", Money, MemberValue::Unknown),
            (r#"{"a": 0.00001}"#, "a", Money, MemberValue::Unknown),
        ] {
            assert_eq!(read(json, path, kind), expected, "{json}");
        }
        let MemberValue::Number(zero) = read(r#"{"a": -0.0}"#, "a", Number) else {
            panic!("a number");
        };
        assert!(zero.is_sign_positive());
        for json in [r#"{"a": 12.50}"#, r#"{"a": "12.5"}"#, r#"{"a": 125e-1}"#] {
            let MemberValue::Money(money) = read(json, "a", Money) else {
                panic!("{json} is money");
            };
            assert_eq!(money.to_string(), "12.5");
        }
    }
}
