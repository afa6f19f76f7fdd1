//! Tables and types whose names a sink cannot use: refused, or stored as text.

use std::sync::Arc;

use walgate_consumer::{PostgresSink, Sink, SnapshotRows, SqliteSink, wire::Schema};
use walgate_servers::{PgOptions, PrivatePostgres, find_postgres};

use crate::{
    rows::{Did, V, changes, checkpoint, chunk, record, s, schema},
    sinks::{seed, sqlite_rows},
};

fn table(name: &str) -> Arc<Schema> {
    Arc::new(schema(name, &["*id integer", "note text"], false))
}

async fn assert_refused(sink: &mut impl Sink, name: &str, why: &str) {
    let said = sink.begin_load(table(name)).await.unwrap_err().to_string();
    assert!(said.contains(name) && said.contains(why), "{said}");
}

#[tokio::test]
async fn sqlite_refuses_tables_with_the_same_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("replica.db");
    let mut sink = SqliteSink::new(&path);
    sink.open().await.unwrap();
    let users = [vec![V::Int(1), s("ann")]];
    seed(&mut sink, &table("public.users"), &users).await;
    assert_refused(&mut sink, "public.Users", "the same name").await;
    assert_refused(&mut sink, "public._walgate_tables", "_walgate_").await;
    assert_refused(&mut sink, "public._Walgate_Position", "_walgate_").await;
    assert_refused(&mut sink, "public.sqlite_x", "sqlite_").await;
    // A table of another schema has another name, and a table can be loaded again.
    seed(&mut sink, &table("sales.users"), &users).await;
    seed(&mut sink, &table("public.users"), &users).await;
    assert_eq!(sqlite_rows(&path, "users", 2), ["1|ann"]);
    assert_eq!(sqlite_rows(&path, "sales.users", 2), ["1|ann"]);
}

/// The rollback reports the failed chunk, and finishing the load must still fail.
#[tokio::test]
async fn sqlite_reports_a_failed_chunk_when_the_load_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("replica.db");
    let mut sink = SqliteSink::new(&path);
    sink.open().await.unwrap();
    let users = table("public.users");
    sink.begin_load(users.clone()).await.unwrap();
    sink.load_rows(SnapshotRows::new(users.clone(), vec![0xc1])).await.unwrap();
    sink.rollback().await.unwrap();
    sink.load_rows(chunk(&users, &[vec![V::Int(2), s("bob")]])).await.unwrap();
    let finished = sink.finish_load(users.clone(), vec![record(&users)], checkpoint(1)).await;
    let said = finished.unwrap_err().to_string();
    assert!(said.contains("public.users"), "{said}");
    sink.rollback().await.unwrap();
    seed(&mut sink, &users, &[vec![V::Int(1), s("ann")]]).await;
    assert_eq!(sqlite_rows(&path, "users", 2), ["1|ann"]);
}

#[tokio::test]
async fn postgres_stores_box_arrays_and_protects_its_own_tables() {
    let server =
        PrivatePostgres::start(&find_postgres(None).unwrap().bin, PgOptions::default()).unwrap();
    server.psql("CREATE DOMAIN crates AS box[]").unwrap();
    let mut sink = PostgresSink::new(server.url("postgres"));
    sink.open().await.unwrap();
    assert_refused(&mut sink, "public._walgate_tables", "_walgate_").await;
    let columns = ["*id integer", "boxes box[]", "crates crates", "one box", "words text[]"];
    let schema = Arc::new(schema("public.t", &columns, false));
    let boxes = || V::Array(vec![s("(1,1),(0,0)"), s("(3,3),(2,2)")]);
    let row = |id| vec![V::Int(id), boxes(), boxes(), s("(1,1),(0,0)"), V::Array(vec![s("a,b")])];
    seed(&mut sink, &schema, &[row(1)]).await;
    sink.apply_changes(changes(&schema, &schema, &[Did::Insert(row(2))])).await.unwrap();
    sink.commit(checkpoint(2)).await.unwrap();
    sink.close().await.unwrap();
    let array = r#"["(1,1),(0,0)","(3,3),(2,2)"]"#;
    let line = |id| format!("{id}|{array}|{array}|(1,1),(0,0)|{{\"a,b\"}}");
    let got = server.psql("SELECT * FROM t ORDER BY id").unwrap();
    assert_eq!(got.lines().collect::<Vec<_>>(), [line(1), line(2)]);
}
