//! From a Relation message, or from the catalog, to the table version that decodes rows.
//!
//! Names, types and identity come from the message. A message carries no attnum, nullability or
//! order of the key. These come from the previous schema, or from the catalog if the column still
//! exists.

use std::collections::HashSet;

use tokio_postgres::Client;
use walgate_wire::{Column, Identity, Lsn, Schema, TableName, TableState, Token};

use super::{CatalogColumn, TableInfo, TypeCache};
use crate::{
    postgres::{
        PostgresError,
        replication::pgoutput::{Relation, RelationColumn},
    },
    rows::{ColumnType, TableVersion},
};

/// The table version that a Relation message announces. `previous`: the schema that consumers have.
pub(super) async fn resolve_relation(
    client: &Client,
    types: &mut TypeCache,
    relation: &Relation,
    token: Token,
    catalog: Option<&TableInfo>,
    previous: Option<&Schema>,
    lsn: Lsn,
) -> Result<TableVersion, PostgresError> {
    let oids: Vec<u32> = relation.columns.iter().map(|column| column.oid).collect();
    let typmods: Vec<i32> = relation.columns.iter().map(|column| column.typmod).collect();
    types.load_types(client, &oids).await?;
    let rows = client
        .query(FORMAT_SQL, &[&oids, &typmods])
        .await
        .map_err(PostgresError::query("name the types of a changed table"))?;
    let name = TableName::new(relation.namespace.clone(), relation.name.clone());
    let mut type_names = vec![];
    for (row, column) in rows.iter().zip(&relation.columns) {
        type_names.push(row.get::<_, Option<String>>(0).filter(|_| types.is_known(column.oid)).ok_or_else(|| {
            PostgresError::Table {
                table: name.to_string(),
                what: format!(
                    "the type of column {} (oid {}) was dropped before its last changes were read: load the table again",
                    column.name, column.oid
                ),
            }
        })?);
    }
    Ok(build_version(name, relation, &type_names, token, catalog, previous, types, lsn))
}

/// The table version that a snapshot of the described table would have.
pub(super) async fn version_of_catalog(
    client: &Client,
    types: &mut TypeCache,
    info: &TableInfo,
    token: Token,
    lsn: Lsn,
) -> Result<TableVersion, PostgresError> {
    let oids: Vec<u32> = info.published_columns().map(|column| column.oid).collect();
    types.load_types(client, &oids).await?;
    Ok(build_catalog_version(info, token, types, lsn))
}

const FORMAT_SQL: &str = "
SELECT CASE WHEN t.oid IS NULL THEN NULL ELSE pg_catalog.format_type(w.oid, w.typmod) END
FROM unnest($1::oid[], $2::int4[]) WITH ORDINALITY w(oid, typmod, place)
LEFT JOIN pg_catalog.pg_type t ON t.oid = w.oid ORDER BY w.place";

fn build_catalog_version(
    info: &TableInfo,
    token: Token,
    types: &TypeCache,
    lsn: Lsn,
) -> TableVersion {
    let key = info.key_attnums(info.identity);
    let column = |column: &CatalogColumn| RelationColumn {
        name: column.name.clone(),
        key: info.identity == Identity::Full || key.contains(&column.attnum),
        oid: column.oid,
        typmod: column.typmod,
    };
    let relation = Relation {
        relid: info.relid,
        namespace: info.name.schema.clone(),
        name: info.name.table.clone(),
        identity: info.identity,
        columns: info.published_columns().map(column).collect(),
    };
    let type_names: Vec<String> =
        info.published_columns().map(|column| column.type_name.clone()).collect();
    build_version(info.name.clone(), &relation, &type_names, token, Some(info), None, types, lsn)
}

#[expect(
    clippy::too_many_arguments,
    reason = "all parts of a version, called from two functions above"
)]
fn build_version(
    name: TableName,
    relation: &Relation,
    type_names: &[String],
    token: Token,
    catalog: Option<&TableInfo>,
    previous: Option<&Schema>,
    types: &TypeCache,
    lsn: Lsn,
) -> TableVersion {
    // A table with another OID under the same name is another table.
    let same = |relid: Option<u32>| relid.is_none_or(|relid| relid == relation.relid);
    let catalog = catalog.filter(|info| same(Some(info.relid)));
    let previous = previous.filter(|schema| same(schema.relid));
    let attnums = assign_attnums(relation, catalog, previous);
    let key = key_indexes(relation, catalog, &attnums);
    let in_catalog = |attnum: i16| catalog?.columns.iter().find(|column| column.attnum == attnum);
    let columns: Vec<Column> = relation
        .columns
        .iter()
        .enumerate()
        .map(|(index, column)| Column {
            name: column.name.clone(),
            type_name: type_names.get(index).cloned().unwrap_or_default(),
            oid: column.oid,
            base_oid: types.base_oid(column.oid),
            made_of: types.composite_fingerprint(column.oid),
            attnum: attnums[index],
            nullable: !key.contains(&index)
                && in_catalog(attnums[index]).is_none_or(|column| column.nullable),
            key: key.contains(&index),
        })
        .collect();
    let cells = relation.columns.iter().enumerate().map(|(index, column)| ColumnType {
        oid: column.oid,
        typmod: column.typmod,
        ty: types.compile_type(column.oid),
        binary: types.binary_support(column.oid),
        key: key.contains(&index),
    });
    let cells = cells.collect();
    let old = match relation.identity {
        Identity::Full => (0..columns.len() as u32).collect(),
        Identity::Nothing => vec![],
        Identity::Default | Identity::Index => key.iter().map(|&index| index as u32).collect(),
    };
    let schema = Schema {
        table: name.to_string(),
        token: token.clone(),
        relid: Some(relation.relid),
        revision: 0,
        state: TableState::Live,
        key: key.iter().map(|&index| columns[index].name.clone()).collect(),
        columns,
        identity: relation.identity,
        old,
        guest: None,
        lsn,
        reason: None,
    };
    TableVersion { name, token, relid: relation.relid, schema, columns: cells }
}

/// Indexes of the key columns in key order: the columns that the message flags. FULL and NOTHING
/// flag no key; then it is the primary key, if all of it is published.
fn key_indexes(relation: &Relation, catalog: Option<&TableInfo>, attnums: &[i16]) -> Vec<usize> {
    let from_catalog: Vec<usize> = catalog
        .map(|info| info.key_attnums(relation.identity))
        .unwrap_or_default()
        .iter()
        .filter_map(|attnum| attnums.iter().position(|a| a == attnum))
        .collect();
    let complete =
        catalog.is_some_and(|info| info.key_attnums(relation.identity).len() == from_catalog.len());
    if matches!(relation.identity, Identity::Full | Identity::Nothing) {
        return if complete { from_catalog } else { vec![] };
    }
    let flagged = relation
        .columns
        .iter()
        .enumerate()
        .filter(|(_, column)| column.key)
        .map(|(index, _)| index);
    let flagged: Vec<usize> = flagged.collect();
    let same: HashSet<_> = flagged.iter().collect();
    if complete && same == from_catalog.iter().collect() { from_catalog } else { flagged }
}

/// The attnum of each column of the message. Columns are matched by name first. A column without a
/// match was renamed or dropped since, and gets an attnum that its neighbours leave free.
fn assign_attnums(
    relation: &Relation,
    catalog: Option<&TableInfo>,
    previous: Option<&Schema>,
) -> Vec<i16> {
    let previous = previous.map_or(&[][..], |schema| &schema.columns);
    let unchanged = previous.len() == relation.columns.len()
        && previous.iter().zip(&relation.columns).all(|(p, r)| p.name == r.name && p.oid == r.oid);
    let in_catalog =
        |name: &str| catalog?.columns.iter().find(|c| c.name == name).map(|c| c.attnum);
    if unchanged {
        // The shape is the same, but a column with a new attnum was dropped and added again.
        let last = previous.iter().map(|column| column.attnum).max().unwrap_or(0);
        let added = |name: &str| in_catalog(name).filter(|&attnum| attnum > last);
        return previous
            .iter()
            .map(|column| added(&column.name).unwrap_or(column.attnum))
            .collect();
    }
    let in_previous = |name: &str| previous.iter().find(|c| c.name == name).map(|c| c.attnum);
    let mut found: Vec<Option<i16>> = relation
        .columns
        .iter()
        .map(|c| in_catalog(&c.name).or_else(|| in_previous(&c.name)))
        .collect();
    // Columns are in the order of their attnums. A name that breaks the order belongs to another
    // column now.
    for index in 1..found.len() {
        let before = found[..index].iter().flatten().max();
        if matches!((found[index], before), (Some(attnum), Some(&before)) if attnum <= before) {
            found[index] = None;
        }
    }
    let mut before = 0;
    (0..found.len())
        .map(|index| {
            let after = found[index + 1..].iter().flatten().min().copied().unwrap_or(i16::MAX);
            let taken_later = |attnum: i16| attnum >= after;
            let attnum = found[index].unwrap_or_else(|| {
                let free = before + 1;
                if taken_later(free) { -1 - index as i16 } else { free }
            });
            before = before.max(attnum);
            attnum
        })
        .collect()
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
