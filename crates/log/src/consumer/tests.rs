//! The consumer loop over a scripted log: no broker, and no time passes except where a test says so.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tokio::sync::mpsc;
use tollgate_service::Shutdown;
use tollgate_service::health::Health;
use tollgate_types::Stage;

use super::consumer_loop::{ConsumerLoop, LoopParts};
use super::feed::{
    CommitOffset, CommittedOffset, Feed, FeedEvent, OffsetCommitter, Polled, StartOffset,
};
use super::watchdog::Heartbeat;
use super::{Batching, ConsumerOptions, Distribution, Event, StartingPosition, WorkerQueue};
use crate::error::LogError;
use crate::histories::{BarrierInterval, CommitNote, Histories, Position, SnapshotRequirements};
use crate::record::{RawRecord, TopicPartition};
use crate::{Batch, KafkaConfig, Log};

const DEADLINE: Duration = Duration::from_secs(20);
const PARTITIONS: i32 = 2;

/// What was asked of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    Assign(Vec<(i32, StartOffset)>),
    Unassign,
    Pause,
    Resume,
    Commit(Vec<(i32, i64)>),
}

/// A log of two partitions and one group.
#[derive(Debug, Default)]
struct Broker {
    /// Events that the next polls return.
    events: VecDeque<FeedEvent>,
    /// Records in each partition.
    ends: HashMap<i32, i64>,
    committed: HashMap<i32, (i64, String)>,
    /// The offset to be read next, of what is assigned.
    positions: HashMap<i32, i64>,
    paused: bool,
    failing_commits: usize,
    calls: Vec<Call>,
    /// Records whose effects are there.
    done: BTreeSet<(i32, i64)>,
    /// An offset that was committed past a record that was not done.
    wrong: Option<(i32, i64)>,
}

#[derive(Debug, Clone, Default)]
struct FakeLog(Arc<Mutex<Broker>>);

impl FakeLog {
    fn with_records(each: i64) -> Self {
        let log = Self::default();
        log.lock().ends = (0..PARTITIONS).map(|partition| (partition, each)).collect();
        log
    }

    fn lock(&self) -> MutexGuard<'_, Broker> {
        self.0.lock().unwrap()
    }

    fn rebalance(&self, lost: bool) {
        let all = all();
        let mut broker = self.lock();
        broker.events.push_back(FeedEvent::Revoked {
            partitions: all.clone(),
            lost,
        });
        broker.events.push_back(FeedEvent::Assigned(all));
    }

    fn committed(&self, partition: i32) -> i64 {
        let broker = self.lock();
        broker
            .committed
            .get(&partition)
            .map_or(0, |(offset, _)| *offset)
    }

    fn complete(&self, batch: Batch) {
        let records = batch.iter();
        let done: Vec<_> = records
            .filter(|record| !record.replayed)
            .map(|record| (record.partition, record.offset))
            .collect();
        self.lock().done.extend(done);
        batch.complete();
    }
}

fn all() -> Vec<TopicPartition> {
    (0..PARTITIONS)
        .map(|partition| TopicPartition::new(0, partition))
        .collect()
}

struct FakeFeed(FakeLog);

impl Feed for FakeFeed {
    fn subscribe(&mut self) -> Result<(), LogError> {
        let mut broker = self.0.lock();
        broker.events.clear();
        broker.events.push_back(FeedEvent::Assigned(all()));
        Ok(())
    }

    fn poll(&mut self, _timeout: Duration, take: &mut dyn FnMut(Polled<'_>)) {
        let mut broker = self.0.lock();
        if let Some(event) = broker.events.pop_front() {
            drop(broker);
            return take(Polled::Event(event));
        }
        let paused = broker.paused;
        let ends = broker.ends.clone();
        let next = broker
            .positions
            .iter_mut()
            .filter(|(partition, position)| !paused && **position < ends[*partition])
            .min_by_key(|(partition, position)| (**position, **partition));
        let Some((partition, position)) = next else {
            drop(broker);
            return take(Polled::Nothing);
        };
        let (partition, offset) = (*partition, *position);
        *position += 1;
        drop(broker);
        take(Polled::Record(RawRecord {
            at: TopicPartition::new(0, partition),
            offset,
            timestamp_ms: None,
            key: Some(format!("{offset}").as_bytes()),
            payload: b"payload",
            headers: &Vec::new(),
        }));
    }

    fn assign(&mut self, starts: &[(TopicPartition, StartOffset)]) -> Result<(), LogError> {
        let mut broker = self.0.lock();
        let starts: Vec<_> = starts
            .iter()
            .map(|(at, start)| (at.partition, *start))
            .collect();
        broker.positions = starts
            .iter()
            .map(|(partition, start)| match start {
                StartOffset::Oldest => (*partition, 0),
                StartOffset::At(offset) => (*partition, *offset),
            })
            .collect();
        broker.paused = false;
        broker.calls.push(Call::Assign(starts));
        Ok(())
    }

    fn unassign(&mut self) -> Result<(), LogError> {
        let mut broker = self.0.lock();
        broker.positions.clear();
        broker.calls.push(Call::Unassign);
        Ok(())
    }

    fn pause(&mut self) -> Result<(), LogError> {
        let mut broker = self.0.lock();
        broker.paused = true;
        broker.calls.push(Call::Pause);
        Ok(())
    }

    fn resume(&mut self) -> Result<(), LogError> {
        let mut broker = self.0.lock();
        broker.paused = false;
        broker.calls.push(Call::Resume);
        Ok(())
    }

    fn partition_count(&mut self, _topic: usize) -> Result<i32, LogError> {
        Ok(PARTITIONS)
    }

    fn committed(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<CommittedOffset>, LogError> {
        let broker = self.0.lock();
        let committed = partitions.iter().map(|at| {
            let found = broker.committed.get(&at.partition);
            CommittedOffset {
                partition: *at,
                offset: found.map(|(offset, _)| *offset),
                note: found.map(|(_, note)| note.clone()).unwrap_or_default(),
            }
        });
        Ok(committed.collect())
    }

    fn watermarks(&mut self, at: TopicPartition) -> Result<(i64, i64), LogError> {
        Ok((0, self.0.lock().ends[&at.partition]))
    }

    fn offsets_for_time(
        &mut self,
        partitions: &[TopicPartition],
        _since_ms: i64,
    ) -> Result<Vec<Option<i64>>, LogError> {
        Ok(vec![Some(0); partitions.len()])
    }

    fn committer(&self) -> Box<dyn OffsetCommitter> {
        Box::new(FakeCommitter(self.0.clone()))
    }
}

struct FakeCommitter(FakeLog);

impl OffsetCommitter for FakeCommitter {
    fn commit(&mut self, offsets: &[CommitOffset]) -> Result<(), LogError> {
        let mut broker = self.0.lock();
        let list: Vec<_> = offsets
            .iter()
            .map(|commit| (commit.partition.partition, commit.offset))
            .collect();
        broker.calls.push(Call::Commit(list.clone()));
        if broker.failing_commits > 0 {
            broker.failing_commits -= 1;
            return Err(LogError::Refused("not now".to_owned()));
        }
        for (partition, offset) in list {
            if (0..offset).any(|before| !broker.done.contains(&(partition, before))) {
                broker.wrong = Some((partition, offset));
            }
        }
        for commit in offsets {
            let note = commit.note.clone().unwrap_or_default();
            broker
                .committed
                .insert(commit.partition.partition, (commit.offset, note));
        }
        Ok(())
    }
}

/// Histories that restore what the test sends, when it sends it.
#[derive(Debug)]
struct FakeHistories {
    restored: Mutex<Receiver<HashMap<i32, i64>>>,
    committed: Mutex<Vec<(i32, i64)>>,
}

impl FakeHistories {
    fn new() -> (Arc<Self>, Sender<HashMap<i32, i64>>) {
        let (restore, restored) = channel();
        let histories = Self {
            restored: Mutex::new(restored),
            committed: Mutex::default(),
        };
        (Arc::new(histories), restore)
    }
}

impl Histories for FakeHistories {
    fn worker_hash(&self, key: &[u8]) -> u64 {
        key.iter().copied().map(u64::from).sum()
    }

    fn restore(&self, _required: &[SnapshotRequirements]) -> HashMap<i32, i64> {
        self.restored.lock().unwrap().recv().unwrap()
    }

    fn begin_barrier(&self, _position: Position) -> bool {
        true
    }

    fn committed(&self, partition: i32, offset: i64) {
        self.committed.lock().unwrap().push((partition, offset));
    }

    fn wait_until_written(&self, _timeout: Duration) {}

    fn forget(&self) {}
}

/// A loop whose turns the test takes.
struct Fixture {
    consumer: ConsumerLoop,
    queues: Vec<WorkerQueue>,
    /// Batches that the workers hold.
    held: Vec<Batch>,
    log: FakeLog,
    health: Health,
}

fn options() -> ConsumerOptions {
    ConsumerOptions {
        stage: Stage::Scorer,
        topics: vec!["transactions".to_owned()],
        start: StartingPosition::TrimHorizon,
        distribution: Distribution::ByPartition(1),
        batching: Batching {
            max_records: 1,
            max_bytes: 1 << 20,
            max_wait: Duration::ZERO,
        },
        budget_records: 1_000,
        budget_bytes: 1 << 20,
        // Every turn commits.
        commit_interval: Duration::ZERO,
        replay: None,
        histories: None,
    }
}

impl Fixture {
    fn start(log: &FakeLog, options: ConsumerOptions) -> Self {
        let settings = KafkaConfig {
            brokers: "127.0.0.1:9".to_owned(),
            ..KafkaConfig::default()
        };
        let reads = Log::open(settings).unwrap().reads(options.stage);
        let health = Health::default();
        let workers = options.distribution.workers();
        let (senders, queues) = (0..workers).map(|_| mpsc::unbounded_channel()).unzip();
        let mut feed = FakeFeed(log.clone());
        feed.subscribe().unwrap();
        let parts = LoopParts {
            feed: Box::new(feed),
            options,
            reads,
            queues: senders,
            health: health.clone(),
            shutdown: Shutdown::new(Duration::ZERO),
            heartbeat: Heartbeat::new(),
            revoke_grace: Duration::ZERO,
        };
        Self {
            consumer: ConsumerLoop::new(parts).unwrap(),
            queues,
            held: Vec::new(),
            log: log.clone(),
            health,
        }
    }

    /// Takes a turn, and what it has sent to the workers.
    fn turn(&mut self) {
        self.consumer.turn().unwrap();
        self.collect();
    }

    fn collect(&mut self) {
        for queue in &mut self.queues {
            while let Ok(event) = queue.try_recv() {
                if let Event::Batch(batch) = event {
                    self.held.push(batch);
                }
            }
        }
    }

    fn complete_all(&mut self) {
        for batch in self.held.drain(..) {
            self.log.complete(batch);
        }
    }

    /// Takes turns until the condition holds.
    fn turn_until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !condition(self) {
            assert!(Instant::now() < deadline, "waited in vain: {what}");
            self.turn();
        }
    }

    fn calls(&self) -> Vec<Call> {
        self.log.lock().calls.clone()
    }

    fn count(&self, of: impl Fn(&Call) -> bool) -> usize {
        self.calls().iter().filter(|call| of(call)).count()
    }
}

#[test]
fn a_revoke_commits_what_is_done_and_leaves_what_is_in_flight_to_the_next_owner() {
    let log = FakeLog::with_records(3);
    let mut fixture = Fixture::start(&log, options());
    fixture.turn();
    assert_eq!(fixture.held.len(), 6);
    let first = fixture.held.remove(0);
    assert_eq!(first.iter().next().unwrap().offset, 0);
    let partition = first.iter().next().unwrap().partition;
    log.complete(first);
    log.rebalance(false);
    fixture.turn();
    let calls = fixture.calls();
    let commit = Call::Commit(vec![(partition, 1)]);
    let committed = calls.iter().position(|call| *call == commit).unwrap();
    let given_back = calls.iter().position(|call| *call == Call::Unassign);
    assert!(committed < given_back.unwrap(), "{calls:?}");
    // The next owner begins behind what was committed, and completing what was in flight before has no effect.
    let Some(Call::Assign(starts)) = calls.last() else {
        panic!("{calls:?}");
    };
    assert!(
        starts.contains(&(partition, StartOffset::At(1))),
        "{starts:?}"
    );
    let stale: Vec<Batch> = fixture.held.drain(..5).collect();
    stale.into_iter().for_each(Batch::complete);
    // The next revoke commits whatever may be committed, and waits for it.
    log.rebalance(false);
    fixture.turn();
    assert_eq!(log.committed(partition), 1);
}

#[test]
fn lost_partitions_are_given_up_without_a_commit() {
    let log = FakeLog::with_records(1);
    let mut options = options();
    options.commit_interval = DEADLINE;
    let mut fixture = Fixture::start(&log, options);
    // The first turn commits, before anything was read.
    fixture.turn();
    fixture.complete_all();
    log.rebalance(true);
    fixture.turn();
    assert_eq!(fixture.count(|call| matches!(call, Call::Commit(_))), 0);
    assert_eq!(fixture.count(|call| *call == Call::Unassign), 1);
    // Both records are read again.
    assert_eq!(fixture.held.len(), 2);
}

#[test]
fn a_restore_that_ends_after_its_partitions_were_revoked_is_not_used() {
    let log = FakeLog::with_records(10);
    for partition in 0..PARTITIONS {
        let note = CommitNote::write(PARTITIONS, 7);
        log.lock().committed.insert(partition, (6, note));
    }
    let (histories, restore) = FakeHistories::new();
    let mut options = options();
    options.replay = Some(Duration::from_secs(60));
    let every = BarrierInterval {
        interval: DEADLINE,
        offsets: i64::MAX,
    };
    options.histories = Some((histories, every));
    let mut fixture = Fixture::start(&log, options);
    fixture.turn();
    assert!(!fixture.health.is_ready());
    assert_eq!(fixture.calls(), []);
    log.rebalance(false);
    fixture.turn();
    assert_eq!(fixture.calls(), [Call::Unassign]);
    // The one that nobody waits for, and then that of the assignment that holds.
    restore.send(HashMap::from([(0, 2), (1, 2)])).unwrap();
    restore.send(HashMap::from([(0, 5)])).unwrap();
    fixture.turn_until("the histories are restored", |fixture| {
        fixture.count(|call| matches!(call, Call::Assign(_))) > 0
    });
    let expected = vec![(0, StartOffset::At(5)), (1, StartOffset::At(0))];
    assert_eq!(fixture.calls(), [Call::Unassign, Call::Assign(expected)]);
    fixture.turn_until("everything is read", |fixture| fixture.held.len() == 15);
    let replayed = fixture.held.iter().flat_map(Batch::iter);
    // One record of the restored partition, and all six of the other.
    assert_eq!(replayed.filter(|record| record.replayed).count(), 7);
    assert!(fixture.health.is_ready());
}

#[test]
fn a_commit_that_fails_is_made_up_for_and_counts_only_when_it_succeeds() {
    let log = FakeLog::with_records(1);
    let (histories, _restore) = FakeHistories::new();
    let mut options = options();
    let every = BarrierInterval {
        interval: DEADLINE,
        offsets: i64::MAX,
    };
    options.histories = Some((Arc::clone(&histories) as Arc<dyn Histories>, every));
    let mut fixture = Fixture::start(&log, options);
    fixture.turn();
    // Every commit fails until then, however many the loop makes in between.
    log.lock().failing_commits = usize::MAX;
    fixture.complete_all();
    fixture.turn_until("it fails", |fixture| {
        fixture.count(|call| matches!(call, Call::Commit(_))) > 0
    });
    assert_eq!(histories.committed.lock().unwrap().len(), 0);
    log.lock().failing_commits = 0;
    fixture.turn_until("it is committed", |_| {
        histories.committed.lock().unwrap().len() == 2
    });
    assert_eq!((log.committed(0), log.committed(1)), (1, 1));
    assert!(fixture.count(|call| matches!(call, Call::Commit(_))) > 1);
}

#[test]
fn reading_pauses_beyond_the_budget_and_resumes_when_half_of_it_is_free() {
    let log = FakeLog::with_records(3);
    let mut options = options();
    options.budget_records = 4;
    let mut fixture = Fixture::start(&log, options);
    fixture.turn();
    assert_eq!(fixture.held.len(), 6);
    fixture.turn_until("it pauses", |fixture| {
        fixture.calls().last() == Some(&Call::Pause)
    });
    log.lock().ends = (0..PARTITIONS).map(|partition| (partition, 4)).collect();
    log.complete(fixture.held.remove(0));
    fixture.turn();
    assert_eq!(fixture.count(|call| *call == Call::Resume), 0);
    fixture.complete_all();
    fixture.turn_until("it reads on", |fixture| fixture.held.len() == 2);
    assert_eq!(fixture.count(|call| *call == Call::Resume), 1);
}

#[test]
fn a_barrier_stands_behind_the_same_records_in_every_worker_queue() {
    let log = FakeLog::with_records(7);
    let (histories, _restore) = FakeHistories::new();
    let mut options = options();
    options.distribution = Distribution::ByKey(3);
    options.batching.max_records = 100;
    let every = BarrierInterval {
        interval: DEADLINE,
        offsets: 5,
    };
    options.histories = Some((histories, every));
    let mut fixture = Fixture::start(&log, options);
    fixture.consumer.turn().unwrap();
    for queue in &mut fixture.queues {
        let mut positions: HashMap<i32, i64> = HashMap::new();
        let mut barriers = 0;
        while let Ok(event) = queue.try_recv() {
            match event {
                Event::Assigned(_) | Event::Revoked(_) => {}
                Event::Batch(batch) => {
                    for record in batch.iter() {
                        let passed = positions.get(&record.partition);
                        assert!(passed.is_none_or(|offset| record.offset >= *offset));
                    }
                }
                Event::Barrier(position) => {
                    barriers += 1;
                    assert_eq!(position.offset, 7);
                    positions.insert(position.partition, position.offset);
                }
            }
        }
        assert_eq!(barriers, 2);
    }
}

#[test]
fn a_worker_that_has_stopped_ends_the_loop() {
    let log = FakeLog::with_records(1);
    let mut fixture = Fixture::start(&log, options());
    fixture.queues.clear();
    assert!(matches!(fixture.consumer.turn(), Err(LogError::Refused(_))));
}

/// What happens to a consumer.
#[derive(Debug, Clone)]
enum Step {
    Turn,
    /// The workers complete one of the batches that they hold.
    Complete(prop::sample::Index),
    /// The workers lose one.
    Drop(prop::sample::Index),
    Rebalance,
    Lose,
    /// The process dies, and another takes its place.
    Crash,
    FailCommits(usize),
    Write(i32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Turn),
        6 => any::<prop::sample::Index>().prop_map(Step::Complete),
        1 => any::<prop::sample::Index>().prop_map(Step::Drop),
        1 => Just(Step::Rebalance),
        1 => Just(Step::Lose),
        1 => Just(Step::Crash),
        1 => (0..3_usize).prop_map(Step::FailCommits),
        3 => (0..PARTITIONS).prop_map(Step::Write),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_offset_is_committed_past_a_record_that_is_not_done(
        steps in prop::collection::vec(step(), 1..80),
        batch in 1..4_usize,
    ) {
        let log = FakeLog::with_records(4);
        let mut options = options();
        options.batching.max_records = batch;
        let mut fixture = Fixture::start(&log, options.clone());
        for step in steps {
            match step {
                Step::Turn => fixture.turn(),
                Step::Complete(index) if !fixture.held.is_empty() => {
                    let batch = fixture.held.remove(index.index(fixture.held.len()));
                    log.complete(batch);
                }
                Step::Drop(index) if !fixture.held.is_empty() => {
                    drop(fixture.held.remove(index.index(fixture.held.len())));
                }
                Step::Complete(_) | Step::Drop(_) => {}
                Step::Rebalance => log.rebalance(false),
                Step::Lose => log.rebalance(true),
                Step::Crash => {
                    let held = std::mem::take(&mut fixture.held);
                    fixture = Fixture::start(&log, options.clone());
                    // The effects of what was in flight may still come.
                    fixture.held = held;
                }
                Step::FailCommits(count) => log.lock().failing_commits = count,
                Step::Write(partition) => *log.lock().ends.entry(partition).or_default() += 1,
            }
            prop_assert_eq!(log.lock().wrong, None);
        }
        // From wherever that has led, everything is done in the end.
        log.lock().failing_commits = 0;
        log.rebalance(false);
        let deadline = Instant::now() + DEADLINE;
        let ends = log.lock().ends.clone();
        while ends.iter().any(|(partition, end)| log.committed(*partition) < *end) {
            prop_assert!(Instant::now() < deadline, "not everything is committed: {:?}", log);
            fixture.turn();
            fixture.complete_all();
        }
        prop_assert_eq!(log.lock().wrong, None);
    }
}
