//! Reads a batch of rows in place, column by column. The gateway encodes it.
//!
//! This module knows neither the plan nor the Rust types into which rows are read.

use crate::layout::{
    BATCH_MAGIC, ColumnData, FLAG_HAS_OLD, FLAG_KEY_ONLY, FLAG_OLD, FLAG_OP, FlatBuffer, Malformed,
    STATE_ABSENT, malformed,
};

/// The operation by which a row reaches the guest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Op {
    /// A snapshot read the row.
    Snapshot,
    /// The row was inserted.
    Insert,
    /// The row was updated.
    Update,
    /// The row was deleted.
    Delete,
}

/// A decoded batch. It borrows the buffer.
#[derive(Debug)]
pub struct Batch<'a> {
    flags: &'a [u8],
    columns: Vec<ColumnView<'a>>,
}

/// A column of a batch.
#[derive(Clone, Copy, Debug)]
pub struct ColumnView<'a> {
    /// One `STATE_*` of [`crate::layout`] per row.
    pub states: &'a [u8],
    /// One value per row; it is a placeholder unless the state is `STATE_VALUE`.
    pub data: ColumnData<'a>,
}

impl<'a> Batch<'a> {
    /// Decodes a batch. After that, reading its rows cannot fail or panic.
    ///
    /// # Errors
    /// If the buffer does not have the layout of a batch.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let flat = FlatBuffer::open(bytes, BATCH_MAGIC)?;
        let (rows, columns) = (flat.u32_at(4)?, flat.u32_at(8)?);
        let flags = flat.section(flat.u32_at(16)?, rows)?;
        // The number of columns is not checked yet: reserve no memory for it.
        let columns = (0..columns)
            .map(|index| {
                let entry = flat.directory_entry(index)?;
                let states = flat.section(entry.states, rows)?;
                if states.iter().any(|state| *state > STATE_ABSENT) {
                    return malformed(format!("a state above {STATE_ABSENT} in column {index}"));
                }
                Ok(ColumnView { states, data: ColumnData::read(flat, entry, rows)? })
            })
            .collect::<Result<Vec<_>, Malformed>>()?;
        Ok(Batch { flags, columns })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.flags.len()
    }

    /// The columns, in the order of the plan's `reads`.
    pub fn columns(&self) -> &[ColumnView<'a>] {
        &self.columns
    }

    /// The operation of a row.
    ///
    /// # Panics
    /// Like the methods below, if there is no such row.
    pub fn op(&self, row: usize) -> Op {
        match self.flags[row] & FLAG_OP {
            0 => Op::Snapshot,
            1 => Op::Insert,
            2 => Op::Update,
            _ => Op::Delete,
        }
    }

    /// Whether the row is an old image: the values before an update or a delete.
    pub fn is_old_image(&self, row: usize) -> bool {
        self.flags[row] & FLAG_OLD != 0
    }

    /// Whether only the key of the row is known. The guest's function is not called for such a row.
    #[inline]
    pub fn is_key_only(&self, row: usize) -> bool {
        self.flags[row] & FLAG_KEY_ONLY != 0
    }

    /// The index of the row's old image, if the batch contains it.
    pub fn old_image(&self, row: usize) -> Option<usize> {
        (self.flags[row] & FLAG_HAS_OLD != 0).then(|| row.checked_sub(1)).flatten()
    }
}
