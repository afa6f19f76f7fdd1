//! Values, rows and bodies for tests.

use std::sync::Arc;

use walgate_consumer::{
    ChangeBatch, Checkpoint, SnapshotRows, TableRecord,
    wire::{
        ChangeWriter, ChunkWriter, Column, Epoch, Identity, Lsn, Position, Schema, TableName,
        TableState, pack,
    },
};

/// A value on the wire.
#[derive(Clone, Debug, PartialEq)]
pub enum V {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Bin(Vec<u8>),
    Array(Vec<V>),
    Map(Vec<(V, V)>),
}

pub fn s(text: &str) -> V {
    V::Str(text.to_owned())
}

impl V {
    pub fn pack(&self, out: &mut Vec<u8>) {
        match self {
            V::Nil => pack::nil(out),
            V::Bool(b) => pack::bool(out, *b),
            V::Int(i) => pack::int(out, *i),
            V::Float(f) => pack::f64_bits(out, f.to_be_bytes()),
            V::Str(s) => pack::str(out, s),
            V::Bin(b) => pack::bin(out, b),
            V::Array(items) => pack_row(out, items),
            V::Map(pairs) => {
                pack::map(out, pairs.len());
                for (key, value) in pairs {
                    key.pack(out);
                    value.pack(out);
                }
            }
        }
    }
}

pub fn pack_row(out: &mut Vec<u8>, row: &[V]) {
    pack::array(out, row.len());
    row.iter().for_each(|value| value.pack(out));
}

/// A change of a row.
#[derive(Clone, Debug)]
pub enum Did {
    Insert(Vec<V>),
    Update { row: Vec<V>, unchanged: Vec<usize>, old: Option<Vec<V>> },
    Delete(Vec<V>),
    Truncate,
}

/// Appends a transaction of these changes, ordinals from `first`.
pub fn write_changes(writer: &mut ChangeWriter, lsn: u64, xid: u32, first: u32, changes: &[Did]) {
    writer.transaction(Lsn(lsn), xid, lsn as i64);
    for (did, n) in changes.iter().zip(first..) {
        match did {
            Did::Insert(row) => {
                writer.insert(n);
                pack_row(&mut writer.out, row);
            }
            Did::Update { row, unchanged, old } => {
                writer.update(n, !unchanged.is_empty(), old.is_some());
                pack_row(&mut writer.out, row);
                if !unchanged.is_empty() {
                    let indexes: Vec<V> = unchanged.iter().map(|&i| V::Int(i as i64)).collect();
                    pack_row(&mut writer.out, &indexes);
                } else if old.is_some() {
                    pack::nil(&mut writer.out);
                }
                if let Some(old) = old {
                    pack_row(&mut writer.out, old);
                }
            }
            Did::Delete(old) => {
                writer.delete(n);
                pack_row(&mut writer.out, old);
            }
            Did::Truncate => writer.truncate(n),
        }
    }
}

pub fn changes(schema: &Arc<Schema>, local: &Arc<Schema>, dids: &[Did]) -> ChangeBatch {
    let mut writer = ChangeWriter::default();
    write_changes(&mut writer, 100, 1, 1, dids);
    ChangeBatch::new(schema.clone(), local.clone(), writer.out)
}

pub fn chunk_body(schema: &Schema, rows: &[Vec<V>]) -> Vec<u8> {
    let mut writer = ChunkWriter::new(&vec![false; schema.columns.len()]);
    for row in rows {
        for (column, value) in writer.columns.iter_mut().zip(row) {
            value.pack(&mut column.out);
        }
        writer.end_row();
    }
    let mut body = Vec::new();
    writer.finish(&mut body);
    body
}

pub fn chunk(schema: &Arc<Schema>, rows: &[Vec<V>]) -> SnapshotRows {
    SnapshotRows::new(schema.clone(), chunk_body(schema, rows))
}

/// Columns as `name type`, those of the key with a `*` in front.
pub fn schema(table: &str, columns: &[&str], full: bool) -> Schema {
    let name: TableName = table.parse().unwrap();
    let column = |(spec, attnum): (&&str, i16)| {
        let (name, type_name) = spec.trim_start_matches('*').split_once(' ').unwrap();
        let key = spec.starts_with('*');
        let oid = oid(type_name);
        let (name, type_name, nullable) = (name.into(), type_name.into(), !key);
        Column { name, type_name, oid, base_oid: None, made_of: None, attnum, nullable, key }
    };
    let columns: Vec<Column> = columns.iter().zip(1..).map(column).collect();
    let key: Vec<String> = columns.iter().filter(|c| c.key).map(|c| c.name.clone()).collect();
    let keys = (0..columns.len() as u32).filter(|&i| columns[i as usize].key).collect();
    Schema {
        token: name.token(),
        relid: None,
        table: name.to_string(),
        revision: 1,
        state: TableState::Live,
        old: if full { (0..columns.len() as u32).collect() } else { keys },
        identity: if full { Identity::Full } else { Identity::Default },
        columns,
        key,
        guest: None,
        lsn: Lsn(0),
        reason: None,
    }
}

fn oid(type_name: &str) -> u32 {
    match type_name {
        "boolean" => 16,
        "bytea" => 17,
        "bigint" => 20,
        "integer" => 23,
        "text" => 25,
        "double precision" => 701,
        "date" => 1082,
        "time without time zone" => 1083,
        "timestamp without time zone" => 1114,
        "timestamp with time zone" => 1184,
        "timestamp with time zone[]" => 1185,
        "text[]" => 1009,
        "numeric" => 1700,
        "uuid" => 2950,
        "jsonb" => 3802,
        _ => 70_000,
    }
}

pub fn record(schema: &Schema) -> TableRecord {
    TableRecord {
        token: schema.token.clone(),
        schema: schema.clone(),
        epoch: Epoch(1),
        seeded: Lsn(7),
        seq: 3,
        position: Position::new(Lsn(7), 0),
        window: None,
        reload: None,
    }
}

pub fn checkpoint(seq: u64) -> Checkpoint {
    Checkpoint {
        seq,
        epoch: Epoch(1),
        position: Position::new(Lsn(seq), 1),
        ..Checkpoint::default()
    }
}
