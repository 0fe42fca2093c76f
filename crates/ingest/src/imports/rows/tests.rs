//! Rows of CSV and NDJSON objects, compressed or not.

use std::collections::BTreeMap;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn csv(columns: &[(&str, &str)]) -> Format {
    let columns = columns
        .iter()
        .map(|(member, column)| ((*member).to_owned(), (*column).to_owned()));
    let dialect = Dialect::new(columns.collect(), None, 0, ValueForms::default());
    Format::Csv(Arc::new(dialect.unwrap()))
}

pub(super) const INFLATION: InflationLimits = InflationLimits {
    ratio: 100,
    max_bytes: 1 << 40,
};

fn all(format: &Format, bytes: &[u8]) -> Result<Vec<Row>, RowsError> {
    let mut rows = Rows::open(format, bytes, 200, INFLATION)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(row);
    }
    Ok(found)
}

fn texts(rows: &[Row]) -> Vec<(u64, String)> {
    rows.iter()
        .map(|row| (row.line, String::from_utf8(row.text.clone()).unwrap()))
        .collect()
}

const CSV: &str = "\u{feff}Txn,user_id,Amt,timestamp,Lat,longitude,note\r\nt1,u,10.50,2026-01-01,52.5,13.4,\"a, \"\"b\"\"\nc\"\r\n\r\nt2,u,1,2026-01-01,,,\r\nt3,u,1\r\n";

#[test]
fn columns_become_members_with_the_names_of_the_mapping() {
    let format = csv(&[
        ("transaction_id", "Txn"),
        ("amount", "Amt"),
        ("latitude", "Lat"),
    ]);
    let rows = all(&format, CSV.as_bytes()).unwrap();
    let found: Vec<Value> = rows
        .iter()
        .map(|row| serde_json::from_slice(&row.text).unwrap())
        .collect();
    let expected = serde_json::json!({
        "transaction_id": "t1", "user_id": "u", "amount": "10.50", "timestamp": "2026-01-01",
        "location": {"latitude": 52.5, "longitude": 13.4}, "note": "a, \"b\"\nc",
    });
    assert_eq!(found[0], expected);
    assert_eq!(found[1].get("location"), None);
    let lines: Vec<u64> = rows.iter().map(|row| row.line).collect();
    assert_eq!(lines, [2, 5, 6]);
    assert_eq!(
        rows[2].wrong.as_deref(),
        Some("has 3 fields, but the header has 7")
    );
}

#[test]
fn a_header_without_a_required_column_is_an_error_that_names_it() {
    let error = all(
        &csv(&[("amount", "Amt")]),
        b"transaction_id,user_id,timestamp\n",
    )
    .unwrap_err()
    .to_string();
    assert!(
        error.contains("no column Amt for the member amount"),
        "{error}"
    );
}

#[test]
fn lines_keep_their_numbers_and_a_line_that_is_too_long_does_not_affect_the_others() {
    let text = format!("{{\"a\":1}}\n\n{}\n{{\"b\":2}}", "x".repeat(500));
    let rows = all(&Format::Ndjson, text.as_bytes()).unwrap();
    let lines: Vec<u64> = rows.iter().map(|row| row.line).collect();
    assert_eq!(lines, [1, 3, 4]);
    assert_eq!((rows[1].text.len(), rows[1].wrong.is_some()), (200, true));
    assert_eq!(rows[2].text, b"{\"b\":2}");
}

#[test]
fn a_quotation_mark_that_is_not_closed_fails_the_object_with_bounded_memory() {
    let text = format!(
        "transaction_id,user_id,amount,timestamp\n\"{}",
        "x".repeat(200_000)
    );
    assert!(matches!(
        all(&csv(&[]), text.as_bytes()),
        Err(RowsError::Unusable(_))
    ));
}

#[test]
fn a_quotation_mark_that_is_not_closed_never_reads_rows_into_a_field() {
    let header = "transaction_id,user_id,amount,timestamp,note\n";
    for stray in [vec![50], vec![20, 70]] {
        let rows: String = (0..100)
            .map(|row| {
                format!(
                    "t{row},u,1,2026-01-01,{}\n",
                    if stray.contains(&row) {
                        "\"12 inch"
                    } else {
                        "x"
                    }
                )
            })
            .collect();
        let found = all(&csv(&[]), format!("{header}{rows}").as_bytes());
        assert!(matches!(found, Err(RowsError::Unusable(_))), "{found:?}");
    }
}

#[test]
fn a_truncated_object_is_damaged_and_not_read_again() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(CSV.repeat(100).as_bytes()).unwrap();
    let packed = encoder.finish().unwrap();
    let cut = all(&Format::Ndjson, &packed[..packed.len() / 2]);
    assert!(matches!(cut, Err(RowsError::Unusable(_))), "{cut:?}");
}

#[test]
fn two_columns_for_one_member_are_an_error_that_names_them() {
    let format = csv(&[("amount", "amount_usd")]);
    let header = b"transaction_id,user_id,amount,amount_usd,timestamp\n";
    let error = all(&format, header).unwrap_err().to_string();
    assert!(
        error.contains("amount and amount_usd both map to amount"),
        "{error}"
    );
}

/// A bomb of 100 kB and more was read to its end, and each of its rows was a dead letter.
#[test]
fn an_object_that_grows_a_hundredfold_when_it_is_decompressed_is_read_no_further() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let line = format!("{}\n", "0".repeat(99)).repeat(1_000);
    for _ in 0..400 {
        encoder.write_all(line.as_bytes()).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    let mut rows = Rows::open(&Format::Ndjson, &*bomb, 200, INFLATION).unwrap();
    let mut read = 0;
    let error = loop {
        match rows.next() {
            Ok(row) => read += row.unwrap().text.len(),
            Err(error) => break error,
        }
    };
    assert!(read <= 16 * 1024 * 1024 + 64 * 1024, "{read}");
    assert!(matches!(error, RowsError::Unusable(_)));
    assert!(
        error.to_string().contains("ingest.import_max_inflation"),
        "{error}"
    );
    let limits = InflationLimits {
        ratio: 10_000,
        max_bytes: 1_000_000,
    };
    let mut rows = Rows::open(&Format::Ndjson, &*bomb, 200, limits).unwrap();
    let error = std::iter::repeat_with(|| rows.next())
        .find_map(Result::err)
        .unwrap();
    assert!(
        error
            .to_string()
            .contains("ingest.import_max_inflated_bytes"),
        "{error}"
    );
}

#[test]
fn a_header_of_too_many_or_too_long_columns_is_an_error() {
    let header = |columns: usize, width: usize| {
        let more = (0..columns).map(|n| format!(",{n:0>width$}"));
        format!(
            "transaction_id,user_id,amount,timestamp{}\n",
            more.collect::<String>()
        )
    };
    let open = |header: String| {
        CsvRows::open(
            Box::new(io::Cursor::new(header)),
            &Dialect::new(BTreeMap::new(), None, 0, ValueForms::default()).unwrap(),
            1 << 20,
        )
    };
    assert!(open(header(1_020, 1)).is_ok());
    for (wrong, reason) in [
        (header(60_000, 1), "1024 columns"),
        (header(1_000, 100), "names"),
    ] {
        let error = open(wrong).err().unwrap().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

proptest! {
    #[test]
    fn a_compressed_object_has_the_same_rows(lines in prop::collection::vec("[a-z{}\" ]{0,40}", 0..30)) {
        let plain = lines.join("\n");
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain.as_bytes()).unwrap();
        let packed = encoder.finish().unwrap();
        let rows = all(&Format::Ndjson, plain.as_bytes()).unwrap();
        prop_assert_eq!(texts(&rows), texts(&all(&Format::Ndjson, &packed).unwrap()));
    }

    #[test]
    fn no_object_causes_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), as_csv: bool, header: bool) {
        let format = if as_csv { csv(&[]) } else { Format::Ndjson };
        let mut object = Vec::new();
        if header {
            object.extend_from_slice(b"transaction_id,user_id,amount,timestamp\n");
        }
        object.extend_from_slice(&bytes);
        let _ = all(&format, &object);
    }
}
