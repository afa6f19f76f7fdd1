//! Control messages: MessagePack maps with string keys, written and read as a whole.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Caps, Column, Epoch, Guest, Identity, Lsn, Position, Reader, Schema};

/// A control message that cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct ControlError {
    what: &'static str,
    reason: String,
}

/// MessagePack with string keys.
pub fn to_msgpack<T: Serialize>(message: &T) -> Result<Vec<u8>, ControlError> {
    rmp_serde::to_vec_named(message).map_err(|e| ControlError {
        what: std::any::type_name::<T>(),
        reason: format!("cannot be written as MessagePack: {e}"),
    })
}

/// A control message is a map of maps and lists; none nests deeper than five.
const DEPTH_MAX: usize = 16;

pub fn from_msgpack<T: DeserializeOwned>(body: &[u8]) -> Result<T, ControlError> {
    let refused = |e: &dyn std::fmt::Display| ControlError {
        what: std::any::type_name::<T>(),
        reason: format!("is not the MessagePack that this version expects: {e}"),
    };
    // Serde reserves up to a MiB for every list that is announced, however deep it stands: first see that they are
    // there.
    let caps = Caps { depth_max: DEPTH_MAX, ..Caps::default() };
    let mut reader = Reader::new(body, &caps);
    reader.value().map_err(|e| refused(&e))?;
    if !reader.is_empty() {
        return Err(refused(&"more bytes follow it"));
    }
    rmp_serde::from_slice(body).map_err(|e| refused(&e))
}

/// `pg_snapshot` in 64-bit transaction ids: what the exported snapshot could see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct XidWindow {
    pub xmin: u64,
    pub xmax: u64,
    /// Ids in `xmin..xmax` that were still running.
    pub xip: Vec<u64>,
}

impl XidWindow {
    /// Whether the transaction with this 32-bit id is visible in the snapshot. The id is taken to be within
    /// 2³¹ of `xmax`, as Postgres itself does.
    pub fn sees(&self, xid: u32) -> bool {
        let behind = (self.xmax as u32).wrapping_sub(xid) as i32;
        let full = self.xmax.wrapping_add_signed(-i64::from(behind));
        full < self.xmin || (full < self.xmax && !self.xip.contains(&full))
    }
}

/// Which dictionary decodes a table's frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DictionaryRef {
    /// KV key, `users_dict`.
    pub id: String,
    /// KV revision.
    pub revision: u64,
    /// In hex.
    pub sha256: String,
}

/// `dlq.{t}`: a change, or a row of a snapshot, that the table's guest failed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    pub v: u32,
    /// The shape of the row before the guest, without the columns that it hides.
    pub schema: Schema,
    pub guest: Guest,
    /// Why the guest failed on it.
    pub error: String,
    /// `<epoch>/<commit_lsn>/<ordinal>`; none for a row of a snapshot.
    pub position: Option<String>,
    /// When it was set aside, microseconds since 1970.
    pub at: i64,
    /// One change as in the body of `cdc.{t}`, not compressed.
    #[serde(with = "serde_bytes")]
    pub change: Vec<u8>,
}

/// `init.start.{t}`: a snapshot begins. A newer one supersedes all older ones of its table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitStart {
    /// Version of the protocol.
    pub v: u32,
    pub table: String,
    pub snapshot_id: String,
    /// The watermark: changes with a commit LSN below it are in the snapshot.
    pub lsn: Lsn,
    pub epoch: Epoch,
    pub compression_enabled: bool,
    pub dictionary_id: Option<String>,
    pub dictionary_revision: Option<u64>,
    pub dictionary_sha256: Option<String>,
    pub schema_revision: u64,
    pub columns: Vec<Column>,
    pub key: Vec<String>,
    pub identity: Identity,
    pub guest: Option<Guest>,
    pub xid_window: XidWindow,
    /// Read changes from the message after this stream sequence.
    pub cdc_sequence: u64,
    pub estimated_rows: u64,
    /// Microseconds since 1970.
    pub started_at: i64,
}

impl InitStart {
    pub fn dictionary(&self) -> Option<DictionaryRef> {
        Some(DictionaryRef {
            id: self.dictionary_id.clone()?,
            revision: self.dictionary_revision?,
            sha256: self.dictionary_sha256.clone()?,
        })
    }
}

/// `init.meta.{t}`: the snapshot is complete; what a consumer received must agree with this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitMeta {
    #[serde(flatten)]
    pub start: InitStart,
    pub batch_count: u64,
    pub row_count: u64,
    /// Size of all chunk bodies before compression.
    pub raw_bytes: u64,
    /// Size of all chunk bodies as sent.
    pub bytes: u64,
    /// SHA-256 in hex of the concatenated SHA-256 of each chunk body before compression, in order of `n`.
    pub sha256: String,
    pub finished_at: i64,
}

/// `init.error.{t}`: the snapshot failed, or was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitError {
    pub table: String,
    #[serde(default)]
    pub snapshot_id: Option<String>,
    /// Stable and short, `table_suspended` say.
    pub code: String,
    pub message: String,
    /// Seconds after which asking again makes sense; absent if it does not.
    #[serde(default)]
    pub retry_after: Option<u64>,
}

/// `cdc.=progress`: everything up to this position is in the stream before this message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub lsn: Lsn,
    pub n: u32,
    /// What the slot may be confirmed to once this message is stored.
    pub end_lsn: Lsn,
    /// Commit time of the last transaction, or the time of a heartbeat; microseconds since 1970.
    pub at: i64,
}

impl Progress {
    pub fn position(&self) -> Position {
        Position::new(self.lsn, self.n)
    }
}

/// KV key `schemas/=epoch`: what the current epoch stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRecord {
    pub epoch: Epoch,
    pub system_id: String,
    pub timeline: u32,
    pub slot: String,
    pub database: String,
    /// Where the slot began; tells a recreated slot from the one before.
    pub slot_start: Lsn,
}

impl EpochRecord {
    pub const KEY: &str = "=epoch";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_that_are_announced_and_not_there_are_refused() {
        // {"x": [[[… each of 2³²-1 elements; `init.meta` has members that are kept until they are understood.
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
