//! Unusual updates, in both sinks: changed keys, unchanged columns that were not sent, missing
//! rows.

use std::{sync::Arc, time::Duration};

use walgate_consumer::{PostgresSink, Sink, SqliteSink, sqlite_table_name, wire::Schema};
use walgate_servers::{PgOptions, PrivatePostgres, find_postgres};

use crate::{
    rows::{Did, V, changes, checkpoint, s, schema},
    sinks::{postgres_rows, seed, sorted, sqlite_rows},
};

struct Case {
    what: &'static str,
    schema: Schema,
    before: Vec<Vec<V>>,
    dids: Vec<Did>,
    after: Vec<Vec<V>>,
}

fn row(id: i64, b: &str, c: Option<&str>) -> Vec<V> {
    vec![V::Int(id), s(b), c.map_or(V::Nil, s)]
}

/// An update without the value of `c`. `old`: the previous key.
fn without_c(id: i64, b: &str, old: Option<i64>) -> Did {
    Did::Update { row: row(id, b, None), unchanged: vec![2], old: old.map(|id| vec![V::Int(id)]) }
}

fn keyed(what: &'static str, before: &[Vec<V>], dids: Vec<Did>, after: &[Vec<V>]) -> Case {
    let schema = schema("public.t", &["*a bigint", "b text", "c text"], false);
    Case { what, schema, before: before.to_vec(), dids, after: after.to_vec() }
}

fn cases() -> Vec<Case> {
    let moved = |to, from: i64| Did::Update {
        row: row(to, "new", Some("new")),
        unchanged: vec![],
        old: Some(vec![V::Int(from)]),
    };
    let key_alone =
        Did::Update { row: vec![V::Int(7), V::Nil, V::Nil], unchanged: vec![1, 2], old: None };
    let both = [row(1, "one", Some("c1")), row(2, "two", Some("c2"))];
    vec![
        keyed(
            "a row moves onto another, and what did not travel moves along",
            &both,
            vec![without_c(2, "new", Some(1))],
            &[row(2, "new", Some("c1"))],
        ),
        keyed(
            "nothing is at the old key: the row at the new one gets what travelled",
            &both[1..],
            vec![without_c(2, "new", Some(1))],
            &[row(2, "new", Some("c2"))],
        ),
        keyed(
            "nothing is at the old key, and all travelled",
            &both[1..],
            vec![moved(2, 1)],
            &[row(2, "new", Some("new"))],
        ),
        keyed(
            "nothing is anywhere, and the row moves",
            &[],
            vec![without_c(2, "new", Some(1)), moved(3, 9)],
            &[row(2, "new", None), row(3, "new", Some("new"))],
        ),
        keyed(
            "a row that is not there and did not travel whole",
            &both[..1],
            vec![without_c(5, "late", None), key_alone.clone()],
            &[row(1, "one", Some("c1")), row(5, "late", None), vec![V::Int(7), V::Nil, V::Nil]],
        ),
        keyed(
            "only the key of a row that is there travels",
            &[row(7, "seven", Some("c7"))],
            vec![key_alone],
            &[row(7, "seven", Some("c7"))],
        ),
        keyed(
            "deleted, then updated, in one message",
            &both,
            vec![Did::Delete(vec![V::Int(1)]), without_c(1, "again", None)],
            &[row(1, "again", None), row(2, "two", Some("c2"))],
        ),
        keyed(
            "inserted, updated, moved and moved back in one message",
            &both,
            vec![
                Did::Insert(row(3, "three", Some("c3"))),
                without_c(3, "tres", None),
                without_c(4, "cuatro", Some(3)),
                without_c(4, "four", None),
                without_c(1, "uno", Some(4)),
            ],
            &[row(1, "uno", Some("c3")), row(2, "two", Some("c2"))],
        ),
        parted_key(),
        alike_key(),
        keyless(),
    ]
}

/// One column of the key changes, and columns outside of the key are not sent.
fn parted_key() -> Case {
    let schema = schema("sales.t", &["*a bigint", "*b text", "c text"], false);
    let update = |to: &str, from: &str| Did::Update {
        row: row(1, to, None),
        unchanged: vec![2],
        old: Some(vec![V::Int(1), s(from)]),
    };
    Case {
        what: "a key of two columns changes in one of them",
        schema,
        before: vec![row(1, "x", Some("c1")), row(1, "y", Some("c2")), row(2, "x", Some("c3"))],
        dids: vec![update("y", "x"), update("z", "nobody")],
        after: vec![row(1, "y", Some("c1")), row(1, "z", None), row(2, "x", Some("c3"))],
    }
}

/// Keys that are equal numbers with different texts.
fn alike_key() -> Case {
    let update =
        Did::Update { row: vec![s("1.00"), V::Nil], unchanged: vec![1], old: Some(vec![s("1.0")]) };
    Case {
        what: "a key is written in another way",
        schema: schema("public.n", &["*a numeric", "c text"], false),
        before: vec![vec![s("1.0"), s("kept")]],
        dids: vec![update],
        after: vec![vec![s("1.00"), s("kept")]],
    }
}

fn keyless() -> Case {
    let schema = schema("public.keyless", &["a bigint", "b text", "c text"], true);
    let update =
        |to: Vec<V>, old: Vec<V>| Did::Update { row: to, unchanged: vec![], old: Some(old) };
    let twin = row(1, "one", None);
    Case {
        what: "a table without a key: one of equal rows, or a new one",
        schema,
        before: vec![twin.clone(), twin.clone()],
        dids: vec![
            update(row(2, "two", None), twin.clone()),
            update(row(9, "nine", None), row(8, "nobody", None)),
        ],
        after: vec![twin, row(2, "two", None), row(9, "nine", None)],
    }
}

async fn run_case(sink: &mut impl Sink, case: &Case) -> Arc<Schema> {
    let schema = Arc::new(case.schema.clone());
    sink.open().await.unwrap();
    seed(sink, &schema, &case.before).await;
    sink.apply_changes(changes(&schema, &schema, &case.dids)).await.unwrap();
    sink.commit(checkpoint(2)).await.unwrap();
    sink.close().await.unwrap();
    schema
}

#[tokio::test]
async fn sqlite_applies_unusual_updates() {
    for case in cases() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("replica.db");
        let schema = run_case(&mut SqliteSink::new(&path), &case).await;
        let got = sqlite_rows(&path, &sqlite_table_name(&schema), schema.columns.len());
        assert_eq!(got, sorted(&case.after), "{}", case.what);
    }
}

#[tokio::test]
async fn postgres_applies_unusual_updates() {
    let server =
        PrivatePostgres::start(&find_postgres(None).unwrap().bin, PgOptions::default()).unwrap();
    for case in cases() {
        let url = server.url("postgres");
        let schema = run_case(&mut PostgresSink::new(url.clone()), &case).await;
        assert_eq!(postgres_rows(&url, &schema).await, sorted(&case.after), "{}", case.what);
    }
}

/// A killed consumer may hold its lock for a moment longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_released_file_is_locked_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("replica.db");
    let mut first = SqliteSink::new(&path);
    first.open().await.unwrap();
    let let_go = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(400)).await;
        drop(first);
    });
    let since = std::time::Instant::now();
    SqliteSink::new(&path).open().await.unwrap();
    let waited = since.elapsed();
    assert!((350..1500).contains(&waited.as_millis()), "{waited:?}");
    let_go.await.unwrap();
}
