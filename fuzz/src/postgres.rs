//! The messages that Postgres sends: pgoutput, and rows of `COPY … (FORMAT binary)`.

mod encode;
mod tables;

use walgate_host::{
    encode::TablePacker,
    postgres::{
        replication::pgoutput::{Message, decode},
        snapshot::CopyFraming,
    },
    rows::{
        OldTuple, Rendered, Tuple,
        batch::{Cell, Op, RowBatch, TxnMark},
    },
};
use walgate_wire::{Caps, Lsn, decode_chunk};

use crate::HeapLimit;

/// A cell takes 12 bytes of memory and may take one byte of input. Lists grow by doubling.
const CELLS: HeapLimit = HeapLimit { per_byte: 64, fixed: 64 << 10 };

/// A decoded message round-trips. Its tuples become cells within the bytes of the batch, or the
/// batch refuses them and stays unchanged.
pub fn check_pgoutput(data: &[u8]) {
    let Ok(message) = CELLS.enforce(data, || decode(data)) else { return };
    if let Some(written) = encode::encode_message(&message) {
        assert_eq!(decode(&written).as_ref(), Ok(&message));
    }
    let (op, new, old) = match message {
        Message::Insert { new, .. } => (Op::Insert, Some(new), None),
        Message::Update { old, new, .. } => (Op::Update, Some(new), old),
        Message::Delete { old, .. } => (Op::Delete, None, Some(old)),
        _ => return,
    };
    // Old and new tuple may have different numbers of columns. Then the batch must refuse one.
    let columns = new.or(old.map(|old| old.tuple)).map_or(0, column_count);
    let mut batch = RowBatch::new(tables::text_table(columns));
    for ordinal in 1..=2 {
        push_and_check(&mut batch, ordinal, op, new, old, data);
    }
}

/// The number of columns in the header of a tuple, at most 1600, as in a table.
fn column_count(tuple: Tuple<'_>) -> usize {
    let count = tuple.bytes.first_chunk::<2>().map_or(0, |count| u16::from_be_bytes(*count));
    usize::from(count).min(1600)
}

fn push_and_check(
    batch: &mut RowBatch,
    ordinal: u32,
    op: Op,
    new: Option<Tuple<'_>>,
    old: Option<OldTuple<'_>>,
    data: &[u8],
) {
    let txn = TxnMark { lsn: Lsn(1), xid: 2, at_micros: 3 };
    let before = (batch.cells.clone(), batch.bytes.clone(), batch.changes.clone());
    let pushed = CELLS
        .enforce(&[data, &batch.bytes].concat(), || batch.push_change(txn, ordinal, op, new, old));
    if pushed.is_err() {
        assert_eq!(before, (batch.cells.clone(), batch.bytes.clone(), batch.changes.clone()));
        return;
    }
    assert_eq!(batch.changes.len(), ordinal as usize);
    assert!(batch.bytes.len() <= data.len() * ordinal as usize);
    check_cells(batch);
}

fn check_cells(batch: &RowBatch) {
    for &cell in &batch.cells {
        if let Cell::Binary { len, .. } | Cell::Text { len, .. } = cell {
            assert_eq!(batch.cell_bytes(cell).map(<[u8]>::len), Some(len as usize));
        }
    }
}

/// Packed values can be longer than those of Postgres, for instance numbers as text.
const PACKED: HeapLimit = HeapLimit { per_byte: 4096, fixed: 1 << 20 };

/// Rows of a COPY become a chunk that a consumer can read, unless a value cannot be packed.
///
/// The first byte selects the table. Messages follow, each after two bytes with its length.
pub fn check_copy(data: &[u8]) {
    let Some((&which, mut rest)) = data.split_first() else { return };
    let table = tables::typed_table(which);
    let mut framing = CopyFraming::new(&table);
    let mut batch = RowBatch::new(table.clone());
    while let Some((len, after)) = rest.split_first_chunk::<2>() {
        let (message, after) = after.split_at(after.len().min(u16::from_be_bytes(*len).into()));
        rest = after;
        let rows = batch.len();
        if framing.push(message, &mut batch).is_err() {
            assert_eq!((batch.len(), batch.cells.len()), (rows, rows * table.columns.len()));
            break;
        }
        if framing.has_ended() {
            break;
        }
    }
    assert!(batch.raw_bytes() <= data.len());
    check_cells(&batch);
    let packer = TablePacker::new(&table);
    let Some(body) = PACKED.enforce(data, || pack_chunk(&packer, &batch)) else { return };
    match decode_chunk(&body, table.columns.len(), &Caps::default()) {
        Ok(chunk) => assert_eq!(chunk.row_count, batch.len()),
        // The gateway relies on Postgres to send UTF-8; a consumer does not.
        Err(error) => assert_eq!(error.what, "a string is not UTF-8"),
    }
}

fn pack_chunk(packer: &TablePacker, batch: &RowBatch) -> Option<Vec<u8>> {
    let mut rendered = Rendered::default();
    packer.collect_server_rendered(batch, &mut rendered).ok()?;
    let missing = rendered.missing();
    let missing: Vec<(u32, Vec<Vec<u8>>)> = missing
        .map(|(oid, values)| (oid, values.into_iter().map(<[u8]>::to_vec).collect()))
        .collect();
    for (oid, values) in missing {
        values.iter().for_each(|value| rendered.insert(oid, value, "as printed".into()));
    }
    let mut writer = packer.chunk_writer();
    packer.pack_rows(batch, 0..batch.len(), &mut writer, &mut rendered).ok()?;
    let mut body = Vec::new();
    writer.finish(&mut body);
    Some(body)
}
