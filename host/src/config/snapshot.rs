//! `[snapshot]`: how many connections copy a table, and how large chunks become.
//!
//! How a table is copied is not known here.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ConfigError, invalid};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawSnapshot {
    /// Connections that copy one table, 1 to 32.
    pub workers: usize,
    /// Uncompressed size at which a chunk is cut, 64 KiB to 16 MiB.
    pub chunk_bytes: usize,
    /// Tables that are copied at the same time, 1 to 16.
    pub max_concurrent: usize,
    /// Minimum time between two snapshots of a table, 0 to 3600; requests wait.
    pub cooldown_seconds: u64,
}

impl Default for RawSnapshot {
    fn default() -> Self {
        RawSnapshot { workers: 2, chunk_bytes: 3 << 20, max_concurrent: 1, cooldown_seconds: 5 }
    }
}

#[derive(Clone, Debug)]
pub struct SnapshotConfig {
    /// Connections that copy one table.
    pub workers: usize,
    /// Uncompressed size at which a chunk is cut.
    pub chunk_bytes: usize,
    /// Tables that are copied at the same time.
    pub max_concurrent: usize,
    /// Minimum time between two snapshots of a table; requests wait.
    pub cooldown: Duration,
}

impl RawSnapshot {
    pub(super) fn validate(self) -> Result<SnapshotConfig, ConfigError> {
        let RawSnapshot { workers, chunk_bytes, max_concurrent, cooldown_seconds } = self;
        if !(1..=32).contains(&workers) {
            return invalid("snapshot.workers", format!("is {workers}, must be 1 to 32"));
        }
        if !((64 << 10)..=(16 << 20)).contains(&chunk_bytes) {
            return invalid(
                "snapshot.chunk_bytes",
                format!("is {chunk_bytes}, must be 64 KiB to 16 MiB"),
            );
        }
        if !(1..=16).contains(&max_concurrent) {
            return invalid(
                "snapshot.max_concurrent",
                format!("is {max_concurrent}, must be 1 to 16"),
            );
        }
        if cooldown_seconds > 3600 {
            return invalid(
                "snapshot.cooldown_seconds",
                format!("is {cooldown_seconds}, must be 0 to 3600"),
            );
        }
        let cooldown = Duration::from_secs(cooldown_seconds);
        Ok(SnapshotConfig { workers, chunk_bytes, max_concurrent, cooldown })
    }
}
