//! The errors of a call to Oracle Cloud: <https://docs.oracle.com/iaas/Content/API/References/apierrors.htm>.

use std::time::Duration;

use oci_rust_sdk::core::OciError;
use tollgate_service::http::with_causes;
use tollgate_service::resilience::CallError;

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OciFailure {
    /// There is no key to sign with.
    #[error("no credentials: {0}")]
    Credentials(String),
    /// The service answered with an error.
    #[error("HTTP {status} {code}: {message}")]
    Answered {
        /// HTTP status.
        status: u16,
        /// The code, such as `NotAuthenticated`.
        code: String,
        /// The message, for a person.
        message: String,
    },
    /// The service was not reached, or closed the connection.
    #[error("{0}")]
    Unreachable(String),
    /// No answer in time. The request may have had its effect.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
}

impl OciFailure {
    /// Whether the key is unknown or expired.
    pub(crate) fn is_unauthenticated(&self) -> bool {
        matches!(self, Self::Answered { status: 401, .. })
    }

    /// Whether the service is overloaded.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Answered { status: 429, .. })
    }

    /// Whether the same request would be refused again. A missing policy (403, 404), a quota and an overloaded service are
    /// errors of the installation, not of the request.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Answered { status, code, .. } => {
                let quota = ["LimitExceeded", "QuotaExceeded"].contains(&code.as_str());
                matches!(status, 400 | 405 | 406 | 411..=415 | 422) && !quota
            }
            Self::Credentials(_) | Self::Unreachable(_) | Self::TimedOut(_) => false,
        }
    }
}

impl CallError for OciFailure {
    fn timed_out(limit: Duration) -> Self {
        Self::TimedOut(limit)
    }

    fn is_outage(&self) -> bool {
        !self.is_refusal()
    }
}

impl From<OciError> for OciFailure {
    fn from(error: OciError) -> Self {
        match error {
            OciError::ServiceError {
                status,
                code,
                message,
            } => Self::Answered {
                status,
                code,
                message: message.chars().take(300).collect(),
            },
            OciError::SigningError(reason) | OciError::AuthError(reason) => {
                Self::Credentials(reason)
            }
            OciError::HttpError(error) => Self::Unreachable(with_causes(&error.without_url())),
            other => Self::Unreachable(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, code: &str) -> OciFailure {
        OciFailure::Answered {
            status,
            code: code.to_owned(),
            message: String::new(),
        }
    }

    #[test]
    fn what_lies_in_the_installation_is_an_outage_and_what_lies_in_the_request_is_not() {
        for (status, code) in [
            (401, "NotAuthenticated"),
            (403, "NotAuthorized"),
            (404, "NotAuthorizedOrNotFound"),
            (409, "IncorrectState"),
            (429, "TooManyRequests"),
            (500, "InternalServerError"),
            (503, "ServiceUnavailable"),
            (400, "LimitExceeded"),
            (400, "QuotaExceeded"),
        ] {
            assert!(answered(status, code).is_outage(), "{status} {code}");
        }
        for (status, code) in [
            (400, "InvalidParameter"),
            (400, "CannotParseRequest"),
            (413, "RequestEntityTooLarge"),
        ] {
            assert!(answered(status, code).is_refusal(), "{status} {code}");
        }
    }
}
