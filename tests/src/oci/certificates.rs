//! Certificates: of the TLS listener, and of the instance that requests a session token.

use std::net::IpAddr;

use anyhow::Context as _;
use openssl::asn1::{Asn1Time, Asn1Type};
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, PKeyRef, Private};
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, KeyUsage, SubjectAlternativeName,
    SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509NameBuilder};

/// More than a year; less than what clients call too long.
const DAYS: u32 = 397;
/// For clocks that are behind, in seconds.
const BEFORE: i64 = 3600;

/// Whoever signs certificates.
#[derive(Debug)]
pub(crate) struct Authority {
    pub(crate) certificate: X509,
    key: PKey<Private>,
}

impl Authority {
    /// One that vouches for itself.
    pub(crate) fn root(name: &str) -> anyhow::Result<Self> {
        Self::new(name, None)
    }

    /// One that this vouches for.
    pub(super) fn intermediate(&self, name: &str) -> anyhow::Result<Self> {
        Self::new(name, Some(self))
    }

    fn new(name: &str, issuer: Option<&Self>) -> anyhow::Result<Self> {
        let key = new_ec()?;
        let mut certificate = begin(&[(Nid::COMMONNAME, name)], &key)?;
        certificate.append_extension(BasicConstraints::new().critical().ca().build()?)?;
        let usage = KeyUsage::new()
            .critical()
            .key_cert_sign()
            .crl_sign()
            .build()?;
        certificate.append_extension(usage)?;
        let certificate = match issuer {
            Some(issuer) => issuer.sign(certificate)?,
            None => {
                let subject = certificate_name(&[(Nid::COMMONNAME, name)])?.build();
                certificate.set_issuer_name(&subject)?;
                certificate.sign(&key, MessageDigest::sha256())?;
                certificate.build()
            }
        };
        Ok(Self { certificate, key })
    }

    fn sign(&self, mut certificate: X509Builder) -> anyhow::Result<X509> {
        certificate.set_issuer_name(self.certificate.subject_name())?;
        let context = certificate.x509v3_context(Some(&self.certificate), None);
        let issuer = AuthorityKeyIdentifier::new().keyid(true).build(&context)?;
        certificate.append_extension(issuer)?;
        certificate.sign(&self.key, MessageDigest::sha256())?;
        Ok(certificate.build())
    }

    /// A certificate of `subject` for the holder of `key`; of a server, where it has names.
    pub(crate) fn issue(
        &self,
        subject: &[(Nid, &str)],
        key: &PKeyRef<Private>,
        names: &[String],
    ) -> anyhow::Result<X509> {
        let mut certificate = begin(subject, key)?;
        certificate.append_extension(BasicConstraints::new().critical().build()?)?;
        if !names.is_empty() {
            let mut alternative = SubjectAlternativeName::new();
            for name in names {
                match name.parse::<IpAddr>() {
                    Ok(_) => alternative.ip(name),
                    Err(_) => alternative.dns(name),
                };
            }
            let context = certificate.x509v3_context(Some(&self.certificate), None);
            let alternative = alternative.build(&context)?;
            certificate.append_extension(alternative)?;
        }
        self.sign(certificate)
    }
}

/// P-256, where nothing demands RSA: made in no time.
pub(crate) fn new_ec() -> anyhow::Result<PKey<Private>> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    Ok(PKey::from_ec_key(EcKey::generate(&group)?)?)
}

fn certificate_name(entries: &[(Nid, &str)]) -> anyhow::Result<X509NameBuilder> {
    let mut name = X509NameBuilder::new()?;
    for (nid, value) in entries {
        // Of a given type, since otherwise no unit has more than the 64 characters of RFC 5280; Oracle's have.
        name.append_entry_by_nid_with_type(*nid, value, Asn1Type::UTF8STRING)
            .with_context(|| format!("a certificate for {value}"))?;
    }
    Ok(name)
}

fn begin(subject: &[(Nid, &str)], key: &PKeyRef<Private>) -> anyhow::Result<X509Builder> {
    let mut serial = [0; 16];
    openssl::rand::rand_bytes(&mut serial)?;
    // Positive, as a serial number has to be.
    serial[0] &= 0x7f;
    let mut certificate = X509::builder()?;
    certificate.set_version(2)?;
    certificate.set_serial_number(&*BigNum::from_slice(&serial)?.to_asn1_integer()?)?;
    certificate.set_subject_name(&certificate_name(subject)?.build())?;
    certificate.set_pubkey(key)?;
    let now = chrono::Utc::now().timestamp();
    certificate.set_not_before(&*Asn1Time::from_unix(now - BEFORE)?)?;
    certificate.set_not_after(&*Asn1Time::days_from_now(DAYS)?)?;
    let identifier = SubjectKeyIdentifier::new().build(&certificate.x509v3_context(None, None))?;
    certificate.append_extension(identifier)?;
    Ok(certificate)
}
