//! TLS of the service's own, with client certificates in the place of keys.

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509NameBuilder};
use reqwest::Client;
use tollgate_service::http::{ApiKeyConfig, Scope, TlsConfig};

use crate::keys_and_limits::key;
use crate::support::{Answer, JSON, Service, start, transaction};

/// A certificate for this name and its key; by itself, as an authority, if there is none.
fn issue(name: &str, authority: Option<&(X509, PKey<Private>)>) -> (X509, PKey<Private>) {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    let mut subject = X509NameBuilder::new().unwrap();
    subject.append_entry_by_nid(Nid::COMMONNAME, name).unwrap();
    let subject = subject.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let serial = BigNum::from_slice(name.as_bytes()).unwrap();
    builder
        .set_serial_number(&serial.to_asn1_integer().unwrap())
        .unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder.set_pubkey(&key).unwrap();
    builder
        .set_not_before(&Asn1Time::days_from_now(0).unwrap())
        .unwrap();
    builder
        .set_not_after(&Asn1Time::days_from_now(1).unwrap())
        .unwrap();
    match authority {
        None => {
            let constraints = BasicConstraints::new().critical().ca().build().unwrap();
            builder.append_extension(constraints).unwrap();
            builder.set_issuer_name(&subject).unwrap();
            builder.sign(&key, MessageDigest::sha256()).unwrap();
        }
        Some((issuer, issuers_key)) => {
            builder.set_issuer_name(issuer.subject_name()).unwrap();
            let names = SubjectAlternativeName::new()
                .ip("127.0.0.1")
                .build(&builder.x509v3_context(Some(issuer), None))
                .unwrap();
            builder.append_extension(names).unwrap();
            builder.sign(issuers_key, MessageDigest::sha256()).unwrap();
        }
    }
    (builder.build(), key)
}

fn client(authority: &X509, own: Option<&(X509, PKey<Private>)>) -> Client {
    let trusted = reqwest::Certificate::from_pem(&authority.to_pem().unwrap()).unwrap();
    let mut client = Client::builder().tls_certs_only([trusted]);
    if let Some((certificate, key)) = own {
        let key = key.private_key_to_pem_pkcs8().unwrap();
        let identity = reqwest::Identity::from_pkcs8_pem(&certificate.to_pem().unwrap(), &key);
        client = client.identity(identity.unwrap());
    }
    client.build().unwrap()
}

async fn status(service: &Service, client: &Client, key: &str) -> u16 {
    let request = client
        .post(format!("{}/v1/transactions", service.url))
        .header("content-type", JSON)
        .header(
            if key.is_empty() {
                "x-no-key"
            } else {
                "x-api-key"
            },
            key,
        )
        .body(transaction("t", "u"));
    Answer::of(request.send().await.unwrap()).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_a_client_certificate_is_the_key_of_its_caller_and_others_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let authority = issue("authority", None);
    let server = issue("ingest", Some(&authority));
    let server_key = server.1.private_key_to_pem_pkcs8().unwrap();
    std::fs::write(path("ca.crt"), authority.0.to_pem().unwrap()).unwrap();
    std::fs::write(path("tls.crt"), server.0.to_pem().unwrap()).unwrap();
    std::fs::write(path("tls.key"), server_key).unwrap();
    let service = start(|config| {
        config.tls = TlsConfig {
            certificate: Some(path("tls.crt")),
            key: Some(path("tls.key")),
            client_ca: Some(path("ca.crt")),
            ..TlsConfig::default()
        };
        let shop = ApiKeyConfig {
            name: "shop".into(),
            certificate: Some("CN=shop".into()),
            scopes: vec![Scope::TRANSACTIONS_WRITE],
            ..ApiKeyConfig::default()
        };
        let bank = ApiKeyConfig {
            certificate: Some("CN=bank".into()),
            ..key("bank", "b")
        };
        config.api_keys = vec![shop, bank, key("plain", "p")];
    })
    .await;
    assert!(service.url.starts_with("https://"), "{}", service.url);
    let [shop, bank, nobody] = ["shop", "bank", "nobody"].map(|name| issue(name, Some(&authority)));
    let without = client(&authority.0, None);
    for (own, key, expected) in [
        (Some(&shop), "", 202),
        (Some(&nobody), "", 401),
        (Some(&bank), "", 401),
        (Some(&bank), "b", 202),
        // A stolen key.
        (Some(&shop), "b", 401),
        (None, "b", 401),
        (None, "p", 202),
        (None, "", 401),
    ] {
        let client = client(&authority.0, own);
        let name = own.map(|own| format!("{:?}", own.0.subject_name()));
        assert_eq!(
            status(&service, &client, key).await,
            expected,
            "{name:?} {key}"
        );
    }
    // The admin port has the certificate too, and asks for none.
    let alive = without.get(format!("{}/livez", service.admin)).send().await;
    assert_eq!(alive.unwrap().status(), 200);
    let metrics = without
        .get(format!("{}/metrics", service.admin))
        .send()
        .await;
    let metrics = metrics.unwrap().text().await.unwrap();
    for listener in ["ingest.listen", "ingest.admin_listen"] {
        let expiry =
            format!("tollgate_tls_certificate_expiry_timestamp_seconds{{listener=\"{listener}\"}}");
        assert!(metrics.contains(&expiry), "{listener}");
    }
    service.stop().await;
}
