//! Waiting for a condition, with a deadline. The one place in the tests where anything sleeps.

use std::time::{Duration, Instant};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(50);

/// Asks until there is an answer.
///
/// # Errors
/// Where there is none within `limit`, naming `what`, or where asking fails.
pub async fn until<T>(
    limit: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        anyhow::ensure!(Instant::now() < deadline, "{what}: not within {limit:?}");
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Asks until the count is `expected`; fails at once where it is more.
///
/// # Errors
/// As [`until`], with the last count.
pub async fn until_count(
    limit: Duration,
    what: &str,
    expected: usize,
    mut count: impl AsyncFnMut() -> anyhow::Result<usize>,
) -> anyhow::Result<()> {
    let mut last = 0;
    let waited = until(limit, what, async || {
        last = count().await?;
        anyhow::ensure!(
            last <= expected,
            "{what}: {last}, more than the {expected} expected"
        );
        Ok((last == expected).then_some(()))
    });
    let result = waited.await;
    result.map_err(|error| error.context(format!("{what}: {last} of {expected}")))
}
