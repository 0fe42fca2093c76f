use proptest::prelude::{Strategy, any, prop};
use proptest::{prop_assert_eq, proptest};
use tollgate_service::Secret;

use super::*;

const REPLY: (&str, Option<&[u8]>) = (headers::REPLY_TO, Some(b"3:aa"));
const TENANT: (&str, Option<&[u8]>) = (headers::TENANT, Some(b"north"));
const BACKFILL: (&str, Option<&[u8]>) = (headers::BACKFILL, Some(b"1"));

fn authenticator(ids: &[&str]) -> Authenticator {
    let keys = ids.iter().map(|id| MacKey {
        id: (*id).to_owned(),
        secret: Secret::new(format!("{id} 0123456789abcdef0123456789abcdef")),
    });
    let config = AuthenticationConfig {
        mode: AuthenticationMode::Required,
        keys: keys.collect(),
    };
    config.validate().unwrap();
    Authenticator::new(&config).unwrap()
}

type Header<'a> = (&'a str, Option<&'a [u8]>);

/// A record as somebody writes it.
#[derive(Clone, Copy)]
struct Written<'a> {
    kind: TopicKind,
    key: Option<&'a [u8]>,
    payload: &'a [u8],
    headers: &'a [Header<'a>],
}

const DECISION: Written<'_> = Written {
    kind: TopicKind::Decisions,
    key: Some(b"ada"),
    payload: b"{}",
    headers: &[],
};

impl Written<'_> {
    fn sign(&self, by: &Authenticator) -> Option<String> {
        let record = ProducerRecord {
            key: self.key,
            headers: self.headers,
            ..ProducerRecord::new("any", &[], self.payload)
        };
        by.sign(self.kind, &record)
    }

    /// What a reader says that gets it with this hash.
    fn check(&self, by: &Authenticator, mac: &str) -> Result<Provenance, Unauthenticated> {
        let all = with_mac(self.headers, mac);
        let protected = ProtectedHeaders::of(all.iter().copied());
        by.check(self.kind, self.key, self.payload, &protected)
    }

    fn check_unsigned(&self, by: &Authenticator) -> Result<Provenance, Unauthenticated> {
        let protected = ProtectedHeaders::of(self.headers.iter().copied());
        by.check(self.kind, self.key, self.payload, &protected)
    }
}

#[test]
fn a_record_is_accepted_as_it_was_signed_and_in_no_other_way() {
    let keys = authenticator(&["k1"]);
    let record = Written {
        headers: &[TENANT, ("traceparent", Some(b"x"))],
        ..DECISION
    };
    let mac = record.sign(&keys).unwrap();
    assert_eq!(record.check(&keys, &mac), Ok(Provenance::Service));
    let free = Written {
        headers: &[("redriven-from", Some(b"a/1@2")), TENANT],
        ..record
    };
    assert_eq!(free.check(&keys, &mac), Ok(Provenance::Service));
    let changed = [
        Written {
            kind: TopicKind::Alerts,
            ..record
        },
        Written {
            kind: TopicKind::DeadLetters(Stage::Persistence),
            ..record
        },
        Written {
            key: Some(b"adb"),
            ..record
        },
        Written {
            key: None,
            ..record
        },
        Written {
            payload: b"{} ",
            ..record
        },
        Written {
            headers: &[],
            ..record
        },
        Written {
            headers: &[TENANT, BACKFILL],
            ..record
        },
        Written {
            headers: &[(headers::TENANT, Some(b"south"))],
            ..record
        },
        Written {
            headers: &[(headers::SENDER, Some(b"north"))],
            ..record
        },
    ];
    for (number, other) in changed.iter().enumerate() {
        let checked = other.check(&keys, &mac);
        assert_eq!(checked, Err(Unauthenticated::Mismatch), "{number}");
    }
    for other in [TENANT, (headers::TENANT, None)] {
        let repeated = Written {
            headers: &[other, TENANT],
            ..record
        };
        let checked = repeated.check(&keys, &mac);
        assert_eq!(checked, Err(Unauthenticated::Repeated));
    }
}

#[test]
fn of_decisions_alerts_replies_and_imports_nothing_unsigned_is_accepted() {
    let keys = authenticator(&["k1"]);
    for kind in TopicKind::ALL {
        let record = Written { kind, ..DECISION };
        let expected = match kind {
            TopicKind::Transactions => Ok(Provenance::Foreign),
            _ => Err(Unauthenticated::Unsigned),
        };
        assert_eq!(record.check_unsigned(&keys), expected, "{kind:?}");
    }
    for mac in ["", "k1", "k1:", "k1:????", "k1:AAAA", ":"] {
        assert!(DECISION.check(&keys, mac).is_err(), "{mac}");
    }
}

#[test]
fn a_bare_transaction_is_welcome_and_one_that_claims_something_must_be_signed() {
    let keys = authenticator(&["k1"]);
    let bare = Written {
        kind: TopicKind::Transactions,
        headers: &[("traceparent", Some(b"x"))],
        ..DECISION
    };
    assert_eq!(bare.sign(&keys), None);
    assert_eq!(bare.check_unsigned(&keys), Ok(Provenance::Foreign));
    // Nobody is obliged to believe where the reply is to go, but the payment is decided.
    let waiting = Written {
        headers: &[REPLY],
        ..bare
    };
    assert_eq!(waiting.check_unsigned(&keys), Ok(Provenance::Foreign));
    let mac = waiting.sign(&keys).unwrap();
    assert_eq!(waiting.check(&keys, &mac), Ok(Provenance::Service));
    for claim in [TENANT, BACKFILL, (headers::SENDER, None)] {
        let claiming = Written {
            headers: &[claim],
            ..bare
        };
        let checked = claiming.check_unsigned(&keys);
        assert_eq!(checked, Err(Unauthenticated::Unsigned), "{claim:?}");
        assert_eq!(
            claiming.check(&keys, &mac),
            Err(Unauthenticated::Mismatch),
            "{claim:?}"
        );
    }
}

#[test]
fn a_dead_letter_of_ingest_is_signed_as_the_transaction_that_a_redrive_makes_of_it() {
    let keys = authenticator(&["k1"]);
    let letter = Written {
        kind: TopicKind::DeadLetters(Stage::Scorer),
        key: None,
        headers: &[TENANT],
        ..DECISION
    };
    let mac = letter.sign(&keys).unwrap();
    let redriven = Written {
        kind: TopicKind::Transactions,
        ..letter
    };
    assert_eq!(redriven.check(&keys, &mac), Ok(Provenance::Service));
}

#[test]
fn keys_are_rotated_by_putting_the_new_one_first() {
    let (old, both, new) = (
        authenticator(&["k1"]),
        authenticator(&["k2", "k1"]),
        authenticator(&["k2"]),
    );
    let (before, after) = (DECISION.sign(&old).unwrap(), DECISION.sign(&both).unwrap());
    assert!(before.starts_with("k1:") && after.starts_with("k2:"));
    for mac in [&before, &after] {
        assert_eq!(DECISION.check(&both, mac), Ok(Provenance::Service));
    }
    assert_eq!(DECISION.check(&new, &after), Ok(Provenance::Service));
    let gone = DECISION.check(&new, &before);
    assert_eq!(gone, Err(Unauthenticated::UnknownKey));
    let other_key = before.replace("k1:", "k2:");
    assert_eq!(
        DECISION.check(&both, &other_key),
        Err(Unauthenticated::Mismatch)
    );
}

#[test]
fn while_keys_are_introduced_what_fails_is_accepted() {
    let keys = MacKey {
        id: "k1".to_owned(),
        secret: Secret::new("0123456789abcdef0123456789abcdef"),
    };
    let mut config = AuthenticationConfig {
        mode: AuthenticationMode::Sign,
        keys: vec![keys],
    };
    let none = ProtectedHeaders::default();
    let kind = TopicKind::Decisions;
    let signing = Authenticator::new(&config).unwrap();
    assert_eq!(
        signing.admit(kind, None, b"", &none),
        Ok(Provenance::Service)
    );
    assert!(DECISION.sign(&signing).is_some());
    config.mode = AuthenticationMode::Off;
    assert!(Authenticator::new(&config).is_none());
}

/// Key, payload, tenant and reply address of a record.
type Parts = (Option<Vec<u8>>, Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>);

fn parts() -> impl Strategy<Value = Parts> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..4);
    (
        prop::option::of(bytes()),
        bytes(),
        prop::option::of(bytes()),
        prop::option::of(bytes()),
    )
}

fn sign_parts(by: &Authenticator, (key, payload, tenant, reply): &Parts) -> Option<String> {
    let all = [(headers::TENANT, tenant), (headers::REPLY_TO, reply)];
    let all: Vec<Header<'_>> = all
        .iter()
        .filter_map(|(name, value)| Some((*name, Some(value.as_deref()?))))
        .collect();
    let record = Written {
        kind: TopicKind::Decisions,
        key: key.as_deref(),
        payload,
        headers: &all,
    };
    record.sign(by)
}

proptest! {
    #[test]
    fn two_records_have_the_same_hash_only_if_they_are_the_same(a in parts(), b in parts()) {
        let keys = authenticator(&["k1"]);
        prop_assert_eq!(sign_parts(&keys, &a) == sign_parts(&keys, &b), a == b);
    }

    #[test]
    fn no_header_panics(mac in prop::collection::vec(any::<u8>(), 0..64)) {
        let keys = authenticator(&["k1"]);
        let all = [(headers::MAC, Some(mac.as_slice()))];
        let protected = ProtectedHeaders::of(all.iter().copied());
        let checked = keys.check(TopicKind::Decisions, None, b"", &protected);
        assert!(checked.is_err());
    }
}

/// Prints the cost: `cargo test --release -p tollgate-log -- signing_a_record --nocapture`. The bound has a wide margin.
#[test]
fn signing_a_record_takes_microseconds() {
    let keys = authenticator(&["k1"]);
    let payload = vec![b'x'; 700];
    let headers = [REPLY, TENANT];
    let record = Written {
        payload: &payload,
        headers: &headers,
        ..DECISION
    };
    let mac = record.sign(&keys).unwrap();
    let rounds = 5_000_u32;
    let begun = std::time::Instant::now();
    for _ in 0..rounds {
        std::hint::black_box(record.sign(&keys));
    }
    let signing = begun.elapsed() / rounds;
    let begun = std::time::Instant::now();
    for _ in 0..rounds {
        std::hint::black_box(record.check(&keys, &mac)).unwrap();
    }
    let checking = begun.elapsed() / rounds;
    eprintln!(
        "{} bytes: sign {signing:?}, check {checking:?}",
        payload.len()
    );
    assert!(signing.max(checking) < std::time::Duration::from_millis(1));
}
