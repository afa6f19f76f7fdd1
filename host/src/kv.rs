//! The KV buckets: schemas, the epoch, dictionaries. Each put is acknowledged before anything refers to it.
//!
//! Which schema or dictionary is current is decided elsewhere; this only stores and finds revisions.

use std::sync::Arc;

use async_nats::{
    HeaderMap,
    jetstream::{
        self,
        message::StreamMessage,
        stream::{LastRawMessageErrorKind, Stream},
    },
};
use bytes::Bytes;
use walgate_wire::{Dictionary, EpochRecord, SHA256, Schema, Token, from_msgpack, to_msgpack};

const EXPECTED_REVISION: &str = "Nats-Expected-Last-Subject-Sequence";

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
struct Bucket {
    name: &'static str,
    stream: Stream,
    context: jetstream::Context,
}

impl Bucket {
    fn subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.name)
    }

    fn error(&self, key: &str, reason: impl std::fmt::Display) -> KvError {
        KvError { bucket: self.name, key: key.to_owned(), reason: reason.to_string() }
    }

    /// The latest revision, unless it is a deletion. Read from the stream's leader: what was put is seen.
    async fn latest(&self, key: &str) -> Result<Option<StreamMessage>, KvError> {
        match self.stream.get_last_raw_message_by_subject(&self.subject(key)).await {
            Ok(message) if message.headers.get("KV-Operation").is_some() => Ok(None),
            Ok(message) => Ok(Some(message)),
            Err(e) if e.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(e) => Err(self.error(key, e)),
        }
    }

    /// Returns the new revision. `expected`: the revision that this one follows; another writer in between
    /// makes the put fail.
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
        let sent = self.context.publish_with_headers(self.subject(key), headers, value).await;
        let ack = sent.map_err(|e| self.error(key, e))?.await.map_err(|e| self.error(key, e))?;
        Ok(ack.sequence)
    }
}

/// Bucket `schemas`.
#[derive(Clone, Debug)]
pub struct Schemas(Bucket);

impl Schemas {
    pub fn new(streams: &crate::broker::Streams) -> Self {
        let context = streams.context.clone();
        Schemas(Bucket { name: "schemas", stream: streams.schemas.clone(), context })
    }

    /// The latest schema of a table, with its revision.
    pub async fn latest(&self, token: &Token) -> Result<Option<Schema>, KvError> {
        let Some(message) = self.0.latest(token.as_str()).await? else { return Ok(None) };
        let mut schema: Schema =
            from_msgpack(&message.payload).map_err(|e| self.0.error(token.as_str(), e))?;
        schema.revision = message.sequence;
        Ok(Some(schema))
    }

    /// Stores `schema` as the revision after `schema.revision` and returns it with its new revision.
    pub async fn put(&self, schema: &Schema) -> Result<Schema, KvError> {
        let key = schema.token.as_str();
        let previous = schema.revision;
        let mut schema = Schema { revision: 0, ..schema.clone() };
        let value = to_msgpack(&schema).map_err(|e| self.0.error(key, e))?;
        schema.revision = self.0.put(key, HeaderMap::new(), value.into(), Some(previous)).await?;
        Ok(schema)
    }

    /// Tokens that have a schema, current or not.
    pub async fn tokens(&self) -> Result<Vec<Token>, KvError> {
        use futures::TryStreamExt;
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
pub struct Dictionaries(Bucket);

/// A dictionary that is in the bucket.
#[derive(Clone, Debug)]
pub struct StoredDictionary {
    pub key: String,
    pub revision: u64,
    pub dictionary: Dictionary,
}

impl Dictionaries {
    pub fn new(streams: &crate::broker::Streams) -> Self {
        let context = streams.context.clone();
        Dictionaries(Bucket { name: "dictionaries", stream: streams.dictionaries.clone(), context })
    }

    /// Makes sure that the latest revision of the table's dictionary is this one.
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
