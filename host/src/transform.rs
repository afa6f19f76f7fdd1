//! Row batch → pack → compress: one synchronous function for each of the two kinds of body.
//!
//! Where the body goes is not known here, nor whether the rows went through a guest.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use bytes::Bytes;
use walgate_wire::{
    CONTENT_ENCODING, ChangeWriter, ChunkWriter, Compressor, DICT, FrameError, Token, ZSTD,
};

use crate::{
    batch::RowBatch,
    config::{Compression, UseDictionary},
    kv::StoredDictionary,
    pack::{Rendered, RowError, TablePacker},
    publish::Headers,
    source::catalog::TableVersion,
};

/// With `use = "auto"`: above this a body is its own dictionary (measured: no gain from 64 KiB on).
const AUTO_DICTIONARY_BYTES_MAX: usize = 64 << 10;

/// A body that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TransformError {
    #[error(transparent)]
    Row(#[from] RowError),
    #[error("{table}: {source}")]
    Compress { table: String, source: FrameError },
}

/// A body ready to be sent.
#[derive(Debug)]
pub struct Packed {
    pub body: Bytes,
    /// Size before compression.
    pub raw_bytes: usize,
    encoding: Encoding,
}

#[derive(Debug)]
enum Encoding {
    Plain,
    Zstd { dictionary: Option<Arc<StoredDictionary>> },
}

impl Packed {
    /// States what decodes the body.
    pub fn describe(&self, headers: &mut Headers) {
        let Encoding::Zstd { dictionary } = &self.encoding else { return };
        headers.insert(CONTENT_ENCODING, ZSTD);
        if let Some(dictionary) = dictionary {
            headers.insert(DICT, format!("{}@{}", dictionary.key, dictionary.revision));
        }
    }
}

/// Makes bodies; owns the compression contexts of one task.
#[derive(Debug)]
pub struct Transform {
    settings: Compression,
    writer: ChangeWriter,
    frame: Vec<u8>,
    plain: Option<Compressor>,
    with_dictionary: HashMap<Token, (u64, Compressor)>,
}

impl Transform {
    pub fn new(settings: &Compression) -> Self {
        Transform {
            settings: settings.clone(),
            writer: ChangeWriter::default(),
            frame: Vec::new(),
            plain: None,
            with_dictionary: HashMap::new(),
        }
    }

    /// The body of a message with the changes of a batch. What the server has to print is in `rendered`.
    pub fn changes(
        &mut self,
        packer: &TablePacker,
        batch: &RowBatch,
        rendered: &mut Rendered,
        dictionary: Option<Arc<StoredDictionary>>,
    ) -> Result<Packed, TransformError> {
        self.writer.out.clear();
        let mut writer = std::mem::take(&mut self.writer);
        let packed = packer.pack_changes(batch, 0..batch.changes.len(), &mut writer, rendered);
        let result = match packed {
            Ok(()) => self.compress(&batch.table, &writer.out, dictionary),
            Err(error) => Err(error.into()),
        };
        self.writer = writer;
        result
    }

    /// The body of the chunk that `writer` holds; `raw` receives it uncompressed, for its digest.
    pub fn chunk(
        &mut self,
        table: &TableVersion,
        writer: &mut ChunkWriter,
        raw: &mut Vec<u8>,
        dictionary: Option<Arc<StoredDictionary>>,
    ) -> Result<Packed, TransformError> {
        raw.clear();
        writer.finish(raw);
        self.compress(table, raw, dictionary)
    }

    fn compress(
        &mut self,
        table: &TableVersion,
        raw: &[u8],
        dictionary: Option<Arc<StoredDictionary>>,
    ) -> Result<Packed, TransformError> {
        let plain = |raw: &[u8]| Packed {
            body: Bytes::copy_from_slice(raw),
            raw_bytes: raw.len(),
            encoding: Encoding::Plain,
        };
        if !self.settings.enabled {
            return Ok(plain(raw));
        }
        let pays = self.settings.use_dictionary == UseDictionary::Always
            || raw.len() <= AUTO_DICTIONARY_BYTES_MAX;
        let dictionary = dictionary.filter(|_| pays);
        let mut frame = std::mem::take(&mut self.frame);
        let compressed = self
            .compressor(&table.token, dictionary.as_deref())
            .and_then(|compressor| compressor.compress(raw, &mut frame));
        let packed = match compressed {
            Ok(()) if frame.len() < raw.len() => Ok(Packed {
                body: Bytes::copy_from_slice(&frame),
                raw_bytes: raw.len(),
                encoding: Encoding::Zstd { dictionary },
            }),
            Ok(()) => Ok(plain(raw)),
            Err(source) => Err(TransformError::Compress { table: table.name.to_string(), source }),
        };
        self.frame = frame;
        packed
    }

    fn compressor(
        &mut self,
        token: &Token,
        dictionary: Option<&StoredDictionary>,
    ) -> Result<&mut Compressor, FrameError> {
        let level = self.settings.level;
        let Some(stored) = dictionary else {
            let compressor = match self.plain.take() {
                Some(compressor) => compressor,
                None => Compressor::new(level, None)?,
            };
            return Ok(self.plain.insert(compressor));
        };
        let slot = match self.with_dictionary.entry(token.clone()) {
            Entry::Occupied(slot) if slot.get().0 == stored.revision => slot,
            entry => entry
                .insert_entry((stored.revision, Compressor::new(level, Some(&stored.dictionary))?)),
        };
        Ok(&mut slot.into_mut().1)
    }
}
