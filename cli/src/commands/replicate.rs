//! `walgate replicate`: keeps local copies of tables up to date until it is stopped.
//!
//! `walgate_consumer` does the work. This file passes the settings and reports progress.

use std::{
    collections::BTreeMap,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use tokio::sync::watch;
use walgate_consumer::{
    Consumer, ConsumerBuilder, ConsumerStatus, PostgresSink, Sink, SqliteSink, StreamNames,
    TablePhase,
};
use walgate_wire::Token;

use crate::commands::{NatsArgs, StreamArgs};
use walgate_verify::target::Target;

/// The interval of progress reports.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Keep a local SQLite or Postgres copy of tables.
///
/// Loads missing tables from a snapshot, then applies every change, in whole transactions. Rows and
/// position are committed together: stop or kill it at any moment and start it again.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    nats: NatsArgs,
    #[command(flatten)]
    streams: StreamArgs,
    /// The target: sqlite:edge.db or postgres://user@host/database
    #[arg(long, value_name = "TARGET")]
    to: Target,
    /// A table to keep, for example public.users; may be repeated
    #[arg(long = "table", value_name = "TABLE", required = true)]
    tables: Vec<String>,
}

pub async fn run(args: Args) -> Result<ExitCode> {
    let names: StreamNames = args.streams.names();
    let mut builder = Consumer::builder().nats(args.nats.access()?);
    for table in args.tables {
        builder = builder.table(table);
    }
    builder =
        builder.options(walgate_consumer::ConsumerOptions { streams: names, ..Default::default() });
    match args.to {
        Target::Sqlite(path) => follow(builder.sink(SqliteSink::new(path))).await?,
        Target::Postgres(url) => follow(builder.sink(PostgresSink::new(url))).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn follow<S: Sink>(builder: ConsumerBuilder<S>) -> Result<()> {
    let consumer = builder.build().await?;
    let reports = tokio::spawn(report(consumer.status()));
    let ended = consumer.run(walgate_host::supervisor::stop_signal()).await;
    reports.abort();
    ended.context("replicating")
}

/// Regularly logs the progress.
async fn report(status: watch::Receiver<ConsumerStatus>) {
    let mut said: BTreeMap<Token, (u64, u64)> = BTreeMap::new();
    loop {
        tokio::time::sleep(REPORT_EVERY).await;
        let status = status.borrow().clone();
        for (token, table) in &status.tables {
            let counts = (table.snapshot_rows, table.changes);
            if said.insert(token.clone(), counts) == Some(counts) {
                continue;
            }
            let phase = match table.phase {
                TablePhase::Waiting => "waiting",
                TablePhase::Loading => "loading",
                TablePhase::Live => "live",
            };
            let behind_ms = behind_ms(status.committed_at);
            let (snapshot_rows, changes) = counts;
            tracing::info!(
                table = token.as_str(),
                phase,
                snapshot_rows,
                changes,
                behind_ms,
                "replicating"
            );
        }
    }
}

/// The age of the last applied transaction; zero if there is none.
fn behind_ms(committed_at_micros: i64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let committed_at = Duration::from_micros(committed_at_micros.unsigned_abs());
    if committed_at_micros == 0 { 0 } else { now.saturating_sub(committed_at).as_millis() as u64 }
}
