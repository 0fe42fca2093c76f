//! How the writer of CSV objects writes them: settings of a source, and what a dead letter keeps of them.

use std::collections::BTreeMap;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};
use serde::{Deserialize, Serialize};

use super::numbers;
use super::times::{TimeForm, TimeFormError};

/// The forms of the values of CSV.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ValueForms {
    /// What stands before decimals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) decimal: Option<char>,
    /// What stands between groups of digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) grouping: Option<char>,
    /// Of strftime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timestamp_format: Option<String>,
    /// Of times without an offset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) time_zone: Option<String>,
    /// Of the text: a label of the Encoding Standard (WHATWG).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) encoding: Option<String>,
}

/// A setting of a source that cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct WrongSetting {
    /// The setting, below `ingest.sources[]`.
    pub(crate) name: &'static str,
    /// What it must be.
    pub(crate) reason: &'static str,
}

/// Valid [`ValueForms`], ready for use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Values {
    pub(super) forms: ValueForms,
    pub(super) times: TimeForm,
    pub(super) encoding: &'static Encoding,
}

impl Values {
    /// # Errors
    /// Names the setting at fault.
    pub(super) fn new(forms: ValueForms, delimiter: Option<u8>) -> Result<Self, WrongSetting> {
        let wrong = |name, reason| Err(WrongSetting { name, reason });
        if !matches!(forms.decimal, None | Some('.' | ',')) {
            return wrong("decimal", "must be \".\" or \",\"");
        }
        if let Some(grouping) = forms.grouping {
            if !numbers::is_grouping(grouping) {
                return wrong("grouping", "must be \".\", \",\", \"'\", \" \" or \"_\"");
            }
            if forms.decimal.is_none() {
                return wrong("decimal", "must be set with grouping");
            }
            if forms.decimal == Some(grouping) {
                return wrong("grouping", "must be another character than decimal");
            }
        }
        let (format, zone) = (&forms.timestamp_format, &forms.time_zone);
        let times = match TimeForm::new(format.as_deref(), zone.as_deref()) {
            Ok(times) => times,
            Err(TimeFormError::Format(reason)) => return wrong("timestamp_format", reason),
            Err(TimeFormError::Zone(reason)) => return wrong("time_zone", reason),
        };
        let encoding = match &forms.encoding {
            None => UTF_8,
            Some(label) => match Encoding::for_label(label.as_bytes()) {
                Some(encoding) => encoding,
                None => {
                    return wrong(
                        "encoding",
                        "must be an encoding such as utf-8, windows-1252, iso-8859-15 or utf-16le",
                    );
                }
            },
        };
        let is_utf_16 = encoding == UTF_16LE || encoding == UTF_16BE;
        if !encoding.is_ascii_compatible() && !is_utf_16 {
            return wrong("encoding", "is none in which delimiters can be found");
        }
        // In these, a byte from 0x40 on may be the second half of a letter.
        let is_multibyte = !encoding.is_single_byte() && encoding != UTF_8 && !is_utf_16;
        if is_multibyte && delimiter.is_some_and(|delimiter| delimiter >= 0x30) {
            return wrong("delimiter", "may be a part of a letter in this encoding");
        }
        Ok(Self {
            forms,
            times,
            encoding,
        })
    }
}

/// How the CSV objects of a source are written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dialect {
    /// Where it is set; otherwise that of a line `sep=`, or a comma.
    pub(super) delimiter: Option<u8>,
    /// Lines before the header.
    pub(super) skip_lines: u32,
    /// The column of each member that is not named as its column.
    pub(super) columns: BTreeMap<String, String>,
    pub(super) values: Values,
}

impl Dialect {
    /// # Errors
    /// Names the setting at fault.
    pub(crate) fn new(
        columns: BTreeMap<String, String>,
        delimiter: Option<char>,
        skip_lines: u32,
        forms: ValueForms,
    ) -> Result<Self, WrongSetting> {
        let wrong = |name, reason| Err(WrongSetting { name, reason });
        let delimiter = match delimiter.map(u8::try_from) {
            None => None,
            Some(Ok(byte)) if byte.is_ascii() && !b"\"\r\n\0".contains(&byte) => Some(byte),
            Some(_) => return wrong("delimiter", "must be one ASCII character"),
        };
        if columns.values().any(String::is_empty) {
            return wrong("columns", "must name a column for each member");
        }
        Ok(Self {
            values: Values::new(forms, delimiter)?,
            delimiter,
            skip_lines,
            columns,
        })
    }

    /// The encoding of the setting.
    pub(super) const fn encoding(&self) -> &'static Encoding {
        self.values.encoding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_contradict_each_other_are_refused_by_name() {
        let refused = |delimiter: Option<char>, change: fn(&mut ValueForms)| {
            let mut forms = ValueForms::default();
            change(&mut forms);
            let dialect = Dialect::new(BTreeMap::new(), delimiter, 0, forms);
            dialect.unwrap_err().name
        };
        assert_eq!(refused(None, |f| f.decimal = Some(';')), "decimal");
        assert_eq!(refused(None, |f| f.grouping = Some('.')), "decimal");
        let same = |f: &mut ValueForms| (f.decimal, f.grouping) = (Some('.'), Some('.'));
        assert_eq!(refused(None, same), "grouping");
        let unknown = |f: &mut ValueForms| (f.decimal, f.grouping) = (Some('.'), Some('x'));
        assert_eq!(refused(None, unknown), "grouping");
        let format = |f: &mut ValueForms| f.timestamp_format = Some("%d.%m.%Y".into());
        assert_eq!(refused(None, format), "time_zone");
        let time = |f: &mut ValueForms| f.timestamp_format = Some("%H:%M".into());
        assert_eq!(refused(None, time), "timestamp_format");
        for label in ["latin-99", "iso-2022-jp", "replacement"] {
            let forms = ValueForms {
                encoding: Some(label.into()),
                ..ValueForms::default()
            };
            let dialect = Dialect::new(BTreeMap::new(), None, 0, forms);
            assert_eq!(dialect.unwrap_err().name, "encoding", "{label}");
        }
        let shift_jis = |f: &mut ValueForms| f.encoding = Some("shift_jis".into());
        assert_eq!(refused(Some('|'), shift_jis), "delimiter");
        assert_eq!(refused(Some('€'), |_| ()), "delimiter");
    }
}
