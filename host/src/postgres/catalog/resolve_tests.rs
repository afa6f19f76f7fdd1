//! Tests of Relation messages becoming table versions; no server.

use super::*;
use crate::{
    postgres::catalog::{CatalogColumn, table_for_test as table},
    rows::Kind,
};

fn message(columns: &[(&str, u32, bool)], identity: Identity) -> Relation {
    let column = |&(name, oid, key): &(&str, u32, bool)| RelationColumn {
        name: name.into(),
        key,
        oid,
        typmod: -1,
    };
    Relation {
        relid: 16384,
        namespace: "public".into(),
        name: "t".into(),
        identity,
        columns: columns.iter().map(column).collect(),
    }
}

fn catalog(columns: &[(&str, i16)]) -> TableInfo {
    let base = table("t");
    let column = |&(name, attnum): &(&str, i16)| CatalogColumn {
        name: name.into(),
        attnum,
        ..base.columns[1].clone()
    };
    TableInfo { columns: columns.iter().map(column).collect(), ..base.clone() }
}

fn resolve(
    relation: &Relation,
    catalog: Option<&TableInfo>,
    previous: Option<&Schema>,
) -> TableVersion {
    let names = vec!["text".to_owned(); relation.columns.len()];
    let name = TableName::new("public", "t");
    let token = name.token();
    build_version(name, relation, &names, token, catalog, previous, &TypeCache::default(), Lsn(7))
}

fn attnums_of(version: &TableVersion) -> Vec<i16> {
    version.schema.columns.iter().map(|column| column.attnum).collect()
}

#[test]
fn a_message_that_agrees_with_the_catalog() {
    let info = TableInfo { primary_key: vec![4, 1], ..catalog(&[("id", 1), ("a", 3), ("b", 4)]) };
    let relation =
        message(&[("id", 23, true), ("a", 25, false), ("b", 600, true)], Identity::Default);
    let version = resolve(&relation, Some(&info), None);
    assert_eq!(attnums_of(&version), [1, 3, 4]);
    assert_eq!(version.schema.key, ["b", "id"], "in the order of the index");
    assert_eq!(version.schema.old, [2, 0]);
    assert_eq!(version.columns.iter().map(|c| c.key).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(version.columns[2].ty.kind, Kind::Rendered);
    assert!(!version.schema.columns[0].nullable && version.schema.columns[1].nullable);
}

#[test]
fn under_full_the_key_is_the_primary_key() {
    let info = catalog(&[("id", 1), ("a", 2)]);
    let relation = message(&[("id", 23, true), ("a", 25, true)], Identity::Full);
    let version = resolve(&relation, Some(&info), None);
    assert_eq!(
        (version.schema.key.as_slice(), version.schema.old.as_slice()),
        (&["id".to_owned()][..], &[0, 1][..])
    );
    let keyless =
        resolve(&relation, Some(&TableInfo { primary_key: vec![], ..info.clone() }), None);
    assert!(keyless.schema.key.is_empty() && keyless.columns.iter().all(|column| !column.key));
    let unpublished = message(&[("a", 25, true)], Identity::Full);
    assert!(resolve(&unpublished, Some(&info), None).schema.key.is_empty());
}

#[test]
fn a_shape_that_the_catalog_has_left_behind() {
    let relation = message(
        &[("id", 23, true), ("old", 25, false), ("gone", 25, false), ("z", 25, false)],
        Identity::Default,
    );
    // "old" was renamed to "new", "gone" (attnum 3) dropped.
    let info = catalog(&[("id", 1), ("new", 2), ("z", 4)]);
    assert_eq!(attnums_of(&resolve(&relation, Some(&info), None)), [1, 2, 3, 4]);
    assert_eq!(attnums_of(&resolve(&relation, None, None)), [1, 2, 3, 4], "the table was dropped");
    let full = catalog(&[("id", 1), ("z", 2)]);
    let attnums = attnums_of(&resolve(&relation, Some(&full), None));
    assert_eq!((attnums[0], attnums[3]), (1, 2));
    assert!(attnums[1] < 0 && attnums[2] < 0 && attnums[1] != attnums[2]);
}

#[test]
fn an_unchanged_shape_keeps_its_attnums() {
    let relation =
        message(&[("id", 23, true), ("a", 25, false), ("b", 25, false)], Identity::Default);
    let before = resolve(&relation, Some(&catalog(&[("id", 1), ("a", 2), ("b", 3)])), None);
    // Later "a" and "b" swap names, which these rows do not know yet.
    let swapped = catalog(&[("id", 1), ("b", 2), ("a", 3)]);
    let again = resolve(&relation, Some(&swapped), Some(&before.schema));
    assert_eq!(attnums_of(&again), [1, 2, 3]);
    // A column that was dropped and added again under its name is another one.
    let added_again = catalog(&[("id", 1), ("a", 2), ("b", 4)]);
    assert_eq!(
        attnums_of(&resolve(&relation, Some(&added_again), Some(&before.schema))),
        [1, 2, 4]
    );
}

#[test]
fn the_catalog_and_the_message_agree_on_a_version() {
    let info = table("t");
    let snapshot = build_catalog_version(&info, info.name.token(), &TypeCache::default(), Lsn(7));
    let relation = message(&[("id", 23, true), ("a", 25, false)], Identity::Default);
    let mut stream = resolve(&relation, Some(&info), None);
    stream.schema.columns[0].type_name = "integer".into();
    assert!(stream.schema.same_shape(&snapshot.schema));
    assert_eq!(stream.columns, snapshot.columns);
}
