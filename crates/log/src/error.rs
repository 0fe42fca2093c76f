//! The log's failures, by what the caller does about them.

type Source = Box<dyn std::error::Error + Send + Sync>;

/// A failure of the log that this crate does not retry any further.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The log's client reports a failure. It may pass: the call can be repeated.
    #[error("{what}: {source}")]
    Client {
        /// What was being done.
        what: String,
        /// The client's error.
        #[source]
        source: Source,
    },
    /// The topic does not exist. It may be created later.
    #[error("topic {0} does not exist; `tollgate topics create` makes it")]
    NoTopic(String),
    /// The state of the log, of the group or of this process forbids to go on. The text says what to do.
    #[error("{0}")]
    Refused(String),
}

impl LogError {
    /// Turns a client's error into [`LogError::Client`].
    pub(crate) fn client<E: Into<Source>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::Client {
            what,
            source: source.into(),
        }
    }
}
