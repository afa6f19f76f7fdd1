//! What a consumer is doing, for those who watch: a picture that is renewed at each commit and each chunk.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::watch;
use walgate_wire::{Schema, StreamPosition, TableState, Token};

use crate::state::Mark;

/// Where a table stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// The gateway has not published its schema yet, or does not let it flow and there is no copy.
    #[default]
    Waiting,
    /// A snapshot was asked for or is being read.
    Loading,
    /// Changes are applied.
    Live,
}

/// One table. Rows and bytes count from the start of this process.
#[derive(Clone, Debug, Default)]
pub struct TableStatus {
    pub phase: Phase,
    /// As the gateway says; none until its schema was seen.
    pub state: Option<TableState>,
    /// Why it is suspended, dropped or loaded again.
    pub reason: Option<String>,
    /// Rows of snapshots.
    pub snapshot_rows: u64,
    /// What the gateway estimated for the snapshot that is being read.
    pub estimated_rows: u64,
    /// Changes that were applied.
    pub changes: u64,
    /// Bytes of bodies as sent and after decompression.
    pub bytes: u64,
    pub raw_bytes: u64,
    /// `users_dict@7`: what the last message that had one named.
    pub dictionary: Option<String>,
}

/// All tables and the position they have in common.
#[derive(Clone, Debug, Default)]
pub struct Status {
    pub tables: BTreeMap<Token, TableStatus>,
    /// Committed locally.
    pub position: Option<StreamPosition>,
    /// When the source committed that, microseconds since 1970.
    pub committed_at: i64,
    /// Local commits since the start.
    pub commits: u64,
}

#[derive(Debug, Default)]
struct Counters {
    snapshot_rows: Arc<AtomicU64>,
    changes: Arc<AtomicU64>,
}

/// Gathers and publishes.
#[derive(Debug)]
pub(crate) struct Board {
    status: Status,
    counters: BTreeMap<Token, Counters>,
    sender: watch::Sender<Status>,
}

impl Board {
    pub fn new(sender: watch::Sender<Status>, tokens: &[Token]) -> Board {
        // The sink may have been opened before: what was counted goes on, where tables stand is seen anew.
        let status = sender.borrow().clone();
        let mut board = Board { status, counters: BTreeMap::new(), sender };
        for token in tokens {
            let table = board.status.tables.entry(token.clone()).or_default();
            table.phase = Phase::Waiting;
            let counted = |sum: u64| Arc::new(AtomicU64::new(sum));
            let counters = Counters {
                snapshot_rows: counted(table.snapshot_rows),
                changes: counted(table.changes),
            };
            board.counters.insert(token.clone(), counters);
        }
        board.publish();
        board
    }

    /// To be counted up where changes are decoded.
    pub fn changes(&mut self, token: &Token) -> Arc<AtomicU64> {
        self.counters.entry(token.clone()).or_default().changes.clone()
    }

    /// To be counted up where rows are decoded.
    pub fn snapshot_rows(&mut self, token: &Token) -> Arc<AtomicU64> {
        self.counters.entry(token.clone()).or_default().snapshot_rows.clone()
    }

    pub fn table(&mut self, token: &Token) -> &mut TableStatus {
        self.status.tables.entry(token.clone()).or_default()
    }

    pub fn received(
        &mut self,
        token: &Token,
        bytes: usize,
        raw_bytes: usize,
        dictionary: Option<String>,
    ) {
        let table = self.table(token);
        table.bytes += bytes as u64;
        table.raw_bytes += raw_bytes as u64;
        // A body that is too small to gain by one names none.
        table.dictionary = dictionary.or(table.dictionary.take());
    }

    pub fn schema(&mut self, schema: &Schema) {
        let table = self.table(&schema.token);
        table.state = Some(schema.state);
        table.reason.clone_from(&schema.reason);
    }

    pub fn committed(&mut self, mark: Mark) {
        self.status.position = Some(StreamPosition { epoch: mark.epoch, position: mark.position });
        self.status.committed_at = mark.at;
        self.status.commits += 1;
        self.publish();
    }

    pub fn commits(&self) -> u64 {
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
