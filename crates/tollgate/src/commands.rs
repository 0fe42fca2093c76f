//! The commands and their arguments, and the commands that are only a few lines.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::slice;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use data_encoding::HEXLOWER;
use rand::RngExt as _;
use tollgate_log::{KafkaConfig, Log, Profile, TopicOutcome};
use tollgate_persistence::PersistenceConfig;
use tollgate_service::Shutdown;
use tollgate_service::cli::{ServiceArgs, print_config};
use tollgate_service::cloud::Cloud as _;
use tollgate_service::config::{ConfigError, Settings};
use tollgate_service::http::{ApiKeyConfig, ApiKeys, Scope};
use tollgate_service::telemetry::Telemetry;
use tollgate_types::Role;

use crate::all_in_one::{AllInOne, Configs, JOURNAL};
use crate::arguments::{parse_address, parse_duration, parse_number, parse_principal, whole};
use crate::audit::AuditArgs;
use crate::dlq::DlqArgs;
use crate::imports::ImportsArgs;
use crate::policy::PolicyArgs;
use crate::user::UserArgs;

/// Decides for every payment, within milliseconds, whether it is approved, reviewed or blocked.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
#[command(
    after_help = "Start with `tollgate demo`. Each command has its own help: `tollgate up --help`."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Replay a sample through the whole pipeline in this process and show the result
    Demo(DemoArgs),
    /// Run the whole pipeline in this process until SIGTERM
    Up(UpArgs),
    /// Score a file: transactions as JSON lines in, decisions as JSON lines out
    Score(ScoreArgs),
    /// Check the documents that hold thresholds, features and rules
    Policy(PolicyArgs),
    /// Run ingest, the HTTP API that takes transactions, until SIGTERM
    Ingest(ServiceArgs),
    /// Run the scorer, which decides, until SIGTERM
    Scorer(ServiceArgs),
    /// Run persistence, which stores decisions and serves the read API, until SIGTERM
    Persistence(ServiceArgs),
    /// Run the notifier, which delivers alerts, until SIGTERM
    Notifier(ServiceArgs),
    /// Put a running pipeline under load and measure how long it takes to answer
    Load(LoadArgs),
    /// Manage the topics on a Kafka cluster
    Topics(TopicsArgs),
    /// Make or update the tables of persistence and of the notifier's delivery log
    Migrate(MigrateArgs),
    /// List records that could not be processed, send them through again or drop them
    Dlq(DlqArgs),
    /// Export or erase everything that is kept about a user
    User(UserArgs),
    /// List imported objects: how far each is, and why it failed
    Imports(ImportsArgs),
    /// Receive the notifier's webhooks and show them, for trials
    Receive(ReceiveArgs),
    /// Make an API key, and the setting that admits it
    Key(KeyArgs),
    /// Check or export the audit of who read personal data
    Audit(AuditArgs),
}

/// Ingest, scorer, persistence and notifier run in this process over an embedded log and a SQLite file in a directory
/// of its own; nothing needs to be installed. The sample has 3,000 card transactions, 41 of them labelled as fraud, and a
/// few cases are added that it lacks: card testing, impossible travel, round amounts.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Replay this file of JSON lines instead of the sample.
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Transactions a second; 0 is as fast as possible.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = whole::<u32>)]
    pub(crate) rate: u32,
}

/// Without a configuration: an embedded log with a journal, SQLite files and alerts under ./tollgate-data, everything on
/// loopback, no API keys. 202 means that the transaction is in the journal on disk: after a crash or a restart it is
/// decided, stored and its alert delivered, and histories are rebuilt from the journal. While readers are slow, writers
/// wait, and HTTP callers get 503 with Retry-After. Name a cluster in `kafka.brokers` for more than one process.
/// `tollgate-data/up.json` has the addresses while it runs; `tollgate dlq`, `imports` and `load` find it by that file.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) service: ServiceArgs,
}

/// The same engine as the scorer's, in the order of the input or of its timestamps, without a log. A line that is no
/// transaction goes to the rejects as {"line", "field", "reason"}; without --rejects the first ten are named on standard error, with their
/// number at the end.
#[derive(Debug, Args)]
pub(crate) struct ScoreArgs {
    /// Transactions, one JSON object a line; - is standard input.
    #[arg(long, value_name = "FILE|-")]
    pub(crate) input: String,
    /// Decisions, one JSON object a line; - is standard output.
    #[arg(long, value_name = "FILE|-")]
    pub(crate) output: String,
    /// Lines that are no transaction, one JSON object each.
    #[arg(long, value_name = "FILE")]
    pub(crate) rejects: Option<PathBuf>,
    /// The order in which transactions are scored and written: that of the file, or of their timestamps. A file that is
    /// sorted needs room for a copy of itself in the directory for temporary files ($TMPDIR), unless it is small.
    #[arg(long, value_enum, value_name = "ORDER", default_value_t)]
    pub(crate) order: ScoreOrder,
    /// The changes of the control topic, one a line: line N, from 0, is change N. A line {"tollgate":{"change":N}} of the
    /// input puts the changes up to N in force for the transactions after it; decisions say which policy decided.
    #[arg(long, value_name = "FILE")]
    pub(crate) control: Option<PathBuf>,
    /// TOML file with the rules (section scorer.rules).
    #[arg(long, env = "TOLLGATE_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// The order in which `tollgate score` takes transactions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ScoreOrder {
    /// By timestamp; those with the same timestamp in the order of the file
    Time,
    /// As the lines of the file
    #[default]
    File,
}

/// Open loop: transactions are sent at their time whether or not earlier ones were answered, and latency is counted
/// from the time at which each was due, so that a stall shows in every transaction that it delayed. Only accepted ones
/// have a latency; failures are counted by kind, with the first of each. Without --url and --brokers the target is the
/// `tollgate up` that runs in this directory, if it listens on loopback, stores in SQLite and delivers alerts to files and
/// the console only: what is sent is decided, stored and alerted like any other transaction.
#[derive(Debug, Clone, Args)]
#[command(group(clap::ArgGroup::new("target").args(["url", "brokers"])))]
#[command(group(clap::ArgGroup::new("source").args(["input", "users"])))]
pub(crate) struct LoadArgs {
    /// Ingest to send to, such as http://127.0.0.1:8080; latency is that of the answer.
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Brokers to write to, without ingest; latency is that of the acknowledgement.
    #[arg(long, value_name = "HOST:PORT,…")]
    pub(crate) brokers: Option<String>,
    /// Send the transactions of this file, in its order, until it ends.
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Generate transactions of this many users. Few users at a high rate cause alerts of their own: each then pays very
    /// often, and the same amounts.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = whole::<u32>)]
    pub(crate) users: u32,
    /// Percentage of generated transactions that look like fraud: a distant place, a high or round amount. Most of them are
    /// alerts, and so is the next payment of the same user, at home again: twice this percentage in all.
    #[arg(
        long,
        value_name = "PERCENT",
        default_value_t = 0.5,
        value_parser = parse_number,
        conflicts_with = "input"
    )]
    pub(crate) fraud: f64,
    /// Send to the `tollgate up` of this directory even where it is not one for trials.
    #[arg(long, conflicts_with = "target")]
    pub(crate) yes: bool,
    /// Transactions a second.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = whole::<u32>)]
    pub(crate) rate: u32,
    /// How long, such as 30s or 5m.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub(crate) duration: Duration,
    /// Seed of the generated transactions: the same seed gives the same users, amounts and places.
    #[arg(long, value_name = "S", default_value_t = 1, value_parser = whole::<u64>)]
    pub(crate) seed: u64,
    /// Transactions in one request, when sending over HTTP.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole::<u32>)]
    pub(crate) batch: u32,
    /// Ask for the decision in the answer, and wait for it this many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = parse_number, conflicts_with = "brokers")]
    pub(crate) wait: Option<f64>,
    /// API key, where ingest requires one.
    #[arg(
        long,
        env = "TOLLGATE_API_KEY",
        hide_env_values = true,
        value_name = "KEY"
    )]
    pub(crate) api_key: Option<String>,
    /// Prefix of the topics, when writing to brokers.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) topic_prefix: String,
}

#[derive(Debug, Args)]
pub(crate) struct TopicsArgs {
    #[command(subcommand)]
    command: TopicsCommand,
}

#[derive(Debug, Subcommand)]
enum TopicsCommand {
    /// Make every topic that does not exist
    Create(CreateArgs),
}

/// transactions, decisions, alerts, replies and the dead-letter topics. The number of partitions cannot be changed
/// later without separating users from their histories, so choose enough.
#[derive(Debug, Args)]
struct CreateArgs {
    /// TOML file with the settings (section kafka).
    #[arg(long, env = "TOLLGATE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Brokers; kafka.brokers where not given.
    #[arg(long, value_name = "HOST:PORT,…")]
    brokers: Option<String>,
    /// Partitions of each topic; kafka.partitions (12) where not given.
    #[arg(long, value_name = "N", value_parser = whole::<u16>)]
    partitions: Option<u16>,
    /// Copies of each partition; kafka.replication (the brokers' default) where not given.
    #[arg(long, value_name = "N", value_parser = whole::<i32>)]
    replication: Option<i32>,
    /// How long records are kept; kafka.retention_hours (288) where not given.
    #[arg(long, value_name = "HOURS", value_parser = whole::<u32>)]
    retention_hours: Option<u32>,
    /// Also print the commands of kafka-acls.sh that permit each service what it needs and nothing else, as a shell script:
    /// `tollgate topics create --acls | sh`. $KAFKA_ACLS is the program, $KAFKA_ACLS_CONFIG its --command-config.
    #[arg(long)]
    acls: bool,
    /// Who a service is on the cluster, such as notifier=User:alerts; User:tollgate-NAME where not given. Names: ingest,
    /// scorer, persistence, notifier, operator (these commands), producer (others who write transactions).
    #[arg(long = "principal", value_name = "NAME=PRINCIPAL", value_parser = parse_principal, requires = "acls")]
    principals: Vec<(Role, String)>,
}

/// As the services do when they start: versions are applied in order, and of two migrations at once one waits. The
/// databases are those of persistence.database_url and notifier.delivery_log_url; one that is not set is skipped.
#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    /// TOML file with the settings.
    #[arg(long, env = "TOLLGATE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// A sink of kind webhook sends to http://HOST:PORT/alerts; / is a page for people, and GET /alerts has the last 20,000
/// as JSON, without authentication. Nothing is kept when the process ends.
#[derive(Debug, Args)]
pub(crate) struct ReceiveArgs {
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8090", value_parser = parse_address)]
    pub(crate) listen: SocketAddr,
    /// The secret that the sink signs with; any other signature is refused.
    #[arg(
        long,
        env = "TOLLGATE_RECEIVE_SECRET",
        hide_env_values = true,
        value_name = "whsec_…"
    )]
    pub(crate) secret: Option<String>,
}

/// The key is shown once. Only its hash goes into the settings.
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    /// Name of the caller that will use the key.
    name: String,
    /// Scope of the key: transactions:write for ingest, decisions:read for the read API, or another that a service has.
    #[arg(
        long = "scope",
        value_name = "SCOPE",
        default_value = "transactions:write"
    )]
    scopes: Vec<Scope>,
    /// Tenant whose transactions the key sends and reads; the default tenant unless given, `*` to read all tenants.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// When the key ends, RFC 3339.
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
}

/// Runs a command. Tasks that are left when it ends by an error do not delay the end of the process.
pub(crate) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(future);
    runtime.shutdown_background();
    result
}

/// Writes to standard output. A reader that has ended, as `head` does, is an error and not a panic.
pub(crate) fn say(text: impl std::fmt::Display) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    write!(out, "{text}")
        .and_then(|()| out.flush())
        .context("standard output")
}

/// Directory in which `up` keeps everything that is not configured.
pub(crate) const DATA: &str = "tollgate-data";

/// `tollgate up`
pub(crate) fn up(args: &UpArgs) -> anyhow::Result<()> {
    let mut settings = args.service.settings()?;
    Configs::set_defaults(&mut settings, DATA)?;
    let mut configs = Configs::read(&settings, DATA)?;
    if configs.kafka.profile() == Profile::Embedded && !settings.is_set("kafka.journal") {
        configs.kafka.journal = format!("{DATA}/{JOURNAL}");
    }
    if args.service.print_config {
        return print_config(&configs);
    }
    let cloud = configs.oci.clone();
    let serving = async {
        let telemetry = Telemetry::start("tollgate", &configs.telemetry)?;
        let shutdown = Shutdown::on_signal();
        let mut running = AllInOne::start(configs, &shutdown).await?;
        if running.until_ready(&shutdown).await {
            running.publish()?;
            say(running.addresses())?;
        }
        let ended = running.join().await;
        telemetry.stop().await;
        ended
    };
    block_on(cloud.beside("tollgate", serving))
}

/// The settings of a command, of a file and the environment.
pub(crate) fn settings(config: Option<PathBuf>) -> anyhow::Result<Settings> {
    ServiceArgs {
        config,
        print_config: false,
    }
    .settings()
}

/// Section `kafka` of the settings, with the brokers of the command line.
pub(crate) fn kafka_config(
    config: Option<PathBuf>,
    brokers: Option<String>,
) -> anyhow::Result<KafkaConfig> {
    let mut config: KafkaConfig = settings(config)?.section("kafka")?;
    config.brokers = brokers.unwrap_or(config.brokers);
    Ok(config)
}

/// `tollgate topics create`
pub(crate) async fn topics(args: TopicsArgs) -> anyhow::Result<()> {
    let TopicsCommand::Create(args) = args.command;
    let mut config = kafka_config(args.config, args.brokers)?;
    config.partitions = args.partitions.unwrap_or(config.partitions);
    config.replication = args.replication.unwrap_or(config.replication);
    config.retention_hours = args.retention_hours.unwrap_or(config.retention_hours);
    let wanted = i32::from(config.partitions);
    anyhow::ensure!(
        !args.acls || config.profile() == Profile::Kafka,
        "--acls: OCI Streaming has no ACLs; deploy/terraform has its policies"
    );
    let kafka = Log::open_cluster(config)?;
    // Comments of the script, where it is one.
    let start = if args.acls { "# " } else { "" };
    for (topic, outcome) in kafka.create_topics().await? {
        match outcome {
            TopicOutcome::Created => say(format_args!(
                "{start}{topic}: created with {wanted} partitions\n"
            ))?,
            TopicOutcome::Existed { partitions } if partitions == wanted => {
                say(format_args!("{start}{topic}: exists\n"))?;
            }
            TopicOutcome::Existed { partitions } => {
                say(format_args!(
                    "{start}{topic}: exists with {partitions} partitions, not changed (requested: {wanted})\n"
                ))?;
            }
        }
    }
    if args.acls {
        let principals = args.principals.into_iter().collect();
        say("set -e\n")?;
        for grant in kafka.grants() {
            say(grant.command(&kafka.brokers(), &principals) + "\n")?;
        }
    }
    Ok(())
}

/// `tollgate migrate`
pub(crate) async fn migrate(args: MigrateArgs) -> anyhow::Result<()> {
    let settings = settings(args.config)?;
    let (store, delivery_log) = ("persistence.database_url", "notifier.delivery_log_url");
    // Both sections are read, whichever is set, so that a misspelt setting is an error.
    let (persistence, notifier) = (
        PersistenceConfig::read(&settings)?,
        settings.section("notifier")?,
    );
    anyhow::ensure!(
        settings.is_set(store) || settings.is_set(delivery_log),
        "{store}: set it, or {delivery_log}, or both"
    );
    // Some errors name the setting already.
    let named = |setting: &'static str, error: anyhow::Error| match error.to_string() {
        text if text.starts_with(setting) => error,
        _ => error.context(setting),
    };
    if settings.is_set(store) {
        let migrated = tollgate_persistence::migrate(&persistence).await;
        migrated.map_err(|error| named(store, error))?;
        say(format_args!("{store}: the tables are up to date\n"))?;
    }
    if settings.is_set(delivery_log) {
        let migrated = tollgate_notifier::migrate(&notifier).await;
        migrated.map_err(|error| named(delivery_log, error))?;
        say(format_args!("{delivery_log}: the tables are up to date\n"))?;
    }
    Ok(())
}

/// An error in the entry of a key, by the name of the argument that it comes from.
fn as_argument(error: ConfigError) -> anyhow::Error {
    let ConfigError::Invalid { setting, reason } = &error else {
        return error.into();
    };
    let argument = match setting.rsplit('.').next() {
        Some("name") => "NAME",
        Some("scopes") => "--scope",
        Some("tenant") => "--tenant",
        Some("expires") => "--expires",
        _ => return error.into(),
    };
    anyhow::anyhow!("{argument}: {reason}")
}

/// `tollgate key`
pub(crate) fn key(args: &KeyArgs) -> anyhow::Result<()> {
    let random: [u8; 32] = rand::rng().random();
    let key = format!("tg_{}", HEXLOWER.encode(&random));
    let entry = ApiKeyConfig {
        name: args.name.clone(),
        hash: ApiKeys::hash_of(&key),
        scopes: args.scopes.clone(),
        tenant: args.tenant.clone(),
        expires: args.expires.clone(),
        certificate: None,
    };
    // What a service would refuse is refused here.
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    ApiKeys::new("key", slice::from_ref(&entry), None, loopback, &args.scopes)
        .map_err(as_argument)?;
    say(format_args!("key, shown only now:\n\n    {key}\n\n"))?;
    say("add to the configuration file (--config, TOLLGATE_CONFIG):\n\n")?;
    // Each API has a list of its own.
    let reads = args.scopes.contains(&Scope::DECISIONS_READ);
    let only_reads = args
        .scopes
        .iter()
        .all(|scope| *scope == Scope::DECISIONS_READ);
    let sections = [("ingest", !only_reads), ("persistence", reads)];
    let sections = sections.into_iter().filter(|(_, is_meant)| *is_meant);
    for (section, _) in sections.clone() {
        say(format_args!("    [[{section}.api_keys]]\n"))?;
        for line in toml::to_string(&entry)?.lines() {
            say(format_args!("    {line}\n"))?;
        }
        say("\n")?;
    }
    let files: Vec<String> = sections
        .map(|(section, _)| format!("{section}.api_keys_file"))
        .collect();
    say(format_args!(
        "or, to change keys without a restart, to the file that {} names, with the first line [[api_keys]]\n",
        files.join(" and that ")
    ))
}
