//! An object as a stream of bytes, read piece by piece: a store that is away is waited for, and one that answers again
//! is read on, not anew.

use std::io::{self, Read};
use std::time::Duration;

use axum::body::Bytes;
use metrics::{Gauge, counter, gauge};
use object_store::{GetOptions, GetRange, ObjectStoreExt as _};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tollgate_service::resilience::{
    CallError, CallFailure, CallPolicy, Dependency, DependencyConfig,
};

use super::rows::RowsError;
use super::source::Located;

/// What one request asks for.
const PIECE: u64 = 4 * 1024 * 1024;
/// Requests to one store under way at once; each import makes one at a time.
const CONCURRENCY: usize = 64;
/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What a request to the store ended with.
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

    /// Rights may be given later, and so they are waited for; an object that is not there will not come.
    fn is_outage(&self) -> bool {
        use object_store::Error;
        match self {
            // A file that cannot be read now cannot be in a second.
            Self::Answered(Error::Generic { store, .. }) => *store != "LocalFileSystem",
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

/// A source's store.
pub(super) fn dependency(bucket: &str) -> Dependency {
    Dependency::new(
        &format!("objects {bucket}"),
        &DependencyConfig::new(TIMEOUT, CONCURRENCY),
        None,
    )
}

/// What reading needs beside the object.
#[derive(Debug, Clone)]
pub(super) struct Means {
    /// The partition of the topic in which the import stands.
    pub(super) partition: i32,
    pub(super) handle: Handle,
    pub(super) cancel: CancellationToken,
}

/// Reads on a thread of its own: every read waits for the store.
pub(super) struct ObjectReader {
    means: Means,
    object: Located,
    size: u64,
    at: u64,
    version: Option<String>,
    piece: Bytes,
    remaining: Gauge,
}

impl ObjectReader {
    /// Opens the object: the version that was read before, where there was one.
    pub(super) fn open(
        object: &Located,
        before: Option<&str>,
        means: &Means,
    ) -> Result<Self, RowsError> {
        let meta = ask(object, means, || object.source.store.head(&object.path))?;
        if before.is_some() && meta.e_tag.as_deref() != before {
            return Err(changed());
        }
        let remaining = gauge!("tollgate_import_remaining_bytes");
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        remaining.increment(meta.size as f64);
        Ok(Self {
            means: means.clone(),
            object: object.clone(),
            size: meta.size,
            at: 0,
            version: meta.e_tag,
            piece: Bytes::new(),
            remaining,
        })
    }

    /// The store's own word for the version that is read.
    pub(super) fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    fn next_piece(&mut self) -> Result<(), RowsError> {
        let range = self.at..self.size.min(self.at + PIECE);
        let options = GetOptions {
            if_match: self.version.clone(),
            range: Some(GetRange::Bounded(range.clone())),
            ..GetOptions::default()
        };
        let (store, path) = (&self.object.source.store, &self.object.path);
        self.piece = ask(&self.object, &self.means, || async {
            let answer = store.get_opts(path, options.clone()).await?;
            answer.bytes().await
        })?;
        let read = self.piece.len() as u64;
        if read == 0 {
            return Err(changed());
        }
        self.at += read;
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

/// Asks the store until it answers, or nobody wants to know any more.
fn ask<T, F>(object: &Located, means: &Means, request: impl Fn() -> F) -> Result<T, RowsError>
where
    F: Future<Output = object_store::Result<T>>,
{
    let policy = CallPolicy::unlimited().cancelled_by(means.cancel.clone());
    let call = object
        .source
        .dependency
        .call(policy, || async { Ok(request().await?) });
    means
        .handle
        .block_on(call)
        .1
        .map_err(|error: CallFailure<StoreError>| match error {
            CallFailure::Rejected(StoreError::Answered(object_store::Error::Precondition {
                ..
            })) => changed(),
            CallFailure::Rejected(error) => RowsError::Unusable(error.to_string()),
            CallFailure::Unavailable(_) => RowsError::Broken(io::Error::other("it is stopped")),
        })
}

fn changed() -> RowsError {
    RowsError::Unusable("the object has changed since its first rows were read".to_owned())
}
