//! Alters an existing, empty table in place to another shape. Views, indexes, grants and triggers
//! that its owner created stay as far as the new shape allows. If one of them blocks the change,
//! that is reported as a conflict, not as an error. No rows are handled here.

use std::collections::HashSet;

use tokio_postgres::{Client, error::SqlState};
use walgate_wire::Schema;

use super::{
    ddl::{TargetColumn, TargetTable, quote_identifier},
    error::postgres_error,
};
use crate::SinkError;

/// An object of the owner blocks the change: the server's message, with the object, and the remedy.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OwnerConflict(String);

/// `None`: the change was made.
pub(super) type AlterOutcome = Result<Option<OwnerConflict>, SinkError>;

impl std::fmt::Display for OwnerConflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}. Drop that object in the target database, and create it again afterwards; the consumer \
             then continues by itself",
            self.0
        )
    }
}

/// Removes all rows, unless a foreign key of another table refers to one.
pub(super) async fn try_delete(client: &Client, table: &TargetTable) -> AlterOutcome {
    let sql = format!("DELETE FROM {table}");
    let Err(error) = client.batch_execute(&sql).await else { return Ok(None) };
    let conflict = error.as_db_error().filter(|db| *db.code() == SqlState::FOREIGN_KEY_VIOLATION);
    match conflict {
        // The message's detail is omitted, because it contains a row's key.
        Some(db) => Ok(Some(OwnerConflict(db.message().to_owned()))),
        None => Err(postgres_error(sql)(error)),
    }
}

/// Alters an empty table, unless an object of its owner blocks that: a view, an index over an
/// expression, a check. The server's error depends on the object.
pub(super) async fn try_alter(client: &Client, sql: &str) -> AlterOutcome {
    let Err(error) = client.batch_execute(sql).await else { return Ok(None) };
    match error.as_db_error().filter(|db| is_conflict(db.code())) {
        Some(db) => {
            // The detail names the dependent objects.
            let detail = db.detail().map(|detail| format!(": {}", detail.replace('\n', ", ")));
            Ok(Some(OwnerConflict(format!("{}{}", db.message(), detail.unwrap_or_default()))))
        }
        None => Err(postgres_error(sql)(error)),
    }
}

/// Errors for views, for objects in use, and for objects that need a column's previous type.
fn is_conflict(code: &SqlState) -> bool {
    const CODES: [SqlState; 8] = [
        SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
        SqlState::FEATURE_NOT_SUPPORTED,
        SqlState::OBJECT_IN_USE,
        SqlState::UNDEFINED_FUNCTION,
        SqlState::AMBIGUOUS_FUNCTION,
        SqlState::DATATYPE_MISMATCH,
        SqlState::UNDEFINED_OBJECT,
        SqlState::INVALID_OBJECT_DEFINITION,
    ];
    CODES.contains(code)
}

/// The columns and the key of a table.
pub(super) struct TableShape<'a> {
    pub columns: &'a [TargetColumn],
    pub key: &'a [String],
}

/// One ALTER TABLE; none if the shapes differ in the order of columns only. `constraint`: the name
/// of the existing key. The new key is added later, after the rows.
pub(super) fn alter_statement(
    table: &TargetTable,
    constraint: Option<&str>,
    before: &TableShape<'_>,
    wanted: &TableShape<'_>,
) -> Option<String> {
    let mut actions = Vec::new();
    if let Some(constraint) = constraint.filter(|_| before.key != wanted.key) {
        actions.push(format!("DROP CONSTRAINT {}", quote_identifier(constraint)));
    }
    let kept: HashSet<&str> = wanted.columns.iter().map(|column| column.name.as_str()).collect();
    for column in before.columns {
        let name = quote_identifier(&column.name);
        if !kept.contains(column.name.as_str()) {
            actions.push(format!("DROP COLUMN {name}"));
        } else if before.key.contains(&column.name) && !wanted.key.contains(&column.name) {
            // The column was NOT NULL only because of the dropped key.
            actions.push(format!("ALTER COLUMN {name} DROP NOT NULL"));
        }
    }
    for column in wanted.columns {
        let name = quote_identifier(&column.name);
        let ty = &column.type_name;
        match before.columns.iter().find(|other| other.name == column.name) {
            None => actions.push(format!("ADD COLUMN {name} {ty}")),
            Some(other) if other == column => {}
            Some(_) => actions.push(format!(
                "ALTER COLUMN {name} DROP DEFAULT, ALTER COLUMN {name} TYPE {ty} USING NULL::{ty}"
            )),
        }
    }
    (!actions.is_empty()).then(|| format!("ALTER TABLE {table} {}", actions.join(", ")))
}

/// Name and columns of a table's primary key.
pub(super) async fn read_primary_key(
    client: &Client,
    table: &TargetTable,
) -> Result<Option<(String, Vec<String>)>, SinkError> {
    let select = "
        SELECT k.conname::text, array_agg(a.attname::text ORDER BY place)
        FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        CROSS JOIN unnest(k.conkey) WITH ORDINALITY u(attnum, place)
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = u.attnum
        WHERE k.contype = 'p' AND n.nspname = $1 AND c.relname = $2 GROUP BY k.conname";
    let row = client.query_opt(select, &[&table.schema, &table.name]).await;
    let row = row.map_err(postgres_error(format!("key of {table}")))?;
    Ok(row.map(|row| (row.get(0), row.get(1))))
}

/// Adds the schema's key, if it has one. The constraint's name must be unique in the whole SQL
/// schema.
pub(super) async fn add_key(
    client: &Client,
    table: &TargetTable,
    schema: &Schema,
) -> Result<(), SinkError> {
    if schema.key.is_empty() {
        return Ok(());
    }
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let key: Vec<String> = schema.key.iter().map(|name| quote_identifier(name)).collect();
    let name = format!("_walgate_key_{:x}", now.as_micros());
    let key = key.join(", ");
    let sql = format!("ALTER TABLE {table} ADD CONSTRAINT {name} PRIMARY KEY ({key})");
    client.batch_execute(&sql).await.map_err(postgres_error(sql))
}
