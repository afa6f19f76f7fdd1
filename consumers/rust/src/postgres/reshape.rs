//! Brings an empty table that is there into the shape of another one, in place: what its owner built on it, views,
//! indexes, grants, triggers, stays as far as the new shape allows. What the server refuses for something of the
//! owner's that is in the way is told apart from what fails. No rows here.

use std::collections::HashSet;

use tokio_postgres::{Client, error::SqlState};
use walgate_wire::Schema;

use super::{
    ddl::{Table, TargetColumn, quoted},
    failed,
};
use crate::SinkError;

/// Something of the owner's has to go first: in the server's words, with what it names, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused(String);

/// `None`: done.
pub(super) type Outcome = Result<Option<Refused>, SinkError>;

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}. Drop that in the target database, and make it again afterwards; the copy then goes on by itself",
            self.0
        )
    }
}

/// Removes all rows, unless somebody's foreign key holds one.
pub(super) async fn try_delete(client: &Client, table: &Table) -> Outcome {
    let sql = format!("DELETE FROM {table}");
    let Err(error) = client.batch_execute(&sql).await else { return Ok(None) };
    let held = error.as_db_error().filter(|db| *db.code() == SqlState::FOREIGN_KEY_VIOLATION);
    match held {
        // Its detail would hold a row's key.
        Some(db) => Ok(Some(Refused(db.message().to_owned()))),
        None => Err(failed(sql)(error)),
    }
}

/// Alters an empty table, unless something of its owner's does not go with that: a view, an index over an expression,
/// a check. In which words the server says so depends on what it is.
pub(super) async fn try_alter(client: &Client, sql: &str) -> Outcome {
    let Err(error) = client.batch_execute(sql).await else { return Ok(None) };
    match error.as_db_error().filter(|db| is_in_the_way(db.code())) {
        Some(db) => {
            // Names what depends on what.
            let detail = db.detail().map(|detail| format!(": {}", detail.replace('\n', ", ")));
            Ok(Some(Refused(format!("{}{}", db.message(), detail.unwrap_or_default()))))
        }
        None => Err(failed(sql)(error)),
    }
}

/// Views, then what is in use, then what was made for the type that a column had.
fn is_in_the_way(code: &SqlState) -> bool {
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
pub(super) struct Shape<'a> {
    pub columns: &'a [TargetColumn],
    pub key: &'a [String],
}

/// One ALTER TABLE; none where nothing differs but the order of the columns. `constraint` is the name of the key
/// that is there. The new key is left for when there are rows.
pub(super) fn statement(
    table: &Table,
    constraint: Option<&str>,
    before: &Shape<'_>,
    wanted: &Shape<'_>,
) -> Option<String> {
    let mut actions = Vec::new();
    if let Some(constraint) = constraint.filter(|_| before.key != wanted.key) {
        actions.push(format!("DROP CONSTRAINT {}", quoted(constraint)));
    }
    let kept: HashSet<&str> = wanted.columns.iter().map(|column| column.name.as_str()).collect();
    for column in before.columns {
        let name = quoted(&column.name);
        if !kept.contains(column.name.as_str()) {
            actions.push(format!("DROP COLUMN {name}"));
        } else if before.key.contains(&column.name) && !wanted.key.contains(&column.name) {
            // The key that made it so is gone, and with it the reason.
            actions.push(format!("ALTER COLUMN {name} DROP NOT NULL"));
        }
    }
    for column in wanted.columns {
        let (name, ty) = (quoted(&column.name), &column.type_name);
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
pub(super) async fn key_of(
    client: &Client,
    table: &Table,
) -> Result<Option<(String, Vec<String>)>, SinkError> {
    let select = "
        SELECT k.conname::text, array_agg(a.attname::text ORDER BY place)
        FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        CROSS JOIN unnest(k.conkey) WITH ORDINALITY u(attnum, place)
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = u.attnum
        WHERE k.contype = 'p' AND n.nspname = $1 AND c.relname = $2 GROUP BY k.conname";
    let row = client.query_opt(select, &[&table.schema, &table.name]).await;
    let row = row.map_err(failed(format!("key of {table}")))?;
    Ok(row.map(|row| (row.get(0), row.get(1))))
}

/// Adds the schema's key, if it has one. The name must be free in the whole schema.
pub(super) async fn add_key(
    client: &Client,
    table: &Table,
    schema: &Schema,
) -> Result<(), SinkError> {
    if schema.key.is_empty() {
        return Ok(());
    }
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let key: Vec<String> = schema.key.iter().map(|name| quoted(name)).collect();
    let (name, key) = (format!("_walgate_key_{:x}", now.as_micros()), key.join(", "));
    let sql = format!("ALTER TABLE {table} ADD CONSTRAINT {name} PRIMARY KEY ({key})");
    client.batch_execute(&sql).await.map_err(failed(sql))
}
