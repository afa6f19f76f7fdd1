//! A sink that stores rows in a SQLite file.
//!
//! The file is in WAL mode: readers see whole transactions and never wait. `synchronous` is NORMAL,
//! so a power failure may lose the last commits, rows and position together; the consumer reads
//! them again. Tables have the names of the source, without the schema `public`: `users`,
//! `"sales.orders"`. SQLite blocks, so it runs on its own thread: it stores one message while the
//! next is received.

use std::{path::PathBuf, sync::Arc};

use walgate_wire::{Schema, Token};

use crate::{
    ChangeBatch, Checkpoint, MigrationStep, Sink, SinkError, SnapshotRows, StoredState,
    TableRecord,
    sqlite::{store::SqliteStore, worker::SqliteWorker},
};

mod apply;
mod ddl;
mod error;
mod load;
mod statements;
mod store;
mod value;
mod worker;

pub use ddl::table_name as sqlite_table_name;
pub use value::sqlite_value;

/// Stores rows in a SQLite file in WAL mode, so that readers see whole transactions and never wait.
///
/// Tables have the names of the source, without the schema `public`: `users`, `"sales.orders"`.
/// After a power failure the last commits may be missing; the consumer applies them again. One
/// consumer writes to a file at a time.
#[derive(Debug)]
pub struct SqliteSink {
    path: PathBuf,
    worker: Option<SqliteWorker>,
}

impl SqliteSink {
    /// The consumer creates the file when it starts, if it does not exist.
    pub fn new(path: impl Into<PathBuf>) -> SqliteSink {
        SqliteSink { path: path.into(), worker: None }
    }

    fn worker(&self) -> Result<&SqliteWorker, SinkError> {
        let closed = || SinkError::new(format!("SQLite file {}", self.path.display()), "is closed");
        self.worker.as_ref().ok_or_else(closed)
    }
}

impl Sink for SqliteSink {
    async fn open(&mut self) -> Result<StoredState, SinkError> {
        let path = self.path.clone();
        let worker = SqliteWorker::start(move || SqliteStore::open(&path)).await?;
        let worker = self.worker.insert(worker);
        worker.call(|store| store.read_state()).await
    }

    async fn save_records(&mut self, records: Vec<TableRecord>) -> Result<(), SinkError> {
        self.worker()?.call(move |store| store.save_records(&records)).await
    }

    async fn forget_table(&mut self, token: Token) -> Result<(), SinkError> {
        self.worker()?.call(move |store| store.forget_table(&token)).await
    }

    async fn begin_load(&mut self, schema: Arc<Schema>) -> Result<(), SinkError> {
        self.worker()?.call(move |store| store.begin_load(&schema)).await
    }

    async fn load_rows(&mut self, rows: SnapshotRows) -> Result<(), SinkError> {
        self.worker()?.enqueue(move |store| store.load_rows(&rows)).await
    }

    async fn finish_load(
        &mut self,
        schema: Arc<Schema>,
        records: Vec<TableRecord>,
        checkpoint: Checkpoint,
    ) -> Result<(), SinkError> {
        self.worker()?.call(move |store| store.finish_load(&schema, &records, checkpoint)).await
    }

    async fn migrate_table(
        &mut self,
        record: TableRecord,
        steps: Vec<MigrationStep>,
    ) -> Result<(), SinkError> {
        self.worker()?.enqueue(move |store| store.migrate_table(&record, &steps)).await
    }

    async fn apply_changes(&mut self, changes: ChangeBatch) -> Result<(), SinkError> {
        self.worker()?.enqueue(move |store| store.apply_changes(&changes)).await
    }

    async fn commit(&mut self, checkpoint: Checkpoint) -> Result<(), SinkError> {
        self.worker()?.call(move |store| store.commit(checkpoint)).await
    }

    async fn rollback(&mut self) -> Result<(), SinkError> {
        match &self.worker {
            Some(worker) => worker.recover(SqliteStore::rollback).await,
            None => Ok(()),
        }
    }

    async fn close(&mut self) -> Result<(), SinkError> {
        match self.worker.take() {
            Some(worker) => worker.stop().await,
            None => Ok(()),
        }
    }
}
