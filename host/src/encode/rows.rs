//! Rows of a batch → the body of a change message, or the columns of a snapshot chunk.
//!
//! Where messages begin and end, guests and compression are not known here. After an error the
//! writer holds half a row: the caller discards it.

use std::ops::Range;

use walgate_wire::{ChangeWriter, ChunkColumn, ChunkWriter, Position, pack};

use crate::rows::{
    TableVersion,
    batch::{Cell, Change, Op, RowBatch},
};
use crate::{
    encode::{PackError, Packer, read_int2, read_int4, read_int8, read_oid, time},
    rows::Rendered,
};

/// A row that cannot be carried: which, why, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{table}, column {column} ({type_name}){}: {source}; {}", place_text(.position), remedy_text(.source, .table))]
pub struct RowError {
    pub table: String,
    pub column: String,
    /// As `format_type` prints it.
    pub type_name: String,
    /// Of the change; none in a snapshot.
    pub position: Option<Position>,
    pub source: PackError,
}

fn place_text(position: &Option<Position>) -> String {
    position.map_or_else(String::new, |position| format!(", change {position}"))
}

fn remedy_text(error: &PackError, table: &str) -> String {
    match error {
        PackError::Altered => format!(
            "changes written before an ALTER TYPE cannot be read after it: restart the gateway, and copies of {table} are loaded again"
        ),
        PackError::Missing => format!("ALTER TABLE {table} REPLICA IDENTITY FULL sends it"),
        PackError::NotRendered => "this is a mistake in Walgate, please report it".to_owned(),
        _ => "the type's send function is not the one that Postgres ships, or this is a mistake in Walgate: \
              leave the column out of the publication and report it"
            .to_owned(),
    }
}

/// The column, and why its cell cannot be packed.
type CellFailure = (usize, PackError);

/// Packs the rows of one table version.
#[derive(Clone, Debug)]
pub struct TablePacker {
    table: String,
    columns: Vec<PackedColumn>,
    /// Columns of an old row.
    old: Vec<usize>,
}

#[derive(Clone, Debug)]
struct PackedColumn {
    name: String,
    type_name: String,
    packer: Packer,
}

impl TablePacker {
    pub fn new(table: &TableVersion) -> Self {
        let columns =
            table.columns.iter().zip(&table.schema.columns).map(|(column, named)| PackedColumn {
                name: named.name.clone(),
                type_name: named.type_name.clone(),
                packer: Packer::new(&column.ty),
            });
        TablePacker {
            table: table.name.to_string(),
            columns: columns.collect(),
            old: table.schema.old.iter().map(|&index| index as usize).collect(),
        }
    }

    /// Whether batches need [`TablePacker::collect_server_rendered`] before they are packed.
    pub fn renders(&self) -> bool {
        self.columns.iter().any(|column| column.packer.renders())
    }

    /// A writer for chunks of this table.
    pub fn chunk_writer(&self) -> ChunkWriter {
        let delta: Vec<bool> = self.columns.iter().map(|column| column.packer.is_delta()).collect();
        ChunkWriter::new(&delta)
    }

    /// Notes in `rendered` what the server has to print before the batch can be packed.
    pub fn collect_server_rendered(
        &self,
        batch: &RowBatch,
        rendered: &mut Rendered,
    ) -> Result<(), RowError> {
        let width = self.columns.len();
        let mut scratch = Vec::new();
        for (index, column) in self.columns.iter().enumerate() {
            if !column.packer.renders() {
                continue;
            }
            // The cells of old rows are among these, too.
            for &cell in batch.cells.iter().skip(index).step_by(width) {
                let Cell::Binary { .. } = cell else { continue };
                let bytes = batch.cell_bytes(cell).unwrap_or_default();
                scratch.clear();
                let packed = column.packer.pack(bytes, &mut scratch, rendered);
                packed.map_err(|source| self.row_error((index, source), None))?;
            }
        }
        Ok(())
    }

    /// Appends the changes of `range`. The body gets a transaction mark before the first of them.
    pub fn pack_changes(
        &self,
        batch: &RowBatch,
        range: Range<usize>,
        writer: &mut ChangeWriter,
        rendered: &mut Rendered,
    ) -> Result<(), RowError> {
        let mut current = None;
        for change in &batch.changes[range] {
            if current != Some(change.txn) {
                current = Some(change.txn);
                let txn = batch.txn(change);
                writer.transaction(txn.lsn, txn.xid, txn.at_micros);
            }
            self.pack_change(batch, change, writer, rendered)
                .map_err(|failure| self.row_error(failure, Some(batch.position(change))))?;
        }
        self.check_complete(rendered)
    }

    /// Appends the rows of `range`, counted in rows of a COPY batch.
    pub fn pack_rows(
        &self,
        batch: &RowBatch,
        range: Range<usize>,
        writer: &mut ChunkWriter,
        rendered: &mut Rendered,
    ) -> Result<(), RowError> {
        let width = self.columns.len();
        let cells = &batch.cells[range.start * width..range.end * width];
        for (index, (column, into)) in self.columns.iter().zip(&mut writer.columns).enumerate() {
            let cells = cells.iter().skip(index).step_by(width).copied();
            pack_column(&column.packer, batch, cells, into, rendered)
                .map_err(|source| self.row_error((index, source), None))?;
        }
        range.for_each(|_| writer.end_row());
        self.check_complete(rendered)
    }

    fn pack_change(
        &self,
        batch: &RowBatch,
        change: &Change,
        writer: &mut ChangeWriter,
        rendered: &mut Rendered,
    ) -> Result<(), CellFailure> {
        let missing = (self.old.first().copied().unwrap_or(0), PackError::Missing);
        let new = batch.new_row(change).unwrap_or_default();
        let old = batch.old_row(change).filter(|_| !self.old.is_empty());
        match change.op {
            Op::Insert => {
                writer.insert(change.ordinal);
                self.pack_row(batch, new, &mut writer.out, rendered)
            }
            Op::Update => {
                let unchanged = new.iter().filter(|&&cell| cell == Cell::Unchanged).count();
                writer.update(change.ordinal, unchanged > 0, old.is_some());
                self.pack_row(batch, new, &mut writer.out, rendered)?;
                pack_unchanged(new, unchanged, old.is_some(), &mut writer.out);
                old.map_or(Ok(()), |old| self.pack_old(batch, old, &mut writer.out, rendered))
            }
            Op::Delete => {
                writer.delete(change.ordinal);
                self.pack_old(batch, old.ok_or(missing)?, &mut writer.out, rendered)
            }
            Op::Truncate => {
                writer.truncate(change.ordinal);
                Ok(())
            }
        }
    }

    fn pack_row(
        &self,
        batch: &RowBatch,
        row: &[Cell],
        out: &mut Vec<u8>,
        rendered: &mut Rendered,
    ) -> Result<(), CellFailure> {
        pack::array(out, self.columns.len());
        for (index, (column, &cell)) in self.columns.iter().zip(row).enumerate() {
            column.packer.pack_cell(batch, cell, out, rendered).map_err(|error| (index, error))?;
        }
        Ok(())
    }

    fn pack_old(
        &self,
        batch: &RowBatch,
        row: &[Cell],
        out: &mut Vec<u8>,
        rendered: &mut Rendered,
    ) -> Result<(), CellFailure> {
        pack::array(out, self.old.len());
        for &index in &self.old {
            let packed = match row[index] {
                Cell::Unchanged => Err(PackError::Missing),
                cell => self.columns[index].packer.pack_cell(batch, cell, out, rendered),
            };
            packed.map_err(|error| (index, error))?;
        }
        Ok(())
    }

    /// A value without its text is nil in the body, which must not be published.
    fn check_complete(&self, rendered: &Rendered) -> Result<(), RowError> {
        if rendered.is_complete() {
            return Ok(());
        }
        let index = self.columns.iter().position(|column| column.packer.renders()).unwrap_or(0);
        Err(self.row_error((index, PackError::NotRendered), None))
    }

    fn row_error(&self, (index, source): CellFailure, position: Option<Position>) -> RowError {
        let (column, type_name) = match self.columns.get(index) {
            Some(column) => (column.name.clone(), column.type_name.clone()),
            None => ("none".to_owned(), "the table has no columns".to_owned()),
        };
        RowError { table: self.table.clone(), column, type_name, position, source }
    }
}

impl Packer {
    /// Appends a cell of a row. An unchanged value is packed as nil, and its index is in a list.
    #[inline]
    pub fn pack_cell(
        &self,
        batch: &RowBatch,
        cell: Cell,
        out: &mut Vec<u8>,
        rendered: &mut Rendered,
    ) -> Result<(), PackError> {
        match (cell, batch.cell_bytes(cell)) {
            (Cell::Binary { .. }, Some(bytes)) => self.pack(bytes, out, rendered)?,
            (Cell::Text { .. }, Some(text)) => pack::str_bytes(out, text),
            _ => pack::nil(out),
        }
        Ok(())
    }
}

fn pack_unchanged(row: &[Cell], count: usize, has_old: bool, out: &mut Vec<u8>) {
    if count > 0 {
        pack::array(out, count);
        let unchanged = row.iter().enumerate().filter(|&(_, &cell)| cell == Cell::Unchanged);
        unchanged.for_each(|(index, _)| pack::uint(out, index as u64));
    } else if has_old {
        pack::nil(out);
    }
}

/// One column of many rows. The type is dispatched once, not for each value.
fn pack_column(
    packer: &Packer,
    batch: &RowBatch,
    cells: impl Iterator<Item = Cell>,
    into: &mut ChunkColumn,
    rendered: &mut Rendered,
) -> Result<(), PackError> {
    let mut ints = IntColumn { packer, batch, into, rendered };
    match packer {
        Packer::Int2 => ints.pack(cells, |bytes| read_int2(bytes).map(Some)),
        Packer::Int4 => ints.pack(cells, |bytes| read_int4(bytes).map(Some)),
        Packer::Int8 => ints.pack(cells, |bytes| read_int8(bytes).map(Some)),
        Packer::Oid => ints.pack(cells, |bytes| read_oid(bytes).map(Some)),
        Packer::Time => ints.pack(cells, |bytes| time::micros_of_day(bytes).map(Some)),
        Packer::Timestamp | Packer::TimestampTz => ints.pack(cells, time::unix_micros),
        Packer::Date => ints.pack(cells, time::unix_days),
        _ => {
            for cell in cells {
                packer.pack_cell(batch, cell, &mut into.out, rendered)?;
            }
            Ok(())
        }
    }
}

/// A column of integers, some of which may have to be text.
struct IntColumn<'a> {
    packer: &'a Packer,
    batch: &'a RowBatch,
    into: &'a mut ChunkColumn,
    rendered: &'a mut Rendered,
}

impl IntColumn<'_> {
    #[inline]
    fn pack(
        &mut self,
        cells: impl Iterator<Item = Cell>,
        read: impl Fn(&[u8]) -> Result<Option<i64>, PackError>,
    ) -> Result<(), PackError> {
        for cell in cells {
            if let (Cell::Binary { .. }, Some(bytes)) = (cell, self.batch.cell_bytes(cell))
                && let Some(int) = read(bytes)?
            {
                self.into.int(int);
            } else {
                self.packer.pack_cell(self.batch, cell, &mut self.into.out, self.rendered)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
