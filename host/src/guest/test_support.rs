//! Tables, batches and plans for the tests of guests.

use std::sync::Arc;

use walgate_wire::{Column, Guest, Identity, Lsn};

use crate::guest::plan::{CompiledPlan, OutputColumn, PlanAnswer};
use crate::{
    rows::test_support::{table_version, tuple},
    rows::{
        Binary, ColumnType, OldTuple, TableVersion, Tuple, Type,
        batch::{Cell, Op, RowBatch, TxnMark},
    },
};

pub const TXN: TxnMark = TxnMark { lsn: Lsn(0x10), xid: 7, at_micros: 0 };

/// `public.t` with these columns, of which the first is the key.
pub fn table(columns: &[(&str, Type)], identity: Identity) -> Arc<TableVersion> {
    let mut table = (*table_version("t", 7, columns.len())).clone();
    for (index, (name, ty)) in columns.iter().enumerate() {
        let column = &mut table.schema.columns[index];
        *column = Column {
            name: (*name).to_owned(),
            type_name: format!("type {}", ty.oid),
            oid: ty.oid,
            ..column.clone()
        };
        let key = table.columns[index].key;
        table.columns[index] =
            ColumnType { oid: ty.oid, typmod: -1, ty: ty.clone(), binary: Binary::Yes, key };
    }
    table.schema.key = vec![columns[0].0.to_owned()];
    table.schema.identity = identity;
    if identity == Identity::Full {
        table.schema.old = (0..columns.len() as u32).collect();
    }
    Arc::new(table)
}

/// `id` (the key), `a` and `b`, all text.
pub fn texts(identity: Identity) -> Arc<TableVersion> {
    let text = || Type::base(25);
    table(&[("id", text()), ("a", text()), ("b", text())], identity)
}

pub fn guest() -> Guest {
    Guest { name: "g".into(), version: "1".into(), sha256: "0".into() }
}

pub fn reads(columns: &[&str]) -> Vec<(String, bool)> {
    columns.iter().map(|column| ((*column).to_owned(), false)).collect()
}

pub fn output(column: &str, type_name: &str) -> OutputColumn {
    OutputColumn { column: column.into(), type_name: type_name.into(), nullable: true }
}

pub fn plan(table: &Arc<TableVersion>, answer: PlanAnswer) -> CompiledPlan {
    CompiledPlan::new(Arc::clone(table), answer, guest()).unwrap()
}

/// A cell of a test row: none is NULL, `?` is unchanged.
pub type Text<'a> = Option<&'a str>;

fn bytes(row: &[Text<'_>]) -> Vec<u8> {
    let cells: Vec<(u8, &[u8])> = row
        .iter()
        .map(|cell| match cell {
            None => (b'n', &b""[..]),
            Some("?") => (b'u', &b""[..]),
            Some(text) => (b'b', text.as_bytes()),
        })
        .collect();
    tuple(&cells)
}

/// Adds a change of text columns; `key_only` is about the old row.
pub fn change(
    batch: &mut RowBatch,
    op: Op,
    new: Option<&[Text<'_>]>,
    old: Option<(&[Text<'_>], bool)>,
) {
    let new = new.map(bytes);
    let old = old.map(|(old, key_only)| (bytes(old), key_only));
    let ordinal = batch.changes.len() as u32 + 1;
    let new = new.as_deref().map(|bytes| Tuple { bytes });
    let old = old
        .as_ref()
        .map(|(bytes, key_only)| OldTuple { tuple: Tuple { bytes }, key_only: *key_only });
    batch.push_change(TXN, ordinal, op, new, old).unwrap();
}

pub fn insert(batch: &mut RowBatch, row: &[Text<'_>]) {
    change(batch, Op::Insert, Some(row), None);
}

/// Rows of a COPY.
pub fn copied(table: &Arc<TableVersion>, rows: &[Vec<Option<&[u8]>>]) -> RowBatch {
    let mut batch = RowBatch::new(Arc::clone(table));
    for row in rows {
        let mut bytes = (row.len() as u16).to_be_bytes().to_vec();
        for cell in row {
            match cell {
                None => bytes.extend((-1i32).to_be_bytes()),
                Some(cell) => {
                    bytes.extend((cell.len() as i32).to_be_bytes());
                    bytes.extend_from_slice(cell);
                }
            }
        }
        batch.push_copy_row(&bytes).unwrap();
    }
    batch
}

/// `+ new`, `~ old > new`, `- old` and `0` for each change. A comma is between cells, `·` is null,
/// `?` is unchanged. Old rows that are keys are in brackets. Copied rows are shown without a sign.
pub fn show(batch: &RowBatch) -> Vec<String> {
    let row = |cells: &[Cell]| {
        let cell = |&cell: &Cell| match cell {
            Cell::Null => "·".to_owned(),
            Cell::Unchanged => "?".to_owned(),
            cell => String::from_utf8_lossy(batch.cell_bytes(cell).unwrap()).into_owned(),
        };
        cells.iter().map(cell).collect::<Vec<_>>().join(",")
    };
    if batch.changes.is_empty() {
        return batch.rows().map(row).collect();
    }
    let shown = batch.changes.iter().map(|change| {
        let new = batch.new_row(change).map(row).unwrap_or_default();
        let old = batch.old_row(change).map(row).unwrap_or_default();
        let old = if change.old_is_key { format!("[{old}]") } else { old };
        match change.op {
            Op::Insert => format!("+ {new}"),
            Op::Update => format!("~ {old} > {new}"),
            Op::Delete => format!("- {old}"),
            Op::Truncate => "0".to_owned(),
        }
    });
    shown.collect()
}
