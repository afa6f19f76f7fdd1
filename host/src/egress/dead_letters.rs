//! Rows that a guest failed on, set aside in the stream `DLQ` where the table is configured so.
//!
//! At least once: after a crash a row may be set aside again. Columns that the guest hides are left out. Why a
//! guest fails is not known here.

use std::sync::Arc;

use bytes::Bytes;
use walgate_wire::{
    ChangeWriter, DeadLetter, Epoch, MSG_ID, Schema, StreamPosition, subjects, to_msgpack,
};

use crate::{
    clock::now_micros,
    context::Gateway,
    encode::TablePacker,
    error::SessionError,
    guest::{FailedRow, Place},
    jetstream::publisher::{Headers, Outgoing, publish_acknowledged},
    rows::{
        Rendered, TableVersion,
        batch::{Cell, Change, Op, RowBatch, TxnMark},
    },
};

const VERSION: u32 = 1;

/// Publishes those of `failed` that are to be kept, and waits until they are stored. `leaving` is the table
/// behind its guest; `epoch` is that of changes, none of a snapshot.
pub async fn publish(
    gateway: &Gateway,
    epoch: Option<Epoch>,
    leaving: &TableVersion,
    failed: &[FailedRow],
    rendered: &mut Rendered,
) -> Result<(), SessionError> {
    for failed in failed {
        let (Some(row), Some(guest)) = (&failed.row, leaving.schema.guest.clone()) else {
            continue;
        };
        let row = visible(row, &leaving.schema);
        let position = match (epoch, failed.place) {
            (Some(epoch), Place::Change(position)) => {
                Some(StreamPosition { epoch, position }.to_string())
            }
            _ => None,
        };
        let mut writer = ChangeWriter::default();
        TablePacker::new(&row.table).pack_changes(&row, 0..1, &mut writer, rendered)?;
        let mut headers = Headers::new();
        if let Some(position) = &position {
            headers.insert(MSG_ID, format!("dlq/{position}"));
        }
        let letter = DeadLetter {
            v: VERSION,
            schema: row.table.schema.clone(),
            guest,
            error: failed.error.clone(),
            position,
            at: now_micros(),
            change: writer.out,
        };
        let body = to_msgpack(&letter).map_err(|e| SessionError::Task(e.to_string()))?;
        let subject = subjects::dlq(&leaving.token);
        let message = Outgoing { subject, headers, body: Bytes::from(body), confirms: None };
        publish_acknowledged(&gateway.streams.context, message).await?;
    }
    Ok(())
}

/// The row as a change of its table without the columns that do not leave it.
fn visible(row: &RowBatch, leaving: &Schema) -> RowBatch {
    let table = &row.table;
    let columns = &table.schema.columns;
    let leaves = |index: &usize| leaving.columns.iter().any(|c| c.attnum == columns[*index].attnum);
    let kept: Vec<usize> = (0..columns.len()).filter(leaves).collect();
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
        row.txns.push(TxnMark { lsn: walgate_wire::Lsn(0), xid: 0, at_micros: now_micros() });
        let (txn, ordinal, new, old) = (0, 1, Some(0), None);
        row.changes.push(Change { op: Op::Insert, txn, ordinal, new, old, old_is_key: false });
    }
    let moved =
        |change: &Change| Change { new: change.new.map(at), old: change.old.map(at), ..*change };
    let changes = row.changes.iter().map(moved).collect();
    row.with_rows(Arc::new(version), cells, changes, 0)
}
