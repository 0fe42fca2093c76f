//! Why a transaction was not accepted: one field, one reason.

use std::borrow::Cow;
use std::fmt;

/// The one reason for which a transaction is refused. It never contains a value, which may be card data, or a megabyte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The member at fault, such as `amount` or `location.latitude`; empty where the whole text is.
    pub field: &'static str,
    /// What is wrong with it, for a person.
    pub reason: Cow<'static, str>,
    /// The text is not a JSON object, so that no rule could be checked.
    pub malformed: bool,
}

impl Rejection {
    /// A rejection of `field` for `reason`.
    pub fn new(field: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            field,
            reason: reason.into(),
            malformed: false,
        }
    }

    /// A text that cannot be read beyond `field`, or at all where that is empty.
    pub fn malformed(field: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            malformed: true,
            ..Self::new(field, reason)
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "{}: {}", self.field, self.reason)
        }
    }
}

impl std::error::Error for Rejection {}
