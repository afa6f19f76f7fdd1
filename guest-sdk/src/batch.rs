//! A batch of rows as the host lays it out, seen column by column without copying. Knows no plan and no types
//! of its reader.

use crate::layout::{
    BATCH_MAGIC, Data, FLAG_HAS_OLD, FLAG_KEY_ONLY, FLAG_OLD, FLAG_OP, Flat, Malformed,
    STATE_ABSENT, malformed,
};

/// What happened to a row.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Op {
    /// It is part of a snapshot.
    Snapshot,
    Insert,
    Update,
    Delete,
}

#[derive(Debug)]
pub struct Batch<'a> {
    flags: &'a [u8],
    columns: Vec<ColumnView<'a>>,
}

#[derive(Clone, Copy, Debug)]
pub struct ColumnView<'a> {
    pub states: &'a [u8],
    pub data: Data<'a>,
}

impl<'a> Batch<'a> {
    /// Checks everything that reading rows relies on.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let flat = Flat::open(bytes, BATCH_MAGIC)?;
        let (rows, columns) = (flat.number(4)?, flat.number(8)?);
        let flags = flat.section(flat.number(16)?, rows)?;
        // No reservation by a number that has not been checked.
        let columns = (0..columns)
            .map(|index| {
                let entry = flat.entry(index)?;
                let states = flat.section(entry.states, rows)?;
                if states.iter().any(|state| *state > STATE_ABSENT) {
                    return malformed(format!("a state above {STATE_ABSENT} in column {index}"));
                }
                Ok(ColumnView { states, data: Data::read(flat, entry, rows)? })
            })
            .collect::<Result<Vec<_>, Malformed>>()?;
        Ok(Batch { flags, columns })
    }

    pub fn rows(&self) -> usize {
        self.flags.len()
    }

    pub fn columns(&self) -> &[ColumnView<'a>] {
        &self.columns
    }

    pub fn op(&self, row: usize) -> Op {
        match self.flags[row] & FLAG_OP {
            0 => Op::Snapshot,
            1 => Op::Insert,
            2 => Op::Update,
            _ => Op::Delete,
        }
    }

    /// Whether this is a row as it was before.
    pub fn is_old_image(&self, row: usize) -> bool {
        self.flags[row] & FLAG_OLD != 0
    }

    /// Whether nothing but the key is there. The guest is not asked about such a row.
    #[inline]
    pub fn is_key_only(&self, row: usize) -> bool {
        self.flags[row] & FLAG_KEY_ONLY != 0
    }

    /// The row that this row was before, if it is in the batch.
    pub fn old_image(&self, row: usize) -> Option<usize> {
        (self.flags[row] & FLAG_HAS_OLD != 0).then(|| row.checked_sub(1)).flatten()
    }
}
