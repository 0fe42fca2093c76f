//! The configuration file of the OCI tools: <https://docs.oracle.com/iaas/Content/API/Concepts/sdkconfig.htm>.

use std::collections::HashMap;
use std::path::PathBuf;

use configparser::ini::{Ini, IniDefault};

use super::token::Life;
use super::{Reason, Signing, key, read};
use crate::config::OciConfig;

#[derive(Debug)]
pub(super) struct ConfigFile {
    path: String,
    profile: String,
}

impl ConfigFile {
    pub(super) fn new(config: &OciConfig) -> Self {
        Self {
            path: config.config_file.clone(),
            profile: config.profile.clone(),
        }
    }

    pub(super) fn region(&self) -> Result<String, Reason> {
        self.entry(&self.profile()?, "region")
    }

    /// The file is read at each call, so that a changed key is used.
    pub(super) fn fetch(&self) -> Result<Signing, Reason> {
        let profile = self.profile()?;
        let pem = read(&expand(&self.entry(&profile, "key_file")?))?;
        let passphrase = profile.get("pass_phrase").cloned().unwrap_or_default();
        let key = key::to_pkcs8(&pem, &passphrase)?;
        // `oci session authenticate` writes it next to the key.
        if let Some(file) = profile.get("security_token_file") {
            let token = read(&expand(file))?;
            let token = token.trim();
            return Ok(Signing::new(
                format!("ST${token}"),
                key,
                Some(Life::of(token)?),
            ));
        }
        let [tenancy, user, fingerprint] =
            ["tenancy", "user", "fingerprint"].map(|name| self.entry(&profile, name));
        let key_id = format!("{}/{}/{}", tenancy?, user?, fingerprint?);
        Ok(Signing::new(key_id, key, None))
    }

    fn profile(&self) -> Result<HashMap<String, String>, Reason> {
        // Names of profiles are case-sensitive.
        let mut rules = IniDefault::default();
        rules.case_sensitive = true;
        rules.default_section = String::new();
        // A passphrase may contain any character.
        rules.inline_comment_symbols = Some(Vec::new());
        let mut ini = Ini::new_from_defaults(rules);
        let text = read(&expand(&self.path))?;
        let sections = ini
            .read(text)
            .map_err(|reason| format!("{}: {reason}", self.path))?;
        let section = sections
            .get(&self.profile)
            .ok_or_else(|| format!("{} has no profile {}", self.path, self.profile))?;
        // The profile DEFAULT holds the defaults of the others.
        let entries = sections.get("DEFAULT").into_iter().flatten().chain(section);
        Ok(entries
            .filter_map(|(name, value)| Some((name.to_lowercase(), value.clone()?)))
            .collect())
    }

    fn entry(&self, profile: &HashMap<String, String>, name: &str) -> Result<String, Reason> {
        let found = profile.get(name).filter(|value| !value.is_empty());
        found
            .cloned()
            .ok_or_else(|| format!("{}: profile {} has no {name}", self.path, self.profile))
    }
}

fn expand(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    use oci_rust_sdk::auth::provider::AuthProvider as _;
    use openssl::rsa::Rsa;

    use super::*;

    fn file(text: &str, profile: &str) -> (tempfile::TempDir, ConfigFile) {
        let dir = tempfile::tempdir().unwrap();
        let key = Rsa::generate(2048).unwrap().private_key_to_pem().unwrap();
        std::fs::write(dir.path().join("key.pem"), key).unwrap();
        let text = text.replace("DIR", &dir.path().display().to_string());
        let path = dir.path().join("config");
        std::fs::write(&path, text).unwrap();
        let file = ConfigFile {
            path: path.display().to_string(),
            profile: profile.to_owned(),
        };
        (dir, file)
    }

    const TEXT: &str = "[DEFAULT]\nuser=u\nfingerprint=20:3b:97\nkey_file=DIR/key.pem\ntenancy=t\nregion=eu-frankfurt-1\n\n[Other]\nuser = o\n";

    #[test]
    fn a_profile_gives_key_and_region() {
        let (_dir, file) = file(TEXT, "DEFAULT");
        assert_eq!(file.fetch().unwrap().get_key_id(), "t/u/20:3b:97");
        assert_eq!(file.region().unwrap(), "eu-frankfurt-1");
    }

    #[test]
    fn a_profile_inherits_from_default_and_a_value_may_hold_what_looks_like_a_comment() {
        let (_dir, other) = file(&format!("{TEXT}fingerprint=1;2#3\n"), "Other");
        assert_eq!(other.fetch().unwrap().get_key_id(), "t/o/1;2#3");
    }

    #[test]
    fn what_is_missing_is_named() {
        let (_dir, other) = file("[Other]\nuser=o\n", "Other");
        assert!(
            other
                .fetch()
                .unwrap_err()
                .contains("profile Other has no key_file")
        );
        let (_dir, none) = file(TEXT, "NONE");
        assert!(none.fetch().unwrap_err().contains("no profile NONE"));
    }
}
