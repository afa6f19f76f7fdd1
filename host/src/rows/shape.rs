//! The shape of a table's rows: the types of their cells, and the schema that consumers know.
//!
//! Pure data, filled from Relation messages or the catalog. Neither is known here.

use walgate_wire::{Schema, TableName, Token};

use super::Binary;
use super::Type;

/// A table as one Relation message describes it, or the catalog for a snapshot.
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
    /// Its structure, domains resolved.
    pub ty: Type,
    pub binary: Binary,
    /// Part of the replica identity's key.
    pub key: bool,
}
