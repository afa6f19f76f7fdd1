//! The content of the CDC stream: counted from the stored messages, timed by the stream's clock.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use async_nats::jetstream::{
    consumer::{DeliverPolicy, pull::OrderedConfig},
    stream::Stream,
};
use futures::StreamExt;
use walgate_tests::Broker;
use walgate_wire::{
    CONTENT_ENCODING, Caps, Decompressor, Lsn, PART, PROGRESS_SUBJECT, Progress, decode_changes,
    from_msgpack,
};

/// A gateway that is silent for longer counts as hanging.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits for the progress message that covers a commit after `lsn`. Returns when the stream stored
/// it, in nanoseconds since 1970.
pub async fn wait_until_stored(
    broker: &Broker,
    mut progress: async_nats::Subscriber,
    lsn: Lsn,
) -> Result<i128> {
    loop {
        let message = tokio::time::timeout(PATIENCE, progress.next()).await;
        let message =
            message.context("the gateway has stopped publishing")?.context("the broker is gone")?;
        let stated: Progress = from_msgpack(&message.payload)?;
        if stated.lsn > lsn {
            return stored_at(broker, lsn).await;
        }
    }
}

/// Subscribe before the gateway starts.
pub async fn watch_progress(broker: &Broker) -> Result<async_nats::Subscriber> {
    let subscriber = broker.client().subscribe(PROGRESS_SUBJECT).await?;
    broker.client().flush().await?;
    Ok(subscriber)
}

/// A subscriber receives a message before it is stored; the stream has the time of storing.
async fn stored_at(broker: &Broker, lsn: Lsn) -> Result<i128> {
    let stream = cdc_stream(broker).await?;
    for _ in 0..1000 {
        let message = stream.get_last_raw_message_by_subject(PROGRESS_SUBJECT).await?;
        let stated: Progress = from_msgpack(&message.payload)?;
        if stated.lsn > lsn {
            return Ok(message.time.unix_timestamp_nanos());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    bail!("the stream did not store the last progress message")
}

pub async fn cdc_stream(broker: &Broker) -> Result<Stream> {
    Ok(broker.jetstream().get_stream("CDC").await?)
}

/// Counts of a stream's content.
#[derive(Clone, Copy, Debug, Default)]
pub struct Contents {
    pub changes: u64,
    /// Messages with changes, not progress.
    pub messages: u64,
    pub progress_messages: u64,
    /// The size of bodies with changes, as sent.
    pub bytes: u64,
}

/// Reads the whole stream of a gateway without dictionaries. Its rows have `columns` columns.
pub async fn read_contents(broker: &Broker, columns: usize) -> Result<Contents> {
    let stream = cdc_stream(broker).await?;
    let last = stream.get_info().await?.state.last_sequence;
    let config = OrderedConfig { deliver_policy: DeliverPolicy::All, ..OrderedConfig::default() };
    let mut messages = stream.create_consumer(config).await?.messages().await?;
    let mut contents = Contents::default();
    let mut decompressor = Decompressor::new(None)?;
    while let Some(message) = messages.next().await {
        let message = message?;
        let headers = message.headers.as_ref().context("a message without headers")?;
        if message.subject.as_str() == PROGRESS_SUBJECT {
            contents.progress_messages += 1;
        } else {
            ensure!(headers.get(PART).is_none(), "a body in parts");
            let body = match headers.get(CONTENT_ENCODING) {
                Some(_) => decompressor.decompress(&message.payload, &Caps::default())?,
                None => message.payload.to_vec(),
            };
            contents.changes += decode_changes(&body, columns, &Caps::default())?.len() as u64;
            contents.messages += 1;
            contents.bytes += message.payload.len() as u64;
        }
        let info = message.info().map_err(|e| anyhow::anyhow!("a message of no stream: {e}"))?;
        if info.stream_sequence >= last {
            break;
        }
    }
    Ok(contents)
}
