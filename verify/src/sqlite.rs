//! A side in a SQLite file. All passes read one state of it, and do not disturb writers.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use rusqlite::{
    Connection, OpenFlags,
    types::{ToSqlOutput, ValueRef},
};
use walgate_consumer::sqlite_table_name;
use walgate_wire::{Schema, pack};

use crate::compare::{Look, Row};

#[derive(Debug)]
pub struct SqliteSide {
    /// `None` while a pass runs on a thread for blocking work.
    connection: Option<Connection>,
    select: String,
    columns: usize,
}

impl SqliteSide {
    pub fn open(path: &Path, schema: &Schema) -> Result<SqliteSide> {
        let connection = open(path)?;
        let names: Vec<String> = schema.columns.iter().map(|column| quoted(&column.name)).collect();
        let select =
            format!("SELECT {} FROM {}", names.join(", "), quoted(&sqlite_table_name(schema)));
        // Held until the connection is dropped.
        connection.execute_batch("BEGIN")?;
        Ok(SqliteSide { connection: Some(connection), select, columns: names.len() })
    }

    pub async fn scan<L: Look>(&mut self, look: L) -> Result<L> {
        let connection =
            self.connection.take().context("a pass over the SQLite file was interrupted")?;
        let (select, columns) = (self.select.clone(), self.columns);
        let (connection, look) =
            tokio::task::spawn_blocking(move || pass(connection, &select, columns, look)).await??;
        self.connection = Some(connection);
        Ok(look)
    }
}

pub fn open(path: &Path) -> Result<Connection> {
    ensure!(
        path.is_file(),
        "{}: no such file; name the replica that `walgate replicate` keeps",
        path.display()
    );
    let opened = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY);
    opened.with_context(|| format!("opening {}", path.display()))
}

fn pass<L: Look>(
    connection: Connection,
    select: &str,
    columns: usize,
    mut look: L,
) -> Result<(Connection, L)> {
    {
        let mut statement = connection.prepare(select)?;
        let mut rows = statement.query([])?;
        let mut row = Row::default();
        while let Some(found) = rows.next()? {
            row.clear();
            for index in 0..columns {
                append_ref(&mut row.bytes, found.get_ref(index)?);
                row.end_cell();
            }
            look.at(&row);
        }
    }
    Ok((connection, look))
}

/// Appends a value, as the sink stores it, in the form for comparisons.
pub fn append(out: &mut Vec<u8>, value: &ToSqlOutput<'_>) {
    match value {
        ToSqlOutput::Borrowed(value) => append_ref(out, *value),
        ToSqlOutput::Owned(value) => append_ref(out, value.into()),
        // Only bound parameters of kinds that the sink does not make.
        _ => pack::nil(out),
    }
}

fn append_ref(out: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => pack::nil(out),
        ValueRef::Integer(int) => pack::int(out, int),
        // SQLite does not keep the sign of zero.
        ValueRef::Real(0.0) => pack::f64_bits(out, 0f64.to_be_bytes()),
        ValueRef::Real(float) => pack::f64_bits(out, float.to_be_bytes()),
        ValueRef::Text(text) => pack::str_bytes(out, text),
        ValueRef::Blob(bytes) => pack::bin(out, bytes),
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
