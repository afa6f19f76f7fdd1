//! Reads whole streams with a bare NATS client and splits them by the headers alone.
//!
//! Bodies are decoded with the wire crate, which Python checks against independent libraries. The
//! content is judged elsewhere.

use std::collections::HashMap;

use async_nats::{
    HeaderMap,
    jetstream::{
        consumer::{DeliverPolicy, pull::OrderedConfig},
        message::StreamMessage,
        stream::{RawMessageError, RawMessageErrorKind, Stream},
    },
};
use futures::StreamExt;
use serde_json::Value as Json;
use walgate_wire::{
    CONTENT_ENCODING, Caps, DICT, Decompressor, Dictionary, Epoch, GUEST, Lsn, PART, POS,
    PROGRESS_SUBJECT, Part, Position, Progress, SCHEMA, Schema, StreamPosition, ZSTD,
    decode_changes, from_msgpack,
};

use crate::{Broker, eventually, json};

/// One stored message.
#[derive(Clone, Debug)]
pub struct Message {
    pub sequence: u64,
    pub subject: String,
    pub headers: HeaderMap,
    pub payload: Vec<u8>,
    /// When the server stored it, in nanoseconds since 1970.
    pub stored_at: i128,
}

/// One body: a message, or several parts of one.
#[derive(Clone, Debug)]
pub struct Body {
    /// The sequence of the last part.
    pub sequence: u64,
    pub subject: String,
    pub headers: HeaderMap,
    /// The bytes as sent.
    pub sent: Vec<u8>,
    pub parts: u32,
    pub stored_at: i128,
}

/// One change, with the message that carried it.
#[derive(Clone, Debug)]
pub struct StreamChange {
    pub sequence: u64,
    pub token: String,
    pub position: Position,
    pub xid: u32,
    pub at: i64,
    pub op: char,
    pub schema_revision: u64,
    pub dictionary: Option<String>,
    pub guest: Option<String>,
    /// `row`, `unchanged`, `old`: see [`json::change`].
    pub json: Json,
}

/// The entries of the CDC stream, in order.
#[derive(Debug)]
pub enum Entry {
    /// The changes of one body. Their positions come from the body, `last` comes from its header.
    Changes {
        last: StreamPosition,
        changes: Vec<StreamChange>,
        parts: u32,
    },
    Progress {
        sequence: u64,
        header: StreamPosition,
        progress: Progress,
    },
}

impl Entry {
    pub fn epoch(&self) -> Epoch {
        match self {
            Entry::Changes { last: header, .. } | Entry::Progress { header, .. } => header.epoch,
        }
    }
}

/// All messages that a stream holds now.
pub async fn read_messages(broker: &Broker, stream: &str) -> Vec<Message> {
    let stream = broker.jetstream().get_stream(stream).await.expect("the stream is there");
    let last = stream.get_info().await.expect("the stream answers").state.last_sequence;
    let mut found = vec![];
    let config = OrderedConfig { deliver_policy: DeliverPolicy::All, ..OrderedConfig::default() };
    if stream.get_info().await.expect("the stream answers").state.messages == 0 {
        return found;
    }
    let consumer = stream.create_consumer(config).await.expect("a consumer");
    let mut messages = consumer.messages().await.expect("messages");
    while let Some(message) = messages.next().await {
        let message = message.expect("a message");
        let info = message.info().expect("a message of a stream");
        let sequence = info.stream_sequence;
        found.push(Message {
            sequence,
            subject: message.subject.to_string(),
            headers: message.headers.clone().unwrap_or_default(),
            payload: message.payload.to_vec(),
            stored_at: info.published.unix_timestamp_nanos(),
        });
        if sequence >= last {
            break;
        }
    }
    found
}

/// Joins parts. No other message of the same subject may come between them.
pub fn join_bodies(messages: Vec<Message>) -> Vec<Body> {
    let mut whole = vec![];
    let mut open: HashMap<String, Body> = HashMap::new();
    for message in messages {
        let part: Option<Part> =
            message.headers.get(PART).map(|part| part.as_str().parse().expect("a part"));
        let part = part.unwrap_or(Part { number: 1, of: 1 });
        let body = open.entry(message.subject.clone()).or_insert_with(|| Body {
            sequence: 0,
            subject: message.subject.clone(),
            headers: message.headers.clone(),
            sent: vec![],
            parts: 0,
            stored_at: message.stored_at,
        });
        if part.number == 1 && body.parts > 0 {
            // A gateway died in the middle of this body; the next gateway sends it again from the
            // start.
            body.sent.clear();
            body.parts = 0;
        }
        assert_eq!(
            part.number,
            body.parts + 1,
            "a part is missing before message {}",
            message.sequence
        );
        body.sequence = message.sequence;
        body.headers = message.headers;
        body.sent.extend_from_slice(&message.payload);
        body.parts = part.number;
        if part.is_last() {
            whole.extend(open.remove(&message.subject));
        }
    }
    whole
}

/// Fetches the schemas and dictionaries that bodies name, each once.
pub struct Opener {
    schemas: Stream,
    dictionaries: Stream,
    known_schemas: HashMap<u64, Schema>,
    known_dictionaries: HashMap<String, Dictionary>,
    /// When the server stored each schema revision.
    pub schema_stored_at: HashMap<u64, i128>,
}

impl Opener {
    pub async fn new(broker: &Broker) -> Opener {
        let context = broker.jetstream();
        Opener {
            schemas: context.get_stream("KV_schemas").await.expect("bucket schemas"),
            dictionaries: context.get_stream("KV_dictionaries").await.expect("bucket dictionaries"),
            known_schemas: HashMap::new(),
            known_dictionaries: HashMap::new(),
            schema_stored_at: HashMap::new(),
        }
    }

    pub async fn schema(&mut self, revision: u64) -> Schema {
        if let Some(schema) = self.known_schemas.get(&revision) {
            return schema.clone();
        }
        let message = raw_message(&self.schemas, revision).await;
        let message = message.unwrap_or_else(|e| panic!("schema revision {revision}: {e}"));
        let mut schema: Schema = from_msgpack(&message.payload).expect("a schema");
        schema.revision = revision;
        self.schema_stored_at.insert(revision, message.time.unix_timestamp_nanos());
        self.known_schemas.insert(revision, schema.clone());
        schema
    }

    /// `named`: `users_dict@7`.
    pub async fn dictionary(&mut self, named: &str) -> Dictionary {
        if let Some(dictionary) = self.known_dictionaries.get(named) {
            return dictionary.clone();
        }
        let (key, revision) = named.split_once('@').expect("key@revision");
        let revision = revision.parse().expect("a revision");
        let message = raw_message(&self.dictionaries, revision).await;
        let message = message.unwrap_or_else(|e| panic!("dictionary {named}: {e}"));
        assert_eq!(message.subject.as_str(), format!("$KV.dictionaries.{key}"));
        let dictionary = Dictionary::new(message.payload.to_vec()).expect("a dictionary");
        let stated = message.headers.get(walgate_wire::SHA256).map(|v| v.as_str().to_owned());
        assert_eq!(stated.as_deref(), Some(dictionary.sha256()), "{named}");
        self.known_dictionaries.insert(named.to_owned(), dictionary.clone());
        dictionary
    }

    /// Whether the buckets still hold what the body names: a message can outlive it.
    async fn is_readable(&mut self, body: &Body) -> bool {
        let header = |name| body.headers.get(name).map(|value| value.as_str().to_owned());
        let holds = async |bucket: &Stream, revision: &str, subject: String| {
            let revision = revision.parse().expect("a revision");
            let found = raw_message(bucket, revision).await.ok();
            found.is_some_and(|found| found.subject.as_str() == subject)
        };
        if let Some(revision) = header(SCHEMA) {
            let token = body.subject.strip_prefix("cdc.").expect("cdc.{token}");
            if !holds(&self.schemas, &revision, format!("$KV.schemas.{token}")).await {
                return false;
            }
        }
        let Some(named) = header(DICT) else { return true };
        let (key, revision) = named.split_once('@').expect("key@revision");
        holds(&self.dictionaries, revision, format!("$KV.dictionaries.{key}")).await
    }

    /// The body as it was before compression.
    pub async fn open(&mut self, body: &Body) -> Vec<u8> {
        let header = |name| body.headers.get(name).map(|value| value.as_str().to_owned());
        match header(CONTENT_ENCODING) {
            None => body.sent.clone(),
            Some(encoding) => {
                assert_eq!(encoding, ZSTD);
                let dictionary = match header(DICT) {
                    Some(named) => Some(self.dictionary(&named).await),
                    None => None,
                };
                let mut decompressor =
                    Decompressor::new(dictionary.as_ref()).expect("a decompressor");
                let opened = decompressor.decompress(&body.sent, &Caps::default());
                opened.unwrap_or_else(|e| panic!("message {}: {e}", body.sequence))
            }
        }
    }
}

/// A cluster without a leader does not answer, so this retries.
async fn raw_message(bucket: &Stream, revision: u64) -> Result<StreamMessage, RawMessageError> {
    eventually("the bucket answers", async || match bucket.get_raw_message(revision).await {
        Err(error) if error.kind() != RawMessageErrorKind::NoMessageFound => Err(error.to_string()),
        answer => Ok(answer),
    })
    .await
}

/// The whole CDC stream. Of earlier epochs, only the readable messages.
pub async fn read_cdc(broker: &Broker) -> Vec<Entry> {
    let messages = read_messages(broker, "CDC").await;
    for pair in messages.windows(2) {
        assert_eq!(pair[0].sequence + 1, pair[1].sequence, "the stream has a hole");
    }
    let mut opener = Opener::new(broker).await;
    let mut entries = vec![];
    let bodies = join_bodies(messages);
    let place = |body: &Body| -> StreamPosition {
        body.headers.get(POS).expect("Wg-Pos").as_str().parse().expect("a position")
    };
    let latest = bodies.last().map(|body| place(body).epoch);
    for body in bodies {
        let header = place(&body);
        if Some(header.epoch) != latest && !opener.is_readable(&body).await {
            continue;
        }
        let opened = opener.open(&body).await;
        if body.subject == PROGRESS_SUBJECT {
            let progress = from_msgpack(&opened).expect("progress");
            entries.push(Entry::Progress { sequence: body.sequence, header, progress });
            continue;
        }
        let revision =
            body.headers.get(SCHEMA).expect("Wg-Schema").as_str().parse().expect("a revision");
        let token = body.subject.strip_prefix("cdc.").expect("cdc.{token}").to_owned();
        let schema = opener.schema(revision).await;
        assert_eq!(
            schema.token.as_str(),
            token,
            "message {} names revision {revision}",
            body.sequence
        );
        assert!(
            opener.schema_stored_at[&revision] <= body.stored_at,
            "message {} was stored before its schema, revision {revision}",
            body.sequence
        );
        let changes = decode_changes(&opened, schema.columns.len(), &Caps::default());
        let changes = changes.unwrap_or_else(|e| panic!("message {}: {e}", body.sequence));
        let named = |header| body.headers.get(header).map(|value| value.as_str().to_owned());
        let change = |change: &walgate_wire::Change<'_>| StreamChange {
            sequence: body.sequence,
            token: token.clone(),
            position: change.position,
            xid: change.xid,
            at: change.at,
            op: json::operation(&change.op),
            schema_revision: revision,
            dictionary: named(DICT),
            guest: named(GUEST),
            json: json::change(change),
        };
        let changes = changes.iter().map(change).collect();
        entries.push(Entry::Changes { last: header, changes, parts: body.parts });
    }
    entries
}

/// All changes, in order.
pub fn changes(entries: &[Entry]) -> impl Iterator<Item = &StreamChange> {
    entries.iter().flat_map(|entry| match entry {
        Entry::Changes { changes, .. } => &changes[..],
        Entry::Progress { .. } => &[],
    })
}

/// The epoch of the last message in `CDC`.
pub async fn last_epoch(broker: &Broker) -> Epoch {
    read_cdc(broker).await.last().expect("the stream is not empty").epoch()
}

/// The last progress message.
pub async fn last_progress(broker: &Broker) -> Option<Progress> {
    let stream = broker.jetstream().get_stream("CDC").await.ok()?;
    let message = stream.get_last_raw_message_by_subject(PROGRESS_SUBJECT).await.ok()?;
    from_msgpack(&message.payload).ok()
}

/// Waits until the stream holds the transaction whose commit record begins at `lsn`, and everything
/// before it.
pub async fn wait_for_commit(broker: &Broker, lsn: Lsn) {
    wait_for_end(broker, Lsn(lsn.0 + 1)).await;
}

/// Waits until the stream holds everything that was written before `end`.
pub async fn wait_for_end(broker: &Broker, end: Lsn) {
    eventually("the stream reaches the last commit", async || match last_progress(broker).await {
        Some(progress) if progress.end_lsn >= end => Ok(()),
        Some(progress) => Err(format!("{} of {end}", progress.end_lsn)),
        None => Err("no progress message".to_owned()),
    })
    .await;
}

/// Waits until the stream has that many more messages.
pub async fn wait_for_messages(broker: &Broker, more: u64) {
    let mut goal = None;
    eventually("the stream grows", async || {
        let now = last_sequence(broker).await.ok_or("NATS does not answer")?;
        let goal = *goal.get_or_insert(now + more);
        if now >= goal { Ok(()) } else { Err(format!("{now} of {goal} messages")) }
    })
    .await;
}

/// `None` while NATS does not answer.
pub async fn last_sequence(broker: &Broker) -> Option<u64> {
    Some(broker.jetstream().get_stream("CDC").await.ok()?.cached_info().state.last_sequence)
}
