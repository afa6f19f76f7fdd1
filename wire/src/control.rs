//! Control messages: MessagePack maps with string keys, written and read as a whole.
//!
//! Positions of fields in a map do not matter, and readers ignore unknown fields. This module does
//! not know when the gateway sends a message, nor what a consumer does with it.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Caps, Column, Epoch, Guest, Identity, Lsn, Position, Reader, Schema};

/// A control message that cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct ControlError {
    what: &'static str,
    reason: String,
}

/// Encodes a control message as MessagePack with string keys.
///
/// # Errors
/// If `T` serializes as something that MessagePack cannot represent. No type of this crate does.
pub fn to_msgpack<T: Serialize>(message: &T) -> Result<Vec<u8>, ControlError> {
    rmp_serde::to_vec_named(message).map_err(|e| ControlError {
        what: std::any::type_name::<T>(),
        reason: format!("cannot be written as MessagePack: {e}"),
    })
}

/// Deepest nesting of maps and lists that is accepted. Control messages need five levels.
const DEPTH_MAX: usize = 16;

/// Decodes a control message.
///
/// # Errors
/// If `body` is malformed, lacks a field of `T`, nests too deeply, or is followed by more bytes.
pub fn from_msgpack<T: DeserializeOwned>(body: &[u8]) -> Result<T, ControlError> {
    let refused = |e: &dyn std::fmt::Display| ControlError {
        what: std::any::type_name::<T>(),
        reason: format!("is not the MessagePack that this version expects: {e}"),
    };
    // Serde reserves up to 1 MiB for every list header, at every depth. Therefore check first that
    // the elements exist.
    let caps = Caps { depth_max: DEPTH_MAX, ..Caps::default() };
    let mut reader = Reader::new(body, &caps);
    reader.value().map_err(|e| refused(&e))?;
    if !reader.is_empty() {
        return Err(refused(&"more bytes follow it"));
    }
    rmp_serde::from_slice(body).map_err(|e| refused(&e))
}

/// The transactions that an exported snapshot could see, as in Postgres' `pg_snapshot`.
///
/// Transaction ids have 64 bits here and do not wrap around.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct XidWindow {
    /// All transactions below it had ended.
    pub xmin: u64,
    /// No transaction from it on had ended.
    pub xmax: u64,
    /// Transactions in `xmin..xmax` that were still running.
    pub xip: Vec<u64>,
}

impl XidWindow {
    /// Whether the snapshot sees the transaction with this 32-bit id.
    ///
    /// Like Postgres, this assumes that the transaction is within 2³¹ of `xmax`.
    ///
    /// ```
    /// use walgate_wire::XidWindow;
    ///
    /// let window = XidWindow { xmin: 100, xmax: 110, xip: vec![105] };
    /// assert!(window.sees(99) && window.sees(104));
    /// assert!(!window.sees(105) && !window.sees(110));
    /// ```
    pub fn sees(&self, xid: u32) -> bool {
        let behind = (self.xmax as u32).wrapping_sub(xid) as i32;
        let full = self.xmax.wrapping_add_signed(-i64::from(behind));
        full < self.xmin || (full < self.xmax && !self.xip.contains(&full))
    }
}

/// The dictionary that decodes the frames of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DictionaryRef {
    /// Its KV key, `users_dict` for instance.
    pub id: String,
    /// Its KV revision.
    pub revision: u64,
    /// Its SHA-256 in hex.
    pub sha256: String,
}

/// `dlq.{t}`: a change, or a row of a snapshot, that the table's guest failed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Version of the protocol.
    pub v: u32,
    /// The schema of the row before the guest, without the columns that the guest hides.
    pub schema: Schema,
    /// The guest that failed.
    pub guest: Guest,
    /// How the guest failed.
    pub error: String,
    /// `<epoch>/<commit_lsn>/<ordinal>` of the change; none for a row of a snapshot.
    pub position: Option<String>,
    /// When the gateway published the dead letter, in microseconds since 1970.
    pub at: i64,
    /// A body of changes as in `cdc.{t}` that holds this one change. It is not compressed.
    #[serde(with = "serde_bytes")]
    pub change: Vec<u8>,
}

/// `init.start.{t}`: a snapshot begins. It supersedes all older snapshots of its table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitStart {
    /// Version of the protocol.
    pub v: u32,
    /// The table's name at the source, as in SQL.
    pub table: String,
    /// Identifies the snapshot in subjects and in the other `init` messages.
    pub snapshot_id: String,
    /// The watermark: all changes with a commit LSN below it are in the snapshot.
    pub lsn: Lsn,
    /// The epoch of `lsn`.
    pub epoch: Epoch,
    /// Whether chunks are compressed.
    pub compression_enabled: bool,
    /// KV key of the dictionary of the chunks, if they have one.
    pub dictionary_id: Option<String>,
    /// KV revision of that dictionary.
    pub dictionary_revision: Option<u64>,
    /// SHA-256 of that dictionary, in hex.
    pub dictionary_sha256: Option<String>,
    /// KV revision of the schema of the rows.
    pub schema_revision: u64,
    /// The columns of that schema.
    pub columns: Vec<Column>,
    /// The key of that schema.
    pub key: Vec<String>,
    /// The replica identity of that schema.
    pub identity: Identity,
    /// The guest of that schema.
    pub guest: Option<Guest>,
    /// The transactions that the snapshot could see.
    pub xid_window: XidWindow,
    /// The changes to apply on top of the snapshot begin after this stream sequence.
    pub cdc_sequence: u64,
    /// Number of rows, as the planner of Postgres estimates it.
    pub estimated_rows: u64,
    /// When the snapshot began, in microseconds since 1970.
    pub started_at: i64,
}

impl InitStart {
    /// The dictionary of the chunks, if they have one.
    pub fn dictionary(&self) -> Option<DictionaryRef> {
        Some(DictionaryRef {
            id: self.dictionary_id.clone()?,
            revision: self.dictionary_revision?,
            sha256: self.dictionary_sha256.clone()?,
        })
    }
}

/// `init.meta.{t}`: the snapshot is complete. A consumer compares it with the received chunks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitMeta {
    /// All fields of the snapshot's `init.start`.
    #[serde(flatten)]
    pub start: InitStart,
    /// Number of chunks.
    pub batch_count: u64,
    /// Number of rows in all chunks.
    pub row_count: u64,
    /// Bytes of all chunk bodies before compression.
    pub raw_bytes: u64,
    /// Bytes of all chunk bodies as sent.
    pub bytes: u64,
    /// The digest of the snapshot, as [`crate::ChunkDigest::finish`] returns it.
    pub sha256: String,
    /// When the snapshot ended, in microseconds since 1970.
    pub finished_at: i64,
}

/// `init.error.{t}`: a snapshot failed, or a request for one was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitError {
    /// The table's name at the source, as in SQL.
    pub table: String,
    /// The snapshot that failed; none if a request was refused.
    #[serde(default)]
    pub snapshot_id: Option<String>,
    /// A stable name of the error for programs, `table_suspended` for instance.
    pub code: String,
    /// A description of the error for people.
    pub message: String,
    /// Seconds to wait before the next request; absent if another request cannot succeed.
    #[serde(default)]
    pub retry_after: Option<u64>,
}

/// `cdc.=progress`: all changes up to this position are in the stream before this message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The commit LSN of the position.
    pub lsn: Lsn,
    /// The ordinal of the position.
    pub n: u32,
    /// The LSN that the gateway may confirm to the slot once this message is stored.
    pub end_lsn: Lsn,
    /// Commit time of the last transaction, or time of a heartbeat, in microseconds since 1970.
    pub at: i64,
}

impl Progress {
    /// The position of `lsn` and `n`.
    pub fn position(&self) -> Position {
        Position::new(self.lsn, self.n)
    }
}

/// KV key `schemas/=epoch`: the slot and the database of the current epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// The epoch.
    pub epoch: Epoch,
    /// The server's system identifier, as `IDENTIFY_SYSTEM` returns it.
    pub system_id: String,
    /// The server's timeline.
    pub timeline: u32,
    /// The name of the replication slot.
    pub slot: String,
    /// The name of the database.
    pub database: String,
    /// Where the slot began. It distinguishes a recreated slot from the previous one of its name.
    pub slot_start: Lsn,
}

impl EpochRecord {
    /// The record's key in the bucket of schemas.
    pub const KEY: &str = "=epoch";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_that_are_announced_and_not_there_are_refused() {
        // {"x": [[[… each of 2³²-1 elements; `init.meta` has members that are kept until they are
        // understood.
        let mut deep = vec![0x81, 0xa1, b'x'];
        (0..1000).for_each(|_| deep.extend([0xdd, 0xff, 0xff, 0xff, 0xff]));
        let error = from_msgpack::<InitMeta>(&deep).unwrap_err().to_string();
        assert!(error.ends_with("an array is longer than the body"), "{error}");
        let mut deep = vec![0x81, 0xa1, b'x'];
        deep.extend([0x91; 10_000]);
        let error = from_msgpack::<InitMeta>(&deep).unwrap_err().to_string();
        assert!(error.ends_with("nested too deeply"), "{error}");
        let twice = [to_msgpack(&window()).unwrap(), vec![0xc0]].concat();
        assert!(from_msgpack::<XidWindow>(&twice).is_err());
    }

    fn window() -> XidWindow {
        XidWindow { xmin: 100, xmax: 110, xip: vec![100, 105] }
    }

    #[test]
    fn a_window_sees_what_committed_before_it() {
        let window = window();
        let seen: Vec<u32> = (95..115).filter(|&x| window.sees(x)).collect();
        assert_eq!(seen, [95, 96, 97, 98, 99, 101, 102, 103, 104, 106, 107, 108, 109]);
    }

    #[test]
    fn a_window_sees_across_the_32_bit_wrap() {
        let base = 7u64 << 32;
        let window = XidWindow { xmin: base - 2, xmax: base + 3, xip: vec![base - 2] };
        assert!(window.sees(u32::MAX) && window.sees(2) && window.sees(u32::MAX - 9));
        assert!(!window.sees(u32::MAX - 1) && !window.sees(3) && !window.sees(900));
    }
}
