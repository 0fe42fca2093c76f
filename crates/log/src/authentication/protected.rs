//! The headers that a keyed hash covers, taken out of all the headers of a record.

use std::borrow::Cow;

use tollgate_types::headers;

/// Headers that only services write, in the order in which they are hashed. The first three are claims: what they say of a
/// transaction changes how it is decided, and who may learn of it.
const PROTECTED: [&str; 4] = [
    headers::TENANT,
    headers::SENDER,
    headers::BACKFILL,
    headers::REPLY_TO,
];
const CLAIMS: usize = 3;

/// The protected headers of one record, and its hash. A header without a value counts as one with an empty value.
#[derive(Debug, Default)]
pub(super) struct ProtectedHeaders<'a> {
    values: [Option<Cow<'a, [u8]>>; PROTECTED.len()],
    mac: Option<Cow<'a, [u8]>>,
    is_repeated: bool,
}

impl<'a> ProtectedHeaders<'a> {
    pub(super) fn of(all: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) -> Self {
        let mut found = Self::default();
        for (name, value) in all {
            found.add(name, || Cow::Borrowed(value.unwrap_or_default()));
        }
        found
    }

    /// Adds a header that is gone when the call has ended.
    pub(super) fn add_owned(&mut self, name: &str, value: Option<&[u8]>) {
        self.add(name, || Cow::Owned(value.unwrap_or_default().to_vec()));
    }

    fn add(&mut self, name: &str, value: impl FnOnce() -> Cow<'a, [u8]>) {
        let place = if name == headers::MAC {
            &mut self.mac
        } else if let Some(index) = PROTECTED.iter().position(|known| *known == name) {
            &mut self.values[index]
        } else {
            return;
        };
        self.is_repeated |= place.replace(value()).is_some();
    }

    /// The hash that the record carries.
    pub(super) fn mac(&self) -> Option<&[u8]> {
        self.mac.as_deref()
    }

    /// Whether the record has one of these headers, the hash aside.
    pub(super) fn is_any(&self) -> bool {
        self.values.iter().any(Option::is_some)
    }

    /// Whether the record claims a tenant, a sender or backfill.
    pub(super) fn is_claim(&self) -> bool {
        self.values[..CLAIMS].iter().any(Option::is_some)
    }

    /// Whether one of them, or the hash, stands there more than once.
    pub(super) const fn is_repeated(&self) -> bool {
        self.is_repeated
    }

    /// The value of each, in the order in which they are hashed.
    pub(super) fn values(&self) -> impl Iterator<Item = Option<&[u8]>> {
        self.values.iter().map(Option::as_deref)
    }
}
