//! The open connections of one listener: how many there are in total and of each peer, how much memory their unread
//! answers take, and which is closed for another.
//!
//! Invariant: connections without a request never keep a caller out. At the bound the one that has been without a request
//! for longest is closed, those that never sent one first. Unread answers take at most their bound and one answer.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::activity::{Activity, Close};
use super::answers::PIECE;
use super::config::ConnectionLimits;

/// The least time between two log lines about refused connections.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// The part of the memory for unread answers that one connection may use before its requests are refused: an eighth.
const CONNECTION_PART: usize = 8;

/// The open connections of a listener.
#[derive(Debug)]
pub(super) struct Connections {
    /// The setting of the listener, which is the label of the metrics.
    listener: Arc<str>,
    limits: ConnectionLimits,
    open: Mutex<Open>,
    /// The bytes of unread answers, those of connections that are being closed too.
    unread: AtomicUsize,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    all: HashMap<u64, (IpAddr, Arc<Activity>)>,
    peers: HashMap<IpAddr, usize>,
    warned: Option<Instant>,
}

impl Open {
    fn remove(&mut self, id: u64) {
        let Some((peer, _)) = self.all.remove(&id) else {
            return;
        };
        if let Some(count) = self.peers.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.peers.remove(&peer);
            }
        }
    }

    /// Closes the connection that suits best, of this peer or of all. False: all of them have requests.
    fn evict(&mut self, peer: Option<IpAddr>) -> bool {
        let candidates = self
            .all
            .iter()
            .filter(|(_, (found, _))| peer.is_none_or(|peer| peer == *found))
            .filter_map(|(id, (_, activity))| Some((activity.eviction_rank()?, *id)));
        let Some((_, id)) = candidates.min() else {
            return false;
        };
        if let Some((_, activity)) = self.all.get(&id) {
            activity.evict(Close::Evicted);
        }
        self.remove(id);
        true
    }

    /// Closes connections until the unread answers of the others take at most `max` bytes. Of those that have at least the
    /// average, the one of which nothing was taken for longest goes first. One connection is left in any case: an answer
    /// may be larger than the bound.
    fn evict_unread(&mut self, max: usize) {
        loop {
            let unread = |activity: &Activity| Some(activity.unread()).filter(|bytes| *bytes > 0);
            let holders = self.all.values();
            let (count, sum) = holders
                .filter_map(|(_, activity)| unread(activity))
                .fold((0, 0), |(count, sum), bytes| (count + 1, sum + bytes));
            if sum <= max || count < 2 {
                return;
            }
            let candidates = self.all.iter().filter_map(|(id, (_, activity))| {
                let holds = unread(activity)? >= sum / count;
                holds.then(|| activity.stalled_since().map(|since| (since, *id)))?
            });
            let Some((_, id)) = candidates.min() else {
                return;
            };
            if let Some((_, activity)) = self.all.get(&id) {
                activity.evict(Close::Unread);
            }
            self.remove(id);
        }
    }
}

/// An admitted connection. Dropping it makes room.
#[derive(Debug)]
pub(super) struct Admitted {
    id: u64,
    connections: Arc<Connections>,
    pub(super) activity: Arc<Activity>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.connections.open();
        open.remove(self.id);
        self.connections.measure(&open);
    }
}

impl Connections {
    pub(super) fn new(listener: Arc<str>, limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self {
            listener,
            limits,
            open: Mutex::default(),
            unread: AtomicUsize::new(0),
        })
    }

    pub(super) const fn limits(&self) -> &ConnectionLimits {
        &self.limits
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits a connection, if need be in place of one without a request. `None`: it is to be closed at once.
    pub(super) fn admit(self: &Arc<Self>, peer: IpAddr, now: Instant) -> Option<Admitted> {
        let counted = self.limits.counts(peer);
        let peer = network(peer);
        let mut open = self.open();
        let of_peer = open.peers.get(&peer).copied().unwrap_or_default();
        if counted && of_peer >= self.limits.per_peer && !open.evict(Some(peer)) {
            self.refused("peer_limit", &mut open);
            return None;
        }
        if open.all.len() >= self.limits.max && !open.evict(None) {
            self.refused("limit", &mut open);
            return None;
        }
        open.next += 1;
        let id = open.next;
        let activity = Arc::new(Activity::new(now));
        open.all.insert(id, (peer, Arc::clone(&activity)));
        *open.peers.entry(peer).or_default() += 1;
        self.measure(&open);
        Some(Admitted {
            id,
            connections: Arc::clone(self),
            activity,
        })
    }

    /// Counts a connection that the service has closed.
    pub(super) fn closed(&self, why: Close) {
        match why {
            Close::Idle => {}
            Close::Head | Close::Write | Close::Evicted | Close::Unread | Close::Handshake => {
                self.refused(why.reason(), &mut self.open());
            }
        }
    }

    /// Whether the unread answers of a connection leave room for more of them.
    pub(super) fn has_room(&self, activity: &Activity) -> bool {
        activity.unread() < self.limits.unread / CONNECTION_PART
    }

    /// Counts bytes of an answer in memory. Beyond the bound over all connections, those whose callers do not read are
    /// closed.
    pub(super) fn charge(&self, activity: &Activity, bytes: usize) {
        activity.charge(bytes);
        let unread = self.unread.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if unread > self.limits.unread {
            self.open().evict_unread(self.limits.unread);
        }
        if bytes > PIECE {
            self.measure_unread(unread);
        }
    }

    /// Gives back what was counted.
    pub(super) fn release(&self, activity: &Activity, bytes: usize) {
        activity.release(bytes);
        let unread = self.unread.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        if bytes > PIECE {
            self.measure_unread(unread);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "bytes in memory")]
    fn measure_unread(&self, bytes: usize) {
        let listener = self.listener.to_string();
        metrics::gauge!("tollgate_http_unread_answer_bytes", "listener" => listener)
            .set(bytes as f64);
    }

    fn refused(&self, reason: &'static str, open: &mut Open) {
        let listener = self.listener.to_string();
        metrics::counter!("tollgate_http_connections_refused_total", "listener" => listener, "reason" => reason)
            .increment(1);
        let now = Instant::now();
        let due = open
            .warned
            .is_none_or(|warned| now.duration_since(warned) >= WARN_INTERVAL);
        if due {
            open.warned = Some(now);
            let (listener, connections) = (&*self.listener, open.all.len());
            tracing::warn!(
                listener,
                reason,
                connections,
                "connections are refused or closed; tollgate_http_connections_refused_total counts them"
            );
        }
    }

    fn measure(&self, open: &Open) {
        let count = u32::try_from(open.all.len()).unwrap_or(u32::MAX);
        let listener = self.listener.to_string();
        metrics::gauge!("tollgate_http_connections", "listener" => listener).set(f64::from(count));
        self.measure_unread(self.unread.load(Ordering::Relaxed));
    }
}

/// The addresses that one subscriber has: of IPv6 a /64.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(max: usize, per_peer: usize) -> Arc<Connections> {
        let limits = ConnectionLimits {
            max,
            per_peer,
            ..ConnectionLimits::default()
        };
        Connections::new("test.listen".into(), limits)
    }

    fn peer(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_bound_the_oldest_connection_without_a_request_is_closed_and_busy_ones_are_not()
    {
        let connections = connections(3, 3);
        let admit = || connections.admit(peer("127.0.0.1"), Instant::now());
        let kept = admit().unwrap();
        let request = kept.activity.begin_request(false);
        kept.activity.end_request(request, Instant::now());
        let busy = admit().unwrap();
        busy.activity.begin_request(false);
        let silent = admit().unwrap();
        let limits = connections.limits();
        // A connection that never sent a request goes before one that had some, though it is younger.
        let fourth = admit().unwrap();
        assert_eq!(silent.activity.expired(limits).await, Close::Evicted);
        fourth.activity.begin_request(false);
        let fifth = admit().unwrap();
        assert_eq!(kept.activity.expired(limits).await, Close::Evicted);
        fifth.activity.begin_request(false);
        assert!(admit().is_none());
        drop(busy);
        assert!(admit().is_some());
    }

    #[test]
    fn one_peer_cannot_take_what_is_left_for_others() {
        let connections = connections(10, 2);
        let busy = |text| {
            let admitted = connections.admit(peer(text), Instant::now())?;
            admitted.activity.begin_request(false);
            Some(admitted)
        };
        let _held = [busy("192.0.2.1").unwrap(), busy("192.0.2.1").unwrap()];
        assert!(busy("192.0.2.1").is_none());
        assert!(busy("::ffff:192.0.2.1").is_none());
        assert!(busy("192.0.2.2").is_some());
        let _held = [
            busy("2001:db8::1").unwrap(),
            busy("2001:db8::1:0:0:9").unwrap(),
        ];
        assert!(busy("2001:db8::2").is_none());
        assert!(busy("2001:db8:0:1::2").is_some());
    }

    #[test]
    fn a_connection_that_has_ended_leaves_nothing_behind() {
        let connections = connections(4, 2);
        for _ in 0..20 {
            let admitted = connections.admit(peer("192.0.2.1"), Instant::now());
            drop(admitted.unwrap());
        }
        let open = connections.open();
        assert!(open.all.is_empty() && open.peers.is_empty());
    }
}
