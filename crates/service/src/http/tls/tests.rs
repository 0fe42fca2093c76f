//! Handshakes with an authority of the test's own.

use std::net::SocketAddr;

use axum::extract::Request;
use axum::routing::get;
use axum::{Extension, Router};
use openssl::nid::Nid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::Shutdown;
use crate::http::bind;

#[path = "../../../tests/certificates/mod.rs"]
mod certificates;

use certificates::{Identity, issue};

const DEADLINE: Duration = Duration::from_secs(20);

struct Listening {
    authority: Identity,
    directory: tempfile::TempDir,
    address: SocketAddr,
    shutdown: Shutdown,
    serving: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Listening {
    async fn start() -> Self {
        let authority = issue("authority", None);
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| Some(directory.path().join(name));
        issue("first", Some(&authority)).write(directory.path());
        std::fs::write(path("ca.crt").unwrap(), authority.pem()).unwrap();
        let config = TlsConfig {
            certificate: path("tls.crt"),
            key: path("tls.key"),
            client_ca: path("ca.crt"),
            reload_seconds: 1,
            ..TlsConfig::default()
        };
        let app = Router::new().route("/", get(caller)).route(
            "/version",
            get(async |request: Request| format!("{:?}", request.version())),
        );
        let bound = bind("test.listen", SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .unwrap()
            .with_tls(&config)
            .await
            .unwrap();
        let (address, shutdown) = (bound.address(), Shutdown::new(Duration::from_secs(1)));
        let serving = tokio::spawn(bound.serve(app, shutdown.clone()));
        Self {
            authority,
            directory,
            address,
            shutdown,
            serving,
        }
    }

    fn url(&self) -> String {
        format!("https://{}/", self.address)
    }

    /// The name in the certificate that the listener shows now.
    async fn shown(&self) -> String {
        let mut builder =
            openssl::ssl::SslConnector::builder(openssl::ssl::SslMethod::tls()).unwrap();
        builder.set_verify(openssl::ssl::SslVerifyMode::NONE);
        let ssl = builder.build().configure().unwrap();
        let ssl = ssl.into_ssl("localhost").unwrap();
        let stream = TcpStream::connect(self.address).await.unwrap();
        let mut stream = SslStream::new(ssl, stream).unwrap();
        std::pin::Pin::new(&mut stream).connect().await.unwrap();
        let shown = stream.ssl().peer_certificate().unwrap();
        let name = shown.subject_name().entries_by_nid(Nid::COMMONNAME).next();
        name.unwrap().data().to_string().unwrap().to_string()
    }

    async fn stop(self) {
        self.shutdown.begin();
        self.serving.await.unwrap().unwrap();
    }
}

async fn caller(certificate: Option<Extension<ClientCertificate>>) -> &'static str {
    let Some(Extension(certificate)) = certificate else {
        return "nobody";
    };
    let has = |name| certificate.has(name);
    match has("CN=shop") && has("URI:spiffe://example/shop") && has("DNS:LOCALHOST") {
        true => "shop",
        false => "somebody",
    }
}

#[tokio::test]
async fn a_handshake_is_made_with_http2_and_a_client_certificate_names_its_owner() {
    let listening = Listening::start().await;
    let shop = issue("shop", Some(&listening.authority));
    for (own, expected) in [(None, "nobody"), (Some(&shop), "shop")] {
        let client = listening.authority.client(own);
        let answer = client.get(listening.url()).send().await.unwrap();
        assert_eq!(
            answer.headers()["strict-transport-security"],
            "max-age=31536000"
        );
        assert_eq!(answer.text().await.unwrap(), expected);
    }
    let client = listening.authority.client(None);
    let answer = client.get(format!("{}version", listening.url()));
    assert_eq!(
        answer.send().await.unwrap().text().await.unwrap(),
        "HTTP/2.0"
    );
    listening.stop().await;
}

#[tokio::test]
async fn a_client_certificate_of_another_authority_is_refused() {
    let listening = Listening::start().await;
    let stranger = issue("shop", Some(&issue("authority", None)));
    let client = listening.authority.client(Some(&stranger));
    assert!(client.get(listening.url()).send().await.is_err());
    listening.stop().await;
}

#[tokio::test]
async fn plain_http_to_a_tls_port_is_closed_without_an_answer() {
    let listening = Listening::start().await;
    let mut stream = TcpStream::connect(listening.address).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
    assert!(closed.is_ok(), "the connection is still open");
    let text = String::from_utf8_lossy(&answer);
    assert!(!text.contains("nobody"), "{text}");
    listening.stop().await;
}

#[tokio::test]
async fn a_renewed_certificate_is_used_without_a_restart_and_a_broken_one_is_not() {
    let listening = Listening::start().await;
    assert_eq!(listening.shown().await, "first");
    let directory = listening.directory.path();
    // The key belongs to another certificate.
    let other = issue("other", Some(&listening.authority));
    std::fs::write(directory.join("tls.key"), other.key_pem()).unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(3);
    while tokio::time::Instant::now() < deadline {
        assert_eq!(listening.shown().await, "first");
    }
    issue("second", Some(&listening.authority)).write(directory);
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while listening.shown().await != "second" {
        assert!(tokio::time::Instant::now() < deadline, "not renewed");
    }
    listening.stop().await;
}

#[tokio::test]
async fn a_pipe_in_the_place_of_a_certificate_does_not_stop_its_renewal() {
    let listening = Listening::start().await;
    let directory = listening.directory.path();
    let (pipe, certificate) = (directory.join("pipe"), directory.join("tls.crt"));
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    std::fs::rename(&pipe, &certificate).unwrap();
    // Several times the interval of reloads.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(3);
    while tokio::time::Instant::now() < deadline {
        assert_eq!(listening.shown().await, "first");
    }
    std::fs::remove_file(&certificate).unwrap();
    issue("second", Some(&listening.authority)).write(directory);
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while listening.shown().await != "second" {
        assert!(tokio::time::Instant::now() < deadline, "not renewed");
    }
    listening.stop().await;
}

#[test]
fn files_that_cannot_be_used_are_named_and_never_quoted() {
    let authority = issue("authority", None);
    let (one, other) = (
        issue("one", Some(&authority)),
        issue("other", Some(&authority)),
    );
    let refusal = |certificate: &[u8], key: &[u8]| {
        let files = Files {
            certificate: certificate.to_vec(),
            key: key.to_vec(),
            client_ca: None,
        };
        build(&files).err().unwrap()
    };
    assert!(refusal(b"", &one.key_pem()).starts_with("tls.certificate: "));
    assert!(refusal(&one.pem(), b"secret").starts_with("tls.key: "));
    assert!(!refusal(&one.pem(), b"secret").contains("secret"));
    let cipher = openssl::symm::Cipher::aes_128_cbc();
    let encrypted = one.key.private_key_to_pem_pkcs8_passphrase(cipher, b"x");
    assert!(refusal(&one.pem(), &encrypted.unwrap()).starts_with("tls.key: "));
    assert!(refusal(&one.pem(), &other.key_pem()).starts_with("tls.certificate, tls.key: "));
    let good = build(&Files {
        certificate: one.pem(),
        key: one.key_pem(),
        client_ca: None,
    });
    let days = (good.unwrap().expires - crate::now().micros() / 1_000_000) / 86_400;
    assert!((29..=30).contains(&days), "{days}");
}
