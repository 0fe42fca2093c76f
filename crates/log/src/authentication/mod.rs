//! Keyed hashes over what services write to each other, so that access to a topic is not enough to write decisions, alerts,
//! replies or the journal of imports, or to claim a tenant, a sender or backfill for a transaction.
//!
//! The header `tollgate-mac` is `ID:HASH`: the id of a key, and HMAC-SHA-256 in unpadded base64url over an unambiguous
//! encoding of the kind of the topic, the key, the payload and the protected headers. Other headers, `traceparent` among
//! them, are free, so that a dead letter that is redriven keeps its hash. Partition, offset and time are not covered: a
//! record can be written again, which has no effect, since every effect is idempotent.
//!
//! Invariant: [`Authenticator::sign`] and [`Authenticator::check`] encode a record in the same way, in [`encode`] alone.

mod config;
mod protected;

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tollgate_types::{Stage, TopicKind, headers};

use crate::record::{LogRecord, RawRecord};
use crate::{Log, ProducerRecord, Record};

pub use config::{AuthenticationConfig, AuthenticationMode, MacKey};
use protected::ProtectedHeaders;

/// Keeps these hashes apart from any other use of the same key.
const DOMAIN: &[u8] = b"tollgate-mac 1\0";

/// Who wrote a record, as far as its hash tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provenance {
    /// A service of this installation: all of its headers may be believed.
    Service,
    /// Anybody who may write transactions. It claims no tenant, no sender and no backfill; a header `reply-to` is to be
    /// ignored.
    Foreign,
}

/// Why a record is not believed to be of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unauthenticated {
    /// It is not signed, although records of this topic, or with such headers, are.
    #[error("the record has no header tollgate-mac, which a service would have written")]
    Unsigned,
    /// The header is not of the expected form.
    #[error("the header tollgate-mac is malformed")]
    Malformed,
    /// No configured key has this id.
    #[error("the header tollgate-mac names a key that is not in kafka.authentication.keys")]
    UnknownKey,
    /// The hash is of another record, or of another key.
    #[error("the header tollgate-mac does not match the record")]
    Mismatch,
    /// Services write each of these headers once at most; readers could disagree on which one counts.
    #[error("a header that only services write is repeated")]
    Repeated,
}

impl Unauthenticated {
    /// The failure's class in metrics and dead letters.
    pub const KIND: &'static str = "unauthenticated";
}

/// The keys of an installation, ready for use.
pub(crate) struct Authenticator {
    /// The first signs.
    keys: Vec<(String, Hmac<Sha256>)>,
    /// Whether what fails is refused, or only counted.
    is_enforced: bool,
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<&str> = self.keys.iter().map(|(id, _)| id.as_str()).collect();
        f.debug_struct("Authenticator")
            .field("keys", &ids)
            .field("is_enforced", &self.is_enforced)
            .finish()
    }
}

impl Authenticator {
    /// None where nothing is signed: the mode is `off`, or there are no keys.
    pub(crate) fn new(config: &AuthenticationConfig) -> Option<Self> {
        if config.mode == AuthenticationMode::Off || config.keys.is_empty() {
            return None;
        }
        let keys = config.keys.iter().filter_map(|key| {
            // HMAC takes keys of any length.
            let mac = Hmac::new_from_slice(key.secret.expose().as_bytes()).ok()?;
            Some((key.id.clone(), mac))
        });
        Some(Self {
            keys: keys.collect(),
            is_enforced: config.mode == AuthenticationMode::Required,
        })
    }

    /// The value of the header `tollgate-mac` of a record; none where records like it are not signed: transactions that
    /// claim nothing. A dead letter is signed as what it is when it is redriven.
    pub(crate) fn sign(&self, kind: TopicKind, record: &ProducerRecord<'_>) -> Option<String> {
        let kind = match kind {
            TopicKind::DeadLetters(Stage::Scorer) => TopicKind::Transactions,
            TopicKind::DeadLetters(Stage::Persistence) => TopicKind::Decisions,
            TopicKind::DeadLetters(Stage::Notifier) => TopicKind::Alerts,
            other => other,
        };
        let protected = ProtectedHeaders::of(record.headers.iter().copied());
        if kind == TopicKind::Transactions && !protected.is_any() {
            return None;
        }
        let (id, mac) = self.keys.first()?;
        let mac = encode(mac.clone(), kind, record.key, record.payload, &protected);
        let hash = BASE64URL_NOPAD.encode(&mac.finalize().into_bytes());
        Some(format!("{id}:{hash}"))
    }

    fn check(
        &self,
        kind: TopicKind,
        key: Option<&[u8]>,
        payload: &[u8],
        protected: &ProtectedHeaders<'_>,
    ) -> Result<Provenance, Unauthenticated> {
        let Some(given) = protected.mac() else {
            let is_open = kind == TopicKind::Transactions && !protected.is_claim();
            return match is_open {
                true => Ok(Provenance::Foreign),
                false => Err(Unauthenticated::Unsigned),
            };
        };
        if protected.is_repeated() {
            return Err(Unauthenticated::Repeated);
        }
        let separator = given.iter().position(|byte| *byte == b':');
        let (id, hash) = separator
            .map(|at| (&given[..at], &given[at + 1..]))
            .ok_or(Unauthenticated::Malformed)?;
        let hash = BASE64URL_NOPAD
            .decode(hash)
            .map_err(|_| Unauthenticated::Malformed)?;
        let known = self.keys.iter().find(|(known, _)| known.as_bytes() == id);
        let (_, mac) = known.ok_or(Unauthenticated::UnknownKey)?;
        // Compares in constant time.
        encode(mac.clone(), kind, key, payload, protected)
            .verify_slice(&hash)
            .map(|()| Provenance::Service)
            .map_err(|_| Unauthenticated::Mismatch)
    }

    fn admit(
        &self,
        kind: TopicKind,
        key: Option<&[u8]>,
        payload: &[u8],
        protected: &ProtectedHeaders<'_>,
    ) -> Result<Provenance, Unauthenticated> {
        let checked = self.check(kind, key, payload, protected);
        let Err(error) = checked else { return checked };
        metrics::counter!("tollgate_log_unauthenticated_total", "topic" => kind.name())
            .increment(1);
        match self.is_enforced {
            true => Err(error),
            false => Ok(Provenance::Service),
        }
    }
}

/// Feeds a record to the hash: each part behind its length, so that no two records are encoded alike.
fn encode(
    mut mac: Hmac<Sha256>,
    kind: TopicKind,
    key: Option<&[u8]>,
    payload: &[u8],
    protected: &ProtectedHeaders<'_>,
) -> Hmac<Sha256> {
    let mut part = |value: Option<&[u8]>| match value {
        None => mac.update(&[0]),
        Some(value) => {
            mac.update(&[1]);
            mac.update(&(value.len() as u64).to_le_bytes());
            mac.update(value);
        }
    };
    part(Some(DOMAIN));
    part(Some(kind.name().as_bytes()));
    part(key);
    part(Some(payload));
    for value in protected.values() {
        part(value);
    }
    mac
}

impl Log {
    /// Checks that a service wrote this record, which was read from the topic of this kind. A transaction that claims
    /// nothing may be of anybody. Where nothing is signed, everything is believed.
    ///
    /// # Errors
    /// Why the record is not believed. It is counted already; the reader dead-letters it, or drops it.
    pub fn authenticate(
        &self,
        kind: TopicKind,
        record: &Record<'_>,
    ) -> Result<Provenance, Unauthenticated> {
        let Some(authenticator) = self.authenticator() else {
            return Ok(Provenance::Service);
        };
        let protected = ProtectedHeaders::of(record.headers.iter());
        authenticator.admit(kind, record.key, record.payload, &protected)
    }

    /// As [`Log::authenticate`], for a record in memory of its own.
    ///
    /// # Errors
    /// Why the record is not believed.
    pub fn authenticate_owned(
        &self,
        kind: TopicKind,
        record: &LogRecord,
    ) -> Result<Provenance, Unauthenticated> {
        let Some(authenticator) = self.authenticator() else {
            return Ok(Provenance::Service);
        };
        let all = record.headers.iter();
        let protected = all.map(|(name, value)| (name.as_str(), value.as_deref()));
        let protected = ProtectedHeaders::of(protected);
        authenticator.admit(kind, record.key.as_deref(), &record.payload, &protected)
    }

    /// As [`Log::authenticate`], for a record of a [`TopicReader`](crate::TopicReader).
    ///
    /// # Errors
    /// Why the record is not believed.
    pub fn authenticate_raw(
        &self,
        kind: TopicKind,
        record: &RawRecord<'_>,
    ) -> Result<Provenance, Unauthenticated> {
        let Some(authenticator) = self.authenticator() else {
            return Ok(Provenance::Service);
        };
        let mut protected = ProtectedHeaders::default();
        record
            .headers
            .for_each(&mut |name, value| protected.add_owned(name, value));
        authenticator.admit(kind, record.key, record.payload, &protected)
    }
}

/// The headers of a record with the hash behind them, and without any other hash.
pub(crate) fn with_mac<'a>(
    headers: &[(&'a str, Option<&'a [u8]>)],
    mac: &'a str,
) -> Vec<(&'a str, Option<&'a [u8]>)> {
    let others = headers.iter().filter(|(name, _)| *name != headers::MAC);
    let mac = (headers::MAC, Some(mac.as_bytes()));
    others.copied().chain([mac]).collect()
}

#[cfg(test)]
mod tests;
