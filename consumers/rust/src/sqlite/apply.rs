//! Applies changes to a SQLite table, one at a time.

use std::collections::HashMap;

use rusqlite::{CachedStatement, Connection};
use walgate_wire::{Op, Value};

use super::{
    error::sqlite_error,
    statements::{SqliteStatements, UpdateMode},
    value::to_sql,
};
use crate::{ChangeBatch, SinkError};

pub(super) fn apply_changes(
    connection: &Connection,
    statements: &SqliteStatements,
    changes: &ChangeBatch,
) -> Result<(), SinkError> {
    let table = &changes.schema.table;
    let decoded = changes.decode().map_err(|e| SinkError::new(format!("changes of {table}"), e))?;
    let applied = SqliteApplier::new(connection, statements)
        .and_then(|mut applier| decoded.iter().try_for_each(|change| applier.apply_op(&change.op)));
    applied.map_err(|e| match e {
        ApplyError::Sqlite(error) => sqlite_error(format!("table {table}"))(error),
        ApplyError::Wire(reason) => SinkError::new(format!("changes of {table}"), reason),
    })
}

enum ApplyError {
    Sqlite(rusqlite::Error),
    Wire(&'static str),
}

impl From<rusqlite::Error> for ApplyError {
    fn from(error: rusqlite::Error) -> Self {
        ApplyError::Sqlite(error)
    }
}

struct SqliteApplier<'a> {
    connection: &'a Connection,
    statements: &'a SqliteStatements,
    upsert: CachedStatement<'a>,
    delete: CachedStatement<'a>,
    /// Update statements by mode and unchanged columns; none where nothing would change.
    partial: HashMap<(UpdateMode, Vec<usize>), Option<CachedStatement<'a>>>,
}

impl<'a> SqliteApplier<'a> {
    fn new(
        connection: &'a Connection,
        statements: &'a SqliteStatements,
    ) -> Result<Self, ApplyError> {
        let upsert = connection.prepare_cached(&statements.upsert)?;
        let delete = connection.prepare_cached(&statements.delete)?;
        Ok(SqliteApplier { connection, statements, upsert, delete, partial: HashMap::new() })
    }

    fn apply_op(&mut self, op: &Op<'_>) -> Result<(), ApplyError> {
        match op {
            Op::Insert { row } => self.upsert_row(row),
            Op::Update { row, unchanged, old } => self.update_row(row, unchanged, old.as_deref()),
            Op::Delete { old } => {
                bind_old(&mut self.delete, 0, self.statements, old)?;
                self.delete.raw_execute()?;
                Ok(())
            }
            Op::Truncate => {
                self.connection
                    .prepare_cached(&format!("DELETE FROM {}", self.statements.table))?
                    .raw_execute()?;
                Ok(())
            }
        }
    }

    fn upsert_row(&mut self, row: &[Value<'_>]) -> Result<(), ApplyError> {
        for (at, target) in self.statements.targets.iter().enumerate() {
            self.upsert.raw_bind_parameter(at + 1, to_sql(&target.kind, &row[target.index]))?;
        }
        self.upsert.raw_execute()?;
        Ok(())
    }

    /// If no row is found, one is inserted, with NULL in the columns that were not sent.
    fn update_row(
        &mut self,
        row: &[Value<'_>],
        unchanged: &[usize],
        old: Option<&[Value<'_>]>,
    ) -> Result<(), ApplyError> {
        let statements = self.statements;
        let keeps_key = match old {
            None if statements.key.is_empty() => {
                return Err(ApplyError::Wire("an update of a table without a key has no old row"));
            }
            None => true,
            Some(old) => {
                let same = |&(place, index): &(Option<usize>, usize)| {
                    unchanged.contains(&index)
                        || place.and_then(|place| old.get(place)) == row.get(index)
                };
                !statements.key.is_empty() && statements.old.iter().all(same)
            }
        };
        let update = SentUpdate { row, unchanged, old };
        if !keeps_key && self.run_update(UpdateMode::Move, &update)? > 0 {
            return Ok(());
        }
        if !statements.key.is_empty() && self.run_update(UpdateMode::Stay, &update)? > 0 {
            return Ok(());
        }
        if unchanged.is_empty() {
            return self.upsert_row(row);
        }
        self.run_update(UpdateMode::Insert, &update).map(drop)
    }

    /// Returns the number of updated rows.
    fn run_update(
        &mut self,
        what: UpdateMode,
        update: &SentUpdate<'_>,
    ) -> Result<usize, ApplyError> {
        let statements = self.statements;
        let unchanged = update.unchanged;
        let key = (what, unchanged.to_vec());
        if !self.partial.contains_key(&key) {
            let sql = statements.update_sql(what, unchanged);
            let statement = sql.map(|sql| self.connection.prepare_cached(&sql)).transpose()?;
            self.partial.insert(key.clone(), statement);
        }
        let Some(Some(statement)) = self.partial.get_mut(&key) else { return Ok(0) };
        let mut at = 0;
        for target in statements.sent_columns(what, unchanged) {
            at += 1;
            let value = update.new_value(statements, target.index)?;
            statement.raw_bind_parameter(at, to_sql(&target.kind, value))?;
        }
        match (what, update.old) {
            (UpdateMode::Insert, _) => {}
            (UpdateMode::Move, old) => {
                bind_old(statement, at, statements, old.unwrap_or_default())?
            }
            (UpdateMode::Stay, _) => {
                for &(_, index) in &statements.old {
                    at += 1;
                    let value =
                        to_sql(&statements.kinds[index], update.new_value(statements, index)?);
                    statement.raw_bind_parameter(at, value)?;
                }
            }
        }
        Ok(statement.raw_execute()?)
    }
}

/// An update as the message contains it.
struct SentUpdate<'a> {
    row: &'a [Value<'a>],
    unchanged: &'a [usize],
    old: Option<&'a [Value<'a>]>,
}

impl SentUpdate<'_> {
    /// The column's new value; the old value if it is unchanged.
    fn new_value(
        &self,
        statements: &SqliteStatements,
        index: usize,
    ) -> Result<&Value<'_>, ApplyError> {
        if !self.unchanged.contains(&index) {
            return Ok(&self.row[index]);
        }
        let place =
            statements.old.iter().find(|(_, known)| *known == index).and_then(|(place, _)| *place);
        let value = place.and_then(|place| self.old?.get(place));
        value.ok_or(ApplyError::Wire(
            "an update has an unchanged key, but no old row with its value",
        ))
    }
}

/// Binds the values that identify a row, after the first `at` parameters.
fn bind_old(
    statement: &mut CachedStatement<'_>,
    at: usize,
    statements: &SqliteStatements,
    old: &[Value<'_>],
) -> Result<(), ApplyError> {
    for (i, &(place, index)) in statements.old.iter().enumerate() {
        let value = place.and_then(|place| old.get(place));
        let value =
            value.ok_or(ApplyError::Wire("an old row lacks the columns that identify the row"))?;
        statement.raw_bind_parameter(at + i + 1, to_sql(&statements.kinds[index], value))?;
    }
    Ok(())
}
