//! Names and declarations of tables and columns in SQLite.

use walgate_wire::{Column, Schema, TableName};

use crate::{SinkError, ValueKind};

/// The table that receives a snapshot until it is complete.
pub(super) const LOADING: &str = "_walgate_loading";
/// Prefixes of Walgate's and of SQLite's own tables, in lower case.
pub(super) const RESERVED: [&str; 2] = ["_walgate_", "sqlite_"];

/// The name of this schema's table in SQLite: `users`, `sales.orders`.
pub fn table_name(schema: &Schema) -> String {
    match schema.table.parse::<TableName>() {
        Ok(name) if name.schema == "public" => {
            name.to_string().strip_prefix("public.").map(str::to_owned).unwrap_or(name.table)
        }
        Ok(name) => name.to_string(),
        Err(_) => schema.table.clone(),
    }
}

/// The name as an SQL identifier.
pub(super) fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The declared type, which decides the affinity. TEXT where SQLite would otherwise convert text to
/// a number.
pub(super) fn column_type(column: &Column) -> &'static str {
    match ValueKind::of_column(column) {
        ValueKind::Bool | ValueKind::Int => "INTEGER",
        ValueKind::Float => "REAL",
        ValueKind::Bytes => "BLOB",
        ValueKind::Uuid
        | ValueKind::Timestamptz
        | ValueKind::Timestamp
        | ValueKind::Date
        | ValueKind::Time => "TEXT",
        ValueKind::Json | ValueKind::Array(_) => "TEXT",
        ValueKind::Other if USER_TYPES_FROM <= column.value_oid() => "BLOB",
        ValueKind::Other => "TEXT",
    }
}

/// The first OID of types that users and extensions create. Such a column is declared BLOB, which
/// stores values without conversion.
const USER_TYPES_FROM: u32 = 16_384;

/// The CREATE TABLE statement. NOT NULL is not declared: the copy holds what the source held.
pub(super) fn create_table(name: &str, schema: &Schema) -> Result<String, SinkError> {
    check_names(schema)?;
    let single_key = match schema.key_indexes()[..] {
        [index] if ValueKind::of_column(&schema.columns[index]) == ValueKind::Int => Some(index),
        _ => None,
    };
    let column = |(index, column): (usize, &Column)| {
        // An INTEGER PRIMARY KEY is the rowid itself and needs no index.
        let primary = if single_key == Some(index) { " PRIMARY KEY" } else { "" };
        format!("{} {}{primary}", quote_identifier(&column.name), column_type(column))
    };
    let mut parts: Vec<String> = schema.columns.iter().enumerate().map(column).collect();
    if single_key.is_none() && !schema.key.is_empty() {
        let key: Vec<String> = schema.key.iter().map(|name| quote_identifier(name)).collect();
        parts.push(format!("PRIMARY KEY ({})", key.join(", ")));
    }
    if parts.is_empty() {
        parts.push("_walgate_no_columns INTEGER".to_owned());
    }
    Ok(format!("CREATE TABLE {} ({})", quote_identifier(name), parts.join(", ")))
}

/// Fails if two columns have the same name in SQLite, where names are case-insensitive.
fn check_names(schema: &Schema) -> Result<(), SinkError> {
    let mut seen = std::collections::HashMap::new();
    for column in &schema.columns {
        if let Some(other) = seen.insert(column.name.to_ascii_lowercase(), &column.name) {
            let reason = format!(
                "columns {other} and {} have the same name in SQLite; rename one at the source or \
                 hide one with a guest",
                column.name
            );
            return Err(SinkError::new(format!("creating table {}", schema.table), reason));
        }
    }
    Ok(())
}

/// A name of SQLite's rowid that is not the name of a column.
pub(super) fn free_rowid_name(schema: &Schema) -> &'static str {
    let taken =
        |name: &&str| schema.columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    ["rowid", "_rowid_", "oid"].into_iter().find(|name| !taken(name)).unwrap_or("rowid")
}
