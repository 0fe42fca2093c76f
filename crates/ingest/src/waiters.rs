//! Requests that wait for decisions, by the user and transaction they wait for.
//!
//! Invariant: a request's places are gone when the request is, however it ended, so that nothing here outlives it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use metrics::gauge;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

/// A decision, and the place in its request that it is for.
type Found = (usize, Box<RawValue>);

/// All that wait. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waiters(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    /// Those of equal ids in the order in which they came, as their decisions will.
    places: HashMap<String, VecDeque<Place>>,
    requests: u64,
}

#[derive(Debug)]
struct Place {
    request: u64,
    index: usize,
    found: mpsc::UnboundedSender<Found>,
}

/// No id holds U+0000.
fn key_of(user_id: &str, transaction_id: &str) -> String {
    format!("{user_id}\0{transaction_id}")
}

impl Waiters {
    /// Places for these `(user_id, transaction_id)`, in this order. To be taken before anything is produced.
    pub(crate) fn register<'a>(
        &self,
        ids: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> AwaitedDecisions {
        let keys: Vec<String> = ids.map(|(user, id)| key_of(user, id)).collect();
        // Unbounded, but a place sends once.
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut waiting = self.lock();
        waiting.requests += 1;
        let request = waiting.requests;
        for (index, key) in keys.iter().enumerate() {
            let found = sender.clone();
            let places = waiting.places.entry(key.clone()).or_default();
            places.push_back(Place {
                request,
                index,
                found,
            });
        }
        drop(waiting);
        #[expect(clippy::cast_precision_loss, reason = "a number of items")]
        gauge!("tollgate_ingest_waiters").increment(keys.len() as f64);
        AwaitedDecisions {
            found: keys.iter().map(|_| None).collect(),
            missing: keys.len(),
            receiver,
            request,
            keys,
            waiters: self.clone(),
        }
    }

    /// Hands a decision to whoever has waited for it longest. False: nobody here does.
    pub(crate) fn deliver(&self, user_id: &str, transaction_id: &str, decision: &RawValue) -> bool {
        let mut waiting = self.lock();
        let Entry::Occupied(mut places) = waiting.places.entry(key_of(user_id, transaction_id))
        else {
            return false;
        };
        let first = places.get_mut().pop_front();
        if places.get().is_empty() {
            places.remove();
        }
        drop(waiting);
        let Some(place) = first else {
            return false;
        };
        gauge!("tollgate_ingest_waiters").decrement(1.0);
        place.found.send((place.index, decision.to_owned())).is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The decisions that one request waits for.
#[derive(Debug)]
pub(crate) struct AwaitedDecisions {
    found: Vec<Option<Box<RawValue>>>,
    missing: usize,
    receiver: mpsc::UnboundedReceiver<Found>,
    request: u64,
    keys: Vec<String>,
    waiters: Waiters,
}

impl AwaitedDecisions {
    /// Waits for every decision, until `deadline` at most. True: all are there.
    pub(crate) async fn all_by(&mut self, deadline: Instant) -> bool {
        while self.missing > 0 {
            let next = tokio::time::timeout_at(deadline.into(), self.receiver.recv());
            let Ok(Some((index, decision))) = next.await else {
                return false;
            };
            if let Some(place) = self.found.get_mut(index) {
                self.missing -= usize::from(place.replace(decision).is_none());
            }
        }
        true
    }

    /// The decisions that are there, each at the place of its transaction.
    pub(crate) fn take(&mut self) -> Vec<Option<Box<RawValue>>> {
        std::mem::take(&mut self.found)
    }
}

impl Drop for AwaitedDecisions {
    fn drop(&mut self) {
        let mut removed = 0_u32;
        let mut waiting = self.waiters.lock();
        for key in self.keys.drain(..) {
            if let Entry::Occupied(mut places) = waiting.places.entry(key) {
                places.get_mut().retain(|place| {
                    let mine = place.request == self.request;
                    removed += u32::from(mine);
                    !mine
                });
                if places.get().is_empty() {
                    places.remove();
                }
            }
        }
        drop(waiting);
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
        let there = decisions.iter().flatten();
        there.map(|raw| raw.get().to_owned()).collect()
    }

    #[tokio::test]
    async fn decisions_come_in_the_order_of_the_items_whatever_the_order_of_replies() {
        let waiters = Waiters::default();
        let ids = [("u", "1"), ("v", "1"), ("u", "2")];
        let mut awaited = waiters.register(ids.into_iter());
        for (user, id, text) in [("u", "2", "3"), ("u", "1", "1"), ("v", "1", "2")] {
            assert!(waiters.deliver(user, id, &raw(text)));
        }
        assert!(awaited.all_by(soon()).await);
        assert_eq!(texts(awaited.take()), ["1", "2", "3"]);
    }

    #[tokio::test]
    async fn equal_ids_get_one_decision_each_first_come_first_served() {
        let waiters = Waiters::default();
        let mut first = waiters.register([("u", "1"), ("u", "1")].into_iter());
        let mut second = waiters.register([("u", "1")].into_iter());
        for text in ["1", "2", "3"] {
            assert!(waiters.deliver("u", "1", &raw(text)));
        }
        assert!(!waiters.deliver("u", "1", &raw("4")));
        assert!(first.all_by(soon()).await && second.all_by(soon()).await);
        assert_eq!(texts(first.take()), ["1", "2"]);
        assert_eq!(texts(second.take()), ["3"]);
    }

    #[tokio::test]
    async fn what_came_before_the_deadline_is_there() {
        let waiters = Waiters::default();
        let mut awaited = waiters.register([("u", "1"), ("u", "2")].into_iter());
        waiters.deliver("u", "2", &raw("2"));
        assert!(!awaited.all_by(Instant::now()).await);
        assert_eq!(texts(awaited.take()), ["2"]);
    }

    #[test]
    fn a_request_that_ends_leaves_nothing_behind() {
        let waiters = Waiters::default();
        let other = waiters.register([("u", "1")].into_iter());
        drop(waiters.register([("u", "1"), ("u", "2"), ("u", "1")].into_iter()));
        assert_eq!(waiters.lock().places.len(), 1);
        drop(other);
        assert!(waiters.lock().places.is_empty());
        assert!(!waiters.deliver("u", "1", &raw("1")));
    }
}
