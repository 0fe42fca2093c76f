//! A tenant: a namespace of users. Equal ids of two tenants are different users.

use std::fmt;

/// The longest name of a tenant, in bytes.
pub const MAX_TENANT_BYTES: usize = 63;

/// The name of a tenant, checked. The default tenant has no name: its records carry no header and its decisions no
/// member, so that producers that know no tenants write for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant<'a>(&'a str);

/// The text is not the name of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected 1 to 63 lower-case letters, digits and hyphens, beginning with a letter or digit"
)]
pub struct InvalidTenant;

impl<'a> Tenant<'a> {
    /// The tenant of whatever names none.
    pub const DEFAULT: Tenant<'static> = Tenant("");

    /// Reads a name, which the default tenant does not have: `[a-z0-9][a-z0-9-]{0,62}`.
    ///
    /// # Errors
    /// The text is not such a name.
    pub const fn parse(text: &'a str) -> Result<Self, InvalidTenant> {
        if is_name(text.as_bytes()) {
            Ok(Self(text))
        } else {
            Err(InvalidTenant)
        }
    }

    /// Reads the header of a record.
    ///
    /// # Errors
    /// The header is there and not a name.
    pub fn from_header(header: Option<&'a [u8]>) -> Result<Self, InvalidTenant> {
        let Some(bytes) = header else {
            return Ok(Self(""));
        };
        Self::parse(std::str::from_utf8(bytes).map_err(|_| InvalidTenant)?)
    }

    /// Reads the member of a decision.
    ///
    /// # Errors
    /// The member is there and not a name.
    pub const fn from_member(member: Option<&'a str>) -> Result<Self, InvalidTenant> {
        match member {
            None => Ok(Self("")),
            Some(name) => Self::parse(name),
        }
    }

    /// The name; empty for the default tenant, as in the store.
    #[must_use]
    pub const fn name(self) -> &'a str {
        self.0
    }

    /// The name, as in headers and members: the default tenant has none.
    #[must_use]
    pub const fn given(self) -> Option<&'a str> {
        if self.0.is_empty() {
            None
        } else {
            Some(self.0)
        }
    }
}

const fn is_name(bytes: &[u8]) -> bool {
    if bytes.is_empty() || bytes.len() > MAX_TENANT_BYTES || bytes[0] == b'-' {
        return false;
    }
    let mut index = 0;
    while index < bytes.len() {
        if !matches!(bytes[index], b'a'..=b'z' | b'0'..=b'9' | b'-') {
            return false;
        }
        index += 1;
    }
    true
}

/// For people: the default tenant is `(default)`.
impl fmt::Display for Tenant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.given().unwrap_or("(default)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_label_of_lower_case_letters_digits_and_hyphens() {
        let longest = "a".repeat(MAX_TENANT_BYTES);
        for name in ["a", "0", "acme-eu", "a-", &longest] {
            assert_eq!(Tenant::parse(name).unwrap().given(), Some(name));
        }
        for name in [
            "",
            "-a",
            "A",
            "a_b",
            "a b",
            "*",
            "ä",
            "a\0",
            &format!("{longest}a"),
        ] {
            assert_eq!(Tenant::parse(name), Err(InvalidTenant), "{name}");
        }
    }

    #[test]
    fn what_names_no_tenant_is_of_the_default_one_and_an_invalid_name_is_no_tenant() {
        assert_eq!(Tenant::from_header(None), Ok(Tenant::DEFAULT));
        assert_eq!(Tenant::from_member(None), Ok(Tenant::DEFAULT));
        assert_eq!(Tenant::from_header(Some(b"acme")).unwrap().name(), "acme");
        for header in [&b""[..], b"ACME", b"\xff"] {
            assert_eq!(Tenant::from_header(Some(header)), Err(InvalidTenant));
        }
        assert_eq!(Tenant::from_member(Some("")), Err(InvalidTenant));
        assert_eq!(Tenant::DEFAULT.given(), None);
    }
}
