//! The schema and dictionary revisions that decode messages, fetched once and cached.
//!
//! A revision is a sequence of the KV bucket's stream. Nothing here depends on the latest revision.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_nats::jetstream::message::StreamMessage;
use walgate_nats_connect::add_jitter;
use walgate_wire::{
    Caps, Decompressor, Dictionary, SHA256, Schema, Token,
    buckets::{DICTIONARIES_PREFIX, DICTIONARIES_STREAM, SCHEMAS_PREFIX, SCHEMAS_STREAM},
    from_msgpack,
};

use crate::{
    Error,
    error::UnreadableMessage,
    remote::{RemoteStreams, ask_until_answered},
};

/// A decompressor takes about 200 KiB beside its dictionary, and a replay of old messages needs
/// many.
const DECOMPRESSORS_MAX: usize = 8;
const SCHEMAS_MAX: usize = 256;
/// Attempts to fetch a schema revision. It may be invisible for a moment after its message: reads
/// of a KV bucket are not linearizable.
const SCHEMA_TRIES: u32 = 20;
/// More attempts for a dictionary: without it the table must be loaded again.
const DICTIONARY_TRIES: u32 = 120;
const RETRY: Duration = Duration::from_millis(250);

/// The name of a dictionary revision: `users_dict@7`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DictionaryName {
    pub key: String,
    pub revision: u64,
}

impl std::str::FromStr for DictionaryName {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let bad = || format!("'{s}' is not a dictionary: expected key@revision");
        let (key, revision) = s.rsplit_once('@').ok_or_else(bad)?;
        let revision = revision.parse().map_err(|_| bad())?;
        Ok(DictionaryName { key: key.to_owned(), revision })
    }
}

#[derive(Debug)]
pub(crate) struct AssetCache {
    remote: RemoteStreams,
    caps: Caps,
    schemas: HashMap<(Token, u64), Arc<Schema>>,
    plain: Option<Decompressor>,
    /// With the dictionary's SHA-256. The most recently used entry is last.
    decompressors: Vec<(DictionaryName, String, Decompressor)>,
}

impl AssetCache {
    pub fn new(remote: RemoteStreams, caps: Caps) -> AssetCache {
        AssetCache { remote, caps, schemas: HashMap::new(), plain: None, decompressors: Vec::new() }
    }

    /// The schema of that revision; none if the bucket no longer holds it.
    pub async fn schema_revision(
        &mut self,
        token: &Token,
        revision: u64,
    ) -> Result<Option<Arc<Schema>>, Error> {
        let key = (token.clone(), revision);
        if let Some(schema) = self.schemas.get(&key) {
            return Ok(Some(schema.clone()));
        }
        let what = format!("revision {revision} of the schema of {token}");
        let subject = format!("{SCHEMAS_PREFIX}{token}");
        let message =
            self.fetch_revision(&what, SCHEMAS_STREAM, &subject, revision, SCHEMA_TRIES).await;
        let Some(message) = message else { return Ok(None) };
        let schema = read_schema(&message.payload, token, revision)
            .map_err(|e| Error::Protocol { subject, sequence: revision, reason: e.to_string() })?;
        let schema = Arc::new(schema);
        self.insert_schema(schema.clone());
        Ok(Some(schema))
    }

    /// Drops cached revisions: their numbers may mean something else in a new bucket.
    pub fn clear(&mut self) {
        self.schemas.clear();
        self.decompressors.clear();
    }

    /// Caches a schema that was read elsewhere.
    pub fn insert_schema(&mut self, schema: Arc<Schema>) {
        if self.schemas.len() >= SCHEMAS_MAX {
            self.schemas.clear();
        }
        self.schemas.insert((schema.token.clone(), schema.revision), schema);
    }

    /// A revision that a message names. Waits without limit while the server is unreachable. None
    /// if the revision is missing after `tries` attempts, or belongs to another key.
    async fn fetch_revision(
        &self,
        what: &str,
        stream: &str,
        subject: &str,
        revision: u64,
        tries: u32,
    ) -> Option<StreamMessage> {
        let remote = &self.remote;
        for _ in 0..tries {
            let ask = || async move { remote.message_at(stream, revision).await.map(Some) };
            if let Some(message) = ask_until_answered(what, ask).await {
                return (message.subject.as_str() == subject).then_some(message);
            }
            tokio::time::sleep(add_jitter(RETRY)).await;
        }
        None
    }

    /// Decompresses a frame. A missing dictionary is requested again for a while, because skipping
    /// the frame would lose rows. `sha256`: the dictionary's expected hash, if known.
    pub async fn decompress_frame(
        &mut self,
        frame: &[u8],
        dictionary: Option<DictionaryName>,
        sha256: Option<&str>,
    ) -> Result<Vec<u8>, UnreadableMessage> {
        let caps = self.caps;
        let decompressor = match dictionary {
            None => match &mut self.plain {
                Some(plain) => plain,
                empty => empty.insert(Decompressor::new(None)?),
            },
            Some(name) => self.decompressor_for(name, sha256).await?,
        };
        Ok(decompressor.decompress(frame, &caps)?)
    }

    async fn decompressor_for(
        &mut self,
        name: DictionaryName,
        sha256: Option<&str>,
    ) -> Result<&mut Decompressor, UnreadableMessage> {
        let entry = match self.decompressors.iter().position(|(kept, ..)| *kept == name) {
            Some(at) => self.decompressors.remove(at),
            None => {
                if self.decompressors.len() >= DECOMPRESSORS_MAX {
                    self.decompressors.remove(0);
                }
                let dictionary = self.fetch_dictionary(&name).await?;
                let decompressor = Decompressor::new(Some(&dictionary))?;
                (name, dictionary.sha256().to_owned(), decompressor)
            }
        };
        if let Some(expected) = sha256.filter(|expected| *expected != entry.1) {
            let DictionaryName { key, revision } = &entry.0;
            let reason =
                format!("dictionary {key}@{revision} hashes to {}, not {expected}", entry.1);
            return Err(UnreadableMessage::Other(reason));
        }
        self.decompressors.push(entry);
        match self.decompressors.last_mut() {
            Some((_, _, decompressor)) => Ok(decompressor),
            None => Err(UnreadableMessage::Other("no decompressor".to_owned())),
        }
    }

    async fn fetch_dictionary(
        &self,
        name: &DictionaryName,
    ) -> Result<Dictionary, UnreadableMessage> {
        let DictionaryName { key, revision } = name;
        let what = format!("dictionary {key}@{revision}");
        let subject = format!("{DICTIONARIES_PREFIX}{key}");
        let fetched =
            self.fetch_revision(&what, DICTIONARIES_STREAM, &subject, *revision, DICTIONARY_TRIES);
        let Some(message) = fetched.await else { return Err(UnreadableMessage::Lost(what)) };
        let dictionary = Dictionary::new(&message.payload[..])
            .map_err(|e| UnreadableMessage::Other(format!("{what}: {e}")))?;
        let stated = message.headers.get(SHA256).map(|value| value.as_str());
        if let Some(stated) = stated.filter(|stated| *stated != dictionary.sha256()) {
            let actual = dictionary.sha256();
            return Err(UnreadableMessage::Other(format!(
                "{what} hashes to {actual}, not {stated}"
            )));
        }
        tracing::debug!(key, revision, sha256 = dictionary.sha256(), "dictionary fetched");
        Ok(dictionary)
    }
}

/// Decodes and checks the value of a schema's KV entry.
pub(crate) fn read_schema(
    payload: &[u8],
    token: &Token,
    revision: u64,
) -> Result<Schema, UnreadableMessage> {
    let mut schema: Schema = from_msgpack(payload)?;
    if schema.token != *token {
        return Err(UnreadableMessage::Other(format!(
            "the schema is of {}, not of {token}",
            schema.token
        )));
    }
    let columns = schema.columns.len();
    if schema.old.iter().any(|&index| index as usize >= columns) {
        return Err(UnreadableMessage::Other(
            "the schema's old row names columns that it does not have".into(),
        ));
    }
    if schema.key_indexes().len() != schema.key.len() {
        return Err(UnreadableMessage::Other(
            "the schema's key names columns that it does not have".into(),
        ));
    }
    schema.revision = revision;
    Ok(schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dictionary_names_are_parsed() {
        let name: DictionaryName = "sales=2Eorders_dict@7".parse().unwrap();
        assert_eq!(name, DictionaryName { key: "sales=2Eorders_dict".into(), revision: 7 });
        assert!("users_dict".parse::<DictionaryName>().is_err());
        assert!("users_dict@x".parse::<DictionaryName>().is_err());
    }
}
