//! Whether connections to a database are protected on their way.
//!
//! Without `sslmode=verify-full` whoever is between a service and PostgreSQL can read and change what is stored, and gets the
//! password.

use std::net::IpAddr;
use std::str::FromStr as _;

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::config::ConfigError;

/// Refuses a PostgreSQL beyond loopback whose certificate is not verified, unless `allowed`, the setting
/// `SECTION.allow_unverified_database`. `setting` is the one with the URL, in that section.
///
/// # Errors
/// Names both settings.
pub fn require_verified(
    section: &str,
    setting: &str,
    url: &str,
    allowed: bool,
) -> Result<(), ConfigError> {
    if allowed || !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
        return Ok(());
    }
    // An invalid URL is refused where the database is opened.
    let Ok(options) = PgConnectOptions::from_str(url) else {
        return Ok(());
    };
    let is_local = options.get_socket().is_some() || is_local(options.get_host());
    if is_local || matches!(options.get_ssl_mode(), PgSslMode::VerifyFull) {
        return Ok(());
    }
    Err(ConfigError::invalid(
        format!("{section}.{setting}"),
        format!(
            "needs sslmode=verify-full, and sslrootcert=FILE if its authority is not a public one: {} is not on this machine. \
             In a network that nobody else can reach, {section}.allow_unverified_database = true permits it",
            options.get_host()
        ),
    ))
}

fn is_local(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.starts_with('/')
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, allowed: bool) -> Result<(), ConfigError> {
        require_verified("persistence", "database_url", url, allowed)
    }

    #[test]
    fn a_database_elsewhere_must_show_a_certificate_that_is_verified() {
        for url in [
            "postgres://me:hunter2@db:5432/x",
            "postgres://me:hunter2@db/x?sslmode=require",
            "postgresql://me:hunter2@10.0.0.3/x?sslmode=verify-ca",
            "postgres://me:hunter2@localhost/x?host=db.example.com",
        ] {
            let message = check(url, false).unwrap_err().to_string();
            assert!(
                message.starts_with("persistence.database_url: "),
                "{message}"
            );
            assert!(message.contains("persistence.allow_unverified_database"));
            assert!(!message.contains("hunter2"), "{message}");
            assert!(check(url, true).is_ok());
        }
    }

    #[test]
    fn a_database_on_this_machine_or_with_a_verified_certificate_is_taken() {
        for url in [
            "postgres://me@localhost/x",
            "postgres://me@127.0.0.1:5432/x",
            "postgres://me@[::1]:5432/x",
            "postgres://me@%2Fvar%2Frun%2Fpostgresql/x",
            "postgres://me@db.example.com/x?sslmode=verify-full",
            "sqlite://x.db",
        ] {
            assert!(check(url, false).is_ok(), "{url}");
        }
    }
}
