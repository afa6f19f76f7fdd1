//! Whether consumers' copies survive a change of a table's shape.
//!
//! Pure. The stream carries changed rows, but not the effect of DDL on existing rows. A change of
//! shape that may have altered existing rows needs a new copy.

use std::collections::HashMap;

use walgate_wire::{Column, Schema};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaChange {
    /// Describes the same rows.
    Same,
    /// Copies stay correct once their columns are added, dropped or renamed.
    Compatible,
    /// Copies must be loaded again, for this reason.
    NeedsReseed(String),
}

/// Compares the consumers' schema with the new one. `may_backfill(attnum)`: whether existing rows
/// may hold a value in the column. They may if it has a default (or had one when added), is an
/// identity or generated.
pub fn schema_change(
    old: &Schema,
    new: &Schema,
    may_backfill: impl Fn(i16) -> bool,
) -> SchemaChange {
    if old.same_shape(new) {
        return SchemaChange::Same;
    }
    if let (Some(old), Some(new)) = (old.relid, new.relid)
        && old != new
    {
        return SchemaChange::NeedsReseed("the table was dropped and created again".to_owned());
    }
    let key = |schema: &Schema| -> Vec<i16> {
        schema.key_indexes().iter().map(|&index| schema.columns[index].attnum).collect()
    };
    if key(old) != key(new) {
        return SchemaChange::NeedsReseed(format!(
            "the key changed from ({}) to ({})",
            old.key.join(", "),
            new.key.join(", ")
        ));
    }
    let before: HashMap<i16, &Column> =
        old.columns.iter().map(|column| (column.attnum, column)).collect();
    let guest_changed = old.guest != new.guest;
    let last = before.keys().copied().max().unwrap_or(0);
    let reason = new.columns.iter().find_map(|column| match before.get(&column.attnum) {
        Some(before) => describe_type_change(before, column),
        None if old.columns.iter().any(|before| before.name == column.name) => {
            Some(format!("column {} was dropped and added again", column.name))
        }
        // A guest adds the column, or no longer hides it. `on_guest_change` decides about copies.
        None if column.attnum < 0 || (guest_changed && column.attnum <= last) => None,
        None => describe_backfill(column, last, &may_backfill),
    });
    reason.map_or(SchemaChange::Compatible, SchemaChange::NeedsReseed)
}

/// Whether a composite type of one of the columns was altered, which the stream does not show.
pub fn types_altered(old: &Schema, new: &Schema) -> bool {
    let before = |column: &Column| old.columns.iter().find(|c| c.attnum == column.attnum);
    new.columns
        .iter()
        .any(|column| before(column).is_some_and(|before| is_type_altered(before, column)))
}

/// False if either side does not know the attributes.
fn is_type_altered(before: &Column, column: &Column) -> bool {
    before.oid == column.oid
        && before.made_of.is_some()
        && column.made_of.is_some()
        && before.made_of != column.made_of
}

fn describe_type_change(before: &Column, column: &Column) -> Option<String> {
    if is_type_altered(before, column) {
        let Column { name, type_name, .. } = column;
        return Some(format!("type {type_name} of column {name} was altered"));
    }
    let changed = before.oid != column.oid
        || before.value_oid() != column.value_oid()
        || before.type_name != column.type_name;
    changed.then(|| {
        format!(
            "column {} changed its type from {} to {}",
            column.name, before.type_name, column.type_name
        )
    })
}

fn describe_backfill(
    column: &Column,
    last: i16,
    may_backfill: &impl Fn(i16) -> bool,
) -> Option<String> {
    let name = &column.name;
    if (1..=last).contains(&column.attnum) {
        return Some(format!("column {name} was there before and is published only now"));
    }
    if may_backfill(column.attnum) {
        return Some(format!("column {name} was added with a default, as identity or generated"));
    }
    (!column.nullable).then(|| format!("column {name} was added as NOT NULL"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use walgate_wire::{Identity, Lsn, TableName, TableState};

    fn column(attnum: i16, name: &str, type_name: &str) -> Column {
        Column {
            name: name.to_owned(),
            type_name: type_name.to_owned(),
            oid: 23,
            base_oid: None,
            made_of: None,
            attnum,
            nullable: attnum != 1,
            key: attnum == 1,
        }
    }

    fn schema(columns: Vec<Column>) -> Schema {
        let key = columns.iter().filter(|c| c.key).map(|c| c.name.clone()).collect();
        let token = TableName::new("public", "t").token();
        Schema {
            table: "public.t".into(),
            token,
            relid: Some(16_384),
            revision: 1,
            state: TableState::Live,
            columns,
            key,
            identity: Identity::Default,
            old: vec![0],
            guest: None,
            lsn: Lsn(1),
            reason: None,
        }
    }

    fn old() -> Vec<Column> {
        vec![column(1, "id", "integer"), column(2, "a", "integer"), column(4, "b", "integer")]
    }

    fn change(columns: Vec<Column>, default_of: i16) -> SchemaChange {
        schema_change(&schema(old()), &schema(columns), |attnum| attnum == default_of)
    }

    #[test]
    fn another_table_under_the_same_name_has_other_rows() {
        let of = |relid| Schema { relid, ..schema(old()) };
        let change = |old, new| schema_change(&of(old), &of(new), |_| false);
        assert!(matches!(change(Some(1), Some(2)), SchemaChange::NeedsReseed(_)));
        assert_eq!(change(None, Some(2)), SchemaChange::Compatible);
        assert_eq!(change(Some(2), Some(2)), SchemaChange::Same);
    }

    fn reason(columns: Vec<Column>, default_of: i16) -> String {
        match change(columns, default_of) {
            SchemaChange::NeedsReseed(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn position_and_revision_are_no_change() {
        let new = Schema { lsn: Lsn(9), revision: 7, ..schema(old()) };
        assert_eq!(schema_change(&schema(old()), &new, |_| true), SchemaChange::Same);
    }

    #[test]
    fn plain_adds_drops_and_renames_are_compatible() {
        let added = [old(), vec![column(5, "c", "text")]].concat();
        assert_eq!(change(added, 0), SchemaChange::Compatible);
        assert_eq!(change(old()[..2].to_vec(), 0), SchemaChange::Compatible);
        let mut renamed = old();
        renamed[1].name = "z".into();
        renamed[0].name = "key".into();
        assert_eq!(change(renamed, 0), SchemaChange::Compatible);
        let mut nullable = old();
        nullable[2].nullable = false;
        assert_eq!(change(nullable, 0), SchemaChange::Compatible);
    }

    #[test]
    fn changes_to_existing_rows_need_a_new_copy() {
        let added = |column| [old(), vec![column]].concat();
        assert!(reason(added(column(5, "c", "text")), 5).contains("default"));
        let required = Column { nullable: false, ..column(5, "c", "text") };
        assert!(reason(added(required), 0).contains("NOT NULL"));
        let published = vec![column(1, "id", "integer"), column(3, "c", "integer")];
        assert!(reason(published, 0).contains("published only now"));
        let again =
            vec![column(1, "id", "integer"), column(2, "a", "integer"), column(5, "b", "integer")];
        assert!(reason(again, 0).contains("dropped and added again"));
        let mut retyped = old();
        retyped[2].type_name = "bigint".into();
        assert!(reason(retyped, 0).contains("from integer to bigint"));
    }

    #[test]
    fn an_altered_composite_needs_a_new_copy() {
        let of = |made_of: Option<&str>| {
            let mut columns = old();
            columns[2].made_of = made_of.map(str::to_owned);
            schema(columns)
        };
        let change = |old, new| {
            (types_altered(&of(old), &of(new)), schema_change(&of(old), &of(new), |_| false))
        };
        let (altered, change_to) = change(Some("1"), Some("2"));
        assert!(
            altered && matches!(change_to, SchemaChange::NeedsReseed(r) if r.contains("altered"))
        );
        assert_eq!(change(Some("1"), Some("1")), (false, SchemaChange::Same));
        // An older gateway wrote the schema without the attributes.
        assert_eq!(change(None, Some("2")), (false, SchemaChange::Compatible));
    }

    #[test]
    fn another_key_needs_a_new_copy() {
        let mut columns = old();
        columns[0].key = false;
        columns[1].key = true;
        assert_eq!(reason(columns, 0), "the key changed from (id) to (a)");
        assert!(reason(old()[1..].to_vec(), 0).contains("the key changed"));
    }
}
