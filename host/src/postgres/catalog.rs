//! What Postgres says about tables and types: read over SQL, at start, before a snapshot and when a Relation
//! message announces a shape.
//!
//! The catalog shows tables as they are now, the stream as they were: rows are read by [`TableVersion`]s that
//! came from Relation messages. Nothing here knows NATS or KV.

mod connect;
mod ddl_probe;
mod reader;
mod resolve;
mod schema_diff;
mod sql;
mod tables;
mod type_cache;

pub use connect::{SqlClient, connect, open};
pub use ddl_probe::{Altered, Traces, load_traces};
pub use reader::Catalog;
pub use resolve::{resolve_relation, version_of_catalog};
pub use schema_diff::{SchemaChange, schema_change, types_altered};
#[cfg(test)]
pub(in crate::postgres) use tables::table_for_test;
pub use tables::{
    CatalogColumn, Leaf, Presence, RelKind, TableInfo, load_present, load_table, load_tables,
    row_filter,
};
pub use type_cache::TypeCache;
