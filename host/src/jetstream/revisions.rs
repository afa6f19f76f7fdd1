//! The revisions of schemas and dictionaries that messages name, held against the buckets that have to have them.
//!
//! NATS can keep a message and lose the revision that it names: after a power cut each of its streams ends where the disk
//! had it. What a loss means for the epoch is decided elsewhere.

use futures::{StreamExt, TryStreamExt, stream};
use walgate_wire::Epoch;

use crate::{
    context::Gateway,
    jetstream::{
        kv::{Bucket, KvError, READS_AT_ONCE},
        streams::BrokerError,
        tail::{self, Named},
    },
};

/// What the last messages of all tables name. Those before them name older revisions, which a loss takes last.
#[derive(Clone, Debug)]
pub struct NamedRevisions(Vec<Named>);

impl NamedRevisions {
    pub async fn read(gateway: &Gateway) -> Result<NamedRevisions, BrokerError> {
        let tables = gateway.config.tables.iter();
        let reads = tables.map(|table| tail::last_named(&gateway.streams, &table.token));
        let named = stream::iter(reads).buffer_unordered(READS_AT_ONCE);
        let named: Vec<Vec<Named>> = named.try_collect().await?;
        Ok(NamedRevisions(named.concat()))
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
        let of_epoch = self.0.iter().filter(|named| named.epoch == epoch);
        let questions = of_epoch.flat_map(|Named { token, schema, dictionary, .. }| {
            let dictionary =
                dictionary.map(|revision| (dictionaries, token.dictionary_key(), revision));
            [(schemas, token.to_string(), *schema)].into_iter().chain(dictionary)
        });
        let reads = questions.map(|(bucket, key, revision)| loss(bucket, key, revision));
        let losses = stream::iter(reads).buffered(READS_AT_ONCE);
        let first = losses.try_filter_map(async |loss| Ok(loss));
        std::pin::pin!(first).try_next().await
    }
}

/// In words, if `revision` of `key` is not there.
async fn loss(bucket: &Bucket, key: String, revision: u64) -> Result<Option<String>, KvError> {
    let is_there = bucket.holds(&key, revision).await?;
    Ok((!is_there).then(|| {
        let bucket = bucket.name;
        format!("messages name revision {revision} of {key}, which KV bucket {bucket} has lost")
    }))
}
