//! The command line: the commands of `walgate`, and their exit codes.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use tracing_subscriber::{EnvFilter, filter::ParseError};
use walgate_consumer::{Error, ErrorKind};
use walgate_nats_connect::NatsConnectError;

use crate::commands;
use walgate_host::{
    config::ConfigError, jetstream::streams::JetStreamError, postgres::PostgresError,
};

/// Exit codes, beside clap's own 2 for a wrong command line.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done, or stopped as asked
  1  the command ran and the answer is no (verify found differences, a snapshot failed)
  2  configuration or command line refused; nothing was changed
  3  a server that is needed cannot be used (rights, version, settings)
  4  stopped by an error while running";

/// A gate in front of Postgres' write-ahead log: snapshots and changes of chosen tables, over NATS.
#[derive(Debug, Parser)]
#[command(name = "walgate", version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway: Postgres in, NATS out
    Run(RunArgs),
    /// Print the SQL that makes the gateway's role, grants and publication
    InitSql(commands::init_sql::Args),
    /// Keep a local SQLite or Postgres copy of tables
    Replicate(commands::replicate::Args),
    /// Print changes as JSON lines
    Tail(commands::tail::Args),
    /// Request a snapshot and watch it
    Snapshot(commands::snapshot::Args),
    /// Compare a copy with its source, table by table
    Verify(commands::verify::Args),
    /// Train zstd dictionaries on a table's rows
    Train(commands::train::Args),
    /// Write, check, test and watch guests, which decide what a table publishes
    Guest(commands::guest::Args),
    /// Print rows that guests failed on, where tables set them aside
    Dlq(commands::dlq::Args),
    /// Prepare a NATS server: permissions, streams
    Nats(commands::nats::Args),
    /// See all of it at work: private servers, a small shop, a replica
    #[cfg(feature = "demo")]
    Demo(walgate_demo::Args),
}

impl Cli {
    /// The default log level without `WALGATE_LOG`: notable events, if the log is the only output.
    pub fn log_filter(&self) -> &'static str {
        match self.command {
            Command::Run(_) | Command::Replicate(_) => "info,async_nats=warn,tokio_postgres=warn",
            _ => "warn",
        }
    }
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// Configuration file [default: walgate.toml if there is one]
    #[arg(short, long, env = "WALGATE_CONFIG")]
    config: Option<PathBuf>,
}

/// At debug level the NATS client prints server replies, rows included. It is silent unless
/// `WALGATE_LOG` names it.
fn log_filter(asked: &str) -> Result<EnvFilter, ParseError> {
    let quiet = if asked.contains("async_nats") { "" } else { ",async_nats=info" };
    EnvFilter::try_new(format!("{asked}{quiet}"))
}

/// The whole program: parse, run, exit code. Not in the binary, so that its code is generated once,
/// with this crate.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = std::env::var("WALGATE_LOG").ok().and_then(|filter| log_filter(&filter).ok());
    let filter = filter.unwrap_or_else(|| EnvFilter::new(cli.log_filter()));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(log_lines)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(run(cli));
            runtime.shutdown_timeout(Duration::from_secs(1));
            code
        }
        Err(error) => {
            eprintln!("walgate: the runtime cannot be started: {error}");
            ExitCode::from(4)
        }
    }
}

/// Standard error; the demo holds lines back while a screen is drawn there.
#[cfg(feature = "demo")]
fn log_lines() -> impl std::io::Write {
    walgate_demo::held_log::lines()
}

#[cfg(not(feature = "demo"))]
fn log_lines() -> impl std::io::Write {
    std::io::stderr()
}

async fn run(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Run(args) => return run_gateway(args).await,
        Command::InitSql(args) => commands::init_sql::run(args),
        Command::Replicate(args) => Box::pin(commands::replicate::run(args)).await,
        Command::Tail(args) => Box::pin(commands::tail::run(args)).await,
        Command::Snapshot(args) => Box::pin(commands::snapshot::run(args)).await,
        Command::Verify(args) => Box::pin(commands::verify::run(args)).await,
        Command::Train(args) => Box::pin(commands::train::run(args)).await,
        Command::Guest(args) => Box::pin(commands::guest::run(args)).await,
        Command::Dlq(args) => Box::pin(commands::dlq::run(args)).await,
        Command::Nats(args) => Box::pin(commands::nats::run(args)).await,
        #[cfg(feature = "demo")]
        Command::Demo(args) => Box::pin(walgate_demo::run(args)).await,
    };
    result.unwrap_or_else(|error| {
        eprintln!("walgate: {error:#}");
        ExitCode::from(exit_code(&error))
    })
}

/// As documented above.
fn exit_code(error: &anyhow::Error) -> u8 {
    let of = |cause: &(dyn std::error::Error + 'static)| {
        if let Some(error) = cause.downcast_ref::<walgate_consumer::Error>() {
            return match error.kind() {
                ErrorKind::Configuration => Some(2),
                ErrorKind::Nats if matches!(error, Error::Connect(_)) => Some(3),
                _ => None,
            };
        }
        if let Some(JetStreamError::Connect(NatsConnectError::Setting { .. })) =
            cause.downcast_ref()
        {
            return Some(2);
        }
        if let Some(PostgresError::Url(_)) = cause.downcast_ref() {
            return Some(2);
        }
        if cause.is::<ConfigError>() || cause.is::<commands::Usage>() {
            return Some(2);
        }
        (cause.is::<PostgresError>() || cause.is::<JetStreamError>()).then_some(3)
    };
    error.chain().find_map(of).unwrap_or(4)
}

async fn run_gateway(args: RunArgs) -> ExitCode {
    let config = match walgate_host::config::Config::load(args.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("walgate: {error}");
            return ExitCode::from(2);
        }
    };
    let gateway = walgate_host::supervisor::run(
        config,
        walgate_host::observe::status::Status::default(),
        walgate_host::supervisor::stop_signal(),
    );
    match Box::pin(gateway).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("walgate: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
