//! `cargo xtask chaos`: real faults under a seeded load, and the oracle after each. Nothing is lost
//! or repeated, and every copy holds the rows that the guest accepts. Memory stays bounded, and the
//! slot advances again.
//!
//! A case is a function in the file of its subject and a line in `cases.rs`. `stage.rs` is their
//! common ground.
#![allow(clippy::unwrap_used, reason = "a case fails where it stands")]

mod assets;
mod cases;
mod cluster;
mod consumer;
mod failover;
mod flood;
mod gateway;
mod machine;
mod mixed;
mod nats;
mod password;
mod postgres;
mod report;
mod run;
mod stage;
mod workload;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use walgate_servers::{PgBin, find_all_postgres};

use cases::CASES;

/// Break things while they run, and prove that nothing was lost
#[derive(Debug, Parser)]
#[command(name = "cargo xtask chaos")]
struct Args {
    /// The seed of the load and of the moments of faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The long form: larger faults, one seed after the other for so many minutes, the first seed
    /// completely. The version of Postgres changes with each case and seed. Without it: the short
    /// form, once
    #[arg(long)]
    minutes: Option<u64>,
    /// Only cases whose name contains this
    #[arg(long, value_name = "CASE", num_args = 1..)]
    only: Vec<String>,
    /// One JSON object per line instead of the table
    #[arg(long)]
    json: bool,
    /// List the cases and what they do
    #[arg(long)]
    list: bool,
    /// Only this major version of Postgres. By default: the newest in the short form, each
    /// installed one in turn in the long form
    #[arg(long, value_name = "MAJOR")]
    postgres: Option<u32>,
    /// Cases side by side; by default three for each core
    #[arg(long)]
    jobs: Option<usize>,
}

fn main() -> ExitCode {
    match run_cases(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether no case failed.
fn run_cases(args: &Args) -> Result<bool> {
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|o| name.contains(&**o));
    let cases: Vec<_> = CASES.iter().filter(|case| wanted(case.name)).collect();
    ensure!(!cases.is_empty(), "no case is called {}; --list names them", args.only.join(", "));
    if args.list {
        report::print_list(&cases);
        return Ok(true);
    }
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let plan = run::Plan {
        cases,
        postgres: postgres_versions(args)?,
        seed: args.seed,
        long: args.minutes.map(|minutes| Duration::from_secs(60 * minutes)),
        jobs: args.jobs.unwrap_or(3 * cores).max(1),
    };
    let reports = run::run_all(&plan);
    if args.json {
        report::print_json(&reports)?
    } else {
        report::print_table(&reports)
    }
    report::print_replays(&reports, args.minutes.is_some());
    Ok(reports.iter().all(|report| !report.failed()))
}

fn postgres_versions(args: &Args) -> Result<Vec<PgBin>> {
    let here = find_all_postgres();
    let majors: Vec<_> = here.iter().map(|bin| bin.version.major).collect();
    let newest = here.first().context("no Postgres on this machine; run `cargo xtask setup`")?;
    if let Some(major) = args.postgres {
        let bin = here.iter().find(|bin| bin.version.major == major);
        let bin = bin.with_context(|| format!("Postgres {major} is not here, only {majors:?}"))?;
        return Ok(vec![bin.clone()]);
    }
    Ok(if args.minutes.is_some() { here } else { vec![newest.clone()] })
}
