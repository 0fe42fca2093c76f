//! Waiting for the acknowledgements of any number of sends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use tollgate_service::telemetry::trace::Span;

/// Why an acknowledgement did not come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a record for topic {topic} was not acknowledged: {reason}")]
pub struct DeliveryFailure {
    /// The topic.
    pub topic: String,
    /// The client's reason.
    pub reason: String,
}

type Then = Box<dyn FnOnce(Result<(), DeliveryFailure>) + Send>;

/// Waits for the acknowledgements of any number of sends, then calls back once.
pub struct Acks {
    /// Sends not yet acknowledged, and one more until [`Acks::seal`].
    outstanding: AtomicUsize,
    end: Mutex<(Option<DeliveryFailure>, Option<Then>)>,
}

impl std::fmt::Debug for Acks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acks")
            .field("outstanding", &self.outstanding)
            .finish_non_exhaustive()
    }
}

impl Acks {
    /// Calls `then` when every send under it is acknowledged, or with the first failure when all have ended.
    #[must_use]
    pub fn new(then: impl FnOnce(Result<(), DeliveryFailure>) + Send + 'static) -> Arc<Self> {
        Arc::new(Self {
            outstanding: AtomicUsize::new(1),
            end: Mutex::new((None, Some(Box::new(then)))),
        })
    }

    /// As [`Acks::new`], where what is to be called is known only at the end: see [`Acks::seal_with`].
    #[must_use]
    pub fn open() -> Arc<Self> {
        Arc::new(Self {
            outstanding: AtomicUsize::new(1),
            end: Mutex::new((None, None)),
        })
    }

    /// As [`Acks::new`], for a thread that waits for the end.
    #[must_use]
    pub fn to_wait_for() -> (Arc<Self>, mpsc::Receiver<Result<(), DeliveryFailure>>) {
        let (done, acknowledged) = mpsc::sync_channel(1);
        // The receiver is dropped where its owner stops waiting.
        let acks = Self::new(move |result| drop(done.send(result)));
        (acks, acknowledged)
    }

    /// No more sends will come under it.
    pub fn seal(&self) {
        self.end(None);
    }

    /// No more sends will come under it; calls `then` when every one has ended, which may be at once.
    pub fn seal_with(&self, then: impl FnOnce(Result<(), DeliveryFailure>) + Send + 'static) {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(Box::new(then));
        self.seal();
    }

    /// A record is about to be taken: its end comes as [`Acks::end`], unless it is taken back by [`Acks::undo`].
    pub(crate) fn begin(&self) {
        self.outstanding.fetch_add(1, Ordering::AcqRel);
    }

    /// The record of the last [`Acks::begin`] was not taken after all. The caller holds these unsealed, so that this is
    /// never the last.
    pub(crate) fn undo(&self) {
        self.outstanding.fetch_sub(1, Ordering::AcqRel);
    }

    /// A record is acknowledged, or has failed.
    pub(crate) fn end(&self, failure: Option<DeliveryFailure>) {
        if let Some(failure) = failure {
            self.end
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .0
                .get_or_insert(failure);
        }
        if self.outstanding.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let (failure, then) =
            std::mem::take(&mut *self.end.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(then) = then {
            then(failure.map_or(Ok(()), Err));
        }
    }

    /// One send under these that has a span of its own, which ends when it is acknowledged.
    pub(crate) fn traced(self: &Arc<Self>, mut span: Span) -> Arc<Self> {
        let all = Arc::clone(self);
        Self::new(move |result| {
            let failure = result.err();
            if let Some(failure) = &failure {
                span.keep();
                span.fail("unacknowledged", failure.reason.clone());
            }
            span.end();
            all.end(failure);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_reported_once_every_send_has_ended() {
        let (acks, ended) = Acks::to_wait_for();
        acks.begin();
        acks.begin();
        let failure = |reason: &str| DeliveryFailure {
            topic: "t".to_owned(),
            reason: reason.to_owned(),
        };
        acks.seal();
        acks.end(Some(failure("first")));
        assert!(ended.try_recv().is_err());
        acks.end(Some(failure("second")));
        assert_eq!(ended.try_recv().unwrap(), Err(failure("first")));
    }

    #[test]
    fn a_record_that_was_not_taken_is_not_waited_for() {
        let (acks, ended) = Acks::to_wait_for();
        acks.begin();
        acks.undo();
        acks.seal();
        assert_eq!(ended.try_recv().unwrap(), Ok(()));
    }
}
