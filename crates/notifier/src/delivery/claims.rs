//! The alerts that a sink has in flight, so that the same alert, read again meanwhile, is not sent twice.
//!
//! Invariant: an alert is claimed before the lookup in the delivery log, and released after its delivery was recorded. A
//! later claim therefore finds it in the delivery log; one made meanwhile becomes a follower and shares the outcome.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::alert::AlertKey;
use crate::in_flight_batch::DeliveryGuard;

#[derive(Debug, Default)]
pub(crate) struct Claims(Mutex<HashMap<AlertKey, Vec<DeliveryGuard>>>);

impl Claims {
    fn lock(&self) -> MutexGuard<'_, HashMap<AlertKey, Vec<DeliveryGuard>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the guard if the alert was not claimed. Otherwise the guard becomes a follower.
    pub(crate) fn claim(&self, key: &AlertKey, guard: DeliveryGuard) -> Option<DeliveryGuard> {
        match self.lock().entry(key.clone()) {
            Entry::Vacant(free) => {
                free.insert(Vec::new());
                Some(guard)
            }
            Entry::Occupied(mut taken) => {
                taken.get_mut().push(guard);
                None
            }
        }
    }

    /// Ends the claim. Returns the followers, which are to be resolved like the first.
    pub(crate) fn release(&self, key: &AlertKey) -> Vec<DeliveryGuard> {
        self.lock().remove(key).unwrap_or_default()
    }

    /// Passes the claim to the first follower whose partition is assigned: it came when the partition was assigned again.
    pub(crate) fn pass_on(&self, key: &AlertKey) -> Option<DeliveryGuard> {
        let mut claims = self.lock();
        let followers = claims.get_mut(key)?;
        followers.retain(|guard| !guard.revoked().is_cancelled());
        if followers.is_empty() {
            claims.remove(key);
            return None;
        }
        Some(followers.remove(0))
    }
}
