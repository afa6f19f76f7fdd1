//! Local copies of Postgres tables, kept up to date from NATS.
//!
//! A [`Consumer`] follows the published protocol (`docs/PROTOCOL.md`): schema, dictionary,
//! snapshot, changes. A [`Sink`] stores rows and position in one transaction, so a consumer
//! continues where it was, even if it was killed. Nothing here knows the gateway or the source
//! database.
//!
//! ```no_run
//! # async fn example() -> Result<(), walgate_consumer::Error> {
//! use walgate_consumer::{Consumer, SqliteSink};
//!
//! let consumer = Consumer::builder()
//!     .nats("nats://localhost:4222")
//!     .table("public.users")
//!     .table("orders")
//!     .sink(SqliteSink::new("edge.db"))
//!     .build()
//!     .await?;
//! let shutdown = std::future::pending();
//! consumer.run(shutdown).await
//! # }
//! ```

#![warn(missing_docs)]

mod assets;
mod consumer;
mod decode;
mod engine;
mod error;
mod feed;
mod json;
mod kind;
mod observe;
mod postgres;
mod remote;
mod row;
mod sink;
mod snapshot;
mod sqlite;
mod state;
mod status;
#[cfg(test)]
mod test_support;
mod text;

pub use consumer::{Consumer, ConsumerBuilder, ConsumerOptions, connect};
pub use error::{Error, ErrorKind, SinkError};
pub use json::{change_json, row_json, value_json};
pub use kind::ValueKind;
pub use observe::{SnapshotProgress, TailFrom, request_snapshot, tail_changes};
pub use postgres::PostgresSink;
pub use remote::StreamNames;
pub use row::{FromValue, Row, RowError};
pub use sink::{ChangeBatch, Sink, SnapshotRows};
pub use sqlite::{SqliteSink, sqlite_table_name, sqlite_value};
pub use state::{
    ChangeFilter, Checkpoint, MigrationStep, SnapshotWindow, StoredState, TableRecord, same_column,
};
pub use status::{ConsumerStatus, TablePhase, TableStatus};
pub use walgate_nats_connect::{NatsConnectError, NatsOptions};
pub use walgate_wire as wire;
