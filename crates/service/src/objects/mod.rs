//! Opens the object store of a URL: a directory, or a bucket over the S3 protocol.

mod signing;

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{ObjectStore, RetryConfig};
use signing::Signing;
use url::Url;

use crate::Secret;
use crate::config::ConfigError;

/// The settings of a store.
#[derive(Debug, Clone, Copy)]
pub struct StoreSettings<'a> {
    /// `file://`, `s3://` or `memory://`.
    pub url: &'a str,
    /// The setting of the URL.
    pub url_setting: &'a str,
    /// Options of the crate `object_store`, such as `aws_endpoint`; they take precedence over the variables `AWS_*`.
    pub options: &'a BTreeMap<String, Secret>,
    /// The setting of the options.
    pub options_setting: &'a str,
}

/// Opens a store. Returns it, and the path in it.
///
/// # Errors
/// Names the invalid setting.
pub fn open(settings: StoreSettings<'_>) -> Result<(Arc<dyn ObjectStore>, Path), ConfigError> {
    let url = settings.url;
    let invalid = |reason: String| ConfigError::invalid(settings.url_setting, reason);
    let parsed = Url::parse(url).map_err(|error| {
        invalid(format!(
            "must be a URL such as file:///var/lib/tollgate/snapshots or s3://bucket/prefix: {error}"
        ))
    })?;
    let has_more = parsed.query().is_some() || parsed.fragment().is_some();
    if has_more || !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(invalid(format!(
            "must have neither user, password nor query: the URL is printed and logged; {} has options for credentials",
            settings.options_setting
        )));
    }
    match parsed.scheme() {
        "file" if parsed.to_file_path().is_err() => {
            return Err(invalid("the path must be absolute: file:///…".to_owned()));
        }
        "file" | "memory" => {}
        "s3" => {
            let path = Path::parse(parsed.path()).map_err(|error| invalid(error.to_string()))?;
            return Ok((s3(settings)?, path));
        }
        scheme => {
            let reason = format!("must begin with file://, s3:// or memory://, not {scheme}://");
            return Err(invalid(reason));
        }
    }
    let (store, path) =
        object_store::parse_url(&parsed).map_err(|error| invalid(error.to_string()))?;
    Ok((Arc::from(store), path))
}

fn s3(settings: StoreSettings<'_>) -> Result<Arc<dyn ObjectStore>, ConfigError> {
    let mut builder = AmazonS3Builder::from_env()
        .with_url(settings.url)
        .with_crypto_provider(Arc::new(Signing))
        // The caller retries.
        .with_retry(RetryConfig {
            max_retries: 0,
            ..RetryConfig::default()
        });
    for (name, value) in settings.options {
        let key = name.to_lowercase().parse().map_err(|_| {
            let reason = "is no option of an S3 store; aws_endpoint and aws_region are such";
            ConfigError::invalid(format!("{}.{name}", settings.options_setting), reason)
        })?;
        builder = builder.with_config(key, value.expose());
    }
    let store = builder
        .build()
        .map_err(|error| ConfigError::invalid(settings.url_setting, error.to_string()))?;
    Ok(Arc::new(store))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(url: &str, options: &[(&str, &str)]) -> Result<Path, ConfigError> {
        let options = options
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Secret::new(*value)));
        let settings = StoreSettings {
            url,
            url_setting: "scorer.snapshots",
            options: &options.collect(),
            options_setting: "scorer.snapshot_options",
        };
        open(settings).map(|(_, path)| path)
    }

    fn refused(url: &str, options: &[(&str, &str)]) -> String {
        opened(url, options).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_store_is_refused_with_the_setting_and_the_reason() {
        assert!(refused("snapshots", &[]).starts_with("scorer.snapshots: must be a URL"));
        assert!(refused("ftp://host/x", &[]).contains("not ftp://"));
        let misspelt = refused("s3://bucket/x", &[("aws_endpiont", "http://x")]);
        assert!(
            misspelt.starts_with("scorer.snapshot_options.aws_endpiont: "),
            "{misspelt}"
        );
    }

    #[test]
    fn a_url_with_credentials_is_refused_and_not_quoted() {
        for url in [
            "s3://key:hunter2@bucket/x",
            "s3://hunter2@bucket/x",
            "s3://bucket/x?secret=hunter2",
            "file:///x#hunter2",
        ] {
            let error = refused(url, &[]);
            assert!(
                error.starts_with("scorer.snapshots: must have neither"),
                "{error}"
            );
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_bucket_and_the_prefix_in_it_are_read_from_the_url() {
        let path = opened("s3://bucket/a/b", &[("aws_region", "eu-frankfurt-1")]).unwrap();
        assert_eq!(path.as_ref(), "a/b");
    }
}
