//! `cargo xtask chaos`: real faults under a seeded load, and after each the oracle. Nothing lost, nothing twice, every
//! copy what the guest lets through of its source, memory bounded, the slot on its way again.
//!
//! A case is a function in the file of its subject and a line in `cases.rs`; `stage.rs` is what all of them stand on.
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
    /// What the load and the moments of the faults are made of
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The long form: larger faults, seed after seed until the minutes are over, on each version of Postgres in turn
    /// from case to case and seed to seed. The first seed is run to its end in any case. Without it: the short form, once
    #[arg(long)]
    minutes: Option<u64>,
    /// Only cases whose name contains this
    #[arg(long, value_name = "CASE", num_args = 1..)]
    only: Vec<String>,
    /// One JSON object a line instead of the table
    #[arg(long)]
    json: bool,
    /// Name the cases and what they do, and end
    #[arg(long)]
    list: bool,
    /// Only this major version of Postgres; in the short form the newest, in the long form each that is here in turn
    #[arg(long, value_name = "MAJOR")]
    postgres: Option<u32>,
    /// Cases side by side; by default three times as many as there are cores
    #[arg(long)]
    jobs: Option<usize>,
}

fn main() -> ExitCode {
    match start(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether nothing failed.
fn start(args: &Args) -> Result<bool> {
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
        postgres: versions(args)?,
        seed: args.seed,
        long: args.minutes.map(|minutes| Duration::from_secs(60 * minutes)),
        jobs: args.jobs.unwrap_or(3 * cores).max(1),
    };
    let reports = run::all(&plan);
    if args.json {
        report::print_json(&reports)?
    } else {
        report::print_table(&reports)
    }
    report::print_replays(&reports, args.minutes.is_some());
    Ok(reports.iter().all(|report| !report.failed()))
}

fn versions(args: &Args) -> Result<Vec<PgBin>> {
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
