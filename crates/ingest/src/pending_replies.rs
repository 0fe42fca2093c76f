//! Requests that wait for decisions, by tenant, user and transaction.
//!
//! Invariants: the entries of a request are removed when it ends, for whatever reason, so that the registry cannot grow
//! beyond the requests in flight. A reply is delivered only to a request that gave out its nonce, for a transaction of that
//! request: who has not seen the request cannot answer it. At most [`MAX_WAITERS_PER_ID`] wait for one id, so that each step costs the same
//! whatever ids a caller sends. No lock covers more than one id.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use metrics::gauge;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::mpsc;
use tollgate_types::{ErrorReply, ErrorStatus, Tenant};

/// How many may wait for one id, over all requests. Sending an id more than once is for repetitions after an answer
/// that did not arrive.
pub(crate) const MAX_WAITERS_PER_ID: usize = 100;
/// Parts of the registry, each with its own lock.
const SHARDS: usize = 64;

/// A reply to one transaction of a request.
#[derive(Debug)]
struct Arrived {
    /// The position of the transaction among those that the request waits for.
    index: usize,
    text: Box<RawValue>,
    is_error: bool,
}

/// The registry of requests that wait for decisions. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct PendingReplies(Arc<Registry>);

#[derive(Debug)]
struct Registry {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
}

/// Waiters for equal ids are served in the order in which they were registered.
type Shard = HashMap<String, VecDeque<Waiter>>;

#[derive(Debug)]
struct Waiter {
    nonce: u128,
    index: usize,
    replies: mpsc::UnboundedSender<Arrived>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
        }
    }
}

impl Registry {
    fn shard(&self, key: &str) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one(key);
        let shard = usize::try_from(hash % SHARDS as u64).unwrap_or_default();
        self.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Unambiguous, since ids do not contain U+0000.
fn key_of(tenant: Tenant<'_>, user_id: &str, transaction_id: &str) -> String {
    let tenant = tenant.name();
    format!("{tenant}\0{user_id}\0{transaction_id}")
}

impl PendingReplies {
    /// Registers a waiter for each `(user_id, transaction_id)` of the tenant. The index of a decision is the position of its ids.
    /// Where too many wait for an id already, an error stands in the decision's place at once.
    ///
    /// Call it before the transactions are produced: a decision may arrive before the acknowledgement.
    pub(crate) fn register<'a>(
        &self,
        tenant: Tenant<'_>,
        ids: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> AwaitedDecisions {
        // Of a cryptographic generator, so that it identifies the request too.
        let nonce = rand::random();
        // Bounded by the number of waiters, each of which sends at most once.
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut awaited = AwaitedDecisions {
            decisions: Vec::new(),
            missing: 0,
            errors: 0,
            refused: Vec::new(),
            receiver,
            nonce,
            keys: Vec::new(),
            pending: self.clone(),
        };
        for (index, (user_id, transaction_id)) in ids.enumerate() {
            let key = key_of(tenant, user_id, transaction_id);
            let mut shard = self.0.shard(&key);
            let waiters = match shard.get_mut(&key) {
                Some(waiters) => waiters,
                None => shard.entry(key.clone()).or_default(),
            };
            if waiters.len() < MAX_WAITERS_PER_ID {
                waiters.push_back(Waiter {
                    nonce,
                    index,
                    replies: sender.clone(),
                });
                drop(shard);
                awaited.decisions.push(None);
                awaited.missing += 1;
                awaited.keys.push(key);
            } else {
                drop(shard);
                awaited
                    .decisions
                    .push(too_many_waiters(tenant, user_id, transaction_id));
                awaited.errors += 1;
                awaited.refused.push(index);
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "a number of items")]
        gauge!("tollgate_ingest_waiters").increment(awaited.missing as f64);
        awaited
    }

    /// Delivers a reply to the first waiter that was registered under this nonce. False if there is none.
    pub(crate) fn deliver(
        &self,
        nonce: u128,
        tenant: Tenant<'_>,
        user_id: &str,
        transaction_id: &str,
        text: &RawValue,
        is_error: bool,
    ) -> bool {
        let key = key_of(tenant, user_id, transaction_id);
        let mut shard = self.0.shard(&key);
        let Entry::Occupied(mut waiters) = shard.entry(key) else {
            return false;
        };
        let of_request = waiters
            .get()
            .iter()
            .position(|waiter| waiter.nonce == nonce);
        let first = of_request.and_then(|index| waiters.get_mut().remove(index));
        if waiters.get().is_empty() {
            waiters.remove();
        }
        drop(shard);
        let Some(waiter) = first else {
            return false;
        };
        gauge!("tollgate_ingest_waiters").decrement(1.0);
        let arrived = Arrived {
            index: waiter.index,
            text: text.to_owned(),
            is_error,
        };
        waiter.replies.send(arrived).is_ok()
    }
}

/// The answer for a transaction that is on the log, and for whose decision no more callers may wait.
fn too_many_waiters(
    tenant: Tenant<'_>,
    user_id: &str,
    transaction_id: &str,
) -> Option<Box<RawValue>> {
    let error = ErrorReply {
        transaction_id: transaction_id.into(),
        user_id: user_id.into(),
        tenant: tenant.given().map(Into::into),
        status: ErrorStatus::Error,
        kind: "too_many_waiters".into(),
        field: Some("transaction_id".into()),
        reason: format!(
            "{MAX_WAITERS_PER_ID} repetitions already wait for this id; it is accepted, but not waited for"
        )
        .into(),
    };
    to_raw_value(&error).ok()
}

/// The decisions that one request waits for.
#[derive(Debug)]
pub(crate) struct AwaitedDecisions {
    decisions: Vec<Option<Box<RawValue>>>,
    missing: usize,
    errors: usize,
    refused: Vec<usize>,
    receiver: mpsc::UnboundedReceiver<Arrived>,
    nonce: u128,
    keys: Vec<String>,
    pending: PendingReplies,
}

impl AwaitedDecisions {
    /// What a reply to this request repeats.
    pub(crate) const fn nonce(&self) -> u128 {
        self.nonce
    }

    /// Waits for every reply, at most until `deadline`. True if all have arrived.
    pub(crate) async fn all_by(&mut self, deadline: Instant) -> bool {
        while self.missing > 0 {
            let next = tokio::time::timeout_at(deadline.into(), self.receiver.recv());
            let Ok(Some(arrived)) = next.await else {
                return false;
            };
            if let Some(slot) = self.decisions.get_mut(arrived.index) {
                self.missing -= usize::from(slot.replace(arrived.text).is_none());
                self.errors += usize::from(arrived.is_error);
            }
        }
        true
    }

    /// The replies that have arrived, each at the index of its transaction.
    pub(crate) fn take(&mut self) -> Vec<Option<Box<RawValue>>> {
        std::mem::take(&mut self.decisions)
    }

    /// How many of the replies that have arrived are errors.
    pub(crate) const fn errors(&self) -> usize {
        self.errors
    }

    /// The indices, in their order, of the transactions whose decision is not waited for, since too many wait for it.
    pub(crate) fn refused(&self) -> &[usize] {
        &self.refused
    }
}

impl Drop for AwaitedDecisions {
    fn drop(&mut self) {
        // Each id once: all of its waiters leave together.
        self.keys.sort_unstable();
        self.keys.dedup();
        let mut removed = 0_u32;
        for key in self.keys.drain(..) {
            let mut shard = self.pending.0.shard(&key);
            if let Entry::Occupied(mut waiters) = shard.entry(key) {
                waiters.get_mut().retain(|waiter| {
                    let own = waiter.nonce == self.nonce;
                    removed += u32::from(own);
                    !own
                });
                if waiters.get().is_empty() {
                    waiters.remove();
                }
            }
        }
        gauge!("tollgate_ingest_waiters").decrement(f64::from(removed));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NONE: Tenant<'static> = Tenant::DEFAULT;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    fn texts(decisions: Vec<Option<Box<RawValue>>>) -> Vec<String> {
        let arrived = decisions.iter().flatten();
        arrived.map(|raw| raw.get().to_owned()).collect()
    }

    /// The number of ids for which anybody waits.
    fn ids(pending: &PendingReplies) -> usize {
        let shards = pending.0.shards.iter();
        shards.map(|shard| shard.lock().unwrap().len()).sum()
    }

    #[tokio::test]
    async fn decisions_are_in_the_order_of_the_items_whatever_the_order_of_the_replies() {
        let pending = PendingReplies::default();
        let ids = [("u", "1"), ("v", "1"), ("u", "2")];
        let mut awaited = pending.register(NONE, ids.into_iter());
        for (user, id, text) in [("u", "2", "3"), ("u", "1", "1"), ("v", "1", "2")] {
            assert!(pending.deliver(awaited.nonce(), NONE, user, id, &raw(text), false));
        }
        assert!(awaited.all_by(soon()).await);
        assert_eq!(texts(awaited.take()), ["1", "2", "3"]);
    }

    #[tokio::test]
    async fn waiters_for_equal_ids_get_one_decision_each_in_their_order() {
        let pending = PendingReplies::default();
        let mut first = pending.register(NONE, [("u", "1"), ("u", "1")].into_iter());
        let mut second = pending.register(NONE, [("u", "1")].into_iter());
        let (one, two) = (first.nonce(), second.nonce());
        for (nonce, text) in [(one, "1"), (two, "3"), (one, "2")] {
            assert!(pending.deliver(nonce, NONE, "u", "1", &raw(text), false));
        }
        for nonce in [one, two] {
            assert!(!pending.deliver(nonce, NONE, "u", "1", &raw("4"), false));
        }
        assert!(first.all_by(soon()).await && second.all_by(soon()).await);
        assert_eq!(texts(first.take()), ["1", "2"]);
        assert_eq!(texts(second.take()), ["3"]);
    }

    #[tokio::test]
    async fn decisions_that_arrived_before_the_deadline_are_returned() {
        let pending = PendingReplies::default();
        let mut awaited = pending.register(NONE, [("u", "1"), ("u", "2")].into_iter());
        pending.deliver(awaited.nonce(), NONE, "u", "2", &raw("2"), false);
        assert!(!awaited.all_by(Instant::now()).await);
        assert_eq!(texts(awaited.take()), ["2"]);
    }

    #[tokio::test]
    async fn a_reply_of_another_tenant_is_not_delivered() {
        let pending = PendingReplies::default();
        let tenant = |name| Tenant::parse(name).unwrap();
        let mut awaited = pending.register(tenant("acme"), [("u", "1")].into_iter());
        assert!(!pending.deliver(awaited.nonce(), NONE, "u", "1", &raw("1"), false));
        assert!(!pending.deliver(awaited.nonce(), tenant("other"), "u", "1", &raw("2"), true));
        assert!(pending.deliver(awaited.nonce(), tenant("acme"), "u", "1", &raw("3"), false));
        assert!(awaited.all_by(soon()).await);
        assert_eq!(texts(awaited.take()), ["3"]);
    }

    #[test]
    fn a_request_that_ends_removes_its_waiters() {
        let pending = PendingReplies::default();
        let other = pending.register(NONE, [("u", "1")].into_iter());
        drop(pending.register(NONE, [("u", "1"), ("u", "2"), ("u", "1")].into_iter()));
        assert_eq!(ids(&pending), 1);
        let nonce = other.nonce();
        drop(other);
        assert_eq!(ids(&pending), 0);
        assert!(!pending.deliver(nonce, NONE, "u", "1", &raw("1"), false));
    }

    #[tokio::test]
    async fn a_reply_without_the_nonce_of_its_request_is_not_delivered() {
        let pending = PendingReplies::default();
        let mut awaited = pending.register(NONE, [("u", "1")].into_iter());
        let other = pending.register(NONE, [("u", "2")].into_iter());
        for nonce in [0, awaited.nonce() ^ 1, other.nonce()] {
            assert!(!pending.deliver(nonce, NONE, "u", "1", &raw("0"), false));
        }
        assert!(pending.deliver(awaited.nonce(), NONE, "u", "1", &raw("1"), false));
        assert!(awaited.all_by(soon()).await);
        assert_eq!(texts(awaited.take()), ["1"]);
    }

    #[tokio::test]
    async fn of_ten_thousand_items_with_one_id_a_hundred_wait_and_the_others_get_an_error_at_once()
    {
        let pending = PendingReplies::default();
        let mut awaited = pending.register(NONE, std::iter::repeat_n(("u", "1"), 10_000));
        assert_eq!(awaited.errors(), 10_000 - MAX_WAITERS_PER_ID);
        assert_eq!(awaited.refused().first(), Some(&MAX_WAITERS_PER_ID));
        // The bound holds over all requests.
        let other = pending.register(NONE, [("u", "1"), ("v", "1")].into_iter());
        assert_eq!(other.refused(), [0]);
        drop(other);
        let nonce = awaited.nonce();
        for _ in 0..MAX_WAITERS_PER_ID {
            assert!(pending.deliver(nonce, NONE, "u", "1", &raw("1"), false));
        }
        assert!(!pending.deliver(nonce, NONE, "u", "1", &raw("1"), false));
        assert!(awaited.all_by(soon()).await);
        let texts = texts(awaited.take());
        assert_eq!(texts[MAX_WAITERS_PER_ID - 1], "1");
        let error = serde_json::from_str::<ErrorReply<'_>>(&texts[MAX_WAITERS_PER_ID]).unwrap();
        assert_eq!(error.kind, "too_many_waiters");
        assert_eq!(ids(&pending), 0);
    }
}
