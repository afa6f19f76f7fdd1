//! A SQLite file as the place for rows.
//!
//! The file is in WAL mode: readers see whole transactions and never wait. `synchronous` is NORMAL, so a power
//! cut may take the last commits, rows and position together; they are read again. Tables are named as
//! in the source, those of schema `public` without it: `users`, `"sales.orders"`. SQLite is blocking, so a
//! thread of its own does the work; one message of work is done while the next is being received.

use std::{path::PathBuf, sync::Arc};

use walgate_wire::{Schema, Token};

use crate::{
    Changes, Mark, Rows, Sink, SinkError, Step, Stored, TableRecord,
    sqlite::{store::Store, worker::Worker},
};

mod apply;
mod ddl;
mod load;
mod plan;
mod store;
mod value;
mod worker;

pub use ddl::table_name as sqlite_table_name;
pub use value::sqlite_value;

/// See the module.
#[derive(Debug)]
pub struct SqliteSink {
    path: PathBuf,
    worker: Option<Worker>,
}

impl SqliteSink {
    /// The file is created when the consumer starts, if it is not there.
    pub fn new(path: impl Into<PathBuf>) -> SqliteSink {
        SqliteSink { path: path.into(), worker: None }
    }

    fn worker(&self) -> Result<&Worker, SinkError> {
        let closed = || SinkError::new(format!("SQLite file {}", self.path.display()), "is closed");
        self.worker.as_ref().ok_or_else(closed)
    }
}

impl Sink for SqliteSink {
    async fn open(&mut self) -> Result<Stored, SinkError> {
        let path = self.path.clone();
        let worker = Worker::start(move || Store::open(&path)).await?;
        let worker = self.worker.insert(worker);
        worker.call(|store| store.stored()).await
    }

    async fn save(&mut self, records: Vec<TableRecord>) -> Result<(), SinkError> {
        self.worker()?.call(move |store| store.save(&records)).await
    }

    async fn forget(&mut self, token: Token) -> Result<(), SinkError> {
        self.worker()?.call(move |store| store.forget(&token)).await
    }

    async fn begin_load(&mut self, schema: Arc<Schema>) -> Result<(), SinkError> {
        self.worker()?.call(move |store| store.begin_load(&schema)).await
    }

    async fn load(&mut self, rows: Rows) -> Result<(), SinkError> {
        self.worker()?.send(move |store| store.load(&rows)).await
    }

    async fn finish_load(
        &mut self,
        schema: Arc<Schema>,
        records: Vec<TableRecord>,
        mark: Mark,
    ) -> Result<(), SinkError> {
        self.worker()?.call(move |store| store.finish_load(&schema, &records, mark)).await
    }

    async fn migrate(&mut self, record: TableRecord, steps: Vec<Step>) -> Result<(), SinkError> {
        self.worker()?.send(move |store| store.migrate(&record, &steps)).await
    }

    async fn apply(&mut self, changes: Changes) -> Result<(), SinkError> {
        self.worker()?.send(move |store| store.apply(&changes)).await
    }

    async fn commit(&mut self, mark: Mark) -> Result<(), SinkError> {
        self.worker()?.call(move |store| store.commit(mark)).await
    }

    async fn rollback(&mut self) -> Result<(), SinkError> {
        match &self.worker {
            Some(worker) => worker.recover(Store::rollback).await,
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
