//! Callers that hold connections without sending requests or taking answers, over real sockets.

use std::time::Instant;

use axum::body::Body;
use axum::routing::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

mod unread;

/// The connection preface of HTTP/2, RFC 9113, section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty SETTINGS frame.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// More than any deadline of these tests, with a machine that is busy.
const LATE: Duration = Duration::from_secs(20);

struct Listening {
    address: SocketAddr,
    shutdown: Shutdown,
    serving: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Listening {
    /// A public listener with short timeouts.
    async fn start(change: impl FnOnce(&mut HttpConfig)) -> Self {
        let large = || async { Body::from(vec![0_u8; 64 * 1024 * 1024]) };
        let app = Router::new()
            .route("/", get(|| async { "here" }))
            .route("/large", get(large));
        Self::serve(app, change).await
    }

    async fn serve(app: Router, change: impl FnOnce(&mut HttpConfig)) -> Self {
        let mut config = HttpConfig {
            head_timeout_ms: 300,
            idle_timeout_ms: 300,
            write_timeout_ms: 300,
            ..HttpConfig::default()
        };
        change(&mut config);
        let bound = bind("test.listen", SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .unwrap()
            .with(&config, false);
        let (address, shutdown) = (bound.address(), Shutdown::new(Duration::from_secs(1)));
        let serving = tokio::spawn(bound.serve(app, shutdown.clone()));
        Self {
            address,
            shutdown,
            serving,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn sends(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        stream
    }

    /// The answer to a request on a connection of its own.
    async fn answer(&self, request: &str) -> String {
        let mut stream = self.sends(request.as_bytes()).await;
        String::from_utf8(until_closed(&mut stream).await).unwrap()
    }

    async fn stop(self) {
        self.shutdown.begin();
        self.serving.await.unwrap().unwrap();
    }
}

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

/// What arrives until the service closes the connection.
async fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    // A connection that is closed while bytes are unread is reset.
    let _ = tokio::time::timeout(LATE, stream.read_to_end(&mut rest))
        .await
        .expect("the connection is still open");
    rest
}

#[tokio::test]
async fn eleven_hundred_silent_connections_do_not_keep_a_request_out() {
    let listening = Listening::start(|config| {
        config.max_connections = 64;
        config.head_timeout_ms = 60_000;
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..1_100 {
        silent.push(listening.connect().await);
    }
    let begun = Instant::now();
    let answer = listening.answer(REQUEST).await;
    assert!(answer.ends_with("here"), "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    // Those beyond the bound were closed, the oldest first.
    for stream in &mut silent[..1_100 - 64] {
        until_closed(stream).await;
    }
    drop(silent);
    listening.stop().await;
}

#[tokio::test]
async fn a_connection_without_a_complete_head_is_closed_at_its_deadline() {
    let listening = Listening::start(|_| ()).await;
    let mut http2 = PREFACE.to_vec();
    http2.extend(SETTINGS);
    let beginnings: [&[u8]; 7] = [
        b"",
        b"G",
        b"GET / HTTP/1.1\r\nhost: localhost\r\na:",
        &PREFACE[..1],
        &PREFACE[..20],
        PREFACE,
        // Without HEADERS.
        &http2,
    ];
    for beginning in beginnings {
        let begun = Instant::now();
        let mut stream = listening.sends(beginning).await;
        until_closed(&mut stream).await;
        let text = String::from_utf8_lossy(beginning);
        assert!(begun.elapsed() >= Duration::from_millis(290), "{text:?}");
    }
    listening.stop().await;
}

#[tokio::test]
async fn a_head_that_is_sent_byte_by_byte_is_cut_off_also_on_a_kept_connection() {
    let listening = Listening::start(|config| config.idle_timeout_ms = 60_000).await;
    for kept in [false, true] {
        let mut stream = listening.connect().await;
        if kept {
            stream
                .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
                .await
                .unwrap();
            let mut answer = [0; 15];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200 OK");
        }
        let (mut reader, mut writer) = stream.into_split();
        let trickling = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(20));
            let _ = writer.write_all(b"GET / HTTP/1.1\r\nhost: ").await;
            while writer.write_all(b"x").await.is_ok() {
                ticks.tick().await;
            }
        });
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(LATE, reader.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "the connection is still open, kept: {kept}");
        trickling.await.unwrap();
    }
    listening.stop().await;
}

#[tokio::test]
async fn a_head_larger_than_32_kib_is_refused_and_one_of_20_kib_is_not() {
    let listening = Listening::start(|config| config.head_timeout_ms = 10_000).await;
    let head = |bytes: usize| {
        let filling = "x".repeat(bytes);
        format!(
            "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nfilling: {filling}\r\n\r\n"
        )
    };
    assert!(listening.answer(&head(20 * 1024)).await.ends_with("here"));
    let mut stream = listening.connect().await;
    // The rest of it is not read.
    let _ = stream.write_all(head(390 * 1024).as_bytes()).await;
    let refused = until_closed(&mut stream).await;
    let refused = String::from_utf8(refused).unwrap();
    assert!(
        refused.is_empty() || refused.starts_with("HTTP/1.1 431 "),
        "{refused}"
    );
    listening.stop().await;
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_given_up() {
    let listening = Listening::start(|_| ()).await;
    let mut stream = listening
        .sends(b"GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await;
    let begun = Instant::now();
    // The listener ends only after its connections.
    while begun.elapsed() < LATE {
        let mut byte = [0; 1];
        tokio::time::timeout(LATE, stream.peek(&mut byte))
            .await
            .unwrap()
            .unwrap();
        if stream.write_all(b"GET").await.is_err() {
            break;
        }
        tokio::time::interval_at(
            tokio::time::Instant::now() + Duration::from_millis(20),
            Duration::from_millis(20),
        )
        .tick()
        .await;
    }
    assert!(begun.elapsed() < LATE, "the connection is still open");
    listening.stop().await;
}

#[tokio::test]
async fn a_flood_of_streams_that_are_reset_at_once_closes_the_connection() {
    let listening = Listening::start(|config| {
        config.head_timeout_ms = 60_000;
        config.idle_timeout_ms = 60_000;
    })
    .await;
    let mut flood = [PREFACE, SETTINGS].concat();
    for stream in (1..4_001_u32).step_by(2) {
        let id = stream.to_be_bytes();
        // HEADERS: GET, http, /, authority x. END_STREAM and END_HEADERS.
        flood.extend([0, 0, 6, 1, 5]);
        flood.extend(id);
        flood.extend([0x82, 0x86, 0x84, 0x41, 1, b'x']);
        // RST_STREAM: CANCEL.
        flood.extend([0, 0, 4, 3, 0]);
        flood.extend(id);
        flood.extend([0, 0, 0, 8]);
    }
    let mut stream = listening.connect().await;
    // The service may close the connection before it has read all of it.
    let _ = stream.write_all(&flood).await;
    until_closed(&mut stream).await;
    assert!(listening.answer(REQUEST).await.ends_with("here"));
    listening.stop().await;
}

#[tokio::test]
async fn an_idle_connection_and_an_unfinished_head_do_not_delay_the_shutdown() {
    let listening = Listening::start(|config| {
        config.head_timeout_ms = 60_000;
        config.idle_timeout_ms = 60_000;
    })
    .await;
    let _silent = listening.connect().await;
    let _unfinished = listening.sends(b"GET / HT").await;
    let mut kept = listening
        .sends(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await;
    kept.read_exact(&mut [0; 15]).await.unwrap();
    let begun = Instant::now();
    listening.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(10));
}
