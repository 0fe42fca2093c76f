//! Setting `ingest.sources`: where the objects of a bucket are, and how their rows are read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use object_store::ObjectStore;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use tollgate_service::Secret;
use tollgate_service::config::ConfigError;
use tollgate_service::objects::{self, StoreSettings};
use tollgate_service::resilience::Dependency;

use super::object;
use super::rows::{Columns, Format};

/// Longest name that Object Storage has, in bytes.
const MAX_NAME_BYTES: usize = 1_024;

/// One table of `ingest.sources`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourceConfig {
    /// The bucket that events name.
    pub bucket: String,
    /// Only objects whose names begin so.
    pub prefix: String,
    /// Where its objects are: `s3://bucket`, or `file:///directory` for trying out. Unset: `s3://` and the bucket.
    pub url: String,
    /// Options of the crate `object_store`, such as `aws_endpoint`; they come before the environment's `AWS_*`.
    pub options: BTreeMap<String, Secret>,
    /// `auto`, by the object's name, or `ndjson` or `csv`. What is compressed by gzip is seen by its first bytes.
    pub format: FormatSetting,
    /// What separates the columns of CSV.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<char>,
    /// For CSV: the column of a member, where their names differ. `latitude` and `longitude` become the location.
    pub columns: BTreeMap<String, String>,
}

/// How rows stand in an object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FormatSetting {
    /// By the object's name: `.csv`, or `.ndjson`, `.jsonl`, `.json`, each also with `.gz`.
    #[default]
    Auto,
    /// A transaction a line.
    Ndjson,
    /// A header, then a transaction a record: RFC 4180.
    Csv,
}

/// A source whose settings were checked.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    bucket: String,
    prefix: String,
    url: String,
    pub(super) store: Arc<dyn ObjectStore>,
    /// What is known of whether it answers.
    pub(super) dependency: Dependency,
    /// Objects of it that are read now: a source that does not answer keeps no other waiting.
    pub(super) running: Arc<AtomicUsize>,
    root: Path,
    format: FormatSetting,
    columns: Arc<Columns>,
}

impl SourceConfig {
    /// Opens the store, without a call to it.
    pub(crate) fn open(&self, setting: &str) -> Result<Source, ConfigError> {
        let invalid = |member: &str, reason: &str| {
            Err(ConfigError::invalid(format!("{setting}.{member}"), reason))
        };
        if self.bucket.is_empty() {
            return invalid("bucket", "must be the bucket that events name");
        }
        let url = match self.url.as_str() {
            "" => format!("s3://{}", self.bucket),
            given => given.to_owned(),
        };
        let delimiter = match self.delimiter.map(u8::try_from) {
            None => b',',
            Some(Ok(byte)) if byte.is_ascii() && ![b'"', b'\r', b'\n'].contains(&byte) => byte,
            Some(_) => return invalid("delimiter", "must be one ASCII character"),
        };
        if self.columns.values().any(String::is_empty) {
            return invalid("columns", "must name a column for each member");
        }
        let (store, root) = objects::open(StoreSettings {
            url: &url,
            url_setting: &format!("{setting}.url"),
            options: &self.options,
            options_setting: &format!("{setting}.options"),
        })?;
        Ok(Source {
            bucket: self.bucket.clone(),
            prefix: self.prefix.clone(),
            url,
            store,
            dependency: object::dependency(&self.bucket),
            running: Arc::default(),
            root,
            format: self.format,
            columns: Arc::new(Columns::new(&self.columns, delimiter)),
        })
    }
}

/// Why an object is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoSource {
    #[error(
        "no source is configured for bucket {bucket} and this object; ingest.sources says which are read"
    )]
    Unknown { bucket: String },
    #[error(
        "the object's name tells no format: .csv, .ndjson, .jsonl or .json, or set the source's format"
    )]
    Format,
    #[error("the object's name is none: {0}")]
    Name(String),
}

/// An object, and how it is read.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    pub(super) source: Source,
    pub(super) path: Path,
    pub(super) format: Format,
    /// For people and dead letters.
    pub(crate) url: String,
}

/// The object's place in the first source that has it.
pub(crate) fn locate(sources: &[Source], bucket: &str, object: &str) -> Result<Located, NoSource> {
    let source = sources
        .iter()
        .find(|source| source.bucket == bucket && object.starts_with(&source.prefix))
        .ok_or_else(|| NoSource::Unknown {
            bucket: bucket.to_owned(),
        })?;
    if object.len() > MAX_NAME_BYTES {
        return Err(NoSource::Name(format!(
            "it is longer than {MAX_NAME_BYTES} bytes"
        )));
    }
    // No empty and no relative parts: what is read lies below the source.
    let name = Path::parse(object).map_err(|error| NoSource::Name(error.to_string()))?;
    if name.parts().next().is_none() {
        return Err(NoSource::Name("it is empty".to_owned()));
    }
    let mut path = source.root.clone();
    path.extend(name.parts());
    let format = match source.format {
        FormatSetting::Ndjson => Format::Ndjson,
        FormatSetting::Csv => Format::Csv(Arc::clone(&source.columns)),
        FormatSetting::Auto => {
            let plain = object.to_lowercase();
            let plain = plain.strip_suffix(".gz").unwrap_or(&plain);
            match plain.rsplit('.').next() {
                Some("csv") => Format::Csv(Arc::clone(&source.columns)),
                Some("ndjson" | "jsonl" | "json") => Format::Ndjson,
                _ => return Err(NoSource::Format),
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
    fn an_object_is_found_below_its_source_and_nowhere_else() {
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
    fn a_source_that_cannot_work_is_refused_by_its_setting() {
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
        assert!(open(|c| c.url = "ftp://x".into()).starts_with("ingest.sources[0].url: "));
        assert!(open(|c| c.delimiter = Some('€')).starts_with("ingest.sources[0].delimiter: "));
    }
}
