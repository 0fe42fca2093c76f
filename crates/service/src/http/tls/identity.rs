//! The names in a client certificate, by which a key of the settings can be bound to it.

use std::sync::Arc;

use openssl::nid::Nid;
use openssl::x509::X509Ref;

/// The names of a verified client certificate, among the extensions of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate(Arc<[String]>);

impl ClientCertificate {
    /// Names as they are written in the settings: `CN=shop`, `DNS:shop.example.com`, `URI:spiffe://…`, `EMAIL:…`.
    #[must_use]
    pub fn with_names(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().collect())
    }

    /// Whether the certificate has this name. Names of hosts are compared without case.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        let is_host = name.starts_with("DNS:");
        self.0
            .iter()
            .any(|own| own == name || (is_host && own.eq_ignore_ascii_case(name)))
    }

    pub(super) fn of(certificate: &X509Ref) -> Self {
        let mut common = certificate
            .subject_name()
            .entries_by_nid(Nid::COMMONNAME)
            .filter_map(|entry| Some(entry.data().to_string().ok()?.to_string()));
        // Of several common names none is the name.
        let common = match (common.next(), common.next()) {
            (Some(name), None) => Some(format!("CN={name}")),
            _ => None,
        };
        let alternatives = certificate.subject_alt_names();
        let alternatives = alternatives.iter().flatten().filter_map(|name| {
            let dns = name.dnsname().map(|name| format!("DNS:{name}"));
            let uri = || name.uri().map(|uri| format!("URI:{uri}"));
            let email = || name.email().map(|email| format!("EMAIL:{email}"));
            dns.or_else(uri).or_else(email)
        });
        Self(common.into_iter().chain(alternatives).collect())
    }
}

/// Whether a text can be a name in the settings.
pub(crate) fn is_certificate_name(text: &str) -> bool {
    ["CN=", "DNS:", "URI:", "EMAIL:"]
        .iter()
        .any(|kind| text.strip_prefix(kind).is_some_and(|name| !name.is_empty()))
}
