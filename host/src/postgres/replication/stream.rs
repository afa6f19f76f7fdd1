//! The change stream: replication frames → events in commit order, for the gateway's changes loop.
//!
//! I/O only; what frames mean is gathered by [`gather`], which is pure. It does not publish, and it confirms
//! nothing: the feedback half of the connection is somebody else's.

pub use super::batcher::{Event, Gatherer, RelationChange};

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use walgate_wire::Position;

use crate::{
    postgres::{
        PostgresError,
        replication::{
            client::{Frame, FrameReader},
            pgoutput::decode,
        },
    },
    rows::TableVersion,
};

/// Raw tuple bytes at which a batch is cut; one row may exceed it.
const BATCH_BYTES: usize = 256 << 10;
/// How long the socket has to be empty before that counts as "nothing more to say". Postgres usually says so itself,
/// with a keepalive, and then nothing is waited for.
const LINGER: Duration = Duration::from_millis(2);

pub struct ChangeStream {
    reader: FrameReader,
    gatherer: Gatherer,
    /// Whether [`Event::Idle`] was told since the last frame.
    idle_told: bool,
}

impl ChangeStream {
    /// Changes and commits up to and including `resume` are in the stream already and are skipped.
    pub fn new(reader: FrameReader, resume: Position) -> Self {
        ChangeStream { reader, gatherer: Gatherer::new(resume, BATCH_BYTES), idle_told: true }
    }

    /// The answer to [`Event::Relation`]: how to read the relation's rows, or that they are not wanted.
    pub fn set_table(&mut self, relid: u32, table: Option<Arc<TableVersion>>) {
        self.gatherer.set_table(relid, table);
    }

    /// Rows of the relation have this shape, also those that were received already: nothing announced it.
    pub fn retype(&mut self, table: &Arc<TableVersion>) {
        self.gatherer.retype(table);
    }

    /// Gives a batch's buffers back for reuse.
    pub fn recycle(&mut self, batch: crate::rows::batch::RowBatch) {
        self.gatherer.recycle(batch);
    }

    /// Whether everything that was received of a transaction was told, to its end.
    pub fn is_between_transactions(&self) -> bool {
        self.gatherer.is_empty()
    }

    /// The next event. Safe to cancel: what was gathered stays.
    pub async fn next(&mut self) -> Result<Event, PostgresError> {
        loop {
            if let Some(event) = self.gatherer.pop() {
                return Ok(event);
            }
            if !self.take_frame()? && !self.reader.fill_now()? {
                self.wait().await?;
            }
        }
    }

    /// Gathers one frame that is here already; false if there is none.
    fn take_frame(&mut self) -> Result<bool, PostgresError> {
        match self.reader.try_next()? {
            Some(Frame::Data(bytes)) => {
                self.idle_told = false;
                self.gatherer.accept(decode(bytes)?)?;
            }
            Some(Frame::KeepAlive { wal_end, reply_requested }) => {
                // A keepalive outside a transaction is Postgres saying that it has nothing more.
                if self.gatherer.keepalive(wal_end, reply_requested) && !self.idle_told {
                    self.idle_told = true;
                    self.gatherer.idle();
                }
            }
            None => return Ok(false),
        }
        Ok(true)
    }

    async fn wait(&mut self) -> Result<(), PostgresError> {
        if self.idle_told || self.gatherer.in_transaction() {
            return self.reader.fill().await;
        }
        match timeout(LINGER, self.reader.fill()).await {
            Ok(filled) => filled,
            Err(_) => {
                self.idle_told = true;
                self.gatherer.idle();
                Ok(())
            }
        }
    }
}
