//! The receiver of alerts: takes webhooks with their time, and fails or hangs on demand.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::net::TcpListener;
use tollgate_types::Decision;

use super::schedule::Refusal;
use crate::offline::{Key, key_of};

/// Longer than any client waits.
const HANG: Duration = Duration::from_secs(120);
/// From taking an alert until its answer, so that kills meet alerts in flight.
const ANSWER: Duration = Duration::from_millis(30);

#[derive(Debug)]
struct Seen {
    begun: Instant,
    refusal: AtomicU8,
    taken: Mutex<Vec<(Key, Duration)>>,
}

/// A running receiver. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Receiver {
    /// Where it listens.
    pub(super) address: String,
    seen: Arc<Seen>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
}

impl Receiver {
    pub(super) async fn start(begun: Instant) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let seen = Arc::new(Seen {
            begun,
            refusal: AtomicU8::new(0),
            taken: Mutex::default(),
        });
        let app = Router::new()
            .route("/", post(take))
            .with_state(Arc::clone(&seen));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(Self { address, seen })
    }

    /// What it does from here on.
    pub(super) fn refuse(&self, refusal: Option<Refusal>) {
        let code = match refusal {
            None => 0,
            Some(Refusal::Fails) => 1,
            Some(Refusal::Hangs) => 2,
        };
        self.seen.refusal.store(code, Ordering::Relaxed);
    }

    /// What it has taken, and when.
    pub(super) fn taken(&self) -> Vec<(Key, Duration)> {
        self.seen
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

async fn take(State(seen): State<Arc<Seen>>, body: String) -> StatusCode {
    match seen.refusal.load(Ordering::Relaxed) {
        0 => {}
        1 => return StatusCode::INTERNAL_SERVER_ERROR,
        _ => tokio::time::sleep(HANG).await,
    }
    let decision = serde_json::from_str::<Message<'_>>(&body).ok();
    let decision = decision
        .as_ref()
        .and_then(|message| Decision::parse(message.data.get().as_bytes()).ok());
    let Some(decision) = decision else {
        return StatusCode::BAD_REQUEST;
    };
    let taken = (key_of(&decision), seen.begun.elapsed());
    seen.taken
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(taken);
    tokio::time::sleep(ANSWER).await;
    StatusCode::NO_CONTENT
}
