//! `[guests]`: the folder of guests and the limits of each guest.
//!
//! What a guest does is not known here.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{ConfigError, invalid};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawGuests {
    /// Folder of guests; watched.
    pub dir: PathBuf,
    /// Memory of one instance, 1 to 4096.
    pub memory_mib: usize,
    /// Time for one batch of rows, 10 to 60000.
    pub batch_ms: u64,
    /// Size of a `.wasm` file, 64 KiB to 1 GiB.
    pub module_bytes: usize,
    /// Size of a guest's answer to one batch, 64 KiB to 1 GiB.
    pub output_bytes: usize,
    /// Log lines per second of one guest; further lines are counted and left out.
    pub log_lines_s: u32,
}

impl Default for RawGuests {
    fn default() -> Self {
        let GuestsConfig { dir, memory_bytes, batch, module_bytes, output_bytes, log_lines_s } =
            GuestsConfig::default();
        let memory_mib = memory_bytes >> 20;
        let batch_ms = batch.as_millis() as u64;
        RawGuests { dir, memory_mib, batch_ms, module_bytes, output_bytes, log_lines_s }
    }
}

/// The folder of guests, and the limits of each guest.
#[derive(Clone, Debug)]
pub struct GuestsConfig {
    pub dir: PathBuf,
    pub memory_bytes: usize,
    /// Time limit for one batch of rows.
    pub batch: Duration,
    pub module_bytes: usize,
    pub output_bytes: usize,
    pub log_lines_s: u32,
}

impl Default for GuestsConfig {
    fn default() -> Self {
        GuestsConfig {
            dir: "guests".into(),
            memory_bytes: 64 << 20,
            batch: Duration::from_millis(250),
            module_bytes: 16 << 20,
            output_bytes: 32 << 20,
            log_lines_s: 50,
        }
    }
}

impl RawGuests {
    pub(super) fn validate(self) -> Result<GuestsConfig, ConfigError> {
        let RawGuests { dir, memory_mib, batch_ms, module_bytes, output_bytes, log_lines_s } = self;
        if !(1..=4096).contains(&memory_mib) {
            return invalid("guests.memory_mib", format!("is {memory_mib}, must be 1 to 4096"));
        }
        if !(10..=60_000).contains(&batch_ms) {
            return invalid("guests.batch_ms", format!("is {batch_ms}, must be 10 to 60000"));
        }
        for (key, bytes) in
            [("guests.module_bytes", module_bytes), ("guests.output_bytes", output_bytes)]
        {
            if !((64 << 10)..=(1 << 30)).contains(&bytes) {
                return invalid(key, format!("is {bytes}, must be 64 KiB to 1 GiB"));
            }
        }
        let memory_bytes = memory_mib << 20;
        let batch = Duration::from_millis(batch_ms);
        Ok(GuestsConfig { dir, memory_bytes, batch, module_bytes, output_bytes, log_lines_s })
    }
}
