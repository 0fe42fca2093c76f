//! The two transports to an OTLP endpoint, HTTP and gRPC, with the OpenSSL of the process.

use std::collections::HashMap;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use tokio::net::TcpStream;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::{Channel, Endpoint, Uri};

use crate::http::with_causes;
use crate::telemetry::config::Target;

const CONNECT: Duration = Duration::from_secs(5);

/// Why the last request got no answer: the errors of the exporters lack the cause.
pub(super) type Cause = Arc<Mutex<Option<String>>>;

/// HTTP clients, one for each file of certificate authorities: reading the authorities takes long.
#[derive(Debug, Default)]
pub(super) struct Clients(HashMap<Option<String>, reqwest::Client>);

impl Clients {
    fn client(&mut self, ca_file: Option<&String>) -> anyhow::Result<reqwest::Client> {
        let ca_file = ca_file.cloned();
        if let Some(client) = self.0.get(&ca_file) {
            return Ok(client.clone());
        }
        let mut client = reqwest::Client::builder()
            .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT);
        if let Some(path) = &ca_file {
            let pem = std::fs::read(path).with_context(|| format!("cannot read {path}"))?;
            for certificate in reqwest::Certificate::from_pem_bundle(&pem)? {
                client = client.add_root_certificate(certificate);
            }
        }
        let client = client.build()?;
        self.0.insert(ca_file, client.clone());
        Ok(client)
    }

    /// Must be called within the runtime.
    pub(super) fn sender(&mut self, target: &Target, cause: &Cause) -> anyhow::Result<HttpSender> {
        Ok(HttpSender {
            client: self.client(target.ca_file.as_ref())?,
            timeout: target.timeout,
            runtime: tokio::runtime::Handle::current(),
            cause: Arc::clone(cause),
        })
    }
}

/// The HTTP client of exporters, whose threads are outside the runtime.
#[derive(Debug, Clone)]
pub(super) struct HttpSender {
    client: reqwest::Client,
    timeout: Duration,
    runtime: tokio::runtime::Handle,
    cause: Cause,
}

#[async_trait]
impl HttpClient for HttpSender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (client, timeout) = (self.client.clone(), self.timeout);
        let cause = Arc::clone(&self.cause);
        let answered = self.runtime.spawn(async move {
            let mut request: reqwest::Request = request.try_into()?;
            *request.timeout_mut() = Some(timeout);
            let answer = client.execute(request).await;
            // The URL may contain a key.
            let answer = answer.map_err(reqwest::Error::without_url);
            *cause.lock().unwrap_or_else(PoisonError::into_inner) =
                answer.as_ref().err().map(|error| with_causes(error));
            let answer = answer?;
            let mut response = Response::builder().status(answer.status());
            if let Some(headers) = response.headers_mut() {
                *headers = answer.headers().clone();
            }
            let body = answer.bytes().await.map_err(reqwest::Error::without_url)?;
            Ok::<_, HttpError>(response.body(body)?)
        });
        answered.await?
    }
}

pub(super) fn headers(target: &Target) -> HashMap<String, String> {
    let headers = target.headers.iter();
    headers
        .map(|(name, value)| (name.clone(), value.expose().to_owned()))
        .collect()
}

pub(super) fn metadata(target: &Target) -> anyhow::Result<MetadataMap> {
    let mut metadata = MetadataMap::new();
    for (name, value) in &target.headers {
        let key = MetadataKey::from_str(name)
            .with_context(|| format!("otlp_headers: {name:?} is no name of a header"))?;
        let value = MetadataValue::try_from(value.expose())
            .with_context(|| format!("otlp_headers: the value of {name} cannot be sent"))?;
        metadata.insert(key, value);
    }
    Ok(metadata)
}

/// A channel that connects when it is used. To be called within the runtime.
pub(super) fn channel(target: &Target) -> anyhow::Result<Channel> {
    let mut url = target.url.clone();
    let origin = Uri::from_str(url.as_str())?;
    let secure = url.scheme() == "https";
    let port = url.port_or_known_default().unwrap_or(4317);
    if secure {
        // TLS is that of the connector below: the library itself supports only another one.
        url = format!(
            "http://{}:{port}",
            target.url.host_str().unwrap_or_default()
        )
        .parse()?;
    }
    let endpoint = Endpoint::from_shared(url.to_string())?
        .origin(origin)
        .connect_timeout(CONNECT)
        .timeout(target.timeout);
    if !secure {
        return Ok(endpoint.connect_lazy());
    }
    let mut tls = native_tls::TlsConnector::builder();
    tls.request_alpns(&["h2"]);
    if let Some(path) = &target.ca_file {
        let pem = std::fs::read(path).with_context(|| format!("cannot read {path}"))?;
        for certificate in native_tls::Certificate::stack_from_pem(&pem)? {
            tls.add_root_certificate(certificate);
        }
    }
    let tls = tokio_native_tls::TlsConnector::from(tls.build()?);
    let connect = tower::service_fn(move |uri: Uri| {
        let tls = tls.clone();
        async move {
            let host = uri
                .host()
                .unwrap_or_default()
                .trim_matches(['[', ']'])
                .to_owned();
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            let stream = tls.connect(&host, stream).await;
            stream.map(TokioIo::new).map_err(std::io::Error::other)
        }
    });
    Ok(endpoint.connect_with_connector_lazy(connect))
}
