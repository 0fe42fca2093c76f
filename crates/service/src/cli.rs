//! The command line of a service: that of the service programs, and of the commands of `tollgate` with the same names.

use std::path::PathBuf;

use clap::Parser;

use crate::cloud::Cloud;
use crate::config::Settings;
use crate::telemetry::{Telemetry, TelemetryConfig};

/// Exit statuses of a service's own program, for its help.
const STATUSES: &str = "Exit status: 0 after SIGTERM or SIGINT; 1 it could not start, or has failed; 2 wrong arguments";

/// Runs one of Tollgate's services until SIGTERM. Settings come from a TOML file and the environment.
#[derive(Debug, Clone, Parser)]
#[command(version, after_help = STATUSES)]
pub struct ServiceArgs {
    /// TOML file with the settings; every setting can also be given as TOLLGATE_SECTION__KEY.
    #[arg(long, env = "TOLLGATE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the effective settings, without secrets, and end.
    #[arg(long)]
    pub print_config: bool,
}

impl ServiceArgs {
    /// Reads the command line of a service's own program; ends the process where it is wrong or asks for help.
    #[must_use]
    pub fn from_command_line() -> Self {
        Self::parse()
    }

    /// Reads the settings from file and environment.
    ///
    /// # Errors
    /// Names the invalid setting.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        Ok(Settings::load(self.config.as_deref(), std::env::vars())?)
    }
}

/// A service as a process: reads the settings, then prints them or runs until the service ends.
///
/// # Errors
/// The error of the service.
pub fn run_service<B, C, R>(
    service: &'static str,
    args: &ServiceArgs,
    parse: impl FnOnce(&Settings) -> anyhow::Result<C>,
    run: impl FnOnce(C, B) -> R,
) -> anyhow::Result<()>
where
    B: Cloud + Clone,
    C: serde::Serialize,
    R: Future<Output = anyhow::Result<()>>,
{
    #[derive(serde::Serialize)]
    struct All<'a, C, B> {
        #[serde(flatten)]
        own: &'a C,
        oci: &'a B,
    }

    keep_files_private();
    let settings = args.settings()?;
    let config = parse(&settings)?;
    let cloud = B::read(&settings)?;
    let telemetry: TelemetryConfig = settings.section("telemetry")?;
    telemetry.validate()?;
    if args.print_config {
        let all = All {
            own: &config,
            oci: &cloud,
        };
        return print_config(&all);
    }
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let telemetry = Telemetry::start(&format!("tollgate-{service}"), &telemetry)?;
            let ended = cloud.beside(service, run(config, cloud.clone())).await;
            telemetry.stop().await;
            ended
        })
}

/// Gives every file that this process makes from now on the mode 0600, and every directory 0700: stores, journals, snapshots
/// and alerts have payments in them. Files that exist keep their mode.
pub fn keep_files_private() {
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
}

/// Prints settings as TOML, secrets hidden.
///
/// # Errors
/// They cannot be written as TOML.
#[expect(clippy::print_stdout, reason = "this is the command's output")]
pub fn print_config(config: &impl serde::Serialize) -> anyhow::Result<()> {
    print!("{}", toml::to_string_pretty(config)?);
    Ok(())
}
