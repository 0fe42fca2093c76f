use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use proptest::prelude::*;
use tempfile::TempDir;

use super::cursor::Step;
use super::*;
use crate::acks::Acks;

const DEADLINE: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3_600);
const TOPICS: [&str; 4] = ["transactions", "decisions", "imports", "replies"];
const READER: &str = "reader";

fn settings() -> Vec<TopicSettings> {
    let until_committed = |then| Retention::UntilCommitted {
        group: READER.to_owned(),
        then,
    };
    let retentions = [
        until_committed(HOUR),
        until_committed(Duration::ZERO),
        Retention::For(HOUR),
        Retention::Newest,
    ];
    TOPICS
        .iter()
        .zip(retentions)
        .map(|(name, retention)| TopicSettings {
            name: (*name).to_owned(),
            retention,
        })
        .collect()
}

fn in_memory() -> EmbeddedLog {
    EmbeddedLog::open(&settings(), 2, None).unwrap()
}

struct Directory(TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn journal(&self) -> PathBuf {
        self.0.path().join("journal.db")
    }

    fn open(&self) -> EmbeddedLog {
        EmbeddedLog::open(&settings(), 2, Some(&self.journal())).unwrap()
    }
}

/// Appends a record whose payload is this text, and counts its acknowledgement.
fn append(
    log: &EmbeddedLog,
    topic: &str,
    partition: i32,
    text: &str,
    acknowledged: &Arc<AtomicUsize>,
) -> Result<(), AppendError> {
    let record = NewRecord {
        timestamp_ms: None,
        key: None,
        payload: text.as_bytes(),
        headers: &[],
    };
    let acknowledged = Arc::clone(acknowledged);
    let acks = Acks::new(move |result| {
        result.unwrap();
        acknowledged.fetch_add(1, Ordering::SeqCst);
    });
    log.append(topic, partition, &record, false, &acks)?;
    acks.seal();
    Ok(())
}

/// Everything from these offsets on, until nothing more is there.
fn read_from(log: &EmbeddedLog, topic: &str, partition: i32, offset: i64) -> Vec<(i64, String)> {
    let index = log.topic(topic).unwrap();
    let mut cursor = log.cursor();
    cursor.assign([(index, partition, offset)]);
    let mut found = Vec::new();
    loop {
        match cursor.next(DEADLINE).unwrap() {
            Step::Record { offset, record, .. } => {
                let payload = record.view().payload.to_vec();
                found.push((offset, String::from_utf8(payload).unwrap()));
            }
            Step::End { .. } => return found,
            Step::Nothing => panic!("neither a record nor the end"),
        }
    }
}

fn commit(log: &EmbeddedLog, topic: &str, partition: i32, next: i64) {
    let note = Some(format!("at {next}"));
    let index = log.topic(topic).unwrap();
    assert!(log.commit(READER, index, vec![(partition, Committed { next, note })]));
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

#[derive(Debug, Clone)]
enum Action {
    Append {
        topic: usize,
        partition: i32,
        count: usize,
        size: usize,
    },
    Commit {
        topic: usize,
        partition: i32,
        share: prop::sample::Index,
    },
    Reopen,
}

fn action() -> impl Strategy<Value = Action> {
    let place = || (0_usize..3, 0_i32..2);
    prop_oneof![
        6 => (place(), 1_usize..40, 1_usize..3_000).prop_map(|((topic, partition), count, size)| Action::Append { topic, partition, count, size }),
        2 => (place(), any::<prop::sample::Index>()).prop_map(|((topic, partition), share)| Action::Commit { topic, partition, share }),
        1 => Just(Action::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Against lists of all payloads, which never forget: whatever is read stands in them at its offset, and everything
    /// that was not committed is read, also after the log was closed or left behind open, as a crash does.
    #[test]
    fn what_was_acknowledged_and_not_committed_is_read_after_every_restart(
        actions in proptest::collection::vec(action(), 1..25),
    ) {
        let directory = Directory::new();
        let mut log = directory.open();
        let mut all: BTreeMap<(usize, i32), Vec<String>> = BTreeMap::new();
        let mut committed: BTreeMap<(usize, i32), i64> = BTreeMap::new();
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let mut left_behind = Vec::new();
        for (number, action) in actions.into_iter().enumerate() {
            match action {
                Action::Append { topic, partition, count, size } => {
                    for index in 0..count {
                        let text = format!("{number}.{index} {}", "x".repeat(size));
                        append(&log, TOPICS[topic], partition, &text, &acknowledged).unwrap();
                        all.entry((topic, partition)).or_default().push(text);
                    }
                    prop_assert!(log.flush(DEADLINE));
                }
                Action::Commit { topic, partition, share } => {
                    let length = all.get(&(topic, partition)).map_or(0, Vec::len);
                    let next = i64::try_from(share.index(length + 1)).unwrap();
                    commit(&log, TOPICS[topic], partition, next);
                    let before = committed.entry((topic, partition)).or_default();
                    *before = next.max(*before);
                }
                Action::Reopen if number % 2 == 0 => {
                    drop(log);
                    log = directory.open();
                }
                Action::Reopen => {
                    // Never closed: the next one finds the file as a crash leaves it.
                    left_behind.push(log);
                    log = directory.open();
                }
            }
            prop_assert_eq!(acknowledged.load(Ordering::SeqCst), all.values().map(Vec::len).sum::<usize>());
            for ((topic, partition), texts) in &all {
                let name = TOPICS[*topic];
                let index = log.topic(name).unwrap();
                let (oldest, next) = log.watermarks(index, *partition).unwrap();
                prop_assert_eq!(next, i64::try_from(texts.len()).unwrap());
                let start = committed.get(&(*topic, *partition)).copied();
                let known = log.committed(READER, index, *partition);
                prop_assert_eq!(known.as_ref().map(|known| known.next), start);
                if let (Some(known), Some(start)) = (known, start) {
                    // The note of the last commit that counted.
                    prop_assert_eq!(known.note.unwrap(), format!("at {start}"));
                }
                prop_assert!(oldest <= start.unwrap_or(0).max(0));
                // What was decided may be deleted at any time; what is looked back on may not.
                let from_beginning = (name != "decisions").then_some(0);
                for from in [start.unwrap_or(0)].into_iter().chain(from_beginning) {
                    let expected: Vec<(i64, String)> = (from..next).map(|offset| (offset, texts[usize::try_from(offset).unwrap()].clone())).collect();
                    prop_assert_eq!(read_from(&log, name, *partition, from), expected);
                }
            }
        }
    }
}

#[test]
fn records_that_wait_for_the_disk_are_written_together() {
    let directory = Directory::new();
    let log = directory.open();
    let acknowledged = Arc::new(AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for partition in [0, 1] {
            for writer in 0..8 {
                let (log, acknowledged) = (&log, &acknowledged);
                scope.spawn(move || {
                    for number in 0..100 {
                        append(
                            log,
                            "transactions",
                            partition,
                            &format!("{writer}.{number}"),
                            acknowledged,
                        )
                        .unwrap();
                    }
                });
            }
        }
    });
    assert!(log.flush(DEADLINE));
    assert_eq!(acknowledged.load(Ordering::SeqCst), 1_600);
    // A row of the journal is what one commit wrote of one partition.
    drop(log);
    let mut rows = 0;
    let opened = directory.open();
    let index = opened.topic("transactions").unwrap();
    for partition in [0, 1] {
        let number = opened.0.topics[index].journal.unwrap();
        let place = Place {
            topic: number,
            partition,
        };
        let journal = opened.0.journal.as_ref().unwrap();
        let batches = journal.read(place, 0, i64::MAX).unwrap();
        assert_eq!(
            batches
                .iter()
                .map(|batch| batch.records.len())
                .sum::<usize>(),
            800
        );
        rows += batches.len();
    }
    assert!(rows < 400, "1600 records were written in {rows} rows");
    // What each writer wrote stands in its order.
    let mut last: BTreeMap<String, i32> = BTreeMap::new();
    for (_, text) in read_from(&opened, "transactions", 0, 0) {
        let (writer, number) = text.split_once('.').unwrap();
        let number: i32 = number.parse().unwrap();
        let before = last.insert(writer.to_owned(), number);
        assert_eq!(number, before.map_or(0, |before| before + 1), "{writer}");
    }
}

#[test]
fn nothing_is_readable_or_acknowledged_while_the_journal_cannot_be_written() {
    let directory = Directory::new();
    let log = directory.open();
    let acknowledged = Arc::new(AtomicUsize::new(0));
    append(&log, "transactions", 0, "first", &acknowledged).unwrap();
    assert!(log.flush(DEADLINE));
    let (here, away) = (directory.journal(), directory.0.path().join("away"));
    std::fs::rename(&here, &away).unwrap();
    append(&log, "transactions", 0, "second", &acknowledged).unwrap();
    until("the failure shows", || log.failure().is_some());
    assert!(log.failure().unwrap().contains("was deleted or moved"));
    assert_eq!(acknowledged.load(Ordering::SeqCst), 1);
    assert_eq!(read_from(&log, "transactions", 0, 0).len(), 1);
    std::fs::rename(&away, &here).unwrap();
    until("it is written", || acknowledged.load(Ordering::SeqCst) == 2);
    until("the failure is over", || log.failure().is_none());
    assert_eq!(read_from(&log, "transactions", 0, 0).len(), 2);
}

/// Fills a topic until it takes no more; how many records it took.
fn fill(log: &EmbeddedLog, topic: &str, text: &str) -> usize {
    let acknowledged = Arc::new(AtomicUsize::new(0));
    for count in 0.. {
        match append(log, topic, 0, text, &acknowledged) {
            Ok(()) => assert!(count < 1_000_000, "it is never full"),
            Err(error) => {
                assert_eq!(error, AppendError::Full);
                return count;
            }
        }
    }
    0
}

#[test]
fn writers_wait_for_readers_and_for_nobody_else() {
    let log = in_memory();
    let text = "x".repeat(10_000);
    let taken = fill(&log, "transactions", &text);
    assert!((800..900).contains(&taken), "{taken}");
    // A record that must not wait is taken nevertheless, and the other partition is not full.
    let record = NewRecord {
        timestamp_ms: None,
        key: None,
        payload: b"urgent",
        headers: &[],
    };
    let acks = Acks::new(|_| ());
    log.append("transactions", 0, &record, true, &acks).unwrap();
    log.append("transactions", 1, &record, false, &acks)
        .unwrap();
    // A reader that has read makes room, and a commit frees memory once it has.
    let index = log.topic("transactions").unwrap();
    let mut cursor = log.cursor();
    cursor.assign([(index, 0, 0)]);
    for _ in 0..=taken {
        assert!(matches!(
            cursor.next(DEADLINE).unwrap(),
            Step::Record { .. }
        ));
    }
    assert_eq!(fill(&log, "transactions", &text), taken);
    assert_eq!(log.watermarks(index, 0).unwrap().0, 0);
    commit(&log, "transactions", 0, 100);
    assert_eq!(log.watermarks(index, 0).unwrap().0, 100);
    drop(cursor);
    // Without a reader it is the commits that count.
    assert_eq!(fill(&log, "transactions", &text), 0);
}

#[test]
fn replies_and_unread_imports_replace_the_oldest() {
    let log = in_memory();
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let text = "x".repeat(10_000);
    for topic in ["replies", "imports"] {
        let index = log.topic(topic).unwrap();
        for _ in 0..2_000 {
            append(&log, topic, 0, &text, &acknowledged).unwrap();
        }
        let (oldest, next) = log.watermarks(index, 0).unwrap();
        assert!(
            (1_100..1_300).contains(&oldest) && next == 2_000,
            "{topic}: {oldest}"
        );
    }
    // A topic that keeps the newest never waits for a reader; the other one does.
    let mut cursor = log.cursor();
    let places = ["replies", "imports"].map(|topic| (log.topic(topic).unwrap(), 1, 0));
    cursor.assign(places);
    for _ in 0..2_000 {
        append(&log, "replies", 1, &text, &acknowledged).unwrap();
    }
    let full = (0..2_000).find_map(|_| append(&log, "imports", 1, &text, &acknowledged).err());
    assert_eq!(full, Some(AppendError::Full));
    let mut first = BTreeMap::new();
    while first.len() < 2 {
        match cursor.next(DEADLINE).unwrap() {
            Step::Record { topic, offset, .. } => {
                first.entry(topic).or_insert(offset);
            }
            Step::End { .. } => {}
            Step::Nothing => panic!("only {first:?}"),
        }
    }
    assert!(first[&places[0].0] > 1_000, "the oldest replies are gone");
    assert_eq!(first[&places[1].0], 0);
}

#[test]
fn a_reader_waits_for_records_and_learns_of_the_end_once() {
    let log = in_memory();
    let index = log.topic("decisions").unwrap();
    let mut cursor = log.cursor();
    cursor.assign([(index, 0, 0), (index, 1, 0)]);
    for _ in 0..2 {
        assert!(matches!(
            cursor.next(Duration::ZERO).unwrap(),
            Step::End { .. }
        ));
    }
    assert!(matches!(
        cursor.next(Duration::from_millis(5)).unwrap(),
        Step::Nothing
    ));
    let writer = log.clone();
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let thread = std::thread::spawn(move || append(&writer, "decisions", 1, "late", &acknowledged));
    match cursor.next(DEADLINE).unwrap() {
        Step::Record {
            partition: 1,
            offset: 0,
            ..
        } => {}
        other => panic!("{other:?}"),
    }
    thread.join().unwrap().unwrap();
    assert!(matches!(
        cursor.next(Duration::ZERO).unwrap(),
        Step::Nothing
    ));
    // What is paused is not read, and nothing of it is lost.
    cursor.set_paused(true);
    let acknowledged = Arc::new(AtomicUsize::new(0));
    append(&log, "decisions", 1, "paused", &acknowledged).unwrap();
    assert!(matches!(
        cursor.next(Duration::ZERO).unwrap(),
        Step::Nothing
    ));
    cursor.set_paused(false);
    assert!(matches!(
        cursor.next(Duration::ZERO).unwrap(),
        Step::Record { offset: 1, .. }
    ));
}

#[test]
fn the_journal_keeps_what_is_looked_back_on_and_deletes_the_rest() {
    let directory = Directory::new();
    let log = directory.open();
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let began_ms = journal::now_ms();
    for topic in ["transactions", "decisions"] {
        for number in 0..20 {
            append(&log, topic, 0, &number.to_string(), &acknowledged).unwrap();
            assert!(log.flush(DEADLINE));
        }
        commit(&log, topic, 0, 15);
    }
    let oldest = |log: &EmbeddedLog, topic| log.watermarks(log.topic(topic).unwrap(), 0).unwrap().0;
    until("committed decisions are deleted", || {
        oldest(&log, "decisions") == 15
    });
    // Scores look back on transactions, whether or not they were decided.
    assert_eq!(oldest(&log, "transactions"), 0);
    let transactions = log.topic("transactions").unwrap();
    assert_eq!(
        log.appended_since(transactions, 0, began_ms).unwrap(),
        Some(0)
    );
    assert_eq!(
        log.appended_since(transactions, 0, journal::now_ms() + 1_000)
            .unwrap(),
        None
    );
    commit(&log, "decisions", 0, 20);
    until("all but the newest are deleted", || {
        oldest(&log, "decisions") == 19
    });
    drop(log);
    let log = directory.open();
    assert_eq!(
        log.watermarks(log.topic("decisions").unwrap(), 0),
        Some((19, 20))
    );
    append(&log, "decisions", 0, "20", &acknowledged).unwrap();
    assert!(log.flush(DEADLINE));
    let texts = read_from(&log, "decisions", 0, 20);
    assert_eq!(texts, [(20, "20".to_owned())]);
}

/// Changes the journal behind the back of the log.
fn tamper(directory: &Directory, statement: &'static str) {
    use sqlx::Connection as _;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let url = format!("sqlite://{}", directory.journal().display());
        let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
        let result = sqlx::query(statement).execute(&mut connection).await;
        assert!(result.unwrap().rows_affected() > 0);
        connection.close().await.unwrap();
    });
}

#[test]
fn a_damaged_batch_ends_the_reader_and_is_never_taken_for_fewer_or_other_records() {
    for statement in [
        // One changed byte, half of the records, another offset.
        "UPDATE batches SET records = CAST(replace(records, CAST('one' AS BLOB), CAST('ONE' AS BLOB)) AS BLOB)",
        "UPDATE batches SET records = substr(records, 1, length(records) / 2)",
        "UPDATE batches SET next = next + 1",
    ] {
        let directory = Directory::new();
        let log = directory.open();
        let acknowledged = Arc::default();
        append(&log, "imports", 0, "one", &acknowledged).unwrap();
        append(&log, "imports", 0, "two", &acknowledged).unwrap();
        assert!(log.flush(DEADLINE));
        drop(log);
        until("the journal is closed", || {
            !directory.journal().with_extension("db-wal").exists()
        });
        tamper(&directory, statement);
        let log = directory.open();
        let mut cursor = log.cursor();
        cursor.assign([(log.topic("imports").unwrap(), 0, 0)]);
        let error = cursor.next(DEADLINE).unwrap_err().to_string();
        assert!(error.contains("is damaged"), "{statement}: {error}");
    }
}

#[test]
fn a_journal_of_another_number_of_partitions_is_refused_with_what_to_do() {
    let directory = Directory::new();
    drop(directory.open());
    let error = EmbeddedLog::open(&settings(), 3, Some(&directory.journal())).unwrap_err();
    let text = format!("{error:#}");
    assert!(
        text.starts_with("kafka.partitions: is 3") && text.contains("Set it back to 2"),
        "{text}"
    );
}

#[test]
fn a_record_that_is_too_large_and_a_partition_that_is_missing_are_refused() {
    let log = in_memory();
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let large = "x".repeat(1_000_001);
    assert_eq!(
        append(&log, "decisions", 0, &large, &acknowledged),
        Err(AppendError::TooLarge)
    );
    for (topic, partition) in [("decisions", 2), ("decisions", -1), ("nothing", 0)] {
        let refused = append(&log, topic, partition, "x", &acknowledged);
        assert_eq!(
            refused,
            Err(AppendError::NoPartition(topic.to_owned(), partition))
        );
    }
}

#[test]
fn an_acknowledgement_may_drop_the_last_handle_of_the_log() {
    let directory = Directory::new();
    let log = directory.open();
    let (dropped, told) = mpsc::channel();
    let record = NewRecord {
        timestamp_ms: Some(1),
        key: Some(b"k"),
        payload: b"p",
        headers: &[("h", None)],
    };
    let handle = log.clone();
    let acks = Acks::new(move |_| {
        drop(handle);
        dropped.send(()).unwrap();
    });
    log.append("transactions", 1, &record, false, &acks)
        .unwrap();
    acks.seal();
    drop(log);
    told.recv_timeout(DEADLINE).unwrap();
    until("the file is free again", || {
        !directory.0.path().join("journal.db-wal").exists()
    });
    let log = directory.open();
    assert_eq!(read_from(&log, "transactions", 1, 0), [(0, "p".to_owned())]);
}
