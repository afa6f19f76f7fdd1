//! The revisions of schemas and dictionaries that messages name, held against the buckets that have to have them.
//!
//! NATS can keep a message and lose the revision that it names: after a power cut each of its streams ends where the disk
//! had it. What a loss means for the epoch is decided elsewhere.

use futures::{StreamExt, TryStreamExt, stream};
use walgate_wire::Epoch;

use crate::{
    broker::BrokerError,
    gateway::Gateway,
    kv::KvError,
    tail::{self, Named},
};

const READS_AT_ONCE: usize = 16;

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
        for Named { token, schema, dictionary, .. } in self.0.iter().filter(|n| n.epoch == epoch) {
            let schema = (schemas, token.to_string(), *schema);
            let dictionary =
                dictionary.map(|revision| (dictionaries, token.dictionary_key(), revision));
            for (bucket, key, revision) in [schema].into_iter().chain(dictionary) {
                if !bucket.holds(&key, revision).await? {
                    return Ok(Some(format!(
                        "messages name revision {revision} of {key}, which KV bucket {} has lost",
                        bucket.name
                    )));
                }
            }
        }
        Ok(None)
    }
}
