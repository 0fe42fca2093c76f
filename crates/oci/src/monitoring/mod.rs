//! Posts the metrics of `/metrics` to Oracle's Monitoring as custom metrics, once a minute.

mod post;
mod streams;

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use tollgate_service::Shutdown;
use tollgate_service::telemetry::{exposition, metrics_text};

use crate::Client;
use crate::config::OciConfig;
use post::Poster;
use streams::Look;

/// Timeout of the last post.
pub(crate) const FAREWELL: Duration = Duration::from_secs(3);

/// Posts until `ended`, then a last time.
pub(crate) async fn run(client: Client, config: OciConfig, service: &'static str, ended: Shutdown) {
    let every = Duration::from_secs(config.monitoring.interval_seconds);
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut poster = Poster::new(client, &config, service);
    let mut before = look();
    loop {
        let last = tokio::select! {
            _ = ticks.tick() => false,
            () = ended.begun() => true,
        };
        let now = look();
        poster.add(now.since(&before));
        before = now;
        let over = CancellationToken::new();
        // Retried until the next post is due.
        let limit = if last { FAREWELL } else { every.mul_f64(0.9) };
        let sending = poster.send(&over);
        tokio::pin!(sending);
        let interrupted = async {
            tokio::select! {
                () = tokio::time::sleep(limit) => {}
                () = ended.begun(), if !last => {}
            }
        };
        tokio::select! {
            () = &mut sending => {}
            () = interrupted => {
                over.cancel();
                sending.await;
            }
        }
        if last {
            return;
        }
    }
}

fn look() -> Look {
    Look::at(exposition::samples(&metrics_text()))
}
