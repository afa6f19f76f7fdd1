//! The SQL statements that apply changes of one shape to a local table of the same or a later
//! shape.

use walgate_wire::Schema;

use super::ddl::{free_rowid_name, quote_identifier, table_name};
use crate::{ChangeBatch, SinkError, ValueKind, same_column};

/// A column that the message and the local table both have.
pub(super) struct SqliteTarget {
    /// Its index in the message's rows.
    pub index: usize,
    pub kind: ValueKind,
    /// Its name in the local table, quoted.
    name: String,
}

/// What an update does to a row, of which not all columns need have sent_columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum UpdateMode {
    /// The row keeps its key.
    Stay,
    /// The row is found by its old row and may get another key.
    Move,
    /// The row is missing and gets inserted.
    Insert,
}

pub(super) struct SqliteStatements {
    revisions: (u64, u64),
    pub table: String,
    rowid: &'static str,
    pub targets: Vec<SqliteTarget>,
    /// Indexes of the key's columns in the message's rows; empty for a table without a key.
    pub key: Vec<usize>,
    /// The columns that identify a row: those of the key, or without a key all of an old row. Each
    /// with its place in the old row, if it has one, and its index in the message's rows.
    pub old: Vec<(Option<usize>, usize)>,
    pub kinds: Vec<ValueKind>,
    pub upsert: String,
    pub delete: String,
}

impl SqliteStatements {
    pub fn new(schema: &Schema, local: &Schema) -> Result<SqliteStatements, SinkError> {
        let target = |(index, column): (usize, &walgate_wire::Column)| {
            let twin = local.columns.iter().find(|twin| same_column(column, twin))?;
            Some(SqliteTarget {
                index,
                kind: ValueKind::of_column(column),
                name: quote_identifier(&twin.name),
            })
        };
        let targets: Vec<SqliteTarget> =
            schema.columns.iter().enumerate().filter_map(target).collect();
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
        let mut statements = SqliteStatements {
            revisions: (schema.revision, local.revision),
            table: quote_identifier(&table_name(local)),
            rowid: free_rowid_name(local),
            kinds: schema.columns.iter().map(ValueKind::of_column).collect(),
            targets,
            key,
            old,
            upsert: String::new(),
            delete: String::new(),
        };
        statements.upsert = statements.upsert_sql();
        statements.delete =
            format!("DELETE FROM {} WHERE {}", statements.table, statements.found_by_old());
        Ok(statements)
    }

    pub fn matches(&self, changes: &ChangeBatch) -> bool {
        self.revisions == (changes.schema.revision, changes.local.revision)
    }

    pub fn is_key(&self, index: usize) -> bool {
        self.key.contains(&index)
    }

    fn local_name(&self, index: usize) -> &str {
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
        let parameters = vec!["?"; names.len()].join(", ");
        let insert =
            format!("INSERT INTO {} ({}) VALUES ({parameters})", self.table, names.join(", "));
        if self.key.is_empty() {
            return insert;
        }
        let key: Vec<&str> = self.key.iter().map(|&index| self.local_name(index)).collect();
        let others = self.targets.iter().filter(|target| !self.is_key(target.index));
        let set: Vec<String> = others.map(|t| format!("{0} = excluded.{0}", t.name)).collect();
        let key = key.join(", ");
        if set.is_empty() {
            format!("{insert} ON CONFLICT ({key}) DO NOTHING")
        } else {
            format!("{insert} ON CONFLICT ({key}) DO UPDATE SET {}", set.join(", "))
        }
    }

    /// The condition that selects one row; parameters as in `old`. Without a key, any one of the
    /// equal rows is selected.
    fn found_by_old(&self) -> String {
        let condition = |operator: &str| {
            let each = self
                .old
                .iter()
                .map(|&(_, index)| format!("{} {operator} ?", self.local_name(index)));
            let each: Vec<String> = each.collect();
            if each.is_empty() { "1".to_owned() } else { each.join(" AND ") }
        };
        if self.key.is_empty() {
            let table = &self.table;
            let rowid = self.rowid;
            format!("{rowid} = (SELECT {rowid} FROM {table} WHERE {} LIMIT 1)", condition("IS"))
        } else {
            condition("=")
        }
    }

    /// Parameters: the values of [`sent_columns`](Self::sent_columns), then, except for an insert,
    /// the values that identify the row. None if nothing would change.
    pub fn update_sql(&self, what: UpdateMode, unchanged: &[usize]) -> Option<String> {
        let names: Vec<&str> =
            self.sent_columns(what, unchanged).map(|target| target.name.as_str()).collect();
        if what == UpdateMode::Insert {
            let parameters = vec!["?"; names.len()].join(", ");
            let names = names.join(", ");
            return Some(if parameters.is_empty() {
                format!("INSERT INTO {} DEFAULT VALUES", self.table)
            } else {
                format!(
                    "INSERT INTO {} ({names}) VALUES ({parameters}) ON CONFLICT DO NOTHING",
                    self.table
                )
            });
        }
        let set: Vec<String> = names.iter().map(|name| format!("{name} = ?")).collect();
        // A row with the new key no longer exists at the source.
        let update = if what == UpdateMode::Move { "UPDATE OR REPLACE" } else { "UPDATE" };
        (!set.is_empty()).then(|| {
            format!("{update} {} SET {} WHERE {}", self.table, set.join(", "), self.found_by_old())
        })
    }

    /// The columns to set: those that the message contains. The key's columns are not set if the
    /// row keeps its key, and always set if it is inserted.
    pub fn sent_columns<'a>(
        &'a self,
        what: UpdateMode,
        unchanged: &'a [usize],
    ) -> impl Iterator<Item = &'a SqliteTarget> {
        let is_set = move |index: &usize| match (self.is_key(*index), what) {
            (true, UpdateMode::Stay) => false,
            (true, UpdateMode::Insert) => true,
            _ => !unchanged.contains(index),
        };
        self.targets.iter().filter(move |target| is_set(&target.index))
    }
}
