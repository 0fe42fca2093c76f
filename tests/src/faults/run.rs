//! One run: starts everything, applies the faults, removes them, and makes the balance check.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;
use tokio::sync::watch;
use tollgate_types::{Decision, Stage as PipelineStage};

use super::books::{Books, Totals};
use super::cast::Cast;
use super::schedule::{Entry, Fault, Program, Remote, Schedule};
use super::stage::Stage;
use super::traffic::{self, Acknowledged};
use crate::offline::{self, Scored, key_of};
use crate::wait;

/// Alerts that one notifier may have in flight.
pub(super) const CONCURRENCY: usize = 4;
/// How long everything may take to be done once nothing is amiss.
const SETTLE: Duration = Duration::from_secs(180);
/// Time between two polls.
const LOOK: Duration = Duration::from_millis(50);
/// How long a process may take to end after SIGTERM; the services' grace period is 20 s.
const END: Duration = Duration::from_secs(40);

/// What a run is to be.
#[derive(Debug, Clone)]
pub struct Options {
    /// What goes wrong.
    pub seed: u64,
    /// It goes on at least so long …
    pub lasts: Duration,
    /// … and until so many processes were killed.
    pub kills: usize,
    /// Where the services' logs, and what the topics held, are kept.
    pub logs: PathBuf,
}

/// What a run has come to.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// The sums of the books.
    pub totals: Totals,
    /// Processes that were killed.
    pub kills: usize,
    /// Everything that went wrong.
    pub faults: usize,
}

/// What ends a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mend {
    Start(Program, usize),
    Continue(Program, usize),
    /// Starts it again once it has ended.
    StartWhenEnded(Program, usize),
    Terminate(Program, usize),
    WhenEnded(Program, usize),
    Heal(Remote),
    StartBroker,
    BrokerAnswers,
    StartDatabase,
    Sink,
}

/// A fault that lasts.
#[derive(Debug)]
struct Pending {
    fault: Fault,
    began: Duration,
    due: Instant,
    mend: Mend,
}

/// What only one fault at a time can be done to.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Place(Program, usize),
    Remote(Remote),
    Broker,
    Database,
}

const fn target(fault: Fault) -> Target {
    match fault {
        Fault::Kill(program, number)
        | Fault::Freeze(program, number)
        | Fault::Restart(program, number) => Target::Place(program, number),
        Fault::Join(program) => Target::Place(program, program.instances()),
        Fault::Network(remote, _) => Target::Remote(remote),
        // A receiver that hangs behind a network that hangs is no further case.
        Fault::Sink(_) => Target::Remote(Remote::Sink),
        Fault::KillBroker => Target::Broker,
        Fault::KillDatabase => Target::Database,
    }
}

struct Run<'a> {
    stage: &'a Stage,
    cast: Cast<'a>,
    begun: Instant,
    pending: Vec<Pending>,
    disturbances: Vec<(Duration, Duration)>,
    kills: usize,
    faults: usize,
}

impl Run<'_> {
    /// Lets a fault happen, unless its target is amiss already.
    async fn happen(&mut self, entry: Entry) -> anyhow::Result<()> {
        let Entry { fault, lasts, .. } = entry;
        if self
            .pending
            .iter()
            .any(|pending| target(pending.fault) == target(fault))
        {
            return Ok(());
        }
        let began = self.begun.elapsed();
        let mend = match fault {
            Fault::Kill(program, number) => {
                self.cast.kill(program, number)?;
                Mend::Start(program, number)
            }
            Fault::Freeze(program, number) => {
                self.cast.freeze(program, number, true)?;
                Mend::Continue(program, number)
            }
            Fault::Restart(program, number) => {
                if !self.cast.terminate(program, number)? {
                    return Ok(());
                }
                Mend::StartWhenEnded(program, number)
            }
            Fault::Join(program) => {
                self.cast.start(program, program.instances()).await?;
                Mend::Terminate(program, program.instances())
            }
            Fault::Network(remote, trouble) => {
                self.stage.proxy.trouble(remote, trouble).await?;
                Mend::Heal(remote)
            }
            Fault::KillBroker => {
                self.stage.kafka.control("kill").await?;
                Mend::StartBroker
            }
            Fault::KillDatabase => {
                self.stage.postgres.control("kill").await?;
                Mend::StartDatabase
            }
            Fault::Sink(refusal) => {
                self.stage.receiver.refuse(Some(refusal));
                Mend::Sink
            }
        };
        self.faults += 1;
        self.kills += usize::from(fault.is_kill());
        let line = format!("{fault:?} for {:.1} s", lasts.as_secs_f64());
        say(self.begun, &line);
        self.pending.push(Pending {
            fault,
            began,
            due: Instant::now() + lasts,
            mend,
        });
        Ok(())
    }

    /// Mends what is due; everything, if `all`.
    async fn mend(&mut self, all: bool) -> anyhow::Result<()> {
        let now = Instant::now();
        let pending = std::mem::take(&mut self.pending).into_iter();
        let (due, later): (Vec<_>, Vec<_>) = pending.partition(|pending| all || pending.due <= now);
        self.pending = later;
        for mut pending in due {
            match self.mend_one(pending.mend).await? {
                Some(next) => {
                    let overdue = now.saturating_duration_since(pending.due);
                    anyhow::ensure!(overdue < END, "{:?} has not ended", pending.fault);
                    pending.mend = next;
                    self.pending.push(pending);
                }
                None if pending.fault.touches_alerts() => {
                    self.disturbances
                        .push((pending.began, self.begun.elapsed()));
                }
                None => {}
            }
        }
        Ok(())
    }

    /// What is left to do.
    async fn mend_one(&mut self, mend: Mend) -> anyhow::Result<Option<Mend>> {
        match mend {
            Mend::Start(program, number) => self.cast.start(program, number).await?,
            Mend::Continue(program, number) => self.cast.freeze(program, number, false)?,
            Mend::StartWhenEnded(program, number) => {
                if !self.cast.ended(program, number)? {
                    return Ok(Some(mend));
                }
                self.cast.start(program, number).await?;
            }
            Mend::Terminate(program, number) => {
                let terminated = self.cast.terminate(program, number)?;
                let next = if terminated {
                    Mend::WhenEnded(program, number)
                } else {
                    mend
                };
                return Ok(Some(next));
            }
            Mend::WhenEnded(program, number) => {
                return Ok((!self.cast.ended(program, number)?).then_some(mend));
            }
            Mend::Heal(remote) => self.stage.proxy.heal(remote).await?,
            Mend::StartBroker => {
                self.stage.kafka.control("start").await?;
                return Ok(Some(Mend::BrokerAnswers));
            }
            Mend::BrokerAnswers => return Ok((!self.stage.kafka.answers().await).then_some(mend)),
            Mend::StartDatabase => self.stage.postgres.control("start").await?,
            Mend::Sink => self.stage.receiver.refuse(None),
        }
        Ok(None)
    }

    async fn go_wrong(&mut self, options: &Options) -> anyhow::Result<()> {
        let mut schedule = Schedule::new(options.seed);
        let mut next = Instant::now();
        let mut entry = None;
        while self.begun.elapsed() < options.lasts || self.kills < options.kills {
            self.cast.look()?;
            self.mend(false).await?;
            if let Some(coming) = entry.take_if(|_: &mut Entry| next <= Instant::now()) {
                self.happen(coming).await?;
            }
            if entry.is_none() {
                let coming = schedule.next().context("the schedule is endless")?;
                next += coming.after;
                entry = Some(coming);
            }
            tokio::time::sleep(LOOK).await;
        }
        let mended = async || {
            self.mend(true).await?;
            Ok(self.pending.is_empty().then_some(()))
        };
        wait::until(END, "everything mended", mended).await
    }
}

#[expect(clippy::print_stdout, reason = "this is the progress of a run")]
fn say(begun: Instant, what: &str) {
    println!("{:>8.1} s  {what}", begun.elapsed().as_secs_f64());
}

/// Runs everything, and makes the balance check.
///
/// # Errors
/// Where a program is missing, a service ends by itself, or the balance check fails.
pub async fn run(options: &Options) -> anyhow::Result<Outcome> {
    if options.logs.exists() {
        std::fs::remove_dir_all(&options.logs)?;
    }
    std::fs::create_dir_all(&options.logs)?;
    let begun = Instant::now();
    let stage = Stage::set(begun).await?;
    let mut cast = Cast::new(&stage.deployment, options.logs.clone());
    cast.start_all().await?;

    let (stop, stopped) = watch::channel(false);
    let seed = options.seed;
    let over_http = tokio::spawn(traffic::over_http(seed, cast.ingest(), stopped.clone()));
    let (writer, topic) = (
        stage.deployment.log.writer()?,
        stage.deployment.log.topics().transactions.clone(),
    );
    let onto_the_log =
        tokio::task::spawn_blocking(move || traffic::onto_the_log(seed, &writer, &topic, &stopped));
    let mut run = Run {
        stage: &stage,
        cast,
        begun,
        pending: Vec::new(),
        disturbances: Vec::new(),
        kills: 0,
        faults: 0,
    };
    let gone_wrong = run.go_wrong(options).await;
    stop.send_replace(true);
    gone_wrong?;
    say(begun, "everything is mended; waiting for the rest");
    run.cast.ready().await?;
    let (over_http, onto_the_log) = (over_http.await??, onto_the_log.await??);
    for stage_of in PipelineStage::ALL {
        stage.deployment.caught_up(stage_of, SETTLE).await?;
    }
    run.cast.look()?;
    let (kills, faults, disturbances) =
        (run.kills, run.faults, std::mem::take(&mut run.disturbances));
    run.cast.stop_all().await?;
    ensure_no_gaps(&options.logs)?;
    let again = [&over_http, &onto_the_log].map(|each| each.repeated);
    say(
        begun,
        &format!(
            "made again: {} requests over HTTP, {} flushes onto the log",
            again[0], again[1]
        ),
    );
    let books = read(&stage, [over_http, onto_the_log], disturbances).await?;
    keep_topics(&stage, &options.logs)?;
    Ok(Outcome {
        totals: books.balance()?,
        kills,
        faults,
    })
}

/// Reads everything there is to be seen.
async fn read(
    stage: &Stage,
    acknowledged: [Acknowledged; 2],
    disturbances: Vec<(Duration, Duration)>,
) -> anyhow::Result<Books> {
    let (log, store) = (&stage.deployment.log, &stage.deployment.store);
    let topics = log.topics();
    let input = log.read(&topics.transactions)?;
    let partitions = log.partitions(&topics.transactions)?;
    let mut books = Books {
        expected: offline::score_every(&input, partitions),
        deliveries: stage.receiver.taken(),
        disturbances,
        // Two notifiers, and one that joins.
        in_flight: CONCURRENCY * (Program::Notifier.instances() + 1),
        ..Books::default()
    };
    for each in acknowledged {
        books.accepted.extend(each.transactions);
        books.poison.extend(each.poison);
    }
    for record in log.read(&topics.decisions)? {
        let decision = Decision::parse(&record.payload)?;
        books
            .decided
            .push((key_of(&decision), Scored::of(&decision)));
    }
    books.transactions = store.transactions().await?.into_keys().collect();
    books.analyses = store.analyses().await?.into_iter().collect();
    books.dead_letters = dead_letters(stage)?;
    Ok(books)
}

/// No producer here leaves gaps in the log, so that a reader that met one has missed something.
fn ensure_no_gaps(logs: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(logs)? {
        let path = entry?.path();
        let log = std::fs::read(&path)?;
        let gap = String::from_utf8_lossy(&log)
            .lines()
            .find(|line| line.contains("no record where reading was to begin"))
            .map(str::to_owned);
        anyhow::ensure!(gap.is_none(), "{}: {gap:?}", path.display());
    }
    Ok(())
}

/// The topics of transactions and decisions, one line for each record, to examine a failed run.
fn keep_topics(stage: &Stage, folder: &Path) -> anyhow::Result<()> {
    let log = &stage.deployment.log;
    for (name, topic) in [
        ("transactions", &log.topics().transactions),
        ("decisions", &log.topics().decisions),
    ] {
        let mut file = BufWriter::new(File::create(folder.join(format!("{name}.ndjson")))?);
        for record in log.read(topic)? {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let headers = record
                .headers
                .iter()
                .map(|(name, value)| json!([name, text(value)]));
            let line = json!({
                "partition": record.partition,
                "offset": record.offset,
                "timestamp_ms": record.timestamp_ms,
                "key": record.key.as_deref().map(text),
                "headers": headers.collect::<Vec<_>>(),
                "payload": text(&record.payload),
            });
            writeln!(file, "{line}")?;
        }
        file.flush()?;
    }
    Ok(())
}

fn dead_letters(stage: &Stage) -> anyhow::Result<BTreeMap<&'static str, Vec<Vec<u8>>>> {
    let log = &stage.deployment.log;
    let of = |each: PipelineStage| {
        let letters = log.read(log.topics().dead_letters_of(each))?;
        Ok((
            each.name(),
            letters.into_iter().map(|letter| letter.payload).collect(),
        ))
    };
    PipelineStage::ALL.into_iter().map(of).collect()
}
