//! The SQL statements that apply changes of one shape to a target table of the same or a later
//! shape.

use std::collections::HashMap;

use tokio_postgres::{Client, Statement, types::Type};
use walgate_wire::Schema;

use super::{
    ddl::{self, TargetTable, quote_identifier, target_columns},
    error::postgres_error,
    text::TextForm,
};
use crate::{ChangeBatch, SinkError, ValueKind, same_column};

/// A column that the message and the target both have.
pub(super) struct PostgresTarget {
    /// Its index in the message's rows.
    pub index: usize,
    pub form: TextForm,
    pub kind: ValueKind,
    /// Its name in the target, quoted.
    name: String,
    type_name: String,
}

pub(super) struct PostgresStatements {
    revisions: (u64, u64),
    pub table: TargetTable,
    pub targets: Vec<PostgresTarget>,
    /// Indexes of the key's columns in `targets`; empty for a table without a key.
    pub key: Vec<usize>,
    /// The columns that identify a row: those of the key, or without a key all of an old row. Each
    /// with its place in the old row, if it has one, and its index in `targets`.
    pub old: Vec<(Option<usize>, usize)>,
    /// Parameters: one array per target.
    pub upsert: Statement,
    /// Parameters: with a key one array per column of it, without a key one value per entry of
    /// `old`.
    pub delete: Statement,
    /// By the unchanged columns; none where nothing would change.
    updates: HashMap<Vec<usize>, Option<Statement>>,
    merges: HashMap<Vec<usize>, Statement>,
    clear: Option<Statement>,
}

impl PostgresStatements {
    pub async fn new(
        client: &Client,
        schema: &Schema,
        local: &Schema,
    ) -> Result<PostgresStatements, SinkError> {
        let what = format!("changes of {} in schema revision {}", schema.table, schema.revision);
        let table = ddl::target_table(local)?;
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
            targets.push(PostgresTarget {
                index,
                form: target.form,
                kind: target.value_kind(column),
                name: quote_identifier(&target.name),
                type_name: target.type_name.clone(),
            });
        }
        let find =
            |index: usize| targets.iter().position(|target: &PostgresTarget| target.index == index);
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
        let builder = StatementBuilder { table: &table, targets: &targets, key: &key, old: &old };
        let upsert =
            prepare_statement(client, &builder.upsert_sql(), Type::TEXT_ARRAY, targets.len())
                .await?;
        let finding = if key.is_empty() { Type::TEXT } else { Type::TEXT_ARRAY };
        let delete = prepare_statement(client, &builder.delete_sql(), finding, old.len()).await?;
        let revisions = (schema.revision, local.revision);
        Ok(PostgresStatements {
            revisions,
            table,
            targets,
            key,
            old,
            upsert,
            delete,
            updates: HashMap::new(),
            merges: HashMap::new(),
            clear: None,
        })
    }

    pub fn matches(&self, changes: &ChangeBatch) -> bool {
        self.revisions == (changes.schema.revision, changes.local.revision)
    }

    /// Updates the columns that are not in `unchanged`. Parameters: their values, then as in `old`.
    /// None if nothing would change.
    pub async fn update_statement(
        &mut self,
        client: &Client,
        unchanged: &[usize],
    ) -> Result<Option<Statement>, SinkError> {
        if let Some(statement) = self.updates.get(unchanged) {
            return Ok(statement.clone());
        }
        let PostgresStatements { table, targets, key, old, .. } = self;
        let changed: Vec<&PostgresTarget> =
            targets.iter().filter(|t| !unchanged.contains(&t.index)).collect();
        let sql = StatementBuilder { table, targets, key, old }.update_sql(&changed);
        let statement = match sql {
            Some(sql) => {
                Some(prepare_statement(client, &sql, Type::TEXT, changed.len() + old.len()).await?)
            }
            None => None,
        };
        self.updates.insert(unchanged.to_vec(), statement.clone());
        Ok(statement)
    }

    pub fn changed_columns<'a>(
        &'a self,
        unchanged: &'a [usize],
    ) -> impl Iterator<Item = &'a PostgresTarget> {
        self.targets.iter().filter(|target| !unchanged.contains(&target.index))
    }

    /// The columns that are neither in `unchanged` nor in the key.
    pub fn changed_outside_key<'a>(
        &'a self,
        unchanged: &'a [usize],
    ) -> impl Iterator<Item = &'a PostgresTarget> {
        let targets = self.targets.iter().enumerate();
        let is_changed = move |(at, target): &(usize, &PostgresTarget)| {
            !self.key.contains(at) && !unchanged.contains(&target.index)
        };
        targets.filter(is_changed).map(|(_, target)| target)
    }

    /// Updates the changed columns of the row with a key, or inserts it. Parameters: their values,
    /// then the key as in `old`.
    pub async fn merge_statement(
        &mut self,
        client: &Client,
        unchanged: &[usize],
    ) -> Result<Statement, SinkError> {
        if let Some(statement) = self.merges.get(unchanged) {
            return Ok(statement.clone());
        }
        let set: Vec<&PostgresTarget> = self.changed_outside_key(unchanged).collect();
        let PostgresStatements { table, targets, key, old, .. } = &*self;
        let sql = StatementBuilder { table, targets, key, old }.merge_sql(&set);
        let statement = prepare_statement(client, &sql, Type::TEXT, set.len() + old.len()).await?;
        self.merges.insert(unchanged.to_vec(), statement.clone());
        Ok(statement)
    }

    /// Deletes the row with the new key, if there is a row with the old key. Parameters: the old
    /// key, then the new key, both as in `old`.
    pub async fn clear_statement(&mut self, client: &Client) -> Result<Statement, SinkError> {
        if let Some(statement) = &self.clear {
            return Ok(statement.clone());
        }
        let PostgresStatements { table, targets, key, old, .. } = &*self;
        let sql = StatementBuilder { table, targets, key, old }.clear_sql();
        let statement = prepare_statement(client, &sql, Type::TEXT, old.len() * 2).await?;
        Ok(self.clear.insert(statement).clone())
    }
}

async fn prepare_statement(
    client: &Client,
    sql: &str,
    parameter: Type,
    count: usize,
) -> Result<Statement, SinkError> {
    client.prepare_typed(sql, &vec![parameter; count]).await.map_err(postgres_error(sql))
}

/// Rows from one array per column: `unnest($1, $2) AS v(c0, c1)`.
fn unnest_sql(columns: usize) -> String {
    let arrays: Vec<String> = (1..=columns).map(|n| format!("${n}::text[]")).collect();
    let names: Vec<String> = (0..columns).map(|n| format!("c{n}")).collect();
    format!("unnest({}) AS v({})", arrays.join(", "), names.join(", "))
}

/// Builds the text of the statements.
struct StatementBuilder<'a> {
    table: &'a TargetTable,
    targets: &'a [PostgresTarget],
    key: &'a [usize],
    old: &'a [(Option<usize>, usize)],
}

impl StatementBuilder<'_> {
    fn upsert_sql(&self) -> String {
        if self.targets.is_empty() {
            return format!("INSERT INTO {} DEFAULT VALUES", self.table);
        }
        let names: Vec<&str> = self.targets.iter().map(|target| target.name.as_str()).collect();
        let values = self.targets.iter().enumerate();
        let values: Vec<String> =
            values.map(|(at, target)| format!("v.c{at}::{}", target.type_name)).collect();
        let from = unnest_sql(names.len());
        let names = names.join(", ");
        let values = values.join(", ");
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

    fn delete_sql(&self) -> String {
        if self.key.is_empty() {
            return format!("DELETE FROM {} WHERE {}", self.table, self.found_by_old(0));
        }
        let key = self.old.iter().enumerate();
        let found: Vec<String> = key
            .map(|(i, &(_, at))| {
                format!("t.{} = v.c{i}::{}", self.targets[at].name, self.targets[at].type_name)
            })
            .collect();
        let from = unnest_sql(self.old.len());
        let found = found.join(" AND ");
        format!("DELETE FROM {} AS t USING {from} WHERE {found}", self.table)
    }

    fn update_sql(&self, changed: &[&PostgresTarget]) -> Option<String> {
        let set = changed.iter().enumerate();
        let set: Vec<String> =
            set.map(|(at, t)| format!("{} = {}", t.name, parameter_sql(at + 1, t))).collect();
        let found = self.found_by_old(changed.len());
        (!set.is_empty())
            .then(|| format!("UPDATE {} SET {} WHERE {found}", self.table, set.join(", ")))
    }

    fn merge_sql(&self, set: &[&PostgresTarget]) -> String {
        let table = self.table;
        let key = self.old.iter().map(|&(_, at)| &self.targets[at]);
        let all: Vec<&PostgresTarget> = set.iter().copied().chain(key).collect();
        let names: Vec<&str> = all.iter().map(|target| target.name.as_str()).collect();
        let values = all.iter().enumerate().map(|(at, target)| parameter_sql(at + 1, target));
        let names = names.join(", ");
        let values = values.collect::<Vec<_>>().join(", ");
        match self.update_sql(set) {
            Some(update) => format!(
                "WITH u AS ({update} RETURNING 1) INSERT INTO {table} ({names}) \
                 SELECT {values} WHERE NOT EXISTS (SELECT FROM u)"
            ),
            None => {
                format!("INSERT INTO {table} ({names}) VALUES ({values}) ON CONFLICT DO NOTHING")
            }
        }
    }

    fn clear_sql(&self) -> String {
        let table = self.table;
        let at_old_key = self.found_by_old(0);
        let at_new_key = self.found_by_old(self.old.len());
        // Equal keys can have different texts: 1.0 and 1.00.
        format!(
            "DELETE FROM {table} WHERE {at_new_key} AND NOT ({at_old_key}) \
             AND EXISTS (SELECT FROM {table} WHERE {at_old_key})"
        )
    }

    /// The condition that selects one row; its parameters follow `before` others. Without a key,
    /// any one of the equal rows is selected. They are compared as text, because not every type has
    /// an equality.
    fn found_by_old(&self, before: usize) -> String {
        let columns =
            self.old.iter().enumerate().map(|(i, &(_, at))| (before + i + 1, &self.targets[at]));
        if !self.key.is_empty() {
            let each: Vec<String> =
                columns.map(|(n, t)| format!("{} = {}", t.name, parameter_sql(n, t))).collect();
            return each.join(" AND ");
        }
        let same = |(n, t): (usize, &PostgresTarget)| {
            format!("{}::text IS NOT DISTINCT FROM ({})::text", t.name, parameter_sql(n, t))
        };
        let each: Vec<String> = columns.map(same).collect();
        let condition = if each.is_empty() { "true".to_owned() } else { each.join(" AND ") };
        format!("ctid = (SELECT ctid FROM {} WHERE {condition} LIMIT 1)", self.table)
    }
}

fn parameter_sql(number: usize, target: &PostgresTarget) -> String {
    format!("${number}::text::{}", target.type_name)
}
