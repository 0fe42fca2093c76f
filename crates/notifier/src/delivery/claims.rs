//! Which alerts a sink has under way, so that the same alert met again meanwhile is not sent beside it.
//!
//! An alert is claimed before the delivery log is asked and released after it was told. So whoever claims later finds it
//! in the delivery log, and whoever comes meanwhile follows the first and shares its fate.

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

    /// Gives the ticket back to whoever is first with this alert; keeps it as a follower otherwise.
    pub(crate) fn claim(&self, key: &AlertKey, ticket: DeliveryGuard) -> Option<DeliveryGuard> {
        match self.lock().entry(key.clone()) {
            Entry::Vacant(free) => {
                free.insert(Vec::new());
                Some(ticket)
            }
            Entry::Occupied(mut taken) => {
                taken.get_mut().push(ticket);
                None
            }
        }
    }

    /// The alert's fate is settled: its followers, to be resolved like the first.
    pub(crate) fn settle(&self, key: &AlertKey) -> Vec<DeliveryGuard> {
        self.lock().remove(key).unwrap_or_default()
    }

    /// The first gives up because its partition went. A follower that came with the partition's return takes over.
    pub(crate) fn pass_on(&self, key: &AlertKey) -> Option<DeliveryGuard> {
        let mut claims = self.lock();
        let followers = claims.get_mut(key)?;
        followers.retain(|ticket| !ticket.revoked().is_cancelled());
        if followers.is_empty() {
            claims.remove(key);
            return None;
        }
        Some(followers.remove(0))
    }
}
