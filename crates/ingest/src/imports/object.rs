//! An object as a stream of bytes, read in pieces. While the store is unavailable, reading waits; then it continues at the
//! same position.
//!
//! Invariant: all pieces are of one version of the object.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use metrics::{Gauge, counter, gauge};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tollgate_service::resilience::{
    CallError, CallFailure, CallPolicy, Dependency, DependencyConfig,
};

use super::folder::STORE;
use super::rows::RowsError;
use super::source::Located;

/// The size of the range that one request reads, in bytes.
const PIECE: u64 = 4 * 1024 * 1024;
/// The number of concurrent requests to one store. Each import makes one at a time.
const CONCURRENCY: usize = 64;
/// The timeout of one request.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Why a request to the store failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error(transparent)]
    Answered(#[from] object_store::Error),
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
}

impl CallError for StoreError {
    fn timed_out(limit: Duration) -> Self {
        Self::TimedOut(limit)
    }

    /// Missing permissions may be granted later, so they count as an outage. A missing object does not.
    fn is_outage(&self) -> bool {
        use object_store::Error;
        match self {
            // A file that cannot be read now cannot be read in a second either.
            Self::Answered(Error::Generic { store, .. }) => *store != STORE,
            Self::Answered(error) => !matches!(
                error,
                Error::NotFound { .. }
                    | Error::Precondition { .. }
                    | Error::InvalidPath { .. }
                    | Error::NotSupported { .. }
            ),
            Self::TimedOut(_) => true,
        }
    }
}

/// The store of a source, as a dependency.
pub(super) fn dependency(bucket: &str) -> Dependency {
    Dependency::new(
        &format!("objects {bucket}"),
        &DependencyConfig::new(TIMEOUT, CONCURRENCY),
        None,
    )
}

/// The context of an import: its partition, the runtime and its cancellation.
#[derive(Debug, Clone)]
pub(super) struct ImportContext {
    /// The partition of the topic `imports` that holds the import.
    pub(super) partition: i32,
    pub(super) handle: Handle,
    pub(super) cancel: CancellationToken,
}

/// A blocking reader of an object. It must not be used on a thread of the runtime.
pub(super) struct ObjectReader {
    context: ImportContext,
    object: Located,
    size: u64,
    at: u64,
    /// The same as `at`, for whoever reports it.
    position: Arc<AtomicU64>,
    version: Option<String>,
    piece: Bytes,
    remaining: Gauge,
}

impl ObjectReader {
    /// Opens the object, in the version `before` if a part of it was already read.
    ///
    /// # Errors
    /// The object does not exist, has changed, or the import is cancelled.
    pub(super) fn open(
        object: &Located,
        before: Option<&str>,
        context: &ImportContext,
    ) -> Result<Self, RowsError> {
        let head = || object.source.objects.head(&object.path);
        let (size, version) = call(object, context, head)?;
        if before.is_some() && version.as_deref() != before {
            return Err(changed());
        }
        let remaining = gauge!("tollgate_import_remaining_bytes");
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        remaining.increment(size as f64);
        Ok(Self {
            context: context.clone(),
            object: object.clone(),
            size,
            at: 0,
            position: Arc::default(),
            version,
            piece: Bytes::new(),
            remaining,
        })
    }

    /// The size of the object, in bytes.
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// How many bytes of it were read, also after the reader was given away.
    pub(super) fn position(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.position)
    }

    /// The version that is read, as the store identifies it.
    pub(super) fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    fn next_piece(&mut self) -> Result<(), RowsError> {
        let range = self.at..self.size.min(self.at + PIECE);
        let (objects, path) = (&self.object.source.objects, &self.object.path);
        let version = self.version.as_deref();
        self.piece = call(&self.object, &self.context, || {
            objects.read(path, range.clone(), version)
        })?;
        let read = self.piece.len() as u64;
        if read == 0 {
            return Err(changed());
        }
        self.at += read;
        self.position.store(self.at, Ordering::Relaxed);
        counter!("tollgate_import_bytes_total").increment(read);
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        self.remaining.decrement(read as f64);
        Ok(())
    }
}

impl Drop for ObjectReader {
    fn drop(&mut self) {
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        self.remaining.decrement((self.size - self.at) as f64);
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() && self.at < self.size {
            self.next_piece().map_err(|error| match error {
                RowsError::Unusable(reason) => io::Error::new(io::ErrorKind::InvalidData, reason),
                RowsError::Broken(error) => error,
            })?;
        }
        let read = buffer.len().min(self.piece.len());
        buffer[..read].copy_from_slice(&self.piece.split_to(read));
        Ok(read)
    }
}

/// Calls the store until it answers, or the import is cancelled.
fn call<T, F>(
    object: &Located,
    context: &ImportContext,
    request: impl Fn() -> F,
) -> Result<T, RowsError>
where
    F: Future<Output = object_store::Result<T>>,
{
    let policy = CallPolicy::unlimited().cancelled_by(context.cancel.clone());
    let call = object
        .source
        .dependency
        .call(policy, || async { Ok(request().await?) });
    context
        .handle
        .block_on(call)
        .1
        .map_err(|error: CallFailure<StoreError>| match error {
            CallFailure::Rejected(StoreError::Answered(object_store::Error::Precondition {
                ..
            })) => changed(),
            CallFailure::Rejected(error) => RowsError::Unusable(error.to_string()),
            CallFailure::Unavailable(_) => {
                RowsError::Broken(io::Error::other("the import is cancelled"))
            }
        })
}

fn changed() -> RowsError {
    RowsError::Unusable("the object has changed since its first rows were read".to_owned())
}
