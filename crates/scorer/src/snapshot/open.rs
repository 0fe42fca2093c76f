//! From a URL in the settings to an object store.

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{ObjectStore, RetryConfig};
use tollgate_runtime::config::ConfigError;
use tollgate_runtime::secret::Secret;
use url::Url;

use super::signing::Signing;

/// Opens the store of setting `scorer.snapshots`: `file://`, `s3://` or `memory://`, and the path in it. `options` are
/// those of the crate `object_store`, such as `aws_endpoint`; they come before the environment's `AWS_*`.
pub(crate) fn open(
    url: &str,
    options: &BTreeMap<String, Secret>,
) -> Result<(Arc<dyn ObjectStore>, Path), ConfigError> {
    let invalid = |reason: String| ConfigError::invalid("scorer.snapshots", reason);
    let parsed = Url::parse(url).map_err(|error| {
        invalid(format!(
            "must be a URL such as file:///var/lib/tollgate/snapshots or s3://bucket/prefix: {error}"
        ))
    })?;
    match parsed.scheme() {
        "file" if parsed.to_file_path().is_err() => {
            return Err(invalid("the path must be absolute: file:///…".to_owned()));
        }
        "file" | "memory" => {}
        "s3" => {
            let path = Path::parse(parsed.path()).map_err(|error| invalid(error.to_string()))?;
            return Ok((s3(url, options)?, path));
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

fn s3(url: &str, options: &BTreeMap<String, Secret>) -> Result<Arc<dyn ObjectStore>, ConfigError> {
    let mut builder = AmazonS3Builder::from_env()
        .with_url(url)
        .with_crypto_provider(Arc::new(Signing))
        // Requests are made again in one place, by whoever makes them.
        .with_retry(RetryConfig {
            max_retries: 0,
            ..RetryConfig::default()
        });
    for (name, value) in options {
        let key = name.to_lowercase().parse().map_err(|_| {
            let reason = "is no option of an S3 store; aws_endpoint and aws_region are such";
            ConfigError::invalid(format!("scorer.snapshot_options.{name}"), reason)
        })?;
        builder = builder.with_config(key, value.expose());
    }
    let store = builder
        .build()
        .map_err(|error| ConfigError::invalid("scorer.snapshots", error.to_string()))?;
    Ok(Arc::new(store))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str, options: &[(&str, &str)]) -> String {
        let options = options
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Secret::new(*value)));
        open(url, &options.collect())
            .map(drop)
            .unwrap_err()
            .to_string()
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
    fn a_bucket_and_the_prefix_in_it_are_read_from_the_url() {
        let options = [("aws_region", "eu-frankfurt-1")]
            .map(|(name, value)| (name.to_owned(), Secret::new(value)));
        let (_, path) = open("s3://bucket/a/b", &BTreeMap::from(options)).unwrap();
        assert_eq!(path.as_ref(), "a/b");
    }
}
