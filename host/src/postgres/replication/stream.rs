//! The change stream: replication frames → events in commit order, for a session of `cdc`.
//!
//! I/O only. The pure [`batcher`](super::batcher) interprets the frames. The stream publishes
//! nothing and confirms nothing: the session's feedback loop owns the other half of the connection.

pub use super::batcher::{Event, RelationChange};

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use walgate_wire::Position;

use super::{
    batcher::TransactionBatcher,
    client::{Frame, FrameReader},
    pgoutput::decode,
};
use crate::{
    postgres::PostgresError,
    rows::{TableVersion, batch::RowBatch},
};

/// Raw tuple bytes at which a batch is cut; one row may exceed it.
const BATCH_BYTES: usize = 256 << 10;
/// How long the socket must be empty before the stream counts as idle. Usually Postgres announces
/// that itself with a keepalive, and the stream does not wait.
const LINGER: Duration = Duration::from_millis(2);

/// The reading half of a replication connection, as events.
pub struct ChangeStream {
    reader: FrameReader,
    batcher: TransactionBatcher,
    /// Whether [`Event::Idle`] was emitted since the last frame.
    idle_emitted: bool,
}

impl ChangeStream {
    /// Changes and commits up to and including `resume` are published already, and are skipped.
    pub fn new(reader: FrameReader, resume: Position) -> Self {
        ChangeStream {
            reader,
            batcher: TransactionBatcher::new(resume, BATCH_BYTES),
            idle_emitted: true,
        }
    }

    /// The answer to [`Event::Relation`]: the version that decodes the relation's rows, or `None`
    /// to skip them.
    pub fn set_table(&mut self, relid: u32, table: Option<Arc<TableVersion>>) {
        self.batcher.set_table(relid, table);
    }

    /// Replaces the version of the relation's rows, also of rows that were received already. For
    /// alterations that no Relation message announces.
    pub fn replace_table_version(&mut self, table: &Arc<TableVersion>) {
        self.batcher.replace_table_version(table);
    }

    /// Returns a batch's buffers for reuse.
    pub fn recycle(&mut self, batch: RowBatch) {
        self.batcher.recycle(batch);
    }

    /// Whether every received transaction is complete and was emitted.
    pub fn is_between_transactions(&self) -> bool {
        self.batcher.is_empty()
    }

    /// The next event. Safe to cancel: buffered changes stay.
    pub async fn next(&mut self) -> Result<Event, PostgresError> {
        loop {
            if let Some(event) = self.batcher.pop_event() {
                return Ok(event);
            }
            if !self.take_frame()? && !self.reader.fill_now()? {
                self.wait_for_frame().await?;
            }
        }
    }

    /// Handles one frame that was received already. False if there is none.
    fn take_frame(&mut self) -> Result<bool, PostgresError> {
        match self.reader.try_next()? {
            Some(Frame::Data(bytes)) => {
                self.idle_emitted = false;
                self.batcher.accept(decode(bytes)?)?;
            }
            Some(Frame::KeepAlive { wal_end, reply_requested }) => {
                // Outside a transaction a keepalive means that Postgres has nothing more to send.
                if self.batcher.add_keepalive(wal_end, reply_requested) && !self.idle_emitted {
                    self.idle_emitted = true;
                    self.batcher.add_idle();
                }
            }
            None => return Ok(false),
        }
        Ok(true)
    }

    async fn wait_for_frame(&mut self) -> Result<(), PostgresError> {
        if self.idle_emitted || self.batcher.in_transaction() {
            return self.reader.fill().await;
        }
        match timeout(LINGER, self.reader.fill()).await {
            Ok(filled) => filled,
            Err(_) => {
                self.idle_emitted = true;
                self.batcher.add_idle();
                Ok(())
            }
        }
    }
}
