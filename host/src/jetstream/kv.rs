//! The KV buckets: schemas, the epoch, dictionaries. Each put is acknowledged before anything refers to it.
//!
//! Which schema or dictionary is current is decided elsewhere; this only stores and finds revisions.

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

use crate::egress::compress::StoredDictionary;

const EXPECTED_REVISION: &str = "Nats-Expected-Last-Subject-Sequence";
/// The key under which revisions are passed over. It is no table's token.
const PASSED_OVER: &str = "=lost";
const PUTS_AT_ONCE: usize = 64;
/// Questions to a bucket that are under way at the same time, where each is about another table.
pub const READS_AT_ONCE: usize = 16;
/// How often a put tries again that somebody else's came before.
const PUT_TRIES: u32 = 5;
/// No loss is that large: whoever named such a revision is not one of us.
const PASSED_OVER_MAX: u64 = 100_000;

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
pub struct Bucket {
    pub name: &'static str,
    stream: Stream,
    context: jetstream::Context,
    /// The last revision that this process knows of.
    known_last: Arc<AtomicU64>,
    /// Each put states where the bucket ends: of two at a time one would be refused.
    putting: Arc<Mutex<()>>,
}

impl Bucket {
    fn new(name: &'static str, stream: &Stream, context: &jetstream::Context) -> Self {
        let (known_last, putting) = (Arc::default(), Arc::default());
        Bucket { name, stream: stream.clone(), context: context.clone(), known_last, putting }
    }

    /// The last revision that was given in the bucket.
    async fn end(&self) -> Result<u64, KvError> {
        let info = self.stream.get_info().await.map_err(|e| self.error(">", e))?;
        Ok(info.state.last_sequence)
    }

    /// Whether `revision` is one of `key`.
    pub async fn holds(&self, key: &str, revision: u64) -> Result<bool, KvError> {
        match self.stream.get_raw_message(revision).await {
            Ok(message) => Ok(message.subject.as_str() == self.subject(key)),
            Err(e) if e.kind() == RawMessageErrorKind::NoMessageFound => Ok(false),
            Err(e) => Err(self.error(key, e)),
        }
    }

    /// A bucket that has lost its end goes on behind `named`, and behind what this process knows of: readers keep
    /// revisions by number, so none is given twice.
    pub async fn pass_over_lost(&self, named: u64) -> Result<(), KvError> {
        let given = self.known_last.fetch_max(named, Relaxed).max(named);
        let last = self.end().await?;
        if last >= given {
            self.known_last.fetch_max(last, Relaxed);
            return Ok(());
        }
        if given - last > PASSED_OVER_MAX {
            return Err(self.error(PASSED_OVER, format!(
                "the CDC stream names revision {given}, and the bucket ends at {last}: something else writes to cdc.>, or the \
                 bucket was made anew; delete the stream CDC, and a new epoch begins"
            )));
        }
        tracing::error!(
            bucket = self.name,
            last,
            given,
            "the KV bucket has lost its last revisions; their numbers are passed over"
        );
        let put = |_| {
            let mut headers = HeaderMap::new();
            headers.insert("KV-Operation", "DEL");
            self.append(PASSED_OVER, headers, Bytes::new())
        };
        stream::iter(last..given)
            .map(put)
            .buffer_unordered(PUTS_AT_ONCE)
            .try_collect::<Vec<u64>>()
            .await
            .map_err(|e| self.error(PASSED_OVER, e))?;
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
        Ok(self.end_of(key).await?.filter(|message| !is_deletion(message)))
    }

    /// The latest revision, also if it is a deletion. Read from the stream's leader: what was put is seen.
    async fn end_of(&self, key: &str) -> Result<Option<StreamMessage>, KvError> {
        match self.stream.get_last_raw_message_by_subject(&self.subject(key)).await {
            Ok(message) => Ok(Some(message)),
            Err(e) if e.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(e) => Err(self.error(key, e)),
        }
    }

    /// Returns the new revision. `expected`: the revision of the key that this one follows; another writer of it in
    /// between makes the put fail. So does the loss of revisions that were put before.
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
            // In this order: others put, too.
            let given = self.known_last.load(Relaxed);
            let last = self.end().await?;
            if last < given {
                return Err(self.error(
                    key,
                    format!(
                        "it ends at revision {last}, but {given} was stored: NATS has lost its end"
                    ),
                ));
            }
            // Behind that and nothing else: the put may reach a server that has lost what was just read.
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
pub struct Schemas(Bucket);

impl Schemas {
    pub fn new(streams: &crate::jetstream::streams::Streams) -> Self {
        Schemas(Bucket::new(buckets::SCHEMAS, &streams.schemas, &streams.context))
    }

    pub fn bucket(&self) -> &Bucket {
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

    /// The same of several tables, in their order.
    pub async fn latest_of(
        &self,
        tokens: impl Iterator<Item = &Token>,
    ) -> Result<Vec<Option<Schema>>, KvError> {
        let reads = tokens.map(|token| self.latest(token));
        stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await
    }

    /// Stores `schema` as the revision after `schema.revision` and returns it with its new revision. 0: there is none,
    /// or somebody has deleted it.
    pub async fn put(&self, schema: &Schema) -> Result<Schema, KvError> {
        let key = schema.token.as_str();
        let previous = match schema.revision {
            0 => self.0.end_of(key).await?.filter(is_deletion).map_or(0, |end| end.sequence),
            revision => revision,
        };
        let mut schema = Schema { revision: 0, ..schema.clone() };
        let value = to_msgpack(&schema).map_err(|e| self.0.error(key, e))?;
        schema.revision = self.0.put(key, HeaderMap::new(), value.into(), Some(previous)).await?;
        Ok(schema)
    }

    /// Tokens that have a schema, current or not.
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
pub struct Dictionaries(Bucket);

impl Dictionaries {
    pub fn new(streams: &crate::jetstream::streams::Streams) -> Self {
        Dictionaries(Bucket::new(buckets::DICTIONARIES, &streams.dictionaries, &streams.context))
    }

    pub fn bucket(&self) -> &Bucket {
        &self.0
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
