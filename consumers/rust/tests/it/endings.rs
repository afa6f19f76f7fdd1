//! Consumers that end in the middle of something: what is stored is never older than what was stored before.

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
    Changes, Consumer, Error, Mark, Rows, Sink, SinkError, SqliteSink, Step, Stored, TableRecord,
    wire::{Schema, TableState, Token},
};

use crate::{
    flow::{USERS, World, insert, same, set, world},
    hardship::{BOTH, put_state},
    rows::schema,
};

/// An SQLite file that does not answer, or fails, when it is told to.
struct Awkward {
    inner: SqliteSink,
    whims: Arc<Whims>,
}

#[derive(Default)]
struct Whims {
    /// The next commit is done, but never says so.
    hang_after_commit: AtomicBool,
    refuse_loads: AtomicBool,
}

impl Sink for Awkward {
    async fn open(&mut self) -> Result<Stored, SinkError> {
        self.inner.open().await
    }
    async fn save(&mut self, records: Vec<TableRecord>) -> Result<(), SinkError> {
        self.inner.save(records).await
    }
    async fn forget(&mut self, token: Token) -> Result<(), SinkError> {
        self.inner.forget(token).await
    }
    async fn begin_load(&mut self, schema: Arc<Schema>) -> Result<(), SinkError> {
        self.inner.begin_load(schema).await
    }
    async fn load(&mut self, rows: Rows) -> Result<(), SinkError> {
        self.inner.load(rows).await
    }
    async fn finish_load(
        &mut self,
        schema: Arc<Schema>,
        records: Vec<TableRecord>,
        mark: Mark,
    ) -> Result<(), SinkError> {
        if self.whims.refuse_loads.load(SeqCst) {
            return Err(SinkError::new("the disk", "is full"));
        }
        self.inner.finish_load(schema, records, mark).await
    }
    async fn migrate(&mut self, record: TableRecord, steps: Vec<Step>) -> Result<(), SinkError> {
        self.inner.migrate(record, steps).await
    }
    async fn apply(&mut self, changes: Changes) -> Result<(), SinkError> {
        self.inner.apply(changes).await
    }
    async fn commit(&mut self, mark: Mark) -> Result<(), SinkError> {
        self.inner.commit(mark).await?;
        if self.whims.hang_after_commit.swap(false, SeqCst) {
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
    whims: Arc<Whims>,
}

async fn start(world: &World) -> Ending {
    let whims = Arc::new(Whims::default());
    let sink = Awkward { inner: SqliteSink::new(world.path()), whims: whims.clone() };
    let builder = Consumer::builder().nats(world.url.as_str());
    let consumer = builder.table("users").table("orders").sink(sink).build().await.unwrap();
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(async move { consumer.run(async { drop(stopped.await) }).await });
    Ending { task, stop, whims }
}

/// The sequence that is stored in the file.
fn stored_seq(path: &Path) -> u64 {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = rusqlite::Connection::open_with_flags(path, flags).unwrap();
    let seq: i64 =
        connection.query_row("SELECT seq FROM _walgate_position", [], |row| row.get(0)).unwrap();
    seq as u64
}

/// Of a table that this consumer does not follow: what it sees of it is progress.
async fn others_business(world: &World) {
    let publisher = &world.publisher;
    publisher.transaction(&[("others", insert(publisher.lsn() as i64, "x", 0))]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_in_a_commit_it_stores_nothing_older() {
    let world = world(5).await;
    world.publisher.put_schema(schema("others", &USERS, false)).await;
    let path = world.path();
    let ending = start(&world).await;
    same(&world.publisher, &path, &BOTH).await;
    // Read and not stored yet.
    others_business(&world).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    ending.whims.hang_after_commit.store(true, SeqCst);
    world.publisher.transaction(&[("users", set(1, "committed", 1))]).await;
    same(&world.publisher, &path, &BOTH).await;
    let before = stored_seq(&path);
    // What is committed is seen a moment before it hangs.
    while ending.whims.hang_after_commit.load(SeqCst) {
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
    // A snapshot from before all this, which will be used.
    publisher.snapshot(&Token::parse("orders").unwrap()).await;
    for n in 0..50 {
        publisher.transaction(&[("users", set(1, "moved on", n))]).await;
    }
    same(publisher, &path, &["users"]).await;
    let before = stored_seq(&path);
    ending.whims.refuse_loads.store(true, SeqCst);
    put_state(publisher, "orders", TableState::Live).await;
    let busy = async {
        loop {
            others_business(&world).await;
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
