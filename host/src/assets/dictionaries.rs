//! The drop-in folder of dictionaries: what lies there is validated, stored and made live, without a restart.
//!
//! When a file is looked at is `watch`'s business; compression itself is not known here.

use std::path::PathBuf;

use futures::{StreamExt, TryStreamExt, stream};
use walgate_wire::{Dictionary, MAX_DICTIONARY_BYTES, Token};

use crate::{
    assets::{
        registry::Assets,
        watch::{Folder, Refused, Shelf},
    },
    context::Gateway,
    jetstream::{
        kv::{Dictionaries, KvError, READS_AT_ONCE},
        publisher::HEADER_ROOM_BYTES,
        streams::Streams,
    },
    observe::status::Status,
};

const ENDING: &str = ".zstd.dict";

/// Where the dictionaries of a running gateway come from and go to.
#[derive(Debug)]
pub struct DictionaryShelf {
    streams: Streams,
    store: Dictionaries,
    assets: Assets,
    status: Status,
}

/// The folder that the configuration names.
pub fn folder(gateway: &Gateway) -> Folder<DictionaryShelf> {
    let tokens = gateway.config.tables.iter().map(|table| table.token.clone()).collect();
    let shelf = DictionaryShelf {
        streams: gateway.streams.clone(),
        store: gateway.dictionaries.clone(),
        assets: gateway.assets.clone(),
        status: gateway.status.clone(),
    };
    Folder::new(gateway.config.compression.dictionaries.clone(), tokens, shelf)
}

/// The revisions in use are in the bucket, also if it lost them since: messages are about to name them.
pub async fn store_again(gateway: &Gateway) -> Result<(), KvError> {
    let tables = gateway.config.tables.iter();
    let all = stream::iter(tables).map(|table| store_again_of(gateway, &table.token));
    all.buffer_unordered(READS_AT_ONCE).try_collect().await
}

async fn store_again_of(gateway: &Gateway, token: &Token) -> Result<(), KvError> {
    let Some(live) = gateway.assets.dictionary(token) else { return Ok(()) };
    let stored = gateway.dictionaries.ensure(token, live.dictionary.clone()).await?;
    if stored.revision != live.revision {
        tracing::warn!(table = %token, revision = stored.revision, "dictionary stored again: its bucket had lost it");
        gateway.status.table(token).set_dictionary_revision(stored.revision);
        gateway.assets.replace_dictionary(token, &live, &stored);
    }
    Ok(())
}

/// What a table's dictionary is called in its folder.
pub fn file_name(token: &Token) -> String {
    format!("{token}{ENDING}")
}

impl DictionaryShelf {
    /// Of this server: what is within the format's own limit may be above it.
    fn fits_a_message(&self, bytes: usize) -> Result<(), Refused> {
        let max_payload = self.streams.client.max_payload();
        let max = max_payload.saturating_sub(HEADER_ROOM_BYTES);
        if bytes <= max {
            return Ok(());
        }
        Err(Refused::Invalid(format!(
            "it has {bytes} bytes, and the NATS server takes {max_payload} in a message (max_payload), headers included: \
             train one with --max-bytes {max}, or raise max_payload and write the file again"
        )))
    }
}

impl Shelf for DictionaryShelf {
    const WHAT: &'static str = "dictionary";
    const ENDING: &'static str = ENDING;

    fn bytes_max(&self) -> usize {
        MAX_DICTIONARY_BYTES
    }

    fn file(&self, token: &Token) -> PathBuf {
        file_name(token).into()
    }

    async fn offer(&mut self, token: &Token, bytes: Vec<u8>) -> Result<(), Refused> {
        let dictionary = tokio::task::spawn_blocking(|| Dictionary::new(bytes)).await;
        let dictionary =
            dictionary.map_err(|e| Refused::NotNow(e.to_string()))?.map_err(Refused::invalid)?;
        self.fits_a_message(dictionary.bytes().len())?;
        let stored = self.store.ensure(token, dictionary).await;
        let stored = stored.map_err(|e| Refused::NotNow(e.to_string()))?;
        tracing::info!(table = %token, revision = stored.revision, sha256 = stored.dictionary.sha256(), "dictionary is live");
        self.status.table(token).set_dictionary_revision(stored.revision);
        self.assets.set_dictionary(token, Some(stored));
        Ok(())
    }

    async fn absent(&mut self, token: &Token) {
        if self.assets.dictionary(token).is_some() {
            tracing::info!(table = %token, "dictionary file removed: new messages go without; stored revisions stay");
            self.status.table(token).set_dictionary_revision(0);
            self.assets.set_dictionary(token, None);
        }
    }

    fn refused(&mut self, token: &Token, _: &str) -> String {
        match self.assets.dictionary(token) {
            Some(dictionary) => format!("revision {} stays in use", dictionary.revision),
            None => "none is in use".to_owned(),
        }
    }
}
