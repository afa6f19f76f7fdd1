//! Failures at the Postgres side, each with its remedy, and the kind of each failure.
//!
//! What follows from a kind is not known here: `policy` decides.

use std::time::Duration;

use walgate_wire::Lsn;

use crate::rows::{BatchError, Malformed, TableVersion};

/// The function that reports that `row_security = off` is impossible. Its SQLSTATE also means
/// missing rights, and its message is translated.
const ROW_SECURITY_ROUTINE: &str = "check_enable_rls";

/// What to do about an error, for `policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Connection lost, server starting or stopping, slot in use: connect again later.
    Retry,
    /// Configuration, rights, a lost slot: only an operator can help.
    Fatal,
    /// One table cannot continue. The others can.
    TableOnly,
}

/// A failure at the Postgres side. A message names the remedy if an operator has one.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    #[error(
        "Postgres at {target} cannot be reached: {source}; check [postgres] url and that the server is up"
    )]
    Connect { target: String, source: std::io::Error },
    /// The role's password was refused, or its file cannot be read.
    #[error("{problem}")]
    Password { problem: String, rotates: bool },
    #[error("the connection to Postgres was lost: {0}")]
    Lost(#[source] std::io::Error),
    #[error("Postgres closed the connection")]
    Closed,
    #[error(
        "Postgres has been silent for {} s although keepalives are due every {} s; last message: {last}",
        silent.as_secs(), due.as_secs()
    )]
    Silent { silent: Duration, due: Duration, last: String },
    #[error(
        "replication slot \"{slot}\" is in use by another process (pid {pid}): waiting as standby"
    )]
    SlotActive { slot: String, pid: String },
    #[error("replication slot \"{slot}\" cannot be used now: {reason}")]
    SlotNotReady { slot: String, reason: String },
    #[error(
        "the server is a standby: waiting until it, or another one under its address, is the primary"
    )]
    Standby,
    #[error(
        "Postgres refused to {what}: {} (SQLSTATE {code}){}",
        walgate_pg_connect::redact_row_values(message, code),
        remedy_after(hint)
    )]
    Server { what: String, message: String, code: String, hint: String },
    #[error("could not {what}: {}", sql_message(source))]
    Sql { what: &'static str, source: tokio_postgres::Error },
    #[error("Postgres sent what its protocol does not allow: {0}")]
    Protocol(String),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// No connection is possible with it. The message does not contain it.
    #[error("postgres.url {0}")]
    Url(String),
    #[error("{0}")]
    Config(String),
    /// All problems that the preflight found, with remedies.
    #[error("{}", .0.join("\n"))]
    Preflight(Vec<String>),
    #[error(
        "replication slot \"{slot}\" has lost its place ({reason}): changes after {confirmed} are gone. \
         Every copy has to be loaded again: drop the slot (SELECT pg_drop_replication_slot('{slot}')) and start the gateway"
    )]
    SlotLost { slot: String, reason: String, confirmed: Lsn },
    #[error("{table} is locked by another session: try again")]
    Locked { table: String },
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error("{table}: {what}")]
    Table { table: String, what: String },
}

/// tokio-postgres prints "db error" and keeps the server's message in the source.
fn sql_message(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(db), _) => walgate_pg_connect::describe_db_error(db),
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    }
}

fn remedy_after(hint: &str) -> String {
    if hint.is_empty() { String::new() } else { format!("; {hint}") }
}

impl PostgresError {
    /// For `map_err` on a query; `what` completes "could not …".
    pub(in crate::postgres) fn query(
        what: &'static str,
    ) -> impl Fn(tokio_postgres::Error) -> PostgresError {
        move |source| PostgresError::Sql { what, source }
    }

    /// A failed statement about one table. If the server refuses it for good, only this table
    /// stops.
    pub(in crate::postgres) fn of_table(
        table: &TableVersion,
        what: &'static str,
        source: tokio_postgres::Error,
    ) -> PostgresError {
        let error = PostgresError::Sql { what, source };
        match error.kind() {
            ErrorKind::Fatal => {
                PostgresError::Table { table: table.name.to_string(), what: describe(&error) }
            }
            _ => error,
        }
    }

    /// What the caller should do about the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            PostgresError::Connect { .. }
            | PostgresError::Lost(_)
            | PostgresError::Closed
            | PostgresError::Silent { .. }
            | PostgresError::SlotActive { .. }
            | PostgresError::SlotNotReady { .. }
            | PostgresError::Standby
            | PostgresError::Locked { .. }
            | PostgresError::Password { rotates: true, .. } => ErrorKind::Retry,
            PostgresError::Server { code, .. } => kind_of_state(code),
            PostgresError::Sql { source, .. } => match source.code() {
                Some(code) => kind_of_state(code.code()),
                None => ErrorKind::Retry,
            },
            PostgresError::Batch(_) | PostgresError::Table { .. } => ErrorKind::TableOnly,
            PostgresError::Protocol(_)
            | PostgresError::Malformed(_)
            | PostgresError::Url(_)
            | PostgresError::Config(_)
            | PostgresError::Password { rotates: false, .. }
            | PostgresError::Preflight(_)
            | PostgresError::SlotLost { .. } => ErrorKind::Fatal,
        }
    }

    /// The name of the table that the error is about, if it is about one.
    pub fn table(&self) -> Option<&str> {
        match self {
            PostgresError::Table { table, .. } | PostgresError::Locked { table } => Some(table),
            PostgresError::Batch(error) => Some(error.table()),
            _ => None,
        }
    }
}

/// With the server's message, which `tokio_postgres::Error` keeps as a source.
fn describe(error: &PostgresError) -> String {
    let PostgresError::Sql { what, source } = error else { return error.to_string() };
    match source.as_db_error() {
        Some(db) if db.routine() == Some(ROW_SECURITY_ROUTINE) => format!(
            "row level security hides rows of it from the gateway's role, so copies would miss them (could not {what}: {}): \
             as a superuser run ALTER ROLE … BYPASSRLS, or take the table's policies off that role",
            db.message()
        ),
        Some(db) => {
            let hint = db.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
            let description = walgate_pg_connect::describe_db_error(db);
            format!("Postgres refused to {what}: {description}{hint}")
        }
        None => error.to_string(),
    }
}

fn kind_of_state(code: &str) -> ErrorKind {
    if walgate_pg_connect::is_transient_sqlstate(code) {
        ErrorKind::Retry
    } else {
        ErrorKind::Fatal
    }
}
