//! `[compression]`: zstd, and when a table's dictionary is used.
//!
//! How bodies are compressed is not known here.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ConfigError, invalid};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawCompression {
    /// Compress bodies with zstd.
    pub enabled: bool,
    /// Zstd level, 1 to 19; 1 to 3 are meant for live data. Changes up to 4 KiB get at least level
    /// 10 while few are in flight (for up to 16 tables).
    pub level: i32,
    /// `"auto"`: no dictionary for bodies above 64 KiB, where it gains little.
    #[serde(rename = "use")]
    pub use_dictionary: UseDictionary,
    /// Folder of dictionaries; watched.
    pub dictionaries: PathBuf,
}

impl Default for RawCompression {
    fn default() -> Self {
        RawCompression {
            enabled: true,
            level: 1,
            use_dictionary: UseDictionary::Always,
            dictionaries: "dictionaries".into(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct CompressionConfig {
    pub enabled: bool,
    pub level: i32,
    pub use_dictionary: UseDictionary,
    pub dictionaries: PathBuf,
}

/// When a table's dictionary is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UseDictionary {
    /// For all bodies of snapshots and changes.
    #[default]
    Always,
    /// Only for bodies small enough to gain from it.
    Auto,
}

impl RawCompression {
    pub(super) fn validate(self) -> Result<CompressionConfig, ConfigError> {
        if !(1..=19).contains(&self.level) {
            return invalid(
                "compression.level",
                format!("is {}, must be 1 to 19; 1 to 3 are meant for live data", self.level),
            );
        }
        Ok(CompressionConfig {
            enabled: self.enabled,
            level: self.level,
            use_dictionary: self.use_dictionary,
            dictionaries: self.dictionaries,
        })
    }
}
