//! What Postgres says about tables and types: read over SQL, at start, before a snapshot and when a Relation
//! message announces a shape.
//!
//! The catalog shows tables as they are now, the stream as they were: rows are read by [`TableVersion`]s that
//! came from Relation messages. Nothing here knows NATS or KV.

mod change;
mod connect;
mod reader;
mod resolve;
mod sql;
mod tables;
mod traces;
mod typetree;

pub use change::{SchemaChange, schema_change, types_altered};
pub use connect::{SqlClient, connect, open};
pub use reader::Catalog;
pub use resolve::{resolve_relation, version_of_catalog};
#[cfg(test)]
pub(in crate::source) use tables::table_for_test;
pub use tables::{
    CatalogColumn, Leaf, Presence, RelKind, TableInfo, load_present, load_table, load_tables,
    row_filter,
};
pub use traces::{Altered, Traces, load_traces};
pub use typetree::{Binary, Kind, NATIVE_OIDS, Type, TypeCache};

use walgate_wire::{Schema, TableName, Token};

/// A table as one Relation message (or the catalog, for a snapshot) describes it: what reads its rows.
#[derive(Clone, Debug)]
pub struct TableVersion {
    pub name: TableName,
    pub token: Token,
    pub relid: u32,
    /// As consumers know it, with the KV revision once it has one.
    pub schema: Schema,
    /// One for each cell of a row, in the order in which Postgres sends them.
    pub columns: Vec<ColumnType>,
}

/// How to read the cells of one column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnType {
    /// Declared type; a domain's own oid.
    pub oid: u32,
    pub typmod: i32,
    /// What it is made of, domains resolved.
    pub ty: Type,
    pub binary: Binary,
    /// Part of what an old row is found by.
    pub key: bool,
}
