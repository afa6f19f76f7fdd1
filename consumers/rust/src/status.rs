//! What a consumer is doing: a snapshot of its status, published at each commit and each chunk.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::watch;
use walgate_wire::{Schema, StreamPosition, TableState, Token};

use crate::state::Checkpoint;

/// What the consumer does with a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TablePhase {
    /// The gateway has not published the table's schema yet, or the table is suspended and there is
    /// no copy.
    #[default]
    Waiting,
    /// A snapshot was requested or is being read.
    Loading,
    /// Changes are applied.
    Live,
}

/// One table. Rows and bytes are counted since the consumer was built.
#[derive(Clone, Debug, Default)]
pub struct TableStatus {
    /// What the consumer does with the table.
    pub phase: TablePhase,
    /// The state that the gateway published; none until the schema was read.
    pub state: Option<TableState>,
    /// Why the table is suspended, dropped or loaded again.
    pub reason: Option<String>,
    /// Rows received in snapshots.
    pub snapshot_rows: u64,
    /// The gateway's estimate of the rows in the snapshot that is being read.
    pub estimated_rows: u64,
    /// Changes applied.
    pub changes: u64,
    /// Bytes of bodies as received.
    pub bytes: u64,
    /// Bytes of bodies after decompression.
    pub raw_bytes: u64,
    /// The dictionary revision of the last message that named one, such as `users_dict@7`.
    pub dictionary: Option<String>,
}

/// The status of all tables and their common position.
#[derive(Clone, Debug, Default)]
pub struct ConsumerStatus {
    /// By the table's token.
    pub tables: BTreeMap<Token, TableStatus>,
    /// The position committed locally; none before the first commit.
    pub position: Option<StreamPosition>,
    /// When the source committed that position; microseconds since 1970.
    pub committed_at: i64,
    /// Local commits since the consumer was built.
    pub commits: u64,
}

#[derive(Debug, Default)]
struct TableCounters {
    snapshot_rows: Arc<AtomicU64>,
    changes: Arc<AtomicU64>,
}

/// Collects the status and publishes it to subscribers.
#[derive(Debug)]
pub(crate) struct StatusPublisher {
    status: ConsumerStatus,
    counters: BTreeMap<Token, TableCounters>,
    sender: watch::Sender<ConsumerStatus>,
}

impl StatusPublisher {
    pub fn new(sender: watch::Sender<ConsumerStatus>, tokens: &[Token]) -> StatusPublisher {
        // The sink may have been opened before: counters continue, phases start over.
        let status = sender.borrow().clone();
        let mut publisher = StatusPublisher { status, counters: BTreeMap::new(), sender };
        for token in tokens {
            let table = publisher.status.tables.entry(token.clone()).or_default();
            table.phase = TablePhase::Waiting;
            let counter = |sum: u64| Arc::new(AtomicU64::new(sum));
            let counters = TableCounters {
                snapshot_rows: counter(table.snapshot_rows),
                changes: counter(table.changes),
            };
            publisher.counters.insert(token.clone(), counters);
        }
        publisher.publish();
        publisher
    }

    /// The counter that decoding of changes increments.
    pub fn change_counter(&mut self, token: &Token) -> Arc<AtomicU64> {
        self.counters.entry(token.clone()).or_default().changes.clone()
    }

    /// The counter that decoding of snapshot rows increments.
    pub fn snapshot_row_counter(&mut self, token: &Token) -> Arc<AtomicU64> {
        self.counters.entry(token.clone()).or_default().snapshot_rows.clone()
    }

    pub fn table_mut(&mut self, token: &Token) -> &mut TableStatus {
        self.status.tables.entry(token.clone()).or_default()
    }

    pub fn add_received(
        &mut self,
        token: &Token,
        bytes: usize,
        raw_bytes: usize,
        dictionary: Option<String>,
    ) {
        let table = self.table_mut(token);
        table.bytes += bytes as u64;
        table.raw_bytes += raw_bytes as u64;
        // A body that is too small for a dictionary names none.
        table.dictionary = dictionary.or(table.dictionary.take());
    }

    pub fn set_schema(&mut self, schema: &Schema) {
        let table = self.table_mut(&schema.token);
        table.state = Some(schema.state);
        table.reason.clone_from(&schema.reason);
    }

    pub fn set_committed(&mut self, checkpoint: Checkpoint) {
        self.status.position =
            Some(StreamPosition { epoch: checkpoint.epoch, position: checkpoint.position });
        self.status.committed_at = checkpoint.at;
        self.status.commits += 1;
        self.publish();
    }

    pub fn commit_count(&self) -> u64 {
        self.status.commits
    }

    pub fn publish(&mut self) {
        for (token, counters) in &self.counters {
            let table = self.status.tables.entry(token.clone()).or_default();
            table.snapshot_rows = counters.snapshot_rows.load(Ordering::Relaxed);
            table.changes = counters.changes.load(Ordering::Relaxed);
        }
        if self.sender.receiver_count() > 0 {
            self.sender.send_replace(self.status.clone());
        }
    }
}
