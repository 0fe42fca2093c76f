//! Parses the text of `/metrics`, so that exports elsewhere have the same values. Pure.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>, as far as the exporter of this process writes it.

use std::collections::BTreeMap;

/// Labels of a sample, in the order of their names.
pub type Labels = BTreeMap<String, String>;

/// A line of the text.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The name; of a histogram with `_bucket`, `_sum` or `_count`.
    pub name: String,
    /// The labels, unescaped.
    pub labels: Labels,
    /// The value.
    pub value: f64,
}

/// The samples of a text. Other lines are ignored.
pub fn samples(text: &str) -> impl Iterator<Item = Sample> {
    text.lines().filter_map(sample)
}

fn sample(line: &str) -> Option<Sample> {
    if line.starts_with('#') {
        return None;
    }
    let (series, value) = match line.find('{') {
        Some(_) => {
            let end = line.rfind('}')?;
            (&line[..=end], line[end + 1..].trim())
        }
        None => line.split_once(' ')?,
    };
    let (name, labels) = match series.split_once('{') {
        Some((name, rest)) => (name, labels(rest.strip_suffix('}')?)?),
        None => (series, Labels::new()),
    };
    Some(Sample {
        name: name.to_owned(),
        labels,
        value: value.split(' ').next()?.parse().ok()?,
    })
}

/// `a="1",b="say \"2\""`
fn labels(mut text: &str) -> Option<Labels> {
    let mut labels = Labels::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut escaped = false;
        let mut end = None;
        for (at, c) in rest.char_indices() {
            let was_escaped = std::mem::take(&mut escaped);
            match (was_escaped, c) {
                (false, '\\') => escaped = true,
                (false, '"') => {
                    end = Some(at);
                    break;
                }
                (true, 'n') => value.push('\n'),
                (_, other) => value.push(other),
            }
        }
        labels.insert(name.trim_start_matches(',').to_owned(), value);
        text = &rest[end? + 1..];
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_their_labels_and_nothing_else_is() {
        let text = "# TYPE a_total counter\na_total{status=\"blocked\"} 7\n\nb 1.5\nc{x=\"a\\\"b,}\\\\\",y=\"2\"} +Inf\nnonsense\n";
        let found: Vec<Sample> = samples(text).collect();
        let expected = |name: &str, labels: &[(&str, &str)], value| Sample {
            name: name.to_owned(),
            labels: labels
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            value,
        };
        assert_eq!(
            found,
            [
                expected("a_total", &[("status", "blocked")], 7.0),
                expected("b", &[], 1.5),
                expected("c", &[("x", "a\"b,}\\"), ("y", "2")], f64::INFINITY),
            ]
        );
    }
}
