//! The drop-in folder of dictionaries: files are validated, stored and made live, without a
//! restart.
//!
//! `watch` decides when a file is read. Compression itself is not known here.

use std::path::PathBuf;

use futures::{StreamExt, TryStreamExt, stream};
use walgate_wire::{Dictionary, MAX_DICTIONARY_BYTES, Token};

use crate::{
    assets::watch::{DropInFolder, DropInHandler, OfferError},
    config::{Config, ConfiguredTable},
    egress::live_dictionaries::LiveDictionaries,
    jetstream::{
        kv::{Dictionaries, KvError, READS_AT_ONCE},
        streams::Streams,
    },
    observe::status::Status,
};

const ENDING: &str = ".zstd.dict";

/// Validates dictionary files, stores them in the bucket, and makes them live.
#[derive(Debug)]
pub struct DictionaryHandler {
    streams: Streams,
    store: Dictionaries,
    live: LiveDictionaries,
    status: Status,
}

/// The dictionary folder of the configuration.
pub fn open_folder(
    config: &Config,
    streams: &Streams,
    store: &Dictionaries,
    live: &LiveDictionaries,
    status: &Status,
) -> DropInFolder<DictionaryHandler> {
    let tokens = config.tables.iter().map(|table| table.token.clone()).collect();
    let handler = DictionaryHandler {
        streams: streams.clone(),
        store: store.clone(),
        live: live.clone(),
        status: status.clone(),
    };
    DropInFolder::new(config.compression.dictionaries.clone(), tokens, handler)
}

/// Makes sure that the bucket still holds the live revisions: messages are about to refer to them.
pub async fn store_live_dictionaries(
    tables: &[ConfiguredTable],
    store: &Dictionaries,
    live: &LiveDictionaries,
    status: &Status,
) -> Result<(), KvError> {
    let all =
        stream::iter(tables).map(|table| store_live_dictionary(&table.token, store, live, status));
    all.buffer_unordered(READS_AT_ONCE).try_collect().await
}

async fn store_live_dictionary(
    token: &Token,
    store: &Dictionaries,
    live: &LiveDictionaries,
    status: &Status,
) -> Result<(), KvError> {
    let Some(current) = live.dictionary(token) else { return Ok(()) };
    let stored = store.ensure(token, current.dictionary.clone()).await?;
    if stored.revision != current.revision {
        let revision = stored.revision;
        tracing::warn!(table = %token, revision, "dictionary stored again: its bucket had lost it");
        status.table(token).set_dictionary_revision(revision);
        live.replace_dictionary(token, &current, &stored);
    }
    Ok(())
}

/// The name of a table's dictionary file.
pub fn file_name(token: &Token) -> String {
    format!("{token}{ENDING}")
}

impl DictionaryHandler {
    /// This server's limit may be below the limit of the format.
    fn check_message_size(&self, bytes: usize) -> Result<(), OfferError> {
        let max = self.streams.max_body_bytes();
        if bytes <= max {
            return Ok(());
        }
        Err(OfferError::Invalid(format!(
            "it has {bytes} bytes, and the NATS server accepts {} in a message (max_payload), \
             headers included: train one with --max-bytes {max}, or raise max_payload and write \
             the file again",
            self.streams.max_payload()
        )))
    }
}

impl DropInHandler for DictionaryHandler {
    const WHAT: &'static str = "dictionary";
    const ENDING: &'static str = ENDING;

    fn bytes_max(&self) -> usize {
        MAX_DICTIONARY_BYTES
    }

    fn file_of(&self, token: &Token) -> PathBuf {
        file_name(token).into()
    }

    async fn offer(&mut self, token: &Token, bytes: Vec<u8>) -> Result<(), OfferError> {
        let dictionary = tokio::task::spawn_blocking(|| Dictionary::new(bytes)).await;
        let dictionary = dictionary.map_err(transient)?.map_err(OfferError::invalid)?;
        self.check_message_size(dictionary.bytes().len())?;
        let stored = self.store.ensure(token, dictionary).await.map_err(transient)?;
        let revision = stored.revision;
        let sha256 = stored.dictionary.sha256();
        tracing::info!(table = %token, revision, sha256, "dictionary is live");
        self.status.table(token).set_dictionary_revision(revision);
        self.live.set_dictionary(token, Some(stored));
        Ok(())
    }

    async fn handle_missing(&mut self, token: &Token) {
        if self.live.dictionary(token).is_some() {
            tracing::info!(table = %token, "dictionary file removed: new messages use none, stored revisions stay");
            self.status.table(token).set_dictionary_revision(0);
            self.live.set_dictionary(token, None);
        }
    }

    fn handle_rejected(&mut self, token: &Token, _: &str) -> String {
        match self.live.dictionary(token) {
            Some(dictionary) => format!("revision {} stays in use", dictionary.revision),
            None => "none is in use".to_owned(),
        }
    }
}

fn transient(error: impl std::fmt::Display) -> OfferError {
    OfferError::Transient(error.to_string())
}
