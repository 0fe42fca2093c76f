//! Settings from one TOML file and the environment, parsed once.
//!
//! Each service reads the sections it uses. An error names the setting and, for a misspelt one, the nearest that exists.
//! The environment takes precedence over the file.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use serde::de::DeserializeOwned;
use tollgate_types::{Notation, PlainError};
use toml::{Table, Value};

const SECTIONS: [&str; 8] = [
    "ingest",
    "kafka",
    "notifier",
    "oci",
    "persistence",
    "scorer",
    "telemetry",
    "tls",
];
const PREFIX: &str = "TOLLGATE_";

/// An error in the settings, for the person who wrote them.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read, or is not TOML.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no such setting.
    #[error("{setting}: no such setting{hint}")]
    Unknown {
        /// As it was written.
        setting: String,
        /// The nearest that exists.
        hint: String,
    },
    /// The value of the setting is invalid.
    #[error("{setting}: {reason}")]
    Invalid {
        /// As it was written.
        setting: String,
        /// What is expected.
        reason: String,
    },
}

impl ConfigError {
    /// An invalid value that was found after parsing.
    pub fn invalid(setting: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid {
            setting: setting.into(),
            reason: reason.into(),
        }
    }
}

/// All given settings, not yet typed.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    table: Table,
    /// Dotted paths of the settings that came from the environment.
    from_environment: BTreeSet<String>,
}

impl Settings {
    /// Reads the file, then the environment.
    ///
    /// # Errors
    /// Names the file or the variable that is invalid.
    pub fn load(
        path: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut settings = Self::default();
        if let Some(path) = path {
            let fail = |reason: String| ConfigError::File {
                path: path.display().to_string(),
                reason,
            };
            let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
            settings.table = text
                .parse::<Table>()
                .map_err(|error| fail(toml_error(&text, &error)))?;
        }
        for section in settings.table.keys() {
            known_section(section, section)?;
        }
        for (name, text) in environment {
            if let Some(path) = variable_path(&name)? {
                settings.set(&name, &path, &text)?;
            }
        }
        Ok(settings)
    }

    /// Sets one setting as the environment would: `kafka.brokers`, `127.0.0.1:9092`.
    ///
    /// # Errors
    /// A part of the path is a setting that is not a table.
    pub fn set_path(&mut self, setting: &str, text: &str) -> Result<(), ConfigError> {
        let path: Vec<String> = setting.split('.').map(str::to_owned).collect();
        self.set(setting, &path, text)
    }

    /// Whether the setting was given at all.
    #[must_use]
    pub fn is_set(&self, setting: &str) -> bool {
        let mut parts = setting.split('.');
        let first = parts.next().and_then(|part| self.table.get(part));
        parts
            .try_fold(first, |value, part| value.map(|value| value.get(part)))
            .flatten()
            .is_some()
    }

    fn set(&mut self, name: &str, path: &[String], text: &str) -> Result<(), ConfigError> {
        let Some((last, parents)) = path.split_last() else {
            return Ok(());
        };
        let mut table = &mut self.table;
        for part in parents {
            table = table
                .entry(part.clone())
                .or_insert_with(|| Value::Table(Table::new()))
                .as_table_mut()
                .ok_or_else(|| ConfigError::invalid(name, format!("{part} is not a table")))?;
        }
        table.insert(last.clone(), value_of(name, text)?);
        self.from_environment.insert(path.join("."));
        Ok(())
    }

    /// One section, typed; missing settings take their defaults.
    ///
    /// # Errors
    /// Names the setting that is unknown or invalid.
    pub fn section<T: DeserializeOwned>(&self, name: &str) -> Result<T, ConfigError> {
        let mut section = self
            .table
            .get(name)
            .cloned()
            .unwrap_or_else(|| Value::Table(Table::new()));
        // What was wrong with a value before it was read as text.
        let mut first: Option<(String, String)> = None;
        loop {
            let error = match serde_path_to_error::deserialize::<_, T>(section.clone()) {
                Ok(typed) => return Ok(typed),
                Err(error) => error,
            };
            let path = error.path().to_string();
            // `TOLLGATE_KAFKA__TOPIC_PREFIX=7` may mean the text as well as the number.
            let dotted = format!("{name}.{path}");
            let message = error.into_inner().to_string();
            if self.from_environment.contains(&dotted) && reread_as_text(&mut section, &path) {
                first = Some((path, message));
                continue;
            }
            let message = match first {
                Some((at, before)) if at == path => before,
                _ => message,
            };
            return Err(self.explain(name, &path, &message));
        }
    }

    fn explain(&self, section: &str, path: &str, message: &str) -> ConfigError {
        let full = if path == "." {
            section.to_owned()
        } else {
            format!("{section}.{path}")
        };
        let shown = |setting: &str| {
            let by_environment = self
                .from_environment
                .iter()
                .any(|s| s == setting || s.starts_with(&format!("{setting}.")));
            if by_environment {
                variable_name(setting)
            } else {
                setting.to_owned()
            }
        };
        match PlainError::of(message, Notation::Settings) {
            PlainError::Unknown(unknown, known) => {
                let full = if full.ends_with(unknown) {
                    full
                } else {
                    format!("{full}.{unknown}")
                };
                let parent = full.strip_suffix(&format!(".{unknown}")).unwrap_or(section);
                let hint = nearest(unknown, &known).map(|name| {
                    format!(
                        "; did you mean {}?",
                        in_style_of(&shown(&full), parent, name)
                    )
                });
                ConfigError::Unknown {
                    setting: shown(&full),
                    hint: hint.unwrap_or_default(),
                }
            }
            PlainError::Missing(name) => {
                ConfigError::invalid(shown(&format!("{full}.{name}")), "is missing")
            }
            PlainError::Twice(name) => {
                ConfigError::invalid(shown(&format!("{full}.{name}")), "is given twice")
            }
            PlainError::Value(reason) => ConfigError::invalid(shown(&full), reason),
            PlainError::Other => ConfigError::invalid(shown(&full), in_words(message)),
        }
    }
}

/// Messages of the standard library about texts, in words.
fn in_words(message: &str) -> &str {
    match message.trim() {
        text if text.contains("socket address") => {
            "must be IP:port, such as 127.0.0.1:8080 or [::1]:8080"
        }
        text if text.contains("IP address") => "must be an IP address, such as 127.0.0.1 or ::1",
        text => text,
    }
}

/// What is wrong with a file, and where, without the line itself: it may have a password.
pub(crate) fn toml_error(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map_or(1, |before| before.matches('\n').count() + 1);
    let reason = match PlainError::of(error.message(), Notation::Settings) {
        PlainError::Value(reason) => format!("a value {reason}"),
        PlainError::Missing(name) => format!("{name} is missing"),
        PlainError::Twice(name) => format!("{name} is given twice"),
        PlainError::Unknown(_, known) => format!("there are only {}", known.join(", ")),
        PlainError::Other => without_quotes(error.message()),
    };
    format!("line {line}: {reason}")
}

/// A message about syntax. Of what it quotes only punctuation is kept, such as the bracket that is missing.
fn without_quotes(message: &str) -> String {
    let mut kept = String::new();
    for (index, piece) in message.trim().split('`').enumerate() {
        if index % 2 == 0 {
            // Strings are quoted in other ways.
            kept.push_str(piece.split(['"', '\'']).next().unwrap_or_default());
        } else if piece.chars().count() <= 3 && !piece.contains(char::is_alphanumeric) {
            kept.push('`');
            kept.push_str(piece);
            kept.push('`');
        }
    }
    kept.trim().to_owned()
}

/// The name, in the notation of the wrong one.
fn in_style_of(written: &str, parent: &str, name: &str) -> String {
    let setting = format!("{parent}.{name}");
    if written.starts_with(PREFIX) {
        variable_name(&setting)
    } else {
        setting
    }
}

fn variable_name(setting: &str) -> String {
    format!("{PREFIX}{}", setting.replace('.', "__").to_uppercase())
}

/// The path that an environment variable sets; `None` for a variable that is not a setting.
fn variable_path(name: &str) -> Result<Option<Vec<String>>, ConfigError> {
    let Some(rest) = name.strip_prefix(PREFIX) else {
        return Ok(None);
    };
    // Kubernetes sets TOLLGATE_INGEST_SERVICE_HOST and similar variables in every pod if there is a Service of that name.
    let of_kubernetes =
        !rest.contains("__") && (rest.contains("_SERVICE_") || rest.contains("_PORT"));
    // Read by the command line.
    if ["CONFIG", "API_KEY"].contains(&rest) || of_kubernetes {
        return Ok(None);
    }
    let path: Vec<String> = rest.split("__").map(str::to_lowercase).collect();
    if path.len() < 2 {
        let example = if rest.contains('_') {
            rest.replacen('_', "__", 1)
        } else {
            "KAFKA__BROKERS".to_owned()
        };
        let hint = format!(
            "; a section and its setting are joined by two underscores, as in {PREFIX}{example}"
        );
        return Err(ConfigError::Unknown {
            setting: name.to_owned(),
            hint,
        });
    }
    known_section(name, &path[0])?;
    Ok(Some(path))
}

fn known_section(written: &str, section: &str) -> Result<(), ConfigError> {
    if SECTIONS.contains(&section) {
        return Ok(());
    }
    let hint =
        nearest(section, &SECTIONS).map(|name| format!("; did you mean the section {name}?"));
    let hint = hint.unwrap_or_else(|| format!("; the sections are {}", SECTIONS.join(", ")));
    Err(ConfigError::Unknown {
        setting: written.to_owned(),
        hint,
    })
}

fn nearest<'a>(wrong: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(wrong, name), *name))
        .filter(|(distance, name)| {
            let near = *distance <= name.len().max(wrong.len()) / 2;
            near || name.starts_with(wrong) || wrong.starts_with(name)
        })
        .min()
        .map(|(_, name)| name)
}

/// A variable's text as a value: lists and tables as JSON or TOML, numbers and booleans as such, else the text.
fn value_of(name: &str, text: &str) -> Result<Value, ConfigError> {
    let as_toml = || {
        format!("value = {text}")
            .parse::<Table>()
            .ok()
            .and_then(|mut table| table.remove("value"))
    };
    // An address of IPv6 starts like a list: [::1]:8080
    if text.starts_with(['[', '{']) && text.parse::<SocketAddr>().is_err() {
        return serde_json::from_str::<Value>(text)
            .ok()
            .or_else(as_toml)
            .ok_or_else(|| {
                ConfigError::invalid(
                    name,
                    "starts like a list or a table, but is neither JSON nor TOML",
                )
            });
    }
    Ok(match as_toml() {
        Some(value @ (Value::Integer(_) | Value::Float(_) | Value::Boolean(_))) => value,
        _ => Value::String(text.to_owned()),
    })
}

/// Turns the scalar at `path` into text. False if there is none, or it is text already.
fn reread_as_text(section: &mut Value, path: &str) -> bool {
    let found = path
        .split('.')
        .try_fold(section, |value, part| value.as_table_mut()?.get_mut(part));
    let Some(value) = found else { return false };
    let text = match value {
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(flag) => flag.to_string(),
        _ => return false,
    };
    *value = Value::String(text);
    true
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Kafka {
        brokers: String,
        topic_prefix: String,
        partitions: u16,
        extra: Inner,
        lists: Vec<u8>,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Inner {
        window_seconds: u32,
    }

    fn load(variables: &[(&str, &str)]) -> Result<Kafka, ConfigError> {
        let variables = variables
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        Settings::load(None, variables)?.section("kafka")
    }

    #[test]
    fn every_setting_can_come_from_the_environment() {
        let kafka = load(&[
            ("TOLLGATE_KAFKA__BROKERS", "a:1,b:2"),
            ("TOLLGATE_KAFKA__TOPIC_PREFIX", "7"),
            ("TOLLGATE_KAFKA__PARTITIONS", "3"),
            ("TOLLGATE_KAFKA__EXTRA__WINDOW_SECONDS", "9"),
            ("TOLLGATE_KAFKA__LISTS", "[1, 2]"),
            ("TOLLGATE_INGEST_SERVICE_HOST", "10.0.0.1"),
        ]);
        let expected = Kafka {
            brokers: "a:1,b:2".into(),
            topic_prefix: "7".into(),
            partitions: 3,
            extra: Inner { window_seconds: 9 },
            lists: vec![1, 2],
        };
        assert_eq!(kafka.unwrap(), expected);
    }

    #[test]
    fn a_misspelt_setting_is_refused_with_the_nearest() {
        let message = |variable: &str| load(&[(variable, "x")]).unwrap_err().to_string();
        assert_eq!(
            message("TOLLGATE_KAFKA__BOOKERS"),
            "TOLLGATE_KAFKA__BOOKERS: no such setting; did you mean TOLLGATE_KAFKA__BROKERS?"
        );
        assert!(
            message("TOLLGATE_KAFKA__EXTRA__WINDOW")
                .contains("TOLLGATE_KAFKA__EXTRA__WINDOW_SECONDS")
        );
        assert!(message("TOLLGATE_KAKFA__BROKERS").contains("section kafka"));
        assert!(message("TOLLGATE_KAFKA_BROKERS").contains("TOLLGATE_KAFKA__BROKERS"));
    }

    #[test]
    fn an_invalid_value_is_said_in_words_and_numbers_are_numbers() {
        let message = |setting: &str, text: &str| {
            let variable = format!("TOLLGATE_KAFKA__{setting}");
            let error = load(&[(&variable, text)]).unwrap_err().to_string();
            let prefix = format!("{variable}: ");
            error.strip_prefix(&prefix).unwrap_or(&error).to_owned()
        };
        let port = "must be a whole number from 0 to 65535, not";
        for (setting, text, expected) in [
            ("PARTITIONS", "70000", format!("{port} 70000")),
            ("PARTITIONS", "-1", format!("{port} -1")),
            ("PARTITIONS", "1.5", format!("{port} 1.5")),
            (
                "PARTITIONS",
                "99999999999999999999",
                format!("{port} 99999999999999999999"),
            ),
            ("PARTITIONS", "many", format!("{port} a text")),
            ("PARTITIONS", "[1]", format!("{port} a list")),
            ("EXTRA", "7", "must be a table, not a number".to_owned()),
            ("LISTS", "7", "must be a list, not a number".to_owned()),
            ("BROKERS", "[7]", "must be a text, not a list".to_owned()),
        ] {
            assert_eq!(message(setting, text), expected, "{setting}={text}");
        }
    }

    #[test]
    fn a_file_that_is_no_toml_is_explained_to_the_end_without_its_text() {
        for (text, words) in [
            ("[ingest\nlisten = 1", "`]`"),
            ("[ingest]\nmax_items = 99999999999999999999", "line 2: "),
            ("[ingest]\nkey = hunter2", "line 2: "),
            ("[ingest]\nkey = \"hunter2", "line 2: "),
            (
                "[ingest]\nhunter2 = 1\nhunter2 = 2",
                "line 3: duplicate key",
            ),
        ] {
            let error = text.parse::<Table>().unwrap_err();
            let message = toml_error(text, &error);
            assert!(message.contains(words), "{text}: {message}");
            let whole = message.matches('`').count().is_multiple_of(2);
            let cut_off = ["expected", ",", ":"]
                .iter()
                .any(|end| message.ends_with(end));
            assert!(whole && !cut_off, "{text}: {message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn an_invalid_value_is_named_with_its_setting() {
        let message = load(&[("TOLLGATE_KAFKA__PARTITIONS", "many")])
            .unwrap_err()
            .to_string();
        assert!(
            message.starts_with("TOLLGATE_KAFKA__PARTITIONS: "),
            "{message}"
        );
        let message = load(&[("TOLLGATE_KAFKA__LISTS", "[1,")])
            .unwrap_err()
            .to_string();
        assert!(message.starts_with("TOLLGATE_KAFKA__LISTS: "), "{message}");
    }
}
