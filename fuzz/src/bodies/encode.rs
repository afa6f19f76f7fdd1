//! Bodies written from what was read, value by value: the way back for the targets.

use walgate_wire::{Change, ChangeWriter, Chunk, ChunkWriter, Op, Value, pack};

pub fn changes(changes: &[Change<'_>]) -> Vec<u8> {
    let mut writer = ChangeWriter::default();
    for Change { position, xid, at, op } in changes {
        writer.transaction(position.commit_lsn, *xid, *at);
        match op {
            Op::Insert { row } => {
                writer.insert(position.ordinal);
                values(row, &mut writer.out);
            }
            Op::Update { row, unchanged, old } => {
                let has_unchanged = !unchanged.is_empty();
                writer.update(position.ordinal, has_unchanged, old.is_some());
                values(row, &mut writer.out);
                if has_unchanged {
                    pack::array(&mut writer.out, unchanged.len());
                    unchanged.iter().for_each(|&at| pack::uint(&mut writer.out, at as u64));
                } else if old.is_some() {
                    pack::nil(&mut writer.out);
                }
                old.iter().for_each(|old| values(old, &mut writer.out));
            }
            Op::Delete { old } => {
                writer.delete(position.ordinal);
                values(old, &mut writer.out);
            }
            Op::Truncate => writer.truncate(position.ordinal),
        }
    }
    writer.out
}

pub fn chunk(chunk: &Chunk<'_>) -> Vec<u8> {
    let mut writer = ChunkWriter::new(&vec![false; chunk.columns.len()]);
    for (values, column) in chunk.columns.iter().zip(&mut writer.columns) {
        values.iter().for_each(|item| value(item, &mut column.out));
    }
    (0..chunk.row_count).for_each(|_| writer.end_row());
    let mut body = Vec::new();
    writer.finish(&mut body);
    body
}

fn values(items: &[Value<'_>], out: &mut Vec<u8>) {
    pack::array(out, items.len());
    items.iter().for_each(|item| value(item, out));
}

fn value(item: &Value<'_>, out: &mut Vec<u8>) {
    match item {
        Value::Nil => pack::nil(out),
        Value::Bool(value) => pack::bool(out, *value),
        Value::Int(value) => pack::int(out, *value),
        Value::F32(value) => pack::f32_bits(out, value.to_be_bytes()),
        Value::F64(value) => pack::f64_bits(out, value.to_be_bytes()),
        Value::Str(value) => pack::str(out, value),
        Value::Bin(value) => pack::bin(out, value),
        Value::Array(items) => values(items, out),
        Value::Map(pairs) => {
            pack::map(out, pairs.len());
            for (key, paired) in pairs {
                value(key, out);
                value(paired, out);
            }
        }
    }
}
