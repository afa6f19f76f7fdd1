//! What is remembered of tables and of the stream.

use serde::{Deserialize, Serialize};
use walgate_wire::{Epoch, Lsn, Position, Schema, Token};

use super::{Filter, SnapshotWindow};

/// How far the stream was read, for all tables together. Stored with the rows, in their transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub epoch: Epoch,
    /// Everything up to here was applied.
    pub position: Position,
    /// Stream sequence of the message that said so.
    pub seq: u64,
    /// Up to here it is known that the stream had lost nothing before it was read.
    pub verified_seq: u64,
    /// When the stream was created, in microseconds since 1970: tells it from a later one of its name.
    pub stream_created: i64,
    /// Commit time of the last transaction, or of the heartbeat; microseconds since 1970.
    pub at: i64,
}

/// What a sink keeps of a table beside its rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRecord {
    pub token: Token,
    /// The shape that the local table has.
    pub schema: Schema,
    pub epoch: Epoch,
    /// The watermark that the copy reaches: a `reseed` above it means loading again.
    pub seeded: Lsn,
    /// Stream sequence that was applied already, if beyond the common one.
    pub seq: u64,
    /// Position that was applied already, if beyond the common one.
    pub position: Position,
    pub window: Option<SnapshotWindow>,
    /// The copy must be loaded again, and why; its rows stay visible until then.
    pub reload: Option<String>,
}

/// Everything that a sink remembers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stored {
    pub mark: Option<Mark>,
    pub tables: Vec<TableRecord>,
}

/// What to do with a message of changes.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Applied already, or of another table or epoch.
    Skip,
    /// Apply the changes that the filter keeps.
    Apply(Filter),
    /// Load the table again.
    Reload(String),
}

/// The CDC stream as the server describes it.
#[derive(Clone, Copy, Debug)]
pub struct StreamExtent {
    pub first_seq: u64,
    pub last_seq: u64,
    pub created: i64,
}
