//! `walgate snapshot`: requests a table's snapshot and shows its progress.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use futures::StreamExt;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use walgate_consumer::{SnapshotProgress, connect, request_snapshot};
use walgate_wire::{InitError, InitMeta, TableName};

use crate::commands::{NatsArgs, StreamArgs};

const BAR: &str = "{msg} {wide_bar} {human_pos}/{human_len} rows · {per_sec} · {elapsed}";

const WAITING: &str = "waiting: the request is taken and the gateway lives. Before it begins it waits for transactions that are \
older and still open, prepared ones too, for locks of the table, for other snapshots (snapshot.max_concurrent) and for \
the table's rest (snapshot.cooldown_seconds); its log names who is in the way";

/// Request a snapshot of a table and watch it.
///
/// The snapshot may have to wait for open transactions of other sessions; this command waits, too.
/// Existing copies are not affected. If a snapshot is already running, its progress is shown.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    nats: NatsArgs,
    #[command(flatten)]
    streams: StreamArgs,
    /// Give up if the gateway has been silent for so long; it publishes every ten seconds while the
    /// database is not idle
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    patience: u64,
    /// The table, for example public.users
    #[arg(value_name = "TABLE")]
    table: TableName,
}

pub async fn run(args: Args) -> Result<ExitCode> {
    let client = connect(args.nats.access()?).await?;
    let token = args.table.token();
    let patience = Duration::from_secs(args.patience);
    let progress = request_snapshot(client, args.streams.names(), token, patience).await?;
    let mut progress = std::pin::pin!(progress);
    let begun = Instant::now();
    // Draws nothing without a terminal.
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(BAR)?);
    bar.enable_steady_tick(Duration::from_millis(100));
    let mut told = false;
    while let Some(step) = progress.next().await {
        match step? {
            SnapshotProgress::Requested => bar.set_message(format!("{}: asked for", args.table)),
            SnapshotProgress::Waiting(so_far) => {
                let seconds = so_far.as_secs();
                bar.set_message(format!("{}: asked for {seconds} s ago, not begun", args.table));
                if !std::mem::replace(&mut told, true) {
                    bar.suspend(|| eprintln!("{WAITING}"));
                }
            }
            SnapshotProgress::Started { estimated_rows, watermark, .. } => {
                bar.set_length(estimated_rows);
                bar.set_message(format!("{} as of {watermark}", args.table));
            }
            SnapshotProgress::Chunk { rows, bytes } => {
                // The estimate comes from the planner and may be far off.
                bar.set_length(bar.length().unwrap_or(0).max(rows));
                bar.set_position(rows);
                bar.set_message(format!("{} {}", args.table, HumanBytes(bytes)));
            }
            SnapshotProgress::Finished(meta) => {
                bar.finish_and_clear();
                println!("{}", finished(&meta, begun.elapsed()));
                return Ok(ExitCode::SUCCESS);
            }
            SnapshotProgress::Failed(error) => {
                bar.finish_and_clear();
                eprintln!("{}", failed(&error));
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    bail!("the snapshot of {} ended without a word", args.table)
}

fn finished(meta: &InitMeta, elapsed: Duration) -> String {
    let ratio = meta.raw_bytes as f64 / meta.bytes.max(1) as f64;
    format!(
        "{}: {} rows in {} chunks, {} sent for {} ({ratio:.1}×), watermark {}, snapshot {}, {:.1} s",
        meta.start.table,
        HumanCount(meta.row_count),
        meta.batch_count,
        HumanBytes(meta.bytes),
        HumanBytes(meta.raw_bytes),
        meta.start.lsn,
        meta.start.snapshot_id,
        elapsed.as_secs_f64()
    )
}

fn failed(error: &InitError) -> String {
    let again =
        error.retry_after.map_or_else(String::new, |s| format!("; asking again in {s} s may help"));
    format!("snapshot of {} failed: {} ({}){again}", error.table, error.message, error.code)
}
