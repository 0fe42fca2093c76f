//! Session tokens: JSON Web Tokens whose claims hold their lifetime.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::Reason;

/// The lifetime of a key, by the clock of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    half: Instant,
    end: Instant,
}

impl Life {
    /// Reads the lifetime of a new token. Its issuer checks its signature.
    pub(super) fn of(token: &str) -> Result<Self, Reason> {
        #[derive(Deserialize)]
        struct Claims {
            exp: i64,
        }
        let claims = token
            .split('.')
            .nth(1)
            .and_then(|part| URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok())
            .and_then(|json| serde_json::from_slice::<Claims>(&json).ok())
            .ok_or("the token is no JSON Web Token with a claim `exp`")?;
        let left = claims.exp - chrono::Utc::now().timestamp();
        let left = Duration::from_secs(u64::try_from(left).unwrap_or_default());
        let now = Instant::now();
        Ok(Self {
            half: now + left / 2,
            end: now + left,
        })
    }

    pub(super) fn is_half_over(&self, now: Instant) -> bool {
        now >= self.half
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(seconds: i64) -> String {
        let exp = chrono::Utc::now().timestamp() + seconds;
        let claims = URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{exp},"sub":"x"}}"#));
        format!("e30.{claims}.signature")
    }

    #[test]
    fn a_token_is_renewed_at_half_of_its_life() {
        let life = Life::of(&token(1_000)).unwrap();
        let after = |seconds| Instant::now() + Duration::from_secs(seconds);
        assert!(!life.is_half_over(after(480)) && life.is_half_over(after(520)));
        assert!(!life.is_over(after(980)) && life.is_over(after(1_020)));
    }

    #[test]
    fn an_old_token_is_over_at_once_and_nonsense_is_refused() {
        assert!(Life::of(&token(-5)).unwrap().is_over(Instant::now()));
        for wrong in ["", "a.b", "a.e30.c"] {
            assert!(Life::of(wrong).is_err(), "{wrong}");
        }
    }
}
