//! `tollgate score`: the engine without a log, for files.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::json;
use tollgate_engine::{Engine, Origin};
use tollgate_scorer::ScorerConfig;
use tollgate_service::external_sort::Sorter;
use tollgate_service::random_key;
use tollgate_service::terminal::{printable, printable_lines};
use tollgate_types::{Rejection, Tenant, Timestamp, Transaction};

use crate::commands::{ScoreArgs, ScoreOrder, settings};
use crate::control::ControlFile;
use crate::exit_status::{REJECTED, USAGE};

/// Rejected lines that are named on standard error where --rejects was not given.
const SHOWN: u64 = 10;
/// A longer line is rejected without being held in memory.
const MAX_LINE_BYTES: u64 = 1024 * 1024;
/// The memory in which a file is sorted by time, in bytes; beyond it in runs on disk.
const SORT_MEMORY_BYTES: usize = 64 * 1024 * 1024;

#[expect(clippy::print_stderr, reason = "this is the command's output")]
pub(crate) fn run(args: &ScoreArgs) -> anyhow::Result<ExitCode> {
    let opened = Files::open(args).and_then(|files| Ok((files, control(args)?)));
    let (mut files, control) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let text = format!("{error:#}");
            eprintln!("tollgate: {}", printable_lines(&text));
            return Ok(ExitCode::from(USAGE));
        }
    };
    let config: ScorerConfig = settings(args.config.clone())?.section("scorer")?;
    config.validate()?;
    let totals = score(&config, &mut files, args.order, control)?;
    files.output.flush().context("cannot write the decisions")?;
    if let Some(rejects) = &mut files.rejects {
        rejects.flush().context("cannot write the rejects")?;
    }
    if totals.backwards > 0 {
        let backwards = totals.backwards;
        eprintln!(
            "tollgate: the file goes back in time: {backwards} transactions are earlier than one before them of the same \
             user; --order time scores them as they happened"
        );
    }
    let Totals {
        decisions,
        rejected,
        late,
        ..
    } = totals;
    eprintln!(
        "tollgate: {decisions} decisions, {late} of them late, older than the history of their user"
    );
    if rejected == 0 || args.rejects.is_some() {
        return Ok(ExitCode::SUCCESS);
    }
    let lines = if rejected == 1 {
        "line was"
    } else {
        "lines were"
    };
    let shown = if rejected > SHOWN {
        format!(", of which the first {SHOWN} are shown")
    } else {
        String::new()
    };
    eprintln!("tollgate: {rejected} {lines} rejected{shown}; --rejects FILE gets each as JSON");
    Ok(ExitCode::from(REJECTED))
}

/// The file of changes, if one is given.
fn control(args: &ScoreArgs) -> anyhow::Result<Option<ControlFile>> {
    let control = args.control.as_deref().map(ControlFile::read).transpose()?;
    anyhow::ensure!(
        control.is_none() || args.order == ScoreOrder::File,
        "--control: markers have their places in the order of the file, so that --order time cannot be given with it"
    );
    Ok(control)
}

struct Files {
    input: Box<dyn BufRead>,
    output: Box<dyn Write>,
    rejects: Option<BufWriter<File>>,
}

impl Files {
    fn open(args: &ScoreArgs) -> anyhow::Result<Self> {
        let input: Box<dyn BufRead> = match args.input.as_str() {
            "-" => Box::new(BufReader::new(io::stdin())),
            path => {
                let file = File::open(path).with_context(|| format!("--input {path}"))?;
                anyhow::ensure!(!file.metadata()?.is_dir(), "--input {path}: is a directory");
                Box::new(BufReader::with_capacity(256 * 1024, file))
            }
        };
        let create = |option: &str, path: &Path| {
            // By device and inode: a link by another name is the same file.
            let file = |path: &Path| path.metadata().ok().map(|file| (file.dev(), file.ino()));
            let same = file(path).is_some_and(|path| file(Path::new(&args.input)) == Some(path));
            anyhow::ensure!(!same, "{option} {}: is the input", path.display());
            // For its owner only: payments are in it.
            let mut options = File::options();
            let options = options.write(true).create(true).truncate(true).mode(0o600);
            options
                .open(path)
                .with_context(|| format!("{option} {}", path.display()))
        };
        let both = args.rejects.as_deref().is_some_and(|rejects| {
            std::path::absolute(rejects).ok() == std::path::absolute(&args.output).ok()
        });
        anyhow::ensure!(!both, "--rejects {}: is the output", args.output);
        let rejects = args
            .rejects
            .as_deref()
            .map(|path| create("--rejects", path))
            .transpose()?
            .map(BufWriter::new);
        let output: Box<dyn Write> = match args.output.as_str() {
            "-" => Box::new(BufWriter::with_capacity(256 * 1024, io::stdout())),
            path => Box::new(BufWriter::with_capacity(
                256 * 1024,
                create("--output", Path::new(path))?,
            )),
        };
        Ok(Self {
            input,
            output,
            rejects,
        })
    }
}

/// Reads line by line, and scores in the given order.
fn score(
    config: &ScorerConfig,
    files: &mut Files,
    order: ScoreOrder,
    control: Option<ControlFile>,
) -> anyhow::Result<Totals> {
    let cards = config.card_policy()?;
    let mut decisions = Decisions::new(config, control);
    let mut sorter = match order {
        ScoreOrder::File => None,
        ScoreOrder::Time => Some(Sorter::new(SORT_MEMORY_BYTES, &std::env::temp_dir())),
    };
    let mut line = Vec::new();
    let mut number = 0_u64;
    while let Some(whole) =
        read_line(&mut *files.input, &mut line).context("cannot read the input")?
    {
        number += 1;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let marker = decisions.marker(number, &line);
        if let Some(Ok(())) = marker {
            continue;
        }
        let protected = cards.protect(&line);
        let parsed = if let Some(Err(rejection)) = marker {
            Err(rejection)
        } else if let Some(refusal) = protected.refusal {
            Err(refusal)
        } else if whole {
            Transaction::parse(&protected.text).and_then(|transaction| {
                transaction
                    .check_not_before(config.earliest_timestamp, "scorer.earliest_timestamp")?;
                Ok(transaction)
            })
        } else {
            Err(Rejection::new("", "the line is longer than 1 MiB"))
        };
        match (parsed, &mut sorter) {
            (Ok(transaction), None) => decisions.write(&transaction, &mut files.output)?,
            (Ok(transaction), Some(sorter)) => {
                sorter.push(transaction.timestamp.micros(), &protected.text)?;
            }
            (Err(rejection), _) => {
                decisions.totals.rejected += 1;
                if let Some(rejects) = &mut files.rejects {
                    // Null where the whole line is at fault, as in the answers of ingest.
                    let field = Some(rejection.field).filter(|field| !field.is_empty());
                    let entry =
                        json!({ "line": number, "field": field, "reason": rejection.reason });
                    writeln!(rejects, "{entry}").context("cannot write the rejects")?;
                } else if decisions.totals.rejected <= SHOWN {
                    say_rejected(number, &rejection);
                }
            }
        }
    }
    if let Some(sorter) = sorter {
        let mut sorted = sorter.finish()?;
        while let Some(record) = sorted.next_record()? {
            // It was parsed before it was sorted.
            if let Ok(transaction) = Transaction::parse(&record.payload) {
                decisions.write(&transaction, &mut files.output)?;
            }
        }
    }
    Ok(decisions.totals)
}

/// What a run has read.
#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    decisions: u64,
    rejected: u64,
    late: u64,
    /// Transactions before the newest of their user so far.
    backwards: u64,
}

/// Scores transactions in the order in which they are given.
struct Decisions {
    engine: Engine,
    control: Option<ControlFile>,
    version: String,
    now: Timestamp,
    /// The newest timestamp of each user, by a hash of the id, in microseconds.
    newest: HashMap<u64, i64>,
    hashes: RandomState,
    out: Vec<u8>,
    totals: Totals,
}

impl Decisions {
    fn new(config: &ScorerConfig, control: Option<ControlFile>) -> Self {
        let mut engine = Engine::new(Arc::new(config.rules.clone()), random_key());
        if control.is_some() {
            engine.follow_changes();
        }
        Self {
            engine,
            control,
            version: config.rules.version(),
            now: tollgate_service::now(),
            newest: HashMap::new(),
            hashes: RandomState::new(),
            out: Vec::new(),
            totals: Totals::default(),
        }
    }

    /// Puts changes in force if the line is a marker, where changes are followed.
    fn marker(&mut self, number: u64, line: &[u8]) -> Option<Result<(), Rejection>> {
        let control = self.control.as_mut()?;
        let marker = ControlFile::marker(line)?;
        Some(marker.and_then(|marker| control.pass(number, &marker, &mut self.engine)))
    }

    fn write(
        &mut self,
        transaction: &Transaction<'_>,
        output: &mut dyn Write,
    ) -> anyhow::Result<()> {
        if self.control.as_ref().is_some_and(ControlFile::is_stopped) {
            return output
                .write_all(b"null\n")
                .context("cannot write the decisions");
        }
        let time = transaction.timestamp.micros();
        let user = self.hashes.hash_one(&transaction.user_id);
        let newest = self.newest.entry(user).or_insert(time);
        self.totals.backwards += u64::from(time < *newest);
        *newest = time.max(*newest);
        let verdict = self.engine.score(transaction, &Origin::default());
        self.totals.decisions += 1;
        self.totals.late += u64::from(verdict.late);
        self.out.clear();
        verdict.write_decision(
            Tenant::DEFAULT,
            transaction,
            self.now,
            &self.version,
            None,
            &mut self.out,
        );
        self.out.push(b'\n');
        output
            .write_all(&self.out)
            .context("cannot write the decisions")
    }
}

#[expect(clippy::print_stderr, reason = "this is the command's output")]
fn say_rejected(line: u64, rejection: &Rejection) {
    let field = match rejection.field {
        "" => String::new(),
        field => format!("{field}: "),
    };
    let text = format!("{field}{}", rejection.reason);
    eprintln!("tollgate: line {line}: {}", printable(&text));
}

/// Reads one line; none at the end, false where it was too long to hold.
fn read_line(input: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
    line.clear();
    if input.take(MAX_LINE_BYTES).read_until(b'\n', line)? == 0 {
        return Ok(None);
    }
    if line.len() as u64 == MAX_LINE_BYTES && line.last() != Some(&b'\n') {
        line.truncate(1);
        line[0] = b'?';
        input.skip_until(b'\n')?;
        return Ok(Some(false));
    }
    Ok(Some(true))
}
