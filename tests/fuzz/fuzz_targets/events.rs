//! CloudEvents, events of OCI in their own envelope, and batches of stream messages: what comes out is bounded by what went
//! in, and is validated as any other item.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate_ingest::fuzzing;

fuzz_target!(|data: &[u8]| {
    let Some((mode, body)) = data.split_first() else {
        return;
    };
    let texts = if mode % 2 == 0 {
        fuzzing::events(body)
    } else {
        fuzzing::messages(body)
    };
    let texts = texts.unwrap_or_default();
    let bytes: usize = texts.iter().map(Vec::len).sum();
    assert!(
        bytes <= body.len(),
        "{bytes} bytes of a body of {}",
        body.len()
    );
    for text in texts {
        let _ = fuzzing::item(&text);
    }
});
