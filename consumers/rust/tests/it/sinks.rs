//! Both sinks apply random histories, and their contents are compared with a model.

use std::{path::Path, sync::Arc};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use walgate_consumer::{MigrationStep, PostgresSink, Sink, SqliteSink, wire::Schema};
use walgate_servers::{PgOptions, PrivatePostgres, find_postgres};

use crate::rows::{Did, V, changes, checkpoint, chunk, record, s, schema};

/// Tables with the columns `a`, `b` and `c` whose rows are identified in different ways.
fn shapes() -> Vec<Schema> {
    vec![
        schema("public.t", &["*a bigint", "b text", "c text"], false),
        schema("sales.t", &["*a bigint", "*b text", "c text"], false),
        schema("public.\"odd.t\"", &["*b text", "a bigint", "c text"], true),
        schema("public.keyless", &["a bigint", "b text", "c text"], true),
    ]
}

/// Random changes of a table: applied to `rows` and returned.
fn history(schema: &Schema, seeds: &[(u8, u8, u8)], rows: &mut Vec<Vec<V>>) -> Vec<Did> {
    let key = schema.key_indexes();
    let key_of = |row: &[V]| key.iter().map(|&i| row[i].clone()).collect::<Vec<_>>();
    let old_of =
        |row: &[V]| schema.old.iter().map(|&i| row[i as usize].clone()).collect::<Vec<_>>();
    let mut dids = Vec::new();
    for &(what, x, y) in seeds {
        let value = |name: &str, n: u8| match name {
            "a" => V::Int(i64::from(n % 8)),
            "b" => s(["", "x", "'\"\\\t\n", "né€😀"][usize::from(n / 8 % 4)]),
            _ if n.is_multiple_of(5) => V::Nil,
            _ => s(&format!("c{n}")),
        };
        let row: Vec<V> = schema.columns.iter().map(|c| value(&c.name, x)).collect();
        let taken = !key.is_empty() && rows.iter().any(|r| key_of(r) == key_of(&row));
        let at = (!rows.is_empty()).then(|| usize::from(y) % rows.len().max(1));
        match (what % 20, at) {
            (0, _) => {
                rows.clear();
                dids.push(Did::Truncate);
            }
            (1..=7, _) | (_, None) if !taken => {
                rows.push(row.clone());
                dids.push(Did::Insert(row));
            }
            (8..=11, Some(at)) => dids.push(Did::Delete(old_of(&rows.remove(at)))),
            (12..=14, Some(at)) if !taken => {
                // The key changes, or without a key the whole row; `c` may be unchanged and not
                // sent.
                let old = rows[at].clone();
                let c = schema.columns.iter().position(|c| c.name == "c").unwrap();
                let (mut new, mut sent, mut unchanged) = (row.clone(), row, vec![]);
                if y % 2 == 0 {
                    new[c] = old[c].clone();
                    sent[c] = V::Nil;
                    unchanged.push(c);
                }
                rows[at] = new;
                dids.push(Did::Update { row: sent, unchanged, old: Some(old_of(&old)) });
            }
            (_, Some(at)) => {
                // Only `c` changes, or nothing; `c` may be unchanged and not sent.
                let mut new = rows[at].clone();
                let c = schema.columns.iter().position(|c| c.name == "c").unwrap();
                let full = schema.old.len() == schema.columns.len();
                let old = full.then(|| old_of(&rows[at]));
                if what % 2 == 0 {
                    let mut sent = new.clone();
                    sent[c] = V::Nil;
                    dids.push(Did::Update { row: sent, unchanged: vec![c], old });
                } else {
                    new[c] = value("c", y);
                    rows[at] = new.clone();
                    dids.push(Did::Update { row: new, unchanged: vec![], old });
                }
            }
            _ => {}
        }
    }
    dids
}

pub async fn seed(sink: &mut impl Sink, schema: &Arc<Schema>, rows: &[Vec<V>]) {
    sink.begin_load(schema.clone()).await.unwrap();
    for piece in rows.chunks(3) {
        sink.load_rows(chunk(schema, piece)).await.unwrap();
    }
    sink.finish_load(schema.clone(), vec![record(schema)], checkpoint(1)).await.unwrap();
}

/// Rows in a form that does not depend on order.
pub fn sorted(rows: &[Vec<V>]) -> Vec<String> {
    let text = |value: &V| match value {
        V::Nil => "∅".to_owned(),
        V::Int(i) => i.to_string(),
        V::Str(s) => s.clone(),
        other => format!("{other:?}"),
    };
    let mut rows: Vec<String> =
        rows.iter().map(|row| row.iter().map(text).collect::<Vec<_>>().join("|")).collect();
    rows.sort();
    rows
}

pub fn sqlite_rows(path: &Path, table: &str, columns: usize) -> Vec<String> {
    let connection = rusqlite::Connection::open(path).unwrap();
    let mut select =
        connection.prepare(&format!("SELECT * FROM \"{}\"", table.replace('"', "\"\""))).unwrap();
    let text = |row: &rusqlite::Row<'_>| {
        let field = |i| match row.get_ref_unwrap(i) {
            rusqlite::types::ValueRef::Null => "∅".to_owned(),
            rusqlite::types::ValueRef::Integer(i) => i.to_string(),
            rusqlite::types::ValueRef::Real(f) => f.to_string(),
            rusqlite::types::ValueRef::Text(t) => String::from_utf8(t.to_vec()).unwrap(),
            rusqlite::types::ValueRef::Blob(b) => format!("{b:x?}"),
        };
        Ok((0..columns).map(field).collect::<Vec<_>>().join("|"))
    };
    let mut rows: Vec<String> = select.query_map([], text).unwrap().map(Result::unwrap).collect();
    rows.sort();
    rows
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn seeds(len: usize) -> impl Strategy<Value = Vec<(u8, u8, u8)>> {
    prop::collection::vec(any::<(u8, u8, u8)>(), 0..len)
}

#[test]
fn sqlite_follows_random_histories() {
    let runtime = runtime();
    let cases = (0..4usize, seeds(10), seeds(60));
    let check = |(shape, before, after): (usize, Vec<_>, Vec<_>)| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("replica.db");
        let schema = Arc::new(shapes().swap_remove(shape));
        let mut rows = vec![];
        history(&schema, &before, &mut rows);
        runtime.block_on(async {
            let mut sink = SqliteSink::new(&path);
            sink.open().await.unwrap();
            seed(&mut sink, &schema, &rows).await;
            let dids = history(&schema, &after, &mut rows);
            for piece in dids.chunks(7) {
                sink.apply_changes(changes(&schema, &schema, piece)).await.unwrap();
            }
            sink.commit(checkpoint(2)).await.unwrap();
            sink.close().await.unwrap();
        });
        let table = walgate_consumer::sqlite_table_name(&schema);
        prop_assert_eq!(sqlite_rows(&path, &table, 3), sorted(&rows));
        Ok(())
    };
    TestRunner::new(Config { cases: 150, failure_persistence: None, ..Config::default() })
        .run(&cases, check)
        .unwrap();
}

#[test]
fn postgres_follows_random_histories() {
    let server =
        PrivatePostgres::start(&find_postgres(None).unwrap().bin, PgOptions::default()).unwrap();
    let runtime = runtime();
    let cases = (0..4usize, seeds(10), seeds(60));
    let check = |(shape, before, after): (usize, Vec<_>, Vec<_>)| {
        let schema = Arc::new(shapes().swap_remove(shape));
        let mut rows = vec![];
        history(&schema, &before, &mut rows);
        let got = runtime.block_on(async {
            let mut sink = PostgresSink::new(server.url("postgres"));
            sink.open().await.unwrap();
            seed(&mut sink, &schema, &rows).await;
            let dids = history(&schema, &after, &mut rows);
            for piece in dids.chunks(7) {
                sink.apply_changes(changes(&schema, &schema, piece)).await.unwrap();
            }
            sink.commit(checkpoint(2)).await.unwrap();
            sink.close().await.unwrap();
            postgres_rows(&server.url("postgres"), &schema).await
        });
        prop_assert_eq!(got, sorted(&rows));
        Ok(())
    };
    TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() })
        .run(&cases, check)
        .unwrap();
}

pub async fn postgres_rows(url: &str, schema: &Schema) -> Vec<String> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let columns: Vec<String> = schema.columns.iter().map(|c| format!("{}::text", c.name)).collect();
    let rows =
        client.query(&format!("SELECT {} FROM {}", columns.join(", "), schema.table), &[]).await;
    let text = |row: &tokio_postgres::Row| {
        let field = |i| row.get::<_, Option<String>>(i).unwrap_or_else(|| "∅".to_owned());
        (0..schema.columns.len()).map(field).collect::<Vec<_>>().join("|")
    };
    let mut rows: Vec<String> = rows.unwrap().iter().map(text).collect();
    rows.sort();
    drop(client);
    connection.await.unwrap().unwrap();
    rows
}

fn all_types() -> (Arc<Schema>, Vec<Vec<V>>) {
    let schema = schema(
        "public.types",
        &[
            "*id integer",
            "ok boolean",
            "score double precision",
            "amount numeric",
            "at timestamp with time zone",
            "local timestamp without time zone",
            "day date",
            "clock time without time zone",
            "raw bytea",
            "u uuid",
            "doc jsonb",
            "tags text[]",
            "times timestamp with time zone[]",
            "pair some_composite",
            "attrs some_hstore",
        ],
        false,
    );
    let full = vec![
        V::Int(1),
        V::Bool(true),
        V::Float(f64::NAN),
        s("1.50"),
        V::Int(1_795_366_298_120_000),
        s("infinity"),
        s("0044-03-15 BC"),
        V::Int(1),
        V::Bin(vec![0, 0xff, b'\\']),
        V::Bin(vec![0x11; 16]),
        s("{\"a\": 1.00}"),
        V::Array(vec![s("a,\"b\""), V::Nil, s("")]),
        V::Array(vec![V::Int(0), s("infinity")]),
        V::Array(vec![V::Int(3), s("x"), V::Nil]),
        V::Map(vec![(s("k"), s("1")), (s("n"), V::Nil)]),
    ];
    let mut empty = vec![V::Nil; full.len()];
    empty[0] = V::Int(2);
    (Arc::new(schema), vec![full, empty])
}

/// Stores rows once by snapshot and once by changes.
async fn check_snapshot_and_changes(sink: &mut impl Sink) {
    let (schema, rows) = all_types();
    seed(sink, &schema, &rows).await;
    let again: Vec<Did> = rows
        .into_iter()
        .map(|mut row| {
            if let V::Int(id) = &mut row[0] {
                *id += 10;
            }
            Did::Insert(row)
        })
        .collect();
    sink.apply_changes(changes(&schema, &schema, &again)).await.unwrap();
    sink.commit(checkpoint(2)).await.unwrap();
}

#[tokio::test]
async fn sqlite_keeps_every_type() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("replica.db");
    let mut sink = SqliteSink::new(&path);
    sink.open().await.unwrap();
    check_snapshot_and_changes(&mut sink).await;
    sink.close().await.unwrap();
    let row = "1|NaN|1.50|2026-11-22 16:51:38.12+00|infinity|0044-03-15 BC|00:00:00.000001|[0, ff, 5c]|11111111-1111-1111-1111-111111111111|{\"a\": 1.00}|[\"a,\\\"b\\\"\",null,\"\"]|[\"1970-01-01 00:00:00+00\",\"infinity\"]|[3,\"x\",null]|{\"k\":\"1\",\"n\":null}";
    let nulls = vec!["∅"; 14].join("|");
    let expected =
        [format!("11|{row}"), format!("12|{nulls}"), format!("1|{row}"), format!("2|{nulls}")];
    assert_eq!(sqlite_rows(&path, "types", 15), expected);
}

#[tokio::test]
async fn postgres_keeps_every_type() {
    let server =
        PrivatePostgres::start(&find_postgres(None).unwrap().bin, PgOptions::default()).unwrap();
    let mut sink = PostgresSink::new(server.url("postgres"));
    sink.open().await.unwrap();
    check_snapshot_and_changes(&mut sink).await;
    sink.close().await.unwrap();
    let row = "t|NaN|1.50|2026-11-22 16:51:38.12+00|infinity|0044-03-15 BC|00:00:00.000001|\\x00ff5c|11111111-1111-1111-1111-111111111111|{\"a\": 1.00}|{\"a,\\\"b\\\"\",NULL,\"\"}|{\"1970-01-01 00:00:00+00\",infinity}|[3,\"x\",null]|{\"k\":\"1\",\"n\":null}";
    let nulls = vec![""; 14].join("|");
    let expected =
        [format!("1|{row}"), format!("2|{nulls}"), format!("11|{row}"), format!("12|{nulls}")];
    let set = "SET timezone = 'UTC'";
    let got = server.psql(&format!("{set}; SELECT * FROM types ORDER BY id")).unwrap();
    let got: Vec<&str> = got.lines().filter(|line| *line != "SET").collect();
    assert_eq!(got, expected);
    let types = server.psql("SELECT string_agg(data_type, ',' ORDER BY ordinal_position) FROM information_schema.columns WHERE table_name = 'types'").unwrap();
    assert!(types.trim().ends_with("jsonb,ARRAY,ARRAY,text,text"), "{types}");
}

/// Alters the table within a transaction, then applies a change of the previous shape.
async fn check_alterations(sink: &mut impl Sink) {
    let before = Arc::new(schema("public.t", &["*id integer", "note text", "gone text"], false));
    seed(sink, &before, &[vec![V::Int(1), s("one"), s("x")], vec![V::Int(2), s("two"), s("y")]])
        .await;
    let mut after = schema("public.t", &["*id integer", "remark text", "more text"], false);
    after.columns[2].attnum = 4;
    after.revision = 5;
    let after = Arc::new(after);
    let steps = vec![
        MigrationStep::Drop { name: "gone".into() },
        MigrationStep::Rename { from: "note".into(), to: "remark".into() },
        MigrationStep::Add(after.columns[2].clone()),
    ];
    let rename =
        Did::Update { row: vec![V::Int(1), s("uno"), s("z")], unchanged: vec![], old: None };
    sink.apply_changes(changes(&before, &before, &[rename])).await.unwrap();
    sink.migrate_table(record(&after), steps).await.unwrap();
    let added = Did::Insert(vec![V::Int(3), s("three"), s("new")]);
    sink.apply_changes(changes(&after, &after, &[added])).await.unwrap();
    let late =
        Did::Update { row: vec![V::Int(3), s("tres"), s("old")], unchanged: vec![], old: None };
    sink.apply_changes(changes(&before, &after, &[late])).await.unwrap();
    sink.commit(checkpoint(2)).await.unwrap();
    // A rollback also reverts alterations.
    sink.apply_changes(changes(&after, &after, &[Did::Truncate])).await.unwrap();
    sink.migrate_table(record(&before), vec![MigrationStep::Drop { name: "more".into() }])
        .await
        .unwrap();
    sink.rollback().await.unwrap();
    // An unfinished load is invisible, and dropped after a restart.
    sink.begin_load(after.clone()).await.unwrap();
    sink.load_rows(chunk(&after, &[vec![V::Int(9), s("nine"), V::Nil]])).await.unwrap();
    sink.commit(checkpoint(3)).await.unwrap();
    sink.close().await.unwrap();
    let stored = sink.open().await.unwrap();
    assert_eq!(stored.checkpoint, Some(checkpoint(3)));
    assert_eq!(stored.tables, [record(&after)]);
    sink.close().await.unwrap();
}

#[tokio::test]
async fn sqlite_is_altered_in_the_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("replica.db");
    let mut sink = SqliteSink::new(&path);
    sink.open().await.unwrap();
    check_alterations(&mut sink).await;
    assert_eq!(sqlite_rows(&path, "t", 3), ["1|uno|∅", "2|two|∅", "3|tres|new"]);
    let tables = sqlite_rows(&path, "sqlite_master", 2).join(" ");
    assert!(!tables.contains("_walgate_loading"), "{tables}");
}

#[tokio::test]
async fn postgres_is_altered_in_the_transaction() {
    let server =
        PrivatePostgres::start(&find_postgres(None).unwrap().bin, PgOptions::default()).unwrap();
    let mut sink = PostgresSink::new(server.url("postgres"));
    sink.open().await.unwrap();
    check_alterations(&mut sink).await;
    assert_eq!(
        server.psql("SELECT * FROM t ORDER BY id").unwrap().trim(),
        "1|uno|\n2|two|\n3|tres|new"
    );
    assert_eq!(
        server
            .psql("SELECT count(*) FROM pg_class WHERE relname = '_walgate_loading'")
            .unwrap()
            .trim(),
        "0"
    );
}

#[tokio::test]
async fn sqlite_keeps_the_owners_indexes_over_a_second_load() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("replica.db");
    let schema = Arc::new(schema("public.t", &["*id integer", "note text"], false));
    let mut sink = SqliteSink::new(&path);
    sink.open().await.unwrap();
    seed(&mut sink, &schema, &[vec![V::Int(1), s("one")]]).await;
    let owner = rusqlite::Connection::open(&path).unwrap();
    owner
        .execute_batch("CREATE INDEX mine ON t (note); CREATE VIEW v AS SELECT note FROM t")
        .unwrap();
    seed(&mut sink, &schema, &[vec![V::Int(2), s("two")]]).await;
    let note: String = owner.query_row("SELECT note FROM v", [], |row| row.get(0)).unwrap();
    assert_eq!(note, "two");
    let sql = "SELECT count(*) FROM sqlite_master WHERE name = 'mine'";
    assert_eq!(owner.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap(), 1);
    let mut second = SqliteSink::new(&path);
    assert!(second.open().await.unwrap_err().to_string().contains("another consumer"));
}

#[tokio::test]
async fn postgres_keeps_what_the_owner_built_over_a_second_load() {
    let server =
        PrivatePostgres::start(&find_postgres(None).unwrap().bin, PgOptions::default()).unwrap();
    let schema = Arc::new(schema("shop.t", &["*id integer", "note text"], false));
    let mut sink = PostgresSink::new(server.url("postgres"));
    sink.open().await.unwrap();
    seed(&mut sink, &schema, &[vec![V::Int(1), s("one")]]).await;
    server.psql("CREATE INDEX mine ON shop.t (note)").unwrap();
    server.psql("CREATE VIEW v AS SELECT note FROM shop.t").unwrap();
    seed(&mut sink, &schema, &[vec![V::Int(2), s("two")]]).await;
    assert_eq!(server.psql("SELECT note FROM v").unwrap().trim(), "two");
    assert_eq!(
        server.psql("SELECT count(*) FROM pg_class WHERE relname = 'mine'").unwrap().trim(),
        "1"
    );
}
