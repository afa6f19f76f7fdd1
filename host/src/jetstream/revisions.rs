//! The revisions of schemas and dictionaries that messages refer to, checked against the buckets.
//!
//! NATS can keep a message and lose the revision that it refers to: after a power cut each stream
//! ends where its disk had it. What a loss means for the epoch is decided elsewhere.

use futures::{StreamExt, TryStreamExt, stream};
use walgate_wire::{Epoch, Token};

use crate::jetstream::{
    kv::{Dictionaries, KvBucket, KvError, READS_AT_ONCE, Schemas},
    streams::{JetStreamError, Streams},
    tail::{self, RevisionReference},
};

/// The revisions that the last messages of all tables refer to. Earlier messages refer to older
/// revisions, which a loss of the bucket's end takes last.
#[derive(Clone, Debug)]
pub struct ReferencedRevisions(Vec<RevisionReference>);

impl ReferencedRevisions {
    /// Reads the last messages of these tables.
    pub async fn read<'a>(
        streams: &Streams,
        tokens: impl IntoIterator<Item = &'a Token>,
    ) -> Result<ReferencedRevisions, JetStreamError> {
        let reads = tokens.into_iter().map(|token| tail::read_references(streams, token));
        let found = stream::iter(reads).buffer_unordered(READS_AT_ONCE);
        let found: Vec<Vec<RevisionReference>> = found.try_collect().await?;
        Ok(ReferencedRevisions(found.concat()))
    }

    /// Makes sure that no revision number that a message refers to is given to another value.
    pub async fn skip_lost(
        &self,
        schemas: &Schemas,
        dictionaries: &Dictionaries,
    ) -> Result<(), KvError> {
        let schema = self.0.iter().map(|reference| reference.schema).max();
        let dictionary = self.0.iter().filter_map(|reference| reference.dictionary).max();
        schemas.bucket().skip_lost_revisions(schema.unwrap_or(0)).await?;
        dictionaries.bucket().skip_lost_revisions(dictionary.unwrap_or(0)).await
    }

    /// A description of the first revision that messages of `epoch` refer to and the bucket lost.
    pub async fn find_lost(
        &self,
        schemas: &Schemas,
        dictionaries: &Dictionaries,
        epoch: Epoch,
    ) -> Result<Option<String>, KvError> {
        let (schemas, dictionaries) = (schemas.bucket(), dictionaries.bucket());
        let of_epoch = self.0.iter().filter(|reference| reference.epoch == epoch);
        let keys = of_epoch.flat_map(|reference| {
            let RevisionReference { token, schema, dictionary, .. } = reference;
            let dictionary =
                dictionary.map(|revision| (dictionaries, token.dictionary_key(), revision));
            [(schemas, token.to_string(), *schema)].into_iter().chain(dictionary)
        });
        let reads = keys.map(|(bucket, key, revision)| describe_loss(bucket, key, revision));
        let losses = stream::iter(reads).buffered(READS_AT_ONCE);
        let first = losses.try_filter_map(async |loss| Ok(loss));
        std::pin::pin!(first).try_next().await
    }
}

/// `None` if `revision` of `key` exists.
async fn describe_loss(
    bucket: &KvBucket,
    key: String,
    revision: u64,
) -> Result<Option<String>, KvError> {
    let exists = bucket.contains_revision(&key, revision).await?;
    Ok((!exists).then(|| {
        let bucket = bucket.name;
        format!("messages name revision {revision} of {key}, which KV bucket {bucket} has lost")
    }))
}
