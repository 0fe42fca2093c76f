//! Requests that wait for decisions, by user and transaction.
//!
//! Invariant: the entries of a request are removed when it ends, for whatever reason, so that the registry cannot grow
//! beyond the requests in flight.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use metrics::gauge;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

/// A decision, with the index of its transaction in the request.
type IndexedDecision = (usize, Box<RawValue>);

/// The registry of requests that wait for decisions. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct PendingReplies(Arc<Mutex<Registry>>);

#[derive(Debug, Default)]
struct Registry {
    /// Waiters for equal ids are served in the order in which they were registered.
    waiters: HashMap<String, VecDeque<Waiter>>,
    last_request: u64,
}

#[derive(Debug)]
struct Waiter {
    request: u64,
    index: usize,
    decisions: mpsc::UnboundedSender<IndexedDecision>,
}

/// Unambiguous, since ids do not contain U+0000.
fn key_of(user_id: &str, transaction_id: &str) -> String {
    format!("{user_id}\0{transaction_id}")
}

impl PendingReplies {
    /// Registers a waiter for each `(user_id, transaction_id)`. The index of a decision is the position of its ids.
    ///
    /// Call it before the transactions are produced: a decision may arrive before the acknowledgement.
    pub(crate) fn register<'a>(
        &self,
        ids: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> AwaitedDecisions {
        let keys: Vec<String> = ids.map(|(user, id)| key_of(user, id)).collect();
        // Bounded by the number of waiters, each of which sends at most once.
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut registry = self.lock();
        registry.last_request += 1;
        let request = registry.last_request;
        for (index, key) in keys.iter().enumerate() {
            let waiters = registry.waiters.entry(key.clone()).or_default();
            waiters.push_back(Waiter {
                request,
                index,
                decisions: sender.clone(),
            });
        }
        drop(registry);
        #[expect(clippy::cast_precision_loss, reason = "a number of items")]
        gauge!("tollgate_ingest_waiters").increment(keys.len() as f64);
        AwaitedDecisions {
            decisions: keys.iter().map(|_| None).collect(),
            missing: keys.len(),
            receiver,
            request,
            keys,
            pending: self.clone(),
        }
    }

    /// Delivers a decision to the waiter that was registered first. False if there is none.
    pub(crate) fn deliver(&self, user_id: &str, transaction_id: &str, decision: &RawValue) -> bool {
        let mut registry = self.lock();
        let Entry::Occupied(mut waiters) = registry.waiters.entry(key_of(user_id, transaction_id))
        else {
            return false;
        };
        let first = waiters.get_mut().pop_front();
        if waiters.get().is_empty() {
            waiters.remove();
        }
        drop(registry);
        let Some(waiter) = first else {
            return false;
        };
        gauge!("tollgate_ingest_waiters").decrement(1.0);
        let decision = (waiter.index, decision.to_owned());
        waiter.decisions.send(decision).is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The decisions that one request waits for.
#[derive(Debug)]
pub(crate) struct AwaitedDecisions {
    decisions: Vec<Option<Box<RawValue>>>,
    missing: usize,
    receiver: mpsc::UnboundedReceiver<IndexedDecision>,
    request: u64,
    keys: Vec<String>,
    pending: PendingReplies,
}

impl AwaitedDecisions {
    /// Waits for every decision, at most until `deadline`. True if all have arrived.
    pub(crate) async fn all_by(&mut self, deadline: Instant) -> bool {
        while self.missing > 0 {
            let next = tokio::time::timeout_at(deadline.into(), self.receiver.recv());
            let Ok(Some((index, decision))) = next.await else {
                return false;
            };
            if let Some(slot) = self.decisions.get_mut(index) {
                self.missing -= usize::from(slot.replace(decision).is_none());
            }
        }
        true
    }

    /// The decisions that have arrived, each at the index of its transaction.
    pub(crate) fn take(&mut self) -> Vec<Option<Box<RawValue>>> {
        std::mem::take(&mut self.decisions)
    }
}

impl Drop for AwaitedDecisions {
    fn drop(&mut self) {
        let mut removed = 0_u32;
        let mut registry = self.pending.lock();
        for key in self.keys.drain(..) {
            if let Entry::Occupied(mut waiters) = registry.waiters.entry(key) {
                waiters.get_mut().retain(|waiter| {
                    let own = waiter.request == self.request;
                    removed += u32::from(own);
                    !own
                });
                if waiters.get().is_empty() {
                    waiters.remove();
                }
            }
        }
        drop(registry);
        gauge!("tollgate_ingest_waiters").decrement(f64::from(removed));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

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

    #[tokio::test]
    async fn decisions_are_in_the_order_of_the_items_whatever_the_order_of_the_replies() {
        let pending = PendingReplies::default();
        let ids = [("u", "1"), ("v", "1"), ("u", "2")];
        let mut awaited = pending.register(ids.into_iter());
        for (user, id, text) in [("u", "2", "3"), ("u", "1", "1"), ("v", "1", "2")] {
            assert!(pending.deliver(user, id, &raw(text)));
        }
        assert!(awaited.all_by(soon()).await);
        assert_eq!(texts(awaited.take()), ["1", "2", "3"]);
    }

    #[tokio::test]
    async fn waiters_for_equal_ids_get_one_decision_each_in_their_order() {
        let pending = PendingReplies::default();
        let mut first = pending.register([("u", "1"), ("u", "1")].into_iter());
        let mut second = pending.register([("u", "1")].into_iter());
        for text in ["1", "2", "3"] {
            assert!(pending.deliver("u", "1", &raw(text)));
        }
        assert!(!pending.deliver("u", "1", &raw("4")));
        assert!(first.all_by(soon()).await && second.all_by(soon()).await);
        assert_eq!(texts(first.take()), ["1", "2"]);
        assert_eq!(texts(second.take()), ["3"]);
    }

    #[tokio::test]
    async fn decisions_that_arrived_before_the_deadline_are_returned() {
        let pending = PendingReplies::default();
        let mut awaited = pending.register([("u", "1"), ("u", "2")].into_iter());
        pending.deliver("u", "2", &raw("2"));
        assert!(!awaited.all_by(Instant::now()).await);
        assert_eq!(texts(awaited.take()), ["2"]);
    }

    #[test]
    fn a_request_that_ends_removes_its_waiters() {
        let pending = PendingReplies::default();
        let other = pending.register([("u", "1")].into_iter());
        drop(pending.register([("u", "1"), ("u", "2"), ("u", "1")].into_iter()));
        assert_eq!(pending.lock().waiters.len(), 1);
        drop(other);
        assert!(pending.lock().waiters.is_empty());
        assert!(!pending.deliver("u", "1", &raw("1")));
    }
}
