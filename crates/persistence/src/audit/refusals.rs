//! Requests that were refused for want of a key: one entry for each caller and interval, so that whoever sends many of
//! them cannot fill the audit.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::event::AuditEvent;

/// Most callers of an interval that are told apart; the others share an entry for each status.
const MAX_CALLERS: usize = 100;
/// The caller in the entry that all others share.
const OTHERS: &str = "(other)";

/// Who was refused, and how. Unknown callers have no name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Refused {
    caller: String,
    peer: String,
    status: u16,
}

/// The refusals since they were last written.
#[derive(Debug, Clone, Default)]
pub(super) struct Refusals(Arc<Mutex<BTreeMap<Refused, (AuditEvent, u64)>>>);

impl Refusals {
    /// Counts a refusal. The first one of a caller is the one that is described.
    pub(super) fn count(&self, event: AuditEvent) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut refused = Refused {
            caller: event.caller.clone(),
            peer: event.peer.clone(),
            status: event.status,
        };
        let mut event = event;
        if all.len() >= MAX_CALLERS && !all.contains_key(&refused) {
            (refused.caller, refused.peer) = (OTHERS.to_owned(), String::new());
            (event.caller, event.peer) = (OTHERS.to_owned(), String::new());
        }
        all.entry(refused).or_insert((event, 0)).1 += 1;
    }

    /// The entries of the interval, which begins anew.
    pub(super) fn take(&self) -> Vec<AuditEvent> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = std::mem::take(&mut *all).into_values();
        entries
            .map(|(event, count)| AuditEvent {
                asked: vec![("refusals".to_owned(), count.to_string())],
                ..event
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(caller: &str, peer: &str, status: u16) -> AuditEvent {
        AuditEvent {
            time: tollgate_service::now(),
            caller: caller.to_owned(),
            tenant: String::new(),
            peer: peer.to_owned(),
            action: "GET /v1/decisions".to_owned(),
            asked: Vec::new(),
            status,
            rows: 0,
        }
    }

    #[test]
    fn many_refusals_of_a_caller_are_one_entry_and_many_callers_share_one() {
        let refusals = Refusals::default();
        for _ in 0..1_000 {
            refusals.count(refused("", "192.0.2.1", 401));
            refusals.count(refused("shop", "192.0.2.1", 403));
        }
        let entries = refusals.take();
        assert_eq!(entries.len(), 2);
        for entry in entries {
            let count = ("refusals".to_owned(), "1000".to_owned());
            assert_eq!(entry.asked, [count], "{}", entry.caller);
        }
        assert!(refusals.take().is_empty());
        for n in 0..1_000 {
            refusals.count(refused("", &format!("10.0.{}.{}", n / 250, n % 250), 401));
        }
        let entries = refusals.take();
        assert_eq!(entries.len(), MAX_CALLERS + 1);
        let others = entries.iter().find(|entry| entry.caller == OTHERS);
        assert_eq!(others.unwrap().asked[0].1, "900");
    }
}
