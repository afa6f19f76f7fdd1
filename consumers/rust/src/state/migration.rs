//! From one shape of a table to a later one, column by column. Columns are identified by their
//! place in the source table (attnum).

use walgate_wire::{Column, Schema};

/// One step of a migration. Steps are applied in order.
#[derive(Clone, Debug, PartialEq)]
pub enum MigrationStep {
    /// Drops a column.
    Drop {
        /// Its name in the local table.
        name: String,
    },
    /// Renames a column. Intermediate names begin with `_walgate_`.
    Rename {
        /// Its name in the local table.
        from: String,
        /// Its new name.
        to: String,
    },
    /// Adds a column at the end; existing rows hold NULL.
    Add(Column),
}

/// How a table gets its later shape.
#[derive(Clone, Debug, PartialEq)]
pub enum Migration {
    Steps(Vec<MigrationStep>),
    /// The table must be loaded again, for this reason.
    Reload(String),
}

/// Whether two schemas of a table mean the same column: the place in the source table (attnum)
/// decides. A column that a guest added has no place; there the name decides.
pub fn same_column(a: &Column, b: &Column) -> bool {
    if a.attnum > 0 || b.attnum > 0 { a.attnum == b.attnum } else { a.name == b.name }
}

pub fn plan_migration(from: &Schema, to: &Schema) -> Migration {
    let successor = |old: &Column| to.columns.iter().find(|new| same_column(old, new));
    let mut steps = Vec::new();
    let mut renames = Vec::new();
    for old in &from.columns {
        match successor(old) {
            None if old.key => {
                return Migration::Reload(format!("key column {} is gone", old.name));
            }
            None => steps.push(MigrationStep::Drop { name: old.name.clone() }),
            Some(new) if new.type_name != old.type_name || new.value_oid() != old.value_oid() => {
                let name = &new.name;
                let before = &old.type_name;
                let after = &new.type_name;
                return Migration::Reload(format!("column {name} was {before} and is {after}"));
            }
            Some(new) if new.name != old.name => {
                renames.push((old.name.clone(), new.name.clone()));
            }
            Some(_) => {}
        }
    }
    if key_places(from) != key_places(to) {
        return Migration::Reload("the table has another key".to_owned());
    }
    // Two columns can exchange names, so every rename goes through a unique intermediate name.
    let intermediate = |i: usize| format!("_walgate_{i}");
    for (i, (from, _)) in renames.iter().enumerate() {
        steps.push(MigrationStep::Rename { from: from.clone(), to: intermediate(i) });
    }
    for (i, (_, to)) in renames.into_iter().enumerate() {
        steps.push(MigrationStep::Rename { from: intermediate(i), to });
    }
    let added =
        to.columns.iter().filter(|new| !from.columns.iter().any(|old| same_column(old, new)));
    steps.extend(added.cloned().map(MigrationStep::Add));
    Migration::Steps(steps)
}

/// The key's columns by place, in key order. A guest's column is identified by name.
fn key_places(schema: &Schema) -> Vec<(i16, Option<&str>)> {
    let place = |index: usize| {
        let column = &schema.columns[index];
        (column.attnum, (column.attnum <= 0).then_some(column.name.as_str()))
    };
    schema.key_indexes().into_iter().map(place).collect()
}
