//! From publisher to copy: a stand-in publishes, a consumer keeps a SQLite file, and the file is
//! compared with the source.

use std::{path::Path, time::Duration};

use futures::StreamExt;
use tokio::sync::oneshot;
use walgate_consumer::{
    Consumer, ConsumerStatus, Error, SnapshotProgress, SqliteSink, StreamNames, TailFrom,
    change_json, request_snapshot, tail_changes,
    wire::{Caps, Lsn, TableState, Token, train_dictionary},
};

use crate::{
    publisher::{Publisher, Spoil, nats},
    rows::{Did, V, s, schema},
};

pub const USERS: [&str; 3] = ["*id bigint", "name text", "balance bigint"];

/// A consumer that runs until it is stopped or dropped.
pub struct Running {
    task: tokio::task::JoinHandle<Result<(), Error>>,
    stop: oneshot::Sender<()>,
    pub status: tokio::sync::watch::Receiver<ConsumerStatus>,
}

pub async fn start(url: &str, path: &Path, tables: &[&str]) -> Running {
    let mut builder = Consumer::builder().nats(url);
    for table in tables {
        builder = builder.table(*table);
    }
    let consumer = builder.sink(SqliteSink::new(path)).build().await.unwrap();
    let status = consumer.status();
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(async move { consumer.run(async { drop(stopped.await) }).await });
    Running { task, stop, status }
}

impl Running {
    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }

    /// Aborts the task, the nearest equivalent of `kill -9`.
    pub async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

pub fn user(id: i64, name: &str, balance: i64) -> Vec<V> {
    vec![V::Int(id), s(name), V::Int(balance)]
}

pub fn insert(id: i64, name: &str, balance: i64) -> Did {
    Did::Insert(user(id, name, balance))
}

pub fn set(id: i64, name: &str, balance: i64) -> Did {
    Did::Update { row: user(id, name, balance), unchanged: vec![], old: None }
}

pub fn replica(path: &Path, table: &str) -> Option<Vec<String>> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = rusqlite::Connection::open_with_flags(path, flags).ok()?;
    let mut select = connection.prepare(&format!("SELECT * FROM {table} ORDER BY 1")).ok()?;
    let columns = select.column_count();
    let text = |row: &rusqlite::Row<'_>| {
        // The table may have been altered meanwhile.
        let field = |i| {
            Ok(match row.get_ref(i)? {
                rusqlite::types::ValueRef::Null => "∅".to_owned(),
                rusqlite::types::ValueRef::Integer(i) => i.to_string(),
                rusqlite::types::ValueRef::Text(t) => String::from_utf8_lossy(t).into_owned(),
                other => format!("{other:?}"),
            })
        };
        Ok((0..columns).map(field).collect::<rusqlite::Result<Vec<_>>>()?.join("|"))
    };
    select.query_map([], text).ok()?.collect::<Result<_, _>>().ok()
}

pub fn source(publisher: &Publisher, table: &str) -> Vec<String> {
    let text = |value: &V| match value {
        V::Nil => "∅".to_owned(),
        V::Int(i) => i.to_string(),
        V::Str(s) => s.clone(),
        other => format!("{other:?}"),
    };
    let rows = publisher.rows(table);
    rows.iter().map(|row| row.iter().map(text).collect::<Vec<_>>().join("|")).collect()
}

pub async fn same(publisher: &Publisher, path: &Path, tables: &[&str]) {
    for _ in 0..400 {
        if tables.iter().all(|t| replica(path, t).as_ref() == Some(&source(publisher, t))) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for table in tables {
        assert_eq!(replica(path, table), Some(source(publisher, table)), "{table}");
    }
}

pub struct World {
    nats: walgate_servers::PrivateNats,
    pub url: String,
    pub publisher: Publisher,
    dir: tempfile::TempDir,
}

/// A source with `rows` users and as many orders.
pub async fn world(rows: i64) -> World {
    if std::env::var_os("RUST_LOG").is_some() {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .try_init();
    }
    let nats = nats();
    let publisher = Publisher::new(&nats).await;
    for table in ["users", "orders"] {
        publisher.put_schema(schema(table, &USERS, false)).await;
        (1..=rows)
            .for_each(|id| publisher.silently(table, &insert(id, &format!("name {id}"), 100)));
    }
    World { url: nats.url(), nats, publisher, dir: tempfile::tempdir().unwrap() }
}

impl World {
    pub fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("edge.db")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_loads_follows_stops_and_continues() {
    let world = world(1050).await;
    let (publisher, path) = (&world.publisher, world.path());
    let running = start(&world.url, &path, &["users", "public.orders"]).await;
    same(publisher, &path, &["users", "orders"]).await;
    publisher
        .transaction(&[("users", insert(5000, "new", 1)), ("orders", set(3, "paid", 2))])
        .await;
    let moved =
        Did::Update { row: user(6000, "moved", 3), unchanged: vec![], old: Some(vec![V::Int(7)]) };
    let toast =
        Did::Update { row: vec![V::Int(8), V::Nil, V::Int(9)], unchanged: vec![1], old: None };
    publisher
        .transaction(&[("users", moved), ("users", toast), ("users", Did::Delete(vec![V::Int(9)]))])
        .await;
    same(publisher, &path, &["users", "orders"]).await;
    running.stop().await;

    publisher.transaction(&[("orders", Did::Truncate), ("orders", insert(1, "first", 0))]).await;
    let snapshots = publisher.snapshots();
    let running = start(&world.url, &path, &["users", "orders"]).await;
    same(publisher, &path, &["users", "orders"]).await;
    assert_eq!(publisher.snapshots(), snapshots, "it went on without a new snapshot");
    let status = running.status.borrow().clone();
    assert!(status.tables[&Token::parse("orders").unwrap()].changes >= 2);
    running.kill().await;

    // Half a transaction is invisible, even after a kill. A second copy reuses the snapshots.
    let place = publisher.begin_transaction(&[("users", insert(7000, "half", 0))]).await;
    let running = start(&world.url, &path, &["users", "orders"]).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!replica(&path, "users").unwrap().iter().any(|row| row.starts_with("7000")));
    publisher.progress(place).await;
    same(publisher, &path, &["users", "orders"]).await;
    let second = world.dir.path().join("second.db");
    let other = start(&world.url, &second, &["users", "orders"]).await;
    same(publisher, &second, &["users", "orders"]).await;
    assert_eq!(publisher.snapshots(), snapshots, "snapshots that are there are used again");
    other.stop().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dictionaries_are_waited_for_and_parts_joined() {
    let world = world(500).await;
    let (publisher, path) = (&world.publisher, world.path());
    let samples: Vec<String> =
        (0..3000).map(|i| format!("name {i} of user {}", i * 7919)).collect();
    let sizes: Vec<usize> = samples.iter().map(String::len).collect();
    let dictionary = train_dictionary(samples.concat().as_bytes(), &sizes, 8 << 10).unwrap();
    let put = publisher.use_dictionary(dictionary).await;
    publisher.cut_at(100);
    let running = start(&world.url, &path, &["users"]).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(replica(&path, "users"), None, "nothing is skipped without its dictionary");
    put.await;
    same(publisher, &path, &["users"]).await;
    let many: Vec<_> =
        (1000..1200).map(|id| ("users", insert(id, &format!("name {}", id * 31), 5))).collect();
    publisher.transaction(&many).await;
    same(publisher, &path, &["users"]).await;
    let status = running.status.borrow().clone();
    assert_eq!(
        status.tables[&Token::parse("users").unwrap()].dictionary.as_deref(),
        Some("users_dict@1")
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn incomplete_snapshots_are_requested_again() {
    let world = world(350).await;
    let (publisher, path) = (&world.publisher, world.path());
    for spoil in [Spoil::Digest, Spoil::LoseChunk] {
        publisher.spoil_next(spoil);
        let running = start(&world.url, &path, &["users"]).await;
        same(publisher, &path, &["users"]).await;
        running.stop().await;
        publisher.purge_changes().await;
        publisher.transaction(&[("users", set(1, "purged", 0))]).await;
        publisher.purge_changes().await;
    }
    // An interrupted snapshot is superseded by the next.
    publisher.spoil_next(Spoil::BreakOff);
    publisher.snapshot(&Token::parse("users").unwrap()).await;
    let running = start(&world.url, &path, &["users"]).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    publisher.snapshot(&Token::parse("users").unwrap()).await;
    same(publisher, &path, &["users"]).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_changes_mean_loading_again() {
    let world = world(10).await;
    let (publisher, path) = (&world.publisher, world.path());
    let running = start(&world.url, &path, &["users", "orders"]).await;
    same(publisher, &path, &["users", "orders"]).await;
    running.stop().await;
    let snapshots = publisher.snapshots();

    // The stream was purged after all messages were read: nothing is lost.
    publisher.purge_changes().await;
    let running = start(&world.url, &path, &["users", "orders"]).await;
    publisher.transaction(&[("users", set(1, "one", 1))]).await;
    same(publisher, &path, &["users", "orders"]).await;
    assert_eq!(publisher.snapshots(), snapshots);
    running.stop().await;

    publisher.transaction(&[("users", set(2, "two", 2))]).await;
    publisher.purge_changes().await;
    let running = start(&world.url, &path, &["users", "orders"]).await;
    same(publisher, &path, &["users", "orders"]).await;
    assert_eq!(publisher.snapshots(), snapshots + 2);
    running.stop().await;

    publisher.silently("users", &set(3, "three", 3));
    publisher.delete_changes().await;
    let running = start(&world.url, &path, &["users", "orders"]).await;
    same(publisher, &path, &["users", "orders"]).await;
    publisher.transaction(&[("users", set(4, "four", 4))]).await;
    same(publisher, &path, &["users", "orders"]).await;

    // A new epoch begins while the consumer runs.
    publisher.begin_epoch(2).await;
    publisher.silently("orders", &set(5, "five", 5));
    publisher.transaction(&[("users", set(6, "six", 6))]).await;
    same(publisher, &path, &["users", "orders"]).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_may_restart_or_lose_everything() {
    let mut world = world(10).await;
    let path = world.path();
    let running = start(&world.url, &path, &["users", "orders"]).await;
    same(&world.publisher, &path, &["users", "orders"]).await;
    let snapshots = world.publisher.snapshots();
    world.nats.kill9().unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.nats.start_again().unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let publisher = &world.publisher;
    publisher.transaction(&[("users", set(1, "after", 1))]).await;
    same(publisher, &path, &["users", "orders"]).await;
    assert_eq!(publisher.snapshots(), snapshots);

    let schemas = ["users", "orders"].map(|table| publisher.schema(table));
    publisher.wipe().await;
    publisher.begin_epoch(2).await;
    for schema in schemas {
        publisher.put_schema(schema).await;
    }
    publisher.silently("orders", &set(2, "lost", 2));
    same(publisher, &path, &["users", "orders"]).await;
    publisher.transaction(&[("users", set(3, "new", 3))]).await;
    same(publisher, &path, &["users", "orders"]).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemas_change_within_the_stream() {
    let world = world(10).await;
    let (publisher, path) = (&world.publisher, world.path());
    let running = start(&world.url, &path, &["users", "orders"]).await;
    same(publisher, &path, &["users", "orders"]).await;
    let snapshots = publisher.snapshots();

    let mut wider =
        schema("users", &["*id bigint", "full_name text", "balance bigint", "city text"], false);
    wider.columns.swap(1, 2);
    wider.columns.remove(1);
    publisher.put_schema(wider.clone()).await;
    for id in 1..=10 {
        // The column balance is dropped and city is added, in the rows of the source as well.
        let row = vec![V::Int(id), s(&format!("name {id}")), V::Nil];
        publisher.silently("users", &Did::Update { row, unchanged: vec![], old: None });
    }
    let row = vec![V::Int(2), s("b"), s("Bern")];
    publisher.transaction(&[("users", Did::Update { row, unchanged: vec![], old: None })]).await;
    same(publisher, &path, &["users", "orders"]).await;
    assert_eq!(publisher.snapshots(), snapshots, "that took no snapshot");

    // A reseed voids the copy of its table only.
    let mut reseed = publisher.schema("users");
    reseed.columns[2].type_name = "integer".into();
    reseed.columns[2].oid = 23;
    reseed.state = TableState::Reseed;
    reseed.lsn = Lsn(publisher.lsn() + 1);
    publisher.silently("users", &Did::Truncate);
    publisher.silently("users", &Did::Insert(vec![V::Int(1), s("retyped"), V::Int(7)]));
    publisher.transaction(&[("orders", set(1, "x", 1))]).await;
    publisher.put_schema(reseed).await;
    same(publisher, &path, &["users", "orders"]).await;
    assert_eq!(publisher.snapshots(), snapshots + 1);

    // A suspended table keeps its rows.
    let mut suspended = publisher.schema("orders");
    suspended.state = TableState::Suspended;
    suspended.reason = Some("the guest trapped".into());
    publisher.put_schema(suspended).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let status = running.status.borrow().clone();
    let orders = &status.tables[&Token::parse("orders").unwrap()];
    assert_eq!(
        (orders.state, orders.reason.as_deref()),
        (Some(TableState::Suspended), Some("the guest trapped"))
    );
    same(publisher, &path, &["users", "orders"]).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_never_sees_half_a_transaction() {
    let world = world(100).await;
    let (publisher, path) = (world.publisher.clone(), world.path());
    let writer = tokio::spawn({
        let publisher = publisher.clone();
        async move {
            for i in 0..600i64 {
                let (from, to) = (i * 7 % 100 + 1, (i * 13 + 5) % 100 + 1);
                if from == to {
                    continue;
                }
                let balance = |table, id: i64| match &publisher.rows(table)[id as usize - 1][2] {
                    V::Int(balance) => *balance,
                    _ => 0,
                };
                let take = set(from, "a", balance("users", from) - 1);
                let give = set(to, "b", balance("users", to) + 1);
                let both = [("users", take), ("orders", set(1, "audit", i)), ("users", give)];
                publisher.transaction(&both).await;
            }
        }
    });
    let mut sums = Vec::new();
    let mut running = start(&world.url, &path, &["users", "orders"]).await;
    let mut rounds = 0;
    while !writer.is_finished() {
        let sum = || -> Option<i64> {
            let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
            let connection = rusqlite::Connection::open_with_flags(&path, flags).ok()?;
            connection.query_row("SELECT sum(balance) FROM users", [], |row| row.get(0)).ok()
        };
        sums.extend(sum());
        tokio::time::sleep(Duration::from_millis(3)).await;
        rounds += 1;
        if rounds % 60 == 0 {
            running.kill().await;
            running = start(&world.url, &path, &["users", "orders"]).await;
        }
    }
    writer.await.unwrap();
    same(&publisher, &path, &["users", "orders"]).await;
    assert!(sums.len() > 20, "{}", sums.len());
    assert!(sums.iter().all(|sum| *sum == 10_000), "{sums:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_tailed_and_snapshots_requested() {
    let world = world(250).await;
    let publisher = &world.publisher;
    let (names, users) = (StreamNames::default(), Token::parse("users").unwrap());
    let client = publisher.client.clone();
    let changes = tail_changes(
        client.clone(),
        names.clone(),
        vec![users.clone()],
        TailFrom::First,
        Caps::default(),
    );
    let mut changes = Box::pin(changes.await.unwrap());
    publisher.transaction(&[("orders", set(1, "no", 1)), ("users", set(2, "yes", 2))]).await;
    let seen = changes.next().await.unwrap().unwrap();
    let json: Vec<_> =
        seen.decode().unwrap().iter().map(|c| change_json(&seen.schema, c)).collect();
    assert_eq!(json[0]["op"], "update");
    assert_eq!(json[0]["row"]["name"], "yes");
    assert_eq!(json[0]["n"], 2);

    let progress =
        request_snapshot(client.clone(), names.clone(), users, Duration::from_secs(10)).await;
    let progress: Vec<_> = progress.unwrap().map(Result::unwrap).collect().await;
    assert!(matches!(progress[0], SnapshotProgress::Requested));
    assert!(matches!(progress[1], SnapshotProgress::Started { estimated_rows: 250, .. }));
    assert!(
        matches!(progress.last(), Some(SnapshotProgress::Finished(meta)) if meta.row_count == 250)
    );
    let unknown = Token::parse("nobody").unwrap();
    assert!(request_snapshot(client, names, unknown, Duration::from_secs(1)).await.is_err());
}
