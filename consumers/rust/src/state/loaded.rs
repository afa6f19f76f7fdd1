//! The state after a snapshot was received completely.

use walgate_wire::{InitStart, Position, Schema};

use super::{Checkpoint, SnapshotWindow, TableRecord, Tables, epoch_changed};

impl Tables {
    /// The records and the checkpoint to store with a complete snapshot. Once they are stored, the
    /// caller passes them to [`adopt_load`](Tables::adopt_load). `finished_at` is from the
    /// snapshot's meta message; `stream_created` is that of the stream of changes.
    pub fn complete_load(
        &self,
        start: &InitStart,
        schema: &Schema,
        finished_at: i64,
        stream_created: i64,
    ) -> (Vec<TableRecord>, Checkpoint) {
        let watermark = Position::new(start.lsn, 0);
        let seq = start.cdc_sequence;
        let void_below = self.required_watermark(&schema.token);
        let record = TableRecord {
            token: schema.token.clone(),
            schema: schema.clone(),
            epoch: start.epoch,
            seeded: start.lsn,
            seq,
            position: watermark,
            window: Some(SnapshotWindow::new(start.xid_window.clone(), finished_at)),
            reload: (start.lsn < void_below).then(|| {
                format!("rows from before {void_below} were reseeded while they were loaded")
            }),
        };
        let mut checkpoint = Checkpoint {
            epoch: start.epoch,
            position: watermark,
            seq,
            verified_seq: seq,
            stream_created,
            at: start.started_at,
        };
        let mut changed = Vec::new();
        let before = self.checkpoint;
        let others = self.tables.iter().filter(|(token, _)| **token != schema.token);
        for mut other in others.filter_map(|(_, table)| table.live_record().cloned()) {
            if other.epoch < start.epoch {
                other.reload = Some(epoch_changed(other.epoch, start.epoch));
                changed.push(other);
            } else if let Some(before) = before {
                // Not `before.seq`: the messages between are not verified to be without a gap.
                other.seq = other.seq.max(before.verified_seq);
                if other.epoch == before.epoch {
                    other.position = other.position.max(before.position);
                }
                changed.push(other);
                // The common checkpoint is the lesser of both; each table keeps its own lead.
                checkpoint.at = before.at;
                checkpoint.seq = before.seq.min(seq);
                checkpoint.verified_seq = before.verified_seq.min(checkpoint.seq);
                checkpoint.position = before.position.min(watermark);
            }
        }
        changed.push(record);
        (changed, checkpoint)
    }

    /// Records and checkpoint of a snapshot were stored with its rows.
    pub fn adopt_load(&mut self, records: Vec<TableRecord>, checkpoint: Checkpoint) {
        records.into_iter().for_each(|record| self.restore_record(record));
        self.checkpoint = Some(checkpoint);
    }
}
