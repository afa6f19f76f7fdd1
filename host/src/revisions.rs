//! The revisions of schemas and dictionaries that the CDC stream names, held against the buckets that have to have them.
//!
//! NATS can keep a message and lose the revision that it names: after a power cut each of its streams ends where the disk
//! had it. What a loss means for the epoch is decided elsewhere.

use async_nats::jetstream::{
    message::StreamMessage,
    stream::{LastRawMessageErrorKind, Stream},
};
use futures::{StreamExt, TryStreamExt, stream};
use walgate_wire::{DICT, Epoch, SCHEMA, Token, subjects};

use crate::{
    broker::{BrokerError, position_of, read_error},
    gateway::Gateway,
    kv::KvError,
};

const READS_AT_ONCE: usize = 16;

/// What the last message of a table names.
#[derive(Clone, Debug)]
struct Named {
    token: Token,
    epoch: Epoch,
    schema: u64,
    dictionary: Option<u64>,
}

/// What the last messages of all tables name. Those before them name older revisions, which a loss takes last.
#[derive(Clone, Debug)]
pub struct NamedRevisions(Vec<Named>);

impl NamedRevisions {
    /// Reads the last message of each table.
    pub async fn read(gateway: &Gateway) -> Result<NamedRevisions, BrokerError> {
        let cdc = &gateway.streams.cdc;
        let reads = gateway.config.tables.iter().map(|table| last_named(cdc, &table.token));
        let named = stream::iter(reads).buffer_unordered(READS_AT_ONCE);
        let named: Vec<Option<Named>> = named.try_collect().await?;
        Ok(NamedRevisions(named.into_iter().flatten().collect()))
    }

    /// No revision that was named is given to something else.
    pub async fn pass_over_lost(&self, gateway: &Gateway) -> Result<(), KvError> {
        let schema = self.0.iter().map(|named| named.schema).max();
        let dictionary = self.0.iter().filter_map(|named| named.dictionary).max();
        gateway.schemas.bucket().pass_over_lost(schema.unwrap_or(0)).await?;
        gateway.dictionaries.bucket().pass_over_lost(dictionary.unwrap_or(0)).await
    }

    /// What messages of `epoch` name and nobody can fetch any more.
    pub async fn lost(&self, gateway: &Gateway, epoch: Epoch) -> Result<Option<String>, KvError> {
        let (schemas, dictionaries) = (gateway.schemas.bucket(), gateway.dictionaries.bucket());
        for Named { token, schema, dictionary, .. } in self.0.iter().filter(|n| n.epoch == epoch) {
            let schema = (schemas, token.to_string(), *schema);
            let dictionary =
                dictionary.map(|revision| (dictionaries, token.dictionary_key(), revision));
            for (bucket, key, revision) in [schema].into_iter().chain(dictionary) {
                if !bucket.holds(&key, revision).await? {
                    return Ok(Some(format!(
                        "the CDC stream names revision {revision} of {key}, which KV bucket {} has lost",
                        bucket.name
                    )));
                }
            }
        }
        Ok(None)
    }
}

async fn last_named(cdc: &Stream, token: &Token) -> Result<Option<Named>, BrokerError> {
    let message = match cdc.get_last_raw_message_by_subject(&subjects::cdc(token)).await {
        Ok(message) => message,
        Err(e) if e.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(None),
        Err(e) => return Err(read_error("the CDC stream", e)),
    };
    let epoch = position_of(&message.headers)?.epoch;
    let Some(schema) = revision(&message, SCHEMA)? else { return Ok(None) };
    let dictionary = revision(&message, DICT)?;
    Ok(Some(Named { token: token.clone(), epoch, schema, dictionary }))
}

/// `7` of `7` and of `users_dict@7`.
fn revision(message: &StreamMessage, header: &str) -> Result<Option<u64>, BrokerError> {
    let Some(value) = message.headers.get(header) else { return Ok(None) };
    let number = value.as_str().rsplit('@').next().unwrap_or_default().parse();
    number.map(Some).map_err(|e| read_error("the CDC stream", format!("{header}: {e}")))
}
