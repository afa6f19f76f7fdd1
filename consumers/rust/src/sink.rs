//! What a place for rows has to do. Two are here, SQLite and Postgres; anybody can write a third.
//!
//! A sink applies what it is given. What to apply, when to commit and when to load again is decided elsewhere.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use walgate_wire::{Caps, Change, Chunk, DecodeError, Schema, Token, decode_changes, decode_chunk};

use crate::{
    SinkError,
    state::{Filter, Mark, Step, Stored, TableRecord},
};

/// Rows of a snapshot: one chunk, to be decoded where it is used.
#[derive(Clone, Debug)]
pub struct Rows {
    pub schema: Arc<Schema>,
    pub(crate) body: Vec<u8>,
    pub(crate) caps: Caps,
    pub(crate) count: Arc<AtomicU64>,
}

impl Rows {
    /// A chunk's body, decompressed, with rows of this shape. For tests of sinks.
    pub fn new(schema: Arc<Schema>, body: Vec<u8>) -> Rows {
        Rows { schema, body, caps: Caps::default(), count: Arc::default() }
    }

    /// Column by column; [`Chunk::into_rows`] turns them.
    pub fn decode(&self) -> Result<Chunk<'_>, DecodeError> {
        let chunk = decode_chunk(&self.body, self.schema.columns.len(), &self.caps)?;
        self.count.fetch_add(chunk.row_count as u64, Ordering::Relaxed);
        Ok(chunk)
    }
}

/// Consecutive changes of one table, to be decoded where they are used.
#[derive(Clone, Debug)]
pub struct Changes {
    /// The shape of the rows in here. The local table can have a later one: match columns by
    /// [`same_column`](crate::same_column).
    pub schema: Arc<Schema>,
    /// The shape of the local table.
    pub local: Arc<Schema>,
    pub(crate) body: Vec<u8>,
    pub(crate) filter: Filter,
    pub(crate) caps: Caps,
    pub(crate) count: Arc<AtomicU64>,
}

impl Changes {
    /// A body of changes, decompressed, with rows of the shape `schema`, for a table that has the shape
    /// `local`. For tests of sinks.
    pub fn new(schema: Arc<Schema>, local: Arc<Schema>, body: Vec<u8>) -> Changes {
        let filter = Filter::default();
        Changes { schema, local, body, filter, caps: Caps::default(), count: Arc::default() }
    }

    /// Without those that the table has already.
    pub fn decode(&self) -> Result<Vec<Change<'_>>, DecodeError> {
        let mut changes = decode_changes(&self.body, self.schema.columns.len(), &self.caps)?;
        changes.retain(|change| self.filter.keeps(change));
        self.count.fetch_add(changes.len() as u64, Ordering::Relaxed);
        Ok(changes)
    }
}

/// A place for rows. Calls come one at a time. `migrate` and `apply` belong to one local transaction that
/// [`commit`](Sink::commit) ends; a sink may report what failed in them only then. The other calls come
/// with no such transaction open and are durable, whole or not at all, when they return.
pub trait Sink: Send {
    /// Opens the place, drops loads that were not finished, and says what is there. Called again, with or without a
    /// [`close`](Sink::close) before, after a call failed with [`SinkError::passing`].
    fn open(&mut self) -> impl Future<Output = Result<Stored, SinkError>> + Send;

    /// Stores these records; the rows stay as they are.
    fn save(
        &mut self,
        records: Vec<TableRecord>,
    ) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Removes the table's record; the rows stay.
    fn forget(&mut self, token: Token) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// A new, empty generation of the table, invisible to readers. A load that was not finished is dropped.
    fn begin_load(
        &mut self,
        schema: Arc<Schema>,
    ) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Adds rows to the generation. May return before it is done.
    fn load(&mut self, rows: Rows) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Makes the generation the table, and stores records and position, in one transaction.
    fn finish_load(
        &mut self,
        schema: Arc<Schema>,
        records: Vec<TableRecord>,
        mark: Mark,
    ) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Alters the local table and stores the record, whose schema is the new one.
    fn migrate(
        &mut self,
        record: TableRecord,
        steps: Vec<Step>,
    ) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Applies changes. May return before it is done.
    fn apply(&mut self, changes: Changes) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Stores the position and commits it with all that was applied.
    fn commit(&mut self, mark: Mark) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Gives up what was applied since the last commit.
    fn rollback(&mut self) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Waits for what is under way and lets go of the place.
    fn close(&mut self) -> impl Future<Output = Result<(), SinkError>> + Send;
}
