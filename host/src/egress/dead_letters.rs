//! Messages for the stream `DLQ`: rows that a guest failed on, where the table's policy keeps them.
//!
//! Delivery is at least once: after a crash the gateway may set a row aside again. Columns that the
//! guest hides are left out. Why a guest fails, and how messages are published, is not known here.

use std::sync::Arc;

use walgate_wire::{
    ChangeWriter, DeadLetter, Epoch, Lsn, Schema, StreamPosition, subjects, to_msgpack,
};

use crate::{
    encode::{RowError, TablePacker},
    guest::{FailedRow, RowPlace},
    rows::{
        Rendered, TableVersion,
        batch::{Cell, Change, Op, RowBatch, TxnMark},
    },
};

const VERSION: u32 = 1;

/// A message for the stream `DLQ`.
#[derive(Debug)]
pub struct DeadLetterMessage {
    pub subject: String,
    /// Rows of a snapshot have none.
    pub message_id: Option<String>,
    pub body: Vec<u8>,
}

/// A row that cannot be set aside.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    #[error(transparent)]
    Row(#[from] RowError),
    #[error("{0}")]
    Encode(String),
}

/// The message for a row that `guest_on_error` keeps; none for others. `output` is the table behind
/// its guest; `epoch` is that of changes, none of a snapshot.
pub fn compose(
    epoch: Option<Epoch>,
    output: &TableVersion,
    failed: &FailedRow,
    rendered: &mut Rendered,
    at_micros: i64,
) -> Result<Option<DeadLetterMessage>, DeadLetterError> {
    let (Some(row), Some(guest)) = (&failed.row, output.schema.guest.clone()) else {
        return Ok(None);
    };
    let row = visible_row(row, &output.schema, at_micros);
    let position = match (epoch, failed.place) {
        (Some(epoch), RowPlace::Change(position)) => {
            Some(StreamPosition { epoch, position }.to_string())
        }
        _ => None,
    };
    let mut writer = ChangeWriter::default();
    TablePacker::new(&row.table).pack_changes(&row, 0..1, &mut writer, rendered)?;
    let message_id = position.as_ref().map(|position| format!("dlq/{position}"));
    let letter = DeadLetter {
        v: VERSION,
        schema: row.table.schema.clone(),
        guest,
        error: failed.error.clone(),
        position,
        at: at_micros,
        change: writer.out,
    };
    let body = to_msgpack(&letter).map_err(|e| DeadLetterError::Encode(e.to_string()))?;
    Ok(Some(DeadLetterMessage { subject: subjects::dlq(&output.token), message_id, body }))
}

/// The row as a change of its table, without the columns that are not published.
fn visible_row(row: &RowBatch, published: &Schema, at_micros: i64) -> RowBatch {
    let table = &row.table;
    let columns = &table.schema.columns;
    let is_published =
        |index: &usize| published.columns.iter().any(|c| c.attnum == columns[*index].attnum);
    let kept: Vec<usize> = (0..columns.len()).filter(is_published).collect();
    let place = |&old: &u32| kept.iter().position(|&index| index == old as usize);
    let schema = Schema {
        columns: kept.iter().map(|&index| columns[index].clone()).collect(),
        old: table.schema.old.iter().filter_map(place).map(|index| index as u32).collect(),
        ..table.schema.clone()
    };
    let version = TableVersion {
        schema,
        columns: kept.iter().map(|&index| table.columns[index].clone()).collect(),
        ..TableVersion::clone(table)
    };
    let width = columns.len().max(1) as u32;
    let at = |first: u32| first / width * kept.len() as u32;
    let of_row = |cells: &[Cell]| kept.iter().map(|&index| cells[index]).collect::<Vec<_>>();
    let cells = row.cells.chunks(width as usize).flat_map(of_row).collect();
    let mut row = row.clone();
    if row.changes.is_empty() {
        row.txns.push(TxnMark { lsn: Lsn(0), xid: 0, at_micros });
        let (txn, ordinal, new, old) = (0, 1, Some(0), None);
        row.changes.push(Change { op: Op::Insert, txn, ordinal, new, old, old_is_key: false });
    }
    let moved =
        |change: &Change| Change { new: change.new.map(at), old: change.old.map(at), ..*change };
    let changes = row.changes.iter().map(moved).collect();
    row.with_rows(Arc::new(version), cells, changes, 0)
}
