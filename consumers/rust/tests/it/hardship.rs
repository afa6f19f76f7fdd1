//! Faults of gateway and stream: incomplete bodies, unusable snapshots, suspended tables, schemas
//! that change without a migration.

use std::time::Duration;

use futures::StreamExt;
use walgate_consumer::{
    ConsumerStatus, SnapshotProgress, StreamNames, request_snapshot,
    wire::{Guest, Lsn, TableState, Token},
};

use crate::{
    flow::{USERS, World, insert, replica, same, set, source, start, user, world},
    publisher::{Publisher, Spoil},
    rows::{Did, V, s, schema},
};

pub const BOTH: [&str; 2] = ["users", "orders"];

fn rewrite(
    publisher: &Publisher,
    table: &str,
    ids: std::ops::RangeInclusive<i64>,
    row: impl Fn(i64) -> Vec<V>,
) {
    for id in ids {
        publisher.silently(table, &Did::Update { row: row(id), unchanged: vec![], old: None });
    }
}

pub async fn put_state(publisher: &Publisher, table: &str, state: TableState) {
    let mut schema = publisher.schema(table);
    (schema.state, schema.lsn) = (state, Lsn(publisher.lsn() + 1));
    schema.reason = (state != TableState::Live).then(|| "a test".to_owned());
    publisher.put_schema(schema).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incomplete_body_requires_a_new_snapshot() {
    let world = world(20).await;
    let World { publisher, url, .. } = &world;
    let path = world.path();
    let running = start(url, &path, &BOTH).await;
    same(publisher, &path, &BOTH).await;
    let snapshots = publisher.snapshots();

    // The body is published again from its first part: nothing is lost.
    publisher.cut_at(20);
    let many = |name: &str| (1..=9).map(|id| ("users", set(id, name, id))).collect::<Vec<_>>();
    publisher.lose_last_part();
    publisher.begin_transaction(&many("half")).await;
    publisher.transaction(&many("whole")).await;
    same(publisher, &path, &BOTH).await;
    assert_eq!(publisher.snapshots(), snapshots);

    // A progress message covers an incomplete body: neither the copy nor the earlier snapshot is
    // usable.
    publisher.lose_last_part();
    let place = publisher.begin_transaction(&many("lost")).await;
    publisher.transaction(&[("orders", set(2, "with it", 2))]).await;
    publisher.transaction(&[("orders", set(3, "later", 3))]).await;
    same(publisher, &path, &BOTH).await;
    assert!(publisher.snapshots() > snapshots, "the table was loaded again");
    let reason = running.status.borrow().tables[&Token::parse("orders").unwrap()].reason.clone();
    assert_eq!(reason, None, "the other table goes on");
    publisher.progress(place).await;
    publisher.transaction(&[("users", set(4, "after", 4))]).await;
    same(publisher, &path, &BOTH).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unusable_snapshot_is_not_chosen_again() {
    let world = world(350).await;
    let World { publisher, url, .. } = &world;
    let path = world.path();
    for spoil in [Spoil::Digest, Spoil::Refuse, Spoil::LoseChunk, Spoil::Refuse] {
        publisher.spoil_next(spoil);
    }
    let running = start(url, &path, &["users"]).await;
    same(publisher, &path, &["users"]).await;
    assert_eq!(publisher.snapshots(), 5);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_table_keeps_its_rows_and_is_loaded_when_it_is_live_again() {
    let world = world(10).await;
    let World { publisher, url, .. } = &world;
    let path = world.path();
    let running = start(url, &path, &["users"]).await;
    same(publisher, &path, &["users"]).await;
    let (kept, snapshots) = (source(publisher, "users"), publisher.snapshots());
    for state in [TableState::Suspended, TableState::Dropped] {
        put_state(publisher, "users", state).await;
        publisher.silently("users", &set(1, &format!("{state:?}"), 1));
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(replica(&path, "users").unwrap(), kept);
    }
    // A suspended table without a copy waits; no snapshot is requested.
    put_state(publisher, "orders", TableState::Suspended).await;
    running.stop().await;
    let running = start(url, &path, &BOTH).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!((replica(&path, "orders"), publisher.snapshots()), (None, snapshots));
    assert_eq!(replica(&path, "users").unwrap(), kept);

    put_state(publisher, "users", TableState::Reseed).await;
    put_state(publisher, "orders", TableState::Live).await;
    // The watermark of a snapshot must reach the reseed's position.
    publisher.transaction(&[("orders", insert(500, "first", 0))]).await;
    same(publisher, &path, &BOTH).await;
    publisher.transaction(&[("users", set(2, "flows", 2)), ("orders", set(2, "too", 2))]).await;
    same(publisher, &path, &BOTH).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_table_does_not_block_others() {
    let world = world(20).await;
    let World { publisher, url, .. } = &world;
    let path = world.path();
    publisher.spoil_next(Spoil::BreakOff);
    let mut running = start(url, &path, &BOTH).await;
    let orders = Token::parse("orders").unwrap();
    let begun =
        |status: &ConsumerStatus| status.tables.get(&orders).is_some_and(|t| t.estimated_rows > 0);
    assert!(running.status.wait_for(begun).await.is_ok());
    put_state(publisher, "orders", TableState::Dropped).await;
    same(publisher, &path, &["users"]).await;
    put_state(publisher, "orders", TableState::Reseed).await;
    publisher.transaction(&[("orders", insert(500, "back", 0))]).await;
    same(publisher, &path, &BOTH).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_epoch_continues_after_its_entry_is_deleted() {
    let world = world(5).await;
    let World { publisher, url, .. } = &world;
    let path = world.path();
    let running = start(url, &path, &["users"]).await;
    same(publisher, &path, &["users"]).await;
    publisher.delete_epoch().await;
    publisher.transaction(&[("users", set(1, "goes on", 1))]).await;
    same(publisher, &path, &["users"]).await;
    running.stop().await;
    let running = start(url, &path, &BOTH).await;
    publisher.transaction(&[("users", set(2, "and on", 1))]).await;
    same(publisher, &path, &BOTH).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_in_progress_is_followed_to_its_end() {
    let world = world(350).await;
    let publisher = &world.publisher;
    let users = Token::parse("users").unwrap();
    publisher.spoil_next(Spoil::BreakOff);
    publisher.spoil_next(Spoil::Silence);
    publisher.snapshot(&users).await;
    let (client, patience) = (publisher.client.clone(), Duration::from_secs(3));
    let progress = request_snapshot(client, StreamNames::default(), users, patience).await.unwrap();
    let mut progress = std::pin::pin!(progress);
    let mut rows_seen = 0;
    while let Some(step) = progress.next().await {
        match step.unwrap() {
            SnapshotProgress::Chunk { rows, .. } => {
                if rows_seen == 0 {
                    publisher.complete().await;
                }
                rows_seen = rows;
            }
            SnapshotProgress::Finished(meta) => assert_eq!(meta.row_count, 350),
            SnapshotProgress::Failed(error) => panic!("{error:?}"),
            SnapshotProgress::Requested
            | SnapshotProgress::Waiting(_)
            | SnapshotProgress::Started { .. } => {}
        }
    }
    assert!(rows_seen >= 350, "from its beginning: {rows_seen}");
}

/// `users` with a column that a guest of this version adds.
fn guested(columns: &[(&str, i16)], version: &str) -> walgate_consumer::wire::Schema {
    let specs: Vec<String> = columns
        .iter()
        .map(
            |(name, _)| {
                if *name == "*id" { "*id bigint".to_owned() } else { format!("{name} text") }
            },
        )
        .collect();
    let specs: Vec<&str> = specs.iter().map(String::as_str).collect();
    let mut schema = schema("users", &specs, false);
    for (column, (_, attnum)) in schema.columns.iter_mut().zip(columns) {
        column.attnum = *attnum;
    }
    let (name, sha256) = ("users".to_owned(), version.repeat(8));
    schema.guest = Some(Guest { name, version: version.to_owned(), sha256 });
    schema
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_of_guests_come_and_go() {
    let world = world(5).await;
    let World { publisher, url, .. } = &world;
    let path = world.path();
    let first = [("*id", 1), ("name", 2), ("domain", -1), ("initial", -2)];
    publisher.put_schema(guested(&first, "1.0")).await;
    rewrite(publisher, "users", 1..=5, |id| {
        vec![V::Int(id), s("ann"), s(&format!("{id}.example")), s("a")]
    });
    let running = start(url, &path, &["users"]).await;
    same(publisher, &path, &["users"]).await;
    let snapshots = publisher.snapshots();

    // Another guest adds the same columns.
    publisher.put_schema(guested(&first, "1.1")).await;
    let row = vec![V::Int(1), s("bob"), s("b.example"), s("b")];
    publisher.transaction(&[("users", Did::Update { row, unchanged: vec![], old: None })]).await;
    same(publisher, &path, &["users"]).await;

    // One column is hidden, one is no longer added, another is. Numbers of added columns mean
    // nothing.
    publisher.put_schema(guested(&[("*id", 1), ("initial", -1), ("city", -2)], "2.0")).await;
    rewrite(publisher, "users", 2..=5, |id| vec![V::Int(id), s("a"), V::Nil]);
    let row = vec![V::Int(1), s("b"), s("Bern")];
    publisher.transaction(&[("users", Did::Update { row, unchanged: vec![], old: None })]).await;
    same(publisher, &path, &["users"]).await;

    // A source column and an added column are never the same, even with the same name.
    publisher.put_schema(guested(&[("*id", 1), ("initial", -1), ("city", 7)], "2.1")).await;
    rewrite(publisher, "users", 1..=5, |id| vec![V::Int(id), s("a"), V::Nil]);
    let row = vec![V::Int(1), s("a"), V::Nil];
    publisher.transaction(&[("users", Did::Update { row, unchanged: vec![1], old: None })]).await;
    rewrite(publisher, "users", 1..=1, |id| vec![V::Int(id), s("b"), V::Nil]);
    same(publisher, &path, &["users"]).await;
    assert_eq!(publisher.snapshots(), snapshots, "none of this took a snapshot");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_type_requires_a_new_snapshot() {
    let world = world(5).await;
    let World { publisher, url, .. } = &world;
    let path = world.path();
    let running = start(url, &path, &BOTH).await;
    same(publisher, &path, &BOTH).await;
    let snapshots = publisher.snapshots();
    let mut retyped = schema("users", &USERS, false);
    (retyped.columns[2].type_name, retyped.columns[2].oid) = ("text".into(), 25);
    publisher.put_schema(retyped).await;
    rewrite(publisher, "users", 1..=5, |id| vec![V::Int(id), s("x"), s("100.0")]);
    let row = vec![V::Int(1), s("x"), s("1.0")];
    publisher.transaction(&[("users", Did::Update { row, unchanged: vec![], old: None })]).await;
    publisher.transaction(&[("orders", Did::Insert(user(9, "beyond", 9)))]).await;
    same(publisher, &path, &BOTH).await;
    assert!(publisher.snapshots() > snapshots);
    running.stop().await;
}
