//! Tests of whole rows, read back with the consumer's decoder.

use std::sync::Arc;

use proptest::prelude::*;
use walgate_wire::{
    Caps, Identity, Lsn, Op as WireOp, Schema, TableName, TableState, Value, decode_changes,
    decode_chunk,
};

use super::*;
use crate::rows::{Binary, ColumnType, Kind, Type, batch::TxnMark};

/// `old` are the columns of an old row.
fn table(columns: &[(&str, Type)], old: &[u32]) -> Arc<TableVersion> {
    let name = TableName::new("public", "orders");
    let named = columns.iter().enumerate().map(|(index, (name, ty))| walgate_wire::Column {
        name: (*name).to_owned(),
        type_name: format!("type {}", ty.oid),
        oid: ty.oid,
        base_oid: None,
        made_of: None,
        attnum: index as i16 + 1,
        nullable: true,
        key: index == 0,
    });
    let typed = columns.iter().enumerate().map(|(index, (_, ty))| ColumnType {
        oid: ty.oid,
        typmod: -1,
        ty: ty.clone(),
        binary: Binary::Yes,
        key: index == 0,
    });
    Arc::new(TableVersion {
        token: name.token(),
        relid: 1,
        schema: Schema {
            table: name.to_string(),
            token: name.token(),
            relid: None,
            revision: 1,
            state: TableState::Live,
            columns: named.collect(),
            key: vec![columns[0].0.to_owned()],
            identity: Identity::Default,
            old: old.to_vec(),
            guest: None,
            lsn: Lsn(0),
            reason: None,
        },
        columns: typed.collect(),
        name,
    })
}

/// `id int8, note text, at timestamptz`, keyed by `id`.
fn orders() -> Arc<TableVersion> {
    table(&[("id", Type::base(20)), ("note", Type::base(25)), ("at", Type::base(1184))], &[0])
}

fn binary(batch: &mut RowBatch, bytes: &[u8]) -> Cell {
    let start = batch.bytes.len() as u32;
    batch.bytes.extend_from_slice(bytes);
    Cell::Binary { start, len: bytes.len() as u32 }
}

fn push(batch: &mut RowBatch, cells: [Cell; 3]) -> Option<u32> {
    let first = batch.cells.len() as u32;
    batch.cells.extend(cells);
    Some(first)
}

fn mark(lsn: u64) -> TxnMark {
    TxnMark { lsn: Lsn(lsn), xid: lsn as u32, at_micros: -1 }
}

fn change(op: Op, txn: u32, ordinal: u32, new: Option<u32>, old: Option<u32>) -> Change {
    Change { op, txn, ordinal, new, old, old_is_key: true }
}

/// Two transactions that do everything.
fn busy() -> RowBatch {
    let mut batch = RowBatch::new(orders());
    let id = |batch: &mut RowBatch, id: i64| binary(batch, &id.to_be_bytes());
    let (one, two, at) =
        (id(&mut batch, 1), id(&mut batch, 2), binary(&mut batch, &0i64.to_be_bytes()));
    let text = binary(&mut batch, b"note");
    let inserted = push(&mut batch, [one, text, at]);
    let updated = push(&mut batch, [one, Cell::Unchanged, Cell::Null]);
    let old = push(&mut batch, [one, Cell::Null, Cell::Null]);
    let moved = push(&mut batch, [two, Cell::Unchanged, at]);
    let plain = push(&mut batch, [two, text, at]);
    batch.txns = vec![mark(100), mark(200)];
    batch.changes = vec![
        change(Op::Insert, 0, 1, inserted, None),
        change(Op::Update, 0, 3, updated, None),
        change(Op::Update, 1, 1, moved, old),
        change(Op::Update, 1, 2, plain, None),
        change(Op::Delete, 1, 3, None, old),
        change(Op::Truncate, 1, 4, None, None),
    ];
    batch
}

#[test]
fn a_body_says_what_the_batch_says() {
    let batch = busy();
    let packer = TablePacker::new(&batch.table);
    assert!(!packer.renders());
    let mut writer = ChangeWriter::default();
    packer.pack_changes(&batch, 0..6, &mut writer, &mut Rendered::default()).unwrap();
    let changes = decode_changes(&writer.out, 3, &Caps::default()).unwrap();
    let at = Value::Int(946_684_800_000_000);
    let row = |id, note, at: &Value<'static>| vec![Value::Int(id), note, at.clone()];
    let note = || Value::Str("note");
    let update =
        |row, unchanged: &[usize], old| WireOp::Update { row, unchanged: unchanged.to_vec(), old };
    let expected = [
        (100, 1, WireOp::Insert { row: row(1, note(), &at) }),
        (100, 3, update(row(1, Value::Nil, &Value::Nil), &[1], None)),
        (200, 1, update(row(2, Value::Nil, &at), &[1], Some(vec![Value::Int(1)]))),
        (200, 2, update(row(2, note(), &at), &[], None)),
        (200, 3, WireOp::Delete { old: vec![Value::Int(1)] }),
        (200, 4, WireOp::Truncate),
    ];
    let got: Vec<_> =
        changes.into_iter().map(|c| (c.position.commit_lsn.0, c.position.ordinal, c.op)).collect();
    assert_eq!(got, expected);
}

#[test]
fn every_range_is_a_body_of_its_own() {
    let batch = busy();
    let packer = TablePacker::new(&batch.table);
    for cut in 0..=6 {
        let mut ordinals = vec![];
        for range in [0..cut, cut..6] {
            let mut writer = ChangeWriter::default();
            packer.pack_changes(&batch, range, &mut writer, &mut Rendered::default()).unwrap();
            let changes = decode_changes(&writer.out, 3, &Caps::default()).unwrap();
            ordinals.extend(changes.iter().map(|c| (c.position.commit_lsn.0, c.position.ordinal)));
        }
        assert_eq!(ordinals, [(100, 1), (100, 3), (200, 1), (200, 2), (200, 3), (200, 4)]);
    }
}

#[test]
fn a_bad_value_is_named() {
    let mut batch = RowBatch::new(orders());
    let id = binary(&mut batch, b"abc");
    let first = push(&mut batch, [id, Cell::Null, Cell::Null]);
    batch.txns = vec![mark(0x16_B374_D848)];
    batch.changes = vec![change(Op::Insert, 0, 7, first, None)];
    let packer = TablePacker::new(&batch.table);
    let error = packer
        .pack_changes(&batch, 0..1, &mut ChangeWriter::default(), &mut Rendered::default())
        .unwrap_err();
    assert_eq!(error.source, PackError::WrongLength);
    let message = error.to_string();
    assert!(
        message.starts_with(
            "public.orders, column id (type 20), change 16/B374D848#7: its binary value has a"
        ),
        "{message}"
    );
}

#[test]
fn a_delete_without_its_key_is_refused() {
    let mut batch = RowBatch::new(orders());
    batch.txns = vec![mark(1)];
    batch.changes = vec![change(Op::Delete, 0, 1, None, None)];
    let packer = TablePacker::new(&batch.table);
    let error = packer
        .pack_changes(&batch, 0..1, &mut ChangeWriter::default(), &mut Rendered::default())
        .unwrap_err();
    assert_eq!(error.source, PackError::Missing);
}

#[test]
fn what_is_not_rendered_does_not_leave() {
    let range = Type { oid: 3908, kind: Kind::Rendered };
    let table = table(&[("id", Type::base(20)), ("during", range)], &[0]);
    let mut batch = RowBatch::new(table);
    batch.push_copy_row(&copy_row(&[Some(b"\0\0\0\0\0\0\0\x01"), Some(b"binary")])).unwrap();
    let packer = TablePacker::new(&batch.table);
    assert!(packer.renders());
    let (mut writer, mut rendered) = (packer.chunk_writer(), Rendered::default());
    let error = packer.pack_rows(&batch, 0..1, &mut writer, &mut rendered).unwrap_err();
    assert_eq!((error.source, error.column.as_str()), (PackError::NotRendered, "during"));

    rendered.clear();
    packer.collect_server_rendered(&batch, &mut rendered).unwrap();
    rendered.insert(3908, b"binary", "[a,b)".to_owned());
    let mut writer = packer.chunk_writer();
    packer.pack_rows(&batch, 0..1, &mut writer, &mut rendered).unwrap();
    let mut body = Vec::new();
    writer.finish(&mut body);
    let chunk = decode_chunk(&body, 2, &Caps::default()).unwrap();
    assert_eq!(chunk.columns, [vec![Value::Int(1)], vec![Value::Str("[a,b)")]]);
}

fn copy_row(fields: &[Option<&[u8]>]) -> Vec<u8> {
    let mut row = (fields.len() as u16).to_be_bytes().to_vec();
    for field in fields {
        row.extend(field.map_or(-1, |field| field.len() as i32).to_be_bytes());
        row.extend_from_slice(field.unwrap_or_default());
    }
    row
}

proptest! {
    /// Rows of a COPY come back from the chunk, integers and those that stand as text alike.
    #[test]
    fn copied_rows_round_trip(rows in prop::collection::vec((any::<i64>(), any::<Option<String>>(), any::<Option<i64>>()), 0..40), cut: prop::sample::Index) {
        let mut batch = RowBatch::new(orders());
        for (id, note, at) in &rows {
            let at = at.map(i64::to_be_bytes);
            let fields = [Some(&id.to_be_bytes()[..]), note.as_deref().map(str::as_bytes), at.as_ref().map(|at| &at[..])];
            batch.push_copy_row(&copy_row(&fields)).unwrap();
        }
        let packer = TablePacker::new(&batch.table);
        let (mut writer, mut rendered) = (packer.chunk_writer(), Rendered::default());
        let cut = cut.index(rows.len() + 1);
        packer.pack_rows(&batch, 0..cut, &mut writer, &mut rendered).unwrap();
        packer.pack_rows(&batch, cut..rows.len(), &mut writer, &mut rendered).unwrap();
        prop_assert_eq!(writer.rows(), rows.len());
        let mut body = Vec::new();
        writer.finish(&mut body);
        let chunk = decode_chunk(&body, 3, &Caps::default()).unwrap();
        for ((id, note, at), row) in rows.iter().zip(chunk.into_rows()) {
            prop_assert_eq!(&row[0], &Value::Int(*id));
            prop_assert_eq!(&row[1], &note.as_deref().map_or(Value::Nil, Value::Str));
            let micros = at.and_then(|at| at.checked_add(946_684_800_000_000));
            match (at, micros) {
                (None, _) => prop_assert_eq!(&row[2], &Value::Nil),
                (Some(_), Some(micros)) if micros >= -62_135_596_800_000_000 => {
                    prop_assert_eq!(&row[2], &Value::Int(micros));
                }
                _ => prop_assert!(matches!(row[2], Value::Str(_))),
            }
        }
    }
}
