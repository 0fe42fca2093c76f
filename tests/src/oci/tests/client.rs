//! A client that can be made to err: requests are drafts that anything can be changed in after they were signed, and are
//! sent byte by byte as they stand.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, Utc};
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_native_tls::TlsConnector;
use tokio_native_tls::native_tls::{self, Certificate};

use super::super::call::Call;

/// What Oracle's SDKs sign of a POST.
pub(super) const ALL: &str =
    "date (request-target) host content-length content-type x-content-sha256";

/// A request in the making.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) text: String,
}

pub(super) fn http_date(at: DateTime<Utc>) -> String {
    at.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

impl Draft {
    /// A POST of JSON with all headers that a signature needs, dated now.
    pub(super) fn post(host: &str, target: &str, body: &str) -> Self {
        let digest = openssl::sha::sha256(body.as_bytes());
        Self::get(host, target)
            .method("POST")
            .header("content-type", "application/json")
            .header("content-length", &body.len().to_string())
            .header("x-content-sha256", &BASE64_STANDARD.encode(digest))
            .body(body)
    }

    pub(super) fn get(host: &str, target: &str) -> Self {
        let draft = Self {
            method: "GET".to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        };
        draft
            .header("host", host)
            .header("date", &http_date(Utc::now()))
    }

    fn method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }

    fn body(mut self, body: &str) -> Self {
        self.body = body.as_bytes().to_vec();
        self
    }

    /// With a header, in place of one of that name.
    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(other, _)| other != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| other != name);
        self
    }

    pub(super) fn get_header(&self, name: &str) -> String {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.unwrap().1.clone()
    }

    /// Signed as Oracle's SDKs sign a POST.
    pub(super) fn signed(self, key_id: &str, key: &PKey<Private>) -> Self {
        self.signed_over(ALL, key_id, key)
    }

    /// Signed over these headers.
    pub(super) fn signed_over(self, names: &str, key_id: &str, key: &PKey<Private>) -> Self {
        let lines: Vec<String> = names
            .split(' ')
            .map(|name| match name {
                "(request-target)" => {
                    let method = self.method.to_lowercase();
                    format!("{name}: {method} {}", self.target)
                }
                _ => format!("{name}: {}", self.get_header(name)),
            })
            .collect();
        let mut signer = Signer::new(MessageDigest::sha256(), key).unwrap();
        let signature = signer.sign_oneshot_to_vec(lines.join("\n").as_bytes());
        let signature = BASE64_STANDARD.encode(signature.unwrap());
        let value = format!(
            "Signature version=\"1\",headers=\"{names}\",keyId=\"{key_id}\",algorithm=\"rsa-sha256\",signature=\"{signature}\""
        );
        self.header("authorization", &value)
    }

    /// The request as the stand-in holds it.
    pub(super) fn call(&self) -> Call {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        Call {
            method: Method::from_bytes(self.method.as_bytes()).unwrap(),
            target: self.target.clone(),
            headers,
            body: self.body.clone().into(),
        }
    }

    /// Sends it over HTTP, to the host that it names. None where the connection ends without an answer.
    pub(super) async fn send(&self) -> Option<Answer> {
        let stream = TcpStream::connect(self.get_header("host")).await.unwrap();
        self.over(stream).await
    }

    /// Sends it over TLS to a server with a certificate of this authority.
    pub(super) async fn send_tls(&self, host: &str, ca_pem: &str) -> Option<Answer> {
        let ca = Certificate::from_pem(ca_pem.as_bytes()).unwrap();
        let mut builder = native_tls::TlsConnector::builder();
        builder.add_root_certificate(ca);
        let connector = TlsConnector::from(builder.build().unwrap());
        let stream = TcpStream::connect(host).await.unwrap();
        let stream = connector.connect("127.0.0.1", stream).await.unwrap();
        self.over(stream).await
    }

    async fn over(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Option<Answer> {
        let headers = self.headers.iter();
        let headers: String = headers
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let head = format!(
            "{} {} HTTP/1.1\r\n{headers}connection: close\r\n\r\n",
            self.method, self.target
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&self.body).await.unwrap();
        let mut bytes = Vec::new();
        // TLS that ends without saying so is an end as well.
        let _ = stream.read_to_end(&mut bytes).await;
        Answer::parse(&String::from_utf8(bytes).unwrap())
    }
}

impl Answer {
    fn parse(text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_lowercase(), value.to_owned())
        });
        Some(Self {
            status,
            headers: headers.collect(),
            text: body.to_owned(),
        })
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Status and error code of a refusal.
    pub(super) fn refusal(&self) -> (u16, String) {
        (
            self.status,
            self.json()["code"].as_str().unwrap().to_owned(),
        )
    }

    pub(super) fn message(&self) -> String {
        self.json()["message"].as_str().unwrap().to_owned()
    }
}
