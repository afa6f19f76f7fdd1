//! From one shape of a table to a later one, column by column; columns are the same if their place in the
//! source table (attnum) is.

use walgate_wire::{Column, Schema};

/// One step; steps are taken in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Drop { name: String },
    Rename { from: String, to: String },
    Add(Column),
}

/// How to get there.
#[derive(Clone, Debug, PartialEq)]
pub enum Migration {
    Steps(Vec<Step>),
    /// Rows must be read again.
    Reload(String),
}

/// A column that a guest added has no place in the source: there the name decides.
pub fn same_column(a: &Column, b: &Column) -> bool {
    if a.attnum > 0 || b.attnum > 0 { a.attnum == b.attnum } else { a.name == b.name }
}

pub fn migration(from: &Schema, to: &Schema) -> Migration {
    let successor = |old: &Column| to.columns.iter().find(|new| same_column(old, new));
    let mut steps = Vec::new();
    let mut renames = Vec::new();
    for old in &from.columns {
        match successor(old) {
            None if old.key => {
                return Migration::Reload(format!("key column {} is gone", old.name));
            }
            None => steps.push(Step::Drop { name: old.name.clone() }),
            Some(new) if new.type_name != old.type_name || new.value_oid() != old.value_oid() => {
                let (name, before, after) = (&new.name, &old.type_name, &new.type_name);
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
    // Names can be exchanged: go through names that nobody has.
    let stopover = |i: usize| format!("_walgate_{i}");
    for (i, (from, _)) in renames.iter().enumerate() {
        steps.push(Step::Rename { from: from.clone(), to: stopover(i) });
    }
    for (i, (_, to)) in renames.into_iter().enumerate() {
        steps.push(Step::Rename { from: stopover(i), to });
    }
    let added =
        to.columns.iter().filter(|new| !from.columns.iter().any(|old| same_column(old, new)));
    steps.extend(added.cloned().map(Step::Add));
    Migration::Steps(steps)
}

/// The key by place, in key order.
fn key_places(schema: &Schema) -> Vec<(i16, Option<&str>)> {
    let place = |index: usize| {
        let column = &schema.columns[index];
        (column.attnum, (column.attnum <= 0).then_some(column.name.as_str()))
    };
    schema.key_indexes().into_iter().map(place).collect()
}
