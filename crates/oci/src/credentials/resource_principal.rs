//! Resource principals, version 2.2: token and key in the environment, as values or as absolute paths of files that the
//! platform renews.

use std::path::Path;

use super::token::Life;
use super::{Reason, Signing, key, read};

const VERSION: &str = "OCI_RESOURCE_PRINCIPAL_VERSION";
const TOKEN: &str = "OCI_RESOURCE_PRINCIPAL_RPST";
const KEY: &str = "OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM";
const PASSPHRASE: &str = "OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM_PASSPHRASE";

/// A required variable of the environment.
pub(super) fn variable(name: &str) -> Result<String, Reason> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    value.ok_or_else(|| format!("{name} is not in the environment"))
}

#[derive(Debug)]
pub(super) struct ResourcePrincipal {
    version: Result<String, Reason>,
    token: Result<String, Reason>,
    key: Result<String, Reason>,
    passphrase: Option<String>,
}

impl ResourcePrincipal {
    pub(super) fn from_environment() -> Self {
        Self {
            version: variable(VERSION),
            token: variable(TOKEN),
            key: variable(KEY),
            passphrase: variable(PASSPHRASE).ok(),
        }
    }

    pub(super) fn fetch(&self) -> Result<Signing, Reason> {
        let version = self.version.as_deref().map_err(Clone::clone)?;
        if version != "2.2" {
            return Err(format!("{VERSION} is {version}; only 2.2 is known"));
        }
        let token = content(self.token.as_deref().map_err(Clone::clone)?)?;
        let pem = content(self.key.as_deref().map_err(Clone::clone)?)?;
        let passphrase = self.passphrase.as_deref().map(content).transpose()?;
        let passphrase = passphrase.unwrap_or_default();
        let token = token.trim();
        let key = key::to_pkcs8(&pem, passphrase.trim_end_matches(['\r', '\n']))?;
        Ok(Signing::new(
            format!("ST${token}"),
            key,
            Some(Life::of(token)?),
        ))
    }
}

/// The value itself, or the content of the file that it names.
fn content(value: &str) -> Result<String, Reason> {
    if Path::new(value).is_absolute() {
        return read(Path::new(value));
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use oci_rust_sdk::auth::provider::AuthProvider as _;
    use openssl::rsa::Rsa;

    use super::*;

    fn principal(token: &str, key: &str) -> ResourcePrincipal {
        ResourcePrincipal {
            version: Ok("2.2".to_owned()),
            token: Ok(token.to_owned()),
            key: Ok(key.to_owned()),
            passphrase: None,
        }
    }

    #[test]
    fn token_and_key_are_values_or_files_that_are_read_again() {
        let key = Rsa::generate(2048).unwrap().private_key_to_pem().unwrap();
        let key = String::from_utf8(key).unwrap();
        let token = |name: &str| {
            let exp = chrono::Utc::now().timestamp() + 600;
            let claims = URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{exp},"n":"{name}"}}"#));
            format!("e30.{claims}.s")
        };
        let by_value = principal(&token("a"), &key).fetch().unwrap();
        assert_eq!(by_value.get_key_id(), format!("ST${}", token("a")));

        let dir = tempfile::tempdir().unwrap();
        let [token_file, key_file] = ["token", "key"].map(|name| dir.path().join(name));
        std::fs::write(&key_file, &key).unwrap();
        let by_file = principal(&token_file.to_string_lossy(), &key_file.to_string_lossy());
        for name in ["b", "c"] {
            std::fs::write(&token_file, token(name) + "\n").unwrap();
            let id = by_file.fetch().unwrap().get_key_id();
            assert_eq!(id, format!("ST${}", token(name)));
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut without = principal("t", "k");
        without.token = Err("OCI_RESOURCE_PRINCIPAL_RPST is not in the environment".to_owned());
        assert!(without.fetch().unwrap_err().contains(TOKEN));
        without.version = Ok("3.0".to_owned());
        assert!(without.fetch().unwrap_err().contains("only 2.2"));
    }
}
