//! The settings `http` of a section with a listener: bounds on connections.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Network;
use crate::config::ConfigError;

/// Bounds on the connections of a public listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// The most open connections, and never more than a quarter of the file descriptors of the process. Beyond it the
    /// connection that has been without a request for longest is closed; if all have one, the new connection is.
    pub max_connections: usize,
    /// The most open connections of one peer address (of IPv6: one /64); 0 is half of `max_connections`. Loopback and
    /// `proxies` are exempt.
    pub max_connections_per_peer: usize,
    /// Networks of proxies and load balancers, such as `10.0.0.0/8`, through which many callers share an address.
    pub proxies: Vec<Network>,
    /// The names under which the API answers, beside those of this machine: `["pay.example.com"]`. Without any, an API
    /// with keys answers under every name, and one without keys only under those of this machine and its address.
    pub hosts: Vec<String>,
    /// How long the TLS handshake and the head of a request may take, in milliseconds, from the connection or the first
    /// byte of the head. Beyond it the connection is closed.
    pub head_timeout_ms: u64,
    /// How long a connection may be without a request, in milliseconds. Longer than that of a proxy in front.
    pub idle_timeout_ms: u64,
    /// How long a caller may take nothing of an answer, in milliseconds. Beyond it the connection is closed.
    pub write_timeout_ms: u64,
    /// How long an answer may take to be written, in milliseconds. Beyond it the connection is closed.
    pub answer_timeout_ms: u64,
    /// How fast a connection must take its answers, on average over `write_timeout_ms`; 0 is no limit.
    pub min_answer_bytes_per_second: u32,
    /// The memory that unread answers of all connections may take, in bytes. Beyond it connections whose callers do not
    /// read are closed. One connection may use an eighth before its further requests are refused.
    pub max_unread_bytes: usize,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            max_connections: 1_024,
            max_connections_per_peer: 0,
            proxies: Vec::new(),
            hosts: Vec::new(),
            head_timeout_ms: 10_000,
            idle_timeout_ms: 90_000,
            write_timeout_ms: 30_000,
            answer_timeout_ms: 300_000,
            min_answer_bytes_per_second: 1_024,
            max_unread_bytes: 128 * 1024 * 1024,
        }
    }
}

impl HttpConfig {
    /// Checks the ranges. `section` holds the settings, such as `ingest`.
    ///
    /// # Errors
    /// Names the invalid setting.
    pub fn validate(&self, section: &str) -> Result<(), ConfigError> {
        let invalid = |setting: &str, reason: &str| {
            Err(ConfigError::invalid(
                format!("{section}.http.{setting}"),
                reason,
            ))
        };
        if self.max_connections == 0 {
            return invalid("max_connections", "must be at least 1");
        }
        if self.max_connections_per_peer > self.max_connections {
            return invalid(
                "max_connections_per_peer",
                "must be at most http.max_connections; 0 is half of it",
            );
        }
        if !self.hosts.iter().all(|host| is_host_name(host)) {
            return invalid(
                "hosts",
                "must be names without a port, such as pay.example.com",
            );
        }
        for (setting, ms) in [
            ("head_timeout_ms", self.head_timeout_ms),
            ("idle_timeout_ms", self.idle_timeout_ms),
            ("write_timeout_ms", self.write_timeout_ms),
            ("answer_timeout_ms", self.answer_timeout_ms),
        ] {
            if !(1..=3_600_000).contains(&ms) {
                return invalid(setting, "must lie between 1 and 3600000");
            }
        }
        if self.max_unread_bytes < MIN_UNREAD {
            return invalid("max_unread_bytes", "must be at least 1048576 (1 MiB)");
        }
        Ok(())
    }

    /// The bounds of a public listener in a process that may open this many files.
    pub(super) fn limits(&self, max_files: usize) -> ConnectionLimits {
        let max = self
            .max_connections
            .min((max_files / 4).max(MIN_CONNECTIONS));
        let per_peer = match self.max_connections_per_peer {
            0 => (max / 2).max(1),
            given => given.min(max),
        };
        ConnectionLimits {
            max,
            per_peer,
            proxies: self.proxies.clone(),
            head: Duration::from_millis(self.head_timeout_ms),
            idle: Duration::from_millis(self.idle_timeout_ms),
            write: Duration::from_millis(self.write_timeout_ms),
            answer: Duration::from_millis(self.answer_timeout_ms),
            min_rate: self.min_answer_bytes_per_second,
            unread: self.max_unread_bytes,
            streams: STREAMS,
        }
    }
}

/// Whether a text can be the name of a host, or an address.
pub(super) fn is_host_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_ipv6 = text.strip_prefix('[').is_some_and(|text| {
        text.strip_suffix(']')
            .is_some_and(|text| text.parse::<Ipv6Addr>().is_ok())
    });
    is_ipv6 || (!text.is_empty() && text.bytes().all(allowed))
}

/// Requests at the same time on one HTTP/2 connection. RFC 9113 recommends at least 100; but whoever can connect can have
/// as many answers in memory, and a client opens more connections when it has more to ask.
const STREAMS: u32 = 32;
/// The same on an admin port, for which one scraper and one probe are usual.
const ADMIN_STREAMS: u32 = 8;
/// The least memory for unread answers.
const MIN_UNREAD: usize = 1024 * 1024;
/// What a process with few file descriptors may still open.
const MIN_CONNECTIONS: usize = 16;

/// The bounds in force on one listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConnectionLimits {
    pub(super) max: usize,
    pub(super) per_peer: usize,
    pub(super) proxies: Vec<Network>,
    pub(super) head: Duration,
    pub(super) idle: Duration,
    pub(super) write: Duration,
    /// For the whole of an answer.
    pub(super) answer: Duration,
    /// Of all answers of a connection, in bytes per second; 0 is no limit.
    pub(super) min_rate: u32,
    /// Of unread answers in memory, in bytes.
    pub(super) unread: usize,
    /// Requests at the same time on one HTTP/2 connection.
    pub(super) streams: u32,
}

impl Default for ConnectionLimits {
    /// Those of an admin port. They are its own, so that a flood of the public port does not reach health checks.
    fn default() -> Self {
        let config = HttpConfig {
            max_connections: 32,
            max_connections_per_peer: 32,
            head_timeout_ms: 5_000,
            max_unread_bytes: 16 * 1024 * 1024,
            ..HttpConfig::default()
        };
        Self {
            streams: ADMIN_STREAMS,
            ..config.limits(usize::MAX)
        }
    }
}

impl ConnectionLimits {
    /// The bytes that must be taken within the time for a write, at least one.
    pub(super) fn quota(&self) -> usize {
        let bytes = self.write.as_millis() * u128::from(self.min_rate) / 1_000;
        usize::try_from(bytes).unwrap_or(usize::MAX).max(1)
    }

    /// Whether the connections of this peer are counted by themselves.
    pub(super) fn counts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        !peer.is_loopback() && !self.proxies.iter().any(|proxies| proxies.contains(peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_takes_at_most_a_quarter_of_the_file_descriptors() {
        let limits = HttpConfig::default().limits(1_024);
        assert_eq!((limits.max, limits.per_peer), (256, 128));
        let limits = HttpConfig::default().limits(1_000_000);
        assert_eq!((limits.max, limits.per_peer), (1_024, 512));
        assert_eq!(HttpConfig::default().limits(8).max, 16);
    }

    #[test]
    fn loopback_and_proxies_have_no_bound_of_their_own() {
        let config = HttpConfig {
            proxies: vec!["10.0.0.0/8".parse().unwrap()],
            ..HttpConfig::default()
        };
        let limits = config.limits(usize::MAX);
        for (peer, counted) in [
            ("127.0.0.1", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("10.1.2.3", false),
            ("192.0.2.1", true),
            ("2001:db8::1", true),
        ] {
            assert_eq!(limits.counts(peer.parse().unwrap()), counted, "{peer}");
        }
    }

    #[test]
    fn an_invalid_bound_is_refused_with_its_name() {
        type Change = fn(&mut HttpConfig);
        let cases: [(&str, Change); 5] = [
            ("max_connections", |c| c.max_connections = 0),
            ("max_connections_per_peer", |c| {
                c.max_connections_per_peer = 2_000;
            }),
            ("hosts", |c| c.hosts = vec!["https://x".into()]),
            ("head_timeout_ms", |c| c.head_timeout_ms = 0),
            ("write_timeout_ms", |c| c.write_timeout_ms = 3_600_001),
        ];
        for (setting, change) in cases {
            let mut config = HttpConfig::default();
            change(&mut config);
            let message = config.validate("ingest").unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("ingest.http.{setting}: ")),
                "{message}"
            );
        }
    }
}
