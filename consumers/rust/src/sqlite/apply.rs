//! What each change does to a table.

use std::collections::HashMap;

use rusqlite::{CachedStatement, Connection};
use walgate_wire::{Op, Value};

use super::{plan::Plan, store::failed, value::stored};
use crate::{Changes, SinkError};

pub(super) fn apply(
    connection: &Connection,
    plan: &Plan,
    changes: &Changes,
) -> Result<(), SinkError> {
    let table = &changes.schema.table;
    let decoded = changes.decode().map_err(|e| SinkError::new(format!("changes of {table}"), e))?;
    let applied = Applier::new(connection, plan)
        .and_then(|mut applier| decoded.iter().try_for_each(|change| applier.apply(&change.op)));
    applied.map_err(|e| match e {
        Trouble::Sqlite(error) => failed(format!("table {table}"))(error),
        Trouble::Wire(reason) => SinkError::new(format!("changes of {table}"), reason),
    })
}

enum Trouble {
    Sqlite(rusqlite::Error),
    Wire(&'static str),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Trouble::Sqlite(error)
    }
}

struct Applier<'a> {
    connection: &'a Connection,
    plan: &'a Plan,
    upsert: CachedStatement<'a>,
    delete: CachedStatement<'a>,
    /// For rows that stay at their key and for those that move, by the columns that are unchanged; none
    /// where nothing would change.
    updates: [HashMap<Vec<usize>, Option<CachedStatement<'a>>>; 2],
}

impl<'a> Applier<'a> {
    fn new(connection: &'a Connection, plan: &'a Plan) -> Result<Self, Trouble> {
        let upsert = connection.prepare_cached(&plan.upsert)?;
        let delete = connection.prepare_cached(&plan.delete)?;
        Ok(Applier { connection, plan, upsert, delete, updates: [HashMap::new(), HashMap::new()] })
    }

    fn apply(&mut self, op: &Op<'_>) -> Result<(), Trouble> {
        match op {
            Op::Insert { row } => self.upsert(row),
            Op::Update { row, unchanged, old } => self.update(row, unchanged, old.as_deref()),
            Op::Delete { old } => {
                bind_old(&mut self.delete, 0, self.plan, old)?;
                self.delete.raw_execute()?;
                Ok(())
            }
            Op::Truncate => {
                self.connection
                    .prepare_cached(&format!("DELETE FROM {}", self.plan.table))?
                    .raw_execute()?;
                Ok(())
            }
        }
    }

    fn upsert(&mut self, row: &[Value<'_>]) -> Result<(), Trouble> {
        for (at, target) in self.plan.targets.iter().enumerate() {
            self.upsert.raw_bind_parameter(at + 1, stored(&target.kind, &row[target.index]))?;
        }
        self.upsert.raw_execute()?;
        Ok(())
    }

    fn update(
        &mut self,
        row: &[Value<'_>],
        unchanged: &[usize],
        old: Option<&[Value<'_>]>,
    ) -> Result<(), Trouble> {
        let plan = self.plan;
        let stays = match old {
            None if plan.key.is_empty() => {
                return Err(Trouble::Wire("an update of a table without a key carries no old row"));
            }
            None => true,
            Some(old) => {
                let same = |&(place, index): &(Option<usize>, usize)| {
                    unchanged.contains(&index)
                        || place.and_then(|place| old.get(place)) == row.get(index)
                };
                !plan.key.is_empty() && plan.old.iter().all(same)
            }
        };
        let updates = &mut self.updates[usize::from(!stays)];
        if !updates.contains_key(unchanged) {
            let sql = plan.update_sql(!stays, unchanged);
            let statement = sql.map(|sql| self.connection.prepare_cached(&sql)).transpose()?;
            updates.insert(unchanged.to_vec(), statement);
        }
        let Some(Some(update)) = updates.get_mut(unchanged) else {
            return if unchanged.is_empty() { self.upsert(row) } else { Ok(()) };
        };
        let mut at = 0;
        for target in plan.changed(!stays, unchanged) {
            at += 1;
            update.raw_bind_parameter(at, stored(&target.kind, &row[target.index]))?;
        }
        match old {
            Some(old) => bind_old(update, at, plan, old)?,
            None if plan.key.iter().any(|index| unchanged.contains(index)) => {
                return Err(Trouble::Wire(
                    "an update says that its key is unchanged, but not what it is",
                ));
            }
            None => {
                for &(_, index) in &plan.old {
                    at += 1;
                    update.raw_bind_parameter(at, stored(&plan.kinds[index], &row[index]))?;
                }
            }
        }
        if update.raw_execute()? == 0 && unchanged.is_empty() {
            return self.upsert(row);
        }
        Ok(())
    }
}

/// Parameters after the first `at`.
fn bind_old(
    statement: &mut CachedStatement<'_>,
    at: usize,
    plan: &Plan,
    old: &[Value<'_>],
) -> Result<(), Trouble> {
    for (i, &(place, index)) in plan.old.iter().enumerate() {
        let value = place.and_then(|place| old.get(place));
        let value = value.ok_or(Trouble::Wire("an old row does not carry what finds the row"))?;
        statement.raw_bind_parameter(at + i + 1, stored(&plan.kinds[index], value))?;
    }
    Ok(())
}
