//! `cargo xtask bench`: each figure is compared with the machine's own limit, measured in the same
//! run, in turns. Slow values are reported and fail nothing; a measurement that cannot run does.
//!
//! Each module measures one thing, named after it, with real servers and the built gateway. It does
//! not know the others.

mod bytes;
mod destination;
mod ground;
mod guest;
mod latency;
mod live;
mod memory;
mod orders;
mod report;
mod slots;
mod snapshot;
mod sqlite;
mod start;
mod users;

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use clap::Parser;
use futures::{FutureExt, future::LocalBoxFuture};

use ground::Ground;
use report::{Goal, Measured};
use walgate_tests::process;

/// Measure Walgate against the limits of the same machine at the same time
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Args {
    /// Fewer and smaller runs: at most three minutes
    #[arg(long)]
    quick: bool,
    /// One JSON object per line instead of the table
    #[arg(long)]
    json: bool,
    /// Only these rows, by their ids
    #[arg(long, value_name = "ID", num_args = 1..)]
    only: Vec<String>,
}

type Measurement = for<'a> fn(&'a Ground) -> LocalBoxFuture<'a, Result<Vec<Measured>>>;

/// The figures that are measured together, and the function that measures them.
const MEASUREMENTS: &[(&[&str], Measurement)] = &[
    (&["snapshot_ratio", "rss_snapshot_mb"], |g| snapshot::measure(g).boxed_local()),
    (live::TCP_IDS, |g| live::over_tcp(g).boxed_local()),
    (live::UNIX_IDS, |g| live::over_unix_socket(g).boxed_local()),
    (&["latency_p50_ms", "latency_p99_ms"], |g| latency::measure(g).boxed_local()),
    (&["rss_idle_mb", "rss_txn_mb"], |g| memory::idle_and_transaction(g).boxed_local()),
    (&["rss_stall_mb"], |g| memory::during_stall(g).boxed_local()),
    (&["guest_ratio"], |g| guest::ratio::measure(g).boxed_local()),
    (&["guest_native_ratio"], |g| guest::native::measure(g).boxed_local()),
    (&["guest_swap_gap_ms"], |g| guest::swap::measure(g).boxed_local()),
    (bytes::IDS, |g| bytes::measure(g).boxed_local()),
    (&["sqlite_snapshot_rows_s", "sqlite_changes_s"], |g| sqlite::measure(g).boxed_local()),
    (&["start_ms"], |g| start::measure(g).boxed_local()),
];

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every requested row could be measured.
fn run(args: &Args) -> Result<bool> {
    for id in &args.only {
        let known: Vec<_> = report::GOALS.iter().map(|goal| goal.id).collect();
        ensure!(
            known.contains(&id.as_str()),
            "there is no row {id}; there are {}",
            known.join(", ")
        );
    }
    let wanted = |id: &str| args.only.is_empty() || args.only.iter().any(|only| only == id);
    let begun = Instant::now();
    // Two threads: this process shares two cores with the measured programs.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut rows = vec![];
    let mut all_measured = true;
    runtime.block_on(async {
        let ground = Ground::open(args.quick)?;
        eprintln!("bench: {}", ground.description());
        for (ids, measure) in MEASUREMENTS {
            if !ids.iter().any(|id| wanted(id)) {
                continue;
            }
            eprintln!("bench: {} …", ids.join(", "));
            let began = Instant::now();
            // The harness panics where a test would fail. Here the other rows are still measured.
            match AssertUnwindSafe(measure(&ground)).catch_unwind().await {
                Ok(Ok(measured)) => {
                    rows.extend(measured.into_iter().filter(|row| wanted(row.goal.id)))
                }
                Ok(Err(error)) => all_measured = not_measured(ids, &format!("{error:#}")),
                Err(panic) => all_measured = not_measured(ids, &words(&*panic)),
            }
            eprintln!("bench: … {:.1} s", began.elapsed().as_secs_f64());
        }
        anyhow::Ok(())
    })?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    report::sort(&mut rows);
    if args.json {
        report::print_json(&rows)?
    } else {
        report::print_table(&rows)
    }
    eprintln!("bench: {:.0} s in all", begun.elapsed().as_secs_f64());
    Ok(all_measured)
}

fn not_measured(ids: &[&str], why: &str) -> bool {
    eprintln!("bench: {} could not be measured: {why}", ids.join(", "));
    false
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words")
        .to_owned()
}

/// A row of the report.
fn row(id: &'static str, runs: Vec<f64>, note: impl Into<String>) -> Result<Measured> {
    let value = median(&runs)?;
    Ok(Measured { goal: Goal::of(id)?, value, runs, note: note.into() })
}

fn median(runs: &[f64]) -> Result<f64> {
    let mut sorted = runs.to_vec();
    sorted.sort_by(f64::total_cmp);
    ensure!(!sorted.is_empty(), "nothing was measured");
    let middle = sorted.len() / 2;
    Ok(if sorted.len().is_multiple_of(2) {
        (sorted[middle - 1] + sorted[middle]) / 2.0
    } else {
        sorted[middle]
    })
}
