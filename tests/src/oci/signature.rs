//! Request signatures: draft-cavage-http-signatures-08 with RSA-SHA256, as Oracle narrows it. The signing string is
//! rebuilt from the request as it was received.
//!
//! <https://docs.oracle.com/en-us/iaas/Content/API/Concepts/signingrequests.htm>
//!
//! Every flaw is a sentence that begins with what was checked: `authorization`, `headers`, `date`, `content-length`,
//! `x-content-sha256`, `keyId` or `signature`.

use std::collections::HashMap;

use axum::http::Method;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Public};
use openssl::sha::sha256;
use openssl::sign::Verifier;

use super::call::Call;

/// What a clock may be off, in seconds.
const SKEW_SECONDS: i64 = 300;
const DATE: &str = "%a, %d %b %Y %H:%M:%S GMT";
/// What a request with a body signs as well.
const OF_A_BODY: [&str; 3] = ["content-length", "content-type", "x-content-sha256"];

/// Whether the host must be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Host {
    Signed,
    /// Oracle's SDKs leave it out towards the federation endpoint, and only there.
    Free,
}

/// Checks the signature of a request. `key` finds the key of a key id, or says why there is none.
///
/// # Errors
/// Which check failed, and on what.
pub(super) fn check(
    call: &Call,
    now: DateTime<Utc>,
    host: Host,
    key: impl FnOnce(&str) -> Result<PKey<Public>, String>,
) -> Result<(), String> {
    let authorization = Authorization::of(call)?;
    authorization.covers(call, host)?;
    check_dates(call, now, &authorization.headers)?;
    if has_body(&call.method) {
        check_body(call)?;
    }
    let key = key(&authorization.key_id).map_err(|flaw| format!("keyId: {flaw}"))?;
    let text = signing_string(call, &authorization.headers)?;
    let signature = BASE64_STANDARD
        .decode(&authorization.signature)
        .map_err(|error| format!("signature: not base64: {error}"))?;
    if verifies(&key, &text, &signature).unwrap_or(false) {
        return Ok(());
    }
    Err(format!(
        "signature: not one of the key of {} under the request as received, whose signing string is {text:?}",
        shortened(&authorization.key_id)
    ))
}

/// The key id that a request names, for the record.
pub(super) fn key_id(call: &Call) -> Option<String> {
    let value = call.header("authorization")?;
    let parameters = parameters(value.strip_prefix("Signature ")?).ok()?;
    parameters.get("keyId").map(|id| (*id).to_owned())
}

#[derive(Debug)]
struct Authorization {
    headers: Vec<String>,
    key_id: String,
    signature: String,
}

impl Authorization {
    fn of(call: &Call) -> Result<Self, String> {
        let value = call
            .header("authorization")
            .ok_or("authorization: no such header")?;
        let value = value
            .strip_prefix("Signature ")
            .ok_or("authorization: not of the scheme `Signature`")?;
        let parameters =
            parameters(value).map_err(|flaw| format!("authorization: {flaw} in {value:?}"))?;
        let get = |name: &str| {
            let value = parameters.get(name).copied();
            value.ok_or_else(|| format!("authorization: no {name}"))
        };
        if get("version")? != "1" {
            return Err("authorization: version is not \"1\"".into());
        }
        if get("algorithm")? != "rsa-sha256" {
            return Err("authorization: algorithm is not \"rsa-sha256\"".into());
        }
        Ok(Self {
            headers: get("headers")?.split(' ').map(str::to_owned).collect(),
            key_id: get("keyId")?.to_owned(),
            signature: get("signature")?.to_owned(),
        })
    }

    /// Whether the signature covers what it has to.
    fn covers(&self, call: &Call, host: Host) -> Result<(), String> {
        let signed = |name: &str| self.headers.iter().any(|header| header == name);
        let mut needed = vec!["(request-target)"];
        if host == Host::Signed {
            needed.push("host");
        }
        if has_body(&call.method) {
            needed.extend(OF_A_BODY);
        }
        if let Some(missing) = needed.into_iter().find(|name| !signed(name)) {
            return Err(format!("headers: {missing} is not signed"));
        }
        if !signed("date") && !signed("x-date") {
            return Err("headers: neither date nor x-date is signed".into());
        }
        for (at, name) in self.headers.iter().enumerate() {
            if self.headers[..at].contains(name) {
                return Err(format!("headers: {name} is listed twice"));
            }
            if name.chars().any(|c| c.is_ascii_uppercase()) {
                return Err(format!("headers: {name} is not in lower case"));
            }
        }
        Ok(())
    }
}

/// `name="value"`, commas between. In whatever order: Oracle's own SDKs differ in it.
fn parameters(text: &str) -> Result<HashMap<&str, &str>, String> {
    let mut found = HashMap::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").ok_or("no name=\"value\"")?;
        let (value, after) = after.split_once('"').ok_or("a quote is not closed")?;
        if found.insert(name, value).is_some() {
            return Err(format!("{name} twice"));
        }
        rest = after.trim_start();
        if !rest.is_empty() {
            rest = rest.strip_prefix(',').ok_or("no comma")?.trim_start();
        }
    }
    Ok(found)
}

fn has_body(method: &Method) -> bool {
    [Method::POST, Method::PUT, Method::PATCH].contains(method)
}

fn check_dates(call: &Call, now: DateTime<Utc>, signed: &[String]) -> Result<(), String> {
    for name in signed
        .iter()
        .filter(|name| *name == "date" || *name == "x-date")
    {
        let value = call.header(name).ok_or_else(|| absent(name))?;
        let date = NaiveDateTime::parse_from_str(&value, DATE).ok();
        // Parsing forgives what the format does not, such as a day of one digit.
        let date = date.filter(|date| date.format(DATE).to_string() == value);
        let date = date.ok_or_else(|| format!("date: {name} is {value:?}, not of {DATE:?}"))?;
        let off = (now - date.and_utc()).abs();
        if off > TimeDelta::seconds(SKEW_SECONDS) {
            let off = off.num_seconds();
            return Err(format!(
                "date: {name} is {off} s off, {SKEW_SECONDS} s are allowed"
            ));
        }
    }
    Ok(())
}

fn check_body(call: &Call) -> Result<(), String> {
    let has = call.body.len();
    let length = call.header("content-length");
    let length = length.ok_or_else(|| absent("content-length"))?;
    if length != has.to_string() {
        return Err(format!(
            "content-length: {length}, the body has {has} bytes"
        ));
    }
    let digest = call.header("x-content-sha256");
    let digest = digest.ok_or_else(|| absent("x-content-sha256"))?;
    let expected = BASE64_STANDARD.encode(sha256(&call.body));
    if digest != expected {
        return Err(format!(
            "x-content-sha256: {digest}, the body's is {expected}"
        ));
    }
    Ok(())
}

fn absent(name: &str) -> String {
    format!("headers: {name} is signed but was not sent")
}

/// What the client has to have signed.
fn signing_string(call: &Call, signed: &[String]) -> Result<String, String> {
    let line = |name: &String| {
        let value = if name == "(request-target)" {
            let method = call.method.as_str().to_ascii_lowercase();
            format!("{method} {}", call.target)
        } else {
            call.header(name).ok_or_else(|| absent(name))?
        };
        Ok(format!("{name}: {value}"))
    };
    let lines = signed
        .iter()
        .map(line)
        .collect::<Result<Vec<_>, String>>()?;
    Ok(lines.join("\n"))
}

/// RSASSA-PKCS1-v1_5 with SHA-256.
fn verifies(key: &PKey<Public>, text: &str, signature: &[u8]) -> Result<bool, ErrorStack> {
    Verifier::new(MessageDigest::sha256(), key)?.verify_oneshot(signature, text.as_bytes())
}

/// A session token is hundreds of characters that no reader compares.
fn shortened(key_id: &str) -> String {
    match key_id.char_indices().nth(160) {
        Some((end, _)) => format!("{}…", &key_id[..end]),
        None => key_id.to_owned(),
    }
}
