//! From the header of CSV to the member of each column.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::RowsError;

/// Members without which no row can be a transaction.
const REQUIRED: [&str; 4] = ["transaction_id", "user_id", "amount", "timestamp"];
/// Members of the location.
pub(super) const COORDINATES: [&str; 2] = ["latitude", "longitude"];

/// The most columns of an object.
const MAX_COLUMNS: usize = 1_024;
/// The most bytes of all names of columns together: each row has them in its JSON, and each dead letter has them too.
const MAX_NAMES_BYTES: usize = 32 * 1024;
/// The most names that a message lists, and the most characters of each.
const LISTED: (usize, usize) = (20, 40);

/// The names of the columns.
///
/// # Errors
/// There are too many, or they are too long.
pub(super) fn bounded(names: &[String]) -> Result<(), RowsError> {
    let found = names.len();
    if found > MAX_COLUMNS {
        return Err(RowsError::Unusable(format!(
            "the header has {found} columns; at most {MAX_COLUMNS} columns are read"
        )));
    }
    // As they stand in the JSON of each row, without the separators.
    let escaped = |name: &String| {
        Value::from(name.as_str())
            .to_string()
            .len()
            .saturating_sub(2)
    };
    if names.iter().map(escaped).sum::<usize>() > MAX_NAMES_BYTES {
        return Err(RowsError::Unusable(format!(
            "the names of the columns are longer than {MAX_NAMES_BYTES} bytes"
        )));
    }
    Ok(())
}

/// The member of each column. A column that is not mapped has the name of its member; one without a name, and a
/// repetition of one that nobody maps, has none and is not read.
///
/// # Errors
/// A member that must be there, or is in `columns`, has no column, or two.
pub(super) fn members(
    names: &[String],
    columns: &BTreeMap<String, String>,
) -> Result<Vec<Option<String>>, String> {
    let mapped = |name: &String| {
        let mut columns = columns.iter();
        columns.find_map(|(member, column)| (column == name).then(|| member.clone()))
    };
    let mut members: Vec<Option<String>> = Vec::with_capacity(names.len());
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (index, name) in names.iter().enumerate() {
        let (member, is_mapped) = match mapped(name) {
            Some(member) => (member, true),
            None if name.is_empty() => {
                members.push(None);
                continue;
            }
            None => (name.clone(), false),
        };
        match seen.get(&member) {
            None => {
                seen.insert(member.clone(), index);
                members.push(Some(member));
            }
            Some(_) if !is_mapped && !matters(&member, columns) => members.push(None),
            Some(first) => {
                return Err(format!(
                    "the columns {} and {name} both map to {member}: columns {} and {} of {}; see ingest.sources[].columns",
                    names[*first],
                    first + 1,
                    index + 1,
                    listed(names)
                ));
            }
        }
    }
    // A column that the settings name and that is missing would be a member that no rule sees.
    let named = columns.keys().map(String::as_str);
    for member in REQUIRED.into_iter().chain(named) {
        if !seen.contains_key(member) {
            let column = columns.get(member).map_or(member, String::as_str);
            return Err(format!(
                "the header has no column {column} for the member {member}; it has {}. See ingest.sources[].columns",
                listed(names)
            ));
        }
    }
    Ok(members)
}

/// Whether it must be clear which column a member is read from.
fn matters(member: &str, columns: &BTreeMap<String, String>) -> bool {
    REQUIRED.contains(&member) || COORDINATES.contains(&member) || columns.contains_key(member)
}

/// The names as a message shows them.
pub(super) fn listed(names: &[String]) -> String {
    let (most, width) = LISTED;
    let shown: Vec<String> = names
        .iter()
        .take(most)
        .map(|name| {
            let short: String = name.chars().take(width).collect();
            format!("{short:?}")
        })
        .collect();
    match names.len().saturating_sub(most) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Which other delimiter the line of the header seems to have, if any.
pub(super) fn other_delimiter(line: &[u8], delimiter: u8) -> Option<&'static str> {
    let count = |wanted: u8| line.iter().filter(|byte| **byte == wanted).count();
    let own = count(delimiter);
    [
        (b';', "\";\""),
        (b'\t', "\"\\t\""),
        (b',', "\",\""),
        (b'|', "\"|\""),
    ]
    .into_iter()
    .filter(|(other, _)| *other != delimiter)
    .filter(|(other, _)| count(*other) >= REQUIRED.len() - 1 && count(*other) > own)
    .max_by_key(|(other, _)| count(*other))
    .map(|(_, written)| written)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn columns_without_a_name_and_repetitions_of_unmapped_ones_are_not_read() {
        let found = members(
            &names("transaction_id,user_id,amount,timestamp,,note,,note"),
            &BTreeMap::new(),
        )
        .unwrap();
        let expected = [
            Some("transaction_id"),
            Some("user_id"),
            Some("amount"),
            Some("timestamp"),
            None,
            Some("note"),
            None,
            None,
        ];
        assert_eq!(
            found.iter().map(Option::as_deref).collect::<Vec<_>>(),
            expected
        );
    }

    #[test]
    fn a_member_that_matters_has_one_column_and_the_message_lists_the_header() {
        let columns = BTreeMap::from([("memo".to_owned(), "Text".to_owned())]);
        for header in [
            "transaction_id,user_id,amount,timestamp,amount",
            "transaction_id,user_id,amount,timestamp,latitude,latitude",
            "transaction_id,user_id,amount,timestamp,Text,Text",
        ] {
            let error = members(&names(header), &columns).unwrap_err();
            assert!(error.contains("both map to"), "{error}");
            assert!(error.contains("\"transaction_id\", \"user_id\""), "{error}");
        }
        let error = members(&names("id,user_id,amount,timestamp"), &columns).unwrap_err();
        assert!(
            error.contains("no column transaction_id") && error.contains("\"id\", \"user_id\""),
            "{error}"
        );
        // Not only of the required members, and in the case in which it is written.
        let header = names("transaction_id,user_id,amount,timestamp,text");
        let error = members(&header, &columns).unwrap_err();
        assert!(
            error.contains("no column Text for the member memo"),
            "{error}"
        );
    }

    #[test]
    fn the_delimiter_that_the_header_seems_to_have_is_named() {
        assert_eq!(other_delimiter(b"a;b;c;d", b','), Some("\";\""));
        assert_eq!(other_delimiter(b"a\tb\tc\td", b','), Some("\"\\t\""));
        assert_eq!(other_delimiter(b"a,b,c,d", b';'), Some("\",\""));
        assert_eq!(other_delimiter(b"a,b,c,d", b','), None);
        assert_eq!(other_delimiter(b"a;b", b','), None);
    }
}
