//! Encodes decoded bodies again, value by value, so that the targets can compare.

use walgate_wire::{Change, ChangeWriter, Chunk, ChunkWriter, Op, Value, pack};

/// Encodes changes, each in a transaction of its own.
pub fn encode_changes(changes: &[Change<'_>]) -> Vec<u8> {
    let mut writer = ChangeWriter::default();
    for Change { position, xid, at, op } in changes {
        writer.transaction(position.commit_lsn, *xid, *at);
        match op {
            Op::Insert { row } => {
                writer.insert(position.ordinal);
                Value::pack_row(row, &mut writer.out);
            }
            Op::Update { row, unchanged, old } => {
                let has_unchanged = !unchanged.is_empty();
                writer.update(position.ordinal, has_unchanged, old.is_some());
                Value::pack_row(row, &mut writer.out);
                if has_unchanged {
                    pack::array(&mut writer.out, unchanged.len());
                    unchanged.iter().for_each(|&at| pack::uint(&mut writer.out, at as u64));
                } else if old.is_some() {
                    pack::nil(&mut writer.out);
                }
                old.iter().for_each(|old| Value::pack_row(old, &mut writer.out));
            }
            Op::Delete { old } => {
                writer.delete(position.ordinal);
                Value::pack_row(old, &mut writer.out);
            }
            Op::Truncate => writer.truncate(position.ordinal),
        }
    }
    writer.out
}

/// Encodes a chunk without delta coding.
pub fn encode_chunk(chunk: &Chunk<'_>) -> Vec<u8> {
    let mut writer = ChunkWriter::new(&vec![false; chunk.columns.len()]);
    for (values, column) in chunk.columns.iter().zip(&mut writer.columns) {
        values.iter().for_each(|item| item.pack(&mut column.out));
    }
    (0..chunk.row_count).for_each(|_| writer.end_row());
    let mut body = Vec::new();
    writer.finish(&mut body);
    body
}
