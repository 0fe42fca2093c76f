//! The tasks of a service, with their names.

use std::collections::HashMap;

use anyhow::{Context as _, anyhow};
use tokio::task::{Id, JoinSet};

/// Tasks with their names.
#[derive(Debug, Default)]
pub(super) struct Parts {
    tasks: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, String>,
}

/// How a part ended.
pub(super) struct Ended {
    part: String,
    result: anyhow::Result<()>,
}

impl Parts {
    pub(super) fn spawn(
        &mut self,
        name: String,
        part: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let id = self.tasks.spawn(part).id();
        self.names.insert(id, name);
    }

    /// Waits until the next part ends. `None` if there is none left. Loses nothing if it is dropped while it waits.
    pub(super) async fn next(&mut self) -> Option<Ended> {
        let (id, result) = match self.tasks.join_next_with_id().await? {
            Ok(ended) => ended,
            Err(error) if error.is_panic() => (error.id(), Err(anyhow!("it panicked"))),
            Err(error) => (error.id(), Err(error.into())),
        };
        let part = self.names.remove(&id).unwrap_or_default();
        Some(Ended { part, result })
    }

    /// The parts that still run.
    pub(super) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.names.values().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    pub(super) async fn abort(&mut self) {
        self.tasks.shutdown().await;
        self.names.clear();
    }
}

impl Ended {
    /// The outcome of an end before the shutdown: an error in any case.
    pub(super) fn early(self) -> anyhow::Result<()> {
        match self.result {
            Ok(()) => Err(anyhow!("{} has ended by itself", self.part)),
            Err(_) => self.result(),
        }
    }

    pub(super) fn result(self) -> anyhow::Result<()> {
        self.result
            .with_context(|| format!("{} has failed", self.part))
    }
}
