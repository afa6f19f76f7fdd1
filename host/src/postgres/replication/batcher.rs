//! Messages → events: rows of one table are gathered into batches, everything gets its position.
//!
//! Pure: no socket, no clock. A batch ends where the table changes, where it is full, or where Postgres pauses;
//! if it spans a commit it is cut there, so that every batch is followed by the commit it reaches up to and the
//! order of events is the order of positions.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use walgate_wire::{Lsn, Position};

use crate::{
    postgres::{
        PostgresError,
        replication::pgoutput::{Message, Relation},
    },
    rows::{
        OldTuple, TableVersion, Tuple,
        batch::{Mark, Op, RowBatch, TxnMark},
    },
};

/// What the gateway's changes loop is told, in commit order.
#[derive(Debug)]
pub enum Event {
    Rows(RowBatch),
    /// Everything up to here was told. Commits are left out when a later one follows without rows between.
    Commit {
        /// Its ordinal is the number of the transaction's changes + 1.
        position: Position,
        /// What may be confirmed once everything before is durable.
        end_lsn: Lsn,
        at_micros: i64,
    },
    /// Outside a transaction only: nothing below `wal_end` is still to come.
    KeepAlive {
        wal_end: Lsn,
        reply_requested: bool,
    },
    /// Postgres has nothing more to say for the moment: what is gathered should go out.
    Idle,
    /// The relation's rows are about to follow in this shape: answer with `set_table` before the next event.
    Relation(RelationChange),
}

/// A Relation message and where it stands.
#[derive(Clone, Debug)]
pub struct RelationChange {
    pub relation: Relation,
    /// Of the transaction that it arrived in.
    pub lsn: Lsn,
}

enum Table {
    /// Announced, not answered yet.
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

pub struct Gatherer {
    tables: HashMap<u32, Table>,
    transaction: Option<Transaction>,
    batch: Option<RowBatch>,
    /// Where in `batch` the last commit stands, if rows of a later transaction may follow it there.
    committed_at: Option<Mark>,
    /// The last commit that was not told.
    committed: Option<Committed>,
    events: VecDeque<Event>,
    spare: Vec<RowBatch>,
    resume: Position,
    batch_bytes: usize,
}

/// Buffers kept for reuse.
const SPARE_BATCHES_MAX: usize = 2;

impl Gatherer {
    pub fn new(resume: Position, batch_bytes: usize) -> Self {
        Gatherer {
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

    pub fn pop(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub fn in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// Whether nothing is gathered that was not told, and no transaction has begun.
    pub fn is_empty(&self) -> bool {
        let nothing = self.batch.as_ref().is_none_or(RowBatch::is_empty);
        nothing && self.events.is_empty() && !self.in_transaction()
    }

    /// Also lifts or imposes a suspension in mid-stream: what is gathered of the relation is told as it was.
    pub fn set_table(&mut self, relid: u32, table: Option<Arc<TableVersion>>) {
        if self.batch.as_ref().is_some_and(|batch| batch.table.relid == relid) {
            self.cut();
        }
        self.tables.insert(relid, table.map_or(Table::NotConfigured, Table::Wanted));
    }

    /// Rows that are gathered or told already are of this shape, too.
    pub fn retype(&mut self, table: &Arc<TableVersion>) {
        let told = self.events.iter_mut().filter_map(|event| match event {
            Event::Rows(batch) => Some(batch),
            _ => None,
        });
        let batches = told.chain(&mut self.batch);
        for batch in batches.filter(|batch| batch.table.relid == table.relid) {
            batch.table = Arc::clone(table);
        }
        self.tables.insert(table.relid, Table::Wanted(Arc::clone(table)));
    }

    pub fn recycle(&mut self, batch: RowBatch) {
        if self.spare.len() < SPARE_BATCHES_MAX {
            self.spare.push(batch);
        }
    }

    pub fn accept(&mut self, message: Message<'_>) -> Result<(), PostgresError> {
        match message {
            Message::Insert { relid, new } => self.change(relid, Op::Insert, Some(new), None),
            Message::Update { relid, old, new } => self.change(relid, Op::Update, Some(new), old),
            Message::Delete { relid, old } => self.change(relid, Op::Delete, None, Some(old)),
            Message::Truncate(truncated) => truncated
                .relids()
                .try_for_each(|relid| self.change(relid, Op::Truncate, None, None)),
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
                self.commit(commit_lsn, end_lsn, at_micros)
            }
            Message::Relation(relation) => self.relation(relation),
            Message::Other => Ok(()),
        }
    }

    /// A keepalive; false (and of no meaning) inside a transaction.
    pub fn keepalive(&mut self, wal_end: Lsn, reply_requested: bool) -> bool {
        if self.in_transaction() {
            return false;
        }
        self.cut();
        self.events.push_back(Event::KeepAlive { wal_end, reply_requested });
        true
    }

    /// Postgres pauses, outside a transaction.
    pub fn idle(&mut self) {
        self.cut();
        self.events.push_back(Event::Idle);
    }

    fn change(
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
            && !self.switch(relid)?
        {
            return Ok(());
        }
        let Some(batch) = &mut self.batch else { return Ok(()) };
        batch.push_change(mark, ordinal, op, new, old)?;
        if batch.raw_bytes() >= self.batch_bytes {
            self.cut_when_full();
        }
        Ok(())
    }

    /// Ends the batch and begins one of the relation; false if its rows are not wanted.
    fn switch(&mut self, relid: u32) -> Result<bool, PostgresError> {
        let table = match self.tables.get(&relid) {
            Some(Table::Wanted(table)) => table.clone(),
            Some(Table::NotConfigured) => return Ok(false),
            Some(Table::Announced) => {
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
        self.cut();
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

    fn commit(
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

    fn relation(&mut self, relation: Relation) -> Result<(), PostgresError> {
        let Some(transaction) = &self.transaction else {
            return Err(PostgresError::Protocol("a relation outside a transaction".into()));
        };
        let lsn = transaction.mark.lsn;
        self.cut();
        self.tables.insert(relation.relid, Table::Announced);
        self.events.push_back(Event::Relation(RelationChange { relation, lsn }));
        Ok(())
    }

    /// Ends the batch, at the commit inside it if there is one; then tells what is left of it.
    fn cut(&mut self) {
        self.cut_at_commit();
        if let Some(batch) = self.batch.take() {
            self.tell(batch);
        }
    }

    fn tell(&mut self, batch: RowBatch) {
        if batch.is_empty() {
            self.recycle(batch);
        } else {
            self.events.push_back(Event::Rows(batch));
        }
    }

    /// Rows after the commit inside the batch, if there is one, go on being gathered.
    fn cut_when_full(&mut self) {
        let Some(table) = self.batch.as_ref().map(|batch| batch.table.clone()) else { return };
        if self.committed.is_none() {
            self.cut();
        } else {
            self.cut_at_commit();
        }
        if self.batch.is_none() {
            self.begin_batch(table);
        }
    }

    /// Tells the rows up to the last commit, and the commit.
    fn cut_at_commit(&mut self) {
        let Some(Committed { position, end_lsn, at_micros }) = self.committed.take() else {
            return;
        };
        let mark = self.committed_at.take();
        if let Some(mut batch) = self.batch.take() {
            self.batch = mark.and_then(|mark| batch.split_off(mark));
            self.tell(batch);
        }
        self.events.push_back(Event::Commit { position, end_lsn, at_micros });
    }
}

#[cfg(test)]
#[path = "batcher_tests.rs"]
mod tests;
