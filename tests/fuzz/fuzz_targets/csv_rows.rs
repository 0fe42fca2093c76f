//! The rows of an object, CSV, NDJSON, or either of them in gzip: each has a line number above that of the row before it,
//! and its text is JSON where the object was CSV.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use tollgate_ingest::fuzzing;

/// So that most inputs get past the header.
const HEADER: &[u8] = b"transaction_id,user_id,amount,timestamp,latitude,longitude\n";

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
    for row in fuzzing::rows(csv, object) {
        assert!(row.line > before, "line {} after line {before}", row.line);
        before = row.line;
        let text = row.text;
        if csv {
            serde_json::from_slice::<&RawValue>(&text).expect("a row of CSV becomes JSON");
        } else {
            assert!(text.len() <= fuzzing::MAX_ITEM_BYTES);
        }
        if !row.is_malformed {
            let _ = fuzzing::item(&text);
        }
    }
});
