//! How guests fail: when they are loaded, when they are bound to a table, and at work.
//!
//! Each message names the thing, what is wrong with it and what to do. No message quotes a row,
//! unless the guest's own text does.

use std::time::Duration;

use walgate_wire::Position;

use crate::guest::{
    exec::decisions::AnswerError, plan::PlanError, runtime::component::InterfaceError,
};
use crate::{encode::RowError, rows::batch::RowBatch};

/// A guest that cannot be used. The caller knows its file.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    #[error("the wasm runtime cannot be set up: {0}")]
    Runtime(String),
    #[error(
        "it has {bytes} bytes, at most {max} are allowed: strip it (wasm-opt -Oz, strip = true), or raise guests.module_bytes"
    )]
    ModuleSize { bytes: usize, max: usize },
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    #[error("it does not compile: {0}")]
    Compile(String),
    #[error("its {what} {failure}")]
    Call { what: &'static str, failure: CallFailure },
    #[error(
        "its name or version is empty, longer than 100 bytes or has control characters: set them in its Cargo.toml"
    )]
    Description,
    #[error("guest {guest} does not work with table {table}: {reason}")]
    Refused { guest: String, table: String, reason: String },
    #[error("the plan of guest {guest} does not fit table {table}: {source}")]
    Plan { guest: String, table: String, source: PlanError },
}

/// A call that failed. The text continues a sentence such as "its plan …".
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallFailure {
    #[error("trapped: {reason}{}", quoted_log(.said))]
    Trap { reason: String, said: Option<String> },
    #[error("took longer than {} ms; raise guests.batch_ms if that is how long it needs{}", .after.as_millis(), quoted_log(.said))]
    Timeout { after: Duration, said: Option<String> },
    #[error(
        "ran out of memory: it asked for {} MiB, the limit is {} MiB; raise guests.memory_mib if that is what it needs",
        in_mebibytes(.asked), in_mebibytes(.limit)
    )]
    OutOfMemory { asked: usize, limit: usize },
    #[error(
        "was not called: its rows take {} MiB, more than its memory of {} MiB; raise guests.memory_mib",
        in_mebibytes(.bytes), in_mebibytes(.limit)
    )]
    Input { bytes: usize, limit: usize },
    #[error(
        "answered with {bytes} bytes, at most {max} are allowed: raise guests.output_bytes if that is what it needs"
    )]
    Output { bytes: usize, max: usize },
    #[error("answered with an error: {0}")]
    Refused(String),
    #[error("answered with garbage: {0}; build it with the SDK of this gateway's version")]
    MalformedAnswer(#[from] AnswerError),
    #[error("answered differently than the first time: a plan may depend on nothing but the table")]
    PlanChanged,
    #[error("could not be started: {0}")]
    Start(String),
}

fn quoted_log(said: &Option<String>) -> String {
    said.as_ref().map_or_else(String::new, |said| format!(" (it said: {said})"))
}

fn in_mebibytes(bytes: &usize) -> usize {
    bytes.div_ceil(1 << 20)
}

/// Where in its table a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowPlace {
    Change(Position),
    /// Number of the row in its batch of a snapshot.
    Copied(usize),
}

impl std::fmt::Display for RowPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RowPlace::Change(position) => write!(f, "change {position}"),
            RowPlace::Copied(row) => write!(f, "row {row} of a snapshot's batch"),
        }
    }
}

/// A batch of which no row can be published.
#[derive(Debug, thiserror::Error)]
pub enum GuestFailure {
    #[error(
        "guest {guest} fails on {place} of {table}: {error}; mend the guest, or set on_guest_error of the table"
    )]
    Row { guest: String, table: String, place: RowPlace, error: String },
    #[error("guest {guest} fails for table {table}: its process() {failure}")]
    Guest { guest: String, table: String, failure: CallFailure },
    #[error(
        "guest {guest} fails on {rows} rows of one batch of {table}, too many to be the rows' fault; at last {error}; mend the guest"
    )]
    TooManyRows { guest: String, table: String, rows: usize, error: String },
    #[error(
        "guest {guest} holds up the other tables: it takes too long to find the rows of {table} that it fails on; at last {error}; mend the guest"
    )]
    TooSlow { guest: String, table: String, error: String },
    /// The guest was not called: a value cannot be shown to it.
    #[error(transparent)]
    Unreadable(#[from] RowError),
    #[error(
        "a batch of {table} does not fit what its guest was bound to; this is a mistake in Walgate, please report it"
    )]
    OtherTable { table: String },
}

impl GuestFailure {
    /// The table, with its schema.
    pub fn table(&self) -> &str {
        match self {
            GuestFailure::Row { table, .. }
            | GuestFailure::Guest { table, .. }
            | GuestFailure::TooManyRows { table, .. }
            | GuestFailure::TooSlow { table, .. }
            | GuestFailure::OtherTable { table } => table,
            GuestFailure::Unreadable(error) => &error.table,
        }
    }

    /// The message for consumers. It leaves out the guest's own text, which may quote rows that
    /// only the operator may see.
    pub fn public_message(&self) -> String {
        match self {
            GuestFailure::Row { guest, table, place, .. } => {
                format!("guest {guest} fails on {place} of {table}; the gateway's log says why")
            }
            GuestFailure::Guest { guest, table, .. } => {
                format!("guest {guest} fails for table {table}; the gateway's log says why")
            }
            GuestFailure::TooManyRows { guest, table, rows, .. } => {
                format!(
                    "guest {guest} fails on {rows} rows of one batch of {table}; the gateway's log says why"
                )
            }
            GuestFailure::TooSlow { guest, table, .. } => {
                format!(
                    "guest {guest} fails on rows of {table}, and slowly; the gateway's log says why"
                )
            }
            GuestFailure::Unreadable(_) | GuestFailure::OtherTable { .. } => self.to_string(),
        }
    }
}

/// A row that the guest failed on, and that did not stop its table.
#[derive(Debug)]
pub struct FailedRow {
    /// Of the change or of the copied row, in the input batch.
    pub index: usize,
    pub place: RowPlace,
    pub error: String,
    /// The change or row as it came in, if the policy is to keep it.
    pub row: Option<RowBatch>,
}
