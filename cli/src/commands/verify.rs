//! `walgate verify`: compares a copy with its source, table by table, and lists the differences.
//!
//! The comparison itself is in `walgate_verify`.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Result;
use walgate_verify::{Comparison, Question, compare, gates, print, target::Target};

use super::database::{Database, configured};

const RETRY_EVERY: Duration = Duration::from_millis(500);

/// Compare a copy with its source, table by table.
///
/// Counts rows and compares hashes. For differences, names up to 20 rows and their differing
/// columns. A published column that the copy lacks is a difference, too: it arrives with the first
/// row that is written after ALTER TABLE. Exit code 1 on any difference. While the source is
/// written to, the copy lags a little, which shows as differences: stop the writer, or give the
/// copy time with --wait.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: Database,
    /// The copy: sqlite:edge.db or postgres://user@host/database
    #[arg(long, value_name = "TARGET")]
    replica: Target,
    /// A table to compare; may be repeated [default: every table that the copy keeps]
    #[arg(long = "table", value_name = "TABLE")]
    tables: Vec<String>,
    /// The gateway's configuration: the database, and the guests, whose results the copy should
    /// hold [default: walgate.toml if there is one]
    #[arg(short, long, value_name = "FILE", env = "WALGATE_CONFIG")]
    config: Option<PathBuf>,
    /// Compare again until everything is equal, for at most so long
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait: u64,
}

pub async fn run(args: Args) -> Result<ExitCode> {
    let begun = Instant::now();
    let wait = Duration::from_secs(args.wait);
    let config = configured(args.config)?;
    let source = args.source.postgres(config.as_ref())?;
    let gates = match &config {
        Some(config) => gates(config).await?,
        None => vec![],
    };
    let question = Question { source, replica: args.replica, tables: args.tables, gates };
    loop {
        let compared = compare(&question).await;
        let equal = compared.as_ref().is_ok_and(|all| all.iter().all(Comparison::is_equal));
        // A missing copy counts as one that lags.
        if equal || begun.elapsed() + RETRY_EVERY >= wait {
            print(&compared?);
            return Ok(if equal { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        tokio::time::sleep(RETRY_EVERY).await;
    }
}
