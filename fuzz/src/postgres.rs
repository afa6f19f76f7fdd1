//! Bytes that Postgres sends: messages of pgoutput, and rows of `COPY … (FORMAT binary)`.

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

use crate::Peak;

/// A cell of 12 bytes can come from one byte; lists grow by doubling.
const CELLS: Peak = Peak { per_byte: 64, fixed: 64 << 10 };

/// A message is written back, and reads as the same. Its tuples become cells within their bytes, or
/// leave the batch unchanged.
pub fn pgoutput(data: &[u8]) {
    let Ok(message) = CELLS.of(data, || decode(data)) else { return };
    if let Some(written) = encode::message(&message) {
        assert_eq!(decode(&written).as_ref(), Ok(&message));
    }
    let (op, new, old) = match message {
        Message::Insert { new, .. } => (Op::Insert, Some(new), None),
        Message::Update { old, new, .. } => (Op::Update, Some(new), old),
        Message::Delete { old, .. } => (Op::Delete, None, Some(old)),
        _ => return,
    };
    // An old and a new tuple may differ in width; then the batch has to refuse one of them.
    let columns = new.or(old.map(|old| old.tuple)).map_or(0, width);
    let mut batch = RowBatch::new(tables::texts(columns));
    for ordinal in 1..=2 {
        gathered(&mut batch, ordinal, op, new, old, data);
    }
}

/// The number of columns that a tuple announces; tables have at most 1600.
fn width(tuple: Tuple<'_>) -> usize {
    let count = tuple.bytes.first_chunk::<2>().map_or(0, |count| u16::from_be_bytes(*count));
    usize::from(count).min(1600)
}

fn gathered(
    batch: &mut RowBatch,
    ordinal: u32,
    op: Op,
    new: Option<Tuple<'_>>,
    old: Option<OldTuple<'_>>,
    data: &[u8],
) {
    let txn = TxnMark { lsn: Lsn(1), xid: 2, at_micros: 3 };
    let before = (batch.cells.clone(), batch.bytes.clone(), batch.changes.clone());
    let pushed =
        CELLS.of(&[data, &batch.bytes].concat(), || batch.push_change(txn, ordinal, op, new, old));
    if pushed.is_err() {
        assert_eq!(before, (batch.cells.clone(), batch.bytes.clone(), batch.changes.clone()));
        return;
    }
    assert_eq!(batch.changes.len(), ordinal as usize);
    assert!(batch.bytes.len() <= data.len() * ordinal as usize);
    cells_lie_in_their_bytes(batch);
}

fn cells_lie_in_their_bytes(batch: &RowBatch) {
    for &cell in &batch.cells {
        if let Cell::Binary { len, .. } | Cell::Text { len, .. } = cell {
            assert_eq!(batch.cell_bytes(cell).map(<[u8]>::len), Some(len as usize));
        }
    }
}

/// Values on the wire are wider than in Postgres, and numbers are longer as text.
const PACKED: Peak = Peak { per_byte: 4096, fixed: 1 << 20 };

/// The first byte selects the table; messages follow, each after its length in two bytes. The rows
/// become a chunk, which a consumer reads with the same number of rows. Otherwise one of them
/// cannot be encoded.
pub fn copy(data: &[u8]) {
    let Some((&which, mut rest)) = data.split_first() else { return };
    let table = tables::typed(which);
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
        if framing.ended() {
            break;
        }
    }
    assert!(batch.raw_bytes() <= data.len());
    cells_lie_in_their_bytes(&batch);
    let packer = TablePacker::new(&table);
    let Some(body) = PACKED.of(data, || packed(&packer, &batch)) else { return };
    match decode_chunk(&body, table.columns.len(), &Caps::default()) {
        Ok(chunk) => assert_eq!(chunk.row_count, batch.len()),
        // Postgres promises UTF-8; a consumer does not rely on it.
        Err(error) => assert_eq!(error.what, "a string is not UTF-8"),
    }
}

fn packed(packer: &TablePacker, batch: &RowBatch) -> Option<Vec<u8>> {
    let mut rendered = Rendered::default();
    packer.collect(batch, &mut rendered).ok()?;
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
