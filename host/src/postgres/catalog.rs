//! Tables and types in Postgres' catalog, read over SQL: at start, before a snapshot, and when a
//! Relation message announces a shape.
//!
//! The catalog shows tables as they are now, the stream shows them as they were. Rows of the stream
//! are therefore decoded by [`TableVersion`](crate::rows::TableVersion)s of Relation messages.
//! Nothing here knows NATS or KV.

mod connect;
mod ddl_probe;
mod reader;
mod resolve;
mod schema_diff;
mod sql;
mod tables;
mod type_cache;
mod wal_position;

pub(in crate::postgres) use connect::{SqlClient, connect_endpoint, open_session};
pub use ddl_probe::{DdlFingerprint, SilentDdl};
pub use reader::Catalog;
pub(in crate::postgres) use reader::NO_IDLE_TIMEOUT;
pub use schema_diff::{SchemaChange, schema_change, types_altered};
#[cfg(test)]
pub(in crate::postgres) use tables::table_for_test;
pub use tables::{CatalogColumn, Leaf, Presence, RelKind, TableInfo};
pub(in crate::postgres) use tables::{load_row_filter, load_table, load_tables};
pub(in crate::postgres) use type_cache::TypeCache;
pub(in crate::postgres) use wal_position::{assign_xid, parse_xid, read_insert_lsn};
