//! [`Origin`]: what the log tells of a transaction beside its text.

use std::num::NonZeroU16;

use siphasher::sip::SipHasher13;

/// How a transaction reached the log. The default is a transaction that came from no log.
#[derive(Debug, Clone, Copy, Default)]
pub struct Origin {
    /// The record's own timestamp, in milliseconds since 1970. Without one the transaction is not counted by its arrival.
    pub timestamp_ms: Option<i64>,
    /// It is an import of past transactions: it builds history, is not counted by its arrival, and may be late.
    pub backfill: bool,
    /// Who sent it, where that is known.
    pub sender: Option<Sender>,
}

/// A fingerprint of a caller. Two callers have the same one with a probability of 1 in 65,535.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender(NonZeroU16);

impl Sender {
    /// The fingerprint of what the header `tollgate-sender` holds; `None` where it is empty.
    #[must_use]
    pub fn from_header(value: &[u8]) -> Option<Self> {
        if value.is_empty() {
            return None;
        }
        // Not keyed: the value is a hash already, and fingerprints in snapshots must be those of every process.
        let [a, b, ..] = SipHasher13::new().hash(value).to_le_bytes();
        let bits = NonZeroU16::new(u16::from_le_bytes([a, b]));
        Some(Self(bits.unwrap_or(NonZeroU16::MIN)))
    }

    /// The fingerprint as a history keeps it: 0 for nobody.
    pub(crate) fn bits(sender: Option<Self>) -> u16 {
        sender.map_or(0, |sender| sender.0.get())
    }
}
