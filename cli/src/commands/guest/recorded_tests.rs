//! Tests of recorded rows: values written in JSON come back unchanged through the packer.

use serde_json::{Value as Json, json};

use super::*;
use crate::commands::guest::printed::Printer;
use walgate_host::rows::{Kind, Rendered};

fn composite() -> Type {
    let fields = [("n", 23), ("price", 1700), ("at", 1184), ("tags", 1009)].map(|(name, oid)| {
        let array = || Kind::Array(Box::new(Type::base(25)));
        let ty = if oid == 1009 { Type { oid, kind: array() } } else { Type::base(oid) };
        (name.to_owned(), ty)
    });
    Type { oid: 20_000, kind: Kind::Composite { name: "c".into(), fields: fields.to_vec() } }
}

fn array(oid: u32, element: Type) -> Type {
    Type { oid, kind: Kind::Array(Box::new(element)) }
}

/// A column of each type, with its JSON.
fn everything() -> Vec<(&'static str, Type, Json)> {
    let base = Type::base;
    vec![
        ("boolean", base(16), json!(true)),
        ("smallint", base(21), json!(-7)),
        ("integer", base(23), json!(1 << 30)),
        ("bigint", base(20), json!(i64::MIN)),
        ("oid", base(26), json!(4_000_000_000u32)),
        ("real", base(700), json!(0.1)),
        ("double precision", base(701), json!("-Infinity")),
        ("numeric(10,2)", base(1700), json!("12.30")),
        ("character varying(9)", base(1043), json!("Ä")),
        ("inet", Type { oid: 869, kind: Kind::Rendered }, json!("10.0.0.0/8")),
        ("interval", Type { oid: 1186, kind: Kind::Rendered }, json!("1 day")),
        ("mood", Type { oid: 20_001, kind: Kind::Enum }, json!("sad")),
        ("jsonb", base(3802), json!("{\"a\": 1.50}")),
        ("bytea", base(17), json!("\\x00ff")),
        ("uuid", base(2950), json!("0f8fad5b-d9cb-469f-a165-70867728950e")),
        ("timestamp with time zone", base(1184), json!("2024-05-01 10:00:00.5+00")),
        ("timestamp without time zone", base(1114), json!("0044-03-15 10:00:00 BC")),
        ("date", base(1082), json!("infinity")),
        ("time without time zone", base(1083), json!("24:00:00")),
        ("text[]", array(1009, base(25)), json!([["a", null], ["b", "c"]])),
        ("uuid[]", array(2951, base(2950)), json!(["0f8fad5b-d9cb-469f-a165-70867728950e"])),
        ("date[]", array(1182, base(1082)), json!(["2024-05-01", "-infinity"])),
        ("numeric[]", array(1231, base(1700)), json!(["1.10", "NaN"])),
        ("jsonb[]", array(3807, base(3802)), json!(["{\"a\": [1]}"])),
        ("integer[]", array(1007, base(23)), json!([])),
        (
            "c",
            composite(),
            json!({"n": 1, "price": "2.50", "at": "2024-05-01 10:00:00+00", "tags": ["x"]}),
        ),
        (
            "c[]",
            array(20_002, composite()),
            json!([{"n": 1, "price": null, "at": null, "tags": []}]),
        ),
        ("hstore", Type { oid: 20_003, kind: Kind::Hstore }, json!({"k": "v", "n": null})),
        ("vector", Type { oid: 20_004, kind: Kind::Vector }, json!([1.5, -2.0])),
    ]
}

fn version(columns: &[(&str, Type, Json)]) -> TableVersion {
    let head = Head {
        table: "public.t".into(),
        old_rows: true,
        parameters: BTreeMap::from([("a".into(), "b".into())]),
        columns: (0..)
            .zip(columns)
            .map(|(index, (type_name, ty, _))| HeadColumn {
                name: format!("c{index}"),
                type_name: (*type_name).into(),
                kind: None,
                nullable: index > 0,
                key: index == 0,
                oid: Some(ty.oid),
                base_oid: None,
                made_of: Some(ty.clone()),
            })
            .collect(),
    };
    head.version().unwrap()
}

#[test]
fn values_of_all_types_come_back() {
    let columns = everything();
    let mut table = version(&columns);
    // The types as the catalog has them.
    for (column, (_, ty, _)) in table.columns.iter_mut().zip(&columns) {
        column.ty = ty.clone();
    }
    let head = serde_json::to_string(&Head::of(&table, BTreeMap::new())).unwrap();
    let row: Json = (0..)
        .zip(&columns)
        .map(|(i, (_, _, json))| (format!("c{i}"), json.clone()))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let snapshot = json!({"op": "snapshot", "new": row});
    let update = json!({"op": "update", "new": {"c0": false}, "unchanged": ["c1"], "old": row});
    let moved =
        json!({"op": "update", "new": {"c0": false}, "unchanged": ["c1"], "old": {"c0": true}});
    let text = format!("{head}\n{snapshot}\n\n{update}\n{moved}\n{snapshot}\n");
    let recorded = Recorded::of(&text).unwrap();
    assert_eq!(recorded.table.schema.columns, table.schema.columns);
    let batches = recorded.batches().unwrap();
    let lines: Vec<&[usize]> = batches.iter().map(|batch| &batch.lines[..]).collect();
    assert_eq!(lines, [&[2][..], &[4, 5], &[6]]);
    let printer = Printer::new(&recorded.table);
    let print = |batch: &RowBatch, cells: &[Cell]| {
        printer.row(batch, cells, false, &mut Rendered::default()).unwrap()
    };
    let copied = &batches[0].batch;
    assert_eq!(Json::Object(print(copied, copied.rows().next().unwrap()).row), row);
    let changed = &batches[1].batch;
    let change = &changed.changes[0];
    assert!(!change.old_is_key);
    assert_eq!(Json::Object(print(changed, changed.old_row(change).unwrap()).row), row);
    let new = print(changed, changed.new_row(change).unwrap());
    assert_eq!(
        (&new.row["c0"], &new.row["c1"], &new.row["c2"]),
        (&json!(false), &json!(-7), &Json::Null)
    );
    let change = &changed.changes[1];
    assert!(change.old_is_key);
    let new = print(changed, changed.new_row(change).unwrap());
    assert_eq!((new.unchanged, &new.row["c0"]), (vec!["c1".to_owned()], &json!(false)));
}

#[test]
fn what_cannot_be_made_is_named() {
    let error = |text: &str| {
        let read = Recorded::of(text).and_then(|recorded| recorded.batches().map(|_| ()));
        format!("{:#}", read.unwrap_err())
    };
    let head = |ty: &str| format!(r#"{{"table":"t","columns":[{{"name":"a","type":"{ty}"}}]}}"#);
    let with = |ty: &str, json: &str| {
        error(&format!("{}\n{{\"op\":\"insert\",\"new\":{{\"a\":{json}}}}}", head(ty)))
    };
    assert!(with("mood", "\"x\"").contains("column a is mood"));
    assert!(
        with("smallint", "70000")
            .starts_with("line 2: column a (smallint): the value is an integer")
    );
    assert!(with("numeric", "\"1e5\"").contains("not a number"));
    assert!(with("integer", "\"1\"").contains("a whole number is expected"));
    assert!(error(&head("text")).contains("no rows"));
    assert!(error("").contains("empty"));
    let ragged = format!(
        "{}\n{{\"op\":\"insert\",\"new\":{{\"a\":[[\"x\"],[]]}}}}",
        r#"{"table":"t","columns":[{"name":"a","type":"text[]","oid":1009,"made_of":{"oid":1009,"kind":{"array":{"oid":25,"kind":"base"}}}}]}"#
    );
    assert!(error(&ragged).contains("differ in length"));
}
