//! A sink that keeps only samples: rows of a snapshot, each as the message that would insert it.

use std::sync::Arc;

use tokio::sync::mpsc;
use walgate_consumer::{
    ChangeBatch, Checkpoint, MigrationStep, Sink, SinkError, SnapshotRows, StoredState, TableRecord,
};
use walgate_wire::{ChangeWriter, Lsn, Schema, Token, Value};

use crate::commands::train::samples::{Samples, Thinned};

/// The start of invented transactions and the distance between them, as in the log of a busy
/// server.
const FIRST_LSN: u64 = 0x16_B374_D848;
const LSN_STEP: u64 = 0x1A8;
const FIRST_XID: u32 = 1_204_711;
const AT_STEP_MICROS: i64 = 3_217_411;

/// Rows of one snapshot.
#[derive(Debug)]
pub struct Sampled {
    /// The number of rows in the table.
    pub rows: u64,
    pub samples: Samples,
}

#[derive(Debug)]
pub struct Sampler {
    bytes_max: usize,
    thinned: Thinned,
    done: mpsc::Sender<Sampled>,
    begun_at: i64,
}

impl Sampler {
    pub fn new(bytes_max: usize, done: mpsc::Sender<Sampled>) -> Self {
        let begun_at = jiff::Timestamp::now().as_microsecond();
        Sampler { bytes_max, thinned: Thinned::new(bytes_max), done, begun_at }
    }

    fn take(&mut self, row: &[Value<'_>]) {
        if !self.thinned.wants_next() {
            return;
        }
        let number = self.thinned.seen();
        let mut writer = ChangeWriter::default();
        let at = self.begun_at + AT_STEP_MICROS.wrapping_mul(number as i64);
        writer.transaction(
            Lsn(FIRST_LSN + LSN_STEP * number),
            FIRST_XID.wrapping_add(number as u32),
            at,
        );
        writer.insert(1);
        Value::pack_row(row, &mut writer.out);
        self.thinned.push(&writer.out);
    }
}

impl Sink for Sampler {
    async fn open(&mut self) -> Result<StoredState, SinkError> {
        Ok(StoredState::default())
    }

    async fn begin_load(&mut self, _: Arc<Schema>) -> Result<(), SinkError> {
        self.thinned = Thinned::new(self.bytes_max);
        Ok(())
    }

    async fn load_rows(&mut self, rows: SnapshotRows) -> Result<(), SinkError> {
        let chunk = rows
            .decode()
            .map_err(|e| SinkError::new(format!("a chunk of {}", rows.schema.table), e))?;
        chunk.into_rows().for_each(|row| self.take(&row));
        Ok(())
    }

    async fn finish_load(
        &mut self,
        _: Arc<Schema>,
        _: Vec<TableRecord>,
        _: Checkpoint,
    ) -> Result<(), SinkError> {
        let thinned = std::mem::replace(&mut self.thinned, Thinned::new(self.bytes_max));
        let sampled = Sampled { rows: thinned.seen(), samples: thinned.into_samples() };
        // The receiver is gone: the result is no longer needed.
        let _ = self.done.send(sampled).await;
        Ok(())
    }

    async fn save_records(&mut self, _: Vec<TableRecord>) -> Result<(), SinkError> {
        Ok(())
    }

    async fn forget_table(&mut self, _: Token) -> Result<(), SinkError> {
        Ok(())
    }

    async fn migrate_table(
        &mut self,
        _: TableRecord,
        _: Vec<MigrationStep>,
    ) -> Result<(), SinkError> {
        Ok(())
    }

    async fn apply_changes(&mut self, _: ChangeBatch) -> Result<(), SinkError> {
        Ok(())
    }

    async fn commit(&mut self, _: Checkpoint) -> Result<(), SinkError> {
        Ok(())
    }

    async fn rollback(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    async fn close(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}
