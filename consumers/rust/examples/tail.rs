//! Prints a table's changes as JSON lines, from the first that the stream holds:
//! `tail nats://127.0.0.1:4222 public.users`

use std::pin::pin;

use futures::TryStreamExt;
use walgate_consumer::{
    StreamNames, TailFrom, change_json, connect, tail_changes,
    wire::{Caps, TableName},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [nats, table] = &args[..] else { panic!("arguments: NATS_URL TABLE") };
    let token = table.parse::<TableName>()?.token();
    let client = connect(nats.as_str()).await?;
    let names = StreamNames::default();
    let batches = tail_changes(client, names, vec![token], TailFrom::First, Caps::default());
    let mut batches = pin!(batches.await?);
    while let Some(batch) = batches.try_next().await? {
        for change in batch.decode()? {
            println!("{}", change_json(&batch.schema, &change));
        }
    }
    Ok(())
}
