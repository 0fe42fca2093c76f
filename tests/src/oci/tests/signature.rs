//! Signatures: what passes, and what each flaw is called.

use chrono::{DateTime, TimeDelta, Utc};
use openssl::pkey::{PKey, Private, Public};

use super::super::keys;
use super::super::signature::{Host, check};
use super::client::{ALL, Draft, http_date};
use super::{TOPIC, started};
use crate::oci::{Config, Service};

const KEY_ID: &str = "ocid1.tenancy.oc1..t/ocid1.user.oc1..u/aa:bb";
const BODY: &str = r#"{"title":"alert","body":"score 0.97"}"#;

struct Signing {
    private: PKey<Private>,
    public: PKey<Public>,
    now: DateTime<Utc>,
}

impl Signing {
    fn new() -> Self {
        let private = keys::new_rsa().unwrap();
        let public = keys::rsa_from_der(&private.public_key_to_der().unwrap()).unwrap();
        // Ends in a zero, so that one bit makes it a second later.
        let now = DateTime::from_timestamp_secs(1_770_000_000).unwrap();
        Self {
            private,
            public,
            now,
        }
    }

    fn draft(&self) -> Draft {
        Draft::post("notification.us-ashburn-1.oraclecloud.com", TOPIC, BODY)
            .header("date", &http_date(self.now))
    }

    fn signed(&self) -> Draft {
        self.draft().signed(KEY_ID, &self.private)
    }

    fn check(&self, draft: &Draft) -> Result<(), String> {
        self.check_for(draft, Host::Signed)
    }

    fn check_for(&self, draft: &Draft, host: Host) -> Result<(), String> {
        check(&draft.call(), self.now, host, |key_id| {
            let known = (key_id == KEY_ID).then(|| self.public.clone());
            known.ok_or_else(|| "unknown".to_owned())
        })
    }

    /// What the check that failed is called.
    fn flaw(&self, draft: &Draft) -> String {
        let flaw = self.check(draft).unwrap_err();
        flaw.split(':').next().unwrap().to_owned()
    }
}

/// With the lowest bit of the last byte changed that `last` does not take off.
fn flipped(text: &str, last: usize) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let at = bytes.len() - 1 - last;
    bytes[at] ^= 1;
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_well_signed_request_passes_whatever_the_order_of_its_headers() {
    let signing = Signing::new();
    assert_eq!(signing.check(&signing.signed()), Ok(()));
    let reversed: Vec<&str> = ALL.rsplit(' ').collect();
    let draft = signing.draft();
    let draft = draft.signed_over(&reversed.join(" "), KEY_ID, &signing.private);
    assert_eq!(signing.check(&draft), Ok(()));
}

#[test]
fn the_parameters_of_the_authorization_may_come_in_any_order() {
    let signing = Signing::new();
    let draft = signing.signed();
    let value = draft.get_header("authorization");
    let mut parameters: Vec<&str> = value.trim_start_matches("Signature ").split(',').collect();
    parameters.reverse();
    let value = format!("Signature {}", parameters.join(", "));
    let draft = draft.header("authorization", &value);
    assert_eq!(signing.check(&draft), Ok(()));
}

#[test]
fn x_date_may_take_the_place_of_date() {
    let signing = Signing::new();
    let draft = signing.draft();
    let draft = draft.header("x-date", &http_date(signing.now));
    let names = ALL.replace("date", "x-date");
    let draft = draft.signed_over(&names, KEY_ID, &signing.private);
    // What is not signed is not looked at.
    let draft = draft.header("date", "yesterday");
    assert_eq!(signing.check(&draft), Ok(()));
}

#[test]
fn a_request_without_a_body_signs_none() {
    let signing = Signing::new();
    let draft = Draft::get("host", "/20181201/topics?compartmentId=a%2Fb");
    let draft = draft.header("date", &http_date(signing.now));
    let draft = draft.signed_over("date (request-target) host", KEY_ID, &signing.private);
    assert_eq!(signing.check(&draft), Ok(()));
}

#[test]
fn one_changed_bit_is_refused_and_the_check_is_named() {
    let signing = Signing::new();
    let good = signing.signed();
    let change = |name: &str, last: usize| {
        let value = flipped(&good.get_header(name), last);
        good.clone().header(name, &value)
    };
    let body = {
        let mut draft = good.clone();
        draft.body[20] ^= 1;
        draft
    };
    let target = {
        let mut draft = good.clone();
        draft.target = flipped(&draft.target, 0);
        draft
    };
    let method = {
        let mut draft = good.clone();
        draft.method = "PUT".to_owned();
        draft
    };
    let authorization = good.get_header("authorization");
    let key_id = authorization.replace(KEY_ID, &flipped(KEY_ID, 0));
    let key_id = good.clone().header("authorization", &key_id);
    // The last letters before `=="` carry fewer bits than six.
    let signature = change("authorization", 10);
    for (flaw, draft) in [
        ("x-content-sha256", body),
        // The date ends in `20 GMT`: 21 is within the time that is allowed, so only the signature differs.
        ("signature", change("date", 4)),
        ("signature", change("host", 0)),
        ("signature", change("content-type", 0)),
        ("signature", target),
        ("signature", method),
        ("signature", signature),
        ("x-content-sha256", change("x-content-sha256", 4)),
        ("content-length", change("content-length", 0)),
        ("keyId", key_id),
    ] {
        assert_eq!(signing.flaw(&draft), flaw, "{draft:?}");
    }
}

#[test]
fn a_signature_that_does_not_fit_is_answered_with_what_should_have_been_signed() {
    let signing = Signing::new();
    let draft = signing.signed().header("host", "elsewhere");
    let flaw = signing.check(&draft).unwrap_err();
    assert!(
        flaw.contains(r"\nhost: elsewhere\ncontent-length: 37\n"),
        "{flaw}"
    );
}

#[test]
fn every_header_that_must_be_signed_is_missed() {
    let signing = Signing::new();
    for name in ALL.split(' ') {
        let names: Vec<&str> = ALL.split(' ').filter(|other| *other != name).collect();
        let draft = signing.draft();
        let draft = draft.signed_over(&names.join(" "), KEY_ID, &signing.private);
        let flaw = signing.check(&draft).unwrap_err();
        let expected = match name {
            "date" => "headers: neither date nor x-date is signed".to_owned(),
            _ => format!("headers: {name} is not signed"),
        };
        assert_eq!(flaw, expected);
    }
}

#[test]
fn only_the_federation_endpoint_does_without_a_signed_host() {
    let signing = Signing::new();
    let draft = signing.draft();
    let draft = draft.signed_over(&ALL.replace(" host", ""), KEY_ID, &signing.private);
    assert_eq!(signing.check_for(&draft, Host::Free), Ok(()));
    assert_eq!(signing.flaw(&draft), "headers");
}

#[test]
fn a_signed_header_that_was_not_sent_is_named() {
    let signing = Signing::new();
    for name in ALL.split(' ').filter(|name| *name != "(request-target)") {
        let draft = signing.signed().without(name);
        let flaw = signing.check(&draft).unwrap_err();
        assert_eq!(flaw, format!("headers: {name} is signed but was not sent"));
    }
}

#[test]
fn a_clock_may_be_five_minutes_off_and_no_more() {
    let signing = Signing::new();
    for (seconds, good) in [(300, true), (-300, true), (301, false), (-301, false)] {
        let date = http_date(signing.now + TimeDelta::seconds(seconds));
        let draft = signing.draft().header("date", &date);
        let draft = draft.signed(KEY_ID, &signing.private);
        assert_eq!(signing.check(&draft).is_ok(), good, "{seconds}");
        if !good {
            assert_eq!(signing.flaw(&draft), "date");
        }
    }
}

#[test]
fn a_date_of_another_form_is_refused() {
    let signing = Signing::new();
    for date in [
        "2026-02-02T02:40:00Z",
        "Mon, 2 Feb 2026 02:40:00 GMT",
        "Tue, 02 Feb 2026 02:40:00 GMT",
        "Mon, 02 Feb 2026 02:40:00 +0000",
    ] {
        let draft = signing.draft().header("date", date);
        let draft = draft.signed(KEY_ID, &signing.private);
        assert_eq!(signing.flaw(&draft), "date", "{date}");
    }
}

#[test]
fn an_authorization_that_is_not_complete_is_refused() {
    let signing = Signing::new();
    let good = signing.signed().get_header("authorization");
    for (from, to) in [
        ("Signature ", "Bearer "),
        ("version=\"1\",", ""),
        ("version=\"1\"", "version=\"2\""),
        ("rsa-sha256", "hs2019"),
        ("keyId=", "keyid="),
        ("signature=", "sig="),
        ("headers=\"", "headers="),
        ("version=\"1\"", "version=\"1\",version=\"1\""),
        ("version=\"1\",", "version=\"1\""),
    ] {
        assert!(good.contains(from), "{from}");
        let value = good.replacen(from, to, 1);
        let draft = signing.signed().header("authorization", &value);
        assert_eq!(signing.flaw(&draft), "authorization", "{value}");
    }
    let draft = signing.draft();
    assert_eq!(signing.flaw(&draft), "authorization");
}

#[test]
fn a_header_listed_twice_or_in_capitals_is_refused() {
    let signing = Signing::new();
    let twice = format!("{ALL} date");
    let draft = signing
        .draft()
        .signed_over(&twice, KEY_ID, &signing.private);
    assert_eq!(
        signing.check(&draft),
        Err("headers: date is listed twice".to_owned())
    );
    let value = signing.signed().get_header("authorization");
    let value = value.replace(ALL, &format!("{ALL} Accept"));
    let draft = signing.signed().header("authorization", &value);
    assert_eq!(
        signing.check(&draft),
        Err("headers: Accept is not in lower case".to_owned())
    );
}

#[test]
fn a_header_sent_twice_is_signed_as_both_its_values() {
    let signing = Signing::new();
    let mut draft = signing.signed();
    draft
        .headers
        .push(("host".to_owned(), "another".to_owned()));
    let flaw = signing.check(&draft).unwrap_err();
    assert!(flaw.contains("oraclecloud.com, another"), "{flaw}");
}

#[tokio::test]
async fn the_target_is_checked_as_it_came_over_the_wire() {
    let (stand_in, client) = started(Config::default()).await;
    // Escapes that a router undoes, and a query that it ignores.
    let target = "/20181201/topics/ocid1.onstopic.oc1%2E%2etopic/messages?b=%7e&a=1";
    let answer = client.post(target, BODY).send().await.unwrap();
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(stand_in.messages()[0].topic, "ocid1.onstopic.oc1..topic");
    let received = stand_in.received(Service::Notifications);
    assert_eq!(received[0].path, target);
}

#[tokio::test]
async fn an_unknown_key_is_refused_and_nothing_happens() {
    let (stand_in, client) = started(Config::default()).await;
    let draft = Draft::post(&client.host, TOPIC, BODY);
    let stranger = draft.signed(KEY_ID, &client.key);
    let answer = stranger.send().await.unwrap();
    assert_eq!(answer.refusal(), (401, "NotAuthenticated".to_owned()));
    assert!(answer.message().starts_with("keyId: no user has the key"));
    assert_eq!(stand_in.messages(), []);
    let received = stand_in.received(Service::Notifications);
    assert_eq!(received[0].status, Some(401));
    assert_eq!(received[0].key_id.as_deref(), Some(KEY_ID));
}
