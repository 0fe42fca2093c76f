//! What telemetry costs the scorer: topic to topic without it, with it, and with a collector that is gone.
//!
//! Each round runs the scorer once with each, on a fresh topic of the same transactions. With telemetry one in a hundred is
//! kept, and carries its context; blocked and reviewed ones are kept too. With `--passed-on` there is one run more: contexts
//! that callers gave to all of them, without telemetry. `tests/bench telemetry` starts Kafka and runs this.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use tollgate_tests::bench::{Figures, flush_disks, measure, median};
use tollgate_tests::collector::{Collector, free_port};
use tollgate_tests::generate::Day;
use tollgate_tests::kafka::TestLog;
use tollgate_tests::process::Service;
use tollgate_types::{NewTransaction, Stage, TraceContext, Transaction};

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Transactions in each run.
    #[arg(long, default_value_t = 1_000_000)]
    records: usize,
    /// Users they come from.
    #[arg(long, default_value_t = 20_000)]
    users: u32,
    /// Run with the contexts of others and without telemetry too.
    #[arg(long)]
    passed_on: bool,
    /// Rounds that count; one before them does not. The one that goes first changes from round to round.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Partitions of each topic.
    #[arg(long, default_value_t = 12)]
    partitions: u16,
    /// Where the figures go, as JSON.
    #[arg(long, default_value = "target/bench/telemetry.json")]
    output: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Telemetry {
    /// No endpoint, and no contexts.
    Off,
    /// No endpoint; the contexts of others are passed on.
    PassedOn,
    On,
    /// With an endpoint that refuses connections.
    Gone,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Run {
    telemetry: Telemetry,
    #[serde(flatten)]
    figures: Figures,
    /// Of the process at its end, in MiB.
    resident_mib: f64,
    spans_sent: f64,
    spans_lost: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    benchmark: &'static str,
    records: usize,
    users: u32,
    partitions: u16,
    cores: usize,
    rounds: Vec<Vec<Run>>,
    /// Records a second of each, as a share of those without telemetry: the median of the rounds.
    throughput: Vec<(Telemetry, f64)>,
    /// CPU time likewise.
    cpu: Vec<(Telemetry, f64)>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let day: Vec<NewTransaction> = Day::new(1, args.users, "t")
        .take(args.records)
        .map(|each| each.transaction)
        .collect();
    let mut all = vec![Telemetry::Off, Telemetry::On, Telemetry::Gone];
    if args.passed_on {
        all.push(Telemetry::PassedOn);
    }
    let mut rounds = Vec::new();
    for number in 0..=args.rounds {
        let mut runs = Vec::new();
        for turn in 0..all.len() {
            let telemetry = all[(number + turn) % all.len()];
            let run = measured_run(&args, &day, telemetry).await?;
            eprintln!("round {number}: {run:?}");
            runs.push(run);
        }
        if number > 0 {
            rounds.push(runs);
        }
    }
    let shares = |pick: fn(&Run) -> f64| {
        let share = |telemetry| {
            let of = |runs: &Vec<Run>, wanted| {
                runs.iter()
                    .find(|run| run.telemetry == wanted)
                    .map_or(f64::NAN, pick)
            };
            let each = rounds
                .iter()
                .map(|runs| of(runs, telemetry) / of(runs, Telemetry::Off));
            Ok((telemetry, median(each)?))
        };
        all.iter()
            .copied()
            .map(share)
            .collect::<anyhow::Result<Vec<_>>>()
    };
    let report = Report {
        benchmark: "telemetry",
        records: args.records,
        users: args.users,
        partitions: args.partitions,
        cores: std::thread::available_parallelism()?.get(),
        throughput: shares(|run| run.figures.records_per_second)?,
        cpu: shares(|run| run.figures.cpu_seconds_per_million)?,
        rounds,
    };
    if let Some(dir) = args.output.parent() {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(&args.output, serde_json::to_vec_pretty(&report)?)?;
    show(&report);
    Ok(())
}

async fn measured_run(
    args: &Args,
    day: &[NewTransaction],
    telemetry: Telemetry,
) -> anyhow::Result<Run> {
    let log = TestLog::create("bench", args.partitions).await?;
    write(&log, day, telemetry)?;
    flush_disks()?;
    let collector = match telemetry {
        Telemetry::On => Some(Collector::start().await?),
        Telemetry::Off | Telemetry::PassedOn | Telemetry::Gone => None,
    };
    let endpoint = match (&collector, telemetry) {
        (Some(collector), _) => Some(collector.http()),
        (None, Telemetry::Gone) => Some(format!("http://127.0.0.1:{}", free_port()?)),
        (None, _) => None,
    };
    let watch = log.watch(&log.topics().decisions)?;
    let mut settings = log.settings();
    let mut set =
        |name: &str, value: &str| settings.push((format!("TOLLGATE_{name}"), value.to_owned()));
    set("SCORER__ADMIN_LISTEN", "127.0.0.1:0");
    set("TELEMETRY__LOG", "error");
    if let Some(endpoint) = &endpoint {
        set("TELEMETRY__OTLP_ENDPOINT", endpoint);
    }
    let mut service = Service::spawn("tollgate-scorer", &settings)?;
    let (group, input) = (log.group(Stage::Scorer), &log.topics().transactions);
    let lag = || log.lag_of(&group, input);
    let figures = measure(service.pid(), &watch, day.len(), lag).await?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid()))?;
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<f64>().ok());
    let items = "tollgate_telemetry_items_total{signal=\"spans\",outcome=";
    let spans_sent = service.metric(&format!("{items}\"sent\"")).await?;
    let dropped = service.metric(&format!("{items}\"dropped\"")).await?;
    let failed = service.metric(&format!("{items}\"failed\"")).await?;
    service.stop().await?;
    Ok(Run {
        telemetry,
        figures,
        resident_mib: resident.unwrap_or_default() / 1024.0,
        spans_sent,
        spans_lost: dropped + failed,
    })
}

fn write(log: &TestLog, day: &[NewTransaction], telemetry: Telemetry) -> anyhow::Result<()> {
    let writer = log.writer()?;
    let topic = &log.topics().transactions;
    for (number, transaction) in (1_u64..).zip(day) {
        let (key, text) = (transaction.user_id.as_bytes(), transaction.to_json());
        let trace =
            TraceContext::new(u128::from(number), number, number % 100 == 0).filter(|trace| {
                match telemetry {
                    Telemetry::Off => false,
                    Telemetry::PassedOn => true,
                    // As ingest does it, where no caller gave one.
                    Telemetry::On | Telemetry::Gone => trace.is_sampled(),
                }
            });
        let line = match Transaction::parse(text.as_bytes()) {
            Ok(parsed) => parsed.one_line_in(trace).into_owned(),
            Err(rejection) => anyhow::bail!("{rejection}"),
        };
        let header = trace.map(|trace| trace.to_string());
        let headers: Vec<(&str, &str)> = header
            .iter()
            .map(|header| ("traceparent", &**header))
            .collect();
        while writer
            .write(topic, Some(key), Some(line.as_bytes()), &headers)
            .is_err()
        {
            writer.flush()?;
        }
    }
    writer.flush()
}

#[expect(clippy::print_stdout, reason = "this is the command's output")]
fn show(report: &Report) {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "round",
        "telemetry",
        "records/s",
        "CPU s/million",
        "resident MiB",
        "spans sent",
        "spans lost",
    ]);
    for (number, runs) in (1..).zip(&report.rounds) {
        for run in runs {
            table.add_row([
                number.to_string(),
                format!("{:?}", run.telemetry).to_lowercase(),
                format!("{:.0}", run.figures.records_per_second),
                format!("{:.2}", run.figures.cpu_seconds_per_million),
                format!("{:.0}", run.resident_mib),
                format!("{:.0}", run.spans_sent),
                format!("{:.0}", run.spans_lost),
            ]);
        }
    }
    table
        .column_iter_mut()
        .for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    println!(
        "the scorer with and without telemetry: {} transactions, {} users, {} partitions, {} cores",
        report.records, report.users, report.partitions, report.cores
    );
    println!("{table}");
    for (what, shares) in [
        ("throughput", &report.throughput),
        ("CPU time", &report.cpu),
    ] {
        for (telemetry, share) in shares {
            println!("{what} with telemetry {telemetry:?}: {share:.3} of that without, median");
        }
    }
}
