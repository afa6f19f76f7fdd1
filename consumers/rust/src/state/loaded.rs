//! What follows from a snapshot that was received whole.

use walgate_wire::{InitStart, Position, Schema};

use super::{Mark, SnapshotWindow, TableRecord, Tables, epoch_changed};

impl Tables {
    /// A snapshot was received whole: the records to store and the position to continue from, to be
    /// [adopted](Tables::adopt) once they are. `finished_at` is from its meta message, `stream_created` that of the
    /// stream it counts in.
    pub fn loaded(
        &self,
        start: &InitStart,
        schema: &Schema,
        finished_at: i64,
        stream_created: i64,
    ) -> (Vec<TableRecord>, Mark) {
        let watermark = Position::new(start.lsn, 0);
        let seq = start.cdc_sequence;
        let void_below = self.watermark_min(&schema.token);
        let record = TableRecord {
            token: schema.token.clone(),
            schema: schema.clone(),
            epoch: start.epoch,
            seeded: start.lsn,
            seq,
            position: watermark,
            window: Some(SnapshotWindow::new(start.xid_window.clone(), finished_at)),
            reload: (start.lsn < void_below).then(|| {
                format!("rows from before {void_below} became void while they were loaded")
            }),
        };
        let mut mark = Mark {
            epoch: start.epoch,
            position: watermark,
            seq,
            verified_seq: seq,
            stream_created,
            at: start.started_at,
        };
        let mut changed = Vec::new();
        let before = self.mark;
        let others = self.tables.iter().filter(|(token, _)| **token != schema.token);
        for mut other in others.filter_map(|(_, table)| table.live().cloned()) {
            if other.epoch < start.epoch {
                other.reload = Some(epoch_changed(other.epoch, start.epoch));
                changed.push(other);
            } else if let Some(before) = before {
                // Not to `before.seq`: of what lies between it is not known yet whether it was all there.
                other.seq = other.seq.max(before.verified_seq);
                if other.epoch == before.epoch {
                    other.position = other.position.max(before.position);
                }
                changed.push(other);
                // What is common is the lesser of both; each table keeps what it has beyond.
                mark.at = before.at;
                mark.seq = before.seq.min(seq);
                mark.verified_seq = before.verified_seq.min(mark.seq);
                mark.position = before.position.min(watermark);
            }
        }
        changed.push(record);
        (changed, mark)
    }

    /// Records and position of a snapshot are stored, with its rows.
    pub fn adopt(&mut self, records: Vec<TableRecord>, mark: Mark) {
        records.into_iter().for_each(|record| self.restore(record));
        self.mark = Some(mark);
    }
}
