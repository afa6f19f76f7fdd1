//! What tables and columns are called and how they are declared.

use walgate_wire::{Column, Schema, TableName};

use crate::{Kind, SinkError};

/// Where a snapshot is gathered until it is whole.
pub(super) const LOADING: &str = "_walgate_loading";
/// What the names of our own tables begin with, and those of SQLite's; in lower case.
pub(super) const RESERVED: [&str; 2] = ["_walgate_", "sqlite_"];

/// What the table of this schema is called: `users`, `sales.orders`.
pub fn table_name(schema: &Schema) -> String {
    match schema.table.parse::<TableName>() {
        Ok(name) if name.schema == "public" => {
            name.to_string().strip_prefix("public.").map(str::to_owned).unwrap_or(name.table)
        }
        Ok(name) => name.to_string(),
        Err(_) => schema.table.clone(),
    }
}

/// As an SQL identifier.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The declared type, which decides the affinity. Text for whatever SQLite would otherwise turn into a number.
pub(super) fn column_type(column: &Column) -> &'static str {
    match Kind::of(column) {
        Kind::Bool | Kind::Int => "INTEGER",
        Kind::Float => "REAL",
        Kind::Bytes => "BLOB",
        Kind::Uuid | Kind::Timestamptz | Kind::Timestamp | Kind::Date | Kind::Time => "TEXT",
        Kind::Json | Kind::Array(_) => "TEXT",
        Kind::Other if USER_TYPES_FROM <= column.value_oid() => "BLOB",
        Kind::Other => "TEXT",
    }
}

/// OIDs from here on are given to types that users and extensions create. Declared BLOB, a column keeps
/// whatever arrives as it is.
const USER_TYPES_FROM: u32 = 16_384;

/// Not null is not enforced: a replica holds what the source held.
pub(super) fn create_table(name: &str, schema: &Schema) -> Result<String, SinkError> {
    check_names(schema)?;
    let single_key = match schema.key_indexes()[..] {
        [index] if Kind::of(&schema.columns[index]) == Kind::Int => Some(index),
        _ => None,
    };
    let column = |(index, column): (usize, &Column)| {
        // Then the key is the row's own number and needs no index.
        let primary = if single_key == Some(index) { " PRIMARY KEY" } else { "" };
        format!("{} {}{primary}", quoted(&column.name), column_type(column))
    };
    let mut parts: Vec<String> = schema.columns.iter().enumerate().map(column).collect();
    if single_key.is_none() && !schema.key.is_empty() {
        let key: Vec<String> = schema.key.iter().map(|name| quoted(name)).collect();
        parts.push(format!("PRIMARY KEY ({})", key.join(", ")));
    }
    if parts.is_empty() {
        parts.push("_walgate_no_columns INTEGER".to_owned());
    }
    Ok(format!("CREATE TABLE {} ({})", quoted(name), parts.join(", ")))
}

/// SQLite does not tell upper from lower case in names.
fn check_names(schema: &Schema) -> Result<(), SinkError> {
    let mut seen = std::collections::HashMap::new();
    for column in &schema.columns {
        if let Some(other) = seen.insert(column.name.to_ascii_lowercase(), &column.name) {
            let reason = format!(
                "columns {other} and {} have the same name in SQLite; rename one at the source or hide one with a guest",
                column.name
            );
            return Err(SinkError::new(format!("creating table {}", schema.table), reason));
        }
    }
    Ok(())
}

/// A name of SQLite's row number that no column has taken.
pub(super) fn rowid(schema: &Schema) -> &'static str {
    let taken =
        |name: &&str| schema.columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    ["rowid", "_rowid_", "oid"].into_iter().find(|name| !taken(name)).unwrap_or("rowid")
}
