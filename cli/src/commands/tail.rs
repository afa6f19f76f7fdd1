//! `walgate tail`: prints changes as they arrive, one JSON object per line.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Result;
use futures::StreamExt;
use walgate_consumer::{ChangeBatch, TailFrom, change_json, connect};
use walgate_wire::{Caps, TableName, Token};

use crate::commands::{NatsArgs, StreamArgs, still_read};

/// Print changes as JSON lines, until ctrl-c or until standard output is closed.
///
/// A line has table, op, lsn, n (place in the transaction), xid, at (commit time) and row. If
/// present, it also has unchanged (columns whose value was not sent) and old.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    nats: NatsArgs,
    #[command(flatten)]
    streams: StreamArgs,
    /// Begin with the first change that the stream still holds, instead of the next one to come
    #[arg(long)]
    from_start: bool,
    /// A table, for example public.users
    #[arg(value_name = "TABLE", required = true)]
    tables: Vec<TableName>,
}

pub async fn run(args: Args) -> Result<ExitCode> {
    let client = connect(args.nats.access()?).await?;
    let tokens: Vec<Token> = args.tables.iter().map(TableName::token).collect();
    let from = if args.from_start { TailFrom::First } else { TailFrom::Now };
    let changes =
        walgate_consumer::tail_changes(client, args.streams.names(), tokens, from, Caps::default())
            .await?;
    let mut changes = std::pin::pin!(changes);
    let mut stopped = std::pin::pin!(walgate_host::supervisor::stop_signal());
    loop {
        let message = tokio::select! {
            biased;
            () = &mut stopped => return Ok(ExitCode::SUCCESS),
            message = changes.next() => message,
        };
        let Some(message) = message else { return Ok(ExitCode::SUCCESS) };
        if !still_read(print(&message?))? {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn print(changes: &ChangeBatch) -> io::Result<()> {
    let decoded = changes.decode().map_err(io::Error::other)?;
    let mut out = io::stdout().lock();
    for change in &decoded {
        serde_json::to_writer(&mut out, &change_json(&changes.schema, change))?;
        out.write_all(b"\n")?;
    }
    out.flush()
}
