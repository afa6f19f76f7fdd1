//! Consumers that end during a commit or a load: the stored checkpoint never moves back.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::sync::oneshot;
use walgate_consumer::{
    ChangeBatch, Checkpoint, Consumer, Error, MigrationStep, Sink, SinkError, SnapshotRows,
    SqliteSink, StoredState, TableRecord,
    wire::{Schema, TableState, Token},
};

use crate::{
    flow::{USERS, World, insert, same, set, world},
    hardship::{BOTH, put_state},
    rows::schema,
};

/// A SQLite sink that hangs or fails on demand.
struct FaultySink {
    inner: SqliteSink,
    faults: Arc<SinkFaults>,
}

#[derive(Default)]
struct SinkFaults {
    /// The next commit is made, but its call never returns.
    hang_after_commit: AtomicBool,
    refuse_loads: AtomicBool,
}

impl Sink for FaultySink {
    async fn open(&mut self) -> Result<StoredState, SinkError> {
        self.inner.open().await
    }
    async fn save_records(&mut self, records: Vec<TableRecord>) -> Result<(), SinkError> {
        self.inner.save_records(records).await
    }
    async fn forget_table(&mut self, token: Token) -> Result<(), SinkError> {
        self.inner.forget_table(token).await
    }
    async fn begin_load(&mut self, schema: Arc<Schema>) -> Result<(), SinkError> {
        self.inner.begin_load(schema).await
    }
    async fn load_rows(&mut self, rows: SnapshotRows) -> Result<(), SinkError> {
        self.inner.load_rows(rows).await
    }
    async fn finish_load(
        &mut self,
        schema: Arc<Schema>,
        records: Vec<TableRecord>,
        checkpoint: Checkpoint,
    ) -> Result<(), SinkError> {
        if self.faults.refuse_loads.load(SeqCst) {
            return Err(SinkError::new("the disk", "is full"));
        }
        self.inner.finish_load(schema, records, checkpoint).await
    }
    async fn migrate_table(
        &mut self,
        record: TableRecord,
        steps: Vec<MigrationStep>,
    ) -> Result<(), SinkError> {
        self.inner.migrate_table(record, steps).await
    }
    async fn apply_changes(&mut self, changes: ChangeBatch) -> Result<(), SinkError> {
        self.inner.apply_changes(changes).await
    }
    async fn commit(&mut self, checkpoint: Checkpoint) -> Result<(), SinkError> {
        self.inner.commit(checkpoint).await?;
        if self.faults.hang_after_commit.swap(false, SeqCst) {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
    async fn rollback(&mut self) -> Result<(), SinkError> {
        self.inner.rollback().await
    }
    async fn close(&mut self) -> Result<(), SinkError> {
        self.inner.close().await
    }
}

struct Ending {
    task: tokio::task::JoinHandle<Result<(), Error>>,
    stop: oneshot::Sender<()>,
    faults: Arc<SinkFaults>,
}

async fn start(world: &World) -> Ending {
    let faults = Arc::new(SinkFaults::default());
    let sink = FaultySink { inner: SqliteSink::new(world.path()), faults: faults.clone() };
    let builder = Consumer::builder().nats(world.url.as_str());
    let consumer = builder.table("users").table("orders").sink(sink).build().await.unwrap();
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(async move { consumer.run(async { drop(stopped.await) }).await });
    Ending { task, stop, faults }
}

/// The sequence stored in the file.
fn stored_seq(path: &Path) -> u64 {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = rusqlite::Connection::open_with_flags(path, flags).unwrap();
    let seq: i64 =
        connection.query_row("SELECT seq FROM _walgate_position", [], |row| row.get(0)).unwrap();
    seq as u64
}

/// A transaction of a table that this consumer does not follow: it only sees a progress message.
async fn change_other_table(world: &World) {
    let publisher = &world.publisher;
    publisher.transaction(&[("others", insert(publisher.lsn() as i64, "x", 0))]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_stopped_in_a_commit_stores_nothing_older() {
    let world = world(5).await;
    world.publisher.put_schema(schema("others", &USERS, false)).await;
    let path = world.path();
    let ending = start(&world).await;
    same(&world.publisher, &path, &BOTH).await;
    // Read, but not stored yet.
    change_other_table(&world).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    ending.faults.hang_after_commit.store(true, SeqCst);
    world.publisher.transaction(&[("users", set(1, "committed", 1))]).await;
    same(&world.publisher, &path, &BOTH).await;
    let before = stored_seq(&path);
    // The committed rows are visible a moment before the call hangs.
    while ending.faults.hang_after_commit.load(SeqCst) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    ending.stop.send(()).unwrap();
    ending.task.await.unwrap().unwrap();
    assert_eq!(stored_seq(&path), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_cannot_be_stored_moves_nothing_back() {
    let world = world(5).await;
    let World { publisher, .. } = &world;
    publisher.put_schema(schema("others", &USERS, false)).await;
    put_state(publisher, "orders", TableState::Suspended).await;
    let path = world.path();
    let ending = start(&world).await;
    same(publisher, &path, &["users"]).await;
    // An older snapshot, which the consumer will use.
    publisher.snapshot(&Token::parse("orders").unwrap()).await;
    for n in 0..50 {
        publisher.transaction(&[("users", set(1, "moved on", n))]).await;
    }
    same(publisher, &path, &["users"]).await;
    let before = stored_seq(&path);
    ending.faults.refuse_loads.store(true, SeqCst);
    put_state(publisher, "orders", TableState::Live).await;
    let busy = async {
        loop {
            change_other_table(&world).await;
        }
    };
    let ended = tokio::select! {
        ended = ending.task => ended.unwrap(),
        () = busy => unreachable!(),
    };
    assert!(ended.unwrap_err().to_string().contains("is full"));
    let after = stored_seq(&path);
    assert!(after >= before, "{before} is stored, then {after}");
}
