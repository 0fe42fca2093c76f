//! Callers that do not take their answers, or next to nothing of them.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Bytes;
use axum::response::{IntoResponse as _, Response};
use tokio::net::TcpSocket;

use super::*;
use crate::http::hold_until_written;

const PAGE: usize = 100_000;

/// How many pages are in memory.
#[derive(Debug, Clone, Default)]
struct Pages {
    live: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

struct Page {
    bytes: Vec<u8>,
    pages: Pages,
}

impl Pages {
    fn page(&self, bytes: usize) -> Page {
        let live = self.live.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(live, Ordering::SeqCst);
        Page {
            bytes: vec![b'x'; bytes],
            pages: self.clone(),
        }
    }

    fn live(&self) -> usize {
        self.live.load(Ordering::SeqCst)
    }

    async fn until(&self, wanted: impl Fn(usize) -> bool) {
        let waiting = async {
            let mut ticks = tokio::time::interval(Duration::from_millis(5));
            while !wanted(self.live()) {
                ticks.tick().await;
            }
        };
        tokio::time::timeout(LATE, waiting)
            .await
            .unwrap_or_else(|_| panic!("{} pages are in memory", self.live()));
    }

    /// `/page`: a page. `/held/{bytes}`: an answer of so many bytes that holds a page of one byte.
    fn routes(&self) -> Router {
        let (page, held) = (self.clone(), self.clone());
        let page = move || async move { Bytes::from_owner(page.page(PAGE)).into_response() };
        let held = move |axum::extract::Path(bytes): axum::extract::Path<usize>| async move {
            let mut response: Response = vec![b'x'; bytes].into_response();
            hold_until_written(&mut response, held.page(1), None);
            response
        };
        Router::new()
            .route("/page", get(page))
            .route("/held/{bytes}", get(held))
    }
}

impl AsRef<[u8]> for Page {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.pages.live.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A preface with a window of so many bytes for the answer of each stream.
fn preface(window: u32) -> Vec<u8> {
    // SETTINGS_INITIAL_WINDOW_SIZE, RFC 9113, section 6.5.2.
    let settings: [&[u8]; 2] = [&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4], &window.to_be_bytes()];
    [PREFACE, &settings.concat()].concat()
}

/// HEADERS of a GET: END_STREAM and END_HEADERS.
fn request(stream: u32, path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend(path.as_bytes());
    block.extend([0x01, 9]);
    block.extend(b"localhost");
    let mut frame = vec![0, 0, u8::try_from(block.len()).unwrap(), 1, 5];
    frame.extend(stream.to_be_bytes());
    frame.extend(block);
    frame
}

/// WINDOW_UPDATE of one byte.
fn window_update(stream: u32) -> Vec<u8> {
    let mut frame = vec![0, 0, 4, 8, 0];
    frame.extend(stream.to_be_bytes());
    frame.extend(1_u32.to_be_bytes());
    frame
}

/// Requests for a path on so many streams, with a window for none of the answers.
fn requests_without_a_window(path: &str, streams: u32) -> Vec<u8> {
    let mut bytes = preface(0);
    bytes.extend((0..streams).flat_map(|stream| request(2 * stream + 1, path)));
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_has_a_window_for_stay_within_the_bound_of_the_listener() {
    let pages = Pages::default();
    let listening = Listening::serve(pages.routes(), |config| {
        config.max_unread_bytes = 8 * 1024 * 1024;
        config.write_timeout_ms = 60_000;
    })
    .await;
    let mut callers = Vec::new();
    for _ in 0..40 {
        // More than are answered at the same time.
        let bytes = requests_without_a_window("/page", 128);
        callers.push(listening.sends(&bytes).await);
        pages.until(|live| live > 0).await;
    }
    let answer = listening.answer(REQUEST).await;
    assert!(answer.contains("404 Not Found"), "{answer}");
    pages.until(|live| live * PAGE <= 8 * 1024 * 1024).await;
    let most = pages.most.load(Ordering::SeqCst) * PAGE;
    // Before connections are closed, each of those that are served at the moment may have its 32 answers.
    assert!(most < 40 * 1024 * 1024, "{most} bytes");
    drop(callers);
    pages.until(|live| live == 0).await;
    listening.stop().await;
}

#[tokio::test]
async fn one_caller_may_have_32_requests_at_the_same_time() {
    let listening = Listening::start(|config| config.head_timeout_ms = 10_000).await;
    let mut stream = listening.sends(&preface(0)).await;
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head[3], 4, "SETTINGS comes first");
    let mut settings = vec![0; usize::from(head[2])];
    stream.read_exact(&mut settings).await.unwrap();
    // SETTINGS_MAX_CONCURRENT_STREAMS.
    let streams = settings.chunks(6).find(|setting| setting[..2] == [0, 3]);
    assert_eq!(streams.unwrap()[2..], 32_u32.to_be_bytes());
    drop(stream);
    listening.stop().await;
}

#[tokio::test]
async fn a_window_of_a_byte_now_and_then_does_not_keep_an_answer_alive() {
    let listening = Listening::start(|config| config.idle_timeout_ms = 60_000).await;
    let mut bytes = requests_without_a_window("/large", 1);
    bytes.extend(window_update(1));
    let stream = listening.sends(&bytes).await;
    let (mut reader, mut writer) = stream.into_split();
    let trickling = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        while writer.write_all(&window_update(1)).await.is_ok() {
            ticks.tick().await;
        }
    });
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(LATE, reader.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "the connection is still open");
    trickling.await.unwrap();
    listening.stop().await;
}

#[tokio::test]
async fn an_answer_that_is_read_more_slowly_than_the_least_rate_is_given_up() {
    let listening = Listening::start(|config| {
        config.idle_timeout_ms = 60_000;
        config.min_answer_bytes_per_second = 10_000_000;
    })
    .await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stream = socket.connect(listening.address).await.unwrap();
    stream
        .write_all(b"GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    let slowly = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        let mut piece = [0; 2_000];
        while stream.read(&mut piece).await.is_ok_and(|read| read > 0) {
            ticks.tick().await;
        }
    };
    let closed = tokio::time::timeout(LATE, slowly).await;
    assert!(closed.is_ok(), "the connection is still open");
    listening.stop().await;
}

#[tokio::test]
async fn what_an_answer_holds_is_released_when_it_is_read_or_its_connection_ends() {
    let pages = Pages::default();
    let listening = Listening::serve(pages.routes(), |config| {
        config.write_timeout_ms = 60_000;
        config.idle_timeout_ms = 60_000;
    })
    .await;
    // More than the buffers of both sockets take.
    let large = 32 * 1024 * 1024;
    let get = |bytes: usize| format!("GET /held/{bytes} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut reading = socket.connect(listening.address).await.unwrap();
    let large_request = get(large);
    reading.write_all(large_request.as_bytes()).await.unwrap();
    pages.until(|live| live == 1).await;
    // Small answers hold nothing.
    let mut small = listening.sends(get(64 * 1024).as_bytes()).await;
    small.read_exact(&mut [0; 64 * 1024]).await.unwrap();
    let leaving = listening.sends(get(large).as_bytes()).await;
    pages.until(|live| live == 2).await;
    drop(leaving);
    pages.until(|live| live == 1).await;
    let mut left = large;
    let mut piece = vec![0; 1024 * 1024];
    while left > 0 {
        let read = reading.read(&mut piece).await.unwrap();
        assert!(read > 0, "{left} bytes are missing");
        left = left.saturating_sub(read);
    }
    pages.until(|live| live == 0).await;
    drop((small, reading));
    listening.stop().await;
}
