//! Setting `ingest.sources`: the location of the objects of a bucket, and the format of their rows.
//!
//! Invariant: a located object is below the URL of its source.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use axum::body::Bytes;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt as _};
use serde::{Deserialize, Serialize};
use tollgate_service::Secret;
use tollgate_service::config::ConfigError;
use tollgate_service::objects::{self, StoreSettings};
use tollgate_service::resilience::Dependency;
use tollgate_types::Tenant;
use url::Url;

use super::folder::Folder;
use super::object;
use super::rows::{Dialect, Format, ValueForms, WrongSetting};

/// The longest name of an object in Object Storage, in bytes.
const MAX_NAME_BYTES: usize = 1_024;

/// One table of `ingest.sources`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourceConfig {
    /// The bucket, as events name it.
    pub bucket: String,
    /// Only objects with this prefix in their name are imported.
    pub prefix: String,
    /// The tenant of the rows. Only events from a key of this tenant start an import. The default tenant unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The URL of the bucket: `s3://bucket`, or `file:///directory` for development. Default: `s3://` and the bucket.
    pub url: String,
    /// Options of the crate `object_store`, such as `aws_endpoint`; they override the environment's `AWS_*`.
    pub options: BTreeMap<String, Secret>,
    /// `auto` (by the name of the object), `ndjson` or `csv`. Gzip is detected by the first bytes of the object.
    pub format: FormatSetting,
    /// The delimiter of CSV columns. Default: that of a line `sep=` before the header, or a comma.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<char>,
    /// For CSV: the lines before the header.
    pub skip_lines: u32,
    /// For CSV: what stands before the decimals of an amount, `.` or `,`. Default: a point; an amount in another form, or in
    /// one with two readings that no other amount decides, ends the import.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decimal: Option<char>,
    /// For CSV, with `decimal`: what stands between groups of digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grouping: Option<char>,
    /// For CSV: the format of timestamps, as in strftime. Default: RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp_format: Option<String>,
    /// For CSV: the time zone of timestamps without an offset, such as `Europe/Berlin` or `+01:00`. Default: UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// For CSV: the encoding of the text, a label of the Encoding Standard. Default: UTF-8; UTF-16 with a byte order mark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// The rows are backfill: they build histories and get decisions, and cause no alert.
    pub backfill: bool,
    /// For CSV: the column of each member, if its name is not that of the member. `latitude` and `longitude` become the location.
    pub columns: BTreeMap<String, String>,
}

/// The format of objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FormatSetting {
    /// By the object's name: `.csv`, or `.ndjson`, `.jsonl`, `.json`, each also with `.gz`.
    #[default]
    Auto,
    /// One transaction per line.
    Ndjson,
    /// A header, then one transaction per record: RFC 4180.
    Csv,
}

/// Where the objects of a source are.
#[derive(Debug, Clone)]
pub(super) enum Objects {
    Bucket(Arc<dyn ObjectStore>),
    Folder(Folder),
}

impl Objects {
    /// Size of an object, and its version if the store has one.
    pub(super) async fn head(&self, path: &Path) -> object_store::Result<(u64, Option<String>)> {
        match self {
            Self::Bucket(store) => {
                let found = store.head(path).await?;
                Ok((found.size, found.e_tag))
            }
            Self::Folder(folder) => {
                let (size, version) = folder.head(path)?;
                Ok((size, Some(version)))
            }
        }
    }

    /// A range of an object, of this version.
    pub(super) async fn read(
        &self,
        path: &Path,
        range: Range<u64>,
        version: Option<&str>,
    ) -> object_store::Result<Bytes> {
        match self {
            Self::Bucket(store) => {
                let options = GetOptions {
                    if_match: version.map(str::to_owned),
                    range: Some(GetRange::Bounded(range)),
                    ..GetOptions::default()
                };
                store.get_opts(path, options).await?.bytes().await
            }
            Self::Folder(folder) => folder.read(path, range, version),
        }
    }
}

/// A source with validated settings.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    tenant: Arc<str>,
    bucket: String,
    prefix: String,
    url: String,
    pub(super) objects: Objects,
    /// The store as a dependency.
    pub(super) dependency: Dependency,
    /// The number of running imports of this source. It is limited for each source, so that an unavailable source does not
    /// delay the others.
    pub(super) running: Arc<AtomicUsize>,
    /// The number of objects of which the beginning is being read.
    pub(super) peeking: Arc<AtomicUsize>,
    root: Path,
    format: FormatSetting,
    dialect: Arc<Dialect>,
    /// Whether the rows are backfill.
    pub(super) backfill: bool,
}

impl SourceConfig {
    /// Opens the store, without calling it.
    ///
    /// # Errors
    /// Names the setting at fault.
    pub(crate) fn open(&self, setting: &str) -> Result<Source, ConfigError> {
        let invalid = |member: &str, reason: &str| {
            Err(ConfigError::invalid(format!("{setting}.{member}"), reason))
        };
        if self.bucket.is_empty() {
            return invalid("bucket", "must be the name of a bucket");
        }
        let tenant = match Tenant::from_member(self.tenant.as_deref()) {
            Ok(tenant) => tenant.name().into(),
            Err(error) => return invalid("tenant", &error.to_string()),
        };
        let url = match self.url.as_str() {
            "" => format!("s3://{}", self.bucket),
            given => given.to_owned(),
        };
        let forms = ValueForms {
            decimal: self.decimal,
            grouping: self.grouping,
            timestamp_format: self.timestamp_format.clone(),
            time_zone: self.time_zone.clone(),
            encoding: self.encoding.clone(),
        };
        let dialect = Dialect::new(self.columns.clone(), self.delimiter, self.skip_lines, forms);
        let dialect = match dialect {
            Ok(dialect) => Arc::new(dialect),
            Err(WrongSetting { name, reason }) => return invalid(name, reason),
        };
        let (store, root) = objects::open(StoreSettings {
            url: &url,
            url_setting: &format!("{setting}.url"),
            options: &self.options,
            options_setting: &format!("{setting}.options"),
        })?;
        let directory = Url::parse(&url)
            .ok()
            .filter(|url| url.scheme() == "file")
            .and_then(|url| url.to_file_path().ok());
        let objects = match directory {
            Some(directory) => Objects::Folder(Folder::new(directory, root.clone())),
            None => Objects::Bucket(store),
        };
        Ok(Source {
            tenant,
            bucket: self.bucket.clone(),
            prefix: self.prefix.clone(),
            url,
            objects,
            dependency: object::dependency(&self.bucket),
            running: Arc::default(),
            peeking: Arc::default(),
            root,
            format: self.format,
            dialect,
            backfill: self.backfill,
        })
    }
}

impl Source {
    /// The tenant of the rows.
    pub(super) fn tenant(&self) -> Tenant<'_> {
        Tenant::parse(&self.tenant).unwrap_or_default()
    }
}

/// Why an object cannot be imported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("no source in ingest.sources matches bucket {bucket} and this object")]
    Unknown { bucket: String },
    #[error(
        "the object's name does not end in .csv, .ndjson, .jsonl or .json; set the format of the source"
    )]
    Format,
    #[error("the object's name is invalid: {0}")]
    Name(String),
}

/// An object with its location and format.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    pub(super) source: Source,
    pub(super) path: Path,
    pub(super) format: Format,
    /// The URL, for logs and dead letters.
    pub(crate) url: String,
}

/// Locates an object in the first source that matches it.
///
/// # Errors
/// No source matches, or the name is invalid or has no known format.
pub(crate) fn locate(
    sources: &[Source],
    bucket: &str,
    object: &str,
) -> Result<Located, SourceError> {
    let source = sources
        .iter()
        .find(|source| source.bucket == bucket && object.starts_with(&source.prefix))
        .ok_or_else(|| SourceError::Unknown {
            bucket: bucket.to_owned(),
        })?;
    if object.len() > MAX_NAME_BYTES {
        return Err(SourceError::Name(format!(
            "it is longer than {MAX_NAME_BYTES} bytes"
        )));
    }
    // `Path` rejects empty and relative segments, so the object is below the source.
    let name = Path::parse(object).map_err(|error| SourceError::Name(error.to_string()))?;
    if name.parts().next().is_none() {
        return Err(SourceError::Name("it is empty".to_owned()));
    }
    let mut path = source.root.clone();
    path.extend(name.parts());
    let format = match source.format {
        FormatSetting::Ndjson => Format::Ndjson,
        FormatSetting::Csv => Format::Csv(Arc::clone(&source.dialect)),
        FormatSetting::Auto => {
            let plain = object.to_lowercase();
            let plain = plain.strip_suffix(".gz").unwrap_or(&plain);
            match plain.rsplit('.').next() {
                Some("csv") => Format::Csv(Arc::clone(&source.dialect)),
                Some("ndjson" | "jsonl" | "json") => Format::Ndjson,
                _ => return Err(SourceError::Format),
            }
        }
    };
    Ok(Located {
        url: format!("{}/{name}", source.url.trim_end_matches('/')),
        source: source.clone(),
        path,
        format,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> Vec<Source> {
        let config = |prefix: &str, url: &str| SourceConfig {
            bucket: "payments".into(),
            prefix: prefix.into(),
            url: url.into(),
            ..SourceConfig::default()
        };
        ["in/", "late/"]
            .map(|prefix| config(prefix, "file:///data").open("s").unwrap())
            .to_vec()
    }

    #[test]
    fn an_object_is_located_below_its_source_only() {
        let found = locate(&sources(), "payments", "in/2026/a.csv.gz").unwrap();
        assert!(matches!(found.format, Format::Csv(_)));
        assert_eq!(found.url, "file:///data/in/2026/a.csv.gz");
        for (bucket, object) in [
            ("other", "in/a.csv"),
            ("payments", "out/a.csv"),
            ("payments", "in/../../etc/passwd.csv"),
            ("payments", "in/a.parquet"),
            ("payments", &format!("in/{}.csv", "x".repeat(1_100))),
        ] {
            assert!(locate(&sources(), bucket, object).is_err(), "{object}");
        }
    }

    #[test]
    fn an_invalid_source_is_refused_with_the_name_of_its_setting() {
        let open = |change: fn(&mut SourceConfig)| {
            let mut config = SourceConfig {
                bucket: "b".into(),
                url: "file:///data".into(),
                ..SourceConfig::default()
            };
            change(&mut config);
            config.open("ingest.sources[0]").unwrap_err().to_string()
        };
        assert!(open(|c| c.bucket.clear()).starts_with("ingest.sources[0].bucket: "));
        assert!(open(|c| c.tenant = Some("*".into())).starts_with("ingest.sources[0].tenant: "));
        assert!(open(|c| c.url = "ftp://x".into()).starts_with("ingest.sources[0].url: "));
        assert!(open(|c| c.delimiter = Some('€')).starts_with("ingest.sources[0].delimiter: "));
        assert!(open(|c| c.grouping = Some('.')).starts_with("ingest.sources[0].decimal: "));
    }
}
