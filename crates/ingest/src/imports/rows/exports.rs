//! What banks, payment providers and spreadsheets export, and what is made of it.

use encoding_rs::{Encoding, UTF_8, UTF_16LE};
use proptest::prelude::*;
use serde_json::Value;

use super::tests::INFLATION;
use super::*;
use crate::sent::{Payload, PayloadFormat, SentTransaction, read_again};
use tollgate_types::{Transaction, UserIdCase};

/// Settings of a source.
#[derive(Debug, Clone, Default)]
struct Settings {
    columns: &'static [(&'static str, &'static str)],
    delimiter: Option<char>,
    skip_lines: u32,
    forms: ValueForms,
}

/// The rows that were read, and why no more were.
fn read(settings: &Settings, object: &[u8]) -> (Vec<Row>, Option<String>) {
    let columns = settings.columns.iter();
    let columns = columns.map(|(member, column)| ((*member).to_owned(), (*column).to_owned()));
    let (delimiter, skip) = (settings.delimiter, settings.skip_lines);
    let dialect = Dialect::new(columns.collect(), delimiter, skip, settings.forms.clone());
    let format = Format::Csv(Arc::new(dialect.unwrap()));
    let mut found = Vec::new();
    let mut rows = match Rows::open(&format, object, 4_096, INFLATION) {
        Ok(rows) => rows,
        Err(error) => return (found, Some(error.to_string())),
    };
    loop {
        match rows.next() {
            Ok(Some(row)) => found.push(row),
            Ok(None) => return (found, None),
            Err(error) => return (found, Some(error.to_string())),
        }
    }
}

fn failed(settings: &Settings, object: &[u8]) -> String {
    let (rows, error) = read(settings, object);
    assert_eq!(rows, [], "rows were read before the import ended");
    error.unwrap()
}

fn amounts(rows: &[Row]) -> Vec<String> {
    rows.iter()
        .map(|row| match &row.wrong {
            Some(reason) => reason.split(':').next().unwrap_or_default().to_owned(),
            None => Transaction::parse(&row.text).unwrap().amount.to_string(),
        })
        .collect()
}

const GERMAN: &str = "\u{feff}Txn;Kunde;Betrag;Datum;Text\r\n\
    \"c02-1\";\"u-c02\";\"1.234,56\";\"2026-03-01T10:00:00Z\";\"Miete\"\r\n\
    \"c02-2\";\"u-c02\";\"12,50\";\"2026-03-01T10:01:00Z\";\"Miete\"\r\n\
    \"c02-3\";\"u-c02\";\"1.500\";\"2026-03-01T10:02:00Z\";\"Miete\"\r\n\
    \"c02-4\";\"u-c02\";\"25.000\";\"2026-03-01T10:03:00Z\";\"Miete\"\r\n\
    \"c02-5\";\"u-c02\";\"1'500.00\";\"2026-03-01T10:04:00Z\";\"Miete\"\r\n\
    \"c02-6\";\"u-c02\";\"49,90 EUR\";\"2026-03-01T10:05:00Z\";\"Miete\"\r\n";

fn german() -> Settings {
    Settings {
        columns: &[
            ("transaction_id", "Txn"),
            ("user_id", "Kunde"),
            ("amount", "Betrag"),
            ("timestamp", "Datum"),
        ],
        delimiter: Some(';'),
        ..Settings::default()
    }
}

fn numbers(decimal: char, grouping: Option<char>) -> ValueForms {
    ValueForms {
        decimal: Some(decimal),
        grouping,
        ..ValueForms::default()
    }
}

/// `1.500` was a payment of 1.5, beside rows with `1.234,56` that were refused.
#[test]
fn a_german_export_is_read_with_its_settings_and_ends_without_them() {
    let with = Settings {
        forms: numbers(',', Some('.')),
        ..german()
    };
    let (rows, error) = read(&with, GERMAN.as_bytes());
    assert_eq!(error, None);
    assert_eq!(
        amounts(&rows),
        ["1234.56", "12.5", "1500", "25000", "amount", "amount"]
    );
    let error = failed(&german(), GERMAN.as_bytes());
    assert!(
        error.contains("decimal = \",\" and grouping = \".\"") && error.contains("Betrag"),
        "{error}"
    );
    // Whichever row comes first.
    let mut lines: Vec<&str> = GERMAN.lines().collect();
    lines[1..].reverse();
    let error = failed(&german(), lines.join("\n").as_bytes());
    assert!(error.contains("ingest.sources[].decimal"), "{error}");
}

fn table(amounts: &[&str]) -> String {
    let rows = amounts.iter().enumerate();
    let rows = rows.map(|(row, amount)| format!("t{row},u,2026-03-01T10:00:00Z,\"{amount}\"\n"));
    let header = "transaction_id,user_id,timestamp,amount\n".to_owned();
    header + &rows.collect::<String>()
}

#[test]
fn an_amount_with_two_readings_is_read_only_if_another_row_decides() {
    let none = Settings::default();
    for undecided in [&["1.500"][..], &["1.500", "7"], &["2", "10.000", "x"]] {
        let error = failed(&none, table(undecided).as_bytes());
        assert!(error.contains("no other row decides"), "{error}");
    }
    for decided in [
        &["1.500", "12.50"][..],
        &["12.5", "1.500"],
        &["1.500", "1234.500"],
    ] {
        let (rows, error) = read(&none, table(decided).as_bytes());
        assert_eq!((rows.len(), error), (2, None));
    }
    for mixed in [
        &["1.500", "12.50", "12,50"][..],
        &["12.50", "1.500", "1.234.567"],
        &["12.50", "1,500"],
        &["12.50", "1 234.50"],
    ] {
        let error = failed(&none, table(mixed).as_bytes());
        assert!(
            error.contains("mixes forms") && error.contains("ingest.sources[].decimal"),
            "{error}"
        );
    }
    let point = Settings {
        forms: numbers('.', None),
        ..Settings::default()
    };
    let (rows, _) = read(&point, table(&["1.500", "12,50", "1,500"]).as_bytes());
    assert_eq!(amounts(&rows), ["1.5", "amount", "amount"]);
}

/// The rows of another form stand far behind the first one.
#[test]
fn a_row_is_returned_only_after_a_mebibyte_of_amounts_behind_it_was_looked_at() {
    let mut amounts = vec!["12.50"; 10_000];
    amounts.extend(["1.500", "1.234,56"]);
    let error = failed(&Settings::default(), table(&amounts).as_bytes());
    assert!(error.contains("line 10003"), "{error}");
}

#[test]
fn columns_without_names_are_not_read() {
    let object = "transaction_id,user_id,amount,timestamp,,\nc04-1,u,12.50,2026-03-01T10:00:00Z,,\nc04-2,u,13.50,2026-03-01T10:01:00Z,,\n";
    let (rows, error) = read(&Settings::default(), object.as_bytes());
    assert_eq!(error, None);
    assert_eq!(amounts(&rows), ["12.5", "13.5"]);
}

#[test]
fn a_line_below_the_table_is_one_rejected_row() {
    let object = "transaction_id,user_id,amount,timestamp,memo\r\nc07-1,u,12.50,2026-03-01T10:00:00Z,x\r\n***END OF FILE***\r\n,,\"12,50\",,\r\n,,,,\r\n";
    let (rows, error) = read(&Settings::default(), object.as_bytes());
    assert_eq!(error, None);
    assert_eq!(rows.len(), 3);
    assert_eq!(
        amounts(&rows[..2]),
        ["12.5", "has 1 fields, but the header has 5"]
    );
    assert!(Transaction::parse(&rows[2].text).is_err());
}

#[test]
fn a_row_may_end_with_a_delimiter_and_nothing_behind_it() {
    let object = "transaction_id,user_id,timestamp,amount\nt,u,2026-03-01T10:00:00Z,1.5,\nt,u,2026-03-01T10:00:00Z,1,560.00\n";
    let (rows, _) = read(&Settings::default(), object.as_bytes());
    assert_eq!(
        amounts(&rows),
        ["1.5", "has 5 fields, but the header has 4"]
    );
}

#[test]
fn an_encoding_is_read_with_its_setting_and_kept_as_it_was_without() {
    let object = b"transaction_id,user_id,amount,timestamp,memo\r\nc08-1,u,12.50,2026-03-01T10:00:00Z,M\xfcller\r\nc08-2,u,13.50,2026-03-01T10:01:00Z,plain\r\n";
    let (rows, _) = read(&Settings::default(), object);
    let reason = rows[0].wrong.as_deref().unwrap();
    assert!(
        reason.contains("memo: is not UTF-8") && reason.contains("encoding"),
        "{reason}"
    );
    let sent = rows[0].sent.as_deref().unwrap();
    assert_eq!(sent, b"c08-1,u,12.50,2026-03-01T10:00:00Z,M\xfcller");
    assert_eq!(rows[1].wrong, None);
    let latin = Settings {
        forms: ValueForms {
            encoding: Some("windows-1252".into()),
            ..ValueForms::default()
        },
        ..Settings::default()
    };
    let (rows, _) = read(&latin, object);
    let first: Value = serde_json::from_slice(&rows[0].text).unwrap();
    assert_eq!(first["memo"], "Müller");
    let header = b"transaction_id,user_id,amount,timestamp,B\xfccher\n";
    let error = failed(&Settings::default(), header);
    assert!(error.contains("ingest.sources[].encoding"), "{error}");
}

/// Excel's "Unicode text": UTF-16 with a byte order mark, and tabs.
#[test]
fn utf_16_is_read_by_its_byte_order_mark() {
    let text = table(&["12.50"]).replace(',', "\t");
    let utf_16: Vec<u8> = "\u{feff}"
        .encode_utf16()
        .chain(text.encode_utf16())
        .flat_map(u16::to_le_bytes)
        .collect();
    let tabs = Settings {
        delimiter: Some('\t'),
        ..Settings::default()
    };
    let (rows, error) = read(&tabs, &utf_16);
    assert_eq!((amounts(&rows), error), (vec!["12.5".to_owned()], None));
    let error = failed(&tabs, &utf_16[2..]);
    assert!(error.contains("utf-16le"), "{error}");
}

#[test]
fn the_rows_before_a_broken_one_are_read_and_the_reason_names_line_and_kind() {
    let object = "transaction_id,user_id,amount,timestamp,memo\r\nc10-1,u,12.50,2026-03-01T10:00:00Z,ok\r\nc10-2,u,13.50,2026-03-01T10:01:00Z,\"Pizza 12\\\" Salami\"\r\nc10-3,u,14.50,2026-03-01T10:02:00Z,ok\r\n";
    let (rows, error) = read(&Settings::default(), object.as_bytes());
    assert_eq!(amounts(&rows), ["12.5"]);
    let error = error.unwrap();
    assert!(
        error.contains("in line 3") && error.contains("backslash"),
        "{error}"
    );
}

#[test]
fn line_breaks_are_read_in_quotation_marks_and_lines_may_end_in_cr() {
    let object = "transaction_id,user_id,amount,timestamp,memo\r\nc11-1,u,12.50,2026-03-01T10:00:00Z,\"line one\r\nline two\"\r\nc11-2,u,bad,2026-03-01T10:01:00Z,\"after\"\r\n";
    let (rows, _) = read(&Settings::default(), object.as_bytes());
    let first: Value = serde_json::from_slice(&rows[0].text).unwrap();
    assert_eq!(first["memo"], "line one\r\nline two");
    assert_eq!(rows[1].line, 4);
    let cr = table(&["12.50", "1.5"]).replace('\n', "\r");
    let (rows, error) = read(&Settings::default(), cr.as_bytes());
    assert_eq!(error, None);
    assert_eq!(amounts(&rows), ["12.5", "1.5"]);
}

#[test]
fn lines_before_the_header_are_skipped_and_a_wrong_delimiter_or_header_is_named() {
    let preamble = format!("Account;123\nFrom;To\n\n{}", table(&["1.5"]));
    let error = failed(&Settings::default(), preamble.as_bytes());
    assert!(
        error.contains("skip_lines = 3") && error.contains("Account;123"),
        "{error}"
    );
    let skip = Settings {
        skip_lines: 3,
        ..Settings::default()
    };
    let (rows, _) = read(&skip, preamble.as_bytes());
    assert_eq!((amounts(&rows), rows[0].line), (vec!["1.5".to_owned()], 5));

    let semicolons =
        "\"transaction_id\";\"user_id\";\"amount\";\"timestamp\"\nt;u;1.5;2026-03-01T10:00:00Z\n";
    let error = failed(&Settings::default(), semicolons.as_bytes());
    assert!(error.contains("delimiter = \";\""), "{error}");
    for line in ["sep=;\r\n", "\"sep=;\"\n", "SEP=;\n"] {
        let (rows, error) = read(
            &Settings::default(),
            format!("{line}{semicolons}").as_bytes(),
        );
        assert_eq!((amounts(&rows), error), (vec!["1.5".to_owned()], None));
    }
    let pipe = Settings {
        delimiter: Some('|'),
        ..Settings::default()
    };
    let error = failed(&pipe, format!("sep=;\n{semicolons}").as_bytes());
    assert!(error.contains("ingest.sources[].delimiter"), "{error}");
}

/// A way to write a table.
#[derive(Debug, Clone)]
struct Written {
    delimiter: u8,
    decimal: char,
    grouping: Option<char>,
    encoding: &'static Encoding,
    byte_order_mark: bool,
    line_end: &'static str,
    quoted: bool,
    sep: bool,
    skip_lines: u32,
    time: (Option<&'static str>, Option<&'static str>),
}

fn written() -> impl Strategy<Value = Written> {
    let encodings = ["utf-8", "windows-1252", "iso-8859-15", "utf-16le"];
    let times = [
        (None, None),
        (Some("%d.%m.%Y %H:%M:%S"), Some("+01:00")),
        (Some("%m/%d/%Y %I:%M:%S %p"), Some("America/New_York")),
        (Some("%Y-%m-%dT%H:%M:%S%z"), None),
        (Some("%s"), None),
    ];
    let numbers = [
        ('.', None),
        (',', None),
        (',', Some('.')),
        ('.', Some(',')),
        (',', Some(' ')),
        ('.', Some('\'')),
    ];
    (
        prop::sample::select(b",;\t|".to_vec()),
        prop::sample::select(numbers.to_vec()),
        prop::sample::select(encodings.to_vec()),
        prop::sample::select(times.to_vec()),
        prop::sample::select(vec!["\n", "\r\n", "\r"]),
        any::<[bool; 3]>(),
        0..4_u32,
    )
        .prop_map(
            |(delimiter, (decimal, grouping), encoding, time, line_end, flags, skip_lines)| {
                let [byte_order_mark, quoted, sep] = flags;
                Written {
                    delimiter,
                    decimal,
                    grouping,
                    encoding: Encoding::for_label(encoding.as_bytes()).unwrap(),
                    byte_order_mark,
                    line_end,
                    quoted,
                    sep,
                    skip_lines,
                    time,
                }
            },
        )
}

/// A payment: id, minor units, seconds since 1970, memo.
type Payment = (u32, u64, i64, String);

impl Written {
    fn settings(&self) -> Settings {
        let is_utf_8 = self.encoding == UTF_8;
        let marked = self.encoding == UTF_16LE && self.byte_order_mark;
        Settings {
            columns: &[],
            delimiter: Some(char::from(self.delimiter)).filter(|_| !self.sep),
            skip_lines: self.skip_lines,
            forms: ValueForms {
                decimal: Some(self.decimal),
                grouping: self.grouping,
                timestamp_format: self.time.0.map(str::to_owned),
                time_zone: self.time.1.map(str::to_owned),
                encoding: (!is_utf_8 && !marked).then(|| self.encoding.name().to_owned()),
            },
        }
    }

    fn amount(&self, minor: u64) -> String {
        let whole = (minor / 100).to_string();
        let mut text = String::new();
        for (index, digit) in whole.chars().enumerate() {
            if index > 0 && (whole.len() - index).is_multiple_of(3) {
                text.extend(self.grouping);
            }
            text.push(digit);
        }
        format!("{text}{}{:02}", self.decimal, minor % 100)
    }

    fn time(&self, seconds: i64) -> String {
        let utc = chrono::DateTime::from_timestamp(seconds, 0).unwrap();
        let format = self.time.0.unwrap_or("%Y-%m-%dT%H:%M:%SZ");
        match self.time.1 {
            Some("+01:00") => (utc + chrono::TimeDelta::hours(1))
                .format(format)
                .to_string(),
            Some(zone) => {
                let zone: chrono_tz::Tz = zone.parse().unwrap();
                utc.with_timezone(&zone).format(format).to_string()
            }
            None => utc.format(format).to_string(),
        }
    }

    fn object(&self, payments: &[Payment]) -> Vec<u8> {
        let mut text = String::new();
        for line in 0..self.skip_lines {
            text += &format!("Statement \"{line}{}", self.line_end);
        }
        if self.sep {
            text += &format!("sep={}{}", char::from(self.delimiter), self.line_end);
        }
        let style = if self.quoted {
            ::csv::QuoteStyle::Always
        } else {
            ::csv::QuoteStyle::Necessary
        };
        let mut writer = ::csv::WriterBuilder::new()
            .delimiter(self.delimiter)
            .quote_style(style)
            .from_writer(Vec::new());
        let header = [
            "transaction_id",
            "",
            "user_id",
            "amount",
            "timestamp",
            "memo",
            "",
        ];
        writer.write_record(header).unwrap();
        for (id, minor, seconds, memo) in payments {
            let (id, amount, time) = (format!("t{id}"), self.amount(*minor), self.time(*seconds));
            let row = [&*id, "", "Jürgen", &*amount, &*time, &**memo, ""];
            writer.write_record(row).unwrap();
        }
        let table = String::from_utf8(writer.into_inner().unwrap()).unwrap();
        text += &table.replace('\n', self.line_end);
        let mark = if self.byte_order_mark { "\u{feff}" } else { "" };
        if self.encoding == UTF_16LE {
            let units = mark.encode_utf16().chain(text.encode_utf16());
            return units.flat_map(u16::to_le_bytes).collect();
        }
        if self.encoding == UTF_8 {
            text.insert_str(0, mark);
        }
        self.encoding.encode(&text).0.into_owned()
    }
}

proptest! {
    #[test]
    fn payments_written_in_any_dialect_are_the_same_transactions_also_when_a_letter_of_them_is_read_again(
        written in written(),
        // Not in the hour that the clocks of New York show twice.
        payments in prop::collection::vec(
            (any::<u32>(), 0..100_000_000_000_u64, 1_750_000_000..1_760_000_000_i64, "[a-z ;,|\"ä€\t]{0,12}"),
            1..20,
        ),
    ) {
        let object = written.object(&payments);
        let (rows, error) = read(&written.settings(), &object);
        prop_assert_eq!(error, None);
        prop_assert_eq!(rows.len(), payments.len());
        let columns = Default::default();
        let utf_16 = written.encoding == UTF_16LE;
        let mut forms = written.settings().forms;
        if utf_16 {
            forms.encoding = None;
        }
        let header = ["transaction_id", "", "user_id", "amount", "timestamp", "memo", ""];
        let form = CsvForm::new(header.map(str::to_owned).to_vec(), written.delimiter.into(), columns, forms);
        let format = PayloadFormat::new(Payload::Csv(form), UserIdCase::Keep).to_string();
        for (row, (id, minor, seconds, text)) in rows.iter().zip(&payments) {
            prop_assert_eq!(&row.wrong, &None);
            let transaction = Transaction::parse(&row.text).unwrap();
            prop_assert_eq!(&*transaction.transaction_id, format!("t{id}"));
            prop_assert_eq!(&*transaction.user_id, "Jürgen");
            let amount = format!("{}.{:02}", minor / 100, minor % 100);
            let amount = tollgate_types::Amount::parse_decimal(&amount).unwrap();
            prop_assert_eq!(transaction.amount, amount);
            prop_assert_eq!(transaction.timestamp.micros(), seconds * 1_000_000);
            let value: Value = serde_json::from_slice(&row.text).unwrap();
            prop_assert_eq!(value["memo"].as_str().unwrap_or_default(), text.trim());
            let again = read_again(&format, row.sent.as_deref().unwrap()).unwrap();
            let expected = SentTransaction {
                user_id: "Jürgen".to_owned(),
                json: String::from_utf8(row.text.clone()).unwrap(),
            };
            prop_assert_eq!(again, [expected]);
        }
    }
}
