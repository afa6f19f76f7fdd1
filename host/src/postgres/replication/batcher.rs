//! Messages → events: collects rows of one table into batches, and assigns positions.
//!
//! Pure: no socket, no clock. A batch ends when the table changes, when it is full, or when
//! Postgres pauses. A batch that spans a commit is split there. So every batch is followed by the
//! commit that it reaches up to, and the order of events is the order of positions.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use walgate_wire::{Lsn, Position};

use super::pgoutput::{Message, Relation};
use crate::{
    postgres::PostgresError,
    rows::{
        OldTuple, TableVersion, Tuple,
        batch::{Mark, Op, RowBatch, TxnMark},
    },
};

/// What a session receives, in commit order.
#[derive(Debug)]
pub enum Event {
    Rows(RowBatch),
    /// All rows up to here were emitted. A commit is omitted if a later one follows without rows in
    /// between.
    Commit {
        /// Its ordinal is the number of the transaction's changes + 1.
        position: Position,
        /// The position to confirm once everything before it is durable.
        end_lsn: Lsn,
        at_micros: i64,
    },
    /// Outside a transaction only: no change below `wal_end` follows.
    KeepAlive {
        wal_end: Lsn,
        reply_requested: bool,
    },
    /// Postgres has nothing more to send at present: the session should publish what it holds.
    Idle,
    /// Rows of the relation follow in this shape. The session must call `set_table` before the next
    /// event.
    Relation(RelationChange),
}

/// A Relation message and its position.
#[derive(Clone, Debug)]
pub struct RelationChange {
    pub relation: Relation,
    /// Commit LSN of its transaction.
    pub lsn: Lsn,
}

/// How the rows of an announced relation are treated.
enum RelationState {
    /// The session has not answered yet.
    Announced,
    Wanted(Arc<TableVersion>),
    NotConfigured,
}

struct Transaction {
    mark: TxnMark,
    /// Changes so far.
    changes: u32,
}

#[derive(Clone, Copy)]
struct Committed {
    position: Position,
    end_lsn: Lsn,
    at_micros: i64,
}

/// Collects the changes of transactions into batches of rows.
pub struct TransactionBatcher {
    tables: HashMap<u32, RelationState>,
    transaction: Option<Transaction>,
    batch: Option<RowBatch>,
    /// Where the last commit is in `batch`, if rows of a later transaction may follow it there.
    committed_at: Option<Mark>,
    /// The last commit that was not emitted.
    committed: Option<Committed>,
    events: VecDeque<Event>,
    spare: Vec<RowBatch>,
    resume: Position,
    batch_bytes: usize,
}

/// Buffers kept for reuse.
const SPARE_BATCHES_MAX: usize = 2;

impl TransactionBatcher {
    pub fn new(resume: Position, batch_bytes: usize) -> Self {
        TransactionBatcher {
            tables: HashMap::new(),
            transaction: None,
            batch: None,
            committed_at: None,
            committed: None,
            events: VecDeque::new(),
            spare: vec![],
            resume,
            batch_bytes,
        }
    }

    pub fn pop_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub fn in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// Whether no change is buffered and no transaction has begun.
    pub fn is_empty(&self) -> bool {
        let nothing = self.batch.as_ref().is_none_or(RowBatch::is_empty);
        nothing && self.events.is_empty() && !self.in_transaction()
    }

    /// Also starts or ends a suspension in mid-stream. Buffered rows of the relation are emitted as
    /// they were collected.
    pub fn set_table(&mut self, relid: u32, table: Option<Arc<TableVersion>>) {
        if self.batch.as_ref().is_some_and(|batch| batch.table.relid == relid) {
            self.flush();
        }
        self.tables
            .insert(relid, table.map_or(RelationState::NotConfigured, RelationState::Wanted));
    }

    /// Also replaces the version of buffered and of emitted rows.
    pub fn replace_table_version(&mut self, table: &Arc<TableVersion>) {
        let emitted = self.events.iter_mut().filter_map(|event| match event {
            Event::Rows(batch) => Some(batch),
            _ => None,
        });
        let batches = emitted.chain(&mut self.batch);
        for batch in batches.filter(|batch| batch.table.relid == table.relid) {
            batch.table = Arc::clone(table);
        }
        self.tables.insert(table.relid, RelationState::Wanted(Arc::clone(table)));
    }

    pub fn recycle(&mut self, batch: RowBatch) {
        if self.spare.len() < SPARE_BATCHES_MAX {
            self.spare.push(batch);
        }
    }

    pub fn accept(&mut self, message: Message<'_>) -> Result<(), PostgresError> {
        match message {
            Message::Insert { relid, new } => self.add_change(relid, Op::Insert, Some(new), None),
            Message::Update { relid, old, new } => {
                self.add_change(relid, Op::Update, Some(new), old)
            }
            Message::Delete { relid, old } => self.add_change(relid, Op::Delete, None, Some(old)),
            Message::Truncate(truncated) => truncated
                .relids()
                .try_for_each(|relid| self.add_change(relid, Op::Truncate, None, None)),
            Message::Begin { final_lsn, at_micros, xid } => {
                let mark = TxnMark { lsn: final_lsn, xid, at_micros };
                match self.transaction.replace(Transaction { mark, changes: 0 }) {
                    None => Ok(()),
                    Some(_) => {
                        Err(PostgresError::Protocol("a transaction began inside another".into()))
                    }
                }
            }
            Message::Commit { commit_lsn, end_lsn, at_micros } => {
                self.end_transaction(commit_lsn, end_lsn, at_micros)
            }
            Message::Relation(relation) => self.announce(relation),
            Message::Other => Ok(()),
        }
    }

    /// Inside a transaction a keepalive is ignored, and the result is false.
    pub fn add_keepalive(&mut self, wal_end: Lsn, reply_requested: bool) -> bool {
        if self.in_transaction() {
            return false;
        }
        self.flush();
        self.events.push_back(Event::KeepAlive { wal_end, reply_requested });
        true
    }

    /// Postgres pauses outside a transaction.
    pub fn add_idle(&mut self) {
        self.flush();
        self.events.push_back(Event::Idle);
    }

    fn add_change(
        &mut self,
        relid: u32,
        op: Op,
        new: Option<Tuple<'_>>,
        old: Option<OldTuple<'_>>,
    ) -> Result<(), PostgresError> {
        let Some(transaction) = &mut self.transaction else {
            return Err(PostgresError::Protocol("a change outside a transaction".into()));
        };
        transaction.changes = transaction.changes.checked_add(1).ok_or_else(|| {
            PostgresError::Protocol("a transaction of more than 2^32 changes".into())
        })?;
        let (mark, ordinal) = (transaction.mark, transaction.changes);
        if Position::new(mark.lsn, ordinal) <= self.resume {
            return Ok(());
        }
        if self.batch.as_ref().is_none_or(|batch| batch.table.relid != relid)
            && !self.switch_table(relid)?
        {
            return Ok(());
        }
        let Some(batch) = &mut self.batch else { return Ok(()) };
        batch.push_change(mark, ordinal, op, new, old)?;
        if batch.raw_bytes() >= self.batch_bytes {
            self.flush_when_full();
        }
        Ok(())
    }

    /// Ends the batch and begins one of the relation. False if the session does not want its rows.
    fn switch_table(&mut self, relid: u32) -> Result<bool, PostgresError> {
        let table = match self.tables.get(&relid) {
            Some(RelationState::Wanted(table)) => table.clone(),
            Some(RelationState::NotConfigured) => return Ok(false),
            Some(RelationState::Announced) => {
                return Err(PostgresError::Protocol(format!(
                    "relation {relid} was announced and not answered for"
                )));
            }
            None => {
                return Err(PostgresError::Protocol(format!(
                    "a row of relation {relid}, which was never announced"
                )));
            }
        };
        self.flush();
        self.begin_batch(table);
        Ok(true)
    }

    fn begin_batch(&mut self, table: Arc<TableVersion>) {
        self.batch = Some(match self.spare.pop() {
            Some(mut spare) => {
                spare.clear(table);
                spare
            }
            None => RowBatch::new(table),
        });
    }

    fn end_transaction(
        &mut self,
        commit_lsn: Lsn,
        end_lsn: Lsn,
        at_micros: i64,
    ) -> Result<(), PostgresError> {
        let Some(transaction) = self.transaction.take() else {
            return Err(PostgresError::Protocol("a commit outside a transaction".into()));
        };
        if transaction.mark.lsn != commit_lsn {
            return Err(PostgresError::Protocol(format!(
                "the transaction that was to commit at {} committed at {commit_lsn}",
                transaction.mark.lsn
            )));
        }
        let position = Position::new(commit_lsn, transaction.changes.saturating_add(1));
        if position > self.resume {
            self.committed = Some(Committed { position, end_lsn, at_micros });
            self.committed_at = self.batch.as_ref().map(RowBatch::mark);
        }
        Ok(())
    }

    fn announce(&mut self, relation: Relation) -> Result<(), PostgresError> {
        let Some(transaction) = &self.transaction else {
            return Err(PostgresError::Protocol("a relation outside a transaction".into()));
        };
        let lsn = transaction.mark.lsn;
        self.flush();
        self.tables.insert(relation.relid, RelationState::Announced);
        self.events.push_back(Event::Relation(RelationChange { relation, lsn }));
        Ok(())
    }

    /// Emits the batch, split at the commit inside it if there is one.
    fn flush(&mut self) {
        self.flush_to_commit();
        if let Some(batch) = self.batch.take() {
            self.emit(batch);
        }
    }

    fn emit(&mut self, batch: RowBatch) {
        if batch.is_empty() {
            self.recycle(batch);
        } else {
            self.events.push_back(Event::Rows(batch));
        }
    }

    /// Emits a full batch. Rows after a commit inside it stay in the batch.
    fn flush_when_full(&mut self) {
        let Some(table) = self.batch.as_ref().map(|batch| batch.table.clone()) else { return };
        if self.committed.is_none() {
            self.flush();
        } else {
            self.flush_to_commit();
        }
        if self.batch.is_none() {
            self.begin_batch(table);
        }
    }

    /// Emits the rows up to the last commit, and the commit.
    fn flush_to_commit(&mut self) {
        let Some(Committed { position, end_lsn, at_micros }) = self.committed.take() else {
            return;
        };
        let mark = self.committed_at.take();
        if let Some(mut batch) = self.batch.take() {
            self.batch = mark.and_then(|mark| batch.split_off(mark));
            self.emit(batch);
        }
        self.events.push_back(Event::Commit { position, end_lsn, at_micros });
    }
}

#[cfg(test)]
#[path = "batcher_tests.rs"]
mod tests;
