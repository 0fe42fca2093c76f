//! `tollgate score`: the engine without a log, for files.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::json;
use tollgate_engine::{Engine, Origin};
use tollgate_scorer::ScorerConfig;
use tollgate_service::random_key;
use tollgate_service::terminal::printable_lines;
use tollgate_types::{Rejection, Tenant, Transaction};

use crate::commands::{ScoreArgs, settings};

/// Exit code for arguments that cannot be used, as clap has it.
const UNUSABLE: u8 = 2;
/// Exit code when lines were rejected and --rejects was not given.
const REJECTED: u8 = 3;
/// A longer line is rejected without being held in memory.
const MAX_LINE_BYTES: u64 = 1024 * 1024;

#[expect(clippy::print_stderr, reason = "this is the command's output")]
pub(crate) fn run(args: &ScoreArgs) -> anyhow::Result<ExitCode> {
    let mut files = match Files::open(args) {
        Ok(files) => files,
        Err(error) => {
            let text = format!("{error:#}");
            eprintln!("tollgate: {}", printable_lines(&text));
            return Ok(ExitCode::from(UNUSABLE));
        }
    };
    let config: ScorerConfig = settings(args.config.clone())?.section("scorer")?;
    config.validate()?;
    let rejected = score(&config, &mut files)?;
    files.output.flush().context("cannot write the decisions")?;
    if let Some(rejects) = &mut files.rejects {
        rejects.flush().context("cannot write the rejects")?;
    }
    if rejected == 0 || args.rejects.is_some() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("tollgate: {rejected} lines were rejected; --rejects FILE gets each with the reason");
    Ok(ExitCode::from(REJECTED))
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

/// Scores line by line; how many were rejected.
fn score(config: &ScorerConfig, files: &mut Files) -> anyhow::Result<u64> {
    let mut engine = Engine::new(Arc::new(config.rules.clone()), random_key());
    let version = config.rules.version();
    let cards = config.card_policy()?;
    let now = tollgate_service::now();
    let (mut line, mut out) = (Vec::new(), Vec::new());
    let (mut number, mut rejected) = (0_u64, 0_u64);
    while let Some(whole) =
        read_line(&mut *files.input, &mut line).context("cannot read the input")?
    {
        number += 1;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let protected = cards.protect(&line);
        let parsed = if let Some(refusal) = protected.refusal {
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
        match parsed {
            Ok(transaction) => {
                out.clear();
                engine
                    .score(&transaction, &Origin::default())
                    .write_decision(Tenant::DEFAULT, &transaction, now, &version, None, &mut out);
                out.push(b'\n');
                files
                    .output
                    .write_all(&out)
                    .context("cannot write the decisions")?;
            }
            Err(rejection) => {
                rejected += 1;
                if let Some(rejects) = &mut files.rejects {
                    let entry = json!({ "line": number, "field": rejection.field, "reason": rejection.reason });
                    writeln!(rejects, "{entry}").context("cannot write the rejects")?;
                }
            }
        }
    }
    Ok(rejected)
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
