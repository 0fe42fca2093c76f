//! The certificate that the TLS listener shows, by an authority of its own, as a cluster's API server has one.

use openssl::nid::Nid;
use tokio_native_tls::TlsAcceptor;
use tokio_native_tls::native_tls::{self, Identity, Protocol};

use super::certificates::{Authority, new_ec};

/// What a listener needs for TLS, and what a client needs to trust it.
pub(super) struct Tls {
    pub(super) acceptor: TlsAcceptor,
    pub(super) ca_pem: String,
}

impl Tls {
    /// Good for 127.0.0.1, ::1, localhost and `names`.
    pub(super) fn new(names: &[String]) -> anyhow::Result<Self> {
        let authority = Authority::root("oci stand-in CA")?;
        let key = new_ec()?;
        let mut all: Vec<String> = ["127.0.0.1", "::1", "localhost"].map(str::to_owned).into();
        all.extend_from_slice(names);
        let certificate = authority.issue(&[(Nid::COMMONNAME, "oci stand-in")], &key, &all)?;
        let identity =
            Identity::from_pkcs8(&certificate.to_pem()?, &key.private_key_to_pem_pkcs8()?)?;
        let mut builder = native_tls::TlsAcceptor::builder(identity);
        // As Oracle: nothing older.
        builder.min_protocol_version(Some(Protocol::Tlsv12));
        Ok(Self {
            acceptor: builder.build()?.into(),
            ca_pem: String::from_utf8(authority.certificate.to_pem()?)?,
        })
    }
}
