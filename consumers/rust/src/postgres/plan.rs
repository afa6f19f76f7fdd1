//! The statements by which changes of one shape are applied to a target table of the same or a later shape.

use std::collections::HashMap;

use tokio_postgres::{Client, Statement, types::Type};
use walgate_wire::Schema;

use super::{
    ddl::{self, Table, quoted, target_columns},
    failed,
    text::Form,
};
use crate::{Changes, Kind, SinkError, same_column};

/// A column that the message and the target both have.
pub(super) struct Target {
    /// Index in the rows of the message.
    pub index: usize,
    pub form: Form,
    pub kind: Kind,
    /// Quoted.
    name: String,
    type_name: String,
}

pub(super) struct Plan {
    revisions: (u64, u64),
    pub table: Table,
    pub targets: Vec<Target>,
    /// Indexes into `targets` of the key; empty for a table without one.
    pub key: Vec<usize>,
    /// What finds a row, the key's columns or without a key all that an old row carries: where in an old row
    /// they stand, if they do, and their indexes into `targets`.
    pub old: Vec<(Option<usize>, usize)>,
    /// Parameters: an array for each target.
    pub upsert: Statement,
    /// Parameters: with a key an array for each of its columns, without one a value as in `old`.
    pub delete: Statement,
    /// By the columns that are unchanged; none where nothing would change.
    updates: HashMap<Vec<usize>, Option<Statement>>,
    merges: HashMap<Vec<usize>, Statement>,
    clear: Option<Statement>,
}

impl Plan {
    pub async fn new(client: &Client, schema: &Schema, local: &Schema) -> Result<Plan, SinkError> {
        let what = format!("changes of {} in schema revision {}", schema.table, schema.revision);
        let table = ddl::table(local)?;
        let columns = target_columns(client, &table).await?;
        let columns =
            columns.ok_or_else(|| SinkError::new(&what, format!("there is no table {table}")))?;
        let mut targets = Vec::new();
        for (index, column) in schema.columns.iter().enumerate() {
            let Some(twin) = local.columns.iter().find(|twin| same_column(column, twin)) else {
                continue;
            };
            let Some(target) = columns.iter().find(|target| target.name == twin.name) else {
                return Err(SinkError::new(what, format!("{table} has no column {}", twin.name)));
            };
            targets.push(Target {
                index,
                form: target.form,
                kind: target.kind(column),
                name: quoted(&target.name),
                type_name: target.type_name.clone(),
            });
        }
        let find = |index: usize| targets.iter().position(|target: &Target| target.index == index);
        let key: Option<Vec<usize>> = schema.key_indexes().into_iter().map(find).collect();
        let key =
            key.ok_or_else(|| SinkError::new(&what, "the target table does not have their key"))?;
        let place =
            |at: usize| schema.old.iter().position(|&old| old as usize == targets[at].index);
        let old: Vec<(Option<usize>, usize)> = if key.is_empty() {
            let known = |(place, &index): (usize, &u32)| Some((Some(place), find(index as usize)?));
            schema.old.iter().enumerate().filter_map(known).collect()
        } else {
            key.iter().map(|&at| (place(at), at)).collect()
        };
        let shape = Shape { table: &table, targets: &targets, key: &key, old: &old };
        let upsert = prepare(client, &shape.upsert(), Type::TEXT_ARRAY, targets.len()).await?;
        let finding = if key.is_empty() { Type::TEXT } else { Type::TEXT_ARRAY };
        let delete = prepare(client, &shape.delete(), finding, old.len()).await?;
        let revisions = (schema.revision, local.revision);
        let (updates, merges, clear) = (HashMap::new(), HashMap::new(), None);
        Ok(Plan { revisions, table, targets, key, old, upsert, delete, updates, merges, clear })
    }

    pub fn fits(&self, changes: &Changes) -> bool {
        self.revisions == (changes.schema.revision, changes.local.revision)
    }

    /// Changes the columns that are not in `unchanged`; parameters: their values, then as in `old`.
    /// None if nothing would change.
    pub async fn update(
        &mut self,
        client: &Client,
        unchanged: &[usize],
    ) -> Result<Option<Statement>, SinkError> {
        if let Some(statement) = self.updates.get(unchanged) {
            return Ok(statement.clone());
        }
        let Plan { table, targets, key, old, .. } = self;
        let changed: Vec<&Target> =
            targets.iter().filter(|t| !unchanged.contains(&t.index)).collect();
        let sql = Shape { table, targets, key, old }.update(&changed);
        let statement = match sql {
            Some(sql) => Some(prepare(client, &sql, Type::TEXT, changed.len() + old.len()).await?),
            None => None,
        };
        self.updates.insert(unchanged.to_vec(), statement.clone());
        Ok(statement)
    }

    pub fn changed<'a>(&'a self, unchanged: &'a [usize]) -> impl Iterator<Item = &'a Target> {
        self.targets.iter().filter(|target| !unchanged.contains(&target.index))
    }

    /// The columns that are not in `unchanged` and not in the key.
    pub fn besides_key<'a>(&'a self, unchanged: &'a [usize]) -> impl Iterator<Item = &'a Target> {
        let targets = self.targets.iter().enumerate();
        let travels = move |(at, target): &(usize, &Target)| {
            !self.key.contains(at) && !unchanged.contains(&target.index)
        };
        targets.filter(travels).map(|(_, target)| target)
    }

    /// Sets these columns of the row at a key, or adds it; parameters: their values, then the key as in `old`.
    pub async fn merge(
        &mut self,
        client: &Client,
        unchanged: &[usize],
    ) -> Result<Statement, SinkError> {
        if let Some(statement) = self.merges.get(unchanged) {
            return Ok(statement.clone());
        }
        let set: Vec<&Target> = self.besides_key(unchanged).collect();
        let Plan { table, targets, key, old, .. } = &*self;
        let sql = Shape { table, targets, key, old }.merge(&set);
        let statement = prepare(client, &sql, Type::TEXT, set.len() + old.len()).await?;
        self.merges.insert(unchanged.to_vec(), statement.clone());
        Ok(statement)
    }

    /// Deletes the row at a key, if there is one at another key; parameters: that one, then the first, as in `old`.
    pub async fn clear(&mut self, client: &Client) -> Result<Statement, SinkError> {
        if let Some(statement) = &self.clear {
            return Ok(statement.clone());
        }
        let Plan { table, targets, key, old, .. } = &*self;
        let sql = Shape { table, targets, key, old }.clear();
        let statement = prepare(client, &sql, Type::TEXT, old.len() * 2).await?;
        Ok(self.clear.insert(statement).clone())
    }
}

async fn prepare(
    client: &Client,
    sql: &str,
    parameter: Type,
    count: usize,
) -> Result<Statement, SinkError> {
    client.prepare_typed(sql, &vec![parameter; count]).await.map_err(failed(sql))
}

/// Rows out of one array for each column: `unnest($1, $2) AS v(c0, c1)`.
fn unnested(columns: usize) -> String {
    let arrays: Vec<String> = (1..=columns).map(|n| format!("${n}::text[]")).collect();
    let names: Vec<String> = (0..columns).map(|n| format!("c{n}")).collect();
    format!("unnest({}) AS v({})", arrays.join(", "), names.join(", "))
}

/// What the statements are written from.
struct Shape<'a> {
    table: &'a Table,
    targets: &'a [Target],
    key: &'a [usize],
    old: &'a [(Option<usize>, usize)],
}

impl Shape<'_> {
    fn upsert(&self) -> String {
        if self.targets.is_empty() {
            return format!("INSERT INTO {} DEFAULT VALUES", self.table);
        }
        let names: Vec<&str> = self.targets.iter().map(|target| target.name.as_str()).collect();
        let values = self.targets.iter().enumerate();
        let values: Vec<String> =
            values.map(|(at, target)| format!("v.c{at}::{}", target.type_name)).collect();
        let (names, values, from) = (names.join(", "), values.join(", "), unnested(names.len()));
        let insert = format!("INSERT INTO {} ({names}) SELECT {values} FROM {from}", self.table);
        if self.key.is_empty() {
            return insert;
        }
        let key: Vec<&str> = self.key.iter().map(|&at| self.targets[at].name.as_str()).collect();
        let others = self.targets.iter().enumerate().filter(|(at, _)| !self.key.contains(at));
        let set: Vec<String> = others.map(|(_, t)| format!("{0} = EXCLUDED.{0}", t.name)).collect();
        let key = key.join(", ");
        if set.is_empty() {
            format!("{insert} ON CONFLICT ({key}) DO NOTHING")
        } else {
            format!("{insert} ON CONFLICT ({key}) DO UPDATE SET {}", set.join(", "))
        }
    }

    fn delete(&self) -> String {
        if self.key.is_empty() {
            return format!("DELETE FROM {} WHERE {}", self.table, self.found_by_old(0));
        }
        let key = self.old.iter().enumerate();
        let found: Vec<String> = key
            .map(|(i, &(_, at))| {
                format!("t.{} = v.c{i}::{}", self.targets[at].name, self.targets[at].type_name)
            })
            .collect();
        let (from, found) = (unnested(self.old.len()), found.join(" AND "));
        format!("DELETE FROM {} AS t USING {from} WHERE {found}", self.table)
    }

    fn update(&self, changed: &[&Target]) -> Option<String> {
        let set = changed.iter().enumerate();
        let set: Vec<String> =
            set.map(|(at, t)| format!("{} = {}", t.name, parameter(at + 1, t))).collect();
        let found = self.found_by_old(changed.len());
        (!set.is_empty())
            .then(|| format!("UPDATE {} SET {} WHERE {found}", self.table, set.join(", ")))
    }

    fn merge(&self, set: &[&Target]) -> String {
        let table = self.table;
        let key = self.old.iter().map(|&(_, at)| &self.targets[at]);
        let all: Vec<&Target> = set.iter().copied().chain(key).collect();
        let names: Vec<&str> = all.iter().map(|target| target.name.as_str()).collect();
        let values = all.iter().enumerate().map(|(at, target)| parameter(at + 1, target));
        let (names, values) = (names.join(", "), values.collect::<Vec<_>>().join(", "));
        match self.update(set) {
            Some(update) => format!(
                "WITH u AS ({update} RETURNING 1) INSERT INTO {table} ({names}) SELECT {values} WHERE NOT EXISTS (SELECT FROM u)"
            ),
            None => {
                format!("INSERT INTO {table} ({names}) VALUES ({values}) ON CONFLICT DO NOTHING")
            }
        }
    }

    fn clear(&self) -> String {
        let (table, there, here) =
            (self.table, self.found_by_old(0), self.found_by_old(self.old.len()));
        // Keys can be equal that are not written alike: 1.0 and 1.00.
        format!(
            "DELETE FROM {table} WHERE {here} AND NOT ({there}) AND EXISTS (SELECT FROM {table} WHERE {there})"
        )
    }

    /// The condition for one row; its parameters come after `before` others. Without a key the whole row
    /// decides, compared as text because not every type can be compared; of equal rows one is as good as the
    /// other.
    fn found_by_old(&self, before: usize) -> String {
        let columns =
            self.old.iter().enumerate().map(|(i, &(_, at))| (before + i + 1, &self.targets[at]));
        if !self.key.is_empty() {
            let each: Vec<String> =
                columns.map(|(n, t)| format!("{} = {}", t.name, parameter(n, t))).collect();
            return each.join(" AND ");
        }
        let same = |(n, t): (usize, &Target)| {
            format!("{}::text IS NOT DISTINCT FROM ({})::text", t.name, parameter(n, t))
        };
        let each: Vec<String> = columns.map(same).collect();
        let condition = if each.is_empty() { "true".to_owned() } else { each.join(" AND ") };
        format!("ctid = (SELECT ctid FROM {} WHERE {condition} LIMIT 1)", self.table)
    }
}

fn parameter(number: usize, target: &Target) -> String {
    format!("${number}::text::{}", target.type_name)
}
