//! The trait of a target for rows. SQLite and Postgres implement it here; users can write their
//! own.
//!
//! A sink stores what it is given. What to apply, when to commit and when to load again is decided
//! in `engine`.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use walgate_wire::{Caps, Change, Chunk, DecodeError, Schema, Token, decode_changes, decode_chunk};

use crate::{
    SinkError,
    state::{ChangeFilter, Checkpoint, MigrationStep, StoredState, TableRecord},
};

/// One chunk of a snapshot. The sink decodes it, on the thread where it uses the rows.
#[derive(Clone, Debug)]
pub struct SnapshotRows {
    /// The shape of the rows.
    pub schema: Arc<Schema>,
    pub(crate) body: Vec<u8>,
    pub(crate) caps: Caps,
    pub(crate) count: Arc<AtomicU64>,
}

impl SnapshotRows {
    /// From the decompressed body of a chunk with rows of this shape. For tests of sinks.
    pub fn new(schema: Arc<Schema>, body: Vec<u8>) -> SnapshotRows {
        SnapshotRows { schema, body, caps: Caps::default(), count: Arc::default() }
    }

    /// The rows, column by column. [`Chunk::into_rows`] transposes them.
    ///
    /// # Errors
    /// The body is malformed or exceeds a cap.
    pub fn decode(&self) -> Result<Chunk<'_>, DecodeError> {
        let chunk = decode_chunk(&self.body, self.schema.columns.len(), &self.caps)?;
        self.count.fetch_add(chunk.row_count as u64, Ordering::Relaxed);
        Ok(chunk)
    }
}

/// Consecutive changes of one table. The sink decodes them, on the thread where it uses them.
#[derive(Clone, Debug)]
pub struct ChangeBatch {
    /// The shape of these rows. The local table can have a later shape: match columns with
    /// [`same_column`](crate::same_column).
    pub schema: Arc<Schema>,
    /// The shape of the local table.
    pub local: Arc<Schema>,
    pub(crate) body: Vec<u8>,
    pub(crate) filter: ChangeFilter,
    pub(crate) caps: Caps,
    pub(crate) count: Arc<AtomicU64>,
}

impl ChangeBatch {
    /// From a decompressed body with rows of the shape `schema`, for a table of the shape `local`.
    /// For tests of sinks.
    pub fn new(schema: Arc<Schema>, local: Arc<Schema>, body: Vec<u8>) -> ChangeBatch {
        let filter = ChangeFilter::default();
        ChangeBatch { schema, local, body, filter, caps: Caps::default(), count: Arc::default() }
    }

    /// The changes, without those that the table contains already.
    ///
    /// # Errors
    /// The body is malformed or exceeds a cap.
    pub fn decode(&self) -> Result<Vec<Change<'_>>, DecodeError> {
        let mut changes = decode_changes(&self.body, self.schema.columns.len(), &self.caps)?;
        changes.retain(|change| self.filter.keeps(change));
        self.count.fetch_add(changes.len() as u64, Ordering::Relaxed);
        Ok(changes)
    }
}

/// A target for rows. The consumer makes one call at a time.
///
/// [`migrate_table`](Sink::migrate_table) and [`apply_changes`](Sink::apply_changes) belong to one
/// local transaction, which [`commit`](Sink::commit) ends. A sink may report their errors as late
/// as that. All other calls come while no such transaction is open. They are atomic, and durable
/// when they return.
pub trait Sink: Send {
    /// Opens the target, drops unfinished loads, and returns the stored state. Called again after a
    /// call failed with [`SinkError::transient`], with or without a [`close`](Sink::close) before.
    fn open(&mut self) -> impl Future<Output = Result<StoredState, SinkError>> + Send;

    /// Stores these records. The rows stay as they are.
    fn save_records(
        &mut self,
        records: Vec<TableRecord>,
    ) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Removes the table's record. The rows stay.
    fn forget_table(&mut self, token: Token) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Begins a new, empty generation of the table, invisible to readers. Drops an unfinished load.
    fn begin_load(
        &mut self,
        schema: Arc<Schema>,
    ) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Adds rows to the generation. May return before they are stored.
    fn load_rows(
        &mut self,
        rows: SnapshotRows,
    ) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Makes the generation the table, and stores records and checkpoint, in one transaction.
    fn finish_load(
        &mut self,
        schema: Arc<Schema>,
        records: Vec<TableRecord>,
        checkpoint: Checkpoint,
    ) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Alters the local table and stores the record, which has the new schema.
    fn migrate_table(
        &mut self,
        record: TableRecord,
        steps: Vec<MigrationStep>,
    ) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Applies changes. May return before they are stored.
    fn apply_changes(
        &mut self,
        changes: ChangeBatch,
    ) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Stores the checkpoint and commits it with everything that was applied.
    fn commit(
        &mut self,
        checkpoint: Checkpoint,
    ) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Discards everything that was applied since the last commit.
    fn rollback(&mut self) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Waits for pending work and releases the target.
    fn close(&mut self) -> impl Future<Output = Result<(), SinkError>> + Send;
}
