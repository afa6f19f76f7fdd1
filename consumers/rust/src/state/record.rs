//! The state that a sink stores about tables and about the stream.

use serde::{Deserialize, Serialize};
use walgate_wire::{Epoch, Lsn, Position, Schema, Token};

use super::{ChangeFilter, SnapshotWindow};

/// How far the stream was applied, for all tables together. A sink stores it in the transaction of
/// the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The epoch of `position`.
    pub epoch: Epoch,
    /// All changes up to this position were applied.
    pub position: Position,
    /// Stream sequence of the progress message with this position.
    pub seq: u64,
    /// Up to this sequence, the stream had dropped nothing before it was read.
    pub verified_seq: u64,
    /// When the stream was created, in microseconds since 1970. Distinguishes it from a later
    /// stream of the same name.
    pub stream_created: i64,
    /// Commit time of the last transaction or heartbeat; microseconds since 1970.
    pub at: i64,
}

/// What a sink stores about a table beside its rows. Serializable; a sink may treat it as opaque.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRecord {
    /// The table's name in subjects and KV keys.
    pub token: Token,
    /// The shape of the local table.
    pub schema: Schema,
    /// The epoch of the copy.
    pub epoch: Epoch,
    /// The watermark of the copy's snapshot. A `reseed` above it requires a new snapshot.
    pub seeded: Lsn,
    /// Stream sequence up to which changes were applied, if beyond the common checkpoint.
    pub seq: u64,
    /// Position up to which changes were applied, if beyond the common checkpoint.
    pub position: Position,
    /// Which transactions above the watermark the snapshot contains.
    pub window: Option<SnapshotWindow>,
    /// Why the copy must be loaded again, if it must be. Its rows stay visible until then.
    pub reload: Option<String>,
}

/// Everything that a sink stores beside rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredState {
    /// None before the first commit.
    pub checkpoint: Option<Checkpoint>,
    /// One record for each table with a copy.
    pub tables: Vec<TableRecord>,
}

/// The decision about a message of changes.
#[derive(Clone, Debug, PartialEq)]
pub enum ChangeVerdict {
    /// The message was applied already, or is of another table or epoch.
    Skip,
    /// Apply the changes that the filter keeps.
    Apply(ChangeFilter),
    /// Load the table again, for this reason.
    Reload(String),
}

/// The CDC stream as the server describes it.
#[derive(Clone, Copy, Debug)]
pub struct StreamExtent {
    pub first_seq: u64,
    pub last_seq: u64,
    /// Microseconds since 1970.
    pub created: i64,
}
