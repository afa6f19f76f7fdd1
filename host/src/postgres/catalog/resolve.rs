//! From a Relation message, or from the catalog, to the table version that reads rows.
//!
//! Names, types and identity are the message's. What a message does not say (attnum, nullability, order of the
//! key) comes from the schema before, or from the catalog where the column still exists.

use std::collections::HashSet;

use tokio_postgres::Client;
use walgate_wire::{Column, Identity, Lsn, Schema, TableName, TableState, Token};

use crate::postgres::{
    PostgresError,
    replication::pgoutput::{Relation, RelationColumn},
};
use crate::{
    postgres::catalog::{TableInfo, TypeCache},
    rows::{ColumnType, TableVersion},
};

/// The table version that a Relation message announces. `previous`: the schema that consumers have.
pub async fn resolve_relation(
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
    types.load(client, &oids).await?;
    let rows = client
        .query(FORMAT_SQL, &[&oids, &typmods])
        .await
        .map_err(PostgresError::query("name the types of a changed table"))?;
    let name = TableName::new(relation.namespace.clone(), relation.name.clone());
    let mut type_names = vec![];
    for (row, column) in rows.iter().zip(&relation.columns) {
        type_names.push(row.get::<_, Option<String>>(0).filter(|_| types.knows(column.oid)).ok_or_else(|| {
            PostgresError::Table {
                table: name.to_string(),
                what: format!(
                    "the type of column {} (oid {}) was dropped before its last changes were read: load the table again",
                    column.name, column.oid
                ),
            }
        })?);
    }
    Ok(version(name, relation, &type_names, token, catalog, previous, types, lsn))
}

/// The table version that a snapshot of the table as it is now would have.
pub async fn version_of_catalog(
    client: &Client,
    types: &mut TypeCache,
    info: &TableInfo,
    token: Token,
    lsn: Lsn,
) -> Result<TableVersion, PostgresError> {
    let oids: Vec<u32> = info.published().map(|column| column.oid).collect();
    types.load(client, &oids).await?;
    Ok(of_catalog(info, token, types, lsn))
}

const FORMAT_SQL: &str = "
SELECT CASE WHEN t.oid IS NULL THEN NULL ELSE pg_catalog.format_type(w.oid, w.typmod) END
FROM unnest($1::oid[], $2::int4[]) WITH ORDINALITY w(oid, typmod, place)
LEFT JOIN pg_catalog.pg_type t ON t.oid = w.oid ORDER BY w.place";

fn of_catalog(info: &TableInfo, token: Token, types: &TypeCache, lsn: Lsn) -> TableVersion {
    let key = info.key(info.identity);
    let column = |column: &super::CatalogColumn| RelationColumn {
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
        columns: info.published().map(column).collect(),
    };
    let type_names: Vec<String> = info.published().map(|column| column.type_name.clone()).collect();
    version(info.name.clone(), &relation, &type_names, token, Some(info), None, types, lsn)
}

#[expect(
    clippy::too_many_arguments,
    reason = "all of what a version is made of, called from two places above"
)]
fn version(
    name: TableName,
    relation: &Relation,
    type_names: &[String],
    token: Token,
    catalog: Option<&TableInfo>,
    previous: Option<&Schema>,
    types: &TypeCache,
    lsn: Lsn,
) -> TableVersion {
    // Another table of the name says nothing about this one.
    let same = |relid: Option<u32>| relid.is_none_or(|relid| relid == relation.relid);
    let catalog = catalog.filter(|info| same(Some(info.relid)));
    let previous = previous.filter(|schema| same(schema.relid));
    let attnums = attnums(relation, catalog, previous);
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
            made_of: types.made_of(column.oid),
            attnum: attnums[index],
            nullable: !key.contains(&index)
                && in_catalog(attnums[index]).is_none_or(|column| column.nullable),
            key: key.contains(&index),
        })
        .collect();
    let cells = relation.columns.iter().enumerate().map(|(index, column)| ColumnType {
        oid: column.oid,
        typmod: column.typmod,
        ty: types.compile(column.oid),
        binary: types.binary(column.oid),
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

/// Indexes of the key columns in key order: what the message flags, or under FULL and NOTHING, which say
/// nothing, the primary key if all of it is published.
fn key_indexes(relation: &Relation, catalog: Option<&TableInfo>, attnums: &[i16]) -> Vec<usize> {
    let from_catalog: Vec<usize> = catalog
        .map(|info| info.key(relation.identity))
        .unwrap_or_default()
        .iter()
        .filter_map(|attnum| attnums.iter().position(|a| a == attnum))
        .collect();
    let complete =
        catalog.is_some_and(|info| info.key(relation.identity).len() == from_catalog.len());
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

/// The attnum of each column of the message. Names come first where nothing was renamed; what is left over was
/// renamed or dropped since, and gets an attnum that its neighbours leave free.
fn attnums(
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
        // Looks the same; but a column whose attnum is new was dropped and added again.
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
    // Columns stand in the order of their attnums: a name that breaks it was taken over by another column.
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
