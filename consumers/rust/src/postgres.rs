//! A sink that stores rows in a Postgres database.
//!
//! Tables keep their schema, name and types. Composites, types that the target does not have, and
//! types that refer to objects of the source become `text` (composites as JSON); `money` becomes
//! `numeric`. NOT NULL is enforced for keys only.
//!
//! Local transactions are committed with `synchronous_commit = off`: a crash may lose the last
//! ones, rows and position together; the consumer reads them again. One consumer writes to a
//! database at a time. TLS follows the URL's `sslmode`, `sslrootcert`, `sslcert` and `sslkey`.

use std::sync::Arc;

use walgate_pg_connect::PgConnector;
use walgate_wire::{Schema, Token};

use crate::{
    ChangeBatch, Checkpoint, MigrationStep, Sink, SinkError, SnapshotRows, StoredState,
    TableRecord, postgres::session::TargetSession,
};

mod apply;
mod ddl;
mod error;
mod load;
mod reshape;
mod session;
mod statements;
mod text;

/// Stores rows in a Postgres database, in tables with the names and types of the source.
///
/// Types that the target does not have become `text`. After a crash of the target the last commits
/// may be missing; the consumer applies them again. One consumer writes to a database at a time.
#[derive(Debug)]
pub struct PostgresSink {
    url: String,
    session: Option<TargetSession>,
    /// This sink held the database's lock before. If the lock is taken now, its own lost connection
    /// probably still holds it.
    was_held: bool,
}

impl PostgresSink {
    /// `url`: `postgres://user:password@host/database?sslmode=…` or `host=… dbname=…`.
    pub fn new(url: impl Into<String>) -> PostgresSink {
        PostgresSink { url: url.into(), session: None, was_held: false }
    }

    fn session(&mut self) -> Result<&mut TargetSession, SinkError> {
        self.session.as_mut().ok_or_else(|| SinkError::new("the Postgres sink", "is closed"))
    }
}

impl Sink for PostgresSink {
    async fn open(&mut self) -> Result<StoredState, SinkError> {
        // Closes the connection, which releases its lock.
        self.session = None;
        let what = "connecting to the target database";
        let connector = PgConnector::parse(&self.url)
            .map_err(|reason| SinkError::new(what, format_args!("its URL {reason}")))?;
        let (client, connection) =
            connector.connect().await.map_err(|error| match error.is_transient() {
                true => SinkError::transient(what, error),
                false => SinkError::new(what, error),
            })?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(%error, "connection to the target database lost");
            }
        });
        let session = self.session.insert(TargetSession::new(client));
        session.prepare_database(self.was_held).await?;
        self.was_held = true;
        session.read_state().await
    }

    async fn save_records(&mut self, records: Vec<TableRecord>) -> Result<(), SinkError> {
        let session = self.session()?;
        session.begin_transaction().await?;
        session.write_records(&records).await?;
        session.commit_transaction().await
    }

    async fn forget_table(&mut self, token: Token) -> Result<(), SinkError> {
        self.session()?.forget_table(&token).await
    }

    async fn begin_load(&mut self, schema: Arc<Schema>) -> Result<(), SinkError> {
        self.session()?.begin_load(&schema).await
    }

    async fn load_rows(&mut self, rows: SnapshotRows) -> Result<(), SinkError> {
        self.session()?.load_rows(&rows).await
    }

    async fn finish_load(
        &mut self,
        schema: Arc<Schema>,
        records: Vec<TableRecord>,
        checkpoint: Checkpoint,
    ) -> Result<(), SinkError> {
        self.session()?.finish_load(&schema, &records, checkpoint).await
    }

    async fn migrate_table(
        &mut self,
        record: TableRecord,
        steps: Vec<MigrationStep>,
    ) -> Result<(), SinkError> {
        self.session()?.migrate_table(&record, &steps).await
    }

    async fn apply_changes(&mut self, changes: ChangeBatch) -> Result<(), SinkError> {
        self.session()?.apply_changes(&changes).await
    }

    async fn commit(&mut self, checkpoint: Checkpoint) -> Result<(), SinkError> {
        let session = self.session()?;
        session.begin_transaction().await?;
        session.commit_at(checkpoint).await
    }

    async fn rollback(&mut self) -> Result<(), SinkError> {
        match &mut self.session {
            Some(session) => session.rollback().await,
            None => Ok(()),
        }
    }

    async fn close(&mut self) -> Result<(), SinkError> {
        self.session = None;
        Ok(())
    }
}
