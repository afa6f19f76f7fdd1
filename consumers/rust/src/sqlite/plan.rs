//! The statements by which changes of one shape are applied to a local table of the same or a later shape.

use walgate_wire::Schema;

use super::ddl::{quoted, rowid, table_name};
use crate::{Changes, Kind, SinkError, same_column};

/// A column that both shapes have.
pub(super) struct Target {
    /// Index in the rows of the message.
    pub index: usize,
    pub kind: Kind,
    /// Quoted, as the local table calls it.
    name: String,
}

/// What an update does to a row, of which not all columns need have travelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Partial {
    /// It stays at its key.
    Stay,
    /// It is found by its old row and may get another key.
    Move,
    /// It was not there.
    Insert,
}

pub(super) struct Plan {
    revisions: (u64, u64),
    pub table: String,
    rowid: &'static str,
    pub targets: Vec<Target>,
    /// Indexes in rows of the columns by which a row is found; empty for a table without a key.
    pub key: Vec<usize>,
    /// What finds a row, the key's columns or without a key all that an old row carries: where in an old row
    /// they stand, if they do, and which columns they are.
    pub old: Vec<(Option<usize>, usize)>,
    pub kinds: Vec<Kind>,
    pub upsert: String,
    pub delete: String,
}

impl Plan {
    pub fn new(schema: &Schema, local: &Schema) -> Result<Plan, SinkError> {
        let target = |(index, column): (usize, &walgate_wire::Column)| {
            let twin = local.columns.iter().find(|twin| same_column(column, twin))?;
            Some(Target { index, kind: Kind::of(column), name: quoted(&twin.name) })
        };
        let targets: Vec<Target> = schema.columns.iter().enumerate().filter_map(target).collect();
        let key = schema.key_indexes();
        let place = |index: &usize| schema.old.iter().position(|&old| old as usize == *index);
        let old: Vec<(Option<usize>, usize)> = if key.is_empty() {
            schema
                .old
                .iter()
                .enumerate()
                .map(|(place, &index)| (Some(place), index as usize))
                .collect()
        } else {
            key.iter().map(|index| (place(index), *index)).collect()
        };
        let has = |index: usize| targets.iter().any(|target| target.index == index);
        if key.iter().any(|&index| !has(index)) {
            let what =
                format!("changes of {} in schema revision {}", schema.table, schema.revision);
            return Err(SinkError::new(what, "the local table does not have their key"));
        }
        let old = old.into_iter().filter(|&(_, index)| has(index)).collect();
        let mut plan = Plan {
            revisions: (schema.revision, local.revision),
            table: quoted(&table_name(local)),
            rowid: rowid(local),
            kinds: schema.columns.iter().map(Kind::of).collect(),
            targets,
            key,
            old,
            upsert: String::new(),
            delete: String::new(),
        };
        plan.upsert = plan.upsert_sql();
        plan.delete = format!("DELETE FROM {} WHERE {}", plan.table, plan.found_by_old());
        Ok(plan)
    }

    pub fn fits(&self, changes: &Changes) -> bool {
        self.revisions == (changes.schema.revision, changes.local.revision)
    }

    pub fn is_key(&self, index: usize) -> bool {
        self.key.contains(&index)
    }

    fn name(&self, index: usize) -> &str {
        self.targets
            .iter()
            .find(|target| target.index == index)
            .map_or("NULL", |target| &target.name)
    }

    fn upsert_sql(&self) -> String {
        if self.targets.is_empty() {
            return format!("INSERT INTO {} DEFAULT VALUES", self.table);
        }
        let names: Vec<&str> = self.targets.iter().map(|target| target.name.as_str()).collect();
        let places = vec!["?"; names.len()].join(", ");
        let insert = format!("INSERT INTO {} ({}) VALUES ({places})", self.table, names.join(", "));
        if self.key.is_empty() {
            return insert;
        }
        let key: Vec<&str> = self.key.iter().map(|&index| self.name(index)).collect();
        let others = self.targets.iter().filter(|target| !self.is_key(target.index));
        let set: Vec<String> = others.map(|t| format!("{0} = excluded.{0}", t.name)).collect();
        let key = key.join(", ");
        if set.is_empty() {
            format!("{insert} ON CONFLICT ({key}) DO NOTHING")
        } else {
            format!("{insert} ON CONFLICT ({key}) DO UPDATE SET {}", set.join(", "))
        }
    }

    /// The condition for one row; parameters as in `old`. Without a key the whole row decides, and of equal
    /// rows one is as good as the other.
    fn found_by_old(&self) -> String {
        let condition = |operator: &str| {
            let each =
                self.old.iter().map(|&(_, index)| format!("{} {operator} ?", self.name(index)));
            let each: Vec<String> = each.collect();
            if each.is_empty() { "1".to_owned() } else { each.join(" AND ") }
        };
        if self.key.is_empty() {
            let (table, rowid) = (&self.table, self.rowid);
            format!("{rowid} = (SELECT {rowid} FROM {table} WHERE {} LIMIT 1)", condition("IS"))
        } else {
            condition("=")
        }
    }

    /// Parameters: the values of [`Plan::travelled`], then, except for an insert, those that find the row. None if
    /// nothing would change.
    pub fn partial_sql(&self, what: Partial, unchanged: &[usize]) -> Option<String> {
        let names: Vec<&str> =
            self.travelled(what, unchanged).map(|target| target.name.as_str()).collect();
        if what == Partial::Insert {
            let places = vec!["?"; names.len()].join(", ");
            let names = names.join(", ");
            return Some(if places.is_empty() {
                format!("INSERT INTO {} DEFAULT VALUES", self.table)
            } else {
                format!(
                    "INSERT INTO {} ({names}) VALUES ({places}) ON CONFLICT DO NOTHING",
                    self.table
                )
            });
        }
        let set: Vec<String> = names.iter().map(|name| format!("{name} = ?")).collect();
        // A row that stands at the new key is one that the source does not have any more.
        let update = if what == Partial::Move { "UPDATE OR REPLACE" } else { "UPDATE" };
        (!set.is_empty()).then(|| {
            format!("{update} {} SET {} WHERE {}", self.table, set.join(", "), self.found_by_old())
        })
    }

    /// The columns that did travel. The key's are not set where the row stays, and always where it is new.
    pub fn travelled<'a>(
        &'a self,
        what: Partial,
        unchanged: &'a [usize],
    ) -> impl Iterator<Item = &'a Target> {
        let travels = move |index: &usize| match (self.is_key(*index), what) {
            (true, Partial::Stay) => false,
            (true, Partial::Insert) => true,
            _ => !unchanged.contains(index),
        };
        self.targets.iter().filter(move |target| travels(&target.index))
    }
}
