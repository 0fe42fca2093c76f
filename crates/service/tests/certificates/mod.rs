//! Certificates for tests, by an authority of the test's own. Test crates include this file.

use std::path::Path;

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509NameBuilder};

/// A certificate and its key.
pub(crate) struct Identity {
    pub(crate) certificate: X509,
    pub(crate) key: PKey<Private>,
}

/// A certificate for this name, by an authority or, without one, by itself as an authority.
pub(crate) fn issue(name: &str, authority: Option<&Identity>) -> Identity {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    let mut subject = X509NameBuilder::new().unwrap();
    subject.append_entry_by_nid(Nid::COMMONNAME, name).unwrap();
    let subject = subject.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let mut serial = BigNum::new().unwrap();
    serial.rand(64, MsbOption::MAYBE_ZERO, false).unwrap();
    builder
        .set_serial_number(&serial.to_asn1_integer().unwrap())
        .unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder.set_pubkey(&key).unwrap();
    builder
        .set_not_before(&Asn1Time::days_from_now(0).unwrap())
        .unwrap();
    builder
        .set_not_after(&Asn1Time::days_from_now(30).unwrap())
        .unwrap();
    match authority {
        None => {
            let constraints = BasicConstraints::new().critical().ca().build().unwrap();
            builder.append_extension(constraints).unwrap();
            builder.set_issuer_name(&subject).unwrap();
            builder.sign(&key, MessageDigest::sha256()).unwrap();
        }
        Some(authority) => {
            let issuer = authority.certificate.subject_name();
            builder.set_issuer_name(issuer).unwrap();
            let names = SubjectAlternativeName::new()
                .dns("localhost")
                .ip("127.0.0.1")
                .uri(&format!("spiffe://example/{name}"))
                .build(&builder.x509v3_context(Some(&authority.certificate), None))
                .unwrap();
            builder.append_extension(names).unwrap();
            builder
                .sign(&authority.key, MessageDigest::sha256())
                .unwrap();
        }
    }
    Identity {
        certificate: builder.build(),
        key,
    }
}

impl Identity {
    pub(crate) fn pem(&self) -> Vec<u8> {
        self.certificate.to_pem().unwrap()
    }

    pub(crate) fn key_pem(&self) -> Vec<u8> {
        self.key.private_key_to_pem_pkcs8().unwrap()
    }

    /// Writes `tls.crt` and `tls.key`.
    pub(crate) fn write(&self, directory: &Path) {
        std::fs::write(directory.join("tls.key"), self.key_pem()).unwrap();
        std::fs::write(directory.join("tls.crt"), self.pem()).unwrap();
    }

    /// A client that trusts this authority, with or without a certificate.
    pub(crate) fn client(&self, own: Option<&Self>) -> reqwest::Client {
        let authority = reqwest::Certificate::from_pem(&self.pem()).unwrap();
        let mut client = reqwest::Client::builder()
            .tls_certs_only([authority])
            .timeout(std::time::Duration::from_secs(20));
        if let Some(own) = own {
            let identity = reqwest::Identity::from_pkcs8_pem(&own.pem(), &own.key_pem());
            client = client.identity(identity.unwrap());
        }
        client.build().unwrap()
    }
}
