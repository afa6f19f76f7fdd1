//! The counters of a table at one moment, as `/readyz` shows them in JSON.
//!
//! How they are counted is not known here.

use serde::{Deserialize, Serialize};

/// The counters of a table at one moment.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct TableCounts {
    pub changes: u64,
    /// From the commit of the last change until it was passed to JetStream, milliseconds.
    pub lag_ms: f64,
    pub snapshot_rows: u64,
    /// Bodies before compression, bytes.
    pub raw_bytes: u64,
    /// Bodies as sent, bytes.
    pub sent_bytes: u64,
    /// Zero: no dictionary.
    pub dictionary_revision: u64,
    /// Bytes of single-row changes with the dictionary ÷ without it; absent: not measured yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dictionary_ratio: Option<f64>,
    /// Absent: no guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest: Option<GuestCounts>,
    /// Why the table is suspended; absent: it is published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspended: Option<String>,
}

/// The counters of a table's guest since it became live here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct GuestCounts {
    /// Name and version of the live guest.
    pub guest: String,
    pub batches: u64,
    /// Rows or changes of rows that it received.
    pub rows: u64,
    pub dropped: u64,
    pub failed: u64,
    /// Time in the guest and around its calls.
    pub micros: u64,
    /// The error of the last row that it failed on.
    pub last_error: Option<String>,
    /// Why the file in the folder is not the live guest; absent: it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_problem: Option<String>,
}
