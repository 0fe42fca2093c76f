//! Who sent a request, as far as its records tell it: the sender, and whether they are backfill.
//!
//! Invariant: both come from the API key alone. Of what a caller claims, only `Tollgate-Backfill` is looked at, and it
//! needs a scope.

use axum::http::StatusCode;
use axum::http::request::Parts;
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use tollgate_log::Claims;
use tollgate_service::http::{Caller, Problem, Scope};
use tollgate_types::Tenant;

use crate::api::App;
use crate::items;

/// The request header with which a caller declares its transactions to be backfill.
const BACKFILL: &str = "tollgate-backfill";
const MICROS_PER_HOUR: i64 = 3_600_000_000;

/// What is known of a request by its API key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Provenance {
    /// Fingerprint of the key; none where no keys are configured.
    pub(crate) sender: Option<String>,
    /// The transactions build histories, and cause neither alerts nor replies.
    pub(crate) backfill: bool,
    /// The oldest timestamp that is accepted, in microseconds since 1970.
    pub(crate) oldest_micros: Option<i64>,
}

impl Provenance {
    /// What a dead letter claims, so that it is sent through again as what it was.
    pub(crate) fn claims<'a>(&'a self, tenant: Tenant<'a>) -> Claims<'a> {
        Claims {
            tenant,
            sender: self.sender.as_deref(),
            is_backfill: self.backfill,
        }
    }

    /// Reads it from the head of an authenticated request.
    ///
    /// # Errors
    /// 403 if the request is declared to be backfill and its key lacks the scope, 400 for another value than 0 or 1.
    pub(crate) fn of(app: &App, parts: &Parts, caller: &Caller) -> Result<Self, Problem> {
        let scoped = app.keys.authorize(
            &parts.headers,
            parts.extensions.get(),
            &Scope::TRANSACTIONS_BACKFILL,
        );
        let backfill = match parts.headers.get(BACKFILL).map(|value| value.as_bytes()) {
            None | Some(b"0") => false,
            Some(b"1") => {
                scoped.as_ref().map_err(Problem::clone)?;
                true
            }
            Some(_) => {
                let detail = "the header Tollgate-Backfill must be 0 or 1";
                return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
            }
        };
        let keyed = app.keys.are_required();
        let hours = i64::from(app.config.max_age_hours);
        let limited = keyed && scoped.is_err() && hours > 0;
        Ok(Self {
            sender: keyed.then(|| sender_of(caller.name())),
            backfill,
            oldest_micros: limited
                .then(|| items::now_micros().saturating_sub(hours * MICROS_PER_HOUR)),
        })
    }
}

/// The fingerprint of a key by its name, which a rotation keeps: 16 hexadecimal digits of its SHA-256.
fn sender_of(name: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(name)[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_the_beginning_of_the_hash_of_its_name() {
        // printf shop | sha256sum
        assert_eq!(sender_of("shop").len(), 16);
        assert_eq!(sender_of("shop"), sender_of("shop"));
        assert_ne!(sender_of("shop"), sender_of("shop2"));
    }
}
