//! One metric of a call, and what makes it good: the rules in the documentation of `MetricDataDetails` and `Datapoint`
//! in Oracle's SDKs.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::clock::as_rfc3339;

const MAX_DIMENSIONS: usize = 20;
const MAX_KEY: usize = 256;
const MAX_VALUE: usize = 512;
const MAX_METADATA: usize = 256;
const OLDEST: TimeDelta = TimeDelta::hours(2);
const NEWEST: TimeDelta = TimeDelta::minutes(10);

/// A metric that was accepted.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredMetric {
    /// Application that it is of.
    pub namespace: String,
    /// OCID of its compartment.
    pub compartment_id: String,
    /// Name of the metric.
    pub name: String,
    /// Further group, if any.
    pub resource_group: Option<String>,
    /// Labels that distinguish its streams.
    pub dimensions: BTreeMap<String, String>,
    /// Properties such as the unit.
    pub metadata: BTreeMap<String, String>,
    /// Its values.
    pub datapoints: Vec<Datapoint>,
}

/// A value of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Datapoint {
    /// When it was.
    #[serde(serialize_with = "as_rfc3339")]
    pub timestamp: DateTime<Utc>,
    /// In the unit that the metadata gives.
    pub value: f64,
    /// How often it was.
    pub count: i64,
}

type Map = BTreeMap<String, String>;

/// A metric as it was sent.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MetricDetails {
    namespace: Option<String>,
    compartment_id: Option<String>,
    name: Option<String>,
    resource_group: Option<String>,
    dimensions: Option<Map>,
    metadata: Option<Map>,
    datapoints: Option<Vec<DatapointDetails>>,
}

#[derive(Debug, Deserialize)]
struct DatapointDetails {
    timestamp: Option<String>,
    value: Option<f64>,
    count: Option<i64>,
}

impl MetricDetails {
    /// Labels that distinguish it from other streams.
    pub(super) fn stream(&self) -> impl Eq + std::hash::Hash + use<> {
        let texts = [
            &self.compartment_id,
            &self.namespace,
            &self.resource_group,
            &self.name,
        ];
        (texts.map(Clone::clone), self.dimensions.clone())
    }

    /// # Errors
    /// The first rule that it breaks.
    pub(super) fn check(self, now: DateTime<Utc>) -> Result<StoredMetric, String> {
        let namespace = needed("namespace", self.namespace)?;
        named("namespace", &namespace, "_")?;
        if namespace.starts_with("oci_") || namespace.starts_with("oracle_") {
            return Err(format!(
                "namespace: the prefix of {namespace:?} is reserved"
            ));
        }
        let name = needed("name", self.name)?;
        named("name", &name, "._-$")?;
        if let Some(group) = &self.resource_group {
            named("resourceGroup", group, "._-$")?;
        }
        let compartment_id = needed("compartmentId", self.compartment_id)?;
        if !compartment_id.starts_with("ocid1.") {
            return Err(format!("compartmentId: {compartment_id:?} is not an OCID"));
        }
        let dimensions = needed("dimensions", self.dimensions)?;
        check_dimensions(&dimensions)?;
        let metadata = self.metadata.unwrap_or_default();
        // Of these only the length is documented; an empty string is refused all the same, to be on the safe side.
        for (key, value) in &metadata {
            short("metadata", key, MAX_METADATA)?;
            short("metadata", value, MAX_METADATA)?;
        }
        let datapoints = needed("datapoints", self.datapoints)?;
        if datapoints.is_empty() {
            return Err("datapoints: none".into());
        }
        let datapoints = datapoints.into_iter().map(|point| point.check(now));
        Ok(StoredMetric {
            namespace,
            compartment_id,
            name,
            resource_group: self.resource_group,
            dimensions,
            metadata,
            datapoints: datapoints.collect::<Result<_, _>>()?,
        })
    }
}

impl DatapointDetails {
    fn check(self, now: DateTime<Utc>) -> Result<Datapoint, String> {
        let text = needed("timestamp", self.timestamp)?;
        let timestamp = DateTime::parse_from_rfc3339(&text)
            .map_err(|error| format!("timestamp: {text:?}: {error}"))?
            .to_utc();
        if timestamp <= now - OLDEST {
            return Err(format!("timestamp: {text} is two hours ago or more"));
        }
        if timestamp >= now + NEWEST {
            return Err(format!("timestamp: {text} is ten minutes ahead or more"));
        }
        let count = self.count.unwrap_or(1);
        if count <= 0 {
            return Err(format!("count: {count} is not greater than zero"));
        }
        Ok(Datapoint {
            timestamp,
            value: needed("value", self.value)?,
            count,
        })
    }
}

fn needed<T>(what: &str, value: Option<T>) -> Result<T, String> {
    value.ok_or_else(|| format!("{what}: missing"))
}

/// A letter, then letters, digits and `others`.
fn named(what: &str, text: &str, others: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || others.contains(c);
    if text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(fits) {
        return Ok(());
    }
    Err(format!(
        "{what}: {text:?} is not a letter, then letters, digits or any of {others:?}"
    ))
}

fn check_dimensions(dimensions: &Map) -> Result<(), String> {
    if dimensions.is_empty() || dimensions.len() > MAX_DIMENSIONS {
        let count = dimensions.len();
        return Err(format!("dimensions: {count}, not 1 to {MAX_DIMENSIONS}"));
    }
    for (key, value) in dimensions {
        short("dimensions", key, MAX_KEY)?;
        short("dimensions", value, MAX_VALUE)?;
        if !key.chars().all(|c| c.is_ascii_graphic()) {
            return Err(format!(
                "dimensions: {key:?} is not printable ASCII without spaces"
            ));
        }
    }
    Ok(())
}

/// Limits are in characters.
fn short(what: &str, text: &str, limit: usize) -> Result<(), String> {
    let length = text.chars().count();
    if length == 0 {
        return Err(format!("{what}: an empty string"));
    }
    if length > limit {
        return Err(format!("{what}: {length} characters, {limit} are allowed"));
    }
    Ok(())
}
