//! Failures at the Postgres side, each with its remedy, and what kind of failure each is.
//!
//! What follows from a kind is `policy`'s business.

use std::time::Duration;

use walgate_wire::Lsn;

use crate::rows::{BatchError, Malformed};

/// What to do about an error, for `policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Connection lost, server starting or stopping, slot in use: connect again after a while.
    Retry,
    /// Configuration, rights, a lost slot: an operator has to act; nothing that we do helps.
    Fatal,
    /// One table cannot go on, the others can.
    TableOnly,
}

/// A failure at the Postgres side. Messages say what to do where there is something to do.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    #[error(
        "Postgres at {target} cannot be reached: {source}; check [postgres] url and that the server is up"
    )]
    Connect { target: String, source: std::io::Error },
    /// Of the role, not accepted or not to be read.
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
    /// Nobody could connect with it. Does not hold it.
    #[error("postgres.url {0}")]
    Url(String),
    #[error("{0}")]
    Config(String),
    /// All that was found wrong before anything was changed, with remedies.
    #[error("{}", .0.join("\n"))]
    Preflight(Vec<String>),
    #[error(
        "replication slot \"{slot}\" has lost its place ({reason}): changes after {confirmed} are gone. \
         Every copy has to be loaded again: drop the slot (SELECT pg_drop_replication_slot('{slot}')) and start the gateway"
    )]
    SlotLost { slot: String, reason: String, confirmed: Lsn },
    #[error("{table} is locked by somebody else: try again")]
    Locked { table: String },
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error("{table}: {what}")]
    Table { table: String, what: String },
}

/// tokio-postgres prints "db error" and leaves the server's words to the source.
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
    pub fn query(what: &'static str) -> impl Fn(tokio_postgres::Error) -> PostgresError {
        move |source| PostgresError::Sql { what, source }
    }

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

    /// The table that an error is about, if it is about one, as one writes it.
    pub fn table(&self) -> Option<&str> {
        match self {
            PostgresError::Table { table, .. } | PostgresError::Locked { table } => Some(table),
            PostgresError::Batch(error) => Some(error.table()),
            _ => None,
        }
    }
}

fn kind_of_state(code: &str) -> ErrorKind {
    if walgate_pg_connect::is_transient_sqlstate(code) {
        ErrorKind::Retry
    } else {
        ErrorKind::Fatal
    }
}
