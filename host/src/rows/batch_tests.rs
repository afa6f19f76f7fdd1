//! Tests of the row batch.

use super::*;
use crate::{
    rows::TableVersion,
    rows::test_support::{table_version, tuple},
};
use proptest::prelude::*;

const TXN: TxnMark = TxnMark { lsn: Lsn(10), xid: 1, at_micros: 5 };

fn table() -> Arc<TableVersion> {
    table_version("t", 7, 2)
}

fn old(bytes: &[u8], key_only: bool) -> Option<OldTuple<'_>> {
    Some(OldTuple { tuple: Tuple { bytes }, key_only })
}

#[test]
fn a_cell_is_small() {
    assert!(size_of::<Cell>() <= 12);
}

#[test]
fn changes_keep_their_rows_and_positions() {
    let mut batch = RowBatch::new(table());
    let one = tuple(&[(b'b', b"1"), (b'b', b"one")]);
    let two = tuple(&[(b'b', b"2"), (b'n', b"")]);
    batch.push_change(TXN, 1, Op::Insert, Some(Tuple { bytes: &one }), None).unwrap();
    let next = TxnMark { lsn: Lsn(20), ..TXN };
    batch.push_change(next, 4, Op::Update, Some(Tuple { bytes: &two }), old(&one, true)).unwrap();
    batch.push_change(next, 5, Op::Truncate, None, None).unwrap();
    assert_eq!(batch.txns, [TXN, next]);
    assert_eq!(batch.position(&batch.changes[0]), Position::new(Lsn(10), 1));
    assert_eq!(batch.last_position(), Some(Position::new(Lsn(20), 5)));
    assert_eq!(batch.raw_bytes(), one.len() * 2 + two.len());
    let text = |row: &[Cell]| {
        row.iter().map(|&cell| batch.cell_bytes(cell).map(<[u8]>::to_vec)).collect::<Vec<_>>()
    };
    let update = &batch.changes[1];
    assert_eq!(text(batch.new_row(update).unwrap()), [Some(b"2".to_vec()), None]);
    assert_eq!(text(batch.old_row(update).unwrap()), [Some(b"1".to_vec()), Some(b"one".to_vec())]);
    assert!(update.old_is_key && batch.new_row(&batch.changes[2]).is_none());
    batch.clear(table());
    assert!(batch.is_empty() && batch.raw_bytes() == 0 && batch.last_position().is_none());
}

#[test]
fn unchanged_values_come_from_a_full_old_row() {
    let before = tuple(&[(b'b', b"1"), (b'b', b"long")]);
    let after = tuple(&[(b'b', b"1"), (b'u', b"")]);
    let mut batch = RowBatch::new(table());
    batch
        .push_change(TXN, 1, Op::Update, Some(Tuple { bytes: &after }), old(&before, false))
        .unwrap();
    let cell = batch.new_row(&batch.changes[0]).unwrap()[1];
    assert_eq!(batch.cell_bytes(cell), Some(&b"long"[..]));
    batch
        .push_change(TXN, 2, Op::Update, Some(Tuple { bytes: &after }), old(&before, true))
        .unwrap();
    assert_eq!(batch.new_row(&batch.changes[1]).unwrap()[1], Cell::Unchanged);
    let nothing = tuple(&[(b'b', b"1"), (b'n', b"")]);
    batch
        .push_change(TXN, 3, Op::Update, Some(Tuple { bytes: &after }), old(&nothing, false))
        .unwrap();
    assert_eq!(
        batch.new_row(&batch.changes[2]).unwrap()[1],
        Cell::Unchanged,
        "a null is not an old value of it"
    );
}

#[test]
fn an_unchanged_key_needs_its_old_value() {
    let before = tuple(&[(b'b', b"key"), (b'n', b"")]);
    let after = tuple(&[(b'u', b""), (b'b', b"x")]);
    let mut batch = RowBatch::new(table());
    batch
        .push_change(TXN, 1, Op::Update, Some(Tuple { bytes: &after }), old(&before, true))
        .unwrap();
    let cell = batch.new_row(&batch.changes[0]).unwrap()[0];
    assert_eq!(batch.cell_bytes(cell), Some(&b"key"[..]));
    let snapshot = batch.clone();
    let error =
        batch.push_change(TXN, 2, Op::Update, Some(Tuple { bytes: &after }), None).unwrap_err();
    assert!(matches!(&error, BatchError::UnchangedKey { column, .. } if column == "c0"));
    assert_eq!(
        (batch.cells, batch.bytes, batch.changes),
        (snapshot.cells, snapshot.bytes, snapshot.changes)
    );
}

#[test]
fn a_row_of_another_shape_is_refused() {
    let mut batch = RowBatch::new(table());
    let three = tuple(&[(b'n', &[][..]); 3]);
    let error =
        batch.push_change(TXN, 1, Op::Insert, Some(Tuple { bytes: &three }), None).unwrap_err();
    assert_eq!(error.table(), "public.t");
    assert!(matches!(error, BatchError::ColumnCount { expected: 2, got: 3, .. }));
    assert!(batch.is_empty() && batch.cells.is_empty() && batch.bytes.is_empty());
}

fn copy_row(fields: &[Option<&[u8]>]) -> Vec<u8> {
    let mut row = (fields.len() as u16).to_be_bytes().to_vec();
    for field in fields {
        row.extend_from_slice(&field.map_or(-1, |bytes| bytes.len() as i32).to_be_bytes());
        row.extend_from_slice(field.unwrap_or_default());
    }
    row
}

#[test]
fn copied_rows() {
    let mut batch = RowBatch::new(table());
    batch.push_copy_row(&copy_row(&[Some(b"1"), None])).unwrap();
    batch.push_copy_row(&copy_row(&[Some(b"2"), Some(b"two")])).unwrap();
    let rows: Vec<Vec<_>> =
        batch.rows().map(|row| row.iter().map(|&cell| batch.cell_bytes(cell)).collect()).collect();
    assert_eq!(rows, [vec![Some(&b"1"[..]), None], vec![Some(&b"2"[..]), Some(&b"two"[..])]]);
    for bad in
        [&b""[..], b"\0\x02\0\0\0\0", b"\0\x01\xff\xff\xff\xfe", b"\0\x01\0\0\0\x05abcd", b"\0\0x"]
    {
        assert!(batch.push_copy_row(bad).is_err());
    }
    assert!(batch.push_copy_row(&copy_row(&[None])).is_err());
    assert_eq!((batch.len(), batch.rows().len()), (2, 2));
    assert_eq!(batch.cells.len(), 4);
}

proptest! {
    #[test]
    fn a_split_batch_is_the_same_changes(
        rows in prop::collection::vec((any::<Vec<u8>>(), any::<bool>(), 1u64..4), 1..20),
        at: prop::sample::Index,
    ) {
        let at = at.index(rows.len() + 1);
        let mut batch = RowBatch::new(table());
        let mut mark = batch.mark();
        let mut lsn = 0;
        for (ordinal, (bytes, update, step)) in rows.iter().enumerate() {
            lsn += step / 2;
            let row = tuple(&[(b'b', bytes), (b't', b"x")]);
            let txn = TxnMark { lsn: Lsn(lsn), ..TXN };
            let op = if *update { Op::Update } else { Op::Insert };
            let before = if *update { old(&row, false) } else { None };
            batch.push_change(txn, ordinal as u32, op, Some(Tuple { bytes: &row }), before).unwrap();
            if ordinal + 1 == at {
                mark = batch.mark();
            }
        }
        let described = |batch: &RowBatch| -> Vec<_> {
            batch.changes.iter().map(|change| {
                let row = |row: Option<&[Cell]>| row.map(|row| row.iter().map(|&c| batch.cell_bytes(c).map(<[u8]>::to_vec)).collect::<Vec<_>>());
                (batch.position(change), change.op, row(batch.new_row(change)), row(batch.old_row(change)))
            }).collect()
        };
        let whole = described(&batch);
        let tail = batch.split_off(mark);
        prop_assert_eq!(tail.is_some(), at < rows.len());
        let mut parts = described(&batch);
        prop_assert_eq!(parts.len(), at);
        parts.extend(tail.iter().flat_map(described));
        prop_assert_eq!(parts, whole);
    }
}
