use super::entry::parse_hash;
use super::*;

const LABELS_WRITE: Scope = Scope::new("labels:write");

fn keys(listen: &str, scopes: &[Scope]) -> Result<ApiKeys, ConfigError> {
    let configs = match scopes {
        [] => vec![],
        _ => vec![ApiKeyConfig {
            name: "shop".into(),
            hash: ApiKeys::hash_of("k1"),
            scopes: scopes.to_vec(),
            ..ApiKeyConfig::default()
        }],
    };
    ApiKeys::new(
        "ingest",
        &configs,
        None,
        listen.parse().unwrap(),
        &[LABELS_WRITE],
    )
}

fn with(name: &'static str, value: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(
        header::HeaderName::from_static(name),
        value.parse().unwrap(),
    )])
}

fn status(keys: &ApiKeys, headers: &HeaderMap, scope: &Scope) -> u16 {
    keys.authorize(headers, None, scope)
        .map_or_else(|problem| problem.status().as_u16(), |_| 200)
}

#[test]
fn a_key_allows_what_its_scopes_name_and_nothing_else() {
    let keys = keys("0.0.0.0:1", &[Scope::DECISIONS_READ]).unwrap();
    for headers in [
        with("authorization", "Bearer k1"),
        with("authorization", "bearer k1"),
        with("x-api-key", "k1"),
        // me:k1
        with("authorization", "Basic bWU6azE="),
    ] {
        let caller = keys
            .authorize(&headers, None, &Scope::DECISIONS_READ)
            .unwrap();
        assert_eq!(caller, Caller::named("shop"));
        assert_eq!(status(&keys, &headers, &Scope::TRANSACTIONS_WRITE), 403);
    }
    for headers in [with("x-api-key", "k2"), HeaderMap::new()] {
        assert_eq!(status(&keys, &headers, &Scope::DECISIONS_READ), 401);
    }
}

#[test]
fn a_service_adds_a_scope_by_naming_it_and_an_unknown_one_is_refused() {
    let added = keys("0.0.0.0:1", &[LABELS_WRITE]).unwrap();
    assert_eq!(status(&added, &with("x-api-key", "k1"), &LABELS_WRITE), 200);
    let refused = keys("0.0.0.0:1", &[Scope::new("label:write")]);
    let message = refused.unwrap_err().to_string();
    assert!(
        message.starts_with("ingest.api_keys[0].scopes: "),
        "{message}"
    );
    assert!(message.contains("transactions:write"), "{message}");
}

#[test]
fn a_hash_is_read_as_it_is_printed() {
    let hash = ApiKeys::hash_of("k1");
    assert_eq!(hash.len(), 71);
    let expected: [u8; 32] = Sha256::digest("k1").into();
    assert_eq!(parse_hash(&hash), Some(expected));
    for text in ["", "sha256:", "sha256:00", &hash[1..], &format!("{hash}0")] {
        assert_eq!(parse_hash(text), None, "{text}");
    }
}

#[test]
fn without_keys_only_a_loopback_address_is_accepted() {
    assert!(keys("127.0.0.1:1", &[]).is_ok());
    assert!(keys("[::1]:1", &[]).is_ok());
    let message = keys("0.0.0.0:8080", &[]).unwrap_err().to_string();
    assert!(message.starts_with("ingest.api_keys: "), "{message}");
}

const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

fn entry(name: &str, key: &str) -> ApiKeyConfig {
    ApiKeyConfig {
        name: name.into(),
        hash: ApiKeys::hash_of(key),
        scopes: vec![Scope::DECISIONS_READ],
        ..ApiKeyConfig::default()
    }
}

fn refusal(configs: &[ApiKeyConfig]) -> String {
    let refused = ApiKeys::new("ingest", configs, None, LISTEN, &[]);
    refused.unwrap_err().to_string()
}

#[test]
fn the_tenant_of_a_caller_is_that_of_its_key() {
    let with_tenant = |name: &str, tenant: &str| ApiKeyConfig {
        tenant: Some(tenant.to_owned()),
        ..entry(name, name)
    };
    let configs = [
        entry("plain", "plain"),
        with_tenant("shop", "acme"),
        with_tenant("auditor", "*"),
    ];
    let keys = ApiKeys::new("ingest", &configs, None, LISTEN, &[]).unwrap();
    let caller = |key: &'static str| {
        let mut headers = with("x-api-key", key);
        // Nothing that the caller writes changes it.
        headers.insert("tollgate-tenant", "other".parse().unwrap());
        keys.authorize(&headers, None, &Scope::DECISIONS_READ)
            .unwrap()
    };
    assert_eq!(caller("plain").tenant().given(), None);
    assert_eq!(caller("plain").reads_only().unwrap().given(), None);
    assert_eq!(caller("shop").tenant().given(), Some("acme"));
    assert_eq!(caller("shop").reads_only().unwrap().name(), "acme");
    assert_eq!(caller("auditor").reads_only(), None);
}

#[test]
fn a_key_that_writes_for_all_tenants_or_for_an_invalid_one_is_refused() {
    let mut key = entry("a", "a");
    key.tenant = Some("*".into());
    key.scopes.push(Scope::TRANSACTIONS_WRITE);
    assert!(refusal(&[key.clone()]).starts_with("ingest.api_keys[0].tenant: "));
    key.tenant = Some("ACME".into());
    assert!(refusal(&[key]).starts_with("ingest.api_keys[0].tenant: "));
}

#[test]
fn entries_of_one_name_are_a_rotation_within_one_tenant() {
    let (old, mut new) = (entry("a", "old"), entry("a", "new"));
    let both = ApiKeys::new("ingest", &[old.clone(), new.clone()], None, LISTEN, &[]).unwrap();
    for key in ["old", "new"] {
        assert_eq!(
            status(&both, &with("x-api-key", key), &Scope::DECISIONS_READ),
            200
        );
    }
    new.tenant = Some("acme".into());
    assert!(refusal(&[old.clone(), new]).contains("different tenants"));
    assert!(refusal(&[old.clone(), entry("b", "old")]).contains("the hash"));
    assert!(refusal(&[entry("", "x")]).starts_with("ingest.api_keys[0].name: "));
}

#[test]
fn a_key_that_has_expired_is_refused_and_the_answer_says_since_when() {
    let mut key = entry("a", "k");
    key.expires = Some("2020-01-01T00:00:00Z".into());
    let mut other = entry("b", "k2");
    other.expires = Some("9999-01-01T00:00:00Z".into());
    let keys = ApiKeys::new("ingest", &[key.clone(), other], None, LISTEN, &[]).unwrap();
    let refused = keys.authorize(&with("x-api-key", "k"), None, &Scope::DECISIONS_READ);
    let problem = refused.unwrap_err();
    assert_eq!(problem.status(), StatusCode::UNAUTHORIZED);
    assert!(format!("{problem:?}").contains("2020-01-01"), "{problem:?}");
    assert_eq!(
        status(&keys, &with("x-api-key", "k2"), &Scope::DECISIONS_READ),
        200
    );
    key.expires = Some("tomorrow".into());
    assert!(refusal(&[key]).starts_with("ingest.api_keys[0].expires: "));
}

fn file_of(entries: &[&str]) -> String {
    let entry = |key: &&str| {
        let hash = ApiKeys::hash_of(key);
        format!(
            "[[api_keys]]\nname = \"{key}\"\nhash = \"{hash}\"\nscopes = [\"decisions:read\"]\n"
        )
    };
    entries.iter().map(entry).collect()
}

#[test]
fn a_changed_file_replaces_the_keys_and_a_broken_one_keeps_them() {
    let folder = std::env::temp_dir().join(format!("tollgate-keys-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("keys.toml");
    std::fs::write(&path, file_of(&["one"])).unwrap();
    let public = SocketAddr::from(([0, 0, 0, 0], 1));
    let keys = ApiKeys::new("ingest", &[], Some(&path), public, &[]).unwrap();
    let status = |key| status(&keys, &with("x-api-key", key), &Scope::DECISIONS_READ);
    assert_eq!((status("one"), status("two")), (200, 401));

    std::fs::write(&path, file_of(&["one", "two"])).unwrap();
    keys.reload().unwrap();
    assert_eq!((status("one"), status("two")), (200, 200));

    for broken in [
        "",
        "[[api_keys]]\nname = \"x\"",
        "not = [toml",
        "[]",
        "[{\"name\":\"x\"}]",
        "[[api_key]]",
    ] {
        std::fs::write(&path, broken).unwrap();
        assert!(keys.reload().is_err(), "{broken}");
        assert_eq!((status("one"), status("two")), (200, 200), "{broken}");
        assert_eq!(
            keys.authorize(&HeaderMap::new(), None, &Scope::DECISIONS_READ)
                .unwrap_err()
                .status(),
            StatusCode::UNAUTHORIZED
        );
    }
    std::fs::remove_file(&path).unwrap();
    assert!(keys.reload().is_err());
    std::fs::write(&path, file_of(&["two"])).unwrap();
    keys.reload().unwrap();
    assert_eq!((status("one"), status("two")), (401, 200));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_file_without_usable_keys_is_refused_at_start_with_the_name_of_the_setting() {
    let missing = Path::new("/nonexistent/keys.toml");
    let refused = ApiKeys::new("ingest", &[], Some(missing), LISTEN, &[]);
    let message = refused.unwrap_err().to_string();
    assert!(message.starts_with("ingest.api_keys_file: "), "{message}");
}

#[test]
fn a_certificate_is_enough_for_an_entry_without_a_hash_and_needed_for_one_that_has_both() {
    let entry = |name: &str, hash: Option<&str>, certificate: &str| ApiKeyConfig {
        name: name.into(),
        hash: hash.map(ApiKeys::hash_of).unwrap_or_default(),
        certificate: Some(certificate.into()),
        scopes: vec![Scope::DECISIONS_READ],
        ..ApiKeyConfig::default()
    };
    let configs = [
        entry("shop", None, "CN=shop"),
        entry("bank", Some("k1"), "URI:spiffe://example/bank"),
    ];
    let listen = "0.0.0.0:1".parse().unwrap();
    let keys = ApiKeys::new("ingest", &configs, None, listen, &[]).unwrap();
    let certificate =
        |names: &[&str]| ClientCertificate::with_names(names.iter().map(|name| (*name).to_owned()));
    let shop = certificate(&["CN=shop", "DNS:shop.example"]);
    let bank = certificate(&["CN=bank", "URI:spiffe://example/bank"]);
    let other = certificate(&["CN=shopper"]);
    let (none, key) = (HeaderMap::new(), with("x-api-key", "k1"));
    for (headers, certificate, expected) in [
        (&none, Some(&shop), Some("shop")),
        (&none, Some(&bank), None),
        (&none, Some(&other), None),
        (&none, None, None),
        (&key, Some(&bank), Some("bank")),
        (&key, Some(&shop), None),
        (&key, None, None),
    ] {
        let caller = keys.authorize(headers, certificate, &Scope::DECISIONS_READ);
        let name = caller.ok().map(|caller| caller.name().to_owned());
        assert_eq!(name.as_deref(), expected, "{headers:?} {certificate:?}");
    }
}

#[test]
fn an_entry_without_a_hash_needs_a_certificate_that_no_other_entry_has() {
    let entry = |certificate: Option<&str>| ApiKeyConfig {
        name: "shop".into(),
        certificate: certificate.map(str::to_owned),
        scopes: vec![Scope::DECISIONS_READ],
        ..ApiKeyConfig::default()
    };
    let refusal = |configs: &[ApiKeyConfig]| {
        let listen = "0.0.0.0:1".parse().unwrap();
        let refused = ApiKeys::new("ingest", configs, None, listen, &[]);
        refused.unwrap_err().to_string()
    };
    assert!(refusal(&[entry(None)]).starts_with("ingest.api_keys[0].hash: "));
    assert!(refusal(&[entry(Some("shop"))]).starts_with("ingest.api_keys[0].certificate: "));
    let twice = [entry(Some("CN=shop")), entry(Some("CN=shop"))];
    assert!(refusal(&twice).starts_with("ingest.api_keys: "));
}
