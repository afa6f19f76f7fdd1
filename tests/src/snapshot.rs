//! Asks for snapshots and reads them from `INIT`, as a consumer in any language would.

use serde_json::Value as Json;
use walgate_wire::{
    Caps, ChunkDigest, InitError, InitMeta, InitStart, Token, decode_chunk, from_msgpack, subjects,
};

use crate::{
    Broker, Site, eventually, json,
    stream::{self, Message, Opener},
};

/// A snapshot that was read and agrees with its meta.
#[derive(Debug)]
pub struct Snapshot {
    pub start: InitStart,
    pub meta: InitMeta,
    /// One array for each row.
    pub rows: Vec<Json>,
    /// The dictionaries that its chunks name.
    pub dictionaries: Vec<String>,
}

/// Sends a request; returns whether the stream accepted it.
pub async fn request(broker: &Broker, token: &str) -> bool {
    let subject = format!("{}{token}", subjects::REQUEST_PREFIX);
    match broker.jetstream().publish(subject, "".into()).await {
        Ok(ack) => ack.await.is_ok(),
        Err(_) => false,
    }
}

async fn read_messages_below(broker: &Broker, prefix: &str) -> Vec<Message> {
    let messages = stream::read_messages(broker, "INIT").await;
    messages.into_iter().filter(|message| message.subject.starts_with(prefix)).collect()
}

pub async fn read_starts(broker: &Broker) -> Vec<Message> {
    read_messages_below(broker, "init.start.").await
}

pub async fn read_metas(broker: &Broker) -> Vec<Message> {
    read_messages_below(broker, "init.meta.").await
}

/// The number of refusals in `INIT`.
pub async fn count_errors(broker: &Broker) -> usize {
    read_messages_below(broker, "init.error.").await.len()
}

/// The number of messages that `INIT` has ever stored.
pub async fn count_stored(broker: &Broker) -> u64 {
    let stream = broker.jetstream().get_stream("INIT").await.expect("the stream is there");
    stream.cached_info().state.last_sequence
}

/// Waits for the refusal of a table.
pub async fn wait_for_error(broker: &Broker, token: &str) -> InitError {
    wait_for_error_after(broker, token, 0).await
}

/// Waits for a refusal after this message of `INIT`.
pub async fn wait_for_error_after(broker: &Broker, token: &str, before: u64) -> InitError {
    let subject = format!("init.error.{token}");
    let found = eventually("a snapshot is refused", async || {
        let last = read_messages_below(broker, &subject).await.pop();
        last.filter(|error| error.sequence > before).ok_or("no init.error".to_owned())
    });
    from_msgpack(&found.await.payload).expect("an init.error")
}

impl Site {
    /// Requests a snapshot of a table and reads it.
    pub async fn take_snapshot(&self, token: &str) -> Snapshot {
        let before = count_stored(&self.broker).await;
        eventually("a snapshot is asked for", async || {
            if request(&self.broker, token).await { Ok(()) } else { Err("refused".to_owned()) }
        })
        .await;
        let subject = subjects::init_meta(&Token::parse(token).expect("a token"));
        let meta = eventually("the snapshot is complete", async || {
            let metas = read_messages_below(&self.broker, &subject).await;
            let last = metas.into_iter().next_back().filter(|meta| meta.sequence > before);
            last.ok_or(format!("none after message {before}"))
        })
        .await;
        let meta: InitMeta = from_msgpack(&meta.payload).expect("init.meta");
        self.read_snapshot(token, meta).await
    }

    async fn read_snapshot(&self, token: &str, meta: InitMeta) -> Snapshot {
        let mut messages = stream::read_messages(&self.broker, "INIT").await;
        let start = messages
            .iter()
            .rfind(|m| m.subject == format!("init.start.{token}"))
            .expect("init.start");
        let start: InitStart = from_msgpack(&start.payload).expect("init.start");
        assert_eq!(start, meta.start, "meta repeats the fields of start");
        let prefix = format!("init.snap.{token}.{}.", start.snapshot_id);
        messages.retain(|message| message.subject.starts_with(&prefix));
        let mut opener = Opener::new(&self.broker).await;
        let mut digest = ChunkDigest::default();
        let mut rows = vec![];
        let mut dictionaries = vec![];
        let mut raw_bytes = 0;
        let mut bytes = 0;
        for body in stream::join_bodies(messages) {
            let number = body.subject[prefix.len()..].parse().expect("a chunk number");
            let opened = opener.open(&body).await;
            if !digest.add(number, ChunkDigest::of(&opened)) {
                continue;
            }
            raw_bytes += opened.len() as u64;
            bytes += body.sent.len() as u64;
            dictionaries
                .extend(body.headers.get(walgate_wire::DICT).map(|name| name.as_str().to_owned()));
            let chunk =
                decode_chunk(&opened, start.columns.len(), &Caps::default()).expect("a chunk");
            let Json::Array(more) = json::chunk(chunk) else { unreachable!("rows are an array") };
            rows.extend(more);
        }
        assert_eq!(digest.count(), meta.batch_count);
        assert_eq!(rows.len() as u64, meta.row_count);
        assert_eq!((raw_bytes, bytes), (meta.raw_bytes, meta.bytes));
        assert_eq!(digest.finish(), meta.sha256);
        dictionaries.dedup();
        Snapshot { start, meta, rows, dictionaries }
    }

    /// The latest schema in KV; `None` before the first one.
    pub async fn latest_schema(&self, token: &str) -> Option<walgate_wire::Schema> {
        let bucket = self.broker.jetstream().get_stream("KV_schemas").await.ok()?;
        let message =
            bucket.get_last_raw_message_by_subject(&format!("$KV.schemas.{token}")).await.ok()?;
        let mut schema: walgate_wire::Schema = from_msgpack(&message.payload).expect("a schema");
        schema.revision = message.sequence;
        Some(schema)
    }
}
