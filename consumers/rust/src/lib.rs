//! Local copies of Postgres tables, kept up to date from NATS.
//!
//! A [`Consumer`] follows the published protocol (`docs/PROTOCOL.md`) step by step: schema, dictionary,
//! snapshot, changes. Rows and position are kept together in a [`Sink`], so it goes on where it was, also
//! after being killed. Nothing here knows the gateway or its database.
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

pub use consumer::{Consumer, ConsumerBuilder, Options, connect};
pub use error::{Error, ErrorKind, SinkError};
pub use json::{change_json, row_json, value_json};
pub use kind::Kind;
pub use observe::{SnapshotProgress, TailFrom, request_snapshot, tail};
pub use postgres::PostgresSink;
pub use remote::StreamNames;
pub use row::{FromValue, Row, RowError};
pub use sink::{Changes, Rows, Sink};
pub use sqlite::{SqliteSink, sqlite_table_name, sqlite_value};
pub use state::{Filter, Mark, SnapshotWindow, Step, Stored, TableRecord, same_column};
pub use status::{Phase, Status, TableStatus};
pub use walgate_nats_connect::{NatsConnectError, NatsOptions};
pub use walgate_wire as wire;
