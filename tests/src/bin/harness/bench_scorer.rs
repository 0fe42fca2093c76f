//! The scorer, topic to topic, against a plain pass-through with the same client settings in the same run.
//!
//! Each round writes the same transactions to a fresh topic, lets both work through it one after the other, each on its
//! own group and output topic, and takes the wall time from the first to the last record written and the CPU time of
//! the process. `tests/bench scorer` starts Kafka and runs this.

use std::path::PathBuf;
use std::process::Command;

use clap::Args as ClapArgs;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use tollgate_tests::bench::{self, Figures, as_f64, flush_disks, measure};
use tollgate_tests::generate::Day;
use tollgate_tests::kafka::TestLog;
use tollgate_tests::process::{Service, binary};
use tollgate_types::{NewTransaction, Stage};

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Transactions in each round.
    #[arg(long, default_value_t = 500_000)]
    records: usize,
    /// Users they come from.
    #[arg(long, default_value_t = 20_000)]
    users: u32,
    /// Rounds that count; one before them does not. The one that goes first changes from round to round.
    #[arg(long, default_value_t = 4)]
    rounds: usize,
    /// Partitions of each topic.
    #[arg(long, default_value_t = 12)]
    partitions: u16,
    /// A setting of the scorer, as in its environment: NAME=VALUE. May be given more than once.
    #[arg(long = "setting", value_parser = setting)]
    settings: Vec<(String, String)>,
    /// Where the figures go, as JSON.
    #[arg(long, default_value = "target/bench/scorer.json")]
    output: PathBuf,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Round {
    scorer: Figures,
    pass_through: Figures,
    /// Records a second of the scorer, as a share of the pass-through's.
    ratio: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    benchmark: &'static str,
    records: usize,
    bytes_per_record: f64,
    users: u32,
    partitions: u16,
    cores: usize,
    rounds: Vec<Round>,
    median: Round,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let day: Vec<NewTransaction> = Day::new(1, args.users, "t")
        .take(args.records)
        .map(|each| each.transaction)
        .collect();
    let bytes: usize = day
        .iter()
        .take(10_000)
        .map(|each| each.to_json().len())
        .sum();
    let mut rounds = Vec::new();
    for number in 0..=args.rounds {
        let measured = round(&args, &day, number % 2 == 0).await?;
        eprintln!("round {number}: {measured:?}");
        if number > 0 {
            rounds.push(measured);
        }
    }
    let report = Report {
        benchmark: "scorer",
        records: args.records,
        bytes_per_record: as_f64(bytes) / as_f64(day.len().min(10_000)),
        users: args.users,
        partitions: args.partitions,
        cores: std::thread::available_parallelism()?.get(),
        median: median(&rounds)?,
        rounds,
    };
    if let Some(dir) = args.output.parent() {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(&args.output, serde_json::to_vec_pretty(&report)?)?;
    show(&report);
    Ok(())
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

async fn round(args: &Args, day: &[NewTransaction], scorer_first: bool) -> anyhow::Result<Round> {
    let mut log = TestLog::create("bench", args.partitions).await?;
    let passed = log.add_topic("passed", i32::from(args.partitions)).await?;
    let writer = log.writer()?;
    let topic = log.topics().transactions.clone();
    for transaction in day {
        let (key, text) = (transaction.user_id.as_bytes(), transaction.to_json());
        while writer
            .write(&topic, Some(key), Some(text.as_bytes()), &[])
            .is_err()
        {
            writer.flush()?;
        }
    }
    writer.flush()?;
    let (scorer, pass_through);
    if scorer_first {
        scorer = run_scorer(&log, &args.settings, day.len()).await?;
        pass_through = run_pass_through(&log, &passed, day.len()).await?;
    } else {
        pass_through = run_pass_through(&log, &passed, day.len()).await?;
        scorer = run_scorer(&log, &args.settings, day.len()).await?;
    }
    let ratio = scorer.records_per_second / pass_through.records_per_second;
    Ok(Round {
        scorer,
        pass_through,
        ratio,
    })
}

async fn run_scorer(
    log: &TestLog,
    given: &[(String, String)],
    records: usize,
) -> anyhow::Result<Figures> {
    flush_disks()?;
    let watch = log.watch(&log.topics().decisions)?;
    let mut settings = log.settings();
    settings.push((
        "TOLLGATE_SCORER__ADMIN_LISTEN".to_owned(),
        "127.0.0.1:0".to_owned(),
    ));
    settings.push(("TOLLGATE_TELEMETRY__LOG".to_owned(), "warn".to_owned()));
    settings.extend_from_slice(given);
    let service = Service::spawn("tollgate-scorer", &settings)?;
    let (group, input) = (log.group(Stage::Scorer), &log.topics().transactions);
    let figures = measure(service.pid(), &watch, records, || log.lag_of(&group, input)).await?;
    service.stop().await?;
    Ok(figures)
}

async fn run_pass_through(log: &TestLog, output: &str, records: usize) -> anyhow::Result<Figures> {
    flush_disks()?;
    let watch = log.watch(output)?;
    let input = &log.topics().transactions;
    let group = format!("{output}-group");
    let mut process = Command::new(binary("harness")?)
        .args([
            "pass-through",
            "--brokers",
            &log.brokers(),
            "--input",
            input,
            "--output",
            output,
            "--group",
            &group,
        ])
        .spawn()?;
    let figures = measure(process.id(), &watch, records, || log.lag_of(&group, input)).await;
    process.kill()?;
    process.wait()?;
    figures
}

fn median(rounds: &[Round]) -> anyhow::Result<Round> {
    let of = |pick: fn(&Round) -> f64| bench::median(rounds.iter().map(pick));
    Ok(Round {
        scorer: Figures {
            records_per_second: of(|round| round.scorer.records_per_second)?,
            cpu_seconds_per_million: of(|round| round.scorer.cpu_seconds_per_million)?,
        },
        pass_through: Figures {
            records_per_second: of(|round| round.pass_through.records_per_second)?,
            cpu_seconds_per_million: of(|round| round.pass_through.cpu_seconds_per_million)?,
        },
        ratio: of(|round| round.ratio)?,
    })
}

#[expect(clippy::print_stdout, reason = "this is the command's output")]
fn show(report: &Report) {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "round",
        "scorer, records/s",
        "pass-through, records/s",
        "ratio",
        "scorer, CPU s/million",
        "pass-through, CPU s/million",
    ]);
    let numbered = report
        .rounds
        .iter()
        .enumerate()
        .map(|(index, round)| ((index + 1).to_string(), round));
    for (name, round) in numbered.chain([("median".to_owned(), &report.median)]) {
        table.add_row([
            name,
            format!("{:.0}", round.scorer.records_per_second),
            format!("{:.0}", round.pass_through.records_per_second),
            format!("{:.2}", round.ratio),
            format!("{:.2}", round.scorer.cpu_seconds_per_million),
            format!("{:.2}", round.pass_through.cpu_seconds_per_million),
        ]);
    }
    table
        .column_iter_mut()
        .for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    println!(
        "scorer, topic to topic: {} transactions of {:.0} bytes, {} users, {} partitions, {} cores",
        report.records, report.bytes_per_record, report.users, report.partitions, report.cores
    );
    println!("{table}");
}
