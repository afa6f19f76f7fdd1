//! A Postgres database as the place for rows.
//!
//! Tables keep their schema, name and types. A type that the target does not have, composites and types that
//! name objects of the source become `text` (composites as JSON); `money` becomes `numeric`. Not null is
//! enforced for keys only. Local transactions are committed with `synchronous_commit = off`: a crash may take
//! the last ones, rows and position together; they are read again. One consumer writes to a database at a
//! time. The connection is encrypted as the URL says, in libpq's words (`sslmode`, `sslrootcert`, `sslcert`, `sslkey`).

use std::{io, sync::Arc};

use walgate_pg_connect::PgConnector;
use walgate_wire::{Schema, Token};

use crate::{
    Changes, Mark, Rows, Sink, SinkError, Step, Stored, TableRecord, postgres::session::Session,
};

mod apply;
mod ddl;
mod load;
mod plan;
mod reshape;
mod session;
mod text;

/// See the module.
#[derive(Debug)]
pub struct PostgresSink {
    url: String,
    session: Option<Session>,
    /// It was ours alone before: who seems to have it now is our own connection, which the server has not missed yet.
    was_held: bool,
}

/// Here a table in use is our own transaction's, a limit or a protocol violation comes again.
fn passes(code: &str) -> bool {
    walgate_pg_connect::is_transient_sqlstate(code) && !["55006", "53400", "08P01"].contains(&code)
}

/// Whether it is the connection, not a message that cannot be written or read.
fn is_lost(cause: &(dyn std::error::Error + 'static)) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput};
    let error = cause.downcast_ref::<io::Error>();
    error.is_some_and(|error| ![InvalidData, InvalidInput].contains(&error.kind()))
}

/// Turns a driver's error into one that says what was being done and what the server said.
fn failed(what: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> SinkError {
    let what = what.into();
    move |error| {
        let cause = std::error::Error::source(&error);
        let (passes, reason) = match (error.as_db_error(), cause) {
            (Some(db), _) => (passes(db.code().code()), walgate_pg_connect::describe_db_error(db)),
            (None, Some(cause)) => (is_lost(cause), format!("{error}: {cause}")),
            (None, None) => (error.is_closed(), error.to_string()),
        };
        if passes { SinkError::passing(what, reason) } else { SinkError::new(what, reason) }
    }
}

impl PostgresSink {
    /// `url`: `postgres://user:password@host/database?sslmode=…` or `host=… dbname=…`.
    pub fn new(url: impl Into<String>) -> PostgresSink {
        PostgresSink { url: url.into(), session: None, was_held: false }
    }

    fn session(&mut self) -> Result<&mut Session, SinkError> {
        self.session.as_mut().ok_or_else(|| SinkError::new("the Postgres sink", "is closed"))
    }
}

impl Sink for PostgresSink {
    async fn open(&mut self) -> Result<Stored, SinkError> {
        // With its lock.
        self.session = None;
        let what = "connecting to the target database";
        let server = PgConnector::parse(&self.url)
            .map_err(|reason| SinkError::new(what, format_args!("its URL {reason}")))?;
        let (client, connection) =
            server.connect().await.map_err(|error| match error.is_transient() {
                true => SinkError::passing(what, error),
                false => SinkError::new(what, error),
            })?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(%error, "the connection to the target database broke");
            }
        });
        let session = self.session.insert(Session::new(client));
        session.prepare_database(self.was_held).await?;
        self.was_held = true;
        session.stored().await
    }

    async fn save(&mut self, records: Vec<TableRecord>) -> Result<(), SinkError> {
        let session = self.session()?;
        session.begin().await?;
        session.write_records(&records).await?;
        session.end().await
    }

    async fn forget(&mut self, token: Token) -> Result<(), SinkError> {
        self.session()?.forget(&token).await
    }

    async fn begin_load(&mut self, schema: Arc<Schema>) -> Result<(), SinkError> {
        self.session()?.begin_load(&schema).await
    }

    async fn load(&mut self, rows: Rows) -> Result<(), SinkError> {
        self.session()?.load(&rows).await
    }

    async fn finish_load(
        &mut self,
        schema: Arc<Schema>,
        records: Vec<TableRecord>,
        mark: Mark,
    ) -> Result<(), SinkError> {
        self.session()?.finish_load(&schema, &records, mark).await
    }

    async fn migrate(&mut self, record: TableRecord, steps: Vec<Step>) -> Result<(), SinkError> {
        self.session()?.migrate(&record, &steps).await
    }

    async fn apply(&mut self, changes: Changes) -> Result<(), SinkError> {
        self.session()?.apply(&changes).await
    }

    async fn commit(&mut self, mark: Mark) -> Result<(), SinkError> {
        let session = self.session()?;
        session.begin().await?;
        session.end_at(mark).await
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
