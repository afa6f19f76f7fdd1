//! Reads a copy as any program beside the consumer would.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags};
use tokio_postgres::{Client, SimpleQueryMessage};
use walgate_wire::TableName;

use super::{
    canon, quote, quoted,
    shape::{Shape, Type},
    travels,
};
use crate::{postgres::connect, replica::Target};

/// A reader's connection.
pub enum Copy {
    /// `None` while the file does not exist.
    Sqlite(Option<Connection>, Keeper),
    Postgres(Client),
}

/// The program that writes a SQLite file. Each has its own table names and its own form of some
/// types.
#[derive(Clone, Copy, Debug)]
pub enum Keeper {
    Walgate,
    Python,
}

#[derive(Clone, Debug)]
pub struct CopyColumn {
    pub name: String,
    /// As declared in the copy.
    pub ty: String,
}

impl Copy {
    pub async fn open(target: &Target) -> Copy {
        match target {
            Target::Sqlite(file) => Copy::Sqlite(open_file(file), Keeper::Walgate),
            Target::Python(file) => Copy::Sqlite(open_file(file), Keeper::Python),
            Target::Postgres(url) => Copy::Postgres(connect(url).await),
        }
    }

    /// The number of rows; `None` while the table does not exist.
    pub async fn count_rows(&self, table: &str) -> Option<u64> {
        self.count_of(&table.parse().expect("a table name")).await
    }

    pub(super) async fn count_of(&self, table: &TableName) -> Option<u64> {
        let value =
            self.read_row(&format!("select count(*) from {}", self.local_name(table))).await?;
        value.first()?.as_ref()?.parse().ok()
    }

    /// Sums of one column of two tables, and a value that differs in almost every state of the
    /// first. All three come from one snapshot of a reader.
    pub async fn read_sums(&self, a: &str, b: &str, column: &str) -> Option<(i64, i64, i64)> {
        let sum = |table| format!("(select sum({column}) from {table})");
        let mark = format!("(select sum({column} * ({column} % 1000) * id) from {a})");
        let row = self.read_row(&format!("select {}, {}, {mark}", sum(a), sum(b))).await?;
        let number = |index: usize| row.get(index)?.as_ref()?.parse().ok();
        Some((number(0)?, number(1)?, number(2)?))
    }

    /// One row as texts; `None` if the query fails.
    async fn read_row(&self, sql: &str) -> Option<Vec<Option<String>>> {
        match self {
            Copy::Sqlite(connection, _) => {
                let mut statement = connection.as_ref()?.prepare(sql).ok()?;
                let width = statement.column_count();
                let cell = |row: &rusqlite::Row<'_>, index| {
                    row.get::<_, Option<i64>>(index).map(|i| i.map(|i| i.to_string()))
                };
                statement
                    .query_row([], |row| (0..width).map(|index| cell(row, index)).collect())
                    .ok()
            }
            Copy::Postgres(client) => query_rows(client, sql).await?.into_iter().next(),
        }
    }

    /// The table's name in the copy, quoted.
    fn local_name(&self, table: &TableName) -> String {
        match self {
            Copy::Sqlite(_, keeper) => quote(&keeper.table_name(table)),
            Copy::Postgres(_) => quoted(table),
        }
    }

    pub(super) async fn columns(&self, table: &TableName) -> Option<Vec<CopyColumn>> {
        let columns: Vec<CopyColumn> = match self {
            Copy::Sqlite(connection, keeper) => {
                let sql = "select name, type from pragma_table_info(?1) where name <> '_wg_rowid'";
                let mut statement = connection.as_ref()?.prepare(sql).ok()?;
                let column =
                    |row: &rusqlite::Row<'_>| Ok(CopyColumn { name: row.get(0)?, ty: row.get(1)? });
                let found = statement.query_map([keeper.table_name(table)], column).ok()?;
                found.collect::<Result<_, _>>().ok()?
            }
            Copy::Postgres(client) => {
                let sql = format!(
                    "select attname, format_type(atttypid, null) from pg_attribute
                     where attrelid = to_regclass('{}') and attnum > 0 and not attisdropped",
                    quoted(table).replace('\'', "''")
                );
                let column = |mut row: Vec<Option<String>>| {
                    let ty = row.pop().flatten().unwrap_or_default();
                    CopyColumn { name: row.pop().flatten().unwrap_or_default(), ty }
                };
                query_rows(client, &sql).await?.into_iter().map(column).collect()
            }
        };
        (!columns.is_empty()).then_some(columns)
    }

    /// Every row, each value as its canonical text.
    pub(super) async fn read_rows(
        &self,
        table: &TableName,
        columns: &[CopyColumn],
        shape: &Shape,
    ) -> Option<Vec<Vec<String>>> {
        let list: Vec<_> = columns.iter().map(|column| quote(&column.name)).collect();
        let sql = format!("select {} from {}", list.join(", "), self.local_name(table));
        let types: Vec<Type> = columns.iter().map(|column| self.ty(shape, &column.name)).collect();
        match self {
            Copy::Sqlite(connection, _) => {
                let mut statement = connection.as_ref()?.prepare(&sql).ok()?;
                let cells = |row: &rusqlite::Row<'_>| {
                    let cell = |(index, ty)| Ok(canon::sqlite(ty, row.get_ref(index)?));
                    types.iter().enumerate().map(cell).collect::<rusqlite::Result<Vec<_>>>()
                };
                statement.query_map([], cells).ok()?.collect::<Result<_, _>>().ok()
            }
            Copy::Postgres(client) => {
                let row = |row: Vec<Option<String>>| {
                    let cells = row.iter().zip(columns).zip(&types);
                    let cell = |((cell, column), ty): ((&Option<String>, &CopyColumn), &Type)| {
                        postgres_cell(&column.ty, ty, cell.as_deref())
                    };
                    cells.map(cell).collect()
                };
                Some(query_rows(client, &sql).await?.into_iter().map(row).collect())
            }
        }
    }

    /// The expression that selects a column at the source.
    pub(super) fn source_expression(&self, shape: &Shape, column: &str) -> String {
        let name = quote(column);
        match self {
            Copy::Sqlite(_, Keeper::Python) => travels::expression(shape.oid(column), &name),
            _ => name,
        }
    }

    /// The type of the source's answer.
    pub(super) fn ty(&self, shape: &Shape, column: &str) -> Type {
        match self {
            Copy::Sqlite(_, Keeper::Python) => travels::ty(shape.oid(column), shape.ty(column)),
            _ => shape.ty(column),
        }
    }

    /// The text that [`Copy::rows`] has to contain for the source's value.
    pub(super) fn expected_text(&self, ty: &Type, text: Option<&str>) -> String {
        canon::source(ty, text)
    }
}

/// If the copy cannot have the type, a nested value is JSON and a leaf is text.
fn postgres_cell(declared: &str, ty: &Type, cell: Option<&str>) -> String {
    let nested = matches!(ty, Type::Array(_) | Type::Composite(_) | Type::Hstore | Type::Vector);
    match cell {
        Some(text) if nested && matches!(declared, "json" | "jsonb" | "text") => {
            canon::json_text(ty, text)
        }
        cell => canon::source(ty, cell),
    }
}

impl Keeper {
    /// `users` or `sales.orders`, with parts quoted where needed; for Python, the token.
    fn table_name(self, table: &TableName) -> String {
        let shown = table.to_string();
        match self {
            Keeper::Walgate => shown.strip_prefix("public.").map_or(shown.clone(), str::to_owned),
            Keeper::Python => table.token().to_string(),
        }
    }
}

fn open_file(file: &Path) -> Option<Connection> {
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
    let _ = connection.busy_timeout(Duration::from_secs(10));
    Some(connection)
}

async fn query_rows(client: &Client, sql: &str) -> Option<Vec<Vec<Option<String>>>> {
    let row = |message: SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect())
        }
        _ => None,
    };
    Some(client.simple_query(sql).await.ok()?.into_iter().filter_map(row).collect())
}
