//! TLS of the service's own, with client certificates in the place of keys.

use reqwest::Client;
use tollgate_service::http::{ApiKeyConfig, Scope, TlsConfig};

use crate::keys_and_limits::key;
use crate::support::{Answer, JSON, Service, start, transaction};

#[path = "../../../service/tests/certificates/mod.rs"]
mod certificates;

use certificates::issue;

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
    issue("ingest", Some(&authority)).write(directory.path());
    std::fs::write(path("ca.crt"), authority.pem()).unwrap();
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
    let without = authority.client(None);
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
        let client = authority.client(own);
        let name = own.map(|own| format!("{:?}", own.certificate.subject_name()));
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
