//! The members of a transaction that are looked at, found in one pass over its text.
//!
//! Seven are read for every transaction. A feature that reads another registers its name in a [`MemberTable`] and finds
//! the value by its [`MemberSlot`], without a second parse. Every other member is skipped over, and stays in the text.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::MAX_DEPTH;
use crate::Rejection;
use crate::headers::TRACEPARENT;

/// The members that are read for every transaction, by the numbers below.
const CORE: [&str; 6] = [
    "transaction_id",
    "user_id",
    "amount",
    "timestamp",
    "location",
    TRACEPARENT,
];
pub(super) const TRANSACTION_ID: usize = 0;
pub(super) const USER_ID: usize = 1;
pub(super) const AMOUNT: usize = 2;
pub(super) const TIMESTAMP: usize = 3;
pub(super) const LOCATION: usize = 4;
pub(super) const TRACE: usize = 5;

/// The member that says in which currency the amount is. It can be registered as well.
const CURRENCY: &str = "currency";

/// The names of further members to be read from each transaction.
#[derive(Debug, Clone, Default)]
pub struct MemberTable {
    names: Vec<Box<str>>,
}

/// Where a registered member stands in every transaction read with its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberSlot(usize);

impl MemberTable {
    /// Registers a member by its name. One registered before keeps its slot. Names of core members, such as `amount`,
    /// have no slot: they are fields of [`Transaction`](super::Transaction).
    pub fn register(&mut self, name: &str) -> Option<MemberSlot> {
        if CORE.contains(&name) {
            return None;
        }
        let slot = self.find(name).unwrap_or(self.names.len());
        if slot == self.names.len() {
            self.names.push(name.into());
        }
        Some(MemberSlot(slot))
    }

    fn find(&self, name: &str) -> Option<usize> {
        // A few names, most of which differ in length: a scan is faster than a hash.
        self.names.iter().position(|known| **known == *name)
    }
}

/// Members that take no allocation.
const INLINE: usize = 8;

/// The values of registered members, as they stand in the text. Up to eight members take no allocation.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Members<'a> {
    inline: [Option<&'a str>; INLINE],
    /// The slots after those.
    spilled: Vec<Option<&'a str>>,
}

impl<'a> Members<'a> {
    fn new(table: &MemberTable) -> Self {
        Self {
            inline: [None; INLINE],
            spilled: vec![None; table.names.len().saturating_sub(INLINE)],
        }
    }

    /// The JSON text of a member; `None` where the transaction has none of that name. Where it is given twice, the
    /// first value.
    #[must_use]
    pub fn get(&self, slot: MemberSlot) -> Option<&'a str> {
        let value = match slot.0.checked_sub(INLINE) {
            None => self.inline.get(slot.0),
            Some(beyond) => self.spilled.get(beyond),
        };
        *value?
    }

    fn slot_mut(&mut self, slot: usize) -> Option<&mut Option<&'a str>> {
        match slot.checked_sub(INLINE) {
            None => self.inline.get_mut(slot),
            Some(beyond) => self.spilled.get_mut(beyond),
        }
    }
}

/// What one pass over a transaction has found.
pub(super) struct Found<'a> {
    pub(super) core: [Option<&'a str>; CORE.len()],
    pub(super) currency: Option<&'a str>,
    pub(super) further: Members<'a>,
}

/// Reads the members of one JSON object.
pub(super) struct MembersSeed<'c> {
    /// The core member whose value is being read, for the error if it is malformed.
    pub(super) reading: &'c Cell<&'static str>,
    pub(super) table: &'c MemberTable,
}

impl<'de> DeserializeSeed<'de> for MembersSeed<'_> {
    type Value = Result<Found<'de>, Rejection>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MembersSeed<'_> {
    type Value = Result<Found<'de>, Rejection>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a transaction as a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut core = [None; CORE.len()];
        let mut further = Members::new(self.table);
        let mut currency = None;
        let mut wrong = None;
        while let Some(member) = map.next_key_seed(NameSeed(self.table))? {
            self.reading.set(match member {
                Member::Core(number) => CORE[number],
                Member::Currency | Member::Further(_) | Member::Other => "",
            });
            let value = map.next_value::<&'de RawValue>()?.get();
            self.reading.set("");
            match member {
                // Any value is accepted here: a trace is no reason to refuse a payment.
                Member::Core(TRACE) => {
                    core[TRACE].get_or_insert(value);
                }
                Member::Core(number) => {
                    // The rest is read all the same: malformed JSON is reported before a wrong member.
                    if core[number].replace(value).is_some() {
                        wrong.get_or_insert_with(|| Rejection::new(CORE[number], "given twice"));
                    }
                    continue;
                }
                Member::Currency => {
                    // Readers would disagree on which one counts, so that none does.
                    currency = Some(if currency.is_some() { "" } else { value });
                    if let Some(slot) = self.table.find(CURRENCY)
                        && let Some(slot) = further.slot_mut(slot)
                    {
                        slot.get_or_insert(value);
                    }
                }
                Member::Further(slot) => {
                    if let Some(slot) = further.slot_mut(slot) {
                        slot.get_or_insert(value);
                    }
                }
                Member::Other => {}
            }
            if too_deep(value) {
                wrong.get_or_insert_with(|| {
                    Rejection::new("", format!("nested deeper than {MAX_DEPTH} levels"))
                });
            }
        }
        let found = Found {
            core,
            currency,
            further,
        };
        Ok(wrong.map_or(Ok(found), Err))
    }
}

/// Reads members up to the transaction_id, and no further.
pub(super) struct FindId<'c, 'a> {
    pub(super) found: &'c Cell<Option<&'a str>>,
}

impl<'de> DeserializeSeed<'de> for FindId<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FindId<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a transaction_id")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let none = MemberTable::default();
        while let Some(member) = map.next_key_seed(NameSeed(&none))? {
            let value = map.next_value::<&'de RawValue>()?.get();
            if matches!(member, Member::Core(TRANSACTION_ID)) {
                self.found.set(Some(value));
                break;
            }
        }
        Ok(())
    }
}

enum Member {
    Core(usize),
    Currency,
    Further(usize),
    Other,
}

struct NameSeed<'c>(&'c MemberTable);

impl<'de> DeserializeSeed<'de> for NameSeed<'_> {
    type Value = Member;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Member, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for NameSeed<'_> {
    type Value = Member;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E>(self, name: &str) -> Result<Member, E> {
        Ok(match name {
            "transaction_id" => Member::Core(TRANSACTION_ID),
            "user_id" => Member::Core(USER_ID),
            "amount" => Member::Core(AMOUNT),
            "timestamp" => Member::Core(TIMESTAMP),
            "location" => Member::Core(LOCATION),
            TRACEPARENT => Member::Core(TRACE),
            CURRENCY => Member::Currency,
            other => self.0.find(other).map_or(Member::Other, Member::Further),
        })
    }
}

/// Whether a JSON value, one level down in its transaction, is nested deeper than [`MAX_DEPTH`].
pub(super) fn too_deep(value: &str) -> bool {
    // Each level takes two bytes, and few values are that long.
    if value.len() < 2 * MAX_DEPTH || !value.starts_with(['{', '[']) {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (1_usize, false, false);
    for byte in value.bytes() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        if depth > MAX_DEPTH {
            return true;
        }
    }
    false
}
