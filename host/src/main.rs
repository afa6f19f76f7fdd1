//! The `walgate` binary: parse, run, answer with an exit code.

use std::{io::IsTerminal, process::ExitCode};

use clap::Parser;
use tracing_subscriber::EnvFilter;
use walgate_host::{
    cli::{self, Cli},
    commands,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter =
        EnvFilter::try_from_env("WALGATE_LOG").unwrap_or_else(|_| EnvFilter::new(cli.log_filter()));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(commands::log::lines)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(cli::run(cli));
            runtime.shutdown_timeout(std::time::Duration::from_secs(1));
            code
        }
        Err(error) => {
            eprintln!("walgate: the runtime cannot be started: {error}");
            ExitCode::from(4)
        }
    }
}
