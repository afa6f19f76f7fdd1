//! What each change does to a table.

use std::collections::HashMap;

use rusqlite::{CachedStatement, Connection};
use walgate_wire::{Op, Value};

use super::{
    plan::{Partial, Plan},
    store::failed,
    value::stored,
};
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
    /// By what they do and the columns that are unchanged; none where nothing would change.
    partial: HashMap<(Partial, Vec<usize>), Option<CachedStatement<'a>>>,
}

impl<'a> Applier<'a> {
    fn new(connection: &'a Connection, plan: &'a Plan) -> Result<Self, Trouble> {
        let upsert = connection.prepare_cached(&plan.upsert)?;
        let delete = connection.prepare_cached(&plan.delete)?;
        Ok(Applier { connection, plan, upsert, delete, partial: HashMap::new() })
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

    /// Where no row is found, one is added: of what did not travel it holds NULL.
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
        let update = Update { row, unchanged, old };
        if !stays && self.run(Partial::Move, &update)? > 0 {
            return Ok(());
        }
        if !plan.key.is_empty() && self.run(Partial::Stay, &update)? > 0 {
            return Ok(());
        }
        if unchanged.is_empty() {
            return self.upsert(row);
        }
        self.run(Partial::Insert, &update).map(drop)
    }

    /// Returns how many rows it found.
    fn run(&mut self, what: Partial, update: &Update<'_>) -> Result<usize, Trouble> {
        let (plan, unchanged) = (self.plan, update.unchanged);
        let key = (what, unchanged.to_vec());
        if !self.partial.contains_key(&key) {
            let sql = plan.partial_sql(what, unchanged);
            let statement = sql.map(|sql| self.connection.prepare_cached(&sql)).transpose()?;
            self.partial.insert(key.clone(), statement);
        }
        let Some(Some(statement)) = self.partial.get_mut(&key) else { return Ok(0) };
        let mut at = 0;
        for target in plan.travelled(what, unchanged) {
            at += 1;
            let value = update.value(plan, target.index)?;
            statement.raw_bind_parameter(at, stored(&target.kind, value))?;
        }
        match (what, update.old) {
            (Partial::Insert, _) => {}
            (Partial::Move, old) => bind_old(statement, at, plan, old.unwrap_or_default())?,
            (Partial::Stay, _) => {
                for &(_, index) in &plan.old {
                    at += 1;
                    let value = stored(&plan.kinds[index], update.value(plan, index)?);
                    statement.raw_bind_parameter(at, value)?;
                }
            }
        }
        Ok(statement.raw_execute()?)
    }
}

/// An update as it was sent.
struct Update<'a> {
    row: &'a [Value<'a>],
    unchanged: &'a [usize],
    old: Option<&'a [Value<'a>]>,
}

impl Update<'_> {
    /// The column's new value; of one that is unchanged the old one.
    fn value(&self, plan: &Plan, index: usize) -> Result<&Value<'_>, Trouble> {
        if !self.unchanged.contains(&index) {
            return Ok(&self.row[index]);
        }
        let place =
            plan.old.iter().find(|(_, known)| *known == index).and_then(|(place, _)| *place);
        let value = place.and_then(|place| self.old?.get(place));
        value.ok_or(Trouble::Wire("an update says that its key is unchanged, but not what it is"))
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
