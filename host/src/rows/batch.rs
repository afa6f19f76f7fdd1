//! The row batch: consecutive rows of one table as Postgres sent them, with their positions in the
//! log.
//!
//! It is filled with pgoutput tuples or with rows of `COPY … BINARY`, and the packer reads it. The
//! bytes of a tuple are copied once, as a whole, and cells point into them. The binary form of
//! types is not known here.

use std::sync::Arc;

use walgate_wire::{Lsn, Position};

use crate::rows::{Malformed, OldTuple, TableVersion, Tuple};

/// Buffers of a batch that grew beyond this for one huge row are given back by [`RowBatch::clear`].
const KEEP_BYTES_MAX: usize = 2 << 20;

/// One value of a row; the bytes are `batch.bytes[start..start + len]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    Null,
    /// An unchanged TOAST value of an update: Postgres did not send it, and it is not NULL.
    Unchanged,
    /// As the type's send function writes it.
    Binary {
        start: u32,
        len: u32,
    },
    /// As the type prints itself; for types without a send function.
    Text {
        start: u32,
        len: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Insert,
    Update,
    Delete,
    Truncate,
}

/// The transaction of a run of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxnMark {
    /// Start of the commit record.
    pub lsn: Lsn,
    pub xid: u32,
    /// Commit time in microseconds since 1970.
    pub at_micros: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub op: Op,
    /// Index into the batch's `txns`.
    pub txn: u32,
    /// 1-based, among all the changes of the transaction.
    pub ordinal: u32,
    /// Index of the first cell of the new row: insert and update.
    pub new: Option<u32>,
    /// Index of the first cell of the old row: delete, and update where Postgres sent it.
    pub old: Option<u32>,
    /// The old row holds the key columns only, and the others are [`Cell::Null`]. False: it is the
    /// whole row.
    pub old_is_key: bool,
}

/// A row that cannot be added to a batch.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    #[error("{table}: {source}")]
    Malformed { table: String, source: Malformed },
    #[error(
        "{table}: a row arrived with {got} columns, but the table was announced with {expected}"
    )]
    ColumnCount { table: String, expected: usize, got: usize },
    #[error(
        "{table}: an update left the out-of-line key column {column} alone and Postgres did not send its value; \
         set REPLICA IDENTITY FULL on the table, or keep key values below 2 kB"
    )]
    UnchangedKey { table: String, column: String },
    #[error("{table}: a COPY row is malformed: {what}")]
    CopyRow { table: String, what: &'static str },
    #[error("{table}: a batch would exceed 4 GiB")]
    TooLarge { table: String },
}

impl BatchError {
    /// The table, with its schema.
    pub fn table(&self) -> &str {
        match self {
            BatchError::Malformed { table, .. }
            | BatchError::ColumnCount { table, .. }
            | BatchError::UnchangedKey { table, .. }
            | BatchError::CopyRow { table, .. }
            | BatchError::TooLarge { table } => table,
        }
    }
}

/// A position in a batch, between two changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    changes: usize,
    cells: usize,
    bytes: usize,
}

/// Rows of one table version, consecutive in the log or in a COPY.
#[derive(Clone, Debug)]
pub struct RowBatch {
    pub table: Arc<TableVersion>,
    pub bytes: Vec<u8>,
    pub cells: Vec<Cell>,
    pub txns: Vec<TxnMark>,
    /// In commit order; empty in a batch that came from a COPY.
    pub changes: Vec<Change>,
    copied_rows: usize,
}

impl RowBatch {
    pub fn new(table: Arc<TableVersion>) -> Self {
        RowBatch {
            table,
            bytes: vec![],
            cells: vec![],
            txns: vec![],
            changes: vec![],
            copied_rows: 0,
        }
    }

    /// The batch with other rows, of another version of its table. Cells and changes index into its
    /// bytes as before. `copied_rows`: the number of rows, if they came from a COPY.
    pub fn with_rows(
        self,
        table: Arc<TableVersion>,
        cells: Vec<Cell>,
        changes: Vec<Change>,
        copied_rows: usize,
    ) -> Self {
        RowBatch { table, cells, changes, copied_rows, ..self }
    }

    /// One change, or one row of a COPY, as a batch of its own.
    pub fn only(&self, index: usize) -> RowBatch {
        let mut one = RowBatch::new(Arc::clone(&self.table));
        let Some(change) = self.changes.get(index) else {
            let first = (index * self.table.columns.len()) as u32;
            if index < self.copied_rows {
                one.push_cells(self, first);
                one.copied_rows = 1;
            }
            return one;
        };
        let old = change.old.map(|first| one.push_cells(self, first));
        let new = change.new.map(|first| one.push_cells(self, first));
        one.txns.push(*self.txn(change));
        one.changes.push(Change { txn: 0, old, new, ..*change });
        one
    }

    fn push_cells(&mut self, of: &RowBatch, first: u32) -> u32 {
        let at = self.cells.len() as u32;
        for &cell in of.row_at(first) {
            let start = self.bytes.len() as u32;
            self.bytes.extend_from_slice(of.cell_bytes(cell).unwrap_or_default());
            self.cells.push(match cell {
                Cell::Binary { len, .. } => Cell::Binary { start, len },
                Cell::Text { len, .. } => Cell::Text { start, len },
                other => other,
            });
        }
        at
    }

    /// Empties the batch for reuse with `table` and keeps its buffers.
    pub fn clear(&mut self, table: Arc<TableVersion>) {
        self.table = table;
        self.bytes.clear();
        self.bytes.shrink_to(KEEP_BYTES_MAX);
        self.cells.clear();
        self.cells.shrink_to(KEEP_BYTES_MAX / size_of::<Cell>());
        self.txns.clear();
        self.changes.clear();
        self.copied_rows = 0;
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.copied_rows == 0
    }

    /// Size of the tuples as Postgres sent them.
    pub fn raw_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Number of changes, or of copied rows.
    pub fn len(&self) -> usize {
        self.changes.len().max(self.copied_rows)
    }

    /// The row that begins at this cell; one cell a column of the table.
    pub fn row_at(&self, first_cell: u32) -> &[Cell] {
        let first = first_cell as usize;
        &self.cells[first..first + self.table.columns.len()]
    }

    pub fn new_row(&self, change: &Change) -> Option<&[Cell]> {
        change.new.map(|first| self.row_at(first))
    }

    pub fn old_row(&self, change: &Change) -> Option<&[Cell]> {
        change.old.map(|first| self.row_at(first))
    }

    /// Rows of a COPY, in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[Cell]> {
        let columns = self.table.columns.len();
        (0..self.copied_rows).map(move |row| &self.cells[row * columns..(row + 1) * columns])
    }

    /// The bytes of a binary or text cell; none for the others.
    pub fn cell_bytes(&self, cell: Cell) -> Option<&[u8]> {
        match cell {
            Cell::Null | Cell::Unchanged => None,
            Cell::Binary { start, len } | Cell::Text { start, len } => {
                Some(&self.bytes[start as usize..start as usize + len as usize])
            }
        }
    }

    /// Whether a new row has an unchanged cell in one of these columns.
    pub fn lacks_values(&self, columns: &[usize]) -> bool {
        let lacks = |first: u32| {
            let row = self.row_at(first);
            columns.iter().any(|&column| row[column] == Cell::Unchanged)
        };
        !columns.is_empty() && self.changes.iter().filter_map(|change| change.new).any(lacks)
    }

    pub fn txn(&self, change: &Change) -> &TxnMark {
        &self.txns[change.txn as usize]
    }

    pub fn position(&self, change: &Change) -> Position {
        Position::new(self.txn(change).lsn, change.ordinal)
    }

    pub fn last_position(&self) -> Option<Position> {
        self.changes.last().map(|change| self.position(change))
    }

    /// Appends a change. After an error the batch is as it was.
    pub fn push_change(
        &mut self,
        txn: TxnMark,
        ordinal: u32,
        op: Op,
        new: Option<Tuple<'_>>,
        old: Option<OldTuple<'_>>,
    ) -> Result<(), BatchError> {
        let (cells, bytes) = (self.cells.len(), self.bytes.len());
        let rows = self.push_rows(op, new, old);
        if rows.is_err() {
            self.cells.truncate(cells);
            self.bytes.truncate(bytes);
        }
        let (new, old_row) = rows?;
        let old_is_key = old.is_some_and(|old| old.key_only);
        if self.txns.last() != Some(&txn) {
            self.txns.push(txn);
        }
        let txn = self.txns.len() as u32 - 1;
        self.changes.push(Change { op, txn, ordinal, new, old: old_row, old_is_key });
        Ok(())
    }

    /// The end of the batch as it is now.
    pub fn mark(&self) -> Mark {
        Mark { changes: self.changes.len(), cells: self.cells.len(), bytes: self.bytes.len() }
    }

    /// Takes the changes after `mark` out into a batch of their own; none if there are none.
    pub fn split_off(&mut self, mark: Mark) -> Option<RowBatch> {
        if mark.changes >= self.changes.len() {
            return None;
        }
        let first_txn = self.changes[mark.changes].txn;
        let (cells, bytes) = (mark.cells as u32, mark.bytes as u32);
        let mut tail = RowBatch::new(self.table.clone());
        tail.bytes.extend_from_slice(&self.bytes[mark.bytes..]);
        tail.cells.extend(self.cells[mark.cells..].iter().map(|cell| match *cell {
            Cell::Binary { start, len } => Cell::Binary { start: start - bytes, len },
            Cell::Text { start, len } => Cell::Text { start: start - bytes, len },
            other => other,
        }));
        tail.txns.extend_from_slice(&self.txns[first_txn as usize..]);
        tail.changes.extend(self.changes[mark.changes..].iter().map(|change| Change {
            txn: change.txn - first_txn,
            new: change.new.map(|first| first - cells),
            old: change.old.map(|first| first - cells),
            ..*change
        }));
        self.bytes.truncate(mark.bytes);
        self.cells.truncate(mark.cells);
        self.changes.truncate(mark.changes);
        self.txns.truncate(self.changes.last().map_or(0, |change| change.txn as usize + 1));
        Some(tail)
    }

    fn push_rows(
        &mut self,
        op: Op,
        new: Option<Tuple<'_>>,
        old: Option<OldTuple<'_>>,
    ) -> Result<(Option<u32>, Option<u32>), BatchError> {
        let old_row = old.map(|old| self.push_tuple(old.tuple)).transpose()?;
        let new_row = new.map(|new| self.push_tuple(new)).transpose()?;
        if let (Op::Update, Some(new)) = (op, new_row) {
            self.fill_unchanged(new, old_row, old.is_some_and(|old| old.key_only))?;
        }
        Ok((new_row, old_row))
    }

    fn push_tuple(&mut self, tuple: Tuple<'_>) -> Result<u32, BatchError> {
        let first = self.cells.len();
        let base = self.next_offset(tuple.bytes.len())?;
        let result = tuple.cells_into(base, &mut self.cells);
        result.map_err(|source| BatchError::Malformed {
            table: self.table.name.to_string(),
            source,
        })?;
        self.check_count(self.cells.len() - first)?;
        self.bytes.extend_from_slice(tuple.bytes);
        Ok(first as u32)
    }

    /// Copies unchanged cells from the old row, or from its key.
    fn fill_unchanged(
        &mut self,
        new: u32,
        old: Option<u32>,
        old_is_key: bool,
    ) -> Result<(), BatchError> {
        for (index, column) in self.table.columns.iter().enumerate() {
            let at = new as usize + index;
            if self.cells[at] != Cell::Unchanged {
                continue;
            }
            match old {
                // A partition without FULL, whose root has it, sends nulls that are not old values.
                Some(old)
                    if (!old_is_key || column.key)
                        && self.cells[old as usize + index] != Cell::Null =>
                {
                    self.cells[at] = self.cells[old as usize + index];
                }
                _ => {}
            }
            if column.key && self.cells[at] == Cell::Unchanged {
                let column = self.table.schema.columns.get(index).map(|c| c.name.clone());
                return Err(BatchError::UnchangedKey {
                    table: self.table.name.to_string(),
                    column: column.unwrap_or_default(),
                });
            }
        }
        Ok(())
    }

    /// Appends one row of `COPY … TO STDOUT (FORMAT binary)`: a field count, then length and bytes
    /// of each field. The caller strips the header, which precedes the first row, and the trailer.
    pub fn push_copy_row(&mut self, row: &[u8]) -> Result<(), BatchError> {
        let base = self.next_offset(row.len())?;
        let first = self.cells.len();
        if let Err(what) = copy_cells(row, base, &mut self.cells) {
            self.cells.truncate(first);
            return Err(BatchError::CopyRow { table: self.table.name.to_string(), what });
        }
        self.check_count(self.cells.len() - first)?;
        self.bytes.extend_from_slice(row);
        self.copied_rows += 1;
        Ok(())
    }

    /// The offset of the next `more` bytes; cells address with 32 bits.
    fn next_offset(&mut self, more: usize) -> Result<u32, BatchError> {
        let too_large = || BatchError::TooLarge { table: self.table.name.to_string() };
        let end = self.bytes.len().saturating_add(more);
        u32::try_from(end).map_err(|_| too_large())?;
        Ok((end - more) as u32)
    }

    fn check_count(&mut self, got: usize) -> Result<(), BatchError> {
        let expected = self.table.columns.len();
        if got == expected {
            return Ok(());
        }
        self.cells.truncate(self.cells.len() - got);
        Err(BatchError::ColumnCount { table: self.table.name.to_string(), expected, got })
    }
}

fn copy_cells(row: &[u8], base: u32, cells: &mut Vec<Cell>) -> Result<(), &'static str> {
    let (count, _) = row.split_first_chunk::<2>().ok_or("it ends before its field count")?;
    let mut at = 2usize;
    for _ in 0..u16::from_be_bytes(*count) {
        let (len, rest) =
            row[at..].split_first_chunk::<4>().ok_or("it ends before a field's length")?;
        let len = i32::from_be_bytes(*len);
        at += 4;
        if len == -1 {
            cells.push(Cell::Null);
            continue;
        }
        let len = u32::try_from(len).map_err(|_| "a field's length is negative")?;
        if len as usize > rest.len() {
            return Err("a field is longer than the row");
        }
        cells.push(Cell::Binary { start: base + at as u32, len });
        at += len as usize;
    }
    if at == row.len() { Ok(()) } else { Err("bytes follow the last field") }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
