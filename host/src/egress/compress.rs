//! Row batch → pack → compress: one synchronous function for each of the two kinds of body.
//!
//! Where a body goes, and whether its rows went through a guest, is not known here.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use walgate_wire::{
    CONTENT_ENCODING, ChangeWriter, ChunkWriter, Compressor, DICT, Dictionary, FrameError, Token,
    ZSTD,
};

use crate::{
    config::{CompressionConfig, UseDictionary},
    egress::dictionary_stats::DictionaryGain,
    encode::{RowError, TablePacker},
    rows::{Rendered, TableVersion, batch::RowBatch},
};

/// With `use = "auto"`: above this a body is its own dictionary (measured: no gain from 64 KiB on).
const AUTO_DICTIONARY_BYTES_MAX: usize = 64 << 10;

/// Bodies up to this size, a change or a few, are worth [`Effort::Thorough`].
const SMALL_BYTES_MAX: usize = 4 << 10;
/// zstd's level for these, unless the configuration asks for more. Measured on rows of 350 to 450
/// bytes with their dictionary: 7 to 10 % smaller than at level 1, for 10 µs more each. Higher
/// levels gain 1 to 2 % for twice the memory.
pub const THOROUGH_LEVEL: i32 = 10;
/// A compression context of this level takes 0.8 MiB: at most so many are kept.
const THOROUGH_CONTEXTS_MAX: usize = 16;

/// How much time a body may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Other messages wait: the configured level.
    Quick,
    /// Nothing waits: small bodies are compressed as well as possible.
    Thorough,
}

/// A body that cannot be packed or compressed.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error(transparent)]
    Row(#[from] RowError),
    #[error("{table}: {source}")]
    Compress { table: String, source: FrameError },
}

/// A body ready to be sent.
#[derive(Debug)]
pub struct PackedBody {
    pub body: Bytes,
    /// Size before compression.
    pub raw_bytes: usize,
    /// The dictionary's revision, and bytes with it ÷ bytes without it, if that was measured.
    pub ratio: Option<(u64, f64)>,
    encoding: Encoding,
}

#[derive(Debug)]
enum Encoding {
    Plain,
    Zstd { dictionary: Option<Arc<StoredDictionary>> },
}

impl PackedBody {
    /// Sets the headers that state what decodes the body.
    pub fn set_headers(&self, mut set: impl FnMut(&'static str, String)) {
        let Encoding::Zstd { dictionary } = &self.encoding else { return };
        set(CONTENT_ENCODING, ZSTD.to_owned());
        if let Some(dictionary) = dictionary {
            set(DICT, format!("{}@{}", dictionary.key, dictionary.revision));
        }
    }
}

/// A dictionary whose revision is stored in the bucket.
#[derive(Clone, Debug)]
pub struct StoredDictionary {
    pub key: String,
    pub revision: u64,
    pub dictionary: Dictionary,
}

/// Packs and compresses bodies; owns the compression contexts of one task.
#[derive(Debug)]
pub struct BodyPacker {
    settings: CompressionConfig,
    writer: ChangeWriter,
    frame: Vec<u8>,
    /// Contexts by the table whose dictionary they have loaded, with its revision. None: no
    /// dictionary.
    quick: HashMap<Option<Token>, (u64, Compressor)>,
    thorough: HashMap<Option<Token>, (u64, Compressor)>,
    gains: HashMap<Token, DictionaryGain>,
    sample: Vec<u8>,
}

impl BodyPacker {
    pub fn new(settings: &CompressionConfig) -> Self {
        BodyPacker {
            settings: settings.clone(),
            writer: ChangeWriter::default(),
            frame: Vec::new(),
            quick: HashMap::new(),
            thorough: HashMap::new(),
            gains: HashMap::new(),
            sample: Vec::new(),
        }
    }

    pub fn uncompressed() -> Self {
        BodyPacker::new(&CompressionConfig {
            enabled: false,
            level: 1,
            use_dictionary: UseDictionary::Auto,
            dictionaries: PathBuf::new(),
        })
    }

    /// The body of a message with the changes of a batch. The server's texts are in `rendered`.
    pub fn pack_changes(
        &mut self,
        packer: &TablePacker,
        batch: &RowBatch,
        rendered: &mut Rendered,
        dictionary: Option<Arc<StoredDictionary>>,
        effort: Effort,
    ) -> Result<PackedBody, BodyError> {
        self.writer.out.clear();
        let mut writer = std::mem::take(&mut self.writer);
        let packed = packer.pack_changes(batch, 0..batch.changes.len(), &mut writer, rendered);
        let revision = dictionary.as_ref().map(|stored| stored.revision);
        let mut result = match packed {
            Ok(()) => self.compress(&batch.table, &writer.out, dictionary, effort),
            Err(error) => Err(error.into()),
        };
        if let (Ok(packed), Some(revision), 1) = (&mut result, revision, batch.len()) {
            let with_bytes = packed.body.len();
            packed.ratio =
                self.measure_gain(&batch.table.token, revision, &writer.out, with_bytes, effort);
        }
        self.writer = writer;
        result
    }

    /// The body of the chunk that `writer` holds; `raw` receives it uncompressed, for its digest.
    pub fn finish_chunk(
        &mut self,
        table: &TableVersion,
        writer: &mut ChunkWriter,
        raw: &mut Vec<u8>,
        dictionary: Option<Arc<StoredDictionary>>,
    ) -> Result<PackedBody, BodyError> {
        raw.clear();
        writer.finish(raw);
        self.compress(table, raw, dictionary, Effort::Quick)
    }

    fn compress(
        &mut self,
        table: &TableVersion,
        raw: &[u8],
        dictionary: Option<Arc<StoredDictionary>>,
        effort: Effort,
    ) -> Result<PackedBody, BodyError> {
        let plain = |raw: &[u8]| PackedBody {
            body: Bytes::copy_from_slice(raw),
            raw_bytes: raw.len(),
            ratio: None,
            encoding: Encoding::Plain,
        };
        if !self.settings.enabled {
            return Ok(plain(raw));
        }
        let pays = self.settings.use_dictionary == UseDictionary::Always
            || raw.len() <= AUTO_DICTIONARY_BYTES_MAX;
        let dictionary = dictionary.filter(|_| pays);
        let key = dictionary.as_ref().map(|_| table.token.clone());
        let effort = self.affordable_effort(&key, raw, effort);
        let mut frame = std::mem::take(&mut self.frame);
        let compressed = self
            .compressor_for(key, dictionary.as_deref(), effort)
            .and_then(|compressor| compressor.compress(raw, &mut frame));
        let packed = match compressed {
            Ok(()) if frame.len() < raw.len() => Ok(PackedBody {
                body: Bytes::copy_from_slice(&frame),
                raw_bytes: raw.len(),
                ratio: None,
                encoding: Encoding::Zstd { dictionary },
            }),
            Ok(()) => Ok(plain(raw)),
            Err(source) => Err(BodyError::Compress { table: table.name.to_string(), source }),
        };
        self.frame = frame;
        packed
    }

    /// Samples what a single change would take without its dictionary. Only thorough compression
    /// counts.
    fn measure_gain(
        &mut self,
        token: &Token,
        revision: u64,
        raw: &[u8],
        with_bytes: usize,
        effort: Effort,
    ) -> Option<(u64, f64)> {
        let efforts =
            [Some(token.clone()), None].map(|key| self.affordable_effort(&key, raw, effort));
        if efforts != [Effort::Thorough; 2] || !self.settings.enabled {
            return None;
        }
        let gain = match self.gains.entry(token.clone()) {
            Entry::Occupied(slot) if slot.get().revision() == revision => slot.into_mut(),
            entry => entry.insert_entry(DictionaryGain::new(revision)).into_mut(),
        };
        if !gain.is_due() {
            return None;
        }
        let mut sample = std::mem::take(&mut self.sample);
        let made = self.compressor_for(None, None, effort);
        let compressed = made.and_then(|compressor| compressor.compress(raw, &mut sample));
        let without_bytes = sample.len().min(raw.len());
        self.sample = sample;
        compressed.ok()?;
        Some((revision, self.gains.get_mut(token)?.add_sample(with_bytes, without_bytes)?))
    }

    /// Thorough for small bodies, if the table has a context or there is room for one.
    fn affordable_effort(&self, key: &Option<Token>, raw: &[u8], effort: Effort) -> Effort {
        let has_room =
            self.thorough.len() < THOROUGH_CONTEXTS_MAX || self.thorough.contains_key(key);
        match effort {
            Effort::Thorough if has_room && raw.len() <= SMALL_BYTES_MAX => Effort::Thorough,
            _ => Effort::Quick,
        }
    }

    /// `key`: the table, if it has a dictionary.
    fn compressor_for(
        &mut self,
        key: Option<Token>,
        dictionary: Option<&StoredDictionary>,
        effort: Effort,
    ) -> Result<&mut Compressor, FrameError> {
        let (contexts, level) = match effort {
            Effort::Thorough => (&mut self.thorough, self.settings.level.max(THOROUGH_LEVEL)),
            Effort::Quick => (&mut self.quick, self.settings.level),
        };
        let revision = dictionary.map_or(0, |stored| stored.revision);
        let slot = match contexts.entry(key) {
            Entry::Occupied(slot) if slot.get().0 == revision => slot,
            entry => {
                let dictionary = dictionary.map(|stored| &stored.dictionary);
                entry.insert_entry((revision, Compressor::new(level, dictionary)?))
            }
        };
        Ok(&mut slot.into_mut().1)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use walgate_wire::{Caps, Decompressor, train_dictionary};

    use super::*;
    use crate::rows::test_support::table_version;

    fn settings() -> CompressionConfig {
        let dictionaries = "dictionaries".into();
        let use_dictionary = UseDictionary::Always;
        CompressionConfig { enabled: true, level: 1, use_dictionary, dictionaries }
    }

    static STORED: LazyLock<Arc<StoredDictionary>> = LazyLock::new(|| {
        let rows: Vec<String> = (0..3000u32).map(row).collect();
        let sizes: Vec<usize> = rows.iter().map(String::len).collect();
        let dictionary = train_dictionary(rows.concat().as_bytes(), &sizes, 16 << 10).unwrap();
        Arc::new(StoredDictionary { key: "t_dict".into(), revision: 1, dictionary })
    });

    fn row(number: u32) -> String {
        let mixed = number.wrapping_mul(2_654_435_761);
        let (street, town, plan) = (mixed % 97, mixed % 31, mixed >> 3 & 3);
        format!(
            "{mixed:08x} {{\"street\": \"{street} Long Lane\", \"city\": \"Town {town}\", \"country\": \"C{}\"}} \
             plan-{plan} u{}@mail{}.example.org",
            mixed >> 5 & 15,
            mixed >> 7 & 1023,
            mixed >> 9 & 7,
        )
    }

    /// Some hundred bytes.
    fn rows(number: u32) -> String {
        (0..4).map(|part| row(number * 4 + part)).collect()
    }

    fn sent(bodies: &mut BodyPacker, raw: &[u8], effort: Effort) -> (usize, bool) {
        let table = table_version("t", 1, 2);
        let packed = bodies.compress(&table, raw, Some(Arc::clone(&STORED)), effort).unwrap();
        let Encoding::Zstd { dictionary } = &packed.encoding else { panic!("not compressed") };
        let with = dictionary.as_ref().map(|stored| &stored.dictionary);
        let body = Decompressor::new(with).unwrap().decompress(&packed.body, &Caps::default());
        assert_eq!(body.unwrap(), raw);
        (packed.body.len(), dictionary.is_some())
    }

    #[test]
    fn small_bodies_are_smaller_where_there_is_time() {
        let mut bodies = BodyPacker::new(&settings());
        let mut sizes = |effort| -> usize {
            (5000..5100).map(|n| sent(&mut bodies, rows(n).as_bytes(), effort).0).sum()
        };
        let (quick, thorough) = (sizes(Effort::Quick), sizes(Effort::Thorough));
        assert!(thorough < quick, "{thorough} {quick}");
    }

    #[test]
    fn large_bodies_leave_the_dictionary_out_where_that_is_configured() {
        let auto = CompressionConfig { use_dictionary: UseDictionary::Auto, ..settings() };
        let mut auto = BodyPacker::new(&auto);
        let large: String = (0..2000).map(row).collect();
        assert!(large.len() > AUTO_DICTIONARY_BYTES_MAX);
        assert!(!sent(&mut auto, large.as_bytes(), Effort::Quick).1);
        assert!(sent(&mut auto, rows(1).as_bytes(), Effort::Quick).1);
        let mut always = BodyPacker::new(&settings());
        assert!(sent(&mut always, large.as_bytes(), Effort::Quick).1);
    }

    #[test]
    fn contexts_that_take_much_memory_are_few() {
        let mut bodies = BodyPacker::new(&settings());
        for number in 0..THOROUGH_CONTEXTS_MAX + 5 {
            let table = table_version(&format!("t{number}"), 1, 2);
            let dictionary = Some(Arc::clone(&STORED));
            let raw = row(number as u32);
            bodies.compress(&table, raw.as_bytes(), dictionary, Effort::Thorough).unwrap();
        }
        assert_eq!((bodies.thorough.len(), bodies.quick.len()), (THOROUGH_CONTEXTS_MAX, 5));
    }
}
