//! The KV buckets: schemas, the epoch, dictionaries. Each put is acknowledged before a message
//! refers to it.
//!
//! Which schema or dictionary is current is decided elsewhere; this only stores and finds
//! revisions.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use async_nats::{
    HeaderMap,
    jetstream::{
        self,
        context::{PublishError, PublishErrorKind},
        message::StreamMessage,
        stream::{LastRawMessageErrorKind, RawMessageErrorKind, Stream},
    },
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::Mutex;
use walgate_wire::{
    Dictionary, EXPECTED_LAST_SEQUENCE, EpochRecord, SHA256, Schema, Token, buckets, from_msgpack,
    to_msgpack,
};

use super::streams::Streams;
use crate::egress::compress::StoredDictionary;

const EXPECTED_REVISION: &str = "Nats-Expected-Last-Subject-Sequence";
/// The key of placeholders for lost revisions. No table has this token.
const TOMBSTONE_KEY: &str = "=lost";
const PUTS_AT_ONCE: usize = 64;
/// Concurrent reads of a bucket, each for another table.
pub const READS_AT_ONCE: usize = 16;
/// Attempts of a put that loses a race with other writers.
const PUT_TRIES: u32 = 5;
/// No loss is that large: no gateway wrote a message that refers to such a revision.
const SKIPPED_REVISIONS_MAX: u64 = 100_000;

/// A bucket that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("KV bucket {bucket}, key {key}: {reason}")]
pub struct KvError {
    bucket: &'static str,
    key: String,
    reason: String,
}

/// One bucket, by its stream.
#[derive(Clone, Debug)]
pub struct KvBucket {
    pub name: &'static str,
    stream: Stream,
    context: jetstream::Context,
    /// The last revision that this process has seen.
    known_last: Arc<AtomicU64>,
    /// Each put states the end of the bucket: of two concurrent puts one would be refused.
    putting: Arc<Mutex<()>>,
}

impl KvBucket {
    fn new(name: &'static str, stream: &Stream, context: &jetstream::Context) -> Self {
        let known_last = Arc::default();
        let putting = Arc::default();
        KvBucket { name, stream: stream.clone(), context: context.clone(), known_last, putting }
    }

    /// The last revision of the bucket, of any key.
    async fn last_revision(&self) -> Result<u64, KvError> {
        let info = self.stream.get_info().await.map_err(|e| self.error(">", e))?;
        Ok(info.state.last_sequence)
    }

    /// Whether `revision` exists and is one of `key`.
    pub async fn contains_revision(&self, key: &str, revision: u64) -> Result<bool, KvError> {
        match self.stream.get_raw_message(revision).await {
            Ok(message) => Ok(message.subject.as_str() == self.subject(key)),
            Err(e) if e.kind() == RawMessageErrorKind::NoMessageFound => Ok(false),
            Err(e) => Err(self.error(key, e)),
        }
    }

    /// Fills a bucket that lost its end up to `referenced`, and up to the last revision that this
    /// process has seen. Readers keep revisions by number, so no number may be used twice.
    pub async fn skip_lost_revisions(&self, referenced: u64) -> Result<(), KvError> {
        let given = self.known_last.fetch_max(referenced, Relaxed).max(referenced);
        let last = self.last_revision().await?;
        if last >= given {
            self.known_last.fetch_max(last, Relaxed);
            return Ok(());
        }
        if given - last > SKIPPED_REVISIONS_MAX {
            let reason = format!(
                "the CDC stream names revision {given}, and the bucket ends at {last}: something \
                 else writes to cdc.>, or the bucket was created again; delete the stream CDC, \
                 and a new epoch begins"
            );
            return Err(self.error(TOMBSTONE_KEY, reason));
        }
        tracing::error!(
            bucket = self.name,
            last,
            given,
            "KV bucket has lost its last revisions; their numbers are skipped"
        );
        let put = |_| {
            let mut headers = HeaderMap::new();
            headers.insert("KV-Operation", "DEL");
            self.append(TOMBSTONE_KEY, headers, Bytes::new())
        };
        stream::iter(last..given)
            .map(put)
            .buffer_unordered(PUTS_AT_ONCE)
            .try_collect::<Vec<u64>>()
            .await
            .map_err(|e| self.error(TOMBSTONE_KEY, e))?;
        Ok(())
    }

    fn subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.name)
    }

    fn error(&self, key: &str, reason: impl std::fmt::Display) -> KvError {
        KvError { bucket: self.name, key: key.to_owned(), reason: reason.to_string() }
    }

    /// The latest revision, unless it is a deletion.
    async fn latest(&self, key: &str) -> Result<Option<StreamMessage>, KvError> {
        Ok(self.last_entry(key).await?.filter(|message| !is_deletion(message)))
    }

    /// The latest revision, even if it is a deletion. The stream's leader answers, so every earlier
    /// put is visible.
    async fn last_entry(&self, key: &str) -> Result<Option<StreamMessage>, KvError> {
        match self.stream.get_last_raw_message_by_subject(&self.subject(key)).await {
            Ok(message) => Ok(Some(message)),
            Err(e) if e.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(e) => Err(self.error(key, e)),
        }
    }

    /// Returns the new revision. `expected`: the revision of the key that this one follows. The put
    /// fails if another client wrote the key since, or if the bucket lost earlier revisions.
    async fn put(
        &self,
        key: &str,
        mut headers: HeaderMap,
        value: Bytes,
        expected: Option<u64>,
    ) -> Result<u64, KvError> {
        if let Some(expected) = expected {
            headers.insert(EXPECTED_REVISION, expected.to_string());
        }
        let _putting = self.putting.lock().await;
        let mut tries = 0..PUT_TRIES;
        loop {
            // In this order, because other tasks put as well.
            let given = self.known_last.load(Relaxed);
            let last = self.last_revision().await?;
            if last < given {
                return Err(self.error(
                    key,
                    format!(
                        "it ends at revision {last}, but {given} was stored: NATS has lost its end"
                    ),
                ));
            }
            // The put must follow exactly this revision: it may reach a server that lost it.
            headers.insert(EXPECTED_LAST_SEQUENCE, last.to_string());
            match self.append(key, headers.clone(), value.clone()).await {
                Ok(revision) => {
                    self.known_last.fetch_max(revision, Relaxed);
                    return Ok(revision);
                }
                Err(e)
                    if e.kind() == PublishErrorKind::WrongLastSequence
                        && tries.next().is_some() => {}
                Err(e) => return Err(self.error(key, e)),
            }
        }
    }

    async fn append(
        &self,
        key: &str,
        headers: HeaderMap,
        value: Bytes,
    ) -> Result<u64, PublishError> {
        let sent = self.context.publish_with_headers(self.subject(key), headers, value).await?;
        Ok(sent.await?.sequence)
    }
}

fn is_deletion(message: &StreamMessage) -> bool {
    message.headers.get("KV-Operation").is_some()
}

/// Bucket `schemas`.
#[derive(Clone, Debug)]
pub struct Schemas(KvBucket);

impl Schemas {
    pub fn new(streams: &Streams) -> Self {
        Schemas(KvBucket::new(buckets::SCHEMAS, &streams.schemas, &streams.context))
    }

    pub fn bucket(&self) -> &KvBucket {
        &self.0
    }

    /// The latest schema of a table, with its revision.
    pub async fn latest(&self, token: &Token) -> Result<Option<Schema>, KvError> {
        let Some(message) = self.0.latest(token.as_str()).await? else { return Ok(None) };
        let mut schema: Schema =
            from_msgpack(&message.payload).map_err(|e| self.0.error(token.as_str(), e))?;
        schema.revision = message.sequence;
        Ok(Some(schema))
    }

    /// The latest schemas of several tables, in their order.
    pub async fn latest_of(
        &self,
        tokens: impl Iterator<Item = &Token>,
    ) -> Result<Vec<Option<Schema>>, KvError> {
        let reads = tokens.map(|token| self.latest(token));
        stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await
    }

    /// Stores `schema` as the revision after `schema.revision`, and returns it with its new
    /// revision. Revision 0: the key has no value, or an operator deleted it.
    pub async fn put(&self, schema: &Schema) -> Result<Schema, KvError> {
        let key = schema.token.as_str();
        let previous = match schema.revision {
            0 => {
                self.0.last_entry(key).await?.filter(is_deletion).map_or(0, |entry| entry.sequence)
            }
            revision => revision,
        };
        let mut schema = Schema { revision: 0, ..schema.clone() };
        let value = to_msgpack(&schema).map_err(|e| self.0.error(key, e))?;
        schema.revision = self.0.put(key, HeaderMap::new(), value.into(), Some(previous)).await?;
        Ok(schema)
    }

    /// Tokens of all schemas, even of tables that are no longer configured.
    pub async fn tokens(&self) -> Result<Vec<Token>, KvError> {
        let prefix = self.0.subject("");
        let listed = self.0.stream.info_with_subjects(format!("{prefix}>")).await;
        let subjects: Vec<(String, usize)> = listed
            .map_err(|e| self.0.error(">", e))?
            .try_collect()
            .await
            .map_err(|e| self.0.error(">", e))?;
        let token =
            |(subject, _): &(String, usize)| Token::parse(subject.strip_prefix(&prefix)?).ok();
        Ok(subjects.iter().filter_map(token).collect())
    }

    pub async fn epoch(&self) -> Result<Option<EpochRecord>, KvError> {
        let Some(message) = self.0.latest(EpochRecord::KEY).await? else { return Ok(None) };
        from_msgpack(&message.payload).map(Some).map_err(|e| self.0.error(EpochRecord::KEY, e))
    }

    pub async fn put_epoch(&self, record: &EpochRecord) -> Result<(), KvError> {
        let value = to_msgpack(record).map_err(|e| self.0.error(EpochRecord::KEY, e))?;
        self.0.put(EpochRecord::KEY, HeaderMap::new(), value.into(), None).await.map(|_| ())
    }
}

/// Bucket `dictionaries`.
#[derive(Clone, Debug)]
pub struct Dictionaries(KvBucket);

impl Dictionaries {
    pub fn new(streams: &Streams) -> Self {
        Dictionaries(KvBucket::new(buckets::DICTIONARIES, &streams.dictionaries, &streams.context))
    }

    pub fn bucket(&self) -> &KvBucket {
        &self.0
    }

    /// Stores the dictionary unless it is the latest revision already.
    pub async fn ensure(
        &self,
        token: &Token,
        dictionary: Dictionary,
    ) -> Result<Arc<StoredDictionary>, KvError> {
        let key = token.dictionary_key();
        let stored =
            |revision, dictionary, key| Arc::new(StoredDictionary { key, revision, dictionary });
        if let Some(latest) = self.0.latest(&key).await?
            && latest.payload[..] == *dictionary.bytes()
        {
            return Ok(stored(latest.sequence, dictionary, key));
        }
        let mut headers = HeaderMap::new();
        headers.insert(SHA256, dictionary.sha256());
        let value = Bytes::copy_from_slice(dictionary.bytes());
        let revision = self.0.put(&key, headers, value, None).await?;
        Ok(stored(revision, dictionary, key))
    }
}
