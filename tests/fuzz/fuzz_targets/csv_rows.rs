//! The rows of an object, CSV in several dialects, NDJSON, or either of them in gzip: each has a line number above that of
//! the row before it (or the same one in an array), its text is JSON where the object was CSV, and a dead letter of it is read as the row was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use tollgate_ingest::fuzzing::{self, CsvSettings};

/// So that most inputs get past the header.
const HEADER: &[u8] = b"transaction_id,user_id,amount,timestamp,latitude,longitude\n";

/// The settings that some bits choose.
fn settings(bits: u8) -> CsvSettings {
    let german = bits & 1 != 0;
    CsvSettings {
        // A header with the other delimiter is written with commas.
        delimiter: None,
        skip_lines: u32::from(bits & 2 != 0),
        decimal: german.then_some(','),
        grouping: german.then_some('.'),
        time_zone: (bits & 4 != 0).then(|| "Europe/Berlin".to_owned()),
        encoding: (bits & 8 != 0).then(|| "windows-1252".to_owned()),
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((mode, data)) = data.split_first() else {
        return;
    };
    let csv = mode % 3 < 2;
    let with_header;
    let object = if mode % 3 == 0 {
        with_header = [HEADER, data].concat();
        &with_header
    } else {
        data
    };
    let mut before = 0;
    for row in fuzzing::rows(csv.then(|| settings(mode / 3)), object) {
        let is_behind = row.line > before || !csv && row.line == before;
        assert!(is_behind, "line {} after line {before}", row.line);
        before = row.line;
        let text = row.text;
        if csv {
            serde_json::from_slice::<&RawValue>(&text).expect("a row of CSV becomes JSON");
        } else {
            assert!(text.len() <= fuzzing::MAX_ITEM_BYTES);
        }
        let (format, sent) = row.letter;
        let again = tollgate_ingest::read_again(&format, &sent);
        if row.is_malformed {
            assert!(!csv || again.is_err(), "a malformed row is a payment");
        } else if let Ok(transaction) = fuzzing::item(&text) {
            // One in the future is refused here, since the clock is the real one.
            if let Ok(again) = again {
                assert_eq!(again[0].user_id, transaction.user_id);
            }
        }
    }
});
